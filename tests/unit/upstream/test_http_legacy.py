"""The legacy HTTP link against a strict real server of the handshake revisions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context as SdkContext
from msgspec import Raw

from mcpgw.model.calls import (
    NOTHING,
    Ask,
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    OtherNote,
    Parting,
    Progress,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.ports import LinkInfo, UpstreamError
from mcpgw.upstream import http_legacy_call, http_legacy_hear
from mcpgw.upstream.http1 import Client
from mcpgw.upstream.http_legacy import HttpLegacyLink
from tests.doubles import (
    PATIENCE,
    PlainSecrets,
    Recorder,
    context,
    obj,
    plain,
    server,
    snapshot,
)
from tests.servers.http_base import Dropped, Ears, Exchange, HttpServer, Script, running
from tests.servers.http_legacy import LegacyServer

pytestmark = pytest.mark.anyio


class Ran:
    """A running link with what it heard."""

    def __init__(self, link: HttpLegacyLink, info: LinkInfo, heard: Ears) -> None:
        self.link = link
        self.info = info
        self.heard = heard


@contextlib.asynccontextmanager
async def ran(
    app: HttpServer,
    *,
    capabilities: Mapping[str, Raw] = NOTHING,
    url: str | None = None,
    secrets: PlainSecrets | None = None,
    **fields: Any,
) -> AsyncGenerator[Ran]:
    heard = Ears()
    async with running(app) as origin:
        client = Client(origin)
        link = HttpLegacyLink(
            server("up", transport="http", url=url or app.url, **fields),
            client=client,
            secrets=secrets or PlainSecrets(),
            capabilities=capabilities,
            heard=heard,
        )

        async def run(*, task_status: anyio.abc.TaskStatus[LinkInfo]) -> None:
            await link.run(task_status=task_status)

        try:
            async with anyio.create_task_group() as tasks:
                with anyio.fail_after(PATIENCE):
                    info: LinkInfo = await tasks.start(run)
                yield Ran(link, info, heard)
                tasks.cancel_scope.cancel()
        finally:
            await client.aclose()
    if isinstance(app, LegacyServer):
        assert app.violations == []


def calling(name: str, arguments: Any = None, **fields: Any) -> Call:
    """A tools/call. Fields of Call by name, all others are the context's."""
    own = {k: fields.pop(k) for k in list(fields) if k in Call.__struct_fields__}
    params = obj(name=name, arguments=arguments or {})
    return Call("tools/call", params, context(snapshot(), **fields), **own)


async def failing(link: HttpLegacyLink, call: Call, caller: Recorder | None = None) -> RpcError:
    with anyio.fail_after(PATIENCE), pytest.raises(RpcError) as caught:
        await link.handle(call, caller or Recorder())
    return caught.value


def one(script: Script, **fields: Any) -> LegacyServer:
    return LegacyServer(tool=script, **fields)


# ---------------------------------------------------------------- sessions


async def test_a_session_from_hello_to_goodbye() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        assert not up.info.modern
        assert up.info.asks_in_stream
        assert up.info.revision == "2025-11-25"
        assert plain(up.info.server) == {"name": "legacy", "version": "1"}
        assert up.info.instructions == "Be kind."
        await app.reached("GET")
        reply = await up.link.handle(calling("echo", {"a": 1}), Recorder())
        assert isinstance(reply, Done)
        assert plain(reply.result["structuredContent"]) == {"a": 1}
    first = app.seen[0].params
    assert first["protocolVersion"] == "2025-11-25"
    assert first["capabilities"] == {}
    assert first["clientInfo"]["name"] == "mcpgw"
    kinds = [exchange.rpc or exchange.method for exchange in app.seen]
    assert kinds == ["initialize", "notifications/initialized", "GET", "tools/call", "DELETE"]
    assert app.sessions == set()


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_revision_is_taken_as_it_is(revision: str) -> None:
    app = LegacyServer(revision=revision)
    async with ran(app) as up:
        assert up.info.revision == revision
        assert isinstance(await up.link.handle(calling("echo"), Recorder()), Done)


async def test_a_server_without_sessions() -> None:
    app = LegacyServer(sessions=False)
    async with ran(app) as up:
        await up.link.handle(calling("echo"), Recorder())
    assert not app.of("DELETE")
    assert all("mcp-session-id" not in exchange.headers for exchange in app.seen)


async def test_a_hundred_calls_are_a_hundred_requests() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        for number in range(100):
            await up.link.handle(calling("echo", {"n": number}), Recorder())
        assert len(app.of("tools/call")) == 100
        assert len(app.of("POST")) == 102
    assert len({exchange.message["id"] for exchange in app.of("tools/call")}) == 100


async def failing_run(script: Script) -> UpstreamError:
    app = LegacyServer(initialize=script)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with ran(app):
            raise AssertionError("it ran")
    found = caught.value.subgroup(UpstreamError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, UpstreamError)
    return found


async def test_what_cannot_be_agreed() -> None:
    async def modern(exchange: Exchange) -> None:
        await exchange.result(protocolVersion="2026-07-28", capabilities={})

    async def refused(exchange: Exchange) -> None:
        await exchange.error(-32602, "go away")

    async def strange(exchange: Exchange) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-11-25"}}
        await exchange.json(body, headers={"mcp-session-id": "a b"})

    async def unauthorized(exchange: Exchange) -> None:
        await exchange.respond(401)

    async def page(exchange: Exchange) -> None:
        await exchange.respond(200, b"<html>", "text/html")

    assert "2026-07-28" in (await failing_run(modern)).message
    assert "go away" in (await failing_run(refused)).message
    assert "visible ASCII" in (await failing_run(strange)).message
    assert (await failing_run(unauthorized)).stage == "auth"
    assert "text/html" in (await failing_run(page)).message


async def test_initialize_over_a_stream() -> None:
    async def script(exchange: Exchange) -> None:
        app.sessions.add("s")
        await exchange.stream({"mcp-session-id": "s"})
        await exchange.event(None, id="0")
        await exchange.result(protocolVersion="2025-11-25", capabilities={}, serverInfo={})

    app = LegacyServer(initialize=script)
    async with ran(app) as up:
        assert isinstance(await up.link.handle(calling("echo"), Recorder()), Done)


@pytest.mark.parametrize("status", [404, 400])
async def test_a_forgotten_session_is_begun_anew_once_for_all(status: int) -> None:
    class Forgetful(LegacyServer):
        async def script(self, exchange: Exchange) -> None:
            session = exchange.headers.get("mcp-session-id")
            if session is not None and session not in self.sessions and status == 400:
                error = {"code": -32000, "message": "Bad Request: No valid session ID"}
                await exchange.json({"jsonrpc": "2.0", "id": None, "error": error}, 400)
                return
            await super().script(exchange)

    app = Forgetful()
    async with ran(app) as up:
        await app.reached("GET")
        app.sessions.clear()
        replies: list[Any] = []

        async def one() -> None:
            replies.append(await up.link.handle(calling("echo"), Recorder()))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
        assert len(replies) == 5
        assert all(isinstance(reply, Done) for reply in replies)
        assert len(app.of("initialize")) == 2
        await app.reached("GET", 2)
    # Five were refused and sent again, and none was carried out twice.
    assert len(app.of("tools/call")) == 10


async def test_a_session_that_is_lost_again_at_once_is_an_error() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        app.keeps_sessions = False

        async def never(exchange: Exchange) -> None:
            await exchange.respond(404)

        app.scripts["tools/call"] = never
        error = await failing(up.link, calling("echo"))
    assert error.code == -32000
    assert len(app.of("tools/call")) <= 2


async def test_the_goodbye_is_for_the_session_of_the_moment() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        app.sessions.clear()
        await up.link.handle(calling("echo"), Recorder())
    (goodbye,) = app.of("DELETE")
    assert goodbye.headers["mcp-session-id"] == "session-2"


async def test_a_log_level_is_set_in_a_new_session_when_the_old_one_is_forgotten() -> None:
    app = LegacyServer()
    app.capabilities = {"logging": {}}
    async with ran(app) as up:
        app.sessions.clear()
        await up.link.handle(calling("echo", log_level="info"), Recorder())
        await up.link.handle(calling("echo", log_level="info"), Recorder())
        sessions = [one.headers["mcp-session-id"] for one in app.of("logging/setLevel")]
    assert sessions == ["session-1", "session-2"]


async def test_a_server_whose_get_is_not_found_keeps_its_session() -> None:
    async def get(exchange: Exchange) -> None:
        await exchange.respond(404)

    app = LegacyServer(GET=get)
    async with ran(app) as up:
        await app.reached("GET")
        for _ in range(5):
            await up.link.handle(calling("echo"), Recorder())
    assert len(app.of("GET")) == 1
    assert len(app.of("initialize")) == 1


async def test_a_stream_of_a_forgotten_session_begins_another() -> None:
    async def get(exchange: Exchange) -> None:
        await exchange.stream()
        if len(app.of("GET")) == 1:
            await exchange.event(None, id="g-1", retry=1)
            app.sessions.clear()
            await exchange.end()
        else:
            await exchange.gone()

    app = LegacyServer(GET=get)
    app.capabilities = {"tools": {"listChanged": True}}
    async with ran(app) as up:
        assert await up.heard.noted(1) == [ListChanged("tools")]
        last = await app.reached("GET", 3)
    assert last.headers["mcp-session-id"] == "session-2"
    assert "last-event-id" not in last.headers


async def test_an_unknown_method_is_no_forgotten_session() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.error(-32601, "no such method", status=404)

    app = one(script)
    async with ran(app) as up:
        assert (await failing(up.link, calling("tool"))).code == -32601
    assert len(app.of("initialize")) == 1


# ---------------------------------------------------------------- answers


async def test_results_get_what_the_core_wants() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        ctx = context(snapshot())
        listed = await up.link.handle(Call("tools/list", {}, ctx), Recorder())
        assert isinstance(listed, Done)
        assert plain(listed.result["ttlMs"]) == 0
        assert plain(listed.result["cacheScope"]) == "private"
        found = await up.link.handle(Call("server/discover", {}, ctx), Recorder())
        assert isinstance(found, Done)
        assert plain(found.result["supportedVersions"]) == ["2025-11-25"]
    assert not app.of("server/discover")


async def test_what_is_unknown_crosses_untouched() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.json(
            b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"new","n":1e400}],"y":null}}'
            % exchange.message["id"]
        )

    async with ran(one(script)) as up:
        reply = await up.link.handle(calling("tool"), Recorder())
    assert isinstance(reply, Done)
    assert bytes(reply.result["content"]) == b'[{"type":"new","n":1e400}]'
    assert bytes(reply.result["y"]) == b"null"


async def test_a_batch_as_an_answer() -> None:
    async def script(exchange: Exchange) -> None:
        note: Any = {"jsonrpc": "2.0", "method": "notifications/other", "params": {}}
        result: Any = {"jsonrpc": "2.0", "id": exchange.message["id"], "result": {"content": []}}
        await exchange.json([note, result])

    async with ran(one(script, revision="2025-03-26")) as up:
        caller = Recorder()
        assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))
        assert caller.notes == [OtherNote("notifications/other", {})]


async def test_a_batch_in_a_stream_and_events_of_other_names() -> None:
    async def script(exchange: Exchange) -> None:
        note: Any = {"jsonrpc": "2.0", "method": "notifications/other", "params": {}}
        result: Any = {"jsonrpc": "2.0", "id": exchange.message["id"], "result": {"content": []}}
        await exchange.stream()
        await exchange.write(b"event: ping\ndata: now\n\n")
        await exchange.event([note, note, result])
        await exchange.end()

    async with ran(one(script, revision="2025-03-26")) as up:
        caller = Recorder()
        assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))
        assert len(caller.notes) == 2


async def test_legacy_errors_become_modern_ones() -> None:
    async def missing(exchange: Exchange) -> None:
        await exchange.error(-32002, "not found", {"uri": "a:b"})

    async def connect(exchange: Exchange) -> None:
        ask = {"mode": "url", "url": "https://x/", "message": "go", "elicitationId": "e1"}
        await exchange.error(-32042, "connect first", {"elicitations": [ask]})

    async with ran(LegacyServer(missing=missing, connect=connect)) as up:
        assert (await failing(up.link, calling("missing"))).code == -32602
        assert (await failing(up.link, calling("connect"))).code == -32021
        able = calling("connect", capabilities=obj(elicitation={"url": {}}))
        reply = await up.link.handle(able, Recorder())
    assert isinstance(reply, NeedInput)
    assert reply.asks["e1"].method == "elicitation/create"
    assert plain(reply.asks["e1"].params)["url"] == "https://x/"


async def test_notes_of_a_call_come_in_order() -> None:
    async def script(exchange: Exchange) -> None:
        token = exchange.meta["progressToken"]
        await exchange.stream()
        await exchange.event(None, id="p")
        await exchange.note("notifications/progress", progressToken=token, progress=1)
        await exchange.note("notifications/message", level="debug", data="quiet")
        await exchange.note("notifications/message", level="error", data="loud")
        await exchange.note("notifications/tools/list_changed")
        await exchange.result(content=[])

    app = one(script)
    app.capabilities["logging"] = {}
    async with ran(app) as up:
        caller = Recorder()
        call = calling("tool", wants_progress=True, log_level="warning")
        assert await up.link.handle(call, caller) == Done(obj(content=[]))
        await up.link.handle(calling("tool", wants_progress=True, log_level="error"), Recorder())
        await up.link.handle(calling("tool", wants_progress=True, log_level="debug"), Recorder())
    assert caller.notes == [
        Progress(obj(progress=1)),
        Log("error", obj(level="error", data="loud")),
    ]
    assert up.heard.notes[0] == ListChanged("tools")
    levels = [exchange.params["level"] for exchange in app.of("logging/setLevel")]
    assert levels == ["warning", "debug"]


# ---------------------------------------------------------------- asking


ELICIT: dict[str, Any] = {
    "message": "name?",
    "requestedSchema": {"type": "object", "properties": {}},
}
CAN = obj(elicitation={}, sampling={})


def asks(method: str, **params: Any) -> Script:
    """A tool that asks once in its stream and answers with the response it was sent."""

    async def script(exchange: Exchange) -> None:
        app: LegacyServer = exchange.app
        await exchange.stream()
        request = {"jsonrpc": "2.0", "id": "q", "method": method, "params": params}
        await exchange.event(request)
        answer = await app.answered("q")
        answer.pop("jsonrpc")
        await exchange.result(content=[answer])

    return script


async def test_a_question_goes_to_the_caller_and_back() -> None:
    params: dict[str, Any] = {**ELICIT, "_meta": {"progressToken": 1, "kept": 2}}
    app = one(asks("elicitation/create", **params))
    async with ran(app, capabilities=CAN) as up:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept", "x": None}})
        reply = await up.link.handle(calling("tool"), caller)
    assert app.seen[0].params["capabilities"] == {"elicitation": {}, "sampling": {}}
    assert isinstance(reply, Done)
    assert plain(reply.result["content"]) == [
        {"id": "q", "result": {"action": "accept", "x": None}}
    ]
    (asked,) = caller.asked
    assert plain(asked.params) == {**ELICIT, "_meta": {"kept": 2}}


async def test_a_callers_error_goes_to_the_server() -> None:
    app = one(asks("sampling/createMessage", maxTokens=1))
    async with ran(app, capabilities=CAN) as up:
        error = RpcError(-1, "declined", Raw(b'{"a":1}'))
        caller = Recorder(AskMode.LIVE, {"sampling/createMessage": error})
        reply = await up.link.handle(calling("tool"), caller)
    assert isinstance(reply, Done)
    told = {"code": -1, "message": "declined", "data": {"a": 1}}
    assert plain(reply.result["content"]) == [{"id": "q", "error": told}]


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("elicitation/create", {"result": {"action": "cancel"}}),
    ("sampling/createMessage", {"error": {"code": -1}}),
    ("roots/list", {"error": {"code": -32601}}),
    ("tasks/get", {"error": {"code": -32601}}),
    ("ping", {"result": {}}),
]


@pytest.mark.parametrize(("method", "expected"), REFUSED)
async def test_questions_that_reach_nobody_are_answered(
    method: str, expected: dict[str, Any]
) -> None:
    app = one(asks(method))
    async with ran(app) as up:  # nothing was declared
        caller = Recorder(AskMode.LIVE)
        reply = await up.link.handle(calling("tool"), caller)
    assert caller.asked == []
    assert isinstance(reply, Done)
    (answer,) = plain(reply.result["content"])
    if "error" in expected:
        assert answer["error"]["code"] == expected["error"]["code"]
    else:
        assert answer["result"] == expected["result"]


async def test_two_calls_questions_are_not_mixed_up() -> None:
    async def script(exchange: Exchange) -> None:
        who = exchange.params["arguments"]["who"]
        await exchange.stream()
        params: Any = {**ELICIT, "message": who}
        await exchange.event(
            {"jsonrpc": "2.0", "id": who, "method": "elicitation/create", "params": params}
        )
        answer = await app.answered(who)
        await exchange.result(content=[answer["result"]])

    app = one(script)
    results: dict[str, Any] = {}
    async with ran(app, capabilities=CAN) as up:

        async def call(who: str) -> None:
            caller = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept", "by": who}})
            reply = await up.link.handle(calling("tool", {"who": who}), caller)
            assert isinstance(reply, Done)
            assert [plain(ask.params)["message"] for ask in caller.asked] == [who]
            results[who] = plain(reply.result["content"])

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(call, f"caller-{number}")
    assert results == {
        f"caller-{n}": [{"action": "accept", "by": f"caller-{n}"}] for n in range(10)
    }


async def test_a_ping_is_answered_while_a_person_thinks() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(
            {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": ELICIT}
        )
        await exchange.event({"jsonrpc": "2.0", "id": 2, "method": "ping"})
        await app.answered(2)
        thinking.set()
        await app.answered(1)
        await exchange.result(content=[])

    thinking = anyio.Event()

    async def think(ask: Ask) -> Raw:
        await thinking.wait()
        await anyio.sleep(0.2)  # longer than the time-out: people may take theirs
        return Raw(b'{"action":"decline"}')

    app = one(script)
    async with ran(app, capabilities=CAN, timeout=0.1) as up:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": think})
        assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))


async def test_a_question_the_server_takes_back_is_dropped() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(
            {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": ELICIT}
        )
        await asked.wait()
        await exchange.note("notifications/cancelled", requestId=1)
        await dropped.wait()
        await exchange.result(content=[])

    asked, dropped = anyio.Event(), anyio.Event()

    async def wait(ask: Ask) -> Raw:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            dropped.set()
        return Raw(b"{}")

    app = one(script)
    async with ran(app, capabilities=CAN) as up:
        with anyio.fail_after(PATIENCE):
            caller = Recorder(AskMode.LIVE, {"elicitation/create": wait})
            assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))
    assert app.answers == {}


async def test_an_answer_ends_the_questions_that_are_open() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(
            {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": ELICIT}
        )
        await asked.wait()
        await exchange.result(content=[])

    asked, dropped = anyio.Event(), anyio.Event()

    async def wait(ask: Ask) -> Raw:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            dropped.set()
        return Raw(b"{}")

    app = one(script)
    async with ran(app, capabilities=CAN) as up:
        with anyio.fail_after(PATIENCE):
            caller = Recorder(AskMode.LIVE, {"elicitation/create": wait})
            assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))
    assert dropped.is_set()
    assert app.answers == {}


async def test_an_answer_the_server_refuses_ends_the_call() -> None:
    app = one(asks("elicitation/create", **ELICIT))

    async def forget(ask: Ask) -> Raw:
        app.sessions.clear()
        return Raw(b'{"action":"accept"}')

    async with ran(app, capabilities=CAN) as up:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": forget})
        error = await failing(up.link, calling("tool"), caller)
    assert error.code == -32000


# ---------------------------------------------------------------- broken streams


async def test_a_broken_stream_is_resumed_from_the_last_event() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(None, id="c-0", retry=30)
        note = {"jsonrpc": "2.0", "method": "notifications/other", "params": {"n": 1}}
        await exchange.event(note, id="c-1")
        ids.append(exchange.message["id"])
        raise Dropped

    async def get(exchange: Exchange) -> None:
        last = exchange.headers.get("last-event-id")
        if last is None:
            await exchange.respond(405)
            return
        await exchange.stream()
        if last == "c-1":
            note = {"jsonrpc": "2.0", "method": "notifications/other", "params": {"n": 2}}
            await exchange.event(note, id="c-2")
            await exchange.end()  # the server may hang up at any time
            return
        assert last == "c-2"
        await exchange.event({"jsonrpc": "2.0", "id": ids[0], "result": {"content": []}})
        await exchange.end()

    ids: list[Any] = []
    app = LegacyServer(tool=script, GET=get)
    async with ran(app) as up:
        caller = Recorder()
        with anyio.fail_after(PATIENCE):
            assert await up.link.handle(calling("tool"), caller) == Done(obj(content=[]))
    assert caller.notes == [
        OtherNote("notifications/other", obj(n=1)),
        OtherNote("notifications/other", obj(n=2)),
        Parting(),  # this one the server closed itself
    ]
    assert len(app.of("tools/call")) == 1


async def test_a_question_outlives_the_stream_it_came_on() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        ask: Any = {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": ELICIT}
        await exchange.event(ask, id="c-0", retry=1)
        calls.append(exchange.message["id"])
        await exchange.end()

    async def get(exchange: Exchange) -> None:
        if exchange.headers.get("last-event-id") is None:
            await exchange.respond(405)
            return
        resumed.set()
        await exchange.stream()
        answer = await app.answered(1)
        await exchange.event(
            {"jsonrpc": "2.0", "id": calls[0], "result": {"content": [answer["result"]]}}
        )
        await exchange.end()

    calls: list[Any] = []
    resumed = anyio.Event()

    async def think(ask: Ask) -> Raw:
        await resumed.wait()
        return Raw(b'{"action":"accept"}')

    app = LegacyServer(tool=script, GET=get)
    async with ran(app, capabilities=CAN) as up:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": think})
        with anyio.fail_after(PATIENCE):
            reply = await up.link.handle(calling("tool"), caller)
    assert isinstance(reply, Done)
    assert plain(reply.result["content"]) == [{"action": "accept"}]


@pytest.mark.parametrize("status", [405, 503])
async def test_a_stream_that_cannot_be_resumed_is_lost(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_legacy_call, "RETRY", 0.001)

    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(None, id="c-0")
        raise Dropped

    async def get(exchange: Exchange) -> None:
        await exchange.respond(status if "last-event-id" in exchange.headers else 405)

    app = LegacyServer(tool=script, GET=get)
    async with ran(app) as up:
        error = await failing(up.link, calling("tool"))
        resumes = [one for one in app.of("GET") if "last-event-id" in one.headers]
        assert len(resumes) == (1 if status == 405 else http_legacy_call.RESUMES)
    assert error.code == -32000
    assert "went away before it answered" in error.message
    assert len(app.of("tools/call")) == 1


async def test_a_stream_without_ids_is_lost_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.note("notifications/other")
        raise Dropped

    app = one(script)
    async with ran(app) as up:
        assert (await failing(up.link, calling("tool"))).code == -32000
    assert len(app.of("tools/call")) == 1


# ---------------------------------------------------------------- cancel and time-out


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancel_is_said(streamed: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if streamed:
            await exchange.stream()
            await exchange.note("notifications/other")
        await exchange.gone()

    app = one(script)
    async with ran(app) as up:
        async with anyio.create_task_group() as tasks:
            caller = Recorder()
            tasks.start_soon(up.link.handle, calling("tool"), caller)
            await app.reached("tools/call")
            if streamed:
                await caller.noted(1)
            tasks.cancel_scope.cancel()
        (said,) = app.of("notifications/cancelled")
        assert said.params["requestId"] == app.of("tools/call")[0].message["id"]


async def test_silence_ends_a_call_and_cancels_it() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.gone()

    app = one(script)
    async with ran(app, timeout=0.1) as up:
        assert (await failing(up.link, calling("tool"))).code == -32001
        await app.reached("notifications/cancelled")
        late = calling("tool", deadline=asyncio.get_running_loop().time() + 0.02)
        assert (await failing(up.link, late)).code == -32001


# ---------------------------------------------------------------- the GET stream


def get_stream(*events: Any) -> tuple[Script, anyio.Event]:
    """A GET stream that sends each event once, then stays open."""
    sent = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if "last-event-id" in exchange.headers:
            await exchange.respond(405)
            return
        await exchange.stream()
        for event in events:
            await exchange.event({"jsonrpc": "2.0", **event})
        sent.set()
        await exchange.gone()

    return script, sent


async def test_what_belongs_to_no_call_is_heard() -> None:
    script, _ = get_stream(
        {"method": "notifications/tools/list_changed"},
        {"method": "notifications/message", "params": {"level": "error", "data": "whose?"}},
        {"method": "notifications/resources/updated", "params": {"uri": "a:b"}},
        {"id": 9, "method": "ping"},
        {"id": 10, "method": "elicitation/create", "params": ELICIT},
    )
    app = LegacyServer(GET=script)
    async with ran(app) as up:
        notes = await up.heard.noted(2)
        assert (await app.answered(9))["result"] == {}
        assert (await app.answered(10))["result"] == {"action": "cancel"}
    assert notes == [ListChanged("tools"), ResourceUpdated("a:b", obj(uri="a:b"))]


async def test_a_question_outside_of_calls_is_the_only_calls() -> None:
    async def get(exchange: Exchange) -> None:
        await exchange.stream()
        await begun.wait()
        await exchange.event(
            {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": ELICIT}
        )
        await exchange.gone()

    async def script(exchange: Exchange) -> None:
        begun.set()
        answer = await app.answered(1)
        await exchange.result(content=[answer["result"]])

    begun = anyio.Event()
    app = LegacyServer(GET=get, tool=script)
    async with ran(app, capabilities=CAN) as up:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept"}})
        reply = await up.link.handle(calling("tool"), caller)
    assert isinstance(reply, Done)
    assert plain(reply.result["content"]) == [{"action": "accept"}]


def log_stream(begun: anyio.Event) -> Script:
    """A server that logs on its GET stream alone, once a call has begun, and then pings."""

    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await begun.wait()
        await exchange.note("notifications/message", level="debug", data="quiet")
        await exchange.note("notifications/message", level="error", data="loud")
        await exchange.event({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        await exchange.gone()

    return script


@pytest.mark.parametrize("private", [True, False])
async def test_a_log_message_outside_of_calls_is_the_only_calls(private: bool) -> None:
    """On a link that is one caller's alone. The gateway's own lists are no call of anybody."""

    async def script(exchange: Exchange) -> None:
        called.set()
        await done.wait()
        await exchange.result(content=[])

    async def lists(exchange: Exchange) -> None:
        await called.wait()
        begun.set()
        await done.wait()
        await exchange.result(tools=[])

    called, begun, done = anyio.Event(), anyio.Event(), anyio.Event()
    app = LegacyServer(GET=log_stream(begun), tool=script)
    app.scripts["tools/list"] = lists
    caller, fetching = Recorder(), Recorder()
    asked = calling("tool", log_level="info")
    fetched = Call("tools/list", {}, context(snapshot(), log_level="info"))
    async with (
        ran(app, capabilities=CAN if private else {}) as up,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(up.link.handle, asked, caller)
        tasks.start_soon(up.link.handle, fetched, fetching)
        if private:
            assert await caller.noted(1) == [Log("error", obj(level="error", data="loud"))]
        await app.answered(1)
        done.set()
    assert len(caller.notes) == int(private)
    assert fetching.notes == []


async def test_of_two_calls_nobody_can_tell_whose_a_stray_log_message_is() -> None:
    async def script(exchange: Exchange) -> None:
        calls.append(exchange)
        if len(calls) == 2:
            begun.set()
        await done.wait()
        await exchange.result(content=[])

    calls: list[Exchange] = []
    begun, done = anyio.Event(), anyio.Event()
    app = LegacyServer(GET=log_stream(begun), tool=script)
    callers = [Recorder(), Recorder()]
    async with ran(app, capabilities=CAN) as up, anyio.create_task_group() as tasks:
        for caller in callers:
            tasks.start_soon(up.link.handle, calling("tool", log_level="info"), caller)
        await app.answered(1)
        done.set()
    assert [caller.notes for caller in callers] == [[], []]


async def test_progress_that_strays_finds_its_call() -> None:
    async def get(exchange: Exchange) -> None:
        await exchange.stream()
        while True:
            token = await tokens.get()
            for at in range(3):
                await exchange.note("notifications/progress", progressToken=token, progress=at)
            await exchange.note("notifications/progress", progressToken="x", progress=9)

    async def script(exchange: Exchange) -> None:
        await tokens.put(exchange.meta["progressToken"])
        await told.wait()
        await exchange.result(content=[])

    tokens: asyncio.Queue[Any] = asyncio.Queue()
    told = anyio.Event()
    app = LegacyServer(GET=get, tool=script)
    async with ran(app) as up, anyio.create_task_group() as tasks:
        caller = Recorder()
        tasks.start_soon(up.link.handle, calling("tool", wants_progress=True), caller)
        notes = await caller.noted(3)
        assert notes == [Progress(obj(progress=at)) for at in range(3)]
        told.set()


async def test_a_lost_stream_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_legacy_hear, "BACKOFF", (0.0,))

    async def get(exchange: Exchange) -> None:
        count = len(app.of("GET"))
        if count == 2:
            await exchange.respond(503)
            return
        await exchange.stream()
        if count == 1:
            await exchange.end()
        elif count == 3:
            await exchange.event(None, id="g-1", retry=1)
            raise Dropped
        else:
            await exchange.note("notifications/resources/updated", uri="a:b")
            await exchange.gone()

    app = LegacyServer(GET=get)
    app.capabilities = {"tools": {"listChanged": True}, "prompts": {}}
    async with ran(app) as up:
        last = await app.reached("GET", 4)
        # Told once that lists may have changed: the second time the stream was resumed.
        assert await up.heard.noted(2) == [
            ListChanged("tools"),
            ResourceUpdated("a:b", obj(uri="a:b")),
        ]
    assert last.headers["last-event-id"] == "g-1"


async def test_resources_are_subscribed_to_once_for_all_who_listen() -> None:
    script, _ = get_stream()
    app = LegacyServer(GET=script)
    app.capabilities = {"resources": {"subscribe": True, "listChanged": True}}
    updates = anyio.create_memory_object_stream[str](10)

    async def get(exchange: Exchange) -> None:
        await exchange.stream()
        async for uri in updates[1]:
            await exchange.note("notifications/resources/updated", uri=uri)

    app.scripts["GET"] = get
    async with ran(app) as up:

        def listening(*uris: str, **wanted: Any) -> Call:
            wanted["resourceSubscriptions"] = list(uris)
            params = obj(notifications=wanted)
            return Call("subscriptions/listen", params, context(snapshot()))

        first, second = Recorder(), Recorder()
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def one() -> None:
                with scope:
                    await up.link.handle(listening("a:1", "a:2", toolsListChanged=True), first)

            tasks.start_soon(one)
            assert await first.noted(1) == [Listening(obj(resourceSubscriptions=["a:1", "a:2"]))]
            tasks.start_soon(up.link.handle, listening("a:2"), second)
            await second.noted(1)
            assert [e.params["uri"] for e in app.of("resources/subscribe")] == ["a:1", "a:2"]
            await updates[0].send("a:1")
            await updates[0].send("a:2")
            await first.noted(3)
            await second.noted(2)
            scope.cancel()
            gone = await app.reached("resources/unsubscribe")
            assert gone.params["uri"] == "a:1"
            await updates[0].send("a:3")
            assert (await up.heard.noted(1))[0] == ResourceUpdated("a:3", obj(uri="a:3"))
            tasks.cancel_scope.cancel()
        assert [e.params["uri"] for e in app.of("resources/unsubscribe")] == ["a:1", "a:2"]
    for stream in updates:
        stream.close()
    assert [n.uri for n in first.notes if isinstance(n, ResourceUpdated)] == ["a:1", "a:2"]
    assert [n.uri for n in second.notes if isinstance(n, ResourceUpdated)] == ["a:2"]


async def test_a_refused_subscription_is_not_acknowledged() -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.error(-32602, "no")

    app = LegacyServer()
    app.scripts["resources/subscribe"] = refuse
    app.capabilities = {"resources": {"subscribe": True}}
    async with ran(app) as up, anyio.create_task_group() as tasks:
        caller = Recorder()
        params = obj(notifications={"resourceSubscriptions": ["a:1"], "toolsListChanged": True})
        call = Call("subscriptions/listen", params, context(snapshot()))
        tasks.start_soon(up.link.handle, call, caller)
        assert await caller.noted(1) == [Listening(obj(resourceSubscriptions=[]))]
        tasks.cancel_scope.cancel()


async def test_a_new_session_subscribes_again() -> None:
    app = LegacyServer()
    app.capabilities = {"resources": {"subscribe": True}}
    async with ran(app) as up, anyio.create_task_group() as tasks:
        caller = Recorder()
        params = obj(notifications={"resourceSubscriptions": ["a:1"]})
        call = Call("subscriptions/listen", params, context(snapshot()))
        tasks.start_soon(up.link.handle, call, caller)
        await caller.noted(1)
        app.sessions.clear()
        await up.link.handle(calling("echo"), Recorder())
        again = await app.reached("resources/subscribe", 2)
        assert again.headers["mcp-session-id"] == "session-2"
        notes = await caller.noted(2)
        assert notes[1] == ResourceUpdated("a:1", obj(uri="a:1"))
        tasks.cancel_scope.cancel()


async def test_the_end_of_the_link_ends_its_subscriptions() -> None:
    app = LegacyServer()
    app.capabilities = {"tools": {"listChanged": True}}
    caught: list[RpcError] = []
    async with anyio.create_task_group() as tasks, ran(app) as up:
        caller = Recorder()

        async def listen() -> None:
            params = obj(notifications={"toolsListChanged": True})
            call = Call("subscriptions/listen", params, context(snapshot()))
            try:
                await up.link.handle(call, caller)
            except RpcError as error:
                caught.append(error)

        tasks.start_soon(listen)
        await caller.noted(1)
    assert [error.code for error in caught] == [-32000]


async def test_a_note_to_the_server() -> None:
    app = LegacyServer()
    async with ran(app) as up:
        await up.link.tell(OtherNote("notifications/roots/list_changed", {}))
        assert len(app.of("notifications/roots/list_changed")) == 1
        app.sessions.clear()
        await up.link.tell(OtherNote("notifications/roots/list_changed", {}))


# ---------------------------------------------------------------- peers


@pytest.mark.parametrize("json_response", [False, True])
async def test_the_official_sdks_server(json_response: bool) -> None:
    sdk = MCPServer("peer")

    @sdk.tool()
    async def add(a: int, b: int, ctx: SdkContext[Any, Any]) -> int:
        await ctx.report_progress(1, 2, "half")
        return a + b

    del add
    app = sdk.streamable_http_app(json_response=json_response)
    async with sdk.session_manager.run(), running(app) as origin:
        client = Client(origin)
        link = HttpLegacyLink(
            server("up", transport="http", url=f"{origin}/mcp"),
            client=client,
            secrets=PlainSecrets(),
        )

        async def run(*, task_status: anyio.abc.TaskStatus[LinkInfo]) -> None:
            await link.run(task_status=task_status)

        async with anyio.create_task_group() as tasks:
            info: LinkInfo = await tasks.start(run)
            assert info.revision == "2025-11-25"
            caller = Recorder()
            reply = await link.handle(calling("add", {"a": 1, "b": 2}, wants_progress=True), caller)
            assert isinstance(reply, Done)
            assert plain(reply.result["structuredContent"]) == {"result": 3}
            if not json_response:
                (note,) = caller.notes
                assert isinstance(note, Progress)
                assert plain(note.params) == {"progress": 1, "total": 2, "message": "half"}
            tasks.cancel_scope.cancel()
        await client.aclose()

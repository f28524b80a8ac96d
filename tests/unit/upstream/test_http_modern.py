"""The modern HTTP link against a real server that speaks 2026-07-28 only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context as SdkContext

from mcpgw.core import headers
from mcpgw.core.sse import Decoder
from mcpgw.model.calls import (
    Ask,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    Note,
    OtherNote,
    Progress,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import LinkInfo, UpstreamError
from mcpgw.upstream import http_calls, http_modern
from mcpgw.upstream.http1 import Client
from mcpgw.upstream.http_modern import HttpModernLink
from tests.doubles import (
    PATIENCE,
    PlainSecrets,
    Recorder,
    context,
    info,
    obj,
    plain,
    server,
    snapshot,
)
from tests.servers.http_base import Dropped, Ears, Exchange, HttpServer, Script, running
from tests.servers.http_modern import ModernServer

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def linked(
    app: HttpServer, *, secrets: PlainSecrets | None = None, **fields: Any
) -> AsyncGenerator[HttpModernLink]:
    """A link that knows its server already, so that every request counted is a call's."""
    async with running(app) as origin:
        client = Client(origin)
        config = server("up", transport="http", url=app.url, **fields)
        try:
            yield HttpModernLink(
                config, client=client, secrets=secrets or PlainSecrets(), discovered=info()
            )
        finally:
            await client.aclose()


def calling(name: str, arguments: Any = None, **fields: Any) -> Call:
    """A tools/call. Fields of Call by name, all others are the context's."""
    own = {k: fields.pop(k) for k in list(fields) if k in Call.__struct_fields__}
    params = obj(name=name, arguments=arguments or {})
    return Call("tools/call", params, context(snapshot(), **fields), **own)


async def failing(link: HttpModernLink, call: Call) -> RpcError:
    with anyio.fail_after(PATIENCE), pytest.raises(RpcError) as caught:
        await link.handle(call, Recorder())
    return caught.value


def one(script: Script) -> ModernServer:
    return ModernServer(tool=script)


async def test_a_hundred_calls_are_a_hundred_requests() -> None:
    app = ModernServer()
    async with linked(app) as link:
        for number in range(100):
            reply = await link.handle(calling("echo", {"n": number}), Recorder())
            assert isinstance(reply, Done)
            assert plain(reply.result["structuredContent"]) == {"n": number}
    assert len(app.seen) == 100
    assert len({exchange.message["id"] for exchange in app.seen}) == 100


async def test_a_request_carries_the_fields_and_meta_of_its_revision() -> None:
    app = ModernServer()
    secrets = PlainSecrets({"env:TOKEN": "s3cret"})
    async with linked(
        app,
        secrets=secrets,
        auth="bearer",
        secret="env:TOKEN",
        headers={"X-Team": "a"},
        forward_headers=("x-trace",),
    ) as link:
        call = calling(
            "wörld",
            {"region": "us"},
            capabilities=obj(elicitation={}),
            log_level="info",
            headers={"x-trace": "t", "authorization": "Bearer of-the-client"},
            trace={"traceparent": "00-1"},
            meta=obj(**{"example/kept": 1}),
            wants_progress=True,
        )
        await link.handle(call, Recorder())
    (seen,) = app.seen
    assert seen.headers["accept"] == "application/json, text/event-stream"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["mcp-protocol-version"] == "2026-07-28"
    assert seen.headers["mcp-method"] == "tools/call"
    assert headers.decode(seen.headers["mcp-name"]) == "wörld"
    assert seen.headers["authorization"] == "Bearer s3cret"
    assert seen.headers["x-team"] == "a"
    assert seen.headers["x-trace"] == "t"
    assert seen.meta["io.modelcontextprotocol/clientCapabilities"] == {"elicitation": {}}
    assert seen.meta["io.modelcontextprotocol/clientInfo"]["name"] == "mcpgw"
    assert seen.meta["io.modelcontextprotocol/logLevel"] == "info"
    assert seen.meta["example/kept"] == 1
    assert seen.meta["traceparent"] == "00-1"
    assert seen.meta["progressToken"] == seen.message["id"]


async def test_a_call_without_a_reader_asks_for_no_progress() -> None:
    app = ModernServer()
    async with linked(app) as link:
        await link.handle(calling("echo"), Recorder())
    assert "progressToken" not in app.seen[0].meta


async def test_param_headers_are_sent_and_a_mismatch_is_told() -> None:
    app = ModernServer()
    async with linked(app) as link:
        fields = {"mcp-param-region": headers.encode("é")}
        reply = await link.handle(
            calling("echo", {"region": "é"}, param_headers=fields), Recorder()
        )
        assert isinstance(reply, Done)
        error = await failing(link, calling("echo", {"region": "é"}))
    assert error.code == -32020


async def test_what_is_unknown_crosses_untouched() -> None:
    body = (
        rb'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"new","n":1e400}],'
        rb'"_meta":{"a":null},"x":123456789012345678901234567890,"resultType":"complete"}}'
    )

    async def script(exchange: Exchange) -> None:
        await exchange.json(body)

    async with linked(one(script)) as link:
        reply = await link.handle(calling("tool"), Recorder())
    assert isinstance(reply, Done)
    assert bytes(reply.result["content"]) == b'[{"type":"new","n":1e400}]'
    assert bytes(reply.result["_meta"]) == b'{"a":null}'
    assert bytes(reply.result["x"]) == b"123456789012345678901234567890"
    assert "resultType" not in reply.result


async def test_an_extensions_result_type_is_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(resultType="task", taskId="t")

    async with linked(one(script)) as link:
        assert await link.handle(calling("tool"), Recorder()) == Done(obj(taskId="t"), "task")


@pytest.mark.parametrize("streamed", [False, True])
async def test_input_required_and_the_retry(streamed: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if streamed:
            await exchange.stream()
        if exchange.params.get("requestState") != "state":
            ask = {"method": "elicitation/create", "params": {"message": "?"}}
            await exchange.result(
                resultType="input_required", inputRequests={"q": ask}, requestState="state"
            )
        else:
            answers = exchange.params["inputResponses"]
            await exchange.result(resultType="complete", content=[answers])

    async with linked(one(script)) as link:
        reply = await link.handle(calling("tool"), Recorder())
        assert reply == NeedInput({"q": Ask("elicitation/create", obj(message="?"))}, "state", {})
        answers = obj(q={"action": "cancel"})
        again = await link.handle(calling("tool", answers=answers, state="state"), Recorder())
    assert isinstance(again, Done)
    assert plain(again.result["content"]) == [{"q": {"action": "cancel"}}]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", [-32020, -32021, -32022, -32602, 7])
async def test_errors_keep_code_and_data(status: int, code: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.error(code, "no", {"why": 1e30}, status)

    async with linked(one(script)) as link:
        error = await failing(link, calling("tool"))
    assert (error.code, error.message) == (code, "no")
    assert error.data is not None
    assert plain(error.data) == {"why": 1e30}


async def test_an_unknown_method_is_not_found() -> None:
    async with linked(ModernServer()) as link:
        error = await failing(link, Call("x/y", {}, context(snapshot())))
    assert error.code == -32601


async def test_notes_come_in_order_before_the_answer() -> None:
    async def script(exchange: Exchange) -> None:
        token = exchange.meta["progressToken"]
        await exchange.stream()
        await exchange.write(b": hello\n\n")
        await exchange.note("notifications/progress", progressToken=token, progress=1)
        await exchange.note("notifications/message", level="debug", data="quiet")
        await exchange.note("notifications/message", level="error", data="loud")
        await exchange.note("notifications/other", a=1)
        await exchange.note("notifications/progress", progressToken=token, progress=2)
        await exchange.result(resultType="complete", content=[])

    async with linked(one(script)) as link:
        caller = Recorder()
        call = calling("tool", wants_progress=True, log_level="warning")
        assert await link.handle(call, caller) == Done(obj(content=[]))
    assert caller.notes == [
        Progress(obj(progress=1)),
        Log("error", obj(level="error", data="loud")),
        OtherNote("notifications/other", obj(a=1)),
        Progress(obj(progress=2)),
    ]


async def test_a_slow_caller_holds_up_only_itself() -> None:
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.stream()
        for _ in range(400):
            await exchange.note("notifications/other", pad="x" * 65536)
            sent += 1
        await exchange.result(resultType="complete", content=[])

    app = one(script)
    async with linked(app) as link, anyio.create_task_group() as tasks:
        slow = Recorder(hold=anyio.Event())
        tasks.start_soon(link.handle, calling("tool"), slow)
        await app.reached("tools/call")
        with anyio.fail_after(PATIENCE):
            for _ in range(20):
                await link.handle(calling("echo"), Recorder())
        assert sent < 400
        assert slow.hold is not None
        slow.hold.set()
        await slow.noted(400)


async def test_a_stream_that_ends_without_an_answer_is_an_error_and_not_run_again() -> None:
    async def ends(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.event(None, id="1")
        await exchange.end()

    async def breaks(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.note("notifications/other")
        raise Dropped

    async def half(exchange: Exchange) -> None:
        await exchange.start("application/json")
        await exchange.write(b'{"jsonrpc":"2.0",')
        raise Dropped

    app = ModernServer(ends=ends, breaks=breaks)
    # And a whole answer that is cut off in its middle.
    app.scripts["half"] = half
    async with linked(app) as link:
        for name in ("ends", "breaks", "half"):
            error = await failing(link, calling(name))
            assert error.code == -32000
            assert error.data is not None
            assert plain(error.data) == {"server": "up", "stage": "read"}
            assert "went away before it answered" in error.message
    assert len(app.seen) == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_call_closes_its_stream(streamed: bool) -> None:
    gone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        if streamed:
            await exchange.stream()
            await exchange.note("notifications/other")
        await exchange.gone()
        gone.set()

    app = one(script)
    async with linked(app) as link:
        async with anyio.create_task_group() as tasks:
            caller = Recorder()
            tasks.start_soon(link.handle, calling("tool"), caller)
            await app.reached("tools/call")
            if streamed:
                await caller.noted(1)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await gone.wait()


async def test_a_call_that_is_cancelled_while_its_caller_is_slow_closes_its_stream() -> None:
    gone = anyio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.note("notifications/other")
        await exchange.gone()
        gone.set()

    class Stuck(Recorder):
        async def tell(self, note: Note) -> None:
            await super().tell(note)
            await anyio.sleep_forever()

    async with linked(one(script)) as link:
        async with anyio.create_task_group() as tasks:
            caller = Stuck()
            tasks.start_soon(link.handle, calling("tool"), caller)
            await caller.noted(1)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await gone.wait()


@pytest.mark.parametrize("streamed", [False, True])
async def test_silence_ends_a_call_in_time(streamed: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if streamed:
            await exchange.stream()
            await exchange.write(b": alive\n\n")
        await exchange.gone()

    async with linked(one(script), timeout=0.05) as link:
        error = await failing(link, calling("tool"))
    assert error.code == -32001
    assert error.message == 'server "up" did not answer within 0.05 s'
    assert error.data is not None
    assert plain(error.data) == {"server": "up", "stage": "read"}


async def test_progress_keeps_a_call_alive_but_not_beyond_its_deadline() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        with contextlib.suppress(OSError):
            for at in range(40):
                await anyio.sleep(0.02)
                await exchange.note("notifications/progress", progressToken=1, progress=at)
            await exchange.result(resultType="complete", content=[])

    async with linked(one(script), timeout=0.3) as link:
        call = calling("tool", wants_progress=True)
        assert isinstance(await link.handle(call, Recorder()), Done)
        late = calling(
            "tool", wants_progress=True, deadline=asyncio.get_running_loop().time() + 0.2
        )
        error = await failing(link, late)
    assert error.code == -32001
    assert "deadline" in error.message


async def test_the_time_of_a_slow_caller_is_not_the_servers() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.write(b"event: ping\ndata: now\n\n")
        await exchange.note("notifications/other")
        await caller.noted(1)
        await anyio.sleep(0.02)
        await exchange.result(resultType="complete", content=[])

    class Slow(Recorder):
        async def tell(self, note: Note) -> None:
            await anyio.sleep(0.3)
            await super().tell(note)

    caller = Slow()
    async with linked(one(script), timeout=0.2) as link:
        assert await link.handle(calling("tool"), caller) == Done(obj(content=[]))


ODD: list[tuple[int, bytes, str | None, str]] = [
    (200, b"<html>", "text/html", "text/html instead of MCP"),
    (200, b"{}", None, "without a content type"),
    (200, b"{", "application/json", "no MCP message"),
    (200, b'{"jsonrpc":"2.0","id":1,"method":"a"}', "application/json", "no response"),
    (202, b"", None, "answered nothing"),
    (404, b"<html>", "text/html", "no MCP endpoint at its URL (404)"),
    (500, b"boom", "text/plain", "answered 500 Internal Server Error"),
    (502, b"{", "application/json", "answered 502 Bad Gateway"),
]


@pytest.mark.parametrize(("status", "body", "kind", "message"), ODD, ids=str)
async def test_what_is_no_answer_is_explained(
    status: int, body: bytes, kind: str | None, message: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.respond(status, body, kind)

    async with linked(one(script)) as link:
        error = await failing(link, calling("tool"))
    assert error.code == -32000
    assert message in error.message
    assert error.message.startswith('server "up" ')


async def test_a_redirect_is_named_and_not_followed() -> None:
    async def script(exchange: Exchange) -> None:
        place = "https://user:pw@example.com/mcp?token=s3cret"
        await exchange.respond(307, headers={"location": place})

    app = one(script)
    async with linked(app) as link:
        error = await failing(link, calling("tool"))
    assert "redirects to https://example.com/mcp" in error.message
    assert "s3cret" not in error.message
    assert "pw" not in error.message


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_told_without_them(status: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.respond(status, b'{"echo":"s3cret"}', "application/json")

    secrets = PlainSecrets({"env:TOKEN": "s3cret"})
    async with linked(one(script), secrets=secrets, auth="bearer", secret="env:TOKEN") as link:
        error = await failing(link, calling("tool"))
    assert error.code == -32000
    assert error.data is not None
    assert plain(error.data) == {"server": "up", "stage": "auth"}
    assert str(status) in error.message
    assert "s3cret" not in error.message


async def test_secrets_are_read_again_where_they_may_have_changed() -> None:
    app = ModernServer()
    secrets = PlainSecrets({"file:/x": "one"})
    async with linked(app, secrets=secrets, auth="bearer", secret="file:/x") as link:
        await link.handle(calling("echo"), Recorder())
        secrets.values["file:/x"] = "two"
        await link.handle(calling("echo"), Recorder())
        del secrets.values["file:/x"]
        error = await failing(link, calling("echo"))
    assert [exchange.headers["authorization"] for exchange in app.seen] == [
        "Bearer one",
        "Bearer two",
    ]
    assert "file:/x" in error.message


async def test_a_server_that_is_not_there() -> None:
    client = Client("http://127.0.0.1:9")
    config = server("up", transport="http", url="http://127.0.0.1:9/mcp")
    link = HttpModernLink(config, client=client, secrets=PlainSecrets(), discovered=info())
    error = await failing(link, calling("tool"))
    await client.aclose()
    assert error.code == -32000
    assert error.data is not None
    assert plain(error.data)["stage"] == "connect"
    assert error.message.startswith('server "up" cannot be reached: ')


async def test_an_event_beyond_the_bound_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_calls, "Decoder", partial(Decoder, limit=1024))

    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.result(resultType="complete", pad="x" * 4096)

    async with linked(one(script)) as link:
        error = await failing(link, calling("tool"))
    assert error.code == -32000
    assert "more than 1024 bytes" in error.message


# ---------------------------------------------------------------- listening


def listening(**wanted: Any) -> Call:
    return Call("subscriptions/listen", obj(notifications=wanted), context(snapshot()))


async def acknowledge(exchange: Exchange) -> dict[str, Any]:
    meta = {"io.modelcontextprotocol/subscriptionId": exchange.message["id"]}
    await exchange.stream()
    wanted = exchange.params["notifications"]
    await exchange.note(
        "notifications/subscriptions/acknowledged", _meta=meta, notifications=wanted
    )
    return meta


async def test_a_subscription_tells_what_it_was_asked_for_and_ends() -> None:
    async def script(exchange: Exchange) -> None:
        meta = await acknowledge(exchange)
        await exchange.write(b": keep-alive\n\n")
        await exchange.note("notifications/tools/list_changed", _meta=meta)
        await exchange.note("notifications/message", level="info", data="out of place")
        await exchange.note("notifications/resources/updated", _meta=meta, uri="a:b")
        await exchange.result(resultType="complete", _meta=meta)

    async with linked(ModernServer(**{"subscriptions/listen": script})) as link:
        caller = Recorder()
        reply = await link.handle(listening(toolsListChanged=True), caller)
    assert reply == Done({})
    assert caller.notes == [
        Listening(obj(toolsListChanged=True)),
        ListChanged("tools"),
        ResourceUpdated("a:b", obj(uri="a:b")),
    ]


async def test_a_lost_subscription_is_an_error() -> None:
    async def script(exchange: Exchange) -> None:
        await acknowledge(exchange)
        raise Dropped

    async with linked(ModernServer(**{"subscriptions/listen": script})) as link:
        caller = Recorder()
        with anyio.fail_after(PATIENCE), pytest.raises(RpcError) as caught:
            await link.handle(listening(toolsListChanged=True), caller)
    assert caught.value.code == -32000
    assert caller.notes == [Listening(obj(toolsListChanged=True))]


async def test_only_keep_alives_keep_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_modern, "QUIET", 0.5)

    async def script(exchange: Exchange) -> None:
        meta = await acknowledge(exchange)
        for _ in range(7):
            await anyio.sleep(0.1)
            await exchange.write(b":\n\n")
        await exchange.note("notifications/tools/list_changed", _meta=meta)
        await exchange.gone()

    async with linked(ModernServer(**{"subscriptions/listen": script}), timeout=0.1) as link:
        caller = Recorder()
        with anyio.fail_after(PATIENCE), pytest.raises(RpcError, match="silent"):
            await link.handle(listening(toolsListChanged=True), caller)
    assert caller.notes == [Listening(obj(toolsListChanged=True)), ListChanged("tools")]


# ---------------------------------------------------------------- run


@contextlib.asynccontextmanager
async def ran(
    app: HttpServer, **fields: Any
) -> AsyncGenerator[tuple[HttpModernLink, LinkInfo, Ears]]:
    heard = Ears()
    async with running(app) as origin:
        client = Client(origin)
        config: Server = server("up", transport="http", url=app.url, **fields)
        link = HttpModernLink(config, client=client, secrets=PlainSecrets(), heard=heard)

        async def run(*, task_status: anyio.abc.TaskStatus[LinkInfo]) -> None:
            await link.run(task_status=task_status)

        try:
            async with anyio.create_task_group() as tasks:
                with anyio.fail_after(PATIENCE):
                    told: LinkInfo = await tasks.start(run)
                yield link, told, heard
                tasks.cancel_scope.cancel()
        finally:
            await client.aclose()


async def test_run_discovers_the_server() -> None:
    app = ModernServer()
    async with ran(app) as (link, told, _):
        assert told.modern
        assert told.revision == "2026-07-28"
        assert plain(told.capabilities) == {"tools": {}}
        assert plain(told.server) == {"name": "modern", "version": "1"}
        assert told.instructions == "Be kind."
        await link.handle(calling("echo"), Recorder())
    assert [exchange.rpc for exchange in app.seen] == ["server/discover", "tools/call"]


async def test_run_hears_changed_lists_and_makes_up_for_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_modern, "BACKOFF", (0.0,))
    again = anyio.Event()
    told = anyio.Event()

    async def script(exchange: Exchange) -> None:
        meta = await acknowledge(exchange)
        if len(app.of("subscriptions/listen")) == 1:
            await exchange.note("notifications/tools/list_changed", _meta=meta)
            await again.wait()
            raise Dropped
        told.set()
        await exchange.gone()

    app = ModernServer(**{"subscriptions/listen": script})
    app.capabilities = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}
    async with ran(app) as (_, _, heard):
        with anyio.fail_after(PATIENCE):
            await app.reached("subscriptions/listen")
            assert app.of("subscriptions/listen")[0].params["notifications"] == {
                "toolsListChanged": True,
                "promptsListChanged": True,
            }
            assert await heard.noted(1) == [ListChanged("tools")]
            again.set()
            await told.wait()
            await heard.noted(3)
    assert heard.notes == [ListChanged("tools"), ListChanged("tools"), ListChanged("prompts")]


async def test_run_gives_up_listening_where_it_is_refused() -> None:
    app = ModernServer()
    app.capabilities = {"tools": {"listChanged": True}}
    async with ran(app) as (link, _, _):
        await app.reached("subscriptions/listen")
        assert isinstance(await link.handle(calling("echo"), Recorder()), Done)
    assert len(app.of("subscriptions/listen")) == 1


async def failing_run(script: Script) -> UpstreamError:
    app = ModernServer(**{"server/discover": script})
    with pytest.raises(BaseExceptionGroup) as caught:
        async with ran(app):
            raise AssertionError("it ran")
    found = caught.value.subgroup(UpstreamError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, UpstreamError)
    return found


async def test_run_fails_with_a_reason() -> None:
    async def unsupported(exchange: Exchange) -> None:
        await exchange.error(-32022, "no", {"supported": ["2027-01-01"], "requested": "x"}, 400)

    async def odd(exchange: Exchange) -> None:
        await exchange.error(-32603, "broken")

    async def legacy(exchange: Exchange) -> None:
        await exchange.result(hello=1)

    async def unauthorized(exchange: Exchange) -> None:
        await exchange.respond(401)

    assert "2027-01-01" in (await failing_run(unsupported)).message
    assert "broken" in (await failing_run(odd)).message
    assert (await failing_run(legacy)).stage == "handshake"
    assert (await failing_run(unauthorized)).stage == "auth"


async def test_a_refused_revision_that_the_server_names_is_tried_again() -> None:
    refusals = [1]

    async def script(exchange: Exchange) -> None:
        if refusals:
            refusals.pop()
            await exchange.error(-32022, "no", {"supported": ["2026-07-28"]}, 400)
        else:
            await exchange.result(
                supportedVersions=["2026-07-28"], capabilities={}, resultType="complete"
            )

    async with ran(ModernServer(**{"server/discover": script})) as (_, told, _):
        assert told.modern


async def test_discover_over_a_stream() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream()
        await exchange.result(
            supportedVersions=["2026-07-28"], capabilities={}, resultType="complete"
        )

    async with ran(ModernServer(**{"server/discover": script})) as (_, told, _):
        assert told.modern


# ---------------------------------------------------------------- peers


async def test_the_official_sdks_server() -> None:
    sdk = MCPServer("peer")

    @sdk.tool()
    async def add(a: int, b: int, ctx: SdkContext[Any, Any]) -> int:
        await ctx.report_progress(1, 2, "half")
        return a + b

    del add
    async with sdk_running(sdk) as url:
        client = Client(url)
        config = server("up", transport="http", url=f"{url}/mcp")
        link = HttpModernLink(config, client=client, secrets=PlainSecrets(), discovered=info())
        caller = Recorder()
        reply = await link.handle(calling("add", {"a": 1, "b": 2}, wants_progress=True), caller)
        assert isinstance(reply, Done)
        assert plain(reply.result["structuredContent"]) == {"result": 3}
        (note,) = caller.notes
        assert isinstance(note, Progress)
        assert plain(note.params) == {"progress": 1, "total": 2, "message": "half"}
        listed = await link.handle(Call("tools/list", {}, context(snapshot())), caller)
        assert isinstance(listed, Done)
        assert plain(listed.result["tools"])[0]["name"] == "add"
        found = await link.handle(Call("server/discover", {}, context(snapshot())), caller)
        assert isinstance(found, Done)
        assert "2026-07-28" in plain(found.result["supportedVersions"])
        await client.aclose()


@contextlib.asynccontextmanager
async def sdk_running(sdk: Any) -> AsyncGenerator[str]:
    app = sdk.streamable_http_app()
    async with sdk.session_manager.run(), running(app) as url:
        yield url

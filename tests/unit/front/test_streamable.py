"""Legacy Streamable HTTP: sessions, streams, questions, cancellation, resumption, batches."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from msgspec import Raw

from mcpgw.front import app, streams
from mcpgw.front import sessions as registry
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    Parting,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.ports import Caller
from tests.doubles import PATIENCE, Gate, ScriptedHandler, obj, plain, raw, text_result
from tests.unit.front.rig import SNAPSHOT, Peer, front, hello, note, request, session

pytestmark = pytest.mark.anyio

DISCOVER = Done(
    obj(
        supportedVersions=["2026-07-28"],
        capabilities={
            "tools": {"listChanged": True},
            "resources": {"subscribe": True},
            "completions": {},
            "logging": {},
            "extensions": {"x": {}},
        },
        instructions="be kind",
        serverInfo={"name": "up", "version": "1"},
        ttlMs=5,
        cacheScope="private",
    )
)
CALL = {"name": "github__echo", "arguments": {"n": 1}}


def scripted(**answers: Any) -> ScriptedHandler:
    table = {name.replace("_", "/"): answer for name, answer in answers.items()}
    return ScriptedHandler({"server/discover": DISCOVER, **table})


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ],
)
async def test_initialize_agrees_on_a_revision(wanted: str, given: str) -> None:
    async with front(scripted()) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", hello(wanted))
    assert answer.status == 200
    id = answer.headers["mcp-session-id"]
    assert len(id) > 32
    assert id.isascii()
    result = answer.json["result"]
    assert answer.json["id"] == "hello"
    assert result["protocolVersion"] == given
    assert result["serverInfo"]["name"] == "mcpgw"
    assert result["instructions"] == "be kind"
    expected = {"extensions", "tools", "resources", "logging"}
    assert set(result["capabilities"]) == expected | (
        set() if given == "2024-11-05" else {"completions"}
    )
    assert "ttlMs" not in result


async def test_a_call_in_a_session() -> None:
    answer_ = Done(
        obj(content=[], structuredContent=[1], ttlMs=1, cacheScope="private", extra=None)
    )
    handler = scripted(tools_call=answer_)
    async with front(handler) as here:
        peer = await here.peer()
        await session(peer)
        answer = await peer.ask("POST", "/mcp", request("tools/call", CALL, id="q"))
    assert answer.headers["content-type"] == "application/json"
    said = [{"type": "text", "text": "[1]"}]  # what the revision cannot have as structured content
    assert answer.json == {"jsonrpc": "2.0", "id": "q", "result": {"content": said, "extra": None}}
    ctx = handler.calls[-1].ctx
    assert (ctx.revision, ctx.mirrored, ctx.log_level) == ("2025-11-25", False, "info")
    assert ctx.session is not None
    assert plain(ctx.client) == {"name": "peer", "version": "1"}


async def test_ping_level_and_methods_of_other_revisions() -> None:
    handler = scripted(tools_list=Done(obj(tools=[])))
    async with front(handler) as here:
        peer = await here.peer()
        await session(peer)
        assert (await peer.ask("POST", "/mcp", request("ping"))).json["result"] == {}
        level = request("logging/setLevel", {"level": "error"})
        assert (await peer.ask("POST", "/mcp", level)).json["result"] == {}
        level = request("logging/setLevel", {"level": "loud"})
        assert (await peer.ask("POST", "/mcp", level)).json["error"]["code"] == -32602
        await peer.ask("POST", "/mcp", request("tools/list"))
        assert handler.calls[-1].ctx.log_level == "error"
        for method in ("server/discover", "subscriptions/listen", "nobody/knows"):
            answer = await peer.ask("POST", "/mcp", request(method))
            assert answer.json["error"]["code"] == -32601


async def test_an_unknown_resource_is_numbered_as_it_was() -> None:
    missing = RpcError(-32602, "Resource not found", raw({"uri": "a:b"}))
    async with front(scripted(resources_read=missing)) as here:
        peer = await here.peer()
        await session(peer)
        answer = await peer.ask("POST", "/mcp", request("resources/read", {"uri": "a:b"}))
    assert answer.json["error"] == {
        "code": -32002,
        "message": "Resource not found",
        "data": {"uri": "a:b"},
    }


async def test_sessions_are_needed_bound_and_ended() -> None:
    async with front(scripted(tools_list=Done(obj(tools=[])))) as here:
        peer = await here.peer()
        listing = request("tools/list")
        assert (await peer.ask("POST", "/mcp", listing)).status == 400
        assert (await peer.ask("GET", "/mcp")).status == 400
        assert (await peer.ask("POST", "/mcp", listing, {"mcp-session-id": "x"})).status == 404
        await session(peer)
        other = await here.peer("bob")
        other.headers["mcp-session-id"] = peer.headers["mcp-session-id"]
        for method, body in (("POST", listing), ("GET", None), ("DELETE", None)):
            assert (await other.ask(method, "/mcp", body)).status == 404
        assert (await peer.ask("POST", "/mcp/github", listing)).status == 404
        bad = {"mcp-protocol-version": "2020-01-01"}
        assert (await peer.ask("POST", "/mcp", listing, bad)).status == 400
        assert (await peer.ask("POST", "/mcp", listing)).status == 200
        assert (
            await peer.ask("POST", "/mcp", listing, {"mcp-protocol-version": None})
        ).status == 200
        answer = await peer.ask("DELETE", "/mcp")
        assert (answer.status, answer.body) == (204, b"")
        assert (await peer.ask("POST", "/mcp", listing)).status == 404


async def chatty(call: Call, caller: Caller) -> Reply:
    await caller.tell(Progress(obj(progress=1)))
    await caller.tell(Log("debug", obj(level="debug", data="no")))
    await caller.tell(Log("info", obj(level="info", data="yes")))
    return text_result("end")


async def test_notes_come_first_on_the_calls_stream() -> None:
    call = request("tools/call", {**CALL, "_meta": {"progressToken": 5}}, id=3)
    async with front(scripted(tools_call=chatty)) as here:
        peer = await here.peer()
        await session(peer)
        await peer.send("POST", "/mcp", call)
        status, headers = await peer.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        first = await peer.event()
        assert first is not None
        events = [first]
        while (event := await peer.event()) is not None:
            events.append(event)
    ids = [event.id for event in events]
    assert len(set(ids)) == len(ids) == 4
    assert events[0].data == b""
    got = [msgspec.json.decode(event.data) for event in events[1:]]
    assert got[0]["params"] == {"progress": 1, "progressToken": 5}
    assert got[1]["params"]["data"] == "yes"
    assert got[2]["id"] == 3


async def test_without_streams_notes_are_dropped_and_nobody_is_asked() -> None:
    modes: list[AskMode] = []

    async def handle(call: Call, caller: Caller) -> Reply:
        modes.append(caller.ask_mode)
        assert "elicitation" not in call.ctx.capabilities
        return await chatty(call, caller)

    async with front(scripted(tools_call=handle)) as here:
        peer = await here.peer()
        await session(peer, capabilities={"elicitation": {}})
        call = request("tools/call", CALL)
        answer = await peer.ask("POST", "/mcp", call, {"accept": "application/json"})
    assert answer.json["result"]["content"][0]["text"] == "end"
    assert modes == [AskMode.NEVER]


async def asking(call: Call, caller: Caller) -> Reply:
    assert caller.ask_mode is AskMode.LIVE
    with pytest.raises(RpcError):
        await caller.ask(Ask("sampling/createMessage", {}))
    told = await caller.ask(Ask("elicitation/create", obj(message="who?")))
    return Done({"told": told})


async def test_a_question_is_asked_and_answered() -> None:
    async with front(scripted(tools_call=asking)) as here:
        peer, other = await here.peer(), await here.peer()
        await session(peer, capabilities={"elicitation": {}})
        other.headers = peer.headers
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await peer.head()
        question = await peer.message()
        assert question["method"] == "elicitation/create"
        assert question["params"] == {"message": "who?"}
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
        stranger = {**reply, "id": 999}
        assert (await other.ask("POST", "/mcp", stranger)).status == 202
        assert (await other.ask("POST", "/mcp", reply)).status == 202
        answer = await peer.message()
    assert answer == {"jsonrpc": "2.0", "id": 1, "result": {"told": {"action": "accept"}}}


async def test_a_refused_question_raises_for_the_asker() -> None:
    async with front(scripted(tools_call=asking)) as here:
        peer, other = await here.peer(), await here.peer()
        await session(peer, capabilities={"elicitation": {}})
        other.headers = peer.headers
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await peer.head()
        question = await peer.message()
        refusal = {"code": -1, "message": "no"}
        reply = {"jsonrpc": "2.0", "id": question["id"], "error": refusal}
        assert (await other.ask("POST", "/mcp", reply)).status == 202
        assert (await peer.message())["error"] == refusal


async def test_cancelling_hits_only_that_call_of_that_session() -> None:
    gate = Gate()
    handler = scripted(tools_call=gate.then(text_result("done")))
    async with front(handler) as here:
        first, second, notes = await here.peer(), await here.peer(), await here.peer()
        await session(first)
        await session(second)
        notes.headers = first.headers
        for peer in (first, second):
            await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await handler.reached("tools/call", 2)
        strange: list[object] = ["1", 2, None, {}]
        for id in strange:
            told = note("notifications/cancelled", {"requestId": id})
            assert (await notes.ask("POST", "/mcp", told)).status == 202
        assert not handler.cancelled
        await notes.ask("POST", "/mcp", note("notifications/cancelled", {"requestId": 1}))
        await handler.dropped()
        answer = await first.response()
        assert (answer.status, answer.body) == (200, b"")
        gate.open()
        assert (await second.response()).json["id"] == 1


async def test_a_question_nobody_waits_for_is_withdrawn() -> None:
    async with front(scripted(tools_call=asking)) as here:
        peer, other = await here.peer(), await here.peer()
        await session(peer, capabilities={"elicitation": {}})
        other.headers = peer.headers
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await peer.head()
        question = await peer.message()
        await other.ask("POST", "/mcp", note("notifications/cancelled", {"requestId": 1}))
        told = await peer.message()
        assert told["method"] == "notifications/cancelled"
        assert told["params"]["requestId"] == question["id"]
        assert await peer.event() is None


async def test_an_id_in_flight_is_not_taken_twice() -> None:
    handler = scripted(tools_call=Gate().then(text_result("never")))
    async with front(handler) as here:
        peer, other = await here.peer(), await here.peer()
        await session(peer)
        other.headers = peer.headers
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await handler.reached("tools/call")
        answer = await other.ask("POST", "/mcp", request("tools/call", CALL, id=1))
        assert answer.json["error"]["code"] == -32600


async def test_a_client_that_hung_up_takes_its_stream_up_again() -> None:
    gate = Gate()

    async def handle(call: Call, caller: Caller) -> Reply:
        await caller.tell(Log("info", obj(level="info", data=1)))
        return await gate.then(text_result("end"))(call, caller)

    handler = scripted(tools_call=handle)
    async with front(handler) as here:
        peer, again = await here.peer(), await here.peer()
        await session(peer)
        again.headers = peer.headers
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        await peer.head()
        prime = await peer.event()
        assert prime is not None
        assert prime.id is not None
        first = await peer.event()
        assert first is not None
        assert first.id is not None
        await peer.stream.aclose()
        await again.send("GET", "/mcp", headers={"last-event-id": prime.id})
        assert (await again.head())[0] == 200
        replayed = await again.event()
        assert replayed == first
        gate.open()
        assert (await again.message())["result"]["content"][0]["text"] == "end"
        assert await again.event() is None
        late = await here.peer()
        late.headers = peer.headers
        await late.send("GET", "/mcp", headers={"last-event-id": first.id})
        await late.head()
        assert (await late.message())["id"] == 1
        assert await late.event() is None
        for bad in ("9.9", "x", "-1.0", "1", ""):
            answer = await late.ask("GET", "/mcp", headers={"last-event-id": bad})
            assert answer.status == 400
    assert not handler.cancelled


def parting(gate: Gate) -> ScriptedHandler:
    """A server that lets its client go while it works."""

    async def handle(call: Call, caller: Caller) -> Reply:
        await caller.tell(Parting())
        return await gate.then(text_result("end"))(call, caller)

    return scripted(tools_call=handle, tools_list=Done(obj(tools=[])))


async def test_a_client_is_let_go_and_comes_back_for_its_answer() -> None:
    gate = Gate()
    async with front(parting(gate)) as here:
        peer = await here.peer()
        await session(peer)
        await peer.send("POST", "/mcp", request("tools/call", CALL, id=1))
        assert (await peer.head())[0] == 200
        prime = await peer.event()
        assert prime is not None
        assert prime.id is not None
        assert prime.data == b""
        assert await peer.event() is None
        # The connection is free again.
        assert (await peer.ask("POST", "/mcp", request("tools/list", id=2))).status == 200
        await peer.send("GET", "/mcp", headers={"last-event-id": prime.id})
        assert (await peer.head())[0] == 200
        gate.open()
        assert (await peer.message())["result"]["content"][0]["text"] == "end"
        assert await peer.event() is None


async def test_a_client_that_cannot_come_back_is_not_let_go() -> None:
    gate = Gate()
    gate.open()
    async with front(parting(gate)) as here:
        old, json = await here.peer(), await here.peer()
        await session(old, "2025-06-18")
        answer = await old.ask("POST", "/mcp", request("tools/call", CALL))
        assert answer.json["result"]["content"][0]["text"] == "end"
        await session(json)
        only = {"accept": "application/json"}
        answer = await json.ask("POST", "/mcp", request("tools/call", CALL), headers=only)
        assert answer.json["result"]["content"][0]["text"] == "end"


@pytest.mark.parametrize(
    ("accept", "revision", "kind"),
    [
        ("application/json, text/event-stream", "2025-11-25", "application/json"),
        ("text/event-stream, application/json", "2025-11-25", "text/event-stream"),
        ("text/event-stream;q=1,Application/JSON", "2025-11-25", "text/event-stream"),
        ("application/json", "2025-11-25", "application/json"),
        ("text/event-stream, application/json", "2025-06-18", "application/json"),
    ],
)
async def test_a_client_that_names_streams_first_gets_one(
    accept: str, revision: str, kind: str
) -> None:
    async with front(scripted(tools_call=text_result("at once"))) as here:
        peer = await here.peer()
        await session(peer, revision)
        asked = request("tools/call", CALL)
        answer = await peer.ask("POST", "/mcp", asked, headers={"accept": accept})
    assert answer.headers["content-type"] == kind
    assert b"at once" in answer.body


async def test_a_call_that_lasts_soon_has_a_stream_to_come_back_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "BEAT", 0.05)
    gate = Gate()
    async with front(scripted(tools_call=gate.then(text_result("end")))) as here:
        peer, old = await here.peer(), await here.peer()
        await session(peer)
        await peer.send("POST", "/mcp", request("tools/call", CALL))
        assert (await peer.head())[1]["content-type"] == "text/event-stream"
        prime = await peer.event()
        assert prime is not None
        assert prime.id is not None
        await session(old, "2025-06-18")
        await old.send("POST", "/mcp", request("tools/call", CALL))
        gate.open()
        assert (await old.head())[1]["content-type"] == "application/json"


async def test_a_stream_whose_answer_is_forgotten_is_not_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_EVENTS", 2)
    gate = Gate()
    gate.open()
    async with front(parting(gate)) as here:
        peer = await here.peer()
        await session(peer)
        ids: list[str] = []
        for id in range(4):
            await peer.send("POST", "/mcp", request("tools/call", CALL, id=id))
            await peer.head()
            prime = await peer.event()
            assert prime is not None
            assert prime.id is not None
            ids.append(prime.id)
            assert await peer.event() is None
            await peer.ask("POST", "/mcp", request("ping", id="p"))
        for id, status in zip(ids, (400, 400, 200, 200), strict=True):
            answer = await peer.ask("GET", "/mcp", headers={"last-event-id": id})
            assert answer.status == status


async def following(call: Call, caller: Caller) -> Reply:
    wanted = msgspec.json.decode(call.params["notifications"])
    if "bad:uri" in wanted.get("resourceSubscriptions", ()):
        wanted["resourceSubscriptions"].remove("bad:uri")
    await caller.tell(Listening({name: raw(value) for name, value in wanted.items()}))
    for uri in wanted.get("resourceSubscriptions", ()):
        await caller.tell(ResourceUpdated(uri, obj(uri=uri)))
    if "toolsListChanged" in wanted:
        await caller.tell(ListChanged("tools"))
    await anyio.sleep_forever()
    raise AssertionError


async def test_the_standing_stream_tells_changes() -> None:
    handler = scripted(subscriptions_listen=following)
    async with front(handler) as here:
        peer, stream = await here.peer(), await here.peer()
        await session(peer)
        stream.headers = peer.headers
        await stream.send("GET", "/mcp")
        status, headers = await stream.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert (await stream.message())["method"] == "notifications/tools/list_changed"
        (call,) = handler.calls[1:]
        assert plain(call.params) == {"notifications": {"toolsListChanged": True}}
        answer = await peer.ask("POST", "/mcp", request("resources/subscribe", {"uri": "a:b"}))
        assert answer.json["result"] == {}
        told = await stream.message()
        assert told["method"] == "notifications/resources/updated"
        assert told["params"] == {"uri": "a:b"}
        await handler.dropped(1)
        answer = await peer.ask("POST", "/mcp", request("resources/subscribe", {"uri": "bad:uri"}))
        assert answer.json["error"]["code"] == -32602
        answer = await peer.ask("POST", "/mcp", request("resources/unsubscribe", {"uri": "a:b"}))
        assert answer.json["result"] == {}
        await handler.dropped(3)
        last = handler.calls[-1]
        assert plain(last.params) == {"notifications": {"toolsListChanged": True}}
        await peer.ask("DELETE", "/mcp")
        while await stream.event() is not None:
            pass
        await handler.dropped(4)


async def test_each_message_goes_on_one_standing_stream() -> None:
    handler = scripted(subscriptions_listen=following)
    async with front(handler, quiet=0.05) as here:
        peer, old, new = await here.peer(), await here.peer(), await here.peer()
        await session(peer)
        old.headers = new.headers = peer.headers
        await old.send("GET", "/mcp")
        await old.head()
        assert (await old.message())["method"] == "notifications/tools/list_changed"
        await new.send("GET", "/mcp")
        await new.head()
        await peer.ask("POST", "/mcp", request("resources/subscribe", {"uri": "a:b"}))
        assert (await new.message())["params"] == {"uri": "a:b"}
        for _ in range(3):
            assert (await old.comment()).startswith(b":")


async def test_batches_are_of_one_revision_alone() -> None:
    batch = [request("ping", id=1), note("notifications/x"), request("tools/list", id=2), 5]
    handler = scripted(tools_list=Done(obj(tools=[])))
    async with front(handler) as here:
        peer = await here.peer()
        await session(peer)
        assert (await peer.ask("POST", "/mcp", batch)).status == 400
        peer = await here.peer()
        await session(peer, "2025-03-26")
        answer = await peer.ask("POST", "/mcp", batch)
        assert answer.status == 200
        assert [one["id"] for one in answer.json] == [1, 2, None]
        assert (await peer.ask("POST", "/mcp", [note("notifications/x")])).status == 202
        assert (await peer.ask("POST", "/mcp", [])).status == 400
        assert (
            await peer.ask("POST", "/mcp", [request("ping", id=n) for n in range(257)])
        ).status == 400
        answer = await peer.ask("POST", "/mcp", [hello()])
        assert answer.json[0]["error"]["code"] == -32600


async def test_a_batch_with_notes_is_a_stream() -> None:
    async with front(scripted(tools_call=chatty)) as here:
        peer = await here.peer()
        await session(peer, "2025-03-26")
        calls = [request("tools/call", CALL, id=n) for n in (1, 2)]
        await peer.send("POST", "/mcp", calls)
        await peer.head()
        messages: list[Any] = []
        while (message := await peer.message()) is not None:
            messages.append(message)
    assert sorted(m["id"] for m in messages if "id" in m) == [1, 2]
    assert sum("method" in m for m in messages) == 2


async def test_too_many_sessions_drop_the_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_OF_ONE", 2)
    handler = scripted(tools_call=Gate().then(text_result("never")))
    async with front(handler) as here:
        peers = [await here.peer() for _ in range(3)]
        for peer in peers:
            await session(peer)
        assert (await peers[0].ask("POST", "/mcp", request("ping"))).status == 404
        for peer in peers[1:]:
            await peer.send("POST", "/mcp", request("tools/call", CALL))
        await handler.reached("tools/call", 2)
        fresh = await here.peer()
        answer = await fresh.ask("POST", "/mcp", hello())
        assert (answer.status, answer.headers["retry-after"]) == (429, "60")
        other = await here.peer("bob")
        await session(other)


async def test_idle_sessions_end_and_held_streams_last_longer() -> None:
    async with front(scripted()) as here:
        idle, held, stream = await here.peer(), await here.peer(), await here.peer()
        await session(idle)
        await session(held)
        stream.headers = held.headers
        await stream.send("GET", "/mcp")
        await stream.head()
        now = anyio.current_time()
        here.app.sessions.sweep(now + registry.IDLE - 1)
        assert len(here.app.sessions) == 2
        here.app.sessions.sweep(now + registry.IDLE + 1)
        assert len(here.app.sessions) == 1
        assert (await idle.ask("POST", "/mcp", request("ping"))).status == 404
        here.app.sessions.sweep(now + registry.IDLE_LISTENING + 1)
        while await stream.event() is not None:
            pass
        assert len(here.app.sessions) == 0


async def test_a_revoked_keys_session_ends() -> None:
    handler = scripted(tools_call=Gate().then(text_result("never")))
    async with front(handler) as here:
        peer, stream = await here.peer(), await here.peer()
        await session(peer)
        stream.headers = dict(peer.headers)
        await stream.send("GET", "/mcp")
        await stream.head()
        await peer.send("POST", "/mcp", request("tools/call", CALL))
        await handler.reached("tools/call")
        here.config.swap(msgspec.structs.replace(SNAPSHOT, principals={}, keys={}))
        assert (await peer.response()).status == 404
        while await stream.event() is not None:
            pass
        assert (await peer.ask("POST", "/mcp", request("ping"))).status == 401


async def test_a_failed_discovery_fails_initialize() -> None:
    handler = ScriptedHandler({"server/discover": RpcError(-32000, "no")})
    async with front(handler) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", hello())
        assert answer.json["error"] == {"code": -32000, "message": "no"}
        assert "mcp-session-id" not in answer.headers
        bad = request("initialize", {"capabilities": {}})
        assert (await peer.ask("POST", "/mcp", bad)).json["error"]["code"] == -32602
        assert len(here.app.sessions) == 0


async def test_a_lost_subscription_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    async def lossy(call: Call, caller: Caller) -> Reply:
        nonlocal count
        count += 1
        await caller.tell(Listening({"toolsListChanged": Raw(b"true")}))
        if count == 1:
            raise RpcError(-32000, "lost")
        await caller.tell(ListChanged("tools"))
        await anyio.sleep_forever()
        raise AssertionError

    async with front(scripted(subscriptions_listen=lossy)) as here:
        peer: Peer = await here.peer()
        await session(peer)
        await peer.send("GET", "/mcp")
        await peer.head()
        with anyio.fail_after(PATIENCE):
            assert (await peer.message())["method"] == "notifications/tools/list_changed"

"""HTTP+SSE of 2024-11-05."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mcpgw.model.calls import Ask, Call, Done, ListChanged, Listening, Log, Reply
from mcpgw.model.ports import Caller
from tests.doubles import Gate, ScriptedHandler, obj, raw, text_result
from tests.unit.front.rig import SNAPSHOT, Front, Peer, front, hello, modern, note, request
from tests.unit.front.test_streamable import DISCOVER

pytestmark = pytest.mark.anyio

CALL = {"name": "github__echo"}


def scripted(**answers: Any) -> ScriptedHandler:
    table = {name.replace("_", "/"): answer for name, answer in answers.items()}
    return ScriptedHandler({"server/discover": DISCOVER, **table})


async def opened(
    here: Front, path: str = "/sse", capabilities: dict[str, object] | None = None
) -> tuple[Peer, Peer, str]:
    """A stream with an initialized session, a peer that posts, and where to."""
    stream, posts = await here.peer(), await here.peer()
    await stream.send("GET", path)
    status, headers = await stream.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    endpoint = await stream.event()
    assert endpoint is not None
    assert endpoint.event == "endpoint"
    where = endpoint.data.decode()
    answer = await posts.ask("POST", where, hello("2024-11-05", capabilities))
    assert (answer.status, answer.body) == (202, b"")
    assert (await stream.message())["result"]["protocolVersion"] == "2024-11-05"
    assert (await posts.ask("POST", where, note("notifications/initialized"))).status == 202
    return stream, posts, where


async def test_answers_and_notes_come_on_the_stream() -> None:
    async def chatty(call: Call, caller: Caller) -> Reply:
        await caller.tell(Log("info", obj(level="info", data=1)))
        told = await caller.ask(Ask("roots/list", {}))
        return Done({"told": told, "ttlMs": raw(1)})

    async def following(call: Call, caller: Caller) -> Reply:
        await caller.tell(Listening({}))
        await caller.tell(ListChanged("tools"))
        return await Gate().then(text_result("never"))(call, caller)

    handler = scripted(tools_call=chatty, subscriptions_listen=following)
    async with front(handler) as here:
        stream, posts, where = await opened(here, "/mcp/github/sse", {"roots": {}})
        assert (await stream.message())["method"] == "notifications/tools/list_changed"
        assert (await posts.ask("POST", where, request("tools/call", CALL, id=4))).status == 202
        assert (await stream.message())["method"] == "notifications/message"
        question = await stream.message()
        assert question["method"] == "roots/list"
        reply: Any = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        assert (await posts.ask("POST", where, reply)).status == 202
        answer = await stream.message()
        assert answer == {"jsonrpc": "2.0", "id": 4, "result": {"told": {"roots": []}}}
    (call,) = [call for call in handler.calls if call.method == "tools/call"]
    assert call.ctx.endpoint.servers == {"id-github"}
    assert call.ctx.endpoint.native


async def test_cancelling_one_call_leaves_the_others() -> None:
    gate = Gate()
    handler = scripted(tools_call=gate.then(text_result("done")))
    async with front(handler) as here:
        stream, posts, where = await opened(here)
        for id in (1, 2):
            await posts.ask("POST", where, request("tools/call", CALL, id=id))
        await handler.reached("tools/call", 2)
        await posts.ask("POST", where, note("notifications/cancelled", {"requestId": 1}))
        await handler.dropped()
        gate.open()
        assert (await stream.message())["id"] == 2


async def test_the_end_of_the_stream_is_the_end_of_the_session() -> None:
    handler = scripted(tools_call=Gate().then(text_result("never")))
    async with front(handler) as here:
        stream, posts, where = await opened(here)
        await posts.ask("POST", where, request("tools/call", CALL))
        await handler.reached("tools/call")
        await stream.stream.aclose()
        await handler.dropped()
        assert (await posts.ask("POST", where, request("ping"))).status == 404


async def test_draining_lets_calls_finish() -> None:
    gate = Gate()
    handler = scripted(tools_call=gate.then(text_result("done")))
    async with front(handler) as here:
        stream, posts, where = await opened(here)
        await posts.ask("POST", where, request("tools/call", CALL, id=1))
        await handler.reached("tools/call")
        await here.app.drain()
        gate.open()
        assert (await stream.message())["id"] == 1
        assert await stream.event() is None


async def test_only_the_same_key_may_post() -> None:
    async with front(scripted()) as here:
        _, posts, where = await opened(here)
        other, nobody = await here.peer("bob"), await here.peer(None)
        assert (await other.ask("POST", where, request("ping"))).status == 404
        assert (await nobody.ask("POST", where, request("ping"))).status == 401
        for bad in ("/messages", "/messages?session_id=x", where + "&session_id=y"):
            assert (await posts.ask("POST", bad, request("ping"))).status == 404
        assert (await posts.ask("GET", where)).status == 405
        assert (await posts.ask("POST", "/sse", request("ping"))).status == 405
        headers: dict[str, str | None] = {"mcp-session-id": where.split("=")[1]}
        assert (await posts.ask("POST", "/mcp", request("ping"), headers)).status == 404
        assert (await posts.ask("POST", where, b"{")).status == 400
        assert (
            await posts.ask("GET", "/mcp/jira/sse", headers={"authorization": "Bearer mcpgw_bob"})
        ).status == 404


async def test_origin_is_checked_there_too() -> None:
    async with front(scripted()) as here:
        peer = await here.peer()
        evil: dict[str, str | None] = {"origin": "https://evil.example"}
        assert (await peer.ask("GET", "/sse", headers=evil)).status == 403


async def test_a_revoked_key_ends_the_stream() -> None:
    async with front(scripted()) as here:
        stream, _, _ = await opened(here)
        here.config.swap(msgspec.structs.replace(SNAPSHOT, principals={}, keys={}))
        while await stream.event() is not None:
            pass
        assert len(here.app.sessions) == 0


async def test_a_second_initialize_is_refused_and_modern_requests_are_served() -> None:
    async with front(scripted(tools_list=Done(obj(tools=[])))) as here:
        stream, posts, where = await opened(here)
        await posts.ask("POST", where, hello())
        assert (await stream.message())["error"]["code"] == -32600
        await posts.ask("POST", where, modern("tools/list", id=8))
        assert (await stream.message())["result"]["resultType"] == "complete"

"""Standard input and output as a channel of the daemon."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Raw

from mcpgw.core import wire
from mcpgw.daemon.pipe import Pipe
from mcpgw.front.stdio import opened
from mcpgw.model.calls import Ask, Call, Done, Listening, Reply, ResourceUpdated
from mcpgw.model.ports import Caller
from tests.doubles import PATIENCE, ScriptedLink, obj, plain
from tests.unit.front.rig import front, modern

pytestmark = pytest.mark.anyio

HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {}},
}


def request(id: object, method: str = "tools/call", **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": "t", **params}}


class Client:
    """The far side of a Pipe."""

    def __init__(self, sink: int, source: asyncio.StreamReader) -> None:
        self.sink = sink
        self._source = source

    def send(self, *messages: object) -> None:
        lines = [m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages]
        os.write(self.sink, b"".join(line + b"\n" for line in lines))

    async def next(self) -> Any:
        with anyio.fail_after(PATIENCE):
            return json.loads(await self._source.readline())

    def end(self) -> None:
        os.close(self.sink)


@asynccontextmanager
async def piped(door: Path, key: str | None = None) -> AsyncGenerator[Client]:
    """A Pipe to this door; it must end by itself once its input ended."""
    theirs_in, sink = os.pipe()
    ours, theirs_out = os.pipe()
    source = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(source), os.fdopen(ours, "rb", 0)
    )
    with opened(theirs_in, theirs_out) as lines:
        running = asyncio.ensure_future(Pipe(door, key, lines).run())
        client = Client(sink, source)
        try:
            yield client
        finally:
            client.end()
            with anyio.fail_after(PATIENCE, shield=True):
                await running
    reading.close()
    os.close(theirs_in)
    os.close(theirs_out)


async def asks(call: Call, caller: Caller) -> Reply:
    return Done(obj(content=[], got=await caller.ask(Ask("roots/list", obj()))))


def answering() -> ScriptedLink:
    discovered = Done(obj(capabilities={"tools": {}}, supportedVersions=[]))
    return ScriptedLink({"server/discover": discovered, "tools/call": asks})


async def test_messages_of_both_ways_pass_as_they_are(tmp_path: Path) -> None:
    handler = answering()
    async with front(handler, door=str(tmp_path / "d")), piped(tmp_path / "d", "alice") as client:
        client.send(HELLO)
        told = await client.next()
        assert told["result"]["protocolVersion"] == "2025-11-25"
        client.send(request("x", big=10**30))
        asked = await client.next()
        assert asked["method"] == "roots/list"
        client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        answer = await client.next()
        assert (answer["id"], answer["result"]["got"]) == ("x", {"roots": []})
        call = handler.calls[-1]
        assert call.ctx.principal.name == "alice"
        assert call.params["big"] == Raw(b"1%030d" % 0)


async def test_a_modern_client_is_served_as_one(tmp_path: Path) -> None:
    handler = ScriptedLink({"tools/call": Done(obj(content=[]))})
    async with front(handler, door=str(tmp_path / "d")), piped(tmp_path / "d") as client:
        client.send(modern("tools/call", {"name": "t"}, id="m"))
        answer = await client.next()
        assert answer["result"]["resultType"] == "complete"
    assert handler.calls[-1].ctx.principal.kind == "owner"


async def test_what_is_no_message_is_answered(tmp_path: Path) -> None:
    async with front(answering(), door=str(tmp_path / "d")), piped(tmp_path / "d") as client:
        client.send(b"{nonsense", {"jsonrpc": "2.0", "id": 7, "method": 1})
        assert (await client.next())["error"]["code"] == -32700
        told = await client.next()
        assert (told["id"], told["error"]["code"]) == (7, -32600)


async def test_the_end_of_input_waits_for_answers_and_not_for_what_was_cancelled(
    tmp_path: Path,
) -> None:
    release = anyio.Event()

    async def slow(call: Call, caller: Caller) -> Reply:
        if "wait" in call.params:
            await anyio.sleep_forever()
        await release.wait()
        return Done(obj(content=[]))

    handler = answering()
    handler.answers["tools/call"] = slow
    async with front(handler, door=str(tmp_path / "d")), piped(tmp_path / "d") as client:
        client.send(HELLO)
        await client.next()
        client.send(request(2), request(3, wait=True))
        await handler.reached("tools/call", 2)
        gone = {"requestId": 3}
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": gone})
        await handler.dropped()
        release.set()
        assert (await client.next())["id"] == 2


async def test_a_script_that_does_not_wait_for_the_handshake(tmp_path: Path) -> None:
    handler = answering()
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}

    async def slowly(call: Call, caller: Caller) -> Reply:
        await anyio.sleep(0.1)
        return Done(obj(capabilities={"tools": {}}, supportedVersions=[]))

    handler.answers["server/discover"] = slowly
    handler.answers["tools/call"] = Done(obj(content=[]))
    async with front(handler, door=str(tmp_path / "d")), piped(tmp_path / "d") as client:
        client.send(HELLO, ready, request(2))
        assert (await client.next())["result"]["protocolVersion"] == "2025-11-25"
        assert "result" in await client.next()


async def test_what_lasts_is_said_again_and_heard_without_a_word(tmp_path: Path) -> None:
    door = tmp_path / "d"
    has = {"resources": {"subscribe": True, "listChanged": True}, "logging": {}}
    listened: list[Any] = []

    async def listen(call: Call, caller: Caller) -> Reply:
        wanted = plain(call.params["notifications"])
        listened.append(wanted)
        await caller.tell(Listening(wire.members(call.params["notifications"])))
        for uri in wanted.get("resourceSubscriptions", ()):
            await caller.tell(ResourceUpdated(uri, obj(uri=uri)))
        await anyio.sleep_forever()
        return Done(obj())

    def daemon() -> ScriptedLink:
        handler = answering()
        handler.answers["server/discover"] = Done(obj(capabilities=has, supportedVersions=[]))
        handler.answers["subscriptions/listen"] = listen
        handler.answers["tools/call"] = Done(obj(content=[]))
        return handler

    async with piped(door) as client:
        async with front(daemon(), door=str(door)):
            client.send(HELLO)
            await client.next()
            for id, method, params in (
                (2, "resources/subscribe", {"uri": "x:1"}),
                (3, "resources/subscribe", {"uri": "x:2"}),
                (4, "resources/unsubscribe", {"uri": "x:2"}),
                (5, "logging/setLevel", {"level": "debug"}),
            ):
                client.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
                while (await client.next()).get("id") != id:
                    pass
        door.unlink()
        listened.clear()
        second = daemon()
        async with front(second, door=str(door)):
            told = await client.next()
            assert (told["method"], told["params"]["uri"]) == (
                "notifications/resources/updated",
                "x:1",
            )
            assert listened[-1]["resourceSubscriptions"] == ["x:1"]
            client.send(request(6))
            while (await client.next()).get("id") != 6:
                pass
            assert second.of("tools/call")[-1].ctx.log_level == "debug"


async def test_a_daemon_that_comes_back_is_told_of_the_session_again(tmp_path: Path) -> None:
    door = tmp_path / "d"
    first, second = answering(), answering()
    reached = anyio.Event()

    async def hang(call: Call, caller: Caller) -> Reply:
        reached.set()
        await anyio.sleep_forever()
        return Done(obj())

    first.answers["tools/call"] = hang
    async with piped(door) as client:
        async with front(first, door=str(door)):
            client.send(HELLO)
            await client.next()
            client.send(request(2))
            with anyio.fail_after(PATIENCE):
                await reached.wait()
        door.unlink()
        answer = await client.next()
        assert (answer["id"], answer["error"]["code"]) == (2, -32000)
        client.send(request(3))  # nobody is there
        answer = await client.next()
        assert (answer["id"], answer["error"]["code"]) == (3, -32000)
        async with front(second, door=str(door)):
            client.send(request(4))
            asked = await client.next()
            assert asked["method"] == "roots/list"  # no second answer to initialize
            assert plain(second.calls[-1].ctx.capabilities) == {"roots": {}}
            client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
            assert (await client.next())["id"] == 4

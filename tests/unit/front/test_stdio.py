"""stdio: both eras on one channel, over real pipes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcpgw.front import stdio
from mcpgw.model.calls import Ask, AskMode, Call, Done, ListChanged, Listening, Log, Reply
from mcpgw.model.ports import Caller, Handler
from tests.doubles import PATIENCE, Gate, ScriptedHandler, context, obj, plain, text_result
from tests.unit.front.rig import SNAPSHOT, hello, modern, note, request
from tests.unit.front.test_streamable import DISCOVER

pytestmark = pytest.mark.anyio

META = "io.modelcontextprotocol/"
CALL = {"name": "github__echo"}


class Client:
    """The other end of the pipes."""

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = open(read, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._buffer = b""
        self.ended = anyio.Event()
        self._open = True

    async def send(self, *messages: object) -> None:
        data = b"".join(
            (m if isinstance(m, bytes) else json.dumps(m).encode()) + b"\n" for m in messages
        )
        view = memoryview(data)
        while view:
            view = view[await anyio.to_thread.run_sync(os.write, self._write, view) :]

    async def line(self) -> Any:
        """The next message; None at the end."""
        with anyio.fail_after(PATIENCE):
            while b"\n" not in self._buffer:
                chunk = await anyio.to_thread.run_sync(self._read.read, 65536)
                if not chunk:
                    return None
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    async def ask(self, message: object) -> Any:
        await self.send(message)
        return await self.line()

    def hang_up(self) -> None:
        if self._open:
            os.close(self._write)
            self._open = False

    def stop_reading(self) -> None:
        self._read.close()

    def close(self) -> None:
        self.hang_up()
        self._read.close()


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[Client]:
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    client = Client(their_out, their_in)

    async def run() -> None:
        try:
            await stdio.serve(handler, ctx=context(SNAPSHOT), stdin=our_in, stdout=our_out)
        finally:
            os.close(our_out)
            client.ended.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield client
            client.hang_up()
            with anyio.fail_after(PATIENCE):
                await client.ended.wait()
    finally:
        client.close()
        os.close(our_in)


def scripted(**answers: Any) -> ScriptedHandler:
    table = {name.replace("_", "/"): answer for name, answer in answers.items()}
    return ScriptedHandler({"server/discover": DISCOVER, **table})


async def test_a_legacy_session() -> None:
    async def chatty(call: Call, caller: Caller) -> Reply:
        assert caller.ask_mode is AskMode.LIVE
        await caller.tell(Log("info", obj(level="info", data=1)))
        return Done({"told": await caller.ask(Ask("elicitation/create", obj(message="?")))})

    handler = scripted(tools_call=chatty)
    async with served(handler) as client:
        assert (await client.ask(request("ping")))["result"] == {}
        assert (await client.ask(request("tools/list")))["error"]["code"] == -32602
        answer = await client.ask(hello("2025-06-18", {"elicitation": {}}))
        assert answer["result"]["protocolVersion"] == "2025-06-18"
        await client.send(note("notifications/initialized"), request("tools/call", CALL, id=2))
        assert (await client.line())["method"] == "notifications/message"
        question = await client.line()
        assert question["method"] == "elicitation/create"
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
        assert (await client.ask(reply)) == {
            "jsonrpc": "2.0",
            "id": 2,
            "result": {"told": {"action": "decline"}},
        }
    ctx = handler.calls[-1].ctx
    assert (ctx.transport, ctx.session, ctx.principal.kind) == ("stdio", "stdio", "owner")


async def test_a_script_that_does_not_wait_for_the_handshake() -> None:
    gate = Gate()
    handler = scripted(tools_call=text_result("done"))
    handler.answers["server/discover"] = gate.then(DISCOVER)
    async with served(handler) as client:
        ready = note("notifications/initialized")
        await client.send(hello(), ready, request("tools/call", CALL, id=2))
        await handler.reached("server/discover")
        gate.open()
        assert [(await client.line())["id"] for _ in range(2)] == ["hello", 2]


async def test_modern_requests_on_the_same_channel() -> None:
    async def listening(call: Call, caller: Caller) -> Reply:
        await caller.tell(Listening(obj(toolsListChanged=True)))
        await caller.tell(ListChanged("tools"))
        return await Gate().then(text_result("never"))(call, caller)

    handler = scripted(subscriptions_listen=listening, tools_list=Done(obj(tools=[])))
    async with served(handler) as client:
        answer = await client.ask(modern("server/discover", id="d"))
        assert answer["result"]["supportedVersions"] == ["2026-07-28"]
        assert answer["result"]["resultType"] == "complete"
        listen = modern("subscriptions/listen", {"notifications": {}}, id="sub")
        acknowledged = await client.ask(listen)
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        changed = await client.line()
        assert changed["params"]["_meta"][META + "subscriptionId"] == "sub"
        assert (await client.ask(modern("tools/list", id="sub")))["error"]["code"] == -32600
        await client.send(note("notifications/cancelled", {"requestId": "sub"}))
        await handler.dropped()
        assert (await client.ask(modern("tools/list", id="sub")))["result"]["tools"] == []
        bad = modern("tools/list", meta={META + "protocolVersion": "2099-01-01"})
        assert (await client.ask(bad))["error"]["code"] == -32022
        assert (await client.ask(modern("ping")))["error"]["code"] == -32601
    assert not handler.calls[0].ctx.mirrored


async def test_cancelling_a_legacy_call() -> None:
    gate = Gate()
    handler = scripted(tools_call=gate.then(text_result("done")))
    async with served(handler) as client:
        await client.ask(hello())
        await client.send(request("tools/call", CALL, id=1), request("tools/call", CALL, id="1"))
        await handler.reached("tools/call", 2)
        await client.send(note("notifications/cancelled", {"requestId": 1}))
        await handler.dropped()
        gate.open()
        assert (await client.line())["id"] == "1"


async def test_bad_lines_are_answered_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio, "MAX_LINE", 200_000)
    async with served(scripted()) as client:
        for bad, code in (
            (b"{", -32700),
            (b"\xff", -32700),
            (b"[]", -32600),
            (b"5", -32600),
            (b'{"x":"' + b"y" * 300_000 + b'"}', -32600),
        ):
            assert (await client.ask(bad))["error"]["code"] == code
        await client.send(b"", b"   ")
        assert (await client.ask(request("ping", id="after")))["id"] == "after"


async def test_a_batch_of_2025_03_26() -> None:
    async with served(scripted()) as client:
        await client.ask(hello("2025-03-26"))
        answers = await client.ask([request("ping", id=1), request("ping", id=2)])
        assert [answer["id"] for answer in answers] == [1, 2]


async def test_the_end_of_input_lets_calls_finish() -> None:
    gate = Gate()
    handler = scripted(tools_call=gate.then(text_result("done")))
    async with served(handler) as client:
        await client.send(modern("tools/call", CALL, id=1))
        await handler.reached("tools/call")
        client.hang_up()
        gate.open()
        assert (await client.line())["id"] == 1
        assert await client.line() is None


async def test_the_end_of_input_cancels_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "DRAIN", 0.05)

    async def listening(call: Call, caller: Caller) -> Reply:
        await caller.tell(Listening({}))
        return await Gate().then(text_result("never"))(call, caller)

    handler = scripted(tools_call=Gate().then(text_result("never")), subscriptions_listen=listening)
    async with served(handler) as client:
        await client.send(modern("tools/call", CALL, id=1), modern("subscriptions/listen", id=2))
        await handler.reached("tools/call")
        await handler.reached("subscriptions/listen")
        client.hang_up()
        await handler.dropped(2)


async def test_a_large_answer_waits_for_a_slow_reader() -> None:
    big = text_result("x" * 1_000_000)
    async with served(scripted(tools_call=big)) as client:
        await client.send(*(modern("tools/call", CALL, id=id) for id in range(5)))
        answers = [await client.line() for _ in range(5)]
    assert sorted(answer["id"] for answer in answers) == list(range(5))
    assert all(len(answer["result"]["content"][0]["text"]) == 1_000_000 for answer in answers)


async def test_a_reader_that_is_gone_ends_nothing_badly() -> None:
    handler = scripted(tools_call=text_result("hi"))
    async with served(handler) as client:
        client.stop_reading()
        await client.send(modern("tools/call", CALL, id=1), modern("tools/call", CALL, id=2))
        await handler.reached("tools/call", 2)
    assert plain(handler.calls[0].params) == CALL

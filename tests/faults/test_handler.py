"""Whatever a Handler does wrong, each front answers in time, serves the others and keeps nothing.

The fixture `clean` checks what is left: no task, no socket, no pipe, no child.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from mcpgw.model.calls import Ask, Call, Done, Log, NeedInput, Progress, Reply, RpcError
from mcpgw.model.config import EVERYTHING, Target
from mcpgw.model.ports import Caller
from tests import rawclient
from tests.doubles import FixedConfig, context, key, obj, plain, raw, server, snapshot
from tests.jsontext import members, name_of
from tests.rawclient import Heard, RawClient
from tests.unit.front.rig import front

pytestmark = pytest.mark.anyio
FRONTS = pytest.mark.parametrize("kind", rawclient.KINDS)
IN_TIME = 10.0  # seconds until every call has its answer
NOTES = 10_000
CONFIG = snapshot(server("one"), principals=(key("alice", Target("*")), key("bob", Target("*"))))
DISCOVERED = Done(obj(supportedVersions=["2026-07-28"], capabilities={"tools": {}, "logging": {}}))
RESULT = Done(obj(content=[]))

Deed = Callable[[Call, Caller], Awaitable[Reply]]


class Faulty:
    """A Handler whose tools are faults; any other name is a tool that works.

    running: how many calls it is in. begun: such a fault has begun. callers: of all of them.
    """

    def __init__(self) -> None:
        self.running = 0
        self.begun = anyio.Event()
        self.go_on = anyio.Event()
        self.callers: list[Caller] = []

    async def handle(self, call: Call, caller: Caller) -> Reply:
        if call.method == "server/discover":
            return DISCOVERED
        deed: Deed | None = getattr(self, str(plain(call.params["name"])), None)
        if deed is None:
            return RESULT
        self.running += 1
        self.callers.append(caller)
        self.begun.set()
        try:
            return await deed(call, caller)
        finally:
            self.running -= 1

    async def refuses(self, call: Call, caller: Caller) -> Reply:
        raise RpcError(-32050, "not today")

    async def breaks(self, call: Call, caller: Caller) -> Reply:
        raise ValueError("hunter2")

    async def breaks_twice(self, call: Call, caller: Caller) -> Reply:
        raise ExceptionGroup("hunter2", [ValueError("hunter2"), OSError("hunter2")])

    async def breaks_in_the_middle(self, call: Call, caller: Caller) -> Reply:
        await caller.tell(progress(1))
        raise RuntimeError("hunter2")

    async def strays(self, call: Call, caller: Caller) -> Reply:
        """What it waits for is cancelled, and not by whoever called."""
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(waiting.cancel)
        return await waiting

    async def is_huge(self, call: Call, caller: Caller) -> Reply:
        return Done({"content": raw("x" * (32 * 1024 * 1024 + 1))})

    async def asks_for_more(self, call: Call, caller: Caller) -> Reply:
        await caller.ask(Ask("tools/list", {}))
        return RESULT

    async def asks_undeclared(self, call: Call, caller: Caller) -> Reply:
        await caller.ask(Ask("sampling/createMessage", obj(messages=[], maxTokens=1)))
        return RESULT

    async def floods(self, call: Call, caller: Caller) -> Reply:
        for at in range(NOTES // 2):
            await caller.tell(progress(at))
            await caller.tell(Log("info", obj(level="info", data=at)))
        return RESULT

    async def is_late(self, call: Call, caller: Caller) -> Reply:
        await self.go_on.wait()
        return RESULT

    async def tells(self, call: Call, caller: Caller) -> Reply:
        await caller.tell(progress(1))
        return RESULT

    async def never(self, call: Call, caller: Caller) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError

    async def insists(self, call: Call, caller: Caller) -> Reply:
        """It is cancelled, and answers all the same."""
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
        return RESULT

    async def needs(self, call: Call, caller: Caller) -> Reply:
        return NeedInput({"k": Ask("elicitation/create", obj(message="?"))}, "state")


def progress(at: int) -> Progress:
    return Progress(obj(progress=at))


class Place:
    """A Handler behind one kind of front."""

    def __init__(self, kind: rawclient.Kind, handler: Faulty, port: int) -> None:
        self.kind: rawclient.Kind = kind
        self.handler = handler
        self._port = port

    @asynccontextmanager
    async def client(self, who: str = "alice") -> AsyncGenerator[RawClient]:
        if self.kind.startswith("http"):
            opening = rawclient.over_http(self.kind, self._port, who, "/mcp")
        elif self.kind == "sse":
            opening = rawclient.over_sse(self._port, who, "/sse")
        else:
            ctx = context(CONFIG, principal=CONFIG.principals[f"key-{who}"], endpoint=EVERYTHING)
            opening = rawclient.over_stdio(self.kind, self.handler, ctx)
        async with opening as client:
            yield client


@asynccontextmanager
async def place(kind: Any) -> AsyncGenerator[Place]:
    """A front whose Handler is in no call any more in the end."""
    handler = Faulty()
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(60))
        here = await stack.enter_async_context(front(handler, config=FixedConfig(CONFIG)))
        assert isinstance(here.address, int)
        yield Place(kind, handler, here.address)
        handler.go_on.set()
    assert handler.running == 0


async def call(client: RawClient, tool: str = "good") -> Heard:
    name = f'"{tool}"'.encode()
    with anyio.fail_after(IN_TIME):
        return await client.call(
            "tools/call",
            ((b'"name"', name), (b'"arguments"', b"{}")),
            answering=lambda params: b'{"action":"cancel"}',
        )


async def neighbour(client: RawClient, count: int = 20) -> None:
    """Somebody else, who is answered all the time."""
    for _ in range(count):
        heard = await call(client)
        assert "result" in heard.answer
        assert not heard.notes


def code(heard: Heard) -> int:
    error = members(heard.answer["error"])
    assert "hunter2" not in name_of(error["message"])
    return int(error["code"])


@FRONTS
@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ("refuses", {-32050}),
        ("breaks", {-32603}),
        ("breaks_twice", {-32603}),
        ("breaks_in_the_middle", {-32603}),
        ("strays", {-32603}),
        ("is_huge", {-32603}),
        ("asks_for_more", {-32601}),
        ("asks_undeclared", {-32601, -32600, -32021}),
    ],
)
async def test_a_fault_is_an_error_of_that_call(kind: Any, fault: str, codes: set[int]) -> None:
    async with (
        place(kind) as here,
        here.client() as client,
        here.client("bob") as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(neighbour, other)
        for _ in range(2):
            assert code(await call(client, fault)) in codes
        await neighbour(client, 3)


@FRONTS
async def test_ten_thousand_notes_come_in_order_before_the_answer(kind: Any) -> None:
    async with (
        place(kind) as here,
        here.client() as client,
        here.client("bob") as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(neighbour, other)
        with anyio.fail_after(30):
            heard = await client.call("tools/call", ((b'"name"', b'"floods"'),))
        assert "result" in heard.answer
        of = {"notifications/progress": "progress", "notifications/message": "data"}
        told = [(method, int(members(params)[of[method]])) for method, params in heard.notes]
        assert told == [(method, at) for at in range(NOTES // 2) for method in of]
        await neighbour(client, 3)


@FRONTS
async def test_a_late_answer_holds_up_only_its_own_call(kind: Any) -> None:
    async with (
        place(kind) as here,
        here.client() as client,
        here.client("bob") as other,
        anyio.create_task_group() as tasks,
    ):

        async def slow() -> None:
            assert "result" in (await call(client, "is_late")).answer

        tasks.start_soon(slow)
        await here.handler.begun.wait()
        await neighbour(other)
        here.handler.go_on.set()


@FRONTS
@pytest.mark.parametrize("tool", ["is_late", "tells", "breaks_in_the_middle"])
async def test_what_is_told_after_the_end_reaches_nobody(kind: Any, tool: str) -> None:
    async with place(kind) as here, here.client() as client:
        here.handler.go_on.set()
        before = len((await call(client, tool)).notes)
        assert before == (tool != "is_late")
        (caller,) = here.handler.callers
        for at in range(3):
            await caller.tell(progress(at))
            await caller.tell(Log("error", obj(level="error", data="late")))
        await neighbour(client, 3)
        with anyio.fail_after(IN_TIME), pytest.raises(RpcError):
            await caller.ask(Ask("elicitation/create", obj(message="late?")))


@FRONTS
@pytest.mark.parametrize("tool", ["never", "insists"])
async def test_whoever_gives_up_a_call_without_end_is_done_with_it(kind: Any, tool: str) -> None:
    async with place(kind) as here, here.client("bob") as other:
        async with here.client() as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_unanswered, client, tool)
                await here.handler.begun.wait()
                await neighbour(other)
                if kind != "http modern":  # there, hanging up is how one gives up
                    id = next(client.ids) - 1
                    note = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":%b}'
                    await client.say(note % (b'{"requestId":%d}' % id))
                    await _idle(here.handler)
                if kind != "http legacy":  # there, the stream ends without an answer
                    tasks.cancel_scope.cancel()
            if kind != "http modern":
                await neighbour(client, 3)
        await _idle(here.handler)
        await neighbour(other, 3)


async def _unanswered(client: RawClient, tool: str) -> None:
    with suppress(AssertionError), anyio.fail_after(IN_TIME):
        heard = await client.call("tools/call", ((b'"name"', b'"%b"' % tool.encode()),))
        raise RuntimeError(f"answered: {heard.answer}")


async def _idle(handler: Faulty) -> None:
    with anyio.fail_after(IN_TIME):
        while handler.running:  # noqa: ASYNC110 - the handler knows no waiting
            await anyio.sleep(0.001)


@FRONTS
async def test_a_need_for_input_that_no_way_leads_to_is_an_error(kind: Any) -> None:
    async with place(kind) as here, here.client() as client:
        if client.modern:
            return  # it is asked by the answer
        assert code(await call(client, "needs")) == -32600
        await neighbour(client, 3)

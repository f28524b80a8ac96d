"""Whoever misbehaves harms nobody else.

Each storm runs beside a neighbour: another principal that calls the same server and another one.
What the neighbour waits, what the gateway keeps, and what is left afterwards are all bounded. Each
storm ends by itself.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpgw.core.eras import LIMITED
from mcpgw.relay.inputs import PARKED
from mcpgw.upstream.site import EXCLUSIVE_LINKS
from tests.contract.house import House, serving
from tests.faults.peer import nothing_left
from tests.jsontext import members, obj
from tests.rawclient import KINDS, MODERN, Stream, connected
from tests.servers.raw import RawServer, Talk, playing

pytestmark = pytest.mark.anyio

P95 = 0.25  # seconds: the server, the client and the gateway share this one thread
GROWTH = 64 * 1024 * 1024  # bytes the process may grow by
PING = ((b'"name"', b'"t"'), (b'"arguments"', b'{"do":"ping"}'))
STORM = 20_000  # notes of one call
FLOOD = """
import os, threading
def flood():
    while True:
        os.write(2, b"x" * 100 + b"\\n")
threading.Thread(target=flood, daemon=True).start()
"""

Deed = Callable[[Talk], Awaitable[None]]


class Actor:
    """The script of a server whose calls say what it should do. started: such a call has come."""

    def __init__(self, **deeds: Deed) -> None:
        self.deeds = deeds
        self.started = asyncio.Event()
        self.free = asyncio.Event()  # lets what is stalled go on

    async def __call__(self, talk: Talk) -> None:
        arguments = members(members(talk.params).get("arguments", b"{}"))
        do = arguments.get("do", b'"ping"')[1:-1].decode()
        if do == "ping":
            await talk.result(b'{"content":[]}')
            return
        self.started.set()
        await self.deeds[do](talk)


@asynccontextmanager
async def street(
    kind: Any, *, aside: str = "", timeout: float = 60.0, **deeds: Deed
) -> AsyncGenerator[tuple[House, Actor]]:
    """A gateway, a server that does `deeds`, and a good one; nothing is left afterwards.

    aside: what its child does besides, over stdio. timeout: seconds, of both servers.
    """
    async with nothing_left(), AsyncExitStack() as stack:
        bad = await stack.enter_async_context(playing(kind))
        good = await stack.enter_async_context(playing("http modern", "two"))
        bad.aside = aside
        bad.script = actor = Actor(**deeds)
        house = await stack.enter_async_context(serving(bad, good, timeout=timeout))
        try:
            yield house, actor
        finally:
            actor.free.set()


def asking(do: str, id: int = 1, *, token: bool = True) -> bytes:
    """A modern tools/call as a whole HTTP request of alice."""
    meta = [
        (b'"io.modelcontextprotocol/protocolVersion"', b'"%b"' % MODERN.encode()),
        (b'"io.modelcontextprotocol/clientCapabilities"', b'{"elicitation":{"form":{}}}'),
        (b'"io.modelcontextprotocol/logLevel"', b'"debug"'),
    ]
    if token:
        meta.append((b'"progressToken"', b'"p"'))
    arguments = b'{"do":"%b"}' % do.encode()
    params = ((b'"name"', b'"one__t"'), (b'"arguments"', arguments), (b'"_meta"', obj(*meta)))
    return obj(
        (b'"jsonrpc"', b'"2.0"'),
        (b'"id"', b"%d" % id),
        (b'"method"', b'"tools/call"'),
        (b'"params"', obj(*params)),
    )


FIELDS = (
    (b"authorization", b"Bearer mcpgw_alice"),
    (b"accept", b"application/json, text/event-stream"),
    (b"mcp-protocol-version", MODERN.encode()),
    (b"mcp-method", b"tools/call"),
    (b"mcp-name", b"one__t"),
)


@asynccontextmanager
async def called(house: House, do: str, id: int = 1) -> AsyncGenerator[Stream]:
    """Alice calls; what comes back is read or not."""
    port = house.front.address
    assert isinstance(port, int)
    stream = await connected(port)
    try:
        await stream.send(b"POST", "/mcp", FIELDS, asking(do, id))
        yield stream
    finally:
        await stream.close()


async def answered(stream: Stream) -> dict[str, bytes]:
    """The last message of the answer."""
    _, head = await stream.head()
    last = b""
    async for message in stream.messages(head):
        last = message
    return members(last)


async def neighbours(house: House, *, calls: int = 60) -> None:
    """Bob goes on with his life, at the same server and at the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    async with house.client("http modern", "bob", one=False) as client:
        for name in (b'"one__t"', b'"two__t"'):
            params = ((b'"name"', name), PING[1])
            await client.call("tools/call", params)
            waited: list[float] = []
            for _ in range(calls):
                began = time.perf_counter()
                heard = await client.call("tools/call", params)
                waited.append(time.perf_counter() - began)
                assert "result" in heard.answer
            waited.sort()
            assert waited[int(calls * 0.95)] < P95, f"{name!r}: {waited[-5:]}"
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert after - before < GROWTH, f"{(after - before) >> 20} MiB more"


# ---------------------------------------------------------------- what servers and clients do


async def storm(talk: Talk) -> None:
    """Notes as fast as they are taken."""
    token = talk.token or b'""'
    log = b'{"level":"info","data":"' + b"x" * 200 + b'"}'
    for at in range(STORM // 2):
        progress = b'{"progressToken":%b,"progress":%d}' % (token, at)
        await talk.note(b"notifications/progress", progress)
        await talk.note(b"notifications/message", log)
    await talk.result(b'{"content":[]}')


async def stall(talk: Talk) -> None:
    await anyio.sleep_forever()


async def endless(talk: Talk) -> None:
    """A stream that never comes to its answer."""
    while True:
        await talk.note(b"notifications/message", b'{"level":"info","data":"more"}')
        await asyncio.sleep(0)


async def question(talk: Talk) -> None:
    """It waits for an answer that nobody gives."""
    await talk.ask(b"elicitation/create", b'{"message":"?","requestedSchema":{}}')


async def late(talk: Talk) -> None:
    """It goes on telling when the call is over."""
    progress = b'{"progressToken":%b,"progress":%%d}' % (talk.token or b'""')
    await talk.note(b"notifications/progress", progress % 1)
    await talk.result(b'{"content":[]}')
    for at in (2, 3, 4):
        await talk.note(b"notifications/progress", progress % at)


async def huge(talk: Talk) -> None:
    await talk.result(b'{"content":"' + b"x" * (32 * 1024 * 1024 + 1) + b'"}')


BOTH = pytest.mark.parametrize("kind", ["http modern", "http legacy", "stdio legacy", "sse"])


@BOTH
async def test_a_client_that_does_not_read_holds_up_nobody(kind: Any) -> None:
    async with (
        anyio_timeout(),
        street(kind, storm=storm) as (house, actor),
        called(house, "storm"),
    ):
        await actor.started.wait()
        await neighbours(house)


@BOTH
async def test_a_storm_of_notes_drowns_nobody_and_ends(kind: Any) -> None:
    async with (
        anyio_timeout(),
        street(kind, storm=storm) as (house, _),
        called(house, "storm") as stream,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(neighbours, house)
        assert "result" in await answered(stream)


@BOTH
async def test_a_stalled_server_and_many_who_gave_up_hold_up_nobody(kind: Any) -> None:
    async with anyio_timeout(), street(kind, stall=stall) as (house, actor):
        async with AsyncExitStack() as stack:
            for at in range(50):
                await stack.enter_async_context(called(house, "stall", at))
            await actor.started.wait()
            await neighbours(house)
        await neighbours(house)
        raw: RawServer = house.raws[0]
        for ids in raw.ids.values():
            assert len(ids) == len(set(ids))


@BOTH
async def test_an_endless_stream_holds_up_nobody(kind: Any) -> None:
    async with (
        anyio_timeout(),
        street(kind, endless=endless) as (house, actor),
        called(house, "endless"),
    ):
        await actor.started.wait()
        await neighbours(house)


@BOTH
async def test_a_result_beyond_the_bound_is_refused_and_no_more(kind: Any) -> None:
    async with (
        anyio_timeout(),
        street(kind, huge=huge) as (house, _),
        called(house, "huge") as stream,
    ):
        assert "error" in await answered(stream)
        async with house.client("http modern", "bob", one=False) as client:
            for name in (b'"one__t"', b'"two__t"'):
                heard = await client.call("tools/call", ((b'"name"', name), PING[1]))
                assert "result" in heard.answer


@BOTH
async def test_two_clients_with_the_same_ids_get_their_own(kind: Any) -> None:
    async def echo(talk: Talk) -> None:
        assert talk.token is not None
        tokens.append(talk.token)
        if len(tokens) == 2:
            both.set()
        await both.wait()
        for at in (1, 2, 3):
            note = b'{"progressToken":%b,"progress":%d}' % (talk.token, at)
            await talk.note(b"notifications/progress", note)
        await talk.result(b'{"content":[]}')
        late = b'{"progressToken":%b,"progress":4}' % talk.token
        if kind in ("stdio legacy", "sse"):
            await talk.note(b"notifications/progress", late)

    tokens: list[bytes] = []
    both = asyncio.Event()
    async with (
        anyio_timeout(),
        street(kind, echo=echo) as (house, _),
        called(house, "echo") as one,
        called(house, "echo") as other,
    ):
        for stream in (one, other):
            _, head = await stream.head()
            told = [members(message) async for message in stream.messages(head)]
            assert [members(one["params"])["progress"] for one in told[:-1]] == [b"1", b"2", b"3"]
            assert {members(one["params"])["progressToken"] for one in told[:-1]} == {b'"p"'}
            assert told[-1]["id"] == b"1"
        if kind in ("stdio legacy", "sse"):  # one channel: what is told must not mix
            assert len(set(tokens)) == 2


@pytest.mark.parametrize("kind", ["stdio modern", "stdio legacy"])
async def test_a_child_that_floods_standard_error_holds_up_nobody(kind: Any) -> None:
    async with anyio_timeout(), street(kind, aside=FLOOD) as (house, _):
        await neighbours(house)


@pytest.mark.parametrize(
    ("kind", "room"),
    [("http legacy", PARKED), ("stdio legacy", EXCLUSIVE_LINKS), ("sse", EXCLUSIVE_LINKS)],
)
async def test_calls_that_wait_for_input_are_bounded_and_hold_up_nobody(
    kind: Any, room: int
) -> None:
    async with anyio_timeout(), street(kind, timeout=1.0, question=question) as (house, _):
        asked = limited = 0
        for at in range(room + 3):
            async with called(house, "question", at) as stream:
                answer = await answered(stream)
            if "error" in answer:
                assert members(answer["error"])["code"] == b"%d" % LIMITED
                limited += 1
            else:
                assert members(answer["result"])["resultType"] == b'"input_required"'
                asked += 1
        assert (asked, limited) == (room, 3)
        await neighbours(house)
        async with house.client("http modern", "bob", one=False) as client:  # has room of its own
            params = ((b'"name"', b'"one__t"'), (b'"arguments"', b'{"do":"question"}'))
            with pytest.raises(Asked):
                await client.call("tools/call", params, answering=_stop)


class Asked(Exception):
    """A question has come."""


def _stop(params: bytes) -> bytes:
    raise Asked


@pytest.mark.parametrize("kind", ["stdio modern", "stdio legacy", "sse"])
@pytest.mark.parametrize("way", KINDS)
async def test_what_a_server_tells_of_an_ended_call_reaches_no_client(kind: Any, way: Any) -> None:
    async with (
        anyio_timeout(),
        street(kind, late=late) as (house, _),
        house.client(way, one=False) as client,
    ):
        for _ in range(3):
            params = ((b'"name"', b'"one__t"'), (b'"arguments"', b'{"do":"late"}'))
            heard = await client.call("tools/call", params)
            told = [members(params)["progress"] for _, params in heard.notes]
            assert told == [b"1"]
            heard = await client.call("tools/call", ((b'"name"', b'"one__t"'), PING[1]))
            assert not heard.notes


@asynccontextmanager
async def anyio_timeout() -> AsyncGenerator[None]:
    """No storm lasts longer."""
    with anyio.fail_after(60):
        yield

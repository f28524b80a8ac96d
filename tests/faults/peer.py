"""A TCP peer that misbehaves byte by byte, and the check that nothing of it is left behind.

A Peer answers every path that begins with /good as it should; anything else is handed to the
fault, a function of the Wire and the request. The Wire says exactly which bytes go out and how the
connection ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import TypeAlias, cast

import anyio

from mcpgw.upstream.http1 import Client

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
PATIENCE = 10.0  # seconds; a test that waits for longer has hung
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
_SETTLING = 2.0  # seconds that closed sockets and ended tasks have to be gone


class Wire:
    """One accepted connection."""

    def __init__(
        self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self.reader = reader
        self.writer = writer
        self.asked = 0

    async def request(self) -> bytes:
        """The next request, head and body. Raises IncompleteReadError at the end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        self.asked += 1
        self.peer.requests.append(head + body)
        return head + body

    async def send(self, data: bytes, *, step: int = 0) -> None:
        """All at once, or `step` bytes a time, each a segment of its own."""
        for start in range(0, len(data), step or len(data) or 1):
            self.writer.write(data[start : start + (step or len(data))])
            await self.writer.drain()
            if step:
                await asyncio.sleep(0)

    async def drip(self, data: bytes, pause: float) -> None:
        """One byte every `pause` seconds, over and over, until the other side goes away."""
        while True:
            for byte in data:
                await self.send(bytes([byte]))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        if not await self.reader.read(1):
                            return

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        while await self.reader.read(65536):
            pass

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """RST instead of FIN."""
        sock = cast("socket", self.writer.get_extra_info("socket"))
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault: TypeAlias = Callable[[Wire, bytes], Awaitable[None]]


class Peer:
    """Where it listens, and what it was asked."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []
        self.go_on = asyncio.Event()  # lets /good-stream end
        self.ended = asyncio.Condition()
        self.open = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def all_closed(self) -> None:
        """Wait until no connection is left."""
        async with self.ended:
            await self.ended.wait_for(lambda: self.open == 0)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        wire = Wire(self, reader, writer)
        try:
            while not writer.is_closing():
                await self._answer(wire, await wire.request())
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
            pass  # the client is gone
        finally:
            await wire.close()
            self.open -= 1
            async with self.ended:
                self.ended.notify_all()

    async def _answer(self, wire: Wire, request: bytes) -> None:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/good-stream"):
            await wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
            await self.go_on.wait()
            await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")
        elif path.startswith(b"/good") or self.fault is None:
            await wire.send(GOOD)
        else:
            await self.fault(wire, request)


@asynccontextmanager
async def serving(
    fault: Fault | None = None, *, tls: ssl.SSLContext | None = None, unix: str | None = None
) -> AsyncGenerator[Peer]:
    """A listening peer."""
    peer = Peer(fault)
    if unix is not None:
        server = await asyncio.start_unix_server(peer.accept, unix)
    else:
        server = await asyncio.start_server(peer.accept, "127.0.0.1", 0, ssl=tls)
        peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        peer.go_on.set()
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()


@asynccontextmanager
async def reaching(origin: str, **settings: object) -> AsyncGenerator[Client]:
    """A client that is closed in the end."""
    client = Client(origin, **settings)  # pyright: ignore[reportArgumentType]
    try:
        yield client
    finally:
        await client.aclose()


def _tasks() -> set[asyncio.Task[object]]:
    """All but those in which pytest's plugin runs the tests."""
    tasks = cast("set[asyncio.Task[object]]", asyncio.all_tasks())
    return {task for task in tasks if "runner_task" not in str(task.get_coro())}


def _open() -> int:
    """How many sockets and pipes this process has, where the system tells; uvloop renews some."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return 0
    found = 0
    for name in os.listdir(folder):
        with suppress(OSError):
            found += os.readlink(folder / name).startswith(("socket:", "pipe:"))
    return found


def children() -> set[int]:
    """The processes that this one has started and not yet seen the end of, where /proc tells."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_bytes().rpartition(b") ")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


@asynccontextmanager
async def nothing_left() -> AsyncGenerator[None]:
    """Fails when the block leaves a task, a socket, a pipe or a child behind."""
    tasks, held, born = _tasks(), _open(), children()
    yield
    until = asyncio.get_running_loop().time() + _SETTLING
    while _tasks() - tasks or _open() > held or children() - born:
        # The loop closes sockets a turn after it said so, and tells nobody.
        await asyncio.sleep(0.001)
        if asyncio.get_running_loop().time() > until:
            break
    gc.collect()
    assert _tasks() - tasks == set()
    assert _open() <= held
    assert children() - born == set()


async def ask(
    client: Client,
    path: str,
    *,
    method: str = "POST",
    body: bytes = b"{}",
    timeout: float = PATIENCE,
    idempotent: bool = False,
) -> bytes:
    """The body that `path` answers with 200."""
    response = await client.request(method, path, [], body, timeout=timeout, idempotent=idempotent)
    assert response.status == 200
    return await response.read(timeout=timeout)

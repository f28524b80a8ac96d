"""What the tour stands on: servers of every kind, a store that knows them, a key, a gateway.

The HTTP servers and the gateway are child processes in groups of their own, so that Ctrl-C reaches
the tour alone, and the tour ends them in order.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import keys, registry
from mcpgw.store.db import Store

KEY = "demo"
START = 15.0  # seconds a child may take until it answers
STOP = 8.0  # seconds a child may take to leave; longer than the daemon's own drain
LONGEST = 65536  # bytes of a line that a child says
LAST = 10  # lines of a gateway that did not start, shown to the person
SERVES = b"mcpgw serves on "  # how `mcpgw serve` begins the line that names its address


class Kind(Struct, frozen=True):
    """A transport in one revision. `name` is what servers of it are registered as."""

    transport: str
    revision: str
    name: str = ""

    @property
    def label(self) -> str:
        return f"{self.transport} {self.revision}"

    @property
    def short(self) -> tuple[str, str]:
        """Both in words that fit a narrow column."""
        return self.transport.removeprefix("streamable-"), self.revision


SERVERS = (
    Kind("stdio", "2025-11-25", "stdio-2025"),
    Kind("stdio", "2026-07-28", "stdio-2026"),
    Kind("streamable-http", "2025-11-25", "http-2025"),
    Kind("streamable-http", "2026-07-28", "http-2026"),
    Kind("sse", "2024-11-05", "sse-2024"),
)


class Stage(Struct, frozen=True):
    """Everything that was set up. address: `http://HOST:PORT` of the gateway."""

    store: Path
    address: str
    secret: str


def python(module: str, *words: str) -> tuple[str, ...]:
    """Run a module of this very installation, whatever the working directory holds."""
    return (sys.executable, "-P", "-m", module, *words)


@asynccontextmanager
async def stage(folder: Path) -> AsyncGenerator[Stage]:
    """Set up in `folder`, until the block ends. Raises GatewayError when a child does not start."""
    store = folder / "demo.db"
    remote = [kind for kind in SERVERS if kind.transport != "stdio"]
    async with contextlib.AsyncExitStack() as stack:
        children = [await stack.enter_async_context(_http_server(kind)) for kind in remote]
        urls = {
            kind.name: (await _says(child.stdout, b"http", kind.label)).decode().strip()
            for kind, child in zip(remote, children, strict=True)
        }
        secret = _register(store, urls)
        address = await stack.enter_async_context(_gateway(store))
        yield Stage(store, address, secret)


def _register(store: Path, urls: dict[str, str]) -> str:
    """Fill the store; the key's secret."""
    with Store.open(store) as opened:
        for kind in SERVERS:
            registry.add_server(opened, draft(kind, urls.get(kind.name)))
        names = [kind.name for kind in SERVERS]
        return keys.create_key(opened, KEY, grants=names, now=time.time())[1]


def draft(kind: Kind, url: str | None) -> registry.ServerDraft:
    """How a server of the demo is registered; the stdio ones have no URL."""
    about = f"Demo: {kind.label}"
    if url is not None:
        return registry.ServerDraft(name=kind.name, transport="auto", url=url, description=about)
    command = python("mcpgw.demo.stdio", kind.revision)
    return registry.ServerDraft(
        name=kind.name, transport="stdio", command=command, description=about
    )


@asynccontextmanager
async def _http_server(kind: Kind) -> AsyncGenerator[anyio.abc.Process]:
    """One HTTP server of the demo; it says its URL and ends with its input."""
    sort = "sse" if kind.transport == "sse" else "http"
    command = python("mcpgw.demo.http", sort, kind.revision)
    async with _child(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
        yield process


@asynccontextmanager
async def _gateway(store: Path) -> AsyncGenerator[str]:
    """A `mcpgw serve` on a free port; its address."""
    command = python("mcpgw", "--store", str(store), "serve", "--port", "0")
    async with _child(command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE) as process:
        line = await _says(process.stderr, SERVES, "the gateway")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pass_over, process.stderr)
            yield line.removeprefix(SERVES).decode().strip().removesuffix("/mcp")
            tasks.cancel_scope.cancel()


async def _says(source: anyio.abc.ByteReceiveStream | None, start: bytes, who: str) -> bytes:
    """The first line that begins so. Raises GatewayError with the last lines when none comes."""
    lines: deque[str] = deque(maxlen=LAST)
    try:
        with anyio.fail_after(START):
            reader = BufferedByteReceiveStream(_given(source))
            while not (line := await reader.receive_until(b"\n", LONGEST)).startswith(start):
                lines.append(line.decode(errors="replace"))
    except (TimeoutError, anyio.IncompleteRead, anyio.DelimiterNotFound) as error:
        raise GatewayError(
            f"The demo did not start: {who} does not answer.",
            why="\n".join(lines) or None,
            code="demo_failed",
            exit=Exit.UPSTREAM,
        ) from error
    return line


def _given(source: anyio.abc.ByteReceiveStream | None) -> anyio.abc.ByteReceiveStream:
    if source is None:
        raise ValueError("the child was started without this pipe")
    return source


async def _pass_over(source: anyio.abc.ByteReceiveStream | None) -> None:
    """Read what the gateway logs, so that it never waits for a reader."""
    async for _ in _given(source):
        pass


@asynccontextmanager
async def _child(
    command: Sequence[str], *, stdin: int, stdout: int, stderr: int
) -> AsyncGenerator[anyio.abc.Process]:
    """A child that does not outlive the block."""
    process = await anyio.open_process(
        command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _end(process: anyio.abc.Process) -> None:
    """Close the input, or ask by signal where there is none; insist after a while."""
    with contextlib.suppress(ProcessLookupError, OSError, anyio.BrokenResourceError):
        if process.stdin is not None:
            await process.stdin.aclose()
        else:
            process.terminate()
    with anyio.move_on_after(STOP) as patience:
        await process.wait()
    if patience.cancelled_caught:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.aclose()

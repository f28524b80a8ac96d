"""MCP on standard input and output, both eras: one JSON text a line.

Two threads of our own do the blocking reads and writes, whatever the two descriptors are; they are
daemons, so a peer that neither writes nor reads cannot hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import anyio

from mcpgw.core import wire
from mcpgw.core.eras import INVALID_REQUEST, PROTOCOL_VERSION
from mcpgw.errors import Exit, GatewayError
from mcpgw.front.auth import valid
from mcpgw.front.channel import Channel
from mcpgw.front.exchange import internal
from mcpgw.front.modern import Base
from mcpgw.model.calls import Context
from mcpgw.model.ports import Config, Handler

MAX_LINE: Final = 4 * 1024 * 1024  # bytes of one message
DRAIN: Final = 5.0  # seconds that calls in flight may take after the input has ended
_CHUNK: Final = 64 * 1024
_MODERN: Final = PROTOCOL_VERSION.encode()


async def serve(
    handler: Handler,
    *,
    ctx: Context,
    config: Config | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
) -> None:
    """Serve one client until its input ends. Raises GatewayError when its key does.

    ctx: who calls and through what; its revision and capabilities come from the client. config:
    what holds from one call to the next; without it, what `ctx` has.
    stdin, stdout: see `opened`.
    """
    with opened(stdin, stdout) as lines:
        await _Stdio(handler, ctx, lines).run(config)


@contextmanager
def opened(stdin: int | None = None, stdout: int | None = None) -> Generator[Lines]:
    """The lines of one client.

    stdin, stdout: descriptors instead of the process's own, which are taken away from everybody
    else while this lasts: what is printed then goes to standard error.
    """
    with contextlib.ExitStack() as stack:
        if stdin is None or stdout is None:
            stdin, stdout = stack.enter_context(_own_descriptors())
        lines = Lines(stdin, stdout)
        stack.callback(lines.stop)
        yield lines


class _Stdio:
    def __init__(self, handler: Handler, ctx: Context, lines: Lines) -> None:
        self._handler = handler
        self._lines = lines
        self._base = Base(ctx.principal, ctx.snapshot, ctx.endpoint, "stdio", session="stdio")
        self._config: Config | None = None
        self._scope: anyio.CancelScope | None = None
        self._dismissed = False

    async def run(self, config: Config | None) -> None:
        self._config = config
        stop = None if config is None else config.subscribe(lambda old, new: self._recheck())
        try:
            await self._serve()
        finally:
            if stop is not None:
                stop()
        if self._dismissed:
            raise GatewayError(
                "The key may no longer be used.",
                why="It was revoked, or it has expired.",
                next="mcpgw key list",
                code="key_ended",
                exit=Exit.DENIED,
            )

    async def _serve(self) -> None:
        async with anyio.create_task_group() as feeds:
            channel = Channel(
                self._handler,
                feeds,
                self._lines.send,
                id="stdio",
                principal=self._base.principal,
                endpoint=self._base.endpoint,
            )
            async with anyio.create_task_group() as calls:
                self._scope = calls.cancel_scope
                async for line in self._lines.read():
                    if channel.session is None and begins(line):
                        # What a script sends right behind it belongs to the session.
                        await self._take(channel, line)
                    else:
                        calls.start_soon(self._take, channel, line)
                channel.end_endless()
                calls.cancel_scope.deadline = anyio.current_time() + DRAIN
            channel.close()
            feeds.cancel_scope.cancel()

    def _recheck(self) -> None:
        """Go on under the configuration of the moment, or end when the key is no longer good."""
        if self._config is None:
            return
        base, snapshot = self._base, self._config.snapshot
        if not valid(base.principal, snapshot, time.time()):
            self._dismissed = True
            if self._scope is not None:
                self._scope.cancel()
        elif base.snapshot is not snapshot:
            principal = snapshot.principals.get(base.principal.id, base.principal)
            self._base = Base(principal, snapshot, base.endpoint, "stdio", session="stdio")

    async def _take(self, channel: Channel, line: bytes) -> None:
        try:
            self._recheck()
            await channel.take(line, self._base)
        except Exception as error:  # noqa: BLE001 - the boundary of one message
            internal(error)


class Lines:
    """Messages on two descriptors, one a line."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._source, self._sink = _Worker(), _Worker()
        self._stdin = stdin
        self._stdout = stdout
        self._writing = anyio.Lock()
        self._lost = False

    def stop(self) -> None:
        self._source.stop()
        self._sink.stop()

    async def read(self) -> AsyncGenerator[bytes]:
        """Each line; one that is too long is answered with an error and skipped."""
        held: list[bytes] = []
        size, skipping = 0, False
        while chunk := await self._source.do(lambda: os.read(self._stdin, _CHUNK)):
            *whole, rest = chunk.split(b"\n")
            for end in whole:
                if not skipping and size + len(end) <= MAX_LINE:
                    line = b"".join([*held, end])
                    if not line.isspace() and line:
                        yield line
                elif not skipping:
                    await self._too_long()
                held, size, skipping = [], 0, False
            if skipping:
                continue
            held.append(rest)
            size += len(rest)
            if size > MAX_LINE:
                await self._too_long()
                held, size, skipping = [], 0, True
        if held and not skipping and (line := b"".join(held)).strip():
            yield line

    async def _too_long(self) -> None:
        error = wire.BadMessage(INVALID_REQUEST, f"a line of more than {MAX_LINE} bytes")
        await self.send(wire.error(None, error))

    async def send(self, message: bytes) -> None:
        """One line; waits while the client does not read."""
        if b"\n" in message:  # only ever between tokens
            message = message.replace(b"\n", b" ")
        async with self._writing:
            if self._lost:
                return
            try:
                await self._sink.do(lambda: _write(self._stdout, message + b"\n"))
            except OSError:
                self._lost = True  # the client closed its end; its input ends soon as well


def begins(line: bytes) -> bool:
    """Whether a line looks like the `initialize` of a session that is not there yet."""
    return b'"initialize"' in line and _MODERN not in line


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _Worker:
    """A daemon thread that does one blocking thing after the other."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[
            tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop] | None
        ] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="mcpgw-stdio", daemon=True).start()

    async def do(self, job: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the job returns
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((job, done, loop))
        return await done

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done, loop = item
            try:
                result, error = job(), None
            except OSError as failed:
                result, error = None, failed
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: object, error: OSError | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


@contextmanager
def _own_descriptors() -> Generator[tuple[int, int]]:
    """Standard input and output for us alone, until the block ends."""
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield stdin, stdout
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # what was printed meanwhile is not for the client either
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.close(stdin)
        os.close(stdout)

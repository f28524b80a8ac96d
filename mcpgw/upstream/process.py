"""A child process that speaks in lines, with its whole family ended when it is closed.

The pipes are read by the event loop's own callbacks: no task, no stream object. A child runs in a
session of its own, so that signals reach what it started too. It always sees the end of its input
when mcpgw goes away, also when mcpgw was killed; many servers go on for all that, so that on Linux
the kernel sends SIGTERM as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, cast

import anyio

from mcpgw.model.ports import UpstreamError

MAX_LINE: Final = 32 * 1024 * 1024 + 64 * 1024  # bytes: a result at its bound, and its envelope
MAX_UNSENT: Final = 64 * 1024 * 1024  # bytes a child may leave unread on its input
MAX_UNSENT_SOON: Final = 1024 * 1024  # the same for what nobody waits for
STDERR_LINE: Final = 4096  # bytes of a line on standard error that are kept
STDERR_KEPT: Final = 8  # last lines of standard error that an error shows
STDERR_RATE: Final = 50  # lines of standard error that are logged in one second
CLOSE_WAIT: Final = 2.0  # seconds a child has to end once its input ended
TERM_WAIT: Final = 2.0  # seconds it has after SIGTERM
KILL_WAIT: Final = 2.0  # seconds the system has after SIGKILL
LEFTOVER_WAIT: Final = 0.5  # seconds what a child left behind has after SIGTERM
LAST_WORDS: Final = 0.3  # seconds between the end of the output and the exit status
_POLL: Final = 0.05


class Lines:
    """Cuts a stream of bytes into lines.

    limit: bytes of one line; a longer one is thrown away and `too_long` gets its beginning.
    """

    __slots__ = ("_limit", "_line", "_parts", "_size", "_skipping", "_too_long")

    def __init__(
        self, line: Callable[[bytes], None], *, limit: int, too_long: Callable[[bytes], None]
    ) -> None:
        self._line = line
        self._limit = limit
        self._too_long = too_long
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for piece in whole:
            if self._parts or self._skipping:
                self._keep(piece)
                piece = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                if self._skipping:
                    self._skipping = False
                    continue
            elif len(piece) > self._limit:
                self._too_long(piece)
                continue
            if piece and not piece.isspace():
                self._line(piece)
        if rest:
            self._keep(rest)

    def end(self) -> None:
        """The stream ended; what came after its last line end is a line too."""
        self.feed(b"\n")

    def _keep(self, piece: bytes) -> None:
        if self._skipping:
            return
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            self._too_long(b"".join(self._parts))
            self._parts.clear()
            self._size = 0
            self._skipping = True


class Child(asyncio.SubprocessProtocol):
    """One running command; a Channel of lines.

    log: gets standard error; `redact` takes secrets out of it. ended: told once how the child
    ended, when no more output will come. `line` gets each line of standard output, `too_long` the
    beginning of one that is too long, and the bound.
    """

    def __init__(
        self, log: logging.Logger, redact: Callable[[str], str], ended: Callable[[str], None]
    ) -> None:
        self.line: Callable[[bytes], None] = _ignore
        self.too_long: Callable[[bytes, int], None] = _ignore
        self.exited = asyncio.Event()
        self.exited_by_itself = False
        self.pid = 0
        self._closing = False
        self._log = log
        self._redact = redact
        self._ended: Callable[[str], None] | None = ended
        self._words: deque[str] = deque(maxlen=STDERR_KEPT)
        self._out: Lines | None = None
        self._err = Lines(self._heard, limit=STDERR_LINE, too_long=self._heard)
        self._window = 0.0
        self._logged = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None

    async def start(
        self, command: tuple[str, ...], *, env: Mapping[str, str], cwd: str | None
    ) -> None:
        """Run `command`; `line` and `too_long` are set. Raises UpstreamError (start)."""
        self._out = Lines(
            self.line, limit=MAX_LINE, too_long=lambda head: self.too_long(head, MAX_LINE)
        )
        if not command:
            raise UpstreamError("start", "has no command", permanent=True)
        shown = self._redact(command[0])
        try:
            # Shielded, and short: half a start cannot be undone without losing a pipe or a child.
            with anyio.CancelScope(shield=True):
                transport, _ = await self._loop.subprocess_exec(
                    lambda: self,
                    *command,
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=_ends_with_us(),
                )
                self._attached(transport)
        except FileNotFoundError as error:
            if cwd is not None and not os.path.isdir(cwd):  # noqa: ASYNC240 - one look
                raise UpstreamError("start", f"has no directory {cwd} to run in") from error
            raise UpstreamError(
                "start", f"has a command that does not exist: {shown} is not found"
            ) from error
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UpstreamError("start", f"cannot run {shown}: {why or error}") from error

    def _attached(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self.pid = transport.get_pid()
        self._stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))

    # What the loop tells.

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        lines = self._out if fd == 1 else self._err
        if lines is not None:
            lines.feed(cast("bytes", data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and self._out is not None:
            self._out.end()
        elif fd == 2:
            self._err.end()
        if fd != 0:
            # Give the exit status, and the other stream's last words, a moment to arrive.
            self._loop.call_later(LAST_WORDS, self._gone)

    def process_exited(self) -> None:
        self.exited.set()
        self.exited_by_itself = not self._closing
        # What it left behind may keep the pipes open for ever.
        self._loop.call_later(LAST_WORDS, self._gone)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._how())

    def _how(self) -> str:
        status = self._transport.get_returncode() if self._transport is not None else None
        if status is None:
            return "closed its output"
        if status < 0:
            return f"was ended by {_signal_name(-status)}"
        return f"exited with status {status}"

    def _heard(self, line: bytes) -> None:
        text = self._redact(line[:STDERR_LINE].decode(errors="replace").rstrip())
        self._words.append(text)
        now = self._loop.time()
        if now - self._window >= 1:
            self._window, self._logged = now, 0
        self._logged += 1
        if self._logged <= STDERR_RATE:
            self._log.info("%s", text)
        elif self._logged == STDERR_RATE + 1:
            self._log.info("(more lines in this second are left out)")

    # Writing.

    def send(self, message: bytes) -> None:
        """Write one line. Raises UpstreamError (send) when the child does not take it."""
        stdin = self._stdin
        if stdin is None or stdin.is_closing() or self._ended is None:
            raise UpstreamError("send", "ended before the request could be sent")
        if stdin.get_write_buffer_size() > MAX_UNSENT:
            raise UpstreamError("send", "does not read its input")
        stdin.write(message + b"\n")

    def send_soon(self, message: bytes) -> None:
        stdin = self._stdin
        if stdin is None or stdin.is_closing() or self._ended is None:
            return
        if stdin.get_write_buffer_size() <= MAX_UNSENT_SOON:
            stdin.write(message + b"\n")

    # The end.

    def last_words(self) -> str:
        """The last lines on standard error, as a part of a message; "" when there are none."""
        if not self._words:
            return "; it wrote nothing on standard error"
        return "; its last lines on standard error:\n  " + "\n  ".join(self._words)

    async def close(self) -> None:
        """End the child and what it started. Bounded; shielded from cancellation."""
        transport = self._transport
        if transport is None:
            return
        self._closing = True
        with anyio.CancelScope(shield=True):
            if self._stdin is not None:
                self._stdin.close()
            if not await self._exits(CLOSE_WAIT):
                self._signal(signal.SIGTERM)
                if not await self._exits(TERM_WAIT):
                    self._signal(_KILL)
                    await self._exits(KILL_WAIT)
            await self._sweep()
            transport.close()

    async def _exits(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self.exited.wait()
        return self.exited.is_set()

    async def _sweep(self) -> None:
        """End what the child left behind in its group."""
        if not self._signal(signal.SIGTERM):
            return
        with anyio.move_on_after(LEFTOVER_WAIT):
            while self._signal(0):  # noqa: ASYNC110 - the system tells only when asked
                await anyio.sleep(_POLL)
        self._signal(_KILL)

    def _signal(self, number: int) -> bool:
        """Whether the group, or on Windows the child, is there to be signalled."""
        try:
            if os.name == "posix":
                os.killpg(self.pid, number)
            elif self._transport is not None and not self.exited.is_set() and number:
                self._transport.kill()
            else:
                return False
        except (ProcessLookupError, PermissionError):
            return False
        return True


@functools.cache
def _ends_with_us() -> Callable[[], None] | None:
    """What a child does before its command: ask the kernel for SIGTERM when mcpgw is gone."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - for those that start children

    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # a C library of another kind
        return None
    # Nothing else may happen in there: other threads hold locks that nobody will release.
    return functools.partial(prctl, _PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


_PR_SET_PDEATHSIG: Final = 1
_KILL: Final[int] = getattr(signal, "SIGKILL", signal.SIGTERM)


def _ignore(*_: object) -> None:
    pass


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"

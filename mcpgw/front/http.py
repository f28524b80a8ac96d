"""uvicorn's HTTP/1.1 connection, with what a gateway needs besides.

A connection that is lost tells every exchange on it at once (uvicorn wakes only the newest), so a
call can be cancelled without a task that waits for the loss. The head of a request is bounded in
bytes, a request and a client that does not read in time: uvicorn bounds none of them. A whole
response leaves in one write, where uvicorn makes two that each can wake the client (measured: 30 us
a response).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

MAX_HEAD = 64 * 1024  # bytes of a request line with its header fields
REQUEST_TIME = 60.0  # seconds for a whole request to arrive; 4 MiB at half a megabit a second
MAX_PIPELINE = 16  # requests that may wait behind the one that is answered
SWEEP = 10.0  # seconds between looks at a connection's clock, at most
KEY = "mcpgw.connection"  # where in an ASGI scope the connection stands
CYCLE = "mcpgw.cycle"  # and uvicorn's state of the one request

# uvicorn warns of each malformed request, which is for anybody to send; faults never reach it.
_unheard = logging.getLogger("mcpgw.front.connection")
_unheard.setLevel(logging.CRITICAL)


class Watcher(Protocol):
    """One who must know when the connection is lost."""

    def gone(self) -> None:
        """The connection is lost. Must not block."""
        ...


class Connection(HttpToolsProtocol):
    """The `http` class for uvicorn.Config."""

    request_time: ClassVar[float] = REQUEST_TIME
    max_head: ClassVar[int] = MAX_HEAD

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _unheard
        self.watchers: set[Watcher] = set()
        self._reading: float | None = None  # since when a request has been arriving
        self._in_head = True
        self._head = 0
        self._unsent = 0  # bytes that waited for the client at the last look
        self._moved = 0.0  # when there were last fewer of them
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reading = self.loop.time()
        self._tick()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        super().connection_lost(exc)
        for watcher in tuple(self.watchers):
            watcher.gone()
        self.watchers.clear()

    async def answer(
        self,
        cycle: RequestResponseCycle,
        status: int,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        """A whole response to the request of `cycle`. Fields are the caller's to keep valid."""
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[status]]
        for name, value in fields:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
            if self._reading is None:
                self._reading = self.loop.time()
        super().data_received(data)
        if self._in_head and self._head > self.max_head:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        self._in_head = True
        if self._reading is None:
            self._reading = self.loop.time()
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[KEY] = self

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head = 0
        scope = cast("dict[str, Any]", self.scope)
        super().on_headers_complete()
        scope[CYCLE] = self.cycle
        if 0 < len(self.pipeline) < MAX_PIPELINE:
            self.flow.resume_reading()  # else a client that hangs up now would not be noticed

    def on_message_complete(self) -> None:
        self._reading = None
        self._in_head = True
        super().on_message_complete()

    def _tick(self) -> None:
        """Look whether the client sends or reads too slowly."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._moved = unsent, now
        elif now - self._moved >= self.request_time:
            self.transport.abort()
            return
        late = self._reading is not None and now - self._reading >= self.request_time
        if late and not self.transport.is_closing():
            # A connection that never said anything is closed without a word.
            self._refuse(b"408 Request Timeout" if self._head or not self._in_head else b"")
        self._clock = self.loop.call_later(min(SWEEP, self.request_time), self._tick)

    def _refuse(self, status: bytes) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if status and not answering:
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        self.transport.close()

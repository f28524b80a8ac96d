"""One HTTP/1.1 connection: an asyncio protocol around llhttp's parser.

A Connection carries one exchange at a time and is told everything by the transport: no task of its
own, one future per request. It goes back to its pool with the last byte of a response, and never
after anything but one clean exchange (surplus bytes, an early end, a cancelled wait).
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from mcpgw.upstream.http1_body import HttpError, Response, Stage

MAX_HEAD: Final = 64 * 1024  # bytes of a status line with its headers, and of what is no body
MAX_HEADERS: Final = 256
WRITE_SLICE: Final = 256 * 1024  # larger requests are written piece by piece, as the peer reads
_MAX_NAMES: Final = 1024

_names: dict[bytes, str] = {}  # header names as they came -> lower-case text


class Owner(Protocol):
    """The pool, as a connection sees it."""

    def released(self, connection: Connection) -> None:
        """The exchange ended cleanly: the connection may carry the next one."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is gone; called once."""
        ...


class Connection(asyncio.Protocol):
    """One transport and the parser that reads it; at most one exchange at a time."""

    __slots__ = (
        "_answered",
        "_bodiless",
        "_deadline",
        "_done",
        "_drained",
        "_eof",
        "_error",
        "_fires",
        "_future",
        "_headers",
        "_keep",
        "_loop",
        "_noise",
        "_owner",
        "_parser",
        "_poll",
        "_response",
        "_sent",
        "_surplus",
        "_timeout",
        "_timer",
        "_transport",
        "_until_eof",
        "_writing_paused",
        "closed",
        "idle_since",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._poll: select.poll | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires = self._deadline = self._timeout = 0.0
        self.closed = False
        self.idle_since = 0.0
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._error: HttpError | None = None
        self._eof = False
        self._future: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._begin("")

    def _begin(self, method: str) -> None:
        self._bodiless = method == "HEAD"
        self._headers: list[tuple[bytes, bytes]] = []
        self._noise = 0  # bytes since the last one of a body
        self._answered = False  # a byte of the response came
        self._done = False
        self._keep = False
        self._surplus = False
        self._until_eof = False
        self._sent = False

    # The exchange.

    async def exchange(
        self, method: str, head: bytes, body: bytes, deadline: float, timeout: float
    ) -> Response:
        """Send one request; the response once its headers came. Raises HttpError."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise HttpError("send", "the connection was closed before the request")
        self._begin(method)
        self._future = future = self._loop.create_future()
        self._deadline, self._timeout = deadline, timeout
        if self._timer is None or deadline < self._fires:
            self._wind(deadline)
        try:
            if len(body) <= WRITE_SLICE:
                self._sent = True
                transport.write(head + body if body else head)
            else:
                await self._send(transport, head, body, future)
            return await future
        except asyncio.CancelledError:
            future.cancel()
            if self._future is future:
                self.abort()
            raise

    async def _send(
        self,
        transport: asyncio.Transport,
        head: bytes,
        body: bytes,
        future: asyncio.Future[Response],
    ) -> None:
        """Write as fast as the peer reads, until it has answered or gone."""
        self._sent = True
        transport.write(head)
        view = memoryview(body)
        for start in range(0, len(body), WRITE_SLICE):
            while self._writing_paused and not future.done():
                self._drained = self._loop.create_future()
                await self._drained
            if future.done() or transport.is_closing():
                self._surplus = True  # half a request went out: nothing may follow it
                return
            transport.write(view[start : start + WRITE_SLICE])

    @property
    def unanswered(self) -> bool:
        """The peer went away before a byte of a response: what a stale connection looks like."""
        return self.closed and not self._answered and self._error is None

    def now(self) -> float:
        return self._loop.time()

    def usable(self) -> bool:
        """Still open, as far as can be told without sending."""
        transport = self._transport
        if self.closed or transport is None or transport.is_closing():
            return False
        # The loop may not have got round to reading the peer's goodbye; 0.5 us to look.
        return self._poll is None or not self._poll.poll(0)

    def abort(self) -> None:
        """Close at once; whatever is under way ends with an error."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection politely."""
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> bool:
        """Stop reading; False when there is nothing to stop."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.pause_reading()
        return True

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _wind(self, deadline: float) -> None:
        """Set the clock. It is left running between exchanges: 2 us less for each of them."""
        if self._timer is not None:
            self._timer.cancel()
        self._fires = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._future is None or self._future.done():
            return
        if self._loop.time() < self._deadline:  # the clock was set for an earlier exchange
            self._wind(self._deadline)
            return
        stage: Stage = "send" if self._unwritten() else "read"
        message = f"no answer within {self._timeout:g} s"
        self._fail(HttpError(stage, message, sent=self._sent))

    def _unwritten(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _fail(self, error: HttpError) -> None:
        """The exchange is over, and the connection with it."""
        self._error = error
        self.abort()
        self._settle(error)

    def _settle(self, error: HttpError) -> None:
        future, self._future = self._future, None
        response, self._response = self._response, None
        if response is not None:
            response.ended(error)
        if future is not None and not future.done():
            future.set_exception(error)
        self._wake_writer()

    def _wake_writer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not subclasses
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._future is None or parser is None:  # nobody asked: out of step
            self.abort()
            return
        self._answered = True
        self._noise += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._done:
                self._refuse(error)
                return
            self._surplus = True
        if self._done:
            self._finish()
        elif self._noise > MAX_HEAD:
            what = "headers" if self._response is None else "framing"
            self._fail(HttpError("read", f"the response's {what} are too large", sent=True))

    def _refuse(self, error: Exception) -> None:
        cause: BaseException = error
        if isinstance(error.__context__, HttpError):
            cause = error.__context__
        if not isinstance(cause, HttpError):
            cause = HttpError("read", f"not an HTTP response: {cause}"[:200], sent=True)
        self._fail(cause)

    def _finish(self) -> None:
        """The response has ended: hand on the connection, or close it."""
        response, self._response = self._response, None
        self._future = None
        if response is not None:
            response.ended(None)
        if self._keep and not self._surplus and not self._unwritten() and not self._writing_paused:
            self._owner.released(self)
        else:
            self._wake_writer()
            self.abort()

    def eof_received(self) -> None:
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._until_eof and self._eof and exc is None and self._response is not None:
            self._done = True
            response, self._response, self._future = self._response, None, None
            response.ended(None)
        elif self._future is not None:
            self._settle(HttpError(self._stage(exc), _gone(exc), sent=self._sent))
        self._wake_writer()
        if self._timer is not None:
            self._timer.cancel()
        self._transport = self._parser = self._poll = self._timer = None
        self._owner.lost(self)

    def _stage(self, exc: Exception | None) -> Stage:
        if isinstance(exc, ssl.SSLError):  # TLS 1.3 refuses a client's certificate this late
            return "tls"
        return "read" if self._drained is None else "send"

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake_writer()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._done:
            raise HttpError("read", "more than one response", sent=True)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            if status == 101:
                raise HttpError("read", "the server switched protocols unasked", sent=True)
            self._headers = []
            return
        raw, self._headers = self._headers, []
        if len(raw) > MAX_HEADERS:
            raise HttpError("read", "the response has too many headers", sent=True)
        if self._noise > MAX_HEAD and sum(len(name) + len(value) for name, value in raw) > MAX_HEAD:
            raise HttpError("read", "the response's headers are too large", sent=True)
        headers = _decoded(raw)
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HttpError("read", "unknown transfer-encoding", sent=True)
        self._keep = parser.should_keep_alive()
        self._bodiless = self._bodiless or status in (204, 304)
        self._until_eof = coding is None and "content-length" not in headers and not self._bodiless
        self._response = response = Response(status, headers, self)
        if self._future is not None and not self._future.done():
            self._future.set_result(response)
        self._wake_writer()
        if self._bodiless:
            # The parser of a HEAD response waits for a body that never comes.
            self._keep = self._keep and status in (204, 304)
            self._done = True

    def on_body(self, data: bytes) -> None:
        if self._done:
            raise HttpError("read", "a body where there is none", sent=True)
        self._noise = 0
        if self._response is not None:
            self._response.fed(data)

    def on_message_complete(self) -> None:
        if self._response is not None:
            self._done = True


def _gone(exc: Exception | None) -> str:
    if exc is None:
        return "the server closed the connection before the response was complete"
    if isinstance(exc, OSError) and exc.strerror:
        return f"the connection was lost: {exc.strerror}"
    return f"the connection was lost: {type(exc).__name__}"


def _decoded(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key = _names.get(name)
        if key is None:
            key = name.decode("latin-1").lower()
            if len(_names) < _MAX_NAMES:
                _names[name] = key
        text = value.decode("latin-1").strip()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers

"""One HTTP request and its response, over ASGI.

The response is undecided until its first byte: JSON in one piece, or a stream of server-sent
events. Whoever waits for something else learns through `gone` that the client hung up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import anyio

from mcpgw.core import wire
from mcpgw.core.eras import INTERNAL_ERROR, INVALID_REQUEST
from mcpgw.core.sse import KEEP_ALIVE
from mcpgw.front.http import CYCLE, KEY, REQUEST_TIME, Connection
from mcpgw.model.calls import Reply, RpcError
from mcpgw.model.config import Principal

Scope: TypeAlias = dict[str, Any]  # ASGI's own dictionaries
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Fields: TypeAlias = Iterable[tuple[bytes, bytes]]

JSON = b"application/json"
_log = logging.getLogger("mcpgw.front")
_STREAM = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

_NAMES = {
    name.encode(): name
    for name in (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-api-key",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-litellm-api-key",
    )
}


class Gone(Exception):
    """The client hung up before its request was whole."""


class Refused(Exception):
    """The request ends here with this status; `fields` are header fields of the answer."""

    def __init__(self, status: int, error: RpcError, *fields: tuple[bytes, bytes]) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.fields = fields


class Exchange:
    """One request with the way to answer it.

    headers: fields by lower-case name, repeated ones joined; `twice`: names that came repeated.
    extra: header fields every response carries (CORS). touched: when the response was last
    written, on the loop's clock. streaming: the response is a stream of events. opener: begins one
    after long silence, soon if eager. endless: it goes on until somebody ends it. verdict: how the
    gateway itself ended the call.
    """

    __slots__ = (
        "_closed",
        "_receive",
        "_send",
        "_writing",
        "closing",
        "connection",
        "eager",
        "ended",
        "endless",
        "extra",
        "headers",
        "lost",
        "method",
        "on_gone",
        "opener",
        "path",
        "principal",
        "scope",
        "started",
        "streaming",
        "touched",
        "twice",
        "verdict",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.connection: Connection | None = scope.get(KEY)
        self.extra: tuple[tuple[bytes, bytes], ...] = ()
        self.started = False
        self.streaming = False
        self.ended = False
        self.closing = False
        self.opener: Callable[[], Awaitable[None]] | None = None
        self.lost = False
        self.eager = False
        self.endless = False
        self.principal: Principal | None = None
        self.verdict: Reply | RpcError | None = None
        self.on_gone: Callable[[], None] | None = None
        self.touched = 0.0
        self._closed: asyncio.Event | None = None
        self._writing = False
        self.headers: dict[str, str] = {}
        self.twice: tuple[str, ...] = ()
        headers = self.headers
        for raw_name, raw_value in scope["headers"]:
            name = _NAMES.get(raw_name) or raw_name.decode("latin-1").lower()
            value = raw_value.decode("latin-1").strip(" \t")  # RFC 9110: not part of the value
            if name in headers:
                self.twice += (name,)
                value = f"{headers[name]}, {value}"
            headers[name] = value

    def gone(self) -> None:
        """The client hung up."""
        self.lost = True
        if (cycle := self.scope.get(CYCLE)) is not None:
            cycle.disconnected = True  # uvicorn tells it to the newest request alone
        if self.on_gone is not None:
            self.on_gone()
        if self._closed is not None:
            self._closed.set()

    def close(self, verdict: Reply | RpcError | None = None) -> None:
        """Let a held stream end, and a call that is endless with `verdict`."""
        self.verdict = verdict
        self.closing = True
        if self._closed is not None:
            self._closed.set()
        elif self.on_gone is not None:
            self.on_gone()

    async def held(self) -> None:
        """Returns when the client hung up or `close` was called."""
        self._closed = self._closed or asyncio.Event()
        if not (self.lost or self.closing):
            await self._closed.wait()

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refused (413) beyond `limit` bytes, Gone."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
            raise too_large(limit)
        if self.connection is None:
            with anyio.move_on_after(REQUEST_TIME):
                return await self._body(limit)
            raise Refused(408, RpcError(INVALID_REQUEST, "the request did not arrive in time"))
        return await self._body(limit)

    async def _body(self, limit: int) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise Gone
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > limit:
                raise too_large(limit)
            return body
        chunks, size = [body], len(body)
        while True:
            if size > limit:
                raise too_large(limit)
            if not message.get("more_body", False):
                return b"".join(chunks)
            message = await self._receive()
            if message["type"] != "http.request":
                raise Gone
            chunk: bytes = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)

    async def hung_up(self) -> None:
        """Reads until the client hangs up, where the server does not tell it by itself."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone()

    async def respond(
        self, status: int, body: bytes = b"", fields: Fields = (), *, kind: bytes = JSON
    ) -> None:
        """The whole response in one piece."""
        self.started = True
        head = [*fields, *self.extra]
        if body:
            head.append((b"content-type", kind))
        if status != 204:
            head.append((b"content-length", b"%d" % len(body)))
        if self.connection is not None and self.method != "HEAD":
            await self.connection.answer(self.scope.pop(CYCLE), status, head, body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, status: int, error: RpcError, *fields: tuple[bytes, bytes]) -> None:
        """A JSON-RPC error that belongs to no request."""
        await self.respond(status, wire.error(None, error), fields)

    async def open_stream(self, fields: Fields = ()) -> None:
        """Begin a stream of server-sent events."""
        self.started = self.streaming = True
        self.touched = asyncio.get_running_loop().time()
        head = [*_STREAM, *fields, *self.extra]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})

    async def write(self, data: bytes) -> None:
        """Part of the stream. Waits for a slow client; nothing for one that is gone."""
        if self.lost or self.ended:
            return
        self._writing = True
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._writing = False
        self.touched = asyncio.get_running_loop().time()

    async def end(self, data: bytes = b"") -> None:
        """The stream's last part; nothing if it has ended or was none."""
        if self.streaming and not (self.lost or self.ended):
            self.ended = True
            await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def keep_alive(self) -> None:
        """A comment, so that nobody in between takes the silence for an end."""
        if self.lost or self.ended or self._writing:
            return
        if not self.started and self.opener is not None:
            await self.opener()
        if self.streaming:
            await self.write(KEEP_ALIVE)


def too_large(limit: int) -> Refused:
    return Refused(413, RpcError(INVALID_REQUEST, f"the body is larger than {limit} bytes"))


def internal(error: BaseException) -> RpcError:
    """What a caller is told of a fault of the gateway's own; the log has the rest."""
    _log.error("internal error", exc_info=error)
    return RpcError(INTERNAL_ERROR, "internal error")


def strayed(error: asyncio.CancelledError) -> RpcError:
    """The same for a cancellation that nobody asked for: what the handler waited for was cancelled.

    Raises it again when it is meant for this task.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return internal(error)

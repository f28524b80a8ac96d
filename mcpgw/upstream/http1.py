"""The keep-alive HTTP/1.1 client of the relay path.

One Client speaks to one origin. A small request on a warm connection costs one write, one future
and one timer: the head is put together from cached parts, and nothing is spawned. Redirects are
not followed. A request that is not idempotent is sent again only if no byte of it was written, so
connections that the peer has left are noticed early and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
from collections import deque
from collections.abc import Iterable
from typing import Final

from mcpgw.upstream.http1_body import MAX_BODY, HttpError, Response
from mcpgw.upstream.http1_conn import Connection
from mcpgw.upstream.http1_dial import Dialer
from mcpgw.upstream.http1_origin import Origin, find_proxy

__all__ = ["MAX_BODY", "Client", "HttpError", "Response"]

_CLOSING: Final = 2.0  # seconds that connections have to end when the client closes
_MAX_CACHED: Final = 256  # heads and header names that are remembered

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*|\*")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What frames a message or belongs to the hop is written here and nowhere else.
_OWN: Final = frozenset(
    (
        *("host", "connection", "keep-alive", "upgrade", "proxy-connection", "proxy-authorization"),
        *("content-length", "transfer-encoding", "te", "trailer", "expect", "accept-encoding"),
    )
)
_BODILESS: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))

_names_seen: set[str] = set()  # header names that callers used and that are good


class Client:
    """Connections to one origin.

    origin: "http(s)://host[:port]". unix: the path of a socket to go through. ca: a PEM file of
    roots trusted besides the system's. client_cert: a PEM file with certificate and key. idle:
    seconds an unused connection is kept. proxy_loopback: HTTP_PROXY and the like count for
    loopback origins too. Raises ValueError for a bad origin or proxy. Belongs to one event loop.
    """

    def __init__(
        self,
        origin: str,
        *,
        unix: str | None = None,
        ca: str | None = None,
        client_cert: str | None = None,
        max_connections: int = 256,
        idle: float = 60.0,
        proxy_loopback: bool = False,
    ) -> None:
        parsed = Origin.parse(origin)
        proxy = None
        if unix is None and (proxy_loopback or not parsed.loopback):
            proxy = find_proxy(parsed, os.environ)
        self._dialer = Dialer(parsed, unix=unix, ca=ca, client_cert=client_cert, proxy=proxy)
        self.ids = itertools.count(1)  # of JSON-RPC requests: fresh on every connection it has
        self._max = max_connections
        self._keep = idle
        self._heads: dict[tuple[str, str], str] = {}
        self._all: set[Connection] = set()
        self._idle: deque[Connection] = deque()  # the oldest first
        self._dialing = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes = b"",
        *,
        timeout: float,
        idempotent: bool = False,
    ) -> Response:
        """Send a request and return its response as soon as the headers are there.

        target: path and query. timeout: seconds for waiting, connecting and the response's
        headers together. idempotent: may be sent a second time when a kept connection proves dead.
        Raises HttpError. Cancelling closes the connection that was in use.
        """
        head = self._head(method, target, headers, len(body))
        deadline = asyncio.get_running_loop().time() + timeout
        again = idempotent
        while True:
            connection = self._kept()
            kept = connection is not None
            if connection is None:
                connection = await self._acquire(deadline, timeout)
                kept = connection.idle_since > 0
            try:
                return await connection.exchange(method, head, body, deadline, timeout)
            except HttpError as error:
                if not kept or (error.sent and not (again and connection.unanswered)):
                    raise
                again = again and not error.sent
                if error.sent:
                    self._drop_idle()

    async def aclose(self) -> None:
        """Close every connection; requests under way fail. Idle ones end politely."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(HttpError("connect", "the client was closed"))
        self._waiters.clear()
        idle = set(self._idle)
        self._idle.clear()
        for connection in self._all - idle:
            connection.abort()
        for connection in idle:
            connection.close()
        if self._all:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=_CLOSING)
            for connection in list(self._all):
                connection.abort()

    # The pool

    def _kept(self) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.abort()
        return None

    def _drop_idle(self) -> None:
        """A kept connection was dead: the server has restarted, and the others are dead as well."""
        while self._idle:
            self._idle.pop().close()

    async def _acquire(self, deadline: float, timeout: float) -> Connection:
        if self._closed:
            raise HttpError("connect", "the client was closed")
        if len(self._all) + self._dialing < self._max:
            self._dialing += 1
        elif (connection := await self._wait(deadline, timeout)) is not None:
            return connection
        try:
            connection = await self._dialer.dial(self._make, deadline=deadline, timeout=timeout)
        except BaseException:
            self._return(None)
            raise
        if connection.closed or self._closed:
            self._return(None)
            connection.abort()
            raise HttpError("connect", "the connection was closed at once")
        self._dialing -= 1
        self._all.add(connection)
        return connection

    def _make(self) -> Connection:
        return Connection(self)

    async def _wait(self, deadline: float, timeout: float) -> Connection | None:
        """The next connection that is released, or None for the right to make one."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_at(deadline, self._expire, waiter, timeout)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._return(waiter.result())
            raise
        finally:
            timer.cancel()

    def _expire(self, waiter: asyncio.Future[Connection | None], timeout: float) -> None:
        if not waiter.done():
            message = f"none of {self._max} connections became free within {timeout:g} s"
            waiter.set_exception(HttpError("connect", message))

    def _return(self, given: Connection | None) -> None:
        """What a waiter was given and cannot use any more."""
        if given is None:
            self._dialing -= 1
            self._offer()
        elif not given.closed:
            self.released(given)

    def _offer(self) -> None:
        """Let those who wait make connections, as far as there is room."""
        while len(self._all) + self._dialing < self._max and (waiter := self._first()) is not None:
            self._dialing += 1
            waiter.set_result(None)

    def _first(self) -> asyncio.Future[Connection | None] | None:
        """Who waits for longest, taken off the queue."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def released(self, connection: Connection) -> None:
        """A connection ended its exchange well and may carry the next."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = now = connection.now()
        if self._waiters and (waiter := self._first()) is not None:
            waiter.set_result(connection)
            return
        self._idle.append(connection)
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_at(now + self._keep, self._sweep, loop)

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        self._offer()
        if self._emptied is not None and not self._all and not self._emptied.done():
            self._emptied.set_result(None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what was idle for too long."""
        now = loop.time()
        while self._idle and self._idle[0].idle_since + self._keep <= now:
            self._idle.popleft().close()
        self._sweeper = None
        if self._idle:
            at = self._idle[0].idle_since + self._keep
            self._sweeper = loop.call_at(at, self._sweep, loop)

    # The request's head

    def _head(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], length: int
    ) -> bytes:
        text = self._heads.get((method, target)) or self._opening(method, target)
        for name, value in headers:
            if name not in _names_seen:
                _admit(name)
            if not (value.isascii() and value.isprintable()) and not _VALUE.fullmatch(value):
                raise HttpError("send", f"header {name} has characters that HTTP cannot carry")
            text += f"{name}: {value}\r\n"
        if length or method not in _BODILESS:
            text += f"content-length: {length}\r\n"
        return (text + "\r\n").encode("latin-1")

    def _opening(self, method: str, target: str) -> str:
        """The head's first lines, which depend on nothing but method and target."""
        if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
            raise HttpError("send", "the method or the path has characters that HTTP cannot carry")
        origin, proxy = self._dialer.origin, self._dialer.proxy
        direct = proxy is None or origin.scheme == "https"
        where = target if direct else f"http://{origin.authority}{target}"
        text = f"{method} {where} HTTP/1.1\r\nhost: {origin.authority}\r\n"
        text += "accept-encoding: gzip, deflate\r\n"
        if proxy is not None and not direct and proxy.authorization is not None:
            text += f"proxy-authorization: {proxy.authorization}\r\n"
        if len(self._heads) < _MAX_CACHED:
            self._heads[method, target] = text
        return text


def _admit(name: str) -> None:
    """Raises HttpError unless a caller may send a header of this name."""
    if not _TOKEN.fullmatch(name):
        raise HttpError("send", "a header's name has characters that HTTP cannot carry")
    if name.lower() in _OWN:
        raise HttpError("send", f"header {name} is the connection's own and cannot be set")
    if len(_names_seen) < _MAX_CACHED:
        _names_seen.add(name)

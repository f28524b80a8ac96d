"""A response whose body may still be arriving.

It outlives its connection's exchange: once the last byte came, the connection goes back to its
pool while the body waits in memory; until then reading pauses whenever the consumer is behind.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Literal, Protocol, TypeAlias

Stage: TypeAlias = Literal["resolve", "connect", "tls", "send", "read"]

MAX_BODY: Final = 32 * 1024 * 1024  # bytes of a decoded body, unless told otherwise
HIGH_WATER: Final = 256 * 1024  # unread body bytes at which reading pauses
_LOW_WATER: Final = 64 * 1024
_INFLATE_PIECE: Final = 64 * 1024  # so much of a compressed body is decoded at a time

_WBITS: Final = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_DIGITS = re.compile(r"[0-9]{1,18}")


class HttpError(Exception):
    """An exchange failed.

    stage: "resolve", "connect", "tls", "send" or "read". message: no secrets in it. sent: a byte of
    the request may have reached the peer, so that it may have acted on it.
    """

    def __init__(self, stage: Stage, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.message = message
        self.sent = sent


class Source(Protocol):
    """The connection, as a response that is arriving on it sees it."""

    def pause(self) -> bool:
        """Stop reading; False when there is nothing to stop."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class Response:
    """A status, headers, and a body that may still be arriving.

    headers: lower-case names; repeated ones joined by ", ". The body is read once, by `read` or by
    `chunks`, in decoded form; whoever does neither to its end calls `aclose`.
    """

    __slots__ = (
        "_complete",
        "_connection",
        "_error",
        "_inflate",
        "_parts",
        "_paused",
        "_size",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, status: int, headers: dict[str, str], connection: Source) -> None:
        self.status = status
        self.headers = headers
        self._connection: Source | None = connection  # None once it is not ours any more
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._paused = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._inflate: _Inflate | None = None
        coding = headers.get("content-encoding")
        if coding is not None and coding.lower() != "identity":
            self._inflate = _Inflate(coding.lower())

    # What the connection tells.

    def fed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused and self._connection is not None:
            self._paused = self._connection.pause()
        if self._waiter is not None:
            self._wake()

    def ended(self, error: HttpError | None) -> None:
        if self._complete or self._error is not None:
            return
        connection, self._connection = self._connection, None
        if self._paused and connection is not None:
            connection.resume()
        self._error = error
        self._complete = error is None
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the consumer asks.

    @property
    def held(self) -> int:
        """Bytes of the body that arrived and were not taken."""
        return self._size

    async def read(self, *, limit: int = MAX_BODY, timeout: float | None = None) -> bytes:
        """The whole body. timeout: seconds until its end; None waits as long as the peer does.

        Raises HttpError (read) for a body of more than `limit` bytes, cut off, or badly encoded.
        """
        if self._complete and self._inflate is None and self._size <= limit:
            parts, self._parts = self._parts, deque()
            self._size = 0
            return parts[0] if len(parts) == 1 else b"".join(parts)
        length = self.headers.get("content-length")
        if length is not None and _DIGITS.fullmatch(length) and int(length) > limit:
            raise self._failed(f"the response is larger than {limit} bytes")
        timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(timeout, self._expire, timeout)
        try:
            return await self._gather(limit)
        finally:
            if timer is not None:
                timer.cancel()

    async def _gather(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await self._next()) is not None:
            size += len(part)
            if size > limit:
                raise self._failed(f"the response is larger than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, as it arrives. Raises HttpError (read) when it is cut off."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._next()
        if part is None:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Let go of the body; the connection is closed unless the body had arrived completely."""
        self._failed("the response was closed")

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _next(self) -> bytes | None:
        while True:
            if self._inflate is not None and (part := self._inflated(self._inflate)):
                return part
            if self._parts:
                part = self._taken()
                if self._inflate is None:
                    return part
                self._inflate.feed(part)
            elif self._complete:
                if self._inflate is not None and self._inflate.cut_off:
                    raise self._failed("the compressed response is cut off")
                return None
            elif self._error is not None:
                raise self._error
            else:
                await self._arrival()

    def _inflated(self, inflate: _Inflate) -> bytes:
        try:
            return inflate.pull()
        except zlib.error as error:
            raise self._failed("the response is not compressed as it says") from error

    def _taken(self) -> bytes:
        part = self._parts.popleft()
        self._size -= len(part)
        if self._paused and self._size <= _LOW_WATER and self._connection is not None:
            self._paused = False
            self._connection.resume()
        return part

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self._failed("the wait for the response was cancelled")
            raise
        finally:
            self._waiter = None

    def _expire(self, seconds: float) -> None:
        if not self._complete and self._error is None:
            self._failed(f"the response did not end within {seconds:g} s")
            self._wake()

    def _failed(self, message: str) -> HttpError:
        """Give the rest of the body up."""
        error = HttpError("read", message, sent=True)
        connection, self._connection = self._connection, None
        self._error = self._error or error
        self._complete = False
        self._parts.clear()
        self._size = 0
        self._inflate = None
        if connection is not None:
            connection.abort()
        return error


class _Inflate:
    """gzip and deflate, a bounded piece at a time."""

    def __init__(self, coding: str) -> None:
        self._wbits = _WBITS.get(coding)
        self._decoder: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage]
        self._pending = b""
        self._fed = False
        self._finished = False

    @property
    def cut_off(self) -> bool:
        """Something came, but not its end."""
        return self._fed and not self._finished

    def feed(self, data: bytes) -> None:
        self._fed = True
        self._pending = self._pending + data if self._pending else data

    def pull(self) -> bytes:
        """At most 64 KiB of plain bytes; b"" when more must be fed. Raises zlib.error."""
        if not self._fed:
            return b""
        if self._wbits is None:
            raise zlib.error("unknown coding")
        while True:
            if self._decoder is None and not self._begin(self._wbits):
                return b""
            decoder = self._decoder
            if decoder is None or (self._finished and not self._pending):
                return b""
            # Without input there may still be output that did not fit the last piece.
            plain = decoder.decompress(self._pending, _INFLATE_PIECE)
            self._pending = decoder.unconsumed_tail or decoder.unused_data
            self._finished = decoder.eof
            if self._finished and self._pending:
                if self._wbits == zlib.MAX_WBITS:
                    raise zlib.error("bytes after the end")
                self._decoder = None  # gzip members follow one another
            if plain or not self._pending:
                return plain

    def _begin(self, wbits: int) -> bool:
        """Choose a decoder; False while too little has come to tell."""
        if len(self._pending) < 2:
            return False
        if wbits == zlib.MAX_WBITS:
            # Some servers send "deflate" without the header of zlib (RFC 9110, 8.4.1.2).
            first, second = self._pending[:2]
            wrapped = first & 15 == zlib.DEFLATED and (first * 256 + second) % 31 == 0
            wbits = wbits if wrapped else -wbits
        self._decoder = zlib.decompressobj(wbits)
        self._finished = False
        return True

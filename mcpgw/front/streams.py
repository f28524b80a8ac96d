"""The event streams of one Streamable HTTP session, and what of them can be replayed.

A stream outlives the connection that carries it: its events have ids, the latest of them are kept,
and a GET with `Last-Event-ID` goes on where that stream broke off (2025-11-25, transports).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from mcpgw.core.sse import encode
from mcpgw.front.exchange import Exchange

MAX_EVENTS: Final = 256  # events of a session that can be replayed
MAX_BYTES: Final = 1024 * 1024  # bytes of them
MAX_STREAMS: Final = 64  # streams of a session that are remembered
MAX_STANDING: Final = 8  # stand-alone streams a session may hold open at once
RETRY: Final = 1000  # milliseconds a client should wait before it comes back


class Stream:
    """One stream: at any time at most one connection carries it.

    ended: nothing more will come; a replay ends it for the client too.
    """

    def __init__(self, book: Book, number: int) -> None:
        self._book = book
        self.number = number
        self.seq = 0
        self.sink: Exchange | None = None
        self.ended = False

    async def prime(self) -> None:
        """An empty event, so that the client has an id to come back with."""
        if self.sink is not None:
            await self.sink.write(encode(b"", event=None, id=f"{self.number}.0", retry=RETRY))

    async def send(self, message: bytes) -> None:
        """The next event; kept for a replay whether or not anybody reads now."""
        if self.ended:
            return
        self.seq += 1
        frame = encode(message, id=f"{self.number}.{self.seq}")
        self._book.keep(self.number, self.seq, frame)
        if self.sink is not None:
            await self.sink.write(frame)

    async def resume(self, exchange: Exchange, after: int) -> None:
        """Replay what came after event `after`, and go on there."""
        while waiting := self._book.after(self.number, after):
            for seq, frame in waiting:
                await exchange.write(frame)
                after = seq
        old, self.sink = self.sink, exchange
        if old is not None and old is not exchange:
            old.close()
        if self.ended:
            exchange.close()

    def left(self, exchange: Exchange) -> None:
        if self.sink is exchange:
            self.sink = None

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        if self.sink is not None:
            self.sink.close()


class Book:
    """All streams of one session."""

    def __init__(self) -> None:
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self._standing: list[Stream] = []
        self._kept: deque[tuple[int, int, bytes]] = deque()
        self._bytes = 0
        self._count = 0

    @property
    def live(self) -> bool:
        """A stand-alone stream is open."""
        return any(stream.sink is not None for stream in self._standing)

    def open(self, exchange: Exchange) -> Stream:
        """A new stream, carried by `exchange`."""
        self._count += 1
        stream = Stream(self, self._count)
        stream.sink = exchange
        self._streams[stream.number] = stream
        for number, old in list(self._streams.items()):
            if len(self._streams) <= MAX_STREAMS:
                break
            if old.sink is None:
                del self._streams[number]
        return stream

    def stand(self, exchange: Exchange) -> Stream:
        """A new stand-alone stream, for what belongs to no call."""
        stream = self.open(exchange)
        self._standing = [one for one in self._standing if one.sink is not None]
        if len(self._standing) >= MAX_STANDING:
            self._standing.pop(0).end()
        self._standing.append(stream)
        return stream

    async def announce(self, message: bytes) -> None:
        """A message that belongs to no call: on one stand-alone stream, the newest that is open.

        Where none is open, the last one keeps it for its replay.
        """
        for stream in reversed(self._standing):
            if stream.sink is not None and not stream.sink.lost:
                await stream.send(message)
                return
        if self._standing:
            await self._standing[-1].send(message)

    def find(self, event_id: str) -> tuple[Stream, int] | None:
        """The stream that an event id is of, and the event's place.

        None when it is forgotten, or has ended with an answer that is no longer kept.
        """
        number, dot, seq = event_id.partition(".")
        if not dot or not _small(number) or not _small(seq):
            return None
        stream, at = self._streams.get(int(number)), int(seq)
        if stream is None or (stream.ended and at < stream.seq and not self._keeps(stream)):
            return None
        return stream, at

    def _keeps(self, stream: Stream) -> bool:
        """Whether its last event can be replayed."""
        return any(of == stream.number and at == stream.seq for of, at, _ in self._kept)

    def keep(self, number: int, seq: int, frame: bytes) -> None:
        if len(frame) > MAX_BYTES:
            return
        self._kept.append((number, seq, frame))
        self._bytes += len(frame)
        while len(self._kept) > MAX_EVENTS or self._bytes > MAX_BYTES:
            self._bytes -= len(self._kept.popleft()[2])

    def after(self, number: int, seq: int) -> list[tuple[int, bytes]]:
        return [(at, frame) for of, at, frame in self._kept if of == number and at > seq]

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams.values():
            stream.end()
        self._standing.clear()


def _small(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15

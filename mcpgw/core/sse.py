"""Server-sent events as bytes, without I/O (WHATWG HTML, section 9.2).

Feed a Decoder whatever arrives, however it is cut; each feed returns the events it completed.
`data` is never decoded. What is kept between feeds is bounded; a stream that goes beyond is broken
for good. An event that the stream's end cuts off is no event.
"""

from __future__ import annotations

import re

from msgspec import Struct

MAX_EVENT = 32 * 1024 * 1024  # bytes of one event: as much as a result may have
MAX_FIELD = 4096  # bytes of an event's name or id; ids are sent back in a header
KEEP_ALIVE = b":\n\n"  # a comment, which every reader skips

_BOM = b"\xef\xbb\xbf"
_LF_HEAD = b"event: message\ndata: "
_CRLF_HEAD = b"event: message\r\ndata: "
_LINE_END = re.compile(rb"\r\n|\n|\r")
_UNSAFE = re.compile(r"[\r\n\0]")
_MAX_RETRY_DIGITS = 15  # keeps `retry` a small number whatever is sent


class StreamError(ValueError):
    """The stream holds an event, or a field of one, larger than its bound."""


class Event(Struct, frozen=True, gc=False):
    """One event.

    id: the one that stands in this event's own block, "" when that resets it, None when there is
    none (`Decoder.last_id` has the one in force). retry: milliseconds, when this block has it.
    """

    event: str
    data: bytes
    id: str | None = None
    retry: int | None = None


class Decoder:
    """From chunks of a stream to its events.

    last_id: what `Last-Event-ID` should be, "" for none; blocks without data move it too.
    retry: the reconnection time in milliseconds that was last asked for, or None.
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_event",
        "_fresh",
        "_held",
        "_id",
        "_limit",
        "_retry",
        "_start",
        "_tail",
        "last_id",
        "retry",
    )

    def __init__(self, *, limit: int = MAX_EVENT) -> None:
        self.last_id = ""
        self.retry: int | None = None
        self._limit = limit
        self._tail: list[bytes] = []  # the pieces of a line whose end has not come
        self._after_cr = False  # an LF that comes first now belongs to the line before
        self._start = True  # before the first line, where a byte order mark may stand
        self._fresh = True  # nothing of a block has been seen
        self._held = 0  # bytes kept in _tail and _data
        self._event = ""
        self._data: list[bytes] = []
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. Raises StreamError when one is too large."""
        if self._fresh and not self._after_cr and (event := self._whole(chunk)) is not None:
            self._start = False
            return [event]
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        if not chunk:
            return []
        lines = chunk.splitlines()
        last = chunk[-1]
        self._after_cr = last == 13
        rest = b"" if last in (10, 13) else lines.pop()
        if lines and self._tail:
            self._held -= sum(map(len, self._tail))
            self._tail.append(lines[0])
            lines[0] = b"".join(self._tail)
            self._tail.clear()
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
        if rest:
            self._fresh = False
            self._tail.append(rest)
            self._hold(len(rest))
        return events

    def _whole(self, chunk: bytes) -> Event | None:
        """The event, if the chunk is just one of the most common shape."""
        if chunk.startswith(_LF_HEAD):
            end = len(chunk) - 2
            if end < 21 or chunk.find(b"\n", 21) != end or b"\r" in chunk:
                return None
            start = 21
        elif chunk.startswith(_CRLF_HEAD):
            end = len(chunk) - 4
            if end < 22 or chunk.find(b"\r", 22) != end or chunk.find(b"\n", 22) != end + 1:
                return None
            if not chunk.endswith(b"\r\n\r\n"):
                return None
            start = 22
        else:
            return None
        if end - start > self._limit:
            return None
        return Event("message", chunk[start:end])

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise StreamError(f"an event of more than {self._limit} bytes")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._start:
            self._start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        self._fresh = False
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._hold(len(value) + 1)
        elif name == b"event":
            self._event = _short(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _short(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self._retry = self.retry = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._id is not None:
            self.last_id = self._id
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(Event(self._event or "message", data, self._id, self._retry))
            self._data = []
        self._event = ""
        self._id = self._retry = None
        self._held = 0
        self._fresh = True


def _short(value: bytes) -> str:
    if len(value) > MAX_FIELD:
        raise StreamError(f"an event's name or id of more than {MAX_FIELD} bytes")
    return value.decode("utf-8", "replace")


def encode(
    data: bytes, event: str | None = "message", id: str | None = None, retry: int | None = None
) -> bytes:
    """One event as bytes; `data` with line ends in it becomes several lines.

    event None leaves that line out. Raises ValueError for a line end or NUL in `event` or `id`.
    """
    one_line = b"\n" not in data and b"\r" not in data
    if one_line and event == "message" and id is None and retry is None:
        return b"event: message\ndata: %b\n\n" % data
    head = ""
    if event is not None:
        head = f"event: {_plain(event)}\n"
    if id is not None:
        head += f"id: {_plain(id)}\n"
    if retry is not None:
        head += f"retry: {retry}\n"
    lines = _LINE_END.split(data)
    return head.encode() + b"".join([b"data: %b\n" % line for line in lines]) + b"\n"


def _plain(text: str) -> str:
    if _UNSAFE.search(text):
        raise ValueError("a line end or NUL in a field of a server-sent event")
    return text

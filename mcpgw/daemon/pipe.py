"""Standard input and output as a channel of the running daemon: messages pass as they are.

The channel is HTTP+SSE at the private door: each line of the client is posted, each event of the
stream is a line to it. So the daemon itself serves whatever the client speaks. When the daemon
goes, what was asked is answered with an error; when it is back, what a handshake client said that
lasts (`initialize`, its log level, its subscriptions) is said again in its place, and it goes on.
"""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
from anyio import CancelScope

from mcpgw.core import wire
from mcpgw.core.eras import INTERNAL_ERROR, UPSTREAM_FAILED
from mcpgw.front.stdio import DRAIN, Lines, begins
from mcpgw.model.calls import RpcError
from mcpgw.upstream.http1 import Client, HttpError
from mcpgw.upstream.http_calls import EVENTS, JSON, Events

OPEN_WAIT: Final = 10.0  # seconds for the daemon to open a channel
POST_WAIT: Final = 60.0  # seconds for it to take one message
SILENCE: Final = 120.0  # seconds without a sign of life; the daemon gives one every 15
RETURN: Final = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between looks whether the daemon is back
MAX_KEPT: Final = 1001  # requests that are said again: as many as a session may subscribe, and one
_ENDLESS: Final = frozenset({"subscriptions/listen"})
_LEVEL: Final = "logging/setLevel"
_SUBSCRIBE: Final = "resources/subscribe"
_UNSUBSCRIBE: Final = "resources/unsubscribe"
_READY: Final = wire.notification("notifications/initialized", {})

_log = logging.getLogger("mcpgw.daemon")


class Pipe:
    """One client. key: whom it acts as; None is the store's owner."""

    def __init__(self, door: Path, key: str | None, lines: Lines) -> None:
        self._door = str(door)
        self._client = Client("http://localhost", unix=self._door)
        self._fields = [("mcpgw-act-as", key)] if key else []
        self._lines = lines
        self._place: str | None = None  # where to post; None without a channel
        self._open: dict[int | str, wire.Request] = {}  # what is not answered yet
        self._settled = anyio.Event()
        self._opening = anyio.Lock()
        self._greeted: tuple[int | str, anyio.Event] | None = None  # an `initialize` under way
        self._hello: bytes | None = None  # the client's own `initialize`
        self._kept: dict[tuple[str, bytes], wire.Request] = {}  # what else lasts, by its subject
        self._muted: set[int | str] = set()  # answers that the client has had before
        self._again = itertools.count(1)

    async def run(self) -> None:
        """Until the input ends, and what it asked is answered or DRAIN is over."""
        try:
            async with anyio.create_task_group() as tasks:
                async for line in self._lines.read():
                    await self._take(line, tasks)
                with anyio.move_on_after(DRAIN):
                    while any(one.method not in _ENDLESS for one in self._open.values()):
                        self._settled = anyio.Event()
                        await self._settled.wait()
                tasks.cancel_scope.cancel()
        finally:
            with CancelScope(shield=True):
                await self._client.aclose()

    async def _take(self, line: bytes, tasks: anyio.abc.TaskGroup) -> None:
        """One line of the client."""
        request = _request(line)
        if request is None and b'"notifications/cancelled"' in line:
            self._forget(line)
        if self._place is None and not await self._reopened(tasks):
            await self._failed(request)
            return
        if request is not None:
            self._open[wire.id_key(request.id)] = request
            if begins(line):
                self._hello = line
            else:
                self._keep(request)
        hello = request if request is not None and begins(line) else None
        posted = await (self._post(line) if hello is None else self._greet(line, hello))
        untold = None if request is None else self._open.get(wire.id_key(request.id))
        if not posted and untold is not None:  # else it was told with all that was left unanswered
            del self._open[wire.id_key(untold.id)]
            await self._failed(untold)

    def _forget(self, line: bytes) -> None:
        """A cancelled request is not answered (2025-11-25, cancellation)."""
        try:
            note = wire.parse(line)
            if isinstance(note, wire.Notification) and (id := note.params.get("requestId")):
                self._open.pop(wire.id_key(id), None)
        except (wire.BadMessage, ValueError):
            return  # the daemon judges it

    async def _greet(self, line: bytes, hello: wire.Request) -> bool:
        """Post an `initialize` and wait for its answer: what comes behind it needs the session."""
        id, answered = wire.id_key(hello.id), anyio.Event()
        self._greeted = (id, answered)
        if not await self._post(line):
            return False
        with anyio.move_on_after(POST_WAIT):
            await answered.wait()
        return self._place is not None

    def _keep(self, request: wire.Request) -> None:
        """Remember what a session goes on resting on."""
        if request.method == _LEVEL:
            self._kept[_LEVEL, b""] = request
        elif request.method in (_SUBSCRIBE, _UNSUBSCRIBE) and "uri" in request.params:
            subject = (_SUBSCRIBE, bytes(request.params["uri"]))
            if request.method == _UNSUBSCRIBE:
                self._kept.pop(subject, None)
            elif len(self._kept) < MAX_KEPT:
                self._kept[subject] = request

    async def _reopened(self, tasks: anyio.abc.TaskGroup) -> bool:
        """A channel, and on it the session that the client takes for granted."""
        async with self._opening:
            if self._place is not None:
                return True
            old, self._client = self._client, Client("http://localhost", unix=self._door)
            await old.aclose()  # kept connections to a daemon that has gone
            opened = anyio.Event()
            tasks.start_soon(self._follow, opened, tasks)
            with anyio.move_on_after(OPEN_WAIT):
                await opened.wait()
            return self._place is not None and await self._resaid()

    async def _resaid(self) -> bool:
        """Say again what the client said that lasts; it has had the answers."""
        hello = None if self._hello is None else _request(self._hello)
        if hello is None or self._hello is None:
            return True
        self._muted = {wire.id_key(hello.id)}
        if not (await self._greet(self._hello, hello) and await self._post(_READY)):
            return False
        for request in tuple(self._kept.values()):
            id = f"mcpgw-again-{next(self._again)}"
            self._muted.add(id)
            if not await self._post(wire.request(id, request.method, request.params)):
                return False
        return True

    async def _return(self, tasks: anyio.abc.TaskGroup) -> None:
        """A client that only listens says nothing, and still wants to hear."""
        for pause in itertools.chain(RETURN, itertools.repeat(RETURN[-1])):
            await anyio.sleep(pause)
            if self._place is not None or await self._reopened(tasks):
                return

    async def _post(self, message: bytes) -> bool:
        """Whether the daemon took the message, or has said why not."""
        if self._place is None:
            return False
        fields = [("content-type", JSON), *self._fields]
        try:
            response = await self._client.request(
                "POST", self._place, fields, message, timeout=POST_WAIT
            )
            body = await response.read()
        except HttpError as error:
            _log.warning("the daemon took no message: %s", error.message)
            return False
        if response.status < 300:
            return True
        if response.status == 404:  # it does not know the channel any more
            return False
        await self._refused(message, body)
        return True

    async def _refused(self, message: bytes, body: bytes) -> None:
        """The daemon looked at the message and said no."""
        request = _request(message)
        if request is not None:
            await self._told(wire.error(request.id, _error(body)))
        elif b'"error"' in body:
            await self._lines.send(body)

    async def _follow(self, opened: anyio.Event, tasks: anyio.abc.TaskGroup) -> None:
        """One channel, from its opening to its end."""
        try:
            await self._listen(opened)
        except HttpError as error:
            level = logging.INFO if self._place is None else logging.WARNING
            _log.log(level, "the daemon keeps no channel open: %s", error.message)
        finally:
            was, self._place = self._place, None
            opened.set()
            if self._greeted is not None:
                self._greeted[1].set()
        if was is not None and self._hello is not None:
            tasks.start_soon(self._return, tasks)
        lost, self._open = self._open, {}
        for request in lost.values():
            await self._failed(request)
        self._settled.set()

    async def _listen(self, opened: anyio.Event) -> None:
        fields = [("accept", EVENTS), *self._fields]
        response = await self._client.request("GET", "/sse", fields, timeout=OPEN_WAIT)
        try:
            events = Events(response)
            while (event := await events.quiet(SILENCE)) is not None:
                if event.event == "endpoint":
                    self._place = event.data.decode()
                    opened.set()
                elif event.data:
                    await self._told(event.data)
        finally:
            with CancelScope(shield=True):
                await response.aclose()

    async def _told(self, message: bytes) -> None:
        """One message of the daemon."""
        answered = _answers(message)
        if answered is not None:
            self._open.pop(answered, None)
            self._settled.set()
            if self._greeted is not None and self._greeted[0] == answered:
                self._greeted[1].set()
            if answered in self._muted:
                self._muted.discard(answered)
                return
        await self._lines.send(message)

    async def _failed(self, request: wire.Request | None) -> None:
        if request is not None:
            gone = RpcError(UPSTREAM_FAILED, "The gateway's daemon went away: try again.")
            await self._lines.send(wire.error(request.id, gone))


def _request(line: bytes) -> wire.Request | None:
    """The line as a request; None for anything else, which the daemon judges."""
    try:
        message = None if wire.is_batch(line) else wire.parse(line)
    except wire.BadMessage:
        return None
    return message if isinstance(message, wire.Request) else None


def _answers(message: bytes) -> int | str | None:
    """The id of the request that a message answers."""
    try:
        parsed = None if wire.is_batch(message) else wire.parse(message)
    except wire.BadMessage:
        return None
    if not isinstance(parsed, wire.Response) or parsed.id is None:
        return None
    return wire.id_key(parsed.id)


def _error(body: bytes) -> RpcError:
    """What a refused POST says."""
    refused = RpcError(INTERNAL_ERROR, "The daemon refused the message.")
    try:
        message = wire.parse(body)
    except wire.BadMessage:
        return refused
    return (isinstance(message, wire.Response) and message.error) or refused

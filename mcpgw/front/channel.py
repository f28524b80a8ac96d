"""Both eras over one ordered channel: all messages of one client, one after the other.

HTTP+SSE and stdio differ only in what carries the bytes. A request with modern `_meta` is served
for itself; `initialize` begins the channel's one legacy session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.abc
from anyio import CancelScope
from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import ACCEPTS_BATCHES, INVALID_REQUEST, PROTOCOL_VERSION
from mcpgw.front import batch, legacy, modern
from mcpgw.front.exchange import internal, strayed
from mcpgw.front.feed import Feed
from mcpgw.front.legacy import Session
from mcpgw.front.modern import Base, Lifted
from mcpgw.front.streamable import begin
from mcpgw.model.calls import Ask, Note, Reply, RpcError
from mcpgw.model.config import Endpoint, Principal
from mcpgw.model.ports import Handler

MAX_CALLS: Final = 1000  # modern calls of one channel in flight


class Channel:
    """One client. `send` delivers one message in order and waits while the client is slow.

    two_way: what is asked on the channel is heard. session: the legacy one, after `initialize`.
    """

    two_way = True

    def __init__(
        self,
        handler: Handler,
        tasks: anyio.abc.TaskGroup,
        send: Callable[[bytes], Awaitable[None]],
        *,
        id: str,
        principal: Principal,
        endpoint: Endpoint,
    ) -> None:
        self.id = id
        self.principal = principal
        self.endpoint = endpoint
        self.last = 0.0
        self.busy = True
        self.session: Session | None = None
        self.on_close: Callable[[], None] | None = None
        self._handler = handler
        self._tasks = tasks
        self._send = send
        self._calls: dict[int | str, CancelScope] = {}
        self._endless: set[CancelScope] = set()
        self._running = 0
        self._idle = anyio.Event()

    async def send(self, message: bytes) -> None:
        await self._send(message)

    async def part(self) -> None:
        """There is no other way to come back by."""

    def close(self) -> None:
        """The client is gone: cancel all that it waited for."""
        self.busy = False
        for scope in tuple(self._calls.values()):
            scope.cancel()
        if self.session is not None:
            self.session.close()
        if self.on_close is not None:
            self.on_close()

    def end_endless(self) -> None:
        """Cancel what would never end by itself; calls go on."""
        for scope in tuple(self._endless):
            scope.cancel()
        if self.session is not None and self.session.feed is not None:
            self.session.feed.close()

    async def idle(self) -> None:
        """Returns when no request waits for its answer."""
        while self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def take(self, body: bytes, base: Base) -> None:
        """One message, or a batch; returns when it is answered. Never raises for what came in."""
        try:
            if wire.is_batch(body):
                await self._take_batch(body, base)
            else:
                await self.hear(wire.parse(body), base)
        except wire.BadMessage as error:
            await self.send(wire.error(error.id, error))

    async def hear(self, message: wire.Message, base: Base) -> None:
        """One parsed message; returns when it is answered."""
        if isinstance(message, wire.Request):
            self._running += 1
            try:
                answered = await self._answer(message, base)
                if answered is not None:
                    await self.send(answered)
            finally:
                self._running -= 1
                if not self._running:
                    self._idle.set()
        elif isinstance(message, wire.Response):
            if self.session is not None:
                self.session.answered(message)
        else:
            self._noted(message, base)

    async def _take_batch(self, body: bytes, base: Base) -> None:
        session = self.session
        if session is None or session.revision not in ACCEPTS_BATCHES:
            raise wire.BadMessage(INVALID_REQUEST, "batches are of 2025-03-26 alone")
        items = wire.parse_batch(body)

        async def one(request: wire.Request) -> bytes | None:
            return await self._answer(request, base)

        answers = await batch.answer(session, items, one)
        if answers:
            await self.send(batch.joined(answers))

    def _noted(self, note: wire.Notification, base: Base) -> None:
        session = self.session
        if session is not None:
            session.noted(note)
            if note.method == "notifications/initialized":
                self._tasks.start_soon(begin, session, base)
        if note.method == "notifications/cancelled" and (id := note.params.get("requestId")):
            try:
                scope = self._calls.get(wire.id_key(id))
            except ValueError:
                return
            if scope is not None:
                scope.cancel()

    async def _answer(self, request: wire.Request, base: Base) -> bytes | None:
        meta = modern.meta_of(request.params)
        if meta is not None and PROTOCOL_VERSION in meta:
            try:
                version = modern.check(request, meta, None)
                lifted = modern.lift(request, meta, version, base)
            except RpcError as error:
                return wire.error(request.id, error)
            return await self._modern(lifted)
        if request.method == "initialize":
            return await self._initialize(request, base)
        if self.session is None:
            if request.method == "ping":
                return wire.result(request.id, {})
            return wire.error(
                request.id,
                modern.invalid(f"params._meta has no {PROTOCOL_VERSION}, and nothing initialized"),
            )
        return await legacy.answer(self.session, request, base, self._handler, self)

    async def _modern(self, lifted: Lifted) -> bytes | None:
        key = wire.id_key(lifted.id)
        if key in self._calls or len(self._calls) >= MAX_CALLS:
            reason = "the id is in use" if key in self._calls else "too many calls in flight"
            return wire.error(lifted.id, RpcError(INVALID_REQUEST, reason))
        outcome: Reply | RpcError | None = None
        with CancelScope() as scope:
            self._calls[key] = scope
            if lifted.listening:
                self._endless.add(scope)
            caller = _ModernCaller(self, lifted)
            try:
                outcome = await self._handler.handle(lifted.call, caller)
            except RpcError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 - the boundary of a front request
                outcome = internal(error)
            except asyncio.CancelledError as error:
                outcome = strayed(error)
            finally:
                caller.over = True
                self._calls.pop(key, None)
                self._endless.discard(scope)
        if outcome is None or scope.cancel_called:
            return None
        return modern.answer_message(lifted, outcome)[1]

    async def _initialize(self, request: wire.Request, base: Base) -> bytes:
        if self.session is not None:
            return wire.error(request.id, RpcError(INVALID_REQUEST, "initialized already"))
        try:
            session, result = await legacy.initialize(
                request, base, self._handler, id=self.id, two_way=True
            )
        except RpcError as error:
            return wire.error(request.id, error)
        except Exception as error:  # noqa: BLE001 - the boundary of a front request
            return wire.error(request.id, internal(error))

        async def deliver(note: Note) -> None:
            message = session.message(note)
            if message is not None:
                await self.send(message)

        session.feed = Feed(self._handler, self._tasks, session.lists, deliver)
        self.session = session
        return wire.result(request.id, result)


class _ModernCaller:
    """The way back to a modern client on a channel, until its call is `over`."""

    def __init__(self, channel: Channel, lifted: Lifted) -> None:
        self._channel = channel
        self._lifted = lifted
        self.over = False
        self.ask_mode = lifted.ask_mode

    async def tell(self, note: Note) -> None:
        message = None if self.over else modern.note_message(note, self._lifted)
        if message is not None:
            await self._channel.send(message)

    async def ask(self, ask: Ask) -> Raw:
        raise modern.no_asks()

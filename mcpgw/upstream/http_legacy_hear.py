"""What a legacy HTTP server says outside of its calls' own streams, and who is to be told.

The stand-alone GET stream is read by one task that never waits for a caller: subscribers and
calls have bounded inboxes. A stream that was lost is opened again, from the last event where the
server gave ids; without them its lists may have changed unheard, and that is told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Literal, Protocol

import anyio
import anyio.abc

from mcpgw.core import outbound, wire
from mcpgw.core.catalog import LISTS
from mcpgw.core.eras import ASK_CAPABILITY, CLIENT_ASKS
from mcpgw.core.handshake import has
from mcpgw.model.calls import (
    Call,
    Done,
    JsonObject,
    ListChanged,
    Listening,
    Log,
    Note,
    Progress,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkInfo, UpstreamError
from mcpgw.upstream.http1 import Response
from mcpgw.upstream.http_calls import (
    BACKOFF,
    EVENTS,
    QUIET,
    STEADY,
    Events,
    Patience,
    Peer,
    is_message,
    media_type,
    parsed,
)
from mcpgw.upstream.http_legacy_call import (
    LEAST_RETRY,
    MAX_ASKS,
    PASSING,
    Back,
    Session,
    answer,
    wants,
)

INBOX: Final = 256  # notes one slow reader may fall behind
LONGEST_RETRY: Final = 300.0  # seconds; a server may ask for any time before it is asked again

_LISTS: Final[tuple[Literal["tools", "prompts", "resources"], ...]] = (
    "tools",
    "prompts",
    "resources",
)
_log = logging.getLogger("mcpgw.upstream")


class Home(Back, Protocol):
    """What the GET stream needs of its link."""

    def session(self) -> Session:
        """The session of the moment. Raises UpstreamError when there is none."""
        ...

    async def get(self, session: Session, last_id: str, patience: Patience) -> Response:
        """Open the stream, or resume it. Raises UpstreamError, RpcError."""
        ...

    async def renew(self, old: Session) -> Session:
        """A session in place of a forgotten one. Raises UpstreamError."""
        ...


class Entry:
    """One call in flight, as far as others than its own stream may have something for it."""

    __slots__ = ("call", "caller", "inbox", "patience", "scopes")

    def __init__(self, call: Call, caller: Caller, patience: Patience) -> None:
        self.call = call
        self.caller = caller
        self.patience = patience
        self.inbox: deque[Note] | None = None  # there once a note came by the GET stream
        self.scopes: set[anyio.CancelScope] | None = None

    def close(self) -> None:
        """The call is over: nothing may reach its caller any more."""
        for scope in tuple(self.scopes or ()):
            scope.cancel()

    async def within(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` unless the call ends before."""
        with anyio.CancelScope() as scope:
            if self.scopes is None:
                self.scopes = set()
            self.scopes.add(scope)
            try:
                await work()
            finally:
                self.scopes.discard(scope)

    async def drain(self) -> None:
        """Tell the caller what is in the inbox."""
        while self.inbox:
            await self.caller.tell(self.inbox[0])
            self.inbox.popleft()
            self.patience.more()


class Listener:
    """One subscriber: what it wants, and a bounded inbox."""

    def __init__(self, server: Server, kept: JsonObject) -> None:
        self._server = server
        self._members = frozenset(kept)
        self.uris = set(outbound.uris(kept))
        self._put, self._inbox = anyio.create_memory_object_stream[Note](INBOX)
        self._why = UpstreamError("read", "ended the session and its subscriptions")

    def offer(self, note: Note) -> bool:
        """Take the note if it is wanted. A full inbox ends the subscription as lost."""
        if isinstance(note, ListChanged):
            if outbound.LISTEN_MEMBER[note.kind] not in self._members:
                return False
        elif not isinstance(note, ResourceUpdated) or not self._subscribes(note.uri):
            return False
        try:
            self._put.send_nowait(note)
        except anyio.WouldBlock:
            self._why = UpstreamError("read", "sent more notes than the subscriber could take")
            self._put.close()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return False
        return True

    def _subscribes(self, uri: str) -> bool:
        # An update may name a part of what was subscribed to (2025-11-25, resources).
        return uri in self.uris or any(uri.startswith(one) for one in self.uris)

    async def serve(self, kept: JsonObject, caller: Caller) -> Done:
        """Tell the caller until the subscription is lost, which raises UpstreamError."""
        await caller.tell(Listening(kept))
        async for note in self._inbox:
            await caller.tell(note)
        raise self._why

    def close(self) -> None:
        self._put.close()

    def drop(self) -> None:
        self._put.close()
        self._inbox.close()


class Board:
    """Who is in flight, who listens, and which resources are subscribed to."""

    def __init__(self, server: Server, heard: Callable[[Note], None]) -> None:
        self._server = server
        self._heard = heard
        self._entries: dict[int, Entry] = {}
        self._listeners: set[Listener] = set()
        self._held: dict[str, int] = {}

    def enter(self, id: int, call: Call, caller: Caller, patience: Patience) -> Entry:
        entry = self._entries[id] = Entry(call, caller, patience)
        return entry

    def leave(self, id: int, entry: Entry) -> None:
        del self._entries[id]
        if entry.scopes:
            entry.close()

    def of(self, token: object) -> Entry | None:
        """The call that has this progress token, which is its request's id."""
        return self._entries.get(token) if isinstance(token, int) else None

    def alone(self) -> Entry | None:
        """The one call in flight; None when there are others or none.

        Lists do not count: the gateway fetches them, at any time, and nobody is behind them.
        """
        if len(self._entries) == 1:
            (found,) = self._entries.values()
            return None if found.call.method in LISTS else found
        calls = [entry for entry in self._entries.values() if entry.call.method not in LISTS]
        return calls[0] if len(calls) == 1 else None

    def listen(self, kept: JsonObject) -> Listener:
        listener = Listener(self._server, kept)
        self._listeners.add(listener)
        return listener

    def unlisten(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        listener.drop()

    def hold(self, uri: str) -> bool:
        """Count one more subscriber of `uri`; whether there was one before."""
        count = self._held.get(uri, 0)
        self._held[uri] = count + 1
        return count > 0

    def release(self, uri: str) -> bool:
        """Count one less; whether it was the last."""
        count = self._held.pop(uri) - 1
        if count:
            self._held[uri] = count
        return count == 0

    def subscribed(self) -> tuple[str, ...]:
        return tuple(self._held)

    def publish(self, note: Note) -> None:
        """Hand on a note that belongs to no call."""
        taken = False
        for listener in tuple(self._listeners):
            taken = listener.offer(note) or taken
        if not taken or not isinstance(note, ResourceUpdated):
            self._heard(note)

    def missed(self, info: LinkInfo) -> None:
        """Notes may have been lost: whatever is watched may have changed."""
        for kind in _LISTS:
            if has(info.capabilities, kind, "listChanged"):
                self.publish(ListChanged(kind))
        for uri in self.subscribed():
            self.publish(ResourceUpdated(uri, {"uri": wire.dump(uri)}))

    def close(self) -> None:
        """The link is over: subscriptions are lost."""
        for listener in tuple(self._listeners):
            listener.close()


class Hearing:
    """Keeps the GET stream open where the server offers one."""

    def __init__(self, peer: Peer, home: Home, board: Board) -> None:
        self._peer = peer
        self._home = home
        self._board = board
        self._tasks: anyio.abc.TaskGroup | None = None
        self._scope: anyio.CancelScope | None = None
        self._last_id = ""
        self._retry: int | None = None
        self._opened = False  # the attempt under way brought something
        self._lost = False  # there was a stream before, in this session

    async def run(self, tasks: anyio.abc.TaskGroup) -> None:
        """Hear until cancelled. tasks: for what may wait for a caller."""
        self._tasks = tasks
        failures = 0
        while True:
            self._opened = False
            with anyio.CancelScope() as self._scope:
                session = self._home.session()
                if not await self._hear(session):
                    await anyio.sleep_forever()  # until there is another session
                failures = 0 if self._opened else failures + 1
                pause = BACKOFF[min(failures, len(BACKOFF) - 1)]
                if self._retry is not None and not failures:
                    pause = min(max(LEAST_RETRY, self._retry / 1000), LONGEST_RETRY)
                await anyio.sleep(pause)

    def renewed(
        self, restore: Callable[[Session], Coroutine[object, object, None]], session: Session
    ) -> None:
        """The link has another session, in which `restore` has something to do."""
        self._last_id, self._retry, self._lost = "", None, False
        if self._tasks is not None:
            self._tasks.start_soon(restore, session)
        if self._scope is not None:
            self._scope.cancel()

    async def _hear(self, session: Session) -> bool:
        """Open the stream once and read it to its end; False when the server offers none."""
        try:
            response = await self._home.get(
                session, self._last_id, Patience(self._peer.server, QUIET, None)
            )
        except (UpstreamError, RpcError) as error:
            _log.info("server %s: no stream of notes: %s", self._peer.server.name, error)
            return True
        if response.status == 200 and media_type(response) == EVENTS:
            await self._read(session, Events(response))
            return True
        await response.aclose()
        # A server without this stream may answer 404 as well; then no session was forgotten.
        if response.status == 404 and self._lost and session.id is not None:
            try:
                await self._home.renew(session)
            except UpstreamError as error:
                _log.info("server %s: no new session: %s", self._peer.server.name, error)
            return True
        return response.status in PASSING

    async def _read(self, session: Session, events: Events) -> None:
        began = anyio.current_time()
        if self._lost and not self._last_id:
            self._board.missed(session.info)
        self._lost = True
        try:
            while (event := await events.quiet(QUIET)) is not None:
                self._opened = True
                self._last_id = events.last_id or self._last_id
                if is_message(event):
                    await self._act(event.data)
        finally:
            self._opened = self._opened or anyio.current_time() - began > STEADY
            self._last_id = events.last_id or self._last_id
            self._retry = self._retry if events.retry is None else events.retry
            await events.close()

    async def _act(self, data: bytes) -> None:
        try:
            message = parsed(data)
        except UpstreamError as error:
            _log.warning("server %s %s", self._peer.server.name, error.message)
            return
        if isinstance(message, wire.Request):
            await self._asked(message)
        elif isinstance(message, wire.Notification):
            note = outbound.note(message.method, message.params)
            if isinstance(note, Progress):
                self._progressed(message, note)
            elif isinstance(note, Log):
                self._logged(note)
            else:
                self._board.publish(note)

    def _progressed(self, message: wire.Notification, note: Progress) -> None:
        """Progress of a call belongs on the call's stream, but not every server knows that."""
        entry = self._board.of(outbound.progress_token(message.params))
        if entry is not None and wants(entry.call, note):
            entry.patience.more()
            self._bring(entry, note)

    def _logged(self, note: Log) -> None:
        """A log message that is on no call's stream, as many servers send them all.

        On a link that is one caller's alone it belongs to the only call in flight; else nobody
        can tell whose it is, and it is dropped.
        """
        if any(map(self._home.declares, CLIENT_ASKS)):
            entry = self._board.alone()
            if entry is not None and wants(entry.call, note):
                self._bring(entry, note)

    def _bring(self, entry: Entry, note: Note) -> None:
        """Let a call's caller be told; at most INBOX notes wait for it."""
        if self._tasks is None:
            return
        if entry.inbox:
            if len(entry.inbox) < INBOX:
                entry.inbox.append(note)
            return
        entry.inbox = deque([note])
        self._tasks.start_soon(entry.within, entry.drain)

    async def _asked(self, request: wire.Request) -> None:
        """A request outside of every call: answered where only one call can be meant."""
        capability = ASK_CAPABILITY.get(request.method)
        entry = None
        if capability is not None and self._home.declares(capability):
            # The link is one caller's alone: with one call in flight, that call is meant.
            entry = self._board.alone()
        if entry is None or self._tasks is None or len(entry.scopes or ()) >= MAX_ASKS:
            await self._reply(request, None)
            return

        async def ask() -> None:
            await self._reply(request, entry)

        self._tasks.start_soon(entry.within, ask)

    async def _reply(self, request: wire.Request, entry: Entry | None) -> None:
        caller = None if entry is None else entry.caller
        patience = self._peer.patience() if entry is None else entry.patience
        try:
            await self._home.post(await answer(request, caller, self._home, patience))
        except (UpstreamError, RpcError) as error:
            _log.info("server %s did not take an answer: %s", self._peer.server.name, error)

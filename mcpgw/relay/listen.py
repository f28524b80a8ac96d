"""subscriptions/listen: many clients' wishes against few servers' notes.

A listener is told only of what it asked for and may use. Its inbox is coalesced (one pending note
per list and per resource) and bounded, and its own task empties it, so that a slow client costs
nobody anything but itself its subscription. Servers are heard in one owned task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Raw

from mcpgw.core import catalog, extensions, naming, tasks, wire
from mcpgw.core.catalog import PROMPTS, RESOURCES, TOOLS, ListKind
from mcpgw.core.eras import CORE_TASKS, LEGACY, METHOD_NOT_FOUND, UPSTREAM_FAILED
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Context,
    Done,
    JsonObject,
    ListChanged,
    Listening,
    Note,
    OtherNote,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Principal, Snapshot
from mcpgw.model.ports import Caller, Links, UpstreamError
from mcpgw.relay import refusals
from mcpgw.relay.catalogue import LIST_WAIT
from mcpgw.relay.citations import Citations
from mcpgw.relay.discovery import Discovery
from mcpgw.relay.handles import Known
from mcpgw.relay.lists import Lists
from mcpgw.relay.tasks import Tasks
from mcpgw.relay.views import View, Views

INBOX = 256  # notes that wait for one listener; more, and it is lost
MAX_URIS = 1000  # resources, and tasks, of one listen; the rest is not honoured
GATHER = 0.02  # seconds between two rounds of telling, so that a storm of notes becomes one
RELISTEN = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before a lost server is listened to again

FILTER: Final = "notifications"
SUBSCRIPTIONS: Final = "resourceSubscriptions"
TASK_IDS: Final = "taskIds"
OWN_TASKS: Final = "mcpgw/tasks"
"""Filter of the core alone: what handshake servers tell of the session's tasks."""

_KINDS: Final[Mapping[str, ListKind]] = {
    "toolsListChanged": TOOLS,
    "promptsListChanged": PROMPTS,
    "resourcesListChanged": RESOURCES,
}
_NOTES: Final = {
    "tools": ListChanged("tools"),
    "prompts": ListChanged("prompts"),
    "resources": ListChanged("resources"),
}
_OWN: Final = frozenset({*_KINDS, SUBSCRIPTIONS, TASK_IDS, OWN_TASKS})
_LEGACY: Final = frozenset(LEGACY)
_CHECK_EVERY: Final = 16  # listeners looked at before others get a turn

_log = logging.getLogger("mcpgw.relay")


class _Listener:
    """One client's open listen call."""

    def __init__(self, ctx: Context, view: View, kinds: Mapping[str, ListKind]) -> None:
        self.ctx = ctx
        self.view = view
        self.kinds = {kind.note: kind for kind in kinds.values()}
        self.error: RpcError | None = None
        self.foreign = False  # it shares an extension with its one server
        self.key: tuple[str, str] = ("", "")  # of the session whose tasks it hears of
        self._inbox: dict[tuple[str, str], Note] = {}
        self._wake = anyio.Event()
        self._ended = False
        self._scope = anyio.CancelScope()

    def list_changed(self, note: str) -> None:
        self._push(("list", note), _NOTES[note])

    def updated(self, note: ResourceUpdated) -> None:
        self._push(("resource", note.uri), note)

    def task_changed(self, note: TaskChanged) -> None:
        self._push(("task", note.id), note)

    def noted(self, note: OtherNote) -> None:
        self._push((note.method, bytes(wire.dump_object(note.params)).decode()), note)

    def _push(self, key: tuple[str, str], note: Note) -> None:
        if self._ended:
            return
        if key in self._inbox:
            self._inbox[key] = note  # the newest says it all
            return
        if len(self._inbox) >= INBOX:
            self.error = RpcError(
                UPSTREAM_FAILED, "The subscription is lost: its notes were read too slowly."
            )
            self.end()
            self._scope.cancel()
            return
        self._inbox[key] = note
        self._wake.set()

    def end(self) -> None:
        """Let the call end once everything pending is told."""
        self._ended = True
        self._wake.set()

    async def pump(self, caller: Caller) -> None:
        """Tell what comes, until the end."""
        with self._scope:
            while True:
                while self._inbox:
                    await caller.tell(self._inbox.pop(next(iter(self._inbox))))
                if self._ended:
                    return
                self._wake = anyio.Event()
                await self._wake.wait()


class _Group:
    """A listener's resources of one server: native URIs to the public ones it knows them by."""

    def __init__(self, server_id: str, prefix: str) -> None:
        self.server_id = server_id
        self.prefix = prefix
        self.uris: dict[str, str] = {}
        self.honoured: list[str] = []  # public URIs
        self.tasks: dict[str, tuple[str, str]] = {}  # tasks by id: the handle, the native tool
        self.told: list[str] = []  # handles of tasks that the server tells of
        self.foreign: JsonObject = {}  # what the filter has of extensions
        self.kept: JsonObject = {}  # what of it the server honours
        self.answered = anyio.Event()

    def filter(self) -> Raw:
        """What the server is asked for."""
        wanted: dict[str, object] = dict(self.foreign)
        if self.uris:
            wanted[SUBSCRIPTIONS] = list(self.uris)
        if self.tasks:
            wanted[TASK_IDS] = list(self.tasks)
        return wire.dump(wanted)

    def public(self, native: str) -> str | None:
        """What the listener calls `native`, which may lie below a subscribed URI."""
        if (known := self.uris.get(native)) is not None:
            return known
        for parent, public in self.uris.items():
            if native.startswith(parent):
                return native if public == parent else naming.public_uri(self.prefix, native)
        return None


class _Upstream:
    """The Caller of a group's upstream listen: notes become the listener's."""

    ask_mode = AskMode.NEVER

    def __init__(self, listener: _Listener, group: _Group, citing: Citations) -> None:
        self._listener = listener
        self._group = group
        self._citations = citing

    async def tell(self, note: Note) -> None:
        group = self._group
        if isinstance(note, Listening):
            self._acknowledged(note)
        elif isinstance(note, ResourceUpdated):
            seat = self._listener.view.by_id.get(group.server_id)
            public = group.public(note.uri)
            if seat is None or public is None or not seat.access.allows("resource", note.uri):
                return
            params = note.params
            if public != note.uri:
                params = {**params, "uri": wire.dump(public)}
            self._listener.updated(ResourceUpdated(public, params))
        elif isinstance(note, TaskChanged) and note.id in group.tasks:
            listener, (handle, tool) = self._listener, group.tasks[note.id]
            seat = listener.view.by_id.get(group.server_id)
            if seat is not None and seat.access.allows("tool", tool):
                task = tasks.with_id(note.params, handle)
                task = await self._citations.task(listener.view, seat, task, listener.ctx)
                listener.task_changed(TaskChanged(handle, task))
        elif isinstance(note, OtherNote) and group.kept and self._listener.foreign:
            self._listener.noted(note)

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, f"{ask.method} cannot be asked of a subscription")

    def _acknowledged(self, note: Listening) -> None:
        group = self._group
        if group.answered.is_set():
            # Listening again after a loss: what happened in between is unknown.
            for uri in group.honoured:
                self._listener.updated(ResourceUpdated(uri, {"uri": wire.dump(uri)}))
            return
        taken = catalog.texts(note.wanted.get(SUBSCRIPTIONS))
        group.honoured = [group.uris[uri] for uri in taken if uri in group.uris]
        told = catalog.texts(note.wanted.get(TASK_IDS))
        group.told = [group.tasks[id][0] for id in told if id in group.tasks]
        group.kept = {name: note.wanted[name] for name in group.foreign if name in note.wanted}
        group.answered.set()


class Listens:
    """All open listens. `run` must be running for list changes to be told."""

    def __init__(
        self,
        links: Links,
        views: Views,
        lists: Lists,
        tasks: Tasks,
        citing: Citations,
        discovery: Discovery,
    ) -> None:
        self._links = links
        self._views = views
        self._lists = lists
        self._tasks = tasks
        self._citations = citing
        self._discovery = discovery
        self._sessions: dict[tuple[str, str], dict[_Listener, None]] = {}
        self._listeners: dict[_Listener, None] = {}
        self._pending: dict[tuple[str, str, str], None] = {}
        self._newest: Snapshot | None = None
        self._stale = False  # listeners have not been looked at under the newest configuration
        self._wake = anyio.Event()

    def __len__(self) -> int:
        return len(self._listeners)

    async def listen(self, view: View, call: Call, caller: Caller) -> Done:
        """Until the client hangs up, loses its right, or the gateway stops.

        Raises RpcError when the filter is no object, and when the listener was too slow.
        """
        wanted = _filter(call)
        if TASK_IDS in wanted and not extensions.declares(call.ctx, extensions.TASKS):
            raise extensions.missing(extensions.TASKS)
        kinds = {name: kind for name, kind in _KINDS.items() if catalog.is_true(wanted, name)}
        ctx = msgspec.structs.replace(call.ctx, deadline=None)
        newest = self._newest
        if newest is not None and newest is not ctx.snapshot:
            # What lasts must not begin with rights of before: nothing would ever take them away.
            principal = _still(ctx.principal, newest)
            if principal is None:
                return Done({})
            ctx = msgspec.structs.replace(ctx, principal=principal, snapshot=newest)
            view = self._views.of(ctx)
        if view.native and not view.seats:
            raise refusals.no_endpoint()
        listener = _Listener(ctx, view, kinds)
        self._listeners[listener] = None
        self._enter(listener, wanted)
        try:
            shared = await self._discovery.shares(view, ctx)
            listener.foreign = shared and all(seat.whole for seat in listener.view.seats)
            groups = await self._groups(view, wanted, ctx, foreign=listener.foreign)
            async with anyio.create_task_group() as tasks:
                for group in groups:
                    tasks.start_soon(self._follow, listener, group)
                with anyio.move_on_after(LIST_WAIT):
                    for group in groups:
                        await group.answered.wait()
                for group in groups:
                    group.answered.set()  # who is late is not honoured
                await caller.tell(Listening(_honoured(wanted, kinds, groups)))
                await listener.pump(caller)
                tasks.cancel_scope.cancel()
        finally:
            self._listeners.pop(listener, None)
            self._leave(listener)
        if listener.error is not None:
            raise listener.error
        return Done({})

    def heard(self, server_id: str, scope: str, note: str) -> None:
        """A list of a server is not what it was for this scope."""
        if self._listeners:
            self._pending[server_id, scope, note] = None
            self._wake.set()

    def task_changed(self, known: Known, note: TaskChanged) -> None:
        """A handshake server told of a task: to the session that holds it."""
        name = known.name
        for listener in self._sessions.get((known.principal, known.session or ""), ()):
            seat = listener.view.by_id.get(name.server)
            if seat is not None and seat.access.allows("tool", name.tool):
                listener.task_changed(note)

    def noted(self, server_id: str, scope: str, note: OtherNote) -> None:
        """A handshake server told something that is no part of the protocol."""
        for listener in self._listeners:
            if listener.foreign and listener.ctx.revision in _LEGACY:
                for seat in listener.view.seats:
                    same = seat.server.id == server_id
                    if same and self._links.scope(seat.server, listener.ctx) == scope:
                        listener.noted(note)

    def _enter(self, listener: _Listener, wanted: JsonObject) -> None:
        ctx = listener.ctx
        if ctx.session and ctx.revision in CORE_TASKS and catalog.is_true(wanted, OWN_TASKS):
            listener.key = (ctx.principal.id, ctx.session)
            self._sessions.setdefault(listener.key, {})[listener] = None

    def _leave(self, listener: _Listener) -> None:
        same = self._sessions.get(listener.key)
        if same is not None:
            same.pop(listener, None)
            if not same:
                del self._sessions[listener.key]

    def changed(self, new: Snapshot) -> None:
        """Let every listener be looked at again under the new configuration."""
        self._newest, self._stale = new, True
        self._wake.set()

    def close(self) -> None:
        """End all listens in peace."""
        for listener in self._listeners:
            listener.end()

    async def run(self) -> None:
        """Tell listeners what was heard, in rounds; runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            if self._stale and self._newest is not None:
                self._stale = False
                await self._recheck(self._newest)
            pending, self._pending = self._pending, {}
            for server_id, scope, note in pending:
                for listener in tuple(self._listeners):
                    if self._concerns(listener, server_id, scope, note):
                        listener.list_changed(note)
            await anyio.sleep(GATHER)

    def _concerns(self, listener: _Listener, server_id: str, scope: str, note: str) -> bool:
        kind, seat = listener.kinds.get(note), listener.view.by_id.get(server_id)
        if kind is None or seat is None or not seat.access.possible(kind.kind):
            return False
        return self._links.scope(seat.server, listener.ctx) == scope

    async def _recheck(self, new: Snapshot) -> None:
        for index, listener in enumerate(tuple(self._listeners)):
            principal = _still(listener.ctx.principal, new)
            if principal is None:
                listener.end()
                continue
            old = listener.view
            listener.ctx = msgspec.structs.replace(listener.ctx, principal=principal, snapshot=new)
            listener.view = self._views.of(listener.ctx)
            listener.foreign = listener.foreign and all(seat.whole for seat in listener.view.seats)
            if listener.view.native and not listener.view.seats:
                listener.end()
            elif _sight(old) != _sight(listener.view):
                for note in listener.kinds:
                    listener.list_changed(note)
            if index % _CHECK_EVERY == 0:
                await anyio.lowlevel.checkpoint()

    async def _groups(
        self, view: View, wanted: JsonObject, ctx: Context, *, foreign: bool
    ) -> Sequence[_Group]:
        """What of resources, tasks, and of foreign extensions may be followed, by server."""
        groups: dict[str, _Group] = {}
        others = {name: value for name, value in wanted.items() if name not in _OWN}
        if foreign and others and ctx.revision not in _LEGACY:
            server = view.seats[0].server
            group = groups[server.id] = _Group(server.id, server.prefix)
            group.foreign = others
        for handle in catalog.texts(wanted.get(TASK_IDS))[:MAX_URIS]:
            found = self._tasks.opened(view, handle, ctx)
            if found is not None and found[0].unusable is None:
                seat, name = found
                server = seat.server
                group = groups.setdefault(server.id, _Group(server.id, server.prefix))
                group.tasks[name.id] = (handle, name.tool)
        for uri in catalog.texts(wanted.get(SUBSCRIPTIONS))[:MAX_URIS]:
            for seat, native in (await self._lists.sources(view, uri, ctx))[:1]:
                server = seat.server
                if seat.unusable is None:
                    group = groups.setdefault(server.id, _Group(server.id, server.prefix))
                    group.uris[native] = uri
        return list(groups.values())

    async def _follow(self, listener: _Listener, group: _Group) -> None:
        """Keep one upstream listen open, again after each loss, while it may be."""
        losses = 0
        while True:
            seat = listener.view.by_id.get(group.server_id)
            if seat is None:
                group.answered.set()
                return
            began = anyio.current_time()
            call = Call("subscriptions/listen", {FILTER: group.filter()}, listener.ctx)
            try:
                async with self._links.lease(seat.server, listener.ctx, listening=True) as lease:
                    await lease.link.handle(call, _Upstream(listener, group, self._citations))
            except RpcError as error:
                _log.debug('"%s" ended a subscription: %s', seat.server.name, error.message)
            except UpstreamError as error:
                _log.debug('"%s" lost a subscription: %s', seat.server.name, error.message)
            if not group.answered.is_set() or not (group.honoured or group.told or group.kept):
                group.answered.set()
                return  # it takes no subscriptions
            if anyio.current_time() - began > RELISTEN[-1]:
                losses = 0
            await anyio.sleep(RELISTEN[min(losses, len(RELISTEN) - 1)])
            losses += 1


def _filter(call: Call) -> JsonObject:
    raw = call.params.get(FILTER)
    if raw is None:
        raise refusals.bad_param(FILTER, "an object")
    try:
        return wire.members(raw)
    except wire.BadMessage:
        raise refusals.bad_param(FILTER, "an object") from None


def _honoured(
    wanted: JsonObject, kinds: Mapping[str, ListKind], groups: Sequence[_Group]
) -> JsonObject:
    honoured: JsonObject = {name: Raw(b"true") for name in wanted if name in kinds}
    if SUBSCRIPTIONS in wanted:
        taken = {uri for group in groups for uri in group.honoured}
        asked = catalog.texts(wanted[SUBSCRIPTIONS])
        honoured[SUBSCRIPTIONS] = wire.dump([uri for uri in asked if uri in taken])
    if TASK_IDS in wanted:
        told = {handle for group in groups for handle in group.told}
        asked = catalog.texts(wanted[TASK_IDS])
        honoured[TASK_IDS] = wire.dump([handle for handle in asked if handle in told])
    for group in groups:
        honoured.update(group.kept)
    return honoured


def _still(principal: Principal, new: Snapshot) -> Principal | None:
    """The principal under the new configuration; None when its key was revoked or removed."""
    return new.principals.get(principal.id) if principal.kind == "key" else principal


def _sight(view: View) -> tuple[object, ...]:
    """What decides on a view's lists, to compare two of them."""
    principal, _ = view.source
    return principal.levels, [(seat.server, seat.unusable) for seat in view.seats]

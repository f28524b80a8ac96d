"""Tasks between a client and a server of the same era; across eras there are none.

A modern server gives a task in place of a result (the Tasks extension); a 2025-11-25 client asks
for one. Either way its id is replaced by a handle, and whatever comes back with a handle is routed
by it. A task belongs to the principal that began it and ends being theirs with their right to its
tool; anything else looks unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from mcpgw.core import extensions, tasks, wire
from mcpgw.core.eras import CORE_TASKS, MODERN
from mcpgw.core.tasks import ID, TASK, Name
from mcpgw.model.calls import (
    Ask,
    Call,
    Context,
    Done,
    JsonObject,
    Log,
    Note,
    OtherNote,
    Progress,
    Reply,
    RpcError,
    TaskChanged,
)
from mcpgw.model.ports import Caller, Links, Seal, UpstreamError
from mcpgw.relay import refusals
from mcpgw.relay.citations import Citations
from mcpgw.relay.discovery import Discovery
from mcpgw.relay.forward import Forward
from mcpgw.relay.handles import Handles, Known
from mcpgw.relay.views import Seat, View

CURSOR: Final = "cursor"
CURSOR_TTL: Final = 86_400.0  # seconds a cursor of a task list stays good
MAX_PAGES: Final = 1000  # pages of one server's tasks; the rest is cut

_MODERN: Final = frozenset(MODERN)
_log = logging.getLogger("mcpgw.relay")


class _Place(Struct, frozen=True, array_like=True):
    """Where a list of tasks goes on: which server, its cursor, and how many pages it had so far."""

    server: str
    cursor: str | None = None
    pages: int = 0


_places = msgspec.json.Decoder(_Place)


class Tasks:
    """Routes what concerns tasks. told: takes a task's news for the session that holds it."""

    def __init__(
        self,
        links: Links,
        seal: Seal,
        handles: Handles,
        forward: Forward,
        discovery: Discovery,
        citing: Citations,
        told: Callable[[Known, TaskChanged], None],
    ) -> None:
        self._links = links
        self._seal = seal
        self._handles = handles
        self._forward = forward
        self._discovery = discovery
        self._citations = citing
        self._told = told

    # ------------------------------------------------------------ beginning one (2025-11-25)

    async def prepared(self, seat: Seat, call: Call) -> tuple[Call, bool]:
        """A call with `task` as the server is to get it, and whether it may begin a task.

        Where a task cannot be had the call runs plainly, which is what a server without them does
        with such a call (2025-11-25, tasks).
        """
        info = await self._discovery.info(seat, call.ctx)
        if call.ctx.revision in CORE_TASKS and tasks.augments(info):
            return call, True
        if info.modern and call.ctx.revision in _MODERN:
            return call, False  # it means nothing there, and nothing is lost
        params = {name: value for name, value in call.params.items() if name != TASK}
        return msgspec.structs.replace(call, params=params), False

    async def begin(self, seat: Seat, asked: Call, call: Call, caller: Caller, tool: str) -> Reply:
        """Send a call that asks for a task. tool: its native name. Raises RpcError."""
        ctx, scope = call.ctx, self._links.scope(seat.server, call.ctx)

        def handle(id: str) -> str:
            return self._handles.know(Name(seat.server.id, tool, id), ctx, scope)

        way = _Related(caller, handle, self._native_of(ctx))
        reply = await self._forward.send(seat, asked, call, way)
        if not isinstance(reply, Done) or TASK not in reply.result:
            return reply
        try:
            task = wire.members(reply.result[TASK])
        except wire.BadMessage:
            return reply
        id = wire.text(task.get(ID))
        if id is None:
            return reply
        told = wire.dump_object(tasks.with_id(task, handle(id)))
        return Done(tasks.related({**reply.result, TASK: told}, handle))

    def related(self, seat: Seat, ctx: Context, caller: Caller) -> Caller:
        """The caller of a plain call: what the server tells in its course may be about a task."""
        if not self._handles.all or ctx.revision not in CORE_TASKS:
            return caller
        return _Related(caller, self._handle_of(seat, ctx), self._native_of(ctx))

    # ------------------------------------------------------------ using one

    async def act(self, view: View, call: Call, caller: Caller) -> Reply:
        """Send on what is asked of a task. Raises RpcError; all that is not a task is unknown."""
        ctx, core = call.ctx, call.ctx.revision in CORE_TASKS
        await self._check(view, call, core=core)
        handle = wire.text(call.params.get(ID))
        if handle is None:
            raise refusals.bad_param(ID, "a string")
        seat, name = self._opened(view, handle, ctx)
        if seat.unusable is not None:
            raise refusals.unusable(seat.server, seat.unusable)
        inner = msgspec.structs.replace(call, params=tasks.with_id(call.params, name.id))
        if core:
            self._handles.know(name, ctx, self._links.scope(seat.server, ctx), handle)
            caller = _Related(caller, self._handle_of(seat, ctx), self._native_of(ctx))
        try:
            async with self._links.lease(seat.server, ctx) as lease:
                if not tasks.offers(lease.info, core=core):
                    raise refusals.no_task()
                reply = await lease.link.handle(inner, caller)
        except UpstreamError as error:
            raise refusals.unreachable(seat.server, error) from error
        if not isinstance(reply, Done):
            raise refusals.unreachable(seat.server, UpstreamError("read", "wants input to answer"))
        result = await self._told_of(view, seat, reply.result, ctx)
        if wire.text(result.get(ID)) == name.id:
            result = tasks.with_id(result, handle)
        if core:
            result = tasks.related(result, self._handle_of(seat, ctx))
        return reply if result is reply.result else Done(result, reply.kind)

    async def _told_of(
        self, view: View, seat: Seat, result: JsonObject, ctx: Context
    ) -> JsonObject:
        """What a task tells of resources, in the words of the endpoint."""
        told = await self._citations.result(view, seat, result, ctx)
        return await self._citations.task(view, seat, told, ctx)

    def opened(self, view: View, handle: str, ctx: Context) -> tuple[Seat, Name] | None:
        """The seat and the name of a task; None when it is none of this principal's."""
        name = self._handles.open(handle, ctx.principal.id)
        seat = None if name is None else view.by_id.get(name.server)
        if name is None or seat is None or not seat.access.allows("tool", name.tool):
            return None
        return seat, name

    def _opened(self, view: View, handle: str, ctx: Context) -> tuple[Seat, Name]:
        found = self.opened(view, handle, ctx)
        if found is None:
            raise refusals.no_task()
        return found

    async def _check(self, view: View, call: Call, *, core: bool) -> None:
        """Whether the client's revision has this method. Raises RpcError."""
        if core:
            if call.method in tasks.CORE_METHODS:
                return
        elif call.ctx.revision in _MODERN and call.method in tasks.EXTENSION_METHODS:
            declared = extensions.declares(call.ctx, extensions.TASKS)
            if declared:
                return
            if await self._discovery.has_tasks(view, call.ctx):
                raise extensions.missing(extensions.TASKS)
        raise refusals.no_method(call.method)

    # ------------------------------------------------------------ all of them (2025-11-25)

    async def list(self, view: View, call: Call, caller: Caller) -> Reply:
        """One page of the tasks that are known to be this principal's. Raises RpcError."""
        ctx = call.ctx
        if ctx.revision not in CORE_TASKS:
            raise refusals.no_method(call.method)
        place = self._place(call)
        servers = [
            id
            for id in self._handles.servers(ctx.principal.id)
            if (seat := view.by_id.get(id)) is not None and seat.unusable is None
        ]
        if place is not None:
            servers = [id for id in servers if id >= place.server]
        if not servers:
            return Done({"tasks": Raw(b"[]")})
        if place is None or place.server != servers[0]:
            place = _Place(servers[0])
        seat = view.by_id[place.server]
        items, cursor = await self._page(seat, place, ctx, caller)
        result: JsonObject = {"tasks": Raw(b"[" + b",".join(map(bytes, items)) + b"]")}
        following = _Place(place.server, cursor, place.pages + 1) if cursor is not None else None
        if following is None and len(servers) > 1:
            following = _Place(servers[1])
        if following is not None:
            token = self._seal.seal(
                msgspec.json.encode(following), bind=_binding(call), purpose=CURSOR, ttl=CURSOR_TTL
            )
            result["nextCursor"] = wire.dump(token)
        return Done(result)

    async def _page(
        self, seat: Seat, place: _Place, ctx: Context, caller: Caller
    ) -> tuple[Sequence[Raw], str | None]:
        """This principal's tasks on one page of a server, and its cursor.

        A server that cannot be asked now has none.
        """
        params: JsonObject = {} if place.cursor is None else {CURSOR: wire.dump(place.cursor)}
        try:
            async with self._links.lease(seat.server, ctx) as lease:
                if not tasks.offers(lease.info, core=True):
                    return [], None
                reply = await lease.link.handle(Call("tasks/list", params, ctx), caller)
            if not isinstance(reply, Done):
                return [], None
            items = wire.array(reply.result.get("tasks", Raw(b"[]")))
        except (UpstreamError, RpcError, wire.BadMessage) as error:
            _log.info('"%s" did not list its tasks: %s', seat.server.name, error)
            return [], None
        cursor = wire.text(reply.result.get("nextCursor"))
        if cursor is not None and (cursor == place.cursor or place.pages >= MAX_PAGES):
            _log.warning('"%s" has no end of tasks: cut', seat.server.name)
            cursor = None
        handle = self._handle_of(seat, ctx)
        return [one for item in items if (one := _listed(item, handle)) is not None], cursor

    def _place(self, call: Call) -> _Place | None:
        raw = call.params.get(CURSOR)
        if raw is None or bytes(raw) == b"null":
            return None
        token = wire.text(raw)
        if token is None:
            raise refusals.bad_param(CURSOR, "a string")
        body = self._seal.unseal(token, bind=_binding(call), purpose=CURSOR)
        if body is None:
            raise refusals.bad_cursor()
        return _places.decode(body)

    # ------------------------------------------------------------ news of them

    def heard(self, server_id: str, scope: str, note: TaskChanged) -> None:
        """A handshake server tells of a task: to the sessions that hold it, and to nobody else."""
        for known in self._handles.holders(server_id, note.id):
            if known.scope == scope:
                params = tasks.with_id(note.params, known.public)
                self._told(known, TaskChanged(known.public, params))

    # ------------------------------------------------------------ ids

    def _handle_of(self, seat: Seat, ctx: Context) -> tasks.Rename:
        """The handle of what the server calls a task, where it is this principal's."""

        def handle(id: str) -> str | None:
            known = self._handles.known(seat.server.id, ctx.principal.id, id)
            return None if known is None else known.public

        return handle

    def _native_of(self, ctx: Context) -> tasks.Rename:
        """What a server calls the task behind a handle of this principal."""

        def native(handle: str) -> str | None:
            name = self._handles.open(handle, ctx.principal.id)
            return None if name is None else name.id

        return native


class _Related:
    """A caller that is told, and asked, about a task by its handle."""

    def __init__(self, caller: Caller, handle: tasks.Rename, native: tasks.Rename) -> None:
        self._caller = caller
        self._handle = handle
        self._native = native
        self.ask_mode = caller.ask_mode

    async def tell(self, note: Note) -> None:
        if isinstance(note, Progress | Log | OtherNote) and "_meta" in note.params:
            params = tasks.related(note.params, self._handle)
            if params is not note.params:
                note = msgspec.structs.replace(note, params=params)
        await self._caller.tell(note)

    async def ask(self, ask: Ask) -> Raw:
        params = tasks.related(ask.params, self._handle)
        if params is ask.params:
            return await self._caller.ask(ask)
        answer = await self._caller.ask(Ask(ask.method, params))
        try:
            members = wire.members(answer)
        except wire.BadMessage:
            return answer
        told = tasks.related(members, self._native)
        return answer if told is members else wire.dump_object(told)


def _listed(item: Raw, handle: tasks.Rename) -> Raw | None:
    """A task of a list under its handle; None when it is not this principal's."""
    try:
        fields = wire.members(item)
    except wire.BadMessage:
        return None
    id = wire.text(fields.get(ID))
    public = None if id is None else handle(id)
    return None if public is None else wire.dump_object(tasks.with_id(fields, public))


def _binding(call: Call) -> bytes:
    """What a cursor of tasks is bound to."""
    return msgspec.json.encode([call.ctx.principal.id, call.method])

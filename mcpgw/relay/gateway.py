"""The gateway: one Handler in front of every server.

A call is routed by its method, its name or URI is looked up in what the caller may see, and it
goes on under its native name. Nothing of it is decoded that the gateway does not decide on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import msgspec
from msgspec import Raw

from mcpgw.core import catalog, headers, tasks, wire
from mcpgw.core.catalog import PROMPTS, TOOLS, Entry, ListKind
from mcpgw.core.citations import URI
from mcpgw.core.eras import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    LEGACY_RESOURCE_NOT_FOUND,
)
from mcpgw.model.calls import (
    Call,
    Context,
    Done,
    ListChanged,
    Note,
    OtherNote,
    Reply,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Snapshot
from mcpgw.model.ports import Caller, Link, Links, Seal
from mcpgw.relay import refusals
from mcpgw.relay.catalogue import Catalogue
from mcpgw.relay.citations import Citations
from mcpgw.relay.discovery import Discovery
from mcpgw.relay.forward import Forward
from mcpgw.relay.handles import Handles, Known
from mcpgw.relay.inputs import Parking
from mcpgw.relay.listen import Listens
from mcpgw.relay.lists import Lists
from mcpgw.relay.tasks import Tasks
from mcpgw.relay.views import Seat, View, Views

_NOT_FOUND = frozenset({INVALID_PARAMS, LEGACY_RESOURCE_NOT_FOUND})
_log = logging.getLogger("mcpgw.relay")
_Route = Callable[[View, Call, Caller], Awaitable[Reply]]


class Gateway:
    """Handles every call of the core. `run` owns what outlives calls and must be running."""

    def __init__(self, links: Links, seal: Seal) -> None:
        self._links = links
        self._views = Views()
        self._parking = Parking(seal)
        self._owned: anyio.abc.TaskGroup | None = None
        self._handles = Handles(seal)
        self._forward = Forward(links, seal, self._parking, self._handles)
        self._catalogue = Catalogue(links, self._list_changed)
        self._lists = Lists(self._catalogue, links, seal)
        self._discovery = Discovery(links, self._catalogue)
        self._citations = Citations(self._lists)
        self._tasks = Tasks(
            links,
            seal,
            self._handles,
            self._forward,
            self._discovery,
            self._citations,
            self._task_changed,
        )
        self._listens = Listens(
            links, self._views, self._lists, self._tasks, self._citations, self._discovery
        )
        self._routes: dict[str, _Route] = {
            "tools/call": self._tool,
            "prompts/get": self._prompt,
            "resources/read": self._read,
            "completion/complete": self._complete,
            "server/discover": self._discover,
            "subscriptions/listen": self._listens.listen,
            "tasks/list": self._tasks.list,
            **dict.fromkeys(tasks.CORE_METHODS | tasks.EXTENSION_METHODS, self._tasks.act),
            **dict.fromkeys(catalog.LISTS, self._list),
        }

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Own fetches, parked calls and notes until cancelled; open listens end in peace."""
        async with anyio.create_task_group() as tasks:
            self._catalogue.own(tasks)
            self._parking.own(tasks)
            self._owned = tasks
            tasks.start_soon(self._listens.run)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._catalogue.own(None)
                self._parking.own(None)
                self._owned = None
                self._listens.close()

    async def handle(self, call: Call, caller: Caller) -> Reply:
        """Answer one call or raise RpcError."""
        route = self._routes.get(call.method, self._foreign)
        return await route(self._views.of(call.ctx), call, caller)

    def heard(self, server_id: str, scope: str, note: Note) -> None:
        """A note of a server that belongs to no call."""
        if isinstance(note, ListChanged):
            self._catalogue.heard(server_id, scope, note.kind)
            self._listens.heard(server_id, scope, note.kind)
        elif isinstance(note, TaskChanged):
            self._tasks.heard(server_id, scope, note)
        elif isinstance(note, OtherNote):
            self._listens.noted(server_id, scope, note)

    def tell(self, ctx: Context, note: Note) -> None:
        """A client's note of no call: to the servers that are in a session with it alone."""
        if self._owned is None:
            return
        for seat in self._views.of(ctx).seats:
            for link in self._links.own(seat.server, ctx):
                self._owned.start_soon(_pass_on, link, note)

    def changed(self, old: Snapshot, new: Snapshot) -> None:
        """The configuration is another: nothing that rested on the old one holds."""
        self._views.clear()
        self._catalogue.forget(
            id
            for id, server in old.servers.items()
            if new.servers.get(id) != server or old.unusable.get(id) != new.unusable.get(id)
        )
        self._handles.forget(old.servers.keys() - new.servers.keys())
        gone = old.principals.keys() - new.principals.keys()
        if gone:
            self._parking.revoke(lambda principal: principal not in gone)
        self._listens.changed(new)

    def _list_changed(self, server_id: str, scope: str, note: str) -> None:
        self._listens.heard(server_id, scope, note)

    async def _foreign(self, view: View, call: Call, caller: Caller) -> Reply:
        """A method of an extension that only the client and the one server know."""
        if not await self._discovery.shares(view, call.ctx):
            raise refusals.no_method(call.method)
        name = call.ctx.headers.get(headers.NAME) if call.ctx.mirrored else None
        if name is not None:
            # What it mirrors is the extension's affair, and nothing of it was renamed.
            call = msgspec.structs.replace(call, param_headers={headers.NAME: name})
        return await self._forward.send(view.seats[0], call, call, caller)

    def _task_changed(self, known: Known, note: TaskChanged) -> None:
        self._listens.task_changed(known, note)

    async def _list(self, view: View, call: Call, caller: Caller) -> Reply:
        return await self._lists.list(view, call)

    async def _tool(self, view: View, call: Call, caller: Caller) -> Reply:
        seat, scope, entry = await self._entry(view, TOOLS, call)
        if self._handles.all:
            caller = self._tasks.related(seat, call.ctx, caller)
        if entry.params or tasks.TASK in call.params:
            reply = await self._unusual(view, seat, scope, entry, call, caller)
        else:
            reply = await self._forward.send(seat, call, _renamed(call, entry), caller)
        if entry.cites and not view.native and isinstance(reply, Done):
            content = reply.result.get("content")
            if content is not None and URI in bytes(content):
                return await self._citations.follow(view, seat, reply, call.ctx)
        return reply

    async def _unusual(
        self, view: View, seat: Seat, scope: str, entry: Entry, call: Call, caller: Caller
    ) -> Reply:
        """A call that asks for a task, or whose arguments header fields mirror."""
        if tasks.TASK in call.params:
            prepared, begins = await self._tasks.prepared(seat, call)
            if begins:
                inner = _renamed(prepared, entry)
                return await self._tasks.begin(seat, call, inner, caller, entry.native)
            call = prepared
        _check_mirrors(entry, call)
        try:
            return await self._forward.send(seat, call, _mirrored(call, entry), caller)
        except RpcError as error:
            if error.code != HEADER_MISMATCH or not entry.params:
                raise
        # The server refused before it ran anything: its schema is not the one we know.
        listing = self._catalogue.listing(seat.server, scope, TOOLS)
        await self._catalogue.fetch(listing, call.ctx).wait()
        _, _, entry = await self._entry(view, TOOLS, call)
        return await self._forward.send(seat, call, _mirrored(call, entry), caller)

    async def _prompt(self, view: View, call: Call, caller: Caller) -> Reply:
        seat, _, entry = await self._entry(view, PROMPTS, call)
        reply = await self._forward.send(seat, call, _renamed(call, entry), caller)
        return await self._citations.follow(view, seat, reply, call.ctx)

    async def _entry(self, view: View, kind: ListKind, call: Call) -> tuple[Seat, str, Entry]:
        """What a call names; a tool that is denied is as unknown as one that is not there."""
        name = wire.text(call.params.get("name"))
        if name is None:
            raise refusals.bad_param("name", "a string")
        seat = view.seat_of(name)
        if seat is None or not seat.access.possible(kind.kind):
            raise refusals.unknown(kind, name)
        scope = self._links.scope(seat.server, call.ctx)
        entry = seat.known(scope, kind.method, name)
        if entry is None:
            entry = await self._lists.sought(seat, scope, kind, name, call.ctx)
        return seat, scope, entry

    async def _read(self, view: View, call: Call, caller: Caller) -> Reply:
        uri = wire.text(call.params.get("uri"))
        if uri is None:
            raise refusals.bad_param("uri", "a string")
        for seat, native in await self._lists.sources(view, uri, call.ctx):
            inner = call if native == uri else _with(call, "uri", wire.dump(native))
            try:
                reply = await self._forward.send(seat, call, inner, caller)
            except RpcError as error:
                if error.code not in _NOT_FOUND or call.state is not None:
                    raise
                continue  # another server may have what none of them lists
            return await self._citations.read(view, seat, reply, call.ctx, native, uri)
        raise refusals.not_found(uri)

    async def _complete(self, view: View, call: Call, caller: Caller) -> Reply:
        raw = call.params.get("ref")
        try:
            ref = {} if raw is None else wire.members(raw)
        except wire.BadMessage:
            ref = {}
        kind = wire.text(ref.get("type"))
        if kind == "ref/prompt" and (name := wire.text(ref.get("name"))) is not None:
            named = msgspec.structs.replace(call, params={"name": wire.dump(name)})
            seat, _, entry = await self._entry(view, PROMPTS, named)
            ref["name"] = entry.native_json
        elif kind == "ref/resource" and (uri := wire.text(ref.get("uri"))) is not None:
            seat, native = await self._reference(view, uri, call)
            ref["uri"] = wire.dump(native)
        else:
            raise refusals.bad_param("ref", "a reference to a prompt or a resource")
        inner = _with(call, "ref", wire.dump_object(ref))
        return await self._forward.send(seat, call, inner, caller)

    async def _reference(self, view: View, uri: str, call: Call) -> tuple[Seat, str]:
        """The seat behind a URI template, or else behind a URI."""
        found = await self._lists.template(view, uri, call.ctx)
        if found is not None:
            return found
        for source in await self._lists.sources(view, uri, call.ctx):
            return source
        raise refusals.not_found(uri)

    async def _discover(self, view: View, call: Call, caller: Caller) -> Reply:
        return await self._discovery.discover(view, call)


async def _pass_on(link: Link, note: Note) -> None:
    try:
        await link.tell(note)
    except Exception:  # noqa: BLE001 - a boundary: a lost note must not end the gateway
        _log.exception("a client's note was lost")


def _renamed(call: Call, entry: Entry) -> Call:
    params = {**call.params, "name": entry.native_json}
    return Call(
        call.method,
        params,
        call.ctx,
        call.meta,
        call.wants_progress,
        call.answers,
        call.state,
    )


def _mirrored(call: Call, entry: Entry) -> Call:
    """The renamed call with the header fields that mirror its arguments."""
    minted = _minted(entry, call)
    return msgspec.structs.replace(_renamed(call, entry), param_headers=minted)


def _minted(entry: Entry, call: Call) -> dict[str, str]:
    try:
        return headers.mint(entry.params, call.params.get("arguments"))
    except (wire.BadMessage, UnicodeEncodeError):
        raise refusals.bad_param("arguments", "an object") from None


def _check_mirrors(entry: Entry, call: Call) -> None:
    """A request over modern HTTP must mirror its arguments as the schema says."""
    if not call.ctx.mirrored:
        return
    try:
        wrong = headers.mismatch(entry.params, call.params.get("arguments"), call.ctx.headers)
    except wire.BadMessage:
        raise refusals.bad_param("arguments", "an object") from None
    if wrong is not None:
        raise RpcError(HEADER_MISMATCH, f"Header mismatch: {wrong}", http_status=400)


def _with(call: Call, name: str, value: Raw) -> Call:
    return msgspec.structs.replace(call, params={**call.params, name: value})

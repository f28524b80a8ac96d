"""The lists of upstream servers, fetched when needed and kept until they change.

One listing per (server, scope, list). A listing is fetched by an owned task, so that a slow
server delays nobody longer than LIST_WAIT and several callers share one fetch. It is good until
its server says it changed, or its time to live is over; where a legacy server cannot tell a
time, it goes on being served while it is looked at again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

import anyio
import anyio.abc
import msgspec
from msgspec import Raw

from mcpgw.core import catalog, wire
from mcpgw.core.catalog import Entry, ListKind
from mcpgw.core.eras import METHOD_NOT_FOUND
from mcpgw.model.calls import Ask, AskMode, Call, Context, Done, JsonObject, Note, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Link, LinkInfo, Links, UpstreamError
from mcpgw.relay import refusals

LIST_WAIT = 5.0  # seconds a list waits for its servers; who is late is left out and told later
FETCH_TIME = 120.0  # seconds a whole list may take, all pages; a server's own time-out bounds each
UNTIMED = 60.0  # seconds a list without time to live is good for, unless its server says more
REST = 1.0  # seconds between two looks at a server that failed, or that lacks what was asked for
MAX_PAGES = 1000  # pages of one upstream list; the rest is cut
MAX_ITEMS = 20_000  # entries of one upstream list; the rest is cut
MAX_WARNINGS = 10  # entries of one list whose fault is logged; the others are counted
MAX_LISTINGS = 50_000  # listings kept; the least recently used go

_OF_LISTS = ("nextCursor", "ttlMs", "cacheScope")
_log = logging.getLogger("mcpgw.relay")


class Listing:
    """One list of one server as one scope sees it.

    version: changes with every fetch that brought something, 0 before the first.
    error: why the last fetch failed; the entries of the last good one stay for calls.
    lacks: the server does not declare the capability behind the list.
    owed: somebody was given a list without this, or with an old state of it.
    """

    __slots__ = (
        "cites",
        "entries",
        "error",
        "expires",
        "extra",
        "failed",
        "fetched",
        "fetching",
        "gone",
        "heard",
        "kind",
        "lacks",
        "modern",
        "names",
        "natives",
        "owed",
        "scope",
        "seen",
        "server",
        "task",
        "ttl",
        "version",
    )

    def __init__(self, server: Server, scope: str, kind: ListKind) -> None:
        self.server = server
        self.scope = scope
        self.kind = kind
        self.entries: tuple[Entry, ...] = ()
        self.names: dict[str, Entry] = {}
        self.natives: dict[str, Entry] = {}
        self.extra: JsonObject = {}  # members of the list's first page that have no meaning here
        self.version = 0
        self.cites = False  # the server has resources, which its answers may name
        self.error: RpcError | None = None
        self.lacks = False
        self.modern = False
        self.owed = False
        self.gone = False
        self.heard = 0  # changes told of so far
        self.seen = 0  # how many of them the last good fetch had before it
        self.fetched = -1e9
        self.failed = -1e9
        self.expires = -1e9
        self.ttl = 0.0
        self.fetching: anyio.Event | None = None
        self.task: anyio.CancelScope | None = None

    @property
    def shown(self) -> bool:
        """Whether its entries belong into a list now."""
        return self.version > 0 and self.error is None

    def fresh(self, now: float) -> bool:
        return self.shown and self.heard == self.seen and now < self.expires

    def good_enough(self, now: float) -> bool:
        """Fresh, or only to be looked at again in passing."""
        return self.shown and self.heard == self.seen and (now < self.expires or not self.modern)

    def resting(self, now: float) -> bool:
        """Whether it failed a moment ago."""
        return self.error is not None and now - self.failed < REST


class Catalogue:
    """All listings. `changed(server id, scope, kind)` is called when one turned out different."""

    def __init__(self, links: Links, changed: Callable[[str, str, str], None]) -> None:
        self._links = links
        self._changed = changed
        self._listings: OrderedDict[tuple[str, str, str], Listing] = OrderedDict()
        self._latest: dict[tuple[str, str], Listing] = {}  # by server and list, of any scope
        self._infos: dict[str, LinkInfo] = {}
        self._versions: Iterator[int] = count(1)
        self._late: set[str] = set()  # servers that somebody waited for in vain, of any scope
        self._tasks: anyio.abc.TaskGroup | None = None

    def own(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """The task group that fetches run in."""
        self._tasks = tasks

    def listing(self, server: Server, scope: str, kind: ListKind) -> Listing:
        """The listing, new and empty if need be. It starts nothing."""
        key = (server.id, scope, kind.method)
        found = self._listings.get(key)
        if found is not None:
            if found.server is server or found.server == server:
                found.server = server
                self._listings.move_to_end(key)
                return found
            self._drop(key)
        found = self._listings[key] = Listing(server, scope, kind)
        if len(self._listings) > MAX_LISTINGS:
            self._drop(next(iter(self._listings)))
        return found

    def met(self, server: Server, info: LinkInfo) -> None:
        """Remember what a server said of itself."""
        self._infos[server.id] = info

    def info(self, server: Server) -> LinkInfo | None:
        """What the server said of itself when it was last met; None: not met so far."""
        return self._infos.get(server.id)

    async def ensure(self, listings: Sequence[Listing], ctx: Context, *, patient: bool) -> None:
        """Bring the listings up to date as far as LIST_WAIT allows.

        patient: wait as long as the server may take, also where it failed before. Else a server
        that is known to fail or to be late is tried in passing.
        """
        awaited = self._start(listings, ctx, patient=patient)
        if awaited:
            slowest = max(listing.server.timeout for listing in listings)
            with anyio.move_on_after(max(LIST_WAIT, slowest) if patient else LIST_WAIT):
                for event in awaited:
                    await event.wait()
        for listing in listings:
            if listing.fetching is not None:
                listing.owed = True
                if not listing.shown:
                    self._late.add(listing.server.id)
            elif listing.error is not None:
                listing.owed = True

    def _start(
        self, listings: Sequence[Listing], ctx: Context, *, patient: bool
    ) -> list[anyio.Event]:
        """Start the fetches that are due; the ends of those that are worth waiting for."""
        now = anyio.current_time()
        awaited: list[anyio.Event] = []
        for listing in listings:
            if listing.fresh(now) or listing.resting(now):
                continue
            usable = listing.good_enough(now)
            failing = listing.error is not None or listing.server.id in self._late
            event = self.fetch(listing, ctx)
            if not usable and (patient or not failing):
                awaited.append(event)
        return awaited

    async def refreshed(self, listing: Listing, ctx: Context) -> None:
        """The listing as its server has it now; for a name that is not in it.

        Asks at most once a second. Raises RpcError when the server cannot be reached.
        """
        now = anyio.current_time()
        if not listing.resting(now) and (
            not listing.shown or listing.heard != listing.seen or now - listing.fetched >= REST
        ):
            with anyio.move_on_after(listing.server.timeout) as waited:
                await self.fetch(listing, ctx).wait()
            if waited.cancelled_caught:
                raise refusals.unreachable(listing.server, refusals.late(listing.server.timeout))
        if listing.gone:
            raise refusals.unreachable(
                listing.server, UpstreamError("connect", "has just been changed: try again")
            )
        if listing.error is not None:
            raise _again(listing.error)

    def fetch(self, listing: Listing, ctx: Context) -> anyio.Event:
        """Start fetching unless that is under way; the event is set at its end."""
        if listing.fetching is None:
            if self._tasks is None:
                raise RuntimeError("Gateway.run is not running")
            listing.fetching = anyio.Event()
            listing.task = anyio.CancelScope()
            self._tasks.start_soon(self._fetch, listing, _background(ctx))
        return listing.fetching

    def heard(self, server_id: str, scope: str, note: str) -> None:
        """A server said that one of its lists changed."""
        for kind in catalog.LISTS.values():
            if kind.note == note:
                listing = self._listings.get((server_id, scope, kind.method))
                if listing is not None:
                    listing.heard += 1
                    listing.failed = -1e9

    def forget(self, server_ids: Iterable[str]) -> None:
        """Servers were changed or removed: nothing of them holds."""
        gone = frozenset(server_ids)
        self._late -= gone
        for server_id in gone:
            self._infos.pop(server_id, None)
        for key in [key for key in self._listings if key[0] in gone]:
            self._drop(key)

    def _drop(self, key: tuple[str, str, str]) -> None:
        listing = self._listings.pop(key)
        listing.gone = True
        if self._latest.get((key[0], key[2])) is listing:
            del self._latest[key[0], key[2]]
        if listing.task is not None:
            listing.task.cancel()

    async def _fetch(self, listing: Listing, ctx: Context) -> None:
        """An owned task: a fetch outlives whoever wanted it first."""
        server, heard = listing.server, listing.heard
        task, done = listing.task, listing.fetching
        error: RpcError = refusals.unreachable(server, refusals.late(FETCH_TIME))
        items: list[Raw] | None = None
        try:
            with task or anyio.CancelScope():
                with anyio.move_on_after(FETCH_TIME):
                    items = await self._items(listing, ctx)
        except UpstreamError as failure:
            error = refusals.unreachable(server, failure)
        except RpcError as failure:
            error = failure
        except wire.BadMessage as failure:
            error = refusals.unreachable(
                server, UpstreamError("read", f"answered badly: {failure.message}")
            )
        except Exception:  # noqa: BLE001 - a boundary: a background task must not end the gateway
            _log.exception('listing %s of "%s" failed', listing.kind.member, server.name)
            error = refusals.unexpected(server)
        finally:
            listing.fetching = listing.task = None
            if done is not None:
                done.set()
        if items is not None:
            self._late.discard(server.id)
            self._arrived(listing, items, heard)
        elif not listing.gone:
            self._failed(listing, error)

    async def _items(self, listing: Listing, ctx: Context) -> list[Raw]:
        kind = listing.kind
        async with self._links.lease(listing.server, ctx) as lease:
            self.met(listing.server, lease.info)
            listing.modern = lease.info.modern
            listing.cites = catalog.RESOURCES.capability in lease.info.capabilities
            listing.lacks = kind.capability not in lease.info.capabilities
            listing.ttl = UNTIMED
            if listing.lacks:
                return []
            return await self._pages(lease.link, listing, ctx)

    async def _pages(self, link: Link, listing: Listing, ctx: Context) -> list[Raw]:
        kind, items = listing.kind, list[Raw]()
        params: JsonObject = {}
        seen: set[bytes] = set()
        for _ in range(MAX_PAGES):
            try:
                reply = await link.handle(Call(kind.method, params, ctx), _UNHEARD)
            except RpcError as error:
                if error.code == METHOD_NOT_FOUND and not params:
                    return []  # many servers have resources and no templates
                raise
            if not isinstance(reply, Done):
                raise UpstreamError("read", f"wants input for {kind.method}")
            items.extend(wire.array(reply.result.get(kind.member, wire.NULL)))
            if not params:
                known = (kind.member, *_OF_LISTS)
                listing.extra = {k: v for k, v in reply.result.items() if k not in known}
            if len(items) > MAX_ITEMS:
                _log.warning('"%s" has too many %s: cut', listing.server.name, kind.member)
                return items[:MAX_ITEMS]
            listing.ttl = _ttl(reply.result, listing.ttl, modern=listing.modern)
            cursor = reply.result.get("nextCursor")
            if wire.text(cursor) is None or cursor is None:
                return items
            if bytes(cursor) in seen:
                _log.warning('"%s" repeats a cursor: %s is cut', listing.server.name, kind.member)
                return items
            seen.add(bytes(cursor))
            params = {"cursor": cursor}
        _log.warning('"%s" has no end of %s: cut', listing.server.name, kind.member)
        return items

    def _arrived(self, listing: Listing, items: list[Raw], heard: int) -> None:
        server, kind = listing.server, listing.kind
        found, warnings = catalog.entries(
            items, kind, server.prefix, modern=listing.modern, cites=listing.cites
        )
        bodies = [entry.body for entry in found]
        same = listing.shown and bodies == [entry.body for entry in listing.entries]
        same = same and all(entry.cites is listing.cites for entry in listing.entries)
        now = anyio.current_time()
        listing.error = None
        listing.fetched, listing.expires = now, now + listing.ttl
        listing.seen = heard
        if same:
            listing.owed = False
            return
        for warning in warnings[:MAX_WARNINGS]:
            _log.warning('an entry of "%s" is left out: %s', server.name, warning)
        if (more := len(warnings) - MAX_WARNINGS) > 0:
            _log.warning('%d more entries of "%s" are left out', more, server.name)
        self._fill(listing, tuple(found))
        listing.version = next(self._versions)
        if listing.owed:
            listing.owed = False
            self._changed(server.id, listing.scope, kind.note)

    def _fill(self, listing: Listing, entries: tuple[Entry, ...]) -> None:
        """Give a listing its entries. Scopes that see the same share them: there may be many."""
        key = (listing.server.id, listing.kind.method)
        other = self._latest.get(key)
        if other is not None and other.entries == entries:
            listing.entries = other.entries
            listing.names, listing.natives = other.names, other.natives
        else:
            listing.entries = entries
            listing.names = {entry.public: entry for entry in entries}
            listing.natives = {entry.native: entry for entry in entries}
        if not listing.gone:
            self._latest[key] = listing

    def _failed(self, listing: Listing, error: RpcError) -> None:
        was_shown, known = listing.shown, listing.error is not None
        listing.error = error
        listing.failed = anyio.current_time()
        if not known:
            what = listing.kind.member
            _log.warning('"%s" is left out of %s: %s', listing.server.name, what, error.message)
        if was_shown:
            listing.owed = True
            self._changed(listing.server.id, listing.scope, listing.kind.note)


class _Unheard:
    """The gateway's own calls: nobody to ask, nobody who reads notes."""

    ask_mode = AskMode.NEVER

    async def tell(self, note: Note) -> None:
        """Progress of a list has no reader."""

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, f"{ask.method} cannot be asked for a list")


_UNHEARD = _Unheard()


def _background(ctx: Context) -> Context:
    """The context for work that outlives a request: its session and credentials, not its limits."""
    return msgspec.structs.replace(ctx, deadline=None, log_level=None, trace={}, mirrored=False)


def _ttl(result: JsonObject, shortest: float, *, modern: bool) -> float:
    """Seconds until the list must be asked for again: the least of all pages."""
    ttl = wire.number(result.get("ttlMs"))
    if ttl is None or (ttl <= 0 and not modern):
        return shortest
    return min(shortest, max(ttl, 0.0) / 1000) if shortest != UNTIMED else max(ttl, 0.0) / 1000


def _again(error: RpcError) -> RpcError:
    """The same error, to be raised anew: an exception that is raised twice grows its traceback."""
    return RpcError(error.code, error.message, error.data)

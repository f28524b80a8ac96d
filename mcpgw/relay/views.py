"""What one principal sees at one endpoint under one configuration.

A view is made once per (principal, endpoint, snapshot) and looked up for every call: it knows the
servers, the compiled access to each, and what of their listings passes it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Raw

from mcpgw.core import catalog, naming
from mcpgw.core.access import KINDS, Access, Ladder, address
from mcpgw.core.catalog import Entry, ListKind, Place, Placed, Shelf
from mcpgw.model.calls import Context
from mcpgw.model.config import Endpoint, Principal, Server, Snapshot
from mcpgw.relay.catalogue import Listing

MAX_VIEWS = 20_000  # views kept; the least recently made go
MAX_SIFTED = 1024  # listings kept per server and view: one per list and session
MAX_MERGED = 16  # merged lists kept per view and kind: one per combination of sessions


class Sifted:
    """The part of a listing that a principal may use, by the names of its endpoint."""

    __slots__ = ("entries", "listing", "names", "version")

    def __init__(self, listing: Listing, access: Access, *, native: bool) -> None:
        kind = listing.kind.kind
        self.listing = listing
        self.version = listing.version
        self.entries: Sequence[Entry] = listing.entries
        self.names = listing.natives if native else listing.names
        if not access.total(kind):
            allowed = [one for one in listing.entries if access.allows(kind, one.native)]
            self.entries = allowed
            self.names = {one.native if native else one.public: one for one in allowed}


class Seat:
    """One server in a view. `unusable`: why it cannot be used as it is configured."""

    __slots__ = ("_native", "_sifted", "access", "server", "unusable")

    def __init__(
        self, server: Server, access: Access, *, unusable: str | None, native: bool
    ) -> None:
        self.server = server
        self.access = access
        self.unusable = unusable
        self._native = native
        self._sifted: dict[tuple[str, str], Sifted] = {}

    @property
    def whole(self) -> bool:
        """Whether the principal may use all of the server."""
        return all(self.access.total(kind) for kind in KINDS)

    def sifted(self, listing: Listing) -> Sifted:
        """The listing as this principal sees it now."""
        key = (listing.scope, listing.kind.method)
        found = self._sifted.get(key)
        if found is None or found.version != listing.version or found.listing is not listing:
            found = self._sifted[key] = Sifted(listing, self.access, native=self._native)
            if len(self._sifted) > MAX_SIFTED:
                del self._sifted[next(iter(self._sifted))]
        return found

    def known(self, scope: str, method: str, name: str) -> Entry | None:
        """The entry called `name`, when the listing is at hand; nothing is fetched."""
        found = self._sifted.get((scope, method))
        if found is None:
            return None
        if found.version != found.listing.version or found.listing.gone:
            del self._sifted[scope, method]
            return None if found.listing.gone else self.sifted(found.listing).names.get(name)
        return found.names.get(name)


class Page:
    """Entries as one encoded array, and where it ended when more follow."""

    __slots__ = ("body", "end")

    def __init__(self, body: Raw, end: Place | None) -> None:
        self.body = body
        self.end = end


class Merged:
    """A merged list as one view has it: in order, by name, and page by page as bytes."""

    __slots__ = ("_kind", "_names", "_owners", "_pages", "placed", "shelves", "stamp")

    def __init__(
        self, shelves: Sequence[Shelf], stamp: tuple[int, ...], kind: ListKind, *, native: bool
    ) -> None:
        self.shelves = shelves
        self.stamp = stamp
        self.placed = catalog.merged(shelves, kind, native=native)
        self._kind = kind
        self._names: dict[str, Placed] | None = None
        self._owners: dict[str, set[str]] | None = None
        self._pages: dict[int, Page] = {}

    def page(self, place: Place | None) -> Page:
        """The page that follows `place`; None is the first."""
        start = 0 if place is None else catalog.start_of(place, self.shelves, self.placed)
        found = self._pages.get(start)
        if found is None:
            chunk = self.placed[start : start + catalog.PAGE]
            more = start + len(chunk) < len(self.placed)
            end = catalog.place_of(chunk[-1], self.shelves) if more else None
            body = Raw(b"[" + b",".join(bytes(one.body) for one in chunk) + b"]")
            found = self._pages[start] = Page(body, end)
        return found

    def named(self, name: str) -> Placed | None:
        """By the name the list shows, or else by the first native one."""
        if self._names is None:
            names: dict[str, Placed] = {}
            for one in self.placed:
                names.setdefault(one.entry.native, one)
            names.update({one.name: one for one in self.placed})
            self._names = names
        return self._names.get(name)

    def owners(self, native: str) -> set[str]:
        """The names of the servers that list this, as they call it."""
        if self._owners is None:
            self._owners = {}
            for one in self.placed:
                server = self.shelves[one.shelf].server
                self._owners.setdefault(one.entry.native, set()).add(server)
        return self._owners.get(native, set())


class View:
    """The servers a principal may use at an endpoint, sorted by name."""

    __slots__ = ("_merged", "by_id", "by_prefix", "discovered", "native", "seats", "source")

    def __init__(self, principal: Principal, snapshot: Snapshot, endpoint: Endpoint) -> None:
        self.source = (principal, snapshot)
        self.native = endpoint.native
        seats: list[Seat] = []
        narrow = address(endpoint, snapshot)
        ladder = Ladder(principal) if narrow is None else Ladder(principal, narrow)
        only = endpoint.servers if narrow is None else None
        for server in sorted(snapshot.servers.values(), key=lambda one: one.name):
            if only is not None and server.id not in only:
                continue
            access = Access(principal, server, ladder)
            if access.usable:
                reason = snapshot.unusable.get(server.id)
                seats.append(Seat(server, access, unusable=reason, native=endpoint.native))
        self.seats = tuple(seats)
        self.by_id = {seat.server.id: seat for seat in seats}
        self.by_prefix = {seat.server.prefix: seat for seat in seats}
        self.discovered: Raw | None = None  # the encoded instructions of the full endpoint
        self._merged: dict[str, OrderedDict[tuple[str, ...], Merged]] = {}

    def seat_of(self, name: str) -> Seat | None:
        """The seat that a tool's or prompt's name belongs to, whether it has it or not."""
        if self.native:
            return self.seats[0] if self.seats else None
        return self.by_prefix.get(name.partition(naming.SEPARATOR)[0])

    def able(self, kind: ListKind) -> list[Seat]:
        """The seats of which the principal may use anything of this kind."""
        return [seat for seat in self.seats if seat.access.possible(kind.kind)]

    def merged(self, kind: ListKind, pairs: Sequence[tuple[Seat, Listing]]) -> Merged:
        """The merged list of these listings; made anew only when one of them is another."""
        kept = self._merged.setdefault(kind.method, OrderedDict())
        scopes = tuple([listing.scope for _, listing in pairs])
        stamp = tuple([listing.version if listing.shown else 0 for _, listing in pairs])
        found = kept.get(scopes)
        if found is None or found.stamp != stamp:
            shelves = [
                Shelf(seat.server.name, seat.sifted(listing).entries)
                for seat, listing in pairs
                if listing.shown
            ]
            found = kept[scopes] = Merged(shelves, stamp, kind, native=self.native)
            if len(kept) > MAX_MERGED:
                kept.popitem(last=False)
        return found


class Views:
    """The views in use."""

    def __init__(self) -> None:
        self._views: dict[tuple[str, Endpoint], View] = {}

    def of(self, ctx: Context) -> View:
        """The view of the caller; made when it is new or when the configuration changed."""
        key = (ctx.principal.id, ctx.endpoint)
        found = self._views.get(key)
        if found is not None:
            principal, snapshot = found.source
            if principal is ctx.principal and snapshot is ctx.snapshot:
                return found
        made = self._views[key] = View(ctx.principal, ctx.snapshot, ctx.endpoint)
        if len(self._views) > MAX_VIEWS:
            del self._views[next(iter(self._views))]
        return made

    def clear(self) -> None:
        """The configuration changed: whoever calls next gets a new view."""
        self._views.clear()

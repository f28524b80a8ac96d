"""Merged lists, and what stands behind a name or a URI.

A list waits for its servers as far as the catalogue does; who failed is left out and named in
`_meta`, except at the address of one server, where its failure is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio
import msgspec
from msgspec import Raw

from mcpgw.core import catalog, naming, wire
from mcpgw.core.catalog import RESOURCES, TEMPLATES, Entry, ListKind, Place
from mcpgw.model.calls import Call, Context, Done, JsonObject, RpcError
from mcpgw.model.ports import Links, Seal
from mcpgw.relay import refusals
from mcpgw.relay.catalogue import LIST_WAIT, Catalogue, Listing
from mcpgw.relay.views import Merged, Seat, View

CURSOR_TTL = 86_400.0  # seconds a cursor stays good
CURSOR = "cursor"
UNAVAILABLE = "mcpgw/unavailable"
MAX_SOURCES = 8  # servers that are tried for a resource that none of them lists

PRIVATE = Raw(b'"private"')
_places = msgspec.json.Decoder(Place)


class Lists:
    """Answers the list methods and finds entries."""

    def __init__(self, catalogue: Catalogue, links: Links, seal: Seal) -> None:
        self._catalogue = catalogue
        self._links = links
        self._seal = seal

    async def list(self, view: View, call: Call) -> Done:
        """One page of a merged list. Raises RpcError for a bad cursor."""
        kind = catalog.LISTS[call.method]
        place = self._place(call)
        merged, pairs = await self.merged(view, kind, call.ctx)
        page = merged.page(place)
        result: JsonObject = {kind.member: page.body}
        if view.native and place is None:
            result.update(pairs[0][1].extra)
        if page.end is not None:
            result["nextCursor"] = self._cursor(page.end, call)
        missing = [] if view.native else _missing(view.able(kind), pairs)
        result["ttlMs"] = Raw(b"0") if missing else _remaining(pairs)
        result["cacheScope"] = PRIVATE
        if missing:
            result["_meta"] = wire.dump({UNAVAILABLE: missing})
        return Done(result)

    async def merged(
        self, view: View, kind: ListKind, ctx: Context
    ) -> tuple[Merged, Sequence[tuple[Seat, Listing]]]:
        """The merged list as good as it can be had in time."""
        if view.native and not view.seats:
            raise refusals.no_endpoint()
        pairs = self._pairs(view, kind, ctx)
        listings = [listing for _, listing in pairs]
        await self._catalogue.ensure(listings, ctx, patient=view.native)
        if view.native:
            _check(view.seats[0], kind, listings)
        return view.merged(kind, pairs), pairs

    async def sought(
        self, seat: Seat, scope: str, kind: ListKind, name: str, ctx: Context
    ) -> Entry:
        """The entry called `name`, fetched if need be. Raises RpcError when there is none."""
        if seat.unusable is not None:
            raise refusals.unusable(seat.server, seat.unusable)
        listing = self._catalogue.listing(seat.server, scope, kind)
        found = seat.sifted(listing).names.get(name)
        if found is None:
            await self._catalogue.refreshed(listing, ctx)
            found = seat.sifted(listing).names.get(name)
        if found is None:
            raise refusals.unknown(kind, name)
        return found

    async def sources(self, view: View, uri: str, ctx: Context) -> Sequence[tuple[Seat, str]]:
        """Where a resource may be read, likeliest first: seats with their native URIs.

        Only seats whose access allows the URI; none when it is absent or denied.
        """
        able = view.able(RESOURCES)
        own = naming.split_uri(uri)
        if view.native or own is None:
            found = await self._likely(view, able, uri, ctx)
        else:
            prefix, native = own
            seat = view.by_prefix.get(prefix)
            found = [] if seat is None else [(seat, native)]
        allowed = [pair for pair in found if pair[0].access.allows("resource", pair[1])]
        return allowed[:MAX_SOURCES]

    async def template(self, view: View, uri: str, ctx: Context) -> tuple[Seat, str] | None:
        """The seat and native form of a URI template that is listed."""
        merged, pairs = await self.merged(view, TEMPLATES, ctx)
        placed = merged.named(uri)
        if placed is None:
            return None
        name = merged.shelves[placed.shelf].server
        seat = next(seat for seat, _ in pairs if seat.server.name == name)
        return seat, placed.entry.native

    async def _likely(
        self, view: View, able: Sequence[Seat], uri: str, ctx: Context
    ) -> Sequence[tuple[Seat, str]]:
        if len(able) <= 1:
            return [(seat, uri) for seat in able]
        pairs = self._pairs(view, RESOURCES, ctx)
        seats = {seat.server.name: seat for seat, _ in pairs}
        # What is known already is enough: a slow server need not hold up a resource of another.
        merged = view.merged(RESOURCES, pairs)
        if merged.named(uri) is None:
            merged, pairs = await self.merged(view, RESOURCES, ctx)
        placed = merged.named(uri)
        if placed is not None:
            return [(seats[merged.shelves[placed.shelf].server], placed.entry.native)]
        templates, _ = await self.merged(view, TEMPLATES, ctx)
        fitting = [
            (seats[templates.shelves[one.shelf].server], uri)
            for one in templates.placed
            if catalog.matches(one.entry.native, uri)
        ]
        others = [(seat, uri) for seat, listing in pairs if listing.shown and not listing.lacks]
        return list(dict.fromkeys([*fitting, *others]))

    def _pairs(self, view: View, kind: ListKind, ctx: Context) -> Sequence[tuple[Seat, Listing]]:
        """The usable seats that may have such a list, with their listings as they are now."""
        listing, scope = self._catalogue.listing, self._links.scope
        return [
            (seat, listing(seat.server, scope(seat.server, ctx), kind))
            for seat in view.able(kind)
            if seat.unusable is None
        ]

    def _place(self, call: Call) -> Place | None:
        cursor = call.params.get(CURSOR)
        if cursor is None or bytes(cursor) == b"null":
            return None
        token = wire.text(cursor)
        if token is None:
            raise refusals.bad_param(CURSOR, "a string")
        body = self._seal.unseal(token, bind=_binding(call), purpose=CURSOR) if token else None
        if body is None:
            raise refusals.bad_cursor()
        return _places.decode(body)

    def _cursor(self, end: Place, call: Call) -> Raw:
        body = msgspec.json.encode(end)
        return wire.dump(self._seal.seal(body, bind=_binding(call), purpose=CURSOR, ttl=CURSOR_TTL))


def _binding(call: Call) -> bytes:
    endpoint = call.ctx.endpoint
    servers = None if endpoint.servers is None else sorted(endpoint.servers)
    groups = sorted(endpoint.groups)
    return msgspec.json.encode(
        [call.ctx.principal.id, call.method, servers, groups, endpoint.native]
    )


def _check(seat: Seat, kind: ListKind, listings: Sequence[Listing]) -> None:
    """At the address of one server: its failure, or that it has no such list, is the answer."""
    if seat.unusable is not None:
        raise refusals.unusable(seat.server, seat.unusable)
    for listing in listings:
        if listing.error is not None:
            raise RpcError(listing.error.code, listing.error.message, listing.error.data)
        if listing.lacks:
            raise refusals.no_method(kind.method)
        if not listing.shown:
            raise refusals.unreachable(seat.server, refusals.late(seat.server.timeout))


def _missing(able: Sequence[Seat], pairs: Sequence[tuple[Seat, Listing]]) -> list[dict[str, str]]:
    """What `_meta` says of servers that are not in the list."""
    reasons: dict[str, str] = {}
    for seat in able:
        if seat.unusable is not None:
            reasons[seat.server.prefix] = seat.unusable
    for seat, listing in pairs:
        if not listing.shown:
            error = listing.error
            late = refusals.late(LIST_WAIT).message
            reasons[seat.server.prefix] = late if error is None else error.message
    return [{"server": name, "reason": reasons[name]} for name in sorted(reasons)]


def _remaining(pairs: Sequence[tuple[Seat, Listing]]) -> Raw:
    """Milliseconds the merged list is good for: the least of its parts.

    A legacy server promises nothing, so a list with one of its parts is good for none.
    """
    now = anyio.current_time()
    left = math.inf
    for _, listing in pairs:
        left = min(left, listing.expires - now if listing.modern else 0.0)
    return Raw(b"%d" % (max(0.0, left) * 1000)) if left != math.inf else Raw(b"0")

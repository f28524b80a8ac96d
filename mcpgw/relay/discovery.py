"""What the gateway says of itself: `server/discover`, at the address of one server and of all.

At the address of one server it is what that server said, as far as it is passed on. At the address
of all, everything the gateway merges by itself, and of tasks and extensions those that a usable
server has: servers that nobody has met so far are met for it, in a bounded time, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import anyio
from msgspec import Raw

from mcpgw import __version__
from mcpgw.core import extensions, tasks, wire
from mcpgw.core.catalog import TOOLS
from mcpgw.core.eras import CORE_TASKS, SUPPORTED
from mcpgw.model.calls import Call, Context, Done, JsonObject
from mcpgw.model.ports import LinkInfo, Links, UpstreamError
from mcpgw.relay import refusals
from mcpgw.relay.catalogue import Catalogue
from mcpgw.relay.lists import PRIVATE
from mcpgw.relay.views import Seat, View

DISCOVER_TTL: Final = 60_000  # milliseconds a client may keep what the gateway says of itself
DISCOVER_WAIT: Final = 2.0  # seconds for servers that are met for it; who is late is left out
MAX_INSTRUCTIONS: Final = 8000  # characters of instructions for the whole gateway

_VERSIONS: Final = wire.dump(list(reversed(SUPPORTED)))
_INFO: Final = wire.dump({"name": "mcpgw", "title": "mcpgw", "version": __version__})
_TTL: Final = wire.dump(DISCOVER_TTL)
_EVERYTHING: Final = {
    "tools": wire.dump({"listChanged": True}),
    "prompts": wire.dump({"listChanged": True}),
    "resources": wire.dump({"listChanged": True, "subscribe": True}),
    "completions": wire.EMPTY,
    "logging": wire.EMPTY,
}
_LISTED: Final = ("tools", "prompts", "resources")
_PASSED: Final = (*_LISTED, "completions", "logging")


class Discovery:
    """Answers server/discover, and knows what servers said of themselves."""

    def __init__(self, links: Links, catalogue: Catalogue) -> None:
        self._links = links
        self._catalogue = catalogue

    async def discover(self, view: View, call: Call) -> Done:
        """Raises RpcError, at the address of one server, when that cannot be reached."""
        if view.native:
            capabilities, instructions = await self._own(view, call.ctx)
        else:
            capabilities, instructions = await self._all(view, call.ctx), _instructions(view)
        result: JsonObject = {
            "supportedVersions": _VERSIONS,
            "capabilities": wire.dump_object(capabilities),
        }
        if instructions:
            result["instructions"] = wire.dump(instructions)
        result["serverInfo"] = _INFO
        result["ttlMs"] = _TTL
        result["cacheScope"] = PRIVATE
        return Done(result)

    async def info(self, seat: Seat, ctx: Context) -> LinkInfo:
        """What a server said of itself. Raises RpcError when it cannot be reached."""
        if seat.unusable is not None:
            raise refusals.unusable(seat.server, seat.unusable)
        try:
            async with self._links.lease(seat.server, ctx) as lease:
                self._catalogue.met(seat.server, lease.info)
                return lease.info
        except UpstreamError as error:
            raise refusals.unreachable(seat.server, error) from error

    async def shares(self, view: View, ctx: Context) -> bool:
        """Whether client and server have an extension that the gateway does not know itself.

        Only at the address of one server, and for whoever may use all of it: nobody can tell what
        such an extension reaches. Raises RpcError when the server cannot be reached.
        """
        if not view.native or not view.seats:
            return False
        (seat,) = view.seats
        foreign = [id for id in extensions.passable(ctx) if id not in extensions.ROUTED]
        if not foreign or not seat.whole:
            return False
        info = await self.info(seat, ctx)
        known = extensions.of(info.capabilities)
        return any(id in known for id in foreign)

    async def has_tasks(self, view: View, ctx: Context) -> bool:
        """Whether a server is known to have the Tasks extension."""
        if view.native and view.seats:
            return tasks.offers(await self.info(view.seats[0], ctx), core=False)
        return any(tasks.offers(info, core=False) for info in self._known(view))

    # ------------------------------------------------------------ one server

    async def _own(self, view: View, ctx: Context) -> tuple[JsonObject, str | None]:
        """What one server can do, as far as the gateway passes it on."""
        if not view.seats:
            raise refusals.no_endpoint()
        info = await self.info(view.seats[0], ctx)
        has: JsonObject = {}
        for name in _PASSED:
            if name in info.capabilities:
                declared = info.capabilities[name]
                has[name] = _with_changes(declared) if name in _LISTED else declared
        if ctx.revision in CORE_TASKS and tasks.offers(info, core=True):
            has[tasks.CAPABILITY] = info.capabilities[tasks.CAPABILITY]
        told = extensions.offered(ctx, extensions.of(info.capabilities), modern=info.modern)
        if told:
            has[extensions.MEMBER] = wire.dump_object(told)
        return has, info.instructions

    # ------------------------------------------------------------ all servers

    async def _all(self, view: View, ctx: Context) -> JsonObject:
        if ctx.revision in CORE_TASKS or extensions.passable(ctx):
            await self._meet(view, ctx)
        infos = self._known(view)
        has: JsonObject = dict(_EVERYTHING)
        if ctx.revision in CORE_TASKS:
            core = [info.capabilities for info in infos if tasks.offers(info, core=True)]
            if (told := tasks.merged(core)) is not None:
                has[tasks.CAPABILITY] = told
        found: dict[str, Raw] = {}
        for info in infos:
            mine = extensions.of(info.capabilities)
            for id, settings in extensions.offered(ctx, mine, modern=info.modern).items():
                # Settings that servers do not share are nobody's.
                same = found.setdefault(id, settings)
                if bytes(same) != bytes(settings):
                    found[id] = wire.EMPTY
        if found:
            has[extensions.MEMBER] = wire.dump_object(found)
        return has

    def _known(self, view: View) -> Sequence[LinkInfo]:
        seats = [seat for seat in view.able(TOOLS) if seat.unusable is None]
        infos = [self._catalogue.info(seat.server) for seat in seats]
        return [info for info in infos if info is not None]

    async def _meet(self, view: View, ctx: Context) -> None:
        """Meet the servers that nobody has met yet; their tools are wanted soon anyway."""
        listings = [
            self._catalogue.listing(seat.server, self._links.scope(seat.server, ctx), TOOLS)
            for seat in view.able(TOOLS)
            if seat.unusable is None and self._catalogue.info(seat.server) is None
        ]
        if listings:
            with anyio.move_on_after(DISCOVER_WAIT):
                await self._catalogue.ensure(listings, ctx, patient=False)


def _with_changes(declared: Raw) -> Raw:
    """A list capability as the gateway has it: it notices changes even where a server does not."""
    try:
        fields: Mapping[str, Raw] = wire.members(declared)
    except wire.BadMessage:
        fields = {}
    return wire.dump_object({**fields, "listChanged": Raw(b"true")})


def _instructions(view: View) -> str | None:
    """A word on each server, for clients that give it to a model."""
    if not view.seats:
        return None
    lines = ["This gateway offers the tools of these servers, as `server__tool`:"]
    for seat in view.seats:
        about = " ".join(seat.server.description.split())
        lines.append(f"- {seat.server.prefix}: {about}" if about else f"- {seat.server.prefix}")
    text = "\n".join(lines)
    return text if len(text) <= MAX_INSTRUCTIONS else text[: MAX_INSTRUCTIONS - 1] + "…"

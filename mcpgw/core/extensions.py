"""Extensions of the protocol (2026-07-28, SEP-2133): what each side declares, and what is passed.

Both sides declare a map of identifiers to settings. An extension is advertised, and declared
upstream, only as far as the gateway can carry it: at the address of one server that is any, at an
address of several those whose names and ids the gateway knows how to route.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Final

from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import LEGACY, MISSING_CAPABILITY
from mcpgw.model.calls import NOTHING, Context, JsonObject, RpcError

MEMBER: Final = "extensions"
TASKS: Final = "io.modelcontextprotocol/tasks"
APPS: Final = "io.modelcontextprotocol/ui"

ROUTED: Final = frozenset({TASKS, APPS})
"""Extensions that work beside other servers."""

MODERN_ONLY: Final = frozenset({TASKS})
"""Extensions that need 2026-07-28 on both sides: its results have a `resultType`."""

MEMORABLE: Final = 4096  # bytes of one client's extensions that are worth remembering

_LEGACY: Final = frozenset(LEGACY)


def of(capabilities: Mapping[str, Raw]) -> JsonObject:
    """The extensions that a client or a server declares, with their settings."""
    raw = capabilities.get(MEMBER)
    if raw is None:
        return {}
    try:
        return wire.members(raw)
    except wire.BadMessage:
        return {}


def passable(ctx: Context) -> Mapping[str, Raw]:
    """What of the client's extensions may be declared to a server, in a stable order."""
    raw = ctx.capabilities.get(MEMBER)
    if raw is None:
        return NOTHING
    body = bytes(raw)
    look = _passable if len(body) <= MEMORABLE else _passable.__wrapped__
    return look(body, ctx.endpoint.native, ctx.revision in _LEGACY)


def common(ctx: Context, known: Container[str]) -> JsonObject:
    """What of the client's extensions a modern server that knows `known` is told of."""
    return {id: settings for id, settings in passable(ctx).items() if id in known}


def offered(ctx: Context, declared: Mapping[str, Raw], *, modern: bool) -> JsonObject:
    """What of a server's extensions the client is told of.

    modern: the server speaks 2026-07-28. Both sides must know an extension. A modern request that
    says nothing of extensions may come from somebody who only looks, and is told of all.
    """
    legacy = ctx.revision in _LEGACY
    looks = not legacy and MEMBER not in ctx.capabilities
    mine = NOTHING if looks else of(ctx.capabilities)
    return {
        id: settings
        for id, settings in declared.items()
        if (looks or id in mine)
        and (ctx.endpoint.native or id in ROUTED)
        and (id not in MODERN_ONLY or (modern and not legacy))
    }


@lru_cache(maxsize=256)
def _passable(raw: bytes, native: bool, legacy: bool) -> Mapping[str, Raw]:
    """Clients declare the same with every request."""
    declared = of({MEMBER: Raw(raw)})
    return {
        id: declared[id]
        for id in sorted(declared)
        if (native or id in ROUTED) and not (legacy and id in MODERN_ONLY)
    }


def declares(ctx: Context, id: str) -> bool:
    """Whether the client declared this extension for its request."""
    return id in passable(ctx)


def missing(id: str) -> RpcError:
    """-32021: the client would have to declare the extension."""
    return RpcError(
        MISSING_CAPABILITY,
        f"Missing required client capability: the extension {id}",
        wire.dump({"requiredCapabilities": {MEMBER: {id: {}}}}),
        http_status=400,
    )

"""How two sides agree: what mcpgw says of itself to a server, and what it reads in the answer.

Legacy servers are met with `initialize`, modern ones with `server/discover`; both answers become
one LinkInfo, and a LinkInfo becomes the core's `server/discover` result again. What a client
declared is passed on only as far as mcpgw routes it (protocol: never declare upstream what the
client did not declare). Nothing here knows a transport.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final

from msgspec import Raw

from mcpgw import __version__
from mcpgw.core import extensions, wire
from mcpgw.core.eras import (
    CLIENT_ASKS,
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    HEADER_MISMATCH,
    LATEST,
    LATEST_LEGACY,
    LEGACY,
    MISSING_CAPABILITY,
    MODERN,
    PROTOCOL_VERSION,
    SERVER_INFO,
    UNSUPPORTED_VERSION,
)
from mcpgw.model.calls import Context, JsonObject, RpcError
from mcpgw.model.ports import LinkInfo, UpstreamError

IMPLEMENTATION: Final = wire.dump({"name": "mcpgw", "title": "mcpgw", "version": __version__})
"""mcpgw's own Implementation object, as it stands in clientInfo and serverInfo."""

MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION})
"""Errors that only a modern server answers."""

MAX_INSTRUCTIONS: Final = 256 * 1024  # characters of a server's instructions that are kept

_ASKS: Final = tuple(sorted(CLIENT_ASKS))
_LATEST_RAW: Final = wire.dump(LATEST)
_UNNAMED: Final = wire.dump({"name": "unnamed", "version": ""})


def routed(capabilities: Mapping[str, Raw]) -> dict[str, Raw]:
    """What a client can be asked, as far as mcpgw can carry it, in a stable order."""
    return {name: capabilities[name] for name in _ASKS if name in capabilities}


def declared(ctx: Context) -> dict[str, Raw]:
    """What a legacy server is told of the client; what the server knows shows only afterwards."""
    told = routed(ctx.capabilities)
    if extensions.MEMBER in ctx.capabilities:
        passed = {
            id: settings
            for id, settings in extensions.passable(ctx).items()
            if id not in extensions.MODERN_ONLY
        }
        if passed:
            told[extensions.MEMBER] = wire.dump_object(passed)
    return told


def declared_to(ctx: Context, known: Container[str]) -> dict[str, Raw]:
    """What a modern server is told of the client; `known` are the extensions the server has."""
    told = routed(ctx.capabilities)
    if known and extensions.MEMBER in ctx.capabilities:
        passed = extensions.common(ctx, known)
        if passed:
            told[extensions.MEMBER] = wire.dump_object(passed)
    return told


def initialize_params(capabilities: Mapping[str, Raw]) -> JsonObject:
    """Params of `initialize`. capabilities: as `declared`; empty for a shared session."""
    return {
        "protocolVersion": wire.dump(LATEST_LEGACY),
        "capabilities": wire.dump_object(capabilities),
        "clientInfo": IMPLEMENTATION,
    }


def modern_meta(capabilities: Mapping[str, Raw], revision: str = LATEST) -> dict[str, Raw]:
    """The `_meta` keys that every modern request must carry. capabilities: as `declared_to`."""
    return {
        PROTOCOL_VERSION: _LATEST_RAW if revision == LATEST else wire.dump(revision),
        CLIENT_INFO: IMPLEMENTATION,
        CLIENT_CAPABILITIES: wire.dump_object(capabilities) if capabilities else wire.EMPTY,
    }


def discover_params(revision: str = LATEST) -> JsonObject:
    """Params of the `server/discover` request that finds out about a server."""
    return {"_meta": wire.dump_object(modern_meta({}, revision))}


def initialized(result: Mapping[str, Raw], *, asks_in_stream: bool = False) -> LinkInfo:
    """What a server said in its `initialize` result. Raises UpstreamError (handshake)."""
    revision = wire.text(result.get("protocolVersion"))
    if revision not in LEGACY:
        told = "no protocol version" if revision is None else f"protocol version {revision[:40]!r}"
        raise UpstreamError(
            "handshake", f"answered initialize with {told}; mcpgw speaks {', '.join(LEGACY)}"
        )
    return LinkInfo(
        revision=revision,
        modern=False,
        capabilities=_object(result.get("capabilities"), "capabilities"),
        server=_implementation(result.get("serverInfo")),
        instructions=_instructions(result.get("instructions")),
        asks_in_stream=asks_in_stream,
    )


def discovered(result: Mapping[str, Raw]) -> LinkInfo | None:
    """What a server said in its `server/discover` result; None: it is no modern one.

    Raises UpstreamError (handshake) when it is modern, but of no revision that mcpgw speaks.
    """
    versions = _strings(result.get("supportedVersions"))
    if versions is None:
        return None
    revision = common(versions)
    if revision is None:
        if any(version in LEGACY for version in versions):
            return None
        raise no_common(versions)
    meta = _object(result.get("_meta"), "_meta")
    return LinkInfo(
        revision=revision,
        modern=True,
        capabilities=_object(result.get("capabilities"), "capabilities"),
        server=_implementation(meta.get(SERVER_INFO, result.get("serverInfo"))),
        instructions=_instructions(result.get("instructions")),
    )


def common(versions: Iterable[str]) -> str | None:
    """The newest modern revision that both sides speak."""
    offered = frozenset(versions)
    return next((mine for mine in reversed(MODERN) if mine in offered), None)


def no_common(versions: Iterable[str]) -> UpstreamError:
    told = ", ".join(version[:40] for version in list(versions)[:8]) or "none at all"
    return UpstreamError(
        "handshake",
        f"speaks protocol versions that mcpgw does not: {told}; "
        f"mcpgw speaks {', '.join((*LEGACY, *MODERN))}",
    )


def is_modern_error(error: RpcError) -> bool:
    """Whether only a modern server can have answered this."""
    return error.code in MODERN_ERRORS


def supported(error: RpcError) -> tuple[str, ...] | None:
    """The revisions that an UnsupportedVersion error lists; None for any other error."""
    if error.code != UNSUPPORTED_VERSION or error.data is None:
        return None
    try:
        versions = _strings(wire.members(error.data).get("supported"))
    except wire.BadMessage:
        return None
    return None if versions is None else tuple(versions)


def instead(error: RpcError | None) -> str | None:
    """The revision to ask again with, after an UnsupportedVersion error; None when there is none.

    It may be the one that was refused: who names it as supported must take it.
    """
    versions = None if error is None else supported(error)
    return None if versions is None else common(versions)


def discover_result(info: LinkInfo) -> JsonObject:
    """The core's `server/discover` result for what a server said of itself."""
    result: JsonObject = {
        "supportedVersions": wire.dump([info.revision]),
        "capabilities": wire.dump_object(info.capabilities),
        "serverInfo": info.server,
        "ttlMs": wire.dump(0),
        "cacheScope": wire.dump("private"),
    }
    if info.instructions is not None:
        result["instructions"] = wire.dump(info.instructions)
    return result


def has(capabilities: Mapping[str, Raw], area: str, feature: str | None = None) -> bool:
    """Whether a server declared `area` and, when given, `feature` in it as true or an object."""
    declared = capabilities.get(area)
    if declared is None or bytes(declared) in (b"null", b"false"):
        return False
    if feature is None:
        return True
    try:
        told = wire.members(declared).get(feature)
    except wire.BadMessage:
        return False
    return told is not None and bytes(told) not in (b"null", b"false")


def _object(raw: Raw | None, what: str) -> JsonObject:
    if raw is None or bytes(raw) == b"null":
        return {}
    try:
        return wire.members(raw)
    except wire.BadMessage:
        raise UpstreamError("handshake", f"told {what} that are no JSON object") from None


def _strings(raw: Raw | None) -> list[str] | None:
    if raw is None:
        return None
    try:
        texts = [wire.text(item) for item in wire.array(raw)]
    except wire.BadMessage:
        return None
    return [text for text in texts if text is not None]


def _implementation(raw: Raw | None) -> Raw:
    """The server's Implementation object; anything else becomes an unnamed one."""
    if raw is None:
        return _UNNAMED
    try:
        wire.members(raw)
    except wire.BadMessage:
        return _UNNAMED
    return raw


def _instructions(raw: Raw | None) -> str | None:
    told = wire.text(raw)
    return None if told is None else told[:MAX_INSTRUCTIONS]

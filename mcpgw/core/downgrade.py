"""What a legacy client gets of a modern answer: its own revision's shape, and no more.

Values in, values out. What a revision cannot express is taken off here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import (
    INVALID_PARAMS,
    LEGACY_RESOURCE_NOT_FOUND,
    SERVER_INFO,
    STRUCTURED_CONTENT,
)
from mcpgw.model.calls import JsonObject, RpcError

MODERN_ONLY: Final = ("resultType", "ttlMs", "cacheScope")
"""Members of results that legacy revisions do not have."""

_ALWAYS: Final = frozenset(
    {"experimental", "extensions", "logging", "prompts", "resources", "tools"}
)
CAPABILITIES: Final = {
    "2024-11-05": _ALWAYS,
    "2025-03-26": _ALWAYS | {"completions"},
    "2025-06-18": _ALWAYS | {"completions"},
    "2025-11-25": _ALWAYS | {"completions", "tasks"},
}
"""Which server capabilities a legacy revision knows and the gateway serves."""


def result(revision: str, method: str, modern: Mapping[str, Raw]) -> JsonObject:
    """A complete result of `method` as a client of `revision` may see it."""
    kept = {name: value for name, value in modern.items() if name not in MODERN_ONLY}
    if (meta := kept.get("_meta")) is not None:
        kept = _without_server(kept, meta)
    structured = kept.get("structuredContent") if method == "tools/call" else None
    # Before 2026 structured content is an object; the text content says the same.
    if structured is not None and (
        revision not in STRUCTURED_CONTENT or bytes(structured)[:1] != b"{"
    ):
        del kept["structuredContent"]
    return kept


def error(method: str, modern: RpcError) -> RpcError:
    """An error as legacy revisions number it."""
    if method == "resources/read" and modern.code == INVALID_PARAMS and _about_uri(modern):
        return wire.recoded(modern, LEGACY_RESOURCE_NOT_FOUND)
    return modern


def capabilities(revision: str, modern: Raw | None) -> JsonObject:
    """The server's capabilities, as `initialize` of `revision` advertises them."""
    if modern is None:
        return {}
    known = CAPABILITIES[revision]
    return {name: value for name, value in wire.members(modern).items() if name in known}


def _about_uri(modern: RpcError) -> bool:
    """Whether the error says that a resource is unknown: its data names the URI."""
    if modern.data is None:
        return False
    try:
        return "uri" in wire.members(modern.data)
    except wire.BadMessage:
        return False


def _without_server(kept: JsonObject, meta: Raw) -> JsonObject:
    try:
        members = wire.members(meta)
    except wire.BadMessage:
        return kept
    if SERVER_INFO not in members:
        return kept
    del members[SERVER_INFO]
    if members:
        return {**kept, "_meta": wire.dump_object(members)}
    return {name: value for name, value in kept.items() if name != "_meta"}

"""The URIs of resources in what servers answer: links, embedded resources, contents of a read.

A result is looked into only where it can hold one, and what is not renamed stays the bytes it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Raw

from mcpgw.core import wire
from mcpgw.model.calls import JsonObject

Rename = Callable[[str], str | None]
"""The URI to use in place of one; None where it stays."""

URI: Final = b'"uri"'
"""What stands in every JSON that names a resource."""

_MEMBERS: Final = ("content", "messages", "contents")


def cites(result: Mapping[str, Raw]) -> bool:
    """Whether a result may name resources."""
    for name in _MEMBERS:
        raw = result.get(name)
        if raw is not None and URI in bytes(raw):
            return True
    return False


def contents_of(result: Mapping[str, Raw]) -> list[str]:
    """The URIs of the contents that a read brought."""
    uris: list[str] = []
    try:
        for item in wire.array(result.get("contents", Raw(b"[]"))):
            uri = wire.text(wire.members(item).get("uri"))
            if uri is not None:
                uris.append(uri)
    except wire.BadMessage:
        return []
    return uris


def renamed(result: JsonObject, rename: Rename) -> JsonObject:
    """A result of tools/call, prompts/get or resources/read with the URIs that `rename` gives.

    The same object when nothing is renamed.
    """
    changed: JsonObject = {}
    for name in _MEMBERS:
        raw = result.get(name)
        if raw is not None and URI in bytes(raw):
            told = _array(raw, _TURN[name], rename)
            if told is not None:
                changed[name] = told
    return {**result, **changed} if changed else result


def _array(raw: Raw, turn: Callable[[Raw, Rename], Raw | None], rename: Rename) -> Raw | None:
    """The array with what `turn` makes of its items; None when that is nothing."""
    try:
        items = wire.array(raw)
    except wire.BadMessage:
        return None
    turned = [turn(item, rename) if URI in bytes(item) else None for item in items]
    if not any(one is not None for one in turned):
        return None
    pairs = zip(items, turned, strict=True)
    return Raw(b"[" + b",".join(bytes(new or old) for old, new in pairs) + b"]")


def _block(raw: Raw, rename: Rename) -> Raw | None:
    """A content block: a resource link, or an embedded resource."""
    try:
        fields = wire.members(raw)
    except wire.BadMessage:
        return None
    kind = wire.text(fields.get("type"))
    if kind == "resource_link":
        return _named(fields, rename)
    if kind == "resource" and "resource" in fields:
        resource = _contents(fields["resource"], rename)
        return None if resource is None else wire.dump_object({**fields, "resource": resource})
    return None


def _message(raw: Raw, rename: Rename) -> Raw | None:
    """A message of a prompt."""
    try:
        fields = wire.members(raw)
    except wire.BadMessage:
        return None
    block = _block(fields["content"], rename) if "content" in fields else None
    return None if block is None else wire.dump_object({**fields, "content": block})


def _contents(raw: Raw, rename: Rename) -> Raw | None:
    """The contents of a resource."""
    try:
        return _named(wire.members(raw), rename)
    except wire.BadMessage:
        return None


def _named(fields: JsonObject, rename: Rename) -> Raw | None:
    uri = wire.text(fields.get("uri"))
    told = None if uri is None else rename(uri)
    return None if told is None else wire.dump_object({**fields, "uri": wire.dump(told)})


_TURN: Final = {"content": _block, "messages": _message, "contents": _contents}

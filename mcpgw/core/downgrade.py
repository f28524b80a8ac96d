"""What a legacy client gets of a modern answer or question: its own revision's shape, and no more.

Values in, values out. What a revision cannot express is taken off here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Raw, Struct

from mcpgw.core import wire
from mcpgw.core.eras import (
    INVALID_PARAMS,
    KNOWS_URL_ERROR,
    LEGACY_RESOURCE_NOT_FOUND,
    SERVER_INFO,
    STRUCTURED_CONTENT,
    TITLED_CHOICES,
)
from mcpgw.model.calls import Ask, JsonObject, RpcError

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
    if method == "tools/call":
        _unstructured(revision, kept)
    elif method == "tools/list" and b'"outputSchema"' in bytes(kept.get("tools", b"")):
        kept["tools"] = _tools(revision, kept["tools"])
    return kept


class Question(Struct, frozen=True):
    """A question as a client may have it. single: answers that stand for a list of one."""

    params: JsonObject
    single: frozenset[str] = frozenset()


def question(revision: str, ask: Ask, *, minted: str) -> Question:
    """`ask` for a client of `revision`. minted: an id that no other question has.

    Raises RpcError (INVALID_PARAMS) for a form that the revision has no words for.
    """
    if ask.method != "elicitation/create":
        return Question(ask.params)
    params = ask.params
    if wire.text(params.get("mode")) == "url":
        if revision in KNOWS_URL_ERROR and "elicitationId" not in params:
            params = {**params, "elicitationId": wire.dump(minted)}
        return Question(params)
    if revision in TITLED_CHOICES:
        return Question(params)
    # A form is the only mode that such a revision knows.
    params = {name: value for name, value in params.items() if name != "mode"}
    single: set[str] = set()
    try:
        schema = wire.members(params["requestedSchema"])
        fields = wire.members(schema["properties"])
        for name, field in fields.items():
            fields[name] = _choice(name, wire.members(field), single)
    except (KeyError, wire.BadMessage):
        return Question(params)  # no form of ours to mend
    schema["properties"] = wire.dump_object(fields)
    params["requestedSchema"] = wire.dump_object(schema)
    return Question(params, frozenset(single))


def answer(asked: Question, told: JsonObject) -> JsonObject:
    """The client's result as it answers the question that the server asked."""
    if not asked.single or "content" not in told:
        return told
    try:
        content = wire.members(told["content"])
    except wire.BadMessage:
        return told
    for name in asked.single:
        if name in content:
            content[name] = Raw(b"[" + bytes(content[name]) + b"]")
    return {**told, "content": wire.dump_object(content)}


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


def _unstructured(revision: str, kept: JsonObject) -> None:
    """Before 2026 structured content is an object; the text content says the same."""
    structured = kept.get("structuredContent")
    if structured is None:
        return
    if revision in STRUCTURED_CONTENT and bytes(structured)[:1] == b"{":
        return
    del kept["structuredContent"]
    if bytes(kept.get("content", b"[]")).strip() == b"[]":  # then it does not: say it
        text = bytes(structured).decode(errors="replace")
        kept["content"] = wire.dump([{"type": "text", "text": text}])


def _tools(revision: str, listed: Raw) -> Raw:
    """Tools without output schemas of another shape than the revision has."""
    try:
        tools = [_tool(revision, tool) for tool in wire.array(listed)]
    except wire.BadMessage:
        return listed
    return Raw(b"[" + b",".join(map(bytes, tools)) + b"]")


def _tool(revision: str, tool: Raw) -> Raw:
    if b'"outputSchema"' not in bytes(tool):
        return tool
    fields = wire.members(tool)
    schema = fields.get("outputSchema")
    if schema is None:
        return tool
    try:
        kind = wire.text(wire.members(schema).get("type"))
    except wire.BadMessage:
        kind = None
    if revision in STRUCTURED_CONTENT and kind == "object":
        return tool
    del fields["outputSchema"]
    return wire.dump_object(fields)


def _choice(name: str, field: JsonObject, single: set[str]) -> Raw:
    """A field of a form with choices as `enum` and `enumNames` (2025-06-18, elicitation)."""
    options = field.pop("oneOf", None)
    if wire.text(field.get("type")) == "array" and "items" in field:
        least = wire.number(field.pop("minItems", None))
        if least is not None and least > 1:
            raise RpcError(INVALID_PARAMS, f"the client cannot be asked for {least:g} of `{name}`")
        items = wire.members(field.pop("items"))
        options = items.get("anyOf", items.get("oneOf"))
        if "enum" in items:
            field["enum"] = items["enum"]
        field["type"] = Raw(b'"string"')
        for gone in ("maxItems", "uniqueItems", "default"):
            field.pop(gone, None)
        single.add(name)
    if options is not None:
        shown = [wire.members(option) for option in wire.array(options)]
        values = [bytes(option.get("const", wire.NULL)) for option in shown]
        titles = [bytes(option.get("title", option.get("const", wire.NULL))) for option in shown]
        field["enum"] = Raw(b"[" + b",".join(values) + b"]")
        field["enumNames"] = Raw(b"[" + b",".join(titles) + b"]")
    return wire.dump_object(field)


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

"""Arguments of tools and prompts, from `--arg k=v`, `--arg k:=JSON` and `--args JSON`.

`k=v` becomes what the tool's schema says `k` is. Number texts and JSON travel as they were typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Raw

from mcpgw.cli.io import Desk, mapping, sequence, usage
from mcpgw.core import wire
from mcpgw.model.calls import JsonObject

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NAME = re.compile(r"(.+?)(:?=)(.*)", re.DOTALL)


def arguments(
    pairs: Iterable[str], whole: str | None, schema: Mapping[str, Any], desk: Desk
) -> JsonObject:
    """Arguments by name. `whole` is the text of `--args`, or `-` for stdin; pairs win over it."""
    found = _whole(desk.read_text() if whole == "-" else whole)
    known = mapping(schema.get("properties"))
    for pair in pairs:
        parts = _NAME.fullmatch(pair)
        if parts is None:
            usage(f'--arg takes NAME=VALUE or NAME:=JSON, not "{pair}".')
        name, sign, text = parts.groups()
        found[name] = _json(name, text) if sign == ":=" else _typed(name, text, known.get(name))
    return found


def texts(pairs: Iterable[str], whole: str | None, desk: Desk) -> JsonObject:
    """Arguments of a prompt, which are all texts."""
    return arguments(pairs, whole, {}, desk)


def types(rules: object) -> frozenset[str]:
    """The JSON types that a schema takes; empty when it takes any or does not say."""
    schema = mapping(rules)
    named = schema.get("type")
    if named is not None:
        return frozenset(map(str, sequence(named) or [named]))
    each = [types(choice) for choice in sequence(schema.get("anyOf") or schema.get("oneOf"))]
    empty: frozenset[str] = frozenset()
    return empty.union(*each) if all(each) else empty


def _whole(text: str | None) -> JsonObject:
    if text is None:
        return {}
    try:
        return wire.members(wire.clean(text.encode("utf-8", "surrogatepass")))
    except wire.BadMessage as error:
        usage(
            "--args takes one JSON object.", why=f"{error.message[:1].upper()}{error.message[1:]}."
        )


def _json(name: str, text: str) -> Raw:
    raw = wire.clean(text.strip().encode("utf-8", "surrogatepass"))
    try:
        wire.value(raw)
    except wire.BadMessage:
        usage(f"The value of {name}:= is not JSON.", why="A text has quotes: name:='\"text\"'.")
    return Raw(raw)


def _typed(name: str, text: str, rules: object) -> Raw:
    """`text` as the first of the schema's types that it can be; a text when it says none."""
    wanted = types(rules)
    for kind, read in _READERS:
        if kind in wanted and (raw := read(text)) is not None:
            return raw
    if wanted and "string" not in wanted:
        usage(
            f"The argument {name} takes {' or '.join(sorted(wanted))}.",
            why=f'"{text}" is none.',
            next=f"--arg '{name}:=JSON'",
        )
    return wire.dump(text)


def _integer(text: str) -> Raw | None:
    parts = _NUMBER.fullmatch(text)
    return Raw(text.encode()) if parts and parts[1] is None and parts[2] is None else None


def _float(text: str) -> Raw | None:
    return Raw(text.encode()) if _NUMBER.fullmatch(text) else None


def _boolean(text: str) -> Raw | None:
    return Raw(text.lower().encode()) if text.lower() in {"true", "false"} else None


def _null(text: str) -> Raw | None:
    return Raw(b"null") if text == "null" else None


def _object(text: str) -> Raw | None:
    return _container(text, "{")


def _array(text: str) -> Raw | None:
    return _container(text, "[")


def _container(text: str, opening: str) -> Raw | None:
    if not text.lstrip().startswith(opening):
        return None
    raw = wire.clean(text.strip().encode("utf-8", "surrogatepass"))
    try:
        wire.value(raw)
    except wire.BadMessage:
        return None
    return Raw(raw)


_READERS = (
    ("integer", _integer),
    ("number", _float),
    ("boolean", _boolean),
    ("object", _object),
    ("array", _array),
    ("null", _null),
)

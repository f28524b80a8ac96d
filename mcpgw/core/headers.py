"""The header fields of 2026-07-28 that mirror a request's body, without I/O.

`Mcp-Method` and `Mcp-Name` mirror the method and what it is about; `Mcp-Param-*` mirror the
arguments whose schema says `x-mcp-header` (2026-07-28, transports, "Request Metadata"). One side
mints them, the other compares them with the body; both read the same list of Params, which is made
once from a tool's schema. Field names are in lower case everywhere.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from msgspec import Raw, Struct

from mcpgw.core import wire
from mcpgw.core.eras import NAME_PARAM
from mcpgw.model.calls import JsonObject

VERSION: Final = "mcp-protocol-version"
METHOD: Final = "mcp-method"
NAME: Final = "mcp-name"
PARAM: Final = "mcp-param-"
ANNOTATION: Final = "x-mcp-header"

_SENTINEL_START: Final = "=?base64?"
_SENTINEL_END: Final = "?="
_FIELD_VALUE = re.compile(r"[\t\x20-\x7E]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DECIMAL = re.compile(r"(-?[0-9]+)(?:\.([0-9]+))?")
_KINDS: Final = frozenset({"string", "integer", "boolean"})

# Keywords of JSON Schema 2020-12 that hold schemas, by the shape of their value. What lies behind
# them is not statically reachable. `$ref` is never followed, and data (`default`, `enum`) is data.
_ONE: Final = frozenset(
    {
        "items",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    }
)
_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})


class BadSchema(ValueError):
    """An `x-mcp-header` breaks a rule of the specification, so the tool must not be offered."""


class Param(Struct, frozen=True):
    """One mirrored argument.

    path: property names from the arguments down. header: the field's name. kind: the JSON Schema
    type of the property: string, integer or boolean.
    """

    path: tuple[str, ...]
    header: str
    kind: str


def encode(text: str) -> str:
    """A field value for `text`: itself, or `=?base64?…?=` where it would not survive.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    # In ASCII, what is printable is the space and the visible characters.
    if text.isascii() and text.isprintable() and text == text.strip() and not _is_encoded(text):
        return text
    return f"{_SENTINEL_START}{base64.b64encode(text.encode()).decode()}{_SENTINEL_END}"


def decode(value: str) -> str | None:
    """The text behind a field value; None when it is malformed, so that it equals nothing."""
    if not _FIELD_VALUE.fullmatch(value):
        return None
    if not _is_encoded(value):
        return value
    payload = value[len(_SENTINEL_START) : -len(_SENTINEL_END)]
    try:
        content = base64.b64decode(payload, validate=True)
        # Only the canonical form: two spellings of one value would be two to an intermediary.
        if base64.b64encode(content).decode() != payload:
            return None
        return content.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def name_of(method: str, params: Mapping[str, Raw]) -> str | None:
    """The value that `Mcp-Name` mirrors, not encoded; None when the request has none."""
    member = NAME_PARAM.get(method)
    return None if member is None else wire.text(params.get(member))


def params_of(schema: Raw | bytes | None) -> tuple[Param, ...]:
    """The mirrored arguments of a tool, from its `inputSchema`. Raises BadSchema."""
    content = b"" if schema is None else bytes(schema)
    if ANNOTATION.encode() not in content and b"\\u" not in content:
        return ()
    try:
        root = wire.value(content)
    except wire.BadMessage as error:
        raise BadSchema(error.message) from None
    found: dict[str, Param] = {}
    for path, node in _schemas(root):
        if ANNOTATION not in node:
            continue
        param = _param(path, node)
        if (other := found.setdefault(param.header, param)) is not param:
            raise BadSchema(
                f"{ANNOTATION} {node[ANNOTATION]!r} stands on {_dotted(other.path)} and on "
                f"{_dotted(param.path)}"
            )
    return tuple(sorted(found.values(), key=lambda param: param.path))


def mint(params: Sequence[Param], arguments: Raw | None) -> dict[str, str]:
    """The `Mcp-Param-*` fields of a call; an argument that is absent or null has none.

    Raises BadMessage when `arguments` is no object.
    """
    fields: dict[str, str] = {}
    if not params or arguments is None:
        return fields
    top = wire.members(arguments)
    for param in params:
        rendered = _render(_at(top, param.path), param.kind)
        if rendered is not None:
            fields[param.header] = encode(rendered)
    return fields


def mismatch(
    params: Sequence[Param], arguments: Raw | None, headers: Mapping[str, str]
) -> str | None:
    """The first way in which `Mcp-Param-*` fields differ from the arguments; None when none.

    headers: names in lower case, checked by `doubled`. Fields of no Param are ignored, as the
    specification wants. Raises BadMessage when `arguments` is no object.
    """
    if not params:
        return None
    top = {} if arguments is None else wire.members(arguments)
    for param in params:
        sent = headers.get(param.header)
        argument = _at(top, param.path)
        rendered = _render(argument, param.kind)
        if rendered is None and sent is None:
            continue
        if rendered is None:
            return f"{param.header} has no argument {_dotted(param.path)}"
        if sent is None:
            return f"{param.header} is missing for the argument {_dotted(param.path)}"
        text = decode(sent)
        if text is None:
            return f"{param.header} is malformed"
        if text != rendered and not (_is_integer(param, argument) and _same(text, rendered)):
            return f"{param.header} differs from the argument {_dotted(param.path)}"
    return None


def routing_mismatch(
    version: str, method: str, params: Mapping[str, Raw], headers: Mapping[str, str]
) -> str | None:
    """The first way in which the standard fields differ from the body; None when none.

    version: `_meta` protocolVersion of the body. headers: as for `mismatch`.
    """
    if headers.get(VERSION) != version:
        return f"{VERSION} is missing or differs from the version in _meta"
    if headers.get(METHOD) != method:
        return f"{METHOD} is missing or differs from the method"
    name = name_of(method, params)
    if name is not None and ((sent := headers.get(NAME)) is None or decode(sent) != name):
        return f"{NAME} is missing or differs from params.{NAME_PARAM[method]}"
    return None


def doubled(headers: Iterable[tuple[str, str]]) -> str | None:
    """The first mirroring field that is sent twice: its readers could disagree."""
    seen: set[str] = set()
    for name, _ in headers:
        key = name.lower()
        if key in (VERSION, METHOD, NAME) or key.startswith(PARAM):
            if key in seen:
                return key
            seen.add(key)
    return None


def _is_encoded(value: str) -> bool:
    return (
        value.startswith(_SENTINEL_START)
        and value.endswith(_SENTINEL_END)
        and len(value) >= len(_SENTINEL_START) + len(_SENTINEL_END)
    )


def _schemas(root: object) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Each schema of the tree with its path of `properties`; None where that chain is broken."""
    waiting: list[tuple[tuple[str, ...] | None, object]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        schema = cast("dict[str, Any]", node)
        yield path, schema
        for keyword, inner in schema.items():
            if keyword == "properties" and isinstance(inner, dict):
                for name, sub in cast("dict[str, Any]", inner).items():
                    waiting.append((None if path is None else (*path, name), sub))
            elif keyword in _ONE:
                waiting.append((None, inner))
            elif keyword in _LIST and isinstance(inner, list):
                waiting.extend((None, sub) for sub in cast("list[Any]", inner))
            elif keyword in _MAP and isinstance(inner, dict):
                waiting.extend((None, sub) for sub in cast("dict[str, Any]", inner).values())


def _param(path: tuple[str, ...] | None, node: Mapping[str, Any]) -> Param:
    if not path:
        raise BadSchema(f"{ANNOTATION} stands where no chain of properties leads")
    name, kind = node[ANNOTATION], node.get("type")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise BadSchema(f"{ANNOTATION} of {_dotted(path)} is no header field name")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadSchema(
            f"{ANNOTATION} of {_dotted(path)} needs the type string, integer or boolean"
        )
    return Param(path, PARAM + name.lower(), kind)


def _dotted(path: Sequence[str]) -> str:
    return ".".join(path)


def _at(top: JsonObject, path: Sequence[str]) -> Raw | None:
    found = top.get(path[0])
    for name in path[1:]:
        if found is None or bytes(found)[:1] != b"{":
            return None
        found = wire.members(found).get(name)
    return found


def _render(raw: Raw | None, kind: str) -> str | None:
    """An argument as the text that is mirrored; None for what has no such text."""
    content = b"null" if raw is None else bytes(raw)
    first = content[:1]
    if first == b'"':
        return wire.text(raw)
    if content in (b"true", b"false"):
        return content.decode()
    if first not in b"-0123456789":
        return None
    return _render_number(content.decode(), kind)


def _render_number(text: str, kind: str) -> str | None:
    try:
        if text.lstrip("-").isdigit():
            return str(int(text))
        number = float(text)
        if kind == "integer" and number.is_integer():
            return str(int(number))
    except (ValueError, OverflowError):  # more digits than Python converts
        return None
    # Peers read a JSON number as a double and write its shortest text.
    return repr(number) if abs(number) != float("inf") else None


def _is_integer(param: Param, argument: Raw | None) -> bool:
    return param.kind == "integer" and argument is not None and bytes(argument)[:1] != b'"'


def _same(text: str, rendered: str) -> bool:
    """Whether a decimal equals a whole number exactly: `42.0` is `42`."""
    sent, mirrored = _DECIMAL.fullmatch(text), _DECIMAL.fullmatch(rendered)
    if sent is None or mirrored is None or mirrored[2] is not None:
        return False
    if sent[2] is not None and sent[2].strip("0"):
        return False
    try:
        return int(sent[1]) == int(mirrored[1])
    except ValueError:
        return False

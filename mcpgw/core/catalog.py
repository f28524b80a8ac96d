"""The catalogue: what servers list, as entries with a public name, and how lists are merged.

An entry keeps the bytes it came as; only the member that names it is replaced. Lists keep a fixed
order: servers by name, then each server's own. A merged list has cursors of its own that name a
place (server, index, native name) and hold when servers come and go in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Raw, Struct

from mcpgw.core import headers, naming, wire
from mcpgw.model.calls import JsonObject
from mcpgw.model.config import Kind

PAGE: Final = 1000  # entries of one page of a merged list
_APPS: Final = naming.APPS.encode()
_APP_URIS: Final = ("ui/resourceUri", "openai/outputTemplate")
"""Keys of a tool's `_meta` that name its app, besides `ui.resourceUri`: older ones."""

MAX_EXPRESSIONS: Final = 32  # `{…}` of a URI template that are matched; more match nothing


class ListKind(Struct, frozen=True):
    """One of the lists: its method, its member, which member names an entry, what guards it.

    note: the kind in list-changed notes. capability: what a server with such a list declares.
    """

    method: str
    member: str
    naming: str
    kind: Kind
    note: str
    capability: str


TOOLS: Final = ListKind("tools/list", "tools", "name", "tool", "tools", "tools")
PROMPTS: Final = ListKind("prompts/list", "prompts", "name", "prompt", "prompts", "prompts")
RESOURCES: Final = ListKind(
    "resources/list", "resources", "uri", "resource", "resources", "resources"
)
TEMPLATES: Final = ListKind(
    "resources/templates/list",
    "resourceTemplates",
    "uriTemplate",
    "resource",
    "resources",
    "resources",
)
LISTS: Final = {one.method: one for one in (TOOLS, PROMPTS, RESOURCES, TEMPLATES)}


class Entry(Struct, frozen=True):
    """One line of the catalogue.

    native: the name, URI or URI template that the server gave; native_json: the same as JSON.
    public: the name beside other servers' (for resources: where the URI must name its server).
    body: the object as it came; renamed: with the public name in place of the native one.
    params: arguments of a tool that header fields mirror.
    cites: what the server answers may name its resources.
    """

    native: str
    public: str
    native_json: Raw
    body: Raw
    renamed: Raw
    params: tuple[headers.Param, ...] = ()
    cites: bool = False


def entries(
    items: Iterable[Raw], kind: ListKind, prefix: str, *, modern: bool, cites: bool = False
) -> tuple[list[Entry], list[str]]:
    """The usable items of a server's list, and a warning for each that is dropped.

    Dropped are items that are no object, have no name, or share their name with an earlier one,
    and a modern server's tools with an invalid `x-mcp-header` (2026-07-28, transports).
    """
    found: dict[str, Entry] = {}
    warnings: list[str] = []
    for index, item in enumerate(items):
        try:
            fields = wire.members(item)
        except wire.BadMessage:
            warnings.append(f"{kind.member}[{index}] is not an object")
            continue
        native = wire.text(fields.get(kind.naming))
        if not native:
            warnings.append(f"{kind.member}[{index}] has no {kind.naming}")
            continue
        params: tuple[headers.Param, ...] = ()
        if kind is TOOLS:
            try:
                params = headers.params_of(fields.get("inputSchema"))
            except headers.BadSchema as error:
                if modern:
                    warnings.append(f"{native!r}: {error}")
                    continue
        entry = _entry(native, fields, item, kind, prefix, params, cites=cites)
        if entry.public in found:
            warnings.append(f"{kind.member}[{index}] repeats the {kind.naming} {native!r}")
            continue
        found[entry.public] = entry
    return list(found.values()), warnings


def _entry(
    native: str,
    fields: JsonObject,
    item: Raw,
    kind: ListKind,
    prefix: str,
    params: tuple[headers.Param, ...],
    *,
    cites: bool,
) -> Entry:
    by_name = kind.naming == "name"
    public = naming.public_name(prefix, native) if by_name else naming.public_uri(prefix, native)
    native_json = fields[kind.naming]
    fields[kind.naming] = wire.dump(public)
    if kind is TOOLS and "_meta" in fields and _APPS in bytes(fields["_meta"]):
        fields["_meta"] = _with_app(fields["_meta"], prefix)
    return Entry(native, public, native_json, item, wire.dump_object(fields), params, cites)


def _with_app(meta: Raw, prefix: str) -> Raw:
    """A tool's `_meta` whose app has the URI under which it is read beside other servers."""
    try:
        members = wire.members(meta)
        for name in _APP_URIS:
            if name in members:
                members[name] = _app_uri(members[name], prefix)
        if bytes(members.get("ui", wire.NULL))[:1] == b"{":
            ui = wire.members(members["ui"])
            if "resourceUri" in ui:
                ui["resourceUri"] = _app_uri(ui["resourceUri"], prefix)
                members["ui"] = wire.dump_object(ui)
    except wire.BadMessage:
        return meta
    return wire.dump_object(members)


def _app_uri(raw: Raw, prefix: str) -> Raw:
    uri = wire.text(raw)
    if uri is None or not uri.startswith(naming.APPS):
        return raw
    return wire.dump(naming.public_uri(prefix, uri))


class Shelf(Struct, frozen=True):
    """What one server contributes to a merged list: its entries that the principal may use."""

    server: str  # its name, which orders the shelves
    entries: Sequence[Entry]


class Placed(Struct, frozen=True):
    """An entry in a merged list, as the list shows it."""

    shelf: int
    index: int
    name: str
    body: Raw
    entry: Entry


class Place(Struct, frozen=True, array_like=True):
    """Where a page ended: the last entry that was given."""

    server: str
    index: int
    native: str


def merged(shelves: Sequence[Shelf], kind: ListKind, *, native: bool) -> list[Placed]:
    """All entries of all shelves in order. `shelves` must be sorted by server.

    native: entries keep their names. Else tools and prompts take their public names, while URIs
    stay as long as they mean one server only.
    """
    placed: list[Placed] = []
    keeps: Counter[str] | None = None
    if kind.naming != "name" and not native:
        keeps = Counter(entry.native for shelf in shelves for entry in shelf.entries)
    for at, shelf in enumerate(shelves):
        for index, entry in enumerate(shelf.entries):
            plain = native or (
                keeps is not None and keeps[entry.native] == 1 and naming.may_stay(entry.native)
            )
            if plain:
                placed.append(Placed(at, index, entry.native, entry.body, entry))
            else:
                placed.append(Placed(at, index, entry.public, entry.renamed, entry))
    return placed


def start_of(place: Place, shelves: Sequence[Shelf], placed: Sequence[Placed]) -> int:
    """The index in `placed` of what follows `place`, also when the lists have changed since."""
    at = next((i for i, shelf in enumerate(shelves) if shelf.server >= place.server), len(shelves))
    first = next((i for i, one in enumerate(placed) if one.shelf >= at), len(placed))
    if at == len(shelves) or shelves[at].server != place.server:
        return first
    known = shelves[at].entries
    if place.index < len(known) and known[place.index].native == place.native:
        return first + place.index + 1
    for index, entry in enumerate(known):
        if entry.native == place.native:
            return first + index + 1
    return first + min(place.index, len(known))


def place_of(placed: Placed, shelves: Sequence[Shelf]) -> Place:
    return Place(shelves[placed.shelf].server, placed.index, placed.entry.native)


def matches(template: str, uri: str) -> bool:
    """Whether `uri` can be an expansion of the URI template: its literal parts in their order.

    Looser than RFC 6570 on purpose: the server that has the template is the judge.
    """
    literals = _literals(template)
    if literals is None:
        return False
    if len(literals) == 1:
        return uri == template
    head, *middle, tail = literals
    if not uri.startswith(head) or len(uri) < len(head) + len(tail) or not uri.endswith(tail):
        return False
    at, end = len(head), len(uri) - len(tail)
    for literal in middle:
        at = uri.find(literal, at, end)
        if at < 0:
            return False
        at += len(literal)
    return True


def _literals(template: str) -> list[str] | None:
    """The parts between `{…}` expressions; None when the template is malformed or too long."""
    parts = template.split("{")
    if len(parts) - 1 > MAX_EXPRESSIONS:
        return None
    literals = [parts[0]]
    for part in parts[1:]:
        _, closing, literal = part.partition("}")
        if not closing:
            return None
        literals.append(literal)
    return literals


def texts(raw: Raw | None) -> list[str]:
    """The strings of an array of strings; anything else in it is left out."""
    if raw is None:
        return []
    try:
        found = [wire.text(item) for item in wire.array(raw)]
    except wire.BadMessage:
        return []
    return [one for one in found if one is not None]


def is_true(fields: Mapping[str, Raw], name: str) -> bool:
    return bytes(fields.get(name, wire.NULL)) == b"true"

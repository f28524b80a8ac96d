"""What may stand in a file of ours, and the checks that need nothing but the file.

A file has sections; a section has entries by name. What an entry leaves out has its default, so
that the file says all there is to say. Unknown keys are faults: what was misspelled must not be
taken for what was left out.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path as File
from typing import Any, Final, Literal, TypeAlias, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from mcpgw.core.naming import check_name
from mcpgw.errors import GatewayError
from mcpgw.model.config import Auth, Isolation, Transport
from mcpgw.store import holders, looks, policies, registry
from mcpgw.store.files.faults import Fault, Path, close, refused
from mcpgw.store.files.text import Text
from mcpgw.store.registry import ServerDraft

FOREIGN: Final = ("mcp_servers", "mcpServers", "model_list", "litellm_settings", "general_settings")
"""Top keys of other programs' files, which `config import` reads."""

_EMPTY: Final[Mapping[str, object]] = {}

Moment: TypeAlias = datetime.datetime | datetime.date | str


class ServerEntry(Struct, frozen=True, kw_only=True):
    """A server; fields mean what they mean in `model.config.Server`. prefix None: its name."""

    url: str | None = None
    transport: Transport = "auto"
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    auth: Auth = "none"
    secret: str | None = None
    headers: dict[str, str] = {}
    forward_headers: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    isolate: Isolation = "key"
    timeout: float = 60.0
    max_concurrent: int | None = None
    ca: str | None = None
    client_cert: str | None = None
    description: str = ""
    enabled: bool = True
    aliases: tuple[str, ...] = ()
    prefix: str | None = None


class GroupEntry(Struct, frozen=True, kw_only=True):
    """A named set of targets. A file may give the list alone."""

    targets: tuple[str, ...] = ()


class PolicyEntry(Struct, frozen=True, kw_only=True):
    """A policy; its rate, quota and condition as `mcpgw policy add` takes them."""

    deny: tuple[str, ...] = ()
    rate: str | None = None
    quota: str | None = None
    when: str | None = None


class OrganizationEntry(Struct, frozen=True, kw_only=True):
    """An organization. grants None: it restricts nothing; an empty list: nothing is allowed."""

    grants: tuple[str, ...] | None = None
    denies: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    enabled: bool = True


class TeamEntry(Struct, frozen=True, kw_only=True):
    """A team of an organization, or of none; the rest as for organizations."""

    organization: str | None = None
    grants: tuple[str, ...] | None = None
    denies: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    enabled: bool = True


class KeyEntry(Struct, frozen=True, kw_only=True):
    """A key. grants None: what its team has. secret: where its secret is; None: one is minted.

    expires: seconds since the epoch (in a file: a date, or RFC 3339).
    """

    team: str | None = None
    grants: tuple[str, ...] | None = None
    denies: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    expires: int | None = None
    enabled: bool = True
    secret: str | None = None


Entry: TypeAlias = ServerEntry | GroupEntry | PolicyEntry | OrganizationEntry | TeamEntry | KeyEntry


class Document(Struct, frozen=True, kw_only=True):
    """All entries of a file, or of a store, by name."""

    servers: dict[str, ServerEntry] = {}
    groups: dict[str, GroupEntry] = {}
    policies: dict[str, PolicyEntry] = {}
    organizations: dict[str, OrganizationEntry] = {}
    teams: dict[str, TeamEntry] = {}
    keys: dict[str, KeyEntry] = {}

    def section(self, name: str) -> dict[str, Entry]:
        return getattr(self, name)


SECTIONS: Final[Mapping[str, type[Entry]]] = {
    "servers": ServerEntry,
    "groups": GroupEntry,
    "policies": PolicyEntry,
    "organizations": OrganizationEntry,
    "teams": TeamEntry,
    "keys": KeyEntry,
}
"""Sections in the order in which they are made: later ones name earlier ones."""

NOUNS: Final[Mapping[str, str]] = {
    "servers": "server",
    "groups": "group",
    "policies": "policy",
    "organizations": "organization",
    "teams": "team",
    "keys": "key",
}


def decode(text: Text, base: File) -> Document:
    """The document that a file of ours has. base: the directory that relative paths start at.

    Raises GatewayError (bad_config) with every fault that was found.
    """
    if len(text.documents) > 1:
        raise refused(text.name, [Fault(None, "", "it has more than one YAML document")])
    tree = text.documents[0] if text.documents else None
    decoder = _Decoder(text, base)
    document = decoder.document(_EMPTY if tree is None else tree)
    if decoder.faults:
        raise refused(text.name, decoder.faults)
    return document


class _Decoder:
    """Gathers faults while it decodes."""

    def __init__(self, text: Text, base: File) -> None:
        self.faults: list[Fault] = []
        self._text = text
        self._base = base

    def document(self, tree: object) -> Document:
        sections: dict[str, dict[str, Any]] = {}
        for name, entries in self._members(tree, (), "sections").items():
            if name not in SECTIONS:
                self._say((name,), self._unknown_section(name))
                continue
            found = self._members(
                _EMPTY if entries is None else entries, (name,), "entries by name"
            )
            sections[name] = {
                one: entry
                for one, value in found.items()
                if (entry := self._entry(name, one, value)) is not None
            }
            self._unique((name,), found)
        document = Document(**sections)
        self._server_names(document)
        return document

    def _unknown_section(self, name: str) -> str:
        if name in FOREIGN:
            return "this is another program's file; mcpgw config import reads it"
        return f"there is no such section{_hint(name, SECTIONS)}"

    def _entry(self, section: str, name: str, value: object) -> Entry | None:
        path: Path = (section, name)
        kind = SECTIONS[section]
        if section == "groups" and isinstance(value, list):
            value = {"targets": cast("object", value)}
        before = len(self.faults)
        members = self._members(_EMPTY if value is None else value, path, "its fields")
        if len(self.faults) > before:
            return None
        types, fields = _types(kind), dict[str, object]()
        for key, item in members.items():
            here = (*path, key)
            if key not in types:
                self._say(here, f"unknown key{_hint(key, types)}")
            elif (said := _misfit(types[key], item)) is not None:
                where, what = said
                self._say((*here, *where), what)
            else:
                fields[key] = item
        if section == "keys" and "expires" in fields:
            fields["expires"] = self._moment((*path, "expires"), fields["expires"])
        if len(self.faults) > before:
            return None
        entry = msgspec.convert(fields, kind)
        self._check(section, name, entry)
        return self._rooted(entry)

    def _members(self, value: object, path: Path, what: str) -> dict[str, object]:
        if value is _EMPTY or isinstance(value, dict):
            return cast("dict[str, object]", value)
        self._say(path, f"expected a mapping with {what}, found {_called(value)}")
        return {}

    def _moment(self, path: Path, value: object) -> int | None:
        """Seconds since the epoch of a date, a time or RFC 3339; without a zone it is UTC."""
        if isinstance(value, str):
            try:
                value = datetime.datetime.fromisoformat(value)
            except ValueError:
                self._say(path, "expected a date or a time such as 2027-01-31T12:00:00Z")
                return None
        if value is None:
            return None
        if not isinstance(value, datetime.datetime):
            date = cast("datetime.date", value)
            value = datetime.datetime(date.year, date.month, date.day)  # noqa: DTZ001 - below
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.UTC)
        try:
            return int(value.timestamp())
        except (OverflowError, ValueError):
            self._say(path, "this date cannot be")
            return None

    # ------------------------------------------------------------ what one entry must be

    def _check(self, section: str, name: str, entry: Entry) -> None:
        path: Path = (section, name)
        if isinstance(entry, ServerEntry):
            self._check_server(path, name, entry)
        elif section == "groups":
            if (wrong := check_name(name)) is not None:
                self._say(path, f"this cannot be a name: {wrong}")
        elif (wrong := holders.name_fault(name)) is not None:
            self._say(path, f"this cannot be a name: {wrong}")
        if isinstance(entry, KeyEntry) and entry.secret is not None:
            self._reference((*path, "secret"), entry.secret)
        if isinstance(entry, PolicyEntry):
            self._refusal(path, lambda: policies.check("x", entry.rate, entry.quota, entry.when))

    def _check_server(self, path: Path, name: str, entry: ServerEntry) -> None:
        for field, word in (("", name), *(("aliases", alias) for alias in entry.aliases)):
            if (wrong := check_name(word)) is not None:
                here = (*path, field) if field else path
                self._say(here, f"{_quoted(word)} cannot be a name: {wrong}")
        if entry.secret is not None:
            self._reference((*path, "secret"), entry.secret)
        for field, values in (("headers", entry.headers), ("env", entry.env)):
            for key, value in values.items():
                if looks.literal_secret(key, value) or value == looks.MASK:
                    self._literal((*path, field, key), f"{name}/{key}")
        names = {one.lower() for one in (name, *entry.aliases)}
        if entry.prefix is not None and entry.prefix.lower() not in names:
            self._say((*path, "prefix"), "expected the server's name or one of its aliases")
        if looks.MASK in (entry.url or "") or looks.MASK in entry.command:
            field = "url" if entry.url else "command"
            self._say((*path, field), f"{looks.MASK} stands where an export left a secret out")
        self._refusal(path, lambda: registry.checked(draft(name, entry)))

    def _refusal(self, path: Path, check: Callable[[], object]) -> None:
        """What the store would refuse is a fault as well."""
        try:
            check()
        except GatewayError as error:
            why = (error.why or error.what).rstrip(".")
            self._say(path, why[:1].lower() + why[1:])

    def _reference(self, path: Path, value: str) -> None:
        if not looks.is_reference(value):
            self._literal(path, "NAME")

    def _literal(self, path: Path, name: str) -> None:
        self._say(
            path,
            "expected a reference to a secret, never the secret itself: env:NAME, "
            f"os.environ/NAME, file:PATH, keyring:NAME or vault:NAME (mcpgw secret set {name})",
        )

    # ------------------------------------------------------------ what entries must be together

    def _unique(self, path: Path, names: Mapping[str, object]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            if (other := seen.setdefault(name.lower(), name)) != name:
                self._say((*path, name), f"{other} is the same name; upper and lower case are one")

    def _server_names(self, document: Document) -> None:
        """Servers, aliases and groups share one namespace."""
        taken: dict[str, str] = {}
        for path, word in _common_names(document):
            other = taken.setdefault(word.lower(), ".".join(map(str, path[:2])))
            if other.lower() != ".".join(map(str, path[:2])).lower():
                self._say(path, f"the name {_quoted(word)} is taken by {other}")

    def _rooted(self, entry: Entry) -> Entry:
        """Relative paths start at the file's directory, wherever the daemon was started."""
        if isinstance(entry, KeyEntry) and entry.secret is not None:
            return msgspec.structs.replace(entry, secret=self._file(entry.secret))
        if not isinstance(entry, ServerEntry):
            return entry
        changes: dict[str, object] = {
            field: str(self._base / File(value).expanduser())
            for field in ("cwd", "ca", "client_cert")
            if (value := getattr(entry, field)) is not None
        }
        if entry.secret is not None:
            changes["secret"] = self._file(entry.secret)
        for field in ("headers", "env"):
            values: dict[str, str] = getattr(entry, field)
            changes[field] = {key: self._file(value) for key, value in values.items()}
        return msgspec.structs.replace(entry, **changes)

    def _file(self, reference: str) -> str:
        if not reference.startswith("file:") or not looks.is_reference(reference):
            return reference
        return f"file:{self._base / File(reference.removeprefix('file:')).expanduser()}"

    def _say(self, path: Path, what: str) -> None:
        self.faults.append(self._text.fault(path, what))


def draft(name: str, entry: ServerEntry) -> ServerDraft:
    """The server that an entry describes, but for its names."""
    fields = {
        field: getattr(entry, field)
        for field in entry.__struct_fields__
        if field not in ("aliases", "prefix")
    }
    return ServerDraft(name=name, **fields)


def _common_names(document: Document) -> Iterator[tuple[Path, str]]:
    for name, entry in document.servers.items():
        yield ("servers", name), name
        for alias in entry.aliases:
            yield ("servers", name, "aliases"), alias
    for name in document.groups:
        yield ("groups", name), name


# ---------------------------------------------------------------- types and their names

_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
    "datetime": "a date",
    "date": "a date",
}
_WRONG = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$(.*)`)?")


@functools.cache
def _types(kind: type[Entry]) -> dict[str, Any]:
    types = get_type_hints(kind)
    if "expires" in types:
        types["expires"] = Moment | None
    return types


def _misfit(kind: Any, value: object) -> tuple[Path, str] | None:  # noqa: ANN401 - any annotation
    """Where in `value`, and why, it is no `kind`; None when it is."""
    if kind == Moment | None:
        if value is None or isinstance(value, (str, datetime.date)):
            return None
        return (), f"expected a date or a time, found {_called(value)}"
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        if value in choices:
            return None
        hint = close(value, choices) if isinstance(value, str) else ""
        return (), f"expected one of {', '.join(choices)}{hint}"
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return _explained(str(error), value)
    return None


def _explained(error: str, value: object) -> tuple[Path, str]:
    found = _WRONG.match(error)
    if found is None:
        return (), "expected something else"
    where: Path = ()
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        where = next(((key,) for key, one in members.items() if not isinstance(one, str)), ())
    elif isinstance(value, list) and (place := re.search(r"\[(\d+)\]", found[3] or "")):
        where = (int(place[1]),)
    wanted = [_WORDS.get(word, word) for word in found[1].split(" | ") if word != "null"]
    quotes = "; put it in quotes" if found[1].startswith("str") and _scalar(found[2]) else ""
    return where, f"expected {' or '.join(wanted)}, found {_WORDS.get(found[2], 'that')}{quotes}"


def _scalar(word: str) -> bool:
    return word in ("int", "float", "bool", "datetime", "date")


def _hint(word: str, known: Iterable[str]) -> str:
    """The nearest of `known`, else all of them."""
    return close(word, known) or f"; there are {', '.join(known)}"


def _called(value: object) -> str:
    name = type(value).__name__
    word = {"dict": "object", "list": "array", "NoneType": "null"}.get(name, name)
    return _WORDS.get(word, word)


def _quoted(word: str) -> str:
    return f'"{word}"' if len(word) <= 64 and word.isprintable() else "this"

"""What an import gathers from another program's file: a document of ours, secrets, and reports.

Nothing is dropped in silence: what has no counterpart here is reported, and a server that would
not be what it was there is brought along disabled. Literal secrets go to the vault.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, cast

from msgspec import Struct

from mcpgw.core.naming import check_name
from mcpgw.errors import GatewayError
from mcpgw.store import holders, looks, registry
from mcpgw.store.files.faults import Path, spelled
from mcpgw.store.files.schema import (
    Document,
    GroupEntry,
    KeyEntry,
    OrganizationEntry,
    ServerEntry,
    TeamEntry,
    draft,
)

SEALED: Final = "server/"  # what vault names begin with that were not chosen by a person


class Report(Struct, frozen=True):
    """What a person must know of one place of a file. `path` as it is spelled there."""

    path: str
    what: str


class Brought(Struct, frozen=True, kw_only=True):
    """All that an import found. seals: secrets by the name that the vault shall have them under."""

    document: Document
    seals: Mapping[str, str]
    reports: tuple[Report, ...]


class Basket:
    """Gathers what an import finds."""

    def __init__(self) -> None:
        self.servers: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.teams: dict[str, dict[str, Any]] = {}
        self.organizations: dict[str, dict[str, Any]] = {}
        self.seals: dict[str, str] = {}
        self.reports: list[Report] = []
        self._called: dict[tuple[str, str], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def brought(self) -> Brought:
        """All of it, in our form."""
        servers = {name: ServerEntry(**one) for name, one in self.servers.items()}
        for name, entry in tuple(servers.items()):
            if (why := _unfit(name, entry)) is not None:
                del servers[name]
                self.reports.append(Report(f"servers.{name}", f"is left out: {why}"))
        document = Document(
            servers=servers,
            groups={
                name: GroupEntry(targets=tuple(server for server in one if server in servers))
                for name, one in self.groups.items()
            },
            keys={name: KeyEntry(**one) for name, one in self.keys.items()},
            teams={name: TeamEntry(**one) for name, one in self.teams.items()},
            organizations={n: OrganizationEntry(**one) for n, one in self.organizations.items()},
        )
        return Brought(document=document, seals=self.seals, reports=tuple(self.reports))

    def report(self, path: Path, what: str) -> None:
        self.reports.append(Report(spelled(path), what))

    def unknown(self, path: Path, members: Mapping[str, object], known: frozenset[str]) -> None:
        """Report members that nobody has looked at."""
        for key in members:
            if key not in known:
                self.report((*path, key), "has no counterpart here")

    # ------------------------------------------------------------ names

    def name(self, path: Path, word: str) -> str:
        """A free name for a server, an alias or a group that is called `word` there."""
        return self._legal(path, word, "name", lambda one: check_name(one) is None, 32, r"[^\w-]+")

    def key_name(self, path: Path, word: str) -> str:
        """The same for a key, a team or an organization."""
        fits: Callable[[str], bool] = lambda one: holders.name_fault(one) is None  # noqa: E731
        return self._legal(path, word, str(path[0]), fits, 64, r"[^\w.@+-]+")

    def _legal(
        self, path: Path, word: str, space: str, fits: Callable[[str], bool], longest: int, bad: str
    ) -> str:
        name = word
        if not fits(name):
            name = re.sub(r"_{2,}", "_", re.sub(bad, "-", word, flags=re.ASCII)).strip("_-.@+")
            if len(name) > longest:
                digest = blake2b(word.encode(), digest_size=3).hexdigest()
                name = f"{name[: longest - 7].rstrip('_-')}-{digest}"
            name = name or "server"
        free, at = name, 1
        while (space, free.lower()) in self._taken:
            at += 1
            free = f"{name[: longest - len(str(at)) - 1]}-{at}"
        self._taken.add((space, free.lower()))
        if free != word:
            self.report(path, f"is called {free} here")
        return free

    # ------------------------------------------------------------ secrets

    def secret(self, name: str, value: str) -> str:
        """A reference: the one that `value` is, or one to the vault, which gets it."""
        if looks.is_reference(value):
            return value
        if (variable := environment(value)) is not None:
            return f"env:{variable}"
        return self.seal(name, value)

    def seal(self, name: str, value: str) -> str:
        word = re.sub(r"[^A-Za-z0-9_./-]+", "-", name).strip("-")
        self.seals[f"{SEALED}{word}"] = value
        return f"vault:{SEALED}{word}"

    def value(self, path: Path, name: str, key: str, value: str) -> str:
        """A header's or a variable's value: a reference, a harmless literal, or sealed."""
        if looks.is_reference(value) or environment(value) is not None:
            return self.secret(name, value)
        if "${" in value:
            self.report(path, "has ${…} in the middle of a text, which stays as it is")
        if looks.literal_secret(key, value):
            return self.seal(f"{name}/{key}", value)
        return value

    def authorization(self, path: Path, server: str, value: str) -> dict[str, Any]:
        """An Authorization header as our ways to sign in, or as the header that it is."""
        scheme, _, rest = value.partition(" ")
        rest = rest.strip()
        auth = {"bearer": "bearer", "token": "token", "basic": "basic"}.get(scheme.lower())
        if auth is None or not rest:
            held = self.secret(f"{server}/Authorization", value)
            return {"headers": {"Authorization": held}}
        if auth == "basic":
            return {"auth": auth, "secret": self.basic(path, server, rest)}
        return {"auth": auth, "secret": self.secret(server, rest)}

    def basic(self, path: Path, server: str, value: str) -> str:
        """USER:PASSWORD from that, or from its base64."""
        if looks.is_reference(value) or environment(value) is not None:
            self.report(path, "must hold USER:PASSWORD, without base64")
            return self.secret(server, value)
        if ":" not in value:
            try:
                plain = b64decode(value, validate=True).decode()
            except (NotBase64, ValueError):
                plain = ""
            if ":" in plain:
                return self.seal(server, plain)
            self.report(path, "is neither USER:PASSWORD nor its base64, so it will be refused")
        return self.seal(server, value)

    def watch_place(self, path: Path, entry: Mapping[str, Any]) -> None:
        """Report secrets that stand where no reference can: they stay, and are never shown."""
        url, command = entry.get("url"), list(entry.get("command", ()))
        if url and looks.masked_url(url) != url:
            self.report((*path, "url"), "seems to hold a secret; it is kept, and shown masked")
        if command and looks.masked_words(command) != command:
            self.report((*path, "args"), "seem to hold a secret; they are kept, and shown masked")


def _unfit(name: str, entry: ServerEntry) -> str | None:
    """Why the store would not take this server; None when it would."""
    try:
        registry.checked(draft(name, entry))
    except GatewayError as error:
        return (error.why or error.what).rstrip(".")
    return None


_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")


def environment(value: str) -> str | None:
    """The variable that `${NAME}` or `${env:NAME}` stands for."""
    found = _VARIABLE.fullmatch(value)
    return None if found is None else found[1]


def words(value: object) -> list[str]:
    """A list of texts; one text is a list of one; anything else is none."""
    if isinstance(value, str):
        return [value]
    return [plain(one) for one in items(value)]


def items(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def members(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def plain(value: object) -> str:
    """A scalar as text, as other programs take it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)

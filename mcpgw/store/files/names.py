"""What an entry names must be there, and is written the way it is spelled there.

A key may be granted `GH/*` where `gh` is an alias of `github`; the store keeps a server's id and
tells `github/*`. Both sides are brought to one form before they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from mcpgw.core.access import EVERY_SERVER, KINDS
from mcpgw.store.files.faults import Fault, Path, close, refused
from mcpgw.store.files.schema import (
    Document,
    Entry,
    GroupEntry,
    KeyEntry,
    OrganizationEntry,
    PolicyEntry,
    ServerEntry,
    TeamEntry,
)
from mcpgw.store.files.text import Text
from mcpgw.store.targets import seems_kind

GROUP = "group:"


class Names:
    """Names that entries may use, by how they are looked up: in lower case, aliases too."""

    def __init__(self, *documents: Document) -> None:
        """documents: the first ones win."""
        self.servers: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.policies: dict[str, str] = {}
        self.organizations: dict[str, str] = {}
        self.teams: dict[str, str] = {}
        for document in documents:
            for name, server in document.servers.items():
                for word in (name, *server.aliases):
                    self.servers.setdefault(word.lower(), name)
            for section in ("groups", "policies", "organizations", "teams"):
                found: dict[str, str] = getattr(self, section)
                for name in document.section(section):
                    found.setdefault(name.lower(), name)


def settle(text: Text, document: Document, names: Names | None) -> Document:
    """The document in the one form, with what it names as it is spelled.

    names None: nothing is looked up, for a store's own entries. Raises GatewayError (bad_config)
    for what is not there.
    """
    settler = _Settler(text, names)
    settled = Document(
        **{
            section: {
                name: settler.entry((section, name), name, entry)
                for name, entry in document.section(section).items()
            }
            for section in document.__struct_fields__
        }
    )
    if settler.faults:
        raise refused(text.name, settler.faults)
    return settled


class _Settler:
    def __init__(self, text: Text, names: Names | None) -> None:
        self.faults: list[Fault] = []
        self._text = text
        self._names = names

    def entry(self, path: Path, name: str, entry: Entry) -> Any:  # noqa: ANN401 - of its kind
        match entry:
            case ServerEntry():
                return settled_server(name, entry)
            case GroupEntry():
                return replace(entry, targets=self._targets(path, "targets", entry.targets))
            case PolicyEntry():
                return replace(entry, deny=self._targets(path, "deny", entry.deny))
            case OrganizationEntry():
                return replace(entry, **self._held(path, entry))
            case TeamEntry():
                org = self._one(path, "organization", entry.organization, "organizations")
                return replace(entry, organization=org, **self._held(path, entry))
            case KeyEntry():
                team = self._one(path, "team", entry.team, "teams")
                return replace(entry, team=team, **self._held(path, entry))

    def _held(
        self, path: Path, entry: OrganizationEntry | TeamEntry | KeyEntry
    ) -> dict[str, object]:
        """What every holder has."""
        grants = entry.grants
        return {
            "grants": None if grants is None else self._targets(path, "grants", grants),
            "denies": self._targets(path, "denies", entry.denies),
            "policies": tuple(
                sorted(
                    {
                        self._one((*path, "policies"), at, policy, "policies") or policy
                        for at, policy in enumerate(entry.policies)
                    }
                )
            ),
        }

    def _one(self, path: Path, field: str | int, name: str | None, section: str) -> str | None:
        """A name of another section as it is spelled there."""
        if name is None or self._names is None:
            return name
        known: Mapping[str, str] = getattr(self._names, section)
        if (found := known.get(name.lower())) is None:
            noun = "policy" if section == "policies" else section.removesuffix("s")
            hint = close(name, known.values())
            self._say((*path, field), f"there is no {noun} of this name{hint}")
        return found

    def _targets(self, path: Path, field: str, words: Sequence[str]) -> tuple[str, ...]:
        settled = {self._target((*path, field, at), word) for at, word in enumerate(words)}
        return tuple(sorted(filter(None, settled)))

    def _target(self, path: Path, word: str) -> str:
        if word.startswith(GROUP):
            if path[0] == "groups":
                self._say(path, "a group holds servers and what they have, no other groups")
            name = self._one(path[:-1], path[-1], word.removeprefix(GROUP), "groups")
            return f"{GROUP}{name or ''}"
        where, slash, what = word.partition("/")
        if self._names is not None and where != EVERY_SERVER:
            found = self._names.servers.get(where.lower())
            if found is None:
                hint = close(where, self._names.servers.values())
                if where.lower() in self._names.groups:
                    hint = f"; a group is written {GROUP}{where}"
                self._say(path, f"there is no server of this name{hint}")
                return word
            where = found
        if not slash:
            return where
        kind, colon, glob = what.partition(":")
        if not what or (colon and kind in KINDS and not glob):
            self._say(path, "expected SERVER, SERVER/TOOL, SERVER/prompt:NAME, …/resource:URI or *")
        elif colon and kind == "tool" and not seems_kind(glob):
            what = glob
        elif colon and kind not in KINDS and seems_kind(what):
            self._say(path, f"{kind}: is no kind of thing{close(kind, KINDS)}")
        return f"{where}/{what}"

    def _say(self, path: Path, what: str) -> None:
        self.faults.append(self._text.fault(path, what))


def settled_server(name: str, entry: ServerEntry) -> ServerEntry:
    """A server's entry with its transport settled and lists in order."""
    aliases = {alias.lower(): alias for alias in entry.aliases}
    prefix = None if entry.prefix is None else aliases.get(entry.prefix.lower())
    return replace(
        entry,
        transport="stdio" if entry.command and entry.transport == "auto" else entry.transport,
        forward_headers=tuple(sorted({header.lower() for header in entry.forward_headers})),
        allow=None if entry.allow is None else tuple(sorted(set(entry.allow))),
        deny=tuple(sorted(set(entry.deny))),
        aliases=tuple(sorted(aliases.values(), key=str.lower)),
        prefix=prefix,
    )

"""What a document would change in the store. Nothing is written here.

An entry of the file is all there is to say of its thing. What the file does not have stays, or
goes with `prune`. Secrets of keys are compared by digest, for the store has no more of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mcpgw.errors import GatewayError
from mcpgw.model.ports import Secrets
from mcpgw.store import keys, looks
from mcpgw.store.db import Store
from mcpgw.store.files.export import current
from mcpgw.store.files.names import Names, settle
from mcpgw.store.files.schema import NOUNS, Document, Entry, KeyEntry, ServerEntry
from mcpgw.store.files.text import Text

Action: TypeAlias = Literal["add", "change", "remove"]


class Change(Struct, frozen=True, kw_only=True):
    """One thing that would be made, altered or taken out.

    name: as the file has it; old: as the store has it. before, after: only what differs, without
    literals that may be secrets; before None: it is made, after None: it goes.
    """

    action: Action
    section: str
    name: str
    old: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return NOUNS[self.section]


class Plan(Struct, frozen=True, kw_only=True):
    """What is there, what shall be, and what lies between.

    secrets: of keys that shall have another secret, by the key's name. lost: keys whose secret
    cannot be had, with the reason.
    """

    before: Document
    wanted: Document
    changes: tuple[Change, ...]
    secrets: Mapping[str, str]
    lost: Mapping[str, str]

    @property
    def unminted(self) -> list[str]:
        """New keys that name no secret, so that one must be made for them."""
        return [
            one.name
            for one in self.changes
            if one.action == "add"
            and one.section == "keys"
            and one.name not in self.secrets
            and one.name not in self.lost
        ]


def plan(
    store: Store,
    text: Text,
    document: Document,
    secrets: Secrets,
    *,
    prune: bool = False,
    merge: bool = False,
    strict: bool = True,
) -> Plan:
    """What `document` of the file `text` would change.

    merge: what an entry leaves out stays as it is, and nothing goes. strict: a secret that cannot
    be had is an error (secret_missing); else it is told in `lost`. Raises bad_config too.
    """
    with store.reading():
        before = current(store)
        digests = keys.digests(store)
    if merge:
        document = _merged(before, document)
    names = Names(document) if prune else Names(document, before)
    wanted = settle(text, document, names)
    fresh, lost = _secrets(wanted, digests, secrets, strict=strict)
    changes: list[Change] = []
    for section in before.__struct_fields__:
        changes += _section(section, before.section(section), wanted.section(section), prune=prune)
    changes = _with_secrets(changes, before, wanted, fresh)
    return Plan(before=before, wanted=wanted, changes=tuple(changes), secrets=fresh, lost=lost)


def _section(
    section: str, before: Mapping[str, Entry], wanted: Mapping[str, Entry], *, prune: bool
) -> list[Change]:
    by_lower = {name.lower(): name for name in before}
    changes: list[Change] = []
    for name, entry in wanted.items():
        old = by_lower.pop(name.lower(), None)
        if old is None:
            new = shown(entry)
            changes.append(_change("add", section, name, None, None, new))
            continue
        differ = _differences(before[old], entry)
        if name != old:
            differ = {"name": (old, name), **differ}
        if differ:
            one, other = ({field: pair[at] for field, pair in differ.items()} for at in (0, 1))
            changes.append(_change("change", section, name, old, one, other))
    if prune:
        changes += [
            _change("remove", section, name, name, shown(before[name]), None)
            for name in by_lower.values()
        ]
    return changes


def _change(
    action: Action,
    section: str,
    name: str,
    old: str | None,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> Change:
    return Change(action=action, section=section, name=name, old=old, before=before, after=after)


def _differences(old: Entry, new: Entry) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, as they are shown. Compared unmasked: another secret is a change."""
    was, becomes = _fields(old), _fields(new)
    return {
        field: (was[field], becomes[field])
        for field in old.__struct_fields__
        if field != "secret" or isinstance(old, ServerEntry)
        if getattr(old, field) != getattr(new, field)
    }


def _fields(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        field: msgspec.to_builtins(getattr(entry, field)) for field in entry.__struct_fields__
    }
    if isinstance(entry, ServerEntry):
        fields["url"] = None if entry.url is None else looks.masked_url(entry.url)
        fields["command"] = looks.masked_words(entry.command)
        fields["env"] = looks.masked(entry.env)
        fields["headers"] = looks.masked(entry.headers)
    return fields


def shown(entry: Entry) -> dict[str, Any]:
    """An entry as it may be shown: what is not as it is by default."""
    default = type(entry)()
    fields = _fields(entry)
    return {
        field: fields[field]
        for field in entry.__struct_fields__
        if getattr(entry, field) != getattr(default, field)
    }


# ---------------------------------------------------------------- secrets of keys


def _secrets(
    wanted: Document, digests: Mapping[str, frozenset[bytes]], secrets: Secrets, *, strict: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Secrets that the store has not yet, and the reasons for those that cannot be had."""
    fresh: dict[str, str] = {}
    lost: dict[str, str] = {}
    for name, entry in wanted.keys.items():
        if entry.secret is None:
            continue
        try:
            value = secrets.resolve(entry.secret)
            keys.check_secret(name, value)
        except GatewayError as error:
            if strict:
                raise
            lost[name] = " ".join(filter(None, (error.what, error.why)))
            continue
        digest = hashlib.sha256(value.encode()).digest()
        if digest not in digests.get(name.lower(), frozenset()):
            fresh[name] = value
    return fresh, lost


def _with_secrets(
    changes: list[Change],
    before: Document,
    wanted: Document,
    fresh: Mapping[str, str],
) -> list[Change]:
    """The changes with those of secrets; only references are shown."""
    old = {name.lower(): name for name in before.keys}
    by_name = {one.name: at for at, one in enumerate(changes) if one.section == "keys"}
    for name in fresh:
        reference = wanted.keys[name].secret
        if name not in by_name:
            was: dict[str, Any] = {"secret": "another"}
            becomes = {"secret": reference}
            changes.append(_change("change", "keys", name, old[name.lower()], was, becomes))
        elif (change := changes[by_name[name]]).action == "change":
            changes[by_name[name]] = replace(
                change,
                before={**(change.before or {}), "secret": "another"},
                after={**(change.after or {}), "secret": reference},
            )
    return changes


# ---------------------------------------------------------------- merging


def _merged(before: Document, document: Document) -> Document:
    """The document with what it leaves out as it is now.

    A list of grants grows: an import never takes away what somebody was given.
    """
    sections: dict[str, dict[str, Any]] = {}
    for section in document.__struct_fields__:
        old = {name.lower(): (name, entry) for name, entry in before.section(section).items()}
        sections[section] = {}
        for name, entry in document.section(section).items():
            known = old.get(name.lower())
            if known is None:
                sections[section][name] = entry
            else:
                sections[section][known[0]] = _over(known[1], entry)
    return Document(**sections)


def _over(old: Entry, new: Entry) -> Entry:
    default = type(new)()
    given = {
        field: getattr(new, field)
        for field in new.__struct_fields__
        if getattr(new, field) != getattr(default, field)
    }
    for field in ("grants", "targets", "aliases"):
        if field in given:
            given[field] = tuple({*(getattr(old, field) or ()), *given[field]})
    if isinstance(new, ServerEntry) and ("url" in given or "command" in given):
        given = {"url": new.url, "command": new.command, "transport": new.transport, **given}
        given |= {"auth": new.auth, "secret": new.secret}
    if isinstance(old, KeyEntry):
        given.setdefault("secret", None)
    return replace(old, **given)

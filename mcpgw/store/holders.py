"""Who holds grants: keys, their teams, and the organizations of those.

One table has all three and one set of verbs changes them. A holder that ever had a grant of its
own is restricted: with all of them taken away it allows nothing. What is removed cannot leave a
key with more: a team goes only when no key is in it, an organization when no team is.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypedDict

from msgspec import UNSET, Struct, UnsetType

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, targets
from mcpgw.store.db import Store
from mcpgw.store.registry import NAMES_TOLD, missing

HolderKind: TypeAlias = Literal["key", "team", "org"]

KINDS: Final[Mapping[HolderKind, str]] = {"key": "key", "team": "team", "org": "organization"}
"""What a kind of holder is called in the store and for people, by the word that is typed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")


class Holder(Struct, frozen=True, kw_only=True):
    """What keys, teams and organizations have in common. Times are seconds since the epoch.

    grants None: none was ever given; an empty tuple allows nothing at all. Both are as targets,
    groups taken apart. targets, deny_targets: the same as typed words. policies: by name.
    """

    id: str
    name: str
    created: float
    enabled: bool
    grants: tuple[Target, ...] | None
    denies: tuple[Target, ...]
    targets: tuple[str, ...]
    deny_targets: tuple[str, ...]
    policies: tuple[str, ...]


class Common(TypedDict):
    """The fields of a Holder."""

    id: str
    name: str
    created: float
    enabled: bool
    grants: tuple[Target, ...] | None
    denies: tuple[Target, ...]
    targets: tuple[str, ...]
    deny_targets: tuple[str, ...]
    policies: tuple[str, ...]


class Organization(Holder, frozen=True, kw_only=True):
    """What nothing of its teams may go beyond."""


class Team(Holder, frozen=True, kw_only=True):
    """What its keys have until they have grants of their own, and may never go beyond."""

    org: str | None


# ---------------------------------------------------------------- organizations


def add_org(store: Store, name: str) -> Organization:
    """A new organization. Raises GatewayError: bad_name, name_taken."""
    with store.change() as connection:
        insert(store, connection, "org", name, now=time.time())
        made = get_org(store, name)
        audit.record(connection, store, "org.add", made.name, after=view(made))
    return made


def list_orgs(store: Store) -> list[Organization]:
    """All organizations by name."""
    with store.reading():
        return [Organization(**common) for _, common in rows(store, "org")]


def get_org(store: Store, name: str) -> Organization:
    """The organization of this name. Raises no_such_organization."""
    with store.reading():
        return Organization(**one(store, "org", name)[1])


def set_org(
    store: Store,
    org: str,
    /,
    *,
    name: str | UnsetType = UNSET,
    enabled: bool | UnsetType = UNSET,
    ceiling: bool | UnsetType = UNSET,
) -> Organization:
    """Change an organization; a disabled one's keys are refused.

    ceiling False: it restricts nothing any more, and its grants go; True: it has one from now on,
    be it empty. Raises no_such_organization, bad_name, name_taken.
    """
    with store.change() as connection:
        old = get_org(store, org)
        _alter(store, connection, "org", old, name=name, enabled=enabled, ceiling=ceiling)
        new = get_org(store, old.name if name is UNSET else name)
        _recorded(store, connection, "org.set", old, new)
    return new


def remove_org(store: Store, name: str) -> Organization:
    """Take an organization out. Raises no_such_organization, organization_in_use."""
    with store.change() as connection:
        org = get_org(store, name)
        _delete(store, connection, "org", org, "team")
        audit.record(connection, store, "org.remove", org.name, before=view(org))
    return org


# ---------------------------------------------------------------- teams


def add_team(store: Store, name: str, *, org: str | None = None) -> Team:
    """A new team. Raises GatewayError: bad_name, name_taken, no_such_organization."""
    with store.change() as connection:
        parent = None if org is None else get_org(store, org).id
        insert(store, connection, "team", name, now=time.time(), parent=parent)
        made = get_team(store, name)
        audit.record(connection, store, "team.add", made.name, after=view(made))
    return made


def list_teams(store: Store) -> list[Team]:
    """All teams by name."""
    with store.reading():
        return [Team(**common, org=row["parent_name"]) for row, common in rows(store, "team")]


def get_team(store: Store, name: str) -> Team:
    """The team of this name. Raises no_such_team."""
    with store.reading():
        row, common = one(store, "team", name)
        return Team(**common, org=row["parent_name"])


def set_team(
    store: Store,
    team: str,
    /,
    *,
    name: str | UnsetType = UNSET,
    org: str | UnsetType | None = UNSET,
    enabled: bool | UnsetType = UNSET,
    ceiling: bool | UnsetType = UNSET,
) -> Team:
    """Change a team; a disabled one's keys are refused. org None: it belongs to none.

    ceiling: as for `set_org`. Raises no_such_team, no_such_organization, bad_name, name_taken.
    """
    with store.change() as connection:
        old = get_team(store, team)
        if org is not UNSET:
            set_parent(connection, old.id, None if org is None else get_org(store, org).id)
        _alter(store, connection, "team", old, name=name, enabled=enabled, ceiling=ceiling)
        new = get_team(store, old.name if name is UNSET else name)
        _recorded(store, connection, "team.set", old, new)
    return new


def remove_team(store: Store, name: str) -> Team:
    """Take a team out. Raises no_such_team, team_in_use (by keys in force)."""
    with store.change() as connection:
        team = get_team(store, name)
        # A revoked key stays listed, and is nobody's hold on its team.
        connection.execute(
            "UPDATE holders SET parent = NULL WHERE parent = ? AND revoked IS NOT NULL", (team.id,)
        )
        _delete(store, connection, "team", team, "key")
        audit.record(connection, store, "team.remove", team.name, before=view(team))
    return team


# ---------------------------------------------------------------- what all three share

_SELECT = """SELECT h.*, p.name AS parent_name FROM holders h
    LEFT JOIN holders p ON p.id = h.parent WHERE h.kind = ? AND h.revoked IS NULL"""


def rows(
    store: Store, kind: HolderKind, name: str | None = None
) -> list[tuple[sqlite3.Row, Common]]:
    """Rows of a kind in force by name, with the fields that every holder has."""
    if name is None:
        found = store.query(_SELECT + " ORDER BY h.name", (KINDS[kind],))
    else:
        found = store.query(_SELECT + " AND h.name = ?", (KINDS[kind], name))
    fields = Fields(store, found[0]["id"] if len(found) == 1 else None)
    return [(row, fields.of(row)) for row in found]


def one(store: Store, kind: HolderKind, name: str) -> tuple[sqlite3.Row, Common]:
    """The row of this name. Raises no_such_team, no_such_organization."""
    if not (found := rows(store, kind, name)):
        known = [row["name"] for row in store.query(_SELECT, (KINDS[kind],))]
        raise missing(KINDS[kind], name, known, known, add=f"mcpgw {kind} add NAME", typed=kind)
    return found[0]


class Fields:
    """The fields that every holder has, from its row. owner: only that one's are read."""

    def __init__(self, store: Store, owner: str | None = None) -> None:
        self._rules = targets.read(store, targets.HOLDERS, owner)
        self._groups = targets.groups(store)
        self._names = targets.names(store, owner)
        self._policies: dict[str, list[str]] = {}
        for holder, policy in store.query(
            "SELECT a.holder, p.name FROM attachments a JOIN policies p ON p.id = a.policy "
            "ORDER BY p.name"
        ):
            self._policies.setdefault(holder, []).append(policy)

    def of(self, row: sqlite3.Row) -> Common:
        allowed = self._rules.get((row["id"], "allow"), ())
        denied = self._rules.get((row["id"], "deny"), ())
        return {
            "id": row["id"],
            "name": row["name"],
            "created": row["created"],
            "enabled": bool(row["enabled"]),
            "grants": targets.expanded(allowed, self._groups) if row["restricted"] else None,
            "denies": targets.expanded(denied, self._groups),
            "targets": tuple(targets.words(rule, self._names) for rule in allowed),
            "deny_targets": tuple(targets.words(rule, self._names) for rule in denied),
            "policies": tuple(self._policies.get(row["id"], ())),
        }


def insert(
    store: Store,
    connection: sqlite3.Connection,
    kind: HolderKind,
    name: str,
    *,
    now: float,
    parent: str | None = None,
) -> str:
    """A new row; its id. Raises GatewayError: bad_name, name_taken."""
    check_name(store, kind, name)
    holder = f"{kind}_{os.urandom(8).hex()}"
    connection.execute(
        "INSERT INTO holders (id, kind, name, parent, created) VALUES (?, ?, ?, ?, ?)",
        (holder, KINDS[kind], name, parent, now),
    )
    return holder


def name_fault(name: str) -> str | None:
    """Why `name` cannot be a holder's or a policy's name; None when it can."""
    if _NAME.fullmatch(name) is not None:
        return None
    return "it has 1 to 64 of A-Z, a-z, 0-9 and _.@+-, and begins with a letter or a digit"


def check_name(store: Store, kind: HolderKind, name: str) -> None:
    """Refuse a name that cannot be (bad_name) or that one in force has (name_taken)."""
    if (wrong := name_fault(name)) is not None:
        article = "an" if kind == "org" else "a"
        raise GatewayError(
            f'"{name}" cannot be the name of {article} {KINDS[kind]}.',
            why=f"{wrong[:1].upper()}{wrong[1:]}.",
            next=f"mcpgw {kind} {'create' if kind == 'key' else 'add'} --help",
            code="bad_name",
            exit=Exit.USAGE,
        )
    taken = store.query(
        "SELECT name FROM holders WHERE kind = ? AND revoked IS NULL AND name = ?",
        (KINDS[kind], name),
    )
    if taken:
        article = "an" if kind == "org" else "a"
        raise GatewayError(
            f'There is {article} {KINDS[kind]} called "{taken[0][0]}" already.',
            why=f"Names of {KINDS[kind]}s are unique, upper and lower case count as one.",
            next=f"mcpgw key rotate {taken[0][0]}"
            if kind == "key"
            else f"mcpgw {kind} show {taken[0][0]}",
            code="name_taken",
            exit=Exit.MISSING,
        )


def rename(
    store: Store, connection: sqlite3.Connection, kind: HolderKind, old: Holder, name: str
) -> None:
    """Raises GatewayError: bad_name, name_taken."""
    if name == old.name:
        return
    if name.lower() != old.name.lower():
        check_name(store, kind, name)
    connection.execute("UPDATE holders SET name = ? WHERE id = ?", (name, old.id))


def set_parent(connection: sqlite3.Connection, holder: str, parent: str | None) -> None:
    """Move a key to a team, or a team to an organization; None: out of it."""
    connection.execute("UPDATE holders SET parent = ? WHERE id = ?", (parent, holder))


def set_enabled(connection: sqlite3.Connection, holder: str, enabled: bool) -> None:
    connection.execute("UPDATE holders SET enabled = ? WHERE id = ?", (int(enabled), holder))


def set_restricted(connection: sqlite3.Connection, holder: str, restricted: bool) -> None:
    """Whether its grants are all it allows; without, they are forgotten."""
    if not restricted:
        targets.clear(connection, targets.HOLDERS, holder, "allow")
    connection.execute("UPDATE holders SET restricted = ? WHERE id = ?", (int(restricted), holder))


def give(
    store: Store,
    connection: sqlite3.Connection,
    holder: str,
    effect: Literal["allow", "deny"],
    words: Sequence[str],
) -> None:
    """Add grants or denies. Raises no_such_server, no_such_group, bad_target."""
    targets.write(store, connection, targets.HOLDERS, holder, effect, words)
    if words and effect == "allow":
        connection.execute(
            "UPDATE holders SET restricted = 1 WHERE id = ? AND restricted = 0", (holder,)
        )


def view(holder: Holder) -> dict[str, object]:
    """A holder as JSON members for the audit: no id, targets as words."""
    shown: dict[str, object] = {
        field: getattr(holder, field)
        for field in holder.__struct_fields__
        if field not in ("id", "created", "targets", "deny_targets")
    }
    shown["grants"] = None if holder.grants is None else holder.targets
    shown["denies"] = holder.deny_targets
    return shown


def _alter(
    store: Store,
    connection: sqlite3.Connection,
    kind: HolderKind,
    old: Holder,
    *,
    name: str | UnsetType,
    enabled: bool | UnsetType,
    ceiling: bool | UnsetType,
) -> None:
    if name is not UNSET:
        rename(store, connection, kind, old, name)
    if enabled is not UNSET:
        set_enabled(connection, old.id, enabled)
    if ceiling is not UNSET:
        set_restricted(connection, old.id, ceiling)


def _recorded(
    store: Store, connection: sqlite3.Connection, action: str, old: Holder, new: Holder
) -> None:
    if new != old:
        before, after = audit.difference(view(old), view(new))
        audit.record(connection, store, action, old.name, before=before, after=after)


def _delete(
    store: Store,
    connection: sqlite3.Connection,
    kind: HolderKind,
    holder: Holder,
    child: HolderKind,
) -> None:
    found = store.query("SELECT name FROM holders WHERE parent = ? ORDER BY name", (holder.id,))
    if found:
        names = [row[0] for row in found]
        told = ", ".join(names[:NAMES_TOLD]) + (", …" if len(names) > NAMES_TOLD else "")
        instead = (
            f"mcpgw key revoke {names[0]}" if child == "key" else f"mcpgw team remove {names[0]}"
        )
        raise GatewayError(
            f'The {KINDS[kind]} "{holder.name}" is in use.',
            why=f"It has the {child}{'s' if len(names) > 1 else ''} {told}, which would be free "
            "of what it restricts.",
            next=f"{instead}, or mcpgw {kind} disable {holder.name}",
            code=f"{KINDS[kind]}_in_use",
            exit=Exit.MISSING,
        )
    connection.execute("DELETE FROM holders WHERE id = ?", (holder.id,))

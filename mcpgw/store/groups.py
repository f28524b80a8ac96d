"""Groups: named sets of servers and of what they have, granted and denied as one.

A group's name stands in the one namespace of servers and aliases, so that `/mcp/@NAME` and
`x-mcp-servers` can only mean one thing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, targets
from mcpgw.store.db import Store
from mcpgw.store.registry import check_free, check_new_name, missing


class Group(Struct, frozen=True, kw_only=True):
    """A group. targets: as typed; members: the same on server ids. created: since the epoch."""

    id: str
    name: str
    created: float
    targets: tuple[str, ...]
    members: tuple[Target, ...]


def add_group(store: Store, name: str, words: Sequence[str]) -> Group:
    """A new group. Raises GatewayError: bad_name, name_taken, no_such_server, bad_target."""
    check_new_name(name, "group")
    with store.change() as connection:
        check_free(store, name)
        group = f"grp_{os.urandom(8).hex()}"
        connection.execute("INSERT INTO names (name, kind) VALUES (?, 'group')", (name,))
        connection.execute(
            "INSERT INTO groups (id, name, created) VALUES (?, ?, ?)", (group, name, time.time())
        )
        targets.write(store, connection, targets.GROUPS, group, "allow", words)
        made = get_group(store, name)
        audit.record(connection, store, "group.add", made.name, after=_view(made))
    return made


def list_groups(store: Store) -> list[Group]:
    """All groups by name."""
    with store.reading():
        return _load(store, store.query("SELECT id, name, created FROM groups ORDER BY name"))


def get_group(store: Store, name: str) -> Group:
    """The group of this name. Raises no_such_group."""
    with store.reading():
        found = _load(
            store, store.query("SELECT id, name, created FROM groups WHERE name = ?", (name,))
        )
        if not found:
            known = [row[0] for row in store.query("SELECT name FROM groups")]
            raise missing("group", name, known, known, add="mcpgw group add NAME TARGET")
    return found[0]


def set_group(
    store: Store,
    group: str,
    /,
    *,
    name: str | UnsetType = UNSET,
    targets: Sequence[str] | UnsetType = UNSET,
) -> Group:
    """Rename a group, or give it other targets, all of them.

    Raises GatewayError: no_such_group, bad_name, name_taken, no_such_server, bad_target.
    """
    with store.change() as connection:
        old = get_group(store, group)
        if name is not UNSET and name != old.name:
            check_new_name(name, "group")
            if name.lower() != old.name.lower():
                check_free(store, name)
            connection.execute("UPDATE names SET name = ? WHERE name = ?", (name, old.name))
            # No cascade follows where only the case is another.
            connection.execute("UPDATE groups SET name = ? WHERE id = ?", (name, old.id))
        if targets is not UNSET:
            _refill(store, old.id, targets)
        new = get_group(store, old.name if name is UNSET else name)
        if new != old:
            before, after = audit.difference(_view(old), _view(new))
            audit.record(connection, store, "group.set", old.name, before=before, after=after)
    return new


def remove_group(store: Store, name: str) -> Group:
    """Take a group out, with every grant of it. Raises no_such_group, and group_in_use.

    One that somebody is denied stays: without it they might use more.
    """
    with store.change() as connection:
        group = get_group(store, name)
        denied = store.query(_DENIED, (group.id, group.id))
        if denied:
            kind, holder = denied[0]
            typed = "org" if kind == "organization" else kind
            instead = (
                f"mcpgw policy remove {holder}"
                if kind == "policy"
                else f"mcpgw {typed} ungrant {holder} group:{group.name}"
            )
            raise GatewayError(
                f'The group "{group.name}" is in use.',
                why=f"The {kind} {holder} denies it, and would not any more.",
                next=instead,
                code="group_in_use",
                exit=Exit.MISSING,
            )
        connection.execute("DELETE FROM group_grants WHERE named = ?", (group.id,))
        connection.execute("DELETE FROM names WHERE name = ? AND kind = 'group'", (group.name,))
        audit.record(connection, store, "group.remove", group.name, before=_view(group))
    return group


_DENIED = """SELECT h.kind, h.name FROM group_grants g JOIN holders h ON h.id = g.holder
    WHERE g.named = ? AND g.effect = 'deny' AND h.revoked IS NULL
    UNION ALL SELECT 'policy', p.name FROM policy_group_rules r JOIN policies p ON p.id = r.policy
    WHERE r.named = ?"""


def _refill(store: Store, group: str, words: Sequence[str]) -> None:
    with store.change() as connection:
        targets.clear(connection, targets.GROUPS, group, "allow")
        targets.write(store, connection, targets.GROUPS, group, "allow", words)


def _load(store: Store, rows: Sequence[Sequence[object]]) -> list[Group]:
    held = targets.read(store, targets.GROUPS)
    names = targets.names(store)
    found: list[Group] = []
    for id, name, created in rows:
        rules = held.get((str(id), "allow"), ())
        found.append(
            Group(
                id=str(id),
                name=str(name),
                created=float(str(created)),
                targets=tuple(targets.words(one, names) for one in rules),
                members=tuple(one for one in rules if isinstance(one, Target)),
            )
        )
    return found


def _view(group: Group) -> dict[str, object]:
    return {"name": group.name, "targets": group.targets}

"""Policies: denies, rates, quotas and conditions under one name, attached to who holds grants.

A policy only ever takes away. What it says of rates, quotas and conditions is kept as it was
typed.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, targets
from mcpgw.store.db import Store
from mcpgw.store.holders import KINDS, HolderKind
from mcpgw.store.permits import holder_of
from mcpgw.store.registry import missing

MAX_CONDITION: Final = 4096  # characters of an expression

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")
_RATE = re.compile(r"[1-9][0-9]{0,8}/[smh]")
_QUOTA = re.compile(r"[1-9][0-9]{0,11}/[hd]")
_TYPED: Final = {stored: typed for typed, stored in KINDS.items()}


class Policy(Struct, frozen=True, kw_only=True):
    """A policy. deny_targets: as typed; denies: the same on server ids, groups taken apart.

    attached: `key:NAME`, `team:NAME`, `org:NAME`. created: seconds since the epoch.
    """

    id: str
    name: str
    created: float
    denies: tuple[Target, ...]
    deny_targets: tuple[str, ...]
    rate: str | None
    quota: str | None
    when: str | None
    attached: tuple[str, ...]


def add_policy(
    store: Store,
    name: str,
    *,
    denies: Sequence[str] = (),
    rate: str | None = None,
    quota: str | None = None,
    when: str | None = None,
) -> Policy:
    """A new policy. rate: such as `60/m`; quota: such as `10000/d`; when: an expression.

    Raises GatewayError: bad_name, name_taken, bad_policy, no_such_server, no_such_group,
    bad_target.
    """
    check(name, rate, quota, when)
    with store.change() as connection:
        taken = store.query("SELECT name FROM policies WHERE name = ?", (name,))
        if taken:
            raise GatewayError(
                f'There is a policy called "{taken[0][0]}" already.',
                why="Names of policies are unique, upper and lower case count as one.",
                next=f"mcpgw policy show {taken[0][0]}",
                code="name_taken",
                exit=Exit.MISSING,
            )
        policy = f"pol_{os.urandom(8).hex()}"
        connection.execute(
            "INSERT INTO policies (id, name, rate, quota, condition, created) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (policy, name, rate, quota, when, time.time()),
        )
        targets.write(store, connection, targets.POLICIES, policy, "deny", denies)
        made = get_policy(store, name)
        audit.record(connection, store, "policy.add", made.name, after=_view(made))
    return made


def list_policies(store: Store) -> list[Policy]:
    """All policies by name."""
    with store.reading():
        return _load(store, store.query("SELECT * FROM policies ORDER BY name"))


def get_policy(store: Store, name: str) -> Policy:
    """The policy of this name. Raises no_such_policy."""
    with store.reading():
        found = _load(store, store.query("SELECT * FROM policies WHERE name = ?", (name,)))
        if not found:
            known = [row[0] for row in store.query("SELECT name FROM policies")]
            raise missing("policy", name, known, known, add="mcpgw policy add NAME --deny TARGET")
    return found[0]


def set_policy(
    store: Store,
    policy: str,
    /,
    *,
    name: str,
    denies: Sequence[str],
    rate: str | None,
    quota: str | None,
    when: str | None,
) -> Policy:
    """Make a policy say this and nothing else; who has it keeps it.

    name: its own, as it is to be spelled. Raises what `add_policy` raises, and no_such_policy.
    """
    check(name, rate, quota, when)
    with store.change() as connection:
        old = get_policy(store, policy)
        connection.execute(
            "UPDATE policies SET name = ?, rate = ?, quota = ?, condition = ? WHERE id = ?",
            (name, rate, quota, when, old.id),
        )
        targets.clear(connection, targets.POLICIES, old.id, "deny")
        targets.write(store, connection, targets.POLICIES, old.id, "deny", denies)
        new = get_policy(store, name)
        if new != old:
            before, after = audit.difference(_view(old), _view(new))
            audit.record(connection, store, "policy.set", old.name, before=before, after=after)
    return new


def remove_policy(store: Store, name: str) -> Policy:
    """Take a policy out. Raises no_such_policy, and policy_in_use while it is attached."""
    with store.change() as connection:
        policy = get_policy(store, name)
        first = next(iter(policy.attached), None)
        if first is not None:
            told = ", ".join(policy.attached[:5]) + (", …" if len(policy.attached) > 5 else "")
            raise GatewayError(
                f'The policy "{policy.name}" is in use.',
                why=f"It is attached to {told}, which might use more without it.",
                next=f"mcpgw policy detach {policy.name} {first}",
                code="policy_in_use",
                exit=Exit.MISSING,
            )
        # Revoked keys stay listed, and may have it still.
        connection.execute("DELETE FROM attachments WHERE policy = ?", (policy.id,))
        connection.execute("DELETE FROM policies WHERE id = ?", (policy.id,))
        audit.record(connection, store, "policy.remove", policy.name, before=_view(policy))
    return policy


def attach_policy(store: Store, policy: str, holder: HolderKind, name: str) -> Policy:
    """Let a policy hold for a key, or for the keys of a team or an organization.

    Attaching it again changes nothing. Raises GatewayError: no_such_policy, no_such_key,
    no_such_team, no_such_organization, key_revoked.
    """
    with store.change() as connection:
        old = get_policy(store, policy)
        whom = holder_of(store, holder, name)
        connection.execute(
            "INSERT OR IGNORE INTO attachments (policy, holder) VALUES (?, ?)", (old.id, whom.id)
        )
        return _recorded(store, connection, "policy.attach", old)


def detach_policy(store: Store, policy: str, holder: HolderKind, name: str) -> Policy:
    """The opposite. Raises what `attach_policy` raises, and not_attached."""
    with store.change() as connection:
        old = get_policy(store, policy)
        whom = holder_of(store, holder, name)
        cursor = connection.execute(
            "DELETE FROM attachments WHERE policy = ? AND holder = ?", (old.id, whom.id)
        )
        if not cursor.rowcount:
            raise GatewayError(
                f'The policy "{old.name}" is not attached to the {KINDS[holder]} "{whom.name}".',
                why=f"It is attached to {', '.join(old.attached)}."
                if old.attached
                else "It is attached to nobody.",
                next=f"mcpgw policy show {old.name}",
                code="not_attached",
                exit=Exit.MISSING,
            )
        return _recorded(store, connection, "policy.detach", old)


def _load(store: Store, rows: Sequence[sqlite3.Row]) -> list[Policy]:
    rules = targets.read(store, targets.POLICIES)
    groups, names = targets.groups(store), targets.names(store)
    attached: dict[str, list[str]] = {}
    for policy, kind, name in store.query(
        "SELECT a.policy, h.kind, h.name FROM attachments a JOIN holders h ON h.id = a.holder "
        "WHERE h.revoked IS NULL ORDER BY h.kind, h.name"
    ):
        attached.setdefault(policy, []).append(f"{_TYPED[kind]}:{name}")
    return [
        Policy(
            id=row["id"],
            name=row["name"],
            created=row["created"],
            denies=targets.expanded(rules.get((row["id"], "deny"), ()), groups),
            deny_targets=tuple(
                targets.words(one, names) for one in rules.get((row["id"], "deny"), ())
            ),
            rate=row["rate"],
            quota=row["quota"],
            when=row["condition"],
            attached=tuple(attached.get(row["id"], ())),
        )
        for row in rows
    ]


def _recorded(store: Store, connection: sqlite3.Connection, action: str, old: Policy) -> Policy:
    new = get_policy(store, old.name)
    if new != old:
        before, after = audit.difference(_view(old), _view(new))
        audit.record(connection, store, action, old.name, before=before, after=after)
    return new


def _view(policy: Policy) -> dict[str, object]:
    return {
        "denies": policy.deny_targets,
        "rate": policy.rate,
        "quota": policy.quota,
        "when": policy.when,
        "attached": policy.attached,
    }


def check(name: str, rate: str | None, quota: str | None, when: str | None) -> None:
    """Refuse what a policy cannot say (bad_name, bad_policy)."""
    if _NAME.fullmatch(name) is None:
        raise GatewayError(
            f'"{name}" cannot be the name of a policy.',
            why="It has 1 to 64 of A-Z, a-z, 0-9 and _.@+-, and begins with a letter or a digit.",
            next="mcpgw policy add --help",
            code="bad_name",
            exit=Exit.USAGE,
        )
    why = None
    if rate is not None and _RATE.fullmatch(rate) is None:
        why = "A rate is a number of calls per second, minute or hour: 5/s, 60/m, 1000/h."
    elif quota is not None and _QUOTA.fullmatch(quota) is None:
        why = "A quota is a number of calls per hour or day: 500/h, 10000/d."
    elif when is not None and not 0 < len(when.strip()) <= MAX_CONDITION:
        why = f"A condition is an expression of at most {MAX_CONDITION} characters."
    if why is not None:
        raise GatewayError(
            f'The policy "{name}" cannot be stored like this.',
            why=why,
            next="mcpgw policy add --help",
            code="bad_policy",
            exit=Exit.USAGE,
        )

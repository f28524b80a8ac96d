"""Everything configured, at one moment, as the request path wants it: frozen and looked up by id.

Broken configuration never means allow: a server whose secrets cannot be had is marked unusable;
keys that are revoked, expired or disabled, or whose team or organization is, are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from mcpgw.errors import GatewayError
from mcpgw.model.config import Level, Principal, Server, Snapshot, Target
from mcpgw.model.ports import Secrets
from mcpgw.store import targets
from mcpgw.store.db import Store
from mcpgw.store.looks import is_reference
from mcpgw.store.registry import list_servers
from mcpgw.store.secrets import Resolver

DISABLED: Final = "disabled"
REVOKED: Final = "revoked"
EXPIRED: Final = "expired"


def build(store: Store, secrets: Secrets, *, now: float) -> Snapshot:
    """The snapshot of `store` at `now` (seconds since the epoch); every reference is tried.

    Raises the store's GatewayErrors, none for a secret that is missing.
    """
    with store.reading():
        generation = store.generation()
        servers = {one.id: one for one in list_servers(store) if one.enabled}
        groups = targets.groups(store)
        group_names = {
            row["name"].lower(): row["id"] for row in store.query("SELECT id, name FROM groups")
        }
        keys, principals = _principals(store, groups, now)
    if isinstance(secrets, Resolver):
        secrets.refresh()
    faults = {one.id: _fault(one, secrets) for one in servers.values()}
    return Snapshot(
        generation=generation,
        servers=servers,
        names={
            name.lower(): one.id for one in servers.values() for name in (one.name, *one.aliases)
        },
        prefixes={one.prefix: one.id for one in servers.values()},
        keys=keys,
        principals=principals,
        unusable={server_id: fault for server_id, fault in faults.items() if fault is not None},
        groups=groups,
        group_names=group_names,
    )


def principal_of(store: Store, key: str, *, now: float) -> Principal:
    """The key with this id as a principal, also when it may not act: its levels say why.

    Raises KeyError when there is no such key.
    """
    with store.reading():
        levels = _Levels(store, targets.groups(store), now)
        for row in store.query(_KEYS + " AND h.id = ?", (key,)):
            return levels.principal(row)
    raise KeyError(key)


def references(server: Server) -> list[str]:
    """Every reference that a server needs, each once."""
    values = (server.secret, *server.headers.values(), *server.env.values())
    return list(dict.fromkeys(one for one in values if one is not None and is_reference(one)))


def _fault(server: Server, secrets: Secrets) -> str | None:
    for reference in references(server):
        try:
            secrets.resolve(reference)
        except GatewayError as error:
            return f'server "{server.name}": {" ".join(filter(None, (error.what, error.why)))}'
    return None


_KEYS: Final = """SELECT h.id, h.name, h.parent, h.restricted, h.enabled, h.revoked, k.expires
    FROM holders h JOIN keys k ON k.holder = h.id WHERE h.kind = 'key'"""
_ABOVE: Final = """SELECT id, kind, name, parent, restricted, enabled, NULL AS revoked,
    NULL AS expires FROM holders WHERE kind <> 'key'"""


class _Levels:
    """Makes the ladder of each key; what is above many keys is made once."""

    def __init__(self, store: Store, groups: Mapping[str, tuple[Target, ...]], now: float) -> None:
        self._now = now
        self._groups = groups
        above = store.query(_ABOVE)
        self._rules = targets.read(store, targets.HOLDERS)
        self._policies = _policy_denies(store, groups)
        self._sets: dict[tuple[Target, ...], tuple[Target, ...]] = {}
        self._above: dict[str | None, tuple[Level, ...]] = {None: ()}
        for kind in ("organization", "team"):
            for row in above:
                if row["kind"] == kind:
                    self._above[row["id"]] = (self.level(row, kind), *self._above[row["parent"]])

    def principal(self, row: sqlite3.Row) -> Principal:
        """A row of _KEYS as a principal."""
        return Principal(
            id=row["id"],
            name=row["name"],
            kind="key",
            levels=(self.level(row, "key"), *self._above[row["parent"]]),
            expires=row["expires"],
        )

    def level(self, row: sqlite3.Row, kind: str) -> Level:
        """One holder's step."""
        denies = self._targets(row["id"], "deny")
        if (policies := self._policies.get(row["id"])) is not None:
            denies = self._shared((*denies, *policies))
        grants = self._targets(row["id"], "allow") if row["restricted"] else None
        return Level(kind, row["name"], grants, denies, self._closed(row))

    def _closed(self, row: sqlite3.Row) -> str:
        if row["revoked"] is not None:
            return REVOKED
        if row["expires"] is not None and row["expires"] <= self._now:
            return EXPIRED
        return "" if row["enabled"] else DISABLED

    def _targets(self, holder: str, effect: str) -> tuple[Target, ...]:
        rules = self._rules.get((holder, effect))
        return () if rules is None else self._shared(targets.expanded(rules, self._groups))

    def _shared(self, found: tuple[Target, ...]) -> tuple[Target, ...]:
        """Many keys are granted the same: they share one tuple of it."""
        return self._sets.setdefault(found, found)


def _policy_denies(
    store: Store, groups: Mapping[str, tuple[Target, ...]]
) -> dict[str, tuple[Target, ...]]:
    """What attached policies deny, by the holder's id; each target tells its policy."""
    rules = targets.read(store, targets.POLICIES)
    found: dict[str, tuple[Target, ...]] = {}
    denies: dict[str, tuple[Target, ...]] = {}
    for holder, policy, name in store.query(
        "SELECT a.holder, p.id, p.name FROM attachments a JOIN policies p ON p.id = a.policy "
        "ORDER BY a.id"
    ):
        if policy not in denies:
            denies[policy] = tuple(
                replace(one, via=", ".join(filter(None, (f"policy {name}", one.via))))
                for one in targets.expanded(rules.get((policy, "deny"), ()), groups)
            )
        found[holder] = (*found.get(holder, ()), *denies[policy])
    return found


def _principals(
    store: Store, groups: Mapping[str, tuple[Target, ...]], now: float
) -> tuple[dict[bytes, Principal], dict[str, Principal]]:
    """Principals in force, by the digest of each secret that works now, and by id."""
    levels = _Levels(store, groups, now)
    made = (levels.principal(row) for row in store.query(_KEYS + " AND h.revoked IS NULL"))
    principals = {one.id: one for one in made if not any(level.closed for level in one.levels)}
    keys: dict[bytes, Principal] = {}
    for digest, key_id, until in store.query(
        "SELECT hash, key, until FROM key_secrets WHERE until IS NULL OR until > ?", (now,)
    ):
        if (principal := principals.get(key_id)) is None:
            continue
        if until is not None:
            # The grace ends by itself, as an expiry that only the old secret has.
            ends = until if principal.expires is None else min(until, principal.expires)
            principal = replace(principal, expires=ends)
        keys[digest] = principal
    return keys, principals

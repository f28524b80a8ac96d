"""Keys: random secrets of which the store keeps a digest, and what each may use.

A secret has 256 random bits, so that a plain SHA-256 is as good as a slow hash, and can be looked
up. Keys hold grants; a key whose grants were all taken away is left with nothing, never with what
it would have without any.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import audit, holders
from mcpgw.store.db import Store
from mcpgw.store.registry import missing

PREFIX: Final = "mcpgw_"
SHOWN: Final = len(PREFIX) + 6  # characters of a secret that the store keeps readable
SHOWN_FOREIGN: Final = 4  # the same of a secret that was brought along, which may be short

_FOREIGN = re.compile(r"[!-~]{16,1024}")


class Key(holders.Holder, frozen=True, kw_only=True):
    """A key without its secret. Times are seconds since the epoch.

    start: the first characters of the present secret. grants None: none was ever given, so the key
    has what its team is granted; an empty tuple allows nothing at all. shut: the level above that
    is disabled, "team" or "organization".
    """

    start: str
    expires: float | None
    revoked: float | None
    team: str | None
    org: str | None
    shut: str | None


def create_key(
    store: Store,
    name: str,
    *,
    team: str | None = None,
    expires: float | None = None,
    grants: Sequence[str] = (),
    now: float,
    secret: str | None = None,
) -> tuple[Key, str]:
    """A new key and its secret, which nobody can tell again. grants: target words.

    secret: one that exists already; else one is made. Raises GatewayError: bad_name, name_taken,
    bad_expiry, bad_secret, secret_taken, no_such_team, no_such_server, bad_target.
    """
    holders.check_name(store, "key", name)
    if expires is not None and not now < expires < math.inf:
        raise _bad_time("A key cannot expire before it is made.")
    if secret is not None:
        check_secret(name, secret)
    secret = secret or _mint()
    with store.change() as connection:
        parent = None if team is None else holders.get_team(store, team).id
        key_id = holders.insert(store, connection, "key", name, now=now, parent=parent)
        connection.execute(
            "INSERT INTO keys (holder, start, expires) VALUES (?, ?, ?)",
            (key_id, _start(secret), expires),
        )
        _keep(store, connection, key_id, secret)
        holders.give(store, connection, key_id, "allow", grants)
        key = get_key(store, name)
        audit.record(connection, store, "key.create", key.name, after=_view(key))
    return key, secret


def list_keys(store: Store) -> list[Key]:
    """All keys by name, revoked ones too."""
    with store.reading():
        return _load(store)


def get_key(store: Store, name: str) -> Key:
    """The key of this name; the last revoked one when none is in force. Raises no_such_key."""
    with store.reading():
        found = _load(store, _IN_FORCE, (name,)) or _load(store, _LATEST, (name,))
        if not found:
            names = [row[0] for row in store.query(_NAMES_IN_FORCE)]
            raise missing("key", name, names, names, add="mcpgw key create NAME --grant SERVER")
    return found[0]


def set_key(
    store: Store,
    key: str,
    /,
    *,
    name: str | UnsetType = UNSET,
    team: str | UnsetType | None = UNSET,
    enabled: bool | UnsetType = UNSET,
    expires: float | UnsetType | None = UNSET,
    inherit: bool | UnsetType = UNSET,
) -> Key:
    """Change a key in force. team None: it is in none; expires None: it never does.

    inherit True: it forgets its own grants and has its team's again; False: it has only its own
    from now on, be there none. Raises GatewayError: no_such_key, key_revoked, no_such_team,
    bad_name, name_taken, bad_expiry.
    """
    with store.change() as connection:
        old = in_force(store, key)
        if team is not UNSET:
            parent = None if team is None else holders.get_team(store, team).id
            holders.set_parent(connection, old.id, parent)
        if name is not UNSET:
            holders.rename(store, connection, "key", old, name)
        if enabled is not UNSET:
            holders.set_enabled(connection, old.id, enabled)
        if inherit is not UNSET:
            holders.set_restricted(connection, old.id, not inherit)
        if expires is not UNSET:
            if expires is not None and not 0 <= expires < math.inf:
                raise _bad_time("It is no moment.")
            connection.execute("UPDATE keys SET expires = ? WHERE holder = ?", (expires, old.id))
        return recorded(
            store, connection, "key.set", old, get_key(store, old.name if name is UNSET else name)
        )


def rotate_key(store: Store, name: str, *, grace: float, now: float) -> tuple[Key, str]:
    """A new secret for a key; the old one works for `grace` seconds more.

    Raises GatewayError: no_such_key, key_revoked, key_expired, bad_expiry.
    """
    if not 0 <= grace < float("inf"):
        raise _bad_time("The old secret cannot go on working for that long.")
    secret = _mint()
    with store.change() as connection:
        key = in_force(store, name)
        if key.expires is not None and key.expires <= now:
            raise GatewayError(
                f'The key "{key.name}" has expired.',
                why="A new secret would not work either.",
                next=f"mcpgw key revoke {key.name}, then mcpgw key create {key.name}",
                code="key_expired",
                exit=Exit.DENIED,
            )
        connection.execute(
            "UPDATE key_secrets SET until = ? WHERE key = ? AND until IS NULL",
            (now + grace, key.id),
        )
        connection.execute("DELETE FROM key_secrets WHERE key = ? AND until <= ?", (key.id, now))
        _keep(store, connection, key.id, secret)
        connection.execute("UPDATE keys SET start = ? WHERE holder = ?", (secret[:SHOWN], key.id))
        new = get_key(store, name)
        audit.record(
            connection,
            store,
            "key.rotate",
            key.name,
            before={"start": key.start},
            after={"start": new.start, "old_works_until": now + grace},
        )
    return new, secret


def set_secret(store: Store, name: str, secret: str) -> Key:
    """Give a key a secret that exists already; every other secret of it ends at once.

    Raises GatewayError: no_such_key, key_revoked, bad_secret, secret_taken.
    """
    check_secret(name, secret)
    with store.change() as connection:
        old = in_force(store, name)
        connection.execute("DELETE FROM key_secrets WHERE key = ?", (old.id,))
        _keep(store, connection, old.id, secret)
        connection.execute("UPDATE keys SET start = ? WHERE holder = ?", (_start(secret), old.id))
        new = get_key(store, name)
        starts = {"start": old.start}, {"start": new.start}
        audit.record(connection, store, "key.rotate", old.name, before=starts[0], after=starts[1])
    return new


def forget_secret(store: Store, name: str) -> None:
    """Let no secret of a key work any more, until it gets another.

    Raises GatewayError: no_such_key, key_revoked.
    """
    with store.change() as connection:
        key = in_force(store, name)
        if connection.execute("DELETE FROM key_secrets WHERE key = ?", (key.id,)).rowcount:
            audit.record(connection, store, "key.close", key.name, before={"start": key.start})


def check_secret(name: str, secret: str) -> None:
    """Refuse what cannot be the secret of the key `name` (bad_secret)."""
    if _FOREIGN.fullmatch(secret) is None:
        raise GatewayError(
            f'That cannot be the secret of the key "{name}".',
            why="A secret has 16 to 1024 printable ASCII characters and no blanks.",
            next=f"mcpgw key create {name}",
            code="bad_secret",
            exit=Exit.USAGE,
        )


def digests(store: Store) -> dict[str, frozenset[bytes]]:
    """SHA-256 of the present secret of each key in force, by its name in lower case."""
    found: dict[str, set[bytes]] = {}
    for name, digest in store.query(
        "SELECT h.name, s.hash FROM key_secrets s JOIN holders h ON h.id = s.key "
        "WHERE s.until IS NULL AND h.revoked IS NULL"
    ):
        found.setdefault(name.lower(), set()).add(digest)
    return {name: frozenset(held) for name, held in found.items()}


def revoke_key(store: Store, name: str, *, now: float) -> Key:
    """End a key for good; its name is free again. Revoking it again changes nothing.

    Raises no_such_key.
    """
    with store.change() as connection:
        key = get_key(store, name)
        if key.revoked is not None:
            return key
        connection.execute("UPDATE holders SET revoked = ? WHERE id = ?", (now, key.id))
        connection.execute("DELETE FROM key_secrets WHERE key = ?", (key.id,))
        after = {"revoked": now}
        audit.record(connection, store, "key.revoke", key.name, before=_view(key), after=after)
        return get_key(store, name)


def in_force(store: Store, name: str) -> Key:
    """The key of this name. Raises no_such_key, key_revoked."""
    key = get_key(store, name)
    if key.revoked is not None:
        raise GatewayError(
            f'The key "{key.name}" was revoked.',
            why="A revoked key stays listed and never works again; its name is free.",
            next=f"mcpgw key create {key.name}",
            code="key_revoked",
            exit=Exit.DENIED,
        )
    return key


def recorded(store: Store, connection: sqlite3.Connection, action: str, old: Key, new: Key) -> Key:
    """The new key; the audit has what differs."""
    if new != old:
        before, after = audit.difference(_view(old), _view(new))
        audit.record(connection, store, action, old.name, before=before, after=after)
    return new


# ---------------------------------------------------------------- rows

_NAMES_IN_FORCE = "SELECT name FROM holders WHERE kind = 'key' AND revoked IS NULL"
_SELECT = """SELECT h.*, k.start, k.expires, t.name AS team, o.name AS org,
    CASE 0 WHEN t.enabled THEN t.kind WHEN o.enabled THEN o.kind END AS shut FROM holders h
    JOIN keys k ON k.holder = h.id
    LEFT JOIN holders t ON t.id = h.parent LEFT JOIN holders o ON o.id = t.parent
    WHERE h.kind = 'key' """
_IN_FORCE = "AND h.revoked IS NULL AND h.name = ?"  # apart, for it has an index
_LATEST = "AND h.name = ? ORDER BY h.revoked IS NULL DESC, h.revoked DESC, h.created DESC LIMIT 1"


def _load(
    store: Store, more: str = "ORDER BY h.name, h.created", values: tuple[str, ...] = ()
) -> list[Key]:
    rows = store.query(_SELECT + more, values)
    fields = holders.Fields(store, rows[0]["id"] if len(rows) == 1 else None)
    return [
        Key(
            **fields.of(row),
            start=row["start"],
            expires=row["expires"],
            revoked=row["revoked"],
            team=row["team"],
            org=row["org"],
            shut=row["shut"],
        )
        for row in rows
    ]


def _keep(store: Store, connection: sqlite3.Connection, key_id: str, secret: str) -> None:
    digest = hashlib.sha256(secret.encode()).digest()
    if store.query("SELECT 1 FROM key_secrets WHERE hash = ?", (digest,)):
        raise GatewayError(
            "Another key has that secret already.",
            why="A secret tells which key it is, so no two can share one.",
            next="mcpgw key create NAME",
            code="secret_taken",
            exit=Exit.MISSING,
        )
    connection.execute("INSERT INTO key_secrets (hash, key) VALUES (?, ?)", (digest, key_id))


def _view(key: Key) -> dict[str, object]:
    shown = holders.view(key)
    del shown["org"], shown["revoked"], shown["shut"]
    return shown


def _start(secret: str) -> str:
    return secret[:SHOWN] if secret.startswith(PREFIX) else secret[:SHOWN_FOREIGN]


def _mint() -> str:
    return PREFIX + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def _bad_time(why: str) -> GatewayError:
    return GatewayError(
        "That time cannot be.",
        why=why,
        next="mcpgw key create NAME --expires 90d",
        code="bad_expiry",
        exit=Exit.USAGE,
    )

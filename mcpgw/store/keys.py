"""Keys: random secrets of which the store keeps a digest, and what each may use.

A secret has 256 random bits, so that a plain SHA-256 is as good as a slow hash, and can be looked
up. Keys hold grants; a key whose grants were all taken away is left with nothing, never with what
it would have without any.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from mcpgw.core.access import EVERY_SERVER
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, targets
from mcpgw.store.db import Store
from mcpgw.store.registry import missing

PREFIX: Final = "mcpgw_"
SHOWN: Final = len(PREFIX) + 6  # characters of a secret that the store keeps readable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")


class Key(Struct, frozen=True, kw_only=True):
    """A key without its secret. Times are seconds since the epoch.

    start: the first characters of the present secret. grants None: none was ever given, which
    allows nothing unless a team allows something; an empty tuple allows nothing at all.
    targets, deny_targets: the same as typed words.
    """

    id: str
    name: str
    start: str
    created: float
    expires: float | None
    revoked: float | None
    grants: tuple[Target, ...] | None
    denies: tuple[Target, ...]
    targets: tuple[str, ...]
    deny_targets: tuple[str, ...]


def create_key(
    store: Store,
    name: str,
    *,
    expires: float | None = None,
    grants: Sequence[str] = (),
    now: float,
) -> tuple[Key, str]:
    """A new key and its secret, which nobody can tell again. grants: target words.

    Raises GatewayError: bad_name, name_taken, bad_expiry, no_such_server, bad_target.
    """
    if _NAME.fullmatch(name) is None:
        raise GatewayError(
            f'"{name}" cannot be the name of a key.',
            why="It has 1 to 64 of A-Z, a-z, 0-9 and _.@+-, and begins with a letter or a digit.",
            next="mcpgw key create --help",
            code="bad_name",
            exit=Exit.USAGE,
        )
    if expires is not None and expires <= now:
        raise _bad_time("A key cannot expire before it is made.")
    key_id, secret = f"key_{os.urandom(8).hex()}", _mint()
    with store.change() as connection:
        if taken := _taken(store, name):
            raise GatewayError(
                f'There is a key called "{taken}" already.',
                why="Names of keys are unique, upper and lower case count as one.",
                next=f"mcpgw key rotate {taken}",
                code="name_taken",
                exit=Exit.MISSING,
            )
        connection.execute(
            "INSERT INTO holders (id, kind, name, created) VALUES (?, 'key', ?, ?)",
            (key_id, name, now),
        )
        connection.execute(
            "INSERT INTO keys (holder, start, expires) VALUES (?, ?, ?)",
            (key_id, secret[:SHOWN], expires),
        )
        _keep(connection, key_id, secret)
        _allow(store, connection, key_id, "allow", grants)
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
        found = _load(store, _LATEST, (name,))
        if not found:
            names = [row[0] for row in store.query(_NAMES_IN_FORCE)]
            raise missing("key", name, names, names, add="mcpgw key create NAME --grant SERVER")
    return found[0]


def rotate_key(store: Store, name: str, *, grace: float, now: float) -> tuple[Key, str]:
    """A new secret for a key; the old one works for `grace` seconds more.

    Raises GatewayError: no_such_key, key_revoked, key_expired, bad_expiry.
    """
    if not 0 <= grace < float("inf"):
        raise _bad_time("The old secret cannot go on working for that long.")
    secret = _mint()
    with store.change() as connection:
        key = _in_force(store, name)
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
        _keep(connection, key.id, secret)
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


def grant(store: Store, name: str, words: Sequence[str]) -> Key:
    """Let a key use what the words name. Raises no_such_key, no_such_server, bad_target."""
    return _give(store, name, "allow", words)


def deny(store: Store, name: str, words: Sequence[str]) -> Key:
    """Never let a key use what the words name. Raises no_such_key, no_such_server, bad_target."""
    return _give(store, name, "deny", words)


def ungrant(store: Store, name: str, words: Sequence[str]) -> Key:
    """Take back what was granted in these words or, where nothing was, what was denied in them.

    All or nothing. Raises no_such_key, no_such_server, bad_target, no_such_grant.
    """
    with store.change() as connection:
        key = _in_force(store, name)
        for word in words:
            target = targets.parse(store, word)
            if not _take(connection, key.id, target):
                held = [*key.targets, *(f"{one} (denied)" for one in key.deny_targets)]
                raise GatewayError(
                    f'The key "{key.name}" has neither a grant nor a deny of "{word}".',
                    why=f"It has: {', '.join(held)}." if held else "It has none at all.",
                    next=f"mcpgw key show {key.name}",
                    code="no_such_grant",
                    exit=Exit.MISSING,
                )
        return _recorded(store, connection, "key.ungrant", key)


# ---------------------------------------------------------------- rows

_NAMES_IN_FORCE = "SELECT name FROM holders WHERE kind = 'key' AND revoked IS NULL"
_SELECT = (
    "SELECT h.id, h.name, k.start, h.created, k.expires, h.revoked, h.restricted "
    "FROM holders h JOIN keys k ON k.holder = h.id WHERE h.kind = 'key' "
)


def read_grants(
    store: Store, holder: str | None = None
) -> dict[tuple[str, str], tuple[Target, ...]]:
    """Targets by (holder's id, "allow" or "deny"), oldest first; of all holders or of one."""
    where = "" if holder is None else "WHERE holder = ?"
    rows = store.query(
        f"SELECT holder, effect, server, kind, glob FROM grants {where} ORDER BY id",  # noqa: S608
        () if holder is None else (holder,),
    )
    found: dict[tuple[str, str], list[Target]] = {}
    for one, effect, server, kind, glob in rows:
        found.setdefault((one, effect), []).append(Target(server or EVERY_SERVER, kind, glob))
    return {key: tuple(value) for key, value in found.items()}


def _load(
    store: Store, more: str = "ORDER BY h.name, h.created", values: tuple[str, ...] = ()
) -> list[Key]:
    rows = store.query(_SELECT + more, values)
    grants = read_grants(store, rows[0]["id"] if len(rows) == 1 else None)
    names = {row[0]: row[1] for row in store.query(_SERVER_NAMES)}
    return [_key(row, grants, names) for row in rows]


_LATEST = "AND h.name = ? ORDER BY h.revoked IS NULL DESC, h.revoked DESC, h.created DESC LIMIT 1"
_SERVER_NAMES = "SELECT server, name FROM names WHERE kind = 'server'"


def _key(
    row: sqlite3.Row,
    grants: dict[tuple[str, str], tuple[Target, ...]],
    names: dict[str, str],
) -> Key:
    allowed = grants.get((row["id"], "allow"), ())
    denied = grants.get((row["id"], "deny"), ())
    return Key(
        id=row["id"],
        name=row["name"],
        start=row["start"],
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        grants=allowed if row["restricted"] else None,
        denies=denied,
        targets=tuple(targets.words(one, names) for one in allowed),
        deny_targets=tuple(targets.words(one, names) for one in denied),
    )


def _taken(store: Store, name: str) -> str | None:
    """The name as the key in force that has it spells it."""
    rows = store.query(_NAMES_IN_FORCE + " AND name = ?", (name,))
    return rows[0][0] if rows else None


def _in_force(store: Store, name: str) -> Key:
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


def _keep(connection: sqlite3.Connection, key_id: str, secret: str) -> None:
    digest = hashlib.sha256(secret.encode()).digest()
    connection.execute("INSERT INTO key_secrets (hash, key) VALUES (?, ?)", (digest, key_id))


def _give(store: Store, name: str, effect: str, words: Sequence[str]) -> Key:
    with store.change() as connection:
        key = _in_force(store, name)
        _allow(store, connection, key.id, effect, words)
        action = "key.grant" if effect == "allow" else "key.deny"
        return _recorded(store, connection, action, key)


def _allow(
    store: Store,
    connection: sqlite3.Connection,
    holder: str,
    effect: str,
    words: Sequence[str],
) -> None:
    for word in words:
        target = targets.parse(store, word)
        server = None if target.server == EVERY_SERVER else target.server
        connection.execute(
            "INSERT OR IGNORE INTO grants (holder, effect, server, kind, glob) "
            "VALUES (?, ?, ?, ?, ?)",
            (holder, effect, server, target.kind, target.glob),
        )
    if words and effect == "allow":
        connection.execute(
            "UPDATE holders SET restricted = 1 WHERE id = ? AND restricted = 0", (holder,)
        )


def _take(connection: sqlite3.Connection, holder: str, target: Target) -> bool:
    """Whether a grant, or else a deny, of this very target was there to be taken."""
    server = None if target.server == EVERY_SERVER else target.server
    for effect in ("allow", "deny"):
        cursor = connection.execute(
            "DELETE FROM grants WHERE holder = ? AND effect = ? AND server IS ? AND kind IS ? "
            "AND glob = ?",
            (holder, effect, server, target.kind, target.glob),
        )
        if cursor.rowcount:
            return True
    return False


def _recorded(store: Store, connection: sqlite3.Connection, action: str, old: Key) -> Key:
    new = get_key(store, old.name)
    if new != old:
        before, after = audit.difference(_view(old), _view(new))
        audit.record(connection, store, action, old.name, before=before, after=after)
    return new


def _view(key: Key) -> dict[str, object]:
    return {
        "start": key.start,
        "expires": key.expires,
        "grants": None if key.grants is None else key.targets,
        "denies": key.deny_targets,
    }


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

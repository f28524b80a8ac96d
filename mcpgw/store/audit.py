"""Who changed what, when: one row beside each change of the configuration, in its transaction.

Rows never hold a secret: literals of headers and environments are masked, references stay.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from mcpgw.store.db import Store

View = Mapping[str, object]
"""A configured thing as JSON members, without secrets."""


class Change(Struct, frozen=True, kw_only=True):
    """One change. at: seconds since the epoch. before None: it was made; after None: removed.

    For a thing that was altered both have only the members that differ.
    """

    id: int
    at: float
    actor: str
    action: str  # "server.add", "key.grant", …
    subject: str  # the thing's name
    before: dict[str, object] | None
    after: dict[str, object] | None


def record(
    connection: sqlite3.Connection,
    store: Store,
    action: str,
    subject: str,
    *,
    before: View | None = None,
    after: View | None = None,
) -> None:
    """Add a row. Call inside the `store.change()` block of the change itself."""
    connection.execute(
        "INSERT INTO changes (at, actor, action, subject, before, after) VALUES (?, ?, ?, ?, ?, ?)",
        (time.time(), store.actor, action, subject, _json(before), _json(after)),
    )


def difference(old: View, new: View) -> tuple[View, View]:
    """The members that differ, as they were and as they are."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return (
        {name: old[name] for name in names if name in old},
        {name: new[name] for name in names if name in new},
    )


def changes(store: Store, limit: int = 100) -> list[Change]:
    """The latest changes, newest first."""
    rows = store.query(
        "SELECT id, at, actor, action, subject, before, after FROM changes "
        "ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [
        Change(
            id=row["id"],
            at=row["at"],
            actor=row["actor"],
            action=row["action"],
            subject=row["subject"],
            before=_members(row["before"]),
            after=_members(row["after"]),
        )
        for row in rows
    ]


def _json(view: View | None) -> str | None:
    return None if view is None else msgspec.json.encode(view).decode()


def _members(text: str | None) -> dict[str, object] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, object])

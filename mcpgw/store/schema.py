"""The tables, as migrations: each is applied once, in one transaction with its record.

Loaded only when a store is made or brought up to date, for sqlite-utils takes 0.1 s to import.
`holders` are the steps a permission passes: a key, its team, its organization; grants hang on a
holder and on a server's id, and go with either. What names a group stands in tables of its own, so
that a row whose server is NULL can only ever mean `*`. A holder that ever had a grant of its own is
`restricted`: from then on no grants mean nothing is allowed, not that nothing was said.
Words that may become more (transports, ways to sign in) are checked by the code, not by a CHECK,
which could not be widened without rebuilding a table.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlite_utils import Database, Migrations

APPLICATION_ID: Final = 0x6D636777  # "mcgw", in the file's header
MIGRATIONS: Final = Migrations("mcpgw")

_GROUND: Final = ("servers", "names", "holders", "keys", "key_secrets", "grants", "vault")
_ACCESS: Final = (
    "groups",
    "group_targets",
    "group_grants",
    "policies",
    "policy_rules",
    "policy_group_rules",
    "attachments",
)
CONFIGURATION: Final = (*_GROUND, *_ACCESS)
"""Tables whose every change bumps `generation`, so that a running daemon looks again."""

_TABLES: Final = (
    """CREATE TABLE settings (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE generation (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        value INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE servers (
        id TEXT PRIMARY KEY,
        created REAL NOT NULL,
        transport TEXT NOT NULL,
        url TEXT,
        command TEXT NOT NULL,
        env TEXT NOT NULL,
        cwd TEXT,
        auth TEXT NOT NULL,
        secret TEXT,
        headers TEXT NOT NULL,
        forward_headers TEXT NOT NULL,
        allow TEXT,
        deny TEXT NOT NULL,
        isolate TEXT NOT NULL,
        timeout REAL NOT NULL,
        max_concurrent INTEGER,
        ca TEXT,
        client_cert TEXT,
        description TEXT NOT NULL,
        enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
        prefix TEXT REFERENCES names (name) ON UPDATE CASCADE ON DELETE SET NULL
    ) STRICT""",
    # One namespace for everything that can stand in an address or before a tool's name.
    """CREATE TABLE names (
        name TEXT PRIMARY KEY COLLATE NOCASE,
        kind TEXT NOT NULL CHECK (kind IN ('server', 'alias', 'group')),
        server TEXT REFERENCES servers (id) ON DELETE CASCADE,
        CHECK ((kind = 'group') = (server IS NULL))
    ) STRICT""",
    "CREATE UNIQUE INDEX one_name ON names (server) WHERE kind = 'server'",
    "CREATE INDEX names_of ON names (server)",
    "CREATE INDEX prefix_of ON servers (prefix)",
    """CREATE TABLE holders (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('key', 'team', 'organization')),
        name TEXT NOT NULL COLLATE NOCASE,
        parent TEXT REFERENCES holders (id) ON DELETE RESTRICT,
        restricted INTEGER NOT NULL DEFAULT 0 CHECK (restricted IN (0, 1)),
        created REAL NOT NULL,
        revoked REAL
    ) STRICT""",
    # A revoked key stays listed, and its name is free again.
    "CREATE UNIQUE INDEX holder_name ON holders (kind, name) WHERE revoked IS NULL",
    "CREATE INDEX children_of ON holders (parent)",
    """CREATE TABLE keys (
        holder TEXT PRIMARY KEY REFERENCES holders (id) ON DELETE CASCADE,
        start TEXT NOT NULL,
        expires REAL
    ) STRICT""",
    # `until`: the end of an old secret's grace after a rotation; NULL for the present one.
    """CREATE TABLE key_secrets (
        hash BLOB PRIMARY KEY,
        key TEXT NOT NULL REFERENCES keys (holder) ON DELETE CASCADE,
        until REAL
    ) STRICT""",
    "CREATE INDEX secrets_of ON key_secrets (key)",
    # server NULL is `*`, every server; kind NULL is every kind.
    """CREATE TABLE grants (
        id INTEGER PRIMARY KEY,
        holder TEXT NOT NULL REFERENCES holders (id) ON DELETE CASCADE,
        effect TEXT NOT NULL CHECK (effect IN ('allow', 'deny')),
        server TEXT REFERENCES servers (id) ON DELETE CASCADE,
        kind TEXT CHECK (kind IN ('tool', 'prompt', 'resource')),
        glob TEXT NOT NULL
    ) STRICT""",
    """CREATE UNIQUE INDEX one_grant
        ON grants (holder, effect, ifnull(server, '*'), ifnull(kind, ''), glob)""",
    "CREATE INDEX grants_on ON grants (server)",
    """CREATE TABLE vault (
        name TEXT PRIMARY KEY,
        sealed BLOB NOT NULL,
        updated REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        before TEXT,
        after TEXT
    ) STRICT""",
    "INSERT INTO generation (id, value) VALUES (1, 1)",
    "INSERT INTO settings (name, value) VALUES ('store.id', lower(hex(randomblob(16))))",
)

_ACCESS_TABLES: Final = (
    "ALTER TABLE holders ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1))",
    """CREATE TABLE groups (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE
            REFERENCES names (name) ON UPDATE CASCADE ON DELETE CASCADE,
        created REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE group_targets (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
        effect TEXT NOT NULL CHECK (effect = 'allow'),
        server TEXT REFERENCES servers (id) ON DELETE CASCADE,
        kind TEXT CHECK (kind IN ('tool', 'prompt', 'resource')),
        glob TEXT NOT NULL
    ) STRICT""",
    """CREATE UNIQUE INDEX one_group_target
        ON group_targets (owner, effect, ifnull(server, '*'), ifnull(kind, ''), glob)""",
    "CREATE INDEX group_targets_on ON group_targets (server)",
    # A group that somebody is denied cannot go: the deny would go with it.
    """CREATE TABLE group_grants (
        id INTEGER PRIMARY KEY,
        holder TEXT NOT NULL REFERENCES holders (id) ON DELETE CASCADE,
        effect TEXT NOT NULL CHECK (effect IN ('allow', 'deny')),
        named TEXT NOT NULL REFERENCES groups (id) ON DELETE RESTRICT,
        UNIQUE (holder, effect, named)
    ) STRICT""",
    "CREATE INDEX group_grants_on ON group_grants (named)",
    # Rates, quotas and conditions are kept as they were typed.
    """CREATE TABLE policies (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        rate TEXT,
        quota TEXT,
        condition TEXT,
        created REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE policy_rules (
        id INTEGER PRIMARY KEY,
        policy TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
        effect TEXT NOT NULL,
        server TEXT REFERENCES servers (id) ON DELETE CASCADE,
        kind TEXT CHECK (kind IN ('tool', 'prompt', 'resource')),
        glob TEXT NOT NULL
    ) STRICT""",
    """CREATE UNIQUE INDEX one_policy_rule
        ON policy_rules (policy, effect, ifnull(server, '*'), ifnull(kind, ''), glob)""",
    "CREATE INDEX policy_rules_on ON policy_rules (server)",
    """CREATE TABLE policy_group_rules (
        id INTEGER PRIMARY KEY,
        policy TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
        effect TEXT NOT NULL,
        named TEXT NOT NULL REFERENCES groups (id) ON DELETE RESTRICT,
        UNIQUE (policy, effect, named)
    ) STRICT""",
    "CREATE INDEX policy_group_rules_on ON policy_group_rules (named)",
    """CREATE TABLE attachments (
        id INTEGER PRIMARY KEY,
        policy TEXT NOT NULL REFERENCES policies (id) ON DELETE RESTRICT,
        holder TEXT NOT NULL REFERENCES holders (id) ON DELETE CASCADE,
        UNIQUE (policy, holder)
    ) STRICT""",
    "CREATE INDEX attached_to ON attachments (holder)",
)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Apply what is missing and set the schema's `version`. Call inside one transaction.

    The migrations and their records become savepoints of it, so that a store is either as it was
    or wholly up to date.
    """
    db = Database(connection, recursive_triggers=False, execute_plugins=False, strict=True)
    MIGRATIONS.apply(db)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


@MIGRATIONS()
def ground(db: Database) -> None:
    """Servers, names, keys, grants, the vault, the audit."""
    for statement in _TABLES:
        db.conn.execute(statement)
    _watch(db, _GROUND)


@MIGRATIONS()
def access(db: Database) -> None:
    """Whether a holder is enabled; groups; policies and whom they are attached to."""
    for statement in _ACCESS_TABLES:
        db.conn.execute(statement)
    _watch(db, _ACCESS)


def _watch(db: Database, tables: tuple[str, ...]) -> None:
    """Every change of these tables bumps the generation."""
    for table in tables:
        for event in ("INSERT", "UPDATE", "DELETE"):
            name = f"{table}_{event.lower()}"
            bump = "UPDATE generation SET value = value + 1"
            db.conn.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN {bump}; END")

"""What a person types to name what may be used: `github`, `github/create_*`, `group:dev`, `*`.

Words become `Target`s on a server's id, or the `Named` group; they become words again under the
present names. Three pairs of tables hold them: of keys, teams and organizations, of policies, and
of groups, whose targets name no other group.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NoReturn, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from mcpgw.core.access import EVERY_SERVER, KINDS
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store.db import Store
from mcpgw.store.registry import get_server, missing

LONGEST_GLOB: Final = 1024
GROUP: Final = "group:"


class Named(Struct, frozen=True):
    """A group that stands for its targets, whatever they are at the time."""

    group: str  # its id


Rule: TypeAlias = Target | Named


class Book(Struct, frozen=True):
    """Where rules are kept: the table of targets, its owner's column, the table of groups."""

    table: str
    owner: str
    groups: str | None


HOLDERS: Final = Book("grants", "holder", "group_grants")
POLICIES: Final = Book("policy_rules", "policy", "policy_group_rules")
GROUPS: Final = Book("group_targets", "owner", None)


def parse(store: Store, word: str) -> Rule:
    """What `word` names. Raises GatewayError: no_such_server, no_such_group, bad_target."""
    if word.startswith(GROUP):
        return Named(_group(store, word))
    where, slash, what = word.partition("/")
    if not where or (slash and not what) or len(word) > LONGEST_GLOB:
        _bad(
            word,
            "A target is SERVER, SERVER/TOOL, SERVER/prompt:NAME, SERVER/resource:URI, "
            "group:NAME or *.",
        )
    server = EVERY_SERVER if where == EVERY_SERVER else _server(store, where)
    if not slash:
        return Target(server)
    before, colon, glob = what.partition(":")
    if colon and before in KINDS:
        if not glob:
            _bad(word, f"What stands behind {before}: is the name or pattern of a {before}.")
        return Target(server, before, glob)
    if colon and (close := get_close_matches(before, KINDS, n=1, cutoff=0.75)):
        _bad(word, f'"{before}:" is no kind; perhaps {close[0]}: was meant.')
    return Target(server, "tool", what)


def words(rule: Rule, names: Mapping[str, str]) -> str:
    """The rule as it is typed. names: of servers and groups, by id."""
    if isinstance(rule, Named):
        return GROUP + names[rule.group]
    where = rule.server if rule.server == EVERY_SERVER else names[rule.server]
    if rule.kind is None:
        return where
    bare = rule.kind == "tool" and not seems_kind(rule.glob)
    return f"{where}/{'' if bare else rule.kind + ':'}{rule.glob}"


def seems_kind(glob: str) -> bool:
    """Whether a tool's pattern must be written `tool:PATTERN`, as it has a kind's word in front."""
    before, colon, _ = glob.partition(":")
    return bool(colon and get_close_matches(before, KINDS, n=1, cutoff=0.75))


def names(store: Store, holder: str | None = None) -> dict[str, str]:
    """Names of servers and groups, by id. holder: only of those that its rules name."""
    rows = store.query(
        "SELECT server, name FROM names WHERE kind = 'server' UNION ALL SELECT id, name FROM groups"
        if holder is None
        else "SELECT n.server, n.name FROM grants g JOIN names n ON n.server = g.server "
        "AND n.kind = 'server' WHERE g.holder = ? UNION "
        "SELECT r.id, r.name FROM group_grants g JOIN groups r ON r.id = g.named "
        "WHERE g.holder = ?",
        () if holder is None else (holder, holder),
    )
    return {row[0]: row[1] for row in rows}


# ---------------------------------------------------------------- rows


def read(
    store: Store, book: Book, owner: str | None = None
) -> dict[tuple[str, str], tuple[Rule, ...]]:
    """Rules by (owner's id, "allow" or "deny"): targets, then groups, each oldest first.

    owner: only of this one, else of all.
    """
    where, values = ("", ()) if owner is None else (f"WHERE {book.owner} = ?", (owner,))
    found: dict[tuple[str, str], list[Rule]] = {}
    # Many keys are granted the same: they share the target.
    shared: dict[tuple[str | None, str | None, str], Target] = {}
    for one, effect, server, kind, glob in store.query(
        f"SELECT {book.owner}, effect, server, kind, glob FROM {book.table} {where} ORDER BY id",  # noqa: S608
        values,
    ):
        spec = (server, kind, glob)
        if (target := shared.get(spec)) is None:
            target = shared[spec] = Target(server or EVERY_SERVER, kind, glob)
        found.setdefault((one, effect), []).append(target)
    if book.groups is not None:
        for one, effect, named in store.query(
            f"SELECT {book.owner}, effect, named FROM {book.groups} {where} ORDER BY id",  # noqa: S608
            values,
        ):
            found.setdefault((one, effect), []).append(Named(named))
    return {key: tuple(value) for key, value in found.items()}


def groups(store: Store) -> dict[str, tuple[Target, ...]]:
    """The targets of every group by its id; each tells the group it came by."""
    names = store.query("SELECT id, name FROM groups")
    held = read(store, GROUPS)
    return {
        group: tuple(
            replace(one, via=GROUP + name)
            for one in held.get((group, "allow"), ())
            if isinstance(one, Target)
        )
        for group, name in names
    }


def expanded(rules: Sequence[Rule], groups: Mapping[str, tuple[Target, ...]]) -> tuple[Target, ...]:
    """The targets that `rules` come to."""
    found: list[Target] = []
    for rule in rules:
        if isinstance(rule, Target):
            found.append(rule)
        else:
            found.extend(groups.get(rule.group, ()))
    return tuple(found)


def write(
    store: Store,
    connection: sqlite3.Connection,
    book: Book,
    owner: str,
    effect: str,
    typed: Sequence[str],
) -> None:
    """Keep what the words name; what is kept already stays. Raises what `parse` raises."""
    for word in typed:
        rule = parse(store, word)
        if isinstance(rule, Target):
            server = None if rule.server == EVERY_SERVER else rule.server
            connection.execute(
                f"INSERT OR IGNORE INTO {book.table} ({book.owner}, effect, server, kind, glob) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?)",
                (owner, effect, server, rule.kind, rule.glob),
            )
        elif book.groups is None:
            _bad(word, "A group holds servers and what they have, no other groups.")
        else:
            connection.execute(
                f"INSERT OR IGNORE INTO {book.groups} ({book.owner}, effect, named) "  # noqa: S608
                "VALUES (?, ?, ?)",
                (owner, effect, rule.group),
            )


def take(store: Store, connection: sqlite3.Connection, book: Book, owner: str, word: str) -> bool:
    """Whether this very rule was there to be taken: an allow or, where none was, a deny."""
    rule = parse(store, word)
    for effect in ("allow", "deny"):
        if isinstance(rule, Target):
            server = None if rule.server == EVERY_SERVER else rule.server
            cursor = connection.execute(
                f"DELETE FROM {book.table} WHERE {book.owner} = ? AND effect = ? "  # noqa: S608
                "AND server IS ? AND kind IS ? AND glob = ?",
                (owner, effect, server, rule.kind, rule.glob),
            )
        else:
            cursor = connection.execute(
                f"DELETE FROM {book.groups} WHERE {book.owner} = ? AND effect = ? AND named = ?",  # noqa: S608
                (owner, effect, rule.group),
            )
        if cursor.rowcount:
            return True
    return False


def clear(connection: sqlite3.Connection, book: Book, owner: str, effect: str) -> None:
    """Forget every rule of this effect."""
    for table in filter(None, (book.table, book.groups)):
        connection.execute(
            f"DELETE FROM {table} WHERE {book.owner} = ? AND effect = ?",  # noqa: S608
            (owner, effect),
        )


def _server(store: Store, name: str) -> str:
    try:
        return get_server(store, name).id
    except GatewayError:
        rows = store.query("SELECT name FROM groups WHERE name = ?", (name,))
        if not rows:
            raise
        return _bad(name, f'"{rows[0][0]}" is a group, which is written {GROUP}{rows[0][0]}.')


def _group(store: Store, word: str) -> str:
    name = word.removeprefix(GROUP)
    rows = store.query("SELECT id FROM groups WHERE name = ?", (name,))
    if rows:
        return rows[0][0]
    if not name or "/" in name or ":" in name:
        _bad(word, "A group is written group:NAME; it stands for all that was put into it.")
    known = [row[0] for row in store.query("SELECT name FROM groups")]
    raise missing("group", name, known, known, add="mcpgw group add NAME TARGET")


def _bad(word: str, why: str) -> NoReturn:
    raise GatewayError(
        f'"{word}" names nothing that can be granted.',
        why=why,
        next="mcpgw key grant --help",
        code="bad_target",
        exit=Exit.USAGE,
    )

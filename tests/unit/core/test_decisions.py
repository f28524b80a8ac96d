"""Who may use what, by table: each row is a configuration in words, and what comes of it.

A row gives what the key, its team and its organization were granted and denied, as a person types
it (`None`: never granted anything), and the server's own lists. The words mean here what
`mcpgw key grant` makes of them: `github`, `github/get_*`, `github/prompt:p`, `*`, `group:NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import pytest

from mcpgw.core.access import Access, Ladder, decide
from mcpgw.model.config import Kind, Level, Principal, Server, Target
from tests.doubles import server

Words: TypeAlias = Sequence[str] | None
GROUPS = {
    "reading": ("github/get_*", "docs/resource:*"),
    "all": ("*",),
    "empty": (),
    "mixed": ("github/prompt:*", "jira"),
}


class Step(NamedTuple):
    """What one level was granted and denied."""

    grants: Words = None
    denies: Sequence[str] = ()
    closed: str = ""


class Row(NamedTuple):
    """One decision. server: its allow, deny, and whether it is enabled."""

    ladder: tuple[Step, ...]
    thing: str
    allowed: bool
    because: str = ""  # how the deciding rule begins
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    enabled: bool = True


def key(*grants: str, never: Sequence[str] = (), closed: str = "") -> Step:
    return Step(grants, never, closed)


def fresh(never: Sequence[str] = ()) -> Step:
    """A key that never had a grant of its own."""
    return Step(None, never)


def free(never: Sequence[str] = (), closed: str = "") -> Step:
    """A team or organization that restricts nothing."""
    return Step(None, never, closed)


only = key  # the same for a team or organization: what it lets through

ALONE = [
    # a key and nothing else
    Row((fresh(),), "github/get_x", False, "key"),
    Row((fresh(),), "github/prompt:p", False, "key"),
    Row((fresh(),), "github/resource:file:///a", False, "key"),
    Row((key(),), "github/get_x", False, "key"),
    Row((key("*"),), "github/get_x", True, "key me: *"),
    Row((key("*"),), "github/prompt:p", True, "key me: *"),
    Row((key("*"),), "github/resource:file:///a", True, "key me: *"),
    Row((key("github"),), "github/get_x", True, "key me: github"),
    Row((key("github"),), "github/prompt:p", True, "key me: github"),
    Row((key("github"),), "github/resource:x://y", True, "key me: github"),
    Row((key("github"),), "docs/get_x", False, "key"),
    Row((key("docs"),), "github/get_x", False, "key"),
    Row((key("docs", "github"),), "github/get_x", True, "key me: github"),
    # tools
    Row((key("github/get_x"),), "github/get_x", True, "key me: github/get_x"),
    Row((key("github/get_x"),), "github/get_xy", False),
    Row((key("github/get_x"),), "github/get_", False),
    Row((key("github/get_x"),), "github/GET_X", False),
    Row((key("github/get_x"),), "github/get_x ", False),
    Row((key("github/get_x"),), "github/get_x\n", False),
    Row((key("github/get_x"),), "github/ get_x", False),
    Row((key("github/get_*"),), "github/get_x", True, "key me: github/get_*"),
    Row((key("github/get_*"),), "github/get_", True),
    Row((key("github/get_*"),), "github/set_x", False),
    Row((key("github/get_*"),), "github/xget_x", False),
    Row((key("github/*"),), "github/anything at all", True),
    Row((key("github/*"),), "github/", True),
    Row((key("github/*"),), "github/prompt:p", False),
    Row((key("github/*"),), "github/resource:x", False),
    Row((key("github/g?t"),), "github/get", True),
    Row((key("github/g?t"),), "github/gt", False),
    Row((key("github/[gs]et"),), "github/set", True),
    Row((key("github/[gs]et"),), "github/bet", False),
    Row((key("github/[!g]et"),), "github/bet", True),
    Row((key("github/[!g]et"),), "github/get", False),
    Row((key("github/get_x.y"),), "github/get_x.y", True),
    Row((key("github/get_x.y"),), "github/get_xzy", False),
    Row((key("github/a+"),), "github/aa", False),
    Row((key("github/a+"),), "github/a+", True),
    Row((key("github/a|b"),), "github/b", False),
    Row((key("github/a*", "github/b*"),), "github/bc", True, "key me: github/b*"),
    Row((key("github/a*", "github/b*"),), "github/ab", True, "key me: github/a*"),
    Row((key("github/a*", "github/b*"),), "github/cb", False),
    Row((key("github/*/x"),), "github/a/b/x", True),
    Row((key("github/ümlaut"),), "github/ümlaut", True),
    Row((key("github/ümlaut"),), "github/u\u0308mlaut", False),
    Row((key("*/get_*"),), "github/get_x", True, "key me: */get_*"),
    Row((key("*/get_*"),), "docs/get_x", True),
    Row((key("*/get_*"),), "docs/set_x", False),
    Row((key("*/get_*"),), "docs/prompt:get_x", False),
    # prompts and resources
    Row((key("github/prompt:p"),), "github/prompt:p", True, "key me: github/prompt:p"),
    Row((key("github/prompt:p"),), "github/p", False),
    Row((key("github/prompt:p*"),), "github/prompt:pq", True),
    Row((key("github/prompt:p*"),), "github/resource:pq", False),
    Row((key("*/prompt:p"),), "docs/prompt:p", True),
    Row((key("github/resource:file:///a/*"),), "github/resource:file:///a/b", True),
    Row((key("github/resource:file:///a/*"),), "github/resource:file:///a/b/c", True),
    Row((key("github/resource:file:///a/*"),), "github/resource:file:///a", False),
    Row((key("github/resource:file:///a/*"),), "github/resource:FILE:///a/b", False),
    Row((key("github/resource:file:///a/*"),), "github/resource:file:///ab", False),
    Row((key("github/resource:file:///a/*"),), "docs/resource:file:///a/b", False),
    Row((key("github/resource:*"),), "github/resource:x", True),
    Row((key("github/resource:*"),), "github/x", False),
    Row((key("github/tool:x"),), "github/x", True),
    Row((key("github/odd:x"),), "github/odd:x", True),
    # denies
    Row((key("*", never=["*"]),), "github/x", False, "key me: deny *"),
    Row((key("github", never=["github"]),), "github/x", False, "key me: deny github"),
    Row((key("github", never=["docs"]),), "github/x", True),
    Row((key("github", never=["github/x"]),), "github/x", False, "key me: deny github/x"),
    Row((key("github", never=["github/x"]),), "github/y", True),
    Row((key("github/x", never=["github/x"]),), "github/x", False),
    Row((key("github/x", never=["github/*"]),), "github/x", False),
    Row((key("github/x", never=["*/x"]),), "github/x", False, "key me: deny */x"),
    Row((key("github", never=["github/*"]),), "github/prompt:p", True),
    Row((key("github", never=["github/prompt:*"]),), "github/prompt:p", False),
    Row((key("github", never=["github/prompt:*"]),), "github/p", True),
    Row((key("github", never=["github/resource:file:*"]),), "github/resource:file:/a", False),
    Row((key("github", never=["github/resource:file:*"]),), "github/resource:http:/a", True),
    Row((key(never=["github/x"]),), "github/y", False),
    Row((fresh(never=["github/x"]),), "github/y", False),
    Row((key("github", never=["github/X"]),), "github/x", True),
    # groups
    Row((key("group:reading"),), "github/get_x", True, "key me: github/get_* (group:reading)"),
    Row((key("group:reading"),), "github/set_x", False),
    Row((key("group:reading"),), "docs/resource:x", True),
    Row((key("group:reading"),), "docs/get_x", False),
    Row((key("group:empty"),), "github/get_x", False),
    Row((key("group:empty", "docs"),), "docs/get_x", True),
    Row((key("group:all"),), "github/x", True, "key me: * (group:all)"),
    Row((key("group:mixed"),), "jira/x", True),
    Row((key("group:mixed"),), "github/prompt:x", True),
    Row((key("group:mixed"),), "github/x", False),
    Row((key("*", never=["group:reading"]),), "github/get_x", False, "key me: deny github/get_*"),
    Row((key("*", never=["group:reading"]),), "github/set_x", True),
    Row((key("*", never=["group:all"]),), "github/set_x", False),
    Row((key("*", never=["group:empty"]),), "github/set_x", True),
    Row((key("group:all", never=["group:mixed"]),), "jira/x", False),
    # closed
    Row((key("*", closed="disabled"),), "github/x", False, "key me: disabled"),
    Row((key("*", closed="revoked"),), "github/x", False, "key me: revoked"),
    Row((key("*", closed="expired"),), "github/prompt:x", False, "key me: expired"),
]
TEAMS = [
    # inheriting
    Row((fresh(), free()), "github/x", False, "key"),
    Row((fresh(), only()), "github/x", False, "key"),
    Row((fresh(), only("*")), "github/x", True, "key me: * of team dev"),
    Row((fresh(), only("github")), "github/x", True, "key me: github of team dev"),
    Row((fresh(), only("github")), "docs/x", False, "key"),
    Row((fresh(), only("github/get_*")), "github/get_x", True),
    Row((fresh(), only("github/get_*")), "github/set_x", False),
    Row((fresh(), only("group:reading")), "github/get_x", True),
    Row((fresh(never=["github/get_x"]), only("github")), "github/get_x", False, "key me: deny"),
    Row((fresh(never=["github/get_x"]), only("github")), "github/get_y", True),
    Row((fresh(), only("github", never=["github/get_x"])), "github/get_x", False, "team dev: deny"),
    Row((fresh(), only("github", never=["github/get_x"])), "github/get_y", True),
    Row((fresh(), free(never=["github/x"])), "github/y", False, "key"),
    # own grants under a ceiling
    Row((key("*"), free()), "github/x", True),
    Row((key("*"), only()), "github/x", False, "team dev"),
    Row((key("*"), only("github")), "github/x", True, "key me: *"),
    Row((key("*"), only("github")), "docs/x", False, "team dev"),
    Row((key("github"), only("docs")), "github/x", False, "team dev"),
    Row((key("github"), only("docs")), "docs/x", False, "key me"),
    Row((key("github"), only("*")), "docs/x", False, "key me"),
    Row((key("github/get_*"), only("github")), "github/get_x", True),
    Row((key("github/get_*"), only("github")), "github/set_x", False),
    Row((key("github"), only("github/get_*")), "github/get_x", True),
    Row((key("github"), only("github/get_*")), "github/set_x", False, "team dev"),
    Row((key("github/get_*"), only("github/*_x")), "github/get_x", True),
    Row((key("github/get_*"), only("github/*_x")), "github/get_y", False),
    Row((key("github/get_*"), only("github/*_x")), "github/set_x", False),
    Row((key("github/prompt:*"), only("github/*")), "github/prompt:p", False, "team dev"),
    Row((key("github"), only("group:empty")), "github/x", False, "team dev"),
    Row((key(), only("*")), "github/x", False, "key me"),
    Row((key(), free()), "github/x", False, "key me"),
    Row((key("*"), free(never=["*"])), "github/x", False, "team dev: deny *"),
    Row((key("*"), free(never=["github/x"])), "github/x", False, "team dev: deny github/x"),
    Row((key("*"), free(never=["github/x"])), "github/y", True),
    Row((key("*"), only("*", never=["docs"])), "docs/x", False, "team dev: deny docs"),
    # closed
    Row((fresh(), only("*", closed="disabled")), "github/x", False, "team dev: disabled"),
    Row((key("*"), free(closed="disabled")), "github/x", False, "team dev: disabled"),
    Row((key("*", closed="disabled"), only("*")), "github/x", False, "key me: disabled"),
]
ORGANIZATIONS = [
    Row((fresh(), free(), free()), "github/x", False, "key"),
    Row((fresh(), free(), only("*")), "github/x", False, "key"),  # nobody inherits from it
    Row((fresh(), only("*"), free()), "github/x", True, "key me: * of team dev"),
    Row((fresh(), only("*"), only("github")), "github/x", True),
    Row((fresh(), only("*"), only("github")), "docs/x", False, "organization acme"),
    Row((fresh(), only("*"), only()), "github/x", False, "organization acme"),
    Row((fresh(), only("github"), only("docs")), "github/x", False, "organization acme"),
    Row((fresh(), only("github"), only("docs")), "docs/x", False, "key"),
    Row((fresh(), only("github"), free(never=["github/x"])), "github/x", False, "organization"),
    Row((fresh(), only("github"), free(never=["github/x"])), "github/y", True),
    Row((key("*"), free(), free()), "github/x", True),
    Row((key("*"), free(), only()), "github/x", False, "organization acme"),
    Row((key("*"), free(), only("github")), "github/x", True),
    Row((key("*"), free(), only("github")), "docs/x", False, "organization acme"),
    Row((key("*"), only("docs"), only("github")), "github/x", False, "team dev"),
    Row((key("*"), only("docs"), only("github")), "docs/x", False, "organization acme"),
    Row((key("*"), only("github"), only("github/get_*")), "github/get_x", True),
    Row((key("*"), only("github"), only("github/get_*")), "github/set_x", False, "organization"),
    Row((key("github/get_*"), only("github"), only("*")), "github/get_x", True),
    Row((key(), only("*"), only("*")), "github/x", False, "key me"),
    Row(
        (key("*"), only("*"), only("*", never=["*"])), "github/x", False, "organization acme: deny"
    ),
    Row((key("*"), only("*"), free(closed="disabled")), "github/x", False, "organization acme: d"),
    Row((fresh(), only("*"), free(closed="disabled")), "github/x", False, "organization acme: d"),
]
EVERY = (key("*"),)
SERVERS = [
    Row(EVERY, "github/get_x", True, "key me: *", allow=("get_*",)),
    Row(EVERY, "github/set_x", False, "server github", allow=("get_*",)),
    Row(EVERY, "github/x", False, "server github", allow=()),
    Row(EVERY, "github/prompt:p", True, allow=()),
    Row(EVERY, "github/resource:r", True, allow=("nothing",)),
    Row(EVERY, "github/x", False, "server github: deny github/x", deny=("x",)),
    Row(EVERY, "github/y", True, deny=("x",)),
    Row(EVERY, "github/x", False, "server github: deny github/*", deny=("*",)),
    Row(EVERY, "github/prompt:x", True, deny=("*",)),
    Row(EVERY, "github/get_key", False, "server github: deny", allow=("get_*",), deny=("*_key",)),
    Row(EVERY, "github/get_x", True, allow=("get_*",), deny=("*_key",)),
    Row(EVERY, "github/x", False, "server github: disabled", enabled=False),
    Row(EVERY, "github/prompt:x", False, "server github: disabled", enabled=False),
    Row(EVERY, "github/x", False, "server github: disabled", allow=("x",), enabled=False),
    Row((key("github/x"),), "github/x", False, "server github", allow=("y",)),
    Row((key("github/x"),), "github/y", False, "key me", allow=("y",)),
    Row((fresh(), only("github")), "github/x", False, "server github", allow=("y",)),
    Row((key("github", never=["github/y"]),), "github/y", False, "key me: deny", allow=("y",)),
    Row((fresh(),), "github/x", False, "key me", allow=("x",)),  # a server's list is no grant
]
TABLE = [*ALONE, *TEAMS, *ORGANIZATIONS, *SERVERS]
NAMES = (("key", "me"), ("team", "dev"), ("organization", "acme"))


def meant(word: str) -> tuple[Target, ...]:
    """The targets of a word."""
    if word.startswith("group:"):
        return tuple(
            Target(one.server, one.kind, one.glob, word)
            for inner in GROUPS[word.removeprefix("group:")]
            for one in meant(inner)
        )
    where, slash, what = word.partition("/")
    where = where if where == "*" else f"id-{where}"
    if not slash:
        return (Target(where),)
    kind, name = split(what)
    return (Target(where, kind, name),)


def split(what: str) -> tuple[Kind, str]:
    kind, colon, name = what.partition(":")
    if colon and kind in ("tool", "prompt", "resource"):
        return kind, name
    return "tool", what


def all_of(words: Sequence[str]) -> tuple[Target, ...]:
    return tuple(target for word in words for target in meant(word))


def principal(ladder: tuple[Step, ...]) -> Principal:
    levels = tuple(
        Level(
            name,
            label,
            None if step.grants is None else all_of(step.grants),
            all_of(step.denies),
            step.closed,
        )
        for (name, label), step in zip(NAMES, ladder, strict=False)
    )
    return Principal(id="k", name="me", kind="key", levels=levels)


def asked(row: Row) -> tuple[Server, Kind, str]:
    where, _, what = row.thing.partition("/")
    one = server(where, allow=row.allow, deny=row.deny, enabled=row.enabled)
    return one, *split(what)


def test_the_table_is_long_and_says_nothing_twice() -> None:
    assert len(TABLE) >= 150
    said = [repr((row.ladder, row.thing, row.allow, row.deny, row.enabled)) for row in TABLE]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("row", TABLE, ids=range(len(TABLE)))
def test_a_decision(row: Row) -> None:
    who, (one, kind, native) = principal(row.ladder), asked(row)
    decision = decide(who, one, kind, native)
    assert decision.allowed is row.allowed, decision.reason
    assert decision.rule.startswith(row.because), decision.rule
    assert decision.allowed is all(step.passes for step in decision.steps)
    # Lists, the fast answer and one ladder for many servers come to the same.
    ladder = Ladder(who)
    for other in ("docs", "jira", "github", "other"):
        Access(who, server(other), ladder)
    for access in (Access(who, one), Access(who, one, ladder)):
        assert access.allows(kind, native) is row.allowed
        assert access.possible(kind) or not row.allowed
        assert access.usable or not row.allowed
        assert not access.total(kind) or row.allowed


@pytest.mark.parametrize("row", [row for row in TABLE if row.allowed], ids=lambda row: row.thing)
def test_every_deny_takes_it_away(row: Row) -> None:
    who, (one, kind, native) = principal(row.ladder), asked(row)
    for at in range(len(who.levels)):
        for deny in (Target("*"), Target(one.id), Target(one.id, kind), Target("*", kind)):
            levels = list(who.levels)
            old = levels[at]
            levels[at] = Level(old.name, old.label, old.grants, (*old.denies, deny), old.closed)
            denied = Principal(id="k", name="me", kind="key", levels=tuple(levels))
            assert not decide(denied, one, kind, native).allowed

"""Access: a table of decisions, and the laws that no table can show."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mcpgw.core.access import Access, Ladder, decide
from mcpgw.model.config import ANYBODY, OWNER, Kind, Level, Principal, Server, Target
from tests.doubles import key, server

GITHUB = server("github")
DOCS = server("docs")
EVERYTHING = Target("*")


def level(name: str, grants: tuple[Target, ...] | None, *denies: Target) -> Level:
    return Level(name, f"a-{name}", grants, denies)


@pytest.mark.parametrize(
    ("principal", "kind", "native", "allowed"),
    [
        (OWNER, "tool", "anything", True),
        (ANYBODY, "resource", "file:///x", True),
        (key("none"), "tool", "a", False),
        (key("all", EVERYTHING), "tool", "a", True),
        (key("whole", Target("id-github")), "prompt", "p", True),
        (key("other", Target("id-docs")), "tool", "a", False),
        (key("tools", Target("id-github", "tool")), "prompt", "p", False),
        (key("one", Target("id-github", "tool", "create_issue")), "tool", "create_issue", True),
        (key("one", Target("id-github", "tool", "create_issue")), "tool", "create_issues", False),
        (key("glob", Target("id-github", "tool", "create_*")), "tool", "create_issue", True),
        (key("glob", Target("id-github", "tool", "create_*")), "tool", "Create_issue", False),
        (key("set", Target("id-github", "tool", "get_[ab]")), "tool", "get_b", True),
        (
            key("uri", Target("id-github", "resource", "file:///a/*")),
            "resource",
            "file:///a/b",
            True,
        ),
        (
            key("uri", Target("id-github", "resource", "file:///a/*")),
            "resource",
            "file:///b",
            False,
        ),
        (
            key("no", EVERYTHING, denies=[Target("id-github", "tool", "delete_*")]),
            "tool",
            "x",
            True,
        ),
        (
            key("no", EVERYTHING, denies=[Target("id-github", "tool", "delete_*")]),
            "tool",
            "delete_repo",
            False,
        ),
        (key("no", EVERYTHING, denies=[EVERYTHING]), "tool", "x", False),
        (key("free", EVERYTHING, above=[level("team", None)]), "tool", "x", True),
        (key("shut", EVERYTHING, above=[level("team", ())]), "tool", "x", False),
        (key("cap", EVERYTHING, above=[level("team", (Target("id-docs"),))]), "tool", "x", False),
        (key("low", above=[level("team", (EVERYTHING,))]), "tool", "x", False),
        (
            key("deep", EVERYTHING, above=[level("team", None), level("org", None, EVERYTHING)]),
            "tool",
            "x",
            False,
        ),
    ],
)
def test_decisions(principal: Principal, kind: Kind, native: str, allowed: bool) -> None:
    decision = decide(principal, GITHUB, kind, native)
    assert decision.allowed is allowed
    assert Access(principal, GITHUB).allows(kind, native) is allowed
    assert decision.reason
    assert decision.rule


def test_a_key_whose_grants_are_not_set_may_use_nothing() -> None:
    principal = Principal(id="k", name="k", kind="key", levels=(Level("key", "k", None),))
    assert not decide(principal, GITHUB, "tool", "x").allowed


def test_a_principal_without_levels_may_use_nothing() -> None:
    principal = Principal(id="k", name="k", kind="key", levels=())
    assert not decide(principal, GITHUB, "tool", "x").allowed
    assert not Access(principal, GITHUB).usable


@pytest.mark.parametrize(
    ("one", "kind", "native", "allowed"),
    [
        (server("s", allow=("read_*",), deny=("read_secret",)), "tool", "read_file", True),
        (server("s", allow=("read_*",), deny=("read_secret",)), "tool", "write_file", False),
        (server("s", allow=("read_*",), deny=("read_secret",)), "tool", "read_secret", False),
        (server("s", allow=("read_*",), deny=("read_secret",)), "prompt", "write_file", True),
        (server("s", deny=("x*",)), "tool", "xy", False),
        (server("s", deny=("x*",)), "resource", "xy", True),
        (server("s", allow=()), "tool", "x", False),
    ],
)
def test_the_servers_own_lists_concern_tools_only(
    one: Server, kind: Kind, native: str, allowed: bool
) -> None:
    ladder = Ladder(OWNER)
    assert Access(OWNER, GITHUB, ladder).allows(kind, native)  # shares nothing with the next
    assert Access(OWNER, one, ladder).allows(kind, native) is allowed
    assert decide(OWNER, one, kind, native).allowed is allowed


def test_the_deciding_rule_is_named() -> None:
    principal = key(
        "ann", Target("id-github", "tool", "get_*"), denies=[Target("*", "tool", "get_key")]
    )
    assert decide(principal, GITHUB, "tool", "get_x").rule == "key ann: github/get_*"
    assert decide(principal, GITHUB, "tool", "get_key").rule == "key ann: deny */get_key"
    assert "ann" in decide(principal, GITHUB, "tool", "put").reason


names = st.text("ab*?[]", max_size=4)
kinds = st.sampled_from(["tool", "prompt", "resource"])
targets = st.builds(
    Target,
    st.sampled_from(["*", "id-github", "id-docs"]),
    st.one_of(st.none(), kinds),
    # "*" and the very names that are asked for, so that things are allowed often enough
    st.one_of(st.just("*"), names.filter(bool)),
    st.sampled_from(["", "group:g", "policy p"]),
)
target_sets = st.lists(targets, max_size=4).map(tuple)
STEPS = ("key", "team", "organization")


@st.composite
def _ladders(draw: st.DrawFn) -> tuple[Level, ...]:
    """A key, perhaps in a team, perhaps of an organization."""
    count = draw(st.integers(1, 3))
    return tuple(
        Level(
            name,
            f"a-{name}",
            draw(st.one_of(st.none(), target_sets)),
            draw(st.one_of(st.just(()), target_sets)),
            draw(st.sampled_from(["", "", "", "", "disabled"])),
        )
        for name in STEPS[:count]
    )


levels = _ladders()


def _key(steps: tuple[Level, ...]) -> Principal:
    return Principal(id="p", name="p", kind="key", levels=steps)


def _github(allow: tuple[str, ...] | None, deny: tuple[str, ...], enabled: bool) -> Server:
    return server("github", allow=allow, deny=deny, enabled=enabled)


principals = st.builds(_key, levels)
some_names = st.lists(names, max_size=2).map(tuple)
servers = st.builds(
    _github,
    st.one_of(st.none(), some_names),
    st.one_of(st.just(()), some_names),
    st.sampled_from([True, True, True, False]),
)


def _with(principal: Principal, steps: tuple[Level, ...]) -> Principal:
    return Principal(id=principal.id, name=principal.name, kind="key", levels=steps)


@given(principals, servers, kinds, names)
def test_the_fast_answer_is_the_explained_one(
    principal: Principal, one: Server, kind: Kind, native: str
) -> None:
    access = Access(principal, one)
    allowed = access.decide(kind, native).allowed
    assert access.allows(kind, native) is allowed
    if allowed:
        assert access.possible(kind)
        assert access.usable
    if access.total(kind):
        assert allowed
    decision = access.decide(kind, native)
    assert allowed is all(step.passes for step in decision.steps)
    assert [step.who.split()[0] for step in decision.steps] == [
        *STEPS[: len(principal.levels)],
        "server",
    ]
    assert all(step.rule.startswith(step.who) and step.reason for step in decision.steps)


def _changed(principal: Principal, at: int, **fields: Any) -> Principal:
    """The same with another step at `at`, counted modulo their number."""
    steps = list(principal.levels)
    at %= len(steps)
    steps[at] = replace(steps[at], **fields)
    return _with(principal, tuple(steps))


def _narrows(new: Principal, old: Principal, one: Server, kind: Kind, native: str) -> bool:
    """What `new` may, `old` may: by the decision, and by what lists go by."""
    narrow, wide = Access(new, one), Access(old, one)
    return (
        (not narrow.allows(kind, native) or wide.allows(kind, native))
        and (not narrow.total(kind) or wide.total(kind))
        and (not narrow.possible(kind) or wide.possible(kind))
    )


@given(principals, servers, kinds, names, targets, st.integers(0, 2))
def test_a_deny_never_allows_more(
    principal: Principal, one: Server, kind: Kind, native: str, extra: Target, at: int
) -> None:
    old = principal.levels[at % len(principal.levels)]
    denied = _changed(principal, at, denies=(*old.denies, extra))
    assert _narrows(denied, principal, one, kind, native)


@given(principals, servers, kinds, names, targets)
def test_a_deny_wins_over_whatever_is_granted(
    principal: Principal, one: Server, kind: Kind, native: str, extra: Target
) -> None:
    for at in range(len(principal.levels)):
        denied = _changed(principal, at, denies=(Target("*", kind, "*"), extra))
        granted = _changed(denied, at, grants=(Target("*"),))
        assert not decide(granted, one, kind, native).allowed


@given(principals, servers, kinds, names, st.one_of(st.none(), target_sets), target_sets)
def test_a_ceiling_never_grants(
    principal: Principal,
    one: Server,
    kind: Kind,
    native: str,
    grants: tuple[Target, ...] | None,
    denies: tuple[Target, ...],
) -> None:
    capped = _with(principal, (*principal.levels, Level("organization", "o", grants, denies)))
    assert _narrows(capped, principal, one, kind, native)
    address = Level("address", "@g", grants, denies)
    narrowed = decide(principal, one, kind, native, address)
    assert not narrowed.allowed or decide(principal, one, kind, native).allowed


@given(principals, servers, kinds, names, target_sets, target_sets)
def test_a_ceiling_that_is_set_never_gives_a_key_more_than_its_own(
    principal: Principal,
    one: Server,
    kind: Kind,
    native: str,
    own: tuple[Target, ...],
    grants: tuple[Target, ...],
) -> None:
    principal = _changed(principal, 0, grants=own)
    for at in range(1, len(principal.levels)):
        free = _changed(principal, at, grants=None)
        capped = _changed(principal, at, grants=grants)
        assert _narrows(capped, free, one, kind, native)


@given(principals, servers, kinds, names, st.integers(0, 2), st.integers(0, 3))
def test_taking_a_grant_away_never_widens(
    principal: Principal, one: Server, kind: Kind, native: str, at: int, which: int
) -> None:
    grants = list(principal.levels[at % len(principal.levels)].grants or ())
    if grants:
        del grants[which % len(grants)]
        fewer = _changed(principal, at, grants=tuple(grants))
        assert _narrows(fewer, principal, one, kind, native)


@given(principals, servers, kinds, names, target_sets)
def test_own_grants_never_go_beyond_what_was_inherited(
    principal: Principal, one: Server, kind: Kind, native: str, own: tuple[Target, ...]
) -> None:
    inheriting = _changed(principal, 0, grants=None)
    if len(principal.levels) > 1 and principal.levels[1].grants is not None:
        assert _narrows(_changed(inheriting, 0, grants=own), inheriting, one, kind, native)
    else:
        assert not decide(inheriting, one, kind, native).allowed
    emptied = _changed(inheriting, 0, grants=())
    assert not decide(emptied, one, kind, native).allowed


@given(principals, servers, kinds, names, st.integers(0, 2))
def test_disabling_allows_nothing_and_enabling_nothing_else(
    principal: Principal, one: Server, kind: Kind, native: str, at: int
) -> None:
    closed = Access(_changed(principal, at, closed="disabled"), one)
    off = Access(principal, replace(one, enabled=False))
    for shut in (closed, off):
        assert not shut.allows(kind, native)
        assert not shut.usable
        assert "disabled" in str(shut.decide(kind, native).steps)


@pytest.mark.parametrize(
    ("grants", "denies", "above", "possible"),
    [
        (("a",), ("a",), None, False),
        (("a", "b"), ("a",), None, True),
        (("a", "b"), ("a*", "b*"), None, False),
        (("a",), (), ("b",), False),
        (("a*",), (), ("b",), False),
        (("a*",), (), ("ab",), True),
        (("a*",), ("ab",), ("ab",), False),
        (("a*",), ("a*",), None, True),  # patterns are not compared
        (("*",), ("a",), ("a",), False),
    ],
)
def test_a_server_of_which_nothing_is_left_is_not_there(
    grants: tuple[str, ...], denies: tuple[str, ...], above: tuple[str, ...] | None, possible: bool
) -> None:
    def tools(globs: tuple[str, ...]) -> tuple[Target, ...]:
        return tuple(Target("id-github", "tool", glob) for glob in globs)

    who = key("k", *tools(grants), denies=tools(denies))
    ceiling = Level("team", "t", None if above is None else tools(above))
    access = Access(_with(who, (*who.levels, ceiling)), GITHUB)
    assert access.possible("tool") is access.usable is possible


@given(principals, servers, kinds, names)
def test_what_targets_came_by_decides_nothing(
    principal: Principal, one: Server, kind: Kind, native: str
) -> None:
    def bare(rules: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(replace(rule, via="") for rule in rules)

    steps = tuple(
        replace(
            step,
            grants=None if step.grants is None else bare(step.grants),
            denies=bare(step.denies),
        )
        for step in principal.levels
    )
    plain = decide(_with(principal, steps), one, kind, native)
    assert plain.allowed is decide(principal, one, kind, native).allowed


@given(principals, servers, kinds, names, st.randoms())
def test_the_order_of_rules_is_irrelevant(
    principal: Principal, one: Server, kind: Kind, native: str, chance: st.DataObject
) -> None:
    def shuffled(rules: tuple[Target, ...]) -> tuple[Target, ...]:
        mixed = list(rules)
        chance.shuffle(mixed)  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
        return tuple(mixed)

    steps = tuple(
        replace(
            step,
            grants=None if step.grants is None else shuffled(step.grants),
            denies=shuffled(step.denies),
        )
        for step in principal.levels
    )
    assert (
        decide(_with(principal, steps), one, kind, native).allowed
        == decide(principal, one, kind, native).allowed
    )


@given(principals, servers, kinds, names)
def test_a_shared_ladder_decides_as_one_of_its_own(
    principal: Principal, one: Server, kind: Kind, native: str
) -> None:
    ladder = Ladder(principal)
    for each in (DOCS, one, server("other"), server("last"), GITHUB):
        shared = Access(principal, each, ladder)
        assert shared.allows(kind, native) is decide(principal, each, kind, native).allowed


@given(kinds, names, st.lists(st.builds(Target, st.just("id-docs"), st.none()), max_size=3))
def test_an_unknown_server_is_denied(kind: Kind, native: str, grants: list[Target]) -> None:
    assert not decide(key("k", *grants), GITHUB, kind, native).allowed


@given(names.filter(bool), names)
def test_globs_are_fnmatchcase(glob: str, native: str) -> None:
    principal = key("k", Target("id-docs", "tool", glob))
    assert decide(principal, DOCS, "tool", native).allowed is fnmatchcase(native, glob)

"""Who may use what: one pure function, compiled once per principal and server.

A thing passes a ladder: the key, its team, its organization, the server's own lists. Each step
lets it through or not, and all must. A step that names nothing to allow lets everything through,
except the key, which then has what its team is granted; denies hold at every step. So a deny
always wins, a level above only narrows, and nothing that is not written is allowed. Names on the
wire are only a view: what is decided on is (server id, kind, native name), or a resource's URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

from mcpgw.model.config import (
    Decision,
    Endpoint,
    Kind,
    Level,
    Principal,
    Server,
    Snapshot,
    Step,
    Target,
)

EVERY_SERVER: Final = "*"
KINDS: Final[tuple[Kind, ...]] = ("tool", "prompt", "resource")
TEAM: Final = "team"  # the level that a key can inherit from
SERVER: Final = "server"  # the level of a server's own lists

_MAGIC = re.compile(r"[*?\[]")


class Access:
    """What one principal may use of one server; compiled, so that a decision is some look-ups.

    ladder: the principal's, where access to many servers is wanted. What is compiled is shared
    by all who have the same permits, so that a key in use takes little.
    """

    __slots__ = ("_origin", "_rules", "_server")

    def __init__(self, principal: Principal, server: Server, ladder: Ladder | None = None) -> None:
        ladder = ladder or Ladder(principal)
        self._server = server
        self._origin = ladder.origin
        self._rules = ladder.rules(server)

    def allows(self, kind: Kind, native: str) -> bool:
        """Whether the thing may be used; `decide` says why."""
        return self._rules[kind].allows(native)

    def possible(self, kind: Kind) -> bool:
        """Whether anything of this kind may be used, whatever the server has."""
        return self._rules[kind].possible

    def total(self, kind: Kind) -> bool:
        """Whether all of this kind may be used, so that nothing needs to be sifted."""
        return self._rules[kind].total

    @property
    def usable(self) -> bool:
        """Whether the server is the principal's to see at all."""
        return any(rules.possible for rules in self._rules.values())

    def decide(self, kind: Kind, native: str) -> Decision:
        """The decision, and what each step said to it: the same steps, this time in words."""
        principal, above = self._origin
        ladder = Ladder(principal, *above)
        said = tuple(
            one.explain(native, kind, self._server) for one in ladder.steps(self._server, kind)
        )
        allowed = all(one.passes for one in said)
        told = said[0] if allowed else next(one for one in said if not one.passes)
        return Decision(allowed, told.rule, f"{told.who} {told.reason}", said)


class Ladder:
    """A principal's levels, sorted by the servers they name.

    Servers that no target names and that restrict no tools share their rules, so that access to
    all of many servers costs little. above: further levels that narrow, such as an address.
    """

    __slots__ = ("_common", "_named", "_rungs", "origin")

    def __init__(self, principal: Principal, *above: Level) -> None:
        self.origin = (principal, above)
        levels = principal.levels or (Level(principal.kind, principal.name, ()),)
        self._rungs = [_Rung(level) for level in (*levels, *above)]
        if levels[0].grants is None:
            self._rungs[0].inherit(
                levels[1] if len(levels) > 1 and levels[1].name == TEAM else None
            )
        self._named = frozenset(server for rung in self._rungs for server in rung.servers())
        self._common: Mapping[Kind, _Rules] | None = None

    def steps(self, server: Server, kind: Kind) -> list[_Step]:
        """What a thing of this kind of the server must pass, from the inside out."""
        return [*(rung.step(server, kind) for rung in self._rungs), _server_step(server, kind)]

    def rules(self, server: Server) -> Mapping[Kind, _Rules]:
        """The rules of each kind for one server."""
        if (
            server.id in self._named
            or server.allow is not None
            or server.deny
            or not server.enabled
        ):
            return self._compile(server)
        if self._common is None:
            self._common = self._compile(server)
        return self._common

    def _compile(self, server: Server) -> Mapping[Kind, _Rules]:
        return _all_kinds(
            *(_rules_of(tuple(step.test for step in self.steps(server, kind))) for kind in KINDS)
        )


def decide(
    principal: Principal, server: Server, kind: Kind, native: str, *above: Level
) -> Decision:
    """Whether `principal` may use the thing called `native` (a URI for resources) of `server`."""
    return Access(principal, server, Ladder(principal, *above)).decide(kind, native)


def address(endpoint: Endpoint, snapshot: Snapshot) -> Level | None:
    """The level by which an address of groups narrows what is served there; None for others."""
    if not endpoint.groups:
        return None
    targets = [Target(server) for server in sorted(endpoint.servers or ())]
    for group in sorted(endpoint.groups):
        targets.extend(snapshot.groups.get(group, ()))
    return Level("address", "of groups", tuple(targets))


class _Globs:
    """A set of globs (fnmatchcase rules): exact names in a set, the rest as one pattern."""

    __slots__ = ("_pattern", "all", "empty", "exact")

    def __init__(self, globs: Iterable[str]) -> None:
        distinct = set(globs)
        self.all = "*" in distinct
        self.empty = not distinct
        self.exact = frozenset(glob for glob in distinct if not _MAGIC.search(glob))
        self._pattern = _compiled(tuple(sorted(distinct - self.exact)))

    @property
    def names(self) -> frozenset[str] | None:
        """All that it matches; None when that has no end."""
        return self.exact if self._pattern is None else None

    def match(self, native: str) -> bool:
        return (
            self.all
            or native in self.exact
            or (self._pattern is not None and self._pattern.match(native) is not None)
        )


class _Test:
    """Whether one step lets a name pass. allowed None: everything that is not denied passes."""

    __slots__ = ("_allowed", "_denied", "names", "possible", "total")

    def __init__(self, allowed: _Globs | None, denied: _Globs, closed: bool) -> None:
        self._allowed = allowed
        self._denied = denied
        self.names = None if allowed is None else allowed.names
        empty = allowed is not None and allowed.empty
        self.possible = not closed and not empty and not denied.all
        self.total = not closed and (allowed is None or allowed.all) and denied.empty

    def passes(self, native: str) -> bool:
        return self.total or (
            self.possible
            and (self._allowed is None or self._allowed.match(native))
            and not self._denied.match(native)
        )


class _Step:
    """One step for one kind of one server: its test, and what it says about it."""

    __slots__ = ("_denies", "_from", "_grants", "_level", "test")

    def __init__(
        self,
        level: Level,
        grants: tuple[Target, ...] | None,
        denies: tuple[Target, ...],
        source: str = "",
    ) -> None:
        self._level = level
        self._grants = grants
        self._denies = denies
        self._from = source
        self.test = _test_of(
            None if grants is None else tuple(one.glob for one in grants),
            tuple(one.glob for one in denies),
            bool(level.closed),
        )

    def explain(self, native: str, kind: Kind, server: Server) -> Step:
        """What its test says, in words."""
        level, passes = self._level, self.test.passes(native)
        who = f"{level.name} {server.name if level.name == SERVER else level.label}"
        if level.closed:
            return Step(who, passes, f"{who}: {level.closed}", f"is {level.closed}")
        denied = _first(self._denies, native)
        if denied is not None:
            words = _words(denied, server)
            return Step(who, passes, f"{who}: deny {words}", f"denies {words}")
        if self._grants is None:
            return Step(who, passes, who, "sets no limit")
        granted = _first(self._grants, native)
        if granted is None:
            return Step(who, passes, who, f"allows no {kind} {native!r}")
        words = _words(granted, server)
        if self._from:
            words = f"{words} of {self._from}"
            return Step(who, passes, f"{who}: {words}", f"has {words}")
        return Step(who, passes, f"{who}: {words}", f"allows {words}")


class _Rung:
    """One level with its targets sorted by server."""

    __slots__ = ("_denies", "_from", "_grants", "_level")

    def __init__(self, level: Level) -> None:
        self._level = level
        self._grants = None if level.grants is None else _by_server(level.grants)
        self._denies = _by_server(level.denies)
        self._from = ""

    def inherit(self, team: Level | None) -> None:
        """Have what a team is granted; nothing without a team, or where it was granted nothing."""
        self._grants = {}
        if team is not None and team.grants is not None:
            self._grants = _by_server(team.grants)
            self._from = f"{team.name} {team.label}"

    def servers(self) -> Iterable[str]:
        """Ids of the servers that targets name."""
        return (*(self._grants or ()), *self._denies)

    def step(self, server: Server, kind: Kind) -> _Step:
        grants = None if self._grants is None else _of(self._grants, server.id, kind)
        return _Step(self._level, grants, _of(self._denies, server.id, kind), self._from)


class _Rules:
    """The tests for one kind of one server, of which a name must pass every one."""

    __slots__ = ("_strict", "possible", "total")

    def __init__(self, tests: tuple[_Test, ...]) -> None:
        self._strict = tuple(test for test in tests if not test.total)
        self.total = not self._strict
        self.possible = all(test.possible for test in tests)
        named = [test.names for test in tests if test.names is not None]
        if self.possible and named:
            # Where a step names all that it lets through, it can be told whether any of it is left.
            self.possible = any(map(self.allows, min(named, key=len)))

    def allows(self, native: str) -> bool:
        if not self.possible:
            return False
        for test in self._strict:  # noqa: SIM110 - a generator takes longer than the answer
            if not test.passes(native):
                return False
        return True


def _server_step(server: Server, kind: Kind) -> _Step:
    """The server's own lists, which are about tools, and whether it is enabled."""
    if server.enabled and (kind != "tool" or (server.allow is None and not server.deny)):
        return _OPEN
    tools = kind == "tool"
    return _Step(
        Level(SERVER, server.name, None, closed="" if server.enabled else "disabled"),
        _tools(server, server.allow) if tools and server.allow is not None else None,
        _tools(server, server.deny) if tools else (),
    )


def _tools(server: Server, globs: Iterable[str]) -> tuple[Target, ...]:
    return tuple(Target(server.id, "tool", glob) for glob in globs)


def _by_server(targets: Iterable[Target]) -> dict[str, list[Target]]:
    found: dict[str, list[Target]] = {}
    for target in targets:
        found.setdefault(target.server, []).append(target)
    return found


def _of(targets: Mapping[str, Sequence[Target]], server_id: str, kind: Kind) -> tuple[Target, ...]:
    """The targets that concern this kind of this server."""
    return tuple(
        target
        for where in (EVERY_SERVER, server_id)
        for target in targets.get(where, ())
        if target.kind is None or target.kind == kind
    )


def _first(targets: Iterable[Target], native: str) -> Target | None:
    return next((one for one in targets if _set_of((one.glob,)).match(native)), None)


def _words(target: Target, server: Server) -> str:
    """A target as it is typed: `*`, `github`, `github/create_*`, `docs/resource:file:///a/*`."""
    where = "*" if target.server == EVERY_SERVER else server.name
    if target.kind is None:
        words = where if target.glob == "*" else f"{where}/{target.glob}"
    else:
        what = target.glob if target.kind == "tool" else f"{target.kind}:{target.glob}"
        words = f"{where}/{what}"
    return f"{words} ({target.via})" if target.via else words


@lru_cache(maxsize=16384)
def _test_of(allowed: tuple[str, ...] | None, denied: tuple[str, ...], closed: bool) -> _Test:
    return _Test(None if allowed is None else _set_of(allowed), _set_of(denied), closed)


@lru_cache(maxsize=16384)
def _rules_of(tests: tuple[_Test, ...]) -> _Rules:
    return _Rules(tests)


@lru_cache(maxsize=16384)
def _all_kinds(*rules: _Rules) -> Mapping[Kind, _Rules]:
    return dict(zip(KINDS, rules, strict=True))


@lru_cache(maxsize=8192)
def _set_of(globs: tuple[str, ...]) -> _Globs:
    return _Globs(globs)


@lru_cache(maxsize=8192)
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None


_OPEN: Final = _Step(Level(SERVER, "", None), None, ())

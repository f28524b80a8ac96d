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

    ladder: the principal's, where access to many servers is wanted.
    """

    __slots__ = ("_rules", "_server")

    def __init__(self, principal: Principal, server: Server, ladder: Ladder | None = None) -> None:
        self._server = server
        self._rules = (ladder or Ladder(principal)).rules(server)

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
        """The decision, and what each step said to it."""
        return self._rules[kind].decide(native, self._server)


class Ladder:
    """A principal's levels, sorted by the servers they name.

    Servers that no target names and that restrict no tools share their rules, so that access to
    all of many servers costs little. above: further levels that narrow, such as an address.
    """

    __slots__ = ("_common", "_named", "_rungs")

    def __init__(self, principal: Principal, *above: Level) -> None:
        levels = principal.levels
        if not levels:
            levels = (Level(principal.kind, principal.name, ()),)
        self._rungs = [_Rung(level) for level in (*levels, *above)]
        if levels[0].grants is None:
            self._rungs[0].inherit(
                levels[1] if len(levels) > 1 and levels[1].name == TEAM else None
            )
        self._named = frozenset(server for rung in self._rungs for server in rung.servers())
        self._common: dict[Kind, _Rules] | None = None

    def rules(self, server: Server) -> dict[Kind, _Rules]:
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

    def _compile(self, server: Server) -> dict[Kind, _Rules]:
        return {
            kind: _Rules(
                kind,
                (*(rung.step(server, kind) for rung in self._rungs), _server_step(server, kind)),
            )
            for kind in KINDS
        }


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

    __slots__ = ("_exact", "_pattern", "all", "empty")

    def __init__(self, globs: Iterable[str]) -> None:
        distinct = set(globs)
        self.all = "*" in distinct
        self.empty = not distinct
        self._exact = frozenset(glob for glob in distinct if not _MAGIC.search(glob))
        self._pattern = _compiled(tuple(sorted(distinct - self._exact)))

    def match(self, native: str) -> bool:
        return (
            self.all
            or native in self._exact
            or (self._pattern is not None and self._pattern.match(native) is not None)
        )


class _Step:
    """One step for one kind of one server. grants None: everything not denied passes."""

    __slots__ = (
        "_allowed",
        "_denied",
        "_denies",
        "_from",
        "_grants",
        "_level",
        "possible",
        "total",
    )

    def __init__(
        self,
        level: Level,
        grants: tuple[Target, ...] | None,
        denies: tuple[Target, ...],
        source: str = "",
    ) -> None:
        self._level = level
        self._from = source
        self._grants = grants
        self._denies = denies
        self._allowed = None if grants is None else _set_of(tuple(one.glob for one in grants))
        self._denied = _set_of(tuple(one.glob for one in denies))
        opened = not level.closed
        allowed = self._allowed
        self.possible = (
            opened and not (allowed is not None and allowed.empty) and not self._denied.all
        )
        self.total = opened and (allowed is None or allowed.all) and self._denied.empty

    def passes(self, native: str) -> bool:
        """Whether it lets the thing through."""
        if self.total:
            return True
        return (
            self.possible
            and (self._allowed is None or self._allowed.match(native))
            and not self._denied.match(native)
        )

    def explain(self, native: str, kind: Kind, server: Server) -> Step:
        """The same answer in words."""
        level, passes = self._level, self.passes(native)
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
            return Step(
                who, passes, f"{who}: {words} of {self._from}", f"has {words} of {self._from}"
            )
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
    """The ladder for one kind of one server: every step must let a name pass."""

    __slots__ = ("_kind", "_server", "_steps", "_strict", "possible", "total")

    def __init__(self, kind: Kind, steps: Sequence[_Step]) -> None:
        self._kind: Kind = kind
        self._steps = tuple(steps)
        self._strict = tuple(step for step in steps if not step.total)
        self.possible = all(step.possible for step in steps)
        self.total = not self._strict

    def allows(self, native: str) -> bool:
        if not self.possible:
            return False
        for step in self._strict:  # noqa: SIM110 - a generator takes longer than the answer
            if not step.passes(native):
                return False
        return True

    def decide(self, native: str, server: Server) -> Decision:
        """The same answer, with what every step said."""
        steps = tuple(step.explain(native, self._kind, server) for step in self._steps)
        allowed = self.allows(native)
        told = steps[0] if allowed else next(step for step in steps if not step.passes)
        return Decision(allowed, told.rule, f"{told.who} {told.reason}", steps)


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


@lru_cache(maxsize=8192)
def _set_of(globs: tuple[str, ...]) -> _Globs:
    return _Globs(globs)


@lru_cache(maxsize=8192)
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None


_OPEN: Final = _Step(Level(SERVER, "", None), None, ())

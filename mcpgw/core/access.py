"""Who may use what: one pure function, compiled once per principal and server.

Effective = own grants ∩ every level above ∩ the server's allowed tools, minus every deny. Deny
always wins; a level above only narrows; nothing that is not written is allowed. Names on the wire
are only a view: what is decided on is (server id, kind, native name), or a resource's URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Final

from mcpgw.model.config import Decision, Kind, Level, Principal, Server, Target

EVERY_SERVER: Final = "*"
KINDS: Final[tuple[Kind, ...]] = ("tool", "prompt", "resource")

_MAGIC = re.compile(r"[*?\[]")


class Access:
    """What one principal may use of one server; compiled, so that a decision is some look-ups.

    ladder: the principal's, where access to many servers is wanted.
    """

    __slots__ = ("_rules",)

    def __init__(self, principal: Principal, server: Server, ladder: Ladder | None = None) -> None:
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
        """The decision and the rule it rests on, for people."""
        return self._rules[kind].decide(native)


class Ladder:
    """A principal's levels, sorted by the servers they name.

    Servers that no target names and that restrict no tools share their rules, so that access to
    all of many servers costs little.
    """

    __slots__ = ("_common", "_named", "_steps")

    def __init__(self, principal: Principal) -> None:
        self._steps = [
            (level, _by_server(level.grants or ()), _by_server(level.denies))
            for level in principal.levels
        ]
        self._named = frozenset(
            server for _, grants, denies in self._steps for server in (*grants, *denies)
        )
        self._common: dict[Kind, _Rules] | None = None

    def rules(self, server: Server) -> dict[Kind, _Rules]:
        """The rules of each kind for one server."""
        if server.id in self._named or server.allow is not None or server.deny:
            return self._compile(server)
        if self._common is None:
            self._common = self._compile(server)
        return self._common

    def _compile(self, server: Server) -> dict[Kind, _Rules]:
        levels = tuple(
            Level(
                level.name,
                level.label,
                None if level.grants is None else _of(grants, server.id),
                _of(denies, server.id),
            )
            for level, grants, denies in self._steps
        )
        return {kind: _Rules(levels, server, kind) for kind in KINDS}


def decide(principal: Principal, server: Server, kind: Kind, native: str) -> Decision:
    """Whether `principal` may use the thing called `native` (a URI for resources) of `server`."""
    return Access(principal, server).decide(kind, native)


class _Globs:
    """A set of globs (fnmatchcase rules): exact names in a set, the rest as compiled patterns."""

    __slots__ = ("_exact", "_patterns", "all", "empty")

    def __init__(self, globs: Iterable[str]) -> None:
        distinct = set(globs)
        self.all = "*" in distinct
        self.empty = not distinct
        self._exact = frozenset(glob for glob in distinct if not _MAGIC.search(glob))
        self._patterns = tuple(_compiled(glob) for glob in sorted(distinct - self._exact))

    def match(self, native: str) -> bool:
        return (
            self.all
            or native in self._exact
            or any(pattern.match(native) for pattern in self._patterns)
        )


class _Rules:
    """The ladder for one kind: every step must let a name pass, no deny may hit it."""

    __slots__ = ("_denies", "_levels", "_own", "_server", "_steps", "kind", "possible", "total")

    def __init__(self, levels: tuple[Level, ...], server: Server, kind: Kind) -> None:
        self.kind: Kind = kind
        self._server = server
        self._levels = levels
        steps: list[_Globs] = []
        for index, level in enumerate(levels):
            if level.grants is not None:
                steps.append(_Globs(_globs(level.grants, server.id, kind)))
            elif index == 0:
                steps.append(_Globs(()))  # a key without grants may use nothing
        if kind == "tool" and server.allow is not None:
            steps.append(_Globs(server.allow))
        denies = [glob for level in levels for glob in _globs(level.denies, server.id, kind)]
        if kind == "tool":
            denies.extend(server.deny)
        self._steps = tuple(steps)
        self._denies = _Globs(denies)
        self.possible = (
            bool(steps) and not any(step.empty for step in steps) and not self._denies.all
        )
        self.total = self.possible and self._denies.empty and all(step.all for step in steps)

    def allows(self, native: str) -> bool:
        if not self.possible:
            return False
        if self.total:
            return True
        for step in self._steps:
            if not step.match(native):
                return False
        return not self._denies.match(native)

    def decide(self, native: str) -> Decision:
        """The same answer as `allows`, with its reason; tests hold the two together."""
        if (denied := self._denial(native)) is not None:
            return denied
        if not self._levels:
            return Decision(False, "no level", "nothing was granted to this principal")
        granted = ""
        for index, level in enumerate(self._levels):
            if level.grants is None and index > 0:
                continue
            hit = self._first(level.grants or (), native)
            if hit is None:
                return Decision(
                    False, _label(level), f"{_label(level)} grants no {self.kind} {native!r}"
                )
            granted = granted or f"{_label(level)}: {_words(hit, self._server)}"
        allow = self._server.allow
        if self.kind == "tool" and allow is not None and not _Globs(allow).match(native):
            rule = f"server {self._server.name}: allow"
            return Decision(False, rule, f"{native!r} is not among the server's allowed tools")
        return Decision(True, granted, f"granted by {granted}")

    def _denial(self, native: str) -> Decision | None:
        for level in self._levels:
            hit = self._first(level.denies, native)
            if hit is not None:
                rule = f"{_label(level)}: deny {_words(hit, self._server)}"
                return Decision(False, rule, f"denied by {rule}")
        if self.kind == "tool":
            for glob in self._server.deny:
                if _Globs((glob,)).match(native):
                    rule = f"server {self._server.name}: deny {glob}"
                    return Decision(False, rule, f"denied by {rule}")
        return None

    def _first(self, targets: Iterable[Target], native: str) -> Target | None:
        for target in targets:
            if _concerns(target, self._server.id, self.kind) and _Globs((target.glob,)).match(
                native
            ):
                return target
        return None


def _by_server(targets: Iterable[Target]) -> dict[str, list[Target]]:
    found: dict[str, list[Target]] = {}
    for target in targets:
        found.setdefault(target.server, []).append(target)
    return found


def _of(targets: dict[str, list[Target]], server_id: str) -> tuple[Target, ...]:
    return (*targets.get(EVERY_SERVER, ()), *targets.get(server_id, ()))


def _concerns(target: Target, server_id: str, kind: Kind) -> bool:
    return target.server in (EVERY_SERVER, server_id) and target.kind in (None, kind)


def _globs(targets: Iterable[Target], server_id: str, kind: Kind) -> list[str]:
    return [target.glob for target in targets if _concerns(target, server_id, kind)]


def _label(level: Level) -> str:
    return f"{level.name} {level.label}"


def _words(target: Target, server: Server) -> str:
    """A target as it is typed: `*`, `github`, `github/create_*`, `docs/resource:file:///a/*`."""
    where = "*" if target.server == EVERY_SERVER else server.name
    if target.kind is None:
        return where if target.glob == "*" else f"{where}/{target.glob}"
    what = target.glob if target.kind == "tool" else f"{target.kind}:{target.glob}"
    return f"{where}/{what}"


@lru_cache(maxsize=8192)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))

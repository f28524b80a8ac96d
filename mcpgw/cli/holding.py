"""What the verbs of keys, teams and organizations have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mcpgw.cli.io import Desk, moment, timestamp, usage

if TYPE_CHECKING:
    from mcpgw.store.holders import Holder, HolderKind, Organization, Team
    from mcpgw.store.keys import Key


def as_json(holder: Holder) -> dict[str, Any]:
    """What `--json` tells of everyone who holds grants; grants are the words that were typed."""
    return {
        "name": holder.name,
        "enabled": holder.enabled,
        "grants": None if holder.grants is None else list(holder.targets),
        "denies": list(holder.deny_targets),
        "policies": list(holder.policies),
    }


def team_json(team: Team) -> dict[str, Any]:
    """A team as `--json` tells it."""
    return {**as_json(team), "org": team.org}


def state(key: Key, now: float) -> str:
    """Whether a key works."""
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and key.expires <= now:
        return "expired"
    if not key.enabled:
        return "disabled"
    return "active" if key.shut is None else f"{key.shut} disabled"


def key_json(key: Key, now: float) -> dict[str, Any]:
    """A key as `--json` tells it; grants are the words that were typed."""
    return {
        **as_json(key),
        "state": state(key, now),
        "start": key.start,
        "created": timestamp(key.created),
        "expires": timestamp(key.expires),
        "revoked": timestamp(key.revoked),
        "team": key.team,
        "org": key.org,
    }


def ceiling(holder: Holder) -> str:
    """What a team or an organization lets its keys have, in words."""
    if holder.grants is None:
        return "whatever else allows"
    return ", ".join(holder.targets) or "nothing"


def facts(desk: Desk, holder: Holder, *more: tuple[str, str]) -> None:
    """One team or organization for people."""
    desk.facts(
        (
            ("name", holder.name),
            ("state", "enabled" if holder.enabled else "disabled"),
            ("created", moment(holder.created)),
            *more,
            ("allows", ceiling(holder)),
            ("never", ", ".join(holder.deny_targets)),
            ("policies", ", ".join(holder.policies)),
        )
    )


def told(desk: Desk, kind: HolderKind, holder: Key | Team | Organization) -> None:
    """The state after a change, for programs and for people."""
    if desk.as_json:
        desk.emit({f"{kind}s": [_one_as_json(kind, holder)]})
    never = f"; never {', '.join(holder.deny_targets)}" if holder.deny_targets else ""
    if kind == "key":
        desk.say(f"{holder.name} may use {may_use(holder)}{never}.")
    else:
        desk.say(f"{holder.name} allows its keys {ceiling(holder)}{never}.")


def may_use(key: Holder) -> str:
    """What a key may use by its own grants, or whose it has."""
    if key.grants is None and (team := getattr(key, "team", None)):
        return f"what the team {team} may"
    return ", ".join(key.targets) or "nothing"


def change_permits(
    desk: Desk, verb: str, kind: HolderKind, name: str, targets: Sequence[str]
) -> None:
    """`grant`, `deny` or `ungrant` for one holder."""
    from mcpgw.store import permits

    change = {"grant": permits.grant, "deny": permits.deny, "ungrant": permits.ungrant}[verb]
    with desk.store() as store:
        holder = change(store, name, targets, holder=kind)
    told(desk, kind, holder)


def switch(desk: Desk, kind: HolderKind, name: str, *, enabled: bool) -> None:
    """`enable` or `disable` for one holder."""
    from mcpgw.store import holders, keys

    with desk.store() as store:
        if kind == "key":
            holder = keys.set_key(store, name, enabled=enabled)
        elif kind == "team":
            holder = holders.set_team(store, name, enabled=enabled)
        else:
            holder = holders.set_org(store, name, enabled=enabled)
    if desk.as_json:
        desk.emit({f"{kind}s": [_one_as_json(kind, holder)]})
    whose = "It is" if kind == "key" else "Its keys are"
    desk.say(
        f"{holder.name} is {'enabled' if enabled else 'disabled'}. "
        f"{whose} {'accepted again' if enabled else 'refused until it is enabled'}."
    )


def cleared(words: Sequence[str], known: Sequence[str], command: str) -> set[str]:
    """The options that `--clear` names. Raises GatewayError (USAGE) for others."""
    for word in words:
        if word not in known:
            usage(
                f'--clear cannot empty "{word}".',
                why=f"It can: {', '.join(known)}.",
                next=f"{command} --help",
            )
    return set(words)


def nothing_to_change(command: str) -> None:
    """Refuse a `set` without anything to set."""
    usage("Nothing to change was named.", next=f"{command} --help")


def emit_or_say(desk: Desk, kind: HolderKind, holder: Key | Team | Organization, text: str) -> None:
    """One holder as JSON, or a sentence."""
    if desk.as_json:
        desk.emit({f"{kind}s": [_one_as_json(kind, holder)]})
    desk.say(text)


def _one_as_json(kind: HolderKind, holder: Key | Team | Organization) -> dict[str, Any]:
    from mcpgw.store.holders import Team
    from mcpgw.store.keys import Key

    if isinstance(holder, Key):
        return key_json(holder, time.time())
    return team_json(holder) if isinstance(holder, Team) else as_json(holder)

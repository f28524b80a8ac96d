"""Grants and denies of keys, teams and organizations: given and taken in the words one types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import audit, holders, keys, targets
from mcpgw.store.db import Store
from mcpgw.store.holders import KINDS, HolderKind, Organization, Team
from mcpgw.store.keys import Key


@overload
def grant(
    store: Store, name: str, words: Sequence[str], *, holder: Literal["key"] = "key"
) -> Key: ...
@overload
def grant(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind
) -> Key | Team | Organization: ...
def grant(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind = "key"
) -> Key | Team | Organization:
    """Let a key use what the words name; let a team or an organization allow it.

    Raises GatewayError: no_such_key, no_such_team, no_such_organization, key_revoked,
    no_such_server, no_such_group, bad_target.
    """
    return _give(store, name, "allow", words, holder)


@overload
def deny(
    store: Store, name: str, words: Sequence[str], *, holder: Literal["key"] = "key"
) -> Key: ...
@overload
def deny(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind
) -> Key | Team | Organization: ...
def deny(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind = "key"
) -> Key | Team | Organization:
    """Never let a key, or any key of a team or organization, use what the words name.

    Raises what `grant` raises.
    """
    return _give(store, name, "deny", words, holder)


@overload
def ungrant(
    store: Store, name: str, words: Sequence[str], *, holder: Literal["key"] = "key"
) -> Key: ...
@overload
def ungrant(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind
) -> Key | Team | Organization: ...
def ungrant(
    store: Store, name: str, words: Sequence[str], *, holder: HolderKind = "key"
) -> Key | Team | Organization:
    """Take back what was granted in these words or, where nothing was, what was denied in them.

    All or nothing. Raises what `grant` raises, and no_such_grant.
    """
    with store.change() as connection:
        old = holder_of(store, holder, name)
        for word in words:
            if not targets.take(store, connection, targets.HOLDERS, old.id, word):
                held = [*old.targets, *(f"{one} (denied)" for one in old.deny_targets)]
                raise GatewayError(
                    f'The {KINDS[holder]} "{old.name}" has neither a grant nor a deny of "{word}".',
                    why=f"It has: {', '.join(held)}." if held else "It has none at all.",
                    next=f"mcpgw {holder} show {old.name}",
                    code="no_such_grant",
                    exit=Exit.MISSING,
                )
        new = holder_of(store, holder, name)
        before, after = audit.difference(holders.view(old), holders.view(new))
        audit.record(connection, store, f"{holder}.ungrant", old.name, before=before, after=after)
    return new


def refill(
    store: Store,
    name: str,
    effect: Literal["allow", "deny"],
    words: Sequence[str],
    *,
    holder: HolderKind,
) -> None:
    """Give a holder these grants, or denies, and no others; none leave it as restricted as it is.

    Raises what `grant` raises.
    """
    with store.change() as connection:
        old = holder_of(store, holder, name)
        if set(words) == set(old.targets if effect == "allow" else old.deny_targets):
            return
        targets.clear(connection, targets.HOLDERS, old.id, effect)
        holders.give(store, connection, old.id, effect, words)
        new = holder_of(store, holder, name)
        before, after = audit.difference(holders.view(old), holders.view(new))
        audit.record(connection, store, f"{holder}.refill", old.name, before=before, after=after)


def holder_of(store: Store, kind: HolderKind, name: str) -> Key | Team | Organization:
    """A holder in force. Raises no_such_key, no_such_team, no_such_organization, key_revoked."""
    if kind == "key":
        return keys.in_force(store, name)
    return holders.get_team(store, name) if kind == "team" else holders.get_org(store, name)


def _give(
    store: Store,
    name: str,
    effect: Literal["allow", "deny"],
    words: Sequence[str],
    kind: HolderKind,
) -> Key | Team | Organization:
    with store.change() as connection:
        old = holder_of(store, kind, name)
        holders.give(store, connection, old.id, effect, words)
        new = holder_of(store, kind, name)
        if new != old:
            before, after = audit.difference(holders.view(old), holders.view(new))
            action = f"{kind}.{'grant' if effect == 'allow' else 'deny'}"
            audit.record(connection, store, action, old.name, before=before, after=after)
    return new

"""No renaming, alias, re-added name or collision moves a permit; nothing taken away widens one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from mcpgw.core.access import decide
from mcpgw.errors import GatewayError
from mcpgw.store import groups, holders, keys, permits, policies
from mcpgw.store.db import Store
from mcpgw.store.registry import (
    ServerDraft,
    add_alias,
    add_server,
    remove_alias,
    remove_server,
    set_server,
)
from mcpgw.store.snapshot import build
from tests.doubles import PlainSecrets

from .conftest import NOW


def stdio(name: str) -> ServerDraft:
    return ServerDraft(name=name, command=("true",))


@pytest.fixture(autouse=True)
def world(store: Store) -> None:
    """Ann may use one tool of github, by her team; jira is nobody's."""
    add_server(store, stdio("github"))
    add_server(store, stdio("jira"))
    holders.add_org(store, "acme")
    holders.add_team(store, "dev", org="acme")
    groups.add_group(store, "reading", ["github/get_x"])
    permits.grant(store, "dev", ["group:reading"], holder="team")
    keys.create_key(store, "ann", team="dev", now=NOW)


def may(store: Store) -> set[tuple[str, str]]:
    """Everything Ann may use: (server's id, tool)."""
    snapshot = build(store, PlainSecrets(), now=NOW)
    return {
        (server.id, tool)
        for who in snapshot.principals.values()
        for server in snapshot.servers.values()
        for tool in ("get_x", "drop_x", "")
        if decide(who, server, "tool", tool).allowed
    }


def taken(attempt: Callable[[], object]) -> None:
    with pytest.raises(GatewayError) as caught:
        attempt()
    assert caught.value.code == "name_taken"


def test_renaming_moves_nothing(store: Store) -> None:
    before = may(store)
    assert len(before) == 1
    set_server(store, "github", name="old")
    set_server(store, "jira", name="github")
    assert may(store) == before
    set_server(store, "github", name="GitHub")
    assert may(store) == before
    groups.set_group(store, "reading", name="writing")
    holders.set_team(store, "dev", name="ops")
    holders.set_org(store, "acme", name="other")
    keys.set_key(store, "ann", name="bob")
    assert may(store) == before


def test_an_alias_moves_nothing(store: Store) -> None:
    before = may(store)
    add_alias(store, "gh", "github")
    set_server(store, "github", prefix="gh")
    remove_alias(store, "gh")
    add_alias(store, "gh", "jira")
    set_server(store, "jira", prefix="gh")
    assert may(store) == before


def test_a_server_that_is_added_again_is_another(store: Store) -> None:
    permits.grant(store, "ann", ["github"])
    permits.grant(store, "acme", ["github", "group:reading"], holder="org")
    remove_server(store, "github")
    add_server(store, stdio("github"))
    add_server(store, stdio("GITHUB2"))
    assert may(store) == set()


def test_a_group_team_or_key_that_is_added_again_is_another(store: Store) -> None:
    groups.remove_group(store, "reading")
    groups.add_group(store, "reading", ["*"])
    assert may(store) == set()
    permits.grant(store, "dev", ["*"], holder="team")
    assert may(store)
    keys.revoke_key(store, "ann", now=NOW)
    holders.remove_team(store, "dev")
    holders.add_team(store, "dev")
    permits.grant(store, "dev", ["*"], holder="team")
    keys.create_key(store, "ann", now=NOW)
    assert may(store) == set()


def test_names_that_differ_in_case_collide(store: Store) -> None:
    before = may(store)
    for attempt in (
        lambda: add_server(store, stdio("GITHUB")),
        lambda: add_server(store, stdio("Reading")),
        lambda: add_alias(store, "JIRA", "github"),
        lambda: groups.add_group(store, "GitHub", []),
        lambda: holders.add_team(store, "DEV"),
        lambda: holders.add_org(store, "ACME"),
        lambda: keys.create_key(store, "ANN", now=NOW),
    ):
        taken(attempt)
    assert may(store) == before


def test_an_empty_team_allows_nothing(store: Store) -> None:
    permits.ungrant(store, "dev", ["group:reading"], holder="team")
    assert may(store) == set()
    permits.grant(store, "ann", ["*"])
    assert may(store) == set()
    holders.set_team(store, "dev", ceiling=False)
    assert len(may(store)) == 6


def test_the_last_grant_of_a_server_that_goes_leaves_a_ceiling_of_nothing(store: Store) -> None:
    permits.grant(store, "ann", ["*"])
    permits.grant(store, "acme", ["github"], holder="org")
    remove_server(store, "github")
    assert may(store) == set()


def test_taking_anything_away_never_widens(store: Store) -> None:
    """Whatever can be removed in one step, from a store that has some of everything."""
    permits.grant(store, "ann", ["github", "group:reading", "jira/get_*"])
    permits.grant(store, "dev", ["*"], holder="team")
    permits.grant(store, "acme", ["github", "jira/get_x"], holder="org")
    groups.add_group(store, "danger", ["*/drop_*"])
    permits.deny(store, "acme", ["group:danger"], holder="org")
    policies.add_policy(store, "safe", denies=["group:danger"])
    policies.attach_policy(store, "safe", "team", "dev")
    before = may(store)
    assert len(before) == 3
    takes: list[Callable[[], object]] = [
        lambda: permits.ungrant(store, "ann", ["github"]),
        lambda: permits.ungrant(store, "ann", ["group:reading"]),
        lambda: permits.ungrant(store, "ann", ["github", "group:reading", "jira/get_*"]),
        lambda: permits.ungrant(store, "dev", ["*", "group:reading"], holder="team"),
        lambda: permits.ungrant(store, "acme", ["github"], holder="org"),
        lambda: permits.ungrant(store, "acme", ["github", "jira/get_x"], holder="org"),
        lambda: remove_server(store, "github"),
        lambda: remove_server(store, "jira"),
        lambda: groups.remove_group(store, "reading"),
        lambda: groups.set_group(store, "reading", targets=[]),
        lambda: keys.revoke_key(store, "ann", now=NOW),
        lambda: keys.set_key(store, "ann", enabled=False),
        lambda: holders.set_team(store, "dev", enabled=False),
        lambda: holders.set_org(store, "acme", enabled=False),
        lambda: holders.set_org(store, "acme", ceiling=True),
        lambda: set_server(store, "github", enabled=False),
    ]
    for take in takes:
        assert after(store, take) <= before
    assert may(store) == before
    for refused in (
        lambda: groups.remove_group(store, "danger"),
        lambda: policies.remove_policy(store, "safe"),
        lambda: holders.remove_team(store, "dev"),
        lambda: holders.remove_org(store, "acme"),
    ):
        with pytest.raises(GatewayError) as caught:
            refused()
        assert caught.value.code.endswith("_in_use")
    assert may(store) == before


def after(store: Store, take: Callable[[], object]) -> set[tuple[str, str]]:
    """What Ann may use after a change that is not kept."""
    left: set[tuple[str, str]] = set()
    with contextlib.suppress(_UndoneError), store.change():
        take()
        left = may(store)
        raise _UndoneError
    return left


class _UndoneError(Exception):
    """Ends a change that is not to be kept."""

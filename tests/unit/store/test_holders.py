"""Organizations, teams and what is said of keys in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Level, Target
from mcpgw.store import audit, holders, keys, permits
from mcpgw.store.db import Store
from mcpgw.store.groups import add_group
from mcpgw.store.registry import ServerDraft, add_server, remove_server
from mcpgw.store.snapshot import build, principal_of
from tests.doubles import PlainSecrets

from .conftest import NOW


@pytest.fixture(autouse=True)
def github(store: Store) -> str:
    return add_server(store, ServerDraft(name="github", command=("true",))).id


def refusal(attempt: Callable[[], object]) -> tuple[str, Exit]:
    with pytest.raises(GatewayError) as caught:
        attempt()
    return caught.value.code, caught.value.exit


def actions(store: Store) -> list[str]:
    rows = [row for row in audit.changes(store) if not row.action.startswith("server")]
    return [f"{row.action} {row.subject}" for row in reversed(rows)]


def in_force(store: Store) -> list[str]:
    return [one.name for one in build(store, PlainSecrets(), now=NOW).principals.values()]


def test_organizations_teams_and_keys(store: Store) -> None:
    org = holders.add_org(store, "Acme")
    team = holders.add_team(store, "dev", org="acme")
    key, _ = keys.create_key(store, "ann", team="DEV", now=NOW)
    assert (team.org, key.team, key.org) == ("Acme", "dev", "Acme")
    assert holders.list_orgs(store) == [org] == [holders.get_org(store, "ACME")]
    assert holders.list_teams(store) == [team] == [holders.get_team(store, "Dev")]
    assert (org.grants, org.enabled, org.policies) == (None, True, ())
    assert actions(store) == ["org.add Acme", "team.add dev", "key.create ann"]


def test_one_name_may_be_a_key_a_team_and_an_organization(store: Store) -> None:
    holders.add_org(store, "same")
    holders.add_team(store, "same", org="same")
    keys.create_key(store, "same", team="same", now=NOW)
    assert permits.grant(store, "same", ["github"], holder="team").targets == ("github",)
    assert holders.get_org(store, "same").grants is None
    assert keys.get_key(store, "same").grants is None


CANNOT: list[tuple[Callable[[Store], object], str]] = [
    (lambda s: holders.add_org(s, "acme"), "name_taken"),
    (lambda s: holders.add_team(s, "DEV"), "name_taken"),
    (lambda s: holders.add_org(s, "a/b"), "bad_name"),
    (lambda s: holders.add_team(s, ""), "bad_name"),
    (lambda s: holders.add_team(s, "x", org="nope"), "no_such_organization"),
    (lambda s: holders.set_team(s, "dev", org="nope"), "no_such_organization"),
    (lambda s: holders.set_team(s, "nope", enabled=False), "no_such_team"),
    (lambda s: holders.set_org(s, "Acme", name="Other"), "name_taken"),
    (lambda s: holders.get_team(s, "Acme"), "no_such_team"),
    (lambda s: holders.remove_org(s, "Acme"), "organization_in_use"),
    (lambda s: holders.remove_team(s, "dev"), "team_in_use"),
    (lambda s: keys.create_key(s, "x", team="nope", now=NOW), "no_such_team"),
    (lambda s: keys.set_key(s, "ann", team="nope"), "no_such_team"),
    (lambda s: keys.set_key(s, "ann", name="BOB"), "name_taken"),
    (lambda s: keys.set_key(s, "ann", name="b b"), "bad_name"),
    (lambda s: keys.set_key(s, "ann", expires=float("nan")), "bad_expiry"),
    (lambda s: permits.grant(s, "nope", ["github"], holder="org"), "no_such_organization"),
    (lambda s: permits.ungrant(s, "dev", ["github"], holder="team"), "no_such_grant"),
]


@pytest.mark.parametrize(("attempt", "code"), CANNOT)
def test_what_cannot_be_changes_nothing(
    store: Store, attempt: Callable[[Store], object], code: str
) -> None:
    holders.add_org(store, "Acme")
    holders.add_org(store, "other")
    holders.add_team(store, "dev", org="Acme")
    keys.create_key(store, "ann", team="dev", now=NOW)
    keys.create_key(store, "bob", now=NOW)
    rows, generation = audit.changes(store), store.generation()
    assert refusal(lambda: attempt(store))[0] == code
    assert (audit.changes(store), store.generation()) == (rows, generation)


def test_advice_is_typed_as_commands_are(store: Store) -> None:
    holders.add_org(store, "acme")
    with pytest.raises(GatewayError) as caught:
        holders.get_org(store, "acne")
    assert caught.value.why == "1 organization is registered: acme."
    assert caught.value.next == "Did you mean acme?  mcpgw org show acme"


def test_an_inherited_grant_ends_with_the_first_own_and_comes_back_by_word(
    store: Store, github: str
) -> None:
    holders.add_team(store, "dev")
    permits.grant(store, "dev", ["github"], holder="team")
    keys.create_key(store, "ann", team="dev", now=NOW)
    assert keys.get_key(store, "ann").grants is None
    permits.grant(store, "ann", ["github/get_*"])
    permits.ungrant(store, "ann", ["github/get_*"])
    assert keys.get_key(store, "ann").grants == ()
    permits.grant(store, "ann", ["github/get_*"])
    key = keys.set_key(store, "ann", inherit=True)
    assert (key.grants, key.targets) == (None, ())
    assert keys.set_key(store, "ann", inherit=False).grants == ()
    (level, team) = principal_of(store, key.id, now=NOW).levels
    assert (level.grants, team) == ((), Level("team", "dev", (Target(github),)))


def test_a_ceiling_that_is_empty_and_one_that_is_not_set(store: Store) -> None:
    holders.add_team(store, "dev")
    assert holders.set_team(store, "dev", ceiling=True).grants == ()
    permits.grant(store, "dev", ["github"], holder="team")
    team = holders.set_team(store, "dev", ceiling=False)
    assert (team.grants, team.targets) == (None, ())


def test_disabled_holders_keep_their_keys_out(store: Store) -> None:
    holders.add_org(store, "acme")
    holders.add_team(store, "dev", org="acme")
    keys.create_key(store, "ann", team="dev", now=NOW)
    keys.create_key(store, "bob", now=NOW)
    changes: list[tuple[Callable[[bool], holders.Holder], list[str]]] = [
        (lambda on: keys.set_key(store, "ann", enabled=on), ["bob"]),
        (lambda on: holders.set_team(store, "dev", enabled=on), ["bob"]),
        (lambda on: holders.set_org(store, "acme", enabled=on), ["bob"]),
        (lambda on: keys.set_key(store, "bob", enabled=on), ["ann"]),
    ]
    for change, left in changes:
        assert in_force(store) == ["ann", "bob"]
        assert change(False).enabled is False
        assert in_force(store) == left
        assert not build(store, PlainSecrets(), now=NOW).keys.keys() - {
            row[0] for row in store.query("SELECT hash FROM key_secrets")
        }
        assert len(build(store, PlainSecrets(), now=NOW).keys) == 1
        assert change(True).enabled is True


def test_the_ladder_of_one_who_may_not_act_says_why(store: Store) -> None:
    holders.add_org(store, "acme")
    holders.add_team(store, "dev", org="acme")
    key, _ = keys.create_key(store, "ann", team="dev", expires=NOW + 5, now=NOW)
    holders.set_org(store, "acme", enabled=False)

    def closed(now: float) -> list[str]:
        return [level.closed for level in principal_of(store, key.id, now=now).levels]

    assert closed(NOW) == ["", "", "disabled"]
    assert closed(NOW + 5) == ["expired", "", "disabled"]
    keys.set_key(store, "ann", enabled=False, expires=None)
    assert closed(NOW + 5) == ["disabled", "", "disabled"]
    keys.revoke_key(store, "ann", now=NOW)
    assert closed(NOW)[0] == "revoked"
    with pytest.raises(KeyError):
        principal_of(store, "nope", now=NOW)


def test_removal_waits_for_what_it_would_free(store: Store) -> None:
    holders.add_org(store, "acme")
    holders.add_team(store, "dev", org="acme")
    keys.create_key(store, "ann", team="dev", now=NOW)
    keys.revoke_key(store, "ann", now=NOW)
    holders.remove_team(store, "dev")
    holders.remove_org(store, "acme")
    assert (holders.list_teams(store), holders.list_orgs(store)) == ([], [])
    assert keys.get_key(store, "ann").team is None


def test_a_key_moves_and_is_renamed(store: Store) -> None:
    holders.add_team(store, "dev")
    keys.create_key(store, "ann", now=NOW)
    assert keys.set_key(store, "ann", team="dev", name="Anna").team == "dev"
    assert keys.set_key(store, "anna", name="anna").name == "anna"
    assert keys.set_key(store, "anna", team=None).team is None
    assert keys.set_key(store, "anna", expires=NOW + 9).expires == NOW + 9
    keys.revoke_key(store, "anna", now=NOW)
    assert refusal(lambda: keys.set_key(store, "anna", enabled=True))[0] == "key_revoked"


def test_a_secret_that_was_brought_along(store: Store) -> None:
    key, secret = keys.create_key(store, "ann", secret="sk-0123456789abcdef", now=NOW)
    assert (key.start, secret) == ("sk-0", "sk-0123456789abcdef")
    for wrong in ("short", "with blank 0123456789", "x" * 1025, "ümlaut-0123456789"):
        assert refusal(lambda: keys.create_key(store, "b", secret=wrong, now=NOW)) == (  # noqa: B023
            "bad_secret",
            Exit.USAGE,
        )
    assert refusal(lambda: keys.create_key(store, "b", secret=secret, now=NOW))[0] == (
        "secret_taken"
    )
    assert [one.name for one in keys.list_keys(store)] == ["ann"]


def test_grants_at_every_level_are_audited_in_words(store: Store) -> None:
    holders.add_org(store, "acme")
    holders.add_team(store, "dev", org="acme")
    add_group(store, "reading", ["github/get_*"])
    permits.grant(store, "dev", ["group:reading", "github/list_*"], holder="team")
    permits.deny(store, "acme", ["*/drop_*"], holder="org")
    permits.ungrant(store, "dev", ["group:READING"], holder="team")
    holders.set_team(store, "dev", name="devs", org=None)
    rows = {row.action: row for row in audit.changes(store)}
    assert rows["team.grant"].after == {"grants": ["github/list_*", "group:reading"]}
    assert rows["org.deny"].after == {"denies": ["*/drop_*"]}
    assert rows["team.ungrant"].after == {"grants": ["github/list_*"]}
    assert rows["team.set"].before == {"name": "dev", "org": "acme"}
    remove_server(store, "github")
    assert holders.get_team(store, "devs").grants == ()

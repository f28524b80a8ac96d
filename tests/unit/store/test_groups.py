"""Groups and policies: what stands for more than one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcpgw.errors import GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, holders, keys, permits
from mcpgw.store.db import Store
from mcpgw.store.groups import add_group, get_group, list_groups, remove_group, set_group
from mcpgw.store.policies import (
    add_policy,
    attach_policy,
    detach_policy,
    get_policy,
    list_policies,
    remove_policy,
)
from mcpgw.store.registry import (
    ServerDraft,
    add_alias,
    add_server,
    remove_server,
    set_server,
)
from mcpgw.store.snapshot import build, principal_of
from tests.doubles import PlainSecrets

from .conftest import NOW


@pytest.fixture(autouse=True)
def servers(store: Store) -> dict[str, str]:
    return {
        name: add_server(store, ServerDraft(name=name, command=("true",))).id
        for name in ("github", "jira")
    }


def code(attempt: Callable[[], object]) -> str:
    with pytest.raises(GatewayError) as caught:
        attempt()
    return caught.value.code


def test_a_group_is_a_set_of_targets(store: Store, servers: dict[str, str]) -> None:
    group = add_group(store, "Dev", ["github/get_*", "JIRA", "jira"])
    assert group.targets == ("github/get_*", "jira")
    assert group.members == (Target(servers["github"], "tool", "get_*"), Target(servers["jira"]))
    assert list_groups(store) == [group] == [get_group(store, "DEV")]
    keys.create_key(store, "ann", grants=["group:dev"], now=NOW)
    key = keys.get_key(store, "ann")
    assert key.targets == ("group:Dev",)
    assert key.grants == (
        Target(servers["github"], "tool", "get_*", "group:Dev"),
        Target(servers["jira"], via="group:Dev"),
    )
    set_group(store, "dev", name="Devs", targets=["jira/x"])
    key = keys.get_key(store, "ann")
    assert (key.targets, key.grants) == (
        ("group:Devs",),
        (Target(servers["jira"], "tool", "x", "group:Devs"),),
    )
    row = audit.changes(store, 1)[0]
    assert (row.action, row.before, row.after) == (
        "group.set",
        {"name": "Dev", "targets": ["github/get_*", "jira"]},
        {"name": "Devs", "targets": ["jira/x"]},
    )


def test_names_are_one_namespace_whatever_the_case(store: Store) -> None:
    add_group(store, "dev", ["github"])
    add_alias(store, "gh", "github")
    for attempt in (
        lambda: add_group(store, "GitHub", []),
        lambda: add_group(store, "GH", []),
        lambda: add_group(store, "DEV", []),
        lambda: set_group(store, "dev", name="Jira"),
        lambda: add_server(store, ServerDraft(name="Dev", command=("true",))),
        lambda: add_alias(store, "DEV", "github"),
        lambda: set_server(store, "github", name="dev"),
    ):
        assert code(attempt) == "name_taken"
    assert set_group(store, "dev", name="DEV").name == "DEV"


@pytest.mark.parametrize(
    "name", ["", "a__b", "a_", "-a", "a b", "@dev", "group:dev", "*", "x" * 33]
)
def test_malformed_names(store: Store, name: str) -> None:
    assert code(lambda: add_group(store, name, [])) == "bad_name"
    add_group(store, "dev", [])
    assert code(lambda: set_group(store, "dev", name=name)) == "bad_name"
    assert [one.name for one in list_groups(store)] == ["dev"]


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("group:", "bad_target"),
        ("group:dev/x", "bad_target"),
        ("group:group:dev", "bad_target"),
        ("group:*", "no_such_group"),
        ("group: dev", "no_such_group"),
        ("group:github", "no_such_group"),
        ("group:nope", "no_such_group"),
        ("GROUP:dev", "no_such_server"),
        ("dev", "bad_target"),
        ("dev/x", "bad_target"),
        ("@dev", "no_such_server"),
    ],
)
def test_malformed_words_grant_nothing(store: Store, word: str, what: str) -> None:
    add_group(store, "dev", ["*"])
    keys.create_key(store, "ann", now=NOW)
    assert code(lambda: permits.grant(store, "ann", [word])) == what
    assert keys.get_key(store, "ann").grants is None


def test_groups_hold_no_groups(store: Store) -> None:
    add_group(store, "dev", ["github"])
    assert code(lambda: add_group(store, "more", ["group:dev"])) == "bad_target"
    assert code(lambda: set_group(store, "dev", targets=["jira", "group:dev"])) == "bad_target"
    assert get_group(store, "dev").targets == ("github",)


def test_what_goes_from_a_group_goes_from_its_keys(store: Store, servers: dict[str, str]) -> None:
    add_group(store, "dev", ["github", "jira"])
    key, _ = keys.create_key(store, "ann", grants=["group:dev"], now=NOW)
    remove_server(store, "github")
    add_server(store, ServerDraft(name="github", command=("true",)))
    assert principal_of(store, key.id, now=NOW).levels[0].grants == (
        Target(servers["jira"], via="group:dev"),
    )
    remove_group(store, "dev")
    assert principal_of(store, key.id, now=NOW).levels[0].grants == ()
    add_group(store, "dev", ["*"])
    assert principal_of(store, key.id, now=NOW).levels[0].grants == ()
    assert code(lambda: get_group(store, "nope")) == "no_such_group"


def test_a_group_that_is_denied_stays(store: Store) -> None:
    add_group(store, "danger", ["*/drop_*"])
    keys.create_key(store, "ann", grants=["*"], now=NOW)
    permits.deny(store, "ann", ["group:danger"])
    assert code(lambda: remove_group(store, "danger")) == "group_in_use"
    permits.ungrant(store, "ann", ["group:danger"])
    add_policy(store, "safe", denies=["group:danger"])
    assert code(lambda: remove_group(store, "danger")) == "group_in_use"
    remove_policy(store, "safe")
    permits.deny(store, "ann", ["group:danger"])
    keys.revoke_key(store, "ann", now=NOW)
    remove_group(store, "danger")
    assert list_groups(store) == []


def test_groups_in_a_snapshot(store: Store, servers: dict[str, str]) -> None:
    group = add_group(store, "Dev", ["github"])
    snapshot = build(store, PlainSecrets(), now=NOW)
    assert snapshot.group_names == {"dev": group.id}
    assert snapshot.groups == {group.id: (Target(servers["github"], via="group:Dev"),)}
    assert "dev" not in snapshot.names


# ---------------------------------------------------------------- policies


def test_a_policy_denies_for_whom_it_is_attached_to(store: Store, servers: dict[str, str]) -> None:
    add_group(store, "danger", ["jira/drop_*"])
    policy = add_policy(store, "safe", denies=["github/delete_*", "group:danger"])
    assert policy.deny_targets == ("github/delete_*", "group:danger")
    holders.add_team(store, "dev")
    key, _ = keys.create_key(store, "ann", team="dev", grants=["*"], now=NOW)
    attach_policy(store, "safe", "key", "ann")
    attach_policy(store, "SAFE", "key", "ann")
    policy = attach_policy(store, "safe", "team", "dev")
    assert policy.attached == ("key:ann", "team:dev")
    assert keys.get_key(store, "ann").policies == holders.get_team(store, "dev").policies
    assert keys.get_key(store, "ann").denies == ()  # they are the policy's
    for level in principal_of(store, key.id, now=NOW).levels:
        assert level.denies == (
            Target(servers["github"], "tool", "delete_*", "policy safe"),
            Target(servers["jira"], "tool", "drop_*", "policy safe, group:danger"),
        )
    detach_policy(store, "safe", "team", "dev")
    assert principal_of(store, key.id, now=NOW).levels[1].denies == ()
    assert [row.action for row in audit.changes(store, 3)] == [
        "policy.detach",
        "policy.attach",
        "policy.attach",
    ]


def test_a_policy_that_is_attached_stays(store: Store) -> None:
    add_policy(store, "safe", denies=["github"])
    keys.create_key(store, "ann", now=NOW)
    attach_policy(store, "safe", "key", "ann")
    assert code(lambda: remove_policy(store, "safe")) == "policy_in_use"
    assert code(lambda: detach_policy(store, "safe", "org", "x")) == "no_such_organization"
    keys.create_key(store, "bob", now=NOW)
    assert code(lambda: detach_policy(store, "safe", "key", "bob")) == "not_attached"
    keys.revoke_key(store, "ann", now=NOW)
    remove_policy(store, "safe")
    assert list_policies(store) == []
    with pytest.raises(GatewayError) as caught:
        get_policy(store, "safe")
    assert caught.value.code == "no_such_policy"
    assert caught.value.why == "No policy is registered yet."


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": "60"},
        {"rate": "60/d"},
        {"rate": "0/m"},
        {"rate": "60/m\n"},
        {"rate": "-1/m"},
        {"quota": "10/m"},
        {"quota": "1e3/d"},
        {"quota": "٣/d"},
        {"when": " "},
        {"when": "x" * 5000},
    ],
)
def test_limits_that_cannot_be(store: Store, fields: dict[str, Any]) -> None:
    assert code(lambda: add_policy(store, "p", **fields)) == "bad_policy"
    assert list_policies(store) == []


def test_limits_are_kept_as_typed(store: Store) -> None:
    policy = add_policy(store, "p", rate="60/m", quota="10000/d", when='args.a == "b"')
    assert (policy.rate, policy.quota, policy.when) == ("60/m", "10000/d", 'args.a == "b"')
    assert list_policies(store) == [policy]
    assert code(lambda: add_policy(store, "P")) == "name_taken"
    assert code(lambda: add_policy(store, "p q")) == "bad_name"
    assert code(lambda: add_policy(store, "q", denies=["nope"])) == "no_such_server"

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store import audit, keys, permits
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_server, remove_server, set_server

from .conftest import NOW, everything


@pytest.fixture(autouse=True)
def servers(store: Store) -> dict[str, str]:
    return {
        name: add_server(store, ServerDraft(name=name, command=("true",))).id
        for name in ("github", "jira")
    }


def refused(caught: pytest.ExceptionInfo[GatewayError]) -> tuple[str, Exit]:
    return caught.value.code, caught.value.exit


def test_a_key_is_made_once_and_its_secret_is_nowhere(store: Store, path: Path) -> None:
    key, secret = keys.create_key(store, "ann", expires=NOW + 60, now=NOW)
    assert re.fullmatch(r"mcpgw_[A-Za-z0-9_-]{43}", secret)
    assert key.start == secret[:12]
    assert (key.created, key.expires, key.revoked, key.grants) == (NOW, NOW + 60, None, None)
    assert keys.get_key(store, "ANN") == key
    assert keys.list_keys(store) == [key]
    assert secret.encode() not in everything(path)
    assert hashlib.sha256(secret.encode()).digest() in everything(path)
    assert secret not in str(audit.changes(store))


@pytest.mark.parametrize("name", ["", "-a", "a b", "key:a", "a" * 65, "a/b", "ä"])
def test_names_that_cannot_be(store: Store, name: str) -> None:
    with pytest.raises(GatewayError) as caught:
        keys.create_key(store, name, now=NOW)
    assert refused(caught) == ("bad_name", Exit.USAGE)


def test_names_are_unique_until_revoked(store: Store) -> None:
    first, _ = keys.create_key(store, "ann@example.com", now=NOW)
    with pytest.raises(GatewayError) as caught:
        keys.create_key(store, "Ann@Example.com", now=NOW)
    assert refused(caught) == ("name_taken", Exit.MISSING)
    revoked = keys.revoke_key(store, "ann@example.com", now=NOW + 1)
    assert revoked.revoked == NOW + 1
    assert keys.get_key(store, "ann@example.com") == revoked
    assert keys.revoke_key(store, "ann@example.com", now=NOW + 2) == revoked
    second, _ = keys.create_key(store, "ann@example.com", now=NOW + 3)
    assert second.id != first.id
    assert keys.get_key(store, "ann@example.com") == second
    assert [one.revoked for one in keys.list_keys(store)] == [NOW + 1, None]


def test_expiry_in_the_past_is_refused(store: Store) -> None:
    with pytest.raises(GatewayError) as caught:
        keys.create_key(store, "ann", expires=NOW, now=NOW)
    assert refused(caught) == ("bad_expiry", Exit.USAGE)


def test_an_unknown_target_makes_no_key(store: Store) -> None:
    with pytest.raises(GatewayError) as caught:
        keys.create_key(store, "ann", grants=["github", "githb"], now=NOW)
    assert caught.value.code == "no_such_server"
    assert keys.list_keys(store) == []


def test_words_and_targets(store: Store, servers: dict[str, str]) -> None:
    words = [
        "*",
        "github",
        "github/create_*",
        "github/prompt:review",
        "github/resource:file:///a/*",
        "JIRA/*",
        "*/get_*",
        "jira/tool:x",
        "jira/odd:name",
    ]
    key, _ = keys.create_key(store, "ann", grants=words, now=NOW)
    github, jira = servers["github"], servers["jira"]
    assert key.grants == (
        Target("*"),
        Target(github),
        Target(github, "tool", "create_*"),
        Target(github, "prompt", "review"),
        Target(github, "resource", "file:///a/*"),
        Target(jira, "tool", "*"),
        Target("*", "tool", "get_*"),
        Target(jira, "tool", "x"),
        Target(jira, "tool", "odd:name"),
    )
    assert key.targets == (*words[:5], "jira/*", "*/get_*", "jira/x", "jira/odd:name")
    set_server(store, "github", name="code")
    assert keys.get_key(store, "ann").targets[1:3] == ("code", "code/create_*")
    assert keys.get_key(store, "ann").grants == key.grants


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("", "bad_target"),
        ("/x", "bad_target"),
        ("github/", "bad_target"),
        ("github/prompt:", "bad_target"),
        ("github/prompts:x", "bad_target"),
        ("github/resources:x", "bad_target"),
        ("nope", "no_such_server"),
        ("nope/x", "no_such_server"),
        ("group:dev", "no_such_group"),
        ("github/" + "x" * 2000, "bad_target"),
    ],
)
def test_words_that_name_nothing(store: Store, word: str, code: str) -> None:
    keys.create_key(store, "ann", now=NOW)
    for verb, words in (
        (permits.grant, ["github", word]),
        (permits.deny, ["github", word]),
        (permits.ungrant, [word]),
    ):
        with pytest.raises(GatewayError) as caught:
            verb(store, "ann", words)
        assert caught.value.code == code
    key = keys.get_key(store, "ann")
    assert (key.grants, key.denies) == (None, ())


def test_taking_the_last_grant_away_leaves_nothing_not_no_opinion(store: Store) -> None:
    keys.create_key(store, "ann", now=NOW)
    assert permits.grant(store, "ann", ["github"]).targets == ("github",)
    assert permits.grant(store, "ann", ["github"]).targets == ("github",)
    assert permits.ungrant(store, "ann", ["github"]).grants == ()


def test_removing_the_server_takes_grants_along_and_leaves_nothing(store: Store) -> None:
    keys.create_key(store, "ann", grants=["github"], now=NOW)
    permits.deny(store, "ann", ["github/drop_*", "jira"])
    remove_server(store, "github")
    add_server(store, ServerDraft(name="github", command=("true",)))
    key = keys.get_key(store, "ann")
    assert (key.grants, key.targets, key.deny_targets) == ((), (), ("jira",))


def test_ungrant_takes_a_grant_first_and_else_a_deny(store: Store) -> None:
    keys.create_key(store, "ann", grants=["github"], now=NOW)
    permits.deny(store, "ann", ["github", "jira"])
    key = permits.ungrant(store, "ann", ["github"])
    assert (key.targets, key.deny_targets) == ((), ("github", "jira"))
    key = permits.ungrant(store, "ann", ["jira"])
    assert (key.targets, key.deny_targets) == ((), ("github",))
    with pytest.raises(GatewayError) as caught:
        permits.ungrant(store, "ann", ["github", "jira"])
    assert refused(caught) == ("no_such_grant", Exit.MISSING)
    assert caught.value.why == "It has: github (denied)."
    assert keys.get_key(store, "ann") == key  # all or nothing


def test_a_deny_alone_is_no_grant(store: Store) -> None:
    keys.create_key(store, "ann", now=NOW)
    assert permits.deny(store, "ann", ["github"]).grants is None


def test_rotation_keeps_the_old_secret_for_its_grace(store: Store) -> None:
    old, one = keys.create_key(store, "ann", grants=["github"], now=NOW)
    new, two = keys.rotate_key(store, "ann", grace=60, now=NOW)
    assert (new.id, new.grants, new.created) == (old.id, old.grants, NOW)
    assert new.start == two[:12] != one[:12]
    assert untils(store) == {digest(one): NOW + 60, digest(two): None}
    _, three = keys.rotate_key(store, "ann", grace=0, now=NOW + 61)
    assert untils(store) == {digest(three): None}
    row = audit.changes(store, 1)[0]
    assert two not in str(row)
    assert three not in str(row)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def untils(store: Store) -> dict[bytes, float | None]:
    return {row[0]: row[1] for row in store.query("SELECT hash, until FROM key_secrets")}


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan")])
def test_a_grace_that_cannot_be(store: Store, grace: float) -> None:
    keys.create_key(store, "ann", now=NOW)
    with pytest.raises(GatewayError) as caught:
        keys.rotate_key(store, "ann", grace=grace, now=NOW)
    assert caught.value.code == "bad_expiry"


def test_what_is_over_cannot_be_changed(store: Store) -> None:
    keys.create_key(store, "old", expires=NOW + 1, now=NOW)
    keys.create_key(store, "gone", now=NOW)
    keys.revoke_key(store, "gone", now=NOW)
    assert untils(store).keys() == {
        row[0] for row in store.query("SELECT hash FROM key_secrets WHERE until IS NULL")
    }
    with pytest.raises(GatewayError) as caught:
        keys.rotate_key(store, "old", grace=0, now=NOW + 1)
    assert caught.value.code == "key_expired"
    for attempt in (
        lambda: keys.rotate_key(store, "gone", grace=0, now=NOW),
        lambda: permits.grant(store, "gone", ["github"]),
        lambda: permits.deny(store, "gone", ["github"]),
        lambda: permits.ungrant(store, "gone", ["github"]),
    ):
        with pytest.raises(GatewayError) as caught:
            attempt()
        assert refused(caught) == ("key_revoked", Exit.DENIED)


def test_no_key_and_a_slip_of_the_finger(store: Store) -> None:
    with pytest.raises(GatewayError) as caught:
        keys.get_key(store, "ann")
    assert caught.value.next == "mcpgw key create NAME --grant SERVER"
    keys.create_key(store, "annabel", now=NOW)
    with pytest.raises(GatewayError) as caught:
        permits.grant(store, "anabel", ["github"])
    assert refused(caught) == ("no_such_key", Exit.MISSING)
    assert caught.value.next == "Did you mean annabel?  mcpgw key show annabel"


def test_changes_of_a_key_are_recorded_as_words(store: Store) -> None:
    keys.create_key(store, "ann", grants=["github"], now=NOW)
    permits.grant(store, "ann", ["jira/get_*"])
    permits.deny(store, "ann", ["github/drop_*"])
    permits.ungrant(store, "ann", ["jira/get_*"])
    keys.revoke_key(store, "ann", now=NOW)
    rows = [row for row in audit.changes(store) if row.action.startswith("key.")]
    assert [(row.action, row.subject) for row in reversed(rows)] == [
        (f"key.{verb}", "ann") for verb in ("create", "grant", "deny", "ungrant", "revoke")
    ]
    assert rows[3].before == {"grants": ["github"]}
    assert rows[3].after == {"grants": ["github", "jira/get_*"]}


def test_a_tool_whose_name_begins_like_a_kind_stays_a_tool(store: Store) -> None:
    words = ("jira/tool:prompt:x", "jira/tool:tools:x", "jira/x:y")
    keys.create_key(store, "ann", grants=words, now=NOW)
    told = keys.get_key(store, "ann").targets
    assert told == words
    again, _ = keys.create_key(store, "ben", grants=told, now=NOW)
    assert again.grants == keys.get_key(store, "ann").grants


def test_a_secret_that_is_brought_along_replaces_every_other(store: Store) -> None:
    _, first = keys.create_key(store, "ann", now=NOW)
    keys.rotate_key(store, "ann", grace=1000.0, now=NOW)
    keys.set_secret(store, "ann", "brought-along-0123456789")
    assert keys.digests(store) == {
        "ann": frozenset({hashlib.sha256(b"brought-along-0123456789").digest()})
    }
    rows = store.query("SELECT hash FROM key_secrets")
    assert hashlib.sha256(first.encode()).digest() not in {row[0] for row in rows}
    keys.forget_secret(store, "ann")
    assert keys.digests(store) == {}
    with pytest.raises(GatewayError, match="cannot be the secret"):
        keys.set_secret(store, "ann", "short")

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from mcpgw.core.access import decide
from mcpgw.model.config import Level, Target
from mcpgw.store import keys, permits
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_alias, add_server, get_server, set_server
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault
from tests.doubles import PlainSecrets

from .conftest import NOW


def draft(name: str, **fields: Any) -> ServerDraft:
    known: dict[str, Any] = {"name": name, "command": ("true",)}
    return ServerDraft(**(known | fields))


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def test_an_empty_store(store: Store) -> None:
    snapshot = build(store, PlainSecrets(), now=NOW)
    assert (snapshot.servers, snapshot.names, snapshot.keys) == ({}, {}, {})
    assert snapshot.generation == store.generation()


def test_enabled_servers_by_id_name_and_prefix(store: Store) -> None:
    github = add_server(store, draft("GitHub")).id
    jira = add_server(store, draft("jira")).id
    add_server(store, draft("off", enabled=False, secret="env:NOPE", auth="bearer"))
    add_alias(store, "GH", "github")
    add_alias(store, "hidden", "off")
    set_server(store, "github", prefix="gh")
    snapshot = build(store, PlainSecrets(), now=NOW)
    assert snapshot.servers == {github: get_server(store, "gh"), jira: get_server(store, "jira")}
    assert snapshot.names == {"github": github, "gh": github, "jira": jira}
    assert snapshot.prefixes == {"GH": github, "jira": jira}
    assert snapshot.unusable == {}


def test_every_reference_is_tried_and_literals_pass(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERE", "x")
    monkeypatch.delenv("ABSENT", raising=False)
    url = {"command": (), "url": "https://example.com"}
    add_server(store, draft("good", env={"A": "env:THERE", "B": "literal"}))
    for name, fields in {
        "env": {"env": {"A": "env:ABSENT"}},
        "header": {"headers": {"X": "vault:absent"}, **url},
        "secret": {"auth": "bearer", "secret": "file:/absent", **url},
    }.items():
        add_server(store, draft(name, **fields))
    snapshot = build(store, Resolver(Vault(store)), now=NOW)
    reasons = {snapshot.servers[one].name: why for one, why in snapshot.unusable.items()}
    assert reasons.keys() == {"env", "header", "secret"}
    assert (
        reasons["env"] == 'server "env": The secret env:ABSENT is missing. The variable is not set.'
    )
    assert "vault:absent" in reasons["header"]
    assert "file:/absent" in reasons["secret"]


def test_a_secret_set_later_is_seen_by_the_next_snapshot(store: Store) -> None:
    vault = Vault(store)
    resolver = Resolver(vault)
    add_server(store, draft("a", env={"A": "vault:a"}))
    vault.put("a", "one")
    before = build(store, resolver, now=NOW)
    vault.put("a", "two")
    after = build(store, resolver, now=NOW)
    assert after.generation > before.generation
    assert resolver.resolve("vault:a") == "two"


def test_keys_by_digest_with_their_grants(store: Store) -> None:
    github = add_server(store, draft("github")).id
    granted, one = keys.create_key(store, "granted", grants=["github", "*/get_*"], now=NOW)
    permits.deny(store, "granted", ["github/drop_*"])
    _, two = keys.create_key(store, "never", now=NOW)
    _, three = keys.create_key(store, "emptied", grants=["github"], now=NOW)
    permits.ungrant(store, "emptied", ["github"])
    snapshot = build(store, PlainSecrets(), now=NOW)
    found = {snapshot.keys[digest(secret)].name: digest(secret) for secret in (one, two, three)}
    assert len(snapshot.keys) == len(snapshot.principals) == 3
    principal = snapshot.keys[found["granted"]]
    assert snapshot.principals[granted.id] == principal
    assert (principal.id, principal.kind, principal.expires) == (granted.id, "key", None)
    assert principal.levels == (
        Level(
            "key",
            "granted",
            (Target(github), Target("*", "tool", "get_*")),
            (Target(github, "tool", "drop_*"),),
        ),
    )
    assert snapshot.keys[found["never"]].levels[0].grants is None
    assert snapshot.keys[found["emptied"]].levels[0].grants == ()
    server = snapshot.servers[github]
    may = {name: decide(snapshot.keys[d], server, "tool", "x").allowed for name, d in found.items()}
    assert may == {"granted": True, "never": False, "emptied": False}


def test_revoked_and_expired_keys_are_left_out(store: Store) -> None:
    keys.create_key(store, "revoked", now=NOW)
    keys.revoke_key(store, "revoked", now=NOW)
    keys.create_key(store, "expired", expires=NOW + 10, now=NOW)
    snapshot = build(store, PlainSecrets(), now=NOW + 9)
    assert [(one.name, one.expires) for one in snapshot.principals.values()] == [
        ("expired", NOW + 10)
    ]
    snapshot = build(store, PlainSecrets(), now=NOW + 10)
    assert (snapshot.keys, snapshot.principals) == ({}, {})


def test_an_old_secret_ends_with_its_grace_without_another_snapshot(store: Store) -> None:
    _, one = keys.create_key(store, "ann", expires=NOW + 100, now=NOW)
    key, two = keys.rotate_key(store, "ann", grace=60, now=NOW)
    snapshot = build(store, PlainSecrets(), now=NOW)
    assert snapshot.keys[digest(one)].expires == NOW + 60
    assert snapshot.keys[digest(two)].expires == NOW + 100
    assert snapshot.keys[digest(one)].id == snapshot.keys[digest(two)].id == key.id
    assert snapshot.principals[key.id].expires == NOW + 100
    late = build(store, PlainSecrets(), now=NOW + 60)
    assert late.keys.keys() == {digest(two)}


def test_a_grace_never_outlives_the_key(store: Store) -> None:
    _, one = keys.create_key(store, "ann", expires=NOW + 10, now=NOW)
    keys.rotate_key(store, "ann", grace=60, now=NOW)
    assert build(store, PlainSecrets(), now=NOW).keys[digest(one)].expires == NOW + 10


def test_no_secret_is_in_a_snapshot(store: Store) -> None:
    vault = Vault(store)
    vault.put("a", "planted-value")
    add_server(store, draft("a", env={"A": "vault:a"}))
    _, secret = keys.create_key(store, "ann", now=NOW)
    snapshot = build(store, Resolver(vault), now=NOW)
    text = repr(snapshot) + msgspec.json.encode(list(snapshot.principals.values())).decode()
    assert "planted-value" not in text
    assert secret not in text

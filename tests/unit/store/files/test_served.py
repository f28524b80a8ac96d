"""A store that a file fills: nobody is let in by what is not there, and nobody else writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mcpgw.errors import GatewayError
from mcpgw.store import keys, registry
from mcpgw.store.db import Store
from mcpgw.store.files.apply import Applied, serve
from mcpgw.store.files.schema import decode
from mcpgw.store.files.text import parse
from mcpgw.store.registry import ServerDraft
from mcpgw.store.secrets import Resolver
from mcpgw.store.vault import Vault

SECRET = "mcpgw_planted_0123456789"


def fill(store: Store, text: str) -> Applied:
    parsed = parse(text, "gateway.yaml")
    vault = Vault(store, kept=False)
    document = decode(parsed, Path("/"))
    return serve(store, parsed, document, Resolver(vault), seals={}, vault=vault)


def digest(secret: str) -> frozenset[bytes]:
    return frozenset({hashlib.sha256(secret.encode()).digest()})


def test_keys_work_while_their_secret_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "keys: {a: {secret: 'env:A_KEY'}, b: {}}\n"
    done = fill(store, text)
    assert set(done.lost) == {"a", "b"}
    assert "env:A_KEY" in done.lost["a"]
    assert done.minted == ()
    assert keys.digests(store) == {}
    monkeypatch.setenv("A_KEY", SECRET)
    assert set(fill(store, text).lost) == {"b"}
    assert keys.digests(store) == {"a": digest(SECRET)}
    generation = store.generation()
    assert fill(store, text).changes == ()
    assert store.generation() == generation
    monkeypatch.setenv("A_KEY", "short")
    assert "16 to 1024" in fill(store, text).lost["a"]
    assert keys.digests(store) == {}


def test_what_the_file_lacks_goes_and_ids_stay(store: Store) -> None:
    fill(store, "servers: {a: {command: [x]}, b: {command: [x]}}\nkeys: {k: {grants: [a]}}\n")
    was = registry.get_server(store, "a").id, keys.get_key(store, "k").id
    fill(store, "servers: {a: {command: [y]}}\nkeys: {k: {grants: [a]}}\n")
    assert [one.name for one in registry.list_servers(store)] == ["a"]
    assert (registry.get_server(store, "a").id, keys.get_key(store, "k").id) == was


def test_others_may_look_and_not_write(store: Store, path: Path) -> None:
    store.take("/etc/gateway.yaml")
    fill(store, "servers: {a: {command: [x]}}\n")
    with Store.open(path) as other:
        assert [one.name for one in registry.list_servers(other)] == ["a"]
        with pytest.raises(GatewayError, match=r"configured by /etc/gateway\.yaml") as refused:
            registry.add_server(other, ServerDraft(name="b", command=("x",)))
        assert refused.value.code == "config_file"
    fill(store, "servers: {b: {command: [x]}}\n")


def test_the_key_of_a_vault_that_is_not_kept_is_nowhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = Vault(store, kept=False).seal(b"x", bind=b"", purpose="p", ttl=60)
    assert Vault(store, kept=False).unseal(body, bind=b"", purpose="p") is None
    monkeypatch.setenv("MCPGW_MASTER_KEY", "a passphrase")
    body = Vault(store, kept=False).seal(b"x", bind=b"", purpose="p", ttl=60)
    assert Vault(store, kept=False).unseal(body, bind=b"", purpose="p") == b"x"
    assert Vault(store, kept=False).origin is None
    assert not Vault(store).key_file.exists()

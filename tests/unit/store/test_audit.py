from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

from mcpgw.store import audit
from mcpgw.store.db import Store
from mcpgw.store.registry import (
    ServerDraft,
    add_alias,
    add_server,
    remove_alias,
    remove_server,
    set_server,
)
from mcpgw.store.vault import Vault

from .conftest import everything

PLANTED = "plantedSecret-7f3kq9Zx"


def test_every_change_leaves_a_row_with_who_and_when(store: Store) -> None:
    began = time.time()
    add_server(store, ServerDraft(name="a", command=("true",)))
    add_alias(store, "b", "a")
    set_server(store, "a", prefix="b")
    remove_alias(store, "b")
    Vault(store).put("c", "x")
    Vault(store).put("c", "y")
    Vault(store).remove("c")
    Vault(store).remove("c")
    remove_server(store, "a")
    rows = audit.changes(store)
    assert [(row.action, row.subject) for row in reversed(rows)] == [
        ("server.add", "a"),
        ("alias.add", "b"),
        ("server.set", "a"),
        ("alias.remove", "b"),
        ("vault.create", "vault"),
        ("secret.set", "c"),
        ("secret.set", "c"),
        ("secret.remove", "c"),
        ("server.remove", "a"),
    ]
    assert {row.actor for row in rows} == {pwd.getpwuid(os.getuid()).pw_name}
    assert all(began <= row.at <= time.time() for row in rows)
    assert rows[-1].before is None
    assert rows[-1].after is not None
    assert rows[-1].after["command"] == ["true"]
    assert rows[0].after is None
    assert rows[6].after == {"prefix": "b"}


def test_the_latest_come_first_and_as_many_as_wanted(store: Store) -> None:
    for name in ("a", "b", "c"):
        add_server(store, ServerDraft(name=name, command=("true",)))
    assert [row.subject for row in audit.changes(store, 2)] == ["c", "b"]


def test_rows_hold_references_and_never_literals(store: Store) -> None:
    add_server(
        store,
        ServerDraft(
            name="web",
            url=f"https://example.com/mcp?team=a&token={PLANTED}",
            headers={"X-A": PLANTED, "X-B": "env:B"},
            auth="bearer",
            secret="vault:web",
        ),
    )
    add_server(
        store,
        ServerDraft(
            name="cmd",
            command=("run", "--api-key", PLANTED, f"--password={PLANTED}", "--verbose"),
            env={"A": PLANTED, "B": "file:/b"},
        ),
    )
    set_server(store, "web", headers={"X-A": PLANTED + "2", "X-B": "env:C"})
    remove_server(store, "web")
    remove_server(store, "cmd")
    rows = audit.changes(store)
    assert PLANTED not in str(rows)
    web, cmd = rows[-1].after, rows[-2].after
    assert web is not None
    assert cmd is not None
    assert web["headers"] == {"X-A": "***", "X-B": "env:B"}
    assert web["secret"] == "vault:web"
    assert web["url"] == "https://example.com/mcp?team=a&token=***"
    assert cmd["command"] == ["run", "--api-key", "***", "***", "--verbose"]
    assert cmd["env"] == {"A": "***", "B": "file:/b"}
    assert rows[2].before == {"headers": {"X-A": "***", "X-B": "env:B"}}


def test_a_change_of_a_masked_value_is_still_a_row(store: Store) -> None:
    add_server(store, ServerDraft(name="a", command=("true",), env={"A": "one"}))
    set_server(store, "a", env={"A": "two"})
    row = audit.changes(store, 1)[0]
    assert row.action == "server.set"
    assert row.before == {"env": {"A": "***"}}
    assert row.after == {"env": {"A": "***"}}


def test_a_sealed_secret_is_nowhere_in_the_file(store: Store, path: Path) -> None:
    vault = Vault(store)
    vault.put("github", PLANTED)
    assert vault.get("github") == PLANTED
    assert PLANTED.encode() not in everything(path)
    store.close()
    assert PLANTED.encode() not in everything(path)

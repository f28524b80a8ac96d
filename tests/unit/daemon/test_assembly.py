"""The configuration of the moment follows the store, and nobody waits for it."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcpgw.daemon import assembly
from mcpgw.daemon.assembly import LiveConfig
from mcpgw.model.config import Snapshot
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_server
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault
from tests.doubles import PATIENCE

pytestmark = pytest.mark.anyio


def add(path: Path, name: str, secret: str) -> None:
    """A change by another process, as far as SQLite can tell."""
    with Store.open(path) as store:
        draft = ServerDraft(name=name, url="http://127.0.0.1:1/mcp", auth="bearer", secret=secret)
        add_server(store, draft)


async def test_calls_go_on_while_a_changed_store_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(store: Store, secrets: Resolver, *, now: float) -> Snapshot:
        reading.set()
        assert go_on.wait(PATIENCE)
        return build(store, secrets, now=now)

    path, token = tmp_path / "mcpgw.db", tmp_path / "token"
    token.write_text("one")
    with Store.open(path) as store:
        secrets = Resolver(Vault(store))
        config = LiveConfig(store, secrets)
        assert secrets.resolve(f"file:{token}") == "one"
        token.write_text("two")
        monkeypatch.setattr(assembly, "build", slow)
        monkeypatch.setattr(assembly, "POLL", 0.001)
        swapped = anyio.Event()
        config.subscribe(lambda old, new: swapped.set())
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(PATIENCE):
                await anyio.to_thread.run_sync(add, path, "first", f"file:{token}")
                tasks.start_soon(config.watch)
                await anyio.to_thread.run_sync(reading.wait)
                # Here the loop runs, with the old configuration and the old secret.
                assert not config.snapshot.servers
                assert secrets.resolve(f"file:{token}") == "one"
                go_on.set()
                await swapped.wait()
            tasks.cancel_scope.cancel()
        assert [one.name for one in config.snapshot.servers.values()] == ["first"]
        assert secrets.resolve(f"file:{token}") == "two"


async def test_two_who_look_at_once_end_with_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "mcpgw.db"
    with Store.open(path) as store:
        config = LiveConfig(store, Resolver(Vault(store)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(config.look)
            await anyio.to_thread.run_sync(add, path, "first", "env:FIRST")
            tasks.start_soon(config.look)
            await anyio.to_thread.run_sync(add, path, "second", "env:SECOND")
            tasks.start_soon(config.look)
        names = {one.name for one in config.snapshot.servers.values()}
        assert names == {"first", "second"}
        assert len(config.snapshot.unusable) == 2

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import ring
from mcpgw.store.db import Store
from mcpgw.store.secrets import FRESH, LONGEST_FILE, Resolver
from mcpgw.store.vault import Vault


@pytest.fixture
def vault(store: Store) -> Vault:
    return Vault(store)


@pytest.fixture
def resolver(vault: Vault) -> Resolver:
    return Resolver(vault)


def missing(resolver: Resolver, reference: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        resolver.resolve(reference)
    assert (caught.value.code, caught.value.exit) == ("secret_missing", Exit.DENIED)
    assert reference in caught.value.what
    assert caught.value.why
    assert caught.value.next
    return caught.value


@pytest.mark.parametrize("reference", ["env:MY_TOKEN", "os.environ/MY_TOKEN"])
def test_variables(resolver: Resolver, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    assert missing(resolver, reference).why == "The variable is not set."
    monkeypatch.setenv("MY_TOKEN", "")
    assert missing(resolver, reference).why == "The variable is empty."
    monkeypatch.setenv("MY_TOKEN", "one\n")
    assert resolver.resolve(reference) == "one\n"
    monkeypatch.setenv("MY_TOKEN", "two")
    assert resolver.resolve(reference) == "two"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"one", "one"),
        (b"one\n", "one"),
        (b"one\r\n", "one"),
        (b"one\n\n", "one\n"),
        (b" a ", " a "),
    ],
)
def test_files_lose_one_line_end(
    resolver: Resolver, tmp_path: Path, content: bytes, value: str
) -> None:
    (tmp_path / "token").write_bytes(content)
    assert resolver.resolve(f"file:{tmp_path}/token") == value


def test_a_file_is_read_again_when_it_changes_and_only_then(vault: Vault, tmp_path: Path) -> None:
    """As Kubernetes swaps a mounted secret: a symbolic link to another directory."""
    now = itertools.count(0.0, FRESH)
    resolver = Resolver(vault, clock=lambda: next(now))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
        os.utime(tmp_path / name / "token", ns=(1, 1))
    link = tmp_path / "..data"
    link.symlink_to("one")
    reference = f"file:{link}/token"
    assert resolver.resolve(reference) == "one"
    link.unlink()
    link.symlink_to("two")
    assert resolver.resolve(reference) == "two"
    before = (tmp_path / "two/token").stat()
    with (tmp_path / "two/token").open("r+") as file:
        file.write("TWO")
    os.utime(tmp_path / "two/token", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolver.resolve(reference) == "two"  # nothing says that it changed, so it is not read
    os.utime(tmp_path / "two/token")
    assert resolver.resolve(reference) == "TWO"
    link.unlink()
    missing(resolver, reference)


def test_a_file_is_looked_at_once_a_second_and_after_a_refresh(
    vault: Vault, tmp_path: Path
) -> None:
    now = [0.0]
    resolver = Resolver(vault, clock=lambda: now[0])
    file = tmp_path / "token"
    seen: list[str] = []
    for moment, content in ((0.0, "one"), (0.9, "other"), (1.0, "third")):
        now[0] = moment
        file.write_text(content)
        seen.append(resolver.resolve(f"file:{file}"))
    file.write_text("last one")
    resolver.refresh()
    assert [*seen, resolver.resolve(f"file:{file}")] == ["one", "one", "third", "last one"]


def test_files_that_hold_no_secret(resolver: Resolver, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "big").write_bytes(b"x" * (LONGEST_FILE + 1))
    for name in ("empty", "binary", "big", "absent", ""):
        missing(resolver, f"file:{tmp_path}/{name}")


def test_a_file_below_home(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("one")
    assert resolver.resolve("file:~/token") == "one"


def test_the_vault(resolver: Resolver, vault: Vault) -> None:
    assert missing(resolver, "vault:a/B").next == "mcpgw secret set a/B"
    vault.put("a/B", "one")
    assert resolver.resolve("vault:a/B") == "one"
    vault.put("a/B", "two")
    assert resolver.resolve("vault:a/B") == "one"
    resolver.refresh()
    assert resolver.resolve("vault:a/B") == "two"
    vault.remove("a/B")
    resolver.refresh()
    missing(resolver, "vault:a/B")


def test_a_request_waits_for_no_store(resolver: Resolver, vault: Vault, store: Store) -> None:
    vault.put("a", "one")
    resolver.resolve("vault:a")
    store.close()
    assert resolver.resolve("vault:a") == "one"


def test_a_vault_without_its_key_is_a_missing_secret(resolver: Resolver, vault: Vault) -> None:
    vault.put("a", "one")
    vault.key_file.unlink()
    error = missing(Resolver(Vault(vault._store)), "vault:a")  # pyright: ignore[reportPrivateUsage]
    assert "master key" in (error.why or "")


def test_the_keyring(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(resolver, "keyring:github").why == "This system has no keyring."
    held = {("mcpgw", "github"): "one", ("my/service", "name"): "two"}
    asked: list[tuple[str, str]] = []

    def read(service: str, name: str) -> str | None:
        asked.append((service, name))
        return held.get((service, name))

    monkeypatch.setattr(ring, "read", read)
    assert resolver.resolve("keyring:github") == "one"
    assert resolver.resolve("keyring:my/service/name") == "two"
    missing(resolver, "keyring:other")
    held.clear()
    assert resolver.resolve("keyring:github") == "one"
    assert len(asked) == 3
    resolver.refresh()
    missing(resolver, "keyring:github")


@pytest.mark.parametrize("text", ["hunter2", "", "env:", "vault:"])
def test_what_is_no_reference_is_not_shown(resolver: Resolver, text: str) -> None:
    with pytest.raises(GatewayError) as caught:
        resolver.resolve(text)
    assert caught.value.code == "secret_missing"
    assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.next}"


def test_a_mounted_secret_is_read_again_when_its_link_is_swapped(
    store: Store, tmp_path: Path
) -> None:
    # As Kubernetes does it: NAME -> ..data/NAME, and ..data is replaced in one step.
    for version, value in (("..1", "old"), ("..2", "new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(value)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to(Path("..data", "token"))
    now = 0.0
    resolver = Resolver(Vault(store), clock=lambda: now)
    assert resolver.resolve(f"file:{tmp_path}/token") == "old"
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    now = 1.1
    assert resolver.resolve(f"file:{tmp_path}/token") == "new"

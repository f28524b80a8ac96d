"""A store in a private directory, and no look at this machine's keyring or variables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpgw.store import ring
from mcpgw.store.db import Store

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "MCPGW_MASTER_KEY",
        "MCPGW_STORE",
        "DBUS_SESSION_BUS_ADDRESS",
        "PYTHON_KEYRING_BACKEND",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(ring, "_ALWAYS", False)
    monkeypatch.setattr(ring, "_gone_until", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mcpgw.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def everything(path: Path) -> bytes:
    """All bytes the store has on disk: the file, its WAL, its key file's neighbours."""
    return b"".join(
        one.read_bytes() for one in path.parent.glob(path.name + "*") if one.suffix != ".key"
    )

"""Where the private socket stands, and whom it is opened for."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcpgw.daemon import door
from mcpgw.errors import GatewayError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Unix sockets")


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose path is too long for a socket beside it; the other place is `runtime`."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    store = tmp_path / ("x" * 100) / "mcpgw.db"
    store.parent.mkdir()
    return store


@contextmanager
def listening(path: Path) -> Generator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def test_the_door_is_private_and_leaves_nothing(tmp_path: Path) -> None:
    store = tmp_path / "mcpgw.db"
    path = door.door_path(store)
    assert path.parent == tmp_path
    with door.opened_door(store):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert door.answers(path)
    assert list(tmp_path.iterdir()) == []


def test_two_stores_of_one_directory_have_two_doors(tmp_path: Path) -> None:
    paths = {door.door_path(tmp_path / name) for name in ("a.db", "a.sqlite", "a")}
    assert len(paths) == 3


def test_a_link_to_a_store_leads_to_its_door(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "mcpgw.db")
    assert door.door_path(link) == door.door_path(tmp_path / "mcpgw.db")


def test_one_daemon_a_store(tmp_path: Path) -> None:
    store = tmp_path / "mcpgw.db"
    with door.opened_door(store):
        with pytest.raises(GatewayError) as caught, door.opened_door(store):
            pass
        assert caught.value.code == "already_running"
        assert door.answers(door.door_path(store))


def test_what_a_killed_daemon_left_is_taken_away(tmp_path: Path) -> None:
    store = tmp_path / "mcpgw.db"
    with listening(door.door_path(store)):
        pass
    assert not door.answers(door.door_path(store))
    with door.opened_door(store):
        assert door.answers(door.door_path(store))


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_but_a_socket_is_taken_away(tmp_path: Path, kind: str) -> None:
    store = tmp_path / "mcpgw.db"
    path = door.door_path(store)
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(tmp_path / "elsewhere.sock")
    with pytest.raises(GatewayError) as caught, door.opened_door(store):
        pass
    assert caught.value.code == "socket_in_the_way"
    assert path.is_symlink() or path.read_text() == "precious"


def test_a_link_to_somebody_elses_socket_is_not_followed(tmp_path: Path) -> None:
    path = door.door_path(tmp_path / "mcpgw.db")
    with listening(tmp_path / "evil.sock"):
        path.symlink_to(tmp_path / "evil.sock")
        assert not door.answers(path)


def test_a_long_path_has_its_door_elsewhere(far: Path) -> None:
    path = door.door_path(far)
    assert path.parent.name == "runtime"
    with door.opened_door(far):
        assert door.answers(path)
        assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700


def test_a_place_that_others_may_write_to_is_not_trusted(far: Path) -> None:
    """Somebody made the directory first, and put a socket of their own there."""
    path = door.door_path(far)
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with listening(path):
        assert not door.answers(path)
        with pytest.raises(GatewayError) as caught, door.opened_door(far):
            pass
    assert caught.value.code == "socket_not_private"
    assert path.exists()


def test_a_place_of_somebody_else_is_not_trusted(
    far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = door.door_path(far)
    path.parent.mkdir(mode=0o700)
    with listening(path):
        assert door.answers(path)
        if os.geteuid() == 0:
            os.chown(path.parent, 4711, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert not door.answers(path)

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import db, schema
from mcpgw.store.db import Store, default_path
from mcpgw.store.registry import (
    ServerDraft,
    add_server,
    get_server,
    list_servers,
    remove_server,
    set_server,
)

NOBODY = 65534
DRAFT = ServerDraft(name="github", url="https://example.com/mcp")

WRITER = """
import sys
from pathlib import Path
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_server
print("ready", flush=True)
sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    for number in range(int(sys.argv[3])):
        add_server(store, ServerDraft(name=f"{sys.argv[2]}{number}", command=("true",)))
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in directory.iterdir()}


def test_a_new_store_is_private_in_wal_mode_and_strict(store: Store, path: Path) -> None:
    add_server(store, DRAFT)
    assert {one.name for one in path.parent.iterdir()} == {
        "mcpgw.db",
        "mcpgw.db-wal",
        "mcpgw.db-shm",
    }
    assert all(mode(one) == 0o600 for one in path.parent.iterdir())
    assert mode(path.parent) == 0o700
    assert store.query("PRAGMA journal_mode")[0][0] == "wal"
    tables = store.query("PRAGMA table_list")
    ours = [row for row in tables if not row["name"].startswith("sqlite_")]
    assert len(ours) == 18
    assert all(row["strict"] for row in ours)


def test_a_store_that_others_could_read_is_made_private(path: Path) -> None:
    Store.open(path).close()
    path.chmod(0o644)
    Store.open(path).close()
    assert mode(path) == 0o600


def test_foreign_keys_are_on_for_every_connection(path: Path) -> None:
    for _ in range(2):
        with Store.open(path) as store:
            assert store.query("PRAGMA foreign_keys")[0][0] == 1
            with pytest.raises(sqlite3.IntegrityError), store.change() as connection:
                connection.execute(
                    "INSERT INTO names (name, kind, server) VALUES ('a', 'server', 'none')"
                )
            assert store.query("SELECT 1 FROM names") == []


def test_constants_of_the_light_and_the_heavy_module_agree() -> None:
    assert db.APPLICATION_ID == schema.APPLICATION_ID
    known = schema.MIGRATIONS._migrations  # pyright: ignore[reportPrivateUsage]
    assert len(known) == db.SCHEMA_VERSION


def test_every_configuration_table_bumps_the_generation(store: Store) -> None:
    triggers = {
        row[0] for row in store.query("SELECT name FROM sqlite_schema WHERE type='trigger'")
    }
    assert triggers == {
        f"{table}_{event}"
        for table in schema.CONFIGURATION
        for event in ("insert", "update", "delete")
    }
    seen = [store.generation()]
    for change in (
        lambda: add_server(store, DRAFT),
        lambda: set_server(store, "github", timeout=5.0),
        lambda: remove_server(store, "github"),
    ):
        change()
        seen.append(store.generation())
    assert seen == sorted(set(seen))


def test_an_audit_row_alone_moves_data_version_but_not_the_generation(path: Path) -> None:
    with Store.open(path) as one, Store.open(path) as other:
        version, generation = one.data_version(), one.generation()
        with other.change() as connection:
            connection.execute(
                "INSERT INTO changes (at, actor, action, subject) VALUES (0,'a','b','c')"
            )
        assert one.data_version() != version
        assert one.generation() == generation


def test_a_change_is_stored_whole_or_not_at_all(store: Store) -> None:
    def half() -> None:
        with store.change():
            add_server(store, DRAFT)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert list_servers(store) == []
    assert store.query("SELECT 1 FROM changes") == []


def test_an_inner_change_can_fail_alone(store: Store) -> None:
    with store.change():
        add_server(store, DRAFT)
        with pytest.raises(GatewayError, match="taken"):
            add_server(store, DRAFT)
    assert [one.name for one in list_servers(store)] == ["github"]


def test_two_processes_create_and_write_at_once(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, "40"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("left", "right")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors.decode()
    with Store.open(path) as store:
        assert len(list_servers(store)) == 80
        assert store.query("PRAGMA integrity_check")[0][0] == "ok"


def test_a_writer_waits_for_its_turn_and_then_says_who_to_look_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_WAIT", 0.05)
    with Store.open(path) as one, Store.open(path) as other, one.change():
        with pytest.raises(GatewayError) as caught, other.change():
            pytest.fail("two writers at once")
        assert other.generation() == 1  # readers do not wait
    assert caught.value.code == "store_locked"
    assert "fuser" in (caught.value.next or "")


def test_the_switch_to_wal_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that make the same store can meet there, and SQLite lets one fail at once."""
    asked: list[str] = []

    class Connection:
        def execute(self, sql: str) -> None:
            asked.append(sql)
            if len(asked) < 3:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error

    pauses: list[float] = []
    monkeypatch.setattr(db.time, "sleep", pauses.append)
    db._switch_to_wal(cast("sqlite3.Connection", Connection()))  # pyright: ignore[reportPrivateUsage]
    assert pauses == [db.WAL_PAUSE] * 2
    assert asked == ["PRAGMA journal_mode = WAL"] * 3
    monkeypatch.setattr(db, "BUSY_WAIT", -1.0)
    asked.clear()
    with pytest.raises(sqlite3.OperationalError):
        db._switch_to_wal(cast("sqlite3.Connection", Connection()))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    "content",
    [b"hello", b"SQLite format 2\0" + bytes(4096), os.urandom(4096), b"\0"],
    ids=["text", "old", "noise", "nul"],
)
def test_what_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    before = snapshot(path.parent)
    with pytest.raises(GatewayError) as caught:
        Store.open(path)
    assert caught.value.code == "store_damaged"
    assert caught.value.next
    assert snapshot(path.parent) == before


@pytest.mark.parametrize("how", ["truncated", "schema", "header"])
def test_a_damaged_store_is_refused_and_left_alone(path: Path, how: str) -> None:
    with Store.open(path) as store:
        add_server(store, DRAFT)
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[4096 * 3 + 100 :]
    elif how == "schema":
        content[100:4096] = os.urandom(3996)
    else:
        content[16:18] = b"\x00\x07"  # a page size that cannot be
    path.write_bytes(content)
    before = snapshot(path.parent)
    with pytest.raises(GatewayError) as caught, Store.open(path) as store:
        list_servers(store)
    assert caught.value.code == "store_damaged"
    assert snapshot(path.parent) == before


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE bookmarks (url TEXT)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(GatewayError) as caught:
        Store.open(path)
    assert (caught.value.code, caught.value.exit) == ("not_a_store", Exit.USAGE)
    assert path.read_bytes() == before


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GatewayError) as caught:
        Store.open(tmp_path)
    assert caught.value.code == "not_a_store"


def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    with Store.open(path) as store, store.change() as connection:
        connection.execute(f"PRAGMA user_version = {db.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(GatewayError) as caught:
        Store.open(path)
    assert caught.value.code == "store_newer"
    assert "newer mcpgw" in caught.value.what
    assert path.read_bytes() == before


def test_an_older_store_is_brought_up_to_date_and_keeps_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        add_server(store, DRAFT)
    later = _later(monkeypatch)

    @later()
    def more(db: Any) -> None:
        db.conn.execute("ALTER TABLE servers ADD COLUMN colour TEXT")

    with Store.open(path) as store:
        assert store.query("SELECT colour FROM servers")[0][0] is None
        assert store.query("PRAGMA user_version")[0][0] == db.SCHEMA_VERSION
        assert [one.name for one in list_servers(store)] == ["github"]


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        add_server(store, DRAFT)
        version = db.SCHEMA_VERSION
    later = _later(monkeypatch)

    @later()
    def more(db: Any) -> None:
        db.conn.execute("ALTER TABLE servers ADD COLUMN colour TEXT")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        Store.open(path)
    monkeypatch.undo()
    with Store.open(path) as store:
        assert store.query("PRAGMA user_version")[0][0] == version
        assert len(store.query("SELECT * FROM _sqlite_migrations")) == version
        assert "colour" not in store.query("SELECT * FROM servers")[0].keys()  # noqa: SIM118


def _later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The migrations of an mcpgw that knows one more, to be added by the test."""
    later = type(schema.MIGRATIONS)("mcpgw")
    later._migrations = list(schema.MIGRATIONS._migrations)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    monkeypatch.setattr(db, "SCHEMA_VERSION", db.SCHEMA_VERSION + 1)
    return later


def test_a_missing_store_is_not_made_unless_wanted(path: Path) -> None:
    with pytest.raises(GatewayError) as caught:
        Store.open(path, create=False)
    assert (caught.value.code, caught.value.exit) == ("store_missing", Exit.MISSING)
    assert not path.parent.exists()


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with Store.open(path) as store:
        assert store.generation() == 1


def test_a_full_disk_is_told_and_nothing_is_lost(store: Store) -> None:
    add_server(store, DRAFT)
    pages = store.query("PRAGMA page_count")[0][0]
    store.query(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(GatewayError) as caught:
        add_server(store, ServerDraft(name="big", command=("true",), description="x" * 100_000))
    assert caught.value.code == "store_full"
    assert [one.name for one in list_servers(store)] == ["github"]
    assert set_server(store, "github", enabled=False).enabled is False  # it goes on working


def test_a_read_only_store_can_be_read_and_says_so_on_write(path: Path) -> None:
    with Store.open(path) as store:
        add_server(store, DRAFT)
        store.query("PRAGMA query_only = ON")
        with pytest.raises(GatewayError) as caught:
            add_server(store, ServerDraft(name="other", command=("true",)))
        assert (caught.value.code, caught.value.exit) == ("store_readonly", Exit.DENIED)
        assert [one.name for one in list_servers(store)] == ["github"]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that another user can reach, which those of pytest are not."""
    directory = Path(tempfile.mkdtemp(prefix="mcpgw-test-"))
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


@contextmanager
def unprivileged() -> Generator[None]:
    """Root may write anywhere, so for a while this process is nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def test_a_store_in_a_read_only_directory_can_be_read(open_to_all: Path) -> None:
    path = open_to_all / "mcpgw.db"
    with Store.open(path) as store:
        add_server(store, DRAFT)
    hand_over(path)
    path.chmod(0o400)
    open_to_all.chmod(0o555)
    with unprivileged(), Store.open(path) as store:
        assert [one.name for one in list_servers(store)] == ["github"]
        assert store.data_version() == store.data_version()
        with pytest.raises(GatewayError) as caught:
            add_server(store, ServerDraft(name="other", command=("true",)))
    assert (caught.value.code, caught.value.exit) == ("store_readonly", Exit.DENIED)
    assert [one.name for one in open_to_all.iterdir()] == ["mcpgw.db"]


def test_a_read_only_file_in_use_can_be_read(open_to_all: Path) -> None:
    path = open_to_all / "mcpgw.db"
    with Store.open(path) as writer:
        add_server(writer, DRAFT)
        for one in open_to_all.iterdir():
            one.chmod(0o444)
        with unprivileged(), Store.open(path) as store:
            assert [one.name for one in list_servers(store)] == ["github"]
            with pytest.raises(GatewayError) as caught:
                add_server(store, ServerDraft(name="other", command=("true",)))
    assert caught.value.code == "store_readonly"


def test_another_users_store_is_refused(open_to_all: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's file")
    path = open_to_all / "mcpgw.db"
    Store.open(path).close()
    with unprivileged(), pytest.raises(GatewayError) as caught:
        Store.open(path)
    assert (caught.value.code, caught.value.exit) == ("store_unreadable", Exit.DENIED)


def test_a_directory_that_may_not_be_written_to_gets_no_store(open_to_all: Path) -> None:
    open_to_all.chmod(0o555)
    with unprivileged(), pytest.raises(GatewayError) as caught:
        Store.open(open_to_all / "mcpgw.db")
    assert (caught.value.code, caught.value.exit) == ("store_unreadable", Exit.DENIED)
    assert list(open_to_all.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GatewayError) as caught:
        Store.open(tmp_path / "file" / "mcpgw.db")
    assert (caught.value.code, caught.value.exit) == ("store_unreadable", Exit.DENIED)


def test_a_backup_is_a_whole_private_store_of_its_own(store: Store, tmp_path: Path) -> None:
    add_server(store, DRAFT)
    target = tmp_path / "backup.db"
    store.backup(target)
    assert mode(target) == 0o600
    assert [one.name for one in tmp_path.glob("backup*")] == ["backup.db"]
    add_server(store, ServerDraft(name="later", command=("true",)))
    with Store.open(target) as copy:
        assert [one.name for one in list_servers(copy)] == ["github"]


def test_a_backup_put_back_is_in_wal_mode_again(store: Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "backup.db")
    with Store.open(tmp_path / "backup.db") as copy:
        assert copy.query("PRAGMA journal_mode")[0][0] == "wal"


def test_words_that_are_no_unicode_are_told(store: Store) -> None:
    """Arguments that are not UTF-8 reach Python as lone surrogates."""
    for attempt in (
        lambda: get_server(store, "a\udcff"),
        lambda: add_server(store, ServerDraft(name="a", command=("true", "\udcff"))),
        lambda: add_server(store, ServerDraft(name="a", command=("true",), description="\udcff")),
    ):
        with pytest.raises(GatewayError) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit) == ("bad_text", Exit.USAGE)
    assert list_servers(store) == []


def test_a_backup_never_writes_over_a_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("mine")
    with pytest.raises(GatewayError) as caught:
        store.backup(target)
    assert caught.value.code == "file_exists"
    assert target.read_text() == "mine"


def test_a_removed_row_leaves_no_trace_in_the_file(path: Path) -> None:
    with Store.open(path) as store:
        add_server(store, ServerDraft(name="gone", command=("true",), description="findmeplease"))
        remove_server(store, "gone")
        with store.change() as connection:
            connection.execute("DELETE FROM changes")
        assert store.query("PRAGMA secure_delete")[0][0] == 1
    assert b"findmeplease" not in path.read_bytes()


def test_the_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path().parts[-2:] == ("mcpgw", "mcpgw.db")
    monkeypatch.setenv("MCPGW_STORE", str(tmp_path / "mine.db"))
    assert default_path() == tmp_path / "mine.db"


def test_opening_a_store_imports_nothing_heavy(path: Path) -> None:
    Store.open(path).close()
    code = (
        "import sys; from pathlib import Path; from mcpgw.store import registry, keys, audit, db;"
        "db.Store.open(Path(sys.argv[1])).close();"
        "print([m for m in ('sqlite_utils','keyring','cryptography','platformdirs','pydantic',"
        "'mcp','asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_second_store_in_one_process_leaves_the_locks_of_the_first(path: Path) -> None:
    wal = path.with_name(path.name + "-wal")
    with Store.open(path) as first, Store.open(path) as second:
        with first.change() as connection:
            connection.execute("INSERT INTO settings (name, value) VALUES ('a', '1')")
        # The last connection of all deletes the WAL when it is closed; this one is not the last.
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
            "c.execute('SELECT * FROM settings'); c.close()"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
        assert wal.exists()
        with second.change() as connection:
            connection.execute("INSERT INTO settings (name, value) VALUES ('b', '2')")
        rows = first.query("SELECT value FROM settings WHERE name = 'b'")
        assert [row[0] for row in rows] == ["2"]

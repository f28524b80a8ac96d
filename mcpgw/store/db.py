"""One SQLite file that the command line and the daemon open at once.

WAL mode, so that readers never wait; every change is one immediate transaction, so that writers
queue for BUSY_WAIT instead of failing. What SQLite or the file system refuses becomes a
GatewayError that says what to do. A file that is not a store of this version or an older one is
never written to.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, TypeAlias

from mcpgw.errors import Exit, GatewayError

SCHEMA_VERSION: Final = 2
"""How many migrations this mcpgw knows; a store with a higher `user_version` is refused."""

APPLICATION_ID: Final = 0x6D636777  # as schema.APPLICATION_ID, without its import; a test compares
BUSY_WAIT: Final = 10.0  # seconds to queue behind another writer; none writes for longer than ~3 s
WAL_PAUSE: Final = 0.02  # seconds between tries to switch a new store to WAL
SHORTEST: Final = 512  # bytes of a page, and so of a database
OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables

_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    # What was taken out of the store is overwritten, not left on a free page.
    "PRAGMA secure_delete = ON",
)

Value: TypeAlias = str | int | float | bytes | None
"""What a column can hold."""


def served_path(path: Path) -> Path:
    """Where the store is that a daemon beside `path` fills from a file, while it runs."""
    return path.with_name(path.name + ".served")


def default_path() -> Path:
    """Where the store is when nothing else is said: MCPGW_STORE, or the user's data directory."""
    named = os.environ.get("MCPGW_STORE")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_data_path  # noqa: PLC0415 - 20 ms, not needed with MCPGW_STORE

    return user_data_path("mcpgw", appauthor=False) / "mcpgw.db"


class Store:
    """An open store. Use it as a context manager; it may be used from several threads.

    Everything here raises GatewayError: store_damaged, not_a_store, store_newer, store_locked,
    store_full, store_readonly, store_unreadable, store_missing.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._actor: str | None = None
        self._mine: bool | None = None

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Store:
        """Open the store at `path`, made there when it is missing and `create` is true."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise GatewayError(
                f"The SQLite library of this Python is too old ({sqlite3.sqlite_version}).",
                why=f"mcpgw needs {'.'.join(map(str, OLDEST_SQLITE))} or newer.",
                next="Use a newer Python, for instance: uv python install 3.13",
                code="sqlite_too_old",
            )
        path = Path(path).expanduser()
        with explained(path):
            _prepare(path, create=create)
            return cls(path, _opened(path))

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Harmless when closed already."""
        with self._lock:
            self._connection.close()

    @property
    def actor(self) -> str:
        """Who is recorded for changes: the login name of this process's user."""
        if self._actor is None:
            self._actor = _login()
        return self._actor

    def take(self, file: str) -> None:
        """Let nobody but this object change the store: `file` says all that is in it."""
        self._mine = True
        with self.change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO settings (name, value) VALUES ('config.file', ?)", (file,)
            )

    def _refuse_if_taken(self) -> None:
        """Raises GatewayError (config_file) when a file says what is in the store."""
        if self._mine is None:
            rows = self.query("SELECT value FROM settings WHERE name = 'config.file'")
            if rows:
                raise GatewayError(
                    f"The gateway that runs here is configured by {rows[0][0]}.",
                    why="What a file says is changed in the file, which is read again when it "
                    "changes.",
                    next=f"Edit {rows[0][0]}",
                    code="config_file",
                    exit=Exit.DENIED,
                )
            self._mine = True

    def data_version(self) -> int:
        """A number that moves when another connection has committed anything."""
        return int(self.query("PRAGMA data_version")[0][0])

    def generation(self) -> int:
        """A number that grows with every change of the configuration."""
        return int(self.query("SELECT value FROM generation")[0][0])

    def query(self, sql: str, values: Sequence[Value] = ()) -> list[sqlite3.Row]:
        """All rows of a SELECT."""
        with self._lock, explained(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def reading(self) -> Generator[None]:
        """All queries in the block see the store at one moment."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            with explained(self.path):
                self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._roll_back()

    @contextmanager
    def change(self) -> Generator[sqlite3.Connection]:
        """One transaction: all of the block is stored, or nothing when it raises.

        A block inside another becomes part of the outer one (and can fail alone).
        """
        with self._lock, explained(self.path):
            self._refuse_if_taken()
            nested = self._connection.in_transaction
            begin, commit, undo = _NESTED if nested else _OUTER
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute(commit)
            except BaseException:
                # An error such as a full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        for statement in undo:
                            self._connection.execute(statement)
                raise

    def backup(self, target: Path) -> None:
        """Copy the store, as of now, to the new file `target` (mode 0600).

        Raises GatewayError (file_exists) rather than write over a file. A key file beside the
        store is not part of it.
        """
        target = Path(target).expanduser()
        with explained(target):
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError as error:
                raise GatewayError(
                    f"There is a file at {target} already.",
                    why="A backup never writes over a file.",
                    next=f"mcpgw store backup {target}.{time.strftime('%Y%m%d-%H%M%S')}",
                    code="file_exists",
                    exit=Exit.MISSING,
                ) from error
            try:
                self._copy(target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def _copy(self, target: Path) -> None:
        copy = _connect(target, "mode=rw")
        try:
            with self._lock:
                self._connection.backup(copy)
            # A single file is what one expects of a backup; opening it brings WAL back.
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


_OUTER = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_NESTED = ("SAVEPOINT inner", "RELEASE inner", ("ROLLBACK TO inner", "RELEASE inner"))


# ---------------------------------------------------------------- opening


def _prepare(path: Path, *, create: bool) -> None:
    """Make an empty private file where there is none; refuse what cannot be a store."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if not create:
            raise GatewayError(
                f"There is no store at {path}.",
                why="Nothing has been registered there yet.",
                next="mcpgw server add NAME --url URL",
                code="store_missing",
                exit=Exit.MISSING,
            ) from None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another mcpgw made it just now
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return
    if not stat.S_ISREG(found.st_mode):
        raise GatewayError(
            f"{path} is not a file.",
            why="The store is one SQLite file; --store and MCPGW_STORE name it.",
            next=f"mcpgw --store {path / 'mcpgw.db'} status",
            code="not_a_store",
            exit=Exit.USAGE,
        )
    # What the file holds is left to SQLite. To open it here and close it would drop the locks of
    # every connection that this process has to it, and another process would delete the WAL.
    # SQLite takes an empty file for a new database, and so do we: it holds nothing to lose. It
    # takes what is too short as well, and we do not.
    if 0 < found.st_size < SHORTEST:
        raise _not_a_database(path)
    if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
        with suppress(OSError):  # another user's file, or a read-only file system
            path.chmod(0o600)


def _opened(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "mode=rw")
    try:
        try:
            _bring_up(connection, path)
        except sqlite3.OperationalError as error:
            if not _needs_immutable(path, error):
                raise
            connection.close()
            # Nothing can be written there, not even the index of a WAL, so nobody writes it.
            connection = _connect(path, "mode=ro&immutable=1")
            _bring_up(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=BUSY_WAIT,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    return connection


def _needs_immutable(path: Path, error: sqlite3.Error) -> bool:
    wal = path.with_name(path.name + "-wal")
    return _primary(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and not (
        wal.exists() and wal.stat().st_size
    )


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours, and migrate it when it is older than this mcpgw."""
    if _version(connection, path) == SCHEMA_VERSION:
        # A backup that was put back is a single file; so is a store on a read-only disk.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with suppress(sqlite3.OperationalError):
                _switch_to_wal(connection)
        return
    from mcpgw.store import schema  # noqa: PLC0415 - 0.1 s, and only when there is work

    _switch_to_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for its turn.
        if _version(connection, path) < SCHEMA_VERSION:
            schema.migrate(connection, SCHEMA_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for an empty file. Raises for what is not ours or newer."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if application or version or connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise GatewayError(
                f"{path} is a database of another program.",
                why="It has tables, and not the mark of an mcpgw store. Nothing was changed.",
                next=f"mcpgw --store {path.with_name('mcpgw.db')} status",
                code="not_a_store",
                exit=Exit.USAGE,
            )
        return 0
    if version > SCHEMA_VERSION:
        raise GatewayError(
            f"The store at {path} was written by a newer mcpgw.",
            why=f"It has version {version}; this mcpgw knows up to {SCHEMA_VERSION}. "
            "Nothing was changed.",
            next="Update mcpgw, or use another store: mcpgw --store PATH …",
            code="store_newer",
        )
    return version


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """WAL stays with the file. Two that switch at once do not queue, one fails, so try again."""
    end = time.monotonic() + BUSY_WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(WAL_PAUSE)
        else:
            return


def _login() -> str:
    if os.name == "posix":
        import pwd  # noqa: PLC0415 - POSIX only

        with suppress(KeyError):  # a container's user without a name
            return pwd.getpwuid(os.getuid()).pw_name
        return f"uid {os.getuid()}"
    return os.environ.get("USERNAME") or "unknown"


# ---------------------------------------------------------------- what went wrong, for people


@contextmanager
def explained(path: Path) -> Generator[None]:
    """Errors of SQLite and of the file system inside the block become GatewayErrors.

    Broken constraints and misuse of the library stay what they are: faults of mcpgw.
    """
    try:
        yield
    except sqlite3.Error as error:
        known = _explain(path, error)
        if known is None:
            raise
        raise known from error
    except UnicodeEncodeError as error:
        raise GatewayError(
            "Text that is not valid Unicode cannot be stored or looked up.",
            why=f"It has the lone surrogate {error.object[error.start]!a}.",
            code="bad_text",
            exit=Exit.USAGE,
        ) from error
    except OSError as error:
        raise _refused(path, os.strerror(error.errno) if error.errno else str(error)) from error


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code, -1 when the error did not come from SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else -1


def _explain(path: Path, error: sqlite3.Error) -> GatewayError | None:
    explain = _EXPLANATIONS.get(_primary(error))
    return None if explain is None else explain(path, error)


def _locked(path: Path, error: sqlite3.Error) -> GatewayError:
    return GatewayError(
        f"The store at {path} is locked.",
        why=f"Another program has been writing to it for more than {BUSY_WAIT:g} s.",
        next=f"Find it and try again: fuser -v {path}",
        code="store_locked",
    )


def _full(path: Path, error: sqlite3.Error) -> GatewayError:
    return GatewayError(
        f"The store at {path} cannot grow: the disk is full.",
        why="The change was not stored; what was there before is unharmed.",
        next=f"Make room, then try again: df -h {path.parent}",
        code="store_full",
    )


def _read_only(path: Path, error: sqlite3.Error) -> GatewayError:
    return GatewayError(
        f"The store at {path} cannot be written to.",
        why="The file or its directory is read-only for this user. Nothing was changed.",
        next=f"Check who owns it: ls -ld {path.parent} {path}",
        code="store_readonly",
        exit=Exit.DENIED,
    )


def _corrupt(path: Path, error: sqlite3.Error) -> GatewayError:
    return GatewayError(
        f"The store at {path} is damaged.",
        why=f"SQLite says: {error}. mcpgw did not change it.",
        next="Restore a backup, or save what can be read: "
        f"sqlite3 {path} .recover | sqlite3 recovered.db",
        code="store_damaged",
    )


def _failed(path: Path, error: sqlite3.Error) -> GatewayError:
    return _refused(path, f"SQLite says: {error}")


def _not_a_database(path: Path, error: sqlite3.Error | None = None) -> GatewayError:
    return GatewayError(
        f"The file {path} is not an mcpgw store, or it is damaged.",
        why="It does not begin as a SQLite database does. It was not changed.",
        next="Restore a backup there, or use another store: mcpgw --store PATH …",
        code="store_damaged",
    )


def _refused(path: Path, why: str) -> GatewayError:
    return GatewayError(
        f"The store at {path} cannot be opened or written to.",
        why=f"{why.rstrip('.')}.",
        next=f"Check the directory: ls -ld {path.parent}",
        code="store_unreadable",
        exit=Exit.DENIED,
    )


_EXPLANATIONS: dict[int, Callable[[Path, sqlite3.Error], GatewayError]] = {
    sqlite3.SQLITE_BUSY: _locked,
    sqlite3.SQLITE_LOCKED: _locked,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_READONLY: _read_only,
    sqlite3.SQLITE_NOTADB: _not_a_database,
    sqlite3.SQLITE_CORRUPT: _corrupt,
    sqlite3.SQLITE_CANTOPEN: _failed,
    sqlite3.SQLITE_PERM: _failed,
    sqlite3.SQLITE_IOERR: _failed,
}

"""The private door: a Unix socket beside the store, for its owner.

It serves MCP for whoever may open the socket, and what the daemon says of itself. The socket stands
where nobody else may put one of their own: a program that took its place would be told everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcpgw.core import wire
from mcpgw.errors import Exit, GatewayError
from mcpgw.upstream import http1

DOOR_WAIT = 5.0  # seconds a running daemon may take to answer at its door
SOCKET_PATH = 100  # bytes that every platform allows in a Unix socket's path


def door_path(store: Path) -> Path:
    """The Unix socket of the daemon that serves `store`: beside it, or where the path fits."""
    resolved = store.resolve()
    # The whole name stays: two stores of one directory may differ in their endings alone.
    beside = resolved.with_name(f"{resolved.name}.sock")
    if len(os.fsencode(beside)) <= SOCKET_PATH:
        return beside
    digest = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    return _runtime() / f"mcpgw-{digest}.sock"


@contextmanager
def opened_door(store: Path) -> Generator[socket.socket]:
    """The private Unix socket, mode 0600. Refuses when another daemon serves this store."""
    path = door_path(store)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(path):
        raise GatewayError(
            f"The directory {path.parent} is not private.",
            why="The daemon's socket belongs there, and others could put one of their own there.",
            next="XDG_RUNTIME_DIR=DIRECTORY mcpgw serve",
            code="socket_not_private",
            exit=Exit.DENIED,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _alone_in(path.parent):
            _make_room(path)
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(256)
        listener.setblocking(False)
        inode = path.lstat().st_ino
        try:
            yield listener
        finally:
            # Only our own: another daemon may have taken the place in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ino == inode:
                    path.unlink()


def _make_room(path: Path) -> None:
    """Take away what a daemon left that was killed. Raises GatewayError for anything else."""
    if answers(path):
        raise GatewayError(
            "Another mcpgw serves this store already.",
            why=f"Something answers at {path}.",
            next="mcpgw status",
            code="already_running",
            exit=Exit.UPSTREAM,
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise GatewayError(
                f"{path} is in the way.",
                why="The daemon's socket belongs there, and what is there is none.",
                next=f"ls -l {path}",
                code="socket_in_the_way",
                exit=Exit.MISSING,
            )
        path.unlink()


@contextmanager
def _alone_in(directory: Path) -> Generator[None]:
    """Daemons that start at the same time look and bind one after the other."""
    if os.name != "posix":
        yield
        return
    import fcntl  # noqa: PLC0415 - POSIX only

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _runtime() -> Path:
    """Where sockets go whose place beside the store has too long a path."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/mcpgw-{os.getuid()}")  # noqa: S108


def _is_ours(path: Path) -> bool:
    """Whether nobody else could have put a socket there.

    Whoever may write beside the store may change the store itself, so only the other place counts.
    """
    if os.name != "posix" or path.parent != _runtime():
        return True
    found = path.parent.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid in (0, os.geteuid())
        and not stat.S_IMODE(found.st_mode) & 0o022
    )


def answers(path: Path) -> bool:
    """Whether a daemon accepts connections at this door."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode) or not _is_ours(path):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(DOOR_WAIT)
            probe.connect(str(path))
    except OSError:
        return False
    return True


async def live_status(store: Path) -> dict[str, Any] | None:
    """What the daemon that serves `store` says of itself; None when none runs."""
    door = door_path(store)
    if not answers(door):
        return None
    client = http1.Client("http://localhost", unix=str(door))
    try:
        return await ask_status(client)
    except http1.HttpError as error:
        raise GatewayError(
            "The running daemon does not answer.",
            why=error.message,
            next="mcpgw serve",
            code="daemon_failed",
            exit=Exit.UPSTREAM,
        ) from error
    finally:
        await client.aclose()


async def ask_status(client: http1.Client) -> dict[str, Any]:
    response = await client.request("GET", "/status", [], timeout=DOOR_WAIT)
    body = await response.read()
    if response.status != 200:
        raise GatewayError(
            "The running daemon did not tell its status.",
            why=f"It answered {response.status}.",
            code="daemon_failed",
            exit=Exit.UPSTREAM,
        )
    return wire.value(body)

"""The private door: a Unix socket beside the store, for its owner.

It serves MCP for whoever may open the socket, and what the daemon says of itself.
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
    beside = store.resolve().with_suffix(".sock")
    if len(os.fsencode(beside)) <= SOCKET_PATH:
        return beside
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/mcpgw-{os.getuid()}"  # noqa: S108
    digest = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    return Path(runtime) / f"mcpgw-{digest}.sock"


@contextmanager
def opened_door(store: Path) -> Generator[socket.socket]:
    """The private Unix socket, mode 0600. Refuses when another daemon serves this store."""
    path = door_path(store)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if answers(path):
        raise GatewayError(
            "Another mcpgw serves this store already.",
            why=f"Something answers at {path}.",
            next="mcpgw status",
            code="already_running",
            exit=Exit.UPSTREAM,
        )
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(256)
        listener.setblocking(False)
        inode = path.stat().st_ino
        try:
            yield listener
        finally:
            # Only our own: another daemon may have taken the place in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


def answers(path: Path) -> bool:
    """Whether a daemon accepts connections at this door."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
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

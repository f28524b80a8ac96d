"""A store that one file fills, for a daemon that serves from that file alone.

It is a store like any other, in a file of the daemon's own that goes with it, and the very code of
`config apply` fills it: so there is one idea of what a configuration means, and everything that
reads a store reads this one. Others may look into it and not change it. The file is read again
when it changes; a broken edit leaves the last good configuration in force.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import anyio
import anyio.to_thread

from mcpgw.daemon.door import answers, door_path
from mcpgw.errors import Exit, GatewayError
from mcpgw.store.db import Store
from mcpgw.store.files import apply, imports, text
from mcpgw.store.files.brought import Report
from mcpgw.store.files.schema import Document, decode
from mcpgw.store.secrets import Resolver
from mcpgw.store.vault import Vault

LOOK: Final = 0.1  # seconds between looks; a file is read once two of them have found it alike
LOOK_AT_SECRETS: Final = 1.0  # seconds between looks at the files that secrets of keys are in
RETRY_LOST: Final = 2.0  # seconds between tries to get secrets of keys that cannot be had

Mark: TypeAlias = tuple[int, int, int, int] | None
"""By what a change of a file is known; None when there is none."""

_log = logging.getLogger("mcpgw.daemon")


class Filed:
    """The file, and the store that it fills."""

    def __init__(self, file: Path, store: Store) -> None:
        self.file = file
        self.fault: str | None = None
        self.lost: dict[str, str] = {}
        self.vault = Vault(store, kept=False)
        self._store = store
        self._read: Mark = None
        self._secrets: dict[Path, Mark] = {}
        self._told: set[Report] = set()

    def load(self) -> None:
        """Make the store what the file says. Raises GatewayError; the store is as before then."""
        self._read = _mark(self.file)
        found = text.read(self.file)
        document, seals = self._understood(found)
        self._secrets = {path: _mark(path) for path in _files(document)}
        done = apply.serve(
            self._store, found, document, Resolver(self.vault), seals=seals, vault=self.vault
        )
        for name, why in done.lost.items():
            if self.lost.get(name) != why:
                _log.warning('the key "%s" cannot be used: %s', name, why)
        self.lost = dict(done.lost)
        self.fault = None

    def _understood(self, found: text.Text) -> tuple[Document, dict[str, str]]:
        if not any(found.documents):
            raise GatewayError(
                f"{found.name} is empty.", why="That is more likely a slip than a wish."
            )
        if not imports.is_foreign(found):
            return decode(found, self.file.absolute().parent), {}
        brought = imports.known(imports.bring(found), Document())
        for report in brought.reports:
            if report not in self._told:
                _log.warning("%s: %s: %s", found.name, report.path, report.what)
        self._told = set(brought.reports)
        return brought.document, dict(brought.seals)

    async def watch(self, loaded: Callable[[], Awaitable[None]]) -> None:
        """Load again whenever there is a reason to; `loaded` is awaited each time it was done."""
        seen = self._read
        looked = tried = time.monotonic()
        while True:
            await anyio.sleep(LOOK)
            before, seen = seen, _mark(self.file)
            now = time.monotonic()
            due = seen == before and seen != self._read
            if not due and now - looked >= LOOK_AT_SECRETS:
                looked = now
                due = any(_mark(path) != mark for path, mark in self._secrets.items())
            if not due and self.lost and now - tried >= RETRY_LOST:
                due, tried = True, now
            if due and await anyio.to_thread.run_sync(self._load_again):
                await loaded()

    def _load_again(self) -> bool:
        """Whether it worked. Whatever was in force stays so when it did not."""
        try:
            self.load()
        except GatewayError as error:
            fault = " ".join(filter(None, (error.what, error.why)))
            if fault != self.fault:
                _log.error("the last good configuration stays in force: %s", fault)
            self.fault = fault
            return False
        return True


@contextmanager
def filed(file: Path, path: Path) -> Generator[Filed]:
    """The store at `path`, filled from `file`; it is gone after the block.

    Raises GatewayError for a file that cannot be used, and already_running.
    """
    if answers(door_path(path)):
        raise GatewayError(
            "Another mcpgw serves from a file here already.",
            why=f"Something answers at {door_path(path)}.",
            next="mcpgw --store OTHER serve --config FILE",
            code="already_running",
            exit=Exit.UPSTREAM,
        )
    _remove(path)
    try:
        with Store.open(path) as store:
            store.take(str(file.absolute()))
            source = Filed(file, store)
            source.load()
            yield source
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _files(document: Document) -> Iterable[Path]:
    """The files that secrets of keys are in."""
    for key in document.keys.values():
        if key.secret is not None and key.secret.startswith("file:"):
            yield Path(key.secret.removeprefix("file:"))


def _mark(path: Path) -> Mark:
    """Through links: a Kubernetes mount changes where a link leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev

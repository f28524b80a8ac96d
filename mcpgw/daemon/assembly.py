"""A gateway with everything behind it, over one store, and its configuration of the moment."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import Struct

from mcpgw.errors import GatewayError
from mcpgw.model.calls import Note
from mcpgw.model.config import Snapshot
from mcpgw.relay.gateway import Gateway
from mcpgw.store.db import Store
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault
from mcpgw.upstream.pool import Pool

if TYPE_CHECKING:
    from mcpgw.daemon.filed import Filed

POLL = 0.25  # seconds between looks at the store; a change takes effect within half a second
RETRY_UNUSABLE = 2.0  # seconds between looks at references that resolved to nothing
T = TypeVar("T")

_log = logging.getLogger("mcpgw.daemon")


def run(fn: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an async function on uvloop where there is one."""
    fast = importlib.util.find_spec("uvloop") is not None
    return anyio.run(fn, *args, backend_options={"use_uvloop": fast})


class LiveConfig:
    """The configuration of the moment: one frozen snapshot, swapped when the store changes."""

    def __init__(self, store: Store, secrets: Resolver) -> None:
        self._store = store
        self._secrets = secrets
        self._renewing = anyio.Lock()
        self._seen = store.data_version()
        self._changed: list[Callable[[Snapshot, Snapshot], None]] = []
        self.snapshot = build(store, secrets, now=time.time())
        for reason in self.snapshot.unusable.values():
            _log.warning("a server cannot be used: %s", reason)

    def subscribe(self, changed: Callable[[Snapshot, Snapshot], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    async def look(self) -> None:
        """Swap the snapshot now if the configuration is another one."""
        try:
            if self._store.generation() != self.snapshot.generation:
                await self._renew()
        except GatewayError as error:
            _log.error("the store cannot be read, so its changes wait: %s", error.what)

    async def watch(self) -> None:
        """Swap the snapshot whenever the configuration tables have changed."""
        looked = time.monotonic()
        while True:
            await anyio.sleep(POLL)
            try:
                version = self._store.data_version()
                stale = version != self._seen and (
                    self._store.generation() != self.snapshot.generation
                )
                self._seen = version
                if self.snapshot.unusable and time.monotonic() - looked >= RETRY_UNUSABLE:
                    stale, looked = True, time.monotonic()
                if stale:
                    await self._renew()
            except GatewayError as error:
                # The last good configuration goes on serving: broken never means allow more.
                _log.error("the store cannot be read, so its changes wait: %s", error.what)

    async def _renew(self) -> None:
        """Build in a thread, with a connection and secrets of its own: calls go on meanwhile."""
        async with self._renewing:
            secrets = self._secrets.anew()
            new = await anyio.to_thread.run_sync(_build, self._store.path, secrets)
            self._secrets.adopt(secrets)
            self._swap(new)

    def _swap(self, new: Snapshot) -> None:
        old, self.snapshot = self.snapshot, new
        for server_id, reason in new.unusable.items():
            if old.unusable.get(server_id) != reason:
                _log.warning("a server cannot be used: %s", reason)
        for changed in tuple(self._changed):
            changed(old, new)


def _build(path: Path, secrets: Resolver) -> Snapshot:
    with Store.open(path, create=False) as store:
        return build(store, secrets, now=time.time())


class Assembly(Struct):
    """A gateway with everything behind it."""

    store: Store
    config: LiveConfig
    vault: Vault
    pool: Pool
    gateway: Gateway
    filed: Filed | None = None


@asynccontextmanager
async def assembled(path: Path, *, file: Path | None = None) -> AsyncGenerator[Assembly]:
    """Open the store and run a gateway over it until the block ends. file: it fills the store."""
    with ExitStack() as opened:
        source = None
        if file is not None:
            from mcpgw.daemon.filed import filed  # noqa: PLC0415 - 25 ms, not needed without one

            source = opened.enter_context(filed(file, path))
        store = opened.enter_context(Store.open(path))
        vault = Vault(store) if source is None else source.vault
        secrets = Resolver(vault)
        config = LiveConfig(store, secrets)

        def heard(server: str, scope: str, note: Note) -> None:
            gateway.heard(server, scope, note)

        pool = Pool(secrets=secrets, heard=heard)
        gateway = Gateway(links=pool, seal=vault)

        def changed(old: Snapshot, new: Snapshot) -> None:
            for server_id, server in old.servers.items():
                if new.servers.get(server_id) != server:
                    pool.retire(server_id)
            gateway.changed(old, new)

        config.subscribe(changed)
        async with anyio.create_task_group() as tasks:
            await tasks.start(with_status, pool.run)
            await tasks.start(with_status, gateway.run)
            tasks.start_soon(config.watch)
            if source is not None:
                tasks.start_soon(source.watch, config.look)
            try:
                yield Assembly(store, config, vault, pool, gateway, source)
            finally:
                tasks.cancel_scope.cancel()


async def with_status(
    fn: Callable[..., Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """Call `fn(task_status=…)`: anyio's `start` passes it by keyword, as the ports have it."""
    await fn(task_status=task_status)


def links(pool: Pool, snapshot: Snapshot) -> list[dict[str, object]]:
    links: list[dict[str, object]] = []
    for report in pool.status():
        server = snapshot.servers.get(report.server_id)
        fields = {name: getattr(report, name) for name in report.__struct_fields__}
        links.append({"server": server.name if server else report.server_id, **fields})
    return links

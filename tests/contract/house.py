"""A running gateway in the test's loop: real pool, real relay, real fronts over raw servers.

A lock-step test runs it in a loop of its own (`looping`), so that hundreds of examples share it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.abc
from anyio.from_thread import BlockingPortal, start_blocking_portal

from mcpgw.model.calls import ListChanged, Note
from mcpgw.model.config import EVERYTHING, Endpoint, Target
from mcpgw.relay.gateway import Gateway
from mcpgw.upstream.pool import Pool
from tests import rawclient
from tests.doubles import (
    FixedConfig,
    PlainSeal,
    PlainSecrets,
    context,
    key,
    native,
    snapshot,
)
from tests.rawclient import RawClient
from tests.servers.raw import RawServer
from tests.unit.front.rig import Front, front

ALICE = key("alice", Target("*"))
BOB = key("bob", Target("*"))
_KINDS: tuple[Literal["tools", "prompts", "resources"], ...] = ("tools", "prompts", "resources")


class House:
    """The gateway with all that stands behind it. `one`: serve the first server alone, natively."""

    def __init__(
        self, pool: Pool, gateway: Gateway, front: Front, config: FixedConfig, raws: Sequence[Any]
    ) -> None:
        self.pool = pool
        self.gateway = gateway
        self.front = front
        self.config = config
        self.raws = raws

    @asynccontextmanager
    async def client(
        self, kind: rawclient.Kind, who: str = "alice", *, one: bool = True
    ) -> AsyncGenerator[RawClient]:
        """A connected client."""
        port = self.front.address
        assert isinstance(port, int)
        if kind.startswith("http"):
            path = f"/mcp/{self.raws[0].name}" if one else "/mcp"
            opening = rawclient.over_http(kind, port, who, path)
        elif kind == "sse":
            path = f"/mcp/{self.raws[0].name}/sse" if one else "/sse"
            opening = rawclient.over_sse(port, who, path)
        else:
            ctx = context(
                self.config.snapshot,
                principal=self.config.snapshot.principals[f"key-{who}"],
                endpoint=self.endpoint if one else EVERYTHING,
            )
            opening = rawclient.over_stdio(kind, self.gateway, ctx)
        async with opening as client:
            yield client

    def changed(self) -> None:
        """Every list of every server is said to be another."""
        keys = tuple(self.gateway._catalogue._listings)  # pyright: ignore[reportPrivateUsage]
        for server, scope in {(server, scope) for server, scope, _ in keys}:
            for kind in _KINDS:
                self.gateway.heard(server, scope, ListChanged(kind))

    @property
    def endpoint(self) -> Endpoint:
        return native(self.config.snapshot.servers[f"id-{self.raws[0].name}"])


@asynccontextmanager
async def serving(*raws: RawServer, **fields: Any) -> AsyncGenerator[House]:
    """A gateway in front of these servers. fields: of every server's configuration."""
    config = FixedConfig(
        snapshot(*(raw.configured(**fields) for raw in raws), principals=(ALICE, BOB))
    )

    def heard(server: str, scope: str, note: Note) -> None:
        gateway.heard(server, scope, note)

    pool = Pool(secrets=PlainSecrets(), heard=heard)
    gateway = Gateway(links=pool, seal=PlainSeal())
    async with anyio.create_task_group() as tasks:
        await tasks.start(_started, pool.run)
        await tasks.start(_started, gateway.run)
        try:
            async with front(gateway, config=config) as fronting:
                yield House(pool, gateway, fronting, config, raws)
        finally:
            tasks.cancel_scope.cancel()


async def _started(fn: Any, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await fn(task_status=task_status)


@contextlib.contextmanager
def looping() -> Generator[BlockingPortal]:
    """An event loop in a thread of its own."""
    with start_blocking_portal("asyncio", {"use_uvloop": True}) as portal:
        yield portal

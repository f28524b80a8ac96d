"""A running gateway over scripted links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from mcpgw.model.ports import Link, UpstreamError
from mcpgw.relay.gateway import Gateway
from tests.doubles import PlainSeal, ScriptedLinks


class House:
    """A gateway and what stands around it."""

    def __init__(self, links: ScriptedLinks) -> None:
        self.links = links
        self.seal = PlainSeal()
        self.gateway = Gateway(links, self.seal)
        self.handle = self.gateway.handle


@asynccontextmanager
async def running(links: Mapping[str, Link | UpstreamError]) -> AsyncGenerator[House]:
    """A gateway over these links (by server name) that runs until the block ends."""
    house = House(ScriptedLinks(links))
    async with anyio.create_task_group() as tasks:
        await tasks.start(_run, house.gateway)
        yield house
        tasks.cancel_scope.cancel()


async def _run(gateway: Gateway, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await gateway.run(task_status=task_status)

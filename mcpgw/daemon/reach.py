"""A way to a gateway for the command line: the running daemon's, or one of its own.

The daemon is preferred, so that no second child process starts beside its own.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct

from mcpgw.core.eras import LATEST, METHOD_NOT_FOUND
from mcpgw.daemon.assembly import assembled, links
from mcpgw.daemon.door import answers, ask_status, door_path
from mcpgw.daemon.pipe import Pipe
from mcpgw.errors import Exit, GatewayError
from mcpgw.front import stdio as front_stdio
from mcpgw.model.calls import Ask, AskMode, Context, Note, RpcError
from mcpgw.model.config import EVERYTHING, OWNER, Endpoint, Principal, Server, Snapshot
from mcpgw.model.ports import Config, Handler, LinkInfo
from mcpgw.relay.inputs import Driving
from mcpgw.store.db import Store
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault
from mcpgw.upstream import http1
from mcpgw.upstream.http_modern import HttpModernLink

DOOR_CALL = 3600.0  # seconds one call through the door may take; the daemon's own bounds come first


class Reach(Struct, frozen=True):
    """A way to a gateway. `live`: it is the running daemon's; else `config` is our own."""

    handler: Handler
    ctx: Context
    live: bool
    status: Callable[[], Awaitable[dict[str, Any]]]
    config: Config | None = None


@asynccontextmanager
async def reach(
    store: Path, *, key: str | None = None, server: str | None = None, own: bool = False
) -> AsyncGenerator[Reach]:
    """A gateway for the store's owner, or for one who acts as `key`.

    server: only that one, under its native names. own: never the running daemon's. Raises
    GatewayError (MISSING) for an unknown key or server.
    """
    door = door_path(store)
    if not own and answers(door):
        async with _through_door(store, door, key=key, server=server) as reached:
            yield reached
        return
    async with assembled(store) as house:
        snapshot = house.config.snapshot
        principal, endpoint = _acting(snapshot, key), _endpoint(snapshot, server)
        ctx = Context(
            principal=principal,
            snapshot=snapshot,
            endpoint=endpoint,
            revision=LATEST,
            transport="cli",
            session="cli",
        )

        async def status() -> dict[str, Any]:
            return {"links": links(house.pool, house.config.snapshot)}

        yield Reach(house.gateway, ctx, False, status, house.config)


@asynccontextmanager
async def _through_door(
    store: Path, door: Path, *, key: str | None, server: str | None
) -> AsyncGenerator[Reach]:
    with Store.open(store) as opened:
        secrets = Resolver(Vault(opened))
        snapshot = build(opened, secrets, now=time.time())
        principal, endpoint = _acting(snapshot, key), _endpoint(snapshot, server)
        path = f"/mcp/{server}" if server else "/mcp"
        daemon = Server(
            id="daemon",
            name="daemon",
            prefix="daemon",
            transport="http",
            url=f"http://localhost{path}",
            headers={"mcpgw-act-as": key} if key else {},
            timeout=DOOR_CALL,
        )
        client = http1.Client("http://localhost", unix=str(door))
        info = LinkInfo(revision=LATEST, modern=True, capabilities={}, server=Raw(b"{}"))
        link = HttpModernLink(daemon, client=client, secrets=secrets, discovered=info)
        ctx = Context(
            principal=principal,
            snapshot=snapshot,
            endpoint=endpoint,
            revision=LATEST,
            transport="cli",
        )

        async def status() -> dict[str, Any]:
            return await ask_status(client)

        try:
            yield Reach(Driving(link), ctx, True, status)
        finally:
            await client.aclose()


def _acting(snapshot: Snapshot, key: str | None) -> Principal:
    if key is None:
        return OWNER
    for principal in snapshot.principals.values():
        if principal.name == key:
            return principal
    raise GatewayError(
        f'There is no usable key called "{key}".',
        why="It does not exist, was revoked, or has expired.",
        next="mcpgw key list",
        code="no_such_key",
        exit=Exit.MISSING,
    )


def _endpoint(snapshot: Snapshot, server: str | None) -> Endpoint:
    if server is None:
        return EVERYTHING
    server_id = snapshot.names.get(server.lower())
    if server_id is None:
        raise GatewayError(
            f'There is no enabled server called "{server}".',
            next="mcpgw server list",
            code="no_such_server",
            exit=Exit.MISSING,
        )
    return Endpoint(frozenset({server_id}), native=True)


class Unasked:
    """A caller that cannot be asked and does not read notes."""

    ask_mode = AskMode.NEVER

    async def tell(self, note: Note) -> None:
        """Nobody reads it."""

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, f"nobody is there to answer {ask.method}")


async def serve_stdio(store: Path, *, key: str | None) -> None:
    """MCP on standard input and output, until the input ends."""
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("mcpgw").handlers[:] = [handler]
    logging.getLogger("mcpgw").setLevel(logging.WARNING)
    await stdio(store, key=key)


async def stdio(
    store: Path, *, key: str | None, stdin: int | None = None, stdout: int | None = None
) -> None:
    """MCP on two descriptors, or the process's own: the running daemon's, or a gateway of ours."""
    door = door_path(store)
    if not answers(door):
        async with reach(store, key=key, own=True) as reached:
            await front_stdio.serve(
                reached.handler, ctx=reached.ctx, config=reached.config, stdin=stdin, stdout=stdout
            )
        return
    with Store.open(store) as opened:
        _acting(build(opened, Resolver(Vault(opened)), now=time.time()), key)
    with front_stdio.opened(stdin, stdout) as lines:
        await Pipe(door, key, lines).run()

"""`mcpgw access`: why somebody may use something, or may not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import Desk, desk, plain
from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from mcpgw.model.config import Kind, Server
    from mcpgw.store.db import Store

app = noun("Explain what keys may use.")


@app.command(
    "explain", help="Tell level by level whether a key may use something; exit status 4 for no."
)
def explain(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="Whose question.", autocompletion=complete.key_names),
    ],
    tool: Annotated[
        str,
        typer.Argument(
            metavar="TOOL",
            help="SERVER__TOOL or SERVER/TOOL; SERVER/prompt:NAME; SERVER/resource:URI. The server "
            "is not asked.",
            autocompletion=complete.tool_owners,
        ),
    ],
    json: o.Json = False,
) -> None:
    explain_access(desk(ctx, as_json=json), key, tool)


def explain_access(desk: Desk, name: str, thing: str) -> None:
    from mcpgw.core.access import decide
    from mcpgw.store import keys
    from mcpgw.store.snapshot import principal_of

    with desk.store() as store:
        key = keys.get_key(store, name)
        principal = principal_of(store, key.id, now=time.time())
        server, kind, native = thing_of(store, thing)
    decision = decide(principal, server, kind, native)
    if desk.as_json:
        asked = {"key": key.name, "server": server.name, "kind": kind, "name": native}
        told = {**asked, "allowed": decision.allowed, "rule": decision.rule}
        steps = [
            {field: plain(getattr(step, field)) for field in step.__struct_fields__}
            for step in decision.steps
        ]
        desk.emit({"decisions": [{**told, "reason": decision.reason, "steps": steps}]})
    else:
        verdict = "allowed" if decision.allowed else "denied"
        desk.data(f"{verdict}: {decision.reason}")
        desk.rows(
            ("LEVEL", "PASSES", "BECAUSE"),
            [
                (one.who, "yes" if one.passes else "no", f"it {one.reason}")
                for one in decision.steps
            ],
        )
    if not decision.allowed:
        raise typer.Exit(Exit.DENIED)


def thing_of(store: Store, word: str) -> tuple[Server, Kind, str]:
    """Server, kind and native name of what `word` names; nobody is asked whether it exists.

    Raises GatewayError: no_such_server, bad_target, not_found.
    """
    from mcpgw.core.naming import SEPARATOR, public_name
    from mcpgw.model.config import Target
    from mcpgw.store import registry, targets

    where, slash, _ = word.partition("/")
    servers = {one.id: one for one in registry.list_servers(store)}
    if slash and where not in ("", "*"):
        found = targets.parse(store, word)
        if isinstance(found, Target) and found.kind is not None:
            return servers[found.server], found.kind, found.glob
    prefix, separator, native = word.partition(SEPARATOR)
    if not separator or not native:
        raise GatewayError(
            f'"{word}" names no tool, prompt or resource.',
            why="It is SERVER__TOOL or SERVER/TOOL, SERVER/prompt:NAME or SERVER/resource:URI.",
            next="mcpgw access explain --help",
            code="bad_target",
            exit=Exit.USAGE,
        )
    server = next((one for one in servers.values() if one.prefix.lower() == prefix.lower()), None)
    if server is None:
        raise registry.no_such_server(store, prefix)
    if public_name(server.prefix, native) != server.prefix + SEPARATOR + native:
        raise GatewayError(
            f'"{word}" is a name that was cut to fit.',
            why="Only the server knows the whole name, which is what permits are about.",
            next=f"mcpgw tools list --server {server.name}, then give SERVER/TOOL",
            code="bad_target",
            exit=Exit.USAGE,
        )
    return server, "tool", native

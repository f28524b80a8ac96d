"""`mcpgw resources`: the resources that servers offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

if TYPE_CHECKING:
    from mcpgw.daemon.reach import Reach
    from mcpgw.model.calls import Done

app = noun("List and read the resources that servers offer.")


@app.command("list", help="List the resources and the templates of more.")
def list_(
    ctx: typer.Context, server: o.OfServer = None, key: o.AsKey = None, json: o.Json = False
) -> None:
    from mcpgw.cli.listing import show_list

    show_list(desk(ctx, as_json=json), "resource", "template", server=server, key=key)


@app.command("read", help="Print what a resource holds.")
def read(
    ctx: typer.Context,
    uri: Annotated[str, typer.Argument(metavar="URI", help="The resource, as listed.")],
    server: o.OfServer = None,
    key: o.AsKey = None,
    json: o.Json = False,
) -> None:
    from mcpgw.cli import asking, render
    from mcpgw.cli.person import Person
    from mcpgw.core import wire
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    if server is not None:
        with at.store() as store:
            server = registry.get_server(store, server).name

    async def fetch(reached: Reach) -> Done:
        return await asking.ask(
            reached, "resources/read", {"uri": wire.dump(uri)}, person=Person(at, spinner)
        )

    with at.busy(f"Reading {uri}") as spinner:
        done = asking.reaching(at, fetch, key=key, server=server)
    if json:
        at.data(render.ascii_json(wire.dump_object(done.result)))
        return
    for content in wire.array(done.result.get("contents", wire.dump([]))):
        at.data(render.resource(wire.members(content)))

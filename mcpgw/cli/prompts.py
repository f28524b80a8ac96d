"""`mcpgw prompts`: the prompts that servers offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

if TYPE_CHECKING:
    from mcpgw.daemon.reach import Reach
    from mcpgw.model.calls import Done

app = noun("List and get the prompts that servers offer.")


@app.command("list", help="List the prompts, by the names that clients see.")
def list_(
    ctx: typer.Context, server: o.OfServer = None, key: o.AsKey = None, json: o.Json = False
) -> None:
    from mcpgw.cli.listing import show_list

    show_list(desk(ctx, as_json=json), "prompt", server=server, key=key)


@app.command("get", help="Get a prompt's messages.")
def get(
    ctx: typer.Context,
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT",
            help="SERVER__PROMPT as listed, or SERVER/PROMPT.",
            autocompletion=complete.tool_owners,
        ),
    ],
    arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An argument of the prompt.")
    ] = None,
    key: o.AsKey = None,
    json: o.Json = False,
) -> None:
    from mcpgw.cli import asking, render, values
    from mcpgw.cli.person import Person
    from mcpgw.core import wire

    at = desk(ctx, as_json=json)
    server, word = asking.locate(at, prompt, "prompt")
    given = values.texts(arg or [], None, at)

    async def fetch(reached: Reach) -> Done:
        prompts, _ = await asking.listed(reached, "prompts/list", "prompts", server=server.name)
        found = asking.find(server, prompts, word, "prompt")
        params = {"name": found["name"], "arguments": wire.dump_object(given)}
        return await asking.ask(
            reached, "prompts/get", params, person=Person(at, spinner), server=server.name
        )

    with at.busy(f"Asking {server.name}") as spinner:
        done = asking.reaching(at, fetch, key=key, server=server.name)
    if json:
        at.data(render.ascii_json(wire.dump_object(done.result)))
    else:
        at.data(render.messages(done.result))

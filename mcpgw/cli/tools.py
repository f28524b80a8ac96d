"""`mcpgw tools`: what the servers offer, tried from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import Desk, desk, mapping, one_line, sequence
from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from mcpgw.daemon.reach import Reach
    from mcpgw.model.calls import Done, JsonObject
    from mcpgw.model.config import Server

app = noun("List, look at, test and call the tools that servers offer.")

ToolName = Annotated[
    str,
    typer.Argument(
        metavar="TOOL",
        help="SERVER__TOOL as listed, or SERVER/TOOL.",
        autocompletion=complete.tool_owners,
    ),
]
Arg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V", help="An argument, typed by the tool's schema; K:=JSON gives any value."
    ),
]
Args = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="All arguments as one JSON object; - reads it from stdin."),
]


@app.command("list", help="List the tools of the servers, by the names that clients see.")
def list_(
    ctx: typer.Context, server: o.OfServer = None, key: o.AsKey = None, json: o.Json = False
) -> None:
    from mcpgw.cli.listing import show_list

    show_list(desk(ctx, as_json=json), "tool", server=server, key=key)


@app.command("show", help="Show a tool: what it does, what it takes, what it gives.")
def show(ctx: typer.Context, tool: ToolName, key: o.AsKey = None, json: o.Json = False) -> None:
    from mcpgw.cli import asking, render

    at = desk(ctx, as_json=json)
    server, word = asking.locate(at, tool, "tool")

    async def look(reached: Reach) -> JsonObject:
        tools, _ = await asking.listed(reached, "tools/list", "tools", server=server.name)
        return asking.find(server, tools, word, "tool")

    with at.busy(f"Asking {server.name}"):
        found = asking.reaching(at, look, key=key, server=server.name)
    shown = _told(server, found)
    if json:
        at.emit({"tools": [shown]})
        return
    at.facts(
        [
            ("name", shown["name"]),
            ("server", server.name),
            ("title", str(shown.get("title") or "")),
            ("hints", _hints(shown.get("annotations"))),
        ]
    )
    if shown.get("description"):
        at.data("\n" + str(shown["description"]).strip())
    _show_arguments(at, shown.get("input_schema"))
    if "outputSchema" in found:
        at.data("\ngives:\n" + render.pretty(found["outputSchema"]))


@app.command("test", help="Connect, list, and call what is safe to call; or call one tool.")
def test(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVER[/TOOL]",
            help="Only this server, or only this tool; else every enabled server.",
            autocompletion=complete.server_names,
        ),
    ] = None,
    arg: Arg = None,
    args: Args = None,
    json: o.Json = False,
) -> None:
    from mcpgw.cli.probe import probe_tools

    probe_tools(desk(ctx, as_json=json), what, pairs=arg or [], whole=args)


@app.command("call", help="Call a tool and print what it answers.")
def call(
    ctx: typer.Context,
    tool: ToolName,
    arg: Arg = None,
    args: Args = None,
    key: o.AsKey = None,
    json: o.Json = False,
) -> None:
    call_tool(desk(ctx, as_json=json), tool, pairs=arg or [], whole=args, key=key)


def call_tool(
    desk: Desk, tool: str, *, pairs: list[str], whole: str | None, key: str | None
) -> None:
    from mcpgw.cli import asking, render, values
    from mcpgw.cli.person import Person
    from mcpgw.core import wire

    server, word = asking.locate(desk, tool, "tool")

    async def use(reached: Reach) -> Done:
        tools, _ = await asking.listed(reached, "tools/list", "tools", server=server.name)
        found = asking.find(server, tools, word, "tool")
        schema = mapping(wire.value(found.get("inputSchema", wire.EMPTY)))
        given = values.arguments(pairs, whole, schema, desk)
        params = {"name": found["name"], "arguments": wire.dump_object(given)}
        return await asking.ask(
            reached, "tools/call", params, person=Person(desk, spinner), server=server.name
        )

    with desk.busy(f"Calling {tool}") as spinner:
        done = asking.reaching(desk, use, key=key, server=server.name)
    failed = wire.value(done.result.get("isError", wire.NULL)) is True
    if desk.as_json:
        desk.data(render.ascii_json(wire.dump_object(done.result)))
        if failed:
            raise typer.Exit(Exit.UPSTREAM)
        return
    text = render.contents(done.result)
    if failed:
        raise GatewayError(
            f"The tool {tool} failed.",
            why=text or "It does not say why.",
            next=f"mcpgw tools show {tool}",
            code="tool_failed",
            exit=Exit.UPSTREAM,
        )
    if text:
        desk.data(text)


def _told(server: Server, item: JsonObject) -> dict[str, Any]:
    """A tool as `--json` tells it: its public name first, the server's own members after it."""
    from mcpgw.cli import render
    from mcpgw.core.naming import public_name

    told = render.snake(item)
    native = str(told.get("name"))
    return {**told, "name": public_name(server.prefix, native), "server": server.name} | {
        "native_name": native
    }


def _hints(annotations: object) -> str:
    words = {
        "readOnlyHint": ("only reads", "changes things"),
        "destructiveHint": ("may destroy", "destroys nothing"),
        "idempotentHint": ("once or twice is the same", ""),
        "openWorldHint": ("reaches out into the world", "stays by itself"),
    }
    pairs = mapping(annotations)
    told = [words[name][not value] for name, value in pairs.items() if name in words]
    return ", ".join(filter(None, told))


def _show_arguments(desk: Desk, schema: object) -> None:
    from mcpgw.cli.values import types

    rules = mapping(schema)
    known = mapping(rules.get("properties"))
    required = sequence(rules.get("required"))
    if not known:
        return
    desk.data("\narguments:")
    rows: list[tuple[str, ...]] = []
    for name, about in known.items():
        text = mapping(about).get("description", "")
        rows.append(
            (
                name,
                "|".join(sorted(types(about))) or "any",
                "required" if name in required else "",
                one_line(str(text)),
            )
        )
    desk.rows(("ARGUMENT", "TYPE", "", "WHAT"), rows)

"""`mcpgw alias`: other names of servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

if TYPE_CHECKING:
    from mcpgw.store.registry import Alias

app = noun("Give servers other names.")


@app.command("add", help="Give a server one more name.")
def add(
    ctx: typer.Context,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The new name.")],
    server: Annotated[
        str,
        typer.Argument(metavar="SERVER", help="Whose.", autocompletion=complete.server_names),
    ],
    json: o.Json = False,
) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        added = registry.add_alias(store, alias, server)
    if json:
        at.emit({"aliases": [_as_json(added)]})
    at.say(
        f"{added.alias} is {added.server}. To show its tools under this name: "
        f"mcpgw server set {added.server} --prefix {added.alias}"
    )


@app.command("list", help="List the aliases.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        aliases = registry.list_aliases(store)
    if json:
        at.emit({"aliases": [_as_json(alias) for alias in aliases]})
        return
    at.rows(
        ("ALIAS", "SERVER", "SHOWN"),
        [(a.alias, a.server, "before its tools" if a.prefix else "") for a in aliases],
        empty="There is no alias yet. Next: mcpgw alias add ALIAS SERVER",
    )


@app.command("remove", help="Take an alias away; the server stays.")
def remove(
    ctx: typer.Context,
    alias: Annotated[
        str,
        typer.Argument(metavar="ALIAS", help="Which.", autocompletion=complete.alias_names),
    ],
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        known = [a for a in registry.list_aliases(store) if a.alias.lower() == alias.lower()]
        if known:
            at.confirm(f"Remove the alias {known[0].alias} of {known[0].server}?", yes=yes)
        removed = registry.remove_alias(store, alias)
    if json:
        at.emit({"aliases": [_as_json(removed)]})
    at.say(f"{removed.alias} is no name of {removed.server} any more.")


def _as_json(alias: Alias) -> dict[str, Any]:
    return {"alias": alias.alias, "server": alias.server, "prefix": alias.prefix}

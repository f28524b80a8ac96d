"""`mcpgw group`: named sets of servers and of what they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpgw.cli import complete, holding
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

if TYPE_CHECKING:
    from mcpgw.store.groups import Group

app = noun("Name sets of servers and tools, to grant and deny them as group:NAME.")


@app.command("add", help="Name a set; it is served at /mcp/@NAME as far as a key may use it.")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    targets: o.Targets,
    json: o.Json = False,
) -> None:
    from mcpgw.store import groups

    at = desk(ctx, as_json=json)
    with at.store() as store:
        group = groups.add_group(store, name, targets)
    if json:
        at.emit({"groups": [_as_json(group)]})
    at.say(f"Added {group.name}. Next: mcpgw key grant NAME group:{group.name}")


@app.command("list", help="List the groups.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import groups

    at = desk(ctx, as_json=json)
    with at.store() as store:
        found = groups.list_groups(store)
    if json:
        at.emit({"groups": [_as_json(group) for group in found]})
        return
    at.rows(
        ("NAME", "HOLDS"),
        [(group.name, ", ".join(group.targets) or "nothing") for group in found],
        empty="There is no group yet. Next: mcpgw group add NAME TARGET",
    )


@app.command("show", help="Show what a group holds.")
def show(ctx: typer.Context, name: o.GroupName, json: o.Json = False) -> None:
    from mcpgw.store import groups

    at = desk(ctx, as_json=json)
    with at.store() as store:
        group = groups.get_group(store, name)
    if json:
        at.emit({"groups": [_as_json(group)]})
        return
    at.facts(
        (
            ("name", group.name),
            ("holds", ", ".join(group.targets) or "nothing"),
            ("address", f"/mcp/@{group.name}"),
        )
    )


@app.command("set", help="Rename a group, or change what it holds for all who were granted it.")
def set_(
    ctx: typer.Context,
    name: o.GroupName,
    new_name: o.NewName = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Put this into it.", autocompletion=complete.targets),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="Take this out of it, in the words it is listed in."),
    ] = None,
    json: o.Json = False,
) -> None:
    from msgspec import UNSET

    from mcpgw.cli.io import usage
    from mcpgw.store import groups

    at = desk(ctx, as_json=json)
    if new_name is None and not add and not drop:
        holding.nothing_to_change("mcpgw group set")
    with at.store() as store, store.change():
        held = groups.get_group(store, name).targets
        if strangers := set(drop or ()) - set(held):
            usage(
                f'{name} does not hold "{min(strangers)}".',
                why=f"It holds {', '.join(held) or 'nothing'}.",
                next=f"mcpgw group show {name}",
            )
        kept = [word for word in held if word not in (drop or ())]
        group = groups.set_group(
            store,
            name,
            name=UNSET if new_name is None else new_name,
            targets=[*kept, *(add or ())] if add or drop else UNSET,
        )
    if json:
        at.emit({"groups": [_as_json(group)]})
    at.say(f"{group.name} holds {', '.join(group.targets) or 'nothing'}.")


@app.command("remove", help="Remove a group, with every grant of it; what it held stays.")
def remove(ctx: typer.Context, name: o.GroupName, yes: o.Yes = False, json: o.Json = False) -> None:
    from mcpgw.store import groups

    at = desk(ctx, as_json=json)
    with at.store() as store:
        group = groups.get_group(store, name)
        at.confirm(f"Remove the group {group.name} and all grants of it?", yes=yes)
        groups.remove_group(store, group.name)
    if json:
        at.emit({"groups": [_as_json(group)]})
    at.say(f"Removed {group.name}.")


def _as_json(group: Group) -> dict[str, Any]:
    return {"name": group.name, "targets": list(group.targets)}

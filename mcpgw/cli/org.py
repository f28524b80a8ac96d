"""`mcpgw org`: organizations, which nothing of their teams may go beyond."""

from __future__ import annotations

from typing import Annotated

import typer

from mcpgw.cli import holding
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

app = noun("Organizations: ceilings over teams.")

CLEARABLE = ("grants",)


@app.command("add", help="Add an organization; until it is granted something it restricts nothing.")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    json: o.Json = False,
) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        org = holders.add_org(store, name)
    holding.emit_or_say(
        at, "org", org, f"Added {org.name}. Next: mcpgw team add NAME --org {org.name}"
    )


@app.command("list", help="List the organizations.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        orgs = holders.list_orgs(store)
    if json:
        at.emit({"orgs": [holding.as_json(org) for org in orgs]})
        return
    at.rows(
        ("NAME", "STATE", "ALLOWS", "NEVER"),
        [
            (
                org.name,
                "enabled" if org.enabled else "disabled",
                holding.ceiling(org),
                ", ".join(org.deny_targets),
            )
            for org in orgs
        ],
        empty="There is no organization yet. Next: mcpgw org add NAME",
    )


@app.command("show", help="Show an organization and its teams.")
def show(ctx: typer.Context, name: o.OrgName, json: o.Json = False) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        org = holders.get_org(store, name)
        teams = [team.name for team in holders.list_teams(store) if team.org == org.name]
    if json:
        at.emit({"orgs": [{**holding.as_json(org), "teams": teams}]})
        return
    holding.facts(at, org, ("teams", ", ".join(teams)))


@app.command("set", help="Rename an organization, or let it restrict nothing again.")
def set_(
    ctx: typer.Context,
    name: o.OrgName,
    new_name: o.NewName = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Empty this: grants (it restricts nothing then)."),
    ] = None,
    json: o.Json = False,
) -> None:
    from msgspec import UNSET

    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    emptied = holding.cleared(clear or [], CLEARABLE, "mcpgw org set")
    if new_name is None and not emptied:
        holding.nothing_to_change("mcpgw org set")
    with at.store() as store:
        org = holders.set_org(
            store,
            name,
            name=UNSET if new_name is None else new_name,
            ceiling=False if "grants" in emptied else UNSET,
        )
    holding.emit_or_say(at, "org", org, f"Changed {org.name}.")


@app.command("remove", help="Remove an organization without teams.")
def remove(ctx: typer.Context, name: o.OrgName, yes: o.Yes = False, json: o.Json = False) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        org = holders.get_org(store, name)
        at.confirm(f"Remove the organization {org.name}?", yes=yes)
        holders.remove_org(store, org.name)
    holding.emit_or_say(at, "org", org, f"Removed {org.name}.")


@app.command("enable", help="Accept the keys of an organization's teams again.")
def enable(ctx: typer.Context, name: o.OrgName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "org", name, enabled=True)


@app.command("disable", help="Refuse the keys of an organization's teams until it is enabled.")
def disable(ctx: typer.Context, name: o.OrgName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "org", name, enabled=False)


@app.command("grant", help="Let an organization allow something; from then on only what it has.")
def grant(ctx: typer.Context, name: o.OrgName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "grant", "org", name, targets)


@app.command("deny", help="Never let any key below an organization use something.")
def deny(ctx: typer.Context, name: o.OrgName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "deny", "org", name, targets)


@app.command("ungrant", help="Take back what was granted or denied, in the same words.")
def ungrant(ctx: typer.Context, name: o.OrgName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "ungrant", "org", name, targets)

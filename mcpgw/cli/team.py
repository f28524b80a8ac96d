"""`mcpgw team`: teams, which give their keys grants and a ceiling."""

from __future__ import annotations

from typing import Annotated

import typer

from mcpgw.cli import holding
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk

app = noun("Teams: what their keys inherit and never go beyond.")

CLEARABLE = ("org", "grants")


@app.command("add", help="Add a team; until it is granted something it restricts nothing.")
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    org: o.InOrg = None,
    json: o.Json = False,
) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        team = holders.add_team(store, name, org=org)
    holding.emit_or_say(
        at,
        "team",
        team,
        f"Added {team.name}. Its keys inherit nothing yet. "
        f"Next: mcpgw team grant {team.name} SERVER",
    )


@app.command("list", help="List the teams.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        teams = holders.list_teams(store)
    if json:
        at.emit({"teams": [holding.team_json(team) for team in teams]})
        return
    at.rows(
        ("NAME", "STATE", "ORGANIZATION", "ALLOWS", "NEVER"),
        [
            (
                team.name,
                "enabled" if team.enabled else "disabled",
                team.org or "",
                holding.ceiling(team),
                ", ".join(team.deny_targets),
            )
            for team in teams
        ],
        empty="There is no team yet. Next: mcpgw team add NAME",
    )


@app.command("show", help="Show a team and its keys.")
def show(ctx: typer.Context, name: o.TeamName, json: o.Json = False) -> None:
    from mcpgw.store import holders, keys

    at = desk(ctx, as_json=json)
    with at.store() as store:
        team = holders.get_team(store, name)
        members = [
            key.name
            for key in keys.list_keys(store)
            if key.team == team.name and key.revoked is None
        ]
    if json:
        at.emit({"teams": [{**holding.team_json(team), "keys": members}]})
        return
    holding.facts(at, team, ("organization", team.org or ""), ("keys", ", ".join(members)))


@app.command("set", help="Rename a team, move it, or let it restrict nothing again.")
def set_(
    ctx: typer.Context,
    name: o.TeamName,
    new_name: o.NewName = None,
    org: o.InOrg = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="Empty this: org, or grants (it restricts nothing then, and gives nothing).",
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    from msgspec import UNSET

    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    emptied = holding.cleared(clear or [], CLEARABLE, "mcpgw team set")
    if new_name is None and org is None and not emptied:
        holding.nothing_to_change("mcpgw team set")
    with at.store() as store:
        team = holders.set_team(
            store,
            name,
            name=UNSET if new_name is None else new_name,
            org=org if org is not None or "org" in emptied else UNSET,
            ceiling=False if "grants" in emptied else UNSET,
        )
    holding.emit_or_say(at, "team", team, f"Changed {team.name}.")


@app.command("remove", help="Remove a team without keys.")
def remove(ctx: typer.Context, name: o.TeamName, yes: o.Yes = False, json: o.Json = False) -> None:
    from mcpgw.store import holders

    at = desk(ctx, as_json=json)
    with at.store() as store:
        team = holders.get_team(store, name)
        at.confirm(f"Remove the team {team.name}?", yes=yes)
        holders.remove_team(store, team.name)
    holding.emit_or_say(at, "team", team, f"Removed {team.name}.")


@app.command("enable", help="Accept a team's keys again.")
def enable(ctx: typer.Context, name: o.TeamName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "team", name, enabled=True)


@app.command("disable", help="Refuse a team's keys until it is enabled.")
def disable(ctx: typer.Context, name: o.TeamName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "team", name, enabled=False)


@app.command("grant", help="Let a team's keys use something; from then on nothing beyond.")
def grant(ctx: typer.Context, name: o.TeamName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "grant", "team", name, targets)


@app.command("deny", help="Never let a team's keys use something, whatever they were granted.")
def deny(ctx: typer.Context, name: o.TeamName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "deny", "team", name, targets)


@app.command("ungrant", help="Take back what was granted or denied, in the same words.")
def ungrant(ctx: typer.Context, name: o.TeamName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "ungrant", "team", name, targets)

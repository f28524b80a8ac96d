"""`mcpgw key`: who may use the gateway, and what of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mcpgw.cli import complete, holding
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.holding import key_json, state
from mcpgw.cli.io import Desk, desk, moment

if TYPE_CHECKING:
    from mcpgw.store.keys import Key

app = noun("Make keys for clients and say what each may use.")


@app.command("create", help="Make a key; its secret is printed once and never again.")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    team: o.InTeam = None,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it works, such as 90d or 24h.")
    ] = None,
    grant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="What it may use; see `mcpgw key grant`.",
            autocompletion=complete.targets,
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    from mcpgw.cli.words import duration
    from mcpgw.store import keys

    at = desk(ctx, as_json=json)
    now = time.time()
    until = None if expires is None else now + duration(expires, "--expires")
    with at.store() as store:
        key, secret = keys.create_key(
            store, name, team=team, expires=until, grants=grant or (), now=now
        )
    _hand_over(at, key, secret)
    at.say(f"This is the only time that the secret of {key.name} is shown.")
    if key.grants is None and key.team is not None:
        at.say(f"It may use what the team {key.team} may.")
    elif not key.grants:
        at.say(f"It may use nothing yet. Next: mcpgw key grant {key.name} SERVER")


@app.command("list", help="List the keys.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import keys

    at, now = desk(ctx, as_json=json), time.time()
    with at.store() as store:
        found = keys.list_keys(store)
    if json:
        at.emit({"keys": [key_json(key, now) for key in found]})
        return
    at.rows(
        ("NAME", "STATE", "BEGINS", "EXPIRES", "TEAM", "MAY USE", "NEVER"),
        [
            (
                key.name,
                state(key, now),
                key.start,
                moment(key.expires),
                key.team or "",
                holding.may_use(key),
                ", ".join(key.deny_targets),
            )
            for key in found
        ],
        empty="There is no key yet. Next: mcpgw key create NAME --grant SERVER",
    )


@app.command("show", help="Show a key, and what it can use now; never its secret.")
def show(
    ctx: typer.Context,
    name: o.KeyName,
    brief: Annotated[
        bool, typer.Option("--brief", help="Only what is written down: ask no server.")
    ] = False,
    json: o.Json = False,
) -> None:
    from mcpgw.cli.sight import see
    from mcpgw.store import keys

    at, now = desk(ctx, as_json=json), time.time()
    with at.store() as store:
        key = keys.get_key(store, name)
    sight = None if brief or state(key, now) != "active" else see(at, key)
    if json:
        at.emit({"keys": [key_json(key, now) | ({} if sight is None else sight.as_json())]})
        return
    at.facts(
        (
            ("name", key.name),
            ("state", state(key, now)),
            ("team", key.team or ""),
            ("organization", key.org or ""),
            ("begins", key.start),
            ("created", moment(key.created)),
            ("expires", moment(key.expires)),
            ("revoked", moment(key.revoked, none="")),
            ("may use", holding.may_use(key)),
            ("never", ", ".join(key.deny_targets)),
            ("policies", ", ".join(key.policies)),
            *(() if sight is None else sight.facts()),
        )
    )


@app.command("set", help="Rename a key, move it to a team, or change how long it works.")
def set_(
    ctx: typer.Context,
    name: o.KeyName,
    new_name: o.NewName = None,
    team: o.InTeam = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long it works from now on, such as 90d or 24h."),
    ] = None,
    inherit: Annotated[
        bool,
        typer.Option("--inherit", help="Forget its own grants, and have what its team has."),
    ] = False,
    clear: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Empty this: team, or expires (it never does then)."),
    ] = None,
    json: o.Json = False,
) -> None:
    from msgspec import UNSET

    from mcpgw.cli.words import duration
    from mcpgw.store import keys

    at = desk(ctx, as_json=json)
    emptied = holding.cleared(clear or [], ("team", "expires"), "mcpgw key set")
    if not emptied and not inherit and (new_name, team, expires) == (None, None, None):
        holding.nothing_to_change("mcpgw key set")
    until = None if expires is None else time.time() + duration(expires, "--expires")
    with at.store() as store:
        key = keys.set_key(
            store,
            name,
            name=UNSET if new_name is None else new_name,
            team=team if team is not None or "team" in emptied else UNSET,
            expires=until if until is not None or "expires" in emptied else UNSET,
            inherit=inherit or UNSET,
        )
    holding.told(at, "key", key)


@app.command("enable", help="Accept a key again.")
def enable(ctx: typer.Context, name: o.KeyName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "key", name, enabled=True)


@app.command("disable", help="Refuse a key until it is enabled; what it was granted stays.")
def disable(ctx: typer.Context, name: o.KeyName, json: o.Json = False) -> None:
    holding.switch(desk(ctx, as_json=json), "key", name, enabled=False)


@app.command("grant", help="Let a key use something; from then on only what it was granted itself.")
def grant(ctx: typer.Context, name: o.KeyName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "grant", "key", name, targets)


@app.command("deny", help="Never let a key use something, whatever else it was granted.")
def deny(ctx: typer.Context, name: o.KeyName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "deny", "key", name, targets)


@app.command("ungrant", help="Take back what was granted or denied, in the same words.")
def ungrant(ctx: typer.Context, name: o.KeyName, targets: o.Targets, json: o.Json = False) -> None:
    holding.change_permits(desk(ctx, as_json=json), "ungrant", "key", name, targets)


@app.command("rotate", help="Give a key a new secret, printed once; the old one works a while.")
def rotate(
    ctx: typer.Context,
    name: o.KeyName,
    grace: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long the old secret works; 0s ends it at once."),
    ] = "24h",
    json: o.Json = False,
) -> None:
    from mcpgw.cli.words import duration
    from mcpgw.store import keys

    at, now = desk(ctx, as_json=json), time.time()
    seconds = duration(grace, "--grace")
    with at.store() as store:
        key, secret = keys.rotate_key(store, name, grace=seconds, now=now)
    _hand_over(at, key, secret)
    at.say(f"This is the only time that the new secret of {key.name} is shown.")
    at.say(f"The old one works for {grace} more." if seconds else "The old one is refused now.")


@app.command("revoke", help="Refuse a key from now on, for good.")
def revoke(ctx: typer.Context, name: o.KeyName, yes: o.Yes = False, json: o.Json = False) -> None:
    from mcpgw.store import keys

    at = desk(ctx, as_json=json)
    with at.store() as store:
        key = keys.get_key(store, name)
        at.confirm(f"Refuse the key {key.name} from now on?", yes=yes)
        key = keys.revoke_key(store, key.name, now=time.time())
    if json:
        at.emit({"keys": [key_json(key, time.time())]})
    at.say(f"{key.name} is refused from now on.")


def _hand_over(desk: Desk, key: Key, secret: str) -> None:
    """The secret, alone on stdout, so that `$(mcpgw key create NAME)` is it."""
    if desk.as_json:
        desk.emit({"keys": [{**key_json(key, time.time()), "secret": secret}]})
    else:
        desk.data(secret)
        desk.stdout.flush()

"""`mcpgw secret`: values sealed in the store's vault, to be named as vault:NAME."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mcpgw.cli import complete
from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk
from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from mcpgw.store.db import Store

app = noun("Seal secrets in the vault, to be named as vault:NAME.")


@app.command("set", help="Seal a secret, read from a prompt or from stdin; vault:NAME names it.")
def set_(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="What to call it.", autocompletion=complete.secret_names
        ),
    ],
    json: o.Json = False,
) -> None:
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    with at.store() as store:
        vault = Vault(store)
        value = at.ask_secret(f"{name} (not shown): ") if at.interactive else _piped(at.read_text())
        vault.put(name, value)
    if json:
        at.emit({"secrets": [{"name": name, "reference": f"vault:{name}"}]})
    at.say(f"Sealed. Name it as vault:{name}")


@app.command("list", help="List the names of the sealed secrets and who uses them.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    with at.store() as store:
        names = sorted(Vault(store).names())
        users = {name: _users(store, name) for name in names}
    if json:
        told = [{"name": n, "reference": f"vault:{n}", "servers": users[n]} for n in names]
        at.emit({"secrets": told})
        return
    at.rows(
        ("NAME", "USED BY"),
        [(name, ", ".join(users[name])) for name in names],
        empty="There is no secret yet. Next: mcpgw secret set NAME",
    )


@app.command("remove", help="Destroy a sealed secret.")
def remove(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Which.", autocompletion=complete.secret_names)
    ],
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    with at.store() as store:
        vault = Vault(store)
        if name not in vault.names():
            raise GatewayError(
                f'There is no secret called "{name}".',
                next="mcpgw secret list",
                code="no_such_secret",
                exit=Exit.MISSING,
            )
        users = _users(store, name)
        used = f" {', '.join(users)} will not work without it." if users else ""
        at.confirm(f"Destroy the secret {name}?{used}", yes=yes)
        vault.remove(name)
    if json:
        at.emit({"secrets": [{"name": name, "reference": f"vault:{name}", "servers": users}]})
    at.say(f"Destroyed {name}.{used}")


def _piped(text: str) -> str:
    """A secret from a pipe: all of it, without the line end that `echo` adds."""
    value = text.removesuffix("\n").removesuffix("\r")
    if value:
        return value
    raise GatewayError(
        "The secret is empty.",
        why="Nothing came on stdin.",
        next="printf %s VALUE | mcpgw secret set NAME",
        code="empty_secret",
        exit=Exit.USAGE,
    )


def _users(store: Store, name: str) -> list[str]:
    from mcpgw.store import registry

    reference = f"vault:{name}"
    return [
        server.name
        for server in registry.list_servers(store)
        if reference in (server.secret, *server.env.values(), *server.headers.values())
    ]

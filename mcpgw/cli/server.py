"""`mcpgw server`: the servers behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import Desk, desk, mapping, plain, sequence, usage
from mcpgw.cli.typed import CLEARABLE, SEALED, Words
from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from mcpgw.model.config import Server
    from mcpgw.store.db import Store

app = noun("Register, change and test the servers behind the gateway.")

NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="What to call it: letters, digits, - and _.")
]


EXAMPLES = (
    "mcpgw server add github --url https://mcp.example.com/mcp --auth bearer\n\n"
    "mcpgw server add fs -- npx -y @modelcontextprotocol/server-filesystem /srv"
)


@app.command(
    "add",
    help="Register a server: one at a URL, or one that a command starts.",
    epilog=EXAMPLES,
)
def add(
    ctx: typer.Context,
    name: NewName,
    command: o.Command = None,
    url: o.Url = None,
    transport: o.TransportChoice = None,
    env: o.Env = None,
    cwd: o.Cwd = None,
    auth: o.AuthChoice = None,
    secret: o.Secret = None,
    header: o.Header = None,
    forward_header: o.ForwardHeader = None,
    allow: o.Allow = None,
    deny: o.Deny = None,
    isolate: o.IsolateChoice = None,
    timeout: o.Timeout = None,
    max_concurrent: o.MaxConcurrent = None,
    ca: o.Ca = None,
    client_cert: o.ClientCert = None,
    description: o.Description = None,
    disabled: Annotated[
        bool, typer.Option("--disabled", help="Register it without offering it yet.")
    ] = False,
    json: o.Json = False,
) -> None:
    typed = Words(
        command=command,
        url=url,
        transport=transport,
        env=env,
        cwd=cwd,
        auth=auth,
        secret=secret,
        header=header,
        forward_header=forward_header,
        allow=allow,
        deny=deny,
        isolate=isolate,
        timeout=timeout,
        max_concurrent=max_concurrent,
        ca=ca,
        client_cert=client_cert,
        description=description,
    )
    register(desk(ctx, as_json=json), name, typed, enabled=not disabled)


def register(desk: Desk, name: str, typed: Words, *, enabled: bool) -> None:
    from mcpgw.cli.draft import Sealing, fields
    from mcpgw.core.naming import check_name
    from mcpgw.store import registry
    from mcpgw.store.vault import Vault

    if (wrong := check_name(name)) is not None:
        usage(f'"{name}" cannot be a server\'s name: {wrong}.', next="mcpgw server add --help")
    with desk.store() as store:
        _refuse_taken(store, name)
        sealing = Sealing(Vault(store))
        found = fields(typed, name=name, before=None, sealing=sealing, desk=desk)
        draft = registry.ServerDraft(name=name, enabled=enabled, **found)
        with sealing.sealed():
            server = registry.add_server(store, draft)
    if desk.as_json:
        desk.emit({"servers": [as_json(server)]})
    _warn_plain(desk, server)
    desk.say(f"Added {server.name}. Next: mcpgw server test {server.name}")


def _refuse_taken(store: Store, name: str) -> None:
    """Before anybody is asked for a secret; the store decides again when it writes."""
    from mcpgw.store import registry

    taken = {server.name.lower(): server.name for server in registry.list_servers(store)}
    taken |= {alias.alias.lower(): alias.server for alias in registry.list_aliases(store)}
    if (owner := taken.get(name.lower())) is not None:
        raise GatewayError(
            f'The name "{name}" is taken.',
            why=f"It belongs to the server {owner}.",
            next=f"mcpgw server show {owner}",
            code="name_taken",
            exit=Exit.MISSING,
        )


@app.command("set", help="Change a server; what is not named stays as it is.")
def set_(
    ctx: typer.Context,
    name: o.ServerName,
    command: o.Command = None,
    new_name: Annotated[
        str | None, typer.Option("--name", metavar="NEW", help="Call it something else.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="ALIAS", help="Show its tools as ALIAS__TOOL; its own name goes back to that."
        ),
    ] = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="Empty an option before the others apply: "
            + ", ".join(CLEARABLE)
            + ", env:NAME, header:NAME.",
        ),
    ] = None,
    url: o.Url = None,
    transport: o.TransportChoice = None,
    env: o.Env = None,
    cwd: o.Cwd = None,
    auth: o.AuthChoice = None,
    secret: o.Secret = None,
    header: o.Header = None,
    forward_header: o.ForwardHeader = None,
    allow: o.Allow = None,
    deny: o.Deny = None,
    isolate: o.IsolateChoice = None,
    timeout: o.Timeout = None,
    max_concurrent: o.MaxConcurrent = None,
    ca: o.Ca = None,
    client_cert: o.ClientCert = None,
    description: o.Description = None,
    json: o.Json = False,
) -> None:
    typed = Words(
        command=command,
        url=url,
        transport=transport,
        env=env,
        cwd=cwd,
        auth=auth,
        secret=secret,
        header=header,
        forward_header=forward_header,
        allow=allow,
        deny=deny,
        isolate=isolate,
        timeout=timeout,
        max_concurrent=max_concurrent,
        ca=ca,
        client_cert=client_cert,
        description=description,
    )
    names = {"name": new_name, "prefix": prefix}
    more = {field: value for field, value in names.items() if value is not None}
    change(desk(ctx, as_json=json), name, typed, clear=clear or [], more=more)


def change(desk: Desk, name: str, typed: Words, *, clear: list[str], more: dict[str, str]) -> None:
    import msgspec

    from mcpgw.cli.draft import Sealing, cleared, fields
    from mcpgw.store import registry
    from mcpgw.store.vault import Vault

    with desk.store() as store:
        before = registry.get_server(store, name)
        emptied = cleared(clear, before)
        base = msgspec.structs.replace(before, **emptied)
        sealing = Sealing(Vault(store))
        found = fields(typed, name=before.name, before=base, sealing=sealing, desk=desk)
        changes = {**emptied, **found, **more}
        if not changes:
            usage("Nothing to change was named.", next="mcpgw server set --help")
        with sealing.sealed():
            server = registry.set_server(store, before.name, **changes)
        _drop_secrets(store, before)
    if desk.as_json:
        desk.emit({"servers": [as_json(server)]})
    _warn_plain(desk, server)
    desk.say(f"Changed {server.name}.")


@app.command("list", help="List the servers.")
def list_(ctx: typer.Context, json: o.Json = False) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        servers = registry.list_servers(store)
    if json:
        at.emit({"servers": [as_json(server) for server in servers]})
        return
    at.rows(
        ("NAME", "STATE", "TRANSPORT", "AUTH", "WHERE"),
        [
            (s.name, "enabled" if s.enabled else "disabled", s.transport, s.auth, where(s))
            for s in servers
        ],
        empty="There is no server yet. Next: mcpgw server add NAME --url URL",
    )


@app.command("show", help="Show all that is set for a server; secrets only as references.")
def show(ctx: typer.Context, name: o.ServerName, json: o.Json = False) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        server = registry.get_server(store, name)
    if json:
        at.emit({"servers": [as_json(server)]})
        return
    shown = as_json(server)
    shown["command"] = where(server) if server.command else None
    at.facts((field.replace("_", " "), _text(value)) for field, value in shown.items())


@app.command("remove", help="Remove a server, with all that was granted on it.")
def remove(
    ctx: typer.Context, name: o.ServerName, yes: o.Yes = False, json: o.Json = False
) -> None:
    from mcpgw.store import registry

    at = desk(ctx, as_json=json)
    with at.store() as store:
        server = registry.get_server(store, name)
        at.confirm(f"Remove the server {server.name} and all grants on it?", yes=yes)
        registry.remove_server(store, server.name)
        _drop_secrets(store, server)
    if json:
        at.emit({"servers": [as_json(server)]})
    at.say(f"Removed {server.name}.")


@app.command("enable", help="Offer a server again.")
def enable(ctx: typer.Context, name: o.ServerName, json: o.Json = False) -> None:
    _switch(desk(ctx, as_json=json), name, enabled=True)


@app.command("disable", help="Stop offering a server; what is set and granted stays.")
def disable(ctx: typer.Context, name: o.ServerName, json: o.Json = False) -> None:
    _switch(desk(ctx, as_json=json), name, enabled=False)


def _switch(desk: Desk, name: str, *, enabled: bool) -> None:
    from mcpgw.store import registry

    with desk.store() as store:
        server = registry.get_server(store, name)
        if server.enabled is not enabled:
            server = registry.set_server(store, server.name, enabled=enabled)
    if desk.as_json:
        desk.emit({"servers": [as_json(server)]})
    desk.say(f"{server.name} is {'enabled' if enabled else 'disabled'}.")


@app.command("test", help="Connect to a server, or to all enabled ones, and list their tools.")
def test(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Only this server; else every enabled one.",
            autocompletion=o.complete.server_names,
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    from mcpgw.cli.probe import probe

    probe(desk(ctx, as_json=json), name)


def as_json(server: Server) -> dict[str, Any]:
    """A server without its id, which is nobody's business, and without secrets."""
    from mcpgw.store import registry

    view = registry.view(server)
    shown = {field: plain(view[field]) for field in server.__struct_fields__ if field in view}
    for field in ("env", "headers"):
        shown[field] = {name: _veiled(name, text) for name, text in getattr(server, field).items()}
    return shown


def where(server: Server) -> str:
    """Its URL or its command, without secrets."""
    import shlex

    from mcpgw.store.looks import masked_url, masked_words

    return masked_url(server.url) if server.url else shlex.join(masked_words(server.command))


def _veiled(name: str, text: str) -> str:
    """A literal that may be a secret (from a store that was not filled here) is not shown."""
    from mcpgw.store.looks import MASK, is_reference, looks_secret, sensitive_name

    secret = not is_reference(text) and (sensitive_name(name) or looks_secret(text))
    return MASK if secret else text


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ({}, []):
        return ""
    words = [f"{key}={item}" for key, item in mapping(value).items()]
    return ", ".join(words or map(str, sequence(value) or [value]))


def _references(server: Server) -> set[str]:
    return {*server.env.values(), *server.headers.values(), *filter(None, (server.secret,))}


def _drop_secrets(store: Store, before: Server) -> None:
    """Take the secrets out of the vault that were sealed for this server and that nothing uses."""
    from mcpgw.store import registry
    from mcpgw.store.vault import Vault

    used = {ref for server in registry.list_servers(store) for ref in _references(server)}
    vault = Vault(store)
    names = set(vault.names())
    for reference in _references(before) - used:
        kind, _, name = reference.partition(":")
        if kind == "vault" and name in names and name.startswith(SEALED):
            vault.remove(name)


def _warn_plain(desk: Desk, server: Server) -> None:
    from mcpgw.cli.words import loopback

    url = server.url
    if url is None or not url.lower().startswith("http://") or loopback(url):
        return
    if server.auth != "none" or server.headers or server.forward_headers:
        desk.warn(
            f"{server.name} is reached without TLS, so its credentials can be read on the way."
        )

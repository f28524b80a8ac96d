"""`mcpgw demo`, `serve`, `stdio` and `status`: the gateway itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mcpgw.cli import options as o
from mcpgw.cli.groups import Panel
from mcpgw.cli.io import Desk, desk, one_line, timestamp, usage


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running until Ctrl-C, to try it out.")
    ] = False,
    json: o.Json = False,
) -> None:
    import sys

    from mcpgw.demo import tour

    status = tour.run(keep=keep, json=json, out=sys.stdout, err=sys.stderr)
    if status:
        raise typer.Exit(status)


def serve(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve what this file says and nothing else; it is read again when it changes.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8765,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no key; on a loopback address only.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="How the log on stderr is written.")
    ] = "text",
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="The certificate's private key (PEM).")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A name that clients may call this gateway by."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A web origin whose pages may use this gateway."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A proxy whose X-Forwarded-* headers are believed."),
    ] = None,
) -> None:
    from mcpgw.cli.words import network

    proxies = tuple(network(text) for text in trusted_proxy or ())
    origins = tuple(_origin(text) for text in allow_origin or ())
    from mcpgw.daemon.serve import ServeOptions
    from mcpgw.daemon.serve import serve as serve_until_signalled

    serve_until_signalled(
        ServeOptions(
            store=desk(ctx).named,
            config=config,
            host=host,
            port=port,
            no_auth=no_auth,
            log_format=log_format,
            tls_cert=tls_cert,
            tls_key=tls_key,
            allow_hosts=tuple(allow_host or ()),
            allow_origins=origins,
            trusted_proxies=proxies,
        )
    )


def _origin(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme or not rest or "/" in rest.rstrip("/"):
        usage(
            f'"{text}" is no web origin.',
            why="An origin is a scheme, a host and perhaps a port: https://app.example.com",
            next="mcpgw serve --allow-origin https://app.example.com",
        )
    return text.rstrip("/")


def stdio(
    ctx: typer.Context,
    key: o.AsKey = None,
) -> None:
    from mcpgw.daemon.assembly import run
    from mcpgw.daemon.reach import serve_stdio

    path = desk(ctx).path

    async def session() -> None:
        await serve_stdio(path, key=key)

    run(session)


def status(ctx: typer.Context, json: o.Json = False) -> None:
    at = desk(ctx, as_json=json)
    told = condition(at)
    if json:
        at.emit(told)
        return
    show_condition(at, told)


def condition(desk: Desk) -> dict[str, Any]:
    """Whether a daemon serves the store, and how each server is."""
    from mcpgw.daemon.assembly import run
    from mcpgw.daemon.door import live_status
    from mcpgw.store import keys, registry

    with desk.store() as store:
        servers = registry.list_servers(store)
        number_of_keys = len(keys.list_keys(store))
    path = desk.path

    async def ask() -> dict[str, Any] | None:
        return await live_status(path)

    live = run(ask)
    facts: dict[str, Any] = live or {}
    links = [{**link, "since": timestamp(link.get("since"))} for link in facts.get("links", ())]
    unusable: dict[str, str] = facts.get("unusable", {})
    return {
        "running": live is not None,
        "store": str(path),
        "address": facts.get("address"),
        "pid": facts.get("pid"),
        "version": facts.get("version"),
        "started": timestamp(facts.get("started")),
        "keys": number_of_keys,
        "servers": [
            {
                "name": server.name,
                "enabled": server.enabled,
                "transport": server.transport,
                "unusable": unusable.get(server.name),
                "state": _state(server.name, server.enabled, live is not None, links, unusable),
            }
            for server in servers
        ],
        "links": links,
        "config": facts.get("config"),
    }


def _state(
    name: str, enabled: bool, running: bool, links: list[dict[str, Any]], unusable: dict[str, str]
) -> str:
    """One word for a server: its best link counts."""
    if not enabled:
        return "disabled"
    if not running:
        return "stopped"
    if name in unusable:
        return "unusable"
    states = {link["state"] for link in links if link["server"] == name}
    return next((state for state in ("up", "connecting", "failed") if state in states), "idle")


def _of_file(config: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What is to be said of the file that a daemon serves from."""
    if config is None:
        return []
    keys = [(f"key {name}", why) for name, why in config["unusable_keys"].items()]
    return [("file", config["file"]), ("fault", config["fault"] or ""), *keys]


def show_condition(desk: Desk, told: dict[str, Any]) -> None:
    """The same for people. What is wrong with a server stands beside it."""
    if told["running"]:
        where = f"{told['address']}/mcp"
        desk.facts(
            (
                ("running", where),
                ("pid", str(told["pid"])),
                ("since", str(told["started"])),
                ("store", told["store"]),
                ("keys", str(told["keys"])),
                *_of_file(told["config"]),
            )
        )
    else:
        desk.facts((("running", "no"), ("store", told["store"]), ("keys", str(told["keys"]))))
    rows: list[tuple[str, ...]] = []
    for server in told["servers"]:
        links = [link for link in told["links"] if link["server"] == server["name"]]
        revisions = sorted({str(link["revision"]) for link in links if link["revision"]})
        errors = [server["unusable"], *(link["error"] for link in links)]
        rows.append(
            (
                server["name"],
                server["state"],
                server["transport"],
                ", ".join(revisions),
                str(sum(link["in_flight"] for link in links) or ""),
                one_line("; ".join(filter(None, errors))),
            )
        )
    desk.rows(
        ("SERVER", "STATE", "TRANSPORT", "REVISION", "IN FLIGHT", "TROUBLE"),
        rows,
        empty="There is no server yet. Next: mcpgw server add NAME --url URL",
    )
    if not told["running"]:
        desk.say("The gateway does not run. Next: mcpgw serve")


def add_to(app: typer.Typer) -> None:
    """Add these verbs to the root."""
    for name, verb, help in (
        ("demo", demo, "Start small servers of every kind, use them, and show how to go on."),
        ("serve", serve, "Run the gateway until a signal ends it."),
        ("stdio", stdio, "Be an MCP server on stdin and stdout, for clients that start one."),
        ("status", status, "Tell whether the gateway runs and how its servers are."),
    ):
        app.command(name, help=help, rich_help_panel=Panel.RUN)(verb)

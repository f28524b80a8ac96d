"""What Tab offers: names from the store, read quickly and without ever failing.

The shell runs mcpgw for each Tab. A store that is missing, damaged or newer offers nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import typer

from mcpgw.cli.io import desk

VARIABLE = "_MCPGW_COMPLETE"


def asked() -> bool:
    """Whether the shell runs this for a Tab."""
    return VARIABLE in os.environ


def prepare() -> None:
    """Make ready to answer a Tab."""
    from typer.completion import completion_init  # pyright: ignore[reportPrivateImportUsage]

    completion_init()


def _offer(
    ctx: typer.Context, begun: str, names: Callable[[typer.Context], Iterable[tuple[str, str]]]
) -> list[tuple[str, str]]:
    try:
        return [pair for pair in names(ctx) if pair[0].lower().startswith(begun.lower())]
    except Exception:  # noqa: BLE001 - a Tab has nobody to tell
        return []


def _servers(ctx: typer.Context) -> list[tuple[str, str]]:
    from mcpgw.store import registry
    from mcpgw.store.db import Store

    with Store.open(desk(ctx).path, create=False) as store:
        servers = registry.list_servers(store)
    return [(server.name, server.description) for server in servers]


def _aliases(ctx: typer.Context) -> list[tuple[str, str]]:
    from mcpgw.store import registry
    from mcpgw.store.db import Store

    with Store.open(desk(ctx).path, create=False) as store:
        return [(alias.alias, alias.server) for alias in registry.list_aliases(store)]


def _keys(ctx: typer.Context) -> list[tuple[str, str]]:
    from mcpgw.store import keys
    from mcpgw.store.db import Store

    with Store.open(desk(ctx).path, create=False) as store:
        return [(key.name, key.start) for key in keys.list_keys(store)]


def _secrets(ctx: typer.Context) -> list[tuple[str, str]]:
    from mcpgw.store.db import Store
    from mcpgw.store.vault import Vault

    with Store.open(desk(ctx).path, create=False) as store:
        return [(name, "") for name in Vault(store).names()]


def server_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Servers."""
    return _offer(ctx, incomplete, _servers)


def alias_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Aliases."""
    return _offer(ctx, incomplete, _aliases)


def key_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Keys."""
    return _offer(ctx, incomplete, _keys)


def secret_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Secrets of the vault."""
    return _offer(ctx, incomplete, _secrets)


def targets(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What may be granted: servers, and the kinds of things on the server that was begun."""
    server, slash, _ = incomplete.partition("/")
    if slash:
        return _offer(ctx, incomplete, lambda _: [(f"{server}/{kind}", "") for kind in _KINDS])
    return _offer(ctx, incomplete, _servers)


_KINDS = ("*", "prompt:*", "resource:*")


def tool_owners(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The beginnings of tool names: asking servers for the rest would take too long."""
    return _offer(ctx, incomplete, lambda c: [(f"{name}/", about) for name, about in _servers(c)])

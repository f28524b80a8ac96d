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


def _named(module: str, listing: str) -> Callable[[typer.Context], list[tuple[str, str]]]:
    """What a function of the store lists, by name."""

    def names(ctx: typer.Context) -> list[tuple[str, str]]:
        from importlib import import_module

        from mcpgw.store.db import Store

        listed = getattr(import_module(f"mcpgw.store.{module}"), listing)
        with Store.open(desk(ctx).path, create=False) as store:
            return [(one.name, "") for one in listed(store)]

    return names


_orgs = _named("holders", "list_orgs")
_teams = _named("holders", "list_teams")
_groups = _named("groups", "list_groups")
_policies = _named("policies", "list_policies")


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


def org_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Organizations."""
    return _offer(ctx, incomplete, _orgs)


def team_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Teams."""
    return _offer(ctx, incomplete, _teams)


def group_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Groups."""
    return _offer(ctx, incomplete, _groups)


def policy_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Policies."""
    return _offer(ctx, incomplete, _policies)


def holders(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Keys, teams and organizations, each behind what it is."""
    kinds = {"key": _keys, "team": _teams, "org": _orgs}
    kind, colon, _ = incomplete.partition(":")
    if not colon or kind not in kinds:
        return _offer(ctx, incomplete, lambda _: [(f"{one}:", "") for one in kinds])
    return _offer(ctx, incomplete, lambda c: [(f"{kind}:{name}", "") for name, _ in kinds[kind](c)])


def targets(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What may be granted: servers, groups, the kinds of things on the server that was begun."""
    server, slash, _ = incomplete.partition("/")
    if slash:
        return _offer(ctx, incomplete, lambda _: [(f"{server}/{kind}", "") for kind in _KINDS])
    if incomplete.lower().startswith("group:"):
        return _offer(ctx, incomplete, lambda c: [(f"group:{name}", "") for name, _ in _groups(c)])
    return _offer(ctx, incomplete, lambda c: [*_servers(c), ("group:", "")])


_KINDS = ("*", "prompt:*", "resource:*")


def tool_owners(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The beginnings of tool names: asking servers for the rest would take too long."""
    return _offer(ctx, incomplete, lambda c: [(f"{name}/", about) for name, about in _servers(c)])

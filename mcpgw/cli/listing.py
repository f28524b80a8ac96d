"""Lists of tools, prompts and resources, of all servers or of one."""

from __future__ import annotations

from typing import Any

from mcpgw.cli import asking, render
from mcpgw.cli.io import Desk
from mcpgw.core.naming import public_name
from mcpgw.daemon.reach import Reach
from mcpgw.model.calls import JsonObject
from mcpgw.model.config import Server
from mcpgw.store import registry

_LISTS = {
    "tool": ("tools/list", "tools"),
    "prompt": ("prompts/list", "prompts"),
    "resource": ("resources/list", "resources"),
    "template": ("resources/templates/list", "resourceTemplates"),
}
DESCRIPTION = 200  # characters of a description that a listing shows


def show_list(desk: Desk, *kinds: str, server: str | None, key: str | None) -> None:
    """List things of these kinds, under the names that clients see at the gateway's own address."""
    with desk.store() as store:
        servers = registry.list_servers(store)
        only = registry.get_server(store, server) if server is not None else None

    async def collect(reached: Reach) -> tuple[dict[str, list[JsonObject]], dict[str, str]]:
        lists: dict[str, list[JsonObject]] = {}
        missing: dict[str, str] = {}
        for kind in kinds:
            method, member = _LISTS[kind]
            items, gone = await asking.listed(
                reached, method, member, server=only.name if only else None
            )
            lists[kind] = items
            missing.update(gone)
        return lists, missing

    with desk.busy("Asking the servers"):
        lists, missing = asking.reaching(desk, collect, key=key, server=only.name if only else None)
    told = {
        kind: [_told(kind, item, servers, only) for item in items] for kind, items in lists.items()
    }
    if desk.as_json:
        gone = [{"server": name, "reason": reason} for name, reason in missing.items()]
        desk.emit({**{f"{kind}s": items for kind, items in told.items()}, "unavailable": gone})
        return
    asking.tell_missing(desk, missing)
    rows = [
        (item.get("name") if kind in {"tool", "prompt"} else _uri(item), _about(item))
        for kind, items in told.items()
        for item in items
    ]
    what = kinds[0]
    desk.rows(
        ("URI" if what == "resource" else what.upper(), "WHAT"),
        [(str(name), about) for name, about in rows],
        empty=f"There are no {what}s."
        + (" Next: mcpgw server add NAME --url URL" if not servers else ""),
    )


def _uri(item: dict[str, Any]) -> object:
    return item.get("uri") or item.get("uri_template")


def _about(item: dict[str, Any]) -> str:
    text = " ".join(str(item.get("description") or item.get("title") or "").split())
    return text if len(text) <= DESCRIPTION else text[: DESCRIPTION - 1] + "…"


def _told(
    kind: str, item: JsonObject, servers: list[Server], only: Server | None
) -> dict[str, Any]:
    """An item with its public name and its server, whichever address it was listed at."""
    told = render.snake(item)
    if kind not in {"tool", "prompt"}:
        return {**told, "server": only.name if only else None}
    name = str(told.get("name"))
    if only is not None:
        return {**told, "name": public_name(only.prefix, name), "server": only.name}
    prefix = name.partition("__")[0]
    owners = [server.name for server in servers if server.prefix == prefix]
    return {**told, "server": owners[0] if owners else None}

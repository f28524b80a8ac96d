"""The `mcpServers` JSON of desktop clients and editors: Claude, Cursor, VS Code, Windsurf and kin.

They differ in small things: where the mapping is (`mcpServers`, VS Code's `servers` or
`mcp.servers`), how the address is called, how a variable is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from mcpgw.store.files.brought import Basket, members, plain, words
from mcpgw.store.files.faults import Path

PLACES: Final[tuple[tuple[str, ...], ...]] = (("mcpServers",), ("servers",), ("mcp", "servers"))

_TRANSPORT: Final = {
    "http": "http",
    "streamable-http": "http",
    "streamablehttp": "http",
    "streamable_http": "http",
    "sse": "sse",
    "remote": "auto",
    "local": "auto",
    "stdio": "auto",
}
_URL: Final = ("url", "serverUrl", "httpUrl", "endpoint")
_FIELDS: Final = frozenset(
    {
        *_URL,
        "type",
        "transport",
        "command",
        "args",
        "env",
        "environment",
        "cwd",
        "headers",
        "disabled",
        "enabled",
        "description",
        "disabledTools",
        "enabledTools",
    }
)


def servers_of(tree: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Where in `tree` servers are, and the servers; None when it has none of these forms."""
    for place in PLACES:
        found: object = tree
        for step in place:
            found = members(cast("object", found)).get(step)
        if isinstance(found, dict):
            return place, cast("dict[str, Any]", found)
    return None


def bring(tree: Mapping[str, Any], basket: Basket) -> None:
    """Put what `tree` has into `basket`."""
    found = servers_of(tree)
    if found is None:
        return
    place, servers = found
    for called, value in servers.items():
        path: Path = (*place, called)
        _server(path, basket.name(path, called), members(value), basket)
    projects = members(tree.get("projects"))
    for project, settings in projects.items():
        if members(members(settings).get("mcpServers")):
            basket.report(("projects", project, "mcpServers"), "is of one project; left out")


def _server(path: Path, name: str, given: dict[str, Any], to: Basket) -> None:
    entry: dict[str, Any] = {"headers": {}, "description": plain(given.get("description"))}
    to.servers[name] = entry
    command = words(given.get("command"))
    url = next((plain(given[one]) for one in _URL if given.get(one)), None)
    env = members(given.get("env")) | members(given.get("environment"))
    if command:
        entry["command"] = (*command, *words(given.get("args")))
        entry["cwd"] = plain(given.get("cwd")) or None
        entry["env"] = {
            key: to.value((*path, "env", key), name, key, plain(value))
            for key, value in env.items()
        }
    elif url is not None:
        entry["url"] = url
        entry["transport"] = _transport(path, given, to)
        _headers(path, name, given, entry, to)
    else:
        entry |= {"url": "http://localhost", "enabled": False}
        to.report(path, "has neither an address nor a command; it is brought along disabled")
    if given.get("disabled") is True or given.get("enabled") is False:
        entry["enabled"] = False
    if given.get("enabledTools"):
        entry["allow"] = tuple(words(given["enabledTools"]))
    entry["deny"] = tuple(words(given.get("disabledTools")))
    _inputs(path, entry, to)
    to.watch_place(path, entry)
    to.unknown(path, given, _FIELDS)


def _transport(path: Path, given: dict[str, Any], to: Basket) -> str:
    field = "type" if given.get("type") else "transport"
    if not given.get(field):
        return "auto"
    found = _TRANSPORT.get(plain(given[field]).lower())
    if found is None:
        to.report((*path, field), "is not known here; it is found out instead")
    return found or "auto"


def _headers(
    path: Path, name: str, given: dict[str, Any], entry: dict[str, Any], to: Basket
) -> None:
    for key, raw in members(given.get("headers")).items():
        here, value = (*path, "headers", key), plain(raw)
        if key.lower() == "authorization":
            signs = to.authorization(here, name, value)
            entry["headers"].update(signs.pop("headers", {}))
            entry |= signs
        else:
            entry["headers"][key] = to.value(here, name, key, value)


def _inputs(path: Path, entry: dict[str, Any], to: Basket) -> None:
    """A text that the editor would ask for, or fill in, cannot be had here."""
    texts = (
        entry.get("url") or "",
        *entry.get("command", ()),
        *entry.get("env", {}).values(),
        *entry["headers"].values(),
        *(to.seals.get(str(one).removeprefix("vault:"), "") for one in (entry.get("secret"),)),
    )
    if any("${" in text for text in texts):
        entry["enabled"] = False
        what = "has ${…}, which only its program fills in; it is brought along disabled"
        to.report(path, what)

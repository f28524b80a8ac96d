"""LiteLLM's `config.yaml`, and what its key settings and object permissions say.

Forms as of its documentation from 2025 to the end of 2026: `mcp_servers` as a mapping or a list,
`key_settings` with `allowed_mcp_servers`, `object_permission` as its management API takes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from mcpgw.store import looks
from mcpgw.store.files.brought import Basket, items, members, plain, words
from mcpgw.store.files.faults import Path

TOP: Final = frozenset(
    {"mcp_servers", "key_settings", "team_settings", "general_settings", "litellm_settings"}
)
MARKS: Final = TOP | {"model_list", "mcp_aliases", "router_settings", "environment_variables"}
"""Top keys by which such a file is known."""

_AUTH: Final = {
    "api_key": "api-key",
    "bearer": "bearer",
    "bearer_token": "bearer",
    "token": "token",
}
_LATER: Final = frozenset(
    {"oauth2", "oauth2_token_exchange", "oauth2_id_jag", "aws_sigv4", "true_passthrough"}
)
_TRANSPORT: Final = {
    "http": "http",
    "streamable_http": "http",
    "streamable-http": "http",
    "sse": "sse",
    "stdio": "stdio",
}
_CREDENTIALS: Final = ("api_key", "auth_value", "authentication_token")
_SERVER: Final = frozenset(
    {
        *_CREDENTIALS,
        "server_name",
        "alias",
        "transport",
        "url",
        "spec_path",
        "command",
        "args",
        "env",
        "auth_type",
        "allowed_tools",
        "disallowed_tools",
        "allowed_params",
        "static_headers",
        "extra_headers",
        "access_groups",
        "mcp_access_groups",
        "allow_all_keys",
        "mcp_info",
        "description",
        "timeout",
    }
)
_HOLDER: Final = frozenset(
    {
        "key_name",
        "key_alias",
        "team_alias",
        "team_id",
        "name",
        "allowed_mcp_servers",
        "mcp_servers",
        "mcp_access_groups",
        "object_permission",
        "team",
        "blocked",
    }
)
_PERMISSION: Final = frozenset({"mcp_servers", "mcp_access_groups", "mcp_tool_permissions"})
_NOTHING: Final = "no-mcp-servers"
_EVERYTHING: Final = frozenset({"*", "all-proxy-mcpservers", "all-team-mcpservers"})


def bring(tree: Mapping[str, Any], basket: Basket) -> None:
    """Put what `tree` has into `basket`."""
    _Import(basket).run(tree)


class _Import:
    def __init__(self, basket: Basket) -> None:
        self._to = basket
        self._names: dict[str, str] = {}  # servers as they are called there, in lower case
        self._groups: dict[str, str] = {}
        self._for_all: list[str] = []

    def run(self, tree: Mapping[str, Any]) -> None:
        named = list(_named(tree.get("mcp_servers"), "mcp_servers", "server_name"))
        for path, name, _ in named:
            if name is None:
                self._to.report(path, "has no server_name, so it is left out")
            else:
                self._names[name.lower()] = self._to.name(path, name)
        settings = members(tree.get("litellm_settings"))
        aliases = members(settings.get("mcp_aliases")) | members(tree.get("mcp_aliases"))
        for path, name, entry in named:
            if name is not None:
                self._server(path, name, members(entry))
        self._aliases(aliases)
        for section, default in (("key_settings", "keys"), ("team_settings", "teams")):
            for path, name, entry in _named(tree.get(section), section, *_NAMED_BY):
                self._holder(path, name, members(entry), default)
        self._share()
        self._rest(tree, settings)

    # ------------------------------------------------------------ servers

    def _server(self, path: Path, called: str, given: dict[str, Any]) -> None:
        name = self._names[called.lower()]
        entry: dict[str, Any] = {"headers": {}}
        self._to.servers[name] = entry
        self._place(path, given, entry)
        self._sign_in(path, name, given, entry)
        self._headers(path, name, given, entry)
        self._tools(path, given, entry)
        info = members(given.get("mcp_info"))
        about = given.get("description") or info.get("description")
        entry["description"] = plain(about)
        self._to.unknown((*path, "mcp_info"), info, frozenset({"description", "server_name"}))
        if given.get("alias") is not None and plain(given["alias"]).lower() != name.lower():
            alias = self._to.name((*path, "alias"), plain(given["alias"]))
            entry["aliases"] = (alias,)
            entry["prefix"] = alias
        for group in words(given.get("access_groups") or given.get("mcp_access_groups")):
            self._group(path, group).append(name)
        if given.get("allow_all_keys") is True:
            self._for_all.append(name)
            what = "is granted to every key of this file; keys that come later need a grant"
            self._to.report((*path, "allow_all_keys"), what)
        if isinstance(given.get("timeout"), (int, float)):
            entry["timeout"] = float(given["timeout"])
        self._to.watch_place(path, entry)
        self._to.unknown(path, given, _SERVER)

    def _place(self, path: Path, given: dict[str, Any], entry: dict[str, Any]) -> None:
        word = given.get("transport")
        transport = "auto" if word is None else _TRANSPORT.get(plain(word).lower())
        if transport is None:
            self._to.report((*path, "transport"), "is not known here; it is found out instead")
            transport = "auto"
        if given.get("command"):
            entry["command"] = (plain(given["command"]), *words(given.get("args")))
            name = self._names[str(path[1]).lower()] if isinstance(path[1], str) else ""
            entry["env"] = self._environment(path, name or "env", given, entry)
        else:
            entry["url"] = plain(given.get("url")) or None
            entry["transport"] = transport if transport != "stdio" else "auto"
        if given.get("spec_path"):
            entry.setdefault("url", None)
            entry["url"] = entry["url"] or "http://localhost"
            self._disable(
                (*path, "spec_path"), entry, "describes an HTTP API, which is not served yet"
            )
        elif not entry.get("url") and not entry.get("command"):
            entry["url"] = "http://localhost"
            self._disable(path, entry, "has neither a url nor a command")

    def _environment(
        self, path: Path, name: str, given: dict[str, Any], entry: dict[str, Any]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, raw in members(given.get("env")).items():
            value, here = plain(raw), (*path, "env", key)
            if value.startswith("${X-"):
                self._disable(here, entry, "is filled from a client's header, which is not known")
            found[key] = self._to.value(here, name, key, value)
        return found

    def _sign_in(self, path: Path, name: str, given: dict[str, Any], entry: dict[str, Any]) -> None:
        here = (*path, "auth_type")
        kind = plain(given.get("auth_type") or "none").lower()
        field = next((one for one in _CREDENTIALS if given.get(one) not in (None, "")), None)
        value = None if field is None else plain(given[field])
        if "command" in entry:
            if kind != "none" or value:
                self._to.report(here, "does not go with a command, so it is left out")
        elif kind == "none":
            if field is not None:
                self._to.report((*path, field), "is not sent without an auth_type; it is left out")
        elif kind not in (*_AUTH, "basic", "authorization"):
            self._disable(
                here, entry, f"{kind if kind in _LATER else 'this'} has no counterpart yet"
            )
        elif value is None:
            self._disable(here, entry, "comes without a credential, which clients would send")
        elif kind == "basic":
            secret = self._to.basic((*path, field or kind), name, value)
            entry |= {"auth": "basic", "secret": secret}
        elif kind == "authorization":
            entry["headers"] = {"Authorization": self._to.secret(f"{name}/Authorization", value)}
        else:
            entry |= {"auth": _AUTH[kind], "secret": self._to.secret(name, value)}

    def _headers(self, path: Path, name: str, given: dict[str, Any], entry: dict[str, Any]) -> None:
        extra = given.get("extra_headers")
        fixed = [("static_headers", given.get("static_headers"))]
        if isinstance(extra, dict):
            fixed.append(("extra_headers", members(cast("object", extra))))
        else:
            entry["forward_headers"] = tuple(word.lower() for word in words(extra))
        for field, values in fixed:
            for key, value in members(values).items():
                held = self._to.value((*path, field, key), name, key, plain(value))
                entry["headers"][key] = held

    def _tools(self, path: Path, given: dict[str, Any], entry: dict[str, Any]) -> None:
        if given.get("allowed_tools"):
            entry["allow"] = tuple(words(given["allowed_tools"]))
        elif given.get("allowed_tools") is not None:
            self._to.report((*path, "allowed_tools"), "is empty, which restricts nothing there")
        entry["deny"] = tuple(words(given.get("disallowed_tools")))
        if given.get("allowed_params"):
            what = "restricts arguments; say it again as a policy: mcpgw policy add NAME --when …"
            self._to.report((*path, "allowed_params"), what)

    def _disable(self, path: Path, entry: dict[str, Any], why: str) -> None:
        entry["enabled"] = False
        self._to.report(path, f"{why}; the server is brought along disabled")

    def _aliases(self, aliases: Mapping[str, Any]) -> None:
        for alias, server in aliases.items():
            path = ("litellm_settings", "mcp_aliases", alias)
            name = self._names.get(plain(server).lower())
            if name is None:
                self._to.report(path, "names a server that this file does not have")
                continue
            entry = self._to.servers[name]
            if alias.lower() in {name.lower(), *(one.lower() for one in entry.get("aliases", ()))}:
                continue
            word = self._to.name(path, alias)
            entry["aliases"] = (*entry.get("aliases", ()), word)
            entry.setdefault("prefix", word)

    # ------------------------------------------------------------ who may use what

    def _group(self, path: Path, called: str) -> list[str]:
        if called not in self._groups:
            self._groups[called] = self._to.name((*path, "access_groups"), called)
        return self._to.groups.setdefault(self._groups[called], [])

    def _holder(self, path: Path, called: str | None, given: dict[str, Any], section: str) -> None:
        if called is None:
            self._to.report(path, "has no name, so it is left out")
            return
        name = self._to.key_name((section, *path), called)
        entry: dict[str, Any] = {}
        getattr(self._to, section)[name] = entry
        permission = members(given.get("object_permission"))
        grants: list[str] | None = None
        for where, source in (((*path, "object_permission"), permission), (path, given)):
            found = self._grants(where, source)
            if found is not None:
                grants = [*(grants or ()), *found]
        if grants is not None:
            entry["grants"] = tuple(dict.fromkeys(grants))
        if given.get("blocked") is True:
            entry["enabled"] = False
        if section == "keys" and (team := given.get("team") or given.get("team_alias")):
            if plain(team) in self._to.teams:
                entry["team"] = plain(team)
            else:
                self._to.report((*path, "team"), "names a team that this file does not have")
        self._to.unknown((*path, "object_permission"), permission, _PERMISSION)
        self._to.unknown(path, given, _HOLDER)

    def _grants(self, path: Path, given: Mapping[str, Any]) -> list[str] | None:
        """Targets; None where nothing is said. Tools named for a server are all it gives of it."""
        tools = members(given.get("mcp_tool_permissions"))
        servers = given.get("allowed_mcp_servers", given.get("mcp_servers"))
        groups = given.get("mcp_access_groups")
        if servers is None and groups is None and not tools:
            return None
        narrowed = {server.lower() for server in tools}
        found: list[str] = []
        for word in words(servers):
            if word in _EVERYTHING:
                self._to.report(path, f"{_word(word)} would be every server; grant * if it is so")
            elif word != _NOTHING and word.lower() not in narrowed:
                found += self._known(path, word)
        for server, names in tools.items():
            for known in self._known((*path, "mcp_tool_permissions"), server):
                found += [f"{known}/{tool}" for tool in words(names)]
        for group in words(groups):
            if group in self._groups:
                found.append(f"group:{self._groups[group]}")
            else:
                what = f"{_word(group)} is an access group that no server of this file is in"
                self._to.report((*path, "mcp_access_groups"), what)
        return found

    def _known(self, path: Path, word: str) -> list[str]:
        """The server's name here. One that the file does not have may be in the store."""
        name = self._names.get(word.lower())
        if name is not None:
            return [name]
        if word in self._groups:
            return [f"group:{self._groups[word]}"]
        return [word]

    def _share(self) -> None:
        """Give every key what is for all keys, but none that has all of its team's."""
        for name, key in self._to.keys.items() if self._for_all else ():
            if key.get("grants") is None and key.get("team") is not None:
                what = "has what its team has, and no more of what is for all keys"
                self._to.report(("key_settings", name), what)
            else:
                grants = (*(key.get("grants") or ()), *self._for_all)
                key["grants"] = tuple(dict.fromkeys(grants))

    # ------------------------------------------------------------ the rest of the file

    def _rest(self, tree: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        general = members(tree.get("general_settings"))
        if "store_model_in_db" in general:
            path = ("general_settings", "store_model_in_db")
            self._to.report(path, "needs no setting: what is configured is always stored")
        known = frozenset({"store_model_in_db"})
        self._to.unknown(("general_settings",), general, known)
        self._to.unknown(("litellm_settings",), settings, frozenset({"mcp_aliases"}))
        self._to.unknown((), tree, TOP | {"mcp_aliases"})


_NAMED_BY: Final = ("key_name", "key_alias", "team_alias", "team_id", "name")


def _named(value: object, section: str, *fields: str) -> Iterator[tuple[Path, str | None, object]]:
    """Entries of the mapping or the list form, with the path and the name of each."""
    for name, entry in members(value).items():
        yield (section, name), plain(members(entry).get(fields[0]) or name), entry
    for at, entry in enumerate(items(value)):
        name = next((plain(members(entry)[one]) for one in fields if members(entry).get(one)), None)
        yield (section, at), name, entry


def _word(text: str) -> str:
    """A word of the file that is safe to tell."""
    return "this" if looks.looks_secret(text) or len(text) > 64 else text

"""The store as a document, and a document as YAML or TOML.

Secrets are not in it: references stand for them, and where a literal would give one away (in a
URL or a command) a mask stands instead, which is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from mcpgw.model.config import Server
from mcpgw.store import groups, holders, keys, looks, policies, registry
from mcpgw.store.db import Store
from mcpgw.store.files.names import settle
from mcpgw.store.files.schema import (
    Document,
    Entry,
    GroupEntry,
    KeyEntry,
    OrganizationEntry,
    PolicyEntry,
    ServerEntry,
    TeamEntry,
)
from mcpgw.store.files.text import Text

SORTED_BY_NAME = str.lower
STORE = Text("the store", "yaml", ())


def current(store: Store) -> Document:
    """Everything that is configured; revoked keys are gone, and secrets of keys are not told."""
    with store.reading():
        document = Document(
            servers={one.name: _server(one) for one in registry.list_servers(store)},
            groups={one.name: GroupEntry(targets=one.targets) for one in groups.list_groups(store)},
            policies={
                one.name: PolicyEntry(
                    deny=one.deny_targets, rate=one.rate, quota=one.quota, when=one.when
                )
                for one in policies.list_policies(store)
            },
            organizations={
                one.name: OrganizationEntry(**_held(one)) for one in holders.list_orgs(store)
            },
            teams={
                one.name: TeamEntry(organization=one.org, **_held(one))
                for one in holders.list_teams(store)
            },
            keys={
                one.name: KeyEntry(
                    team=one.team,
                    expires=None if one.expires is None else int(one.expires),
                    **_held(one),
                )
                for one in keys.list_keys(store)
                if one.revoked is None
            },
        )
    return settle(STORE, document, None)


def _server(server: Server) -> ServerEntry:
    fields = {
        field: getattr(server, field)
        for field in ServerEntry.__struct_fields__
        if field not in ("prefix", "env", "headers")
    }
    return ServerEntry(
        **fields,
        env=dict(server.env),
        headers=dict(server.headers),
        prefix=None if server.prefix == server.name else server.prefix,
    )


def _held(holder: holders.Holder) -> dict[str, Any]:
    return {
        "grants": None if holder.grants is None else holder.targets,
        "denies": holder.deny_targets,
        "policies": holder.policies,
        "enabled": holder.enabled,
    }


def tree(document: Document) -> tuple[dict[str, Any], list[str]]:
    """The document as plain values, and what of it had to be masked, in words."""
    found: dict[str, Any] = {}
    told: list[str] = []
    for section in document.__struct_fields__:
        entries: dict[str, Any] = {}
        by_name = document.section(section)
        for name in sorted(by_name, key=SORTED_BY_NAME):
            plain = _said(by_name[name])
            if section == "servers":
                told += _masked(name, plain)
            entries[name] = plain.get("targets", []) if section == "groups" else _tidy(plain)
        if entries:
            found[section] = entries
    return found, told


def _said(entry: Entry) -> dict[str, Any]:
    """What an entry has that is not so by default."""
    default = type(entry)()
    return {
        field: _listed(msgspec.to_builtins(value))
        for field in entry.__struct_fields__
        if (value := getattr(entry, field)) != getattr(default, field)
    }


def _listed(value: object) -> object:
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def _tidy(entry: dict[str, Any]) -> dict[str, Any]:
    if "timeout" in entry and entry["timeout"] == int(entry["timeout"]):
        entry["timeout"] = int(entry["timeout"])
    if "expires" in entry:
        entry["expires"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["expires"]))
    return entry


def _masked(name: str, entry: dict[str, Any]) -> list[str]:
    """Take literal secrets out of a server's entry; what was taken out."""
    told: list[str] = []
    if "url" in entry and (url := looks.masked_url(entry["url"])) != entry["url"]:
        entry["url"] = url
        told.append(f"servers.{name}.url")
    if "command" in entry and (words := looks.masked_words(entry["command"])) != entry["command"]:
        entry["command"] = words
        told.append(f"servers.{name}.command")
    for field in ("headers", "env"):
        values: dict[str, str] = entry.get(field, {})
        for key, value in values.items():
            if looks.literal_secret(key, value):
                values[key] = looks.MASK
                told.append(f"servers.{name}.{field}.{key}")
    return told


def vault_names(document: Document) -> list[str]:
    """The sealed secrets that servers need."""
    found = {
        value.removeprefix("vault:")
        for server in document.servers.values()
        for value in (server.secret or "", *server.headers.values(), *server.env.values())
        if value.startswith("vault:") and looks.is_reference(value)
    }
    return sorted(found)


def written(values: Mapping[str, Any], form: Literal["yaml", "toml"]) -> str:
    """Plain values as a file's text."""
    if form == "toml":
        import tomlkit  # noqa: PLC0415 - 60 ms, for this only

        return tomlkit.dumps(values)
    import yaml  # noqa: PLC0415 - 30 ms

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(
        dict(values), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )

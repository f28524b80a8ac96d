"""A plan carried out: one transaction, through the same functions as every command."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from mcpgw.errors import Exit, GatewayError
from mcpgw.model.ports import Secrets
from mcpgw.store import groups, holders, keys, permits, policies, registry
from mcpgw.store.db import Store
from mcpgw.store.files.plan import Change, Plan, plan
from mcpgw.store.files.schema import (
    Document,
    KeyEntry,
    OrganizationEntry,
    ServerEntry,
    TeamEntry,
    draft,
)
from mcpgw.store.files.text import Text
from mcpgw.store.holders import HolderKind
from mcpgw.store.keys import Key
from mcpgw.store.vault import Vault


class Applied(Struct, frozen=True, kw_only=True):
    """What was done. minted: new keys with the secrets that were made for them.

    lost: keys that no secret works for, with the reason.
    """

    changes: tuple[Change, ...]
    minted: tuple[tuple[Key, str], ...]
    lost: Mapping[str, str]


def apply(
    store: Store,
    text: Text,
    document: Document,
    secrets: Secrets,
    *,
    prune: bool = False,
    merge: bool = False,
    agreed: frozenset[str] | None = None,
    seals: Mapping[str, str] | None = None,
    vault: Vault | None = None,
) -> Applied:
    """Make the store what `document` says: all of it, or nothing when this raises.

    agreed: what may be removed, as `SECTION.NAME`; None: all that prune finds. seals: secrets to
    put into `vault`, by name. Raises what `plan` and the store raise, and changed_meanwhile.
    """
    with store.change():
        if vault is not None:
            _seal(vault, seals or {})
        planned = plan(store, text, document, secrets, prune=prune, merge=merge)
        _check_agreed(planned, agreed)
        work = _Work(store, planned)
        work.run()
    return Applied(changes=planned.changes, minted=tuple(work.minted), lost=planned.lost)


def serve(
    store: Store,
    text: Text,
    document: Document,
    secrets: Secrets,
    *,
    seals: Mapping[str, str],
    vault: Vault,
) -> Applied:
    """The same for a store that a daemon fills from its file alone: prune, and mint for nobody.

    A key whose secret is not named, or cannot be had, is there, and no secret works for it.
    """
    with store.change():
        for name in set(vault.names()) - seals.keys():
            vault.remove(name)
        _seal(vault, seals)
        planned = plan(store, text, document, secrets, prune=True, strict=False)
        work = _Work(store, planned)
        work.run()
        nameless = {
            name: "The file names no secret for it (secret: REF)."
            for name, entry in planned.wanted.keys.items()
            if entry.secret is None
        }
        for name in (*planned.lost, *nameless):
            keys.forget_secret(store, name)
    return Applied(changes=planned.changes, minted=(), lost={**nameless, **planned.lost})


def _seal(vault: Vault, seals: Mapping[str, str]) -> None:
    for name, value in seals.items():
        if vault.get(name) != value:
            vault.put(name, value)


def _check_agreed(planned: Plan, agreed: frozenset[str] | None) -> None:
    going = {f"{one.section}.{one.name}" for one in planned.changes if one.action == "remove"}
    if agreed is not None and (more := going - agreed):
        raise GatewayError(
            "The store was changed in the meantime, so nothing was applied.",
            why=f"{', '.join(sorted(more)[:5])} would go as well.",
            next="Give the same command again",
            code="changed_meanwhile",
            exit=Exit.MISSING,
        )


class _Work:
    """The steps in an order in which each finds what it needs and no name is taken twice."""

    def __init__(self, store: Store, planned: Plan) -> None:
        self.minted: list[tuple[Key, str]] = []
        self._store = store
        self._plan = planned
        self._now = time.time()

    def run(self) -> None:
        self._remove("keys")
        self._free_aliases()
        self._remove("servers")
        for section, put in (
            ("servers", self._put_server),
            ("groups", self._put_group),
            ("policies", self._put_policy),
            ("organizations", self._put_organization),
            ("teams", self._put_team),
            ("keys", self._put_key),
        ):
            for change in self._changes(section, "add", "change"):
                put(change)
            if section == "servers":
                self._give_aliases()
        for section in ("teams", "organizations", "policies", "groups"):
            self._remove(section)

    def _changes(self, section: str, *actions: str) -> list[Change]:
        return [
            one for one in self._plan.changes if one.section == section and one.action in actions
        ]

    def _remove(self, section: str) -> None:
        store = self._store
        for change in self._changes(section, "remove"):
            match section:
                case "keys":
                    keys.revoke_key(store, change.name, now=self._now)
                case "servers":
                    registry.remove_server(store, change.name)
                case "teams":
                    holders.remove_team(store, change.name)
                case "organizations":
                    holders.remove_org(store, change.name)
                case "policies":
                    policies.remove_policy(store, change.name)
                case _:
                    groups.remove_group(store, change.name)

    # ------------------------------------------------------------ servers

    def _put_server(self, change: Change) -> None:
        entry = self._plan.wanted.servers[change.name]
        made = draft(change.name, entry)
        if change.old is None:
            registry.add_server(self._store, made)
            return
        fields = {field: getattr(made, field) for field in made.__struct_fields__}
        registry.set_server(self._store, change.old, **fields)

    def _free_aliases(self) -> None:
        """Take away aliases that their server loses, so that others can have the name."""
        for change in self._changes("servers", "change"):
            if change.old is None:
                continue
            keep = {one.lower() for one in self._server(change).aliases}
            for alias in self._plan.before.servers[change.old].aliases:
                if alias.lower() not in keep:
                    registry.remove_alias(self._store, alias)

    def _give_aliases(self) -> None:
        for change in self._changes("servers", "add", "change"):
            entry = self._server(change)
            old = () if change.old is None else self._plan.before.servers[change.old].aliases
            spelled = {one.lower(): one for one in old}
            for alias in entry.aliases:
                if (known := spelled.get(alias.lower())) == alias:
                    continue
                if known is not None:
                    registry.remove_alias(self._store, known)
                registry.add_alias(self._store, alias, change.name)
            registry.set_server(self._store, change.name, prefix=entry.prefix or change.name)

    def _server(self, change: Change) -> ServerEntry:
        return self._plan.wanted.servers[change.name]

    # ------------------------------------------------------------ what names servers

    def _put_group(self, change: Change) -> None:
        words = self._plan.wanted.groups[change.name].targets
        if change.old is None:
            groups.add_group(self._store, change.name, words)
        else:
            groups.set_group(self._store, change.old, name=change.name, targets=words)

    def _put_policy(self, change: Change) -> None:
        entry = self._plan.wanted.policies[change.name]
        if change.old is None:
            policies.add_policy(
                self._store,
                change.name,
                denies=entry.deny,
                rate=entry.rate,
                quota=entry.quota,
                when=entry.when,
            )
        else:
            policies.set_policy(
                self._store,
                change.old,
                name=change.name,
                denies=entry.deny,
                rate=entry.rate,
                quota=entry.quota,
                when=entry.when,
            )

    # ------------------------------------------------------------ who holds grants

    def _put_organization(self, change: Change) -> None:
        entry = self._plan.wanted.organizations[change.name]
        if change.old is None:
            holders.add_org(self._store, change.name)
        holders.set_org(
            self._store,
            change.old or change.name,
            name=change.name,
            enabled=entry.enabled,
            ceiling=entry.grants is not None,
        )
        self._hold("org", change, entry)

    def _put_team(self, change: Change) -> None:
        entry = self._plan.wanted.teams[change.name]
        if change.old is None:
            holders.add_team(self._store, change.name)
        holders.set_team(
            self._store,
            change.old or change.name,
            name=change.name,
            org=entry.organization,
            enabled=entry.enabled,
            ceiling=entry.grants is not None,
        )
        self._hold("team", change, entry)

    def _put_key(self, change: Change) -> None:
        entry = self._plan.wanted.keys[change.name]
        secret = self._plan.secrets.get(change.name)
        if change.old is None:
            self._new_key(change.name, entry, secret)
        else:
            if secret is not None:
                keys.set_secret(self._store, change.old, secret)
            self._set_key(change.old, change.name, entry, self._expires(change.old, entry))
        self._hold("key", change, entry)

    def _new_key(self, name: str, entry: KeyEntry, secret: str | None) -> None:
        past = entry.expires is not None and entry.expires <= self._now
        key, made = keys.create_key(
            self._store,
            name,
            team=entry.team,
            expires=None if past else entry.expires,
            grants=entry.grants or (),
            now=self._now,
            secret=secret,
        )
        if secret is None:
            self.minted.append((key, made))
        if past or not entry.enabled or entry.grants == ():
            self._set_key(name, name, entry, entry.expires)

    def _set_key(self, old: str, name: str, entry: KeyEntry, expires: float | None) -> None:
        keys.set_key(
            self._store,
            old,
            name=name,
            team=entry.team,
            enabled=entry.enabled,
            expires=expires,
            inherit=entry.grants is None,
        )

    def _expires(self, old: str, entry: KeyEntry) -> float | None:
        """The moment as the store has it where the file says the same to the second."""
        if self._plan.before.keys[old].expires == entry.expires:
            return keys.get_key(self._store, old).expires
        return entry.expires

    def _hold(
        self, kind: HolderKind, change: Change, entry: OrganizationEntry | TeamEntry | KeyEntry
    ) -> None:
        section = {"org": "organizations", "team": "teams", "key": "keys"}[kind]
        before = None if change.old is None else self._plan.before.section(section)[change.old]
        if not isinstance(before, (OrganizationEntry, TeamEntry, KeyEntry)):
            before = KeyEntry(grants=entry.grants) if kind == "key" else type(entry)()
        rules: tuple[tuple[Literal["allow", "deny"], tuple[str, ...], tuple[str, ...]], ...] = (
            ("allow", before.grants or (), entry.grants or ()),
            ("deny", before.denies, entry.denies),
        )
        for effect, had, words in rules:
            if had != words:
                permits.refill(self._store, change.name, effect, words, holder=kind)
        for policy in set(before.policies) - set(entry.policies):
            policies.detach_policy(self._store, policy, kind, change.name)
        for policy in set(entry.policies) - set(before.policies):
            policies.attach_policy(self._store, policy, kind, change.name)

"""Everything configured, at one moment, as the request path wants it: frozen and looked up by id.

Broken configuration never means allow: a server whose secrets cannot be had is marked unusable,
revoked and expired keys are left out.
"""

from __future__ import annotations

from msgspec.structs import replace

from mcpgw.errors import GatewayError
from mcpgw.model.config import Level, Principal, Server, Snapshot
from mcpgw.model.ports import Secrets
from mcpgw.store.db import Store
from mcpgw.store.keys import read_grants
from mcpgw.store.looks import is_reference
from mcpgw.store.registry import list_servers
from mcpgw.store.secrets import Resolver


def build(store: Store, secrets: Secrets, *, now: float) -> Snapshot:
    """The snapshot of `store` at `now` (seconds since the epoch); every reference is tried.

    Raises the store's GatewayErrors, none for a secret that is missing.
    """
    with store.reading():
        generation = store.generation()
        servers = {one.id: one for one in list_servers(store) if one.enabled}
        keys, principals = _principals(store, now)
    if isinstance(secrets, Resolver):
        secrets.refresh()
    faults = {one.id: _fault(one, secrets) for one in servers.values()}
    return Snapshot(
        generation=generation,
        servers=servers,
        names={
            name.lower(): one.id for one in servers.values() for name in (one.name, *one.aliases)
        },
        prefixes={one.prefix: one.id for one in servers.values()},
        keys=keys,
        principals=principals,
        unusable={server_id: fault for server_id, fault in faults.items() if fault is not None},
    )


def references(server: Server) -> list[str]:
    """Every reference that a server needs, each once."""
    values = (server.secret, *server.headers.values(), *server.env.values())
    return list(dict.fromkeys(one for one in values if one is not None and is_reference(one)))


def _fault(server: Server, secrets: Secrets) -> str | None:
    for reference in references(server):
        try:
            secrets.resolve(reference)
        except GatewayError as error:
            return f'server "{server.name}": {" ".join(filter(None, (error.what, error.why)))}'
    return None


def _principals(store: Store, now: float) -> tuple[dict[bytes, Principal], dict[str, Principal]]:
    """Principals in force, by the digest of each secret that works now, and by id."""
    grants = read_grants(store)
    principals = {
        row["id"]: Principal(
            id=row["id"],
            name=row["name"],
            kind="key",
            levels=(
                Level(
                    "key",
                    row["name"],
                    grants.get((row["id"], "allow"), ()) if row["restricted"] else None,
                    grants.get((row["id"], "deny"), ()),
                ),
            ),
            expires=row["expires"],
        )
        for row in store.query(
            "SELECT h.id, h.name, h.restricted, k.expires FROM holders h "
            "JOIN keys k ON k.holder = h.id WHERE h.revoked IS NULL "
            "AND (k.expires IS NULL OR k.expires > ?) ORDER BY h.name",
            (now,),
        )
    }
    keys: dict[bytes, Principal] = {}
    for digest, key_id, until in store.query(
        "SELECT hash, key, until FROM key_secrets WHERE until IS NULL OR until > ?", (now,)
    ):
        if (principal := principals.get(key_id)) is None:
            continue
        if until is not None:
            # The grace ends by itself, as an expiry that only the old secret has.
            ends = until if principal.expires is None else min(until, principal.expires)
            principal = replace(principal, expires=ends)
        keys[digest] = principal
    return keys, principals

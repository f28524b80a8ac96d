"""Whose request it is: a key, the store's owner, or anybody.

A key is looked up by the SHA-256 of what was sent, so nothing compares secrets. A credential that
is no gateway key is none of ours and is left for the servers that a header may be forwarded to,
unless it looks like one of our keys: that one was revoked, has expired or was never made.
"""

from __future__ import annotations

import time
from hashlib import sha256

from mcpgw.core.eras import INVALID_REQUEST
from mcpgw.front.exchange import Exchange, Refused
from mcpgw.model.calls import RpcError
from mcpgw.model.config import ANYBODY, OWNER, Principal, Snapshot

KEY_HEADERS = ("authorization", "x-api-key", "x-litellm-api-key")
ACT_AS = "mcpgw-act-as"
KEY_START = "mcpgw_"
MAX_KEY = 1024  # characters that are looked at; no key is longer

_CHALLENGE = (b"www-authenticate", b'Bearer realm="mcpgw"')


def unauthorized(reason: str) -> Refused:
    return Refused(401, RpcError(INVALID_REQUEST, f"Unauthorized: {reason}"), _CHALLENGE)


class Auth:
    """From a request to its principal."""

    def __init__(self, *, no_auth: bool) -> None:
        self._no_auth = no_auth
        self._names: tuple[Snapshot | None, dict[str, Principal]] = (None, {})

    def principal(self, exchange: Exchange, snapshot: Snapshot) -> Principal:
        """Who sent this over the network. Raises Refused (401).

        The header fields that held the key are taken out of `exchange.headers`.
        """
        headers = exchange.headers
        found: Principal | None = None
        for name in KEY_HEADERS:
            sent = headers.get(name)
            if sent is None:
                continue
            secret = _secret(sent)
            if secret is None:
                continue
            principal = snapshot.keys.get(sha256(secret.encode()).digest())
            if principal is None or expired(principal, time.time()):
                if secret.startswith(KEY_START) or name in exchange.twice:
                    raise unauthorized("the key is not valid")
                continue
            if found is not None and found.id != principal.id:
                raise unauthorized("two different keys in one request")
            found = principal
            del headers[name]
        if found is not None:
            return found
        if self._no_auth:
            # Somebody who shows a credential means to be somebody: a wrong one is no anonymity.
            if any(name in headers for name in KEY_HEADERS):
                raise unauthorized("the key is not valid")
            return ANYBODY
        raise unauthorized("send a key as `Authorization: Bearer KEY`, or as `x-api-key`")

    def insider(self, exchange: Exchange, snapshot: Snapshot) -> Principal:
        """Who sent this over the private socket: the owner, or the key it acts as."""
        name = exchange.headers.pop(ACT_AS, None)
        if name is None:
            return OWNER
        seen, names = self._names
        if seen is not snapshot:
            names = {principal.name: principal for principal in snapshot.principals.values()}
            self._names = (snapshot, names)
        principal = names.get(name)
        if principal is None or expired(principal, time.time()):
            raise unauthorized("there is no usable key of that name")
        return principal


def expired(principal: Principal, now: float) -> bool:
    return principal.expires is not None and now >= principal.expires


def valid(principal: Principal, snapshot: Snapshot, now: float) -> bool:
    """Whether one who was let in still may be here."""
    return current(principal, snapshot, now) is not None


def current(principal: Principal, snapshot: Snapshot, now: float) -> Principal | None:
    """One who was let in, as the snapshot has them; None when they may no longer be here."""
    if principal.kind != "key":
        return principal
    found = snapshot.principals.get(principal.id)
    return None if found is None or expired(found, now) else found


def _secret(sent: str) -> str | None:
    """The credential in a header's value; None for another scheme than Bearer."""
    scheme, space, rest = sent.partition(" ")
    if space:
        if scheme.lower() != "bearer":
            return None
        sent = rest.strip()
    return sent if 0 < len(sent) <= MAX_KEY else None

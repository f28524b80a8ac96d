"""The header fields that carry a server's static credentials.

References are resolved for every connection, so that a file that changed is noticed. No error
says more than the reference's name.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from mcpgw.core.references import is_reference
from mcpgw.errors import GatewayError
from mcpgw.model.calls import Context
from mcpgw.model.config import Server
from mcpgw.model.ports import Secrets, UpstreamError

REFUSALS: Final = frozenset({401, 403})
REDACTED: Final = "[redacted]"
SHORTEST_SECRET: Final = 4  # characters; shorter values would redact ordinary text

_NEVER_FORWARDED: Final = frozenset(
    {
        # What may carry a key of this gateway.
        "authorization",
        "x-api-key",
        "x-litellm-api-key",
        "cookie",
        "proxy-authorization",
        # What belongs to one hop.
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "origin",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_UNSAFE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def headers(server: Server, secrets: Secrets) -> list[tuple[str, str]]:
    """The fields of `server`'s `auth` and `headers`, names in lower case.

    Raises UpstreamError (auth) when a reference resolves to nothing or to what no header may hold.
    """
    fields: list[tuple[str, str]] = []
    for name, told in server.headers.items():
        fields.append((name.lower(), _checked(value(told, secrets), f"header {name}")))
    if server.auth != "none" and server.secret is not None:
        secret = _checked(value(server.secret, secrets).strip(), f"secret of {server.name}")
        name, field = _credential(server.auth, secret)
        fields = [kept for kept in fields if kept[0] != name]
        fields.append((name, field))
    return fields


def forwarded(server: Server, ctx: Context) -> list[tuple[str, str]]:
    """The caller's own fields that `server` may see: those on its list, never a credential."""
    fields: list[tuple[str, str]] = []
    for listed in server.forward_headers:
        name = listed.lower()
        if name in _NEVER_FORWARDED or name.startswith(("mcp-", "mcpgw-")):
            continue
        told = ctx.headers.get(name)
        if told is not None and not _UNSAFE.search(told):
            fields.append((name, told))
    return fields


def value(told: str, secrets: Secrets) -> str:
    """`told` itself, or what the reference that it is stands for. Raises UpstreamError (auth)."""
    if not is_reference(told):
        return told
    try:
        return secrets.resolve(told)
    except GatewayError as error:
        why = f" {error.why}" if error.why else ""
        raise UpstreamError(
            "auth", f"needs a secret that cannot be had: {error.what}{why}"
        ) from error


def redacted(error: UpstreamError, server: Server, secrets: Secrets) -> UpstreamError:
    """The error without the server's own secrets: some servers repeat what they were sent."""
    message = error.message
    for told in (server.secret or "", *server.headers.values(), *server.env.values()):
        if not is_reference(told):
            continue
        try:
            secret = secrets.resolve(told).strip()
        except GatewayError:
            continue
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            if len(secret) >= SHORTEST_SECRET:
                message = message.replace(form, REDACTED)
    if message == error.message:
        return error
    return UpstreamError(error.stage, message, permanent=error.permanent)


def refused(status: int) -> UpstreamError:
    """A server answered 401 or 403."""
    return UpstreamError("auth", f"refused the credentials ({status})")


def _credential(auth: str, secret: str) -> tuple[str, str]:
    if auth == "api-key":
        return "x-api-key", secret
    if auth == "basic":
        return "authorization", f"Basic {base64.b64encode(secret.encode()).decode()}"
    return "authorization", f"{'Bearer' if auth == 'bearer' else 'token'} {secret}"


def _checked(text: str, what: str) -> str:
    if _UNSAFE.search(text):
        raise UpstreamError("auth", f"has a value no header field may hold ({what})")
    return text

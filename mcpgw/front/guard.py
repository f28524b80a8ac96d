"""Who may talk to this address at all: Host and Origin, before any key is looked at.

A page in a browser can send requests to a local server by a name of its own that resolves to
loopback (DNS rebinding). So the Host must be a name this gateway was given, and an Origin, which
only browsers send, must be a loopback one or one that was allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from mcpgw.core.eras import INVALID_REQUEST
from mcpgw.front.exchange import Exchange, Refused
from mcpgw.model.calls import RpcError

MAX_SEEN = 1024  # names whose verdict is remembered

ALLOWED_METHODS = b"GET, POST, DELETE, OPTIONS"
ALLOWED_HEADERS: tuple[str, ...] = (
    "authorization",
    "content-type",
    "accept",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "x-api-key",
    "x-litellm-api-key",
    "traceparent",
    "tracestate",
)
_EXPOSED = (
    b"access-control-expose-headers",
    b"Mcp-Session-Id, WWW-Authenticate, MCP-Protocol-Version",
)
_VARY = (b"vary", b"Origin")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_AGE = b"600"  # seconds a browser may remember a preflight's answer


def is_loopback(host: str) -> bool:
    if host in _LOCAL_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


class Guard:
    """Host and Origin of one listening address.

    host: the address bound to. hosts: further names, with any port unless one is given.
    origins: whole origins, or `*`. proxies: networks whose X-Forwarded-Host is believed.
    """

    def __init__(
        self, host: str, hosts: Sequence[str], origins: Sequence[str], proxies: Sequence[str]
    ) -> None:
        self._bound = host.lower().strip("[]")
        bound = _address(self._bound)
        self._anywhere = bound is not None and bound.is_unspecified
        self._local = is_loopback(self._bound) or self._anywhere
        self._hosts = frozenset(name.lower() for name in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._proxies = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in proxies)
        self._seen_hosts: dict[str, bool] = {}
        self._seen_origins: dict[str, bool] = {}

    def check(self, exchange: Exchange) -> None:
        """Raises Refused (403). Adds what a browser needs to the response of an allowed origin."""
        host = self._host(exchange)
        allowed = self._seen_hosts.get(host)
        if allowed is None:
            allowed = _remember(self._seen_hosts, host, verdict=self._host_allowed(host))
        if not allowed or "host" in exchange.twice:
            raise Refused(
                403,
                RpcError(
                    INVALID_REQUEST, "this Host is not served here; `mcpgw serve --allow-host NAME`"
                ),
            )
        origin = exchange.headers.get("origin")
        if origin is None:
            return
        allowed = self._seen_origins.get(origin)
        if allowed is None:
            allowed = _remember(self._seen_origins, origin, verdict=self._origin_allowed(origin))
        if not allowed:
            raise Refused(
                403,
                RpcError(
                    INVALID_REQUEST,
                    "this Origin is not allowed; `mcpgw serve --allow-origin ORIGIN`",
                ),
            )
        exchange.extra = (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            _VARY,
            _EXPOSED,
        )

    async def preflight(self, exchange: Exchange) -> None:
        """The answer to OPTIONS of an allowed origin."""
        asked = exchange.headers.get("access-control-request-headers", "")
        names: dict[str, None] = dict.fromkeys(ALLOWED_HEADERS)
        # Mcp-Param-* are named by tools, so those that are asked for are allowed by their prefix.
        for name in (word.strip().lower() for word in asked.split(",")):
            if name.startswith("mcp-param-") and name.replace("-", "").isalnum():
                names[name] = None
        await exchange.respond(
            204,
            fields=(
                (b"allow", ALLOWED_METHODS),
                (b"access-control-allow-methods", ALLOWED_METHODS),
                (b"access-control-allow-headers", ", ".join(names).encode("latin-1")),
                (b"access-control-max-age", _MAX_AGE),
            ),
        )

    def _host(self, exchange: Exchange) -> str:
        if self._proxies and self.behind_proxy(exchange):
            forwarded = exchange.headers.get("x-forwarded-host")
            if forwarded is not None:
                return forwarded.split(",", 1)[0].strip()
        return exchange.headers.get("host", "")

    def behind_proxy(self, exchange: Exchange) -> bool:
        """Whether a trusted proxy sent this request."""
        client = exchange.scope.get("client")
        peer = _address(client[0]) if client else None
        return peer is not None and any(peer in network for network in self._proxies)

    def _host_allowed(self, header: str) -> bool:
        name = _hostname(header)
        if name is None:
            return False
        if header.lower() in self._hosts or name in self._hosts or name == self._bound:
            return True
        if self._local and is_loopback(name):
            return True
        # A literal address cannot be rebound: it needs no name that somebody else resolves.
        return self._anywhere and _address(name) is not None

    def _origin_allowed(self, origin: str) -> bool:
        lower = origin.lower()
        if lower == "null":
            return False
        if lower in self._origins or "*" in self._origins:
            return True
        scheme, _, rest = lower.partition("://")
        name = _hostname(rest)
        return scheme in ("http", "https") and name is not None and is_loopback(name)


def _remember(seen: dict[str, bool], name: str, *, verdict: bool) -> bool:
    if len(seen) >= MAX_SEEN:
        seen.clear()
    seen[name] = verdict
    return verdict


def _hostname(header: str) -> str | None:
    """The name in `name[:port]`, lower-case, without brackets; None when it is not of that form."""
    text = header.lower()
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ("" if not rest else "x")
        if not closed or _address(name) is None:
            return None
    else:
        name, _, port = text.partition(":")
    if not name or (port and not port.isdecimal()):
        return None
    return name


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

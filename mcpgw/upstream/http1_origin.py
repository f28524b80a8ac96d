"""What an origin is, and which proxy stands before it.

The environment is read as curl reads it: lower-case names win, and NO_PROXY takes host names
(with all that is below them), ports, addresses and networks.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port; `authority` is what the Host header says."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    authority: str

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Raises ValueError unless `url` is http(s)://host[:port] and nothing more."""
        parts = urlsplit(url)
        scheme = parts.scheme
        if scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an origin is http://HOST[:PORT] or https://HOST[:PORT]")
        if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("an origin has no user name, path, query or fragment")
        host = _ascii(parts.hostname)
        default = 443 if scheme == "https" else 80
        port = parts.port or default
        shown = f"[{host}]" if ":" in host else host
        authority = shown if port == default else f"{shown}:{port}"
        return cls("https" if scheme == "https" else "http", host, port, authority)

    @property
    def target(self) -> str:
        """HOST:PORT, as CONNECT wants it."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{shown}:{self.port}"

    @property
    def loopback(self) -> bool:
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        address = literal_ip(self.host)
        return address is not None and address.is_loopback


def _ascii(host: str) -> str:
    """IDNA, and nothing that could break out of a header."""
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        raise ValueError("the host name has characters that none may have")
    return host


def literal_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, if `host` is one."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy and what it wants to see as `Proxy-Authorization`."""

    origin: Origin
    authorization: str | None

    def __repr__(self) -> str:
        return f"Proxy({self.origin.target})"

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Raises ValueError for a scheme other than http and https."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        origin = Origin.parse(f"{parts.scheme}://{host or ''}:{parts.port or _port(parts.scheme)}")
        if parts.username is None:
            return cls(origin, None)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(origin, "Basic " + base64.b64encode(user.encode()).decode("ascii"))


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def find_proxy(origin: Origin, environ: Mapping[str, str]) -> Proxy | None:
    """What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say of `origin`; lower case wins.

    HTTP_PROXY does not count where a CGI request could have set it. Raises ValueError.
    """

    def said(name: str) -> str:
        lower = environ.get(name)
        if lower is not None:
            return lower
        if name == "http_proxy" and "REQUEST_METHOD" in environ:
            return ""
        return environ.get(name.upper(), "")

    url = (said(f"{origin.scheme}_proxy") or said("all_proxy")).strip()
    if not url or _exempt(origin, said("no_proxy")):
        return None
    return Proxy.parse(url)


def _exempt(origin: Origin, rules: str) -> bool:
    address = literal_ip(origin.host)
    for rule in (rule.strip().lower() for rule in rules.split(",")):
        if not rule:
            continue
        if rule == "*":
            return True
        name, port = rule, ""
        if rule.startswith("[") or rule.count(":") == 1:
            name, _, port = rule.rpartition(":") if not rule.endswith("]") else (rule, "", "")
        name = name.strip("[]").removeprefix("*")
        if port and port != str(origin.port):
            continue
        if address is not None:
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            continue
        bare = name.lstrip(".")
        host = origin.host.lower()
        if bare and (host == bare or host.endswith("." + bare)):
            return True
    return False

"""Words of a command line and what they mean: durations, pairs, URLs, and secrets that must not
stand there.

A command line is seen by every process of the machine and kept in the shell's history, so what
looks like a secret is refused, and no refusal repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import parse_qsl, urlsplit

from mcpgw.cli.io import usage
from mcpgw.store.looks import is_reference, literal_secret

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 100 * 365 * SECONDS["d"]  # a century, after which no key is anybody's

_DURATION = re.compile(r"(\d{1,9})([smhdw])")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[^=\0]+")


def duration(text: str, option: str) -> float:
    """Seconds of `90d`, `24h`, `1h30m`. Raises GatewayError (USAGE)."""
    parts = _DURATION.findall(text)
    seconds = sum(int(number) * SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not parts or seconds > LONGEST:
        usage(
            f'"{text}" is no duration.',
            why=f"{option} takes a number and a unit: 45s, 30m, 24h, 90d, 2w.",
        )
    return seconds


class Literals:
    """Refuses secrets that stand in the command that adds or changes `server`."""

    def __init__(self, server: str) -> None:
        self._server = server

    def check(self, name: str, value: str, where: str) -> None:
        """Refuse `value`. `name` tells what it is for; `where` is the option it stands in."""
        if not literal_secret(name, value):
            return
        self._refuse(where, name, f"{where} {name}=vault:{self.secret(name)}")

    def secret(self, name: str) -> str:
        """What a secret for `name` is called in the vault."""
        word = re.sub(r"[^A-Za-z0-9_.-]+", "-", name.lstrip("-")).strip("-") or "secret"
        return f"{self._server}/{word}"

    def check_command(self, command: Sequence[str]) -> None:
        """Refuse secrets among a command's arguments."""
        before = ""
        for word in command:
            option, equals, value = word.partition("=")
            if not option.startswith("-"):
                equals, value = "", word
            named = option if equals else before
            if value and literal_secret(named, value):
                name = re.sub(r"\W+", "_", (named or "secret").lstrip("-")).upper()
                self._refuse("the command", named, f"--env {name}=vault:{self.secret(name)}")
            before = word if word.startswith("-") and not equals else ""

    def _refuse(self, where: str, name: str, instead: str) -> None:
        about = f" ({name})" if name else ""
        usage(
            f"{where[:1].upper()}{where[1:]} has something that looks like a secret{about}.",
            why="Every process of this machine can read a command line, and shells keep it. "
            f"Seal the secret in the vault and write {instead} instead.",
            next=f"mcpgw secret set {instead.rpartition('vault:')[2]}",
        )


def url(text: str, literals: Literals) -> str:
    """A server's URL. Raises GatewayError (USAGE) for one that cannot or must not be used."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        usage("--url is no URL.", why="It cannot be taken apart into host and port.")
    if parts.username is not None or parts.password is not None:
        usage(
            "--url has a user name or a password in it.",
            why="Every process of this machine can read a command line, and shells keep it.",
            next="mcpgw server add NAME --url URL --auth basic  (asks for USER:PASSWORD)",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        usage(
            f'"{text}" is not the URL of an HTTP server.',
            why="It begins with http:// or https:// and names a host.",
            next="mcpgw server add NAME --url https://HOST/mcp",
        )
    if parts.fragment or text.endswith("#"):
        usage("--url has a fragment.", why="What follows # never reaches a server.")
    if re.search(r"[\x00-\x20\x7f]", text):
        usage("--url has a blank or a control character in it.", why="Write them as %20 and such.")
    for name, value in parse_qsl(parts.query):
        literals.check(name, value, "--url")
    literals.check("", text, "--url")
    return text


def loopback(text: str) -> bool:
    """Whether a URL stays on this machine."""
    host = urlsplit(text).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def network(text: str) -> str:
    """An address or a network in CIDR form. Raises GatewayError (USAGE)."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        usage(f'"{text}" is no address or network.', why="--trusted-proxy takes 10.0.0.0/8.")


def headers(pairs: Iterable[str], literals: Literals) -> dict[str, str]:
    """`K=REF|V` words as header fields."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or _HEADER.fullmatch(name) is None:
            usage("--header takes NAME=VALUE.", next="--header X-Team=platform")
        if re.search(r"[\r\n\0]", value):
            usage(f"The value of the header {name} has a line end in it.")
        if not is_reference(value):
            literals.check(name, value, "--header")
        found[name] = value
    return found


def variable(pair: str) -> tuple[str, str | None]:
    """`K=V` or `K` as a name and a value."""
    name, equals, value = pair.partition("=")
    if not name or _VARIABLE.fullmatch(name) is None or "\0" in value:
        usage("--env takes NAME=VALUE or NAME.", next="--env LOG_LEVEL=debug")
    return name, value if equals else None


def header_name(text: str) -> str:
    """A header's name. Raises GatewayError (USAGE)."""
    if _HEADER.fullmatch(text) is None:
        usage(f'"{text}" is no name of a header.')
    return text

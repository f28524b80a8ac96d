"""Words of a command line and what they mean."""

from __future__ import annotations

import pytest

from mcpgw.cli import words
from mcpgw.errors import Exit, GatewayError

LITERALS = words.Literals("github")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("24h", 86400),
        ("90d", 7776000),
        ("2w", 1209600),
        ("1h30m", 5400),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert words.duration(text, "--expires") == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "-1d", "1.5h", "90 d", "1y", "1d x", "999999999w", "9" * 5000 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(GatewayError) as caught:
        words.duration(text, "--expires")
    assert caught.value.exit is Exit.USAGE


@pytest.mark.parametrize(
    "text",
    [
        "https://mcp.example.com/mcp",
        "http://localhost:3000",
        "http://[::1]:3000/mcp?team=a%20b",
        "HTTPS://EXAMPLE.COM/",
    ],
)
def test_urls_stay_as_they_are(text: str) -> None:
    assert words.url(text, LITERALS) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/mcp",
        "ftp://example.com",
        "file:///etc/passwd",
        "http://",
        "http:///mcp",
        "https://user@example.com",
        "https://user:hunter2@example.com",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://[::1/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: evil",
        "https://example.com/?api_key=hunter2hunter2",
    ],
)
def test_urls_that_are_refused(text: str) -> None:
    with pytest.raises(GatewayError) as caught:
        words.url(text, LITERALS)
    assert caught.value.exit is Exit.USAGE
    told = f"{caught.value.what} {caught.value.why} {caught.value.next}"
    assert "hunter2" not in told


def test_a_refused_secret_comes_with_the_command_that_seals_it() -> None:
    with pytest.raises(GatewayError) as caught:
        LITERALS.check("GITHUB_TOKEN", "ghp_hunter2", "--env")
    assert caught.value.next == "mcpgw secret set github/GITHUB_TOKEN"
    assert "--env GITHUB_TOKEN=vault:github/GITHUB_TOKEN" in (caught.value.why or "")
    assert "hunter2" not in f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize(
    "command",
    [
        ["npx", "server", "--token", "hunter2"],
        ["npx", "server", "--api-key=hunter2"],
        ["server", "https://me:hunter2@example.com"],
    ],
)
def test_secrets_after_the_dashes_are_refused(command: list[str]) -> None:
    literals = words.Literals("s")
    with pytest.raises(GatewayError) as caught:
        literals.check_command(command)
    assert "hunter2" not in f"{caught.value.what} {caught.value.why} {caught.value.next}"
    assert (caught.value.next or "").startswith("mcpgw secret set s/")


@pytest.mark.parametrize(
    "command",
    [
        ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp/x"],
        ["server", "--max-tokens", "4096", "--auth", "none", "--token="],
    ],
)
def test_commands_without_secrets_pass(command: list[str]) -> None:
    LITERALS.check_command(command)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("http://localhost/", True),
        ("http://127.0.0.9:1/", True),
        ("http://[::1]/", True),
        ("http://10.0.0.1/", False),
        ("http://localhost.evil.com/", False),
    ],
)
def test_loopback(text: str, inside: bool) -> None:
    assert words.loopback(text) is inside


def test_headers() -> None:
    found = words.headers(["X-Team=a=b", "Authorization=env:T"], LITERALS)
    assert found == {"X-Team": "a=b", "Authorization": "env:T"}


@pytest.mark.parametrize("pair", ["X-Team", "=v", "X Team=v", "X-A=b\r\nX-B: c", "x-api-key=abcd"])
def test_headers_that_are_refused(pair: str) -> None:
    with pytest.raises(GatewayError):
        words.headers([pair], LITERALS)


@pytest.mark.parametrize(
    ("pair", "parts"), [("A=b=c", ("A", "b=c")), ("A=", ("A", "")), ("A", ("A", None))]
)
def test_variables(pair: str, parts: tuple[str, str | None]) -> None:
    assert words.variable(pair) == parts


def test_networks() -> None:
    assert words.network("10.0.0.1/8") == "10.0.0.0/8"
    with pytest.raises(GatewayError):
        words.network("proxy.local")

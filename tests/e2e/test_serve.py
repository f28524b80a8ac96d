"""What `mcpgw serve` refuses, warns of and keeps to itself."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import signal
import socket
import ssl
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.home import Home, Web, answering, daemon, well
from tests.e2e.wire import (
    ask,
    call,
    fields,
    initialize,
    legacy,
    modern,
    raw,
    send,
    soon,
    tools,
    until,
    until_end,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).settle()


def test_without_a_key_it_says_how_to_make_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.add("good")
    with daemon(home) as (url, child):
        soon(lambda: any("mcpgw key create NAME --grant SERVER" in line for line in child.lines))
        assert ask(url, None, "tools/list").status == 401
        secret = home.key("first", "good")
        soon(lambda: ask(url, secret, "tools/list").status == 200, 1)
        well(url, secret)


def test_without_keys_on_loopback_alone(home: Home) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "127.0.0.1.example.com", "127.evil.test", ""):
        done = home.run("serve", "--port", "0", "--no-auth", "--host", host)
        assert done.returncode == 2, host
        assert "--no-auth is refused" in done.stderr
    with home.serving("--no-auth") as url:
        well(url, None)
        # A page in a browser is not let in for all that, and a wrong key is no anonymity.
        foreign = fields(origin="https://evil.test")
        assert send(url, body=modern("tools/list"), headers=foreign).status == 403
        assert ask(url, "mcpgw_wrong", "tools/list").status == 401


def test_plain_http_beyond_loopback_is_warned_of(home: Home) -> None:
    with daemon(home, "--host", "0.0.0.0") as (url, child):
        soon(lambda: any("plain HTTP beyond loopback" in line for line in child.lines))
        port = url.rpartition(":")[2]
        well(f"http://127.0.0.1:{port}", home.secret)


def test_health_needs_no_key_and_no_host(home: Home) -> None:
    with daemon(home) as (url, child):
        for path in ("/livez", "/readyz"):
            with raw(url, f"GET {path} HTTP/1.0\r\n\r\n".encode()) as connection:
                assert b" 200 OK" in until_end(connection)
            answer = send(url, "GET", path, headers={"host": "10.1.2.3:8080", "origin": "http://x"})
            assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
        well(url, home.secret)
        with raw(url, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n") as kept:
            until(kept, b'"ok"}')
            body = modern("tools/call", name="good__slow", arguments={"seconds": 2})
            head = (
                f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {home.secret}\r\n"
                "content-type: application/json\r\nmcp-method: tools/call\r\n"
                "mcp-name: good__slow\r\nmcp-protocol-version: 2026-07-28\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            with raw(url, head.encode() + body) as calling:
                soon(lambda: home.in_flight() == 1)
                child.process.send_signal(signal.SIGTERM)
                assert b'"late"' in until(calling, b'"late"')
            with contextlib.suppress(ConnectionError):
                assert b"200 OK" not in until_end(kept)


def test_a_trusted_proxy(home: Home) -> None:
    """Its X-Forwarded-Host counts, and nobody else's."""
    headers = fields(home.secret, mcp_protocol_version="2026-07-28", mcp_method="tools/list")
    inside = {**headers, "host": "10.0.0.5", "x-forwarded-host": "tools.example.com"}
    inner = {**headers, "x-forwarded-host": "evil.test"}
    body = modern("tools/list")
    with home.serving("--allow-host", "tools.example.com") as url:
        assert send(url, body=body, headers=inside).status == 403
        assert send(url, body=body, headers=inner).status == 200  # it means nothing
    named = ("--allow-host", "tools.example.com", "--trusted-proxy", "127.0.0.0/8")
    with home.serving(*named) as url:
        assert send(url, body=body, headers=inside).status == 200
        assert send(url, body=body, headers=inner).status == 403
    done = home.run("serve", "--trusted-proxy", "everybody")
    assert done.returncode == 2
    assert "is no address or network" in done.stderr


# ---------------------------------------------------------------- TLS


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, private


def test_tls(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The official client over HTTPS; and a gateway behind a gateway, which trusts by --ca."""
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    far = Home(tmp_path_factory.mktemp("far"), {"FAR": home.secret})
    with home.serving("--tls-cert", str(cert), "--tls-key", str(key)) as url:
        assert url.startswith("https://")
        assert anyio.run(_tools_by_sdk, f"{url}/mcp", home.secret, cert) != []
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert b"HTTP/1.1 200" not in _plain(url)
        words = ("--auth", "bearer", "--secret", "env:FAR", "--url", f"{url}/mcp/good")
        far.done("server", "add", "near", *words)
        assert "is not trusted" in far.run("server", "test", "near").stdout
        far.done("server", "set", "near", "--ca", str(cert))
        said = far.done("tools", "call", "near__echo", "--arg", "text=through TLS")
        assert said.startswith("through TLS")


def _plain(url: str) -> bytes:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return until_end(connection)


async def _tools_by_sdk(url: str, key: str, cert: Path) -> list[str]:
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"authorization": f"Bearer {key}"}
    context = ssl.create_default_context(cafile=str(cert))
    async with (
        httpx2.AsyncClient(headers=headers, verify=context) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        return [tool.name for tool in (await client.list_tools()).tools]


def test_tls_that_cannot_work(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = certificate(folder)
    junk, other = folder / "junk.pem", tmp_path_factory.mktemp("other")
    junk.write_text("nothing")
    _, foreign = certificate(other)
    for options in (
        ("--tls-cert", str(cert)),
        ("--tls-cert", str(cert), "--tls-key", str(junk)),
        ("--tls-cert", str(junk), "--tls-key", str(key)),
        ("--tls-cert", str(cert), "--tls-key", str(foreign)),
        ("--tls-cert", str(folder), "--tls-key", str(key)),
        ("--tls-cert", "/no/such/file", "--tls-key", str(key)),
    ):
        done = home.run("serve", "--port", "0", *options)
        assert done.returncode in (2, 3), options
        assert done.stderr.startswith("error: ")
        assert "PRIVATE" not in done.stderr


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "https://user:hunter2hunter2@example.com/mcp"),
        ("--url", "https://example.com/mcp?api_key=hunter2hunter2"),
        ("--url", "https://example.com/mcp", "--header", "Authorization=Bearer hunter2hunter2"),
        ("--url", "https://example.com/mcp", "--header", "X-Token=hunter2hunter2"),
        ("--url", "https://example.com/mcp", "--auth", "bearer", "--secret", "hunter2hunter2"),
        ("--env", "GITHUB_TOKEN=hunter2hunter2", "--", "server"),
        ("--", "server", "--api-key", "hunter2hunter2"),
        ("--", "server", "--token=hunter2hunter2"),
        ("--", "server", "ghp_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(home: Home, words: tuple[str, ...]) -> None:
    done = home.run("server", "add", "x", *words)
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert "ghp_aBc" not in done.stdout + done.stderr
    assert "next: mcpgw " in done.stderr
    assert home.run("server", "show", "x").returncode == 3


def test_secrets_are_nowhere(home: Home, tmp_path: Path) -> None:
    """Not in logs, listings, errors, the store's files or its record of changes."""
    file = tmp_path / "token.txt"
    file.write_text("f1le-secret-value\n")
    planted = {
        "ENV": "env-secret-value",
        "HEAD": "head3r-secret-value",
        "VAULT": "vau1t-secret-value",
    }
    home.environment.update(planted, MCPGW_LOG="debug")
    outputs = list[str]()
    with Web(repeating) as web:
        home.done(
            *("server", "add", "rude", "--url", web.url, "--auth", "bearer"),
            *("--secret", "env:ENV", "--header", "X-Own=env:HEAD"),
        )
        words = ("--auth", "api-key", "--secret", f"file:{file}")
        home.done("server", "add", "filed", "--url", web.url, *words)
        home.add("child", options=("--env", "VAULT"))
        with daemon(home, "--log-format", "json") as (url, child):
            outputs += [_everything(url, home.secret), *_told(home)]
            wrong = "mcpgw_wr0ng-key-that-nobody-has"
            outputs.append(str(ask(url, wrong, "tools/list")))
            send(url, path=f"/mcp/{wrong}?key={home.secret}", headers=fields(home.secret))
            done = home.told("key", "rotate", "all")["keys"][0]["secret"]
            soon(lambda: ask(url, done, "tools/list").status == 200, 2)
            assert json.loads(call(url, done, "child__env").text)["VAULT"] == planted["VAULT"]
            assert planted["HEAD"] in [seen.get("x-own") for seen in web.seen]
        outputs += child.lines
    secrets = [*planted.values(), "f1le-secret-value", home.secret, done]
    secrets += [home.environment["MCPGW_MASTER_KEY"], "wr0ng-key"]
    for secret in secrets:
        assert not [text for text in outputs if secret in text], secret
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != file:
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


def repeating(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """A server that says which credential it did not like."""
    shown = [handler.headers.get(name) for name in ("authorization", "x-api-key", "x-own")]
    error = {"code": -32000, "message": f"no good: {shown}"}
    answer = answering(400, json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode())
    answer(handler, b"")


def _everything(url: str, key: str) -> str:
    """What a client is told while most goes wrong."""
    told: list[Any] = [ask(url, key, "tools/list"), ask(url, key, "prompts/list")]
    told += [call(url, key, name) for name in ("rude__x", "filed__x", "child__crash", "good__no")]
    session, answer = initialize(url, key)
    headers = fields(key, mcp_session_id=session)
    told += [answer, send(url, body=legacy("tools/call", name="rude__x"), headers=headers)]
    told.append(tools(url, key))
    return str(told)


def _told(home: Home) -> list[str]:
    """What the commands say, for people and for programs."""
    found = list[str]()
    for words in (
        ("status",),
        ("server", "list"),
        ("server", "show", "rude"),
        ("server", "show", "child"),
        ("server", "test"),
        ("server", "test", "rude"),
        ("key", "list"),
        ("key", "show", "all"),
        ("secret", "list"),
        ("tools", "list"),
        ("tools", "test"),
        ("tools", "call", "rude/x"),
        ("store", "changes"),
    ):
        for more in ((), ("--json",)):
            done = home.run(*words, *more)
            assert "Traceback" not in done.stderr
            found.append(done.stdout + done.stderr)
    return found

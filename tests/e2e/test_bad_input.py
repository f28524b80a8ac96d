"""Bad requests, bad keys and a bad place for the store: a clear answer, and nothing is lost.

Real processes and real sockets. After each fault the store and the good server still work.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children import gateway
from tests.e2e.gateway import PATIENCE, SERVES, Child
from tests.e2e.home import Home, well
from tests.e2e.wire import ask, fields, initialize, modern, raw, send, soon, until

pytestmark = pytest.mark.slow

AT_ONCE = 0.5  # seconds until a change of the store holds


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path).settle()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    """One running gateway for tests that change nothing."""
    home = Home(tmp_path_factory.mktemp("shared")).settle()
    with home.serving() as url:
        yield home, url


# ---------------------------------------------------------------- JSON


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"good__echo","arguments":'
JUNK: dict[str, tuple[bytes, int, int]] = {
    "cut off": (b'{"jsonrpc": "2.0", "id": 1,', 400, -32700),
    "empty": (b"", 400, -32700),
    "no object": (b'"hello"', 400, -32600),
    "deep": (CALL + deep(5000) + b"}}", 400, -32700),
    "deep batch": (deep(100_000), 400, -32700),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', 400, -32700),
    "UTF-16": ('{"jsonrpc":"2.0","id":1,"method":"x"}'.encode("utf-16"), 400, -32700),
    "too large": (b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (4 << 20) + b'"}', 413, -32600),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', 400, -32700),
    "null id": (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', 400, -32600),
    "endless batch": (b"[" + b"{}," * 1_300_000 + b"{}]", 400, -32600),
    "endless batch of nothing": (b"[" + b"0," * 2_000_000 + b"0]", 400, -32600),
}


@pytest.mark.parametrize("kind", JUNK)
def test_bad_json_over_http(shared: tuple[Home, str], kind: str) -> None:
    home, url = shared
    body, status, code = JUNK[kind]
    session, _ = initialize(url, home.secret, "2025-03-26")
    headers = fields(home.secret, mcp_session_id=session)
    began = time.monotonic()
    answer = send(url, body=body, headers=headers)
    assert time.monotonic() - began < 1
    assert (answer.status, answer.error["code"]) == (status, code)
    well(url, home.secret)


def test_a_body_is_counted_as_it_streams(shared: tuple[Home, str]) -> None:
    home, url = shared
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {home.secret}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    with raw(url, head.encode()) as connection:
        for _ in range(65):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert b"HTTP/1.1 413" in until(connection, b"\r\n\r\n")  # before the body's end
    well(url, home.secret)


def test_duplicate_keys_mean_one_thing(shared: tuple[Home, str]) -> None:
    """What is decided on is what is sent on: the envelope is written anew."""
    home, url = shared
    key = home.key("narrow", "good/counts")
    soon(lambda: ask(url, key, "tools/list").status == 200)
    session, _ = initialize(url, key)
    headers = fields(key, mcp_session_id=session)
    twice = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%s,"name":%s}}'
    for first, second in ((b"good__echo", b"good__counts"), (b"good__counts", b"good__echo")):
        body = twice % (b'"%s"' % first, b'"%s"' % second)
        answer = send(url, body=body, headers=headers)
        if "result" in answer.message:
            assert "tools/call" in answer.text  # it was `counts`
        else:
            assert answer.error["message"] == "Unknown tool: good__echo"
    well(url, home.secret)


def test_bad_json_over_stdio(home: Home) -> None:
    process = subprocess.Popen(
        gateway("stdio"),
        env=home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for kind, (body, _, code) in JUNK.items():
            if not body or b"\n" in body:
                continue  # no line, or two
            process.stdin.write(body + b"\n")
            process.stdin.flush()
            error = json.loads(process.stdout.readline())["error"]
            assert error["code"] in (code, -32600 if "batch" in kind else code), kind
        process.stdin.write(modern("tools/call", 7, name="good__echo", arguments={"text": "x"}))
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["content"][0]["text"] == "x"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == b""
    home.unharmed()


# ---------------------------------------------------------------- keys


def test_a_key_that_is_wrong(shared: tuple[Home, str]) -> None:
    home, url = shared
    key = home.secret
    flipped = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in (None, "", "x", flipped, key[:-1], key.upper(), "mcpgw_" + "x" * 9000):
        answer = ask(url, wrong, "tools/list")
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert key[:12] not in answer.body.decode()
    well(url, key)


def streams(url: str, key: str) -> Iterator[socket.socket]:
    """A legacy GET stream, an HTTP+SSE stream and a modern listen, each open in its turn."""
    session, _ = initialize(url, key)
    head = f"host: localhost\r\nauthorization: Bearer {key}\r\naccept: text/event-stream"
    get = f"GET /mcp HTTP/1.1\r\n{head}\r\nmcp-session-id: {session}\r\n\r\n"
    old = f"GET /sse HTTP/1.1\r\n{head}\r\n\r\n"
    body = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    listen = (
        f"POST /mcp HTTP/1.1\r\n{head}, application/json\r\n"
        "content-type: application/json\r\nmcp-protocol-version: 2026-07-28\r\n"
        f"mcp-method: subscriptions/listen\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    for data in (get.encode(), old.encode(), listen.encode() + body):
        with raw(url, data) as connection:
            until(connection, b"\r\n\r\n")
            yield connection.dup()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_key_that_ends_while_streams_are_open(home: Home, how: str) -> None:
    words = ("--expires", "4s") if how == "expired" else ()
    made = time.time()
    [created] = home.told("key", "create", "brief", "--grant", "*", *words)["keys"]
    key = created["secret"]
    with home.serving() as url, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection) for connection in streams(url, key)]
        assert len(opened) == 3
        if how == "revoked":
            home.done("key", "revoke", "brief", "--yes")
            ended, within = time.monotonic(), AT_ONCE
        else:
            ended, within = time.monotonic() + made + 4 - time.time(), 2.5
        for connection in opened:
            connection.settimeout(10)
            until(connection, b"0\r\n\r\n")  # the last chunk
        assert time.monotonic() - ended < within
        assert ask(url, key, "tools/list").status == 401
        well(url, home.secret)


# ---------------------------------------------------------------- Host and Origin


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "evil.test"),
        ("host", "localhost.evil.test:8765"),
        ("host", "127.0.0.1@evil.test"),
        ("host", ""),
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("origin", "http://localhost.evil.test"),
        ("origin", "file://"),
    ],
)
def test_a_foreign_host_or_origin(shared: tuple[Home, str], name: str, value: str) -> None:
    home, url = shared
    headers = fields(home.secret, mcp_protocol_version="2026-07-28", mcp_method="tools/list")
    answer = send(url, body=modern("tools/list"), headers={**headers, name: value})
    assert answer.status == 403
    assert "--allow-" in answer.error["message"]
    assert "access-control-allow-origin" not in answer.headers
    assert send(url, "GET", "/livez", headers={"host": "10.0.0.9:8765"}).status == 200
    well(url, home.secret)


# ---------------------------------------------------------------- the store and the port


def short_of_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def without_privileges() -> None:
    """File modes hold for root as well."""
    if os.geteuid() == 0:
        import ctypes

        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


def test_a_full_disk(home: Home) -> None:
    before = home.told("server", "list")
    for words in (
        ("server", "add", "x", "--url", "https://example.com/mcp"),
        ("key", "create", "x", "--grant", "*"),
        ("server", "remove", "good", "--yes"),
        ("store", "backup", str(home.folder / "copy.db")),
    ):
        status, error = home.limited(short_of_room, *words)
        assert status in (1, 4)
        assert error["code"] in ("store_full", "store_unreadable")
        assert error["next"]
    assert not (home.folder / "copy.db").exists()
    assert home.told("server", "list") == before
    home.unharmed()
    home.done("server", "add", "x", "--url", "https://example.com/mcp")


@pytest.mark.skipif(sys.platform != "linux", reason="takes capabilities from root")
def test_a_read_only_store(home: Home) -> None:
    before = home.told("server", "list")
    for path in home.folder.glob("mcpgw.db*"):
        path.chmod(0o400)
    home.folder.chmod(0o500)
    try:
        status, error = home.limited(without_privileges, "key", "create", "x")
        assert (status, error["code"]) == (4, "store_readonly")
        assert home.limited(without_privileges, "server", "list")[0] == 0
        assert home.limited(without_privileges, "tools", "call", "good__echo")[0] == 0
    finally:
        home.folder.chmod(0o700)
        (home.folder / "mcpgw.db").chmod(0o600)
    assert home.told("server", "list") == before
    home.unharmed()


def test_a_damaged_store(home: Home) -> None:
    """A daemon goes on with what it knew; a command says what is wrong and changes nothing."""
    store = home.folder / "mcpgw.db"
    with home.serving() as url:
        well(url, home.secret)
        content = store.read_bytes()
        store.write_bytes(b"not a database at all" * 100)
        done = home.run("server", "list", "--json")
        assert json.loads(done.stderr)["error"]["code"] == "store_damaged"
        assert store.read_bytes() == b"not a database at all" * 100
        well(url, home.secret)
        store.write_bytes(content)
    home.unharmed()


def test_the_port_is_taken(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = home.run("serve", "--port", str(port))
    assert done.returncode == 5
    assert f"Cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert f"mcpgw serve --port {port + 1}" in done.stderr
    home.unharmed()


def test_a_second_daemon_on_the_same_store(home: Home) -> None:
    with home.serving() as url:
        done = home.run("serve", "--port", "0")
        assert done.returncode == 5
        assert "Another mcpgw serves this store already" in done.stderr
        well(url, home.secret)
        home.unharmed()
    assert not list(home.folder.glob("*.sock"))


def test_many_daemons_started_at_once(home: Home) -> None:
    """One of them serves, however close they start."""
    started = [
        Child(gateway("serve", "--port", "0"), env=home.environment, cwd=home.folder)
        for _ in range(4)
    ]
    try:
        soon(lambda: sum(one.process.poll() is not None for one in started) == 3)
        [left] = [one for one in started if one.process.poll() is None]
        url = left.says(SERVES).removeprefix(SERVES).strip().removesuffix("/mcp")
        well(url, home.secret)
        assert home.told("status")["address"] == url
        assert all(one.process.returncode == 5 for one in started if one is not left)
    finally:
        for one in started:
            one.end()


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_files_are_private(home: Home) -> None:
    with home.serving():
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.folder.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
    assert "mcpgw.db.sock" in modes


def test_a_key_that_ends_while_its_stdio_runs(home: Home) -> None:
    """Also where mcpgw itself is the gateway: grants hold at once, and a revoked key ends it."""
    home.key("brief", "good/counts")
    process = subprocess.Popen(
        gateway("stdio", "--key", "brief"),
        env=home.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    ids = itertools.count(1)
    with process:

        def called() -> bool:
            line = modern("tools/call", next(ids), name="good__echo", arguments={"text": "x"})
            stdin.write(line + b"\n")
            stdin.flush()
            return "result" in json.loads(stdout.readline())

        assert not called()
        home.done("key", "grant", "brief", "good/echo")
        soon(called, 2)
        home.done("key", "revoke", "brief", "--yes")
        assert process.wait(5) == 4
        assert b"The key may no longer be used." in stderr.read()
    home.unharmed()

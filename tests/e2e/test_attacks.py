"""Clients and servers that mean harm, against a real gateway: none gets what is not theirs."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.home import Home, Web, daemon, well
from tests.e2e.wire import (
    ask,
    call,
    fields,
    initialize,
    legacy,
    modern,
    raw,
    send,
    tools,
    until,
    until_end,
)

pytestmark = pytest.mark.slow

SECRET = "sw0rdfish-value"
NOTHING = b"HTTP/1.1 4"  # how every refusal begins


class Place(Home):
    """Two servers, and a key for one of them."""

    url: str
    narrow: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One running gateway for tests that change nothing."""
    place = Place(tmp_path_factory.mktemp("place"), {"UPSTREAM": SECRET})
    place.settle()
    place.add("other", options=("--env", "TOKEN=env:UPSTREAM"))
    place.narrow = place.key("narrow", "good")
    with place.serving() as url:
        place.url = url
        yield place


# ---------------------------------------------------------------- whose it is


def test_a_session_is_its_own_keys(place: Place) -> None:
    session, _ = initialize(place.url, place.secret)
    stolen = fields(place.narrow, mcp_session_id=session)
    for method in ("POST", "GET", "DELETE"):
        body = legacy("tools/list") if method == "POST" else b""
        assert send(place.url, method, body=body, headers=stolen).status == 404
    mine = fields(place.secret, mcp_session_id=session)
    for elsewhere in ("/mcp/good", "/good/mcp"):
        assert send(place.url, path=elsewhere, body=legacy("ping"), headers=mine).status == 404
    assert send(place.url, body=legacy("ping"), headers=mine).status == 200


def test_an_event_stream_is_its_own_keys(place: Place) -> None:
    head = f"GET /sse HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {place.secret}\r\n\r\n"
    with raw(place.url, head.encode()) as stream:
        told = until(stream, b"\n\n")
        where = told.partition(b"data: ")[2].split(b"\n")[0].decode().strip()
        body = legacy("ping")
        assert send(place.url, path=where, body=body, headers=fields(place.narrow)).status == 404
        assert send(place.url, path=where, body=body, headers=fields()).status == 401
        assert send(place.url, path=where, body=body, headers=fields(place.secret)).status == 202
        until(stream, b'"result":{}')


def test_what_a_key_was_not_granted_is_not_there(place: Place) -> None:
    """By no spelling of its name or its address, and in the words of what does not exist."""
    absent = call(place.url, place.narrow, "nobody__echo").error
    denied = call(place.url, place.narrow, "other__echo").error
    assert denied == {**absent, "message": "Unknown tool: other__echo"}
    for name in ("OTHER__echo", "other__ECHO", "good__../other__echo", "other/echo"):
        assert call(place.url, place.narrow, name).error["message"].startswith("Unknown tool")
    gone = ask(place.url, place.narrow, "tools/list", "/mcp/nobody")
    for path in (
        "/mcp/other",
        "/other/mcp",
        "/mcp/OTHER",
        "/mcp/%6fther",
        "/mcp//other",
        "/mcp/good/../other",
        "/mcp/good%2f..%2fother",
        "/mcp/other/",
        "//other/mcp",
        "/mcp/other%00",
        "/mcp/other;x",
    ):
        answer = ask(place.url, place.narrow, "tools/list", path)
        assert (answer.status, answer.body) == (404, gone.body), path
    assert all(name.startswith("good__") for name in tools(place.url, place.narrow))


def test_the_private_door_stays_private(place: Place) -> None:
    """Neither its address nor its header means anything on the network."""
    acting = fields(place.narrow, mcpgw_act_as="all")
    headers = {**acting, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    listed = send(place.url, body=modern("tools/list"), headers=headers).result["tools"]
    assert all(tool["name"].startswith("good__") for tool in listed)
    del acting["authorization"]
    assert send(place.url, body=modern("tools/list"), headers=acting).status == 401
    for path in ("/status", "//status", "/STATUS", "/%73tatus", "/mcp/../status", "/status/"):
        answer = send(place.url, "GET", path, headers=fields(place.secret))
        assert answer.status == 404
        assert b"generation" not in answer.body
        assert send(place.url, "GET", path).status in (401, 404)


def test_two_keys_in_one_request_are_none(place: Place) -> None:
    answer = send(
        place.url,
        body=modern("tools/list"),
        headers=fields(place.narrow, x_api_key=place.secret),
    )
    assert answer.status == 401


# ---------------------------------------------------------------- bytes

KEYED = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SMUGGLED = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: 5 5",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "transfer-encoding:\x0bchunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "x: y\ntransfer-encoding: chunked",
        " folded: x\r\ncontent-length: 5",
    ],
)
def test_a_request_is_one_request(place: Place, framing: str) -> None:
    """What two readers could frame differently is refused, and the connection closed."""
    head = f"{KEYED}authorization: Bearer {place.secret}\r\n{framing}\r\n\r\n"
    with raw(place.url, head.encode() + b"0\r\n\r\n" + SMUGGLED) as connection:
        answers = until_end(connection)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(NOTHING)
    well(place.url, place.secret)


def test_heads_are_bounded(place: Place) -> None:
    for head in (
        b"GET /livez HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"x: a\r\n" * 40_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"A" * 200_000,
    ):
        with raw(place.url) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head)
            assert b"HTTP/1.1 200" not in until_end(connection)
    well(place.url, place.secret)


def test_what_cannot_be_sent_on_is_not(place: Place) -> None:
    """Control characters in names reach no header, no log line and no terminal as they are."""
    evil = "good__a\r\nx-evil: 1\r\n\r\n\x1b[2J"
    session, _ = initialize(place.url, place.secret)
    headers = fields(place.secret, mcp_session_id=session)
    for method, params in (
        ("tools/call", {"name": evil}),
        ("prompts/get", {"name": evil}),
        ("resources/read", {"uri": evil}),
        (evil, {}),
    ):
        answer = send(place.url, body=legacy(method, **params), headers=headers)
        assert "x-evil" not in answer.headers
        assert answer.message["error"]["code"] in (-32602, -32601, -32002)
    done = place.run("tools", "call", evil)
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_a_slow_client_holds_up_nobody(place: Place) -> None:
    """Fifty connections that never finish their request, and one that never reads its answer."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(raw(place.url, b"POST /mcp HTTP/1.1\r\nhost: loc"))
        body = modern("tools/call", name="good__big", arguments={"size": 8_000_000})
        head = (
            f"{KEYED}authorization: Bearer {place.secret}\r\nmcp-method: tools/call\r\n"
            "mcp-protocol-version: 2026-07-28\r\nmcp-name: good__big\r\n"
            f"accept: application/json, text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        stack.enter_context(raw(place.url, head.encode() + body))
        for _ in range(5):
            began = time.monotonic()
            well(place.url, place.secret)
            assert time.monotonic() - began < 1


def test_many_subscriptions_of_one_client(place: Place) -> None:
    uris = [f"a:{n}" for n in range(200_000)]
    body = modern("subscriptions/listen", notifications={"resourceSubscriptions": uris})
    head = (
        f"{KEYED}authorization: Bearer {place.secret}\r\nmcp-method: subscriptions/listen\r\n"
        "mcp-protocol-version: 2026-07-28\r\naccept: application/json, text/event-stream\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with raw(place.url, head.encode() + body):
        for _ in range(3):
            began = time.monotonic()
            well(place.url, place.secret)
            assert time.monotonic() - began < 2


# ---------------------------------------------------------------- servers that mean harm


def test_a_child_sees_nothing_of_others(place: Place) -> None:
    env = json.loads(call(place.url, place.secret, "good__env").text)
    assert not [name for name in env if name.startswith("MCPGW") or name in ("UPSTREAM", "TOKEN")]
    assert SECRET not in json.dumps(env)
    assert json.loads(call(place.url, place.secret, "other__env").text)["TOKEN"] == SECRET


def scripted(tool: dict[str, Any], count: int = 1) -> Any:
    """A modern server that offers `count` tools made from one."""

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        if asked["method"] == "server/discover":
            result: dict[str, Any] = {
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
            }
        elif asked["method"] == "tools/list":
            result = {"tools": [tool] * count}
        else:
            result = {"content": [{"type": "text", "text": "done"}]}
        told = {"resultType": "complete", "ttlMs": 60000, "cacheScope": "private", **result}
        text = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": told}).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    return answer


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {"UPSTREAM": SECRET}).settle()


def test_a_tools_name_cannot_write_headers(home: Home) -> None:
    name = "a\r\nx-evil: 1\r\n\r\nPOST /mcp HTTP/1.1"
    with Web(scripted({"name": name, "inputSchema": {"type": "object"}})) as web:
        home.done("server", "add", "evil", "--url", web.url)
        with daemon(home) as (url, child):
            [public] = [tool for tool in tools(url, home.secret) if tool.startswith("evil__")]
            assert public.replace("_", "").replace("-", "").isalnum()
            assert call(url, home.secret, public).text == "done"
            assert all("x-evil" not in seen for seen in web.seen)
            assert web.seen[-1]["mcp-name"].startswith("=?base64?")
            well(url, home.secret)
        assert not [line for line in child.lines if line.startswith(("x-evil", "POST"))]


def test_an_endless_list_is_cut(home: Home) -> None:
    """A server that offers a million tools holds up nobody."""
    with Web(scripted({}, 1_000_000)) as web:
        home.done("server", "add", "evil", "--url", web.url)
        with daemon(home) as (url, child):
            well(url, home.secret)
            worst = 0.0
            with raw(url) as asking:
                body = modern("tools/list")
                head = (
                    f"{KEYED}authorization: Bearer {home.secret}\r\nmcp-method: tools/list\r\n"
                    f"mcp-protocol-version: 2026-07-28\r\ncontent-length: {len(body)}\r\n\r\n"
                )
                asking.sendall(head.encode() + body)
                while not select.select([asking], [], [], 0.02)[0]:
                    began = time.monotonic()
                    assert send(url, "GET", "/livez").status == 200
                    worst = max(worst, time.monotonic() - began)
                asking.settimeout(1)
                assert b"good__echo" in until(asking, b"good__echo")
            assert worst < 1.5
            well(url, home.secret)
            assert len(child.lines) < 100


def test_a_server_that_quotes_log_lines_writes_none(home: Home) -> None:
    script = home.folder / "liar.py"
    script.write_text(
        "import sys\n"
        "sys.stderr.write('ok\\r2026-01-01 00:00:00,000 INFO mcpgw: \\x1b[2Jfine\\n')\n"
        "print('junk\\r2026-01-01 INFO mcpgw: fine', flush=True)\n"
        "sys.exit('gone')\n"
    )
    home.done("server", "add", "liar", "--", sys.executable, str(script))
    with daemon(home) as (url, child):
        assert "error" in call(url, home.secret, "liar__x").message
        well(url, home.secret)
    log = "".join(child.lines)
    assert "fine" in log
    assert "\x1b" not in log
    assert "\r" not in log
    assert not [line for line in child.lines if line.startswith("2026-01-01")]


def test_the_port_is_not_shared_with_a_thief(place: Place) -> None:
    """Another process cannot listen beside the gateway and take some of its clients."""
    port = int(place.url.rpartition(":")[2])
    for option in (socket.SO_REUSEADDR, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)):
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, option, 1)
            with pytest.raises(OSError, match=r"[Aa]ddress"):
                thief.bind(("127.0.0.1", port))

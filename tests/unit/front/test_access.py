"""Who gets in: keys, Host, Origin, addresses, sizes, times, health, the private socket."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from mcpgw.front.http import Connection
from mcpgw.model.calls import Done
from mcpgw.model.config import Target
from tests.doubles import FixedConfig, ScriptedHandler, key, obj, server, snapshot
from tests.unit.front.rig import ALICE, BOB, Response, front, mirrored, modern

pytestmark = pytest.mark.anyio

LISTED = Done(obj(tools=[], ttlMs=0, cacheScope="private"))
BODY = modern("tools/list")


def listing() -> ScriptedHandler:
    return ScriptedHandler({"tools/list": LISTED})


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({"authorization": "Bearer mcpgw_alice"}, "alice"),
        ({"authorization": "bearer mcpgw_alice"}, "alice"),
        ({"x-api-key": "mcpgw_bob"}, "bob"),
        ({"x-litellm-api-key": "Bearer mcpgw_bob"}, "bob"),
        ({"x-api-key": "mcpgw_bob", "authorization": "Bearer mcpgw_bob"}, "bob"),
        ({"x-api-key": "mcpgw_bob", "authorization": "Bearer theirs"}, "bob"),
        ({"x-api-key": "mcpgw_bob", "authorization": "Basic abc"}, "bob"),
        ({}, None),
        ({"authorization": "Bearer nonsense"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "mcpgw_nobody"}, None),
        ({"x-api-key": "mcpgw_bob", "authorization": "Bearer mcpgw_alice"}, None),
        ({"x-api-key": "mcpgw_bob", "authorization": "Bearer mcpgw_old"}, None),
        ({"x-api-key": "mcpgw_old"}, None),
        ({"mcpgw-act-as": "alice"}, None),
    ],
)
async def test_keys(headers: dict[str, str], who: str | None) -> None:
    old = key("old", Target("*"), expires=time.time() - 1)
    config = FixedConfig(snapshot(server("github"), principals=(ALICE, BOB, old)))
    handler = listing()
    async with front(handler, config=config) as here:
        peer = await here.peer(None)
        answer = await peer.ask("POST", "/mcp", BODY, {**mirrored(BODY), **headers})
    if who is None:
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json["id"] is None
        assert not handler.calls
    else:
        assert answer.status == 200
        (call,) = handler.calls
        assert call.ctx.principal.name == who
        assert "mcpgw_" not in str(call.ctx.headers)
        kept = headers.get("authorization", "")
        if "theirs" in kept or "Basic" in kept:
            assert call.ctx.headers["authorization"] == kept


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({}, "anonymous"),
        ({"authorization": "Bearer mcpgw_alice"}, "alice"),
        ({"authorization": "Bearer mcpgw_nobody"}, None),
        ({"x-api-key": "nonsense"}, None),
    ],
)
async def test_no_auth_lets_anybody_in_but_no_wrong_key(
    headers: dict[str, str], who: str | None
) -> None:
    handler = listing()
    async with front(handler, no_auth=True) as here:
        peer = await here.peer(None)
        answer = await peer.ask("POST", "/mcp", BODY, {**mirrored(BODY), **headers})
    assert answer.status == (200 if who else 401)
    assert [call.ctx.principal.name for call in handler.calls] == ([who] if who else [])


async def test_a_key_in_the_query_is_no_key() -> None:
    async with front(listing()) as here:
        peer = await here.peer(None)
        for name in ("key", "api_key", "access_token"):
            path = f"/mcp?{name}=mcpgw_alice"
            assert (await peer.ask("POST", path, BODY, mirrored(BODY))).status == 401


@pytest.mark.parametrize(
    ("host", "bound", "status"),
    [
        ("localhost", "127.0.0.1", 200),
        ("LOCALHOST:1234", "127.0.0.1", 200),
        ("127.0.0.1:8765", "127.0.0.1", 200),
        ("127.0.0.9", "127.0.0.1", 200),
        ("[::1]:1", "127.0.0.1", 200),
        ("named.example", "127.0.0.1", 200),
        ("named.example:99", "127.0.0.1", 200),
        ("evil.example", "127.0.0.1", 403),
        ("localhost.evil.example", "127.0.0.1", 403),
        ("127.0.0.1.evil.example", "127.0.0.1", 403),
        ("localhost:x", "127.0.0.1", 403),
        ("[::1", "127.0.0.1", 403),
        ("", "127.0.0.1", 403),
        (None, "127.0.0.1", 403),
        ("10.0.0.5", "127.0.0.1", 403),
        ("10.0.0.5", "10.0.0.5", 200),
        ("localhost", "10.0.0.5", 403),
        ("10.0.0.7:80", "0.0.0.0", 200),
        ("localhost", "0.0.0.0", 200),
        ("evil.example", "0.0.0.0", 403),
    ],
)
async def test_hosts(host: str | None, bound: str, status: int) -> None:
    async with front(listing(), host=bound, allow_hosts=("named.example",)) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", BODY, {**mirrored(BODY), "host": host})
    assert answer.status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://[::1]:80", 200),
        ("https://app.example", 200),
        ("http://app.example", 403),
        ("https://app.example.evil", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("http://localhost.evil.example", 403),
    ],
)
async def test_origins(origin: str, status: int) -> None:
    async with front(listing(), allow_origins=("https://app.example",)) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", BODY, {**mirrored(BODY), "origin": origin})
        assert answer.status == status
        assert answer.headers.get("access-control-allow-origin") == (
            origin if status == 200 else None
        )
        refused = await peer.ask("POST", "/mcp", BODY, {"origin": origin, "authorization": None})
        assert refused.status == (401 if status == 200 else 403)
        assert ("access-control-expose-headers" in refused.headers) == (status == 200)


async def test_an_opaque_origin_is_refused_even_where_all_are_allowed() -> None:
    async with front(listing(), allow_origins=("*",)) as here:
        peer = await here.peer()
        for origin, status in (("https://any.example", 200), ("null", 403)):
            sent = {**mirrored(BODY), "origin": origin}
            assert (await peer.ask("POST", "/mcp", BODY, sent)).status == status


async def test_preflight() -> None:
    async with front(listing()) as here:
        peer = await here.peer(None)
        asked: dict[str, str | None] = {
            "origin": "http://localhost:5173",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, mcp-param-region, x-evil",
        }
        answer = await peer.ask("OPTIONS", "/mcp", headers=asked)
        assert answer.status == 204
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        for name in ("authorization", "mcp-method", "last-event-id", "mcp-param-region"):
            assert name in allowed
        assert "x-evil" not in allowed
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        asked["origin"] = "https://evil.example"
        assert (await peer.ask("OPTIONS", "/mcp", headers=asked)).status == 403


async def test_forwarded_hosts_are_believed_from_trusted_proxies_only() -> None:
    fields = {**mirrored(BODY), "x-forwarded-host": "public.example"}
    for proxies, host, status in (
        ((), "public.example", 403),
        (("127.0.0.0/8",), "inner", 200),
        (("10.0.0.0/8",), "inner", 403),
    ):
        async with front(
            listing(), allow_hosts=("public.example",), trusted_proxies=proxies
        ) as here:
            peer = await here.peer()
            sent = {**fields, "host": host}
            if not proxies:
                sent = {**sent, "host": "inner", "x-forwarded-host": host}
            assert (await peer.ask("POST", "/mcp", BODY, sent)).status == status


@pytest.mark.parametrize(
    ("path", "who", "status", "servers"),
    [
        ("/mcp", "bob", 200, None),
        ("/mcp/", "bob", 200, None),
        ("/mcp/github", "bob", 200, {"id-github"}),
        ("/mcp/GitHub", "bob", 200, {"id-github"}),
        ("/github/mcp", "bob", 200, {"id-github"}),
        ("/mcp/jira", "bob", 404, None),
        ("/mcp/nobody", "bob", 404, None),
        ("/nobody/mcp", "alice", 404, None),
        ("/mcp/jira", "alice", 200, {"id-jira"}),
        ("/mcp/a/b/c", "alice", 404, None),
        ("/", "alice", 404, None),
        ("/status", "alice", 404, None),
        ("/favicon.ico", "alice", 404, None),
    ],
)
async def test_addresses(path: str, who: str, status: int, servers: set[str] | None) -> None:
    handler = listing()
    async with front(handler) as here:
        peer = await here.peer(who)
        answer = await peer.ask("POST", path, BODY, mirrored(BODY))
    assert answer.status == status
    if status == 200:
        endpoint = handler.calls[0].ctx.endpoint
        assert endpoint.servers == servers
        assert endpoint.native == (servers is not None)
    else:
        assert answer.json["error"]["message"] == "there is nothing at this address"


async def test_health_needs_neither_key_nor_host() -> None:
    async with front(listing()) as here:
        peer = await here.peer(None, host="10.1.2.3")
        assert (await peer.ask("GET", "/livez")).status == 200
        assert (await peer.ask("GET", "/readyz")).status == 200
        await here.app.drain()
        assert (await peer.ask("GET", "/livez")).status == 200
        assert (await peer.ask("GET", "/readyz")).status == 503


async def test_the_private_socket(tmp_path: Path) -> None:
    handler = listing()
    async with front(handler, door=str(tmp_path / "door.sock")) as here:
        peer = await here.peer(None)
        assert (await peer.ask("GET", "/status")).json == {"pid": 1}
        for act_as, who in ((None, "owner"), ("bob", "bob"), ("nobody", None)):
            answer = await peer.ask(
                "POST", "/mcp", BODY, {**mirrored(BODY), "mcpgw-act-as": act_as}
            )
            assert answer.status == (200 if who else 401)
    assert [call.ctx.principal.name for call in handler.calls] == ["owner", "bob"]
    assert not handler.calls[0].ctx.mirrored


async def test_bodies_are_bounded_while_they_stream() -> None:
    async with front(listing(), body_limit=1000) as here:
        peer = await here.peer()
        big = modern("tools/list", {"x": "y" * 1000})
        answer = await peer.ask("POST", "/mcp", big, mirrored(big))
        assert (answer.status, answer.json["error"]["code"]) == (413, -32600)
        peer = await here.peer()
        chunked: dict[str, str | None] = {"content-length": None, "transfer-encoding": "chunked"}
        head = peer.request_bytes("POST", "/mcp", b"", {**mirrored(big), **chunked})
        await peer.stream.send(head)
        for _ in range(11):
            await peer.stream.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        assert (await peer.response()).status == 413
        peer = await here.peer()
        fits = modern("tools/list", {"x": "y" * 500})
        assert (await peer.ask("POST", "/mcp", fits, mirrored(fits))).status == 200


class Quick(Connection):
    request_time = 0.2
    max_head = 4096


@pytest.mark.parametrize("part", ["head", "body", "nothing"])
async def test_a_slow_request_is_given_up(part: str) -> None:
    async with front(listing(), http=Quick) as here:
        peer = await here.peer()
        whole = peer.request_bytes("POST", "/mcp", BODY, mirrored(BODY))
        if part != "nothing":
            await peer.stream.send(whole[:20] if part == "head" else whole[:-5])
            status, _ = await peer.head()
            assert status == 408
        assert await peer.closed()


@pytest.mark.parametrize("stays", [True, False])
async def test_a_request_is_served_under_the_rights_of_its_last_byte(*, stays: bool) -> None:
    handler = listing()
    narrowed = key("alice", Target("id-github", "tool", "x"))
    async with front(handler) as here:
        peer = await here.peer()
        whole = peer.request_bytes("POST", "/mcp", BODY, mirrored(BODY))
        await peer.stream.send(whole[:-5])
        live = here.app._live  # pyright: ignore[reportPrivateUsage]
        with anyio.fail_after(5):
            while not any(one.principal for one in live):  # noqa: ASYNC110 - nothing tells it
                await anyio.sleep(0.01)
        new = snapshot(server("github"), principals=(narrowed,) if stays else (), generation=2)
        here.config.swap(new)
        await peer.stream.send(whole[-5:])
        answer = await peer.response()
    if stays:
        assert answer.status == 200
        (call,) = handler.calls
        assert (call.ctx.principal, call.ctx.snapshot) == (narrowed, new)
    else:
        assert answer.status == 401
        assert not handler.calls


async def test_a_request_in_time_may_take_its_time_to_answer() -> None:
    async def slow(*_: object) -> Done:
        await anyio.sleep(0.5)
        return LISTED

    async with front(ScriptedHandler({"tools/list": slow}), http=Quick) as here:
        peer = await here.peer()
        for _ in range(2):
            assert (await peer.ask("POST", "/mcp", BODY, mirrored(BODY))).status == 200


async def test_a_huge_head_is_refused() -> None:
    async with front(listing(), http=Quick) as here:
        peer = await here.peer()
        await peer.stream.send(b"POST /mcp HTTP/1.1\r\nx: " + b"y" * 5000)
        status, _ = await peer.head()
        assert status == 431
        assert await peer.closed()


async def test_other_requests_go_on_beside_a_slow_one() -> None:
    async with front(listing()) as here:
        slow, quick = await here.peer(), await here.peer()
        await slow.stream.send(slow.request_bytes("POST", "/mcp", BODY, mirrored(BODY))[:-1])
        answer: Response = await quick.ask("POST", "/mcp", BODY, mirrored(BODY))
        assert answer.status == 200
        await slow.stream.send(b"}")
        assert (await slow.response()).status == 200


async def test_hanging_up_in_the_body_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    handler = listing()
    async with front(handler) as here:
        slow, quick = await here.peer(), await here.peer()
        await slow.stream.send(slow.request_bytes("POST", "/mcp", BODY, mirrored(BODY))[:-1])
        await slow.stream.aclose()
        assert (await quick.ask("POST", "/mcp", BODY, mirrored(BODY))).status == 200
    assert len(handler.calls) == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_client_that_does_not_read_is_dropped() -> None:
    big = Done(obj(tools=["x" * 30_000_000]))
    async with front(ScriptedHandler({"tools/list": big}), http=Quick) as here:
        peer = await here.peer()
        await peer.send("POST", "/mcp", BODY, mirrored(BODY))
        await peer.head()
        with anyio.fail_after(5):
            while here.connections:  # noqa: ASYNC110 - uvicorn's set tells nobody
                await anyio.sleep(0.02)
        other = await here.peer()
        assert (await other.ask("GET", "/livez")).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_heads_and_old_clients_are_answered(method: str) -> None:
    async with front(listing()) as here:
        peer = await here.peer(None)
        await peer.stream.send(f"{method} /livez HTTP/1.0\r\n\r\n".encode())
        status, headers = await peer.head()
        assert (status, headers["connection"]) == (200, "close")
        assert await peer.closed()


async def test_what_is_no_http_is_refused() -> None:
    async with front(listing()) as here:
        peer = await here.peer()
        await peer.stream.send(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await peer.head())[0] == 400
        assert await peer.closed()

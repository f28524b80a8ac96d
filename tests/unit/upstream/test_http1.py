"""The HTTP client in good weather: heads, bodies, the pool, the rules of proxies."""

from __future__ import annotations

import asyncio
import base64
import socket
import zlib
from typing import cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgw.upstream import http1_dial
from mcpgw.upstream.http1 import Client, HttpError
from mcpgw.upstream.http1_body import Response
from mcpgw.upstream.http1_conn import Connection
from mcpgw.upstream.http1_origin import Origin, find_proxy
from tests.faults.peer import GOOD, PATIENCE, Wire, ask, reaching, serving

OK = b"HTTP/1.1 200 OK\r\n"


def head_of(method: str, target: str, headers: list[tuple[str, str]], length: int = 0) -> list[str]:
    client = Client("http://mcp.test:8080")
    head = client._head(method, target, headers, length)  # pyright: ignore[reportPrivateUsage]
    return head.decode("latin-1").split("\r\n")


# The request


def test_the_head() -> None:
    assert head_of("POST", "/mcp?a=1", [("Accept", "a/b"), ("x-name", "é\tü")], 2) == [
        "POST /mcp?a=1 HTTP/1.1",
        "host: mcp.test:8080",
        "accept-encoding: gzip, deflate",
        "Accept: a/b",
        "x-name: é\tü",
        "content-length: 2",
        "",
        "",
    ]


def test_only_a_body_or_a_method_that_has_one_gets_a_length() -> None:
    assert not any("length" in line for line in head_of("GET", "/", []))
    assert not any("length" in line for line in head_of("DELETE", "/", []))
    assert "content-length: 0" in head_of("POST", "/", [])
    assert "content-length: 3" in head_of("DELETE", "/", [], 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nevil: 1"),
        ("x", "a\nevil: 1"),
        ("x", "a\r"),
        ("x", "a\0"),
        ("x", "a\x7f"),
        ("x", "€"),
        ("x", "a\u2028b"),
        ("x\r\nevil: 1\r\ny", "a"),
        ("x: y", "a"),
        ("x ", "a"),
        ("", "a"),
        ("é", "a"),
        ("Host", "evil.test"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("proxy-authorization", "Basic eA=="),
    ],
)
def test_headers_that_are_refused(name: str, value: str) -> None:
    with pytest.raises(HttpError) as caught:
        head_of("POST", "/", [("fine", "1"), (name, value)])
    assert (caught.value.stage, caught.value.sent) == ("send", False)
    assert "evil" not in caught.value.message


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET /x HTTP/1.1\r\nevil: 1\r\n", "/"),
        ("", "/"),
        ("GET", "/a b"),
        ("GET", "/a\r\nb"),
        ("GET", "/ä"),
        ("GET", "http://evil.test/"),
        ("GET", ""),
        ("GET", "*evil"),
    ],
)
def test_methods_and_targets_that_are_refused(method: str, target: str) -> None:
    with pytest.raises(HttpError):
        head_of(method, target, [])


@pytest.mark.parametrize(
    "origin",
    [
        "mcp.test",
        "ftp://mcp.test",
        "http://",
        "http://me:secret@mcp.test",
        "http://mcp.test/path",
        "http://mcp.test?x",
        "http://mcp.test:port",
        "http://mcp.test:99999",
        "http://mcp .test",
    ],
)
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(ValueError, match=r"origin|host name|[Pp]ort") as caught:
        Client(origin)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://Mcp.Test", "mcp.test", "mcp.test:80"),
        ("https://mcp.test:443/", "mcp.test", "mcp.test:443"),
        ("https://[::1]:8443", "[::1]:8443", "[::1]:8443"),
        ("http://bücher.test", "xn--bcher-kva.test", "xn--bcher-kva.test:80"),
    ],
)
def test_origins(url: str, authority: str, target: str) -> None:
    origin = Origin.parse(url)
    assert (origin.authority, origin.target) == (authority, target)


# Proxies


@pytest.mark.parametrize(
    ("origin", "environ", "proxy"),
    [
        ("http://a.test", {}, None),
        ("http://a.test", {"HTTP_PROXY": "http://p:1"}, "p:1"),
        ("http://a.test", {"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "q:1"),
        ("http://a.test", {"HTTP_PROXY": "http://p:1", "http_proxy": ""}, None),
        ("http://a.test", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("http://a.test", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://a.test", {"HTTPS_PROXY": "p:1"}, "p:1"),
        ("https://a.test", {"https_proxy": "https://p"}, "p:443"),
        ("https://a.test", {"ALL_PROXY": "http://[::1]:3128"}, "[::1]:3128"),
        ("https://a.test", {"ALL_PROXY": "p", "NO_PROXY": "*"}, None),
        ("https://a.test", {"ALL_PROXY": "p", "NO_PROXY": "b.test, a.test"}, None),
        ("https://A.test", {"ALL_PROXY": "p", "NO_PROXY": "a.TEST"}, None),
        ("https://x.a.test", {"ALL_PROXY": "p", "NO_PROXY": "a.test"}, None),
        ("https://x.a.test", {"ALL_PROXY": "p", "NO_PROXY": ".a.test"}, None),
        ("https://x.a.test", {"ALL_PROXY": "p", "NO_PROXY": "*.a.test"}, None),
        ("https://xa.test", {"ALL_PROXY": "p", "NO_PROXY": "a.test,,."}, "p:80"),
        ("https://a.test", {"ALL_PROXY": "p", "NO_PROXY": "a.test:444"}, "p:80"),
        ("https://a.test:444", {"ALL_PROXY": "p", "NO_PROXY": "a.test:444"}, None),
        ("https://10.1.2.3", {"ALL_PROXY": "p", "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://11.1.2.3", {"ALL_PROXY": "p", "NO_PROXY": "10.0.0.0/8,1.2.3"}, "p:80"),
        ("https://[fd00::1]", {"ALL_PROXY": "p", "NO_PROXY": "fd00::/8"}, None),
        ("https://[fd00::1]:8", {"ALL_PROXY": "p", "NO_PROXY": "[fd00::1]:8"}, None),
        ("https://[fd00::1]", {"ALL_PROXY": "p", "NO_PROXY": "[fd00::1]"}, None),
    ],
)
def test_which_proxy(origin: str, environ: dict[str, str], proxy: str | None) -> None:
    found = find_proxy(Origin.parse(origin), environ)
    assert (found.origin.target if found else None) == proxy


def test_proxy_credentials_are_decoded_and_not_shown() -> None:
    proxy = find_proxy(Origin.parse("https://a.test"), {"ALL_PROXY": "http://m%40e:s%3A%2F@p:1"})
    assert proxy is not None
    assert proxy.authorization == "Basic " + base64.b64encode(b"m@e:s:/").decode()
    assert repr(proxy) == "Proxy(p:1)"


def test_a_proxy_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        find_proxy(Origin.parse("https://a.test"), {"ALL_PROXY": "socks5://p:1"})


# The response, without a network


class Pipe:
    """A transport that keeps what is done to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.paused = False
        self.over = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.over

    def abort(self) -> None:
        self.over = True

    close = abort

    def pause_reading(self) -> None:
        assert not self.over
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None


class Pool:
    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.gone: list[Connection] = []

    def released(self, connection: Connection) -> None:
        self.free.append(connection)

    def lost(self, connection: Connection) -> None:
        self.gone.append(connection)


async def exchanged(
    pieces: list[bytes], *, method: str = "POST", end: bool = False
) -> tuple[Response, bytes, Pool]:
    """What comes of a response that arrives in these pieces."""
    pool = Pool()
    connection = Connection(pool)
    connection.connection_made(cast("asyncio.Transport", Pipe()))
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(connection.exchange(method, b"x", b"", loop.time() + 9, 9))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    if end:
        connection.eof_received()
        connection.connection_lost(None)
    response = await task
    return response, await response.read(), pool


bodies = st.binary(max_size=300)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, int, bytes, bool]:
    """Bytes, status, body, and whether the connection may go on."""
    status = draw(st.sampled_from([200, 201, 302, 404, 500]))
    body = draw(bodies)
    payload, coding = body, b""
    if draw(st.booleans()):
        packer = zlib.compressobj(wbits=31)
        payload = packer.compress(body) + packer.flush()
        coding = b"Content-Encoding: gzip\r\n"
    close = draw(st.booleans())
    head = b"HTTP/1.1 %d Some reason\r\nX-A: 1\r\n%b" % (status, coding)
    head += b"Connection: close\r\n" if close else b""
    interim = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" if draw(st.booleans()) else b""
    if draw(st.booleans()):
        message = b"content-length: %d\r\nX-a: 2\r\n\r\n%b" % (len(payload), payload)
    else:
        sizes = draw(st.lists(st.integers(1, 50), max_size=20))
        chunks: list[bytes] = []
        rest = payload
        for size in sizes:
            if piece := rest[:size]:
                chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            rest = rest[size:]
        if rest:
            chunks.append(b"%X;x=y\r\n%b\r\n" % (len(rest), rest))
        message = b"Transfer-Encoding: Chunked\r\nX-a: 2\r\n\r\n" + b"".join(chunks)
        message += b"0\r\nTrailer: 1\r\n\r\n"
    return interim + head + message, status, body, not close


@given(responses(), st.data())
def test_a_response_is_the_same_however_it_is_cut(
    made: tuple[bytes, int, bytes, bool], data: st.DataObject
) -> None:
    stream, status, body, lasts = made
    at = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True) if a < b]
    every = [bytes([byte]) for byte in stream]
    for cut in (pieces, every):
        response, got, pool = asyncio.run(exchanged(cut))
        assert (response.status, got) == (status, body)
        assert response.headers["x-a"] == "1, 2"
        assert "trailer" not in response.headers
        assert "link" not in response.headers
        assert (len(pool.free), len(pool.gone)) == (int(lasts), 0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "stream", "lasts"),
    [
        ("GET", b"HTTP/1.1 204 No\r\n\r\n", True),
        ("GET", b"HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", False),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", False),
        ("POST", b"HTTP/1.1 202 OK\r\ncontent-length: 0\r\n\r\n", True),
        ("POST", b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
    ],
)
async def test_responses_without_a_body(method: str, stream: bytes, lasts: bool) -> None:
    with anyio.fail_after(PATIENCE):
        _, body, pool = await exchanged([stream], method=method)
    assert body == b""
    assert len(pool.free) == int(lasts)


@pytest.mark.anyio
async def test_a_body_until_the_end_of_the_connection() -> None:
    response, body, pool = await exchanged([OK + b"\r\n", b"abc", b"def"], end=True)
    assert (response.status, body) == (200, b"abcdef")
    assert (len(pool.free), len(pool.gone)) == (0, 1)


@pytest.mark.anyio
async def test_a_body_that_came_with_its_head_needs_no_turn_of_the_loop() -> None:
    turns: list[str] = []
    pool = Pool()
    connection = Connection(pool)
    connection.connection_made(cast("asyncio.Transport", Pipe()))
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(connection.exchange("POST", b"x", b"", loop.time() + 9, 9))
    await asyncio.sleep(0)
    connection.data_received(OK + b"content-length: 3\r\n\r\nabc")
    response = await task
    loop.call_soon(turns.append, "turned")
    assert await response.read() == b"abc"
    assert turns == []
    assert pool.free == [connection]


@pytest.mark.anyio
async def test_limits_of_read() -> None:
    stream = OK + b"content-length: 3\r\n\r\nabc"
    response, _, _ = await exchanged([stream])
    assert await response.read() == b""  # it was read
    for limit, kind in ((2, HttpError), (3, None)):
        pool = Pool()
        connection = Connection(pool)
        connection.connection_made(cast("asyncio.Transport", Pipe()))
        deadline = asyncio.get_running_loop().time() + 9
        task = asyncio.ensure_future(connection.exchange("GET", b"x", b"", deadline, 9))
        await asyncio.sleep(0)
        connection.data_received(stream)
        response = await task
        if kind is None:
            assert await response.read(limit=limit) == b"abc"
        else:
            with pytest.raises(kind, match="larger than 2 bytes"):
                await response.read(limit=limit)


# The pool


@pytest.mark.anyio
async def test_redirects_are_returned() -> None:
    async def redirects(wire: Wire, request: bytes) -> None:
        await wire.send(b"HTTP/1.1 307 There\r\nlocation: /good\r\ncontent-length: 0\r\n\r\n")

    async with serving(redirects) as peer, reaching(peer.origin) as client:
        response = await client.request("POST", "/there", [], b"{}", timeout=PATIENCE)
        assert (response.status, response.headers["location"]) == (307, "/good")
        await response.aclose()
        assert await ask(client, "/good") == b"good"
        assert peer.connections == 1


@pytest.mark.anyio
async def test_connections_are_kept_and_bounded_and_waiters_are_served_in_order() -> None:
    order: list[int] = []
    async with serving() as peer, reaching(peer.origin, max_connections=2) as client:
        streams = [
            await client.request("GET", "/good-stream", [], timeout=PATIENCE) for _ in range(2)
        ]

        async def one(number: int) -> None:
            assert await ask(client, "/good") == b"good"
            order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(one, number)
                await asyncio.sleep(0)
            with pytest.raises(HttpError, match="none of 2 connections") as caught:
                await ask(client, "/good", timeout=0.05)
            assert (caught.value.stage, caught.value.sent) == ("connect", False)
            assert order == []
            peer.go_on.set()
        assert order == [0, 1, 2, 3, 4]
        assert peer.connections == 2
        assert [await stream.read() for stream in streams] == [b"onetwo"] * 2


@pytest.mark.anyio
async def test_a_cancelled_waiter_gives_its_turn_on() -> None:
    async with serving() as peer, reaching(peer.origin, max_connections=1) as client:
        stream = await client.request("GET", "/good-stream", [], timeout=PATIENCE)
        first, second = (asyncio.ensure_future(ask(client, "/good")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await stream.aclose()
        with anyio.fail_after(PATIENCE):
            assert await second == b"good"
        with pytest.raises(asyncio.CancelledError):
            await first
        # Cancelled in the very moment in which it is given a connection.
        response = await client.request("GET", "/good", [], timeout=PATIENCE)
        assert await response.read() == b"good"
        for turns in range(8):
            holder = asyncio.ensure_future(ask(client, "/good"))
            waiter = asyncio.ensure_future(ask(client, "/good"))
            last = asyncio.ensure_future(ask(client, "/good"))
            await holder
            for _ in range(turns):
                await asyncio.sleep(0)
            waiter.cancel()
            with anyio.fail_after(PATIENCE):
                assert await last == b"good"
            await asyncio.gather(waiter, return_exceptions=True)


@pytest.mark.anyio
async def test_a_failed_connect_gives_its_place_on() -> None:
    async with serving() as peer:
        origin = peer.origin
    async with reaching(origin, max_connections=1) as client:
        for _ in range(3):
            results = await asyncio.gather(
                *(ask(client, "/good") for _ in range(4)), return_exceptions=True
            )
            assert all(isinstance(result, HttpError) for result in results)


@pytest.mark.anyio
async def test_idle_connections_are_closed() -> None:
    async with serving() as peer, reaching(peer.origin, idle=0.05) as client:
        assert await ask(client, "/good") == b"good"
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()
        assert await ask(client, "/good") == b"good"
        assert peer.connections == 2


@pytest.mark.anyio
async def test_closing_the_client_ends_everything() -> None:
    reached = anyio.Event()

    async def hangs(wire: Wire, request: bytes) -> None:
        reached.set()
        await wire.gone()

    async with serving(hangs) as peer:
        client = Client(peer.origin, max_connections=2)
        idle = await client.request("GET", "/good", [], timeout=PATIENCE)
        assert await idle.read() == b"good"
        stream = await client.request("GET", "/good-stream", [], timeout=PATIENCE)
        pending = asyncio.ensure_future(ask(client, "/bad"))
        waiting = asyncio.ensure_future(ask(client, "/bad"))
        await reached.wait()
        peer.go_on.set()
        with anyio.fail_after(PATIENCE):
            await client.aclose()
            await peer.all_closed()
        for task in (pending, waiting):
            with pytest.raises(HttpError):
                await task
        with pytest.raises(HttpError):
            await stream.read()
        with pytest.raises(HttpError, match="closed"):
            await ask(client, "/good")
        await client.aclose()


@pytest.mark.anyio
async def test_many_at_once() -> None:
    async with serving() as peer, reaching(peer.origin, max_connections=8) as client:
        answers = await asyncio.gather(*(ask(client, "/good") for _ in range(200)))
        assert answers == [b"good"] * 200
        assert peer.connections <= 8
        assert len(GOOD) > 0


# Moments that meet


@pytest.mark.anyio
async def test_a_cancelled_exchange_leaves_a_released_connection_alone() -> None:
    pool, pipe = Pool(), Pipe()
    connection = Connection(pool)
    connection.connection_made(cast("asyncio.Transport", pipe))
    deadline = asyncio.get_running_loop().time() + 9
    task = asyncio.ensure_future(connection.exchange("GET", b"x", b"", deadline, 9))
    await asyncio.sleep(0)
    connection.data_received(OK + b"content-length: 3\r\n\r\nabc")
    assert pool.free == [connection]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not pipe.over


@pytest.mark.anyio
async def test_a_connection_given_to_a_cancelled_waiter_goes_to_the_next() -> None:
    client = Client("http://mcp.test", max_connections=0)
    connection = Connection(client)
    connection.connection_made(cast("asyncio.Transport", Pipe()))
    deadline = asyncio.get_running_loop().time() + 9
    wait = client._wait  # pyright: ignore[reportPrivateUsage]
    first, second = (asyncio.ensure_future(wait(deadline, 9)) for _ in range(2))
    await asyncio.sleep(0)
    client.released(connection)
    first.cancel()
    with anyio.fail_after(PATIENCE):
        assert await second is connection
    with pytest.raises(asyncio.CancelledError):
        await first
    await client.aclose()


@pytest.mark.anyio
async def test_the_clock_of_one_exchange_is_not_that_of_the_next() -> None:
    async def late(wire: Wire, request: bytes) -> None:
        await wire.peer.go_on.wait()
        await wire.send(GOOD)

    async with serving(late) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/good", timeout=0.1) == b"good"
        asyncio.get_running_loop().call_later(0.2, peer.go_on.set)
        assert await ask(client, "/late", timeout=PATIENCE) == b"good"
        peer.go_on.clear()
        with anyio.fail_after(PATIENCE / 2), pytest.raises(HttpError, match="no answer within"):
            await ask(client, "/late", timeout=0.1)
        assert peer.connections == 1


@pytest.mark.anyio
async def test_the_slower_of_two_addresses_is_closed() -> None:
    both, ends = asyncio.Event(), [*socket.socketpair()]

    async def first() -> socket.socket:
        await both.wait()
        return ends[0]

    async def second() -> socket.socket:
        both.set()
        await both.wait()
        return ends[1]

    won = await http1_dial.race([first, second])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(end.fileno() >= 0 for end in ends) == [False, True]
    won.close()

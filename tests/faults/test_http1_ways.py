"""The ways to an upstream (TLS, proxies, sockets, names), and how each of them fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from mcpgw.upstream import http1_dial
from mcpgw.upstream.http1 import HttpError
from tests.faults.authority import Authority
from tests.faults.peer import GOOD, PATIENCE, Wire, ask, reaching, serving

pytestmark = pytest.mark.anyio
SOON = 0.3


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.issue("127.0.0.1")


# TLS


async def test_a_trusted_server(authority: Authority, certificate: Path) -> None:
    async with (
        serving(tls=authority.server(certificate)) as peer,
        reaching(f"https://127.0.0.1:{peer.port}", ca=str(authority.root)) as client,
    ):
        for _ in range(3):
            assert await ask(client, "/good") == b"good"
        response = await client.request("GET", "/good-stream", [], timeout=PATIENCE)
        peer.go_on.set()
        assert [part async for part in response.chunks()] == [b"one", b"two"]
        assert peer.connections == 1


async def test_a_large_request_and_response_over_tls(
    authority: Authority, certificate: Path
) -> None:
    async def echo(wire: Wire, request: bytes) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    body = bytes(range(256)) * 8192
    async with (
        serving(echo, tls=authority.server(certificate)) as peer,
        reaching(f"https://127.0.0.1:{peer.port}", ca=str(authority.root)) as client,
    ):
        assert await ask(client, "/echo", body=body) == body


async def refused(origin: str, **settings: object) -> HttpError:
    async with reaching(origin, **settings) as client:
        with anyio.fail_after(PATIENCE), pytest.raises(HttpError) as caught:
            await ask(client, "/good", idempotent=True)
    assert not caught.value.sent
    return caught.value


async def test_an_untrusted_server(authority: Authority, certificate: Path) -> None:
    async with serving(tls=authority.server(certificate)) as peer:
        error = await refused(f"https://127.0.0.1:{peer.port}")
        assert error.stage == "tls"
        assert "not trusted" in error.message
        assert peer.requests == []


async def test_the_wrong_authority(authority: Authority, certificate: Path, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    async with serving(tls=authority.server(certificate)) as peer:
        error = await refused(f"https://127.0.0.1:{peer.port}", ca=str(other.root))
        assert error.stage == "tls"
        assert "not trusted" in error.message


async def test_a_certificate_for_another_name_and_an_expired_one(authority: Authority) -> None:
    for path, word in (
        (authority.issue("elsewhere.test"), "mismatch"),
        (authority.issue("127.0.0.1", expired=True), "expired"),
    ):
        async with serving(tls=authority.server(path)) as peer:
            error = await refused(f"https://127.0.0.1:{peer.port}", ca=str(authority.root))
            assert error.stage == "tls"
            assert word in error.message


async def test_a_client_certificate(authority: Authority, certificate: Path) -> None:
    mine = authority.issue("me")
    async with serving(tls=authority.server(certificate, clients=True)) as peer:
        origin = f"https://127.0.0.1:{peer.port}"
        async with reaching(origin, ca=str(authority.root), client_cert=str(mine)) as client:
            assert await ask(client, "/good") == b"good"
        async with reaching(origin, ca=str(authority.root)) as client:
            with pytest.raises(HttpError) as caught:
                await ask(client, "/good")
            assert caught.value.stage in ("tls", "read")
        assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("", "cannot use"), ("junk", "cannot use")]
)
async def test_unusable_files(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    for settings in ({"ca": str(path)}, {"client_cert": str(path)}):
        error = await refused("https://127.0.0.1:1", **settings)
        assert error.stage == "tls"
        assert words in error.message
        assert str(path) in error.message


async def test_a_renewed_authority_is_noticed(
    authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority(tmp_path, "old").root.read_bytes())
    async with (
        serving(tls=authority.server(certificate)) as peer,
        reaching(f"https://127.0.0.1:{peer.port}", ca=str(ca)) as client,
    ):
        with pytest.raises(HttpError, match="not trusted"):
            await ask(client, "/good")
        ca.write_bytes(authority.root.read_bytes())
        assert await ask(client, "/good") == b"good"


async def test_tls_to_a_server_without_it_and_the_other_way_round(
    authority: Authority, certificate: Path
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        writer.close()

    async with listening(plain) as port:
        assert (await refused(f"https://127.0.0.1:{port}")).stage == "tls"
    async with serving(tls=authority.server(certificate)) as peer, reaching(peer.origin) as client:
        with pytest.raises(HttpError):
            await ask(client, "/good")


async def test_a_handshake_that_never_ends() -> None:
    async with (
        listening(silent) as port,
        reaching(f"https://127.0.0.1:{port}") as client,
    ):
        with pytest.raises(HttpError, match="within") as caught:
            await ask(client, "/good", timeout=SOON)
        assert caught.value.stage == "tls"


async def test_closed_in_the_handshake() -> None:
    async def leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async with listening(leaves) as port:
        assert (await refused(f"https://127.0.0.1:{port}")).stage == "tls"


# Addresses


async def test_nobody_listens() -> None:
    async with listening(silent) as port:
        pass
    error = await refused(f"http://127.0.0.1:{port}")
    assert error.stage == "connect"
    assert f"127.0.0.1:{port}" in error.message


async def test_a_name_that_does_not_exist() -> None:
    error = await refused("http://nowhere.invalid")
    assert error.stage == "resolve"
    assert "nowhere.invalid" in error.message


async def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> list[object]:
        await anyio.sleep_forever()
        return []

    resolves_to(monkeypatch, hangs)
    async with reaching("http://slow.test") as client:
        with pytest.raises(HttpError, match="within") as caught:
            await ask(client, "/good", timeout=SOON)
        assert caught.value.stage == "resolve"


async def test_a_dead_first_address_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one refuses, the second never answers, the third is right."""
    async with serving() as peer, full_backlog() as black_hole:

        async def several() -> list[object]:
            ports = (("127.0.0.1", 1), ("127.0.0.1", black_hole), ("127.0.0.1", peer.port))
            return [(2, 1, 6, "", port) for port in ports]

        resolves_to(monkeypatch, several)
        async with reaching("http://several.test") as client:
            with anyio.fail_after(PATIENCE):
                assert await ask(client, "/good") == b"good"


async def test_all_addresses_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    async def several() -> list[object]:
        return [(2, 1, 6, "", ("127.0.0.1", 1)), (2, 1, 6, "", ("127.0.0.2", 1))]

    resolves_to(monkeypatch, several)
    assert (await refused("http://several.test")).stage == "connect"


async def test_a_connect_that_is_cancelled_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full_backlog() as black_hole:

        async def several() -> list[object]:
            return [(2, 1, 6, "", ("127.0.0.1", black_hole))] * 2

        resolves_to(monkeypatch, several)
        async with reaching("http://several.test") as client:
            with pytest.raises(HttpError, match="no connect within") as caught:
                await ask(client, "/good", timeout=SOON)
            assert caught.value.stage == "connect"
            with anyio.move_on_after(SOON):
                await ask(client, "/good")


async def test_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    path = str(tmp_path / "door")
    async with serving(unix=path) as peer:
        async with reaching("http://localhost", unix=path) as client:
            assert await ask(client, "/good") == b"good"
            assert await ask(client, "/good") == b"good"
        async with reaching("http://far.test", unix=path) as client:
            assert await ask(client, "/good") == b"good"
        assert peer.connections == 2
    error = await refused("http://localhost", unix=str(tmp_path / "none"))
    assert error.stage == "connect"


# Proxies


class Proxy:
    """Takes CONNECT and absolute-form requests to any host, and sends them all to one port."""

    def __init__(self, to: int, answer: bytes = b"HTTP/1.1 200 Connected\r\n\r\n") -> None:
        self.to = to
        self.answer = answer
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        if not head.startswith(b"CONNECT"):
            writer.write(GOOD)
        else:
            writer.write(self.answer)
            if b" 200 " in self.answer:
                await self.tunnel(reader, writer)
        writer.close()

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.to)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)


async def test_https_goes_through_connect(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = authority.server(authority.issue("upstream.test"))
    async with serving(tls=tls) as peer:
        proxy = Proxy(peer.port)
        async with listening(proxy) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{port}")
            ca = str(authority.root)
            async with reaching("https://upstream.test", ca=ca) as client:
                assert await ask(client, "/good") == b"good"
                assert await ask(client, "/good") == b"good"
            (head,) = proxy.heads
            assert head == (
                "CONNECT upstream.test:443 HTTP/1.1\r\nhost: upstream.test:443\r\n"
                "proxy-authorization: Basic bWU6cEBzcw==\r\n\r\n"
            )
            assert all(b"proxy-authorization" not in request for request in peer.requests)
            assert peer.connections == 1


async def test_https_through_a_proxy_that_speaks_tls(
    authority: Authority, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy's own certificate is checked too, by the system's store alone."""
    tls = authority.server(authority.issue("upstream.test"))
    async with serving(tls=tls) as peer:
        proxy = Proxy(peer.port)
        async with listening(proxy, tls=authority.server(certificate)) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{port}")
            error = await refused("https://upstream.test", ca=str(authority.root))
            assert error.stage == "tls"
            assert proxy.heads == []
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
            http1_dial.build_context.cache_clear()
            async with reaching("https://upstream.test") as client:
                assert await ask(client, "/good") == b"good"
                assert await ask(client, "/good") == b"good"
            http1_dial.build_context.cache_clear()
            assert len(proxy.heads) == 1


async def test_http_goes_to_the_proxy_in_absolute_form(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(0)
    async with listening(proxy) as port:
        monkeypatch.setenv("http_proxy", f"me:secret@127.0.0.1:{port}")
        async with reaching("http://upstream.test:81") as client:
            assert await ask(client, "/good?x=1") == b"good"
        (head,) = proxy.heads
        assert head == (
            "POST http://upstream.test:81/good?x=1 HTTP/1.1\r\nhost: upstream.test:81\r\n"
            "accept-encoding: gzip, deflate\r\n"
            "proxy-authorization: Basic bWU6c2VjcmV0\r\ncontent-length: 2\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who are you\r\ncontent-length: 3\r\n\r\nabc", "answered 407"),
        (b"HTTP/1.1 503 No\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurplus", "sent more than"),
        (b"SSH-2.0\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 4000, "does not speak HTTP"),
        (b"HTTP/1.1 204 OK\r\n", "closed the connection"),
    ],
)
async def test_a_proxy_that_will_not(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with listening(proxy) as port:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{port}")
        error = await refused("https://upstream.test")
        assert error.stage == "connect"
        assert words in error.message
        assert "secret" not in error.message


async def test_a_proxy_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(silent) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        async with reaching("https://upstream.test") as client:
            with pytest.raises(HttpError, match="proxy 127") as caught:
                await ask(client, "/", timeout=SOON)
            assert caught.value.stage == "connect"


async def test_no_proxy_and_loopback_go_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving() as peer:
        async with reaching(peer.origin) as client:
            assert await ask(client, "/good") == b"good"
        error = await refused(peer.origin, proxy_loopback=True)
        assert "127.0.0.1:1:" in error.message
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        async with reaching(peer.origin, proxy_loopback=True) as client:
            assert await ask(client, "/good") == b"good"


# Helpers


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass
    writer.close()


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[int]:
    """The port on which `serve` takes connections."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)  # pyright: ignore[reportArgumentType]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def full_backlog() -> AsyncGenerator[int]:
    """A port whose connections are never completed: its queue is full."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        callers: list[socket.socket] = []
        for _ in range(3):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
            callers.append(caller)
        yield port
        for caller in callers:
            caller.close()


def resolves_to(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Awaitable[list[object]]]
) -> None:
    """What names below .test are; the loops ask the resolver for plain addresses as well."""
    loop = asyncio.get_running_loop()
    real = type(loop).getaddrinfo

    async def getaddrinfo(self: object, host: str, *rest: object, **more: object) -> object:
        if host.endswith(".test"):
            return await answer()
        return await real(loop, host, *rest, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(type(loop), "getaddrinfo", getaddrinfo)

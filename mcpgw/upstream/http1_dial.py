"""How a connection to an origin comes about: addresses, tunnels, TLS.

A Dialer belongs to one origin and opens transports for it. Addresses are raced (RFC 8305), as
uvloop does not do it. What touches files or the resolver runs in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, cast

import truststore

from mcpgw.upstream.http1_body import HttpError, Stage
from mcpgw.upstream.http1_origin import Origin, Proxy, literal_ip

HAPPY_EYEBALLS: Final = 0.25  # seconds until the next address is tried beside the last (RFC 8305)
GOODBYE: Final = 1.0  # seconds a peer has to answer the end of TLS
_MAX_PROXY_HEAD: Final = 16 * 1024
_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")
# Where distributions keep their store when OpenSSL was built to look elsewhere.
_STORES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

P = TypeVar("P", bound=asyncio.Protocol)
Address: TypeAlias = tuple[
    socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]


class _Tunnel(asyncio.Protocol):
    """Hears what a proxy says to CONNECT: `open` returns once the tunnel is there."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def open(self, target: str, authorization: str | None) -> None:
        """Raises HttpError when the proxy will not."""
        line = f"proxy-authorization: {authorization}\r\n" if authorization else ""
        ask = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{line}\r\n"
        self.transport.write(ask.encode("ascii"))
        await self._settled

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        status = _PROXY_STATUS.match(head)
        if not end and len(head) < _MAX_PROXY_HEAD:
            return
        if status is None or not end:
            self._settle("the proxy does not speak HTTP")
        elif not status[1].startswith(b"2"):
            self._settle(f"the proxy answered {status[1].decode()} to CONNECT")
        elif rest:
            self._settle("the proxy sent more than its answer to CONNECT")
        else:
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle("the proxy closed the connection")

    def _settle(self, failure: str | None) -> None:
        if self._settled.done():
            return
        if failure is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(HttpError("connect", failure))


@functools.lru_cache(maxsize=256)
def build_context(ca: str | None, cert: str | None, *_changed: int) -> ssl.SSLContext:
    """What `tls_context` gives, remembered."""
    context: ssl.SSLContext
    if sys.platform in ("darwin", "win32"):
        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        # truststore would load the same files again for every connection (40 ms), on the loop.
        context = ssl.create_default_context()
        if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_FILE" not in os.environ:
            store = next((path for path in _STORES if Path(path).is_file()), None)
            context.load_verify_locations(cafile=store) if store else None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key of the client certificate is encrypted")


def tls_context(ca: str | None, cert: str | None) -> ssl.SSLContext:
    """The system's trusted roots and those in `ca`; built again when a file changes.

    ca: a PEM file. cert: a PEM file with the client's certificate and its key. Blocks. Raises
    HttpError (tls) for files that cannot be read.
    """
    changed: list[int] = []
    for what, path in (("CA", ca), ("client certificate", cert)):
        if path is None:
            continue
        try:
            changed.append(Path(path).stat().st_mtime_ns)
        except OSError as error:
            raise HttpError("tls", f"{what} file {path}: {error.strerror}") from error
    try:
        return build_context(ca, cert, *changed)
    except (OSError, ValueError) as error:
        files = " or ".join(path for path in (ca, cert) if path is not None)
        raise HttpError("tls", f"cannot use {files or 'the system store'}: {error}") from error


class Dialer:
    """Opens transports to one origin.

    proxied: None, or the proxy that plain requests are sent through in absolute form.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        unix: str | None,
        ca: str | None,
        client_cert: str | None,
        proxy: Proxy | None,
    ) -> None:
        self.origin = origin
        self.proxy = None if unix is not None else proxy
        self._unix = unix
        self._ca = ca
        self._cert = client_cert

    async def dial(self, make: Callable[[], P], *, deadline: float, timeout: float) -> P:
        """A protocol of `make`'s with its transport. Raises HttpError, none of it sent."""
        attempt = _Attempt(self.origin, self._unix, self._ca, self._cert, self.proxy)
        try:
            async with asyncio.timeout_at(deadline):
                return await attempt.run(make)
        except ssl.SSLError as error:
            raise HttpError("tls", _tls_reason(error)) from error
        except TimeoutError as error:
            what = attempt.whom or self.origin.target
            message = f"{what}: no {attempt.stage} within {timeout:g} s"
            raise HttpError(attempt.stage, message) from error
        except (OSError, UnicodeError) as error:
            raise HttpError(attempt.stage, f"{attempt.whom}: {_reason(error)}") from error


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name does not resolve"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # event loops have words of their own
    return str(error) or type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message or error}"
    return f"TLS failed: {error.reason or error}"


class _Attempt:
    """One way to a transport; `stage` and `whom` say how far it came."""

    def __init__(
        self,
        origin: Origin,
        unix: str | None,
        ca: str | None,
        cert: str | None,
        proxy: Proxy | None,
    ) -> None:
        self.stage: Stage = "connect"
        self.whom = ""
        self._origin = origin
        self._unix = unix
        self._files = (ca, cert)
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()

    async def run(self, make: Callable[[], P]) -> P:
        context: ssl.SSLContext | None = None
        if self._origin.scheme == "https":
            context = await self._context(*self._files)
        if self._unix is not None:
            return await self._to_socket(make, self._unix, context)
        if self._proxy is None:
            sock = await self._connect(self._origin)
            return await self._over(sock, make, context)
        if context is None:
            sock = await self._connect(self._proxy.origin)
            return await self._over(sock, make, await self._proxy_context())
        return await self._through(self._proxy, make, context)

    async def _context(self, ca: str | None, cert: str | None) -> ssl.SSLContext:
        self.stage, self.whom = "tls", "the certificates"
        return await self._loop.run_in_executor(None, tls_context, ca, cert)

    async def _proxy_context(self) -> ssl.SSLContext | None:
        if self._proxy is None or self._proxy.origin.scheme == "http":
            return None
        return await self._context(None, None)

    async def _to_socket(
        self, make: Callable[[], P], path: str, context: ssl.SSLContext | None
    ) -> P:
        self.stage, self.whom = "connect", path
        host = self._origin.host if context else None
        _, made = await self._loop.create_unix_connection(
            make, path, ssl=context, server_hostname=host
        )
        return made

    async def _over(
        self, sock: socket.socket, make: Callable[[], P], context: ssl.SSLContext | None
    ) -> P:
        """Put a protocol, and TLS, on a connected socket."""
        via = self._proxy.origin if self._proxy is not None else self._origin
        self.stage = "tls" if context else "connect"
        try:
            _, made = await self._loop.create_connection(
                make,
                sock=sock,
                ssl=context,
                server_hostname=via.host if context else None,
                ssl_shutdown_timeout=GOODBYE if context else None,
            )
        except BaseException:
            sock.close()
            raise
        return made

    async def _through(self, proxy: Proxy, make: Callable[[], P], context: ssl.SSLContext) -> P:
        """CONNECT, then TLS with the origin inside."""
        sock = await self._connect(proxy.origin)
        tunnel = await self._over(sock, _Tunnel, await self._proxy_context())
        transport = tunnel.transport
        try:
            self.stage, self.whom = "connect", f"proxy {proxy.origin.target}"
            await tunnel.open(self._origin.target, proxy.authorization)
            self.stage, self.whom = "tls", self._origin.target
            made = make()
            secured = await self._loop.start_tls(
                transport,
                made,
                context,
                server_hostname=self._origin.host,
                ssl_shutdown_timeout=GOODBYE,
            )
        except BaseException:
            transport.abort()
            raise
        if secured is None:
            raise HttpError("tls", "the connection was closed during the handshake")
        made.connection_made(secured)
        return made

    async def _connect(self, to: Origin) -> socket.socket:
        """A connected socket: the first of the addresses that answers."""
        self.stage, self.whom = "resolve", to.host
        addresses = await self._addresses(to)
        self.stage, self.whom = "connect", to.target
        if len(addresses) == 1:
            return await self._reach(addresses[0])
        return await race([functools.partial(self._reach, address) for address in addresses])

    async def _addresses(self, to: Origin) -> list[Address]:
        if (literal := literal_ip(to.host)) is not None:
            family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
            return [(family, (to.host, to.port))]
        infos = await self._loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
        found = [(info[0], info[4]) for info in infos]
        first = found[0][0]
        # Families take turns, the resolver's favourite first.
        same = [address for address in found if address[0] == first]
        other = [address for address in found if address[0] != first]
        turns = zip_longest(same, other)
        return [address for pair in turns for address in pair if address is not None]

    async def _reach(self, address: Address) -> socket.socket:
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, where)
        except BaseException:
            sock.close()
            raise
        return sock


async def race(attempts: Sequence[Callable[[], Awaitable[socket.socket]]]) -> socket.socket:
    """The first socket to be connected; raises the first failure when none is."""
    tasks: list[asyncio.Task[socket.socket]] = []
    running: set[asyncio.Task[socket.socket]] = set()
    failures: list[BaseException] = []
    won: asyncio.Task[socket.socket] | None = None
    left = list(attempts)
    try:
        while won is None and (left or running):
            if left:
                tasks.append(asyncio.ensure_future(left.pop(0)()))
                running.add(tasks[-1])
            done, running = await asyncio.wait(
                running,
                timeout=HAPPY_EYEBALLS if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                if (failure := task.exception()) is not None:
                    failures.append(failure)
                else:
                    won = task
    finally:
        for task in tasks:
            if task is not won:
                task.cancel()
                task.add_done_callback(_discard)
    if won is None:
        raise failures[0]
    return won.result()


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()

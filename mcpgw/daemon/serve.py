"""The daemon: fronts over a gateway until a signal ends it; reload and drain."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import shlex
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn
from msgspec import Struct
from msgspec.structs import replace

from mcpgw import __version__
from mcpgw.daemon import logs
from mcpgw.daemon.assembly import Assembly, assembled, links, run, with_status
from mcpgw.daemon.door import door_path, opened_door
from mcpgw.errors import Exit, GatewayError
from mcpgw.front import app as front_app
from mcpgw.store.db import served_path

DRAIN = 5.0  # seconds that calls in flight may take after a signal to end
KEEP_ALIVE = 75  # seconds an idle client connection stays open

_log = logging.getLogger("mcpgw.daemon")


class ServeOptions(Struct, frozen=True, kw_only=True):
    """What `mcpgw serve` was asked for."""

    store: Path
    config: Path | None = None  # serve what this file says, and nothing else
    host: str = "127.0.0.1"
    port: int = 8765
    no_auth: bool = False
    log_format: str = "text"
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


def serve(options: ServeOptions) -> None:
    """Serve until a signal ends it. Raises GatewayError when it cannot start."""
    if options.config is not None:
        options = replace(options, store=served_path(options.store))
    logs.set_up(options.log_format)
    _raise_file_limit()
    run(_serve, options)


async def _serve(options: ServeOptions) -> None:
    settings = front_app.Settings(
        host=options.host,
        port=options.port,
        allow_hosts=options.allow_hosts,
        allow_origins=options.allow_origins,
        no_auth=options.no_auth,
        trusted_proxies=options.trusted_proxies,
        tls=options.tls_cert is not None,
        door=str(door_path(options.store)),
    )
    _check(options)
    with contextlib.ExitStack() as listeners:
        tcp = listeners.enter_context(_listen(options.host, options.port))
        async with assembled(options.store, file=options.config) as house:
            await _unlocked(house)
            door = listeners.enter_context(opened_door(options.store))
            await _serve_fronts(options, settings, house, tcp, door)


async def _unlocked(house: Assembly) -> None:
    """Find the master key now, in a thread: deriving it, or a keyring, would hold up all calls."""
    try:
        await anyio.to_thread.run_sync(house.vault.warm)
    except GatewayError as error:
        _log.error("sealed secrets and states cannot be used: %s", error.what)


async def _serve_fronts(
    options: ServeOptions,
    settings: front_app.Settings,
    house: Assembly,
    tcp: socket.socket,
    door: socket.socket,
) -> None:
    scheme = "https" if options.tls_cert else "http"
    host, port = tcp.getsockname()[:2]
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    started = time.time()

    def status() -> Mapping[str, object]:
        return _status(house, address=address, started=started)

    app = front_app.App(house.gateway, config=house.config, settings=settings, status=status)
    public = _Uvicorn(_uvicorn_config(app, options))
    private = _Uvicorn(_uvicorn_config(app, None))
    async with anyio.create_task_group() as tasks:
        await tasks.start(with_status, app.run)
        tasks.start_soon(public.serve, [tcp])
        tasks.start_soon(private.serve, [door])
        await public.ready()
        await private.ready()
        await _signalled(lambda: _announce(house, options, address))
        _log.info("draining for at most %g s", DRAIN)
        public.should_exit = private.should_exit = True
        await app.drain()
        with anyio.move_on_after(DRAIN):
            await public.ended.wait()
            await private.ended.wait()
        tasks.cancel_scope.cancel()


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that leaves signals to the daemon and tells when it is up and down."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = anyio.Event()
        self._up = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.ended.set()

    async def ready(self) -> None:
        """Returns once connections are accepted."""
        await self._up.wait()


def _uvicorn_config(app: front_app.App, options: ServeOptions | None) -> uvicorn.Config:
    """options None: the private door, which has no TLS."""
    return uvicorn.Config(
        app,
        http=front_app.Connection,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(DRAIN),
        ssl_certfile=options.tls_cert if options else None,
        ssl_keyfile=options.tls_key if options else None,
    )


def _check(options: ServeOptions) -> None:
    """Refuse what would be unsafe or cannot work, before anything is opened."""
    if (options.tls_cert is None) != (options.tls_key is None):
        raise GatewayError(
            "TLS needs both a certificate and its key.",
            next="mcpgw serve --tls-cert FILE --tls-key FILE",
            code="usage",
            exit=Exit.USAGE,
        )
    for file in filter(None, (options.tls_cert, options.tls_key)):
        if not Path(file).is_file():
            raise GatewayError(
                f"There is no file {file}.",
                why="--tls-cert and --tls-key name PEM files.",
                code="no_such_file",
                exit=Exit.MISSING,
            )
    _check_certificate(options)
    if options.no_auth and not _is_loopback(options.host):
        raise GatewayError(
            f"--no-auth is refused on {options.host}.",
            why="Anybody who reaches that address could use every server.",
            next="mcpgw serve --no-auth --host 127.0.0.1",
            code="no_auth_beyond_loopback",
            exit=Exit.USAGE,
        )


def _check_certificate(options: ServeOptions) -> None:
    """Raises GatewayError for files that TLS cannot be served with."""
    if options.tls_cert is None or options.tls_key is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A key with a password would ask at a terminal that a daemon does not have.
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise GatewayError(
            "TLS cannot be served with this certificate and key.",
            why=f"{options.tls_cert}, {options.tls_key}: {reason}",
            next=f"openssl x509 -noout -subject -in {shlex.quote(options.tls_cert)}",
            code="bad_certificate",
            exit=Exit.USAGE,
        ) from error


def _no_password() -> str:
    raise ValueError("the key is locked with a password; give one that is not")


def _is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone.

    Of names only `localhost`: what another resolves to is not ours to say.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _listen(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without uvloop, Nagle's algorithm is switched off only where the protocol is named.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            known = error.errno and not isinstance(error, socket.gaierror)
            why = os.strerror(error.errno or 0) if known else error.strerror or str(error)
            raise GatewayError(
                f"Cannot listen on {host} port {port}.",
                why=f"{why}.",
                next=f"mcpgw serve --port {port + 1 if 0 < port < 65535 else 0}",
                code="address_unavailable",
                exit=Exit.UPSTREAM,
            ) from error
        listener.setblocking(False)
        yield listener


async def _signalled(announce: Callable[[], None]) -> None:
    """Returns with the first signal. `announce` runs once signals are heard."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        announce()
        async for _ in signals:
            return


def _announce(house: Assembly, options: ServeOptions, address: str) -> None:
    print(f"mcpgw serves on {address}/mcp", file=sys.stderr, flush=True)  # noqa: T201
    if not options.no_auth and not house.config.snapshot.keys:
        print(  # noqa: T201
            "There is no key yet, so every request is refused. Make one:\n"
            "  mcpgw key create NAME --grant SERVER"
            if options.config is None
            else "No key of the file works, so every request is refused. Each names its secret:\n"
            "  keys: {NAME: {grants: [SERVER], secret: REF}}",
            file=sys.stderr,
            flush=True,
        )
    if options.tls_cert is None and not _is_loopback(options.host):
        _log.warning(
            "plain HTTP beyond loopback: keys and results can be read on the way; "
            "use --tls-cert and --tls-key, or a proxy that ends TLS"
        )


def _status(house: Assembly, *, address: str, started: float) -> dict[str, object]:
    snapshot = house.config.snapshot
    return {
        "pid": os.getpid(),
        "version": __version__,
        "address": address,
        "started": started,
        "generation": snapshot.generation,
        "servers": len(snapshot.servers),
        "keys": len(snapshot.principals),
        "unusable": {
            snapshot.servers[id].name if id in snapshot.servers else id: reason
            for id, reason in snapshot.unusable.items()
        },
        "links": links(house.pool, snapshot),
        "config": None
        if house.filed is None
        else {
            "file": str(house.filed.file.absolute()),
            "fault": house.filed.fault,
            "unusable_keys": house.filed.lost,
        },
    }


def _raise_file_limit() -> None:
    """As many open files as the system lets us have: each session and stream is one."""
    if os.name != "posix":
        return
    import resource  # noqa: PLC0415 - POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            _log.info("raised the limit of open files from %d to %d", soft, hard)

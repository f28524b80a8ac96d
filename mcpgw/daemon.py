"""The one place that wires everything: store, gateway, links and fronts; signals, reload, drain.

`serve` is the daemon. `reach` gives the command line a Handler: the running daemon through its
private door when there is one, and else a gateway of its own, so that no second child process
starts beside a daemon's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.abc
import uvicorn
from msgspec import Raw, Struct

from mcpgw import __version__
from mcpgw.core import wire
from mcpgw.core.eras import LATEST, METHOD_NOT_FOUND
from mcpgw.errors import Exit, GatewayError
from mcpgw.front import app as front_app
from mcpgw.front import stdio as front_stdio
from mcpgw.model.calls import Ask, AskMode, Call, Context, Done, JsonObject, Note, RpcError
from mcpgw.model.config import EVERYTHING, OWNER, Endpoint, Principal, Server, Snapshot
from mcpgw.model.ports import Handler, LinkInfo
from mcpgw.relay.gateway import Gateway
from mcpgw.relay.inputs import Driving
from mcpgw.store.db import Store
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault
from mcpgw.upstream import http1
from mcpgw.upstream.http_modern import HttpModernLink
from mcpgw.upstream.pool import Pool

POLL = 0.25  # seconds between looks at the store; a change takes effect within half a second
RETRY_UNUSABLE = 2.0  # seconds between looks at references that resolved to nothing
DRAIN = 5.0  # seconds that calls in flight may take after a signal to end
DOOR_WAIT = 5.0  # seconds a running daemon may take to answer at its door
DOOR_CALL = 3600.0  # seconds one call through the door may take; the daemon's own bounds come first
SOCKET_PATH = 100  # bytes that every platform allows in a Unix socket's path
KEEP_ALIVE = 75  # seconds an idle client connection stays open

T = TypeVar("T")
_log = logging.getLogger("mcpgw.daemon")


class ServeOptions(Struct, frozen=True, kw_only=True):
    """What `mcpgw serve` was asked for."""

    store: Path
    host: str = "127.0.0.1"
    port: int = 8765
    no_auth: bool = False
    log_format: str = "text"
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


class Reach(Struct, frozen=True):
    """A way to a gateway. `live`: it is the running daemon's."""

    handler: Handler
    ctx: Context
    live: bool
    status: Callable[[], Awaitable[dict[str, Any]]]


def run(fn: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an async function on uvloop where there is one."""
    fast = importlib.util.find_spec("uvloop") is not None
    return anyio.run(fn, *args, backend_options={"use_uvloop": fast})


def door_path(store: Path) -> Path:
    """The Unix socket of the daemon that serves `store`: beside it, or where the path fits."""
    beside = store.resolve().with_suffix(".sock")
    if len(os.fsencode(beside)) <= SOCKET_PATH:
        return beside
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/mcpgw-{os.getuid()}"  # noqa: S108
    digest = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    return Path(runtime) / f"mcpgw-{digest}.sock"


class LiveConfig:
    """The configuration of the moment: one frozen snapshot, swapped when the store changes."""

    def __init__(self, store: Store, secrets: Resolver) -> None:
        self._store = store
        self._secrets = secrets
        self._seen = store.data_version()
        self._changed: list[Callable[[Snapshot, Snapshot], None]] = []
        self.snapshot = build(store, secrets, now=time.time())

    def subscribe(self, changed: Callable[[Snapshot, Snapshot], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    async def watch(self) -> None:
        """Swap the snapshot whenever the configuration tables have changed."""
        looked = time.monotonic()
        while True:
            await anyio.sleep(POLL)
            try:
                version = self._store.data_version()
                stale = version != self._seen and (
                    self._store.generation() != self.snapshot.generation
                )
                self._seen = version
                if self.snapshot.unusable and time.monotonic() - looked >= RETRY_UNUSABLE:
                    stale, looked = True, time.monotonic()
                if stale:
                    self._swap(build(self._store, self._secrets, now=time.time()))
            except GatewayError as error:
                # The last good configuration goes on serving: broken never means allow more.
                _log.error("the store cannot be read, so its changes wait: %s", error.what)

    def _swap(self, new: Snapshot) -> None:
        old, self.snapshot = self.snapshot, new
        for server_id, reason in new.unusable.items():
            if old.unusable.get(server_id) != reason:
                _log.warning("a server cannot be used: %s", reason)
        for changed in tuple(self._changed):
            changed(old, new)


class _Assembly(Struct):
    """A gateway with everything behind it."""

    store: Store
    config: LiveConfig
    vault: Vault
    pool: Pool
    gateway: Gateway


@asynccontextmanager
async def _assembled(path: Path) -> AsyncGenerator[_Assembly]:
    """Open the store and run a gateway over it until the block ends."""
    with Store.open(path) as store:
        vault = Vault(store)
        secrets = Resolver(vault)
        config = LiveConfig(store, secrets)

        def heard(server: str, scope: str, note: Note) -> None:
            gateway.heard(server, scope, note)

        pool = Pool(secrets=secrets, heard=heard)
        gateway = Gateway(links=pool, seal=vault)

        def changed(old: Snapshot, new: Snapshot) -> None:
            for server_id, server in old.servers.items():
                if new.servers.get(server_id) != server:
                    pool.retire(server_id)
            gateway.changed(old, new)

        config.subscribe(changed)
        async with anyio.create_task_group() as tasks:
            await tasks.start(_with_status, pool.run)
            await tasks.start(_with_status, gateway.run)
            tasks.start_soon(config.watch)
            try:
                yield _Assembly(store, config, vault, pool, gateway)
            finally:
                tasks.cancel_scope.cancel()


async def _with_status(
    fn: Callable[..., Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """Call `fn(task_status=…)`: anyio's `start` passes it by keyword, as the ports have it."""
    await fn(task_status=task_status)


def serve(options: ServeOptions) -> None:
    """Serve until a signal ends it. Raises GatewayError when it cannot start."""
    _set_up_logging(options.log_format)
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
        async with _assembled(options.store) as house:
            door = listeners.enter_context(_door(options.store))
            await _serve_fronts(options, settings, house, tcp, door)


async def _serve_fronts(
    options: ServeOptions,
    settings: front_app.Settings,
    house: _Assembly,
    tcp: socket.socket,
    door: socket.socket,
) -> None:
    scheme = "https" if options.tls_cert else "http"
    host, port = tcp.getsockname()[:2]
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    started = time.time()

    def status() -> Mapping[str, object]:
        return _status(house, address=address, started=started)

    app = front_app.App(
        house.gateway, config=house.config, seal=house.vault, settings=settings, status=status
    )
    public = _Uvicorn(_uvicorn_config(app, options))
    private = _Uvicorn(_uvicorn_config(app, None))
    async with anyio.create_task_group() as tasks:
        await tasks.start(_with_status, app.run)
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
    if options.no_auth and not _is_loopback(options.host):
        raise GatewayError(
            f"--no-auth is refused on {options.host}.",
            why="Anybody who reaches that address could use every server.",
            next="mcpgw serve --no-auth --host 127.0.0.1",
            code="no_auth_beyond_loopback",
            exit=Exit.USAGE,
        )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")


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
            raise GatewayError(
                f"Cannot listen on {host} port {port}.",
                why=f"{os.strerror(error.errno or 0)}." if error.errno else str(error),
                next=f"mcpgw serve --port {port + 1 if 0 < port < 65535 else 0}",
                code="address_unavailable",
                exit=Exit.UPSTREAM,
            ) from error
        listener.setblocking(False)
        yield listener


@contextmanager
def _door(store: Path) -> Generator[socket.socket]:
    """The private Unix socket, mode 0600. Refuses when another daemon serves this store."""
    path = door_path(store)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _answers(path):
        raise GatewayError(
            "Another mcpgw serves this store already.",
            why=f"Something answers at {path}.",
            next="mcpgw status",
            code="already_running",
            exit=Exit.UPSTREAM,
        )
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(256)
        listener.setblocking(False)
        inode = path.stat().st_ino
        try:
            yield listener
        finally:
            # Only our own: another daemon may have taken the place in the meantime.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()


def _answers(path: Path) -> bool:
    """Whether a daemon accepts connections at this door."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(DOOR_WAIT)
            probe.connect(str(path))
    except OSError:
        return False
    return True


async def _signalled(announce: Callable[[], None]) -> None:
    """Returns with the first signal. `announce` runs once signals are heard."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        announce()
        async for _ in signals:
            return


def _announce(house: _Assembly, options: ServeOptions, address: str) -> None:
    print(f"mcpgw serves on {address}/mcp", file=sys.stderr, flush=True)  # noqa: T201
    if not options.no_auth and not house.config.snapshot.keys:
        print(  # noqa: T201
            "There is no key yet, so every request is refused. Make one:\n"
            "  mcpgw key create NAME --grant SERVER",
            file=sys.stderr,
            flush=True,
        )
    if options.tls_cert is None and not _is_loopback(options.host):
        _log.warning(
            "plain HTTP beyond loopback: keys and results can be read on the way; "
            "use --tls-cert and --tls-key, or a proxy that ends TLS"
        )


def _status(house: _Assembly, *, address: str, started: float) -> dict[str, object]:
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
        "links": _links(house.pool, snapshot),
    }


def _links(pool: Pool, snapshot: Snapshot) -> list[dict[str, object]]:
    links: list[dict[str, object]] = []
    for report in pool.status():
        server = snapshot.servers.get(report.server_id)
        fields = {name: getattr(report, name) for name in report.__struct_fields__}
        links.append({"server": server.name if server else report.server_id, **fields})
    return links


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


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _set_up_logging(log_format: str) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if log_format == "json" else plain)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = os.environ.get("MCPGW_LOG", "info").upper()
    names = logging.getLevelNamesMapping()
    logging.getLogger("mcpgw").setLevel(names.get(level, logging.INFO))


def _acting(snapshot: Snapshot, key: str | None) -> Principal:
    if key is None:
        return OWNER
    for principal in snapshot.principals.values():
        if principal.name == key:
            return principal
    raise GatewayError(
        f'There is no usable key called "{key}".',
        why="It does not exist, was revoked, or has expired.",
        next="mcpgw key list",
        code="no_such_key",
        exit=Exit.MISSING,
    )


def _endpoint(snapshot: Snapshot, server: str | None) -> Endpoint:
    if server is None:
        return EVERYTHING
    server_id = snapshot.names.get(server.lower())
    if server_id is None:
        raise GatewayError(
            f'There is no enabled server called "{server}".',
            next="mcpgw server list",
            code="no_such_server",
            exit=Exit.MISSING,
        )
    return Endpoint(frozenset({server_id}), native=True)


@asynccontextmanager
async def reach(
    store: Path, *, key: str | None = None, server: str | None = None, own: bool = False
) -> AsyncGenerator[Reach]:
    """A gateway for the store's owner, or for one who acts as `key`.

    server: only that one, under its native names. own: never the running daemon's. Raises
    GatewayError (MISSING) for an unknown key or server.
    """
    door = door_path(store)
    if not own and _answers(door):
        async with _through_door(store, door, key=key, server=server) as reached:
            yield reached
        return
    async with _assembled(store) as house:
        snapshot = house.config.snapshot
        principal, endpoint = _acting(snapshot, key), _endpoint(snapshot, server)
        ctx = Context(
            principal=principal,
            snapshot=snapshot,
            endpoint=endpoint,
            revision=LATEST,
            transport="cli",
            session="cli",
        )

        async def status() -> dict[str, Any]:
            return {"links": _links(house.pool, house.config.snapshot)}

        yield Reach(house.gateway, ctx, False, status)


@asynccontextmanager
async def _through_door(
    store: Path, door: Path, *, key: str | None, server: str | None
) -> AsyncGenerator[Reach]:
    with Store.open(store) as opened:
        secrets = Resolver(Vault(opened))
        snapshot = build(opened, secrets, now=time.time())
        principal, endpoint = _acting(snapshot, key), _endpoint(snapshot, server)
        path = f"/mcp/{server}" if server else "/mcp"
        daemon = Server(
            id="daemon",
            name="daemon",
            prefix="daemon",
            transport="http",
            url=f"http://localhost{path}",
            headers={"mcpgw-act-as": key} if key else {},
            timeout=DOOR_CALL,
        )
        client = http1.Client("http://localhost", unix=str(door))
        info = LinkInfo(revision=LATEST, modern=True, capabilities={}, server=Raw(b"{}"))
        link = HttpModernLink(daemon, client=client, secrets=secrets, discovered=info)
        ctx = Context(
            principal=principal,
            snapshot=snapshot,
            endpoint=endpoint,
            revision=LATEST,
            transport="cli",
        )

        async def status() -> dict[str, Any]:
            return await _ask_status(client)

        try:
            yield Reach(Driving(link), ctx, True, status)
        finally:
            await client.aclose()


async def _ask_status(client: http1.Client) -> dict[str, Any]:
    response = await client.request("GET", "/status", [], timeout=DOOR_WAIT)
    body = await response.read()
    if response.status != 200:
        raise GatewayError(
            "The running daemon did not tell its status.",
            why=f"It answered {response.status}.",
            code="daemon_failed",
            exit=Exit.UPSTREAM,
        )
    return wire.value(body)


async def live_status(store: Path) -> dict[str, Any] | None:
    """What the daemon that serves `store` says of itself; None when none runs."""
    door = door_path(store)
    if not _answers(door):
        return None
    client = http1.Client("http://localhost", unix=str(door))
    try:
        return await _ask_status(client)
    except http1.HttpError as error:
        raise GatewayError(
            "The running daemon does not answer.",
            why=error.message,
            next="mcpgw serve",
            code="daemon_failed",
            exit=Exit.UPSTREAM,
        ) from error
    finally:
        await client.aclose()


Then: TypeAlias = Callable[[Reach, JsonObject], Awaitable[list[dict[str, object]]]]


async def test_server(
    store: Path, name: str, *, then: Then | None = None
) -> list[dict[str, object]]:
    """Reach one server and list its tools: `{"stage", "ok", "detail", "ms"}` for each step.

    then: more steps to take once the tools are listed; gets the way there and the list's result.

    A live link of the running daemon is used as it is. Where it has none the test connects by
    itself, so that what the daemon remembers of an earlier failure cannot hide a mended server.
    """
    live = await live_status(store)
    links: list[dict[str, Any]] = live["links"] if live else []
    own = not any(link["server"] == name and link["state"] == "up" for link in links)
    async with reach(store, server=name, own=own) as reached:
        ctx = reached.ctx
        steps: list[dict[str, object]] = []
        methods = {"handshake": "server/discover", "list": "tools/list"}
        for stage, method in methods.items():
            began = time.perf_counter()
            try:
                reply = await reached.handler.handle(Call(method, {}, ctx), Unasked())
            except RpcError as error:
                steps.append(_step(_stage(error) or stage, began, failed=error.message))
                return steps
            result = reply.result if isinstance(reply, Done) else {}
            if stage == "handshake":
                status = await reached.status()
                mine = [link for link in status["links"] if link["server"] == name]
                revision = mine[-1]["revision"] if mine else None
                steps.append(_step(stage, began, revision=revision))
                if "tools" not in wire.members(result.get("capabilities", wire.EMPTY)):
                    return steps
            else:
                tools = len(wire.array(result.get("tools", Raw(b"[]"))))
                steps.append(_step(stage, began, tools=tools))
                if then is not None:
                    steps += await then(reached, result)
        return steps


class Unasked:
    """A caller that cannot be asked and does not read notes."""

    ask_mode = AskMode.NEVER

    async def tell(self, note: Note) -> None:
        """Nobody reads it."""

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, f"nobody is there to answer {ask.method}")


def _step(
    stage: str, began: float, *, failed: str | None = None, **facts: object
) -> dict[str, object]:
    ms = round((time.perf_counter() - began) * 1000, 1)
    detail = failed if failed is not None else ", ".join(f"{k} {v}" for k, v in facts.items() if v)
    return {"stage": stage, "ok": failed is None, "detail": detail, "ms": ms, **facts}


def _stage(error: RpcError) -> str | None:
    """Where an upstream failed, as the relay tells it in the error's data."""
    if error.data is None:
        return None
    try:
        return wire.text(wire.members(error.data).get("stage"))
    except wire.BadMessage:  # an upstream's own data may be anything
        return None


async def serve_stdio(store: Path, *, key: str | None) -> None:
    """MCP on standard input and output, until the input ends."""
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("mcpgw").handlers[:] = [handler]
    logging.getLogger("mcpgw").setLevel(logging.WARNING)
    async with reach(store, key=key) as reached:
        await front_stdio.serve(reached.handler, ctx=reached.ctx)

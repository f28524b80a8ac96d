"""Every way the gateway is reached over HTTP: one ASGI application.

A request passes Host and Origin, then its key, then the era it speaks. Modern requests are served
for themselves, legacy ones in a session, at the same address. The private Unix socket serves the
store's owner and tells the daemon's status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from mcpgw.core import wire
from mcpgw.core.access import Access, Ladder, address
from mcpgw.core.eras import INVALID_REQUEST, MODERN, PROTOCOL_VERSION, SUPPORTED
from mcpgw.front import modern
from mcpgw.front.auth import Auth, current, unauthorized, valid
from mcpgw.front.exchange import Exchange, Gone, Receive, Refused, Scope, Send, internal
from mcpgw.front.guard import ALLOWED_METHODS, Guard
from mcpgw.front.http import Connection
from mcpgw.front.modern import Base
from mcpgw.front.sessions import Sessions
from mcpgw.front.sse import MESSAGES, Sse
from mcpgw.front.streamable import Streamable
from mcpgw.model.calls import Done, RpcError
from mcpgw.model.config import EVERYTHING, Endpoint, Principal, Snapshot
from mcpgw.model.ports import Config, Handler

BODY_LIMIT: Final = 4 * 1024 * 1024  # bytes of one request
QUIET: Final = 15.0  # seconds of silence before a comment keeps a stream alive
BEAT: Final = 1.0  # seconds between looks at streams and sessions
MAX_ENDPOINTS: Final = 4096  # addresses whose verdict is remembered, for one snapshot
WATCH_AFTER: Final = 0.05  # seconds a call runs before its client is watched by a task

SERVERS: Final = "x-mcp-servers"  # LiteLLM's header: names that a client restricts itself to
MAX_NAMED: Final = 256  # names in it that are looked at

_HEALTH: Final = ("/livez", "/readyz")


class Settings(Struct, frozen=True, kw_only=True):
    """How the front is reached.

    host, port: what is bound to. door: path of the private Unix socket. body_limit: bytes.
    quiet: seconds.
    """

    host: str
    port: int
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    no_auth: bool = False
    trusted_proxies: tuple[str, ...] = ()
    tls: bool = False
    door: str | None = None
    body_limit: int = BODY_LIMIT
    quiet: float = QUIET


class App:
    """The ASGI application. `run` owns its sessions and must run while it serves.

    status: what GET /status on the private socket answers with.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        config: Config,
        settings: Settings,
        status: Callable[[], Mapping[str, object]],
    ) -> None:
        self._handler = handler
        self._config = config
        self._settings = settings
        self._status = status
        self._auth = Auth(no_auth=settings.no_auth)
        self._guard = Guard(
            settings.host, settings.allow_hosts, settings.allow_origins, settings.trusted_proxies
        )
        self.sessions = Sessions()
        self._legacy = Streamable(handler, self.sessions)
        self._sse = Sse(handler, self.sessions)
        self._live: set[Exchange] = set()
        self._endpoints: tuple[Snapshot | None, dict[tuple[str, str], Endpoint | None]] = (None, {})
        self._tasks: anyio.abc.TaskGroup | None = None
        self._ready = False

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Own the sessions and keep streams alive until cancelled."""
        stop = self._config.subscribe(self._changed)
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = self._legacy.tasks = self._sse.tasks = tasks
                self._ready = True
                task_status.started()
                while True:
                    await anyio.sleep(min(BEAT, self._settings.quiet))
                    self._beat(tasks)
        finally:
            self._ready = False
            self._tasks = self._legacy.tasks = self._sse.tasks = None
            stop()
            self.sessions.close()

    async def drain(self) -> None:
        """End what would not end by itself: listens, and held streams. Calls go on."""
        self._ready = False
        for exchange in tuple(self._live):
            if exchange.endless:
                exchange.close(Done({}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        connection = exchange.connection
        exchange.touched = asyncio.get_running_loop().time()
        self._live.add(exchange)
        if connection is not None:
            connection.watchers.add(exchange)
        try:
            await self._serve(exchange)
        except Gone:
            pass
        except Refused as refused:
            await self._fail(exchange, refused.status, refused.error, *refused.fields)
        except wire.BadMessage as error:
            failed = RpcError(error.code, error.message)
            if not exchange.started:
                await exchange.respond(400, wire.error(error.id, failed))
        except Exception as error:  # noqa: BLE001 - the boundary of a front request
            await self._fail(exchange, 500, internal(error))
        finally:
            self._live.discard(exchange)
            if connection is not None:
                connection.watchers.discard(exchange)

    async def _fail(
        self, exchange: Exchange, status: int, error: RpcError, *fields: tuple[bytes, bytes]
    ) -> None:
        if not exchange.started:
            await exchange.refuse(status, error, *fields)
        elif exchange.streaming:
            await exchange.end()

    # ------------------------------------------------------------ from an address to its answer

    async def _serve(self, exchange: Exchange) -> None:
        path = exchange.path
        if path in _HEALTH:
            await self._health(exchange)
            return
        snapshot = self._config.snapshot
        door = self._settings.door
        server = exchange.scope.get("server")
        inside = door is not None and server is not None and server[0] == door
        if inside:
            principal = self._auth.insider(exchange, snapshot)
        else:
            self._guard.check(exchange)
            if exchange.method == "OPTIONS":
                await self._guard.preflight(exchange)
                return
            principal = self._auth.principal(exchange, snapshot)
        exchange.principal = principal
        if path == "/mcp":
            endpoint = self._narrowed(exchange, snapshot)
            await self._mcp(exchange, principal, snapshot, endpoint, inside=inside)
        elif path == "/status" and inside and exchange.method == "GET":
            await exchange.respond(200, msgspec.json.encode(self._status()))
        elif path in (MESSAGES, MESSAGES + "/"):
            self._only(exchange, "POST")
            self._json_only(exchange)
            body = await exchange.body(self._settings.body_limit)
            base = self._base(exchange, principal, snapshot, EVERYTHING, "sse")
            await self._sse.post(exchange, base, body)
        else:
            await self._routed(exchange, principal, snapshot, inside=inside)

    async def _routed(
        self, exchange: Exchange, principal: Principal, snapshot: Snapshot, *, inside: bool
    ) -> None:
        """The addresses with the name of a server or group in them. Raises Refused (404)."""
        words = exchange.path.strip("/").split("/")
        match words:
            case ["mcp"]:
                endpoint = self._narrowed(exchange, snapshot)
                await self._mcp(exchange, principal, snapshot, endpoint, inside=inside)
            case ["sse"]:
                endpoint = self._narrowed(exchange, snapshot)
                await self._open_sse(exchange, principal, snapshot, endpoint)
            case ["mcp", name] | [name, "mcp"]:
                endpoint = self._endpoint(snapshot, principal, name)
                await self._mcp(exchange, principal, snapshot, endpoint, inside=inside)
            case ["mcp", name, "sse"]:
                endpoint = self._endpoint(snapshot, principal, name)
                await self._open_sse(exchange, principal, snapshot, endpoint)
            case _:
                raise _nothing_here()

    def _endpoint(self, snapshot: Snapshot, principal: Principal, name: str) -> Endpoint:
        """One server under its native names, or, behind an `@`, a group under public ones.

        Denied looks like absent: both raise Refused (404).
        """
        endpoints = self._known(snapshot)
        key = (principal.id, name.lower())
        if key not in endpoints:
            endpoints[key] = _usable(_addressed(snapshot, key[1]), principal, snapshot)
        endpoint = endpoints[key]
        if endpoint is None:
            raise _nothing_here()
        return endpoint

    def _narrowed(self, exchange: Exchange, snapshot: Snapshot) -> Endpoint:
        """Everything, or the servers and groups that `x-mcp-servers` names.

        Names that are nobody's add nothing, so that they look like those that are denied.
        """
        named = exchange.headers.pop(SERVERS, None)
        if not named:
            return EVERYTHING
        endpoints = self._known(snapshot)
        key = (SERVERS, named)
        endpoint = endpoints.get(key)
        if endpoint is None:
            words = [word.strip().lower() for word in named.split(",")][:MAX_NAMED]
            endpoint = endpoints[key] = Endpoint(
                frozenset(snapshot.names[word] for word in words if word in snapshot.names),
                groups=frozenset(
                    snapshot.group_names[word] for word in words if word in snapshot.group_names
                ),
            )
        return endpoint

    def _known(self, snapshot: Snapshot) -> dict[tuple[str, str], Endpoint | None]:
        """The addresses that were looked at under this snapshot."""
        seen, endpoints = self._endpoints
        if seen is not snapshot or len(endpoints) >= MAX_ENDPOINTS:
            endpoints = {}
            self._endpoints = (snapshot, endpoints)
        return endpoints

    async def _health(self, exchange: Exchange) -> None:
        if exchange.path == "/livez" or self._ready:
            await exchange.respond(200, b'{"status":"ok"}')
        else:
            await exchange.respond(503, b'{"status":"not ready"}')

    async def _open_sse(
        self, exchange: Exchange, principal: Principal, snapshot: Snapshot, endpoint: Endpoint
    ) -> None:
        self._only(exchange, "GET")
        exchange.endless = True
        await self._sse.open(exchange, self._base(exchange, principal, snapshot, endpoint, "sse"))

    async def _mcp(
        self,
        exchange: Exchange,
        principal: Principal,
        snapshot: Snapshot,
        endpoint: Endpoint,
        *,
        inside: bool,
    ) -> None:
        """One MCP endpoint. Raises Refused, Gone, BadMessage."""
        transport = "door" if inside else "http"
        method = exchange.method
        if method == "POST":
            self._json_only(exchange)
            as_json, as_stream = accepted(exchange.headers.get("accept"))
            if not (as_json or as_stream):
                raise Refused(
                    406,
                    RpcError(INVALID_REQUEST, "accept application/json and text/event-stream"),
                )
            body = await exchange.body(self._settings.body_limit)
            base = self._base(exchange, principal, snapshot, endpoint, transport)
            await self._post(exchange, body, base, streams=as_stream)
            return
        if exchange.headers.get("mcp-protocol-version") in MODERN:
            raise _not_allowed(b"POST")
        base = self._base(exchange, principal, snapshot, endpoint, transport)
        if method == "GET":
            if not accepted(exchange.headers.get("accept"), default=True)[1]:
                raise Refused(406, RpcError(INVALID_REQUEST, "accept text/event-stream"))
            exchange.endless = True
            await self._legacy.get(exchange, base)
        elif method == "DELETE":
            await self._legacy.delete(exchange, base)
        else:
            raise _not_allowed(ALLOWED_METHODS)

    async def _post(self, exchange: Exchange, body: bytes, base: Base, *, streams: bool) -> None:
        version = exchange.headers.get("mcp-protocol-version")
        if wire.is_batch(body):
            if version in MODERN:
                raise Refused(400, RpcError(INVALID_REQUEST, f"{version} has no batches"))
            await self._legacy.post_batch(exchange, body, base, streams=streams)
            return
        message = wire.parse(body)
        if isinstance(message, wire.Request):
            meta = modern.meta_of(message.params)
            if (meta is not None and PROTOCOL_VERSION in meta) or (
                version in MODERN and message.method != "initialize"
            ):
                await self._modern(exchange, message, meta, base, streams=streams)
                return
            if version is not None and version not in SUPPORTED and message.method != "initialize":
                failed = modern.unsupported(version)
                await exchange.respond(400, wire.error(message.id, failed))
                return
        elif version in MODERN:
            # 2026-07-28 has no notification that an HTTP client could mean anything by, and
            # no posted responses.
            if isinstance(message, wire.Response):
                raise Refused(400, RpcError(INVALID_REQUEST, f"{version} has no posted responses"))
            await exchange.respond(202)
            return
        await self._legacy.post(exchange, message, base, streams=streams)

    async def _modern(
        self,
        exchange: Exchange,
        request: wire.Request,
        meta: wire.JsonObject | None,
        base: Base,
        *,
        streams: bool,
    ) -> None:
        try:
            version = modern.check(request, meta, exchange.headers, exchange.twice)
            lifted = modern.lift(request, cast("wire.JsonObject", meta), version, base)
        except RpcError as error:
            await exchange.respond(*modern.status_of(error, wire.error(request.id, error)))
            return
        if lifted.listening:
            if not streams:
                raise Refused(406, RpcError(INVALID_REQUEST, "accept text/event-stream"))
            exchange.endless = True
        if exchange.connection is not None:
            await modern.serve(exchange, lifted, self._handler, streams=streams)
            return
        # Another server than ours: only a task that reads learns that the client hung up.
        watch = asyncio.get_running_loop().call_later(WATCH_AFTER, self._watch, exchange)
        try:
            await modern.serve(exchange, lifted, self._handler, streams=streams)
        finally:
            watch.cancel()

    def _watch(self, exchange: Exchange) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(exchange.hung_up)

    def _base(
        self,
        exchange: Exchange,
        principal: Principal,
        snapshot: Snapshot,
        endpoint: Endpoint,
        transport: str,
    ) -> Base:
        if (newest := self._config.snapshot) is not snapshot:
            # It changed while the request arrived, which its sender can draw out.
            found = current(principal, newest, time.time())
            if found is None:
                raise unauthorized("the key is no longer valid")
            principal, snapshot = found, newest
        # Our own programs at the door do not know the tools, so they mirror no arguments.
        mirrored = transport == "http"
        return Base(principal, snapshot, endpoint, transport, exchange.headers, mirrored=mirrored)

    def _only(self, exchange: Exchange, method: str) -> None:
        if exchange.method != method:
            raise _not_allowed(method.encode())

    def _json_only(self, exchange: Exchange) -> None:
        kind = exchange.headers.get("content-type", "")
        if kind != "application/json" and kind.split(";", 1)[0].strip().lower() != (
            "application/json"
        ):
            raise Refused(415, RpcError(INVALID_REQUEST, "Content-Type must be application/json"))

    # ------------------------------------------------------------ what lasts longer than a request

    def _changed(self, old: Snapshot, new: Snapshot) -> None:
        self._recheck(new)

    def _recheck(self, snapshot: Snapshot) -> None:
        """End sessions and endless streams of those who may no longer be here."""
        clock = time.time()
        self.sessions.recheck(snapshot, clock)
        for exchange in tuple(self._live):
            principal = exchange.principal if exchange.endless else None
            if principal is not None and not valid(principal, snapshot, clock):
                exchange.close(unauthorized("the key is no longer valid").error)

    def _beat(self, tasks: anyio.abc.TaskGroup) -> None:
        now = asyncio.get_running_loop().time()
        for exchange in tuple(self._live):
            soon = exchange.eager and not exchange.started
            if now - exchange.touched >= (BEAT if soon else self._settings.quiet):
                tasks.start_soon(_keep_alive, exchange)
        self.sessions.sweep(now)
        self._recheck(self._config.snapshot)


async def _keep_alive(exchange: Exchange) -> None:
    try:
        await exchange.keep_alive()
    except Exception as error:  # noqa: BLE001 - the boundary of a stream's upkeep
        internal(error)


def accepted(accept: str | None, *, default: bool = False) -> tuple[bool, bool]:
    """Whether JSON and whether server-sent events are acceptable.

    default: what a client that accepts anything, or says nothing, gets of server-sent events.
    """
    if accept is None:
        return True, default
    if accept == "application/json, text/event-stream":
        return True, True
    as_json = as_stream = False
    for part in accept.lower().split(","):
        kind = part.split(";", 1)[0].strip()
        if kind == "*/*":
            as_json, as_stream = True, as_stream or default
        elif kind in ("application/json", "application/*"):
            as_json = True
        elif kind in ("text/event-stream", "text/*"):
            as_stream = True
    return as_json, as_stream


def _addressed(snapshot: Snapshot, name: str) -> Endpoint | None:
    """What a lower-case name in an address stands for."""
    if name.startswith("@"):
        group = snapshot.group_names.get(name[1:])
        return None if group is None else Endpoint(frozenset(), groups=frozenset({group}))
    server = snapshot.names.get(name)
    return None if server is None else Endpoint(frozenset({server}), native=True)


def _usable(endpoint: Endpoint | None, principal: Principal, snapshot: Snapshot) -> Endpoint | None:
    """The endpoint, if there is anything at it for this principal."""
    if endpoint is None:
        return None
    narrow = address(endpoint, snapshot)
    ladder = Ladder(principal) if narrow is None else Ladder(principal, narrow)
    for server in snapshot.servers.values():
        within = narrow is not None or server.id in (endpoint.servers or ())
        if within and Access(principal, server, ladder).usable:
            return endpoint
    return None


def _nothing_here() -> Refused:
    return Refused(404, RpcError(INVALID_REQUEST, "there is nothing at this address"))


def _not_allowed(methods: bytes) -> Refused:
    return Refused(405, RpcError(INVALID_REQUEST, "method not allowed"), (b"allow", methods))


__all__ = ["App", "Connection", "Settings"]

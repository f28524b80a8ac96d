"""A front over a real socket: uvicorn, App and a scripted handler; and a raw HTTP/1.1 peer.

The peer sends exactly the bytes it is told to, so that a test can stop in the middle, pipeline, or
hang up.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.abc
import uvicorn

from mcpgw.core.sse import Decoder, Event
from mcpgw.front.app import App, Settings
from mcpgw.front.http import Connection
from mcpgw.model.config import Target
from mcpgw.model.ports import Handler
from tests.doubles import PATIENCE, FixedConfig, key, server, snapshot

ALICE = key("alice", Target("*"))
BOB = key("bob", Target("id-github"))
SNAPSHOT = snapshot(server("github"), server("jira"), principals=(ALICE, BOB))
LEGACY = "2025-11-25"
MODERN = "2026-07-28"
BOTH = "application/json, text/event-stream"


class Response:
    """A whole response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer:
    """One connection to the front."""

    def __init__(self, stream: anyio.abc.SocketStream, headers: Mapping[str, str]) -> None:
        self.stream = stream
        self.headers = dict(headers)
        self._buffer = b""
        self._left = 0  # of a chunk
        self._decoder = Decoder()
        self._events: list[Event] = []

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> None:
        """A request. body: bytes as they are, anything else as JSON. A header None is left out."""
        await self.stream.send(self.request_bytes(method, path, body, headers))

    def request_bytes(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> bytes:
        content = body if isinstance(body, bytes) else b"" if body is None else _dump(body)
        fields: dict[str, str | None] = {"host": "localhost", **self.headers}
        if body is not None:
            fields |= {"content-type": "application/json", "accept": BOTH}
            fields["content-length"] = str(len(content))
        fields |= headers or {}
        lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
        return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + content

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Response:
        await self.send(method, path, body, headers)
        return await self.response()

    async def response(self) -> Response:
        status, headers = await self.head()
        with anyio.fail_after(PATIENCE):
            if "content-length" in headers:
                return Response(status, headers, await self._take(int(headers["content-length"])))
            body = b""
            if headers.get("transfer-encoding") == "chunked":
                while chunk := await self._chunk():
                    body += chunk
            return Response(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        with anyio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in self._buffer:
                self._buffer += await self.stream.receive()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        fields = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}

    async def event(self) -> Event | None:
        """The next event of a stream; None at its end."""
        with anyio.fail_after(PATIENCE):
            while not self._events:
                chunk = await self._chunk()
                if not chunk:
                    return None
                self._events = self._decoder.feed(chunk)
        return self._events.pop(0)

    async def message(self) -> Any:
        """The JSON of the next event that has data."""
        while (event := await self.event()) is not None:
            if event.data:
                return json.loads(event.data)
        return None

    async def comment(self) -> bytes:
        """The next chunk of a stream, as it comes."""
        with anyio.fail_after(PATIENCE):
            return await self._chunk()

    async def closed(self) -> bool:
        """Whether the front closes this connection."""
        with anyio.fail_after(PATIENCE):
            try:
                while True:
                    await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return True

    async def _chunk(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._buffer += await self.stream.receive()
        size, self._buffer = self._buffer.split(b"\r\n", 1)
        chunk = await self._take(int(size, 16))
        await self._take(2)
        return chunk

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += await self.stream.receive()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


class Front:
    """A running front."""

    def __init__(
        self, app: App, config: FixedConfig, address: str | int, connections: set[Any]
    ) -> None:
        self.app = app
        self.connections = connections
        self.config = config
        self.address = address
        self._peers: list[anyio.abc.SocketStream] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address}"

    async def peer(self, key: str | None = "alice", **headers: str) -> Peer:
        if isinstance(self.address, int):
            stream: Any = await anyio.connect_tcp("127.0.0.1", self.address)
        else:
            stream = await anyio.connect_unix(self.address)
        self._peers.append(stream)
        if key is not None:
            headers["authorization"] = f"Bearer mcpgw_{key}"
        return Peer(stream, headers)

    async def close(self) -> None:
        for stream in self._peers:
            await stream.aclose()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def front(
    handler: Handler,
    *,
    config: FixedConfig | None = None,
    http: type[Connection] | str = Connection,
    door: str | None = None,
    **settings: Any,
) -> AsyncGenerator[Front]:
    """A front that serves `handler` until the block ends. door: serve at that Unix socket."""
    config = config or FixedConfig(SNAPSHOT)
    chosen: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "door": door, **settings}
    if door is None:
        listener = socket.create_server(("127.0.0.1", 0))
        address: str | int = listener.getsockname()[1]
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(door)
        listener.listen()
        address = door
    app = App(
        handler,
        config=config,
        settings=Settings(**chosen),
        status=lambda: {"pid": 1},
    )
    uv = _Uvicorn(
        uvicorn.Config(
            app,
            http=http,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    with listener:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_run, app)
            tasks.start_soon(uv.serve, [listener])
            await uv.up.wait()
            made = Front(app, config, address, uv.server_state.connections)
            try:
                yield made
            finally:
                with anyio.CancelScope(shield=True):
                    await made.close()
                    await app.drain()
                    for listening in uv.servers:  # its own shutdown takes ticks of 0.1 s
                        listening.close()
                tasks.cancel_scope.cancel()


async def _run(app: App, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await app.run(task_status=task_status)


def _dump(body: object) -> bytes:
    return json.dumps(body).encode()


# ---------------------------------------------------------------- messages


def modern(
    method: str,
    params: Mapping[str, object] | None = None,
    *,
    id: object = 1,
    capabilities: Mapping[str, object] | None = None,
    meta: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """A modern request."""
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": method,
        "params": {
            **(params or {}),
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": capabilities or {},
                **(meta or {}),
            },
        },
    }


def mirrored(body: Mapping[str, Any]) -> dict[str, str | None]:
    """The header fields that go with a modern request."""
    params = body["params"]
    fields: dict[str, str | None] = {"mcp-protocol-version": MODERN, "mcp-method": body["method"]}
    if (name := params.get("name") or params.get("uri")) is not None:
        fields["mcp-name"] = name
    return fields


def request(method: str, params: Mapping[str, object] | None = None, *, id: object = 1) -> Any:
    """A legacy request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def note(method: str, params: Mapping[str, object] | None = None) -> Any:
    return {"jsonrpc": "2.0", "method": method, "params": params or {}}


def hello(revision: str = LEGACY, capabilities: Mapping[str, object] | None = None) -> Any:
    return request(
        "initialize",
        {
            "protocolVersion": revision,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "peer", "version": "1"},
        },
        id="hello",
    )


async def session(
    peer: Peer,
    revision: str = LEGACY,
    capabilities: Mapping[str, object] | None = None,
    path: str = "/mcp",
) -> Response:
    """Initialize; the peer's later requests carry the session."""
    answer = await peer.ask("POST", path, hello(revision, capabilities))
    assert answer.status == 200, answer.body
    peer.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
    if revision != "2025-03-26":
        peer.headers["mcp-protocol-version"] = revision
    told = await peer.ask("POST", path, note("notifications/initialized"))
    assert told.status == 202
    return answer


def texts(items: Sequence[Any]) -> list[str]:
    return [item["text"] for item in items]

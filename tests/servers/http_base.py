"""A real HTTP server in the test's own loop, and one exchange as a script sees it.

A script is an async function of one Exchange; the MCP servers beside this file choose the script
and count what they were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, TypeAlias

import anyio
import uvicorn

from mcpgw.model.calls import Note

PATIENCE = 5.0  # seconds a test waits for something that must happen

Script: TypeAlias = Callable[["Exchange"], Awaitable[None]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class Dropped(Exception):
    """Raised by a script to cut the connection where it stands."""


class Exchange:
    """One request and its answer. `message` is the JSON body, None when there is none."""

    def __init__(
        self, app: Any, scope: Mapping[str, Any], body: bytes, receive: Any, send: Any
    ) -> None:
        self.app = app
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.fields: list[tuple[str, str]] = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        self.headers = dict(self.fields)
        self.body = body
        self.message: Any = json.loads(body) if body else None
        self.rpc = _method(self.message)
        self._receive = receive
        self._send = send
        self.streaming = False

    @property
    def params(self) -> dict[str, Any]:
        return self.message.get("params") or {}

    @property
    def meta(self) -> dict[str, Any]:
        return self.params.get("_meta") or {}

    async def respond(
        self,
        status: int,
        body: bytes = b"",
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        if kind is not None:
            fields.append((b"content-type", kind.encode()))
        fields.append((b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})

    async def json(
        self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.respond(status, body, "application/json", headers)

    async def result(self, **result: Any) -> None:
        """A JSON answer, or the last event of the stream when there is one."""
        await self.answer({"jsonrpc": "2.0", "id": self.message["id"], "result": result})

    async def error(self, code: int, message: str, data: Any = None, status: int = 200) -> None:
        error: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            error["data"] = data
        await self.answer({"jsonrpc": "2.0", "id": self.message["id"], "error": error}, status)

    async def answer(self, message: Any, status: int = 200) -> None:
        if self.streaming:
            await self.event(message)
            await self.end()
        else:
            await self.json(message, status)

    async def stream(self, headers: Mapping[str, str] | None = None) -> None:
        await self.start("text/event-stream", headers)
        self.streaming = True

    async def start(self, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """The head of a body that `write` and `end` make."""
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        fields.append((b"content-type", kind.encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def event(
        self, content: Any = None, *, id: str | None = None, retry: int | None = None
    ) -> None:
        """One event; content None is an event with empty data."""
        lines = ["event: message"]
        if id is not None:
            lines.append(f"id: {id}")
        if retry is not None:
            lines.append(f"retry: {retry}")
        lines.append("data: " + ("" if content is None else json.dumps(content)))
        await self.write("\n".join(lines).encode() + b"\n\n")

    async def note(self, method: str, **params: Any) -> None:
        await self.event({"jsonrpc": "2.0", "method": method, "params": params})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def gone(self) -> None:
        """Returns when the client has closed the connection."""
        with anyio.fail_after(PATIENCE):
            while (await self._receive())["type"] != "http.disconnect":
                pass


def _method(message: Any) -> str | None:
    return message.get("method") if hasattr(message, "get") else None


class HttpServer:
    """Records every request, then runs `script`."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.url = ""
        self._news = anyio.Event()

    async def script(self, exchange: Exchange) -> None:
        await exchange.respond(404)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        exchange = Exchange(self, scope, body, receive, send)
        self.seen.append(exchange)
        self._tick()
        await self.script(exchange)

    def _tick(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def of(self, method: str) -> list[Exchange]:
        """The requests with this JSON-RPC method, or this HTTP method."""
        return [one for one in self.seen if method in (one.method, one.rpc)]

    async def reached(self, method: str, count: int = 1) -> Exchange:
        """The `count`-th request of a method, once it has come."""
        with anyio.fail_after(PATIENCE):
            while len(self.of(method)) < count:
                await self._news.wait()
        return self.of(method)[count - 1]


class Ears:
    """Takes the notes that a link hears, and waits for them."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._news = anyio.Event()

    def __call__(self, note: Note) -> None:
        self.notes.append(note)
        self._news.set()
        self._news = anyio.Event()

    async def noted(self, count: int) -> list[Note]:
        """The notes so far, once there are at least `count`."""
        with anyio.fail_after(PATIENCE):
            while len(self.notes) < count:
                await self._news.wait()
        return self.notes


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = anyio.Event()
        self.stop = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, without its naps."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def main_loop(self) -> None:
        await self.stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncGenerator[str]:
    """Serve an ASGI app on a free loopback port; yields `http://127.0.0.1:PORT`."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        date_header=False,
        timeout_graceful_shutdown=0,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = _Uvicorn(config)
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if isinstance(app, HttpServer):
            app.url = f"{url}/mcp"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                with anyio.fail_after(PATIENCE):
                    await server.up.wait()
                yield url
            finally:
                server.should_exit = server.force_exit = True
                server.stop.set()

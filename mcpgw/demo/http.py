"""A demo server over HTTP: `python -m mcpgw.demo.http http|sse REVISION`.

It takes a free loopback port, writes its URL to stdout as the first line, and ends when stdin
ends: whoever started it cannot leave it behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, TypeAlias

import uvicorn

from mcpgw.core.eras import HEADER_MISMATCH, LEGACY, NAME_PARAM, PARSE_ERROR
from mcpgw.core.eras import PROTOCOL_VERSION as VERSION_KEY
from mcpgw.demo import eras
from mcpgw.demo.offers import Json, Refused, fields

KEEP_ALIVE = 15.0  # seconds between comments on an idle stream

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]
Answering: TypeAlias = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One HTTP request and the way to answer it."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self._receive = receive
        self._send = send

    async def message(self) -> object:
        """The body as JSON. Raises Refused."""
        body, more = b"", True
        while more:
            part = await self._receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        try:
            return json.loads(body)
        except ValueError:
            raise Refused(PARSE_ERROR, "not JSON", http_status=400) from None

    async def answer(
        self, status: int, content: Json | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        lines = {"content-length": str(len(body)), **(headers or {})}
        if content is not None:
            lines["content-type"] = "application/json"
        await self._start(status, lines)
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, events: asyncio.Queue[tuple[str, str]]) -> None:
        """Server-sent events out of the queue until the client hangs up."""
        kind = {"content-type": "text/event-stream", "cache-control": "no-store"}
        await self._start(200, {**kind, "x-accel-buffering": "no"})
        gone = asyncio.create_task(self._gone())
        try:
            while not gone.done():
                await self._event(events, gone)
        finally:
            gone.cancel()

    async def _event(
        self, events: asyncio.Queue[tuple[str, str]], gone: asyncio.Task[None]
    ) -> None:
        """Send the next event, or a comment when there was none for a while."""
        following = asyncio.create_task(events.get())
        await asyncio.wait(
            {following, gone}, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED
        )
        if following.done():
            event, data = following.result()
            text = f"event: {event}\ndata: {data}\n\n"
        else:
            following.cancel()
            text = ": alive\n\n"
        if not gone.done():
            part = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            await self._send(part)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, lines: Mapping[str, str]) -> None:
        headers = [(name.encode(), value.encode()) for name, value in lines.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def modern(name: str) -> Answering:
    """Streamable HTTP of 2026-07-28: POST alone, no sessions, headers that equal the body."""

    async def serve(exchange: Exchange) -> None:
        if exchange.method != "POST":
            await exchange.answer(405, headers={"allow": "POST"})
            return
        message: object = None
        try:
            message = await exchange.message()
            _check_headers(exchange.headers, fields(message))
            reply = eras.stateless(name, message)
        except Refused as refused:
            await exchange.answer(refused.http_status, eras.error(message, refused))
            return
        if reply is None:
            await exchange.answer(202)
        elif "id" in reply:
            await exchange.answer(200, reply)
        else:
            await exchange.stream(_events(reply))

    return serve


def _check_headers(headers: Mapping[str, str], message: Json) -> None:
    params = fields(message.get("params"))
    meta = fields(params.get("_meta"))
    wanted = {
        "mcp-protocol-version": meta.get(VERSION_KEY),
        "mcp-method": message.get("method"),
        "mcp-name": params.get(NAME_PARAM.get(message.get("method", ""), "")),
    }
    for header, value in wanted.items():
        if value is not None and headers.get(header) != value:
            raise Refused(HEADER_MISMATCH, f"{header} differs from the body", http_status=400)


def _events(*messages: Json) -> asyncio.Queue[tuple[str, str]]:
    events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    for message in messages:
        events.put_nowait(("message", json.dumps(message)))
    return events


def legacy(name: str, revision: str) -> Answering:
    """Streamable HTTP with sessions; it has nothing to say on a stream of its own."""
    sessions: dict[str, eras.Session] = {}

    async def serve(exchange: Exchange) -> None:
        id = exchange.headers.get("mcp-session-id")
        if exchange.method == "DELETE":
            await exchange.answer(204 if sessions.pop(id or "", None) else 404)
        elif exchange.method != "POST":
            await exchange.answer(405, headers={"allow": "POST, DELETE"})
        else:
            await post(exchange, id)

    async def post(exchange: Exchange, id: str | None) -> None:
        try:
            message = await exchange.message()
        except Refused as refused:
            await exchange.answer(400, eras.error(None, refused))
            return
        headers: dict[str, str] = {}
        if fields(message).get("method") == "initialize":
            id = headers["mcp-session-id"] = secrets.token_urlsafe(16)
            sessions[id] = eras.Session(name, revision)
        if id not in sessions:
            await exchange.answer(400 if id is None else 404)
            return
        reply = sessions[id].receive(message)
        await exchange.answer(202 if reply is None else 200, reply, headers)

    return serve


def sse(name: str, revision: str) -> Answering:
    """HTTP+SSE of 2024-11-05: GET opens the stream, which says where to POST."""
    sessions: dict[str, tuple[eras.Session, asyncio.Queue[tuple[str, str]]]] = {}

    async def serve(exchange: Exchange) -> None:
        if exchange.path == "/sse" and exchange.method == "GET":
            await listen(exchange)
        elif exchange.path == "/messages" and exchange.method == "POST":
            await post(exchange)
        else:
            await exchange.answer(405 if exchange.path in ("/sse", "/messages") else 404)

    async def listen(exchange: Exchange) -> None:
        id, events = secrets.token_urlsafe(16), _events()
        events.put_nowait(("endpoint", f"/messages?session={id}"))
        sessions[id] = eras.Session(name, revision), events
        try:
            await exchange.stream(events)
        finally:
            del sessions[id]

    async def post(exchange: Exchange) -> None:
        found = sessions.get(exchange.query.removeprefix("session="))
        if found is None:
            await exchange.answer(404)
            return
        session, events = found
        try:
            reply = session.receive(await exchange.message())
        except Refused as refused:
            await exchange.answer(400, eras.error(None, refused))
            return
        await exchange.answer(202)
        if reply is not None:
            events.put_nowait(("message", json.dumps(reply)))

    return serve


class _Uvicorn(uvicorn.Server):
    """Leaves signals alone: the end of stdin ends this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def run(answering: Answering, path: str) -> None:
    """Serve until stdin ends."""

    async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        if exchange.path == path or path == "/sse":
            await answering(exchange)
        else:
            await exchange.answer(404)

    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server = _Uvicorn(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=0,
        )
    )
    # asyncio switches Nagle's algorithm off only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve([listener]))
        host, port = listener.getsockname()
        sys.stdout.write(f"http://{host}:{port}{path}\n")
        sys.stdout.flush()
        await _stdin_ended()
        server.should_exit = server.force_exit = True
        await serving


async def _stdin_ended() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        sys.stdin.read()
        with contextlib.suppress(RuntimeError):  # the loop is over
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()


def main() -> None:
    kind, revision = (*sys.argv[1:], "", "")[:2]
    if kind == "sse" and revision in LEGACY:
        answering, path = sse(f"sse {revision}", revision), "/sse"
    elif kind == "http" and revision in LEGACY:
        answering, path = legacy(f"streamable-http {revision}", revision), "/mcp"
    elif kind == "http":
        answering, path = modern(f"streamable-http {revision}"), "/mcp"
    else:
        sys.exit("usage: python -m mcpgw.demo.http http|sse REVISION")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(answering, path))


if __name__ == "__main__":
    main()

"""The one-revision servers over HTTP: one application, one address for each.

`/http-REVISION` is Streamable HTTP of that revision, `/sse-REVISION` the event stream of the old
transport. All are strict about what a client must send, and note violations in the journal.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.servers.era import META, MODERN, Journal, Json, Legacy, Modern, fields

EVENTS = (b"content-type", b"text/event-stream")
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
VERSIONED = ("2025-06-18", "2025-11-25")


class Exchange:
    """One request; its answer is JSON unless something is sent before it."""

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode()
        self.headers = {k.decode(): v.decode("latin-1") for k, v in scope["headers"]}
        self._receive = receive
        self._send = send
        self.streaming = False
        self.extra: list[tuple[bytes, bytes]] = []

    async def body(self) -> Any:
        body, more = b"", True
        while more:
            part = await self._receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        return json.loads(body)

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, content: Json | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        head = [(b"content-length", b"%d" % len(body)), *self.extra]
        if content is not None:
            head.append((b"content-type", b"application/json"))
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self) -> None:
        self.streaming = True
        head = [EVENTS, *self.extra]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})

    async def event(self, data: str, event: str = "message") -> None:
        body = f"event: {event}\ndata: {data}\n\n".encode()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def say(self, message: Json) -> None:
        if not self.streaming:
            await self.stream()
        await self.event(json.dumps(message))


class Streamable:
    """Streamable HTTP with sessions."""

    def __init__(self, revision: str, journal: Journal) -> None:
        self.revision = revision
        self.journal = journal
        self.sessions: dict[str, Session] = {}

    async def __call__(self, exchange: Exchange) -> None:
        id = exchange.headers.get("mcp-session-id")
        if exchange.method == "POST":
            await self._post(exchange, id)
            return
        session = self.sessions.get(id or "")
        if session is None:
            await exchange.respond(404)
        elif exchange.method == "GET":
            await session.stand(exchange)
        else:
            del self.sessions[id or ""]
            await exchange.respond(204)

    async def _post(self, exchange: Exchange, id: str | None) -> None:
        message = await exchange.body()
        if message.get("method") == "initialize":
            id = secrets.token_urlsafe(16)
            self.sessions[id] = Session(self.revision, self.journal)
            exchange.extra.append((b"mcp-session-id", id.encode()))
        elif self.revision in VERSIONED:
            version = exchange.headers.get("mcp-protocol-version")
            if version != self.revision:
                self.journal.tell(
                    "violation", why=f"{message.get('method')} with version {version}"
                )
                await exchange.respond(400)
                return
        if id not in self.sessions:
            await exchange.respond(404 if id else 400)
            return
        await self.sessions[id].post(exchange, message)


class Session:
    def __init__(self, revision: str, journal: Journal) -> None:
        self.legacy = Legacy(revision, journal, self._stray)
        self.standing: Exchange | None = None

    async def _stray(self, message: Json) -> None:
        if self.standing is not None:
            await self.standing.say(message)

    async def stand(self, exchange: Exchange) -> None:
        await exchange.stream()
        self.standing = exchange
        await exchange.gone()
        if self.standing is exchange:
            self.standing = None

    async def post(self, exchange: Exchange, message: Json) -> None:
        answered = False

        async def send(told: Json) -> None:
            nonlocal answered
            answered = "method" not in told
            if answered and not exchange.streaming:
                await exchange.respond(200, told)
            else:
                await exchange.say(told)

        await self.legacy.receive(message, send)
        if exchange.streaming:
            await exchange.end()
        elif not answered:
            await exchange.respond(202)


class Stateless:
    """Streamable HTTP of 2026-07-28."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.modern = Modern(journal)

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            await exchange.respond(405)
            return
        message = await exchange.body()
        if (wrong := self._wrong(exchange.headers, message)) is not None:
            error = {"code": -32020, "message": wrong}
            answer = {"jsonrpc": "2.0", "id": message.get("id"), "error": error}
            await exchange.respond(400, answer)
            return
        if "id" not in message:
            await exchange.respond(202)
            return
        serving = asyncio.ensure_future(self._serve(exchange, message))
        gone = asyncio.ensure_future(exchange.gone())
        await asyncio.wait({serving, gone}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()  # closing the stream is the cancellation
        gone.cancel()
        await asyncio.gather(serving, gone, return_exceptions=True)

    async def _serve(self, exchange: Exchange, message: Json) -> None:
        held: list[Json] = []

        async def send(told: Json) -> None:
            if "method" in told or exchange.streaming:
                await exchange.say(told)
            else:
                held.append(told)

        status = await self.modern.receive(message, send, exchange.headers)
        if exchange.streaming:
            await exchange.end()
        else:
            await exchange.respond(status, held[0])

    def _wrong(self, headers: Mapping[str, str], message: Json) -> str | None:
        params = fields(message.get("params"))
        method = message.get("method", "")
        if method == "initialize" or "mcp-session-id" in headers:
            self.journal.tell("foreign", method=method)
        wanted: Json = {
            "mcp-protocol-version": fields(params.get("_meta")).get(META + "protocolVersion"),
            "mcp-method": method,
            "mcp-name": params.get(NAMED.get(method, "")),
        }
        for name, value in wanted.items():
            if headers.get(name) != value:
                return f"{name} is {headers.get(name)}, the body says {value}"
        return None


class EventStream:
    """HTTP+SSE: GET opens the stream, which names where to POST."""

    def __init__(self, revision: str, path: str, journal: Journal) -> None:
        self.revision = revision
        self.path = path
        self.journal = journal
        self.sessions: dict[str, tuple[Legacy, Exchange]] = {}

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            id = secrets.token_urlsafe(16)
            self.sessions[id] = Legacy(self.revision, self.journal, exchange.say), exchange
            await exchange.stream()
            await exchange.event(f"{self.path}?session={id}", "endpoint")
            await exchange.gone()
            legacy = self.sessions.pop(id)[0]
            for task in tuple(legacy.running.values()):
                task.cancel()
        elif exchange.method == "POST" and exchange.query.startswith("session="):
            found = self.sessions.get(exchange.query[8:])
            if found is None:
                await exchange.respond(404)
                return
            message = await exchange.body()
            await exchange.respond(202)
            await found[0].receive(message, found[1].say)
        else:
            await exchange.respond(405)


def application(journal: Journal) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """All of them, as one ASGI application."""
    places: dict[str, Callable[[Exchange], Awaitable[None]]] = {}
    for revision in ("2025-03-26", "2025-06-18", "2025-11-25"):
        places[f"/http-{revision}"] = Streamable(revision, journal)
    for revision in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        places[f"/sse-{revision}"] = EventStream(revision, f"/sse-{revision}", journal)
    places[f"/http-{MODERN}"] = Stateless(journal)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        place = places.get(exchange.path)
        if place is None:
            await exchange.respond(404)
        else:
            await place(exchange)

    return app

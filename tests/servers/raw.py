"""An MCP server that a test plays byte by byte, in the test's own event loop, over any transport.

It reads nothing of a request but where its parts stand, and sends exactly the bytes that its script
hands out. What every server must say (handshakes, lists) it says by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeAlias

import anyio

from mcpgw.model.config import Server
from tests.doubles import server
from tests.jsontext import members, name_of, obj

Kind: TypeAlias = Literal["stdio modern", "stdio legacy", "http modern", "http legacy", "sse"]
KINDS: tuple[Kind, ...] = ("stdio modern", "stdio legacy", "http modern", "http legacy", "sse")
PATIENCE = 10.0  # seconds; a test that waits for longer has hung
SERVER_INFO = {"name": "raw", "version": "1"}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {},
    "resources": {"subscribe": True},
    "completions": {},
    "logging": {},
}
LISTS: dict[str, tuple[str, bytes]] = {
    "tools/list": ("tools", b'[{"name":"t","inputSchema":{"type":"object"}}]'),
    "prompts/list": ("prompts", b'[{"name":"p"}]'),
    "resources/list": ("resources", b'[{"uri":"x:1","name":"r"}]'),
    "resources/templates/list": ("resourceTemplates", b"[]"),
}
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_RELAY = """
import os, socket, sys, threading
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def up():
    while data := os.read(0, 65536):
        peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := peer.recv(65536):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""
"""A child that is nothing but a pipe to the test."""

Send: TypeAlias = Callable[[bytes], Awaitable[None]]


class Talk:
    """One request and the way to answer it. `modern`: questions end the call."""

    def __init__(self, raw: RawServer, parts: Mapping[str, bytes], send: Send) -> None:
        self.id = parts["id"]
        self.method = name_of(parts["method"])
        self.params = parts.get("params", b"{}")
        self.modern = raw.modern
        self._raw = raw
        self.send = send

    @property
    def meta(self) -> dict[str, bytes]:
        return members(members(self.params).get("_meta", b"{}"))

    @property
    def token(self) -> bytes | None:
        return self.meta.get("progressToken")

    async def note(self, method: bytes, params: bytes) -> None:
        await self.send(b'{"jsonrpc":"2.0","method":"' + method + b'","params":' + params + b"}")

    async def ask(self, method: bytes, params: bytes) -> bytes:
        """A live question; the response message."""
        name = f"q{next(self._raw.asks)}"
        waiting = self._raw.waiting[name] = asyncio.get_running_loop().create_future()
        try:
            id = json.dumps(name).encode()
            await self.send(
                b'{"jsonrpc":"2.0","id":' + id + b',"method":"' + method + b'","params":'
                + params + b"}"
            )  # fmt: skip
            async with asyncio.timeout(PATIENCE):
                return await waiting
        finally:
            del self._raw.waiting[name]

    async def result(self, result: bytes, space: bytes = b"") -> None:
        pairs = ((b'"jsonrpc"', b'"2.0"'), (b'"id"', self.id), (b'"result"', result))
        await self.send(obj(*pairs, space=space))

    async def error(self, error: bytes, space: bytes = b"") -> None:
        pairs = ((b'"jsonrpc"', b'"2.0"'), (b'"id"', self.id), (b'"error"', error))
        await self.send(obj(*pairs, space=space))


Script: TypeAlias = Callable[[Talk], Awaitable[None]]


class RawServer:
    """script: what is done about calls. seen: every request of a script, in order.

    lists: the arrays that the list methods answer with. ids: of every request of each connection
    (or session), handshakes included. notes: methods of notifications. cancelled: their requestIds.
    aside: Python that its child runs before it begins, over stdio.
    """

    def __init__(self, kind: Kind, name: str = "one") -> None:
        self.kind = kind
        self.name = name
        self.modern = kind.endswith("modern")
        self.script: Script = _nothing
        self.seen: list[Talk] = []
        self.lists = {method: listed for method, (_, listed) in LISTS.items()}
        self.ids: dict[object, list[bytes]] = {}
        self.notes: list[str] = []
        self.cancelled: list[bytes] = []
        self.capabilities: list[bytes] = []
        self.asks = itertools.count(1)
        self.waiting: dict[str, asyncio.Future[bytes]] = {}
        self.connections: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.aside = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self._sessions = itertools.count(1)
        self._streams: dict[str, Send] = {}
        self._accepting: set[asyncio.Task[Any]] = set()

    def configured(self, **fields: Any) -> Server:
        """Its entry in the configuration."""
        if self.kind.startswith("stdio"):
            command = (sys.executable, "-I", "-S", "-c", self.aside + _RELAY, str(self.port))
            return server(self.name, command=command, **fields)
        transport = "sse" if self.kind == "sse" else "http"
        url = f"http://127.0.0.1:{self.port}/mcp"
        return server(self.name, transport=transport, command=(), url=url, **fields)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        if (task := asyncio.current_task()) is not None:
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)
        serve = self._lines if self.kind.startswith("stdio") else self._requests
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # the gateway hung up, or the test is over
        finally:
            self.connections.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def stop(self) -> None:
        """Hang up, whatever is under way."""
        for writer in tuple(self.connections):
            writer.transport.abort()
        for task in (*self.tasks, *self._accepting):
            task.cancel()

    # ------------------------------------------------------------ what every server says

    async def take(self, message: bytes, send: Send, connection: object) -> None:
        """One message."""
        parts = members(message)
        if "method" not in parts:
            waiting = self.waiting.get(name_of(parts["id"]))
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif "id" not in parts:
            self.notes.append(name_of(parts["method"]))
            if self.notes[-1] == "notifications/cancelled":
                self.cancelled.append(members(parts["params"])["requestId"])
        else:
            self.ids.setdefault(connection, []).append(parts["id"])
            talk = Talk(self, parts, send)
            if not await self._usual(talk):
                self.seen.append(talk)
                await self.script(talk)

    async def _usual(self, talk: Talk) -> bool:
        method = talk.method
        if method in LISTS:
            member, _ = LISTS[method]
            more = b',"resultType":"complete","ttlMs":600000,"cacheScope":"private"'
            body = b'{"' + member.encode() + b'":' + self.lists[method]
            await talk.result(body + (more if self.modern else b"") + b"}")
        elif method == "initialize" and not self.modern:
            self.capabilities.append(members(talk.params)["capabilities"])
            revision = "2024-11-05" if self.kind == "sse" else "2025-11-25"
            told = {"protocolVersion": revision, "serverInfo": SERVER_INFO}
            await talk.result(json.dumps({**told, "capabilities": CAPABILITIES}).encode())
        elif method == "server/discover" and self.modern:
            told = {"resultType": "complete", "supportedVersions": ["2026-07-28"]}
            told |= {"capabilities": {**CAPABILITIES, "tools": {}}, "serverInfo": SERVER_INFO}
            await talk.result(json.dumps({**told, "ttlMs": 0, "cacheScope": "private"}).encode())
        elif method in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
            await talk.result(b"{}")
        elif method in ("initialize", "server/discover", "subscriptions/listen"):
            await talk.error(b'{"code":-32601,"message":"Method not found"}')
        else:
            return False
        return True

    # ------------------------------------------------------------ standard input and output

    async def _lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(message: bytes) -> None:
            writer.write(_LINE_END.sub(b" ", message) + b"\n")
            await writer.drain()

        while line := await reader.readline():
            self._spawn(self.take(line, send, writer))

    def _spawn(self, work: Any) -> None:
        async def run() -> None:
            with suppress(OSError):
                await work

        task = asyncio.create_task(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ------------------------------------------------------------ HTTP

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            verb = head.split(b" ", 1)[0]
            if verb == b"GET":
                await self._get(reader, writer)
            elif verb == b"DELETE":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            elif self.kind == "sse":
                _accepted(writer)
                session = head.split(b"session=", 1)[1].split(b" ", 1)[0].decode()
                if (stream := self._streams.get(session)) is not None:
                    self._spawn(self.take(body, stream, session))
            else:
                await self._post(head, body, writer)
            await writer.drain()

    async def _get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.kind != "sse":
            writer.write(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n")
            return
        answer = Answer(writer)
        session = f"s{next(self._sessions)}"
        self._streams[session] = answer.event
        try:
            await answer.begin()
            where = f"event: endpoint\ndata: /messages?session={session}\n\n"
            await answer.chunk(where.encode())
            await reader.read(1)  # the end
        finally:
            del self._streams[session]

    async def _post(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        parts = members(body)
        if "id" not in parts or "method" not in parts:
            await self.take(body, _unsent, None)
            _accepted(writer)
            return
        session = b""
        if parts["method"] == b'"initialize"' and not self.modern:
            session = b"mcp-session-id: s%d\r\n" % next(self._sessions)
        answer = Answer(writer, session)
        found = re.search(rb"\r\nmcp-session-id: ([^\r]+)", head, re.IGNORECASE)
        await self.take(body, answer.message, found[1] if found else writer)
        await answer.end()


class Answer:
    """One HTTP answer: JSON, unless something comes before the last message."""

    def __init__(self, writer: asyncio.StreamWriter, fields: bytes = b"") -> None:
        self.writer = writer
        self.streaming = False
        self._fields = fields
        self._done = False

    async def message(self, message: bytes) -> None:
        """A response ends it; anything else makes it a stream."""
        last = b'"method"' not in message[:60]  # it may be too large to look through
        if last and not self.streaming:
            self.writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
                % (self._fields, len(message))
            )
            self.writer.write(message)
            await self.writer.drain()
            self._done = True
            return
        if not self.streaming:
            await self.begin()
        await self.event(message)

    async def begin(self) -> None:
        self.streaming = True
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n" + self._fields + b"\r\n"
        )
        await self.writer.drain()

    async def event(self, message: bytes) -> None:
        lines = b"".join(b"data: %b\n" % line for line in _LINE_END.split(message))
        await self.chunk(b"event: message\n" + lines + b"\n")

    async def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        if self.streaming:
            self.writer.write(b"0\r\n\r\n")
            await self.writer.drain()


def _accepted(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")


async def _unsent(message: bytes) -> None:
    raise AssertionError("nothing answers a notification")


async def _nothing(talk: Talk) -> None:
    await talk.result(b'{"content":[]}')


@asynccontextmanager
async def playing(kind: Kind, name: str = "one") -> AsyncGenerator[RawServer]:
    """A listening server."""
    raw = RawServer(kind, name)
    listener = await asyncio.start_server(raw.accept, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    raw.port = listener.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        listener.close()
        raw.stop()
        with anyio.move_on_after(PATIENCE, shield=True):
            while raw.connections or raw.tasks:  # noqa: ASYNC110 - two sets of others' making
                await asyncio.sleep(0.001)

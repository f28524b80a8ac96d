"""An MCP client that a test plays byte by byte, over any transport that the gateway is reached by.

It hands out every message as it came. Its reader of event streams is its own, so that a fault in
the gateway's cannot hide.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import anyio
from msgspec import Struct

from mcpgw.front import stdio as front_stdio
from mcpgw.model.calls import Context
from mcpgw.model.ports import Handler
from tests.jsontext import members, name_of, obj

Kind: TypeAlias = Literal["http modern", "http legacy", "sse", "stdio modern", "stdio legacy"]
KINDS: tuple[Kind, ...] = ("http modern", "http legacy", "sse", "stdio modern", "stdio legacy")
PATIENCE = 10.0  # seconds; a test that waits for longer has hung
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CAPABILITIES = b'{"elicitation":{"form":{"later":[1e400,null]},"x":"\\u0061"}}'
PREFIX = "io.modelcontextprotocol/"
_LINE_END = re.compile(rb"\r\n|\r|\n")

Pairs: TypeAlias = Sequence[tuple[bytes, bytes]]
Answering: TypeAlias = Callable[[bytes], bytes]
"""From the params of a question to the result that answers it."""


class Heard(Struct):
    """What came of one call: params of notes by method, params of questions, the last answer."""

    notes: list[tuple[str, bytes]]
    asks: list[bytes]
    answer: dict[str, bytes]

    @property
    def result(self) -> dict[str, bytes]:
        assert "result" in self.answer, self.answer
        return members(self.answer["result"])


class Stream:
    """Reads one connection: heads, bodies, events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, verb: bytes, target: str, fields: Pairs, body: bytes | None) -> None:
        lines = [b"%b %b HTTP/1.1\r\nhost: localhost\r\n" % (verb, target.encode())]
        if body is not None:
            lines.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
        lines += [b"%b: %b\r\n" % pair for pair in fields]
        self.writer.write(b"".join(lines) + b"\r\n" + (body or b""))
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.split(": ", 1) for line in lines if line)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}

    async def messages(self, fields: dict[str, str]) -> AsyncGenerator[bytes]:
        """The messages of the body whose head has been read."""
        if "content-length" in fields:
            body = await self.reader.readexactly(int(fields["content-length"]))
            if body:
                yield body
            return
        if "transfer-encoding" not in fields:
            return
        async for _, data in self.events():
            yield data

    async def events(self) -> AsyncGenerator[tuple[bytes, bytes]]:
        """The events of a chunked body: name and data."""
        held = b""
        while chunk := await self._chunk():
            held += chunk
            *blocks, held = held.split(b"\n\n")
            for block in blocks:
                data: list[bytes] = []
                name = b"message"
                for line in _LINE_END.split(block):
                    field, _, value = line.partition(b":")
                    if field == b"data":
                        data.append(value.removeprefix(b" "))
                    elif field == b"event":
                        name = value.removeprefix(b" ")
                if any(data):
                    yield name, b"\n".join(data)

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
        return chunk[:-2]

    async def close(self) -> None:
        self.writer.transport.abort()


async def connected(port: int) -> Stream:
    return Stream(*await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024))


class RawClient:
    """One client. `calls` goes on counting: no id is used twice."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.modern = kind.endswith("modern")
        self.ids = itertools.count(1)

    async def call(
        self,
        method: str,
        params: Pairs,
        meta: Pairs = (),
        *,
        answering: Answering | None = None,
        space: bytes = b"",
    ) -> Heard:
        """One call until its last answer; questions are answered, live or by calling again."""
        heard = Heard([], [], {})
        token = b'"token-%d"' % next(self.ids)
        meta = [*meta, (b'"progressToken"', token)]
        if self.modern:
            meta += [
                (f'"{PREFIX}protocolVersion"'.encode(), f'"{MODERN}"'.encode()),
                (f'"{PREFIX}clientCapabilities"'.encode(), CAPABILITIES),
                (f'"{PREFIX}logLevel"'.encode(), b'"debug"'),
            ]
        pairs = [*params, (b'"_meta"', obj(*meta, space=space))]
        while True:
            await self._once(method, obj(*pairs, space=space), heard, answering, space)
            result = members(heard.answer.get("result", b"{}"))
            if not self.modern or result.get("resultType") != b'"input_required"':
                return heard
            answers: list[tuple[bytes, bytes]] = []
            for key, asked in members(result.get("inputRequests", b"{}")).items():
                heard.asks.append(members(asked)["params"])
                assert answering is not None
                answers.append((json.dumps(key).encode(), answering(heard.asks[-1])))
            pairs = [*pairs, (b'"inputResponses"', obj(*answers, space=space))]
            if "requestState" in result:
                pairs.append((b'"requestState"', result["requestState"]))

    async def _once(
        self, method: str, params: bytes, heard: Heard, answering: Answering | None, space: bytes
    ) -> None:
        id = b"%d" % next(self.ids)
        message = obj(
            (b'"jsonrpc"', b'"2.0"'),
            (b'"id"', id),
            (b'"method"', json.dumps(method).encode()),
            (b'"params"', params),
            space=space,
        )
        async for told in self.exchange(method, params, message, id):
            parts = members(told)
            if "method" not in parts:
                assert parts["id"] == id
                heard.answer = parts
            elif "id" not in parts:
                heard.notes.append((name_of(parts["method"]), parts.get("params", b"{}")))
            else:
                heard.asks.append(parts["params"])
                assert answering is not None
                result = (b'"result"', answering(parts["params"]))
                await self.say(
                    obj((b'"jsonrpc"', b'"2.0"'), (b'"id"', parts["id"]), result, space=space)
                )
        assert heard.answer, "no answer"

    def exchange(
        self, method: str, params: bytes, message: bytes, id: bytes
    ) -> AsyncGenerator[bytes]:
        """Send a request; every message until its answer."""
        raise NotImplementedError

    async def say(self, message: bytes) -> None:
        """Send what is no request."""
        raise NotImplementedError

    async def hello(self) -> None:
        """The handshake of the legacy eras."""
        init = b'{"protocolVersion":"%b","capabilities":%b,"clientInfo":{"name":"raw"}}'
        params = init % (LEGACY.encode(), CAPABILITIES)
        heard = Heard([], [], {})
        await self._once("initialize", params, heard, None, b"")
        assert heard.result["protocolVersion"] == b'"%b"' % LEGACY.encode()
        await self.say(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')


class HttpClient(RawClient):
    """Streamable HTTP, both eras. json_only: takes no event streams."""

    def __init__(self, kind: Kind, port: int, key: str, path: str) -> None:
        super().__init__(kind)
        self._port = port
        self._path = path
        self._fields = [(b"authorization", f"Bearer mcpgw_{key}".encode())]
        self._fields.append((b"accept", b"application/json, text/event-stream"))
        self._stream: Stream | None = None
        self._aside: Stream | None = None

    async def exchange(
        self, method: str, params: bytes, message: bytes, id: bytes
    ) -> AsyncGenerator[bytes]:
        stream = self._stream = self._stream or await connected(self._port)
        fields = list(self._fields)
        if self.modern:
            fields += [(b"mcp-protocol-version", MODERN.encode()), (b"mcp-method", method.encode())]
            parts = members(params)
            if (name := parts.get("name") or parts.get("uri")) is not None:
                fields.append((b"mcp-name", name_of(name).encode()))
        await stream.send(b"POST", self._path, fields, message)
        status, head = await stream.head()
        if (session := head.get("mcp-session-id")) is not None:
            self._fields.append((b"mcp-session-id", session.encode()))
            self._fields.append((b"mcp-protocol-version", LEGACY.encode()))
        assert status in (200, 400, 404), status
        self._stream = None  # until the answer is whole, so that a failure leaves nothing behind
        async for told in stream.messages(head):
            yield told
        self._stream = stream

    async def say(self, message: bytes) -> None:
        aside = self._aside = self._aside or await connected(self._port)
        await aside.send(b"POST", self._path, self._fields, message)
        status, _ = await aside.head()
        assert status == 202

    async def close(self) -> None:
        for stream in (self._stream, self._aside):
            if stream is not None:
                await stream.close()


class ChannelClient(RawClient):
    """Both directions on one channel: HTTP+SSE, stdio."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.send: Callable[[bytes], Awaitable[None]] | None = None

    async def exchange(
        self, method: str, params: bytes, message: bytes, id: bytes
    ) -> AsyncGenerator[bytes]:
        await self.say(message)
        while True:
            async with asyncio.timeout(PATIENCE):
                told = await self.inbox.get()
            yield told
            parts = members(told)
            if parts.get("id") == id and "method" not in parts:
                return

    async def say(self, message: bytes) -> None:
        assert self.send is not None
        await self.send(message)


@asynccontextmanager
async def over_http(kind: Kind, port: int, key: str, path: str) -> AsyncGenerator[RawClient]:
    client = HttpClient(kind, port, key, path)
    try:
        if not client.modern:
            await client.hello()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def over_sse(port: int, key: str, path: str) -> AsyncGenerator[RawClient]:
    client = ChannelClient("sse")
    fields = [(b"authorization", f"Bearer mcpgw_{key}".encode())]
    down, up = await connected(port), await connected(port)
    await down.send(b"GET", path, fields, None)
    assert (await down.head())[0] == 200
    events = down.events()
    name, where = await anext(events)
    assert name == b"endpoint"

    async def send(message: bytes) -> None:
        await up.send(b"POST", where.decode(), fields, message)
        status, _ = await up.head()
        assert status == 202

    async def read() -> None:
        async for _, data in events:
            client.inbox.put_nowait(data)

    client.send = send
    reading = asyncio.create_task(read())
    try:
        await client.hello()
        yield client
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        await down.close()
        await up.close()


@asynccontextmanager
async def over_stdio(kind: Kind, handler: Handler, ctx: Context) -> AsyncGenerator[RawClient]:
    client = ChannelClient(kind)
    loop = asyncio.get_running_loop()
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    incoming, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb")
    )
    outgoing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(ours_out, "wb"))

    async def send(message: bytes) -> None:
        outgoing.write(_LINE_END.sub(b" ", message) + b"\n")

    async def read() -> None:
        while line := await reader.readline():
            client.inbox.put_nowait(line)

    client.send = send
    async with anyio.create_task_group() as tasks:
        ended = asyncio.Event()

        async def serve() -> None:
            try:
                await front_stdio.serve(handler, ctx=ctx, stdin=theirs_in, stdout=theirs_out)
            finally:
                ended.set()

        tasks.start_soon(serve)
        tasks.start_soon(read)
        try:
            if not client.modern:
                await client.hello()
            yield client
        finally:
            outgoing.close()
            with anyio.move_on_after(PATIENCE, shield=True):
                await ended.wait()
            tasks.cancel_scope.cancel()
            incoming.close()
            os.close(theirs_in)
            os.close(theirs_out)

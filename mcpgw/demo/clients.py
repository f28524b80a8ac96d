"""Small MCP clients for the tour: each speaks exactly one revision over exactly one transport.

A client is told a way to exchange messages (`Wire`) and an era's manners; both are a few lines, so
what the gateway is sent is plain to see. They wait at most PATIENCE for any answer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from subprocess import DEVNULL
from typing import Any, Protocol
from urllib.parse import urljoin

import anyio
import anyio.abc
import httpx2

from mcpgw import __version__
from mcpgw.core.eras import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    MODERN,
    NAME_PARAM,
    PROTOCOL_VERSION,
    SENDS_VERSION_HEADER,
)
from mcpgw.demo.offers import Json, fields

PATIENCE = 10.0  # seconds for one answer; everything here runs on one machine
GOODBYE = 3.0  # seconds a stdio gateway may take to leave once its input has ended
_ACCEPT = {"accept": "application/json, text/event-stream"}


class Failed(Exception):
    """The gateway did not do what it should have. The text is for people."""


class Wire(Protocol):
    """A way to send one message and get the answer to it."""

    async def exchange(self, message: Json) -> Json | None:
        """The response to a request; None to a notification. Raises Failed."""
        ...


class Client:
    """One client of the gateway, past its handshake."""

    def __init__(self, wire: Wire, revision: str) -> None:
        self._wire = wire
        self._revision = revision
        self._last = 0

    async def open(self) -> None:
        """Shake hands, where this revision does."""
        if self._revision in MODERN:
            await self.request("server/discover", {})
            return
        params = {"protocolVersion": self._revision, "capabilities": {}, "clientInfo": _IMPL}
        agreed = (await self.request("initialize", params)).get("protocolVersion")
        if agreed != self._revision:
            raise Failed(f"the gateway offers {agreed} instead of {self._revision}")
        await self._wire.exchange({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def tools(self) -> set[str]:
        """The names of all tools, over all pages."""
        names: set[str] = set()
        cursor: Json = {}
        while True:
            page = await self.request("tools/list", cursor)
            names.update(tool["name"] for tool in page["tools"])
            if "nextCursor" not in page:
                return names
            cursor = {"cursor": page["nextCursor"]}

    async def call(self, tool: str, arguments: Json) -> str:
        """The text that a tool answers. Raises Failed."""
        result = await self.request("tools/call", {"name": tool, "arguments": arguments})
        texts = [part.get("text", "") for part in result.get("content", ())]
        if result.get("isError"):
            raise Failed(" ".join(texts) or "the tool failed")
        return " ".join(texts)

    async def request(self, method: str, params: Json) -> Json:
        """The result of one request. Raises Failed."""
        self._last += 1
        if self._revision in MODERN:
            params = {**params, "_meta": _META}
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        try:
            with anyio.fail_after(PATIENCE):
                response = await self._wire.exchange(message)
        except TimeoutError:
            raise Failed(f"no answer to {method} within {PATIENCE:g} s") from None
        except (httpx2.HTTPError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise Failed(f"{method}: {type(error).__name__} {error}") from error
        if response is None or "result" not in response:
            told = fields((response or {}).get("error")).get("message", "no response")
            raise Failed(f"{method}: {told}")
        return response["result"]


_IMPL: Json = {"name": "mcpgw-demo", "version": __version__}
_META: Json = {
    PROTOCOL_VERSION: MODERN[0],
    CLIENT_INFO: _IMPL,
    CLIENT_CAPABILITIES: {},
}


@asynccontextmanager
async def streamable_http(url: str, secret: str, revision: str) -> AsyncGenerator[Client]:
    """A client over Streamable HTTP, of either era."""
    async with _http(secret) as http:
        wire = _Posting(http, url, revision)
        client = Client(wire, revision)
        await client.open()
        yield client
        await wire.end()


@asynccontextmanager
async def sse(url: str, secret: str, revision: str) -> AsyncGenerator[Client]:
    """A client over HTTP+SSE: answers come on a stream that stays open."""
    async with _http(secret) as http, http.stream("GET", url, headers=_ACCEPT) as response:
        if response.status_code != 200:
            raise Failed(f"the stream was answered with {response.status_code}")
        events = _events(response)
        with anyio.fail_after(PATIENCE):
            event, data = await anext(events)
        if event != "endpoint":
            raise Failed(f"the stream began with {event!r}")
        client = Client(_Streaming(http, urljoin(url, data), events), revision)
        await client.open()
        yield client


@asynccontextmanager
async def stdio(command: Sequence[str], revision: str) -> AsyncGenerator[Client]:
    """A client that starts the gateway as its own child and talks over the pipes."""
    process = await anyio.open_process(command, stderr=DEVNULL, start_new_session=True)
    try:
        client = Client(_Piped(process), revision)
        await client.open()
        yield client
    finally:
        with anyio.CancelScope(shield=True):
            await _leave(process)


async def _leave(process: anyio.abc.Process) -> None:
    """End the input and wait; a child that does not leave is killed."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, anyio.BrokenResourceError):
            await process.stdin.aclose()
    with anyio.move_on_after(GOODBYE) as patience:
        await process.wait()
    if patience.cancelled_caught:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.aclose()


def _http(secret: str) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {secret}"}
    # Plain HTTP on loopback only: no proxy of the environment, no TLS set-up.
    return httpx2.AsyncClient(headers=headers, timeout=PATIENCE, trust_env=False, verify=False)


class _Posting:
    """One POST a message; the answer is JSON or the stream of that POST."""

    def __init__(self, http: httpx2.AsyncClient, url: str, revision: str) -> None:
        self._http = http
        self._url = url
        self._revision = revision
        self._headers: dict[str, str] = dict(_ACCEPT)

    async def exchange(self, message: Json) -> Json | None:
        headers = {**self._headers, **self._mirrored(message)}
        async with self._http.stream("POST", self._url, json=message, headers=headers) as response:
            if response.status_code not in (200, 202):
                text = (await response.aread()).decode(errors="replace")
                raise Failed(f"{message['method']} was answered with {response.status_code} {text}")
            if (session := response.headers.get("mcp-session-id")) is not None:
                self._headers["mcp-session-id"] = session
            if message["method"] == "initialize" and self._revision in SENDS_VERSION_HEADER:
                self._headers["mcp-protocol-version"] = self._revision
            if response.status_code == 202:
                return None
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async with contextlib.aclosing(_events(response)) as events:
                    return await _response(events, message)
            return json.loads(await response.aread())

    def _mirrored(self, message: Json) -> dict[str, str]:
        """The headers that repeat the body in 2026-07-28."""
        if self._revision not in MODERN:
            return {}
        method = message["method"]
        headers = {"mcp-protocol-version": self._revision, "mcp-method": method}
        if method in NAME_PARAM:
            headers["mcp-name"] = message["params"][NAME_PARAM[method]]
        return headers

    async def end(self) -> None:
        """Give a session back."""
        if "mcp-session-id" in self._headers:
            await self._http.delete(self._url, headers=self._headers)


class _Streaming:
    """POST a message to one address, read the answer from the stream of another."""

    def __init__(
        self, http: httpx2.AsyncClient, url: str, events: AsyncIterator[tuple[str, str]]
    ) -> None:
        self._http = http
        self._url = url
        self._incoming = events

    async def exchange(self, message: Json) -> Json | None:
        answered = await self._http.post(self._url, json=message)
        if answered.status_code != 202:
            raise Failed(f"{message['method']} was answered with {answered.status_code}")
        if "id" not in message:
            return None
        return await _response(self._incoming, message)


class _Piped:
    """One line a message."""

    def __init__(self, process: anyio.abc.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise Failed("the gateway has no pipes")
        self._sink = process.stdin
        self._source = process.stdout
        self._held = b""

    async def exchange(self, message: Json) -> Json | None:
        await self._sink.send(json.dumps(message).encode() + b"\n")
        while "id" in message:
            line = json.loads(await self._line())
            if line.get("id") == message["id"] and "method" not in line:
                return line
        return None

    async def _line(self) -> bytes:
        while b"\n" not in self._held:
            self._held += await self._source.receive()
        line, _, self._held = self._held.partition(b"\n")
        return line


async def _response(events: AsyncIterator[tuple[str, str]], message: Json) -> Json:
    """The response to `message`; what else comes before it on the stream is passed over."""
    async for _, data in events:
        told: Any = json.loads(data) if data else {}
        if told.get("id") == message["id"] and "method" not in told:
            return told
    raise Failed(f"the stream ended before the answer to {message['method']}")


async def _events(response: httpx2.Response) -> AsyncGenerator[tuple[str, str]]:
    """(event, data) pairs of a stream."""
    event, data = "message", list[str]()
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif not line and (data or event != "message"):
            yield event, "\n".join(data)
            event, data = "message", []

"""The load: keep-alive connections that each send the next call when the last one is answered.

`python -m tests.bench.load` reads one JSON plan (a `Plan`) from stdin. It writes `go` when the
warm-up is over, and one JSON `Measured` at the end. Raw sockets under uvloop, no HTTP library: the
load must be cheaper than what it measures.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Plan(msgspec.Struct):
    """What to send where. `tool` must echo its argument `text`."""

    url: str
    tool: str
    modern: bool
    connections: int
    seconds: float
    warm_up: float = 0.3
    headers: dict[str, str] = {}
    payload: int = 64


class Measured(msgspec.Struct):
    """Latencies in ms."""

    calls: int
    seconds: float
    p50: float
    p99: float
    failed: int
    said: str = ""


def message(plan: Plan, id: int) -> bytes:
    params: dict[str, Any] = {"name": plan.tool, "arguments": {"text": "x" * plan.payload}}
    if plan.modern:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    call = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
    return json.dumps(call, separators=(",", ":")).encode()


def request(plan: Plan, id: int) -> bytes:
    """A whole HTTP request, ready to be sent again and again."""
    where = urlsplit(plan.url)
    body = message(plan, id)
    headers = {
        "Host": where.netloc,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Content-Length": str(len(body)),
        **plan.headers,
    }
    if plan.modern:
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call"}
        headers["Mcp-Name"] = plan.tool
    else:
        headers |= {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": handshake(plan)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {where.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def handshake(plan: Plan) -> str:
    """Open a session of the handshake era; its id."""
    where = urlsplit(plan.url)
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    headers = {"Accept": "application/json, text/event-stream", **plan.headers}
    headers["Content-Type"] = "application/json"
    about: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
    about["clientInfo"] = {"name": "load", "version": "1"}
    hello: dict[str, Any] = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
    connection.request("POST", where.path, json.dumps(hello), headers)
    response = connection.getresponse()
    session, said = response.getheader("mcp-session-id"), response.read()
    if session is None:
        sys.exit(f"no session: {response.status} {said[:500]!r}")
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    connection.request("POST", where.path, json.dumps(ready), headers)
    connection.getresponse().read()
    connection.close()
    return session


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: Run, sent: bytes) -> None:
        self._run = run
        self._sent = sent
        self._held = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if self._transport is not None and not self._run.over:
            self._began = time.perf_counter()
            self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        head = self._held.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._held, 0, head + 2)
        if length is not None:
            whole = len(self._held) - head - 4 >= int(length[1])
        else:
            whole = _CHUNKED.search(self._held, 0, head + 2) is None or self._held.endswith(
                b"\r\n0\r\n\r\n"
            )
        if whole:
            held, self._held = self._held, b""
            self._run.answered(self._began, held)
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.over:
            self._run.lost(self._held or repr(exc).encode())


class Run:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.over = False
        self.measuring = False
        self.took: list[float] = []
        self.failed = 0
        self.said = ""

    def answered(self, began: float, response: bytes) -> None:
        if b" 200 " not in response[:16] or b'"content"' not in response:
            self.lost(response)
        elif self.measuring:
            self.took.append(time.perf_counter() - began)

    def lost(self, response: bytes) -> None:
        self.failed += 1
        self.said = self.said or response.decode(errors="replace")[:1000]

    async def carry_out(self) -> Measured:
        where = urlsplit(self.plan.url)
        host, port = str(where.hostname), int(where.port or 80)
        loop = asyncio.get_running_loop()
        texts = [request(self.plan, id) for id in range(1, self.plan.connections + 1)]
        lines = [
            await loop.create_connection(lambda text=text: Line(self, text), host, port)
            for text in texts
        ]
        await asyncio.sleep(self.plan.warm_up)
        print("go", flush=True)
        self.measuring, began = True, time.perf_counter()
        await asyncio.sleep(self.plan.seconds)
        self.measuring, seconds = False, time.perf_counter() - began
        self.over = True
        for transport, _ in lines:
            transport.close()
        return self._measured(seconds)

    def _measured(self, seconds: float) -> Measured:
        took = sorted(self.took) or [0.0]

        def at(share: float) -> float:
            return round(took[min(len(took) - 1, int(len(took) * share))] * 1000, 4)

        calls = len(self.took)
        return Measured(calls, seconds, at(0.5), at(0.99), self.failed, self.said)


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    measured = uvloop.run(Run(plan).carry_out())
    print(msgspec.json.encode(measured).decode(), flush=True)


if __name__ == "__main__":
    main()

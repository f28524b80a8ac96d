"""CPU that a small POST on a kept connection costs the process that sends it, client by client.

    python -m tests.bench.client [--rounds 7] [--requests 3000] [--parallel 1] [--loop uvloop]

The server is a process of its own, so that only the client's work is counted. Rounds of the
clients take turns and the medians are compared: what slows the machine slows all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, cast

import httpx2
import uvloop

from mcpgw.upstream import http1

BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "echo", "arguments": {"message": "hello, gateway"}},
    }
).encode()
ANSWER = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "hello, gateway"}]}}
).encode()
HEADERS = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "echo"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
]
Send: TypeAlias = Callable[[], Awaitable[bytes]]


class Answering(asyncio.Protocol):
    """Answers every request with the same bytes; knows just enough HTTP to find their ends."""

    RESPONSE = (
        b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: bench\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
    )

    def __init__(self) -> None:
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            if len(self.pending) < end + 4 + len(BODY):
                return
            self.pending = self.pending[end + 4 + len(BODY) :]
            self.transport.write(self.RESPONSE)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


@asynccontextmanager
async def own(origin: str) -> AsyncGenerator[Send]:
    client = http1.Client(origin)

    async def send() -> bytes:
        response = await client.request("POST", "/mcp", HEADERS, BODY, timeout=10)
        return await response.read()

    yield send
    await client.aclose()


@asynccontextmanager
async def of_httpx2(origin: str) -> AsyncGenerator[Send]:
    async with httpx2.AsyncClient(base_url=origin, trust_env=False) as client:

        async def send() -> bytes:
            return (await client.post("/mcp", headers=HEADERS, content=BODY)).content

        yield send


class Bare(asyncio.Protocol):
    """Sends bytes and waits for so many: what the loop and the system cost by themselves."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.size = 0

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.size == len(Answering.RESPONSE):
            self.answered.set_result(None)

    async def exchange(self, request: bytes) -> None:
        self.size = 0
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.answered


@asynccontextmanager
async def bare(origin: str) -> AsyncGenerator[Send]:
    free: list[Bare] = []
    made: list[Bare] = []
    loop = asyncio.get_running_loop()
    port = int(origin.rpartition(":")[2])
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
    request = f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + BODY

    async def send() -> bytes:
        if free:
            connection = free.pop()
        else:
            _, connection = await loop.create_connection(Bare, "127.0.0.1", port)
            made.append(connection)
        await connection.exchange(request)
        free.append(connection)
        return ANSWER

    yield send
    for connection in made:
        connection.transport.close()


CLIENTS = {"mcpgw": own, "httpx2": of_httpx2, "bare": bare}


async def spent(send: Send, requests: int, parallel: int) -> float:
    """CPU seconds of this process per request."""

    async def some() -> None:
        for _ in range(requests // parallel):
            assert await send() == ANSWER

    began = time.process_time()
    await asyncio.gather(*(some() for _ in range(parallel)))
    return (time.process_time() - began) / (requests // parallel * parallel)


async def measure(origin: str, rounds: int, requests: int, parallel: int) -> dict[str, float]:
    """Medians, in milliseconds of CPU per request."""
    costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for turn in range(rounds + 1):
        for name, client in CLIENTS.items():
            async with client(origin) as send:
                await spent(send, parallel, parallel)
                few = requests if name != "httpx2" else max(requests // 5, parallel)
                cost = await spent(send, few, parallel)
            if turn:  # the first one warms up
                costs[name].append(cost * 1000)
    return {name: statistics.median(values) for name, values in costs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    run = uvloop.run if asked.loop == "uvloop" else asyncio.run
    if asked.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "tests.bench.client", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        origin = f"http://127.0.0.1:{int(server.stdout.readline())}"
        found = run(measure(origin, asked.rounds, asked.requests, asked.parallel))
        assert server.stdin is not None
        server.stdin.close()
    ratios = {name: cost / found["mcpgw"] for name, cost in found.items()}
    if asked.json:
        print(json.dumps({"cpu_ms_per_request": found, "ratio": ratios}))
        return
    for name, cost in found.items():
        print(f"{name:8} {cost:7.4f} ms CPU a request  {ratios[name]:5.1f} x")


if __name__ == "__main__":
    main()

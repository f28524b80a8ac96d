"""A server of 2024-11-05: one event stream, and a POST for each message. Written by hand."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import anyio

from tests.servers.http_base import Exchange, HttpServer


class SseServer(HttpServer):
    """Tools: `echo`, `ask` (asks for roots), `slow` (never answers), `hang_up` (ends the stream).

    endpoint: what the `endpoint` event names. counts: messages by method. posts: status of the
    answer to a POST.
    """

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = "/messages?session=1"
        self.counts: dict[str, int] = {}
        self.cancelled: list[Any] = []
        self.answers: dict[Any, Any] = {}
        self.posts = 202
        self.headers: list[dict[str, str]] = []
        self._stream: Exchange | None = None
        self._ended = anyio.Event()
        self._answered = anyio.Event()

    async def script(self, exchange: Exchange) -> None:
        self.headers.append(exchange.headers)
        if exchange.method == "GET":
            await self._open(exchange)
        elif exchange.path == "/messages":
            await exchange.respond(self.posts, b"Accepted", "text/plain")
            if self.posts == 202:
                await self._take(exchange.message)
        else:
            await exchange.respond(405)

    async def _open(self, exchange: Exchange) -> None:
        self._stream = exchange
        await exchange.stream()
        await exchange.write(f"event: endpoint\r\ndata: {self.endpoint}\r\n\r\n".encode())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, exchange)
            await self._ended.wait()
            tasks.cancel_scope.cancel()
        await exchange.end()

    async def _watch(self, exchange: Exchange) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await exchange.gone()
                self._ended.set()

    async def say(self, **message: Any) -> None:
        """Write one message to the stream."""
        assert self._stream is not None
        await self._stream.write(
            f"event: message\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\n\n".encode()
        )

    async def answered(self, id: Any) -> Any:
        with anyio.fail_after(5):
            while id not in self.answers:
                await self._answered.wait()
        return self.answers[id]

    async def _take(self, message: Any) -> None:
        method = message.get("method")
        if method is None:
            self.answers[message["id"]] = message.get("result", message.get("error"))
            self._answered.set()
            self._answered = anyio.Event()
            return
        self.counts[method] = self.counts.get(method, 0) + 1
        if method == "notifications/cancelled":
            self.cancelled.append(message["params"]["requestId"])
        if "id" in message:
            await self._serve(message["id"], method, message.get("params", {}))

    async def _serve(self, id: Any, method: str, params: Any) -> None:
        if method == "initialize":
            self.capabilities = params["capabilities"]
            result: Any = {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "sse", "version": "1"},
            }
            await self.say(id=id, result=result)
        elif method != "tools/call":
            await self.say(id=id, error={"code": -32601, "message": "no"})
        elif params["name"] == "echo":
            text = str(params["arguments"].get("text"))
            await self.say(id=id, result={"content": [{"type": "text", "text": text}]})
        elif params["name"] == "ask":
            await self.say(id="q", method="roots/list")
            await self.say(id=id, result={"roots": await self.answered("q")})
        elif params["name"] == "hang_up":
            self._ended.set()

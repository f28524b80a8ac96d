"""The conformance upstream on the official SDK, made to speak 2026-07-28 and nothing else.

`python -m tests.servers.sdk2_modern`: tells its URL on standard error. Whatever is of the handshake
is refused before the SDK sees it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import uvicorn

from tests.conformance.upstream import build

READY = "sdk2 serves on "
OLD = frozenset({"initialize", "notifications/initialized", "ping", "logging/setLevel"})


class ModernOnly:
    """An ASGI application that lets only 2026-07-28 through."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        message: Any = json.loads(body) if body else {}
        headers = dict(scope["headers"])
        old = scope["method"] != "POST" or message.get("method") in OLD
        if old or b"mcp-session-id" in headers:
            await _refuse(message, send)
            return
        first = True

        async def replayed() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._inner(scope, replayed, send)


async def _refuse(message: Any, send: Any) -> None:
    error = {"code": -32601, "message": "Method not found: it is of a handshake revision"}
    answer = {"jsonrpc": "2.0", "id": message.get("id"), "error": error}
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 404, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def main() -> None:
    app = ModernOnly(build().streamable_http_app())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1)
        sys.stderr.write(f"{READY}http://127.0.0.1:{listening.getsockname()[1]}/mcp\n")
        sys.stderr.flush()
        await uvicorn.Server(settings).serve([listening])


if __name__ == "__main__":
    asyncio.run(main())

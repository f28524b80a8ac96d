"""A pass-through that reads nothing: uvicorn in front, the relay's own HTTP client behind.

`python -m tests.bench.bare ORIGIN`. What the gateway costs above this is the gateway.
"""

from __future__ import annotations

import sys
from typing import Any

from mcpgw.upstream import http1
from tests.bench.serving import serve_asgi

_DROPPED = {b"host", b"content-length", b"connection", b"accept-encoding"}
_KEPT = (("content-type", b"content-type"), ("mcp-session-id", b"mcp-session-id"))


class Bare:
    """One ASGI app over one client."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._client: http1.Client | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = self._client = self._client or http1.Client(self._origin)
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in _DROPPED
        ]
        response = await client.request(scope["method"], scope["path"], headers, body, timeout=30.0)
        content = await response.read()
        out = [
            (name, response.headers[key].encode("latin-1"))
            for key, name in _KEPT
            if key in response.headers
        ]
        out.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": out})
        await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    serve_asgi(Bare(sys.argv[1]))

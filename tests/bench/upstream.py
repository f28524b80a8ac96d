"""The cheapest MCP servers one can write in Python, for measuring what stands before them.

`python -m tests.bench.upstream http`: both eras over HTTP, at /modern and /legacy, on a free port;
it writes `http://HOST:PORT` to stdout and ends when stdin ends. `… stdio`: 2026-07-28 on pipes.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from tests.bench.serving import serve_asgi

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_INFO = {"name": "bench", "version": "1"}
_META = {"io.modelcontextprotocol/serverInfo": _INFO}
_TOOL = {
    "name": "echo",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
_CACHED = {"ttlMs": 3_600_000, "cacheScope": "public"}
_JSON = (b"content-type", b"application/json")


def answer(message: dict[str, Any], *, modern: bool) -> bytes | None:
    """The response to one message; None to a notification."""
    if "id" not in message:
        return None
    method = message["method"]
    if method == "tools/call":
        text = message["params"]["arguments"]["text"]
        result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    else:
        result = _rare(method, modern=modern)
    if modern:
        result = {**result, "resultType": "complete", "_meta": _META}
    return _encode({"jsonrpc": "2.0", "id": message["id"], "result": result})


def _rare(method: str, *, modern: bool) -> dict[str, Any]:
    if method == "tools/list":
        return {"tools": [_TOOL], **(_CACHED if modern else {})}
    if method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_CACHED}
    if method == "initialize":
        told: dict[str, Any] = {"capabilities": {"tools": {}}, "serverInfo": _INFO}
        return {"protocolVersion": "2025-11-25", **told}
    return {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Both eras, told apart by the path."""
    modern = scope["path"] == "/modern"
    body, more = b"", True
    while more:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    status, headers, content = _respond(scope["method"], body, modern=modern)
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _respond(
    verb: str, body: bytes, *, modern: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    if verb != "POST":
        return (200 if verb == "DELETE" else 405), [], b""
    message = _decode(body)
    if modern and "_meta" not in message.get("params", {}):
        error = {"code": -32602, "message": "_meta is missing"}
        refusal = {"jsonrpc": "2.0", "id": message.get("id"), "error": error}
        return 400, [_JSON], _encode(refusal)
    if not modern and message["method"] == "server/discover":
        return 400, [], b""
    content = answer(message, modern=modern)
    if content is None:
        return 202, [], b""
    if message["method"] == "initialize":
        return 200, [_JSON, (b"mcp-session-id", b"bench")], content
    return 200, [_JSON], content


def stdio() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for line in source:
        content = answer(_decode(line), modern=True)
        if content is not None:
            sink.write(content + b"\n")
            sink.flush()


if __name__ == "__main__":
    if sys.argv[1:] == ["stdio"]:
        stdio()
    else:
        serve_asgi(app)

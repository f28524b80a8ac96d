"""A client that says exactly what a test wants: whole HTTP requests, or bytes on a socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
PATIENCE = 30.0  # seconds one answer may take; only a fault takes that long


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The JSON-RPC message, also where it came as the last event of a stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            events = [line[6:] for line in self.body.splitlines() if line.startswith(b"data: ")]
            return json.loads(events[-1])
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.message["error"]

    @property
    def result(self) -> Any:
        return self.message["result"]

    @property
    def text(self) -> str:
        """What a tool said."""
        return self.result["content"][0]["text"]


def send(
    url: str,
    method: str = "POST",
    path: str = "/mcp",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())


def fields(key: str | None = None, **more: str) -> dict[str, str]:
    """Header fields of a POST; `_` in a name stands for `-`."""
    found = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if key is not None:
        found["authorization"] = f"Bearer {key}"
    return found | {name.replace("_", "-"): value for name, value in more.items()}


def modern(method: str, id: Any = 1, **params: Any) -> bytes:
    """A request of 2026-07-28."""
    meta = {
        META + "protocolVersion": MODERN,
        META + "clientCapabilities": {},
        META + "clientInfo": {"name": "test", "version": "1"},
    }
    told = {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}
    return json.dumps(told).encode()


def legacy(method: str, id: Any = 1, **params: Any) -> bytes:
    told: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(told if id is None else {**told, "id": id}).encode()


def ask(
    url: str, key: str | None, method: str, path: str = "/mcp", id: Any = 1, **params: Any
) -> Answer:
    """Ask in the modern way."""
    headers = fields(key, mcp_protocol_version=MODERN, mcp_method=method)
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return send(url, path=path, body=modern(method, id, **params), headers=headers)


def tools(url: str, key: str | None, path: str = "/mcp") -> list[str]:
    return [tool["name"] for tool in ask(url, key, "tools/list", path).result["tools"]]


def call(url: str, key: str | None, tool: str, id: Any = 1, **arguments: Any) -> Answer:
    return ask(url, key, "tools/call", id=id, name=tool, arguments=arguments)


def initialize(
    url: str, key: str | None, revision: str = "2025-11-25", path: str = "/mcp"
) -> tuple[str, Answer]:
    """A legacy session: its id, and the answer that began it."""
    client = {"name": "test", "version": "1"}
    body = legacy("initialize", protocolVersion=revision, capabilities={}, clientInfo=client)
    answer = send(url, path=path, body=body, headers=fields(key))
    assert answer.status == 200, answer
    return answer.headers["mcp-session-id"], answer


@contextlib.contextmanager
def raw(url: str, data: bytes = b"") -> Generator[socket.socket]:
    """A connection on which `data` was sent."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        yield connection


def until_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def until(connection: socket.socket, sign: bytes) -> bytes:
    """All that comes until `sign` is in it."""
    found = b""
    while sign not in found:
        part = connection.recv(65536)
        assert part, f"closed before {sign!r}: {found!r}"
        found += part
    return found


def soon(true: Any, seconds: float = 10.0) -> float:
    """How long it took until `true()` was so; fails after `seconds`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not become so in time"
        time.sleep(0.01)
    return time.monotonic() - began

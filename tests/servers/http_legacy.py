"""A Streamable HTTP server of the handshake revisions, written by hand.

It is strict: no request without the session and the version header, no call before
`notifications/initialized`. Tools and methods run scripts; the GET stream is one too.
"""

from __future__ import annotations

from typing import Any

import anyio

from tests.servers.http_base import PATIENCE, Exchange, HttpServer, Script


class LegacyServer(HttpServer):
    """scripts: by tool name, by method, or `GET`.

    sessions: ids that are alive; forget them and the next request gets 404. answers: responses
    that were posted, by the JSON-RPC id of the server's request. violations: what a client did
    wrong.
    """

    def __init__(self, *, revision: str = "2025-11-25", sessions: bool = True, **scripts: Script):
        super().__init__()
        self.scripts: dict[str, Script] = dict(scripts)
        self.revision = revision
        self.capabilities: dict[str, Any] = {"tools": {}}
        self.keeps_sessions = sessions
        self.minted = 0
        self.sessions: set[str] = set()
        self.ready: set[str] = set()
        self.answers: dict[Any, Any] = {}
        self.violations: list[str] = []
        self._answered = anyio.Event()

    async def answered(self, id: Any) -> Any:
        """The response to the server's request `id`, once it was posted."""
        with anyio.fail_after(PATIENCE):
            while id not in self.answers:
                await self._answered.wait()
        return self.answers[id]

    async def script(self, exchange: Exchange) -> None:
        method = exchange.rpc
        if method == "initialize":
            await self._initialize(exchange)
            return
        session = exchange.headers.get("mcp-session-id", "")
        if self.keeps_sessions and session not in self.sessions:
            if not session:
                self.violations.append(f"{method} without a session")
            await exchange.respond(404 if session else 400)
            return
        version = exchange.headers.get("mcp-protocol-version")
        if version != (None if self.revision == "2025-03-26" else self.revision):
            self.violations.append(f"{method} with version {version}")
        if exchange.method == "GET":
            await self.scripts.get("GET", _no_stream)(exchange)
        elif exchange.method == "DELETE":
            self.sessions.discard(session)
            await exchange.respond(200)
        else:
            await self._post(exchange, method, session)

    async def _initialize(self, exchange: Exchange) -> None:
        if "mcp-session-id" in exchange.headers or "mcp-protocol-version" in exchange.headers:
            self.violations.append("initialize with a session or a version header")
        if (script := self.scripts.get("initialize")) is not None:
            await script(exchange)
            return
        self.minted += 1
        session = f"session-{self.minted}"
        self.sessions.add(session)
        await exchange.json(
            {
                "jsonrpc": "2.0",
                "id": exchange.message["id"],
                "result": {
                    "protocolVersion": self.revision,
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": "legacy", "version": "1"},
                    "instructions": "Be kind.",
                },
            },
            headers={"mcp-session-id": session} if self.keeps_sessions else None,
        )

    async def _post(self, exchange: Exchange, method: str | None, session: str) -> None:
        message = exchange.message
        if method is None:
            self.answers[message["id"]] = message
            self._answered.set()
            self._answered = anyio.Event()
            await exchange.respond(202)
        elif "id" not in message:
            if method == "notifications/initialized":
                self.ready.add(session)
            await exchange.respond(202)
        else:
            if session not in self.ready and self.keeps_sessions:
                self.violations.append(f"{method} before initialized")
            script = self.scripts.get(exchange.params.get("name", method))
            await (script or self.scripts.get(method) or _default)(exchange)


async def _no_stream(exchange: Exchange) -> None:
    await exchange.respond(405)


async def _default(exchange: Exchange) -> None:
    method = exchange.message["method"]
    if method == "tools/list":
        await exchange.result(tools=[{"name": "echo", "inputSchema": {"type": "object"}}])
    elif method == "tools/call":
        await exchange.result(
            content=[{"type": "text", "text": "done"}],
            structuredContent=exchange.params.get("arguments"),
        )
    elif method in ("resources/subscribe", "resources/unsubscribe", "logging/setLevel"):
        await exchange.result()
    else:
        await exchange.error(-32601, f"Method not found: {method}")

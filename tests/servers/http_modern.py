"""A Streamable HTTP server that speaks 2026-07-28 and nothing else, written by hand.

It checks each request's header fields and `_meta` with the official SDK's own rules, and runs the
script of the tool that is called, or of the method.
"""

from __future__ import annotations

from typing import Any

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    validate_mcp_param_headers,
)

from tests.servers.http_base import Exchange, HttpServer, Script

TOOL: dict[str, Any] = {
    "name": "echo",
    "inputSchema": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    },
}


class ModernServer(HttpServer):
    """scripts: by tool name or method. capabilities: what server/discover tells."""

    def __init__(self, **scripts: Script) -> None:
        super().__init__()
        self.scripts: dict[str, Script] = dict(scripts)
        self.capabilities: dict[str, Any] = {"tools": {}}
        self.versions = ["2026-07-28"]
        self.tools = [TOOL]

    async def script(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            await exchange.respond(405, headers={"allow": "POST"})
            return
        method = exchange.message["method"]
        rejection = classify_inbound_request(exchange.message, headers=exchange.headers)
        if not isinstance(rejection, InboundLadderRejection) and method == "tools/call":
            rejection = self._params(exchange)
        if isinstance(rejection, InboundLadderRejection):
            status = ERROR_CODE_HTTP_STATUS[rejection.code]
            await exchange.error(rejection.code, rejection.message, rejection.data, status)
            return
        script = self.scripts.get(exchange.params.get("name", method)) or self.scripts.get(method)
        await (script or self._default)(exchange)

    def _params(self, exchange: Exchange) -> InboundLadderRejection | None:
        for tool in self.tools:
            if tool["name"] == exchange.params["name"]:
                return validate_mcp_param_headers(
                    tool["inputSchema"], exchange.params.get("arguments", {}), exchange.headers
                )
        return None

    async def _default(self, exchange: Exchange) -> None:
        method = exchange.message["method"]
        if method == "server/discover":
            await exchange.result(
                resultType="complete",
                supportedVersions=self.versions,
                capabilities=self.capabilities,
                serverInfo={"name": "modern", "version": "1"},
                instructions="Be kind.",
                ttlMs=0,
                cacheScope="private",
            )
        elif method == "tools/list":
            await exchange.result(
                resultType="complete", tools=self.tools, ttlMs=1000, cacheScope="public"
            )
        elif method == "tools/call":
            await exchange.result(
                resultType="complete",
                content=[{"type": "text", "text": "done"}],
                structuredContent=exchange.params.get("arguments"),
            )
        else:
            await exchange.error(-32601, f"Method not found: {method}", status=404)

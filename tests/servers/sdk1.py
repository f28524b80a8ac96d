"""A server of the Python SDK's 1.x line: `python sdk1.py stdio|streamable-http|sse`.

It runs in that line's own environment (tests.peers.python_sdk_1) and knows nothing after
2025-11-25. Over HTTP it tells its URL on standard error.
"""

from __future__ import annotations

import socket
import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

READY = "sdk1 serves on "
PATHS = {"streamable-http": "/mcp", "sse": "/sse"}


class Who(BaseModel):
    name: str


def build(port: int) -> FastMCP:
    server = FastMCP("sdk1", host="127.0.0.1", port=port, log_level="ERROR")

    @server.tool()
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    @server.tool()
    async def sample(prompt: str, ctx: Context) -> str:
        content = TextContent(type="text", text=prompt)
        messages = [SamplingMessage(role="user", content=content)]
        answer = await ctx.session.create_message(messages=messages, max_tokens=10)
        return str(answer.content)

    @server.tool()
    async def ask(message: str, ctx: Context) -> str:
        answer = await ctx.elicit(message=message, schema=Who)
        return str(answer)

    @server.tool()
    async def roots(ctx: Context) -> str:
        return str((await ctx.session.list_roots()).roots)

    @server.tool()
    async def steps(ctx: Context) -> str:
        for step in (1, 2, 3):
            await ctx.report_progress(step, 3, f"step {step}")
            await ctx.info(f"at {step}")
        return "done"

    @server.prompt()
    def greet(who: str) -> str:
        return f"Hello {who}"

    @server.resource("real://text")
    def words() -> str:
        return "words"

    return server


def main() -> None:
    transport = sys.argv[1]
    port = 0
    if transport != "stdio":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    server = build(port)
    if transport != "stdio":
        sys.stderr.write(f"{READY}http://127.0.0.1:{port}{PATHS[transport]}\n")
        sys.stderr.flush()
    server.run(transport)


if __name__ == "__main__":
    main()

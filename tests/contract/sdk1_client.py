"""A client of the Python SDK's 1.x line: `python sdk1_client.py`, told on stdin, telling on stdout.

It runs in that line's own environment. In: {"transport", "url" | "command", "env", "key", "who",
"prefix", "calls": [[tool, arguments], …]}. Out: what each call came to, and what was heard.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


async def streams(stack: AsyncExitStack, task: dict[str, Any]) -> tuple[Any, Any]:
    headers = {"Authorization": f"Bearer {task['key']}"}
    if task["transport"] == "stdio":
        command, *words = task["command"]
        way = stdio_client(StdioServerParameters(command=command, args=words, env=task["env"]))
        return await stack.enter_async_context(way)
    if task["transport"] == "sse":
        return await stack.enter_async_context(sse_client(task["url"], headers=headers))
    way = streamablehttp_client(task["url"], headers=headers)
    reader, writer, _ = await stack.enter_async_context(way)
    return reader, writer


async def main(task: dict[str, Any]) -> dict[str, Any]:
    who, prefix = task["who"], task["prefix"]
    heard: dict[str, list[Any]] = {"progress": [], "logs": []}

    async def sampling(context: Any, params: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=f"sampled {who}")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def elicitation(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": who})

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///{who}")])

    async def logs(params: Any) -> None:
        heard["logs"].append(params.data)

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard["progress"].append(done)

    async with AsyncExitStack() as stack:
        reader, writer = await streams(stack, task)
        session = await stack.enter_async_context(
            ClientSession(
                reader,
                writer,
                read_timeout_seconds=timedelta(seconds=30),
                sampling_callback=sampling,
                elicitation_callback=elicitation,
                list_roots_callback=roots,
                logging_callback=logs,
            )
        )
        told = await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        results: list[Any] = []
        for name, arguments in task["calls"]:
            result = await session.call_tool(prefix + name, arguments, progress_callback=progress)
            results.append([result.isError, " ".join(str(one) for one in result.content)])
        prompts = [prompt.name for prompt in (await session.list_prompts()).prompts]
        resources = [str(one.uri) for one in (await session.list_resources()).resources]
    return {
        "revision": told.protocolVersion,
        "tools": tools,
        "prompts": prompts,
        "resources": resources,
        "results": results,
        **heard,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.read())))))  # noqa: T201

"""A server that passes every server scenario of the conformance suite by itself.

On the official SDK's low-level API, at the handshake revisions and at 2026-07-28, over Streamable
HTTP (`upstream.py [PORT]`, told on stderr) or stdio (`upstream.py --stdio`). Written from the
requirement texts of the suite's scenarios.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import mcp_types as t
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from tests.conformance.upstream_tools import BUS, PNG, TOOLS, Call, ask, embedded, image, obj, text

READY = "upstream serves on "
RETRY = 100  # ms after which a client comes back to a stream that was closed
STATE_KEY = b"conformance-upstream: a fixed test key, 32+ bytes"

# ------------------------------------------------------------ resources and prompts

STATIC = {
    "test://static-text": (
        "static-text",
        "text/plain",
        "This is the content of the static text resource.",
    ),
    "test://static-binary": ("static-binary", "image/png", None),
    "test://watched-resource": ("watched-resource", "text/plain", "Watched resource content"),
}
TEMPLATE = "test://template/{id}/data"


def read(uri: str) -> t.TextResourceContents | t.BlobResourceContents | None:
    if uri in STATIC:
        _, mime, body = STATIC[uri]
        if body is None:
            return t.BlobResourceContents(uri=uri, mime_type=mime, blob=PNG)
        return t.TextResourceContents(uri=uri, mime_type=mime, text=body)
    head, tail = TEMPLATE.split("{id}")
    ident = uri[len(head) : -len(tail)] if uri.startswith(head) and uri.endswith(tail) else ""
    if ident and "/" not in ident:
        body = json.dumps({"id": ident, "templateTest": True, "data": f"Data for ID: {ident}"})
        return t.TextResourceContents(uri=uri, mime_type="application/json", text=body)
    return None


PROMPTS: dict[str, tuple[list[str], Callable[[Call], Any]]] = {
    "test_simple_prompt": ([], lambda c: [text("This is a simple prompt for testing.")]),
    "test_prompt_with_arguments": (
        ["arg1", "arg2"],
        lambda c: [
            text(f"Prompt with arguments: arg1='{c.args['arg1']}', arg2='{c.args['arg2']}'")
        ],
    ),
    "test_prompt_with_embedded_resource": (
        ["resourceUri"],
        lambda c: [
            embedded(c.args["resourceUri"], "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ],
    ),
    "test_prompt_with_image": ([], lambda c: [image(), text("Please analyze the image above.")]),
    "test_input_required_result_prompt": (
        [],
        lambda c: (
            [text(f"Context: {c.field('user_context', 'context')}")]
            if c.field("user_context", "context") is not None
            else t.InputRequiredResult(
                input_requests={
                    "user_context": ask("What context should the prompt use?", obj("context"))
                }
            )
        ),
    ),
}


# ------------------------------------------------------------ the server


class MemoryEvents(EventStore):
    """Keeps every event of every stream, for resumption."""

    def __init__(self) -> None:
        self.events: dict[str, tuple[str, t.JSONRPCMessage | None]] = {}
        self.ids = itertools.count(1)

    async def store_event(self, stream_id: str, message: t.JSONRPCMessage | None) -> str:
        event_id = str(next(self.ids))
        self.events[event_id] = (stream_id, message)
        return event_id

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        if last_event_id not in self.events:
            return None
        stream = self.events[last_event_id][0]
        for event_id, (where, message) in list(self.events.items()):
            if where == stream and int(event_id) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, event_id))
        return stream


def build() -> Server[Any]:
    tools, prompts = TOOLS, PROMPTS

    async def list_tools(
        ctx: ServerRequestContext[Any], params: t.PaginatedRequestParams | None
    ) -> t.ListToolsResult:
        return t.ListToolsResult(tools=[tl for tl, _ in tools.values()])

    async def call_tool(
        ctx: ServerRequestContext[Any], params: t.CallToolRequestParams
    ) -> t.CallToolResult | t.InputRequiredResult:
        if params.name not in tools:
            raise MCPError(code=t.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        call = Call(
            ctx, params.arguments or {}, dict(params.input_responses or {}), params.request_state
        )
        try:
            r = await tools[params.name][1](call)
        except ValueError as e:
            return t.CallToolResult(content=[text(str(e))], is_error=True)
        if isinstance(r, str):
            return t.CallToolResult(content=[text(r)])
        return t.CallToolResult(content=r) if isinstance(r, list) else r

    async def list_resources(
        ctx: ServerRequestContext[Any], params: t.PaginatedRequestParams | None
    ) -> t.ListResourcesResult:
        return t.ListResourcesResult(
            resources=[
                t.Resource(uri=u, name=n, description=f"The resource {n}", mime_type=m)
                for u, (n, m, _) in STATIC.items()
            ]
        )

    async def list_templates(
        ctx: ServerRequestContext[Any], params: t.PaginatedRequestParams | None
    ) -> t.ListResourceTemplatesResult:
        item = t.ResourceTemplate(
            uri_template=TEMPLATE,
            name="template",
            description="A resource with an id",
            mime_type="application/json",
        )
        return t.ListResourceTemplatesResult(resource_templates=[item])

    async def read_resource(
        ctx: ServerRequestContext[Any], params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult:
        found = read(str(params.uri))
        if found is None:
            code = t.INVALID_PARAMS if ctx.protocol_version >= "2026-07-28" else -32002
            raise MCPError(code=code, message="Resource not found", data={"uri": str(params.uri)})
        return t.ReadResourceResult(contents=[found])

    async def subscribe(
        ctx: ServerRequestContext[Any], params: t.SubscribeRequestParams
    ) -> t.EmptyResult:
        return t.EmptyResult()

    async def unsubscribe(
        ctx: ServerRequestContext[Any], params: t.UnsubscribeRequestParams
    ) -> t.EmptyResult:
        return t.EmptyResult()

    async def list_prompts(
        ctx: ServerRequestContext[Any], params: t.PaginatedRequestParams | None
    ) -> t.ListPromptsResult:
        return t.ListPromptsResult(
            prompts=[
                t.Prompt(
                    name=n,
                    description=f"The prompt {n}",
                    arguments=[
                        t.PromptArgument(name=a, description=a, required=True) for a in args
                    ],
                )
                for n, (args, _) in prompts.items()
            ]
        )

    async def get_prompt(
        ctx: ServerRequestContext[Any], params: t.GetPromptRequestParams
    ) -> t.GetPromptResult | t.InputRequiredResult:
        if params.name not in prompts:
            raise MCPError(code=t.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
        args, render = prompts[params.name]
        given = dict(params.arguments or {})
        if missing := [a for a in args if a not in given]:
            raise MCPError(
                code=t.INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}"
            )
        r = render(Call(ctx, given, dict(params.input_responses or {}), params.request_state))
        if isinstance(r, t.InputRequiredResult):
            return r
        return t.GetPromptResult(
            messages=[t.PromptMessage(role="user", content=item) for item in r]
        )

    async def complete(
        ctx: ServerRequestContext[Any], params: t.CompleteRequestParams
    ) -> t.CompleteResult:
        values = [v for v in ("paris", "park", "party") if v.startswith(params.argument.value)]
        return t.CompleteResult(
            completion=t.Completion(values=values, total=len(values), has_more=False)
        )

    async def set_level(
        ctx: ServerRequestContext[Any], params: t.SetLevelRequestParams
    ) -> t.EmptyResult:
        return t.EmptyResult()

    # The constructor is deprecated for its logging half, which 2025-11-25 still has.
    server: Server[Any] = Server(  # pyright: ignore[reportDeprecated]
        "conformance-upstream",
        version="1.0.0",
        get_tool_input_schema=lambda name: tools[name][0].input_schema if name in tools else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=set_level,
    )
    server.middleware.append(
        RequestStateBoundary(RequestStateSecurity(keys=[STATE_KEY]), default_audience=server.name)
    )
    return server


async def serve_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (reader, writer):
        await server.run(
            reader, writer, server.create_initialization_options(NotificationOptions())
        )


async def serve_http(server: Server[Any], port: int) -> None:
    app = server.streamable_http_app(event_store=MemoryEvents(), retry_interval=RETRY)
    with socket.create_server(("127.0.0.1", port)) as listening:
        # h11, unlike httptools, takes white space off header values, as a scenario asks.
        settings = uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1)
        sys.stderr.write(f"{READY}http://127.0.0.1:{listening.getsockname()[1]}/mcp" + "\n")
        sys.stderr.flush()
        await uvicorn.Server(settings).serve([listening])


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else "0"
    asyncio.run(serve_stdio(build()) if word == "--stdio" else serve_http(build(), int(word)))

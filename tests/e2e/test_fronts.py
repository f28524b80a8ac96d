"""The official SDK's client against a real front, in both eras and over each transport."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    Progress,
    Reply,
    ResourceUpdated,
)
from mcpgw.model.ports import Caller
from tests.doubles import PATIENCE, ScriptedHandler, listing, obj, plain, text_result, tool
from tests.unit.front.rig import Front, front

pytestmark = [
    pytest.mark.anyio,
    # The SDK calls all that only legacy revisions have deprecated.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

WAYS = ["legacy", "auto", "sse", "stdio-legacy", "stdio-auto"]


def discover() -> Done:
    return Done(
        obj(
            supportedVersions=["2026-07-28"],
            capabilities={
                "tools": {"listChanged": True},
                "resources": {"subscribe": True, "listChanged": True},
                "logging": {},
            },
            serverInfo={"name": "up", "version": "1"},
            ttlMs=0,
            cacheScope="private",
        )
    )


async def work(call: Call, caller: Caller) -> Reply:
    """Tells progress and logs, asks for a name, and says it."""
    if call.answers is None and caller.ask_mode is AskMode.RETRY:
        ask = Ask("elicitation/create", question())
        return NeedInput({"name": ask}, "state")
    await caller.tell(Progress(obj(progress=1.0, total=2.0)))
    await caller.tell(Log("info", obj(level="info", data="working")))
    if caller.ask_mode is AskMode.LIVE:
        told = plain(await caller.ask(Ask("elicitation/create", question())))
    else:
        told = plain(call.answers)["name"]
    return text_result(f"hello {told['content']['name']}")


def question() -> Any:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    return obj(mode="form", message="who?", requestedSchema=schema)


async def follow(call: Call, caller: Caller) -> Reply:
    wanted = plain(call.params)["notifications"]
    await caller.tell(Listening(obj(**wanted)))
    if wanted.get("toolsListChanged"):
        await caller.tell(ListChanged("tools"))
    for uri in wanted.get("resourceSubscriptions", ()):
        await caller.tell(ResourceUpdated(uri, obj(uri=uri)))
    await anyio.sleep_forever()
    raise AssertionError


def scripted() -> ScriptedHandler:
    return ScriptedHandler(
        {
            "server/discover": discover(),
            "tools/list": listing("tools", [tool("github__work")]),
            "tools/call": work,
            "subscriptions/listen": follow,
        }
    )


class Told:
    """What a client was told."""

    def __init__(self) -> None:
        self.logs: list[Any] = []
        self.progress: list[float] = []
        self.notes: list[str] = []
        self._news = anyio.Event()

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append(params.data)

    async def hear_progress(
        self, progress: float, total: float | None, message: str | None
    ) -> None:
        self.progress.append(progress)

    async def message(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.notes.append("tools")
        elif isinstance(message, types.ResourceUpdatedNotification):
            self.notes.append(str(message.params.uri))
        self._news.set()
        self._news = anyio.Event()

    async def noted(self, what: str) -> None:
        with anyio.fail_after(PATIENCE):
            while what not in self.notes:
                await self._news.wait()


async def named(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


@asynccontextmanager
async def client(way: str, here: Front, told: Told) -> AsyncGenerator[Client]:
    headers = {"authorization": "Bearer mcpgw_alice"}
    mode = way.removeprefix("stdio-")
    async with create_mcp_http_client(headers=headers) as http:
        if way.startswith("stdio-"):
            server: Any = StdioServerParameters(
                command=sys.executable, args=["-m", "tests.e2e.front_on_stdio"]
            )
        elif way == "sse":
            server, mode = sse_client(f"{here.url}/sse", headers=headers), "legacy"
        else:
            server = streamable_http_client(f"{here.url}/mcp", http_client=http)
        async with Client(
            server,
            mode=mode,
            elicitation_callback=named,
            logging_callback=told.log,
            message_handler=told.message,
            log_level="info" if mode == "auto" else None,
        ) as connected:
            yield connected


@pytest.mark.parametrize("way", WAYS)
async def test_the_sdk_client_uses_all_of_it(way: str) -> None:
    told = Told()
    with anyio.fail_after(30):
        async with front(scripted()) as here, client(way, here, told) as connected:
            assert connected.server_capabilities.tools is not None
            tools = await connected.list_tools()
            assert [one.name for one in tools.tools] == ["github__work"]
            result = await connected.call_tool(
                "github__work", {}, progress_callback=told.hear_progress
            )
            assert isinstance(result, types.CallToolResult)
            (content,) = result.content
            assert isinstance(content, types.TextContent)
            assert content.text == "hello Ada"
            assert told.progress == [1.0]
            assert told.logs == ["working"]
            if "auto" not in way:
                old: Any = connected  # deprecated, since modern revisions have none of it
                await old.send_ping()
                await old.subscribe_resource("a:b")
                await told.noted("tools")
                await told.noted("a:b")
                await old.unsubscribe_resource("a:b")


async def test_the_sdk_client_listens_in_the_modern_era() -> None:
    with anyio.fail_after(30):
        async with front(scripted()) as here:
            headers = {"authorization": "Bearer mcpgw_alice"}
            async with (
                create_mcp_http_client(headers=headers) as http,
                Client(
                    streamable_http_client(f"{here.url}/mcp/github", http_client=http), mode="auto"
                ) as connected,
            ):
                assert connected.protocol_version == "2026-07-28"
                async with connected.listen(tools_list_changed=True) as events:
                    async for event in events:
                        assert event is not None
                        break

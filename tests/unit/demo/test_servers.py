"""The demo's servers are of exactly their era, as the official client and bare requests see it."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters

from mcpgw.demo import clients, eras, stdio
from mcpgw.demo.offers import Refused
from mcpgw.demo.stage import python

PATIENCE = 20.0
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@contextmanager
def serving(kind: str, revision: str) -> Generator[str]:
    """A demo server over HTTP; its URL. It must end when its input does."""
    with subprocess.Popen(
        python("mcpgw.demo.http", kind, revision),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
        assert server.wait(PATIENCE) == 0


async def used(server: Any, mode: str) -> str:
    """Use all that a demo server offers; the revision that was agreed on."""
    with anyio.fail_after(PATIENCE):
        async with Client(server, mode=mode) as client:
            tools = await client.list_tools()
            assert [tool.name for tool in tools.tools] == ["add", "echo"]
            result = await client.call_tool("add", {"a": 2, "b": 3})
            assert result.content[0].model_dump()["text"] == "5"
            prompt = await client.get_prompt("greet", {"who": "Ada"})
            assert "Ada" in str(prompt.messages[0].content)
            assert (await client.read_resource("demo://about")).contents
            return client.protocol_version


@pytest.mark.anyio
@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_stdio_server_shakes_hands_at_its_revision(revision: str) -> None:
    command, *words = python("mcpgw.demo.stdio", revision)
    server = StdioServerParameters(command=command, args=words)
    assert await used(server, "legacy") == revision


@pytest.mark.anyio
async def test_a_stdio_server_of_2026_needs_no_handshake() -> None:
    command, *words = python("mcpgw.demo.stdio", "2026-07-28")
    assert await used(StdioServerParameters(command=command, args=words), "auto") == "2026-07-28"


@pytest.mark.anyio
async def test_streamable_http_of_each_era() -> None:
    with serving("http", "2025-11-25") as url:
        assert await used(url, "auto") == "2025-11-25"
    with serving("http", "2026-07-28") as url:
        assert await used(url, "auto") == "2026-07-28"


@pytest.mark.anyio
async def test_http_with_sse() -> None:
    with serving("sse", "2024-11-05") as url:
        assert await used(sse_client(url), "legacy") == "2024-11-05"


def test_the_sessions_of_a_legacy_http_server_are_needed_and_end() -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    about: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
    hello: dict[str, Any] = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
    with serving("http", "2025-11-25") as url, httpx2.Client() as http:
        assert http.post(url, json=call).status_code == 400
        session = {"mcp-session-id": http.post(url, json=hello).headers["mcp-session-id"]}
        assert http.post(url, json=call, headers=session).status_code == 200
        assert http.delete(url, headers=session).status_code == 204
        assert http.post(url, json=call, headers=session).status_code == 404
        assert http.get(url).status_code == 405
        assert http.post(url, content=b"{").status_code == 400


def test_a_modern_http_server_compares_headers_with_the_body() -> None:
    params = {"name": "echo", "arguments": {"text": "x"}, "_meta": META}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    right = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "echo",
    }
    with serving("http", "2026-07-28") as url, httpx2.Client() as http:
        assert http.post(url, json=call, headers=right).status_code == 200
        for name in right:
            wrong = http.post(url, json=call, headers={**right, name: "other"})
            assert wrong.status_code == 400
            assert wrong.json()["error"]["code"] == -32020
        hello: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        refused = http.post(url, json=hello, headers={"mcp-method": "initialize"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        unknown = {**call, "method": "nothing/known"}
        headers = {**right, "mcp-method": "nothing/known"}
        assert http.post(url, json=unknown, headers=headers).status_code == 404
        assert http.get(url).status_code == 405


def test_a_subscription_is_acknowledged_and_stays_open() -> None:
    params = {"notifications": {"toolsListChanged": True}, "_meta": META}
    listen = {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
    with (
        serving("http", "2026-07-28") as url,
        httpx2.Client() as http,
        http.stream("POST", url, json=listen, headers=headers) as response,
    ):
        lines = response.iter_lines()
        assert next(lines) == "event: message"
        told = json.loads(next(lines).removeprefix("data: "))
        assert told["method"] == "notifications/subscriptions/acknowledged"
        assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 7}


def test_a_modern_server_refuses_what_lacks_its_meta() -> None:
    lacks = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    with pytest.raises(Refused, match="clientCapabilities"):
        eras.stateless("x", {"id": 1, "method": "tools/list", "params": {"_meta": lacks}})
    old = {**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}
    with pytest.raises(Refused) as refused:
        eras.stateless("x", {"id": 1, "method": "tools/list", "params": {"_meta": old}})
    assert refused.value.code == -32022
    assert refused.value.data == {"supported": ["2026-07-28"], "requested": "2025-11-25"}


def test_a_legacy_server_wants_the_handshake_first() -> None:
    session = eras.Session("x", "2025-06-18")
    early = session.receive({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert early is not None
    assert early["error"]["code"] == -32600
    hello = {"protocolVersion": "2025-11-25"}
    agreed = session.receive({"id": 2, "method": "initialize", "params": hello})
    assert agreed is not None
    assert agreed["result"]["protocolVersion"] == "2025-06-18"
    assert session.receive({"method": "notifications/initialized"}) is None


def test_lines_that_are_no_messages_are_answered_and_passed() -> None:
    incoming = io.StringIO('not json\n[1]\n\n{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    outgoing = io.StringIO()
    stdio.serve("2025-11-25", incoming, outgoing)
    told = [json.loads(line) for line in outgoing.getvalue().splitlines()]
    assert [one.get("error", {}).get("code") for one in told] == [-32700, -32600, None]


@pytest.mark.anyio
@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_the_small_client_speaks_one_revision(revision: str) -> None:
    with serving("http", revision) as url:
        async with clients.streamable_http(url, "unused", revision) as client:
            assert await client.tools() == {"add", "echo"}
            assert await client.call("add", {"a": 1, "b": 1}) == "2"
            with pytest.raises(clients.Failed, match="must be numbers"):
                await client.call("add", {"a": "one"})
            with pytest.raises(clients.Failed, match="Unknown tool"):
                await client.call("nothing", {})


@pytest.mark.anyio
async def test_the_small_client_says_when_the_server_is_of_another_era() -> None:
    with serving("http", "2025-06-18") as url:
        with pytest.raises(clients.Failed, match="offers 2025-06-18"):
            async with clients.streamable_http(url, "unused", "2025-11-25"):
                pass
        with pytest.raises(clients.Failed, match="400"):
            async with clients.streamable_http(url, "unused", "2026-07-28"):
                pass

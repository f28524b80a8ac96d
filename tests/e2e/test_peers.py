"""Servers and clients that others made, on the two sides of a real gateway."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests import peers
from tests.children import gateway
from tests.e2e.gateway import PATIENCE, House, child

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

SERVERS = ("everything", "everything-http", "files", "git", "memory", "time")
TS_CLIENT = Path(__file__).parent / "ts_client.mjs"


@dataclass
class Setting:
    """A running gateway in front of every peer server."""

    house: House
    address: str
    secret: str

    @property
    def files(self) -> Path:
        return self.house.folder / "files"

    @property
    def repository(self) -> Path:
        return self.house.folder / "repository"


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Setting]:
    """Everything registered by the command line, a key for it, a daemon."""
    house = House(tmp_path_factory.mktemp("peers"))
    node, python = peers.node(), peers.python_servers()
    _contents(house.folder, python.git)
    with everything(node) as url:
        add = ("server", "add")
        house.done(*add, "everything", "--", *node.server("everything"))
        house.done(*add, "everything-http", "--url", url)
        house.done(*add, "files", "--", *node.server("filesystem"), str(house.folder / "files"))
        graph = f"MEMORY_FILE_PATH={house.folder / 'memory.jsonl'}"
        house.done(*add, "memory", "--env", graph, "--", *node.server("memory"))
        house.done(*add, "time", "--", *python.server("time"))
        git = f"GIT_PYTHON_GIT_EXECUTABLE={python.git}"
        house.done(*add, "git", "--env", git, "--", *python.server("git"))
        secret = house.key("peers", *SERVERS)
        with house.serving() as address:
            yield Setting(house, address, secret)


def _contents(folder: Path, git: str) -> None:
    """A file to read and a commit to find."""
    (folder / "files").mkdir()
    (folder / "files" / "hello.txt").write_text("Grüße aus der Datei\n")
    repository = folder / "repository"
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    commit = (*who, "commit", "--quiet", "--allow-empty", "-m", "Plant the first tree")
    subprocess.run([git, "init", "--quiet", repository], check=True)
    subprocess.run([git, "-C", repository, *commit], check=True)


@contextlib.contextmanager
def everything(node: peers.Node, **environment: str) -> Generator[str]:
    """server-everything over Streamable HTTP; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, **environment, "PORT": str(port)}
    command = [*node.server("everything"), "streamableHttp"]
    with child(command, "MCP Streamable HTTP Server listening", env=env):
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def sdk(setting: Setting, front: str, mode: str, **options: Any) -> AsyncGenerator[Client]:
    """The Python SDK's client through one of the gateway's fronts."""
    headers = {"Authorization": f"Bearer {setting.secret}"}
    with anyio.fail_after(PATIENCE):
        if front == "http":
            async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
                way = streamable_http_client(f"{setting.address}/mcp", http_client=http)
                async with Client(way, mode=mode, **options) as client:
                    yield client
        elif front == "sse":
            way = sse_client(f"{setting.address}/sse", headers=headers)
            async with Client(way, mode=mode, **options) as client:
                yield client
        else:
            command, *words = gateway("stdio", "--key", "peers")
            way = StdioServerParameters(command=command, args=words, env=setting.house.environment)
            async with Client(way, mode=mode, **options) as client:
                yield client


def text(result: types.CallToolResult) -> str:
    assert not result.is_error, result
    return "".join(part.text for part in result.content if isinstance(part, types.TextContent))


FRONTS = [
    pytest.param("http", "legacy", "2025-11-25", id="streamable-http 2025"),
    pytest.param("http", "2026-07-28", "2026-07-28", id="streamable-http 2026"),
    pytest.param("sse", "legacy", "2024-11-05", id="sse"),
    pytest.param("stdio", "legacy", "2025-11-25", id="stdio 2025"),
    pytest.param("stdio", "2026-07-28", "2026-07-28", id="stdio 2026"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("front", "mode", "revision"), FRONTS)
async def test_the_python_sdk_uses_every_server(
    setting: Setting, front: str, mode: str, revision: str
) -> None:
    async with sdk(setting, front, mode) as client:
        if front != "sse":  # the SDK's client agrees on its newest handshake revision there
            assert client.protocol_version == revision
        names = await _every_tool(client)
        assert {name.split("__")[0] for name in names} == set(SERVERS)

        for server in ("everything", "everything-http"):
            said = await client.call_tool(f"{server}__echo", {"message": f"über {front}"})
            assert text(said) == f"Echo: über {front}"
            total = await client.call_tool(f"{server}__get-sum", {"a": 19, "b": 23})
            assert "42" in text(total)

        path = str(setting.files / "hello.txt")
        assert text(await client.call_tool("files__read_text_file", {"path": path})).startswith(
            "Grüße aus der Datei"
        )
        log = await client.call_tool("git__git_log", {"repo_path": str(setting.repository)})
        assert "Plant the first tree" in text(log)

        wanted = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        converted = json.loads(text(await client.call_tool("time__convert_time", wanted)))
        assert converted["time_difference"] == "+9.0h"

        name = f"{front} {mode}"
        entity = {"name": name, "entityType": "client", "observations": ["was here"]}
        await client.call_tool("memory__create_entities", {"entities": [entity]})
        graph = text(await client.call_tool("memory__open_nodes", {"names": [name]}))
        assert json.loads(graph)["entities"] == [entity]


async def _every_tool(client: Client) -> set[str]:
    names: set[str] = set()
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        names.update(tool.name for tool in page.tools)
        if page.next_cursor is None:
            return names
        cursor = page.next_cursor


@pytest.mark.anyio
@pytest.mark.parametrize(("front", "mode", "revision"), FRONTS)
async def test_a_tool_that_is_refused_says_so_in_words(
    setting: Setting, front: str, mode: str, revision: str
) -> None:
    async with sdk(setting, front, mode) as client:
        outside = {"path": "/etc/hostname"}
        result = await client.call_tool("files__read_text_file", outside)
        assert result.is_error
        assert "denied" in result.content[0].model_dump()["text"]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("server", ["everything", "everything-http"])
async def test_prompts_resources_and_progress_pass(
    setting: Setting, server: str, mode: str
) -> None:
    async with sdk(setting, "http", mode) as client:
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert f"{server}__simple-prompt" in prompts
        prompt = await client.get_prompt(f"{server}__args-prompt", {"city": "Kyoto"})
        assert "Kyoto" in str(prompt.messages[0].content)

        seen: list[float] = []

        async def heard(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        result = await client.call_tool(
            f"{server}__trigger-long-running-operation",
            {"duration": 1, "steps": 4},
            progress_callback=heard,
        )
        assert "completed" in text(result)
        assert seen == sorted(seen)
        assert len(seen) >= 3

    resources = await _resources(setting, mode)
    assert any(uri.startswith("demo://resource/static/document/") for uri in resources)


async def _resources(setting: Setting, mode: str) -> list[str]:
    """All resources of one server under its own names, and the first of them read."""
    headers = {"Authorization": f"Bearer {setting.secret}"}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        way = streamable_http_client(f"{setting.address}/mcp/everything", http_client=http)
        async with Client(way, mode=mode) as client:
            listed = [str(one.uri) for one in (await client.list_resources()).resources]
            read = await client.read_resource(listed[0])
            assert read.contents
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert {"echo", "get-sum"} <= tools
    return listed


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("server", ["everything", "everything-http"])
async def test_a_server_asks_the_client_of_either_era(
    setting: Setting, server: str, mode: str
) -> None:
    asked: list[str] = []

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"name": "Ada Lovelace"})

    async with sdk(setting, "http", mode, elicitation_callback=elicit) as client:
        assert f"{server}__trigger-elicitation-request" in await _every_tool(client)
        result = await client.call_tool(f"{server}__trigger-elicitation-request", {})
        assert asked
        assert "Ada Lovelace" in text(result)


def plan(setting: Setting, **more: Any) -> dict[str, Any]:
    calls = [
        {"name": "everything__echo", "arguments": {"message": "from TypeScript"}},
        {"name": "everything-http__get-sum", "arguments": {"a": 40, "b": 2}},
        {"name": "time__get_current_time", "arguments": {"timezone": "UTC"}},
    ]
    return {
        "modules": str(peers.node().modules),
        "key": setting.secret,
        "calls": calls,
        "env": setting.house.environment,
        "command": gateway("stdio", "--key", "peers"),
        **more,
    }


TYPESCRIPT = [
    pytest.param("v1", "http", None, "2025-11-25", id="v1 streamable-http"),
    pytest.param("v1", "sse", None, None, id="v1 sse"),
    pytest.param("v1", "stdio", None, None, id="v1 stdio"),
    pytest.param("v2", "http", "legacy", "2025-11-25", id="v2 streamable-http 2025"),
    pytest.param("v2", "http", {"pin": "2026-07-28"}, "2026-07-28", id="v2 streamable-http 2026"),
    pytest.param("v2", "http", "auto", "2026-07-28", id="v2 streamable-http auto"),
    pytest.param("v2", "stdio", {"pin": "2026-07-28"}, "2026-07-28", id="v2 stdio 2026"),
    pytest.param("v2", "stdio", "legacy", "2025-11-25", id="v2 stdio 2025"),
]


@pytest.mark.parametrize(("version", "transport", "mode", "revision"), TYPESCRIPT)
def test_the_typescript_clients_use_the_gateway(
    setting: Setting, version: str, transport: str, mode: Any, revision: str | None
) -> None:
    url = f"{setting.address}/{'sse' if transport == 'sse' else 'mcp'}"
    asked = plan(setting, sdk=version, transport=transport, url=url, mode=mode)
    done = subprocess.run(
        [str(peers.node().node), str(TS_CLIENT), json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if revision is not None:
        assert told["revision"] == revision
    assert {name.split("__")[0] for name in told["tools"]} == set(SERVERS)
    first, second, third = (result["content"][0]["text"] for result in told["results"])
    assert first == "Echo: from TypeScript"
    assert "42" in second
    assert json.loads(third)["timezone"] == "UTC"


def inspector(setting: Setting, words: Sequence[str]) -> Any:
    done = subprocess.run(
        [*peers.node().inspector, "--cli", *words],
        env={**setting.house.environment, "MCP_AUTO_OPEN_ENABLED": "false"},
        cwd=setting.house.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("front", ["http", "sse"])
def test_the_inspector_lists_and_calls(setting: Setting, front: str) -> None:
    url = f"{setting.address}/{'mcp' if front == 'http' else 'sse'}"
    way = [url, "--transport", front, "--header", f"Authorization: Bearer {setting.secret}"]
    listed = inspector(setting, [*way, "--method", "tools/list"])
    assert {tool["name"].split("__")[0] for tool in listed["tools"]} == set(SERVERS)
    call = ["--method", "tools/call", "--tool-name", "everything__echo"]
    said = inspector(setting, [*way, *call, "--tool-arg", "message=inspected"])
    assert said["content"][0]["text"] == "Echo: inspected"


def test_the_command_line_tests_and_calls_through_the_daemon(setting: Setting) -> None:
    house = setting.house
    assert house.told("tools", "test", "files")["ok"] is True
    said = house.done("tools", "call", "everything__echo", "--arg", "message=typed")
    assert said.strip() == "Echo: typed"
    read = house.told("tools", "call", "git__git_log", "--arg", f"repo_path={setting.repository}")
    assert "Plant the first tree" in json.dumps(read)
    status = house.told("status")
    assert status["running"] is True
    states = {server["name"]: server["state"] for server in status["servers"]}
    assert states["everything"] == states["git"] == "up"


def test_each_server_is_tested_without_a_daemon(setting: Setting) -> None:
    """A store of its own, so that nothing is up yet."""
    node, python = peers.node(), peers.python_servers()
    folder = setting.house.folder / "apart"
    folder.mkdir()
    house = House(folder)
    house.done("server", "add", "memory", "--", *node.server("memory"))
    house.done("server", "add", "time", "--", *python.server("time"))
    said = house.run("server", "test")
    assert said.returncode == 0, said.stderr
    assert len(re.findall(r"\bok\b", said.stdout)) == 4

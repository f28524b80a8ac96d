"""The matrix' subset with SDKs as peers that know one era: the 1.x line, and a modern-only 2.x.

The 1.x line knows nothing after 2025-11-25; the 2.x server refuses whatever is of a handshake. Two
keys use every server at the same time.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests import peers
from tests.children import gateway, module
from tests.e2e.gateway import PATIENCE, House, child
from tests.servers import sdk2_modern

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(180)]

SDK1 = Path(__file__).parents[1] / "servers" / "sdk1.py"
CLIENT = Path(__file__).with_name("sdk1_client.py")
OLD = ("old-stdio", "old-http", "old-sse")
EVERY = (*OLD, "new-http")
Calls: TypeAlias = tuple[tuple[str, dict[str, str]], ...]
OLD_CALLS: Calls = (
    ("echo", {"text": "over"}),
    ("sample", {"prompt": "p"}),
    ("ask", {"message": "who?"}),
    ("roots", {}),
    ("steps", {}),
)
NEW_CALLS: Calls = (
    ("test_simple_text", {}),
    ("test_input_required_result_sampling", {}),
    ("test_input_required_result_elicitation", {}),
    ("test_input_required_result_list_roots", {}),
    ("test_tool_with_progress", {}),
)
CALLS = {**dict.fromkeys(OLD, OLD_CALLS), "new-http": NEW_CALLS}


@dataclass
class Setting:
    house: House
    address: str
    keys: dict[str, str]
    python: Path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Setting]:
    python = peers.python_sdk_1()
    house = House(tmp_path_factory.mktemp("sdk"))
    add = ("server", "add")
    with contextlib.ExitStack() as stack:
        house.done(*add, "old-stdio", "--", str(python), str(SDK1), "stdio")
        for name, transport in (("old-http", "streamable-http"), ("old-sse", "sse")):
            command = [str(python), str(SDK1), transport]
            line, _ = stack.enter_context(child(command, "sdk1 serves on "))
            house.done(*add, name, "--url", line.removeprefix("sdk1 serves on ").strip())
        command = module("tests.servers.sdk2_modern")
        line, _ = stack.enter_context(child(command, sdk2_modern.READY))
        house.done(*add, "new-http", "--url", line.removeprefix(sdk2_modern.READY).strip())
        keys = {who: house.key(who, *EVERY) for who in ("alice", "bob")}
        yield Setting(house, stack.enter_context(house.serving()), keys, python)


def old_client(setting: Setting, transport: str, server: str, who: str) -> dict[str, Any]:
    task = {
        "transport": transport,
        "url": f"{setting.address}/{'sse' if transport == 'sse' else 'mcp'}",
        "command": gateway("stdio", "--key", who),
        "env": setting.house.environment,
        "key": setting.keys[who],
        "who": who,
        "prefix": f"{server}__",
        "calls": CALLS[server],
    }
    done = subprocess.run(
        [str(setting.python), str(CLIENT)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("server", EVERY)
@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_a_client_of_the_1_x_line_uses(setting: Setting, transport: str, server: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = {
            who: pool.submit(old_client, setting, transport, server, who)
            for who in ("alice", "bob")
        }
    for who, run in runs.items():
        told = run.result()
        assert told["revision"] == "2025-11-25"
        assert f"{server}__{CALLS[server][0][0]}" in told["tools"]
        assert [one[0] for one in told["results"]] == [False] * 5, told
        said = [one[1] for one in told["results"]]
        assert f"sampled {who}" in said[1]
        assert who in said[2]
        assert f"file:///{who}" in said[3]
        assert len(told["progress"]) == 3
        if server in OLD:
            assert told["logs"] == ["at 1", "at 2", "at 3"]


@pytest.mark.anyio
@pytest.mark.parametrize("server", EVERY)
@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_modern_client_of_the_2_x_line_uses(
    setting: Setting, transport: str, server: str
) -> None:
    async with anyio.create_task_group() as tasks:
        for who in ("alice", "bob"):
            tasks.start_soon(_modern, setting, transport, server, who)


async def _modern(setting: Setting, transport: str, server: str, who: str) -> None:
    seen: list[float] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async def sampling(context: Any, params: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=f"sampled {who}")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def elicitation(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": who})

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate({"uri": f"file:///{who}"})])

    options: dict[str, Any] = {
        "sampling_callback": sampling,
        "elicitation_callback": elicitation,
        "list_roots_callback": roots,
    }
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(PATIENCE))
        if transport == "http":
            headers = {"Authorization": f"Bearer {setting.keys[who]}"}
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers))
            way: Any = streamable_http_client(f"{setting.address}/mcp", http_client=http)
        else:
            command, *words = gateway("stdio", "--key", who)
            env = setting.house.environment
            way = StdioServerParameters(command=command, args=words, env=env)
        client = await stack.enter_async_context(Client(way, mode="2026-07-28", **options))
        said: list[str] = []
        for name, arguments in CALLS[server]:
            result = await client.call_tool(
                f"{server}__{name}", dict(arguments), progress_callback=told
            )
            assert not result.is_error, result
            said.append(" ".join(str(one) for one in result.content))
        assert f"sampled {who}" in said[1]
        assert who in said[2]
        assert f"file:///{who}" in said[3]
        assert len(seen) == 3

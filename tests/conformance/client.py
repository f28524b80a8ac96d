"""The gateway as the client under test: what the suite runs for each client scenario.

`client.py UPSTREAM`: register the scenario's mock server at a running gateway, then use it through
the gateway as an ordinary client would. What the mock sees and judges is the gateway's upstream
side. The environment says which gateway (GATEWAY, GATEWAY_KEY, and the store's own variables).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import anyio
import httpx2
import mcp_types as t
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from mcpgw.core.eras import MODERN
from tests.children import gateway

REGISTERED = 5.0  # seconds in which the gateway must have seen the new server
T = TypeVar("T")


def note(*what: object) -> None:
    sys.stderr.write(" ".join(map(str, what)) + "\n")


async def on_elicit(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
    """Accept with the schema's defaults; a boolean without one is true."""
    content: dict[str, Any] = {}
    if isinstance(params, t.ElicitRequestFormParams):
        properties: dict[str, dict[str, Any]] = params.requested_schema.get("properties", {})
        for name, schema in properties.items():
            if "default" in schema:
                content[name] = schema["default"]
            elif schema.get("type") == "boolean":
                content[name] = True
    return t.ElicitResult(action="accept", content=content)


async def on_sample(context: Any, params: t.CreateMessageRequestParams) -> t.CreateMessageResult:
    said = t.TextContent(type="text", text="ok")
    return t.CreateMessageResult(role="assistant", content=said, model="none")


async def on_roots(context: Any) -> t.ListRootsResult:
    return t.ListRootsResult(roots=[])


async def attempt(what: str, work: Callable[[], Awaitable[T]]) -> T | None:
    """One request; what the mock server saw of it is judged, so the next one follows anyway."""
    try:
        result = await work()
    except (MCPError, RuntimeError, ValueError) as error:
        note(what, "failed:", repr(error)[:500])
        return None
    note(what, "->", str(result)[:300])
    return result


def stub(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the properties that a schema requires."""
    by_type: dict[str, Any] = {
        "integer": 0,
        "number": 0,
        "boolean": False,
        "object": {},
        "array": [],
        "null": None,
    }
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    required: list[str] = schema.get("required", [])
    return {name: by_type.get(properties.get(name, {}).get("type", ""), "x") for name in required}


class Drive:
    """What a scenario's mock server waits for."""

    def __init__(self, client: Client, scenario: str, context: dict[str, Any]) -> None:
        self.client = client
        self.scenario = scenario
        self.context = context
        self.tools: dict[str, t.Tool] = {}

    async def call(self, name: str, arguments: dict[str, Any]) -> None:
        await attempt(f"tools/call {name}", lambda: self.client.call_tool(name, arguments))

    async def run(self) -> None:
        listed = await attempt("tools/list", self.client.list_tools)
        self.tools = {tool.name: tool for tool in (listed.tools if listed else [])}
        known = _SCENARIOS.get(self.scenario)
        if known is not None:
            await known(self)
        elif "toolCalls" in self.context:  # the suite says which calls to make
            for item in self.context["toolCalls"]:
                if item["name"] in self.tools:
                    await self.call(item["name"], item.get("arguments") or {})
        elif "add_numbers" in self.tools:
            await self.call("add_numbers", {"a": 5, "b": 3})
        elif self.tools:
            await self.call(next(iter(self.tools)), {})

    async def nothing(self) -> None:
        """To connect and list is all."""

    async def every_tool(self) -> None:
        for name, tool in self.tools.items():
            await self.call(name, stub(tool.input_schema))

    async def everything(self) -> None:
        client = self.client
        await self.every_tool()
        resources = await attempt("resources/list", client.list_resources)
        for uri in [str(one.uri) for one in resources.resources] if resources else []:
            await attempt(f"resources/read {uri}", lambda uri=uri: client.read_resource(uri))
        prompts = await attempt("prompts/list", client.list_prompts)
        for prompt in prompts.prompts if prompts else []:
            given = {argument.name: "x" for argument in prompt.arguments or []}
            await attempt(
                f"prompts/get {prompt.name}",
                lambda name=prompt.name, given=given: client.get_prompt(name, given),
            )

    async def echo_schema(self) -> None:
        tool = self.tools.get("json_schema_2020_12_tool")
        if tool is not None:
            await self.call("json_schema_echo", {"schema": tool.input_schema})

    async def states(self) -> None:
        for name in ("echo_state", "unrelated", "no_state", "no_result_type"):
            await self.call(f"test_mrtr_{name}", {})


_SCENARIOS: dict[str, Callable[[Drive], Awaitable[None]]] = {
    "initialize": Drive.nothing,
    "json-schema-ref-no-deref": Drive.nothing,
    "http-invalid-tool-headers": Drive.every_tool,
    "http-standard-headers": Drive.everything,
    "json-schema-2020-12-preservation": Drive.echo_schema,
    "sep-2322-client-request-state": Drive.states,
}


@contextlib.contextmanager
def registered(name: str, upstream: str) -> Generator[None]:
    """The gateway has the server; at the end it lets go of it, for the suite waits for that."""
    subprocess.run(gateway("server", "add", name, "--url", upstream), check=True)
    try:
        yield
    finally:
        subprocess.run(gateway("server", "remove", name, "--yes"), check=True)


async def reachable(http: httpx2.AsyncClient, url: str) -> None:
    """Wait until the gateway knows the new server: it looks at its store a few times a second."""
    with anyio.fail_after(REGISTERED):
        for _ in iter(int, 1):
            if (await http.post(url, json={})).status_code != 404:
                return
            await anyio.sleep(0.05)


async def run(upstream: str) -> None:
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    spec = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    context: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    name = re.sub(r"[^A-Za-z0-9-]", "-", f"{scenario[:20]}-{spec}")
    with registered(name, upstream):
        await drive(f"{os.environ['GATEWAY']}/mcp/{name}", scenario, spec, context)


async def drive(url: str, scenario: str, spec: str, context: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {os.environ['GATEWAY_KEY']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        await reachable(http, url)
        async with Client(
            streamable_http_client(url, http_client=http),
            mode="auto" if spec in MODERN else "legacy",
            elicitation_callback=on_elicit,
            sampling_callback=on_sample,
            list_roots_callback=on_roots,
        ) as client:
            await Drive(client, scenario, context).run()


if __name__ == "__main__":
    anyio.run(run, sys.argv[1])

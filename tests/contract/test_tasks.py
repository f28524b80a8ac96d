"""Tasks of both eras between real peers of one era, with two principals at once."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpgw.model.config import Server
from tests.contract.house import House, serving
from tests.doubles import PATIENCE, server
from tests.servers.http_base import HttpServer, running
from tests.servers.http_modern import ModernServer
from tests.servers.tasks import EXTENSION, RELATED, CoreTasksServer, TasksServer
from tests.unit.front.rig import Peer

pytestmark = pytest.mark.anyio

MODERN, LEGACY = "2026-07-28", "2025-11-25"
PREFIX = "io.modelcontextprotocol/"
NAMED = {
    "tools/call": "name",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}


class Far:
    """A server as the house wants one."""

    def __init__(self, name: str, behind: HttpServer) -> None:
        self.name = name
        self._behind = behind

    def configured(self, **fields: Any) -> Server:
        return server(self.name, transport="http", url=self._behind.url, command=(), **fields)


@asynccontextmanager
async def house(**servers: HttpServer) -> AsyncGenerator[House]:
    """A gateway in front of these servers, which are started unless they are up."""
    async with AsyncExitStack() as stack:
        for one in servers.values():
            if not one.url:
                await stack.enter_async_context(running(one))
        fars: Any = [Far(name, one) for name, one in servers.items()]
        yield await stack.enter_async_context(serving(*fars))


class Modern:
    """A 2026-07-28 client over HTTP."""

    def __init__(self, peer: Peer, path: str, *, knows: bool = True) -> None:
        self.peer = peer
        self.path = path
        self._capabilities: Any = {"elicitation": {}}
        if knows:
            self._capabilities["extensions"] = {EXTENSION: {}}
        self._ids = itertools.count(1)

    def _request(self, method: str, params: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        meta = {
            PREFIX + "protocolVersion": MODERN,
            PREFIX + "clientCapabilities": self._capabilities,
        }
        fields = {"mcp-protocol-version": MODERN, "mcp-method": method}
        if method in NAMED:
            encoded = base64.b64encode(params[NAMED[method]].encode()).decode()
            fields["mcp-name"] = f"=?base64?{encoded}?="
        body = {"id": next(self._ids), "method": method, "params": {**params, "_meta": meta}}
        return {"jsonrpc": "2.0", **body}, fields

    async def call(self, method: str, **params: Any) -> Any:
        body, fields = self._request(method, params)
        return (await self.peer.ask("POST", self.path, body, fields)).json

    async def result(self, method: str, **params: Any) -> Any:
        told = await self.call(method, **params)
        assert "result" in told, told
        return told["result"]

    async def listen(self, **wanted: Any) -> None:
        body, fields = self._request("subscriptions/listen", {"notifications": wanted})
        await self.peer.send("POST", self.path, body, fields)
        assert (await self.peer.head())[0] == 200


class Legacy:
    """A 2025-11-25 client over HTTP. ears: its GET stream."""

    def __init__(self, peer: Peer, aside: Peer, ears: Peer, path: str) -> None:
        self.peer, self.aside, self.ears = peer, aside, ears
        self.path = path
        self.capabilities: Any = None
        self._fields: dict[str, str] = {}
        self._ids = itertools.count(1)

    async def begin(self) -> None:
        body: Any = {
            "protocolVersion": LEGACY,
            "capabilities": {"elicitation": {"form": {}}},
            "clientInfo": {"name": "c", "version": "1"},
        }
        answer = await self.peer.ask("POST", self.path, self._message("initialize", body))
        self._fields["mcp-session-id"] = answer.headers["mcp-session-id"]
        self.capabilities = answer.json["result"]["capabilities"]
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await self.peer.ask("POST", self.path, note, self._fields)).status == 202
        fields = {**self._fields, "accept": "text/event-stream"}
        await self.ears.send("GET", self.path, headers=fields)
        assert (await self.ears.head())[0] == 200

    def _message(self, method: str, params: Any) -> Any:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}

    async def call(self, method: str, **params: Any) -> Any:
        """The answer; what is asked on its stream is answered, and kept in `asked`."""
        await self.peer.send("POST", self.path, self._message(method, params), self._fields)
        status, head = await self.peer.head()
        assert status == 200
        if "content-length" in head:
            return json.loads(await self.peer._take(int(head["content-length"])))  # pyright: ignore[reportPrivateUsage]
        self.asked: list[Any] = []
        while (told := await self.peer.message()) is not None:
            if "method" not in told:
                return told
            self.asked.append(told)
            meta = told["params"]["_meta"]
            answer = {"action": "accept", "content": {"name": "Ada"}, "_meta": meta}
            body = {"jsonrpc": "2.0", "id": told["id"], "result": answer}
            assert (await self.aside.ask("POST", self.path, body, self._fields)).status == 202
        raise AssertionError("no answer")

    async def result(self, method: str, **params: Any) -> Any:
        told = await self.call(method, **params)
        assert "result" in told, told
        return told["result"]


async def modern(here: House, who: str = "alice", path: str = "/mcp", **more: Any) -> Modern:
    return Modern(await here.front.peer(who), path, **more)


async def legacy(here: House, who: str = "alice", path: str = "/mcp") -> Legacy:
    peer, aside, ears = [await here.front.peer(who) for _ in range(3)]
    client = Legacy(peer, aside, ears, path)
    await client.begin()
    return client


# ---------------------------------------------------------------- the extension


@pytest.mark.parametrize("path", ["/mcp", "/mcp/a"])
async def test_two_principals_have_tasks_of_their_own(path: str) -> None:
    prefix = "a__" if path == "/mcp" else ""
    far = TasksServer()
    async with house(a=far, b=ModernServer()) as here:
        clients = {who: await modern(here, who, path) for who in ("alice", "bob")}
        handles: dict[str, str] = {}

        async def lead(who: str) -> None:
            client = clients[who]
            told = await client.result("server/discover")
            assert told["capabilities"]["extensions"] == {EXTENSION: {}}
            begun = await client.result("tools/call", name=f"{prefix}confirm_delete")
            assert begun["resultType"] == "task"
            handles[who] = handle = begun["taskId"]
            asks = await client.result("tasks/get", taskId=handle)
            assert asks["status"] == "input_required"
            assert asks["resultType"] == "complete"
            assert (asks["taskId"], list(asks["inputRequests"])) == (handle, ["confirm"])
            answers = {"confirm": {"action": "accept", "content": {"confirm": who}}}
            told = await client.result("tasks/update", taskId=handle, inputResponses=answers)
            assert told.keys() == {"resultType", "_meta"}
            ended = await client.result("tasks/get", taskId=handle)
            assert (ended["status"], ended["taskId"]) == ("completed", handle)
            assert ended["result"]["content"][0]["text"] == "deleted"

        async with anyio.create_task_group() as tasks:
            for who in clients:
                tasks.start_soon(lead, who)
        sent = {
            one.params["inputResponses"]["confirm"]["content"]["confirm"]: one.params["taskId"]
            for one in far.of("tasks/update")
        }
        assert set(sent.values()) == set(far.tasks)
        seen = len(far.seen)
        for who, other in (("alice", "bob"), ("bob", "alice")):
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                for id in (handles[other], sent[who]):
                    told = await clients[who].call(method, taskId=id, inputResponses={})
                    assert told["error"] == {"code": -32602, "message": "Task not found"}
        assert len(far.seen) == seen
        assert not [
            one for one in far.seen if "mcp-name" in one.headers and "=?" in one.headers["mcp-name"]
        ]


async def test_a_task_outlives_the_gateway() -> None:
    far = TasksServer()
    async with running(far):
        async with house(a=far) as here:
            client = await modern(here)
            begun = await client.result(
                "tools/call", name="a__slow_compute", arguments={"seconds": 60}
            )
        async with house(a=far) as here:
            client = await modern(here)
            told = await client.result("tasks/get", taskId=begun["taskId"])
            assert (told["status"], told["taskId"]) == ("working", begun["taskId"])


async def test_who_knows_no_tasks_gets_results() -> None:
    async with house(a=TasksServer()) as here:
        knows, knows_not = await modern(here), await modern(here, knows=False)
        arguments = {"seconds": 0}
        told = await knows_not.result("tools/call", name="a__slow_compute", arguments=arguments)
        assert (told["resultType"], told["content"][0]["text"]) == ("complete", "computed")
        begun = await knows.result("tools/call", name="a__slow_compute", arguments=arguments)
        refused = await knows_not.call("tasks/get", taskId=begun["taskId"])
        assert refused["error"]["code"] == -32021
        needs: Any = {"extensions": {EXTENSION: {}}}
        assert refused["error"]["data"] == {"requiredCapabilities": needs}
        older = await legacy(here)
        assert "tasks" not in older.capabilities
        assert "extensions" not in older.capabilities
        told = await older.result(
            "tools/call", name="a__slow_compute", arguments=arguments, task={}
        )
        assert told["content"][0]["text"] == "computed"


async def test_news_of_a_task_come_by_a_subscription() -> None:
    async with house(a=TasksServer()) as here:
        client, ears, bob = await modern(here), await modern(here), await modern(here, "bob")
        begun = await client.result("tools/call", name="a__slow_compute", arguments={"seconds": 60})
        handle = begun["taskId"]
        await ears.listen(taskIds=[handle, "other"])
        first = await ears.peer.message()
        assert first["params"]["notifications"] == {"taskIds": [handle]}
        await bob.listen(taskIds=[handle])
        assert (await bob.peer.message())["params"]["notifications"] == {"taskIds": []}
        await client.result("tasks/cancel", taskId=handle)
        note = await ears.peer.message()
        assert note["method"] == "notifications/tasks"
        assert (note["params"]["taskId"], note["params"]["status"]) == (handle, "cancelled")
        assert PREFIX + "subscriptionId" in note["params"]["_meta"]


# ---------------------------------------------------------------- 2025-11-25


@pytest.mark.parametrize("path", ["/mcp", "/mcp/a"])
async def test_tasks_that_clients_ask_for(path: str) -> None:
    prefix = "a__" if path == "/mcp" else ""
    far = CoreTasksServer()
    async with house(a=far, b=ModernServer()) as here:
        alice, bob = await legacy(here, "alice", path), await legacy(here, "bob", path)
        assert alice.capabilities["tasks"]["requests"] == {"tools": {"call": {}}}
        mine: dict[str, str] = {}
        for who, client in (("alice", alice), ("bob", bob)):
            begun = await client.result("tools/call", name=f"{prefix}work", task={"ttl": 1000})
            assert begun["task"]["pollInterval"] == 10
            mine[who] = begun["task"]["taskId"]
            told = await client.result("tasks/get", taskId=mine[who])
            assert (told["taskId"], told["status"]) == (mine[who], "working")
        assert set(far.tasks) == {"task-1", "task-2"}
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            told = await alice.call(method, taskId=mine["bob"])
            assert told["error"] == {"code": -32602, "message": "Task not found"}
        for who, client in (("alice", alice), ("bob", bob)):
            found: list[str] = []
            params: Any = {}
            while params is not None:
                page = await client.result("tasks/list", **params)
                found += [one["taskId"] for one in page["tasks"]]
                params = {"cursor": page["nextCursor"]} if "nextCursor" in page else None
            assert found == [mine[who]]
        with anyio.fail_after(PATIENCE):
            told = await alice.result("tasks/cancel", taskId=mine["alice"])
            assert (told["taskId"], told["status"]) == (mine["alice"], "cancelled")
            note = await alice.ears.message()
            while note["method"] != "notifications/tasks/status":
                note = await alice.ears.message()
            assert note["params"]["taskId"] == mine["alice"]
            assert note["params"]["status"] == "cancelled"
        assert far.violations == ["server/discover without a session"]  # the probe


async def test_a_question_of_a_task_comes_with_its_result() -> None:
    far = CoreTasksServer()
    async with house(a=far) as here:
        client = await legacy(here)
        begun = await client.result("tools/call", name="a__ask", task={})
        handle = begun["task"]["taskId"]
        assert (await client.result("tasks/get", taskId=handle))["status"] == "input_required"
        told = await client.result("tasks/result", taskId=handle)
        assert told["content"][0]["text"] == "Ada"
        assert told["_meta"] == {RELATED: {"taskId": handle}}
        (asked,) = client.asked
        assert asked["params"]["_meta"] == {RELATED: {"taskId": handle}}
        assert far.answers["task-1"]["result"]["_meta"] == {RELATED: {"taskId": "task-1"}}


async def test_there_is_no_bridge_to_tasks_of_2025() -> None:
    async with house(a=CoreTasksServer()) as here:
        client = await modern(here)
        told = await client.result("server/discover")
        assert "tasks" not in told["capabilities"]
        assert "extensions" not in told["capabilities"]
        hints: Any = ({}, {"task": {}})
        for more in hints:
            told = await client.result("tools/call", name="a__work", **more)
            assert told["content"][0]["text"] == "plain"
        refused = await client.call("tasks/get", taskId="task-1")
        assert refused["error"]["code"] == -32602

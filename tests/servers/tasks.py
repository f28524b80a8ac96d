"""A 2026-07-28 server with the Tasks extension, and a 2025-11-25 server with its own tasks.

The tools of the first are those that the official suite's `tasks-*` scenarios want. A task has no
work behind it: what it has come to is worked out when somebody asks.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import anyio

from tests.servers.http_base import Exchange, running
from tests.servers.http_legacy import LegacyServer
from tests.servers.http_modern import ModernServer

EXTENSION = "io.modelcontextprotocol/tasks"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
RELATED = "io.modelcontextprotocol/related-task"
SOON = 0.2  # seconds until a job has failed
STAMP = "2026-07-28T00:00:00Z"
CORE: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


def text(told: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": told}], **more}


def question(of: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {of: {"type": "string"}}, "required": [of]}
    params = {"mode": "form", "message": f"{of}?", "requestedSchema": schema}
    return {"method": "elicitation/create", "params": params}


class Task:
    """until: when it has its outcome, on the monotonic clock. open: questions by key."""

    def __init__(self, id: str, outcome: dict[str, Any], seconds: float = 0.0) -> None:
        self.id = id
        self.outcome = outcome
        self.until = time.monotonic() + seconds
        self.open: dict[str, Any] = {}
        self.cancelled = False
        self.news = anyio.Event()

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.open:
            return "input_required"
        if time.monotonic() < self.until:
            return "working"
        return "failed" if "error" in self.outcome else "completed"

    def seed(self) -> dict[str, Any]:
        stamps = {"createdAt": STAMP, "lastUpdatedAt": STAMP}
        return {"taskId": self.id, "status": self.status, "ttlMs": None, **stamps}

    def whole(self) -> dict[str, Any]:
        told = self.seed()
        if told["status"] == "input_required":
            told["inputRequests"] = self.open
        elif told["status"] in ("completed", "failed"):
            told |= self.outcome
        return told

    def cancel(self) -> None:
        if self.status in ("working", "input_required"):
            self.cancelled = True
            self.news.set()


def _tools(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "inputSchema": {"type": "object"}, **more} for name in names]


class TasksServer(ModernServer):
    """Gives tasks to whoever declared the extension."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = {"tools": {}, "extensions": {EXTENSION: {}}}
        self.tasks: dict[str, Task] = {}
        self._ids = itertools.count(1)
        self.scripts |= {
            "greet": self._greet,
            "slow_compute": self._slow,
            "failing_job": self._failing,
            "protocol_error_job": self._erring,
            "confirm_delete": self._confirming,
            "multi_input": self._asking_twice,
            "test_tool_with_task": self._composed,
            "tasks/get": self._get,
            "tasks/update": self._update,
            "tasks/cancel": self._cancel,
            "subscriptions/listen": self._listen,
        }
        named = [name for name in self.scripts if "/" not in name]
        self.tools = _tools(*named)

    def _knows(self, exchange: Exchange) -> bool:
        declared = exchange.params["_meta"][CAPABILITIES]
        return EXTENSION in declared.get("extensions", {})

    async def _begin(self, exchange: Exchange, task: Task) -> None:
        self.tasks[task.id] = task
        await exchange.result(resultType="task", **task.seed())

    def _new(self, outcome: dict[str, Any], seconds: float = 0.0) -> Task:
        return Task(f"task-{next(self._ids)}", outcome, seconds)

    async def _greet(self, exchange: Exchange) -> None:
        name = exchange.params["arguments"]["name"]
        await exchange.result(resultType="complete", **text(f"Hello, {name}!"))

    async def _slow(self, exchange: Exchange) -> None:
        seconds = exchange.params["arguments"]["seconds"]
        if self._knows(exchange):
            await self._begin(exchange, self._new({"result": text("computed")}, seconds))
        else:
            await exchange.result(resultType="complete", **text("computed"))

    async def _failing(self, exchange: Exchange) -> None:
        if self._knows(exchange):
            await self._begin(exchange, self._new({"result": text("no", isError=True)}, SOON))
        else:
            await self._missing(exchange)

    async def _missing(self, exchange: Exchange) -> None:
        data: Any = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        await exchange.error(-32021, "Missing required client capability", data, status=400)

    async def _erring(self, exchange: Exchange) -> None:
        error = {"code": -32603, "message": "it broke"}
        await self._begin(exchange, self._new({"error": error, "statusMessage": "it broke"}, SOON))

    async def _confirming(self, exchange: Exchange) -> None:
        task = self._new({"result": text("deleted")})
        task.open = {"confirm": question("confirm")}
        await self._begin(exchange, task)

    async def _asking_twice(self, exchange: Exchange) -> None:
        task = self._new({"result": text("both")})
        task.open = {"one": question("name"), "two": question("name")}
        await self._begin(exchange, task)

    async def _composed(self, exchange: Exchange) -> None:
        if not self._knows(exchange):
            await self._missing(exchange)
        elif (answers := exchange.params.get("inputResponses")) is None:
            asks = {"user_name": question("user_name")}
            await exchange.result(
                resultType="input_required", inputRequests=asks, requestState="state"
            )
        else:
            assert exchange.params["requestState"] == "state"
            name = next(iter(answers["user_name"]["content"].values()))
            await self._begin(exchange, self._new({"result": text(f"Hello, {name}!")}, SOON))

    async def _found(self, exchange: Exchange) -> Task | None:
        if exchange.headers.get("mcp-name") != exchange.params["taskId"]:
            await exchange.error(-32020, "Mcp-Name differs from params.taskId", status=400)
            return None
        if not self._knows(exchange):
            await self._missing(exchange)
            return None
        task = self.tasks.get(exchange.params["taskId"])
        if task is None:
            await exchange.error(-32602, "Failed to retrieve task: Task not found")
        return task

    async def _get(self, exchange: Exchange) -> None:
        if (task := await self._found(exchange)) is not None:
            await exchange.result(resultType="complete", **task.whole())

    async def _update(self, exchange: Exchange) -> None:
        if (task := await self._found(exchange)) is not None:
            for key in exchange.params["inputResponses"]:
                task.open.pop(key, None)
            await exchange.result(resultType="complete")

    async def _cancel(self, exchange: Exchange) -> None:
        if (task := await self._found(exchange)) is not None:
            task.cancel()
            await exchange.result(resultType="complete")

    async def _listen(self, exchange: Exchange) -> None:
        """Tells when a task is cancelled, which is all that happens of itself."""
        meta = {"io.modelcontextprotocol/subscriptionId": exchange.message["id"]}
        wanted = exchange.params["notifications"].get("taskIds", [])
        known = [self.tasks[id] for id in wanted if id in self.tasks]
        await exchange.stream()
        honoured = {"taskIds": [task.id for task in known]}
        await exchange.note(
            "notifications/subscriptions/acknowledged", notifications=honoured, _meta=meta
        )
        for task in known:
            await task.news.wait()
            await exchange.note("notifications/tasks", **task.whole(), _meta=meta)
        await exchange.gone()


class CoreTasksServer(LegacyServer):
    """A 2025-11-25 server: begins a task for whoever asks; news of it come by the GET stream."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = {"tools": {}, "tasks": CORE}
        self.tasks: dict[str, Task] = {}
        self.asked = anyio.Event()
        self._hearing: list[Exchange] = []
        self._ids = itertools.count(1)
        self.scripts |= {
            "work": self._work,
            "ask": self._ask,
            "tools/list": self._list_tools,
            "tasks/get": self._get,
            "tasks/result": self._result,
            "tasks/list": self._list,
            "tasks/cancel": self._cancel,
            "GET": self._hear,
        }

    async def _list_tools(self, exchange: Exchange) -> None:
        support = {"taskSupport": "optional"}
        await exchange.result(tools=_tools("work", "ask", execution=support))

    async def _work(self, exchange: Exchange) -> None:
        if "task" not in exchange.params:
            await exchange.result(**text("plain"))
            return
        task = Task(f"task-{next(self._ids)}", {"result": text("worked")}, 60.0)
        self.tasks[task.id] = task
        await exchange.result(task=self._told(task))

    async def _ask(self, exchange: Exchange) -> None:
        await self._work(exchange)
        task = self.tasks[f"task-{len(self.tasks)}"]
        task.open, task.until = {"name": question("name")}, 0.0

    def _told(self, task: Task) -> dict[str, Any]:
        told = task.seed()
        return {**told, "ttl": told.pop("ttlMs"), "pollInterval": 10}

    async def _found(self, exchange: Exchange) -> Task | None:
        task = self.tasks.get(exchange.params["taskId"])
        if task is None:
            await exchange.error(-32602, "Task not found")
        return task

    async def _get(self, exchange: Exchange) -> None:
        if (task := await self._found(exchange)) is not None:
            await exchange.result(**self._told(task))

    async def _result(self, exchange: Exchange) -> None:
        task = await self._found(exchange)
        if task is None:
            return
        about = {RELATED: {"taskId": task.id}}
        if task.open:
            await exchange.stream()
            request = task.open["name"]
            params = {**request["params"], "_meta": about}
            await exchange.event(
                {"jsonrpc": "2.0", "id": task.id, "method": request["method"], "params": params}
            )
            answer = (await self.answered(task.id))["result"]
            assert answer["_meta"] == about
            task.outcome, task.open = {"result": text(answer["content"]["name"])}, {}
        elif task.status == "working":
            await task.news.wait()
        if task.cancelled:
            await exchange.error(-32603, "the task was cancelled")
        else:
            await exchange.result(**task.outcome["result"], _meta=about)

    async def _list(self, exchange: Exchange) -> None:
        """One task a page."""
        at = int(exchange.params.get("cursor", 0))
        tasks = list(self.tasks.values())
        more = {"nextCursor": str(at + 1)} if at + 1 < len(tasks) else {}
        await exchange.result(tasks=[self._told(task) for task in tasks[at : at + 1]], **more)

    async def _cancel(self, exchange: Exchange) -> None:
        if (task := await self._found(exchange)) is not None:
            task.cancel()
            for hearing in self._hearing:
                await hearing.note("notifications/tasks/status", **self._told(task))
            await exchange.result(**self._told(task))

    async def _hear(self, exchange: Exchange) -> None:
        await exchange.stream()
        self._hearing.append(exchange)
        await exchange.gone()
        self._hearing.remove(exchange)


READY = "tasks on "


async def _main() -> None:
    server = TasksServer()
    async with running(server):
        sys.stderr.write(f"{READY}{server.url}\n")
        sys.stderr.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_main)

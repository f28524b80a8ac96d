"""MCP clients that speak exactly one revision over exactly one transport, as raw JSON-RPC.

A client answers what it is asked by `answer`, and keeps what it heard: notes of one call with the
call, all others in `notes`. Requests get ids from 1 on, so that two clients always use the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx2

from mcpgw.core.sse import Decoder
from mcpgw.daemon.door import door_path
from mcpgw.daemon.pipe import Pipe
from mcpgw.front.stdio import opened
from tests.servers.era import fields

Json: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[[str, Json], Awaitable[Json]]

PATIENCE = 15.0  # seconds for anything that must happen
META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
BOTH = "application/json, text/event-stream"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


class RpcError(Exception):
    """A JSON-RPC error, as it was answered; `status` is HTTP's."""

    def __init__(self, error: Json, status: int | None = None) -> None:
        super().__init__(f"{error['code']} {error['message']} {error.get('data')}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")
        self.status = status


class Call:
    """One request in flight. `notes`: what was told in its course."""

    def __init__(self, id: int, token: str | None) -> None:
        self.id = id
        self.token = token
        self.notes: list[Json] = []
        self.future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.status: int | None = None

    def of(self, method: str) -> list[Json]:
        return [note["params"] for note in self.notes if note["method"] == method]

    async def result(self) -> Json:
        """Raises RpcError."""
        async with asyncio.timeout(PATIENCE):
            message = await self.future
        if "error" in message:
            raise RpcError(message["error"], self.status)
        return message["result"]


class Client:
    """What all have in common. who: the principal. prefix: of names at this endpoint."""

    revision: str
    transport: str

    def __init__(self, who: str, prefix: str, capabilities: Json) -> None:
        self.who = who
        self.prefix = prefix
        self.capabilities = capabilities
        self.server: Json = {}  # what initialize or discover told
        self.notes: list[Json] = []
        self.asked: list[tuple[str, Json]] = []
        self.withdrawn: list[Any] = []
        self.problems: list[str] = []
        self.answer: Answer = _refuse
        self.lists: dict[str, list[Json]] = {}
        self._ids = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._asking: dict[Any, asyncio.Task[None]] = {}
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def modern(self) -> bool:
        return self.revision == MODERN

    def since(self, revision: str) -> bool:
        return self.revision >= revision

    # What a user of the client does.

    async def begin(self, method: str, params: Json, **options: Any) -> Call:
        """Send a request. Options: token (progress), level (2026), headers (HTTP)."""
        raise NotImplementedError

    async def cancel(self, call: Call) -> None:
        """Cancel as this revision does over this transport."""
        await self.notify(
            "notifications/cancelled", {"requestId": call.id, "reason": "changed my mind"}
        )

    async def notify(self, method: str, params: Json) -> None:
        raise NotImplementedError

    async def request(self, method: str, params: Json | None = None, **options: Any) -> Json:
        return await (await self.begin(method, params or {}, **options)).result()

    async def call(self, tool: str, _options: Json | None = None, /, **arguments: Any) -> Json:
        """Call a tool to its end, whatever is asked on the way."""
        params = {"name": self.prefix + tool, "arguments": arguments}
        return await self.complete("tools/call", params, **(_options or {}))

    async def complete(self, method: str, params: Json, **options: Any) -> Json:
        """A request to its end: asks of a multi round-trip are answered, too."""
        return await self.request(method, params, **options)

    async def all(self, method: str, member: str) -> list[Json]:
        """A whole list, over all pages. What was listed is kept, as a client does."""
        items: list[Json] = []
        page = await self.request(method)
        for _ in range(100):
            items += page[member]
            if "nextCursor" not in page:
                self.lists[member] = items
                return items
            page = await self.request(method, {"cursor": page["nextCursor"]})
        raise AssertionError(f"{method} never ends")

    async def subscribe(self, *, lists: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> Any:
        """Hear of changes; what `unsubscribe` takes."""
        raise NotImplementedError

    async def unsubscribe(self, subscription: Any) -> None:
        raise NotImplementedError

    async def heard(self, method: str, count: int = 1) -> list[Json]:
        """Notes of no call with this method, once there are `count`."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.of(method)) >= count)
        return self.of(method)

    def of(self, method: str) -> list[Json]:
        return [fields(note.get("params")) for note in self.notes if note["method"] == method]

    async def was_asked(self, count: int = 1) -> tuple[str, Json]:
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.asked) >= count)
        return self.asked[-1]

    async def was_withdrawn(self) -> None:
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.withdrawn) > 0)

    # Inside.

    async def _tick(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        tasks = [*self._tasks, *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dispatch(self, message: Json, call: Call | None) -> None:
        """One message from the gateway; call: whose stream it came on, if that is known."""
        if "method" not in message:
            found = self._calls.pop(message["id"], None)
            if found is None:
                self.problems.append(f"an answer to nothing: {message}")
            elif not found.future.done():
                found.future.set_result(message)
        elif "id" in message:
            self._asking[message["id"]] = asyncio.ensure_future(self._answer(message))
        else:
            await self._noted(message, call)
        await self._tick()

    async def _noted(self, note: Json, call: Call | None) -> None:
        method, params = note["method"], fields(note.get("params"))
        if method == "notifications/cancelled":
            self.withdrawn.append(params["requestId"])
            asking = self._asking.get(params["requestId"])
            if asking is not None:
                asking.cancel()
            return
        if method == "notifications/progress":
            owners = [one for one in self._calls.values() if one.token == params["progressToken"]]
            if len(owners) != 1 or call not in (None, owners[0]):
                self.problems.append(f"progress of nobody: {params}")
                return
            call = owners[0]
        elif call is None and method == "notifications/message" and len(self._calls) == 1:
            call = next(iter(self._calls.values()))  # one channel, one call: it is that one's
        (self.notes if call is None else call.notes).append(note)

    async def _answer(self, request: Json) -> None:
        raise NotImplementedError


async def _refuse(method: str, params: Json) -> Json:
    raise AssertionError(f"nobody expected {method}")


class Legacy(Client):
    """Any handshake revision. Subclasses carry the messages."""

    async def open(self) -> None:
        about = {"name": f"client-{self.who}", "version": "1"}
        params = {"protocolVersion": self.revision, "capabilities": self.capabilities}
        self.server = await self.request("initialize", {**params, "clientInfo": about})
        assert self.server["protocolVersion"] == self.revision, self.server
        await self.notify("notifications/initialized", {})

    async def begin(self, method: str, params: Json, **options: Any) -> Call:
        token = options.get("token")
        call = Call(next(self._ids), token)
        self._calls[call.id] = call
        if token is not None:
            params = {**params, "_meta": {"progressToken": token}}
        message = {"jsonrpc": "2.0", "id": call.id, "method": method, "params": params}
        await self._post(message, call)
        return call

    async def cancel(self, call: Call) -> None:
        self._calls.pop(call.id)
        await super().cancel(call)

    async def notify(self, method: str, params: Json) -> None:
        await self._post({"jsonrpc": "2.0", "method": method, "params": params}, None)

    async def subscribe(self, *, lists: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> Any:
        for uri in uris:
            await self.request("resources/subscribe", {"uri": uri})
        return uris

    async def unsubscribe(self, subscription: Any) -> None:
        for uri in subscription:
            await self.request("resources/unsubscribe", {"uri": uri})

    async def _answer(self, request: Json) -> None:
        method, params = request["method"], fields(request.get("params"))
        self.asked.append((method, params))
        await self._tick()
        try:
            answer: Json = {"result": await self.answer(method, params)}
        except RpcError as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        except AssertionError as error:
            self.problems.append(str(error))
            answer = {"error": {"code": -32603, "message": str(error)}}
        finally:
            self._asking.pop(request["id"], None)
        await self._post({"jsonrpc": "2.0", "id": request["id"], **answer}, None)

    async def _post(self, message: Json, call: Call | None) -> None:
        raise NotImplementedError


class Modern(Client):
    """2026-07-28. Subclasses carry the messages."""

    revision = MODERN

    async def open(self) -> None:
        self.server = await self.request("server/discover")
        assert MODERN in self.server["supportedVersions"], self.server

    def meta(self, options: Json) -> Json:
        told: Json = {
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": options.get("capabilities", self.capabilities),
            META + "clientInfo": {"name": f"client-{self.who}", "version": "1"},
        }
        if "token" in options:
            told["progressToken"] = options["token"]
        if "level" in options:
            told[META + "logLevel"] = options["level"]
        return told

    async def begin(self, method: str, params: Json, **options: Any) -> Call:
        call = Call(next(self._ids), options.get("token"))
        self._calls[call.id] = call
        params = {**params, "_meta": self.meta(options)}
        message = {"jsonrpc": "2.0", "id": call.id, "method": method, "params": params}
        await self._send(message, call, options.get("headers"))
        return call

    async def complete(self, method: str, params: Json, **options: Any) -> Json:
        more: Json = {}
        for _ in range(12):
            result = await self.request(method, {**params, **more}, **options)
            if result["resultType"] == "complete":
                return result
            assert result["resultType"] == "input_required", result
            more = {}
            if "requestState" in result:
                more["requestState"] = result["requestState"]
            answers: Json = {}
            for key, ask in result.get("inputRequests", {}).items():
                self.asked.append((ask["method"], ask["params"]))
                await self._tick()
                answers[key] = await self.answer(ask["method"], ask["params"])
            if answers:
                more["inputResponses"] = answers
        raise AssertionError(f"{method} never completes")

    async def subscribe(self, *, lists: tuple[str, ...] = (), uris: tuple[str, ...] = ()) -> Any:
        wanted: Json = {f"{kind}ListChanged": True for kind in lists}
        if uris:
            wanted["resourceSubscriptions"] = list(uris)
        call = await self.begin("subscriptions/listen", {"notifications": wanted})
        acknowledged = "notifications/subscriptions/acknowledged"
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: bool(call.notes) or call.future.done())
        if call.future.done():
            raise AssertionError(f"no subscription: {call.future.result()}")
        first = call.notes[0]
        assert first["method"] == acknowledged, first
        assert first["params"]["notifications"] == wanted, first
        return call

    async def unsubscribe(self, subscription: Any) -> None:
        await self.cancel(subscription)

    async def _noted(self, note: Json, call: Call | None) -> None:
        params = fields(note.get("params"))
        tag = fields(params.get("_meta")).get(META + "subscriptionId")
        if tag is None:
            await super()._noted(note, call)
            return
        owner = self._calls.get(tag)
        if owner is None or call not in (None, owner):
            self.problems.append(f"a note of no subscription: {note}")
            return
        owner.notes.append(note)
        if len(owner.notes) > 1:
            self.notes.append(note)

    async def _answer(self, request: Json) -> None:
        self.problems.append(f"a modern client was asked: {request}")

    async def _send(self, message: Json, call: Call, headers: Json | None) -> None:
        raise NotImplementedError


# ---------------------------------------------------------------- transports


async def _events(response: httpx2.Response) -> AsyncIterator[tuple[str, str]]:
    decoder = Decoder()
    async for chunk in response.aiter_raw():
        for event in decoder.feed(chunk):
            yield event.event, event.data.decode()


class _Http:
    """A client's connections to one address."""

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {secret}"}
        self.client = httpx2.AsyncClient(
            headers=headers, timeout=PATIENCE, trust_env=False, verify=False
        )


class LegacyHttp(Legacy):
    """Streamable HTTP with a session, its GET stream open."""

    transport = "http"

    def __init__(
        self, revision: str, who: str, prefix: str, capabilities: Json, http: _Http
    ) -> None:
        self.revision = revision
        super().__init__(who, prefix, capabilities)
        self._http = http
        self._headers: dict[str, str] = {"accept": BOTH}
        self._standing = asyncio.Event()

    async def open(self) -> None:
        await super().open()
        self._spawn(self._stand())
        async with asyncio.timeout(PATIENCE):
            await self._standing.wait()

    async def _stand(self) -> None:
        headers = {**self._headers, "accept": "text/event-stream"}
        http = self._http
        async with http.client.stream("GET", http.url, headers=headers, timeout=None) as response:
            assert response.status_code == 200, response.status_code
            self._standing.set()
            async for event, data in _events(response):
                if event == "message" and data:
                    await self._dispatch(json.loads(data), None)

    async def _post(self, message: Json, call: Call | None) -> None:
        if call is None:
            answered = await self._http.client.post(
                self._http.url, json=message, headers=self._headers
            )
            assert answered.status_code == 202, (answered.status_code, answered.text)
        else:
            call.task = self._spawn(self._follow(message, call))

    async def _follow(self, message: Json, call: Call) -> None:
        try:
            await self._answered(message, call)
        except Exception as error:
            if not call.future.done():
                call.future.set_exception(error)
            raise

    async def _answered(self, message: Json, call: Call) -> None:
        http = self._http
        async with http.client.stream(
            "POST", http.url, json=message, headers=self._headers
        ) as response:
            call.status = response.status_code
            if "mcp-session-id" in response.headers:
                self._headers["mcp-session-id"] = response.headers["mcp-session-id"]
                if self.since("2025-06-18"):
                    self._headers["mcp-protocol-version"] = self.revision
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async for event, data in _events(response):
                    if event == "message" and data:
                        await self._dispatch(json.loads(data), call)
            elif body := await response.aread():
                await self._dispatch(json.loads(body), call)

    async def close(self) -> None:
        await super().close()
        await self._http.client.delete(self._http.url, headers=self._headers)
        await self._http.client.aclose()


class ModernHttp(Modern):
    """Streamable HTTP of 2026-07-28: every request for itself."""

    transport = "http"

    def __init__(self, who: str, prefix: str, capabilities: Json, http: _Http) -> None:
        super().__init__(who, prefix, capabilities)
        self._http = http

    async def cancel(self, call: Call) -> None:
        self._calls.pop(call.id)
        assert call.task is not None
        call.task.cancel()  # closing the stream is the cancellation
        await asyncio.gather(call.task, return_exceptions=True)

    async def _send(self, message: Json, call: Call, headers: Json | None) -> None:
        call.task = self._spawn(self._follow(message, call, headers or {}))

    def mirrored(self, message: Json) -> dict[str, str]:
        """The header fields that repeat the body, arguments included."""
        method, params = message["method"], message["params"]
        fields = {"accept": BOTH, "mcp-protocol-version": MODERN, "mcp-method": method}
        if method in NAMED:
            fields["mcp-name"] = params[NAMED[method]]
        if method == "tools/call":
            for tool in self.lists.get("tools", ()):
                if tool["name"] == params["name"]:
                    for name, schema in tool["inputSchema"].get("properties", {}).items():
                        value = params["arguments"].get(name)
                        if "x-mcp-header" in schema and value is not None:
                            fields[f"mcp-param-{schema['x-mcp-header']}"] = value
        return fields

    async def _follow(self, message: Json, call: Call, headers: Json) -> None:
        http = self._http
        fields = {**self.mirrored(message), **headers}
        fields = {name: value for name, value in fields.items() if value is not None}
        try:
            async with http.client.stream(
                "POST", http.url, json=message, headers=fields, timeout=None
            ) as response:
                call.status = response.status_code
                if response.headers["content-type"].startswith("text/event-stream"):
                    async for event, data in _events(response):
                        if event == "message" and data:
                            await self._dispatch(json.loads(data), call)
                else:
                    await self._dispatch(json.loads(await response.aread()), call)
        except Exception as error:
            if not call.future.done():
                call.future.set_exception(error)
            raise

    async def close(self) -> None:
        await super().close()
        await self._http.client.aclose()


class LegacySse(Legacy):
    """HTTP+SSE: one stream to listen to, one address to post to."""

    transport = "sse"

    def __init__(
        self, revision: str, who: str, prefix: str, capabilities: Json, http: _Http
    ) -> None:
        self.revision = revision
        super().__init__(who, prefix, capabilities)
        self._http = http
        self._place = ""
        self._standing = asyncio.Event()

    async def open(self) -> None:
        self._spawn(self._listen())
        async with asyncio.timeout(PATIENCE):
            await self._standing.wait()
        await super().open()

    async def _listen(self) -> None:
        http = self._http
        async with http.client.stream("GET", http.url, timeout=None) as response:
            assert response.status_code == 200, response.status_code
            async for event, data in _events(response):
                if event == "endpoint":
                    self._place = str(httpx2.URL(http.url).join(data))
                    self._standing.set()
                elif event == "message" and data:
                    await self._dispatch(json.loads(data), None)

    async def _post(self, message: Json, call: Call | None) -> None:
        answered = await self._http.client.post(self._place, json=message)
        assert answered.status_code == 202, (answered.status_code, answered.text)

    async def close(self) -> None:
        await super().close()
        await self._http.client.aclose()


class Pipes:
    """What `mcpgw stdio --key KEY` runs beside a daemon, on two pipes."""

    def __init__(self, store: Path, key: str) -> None:
        self._store = store
        self._key = key
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._theirs = (theirs_in, theirs_out)
        self._task = asyncio.ensure_future(self._serve(theirs_in, theirs_out))
        loop = asyncio.get_running_loop()
        self._source = asyncio.StreamReader(limit=1 << 23)
        self._reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._source), os.fdopen(ours_in, "rb", 0)
        )
        self._sink = ours_out

    async def _serve(self, stdin: int, stdout: int) -> None:
        door = await asyncio.to_thread(door_path, self._store)
        with opened(stdin, stdout) as lines:
            await Pipe(door, self._key, lines).run()

    def send(self, message: Json) -> None:
        os.write(self._sink, json.dumps(message).encode() + b"\n")

    async def lines(self) -> AsyncIterator[Json]:
        while line := await self._source.readline():
            yield json.loads(line)

    async def close(self) -> None:
        os.close(self._sink)
        assert self._task is not None
        async with asyncio.timeout(PATIENCE):
            await self._task
        for descriptor in self._theirs:
            os.close(descriptor)
        self._reading.close()


class LegacyStdio(Legacy):
    transport = "stdio"

    def __init__(
        self, revision: str, who: str, prefix: str, capabilities: Json, pipes: Pipes
    ) -> None:
        self.revision = revision
        super().__init__(who, prefix, capabilities)
        self._pipes = pipes

    async def open(self) -> None:
        await self._pipes.open()
        self._spawn(self._read())
        await super().open()

    async def _read(self) -> None:
        async for message in self._pipes.lines():
            await self._dispatch(message, None)

    async def _post(self, message: Json, call: Call | None) -> None:
        self._pipes.send(message)

    async def close(self) -> None:
        await self._pipes.close()
        await super().close()


class ModernStdio(Modern):
    transport = "stdio"

    def __init__(self, who: str, prefix: str, capabilities: Json, pipes: Pipes) -> None:
        super().__init__(who, prefix, capabilities)
        self._pipes = pipes

    async def open(self) -> None:
        await self._pipes.open()
        self._spawn(self._read())
        await super().open()

    async def _read(self) -> None:
        async for message in self._pipes.lines():
            await self._dispatch(message, None)

    async def cancel(self, call: Call) -> None:
        self._calls.pop(call.id)
        await super().cancel(call)

    async def notify(self, method: str, params: Json) -> None:
        self._pipes.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def _send(self, message: Json, call: Call, headers: Json | None) -> None:
        self._pipes.send(message)

    async def close(self) -> None:
        await self._pipes.close()
        await super().close()


@contextlib.asynccontextmanager
async def connected(
    revision: str,
    transport: str,
    *,
    who: str,
    address: str,
    server: str | None,
    prefix: str,
    secret: str,
    store: Path,
    key: str,
    capabilities: Json,
) -> AsyncGenerator[Client]:
    """A client past its handshake. server: use that server's own address, else the common one."""
    told = (who, prefix, capabilities)
    if transport == "stdio":
        pipes = Pipes(store, key)
        client: Any = (
            ModernStdio(*told, pipes) if revision == MODERN else LegacyStdio(revision, *told, pipes)
        )
    elif transport == "sse":
        path = "/sse" if server is None else f"/mcp/{server}/sse"
        client = LegacySse(revision, *told, _Http(address + path, secret))
    else:
        http = _Http(address + ("/mcp" if server is None else f"/mcp/{server}"), secret)
        client = (
            ModernHttp(*told, http) if revision == MODERN else LegacyHttp(revision, *told, http)
        )
    try:
        async with asyncio.timeout(PATIENCE):
            await client.open()
        yield client
    finally:
        with contextlib.suppress(httpx2.HTTPError):
            await client.close()

"""One MCP server that speaks exactly one revision, with every feature that revision has.

Without transports and with nothing but the standard library, so that a child process of it starts
fast. `Legacy` is one session of a handshake revision, `Modern` is the stateless server of
2026-07-28. Neither knows a word of the other era: what a gateway does not bridge is not there.
What the server notices (a cancellation, a subscription) it tells a journal, out of the way of MCP.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Json], Awaitable[None]]


class Journal:
    """What a server notices, and what it waits for before it goes on."""

    def tell(self, what: str, **facts: Any) -> None:
        raise NotImplementedError

    async def gate(self, tag: str) -> None:
        """Returns once the test lets `tag` pass."""
        raise NotImplementedError


META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
ANNOTATIONS = "2025-03-26"
STRUCTURED = "2025-06-18"
ELICITATION = "2025-06-18"
ICONS = "2025-11-25"
URLS = "2025-11-25"
PAGE = 5
PATIENCE = 20.0  # seconds a server waits for an answer
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

TEXT = "era://text"
BLOB = "era://blob"
TEMPLATE = "era://item/{id}"
ICON: Json = {"src": "https://example.com/i.png", "mimeType": "image/png", "sizes": ["48x48"]}
HINTS: Json = {"readOnlyHint": True, "openWorldHint": False}
FORM: Json = {
    "message": "Who?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}
CHOICE: Json = {
    "message": "Which?",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "one": {
                "type": "string",
                "oneOf": [{"const": "r", "title": "Red"}, {"const": "g", "title": "Green"}],
            },
            "many": {
                "type": "array",
                "items": {"anyOf": [{"const": "x", "title": "Ex"}, {"const": "y", "title": "Why"}]},
            },
        },
        "required": ["one"],
    },
}
SAMPLING: Json = {
    "messages": [{"role": "user", "content": {"type": "text", "text": "Say something"}}],
    "maxTokens": 10,
}
NAMES = (
    *("echo", "who", "mark", "count", "talk", "slow", "ask", "insist", "withdraw", "urls"),
    *("mirror", "items", "broken", "failing", "change", "touch", "pair"),
)


class Failed(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None, status: int = 200) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data
        self.status = status


class Needs(Exception):
    """input_required."""

    def __init__(self, requests: Json, state: str) -> None:
        super().__init__("input_required")
        self.result: Json = {
            "resultType": "input_required",
            "inputRequests": requests,
            "requestState": state,
        }


def fields(value: Any) -> Json:
    """A JSON object; an empty one where there is none."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def text(content: str, **more: Any) -> Json:
    return {"content": [{"type": "text", "text": content}], **more}


def url_elicitation(tag: str, *, minted: bool) -> Json:
    params: Json = {"mode": "url", "message": "Sign in", "url": f"https://example.com/{tag}"}
    return {**params, "elicitationId": f"el-{tag}"} if minted else params


class Request:
    """One request, as the tools see it."""

    def __init__(self, server: Server, message: Json, send: Send) -> None:
        self.server = server
        self.id = message["id"]
        self.method: str = message["method"]
        self.params: Json = fields(message.get("params"))
        self.meta: Json = fields(self.params.get("_meta"))
        self.arguments: Json = fields(self.params.get("arguments"))
        self.send = send
        self.capabilities: Json = {}
        self.level: str | None = None
        self.headers: Json = {}

    async def note(self, method: str, **params: Any) -> None:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def ask(self, key: str, method: str, params: Json) -> Json:
        """The answer; an error answer is `{"error": …}`."""
        raise NotImplementedError


class Server:
    """What both eras offer."""

    def __init__(self, revision: str, journal: Journal) -> None:
        self.revision = revision
        self.journal = journal
        self.tell = journal.tell
        self.modern = revision >= MODERN
        self.mark = ""

    def since(self, revision: str) -> bool:
        return self.revision >= revision

    def capabilities(self) -> Json:
        told: Json = {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "logging": {},
        }
        return {**told, "completions": {}} if self.since(ANNOTATIONS) else told

    # Lists.

    def tools(self) -> list[Json]:
        tools: list[Json] = [
            {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}}
            for name in NAMES
        ]
        echo = tools[0]
        if self.since(ANNOTATIONS):
            echo["annotations"] = HINTS
        if self.since(STRUCTURED):
            echo["title"] = "Echo"
            properties = {"said": {"type": "string"}}
            echo["outputSchema"] = {"type": "object", "properties": properties}
        if self.since(ICONS):
            echo["icons"] = [ICON]
        mirrored = {"type": "string", "x-mcp-header": "Region"}
        by_name = {tool["name"]: tool for tool in tools}
        by_name["mirror"]["inputSchema"] = {"type": "object", "properties": {"region": mirrored}}
        if self.modern:
            items = {"type": "array", "items": {"type": "string"}}
            by_name["items"]["outputSchema"] = items
        return tools

    def list(self, method: str) -> tuple[str, list[Json]]:
        if method == "tools/list":
            return "tools", self.tools()
        if method == "prompts/list":
            names = ("greet", "inquire", "p1", "p2", "p3", "p4")
            who = [{"name": "who", "required": True}]
            prompts: list[Json] = [{"name": name, "arguments": who} for name in names]
            if self.since(ICONS):
                prompts[0]["icons"] = [ICON]
            return "prompts", prompts
        if method == "resources/list":
            uris = (TEXT, BLOB, *(f"era://r{at}" for at in range(6)))
            resources: list[Json] = [{"uri": uri, "name": uri[6:]} for uri in uris]
            if self.since(ANNOTATIONS):
                resources[0]["annotations"] = {"audience": ["user"], "priority": 0}
            return "resources", resources
        return "resourceTemplates", [{"uriTemplate": TEMPLATE, "name": "item"}]

    def page(self, request: Request) -> Json:
        member, items = self.list(request.method)
        start = int(request.params.get("cursor", "at-0")[3:])
        page: Json = {member: items[start : start + PAGE], "_meta": {"example.com/page": start}}
        if start + PAGE < len(items):
            page["nextCursor"] = f"at-{start + PAGE}"
        return page

    # Requests.

    async def answer(self, request: Request) -> Json:
        method = request.method
        if method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            return self.page(request)
        if method == "tools/call":
            return await self.call(request)
        if method == "prompts/get":
            return await self.prompt(request)
        if method == "resources/read":
            return await self.read(request)
        if method == "completion/complete":
            return self.complete(request.params)
        raise Failed(-32601, f"Method not found: {method}", status=404)

    async def prompt(self, request: Request) -> Json:
        name = request.params["name"]
        told = request.arguments.get("who", "")
        if name == "inquire":
            asked = {**SAMPLING, "systemPrompt": told}
            told = json.dumps(await request.ask("a", "sampling/createMessage", asked))
        elif name != "greet":
            raise Failed(-32602, f"Unknown prompt: {name}")
        return {
            "description": "A greeting",
            "messages": [{"role": "user", "content": {"type": "text", "text": f"Hello {told}"}}],
        }

    async def read(self, request: Request) -> Json:
        uri: str = request.params["uri"]
        if uri == TEXT:
            return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": "words"}]}
        if uri == BLOB:
            return {"contents": [{"uri": uri, "blob": "AAEC"}]}
        if uri.startswith("era://item/"):
            return {"contents": [{"uri": uri, "text": uri[11:]}]}
        code = -32602 if self.modern else -32002
        raise Failed(code, "Resource not found", {"uri": uri})

    def complete(self, params: Json) -> Json:
        ref, value = params["ref"], params["argument"]["value"]
        if ref.get("name") != "greet" and ref.get("uri") != TEMPLATE:
            raise Failed(-32602, f"Unknown reference: {ref}")
        return {"completion": {"values": [value + "1", value + "2"], "total": 2, "hasMore": False}}

    async def call(self, request: Request) -> Json:
        name = request.params["name"]
        tool = getattr(self, f"tool_{name}", None) if name in NAMES else None
        if tool is None:
            raise Failed(-32602, f"Unknown tool: {name}")
        return await tool(request, request.arguments.get("tag", ""))

    # Tools. Each gets the request and its `tag`, which is unique to one call of one principal.

    async def tool_echo(self, request: Request, tag: str) -> Json:
        if self.since(STRUCTURED):
            return text(tag, structuredContent={"said": tag})
        return text(tag)

    async def tool_who(self, request: Request, tag: str) -> Json:
        known = ("sampling", "elicitation", "roots")
        told = {name: request.capabilities.get(name) for name in known}
        self.tell("who", tag=tag, capabilities=told)
        return text(tag)

    async def tool_mark(self, request: Request, tag: str) -> Json:
        self.mark = tag
        return text(tag)

    async def tool_count(self, request: Request, tag: str) -> Json:
        token = request.meta.get("progressToken")
        for step in (1, 2, 3):
            more = {"message": tag} if self.since(ANNOTATIONS) else {}
            if token is not None:
                await request.note(
                    "notifications/progress", progressToken=token, progress=step, total=3, **more
                )
        return text(tag)

    async def tool_talk(self, request: Request, tag: str) -> Json:
        """Log at each level that this request may hear."""
        for level in ("debug", "info", "warning", "error"):
            heard = request.level
            if heard is not None and LEVELS.index(level) >= LEVELS.index(heard):
                await request.note("notifications/message", level=level, logger="era", data=tag)
        return text(tag)

    async def tool_slow(self, request: Request, tag: str) -> Json:
        self.tell("started", tag=tag)
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            self.tell("cancelled", tag=tag)
            raise
        return text("too late")

    async def tool_ask(self, request: Request, tag: str) -> Json:
        """Ask what the arguments say, if the client can be asked it; else say so."""
        method = request.arguments["method"]
        needed: str = request.arguments["capability"]
        if needed not in request.capabilities:
            return self.missing({needed: {}}, tag)
        url = fields(request.arguments.get("params")).get("mode") == "url"
        if url and "url" not in request.capabilities[needed]:
            return self.missing({needed: {"url": {}}}, tag)
        return text(json.dumps(await self._asked(request, tag, method)))

    async def tool_insist(self, request: Request, tag: str) -> Json:
        """Ask whatever the client declared, which no server should."""
        method = request.arguments["method"]
        return text(json.dumps(await self._asked(request, tag, method)))

    async def tool_pair(self, request: Request, tag: str) -> Json:
        """Two questions, one after the other."""
        first = await request.ask("a", "sampling/createMessage", {**SAMPLING, "systemPrompt": tag})
        second = await request.ask("b", "roots/list", {})
        return text(json.dumps([first, second]))

    async def _asked(self, request: Request, tag: str, method: str) -> Json:
        params: Json = dict(fields(request.arguments.get("params")))
        if params.get("mode") == "url":
            params = url_elicitation(tag, minted=not self.modern)
        return await request.ask("a", method, params)

    def missing(self, capabilities: Json, tag: str) -> Json:
        if self.modern:
            data = {"requiredCapabilities": capabilities}
            raise Failed(-32021, f"Missing capability ({tag})", data, 400)
        return text(f"the client cannot be asked ({tag})", isError=True)

    async def tool_withdraw(self, request: Request, tag: str) -> Json:
        raise Failed(-32601, "only a live question can be withdrawn")

    async def tool_urls(self, request: Request, tag: str) -> Json:
        raise Failed(-32601, "-32042 is of 2025-11-25 alone")

    async def tool_mirror(self, request: Request, tag: str) -> Json:
        self.tell("mirror", tag=tag, header=request.headers.get("mcp-param-region"))
        return text(str(request.arguments.get("region")))

    async def tool_items(self, request: Request, tag: str) -> Json:
        more = {"structuredContent": [tag]} if self.modern else {}
        return text(f'["{tag}"]', **more)

    async def tool_broken(self, request: Request, tag: str) -> Json:
        return text(f"it broke ({tag})", isError=True)

    async def tool_failing(self, request: Request, tag: str) -> Json:
        raise Failed(-32603, "it failed", {"tag": tag, "exact": 1})

    async def tool_change(self, request: Request, tag: str) -> Json:
        await self.changed(request, request.arguments["kind"])
        return text(tag)

    async def tool_touch(self, request: Request, tag: str) -> Json:
        await self.touched(request, request.arguments["uri"])
        return text(tag)

    async def changed(self, request: Request, kind: str) -> None:
        raise NotImplementedError

    async def touched(self, request: Request, uri: str) -> None:
        raise NotImplementedError


class LegacyRequest(Request):
    server: Legacy

    async def ask(self, key: str, method: str, params: Json) -> Json:
        return (await self.server.question(self, method, params))[1]


class Legacy(Server):
    """One session. `stray` sends what belongs to no request."""

    def __init__(self, revision: str, journal: Journal, stray: Send) -> None:
        super().__init__(revision, journal)
        self.stray = stray
        self.client: Json = {}
        self.level = "info"
        self.subscribed: list[str] = []
        self.running: dict[Any, asyncio.Task[Any]] = {}
        self.waiting: dict[str, asyncio.Future[Json]] = {}
        self.ready = False
        self.count = 0

    async def receive(self, message: Json, send: Send) -> None:
        """Act on one message; the answer to a request goes to `send` as well."""
        if "method" not in message:
            waiting = self.waiting.pop(message["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.get("result") or {"error": message.get("error")})
        elif "id" not in message:
            self.noted(message["method"], fields(message.get("params")))
        else:
            await self.requested(message, send)

    def noted(self, method: str, params: Json) -> None:
        if method == "notifications/initialized":
            self.ready = True
        elif method == "notifications/cancelled":
            task = self.running.get(params["requestId"])
            if task is not None:
                task.cancel()
        else:
            self.tell("note", method=method, mark=self.mark)

    async def requested(self, message: Json, send: Send) -> None:
        request = LegacyRequest(self, message, send)
        request.capabilities, request.level = self.client, self.level
        task = asyncio.ensure_future(self.respond(request))
        self.running[request.id] = task
        try:
            answer = await task
        except asyncio.CancelledError:
            if not task.cancelled():
                task.cancel()
                raise
            return  # a cancelled request has no answer
        except Failed as failed:
            answer = {"error": failed.error}
        finally:
            self.running.pop(request.id, None)
        await send({"jsonrpc": "2.0", "id": request.id, **answer})

    async def respond(self, request: Request) -> Json:
        method, params = request.method, request.params
        if META + "protocolVersion" in request.meta or method == "server/discover":
            raise Failed(-32601, f"Method not found: {method}")
        if method == "initialize":
            return {"result": self.initialize(params)}
        if method == "ping":
            return {"result": {}}
        if not self.ready:
            raise Failed(-32600, "not initialized")
        if method == "logging/setLevel":
            self.level = params["level"]
            return {"result": {}}
        if method in ("resources/subscribe", "resources/unsubscribe"):
            self.tell(method, uri=params["uri"])
            change = self.subscribed.append if method[10] == "s" else self.subscribed.remove
            change(params["uri"])
            return {"result": {}}
        return {"result": await self.answer(request)}

    def initialize(self, params: Json) -> Json:
        self.client = params["capabilities"]
        return {
            "protocolVersion": self.revision,
            "capabilities": self.capabilities(),
            "serverInfo": {"name": "era", "version": "1"},
            "instructions": "Speak one revision.",
        }

    async def question(self, request: Request, method: str, params: Json) -> tuple[str, Json]:
        self.count += 1
        id = f"question-{self.count}"
        self.waiting[id] = waiting = asyncio.get_running_loop().create_future()
        await request.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE):
            return id, await waiting

    async def tool_withdraw(self, request: Request, tag: str) -> Json:
        """Ask, and once the client was asked, want the answer no more."""
        params: Json = {**SAMPLING, "systemPrompt": tag}
        asking = asyncio.ensure_future(self.question(request, "sampling/createMessage", params))
        await asyncio.sleep(0)
        id = f"question-{self.count}"
        await self.journal.gate(tag)
        asking.cancel()
        await request.note("notifications/cancelled", requestId=id, reason="found out")
        self.tell("withdrawn", tag=tag)
        await self.journal.gate(f"{tag} end")  # the call goes on, so that only the note can tell
        return text(f"withdrawn {tag}")

    async def tool_urls(self, request: Request, tag: str) -> Json:
        if self.revision != URLS or request.arguments.get("again"):
            return text(f"signed in {tag}")
        if self.mark == f"signed in {tag}":
            return text(self.mark)
        self.mark = f"signed in {tag}"
        data = {"elicitations": [url_elicitation(tag, minted=True)]}
        raise Failed(-32042, "Sign in first", data)

    async def changed(self, request: Request, kind: str) -> None:
        await self.stray({"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"})

    async def touched(self, request: Request, uri: str) -> None:
        if uri in self.subscribed:
            method = "notifications/resources/updated"
            await self.stray({"jsonrpc": "2.0", "method": method, "params": {"uri": uri}})


class ModernRequest(Request):
    async def ask(self, key: str, method: str, params: Json) -> Json:
        answers: Json = self.params.get("inputResponses") or {}
        tag = self.arguments.get("tag", "")
        known: Json = {}
        state = self.params.get("requestState")
        if state is not None:
            head, _, rest = state.partition("|")
            if head != f'"{tag}" é':
                raise Failed(-32602, "a state of another call")
            known = json.loads(rest)
        known.update(answers)
        if key in known:
            return known[key]
        asks = {key: {"method": method, "params": params}}
        raise Needs(asks, f'"{tag}" é|{json.dumps(known)}')


class Modern(Server):
    """The whole server: nothing of it belongs to one client but open subscriptions."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(MODERN, journal)
        self.listening: dict[tuple[Any, Any], tuple[Json, Send]] = {}

    async def receive(self, message: Json, send: Send, headers: Json | None = None) -> int:
        """Answer one request by `send`; the HTTP status that goes with it."""
        request = ModernRequest(self, message, send)
        request.headers = headers or {}
        status = 200
        try:
            answer: Json = {"result": await self.respond(request)}
        except Needs as needs:
            answer = {"result": needs.result}
        except Failed as failed:
            answer, status = {"error": failed.error}, failed.status
        await send({"jsonrpc": "2.0", "id": request.id, **answer})
        return status

    async def respond(self, request: ModernRequest) -> Json:
        method, meta = request.method, request.meta
        for key in ("protocolVersion", "clientCapabilities"):
            if META + key not in meta:
                raise Failed(-32602, f"_meta lacks {key}", status=400)
        if meta[META + "protocolVersion"] != MODERN:
            wanted = meta[META + "protocolVersion"]
            data = {"supported": [MODERN], "requested": wanted}
            raise Failed(-32022, "Unsupported protocol version", data, 400)
        request.capabilities = meta[META + "clientCapabilities"]
        request.level = meta.get(META + "logLevel")
        self.check_header(request)
        if method == "server/discover":
            told: Json = {
                "supportedVersions": [MODERN],
                "capabilities": self.capabilities(),
                "instructions": "Speak one revision.",
            }
            return self.dressed(told, caching=True)
        if method == "subscriptions/listen":
            return await self.listen(request)
        caching = method.endswith("/list") or method == "resources/read"
        return self.dressed(await self.answer(request), caching=caching)

    def check_header(self, request: Request) -> None:
        if request.headers and request.params.get("name") == "mirror":
            told = request.headers.get("mcp-param-region")
            if told != request.arguments.get("region"):
                raise Failed(-32020, "Header mismatch", status=400)

    def dressed(self, result: Json, *, caching: bool) -> Json:
        server = {META + "serverInfo": {"name": "era", "version": "1"}}
        meta = {**fields(result.get("_meta")), **server}
        told: Json = {**result, "resultType": "complete", "_meta": meta}
        return {**told, "ttlMs": 60_000, "cacheScope": "private"} if caching else told

    async def listen(self, request: Request) -> Json:
        wanted = request.params["notifications"]
        tag = {META + "subscriptionId": request.id}
        key = (id(request.send), request.id)
        self.listening[key] = wanted, request.send
        for uri in wanted.get("resourceSubscriptions") or ():
            self.tell("resources/subscribe", uri=uri)
        try:
            await request.note(
                "notifications/subscriptions/acknowledged", notifications=wanted, _meta=tag
            )
            await asyncio.Event().wait()
        finally:
            del self.listening[key]
            for uri in wanted.get("resourceSubscriptions") or ():
                self.tell("resources/unsubscribe", uri=uri)
        return {}

    async def changed(self, request: Request, kind: str) -> None:
        await self.publish(f"notifications/{kind}/list_changed", f"{kind}ListChanged", None)

    async def touched(self, request: Request, uri: str) -> None:
        await self.publish("notifications/resources/updated", "resourceSubscriptions", uri)

    async def publish(self, method: str, member: str, uri: str | None) -> None:
        for (_, id), (wanted, send) in tuple(self.listening.items()):
            asked = wanted.get(member)
            if asked and (uri is None or uri in asked):
                params: Json = {"_meta": {META + "subscriptionId": id}}
                if uri is not None:
                    params["uri"] = uri
                await send({"jsonrpc": "2.0", "method": method, "params": params})

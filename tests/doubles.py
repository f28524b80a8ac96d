"""Doubles of every seam: what stands in for a client, a server, the pool, the vault, the store.

They hold no surprises: each records what it was given and answers what it was told to. Waiting
is done with events (`Recorder.noted`, `ScriptedLink.reached`), never with sleeps.

    link = ScriptedLink({"tools/call": Done({"content": Raw(b"[]")})})
    links = ScriptedLinks({"github": link})
    ctx = context(snapshot(server("github")))
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias

import anyio
import msgspec
from msgspec import Raw

from mcpgw.errors import GatewayError
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Context,
    Done,
    JsonObject,
    Note,
    Reply,
    RpcError,
)
from mcpgw.model.config import (
    EVERYTHING,
    OWNER,
    Endpoint,
    Level,
    Principal,
    Server,
    Snapshot,
    Target,
)
from mcpgw.model.ports import Caller, Lease, Link, LinkInfo, LinkStatus, UpstreamError

PATIENCE = 5.0  # seconds a test waits for something that must happen

Handling: TypeAlias = Callable[[Call, Caller], Awaitable[Reply]]
Answer: TypeAlias = Reply | Exception | Handling
"""What a scripted method does: give this reply, raise this, or run this."""

Response: TypeAlias = Raw | Exception | dict[str, Any] | Callable[[Ask], Awaitable[Raw]]
"""What a Recorder does when asked: answer this, raise this, or run this."""


# ---------------------------------------------------------------- builders of plain data


def raw(value: object) -> Raw:
    """`value` as JSON."""
    return Raw(msgspec.json.encode(value))


def obj(**members: object) -> JsonObject:
    """An object decoded one level; Raw members stay as they are."""
    return {k: v if isinstance(v, Raw) else raw(v) for k, v in members.items()}


def plain(value: object) -> Any:
    """Raw, or an object decoded one level, as Python values; for comparing."""
    return json.loads(msgspec.json.encode(value))


def server(name: str, **fields: Any) -> Server:
    """A stdio server whose id is `id-NAME`."""
    defaults: dict[str, Any] = {
        "id": f"id-{name}",
        "prefix": name,
        "transport": "stdio",
        "command": ("true",),
    }
    return Server(name=name, **{**defaults, **fields})


def snapshot(
    *servers: Server,
    principals: Iterable[Principal] = (),
    unusable: Mapping[str, str] | None = None,
    generation: int = 1,
) -> Snapshot:
    """A snapshot of these servers; each principal's secret is `mcpgw_` and its name."""
    principals = tuple(principals)
    return Snapshot(
        generation=generation,
        servers={one.id: one for one in servers},
        names={name.lower(): one.id for one in servers for name in (one.name, *one.aliases)},
        prefixes={one.prefix: one.id for one in servers},
        keys={hashlib.sha256(f"mcpgw_{p.name}".encode()).digest(): p for p in principals},
        principals={p.id: p for p in principals},
        unusable=unusable or {},
    )


def key(
    name: str,
    *grants: Target,
    denies: Sequence[Target] = (),
    above: Sequence[Level] = (),
    expires: float | None = None,
) -> Principal:
    """A key with these grants; `above` are its team and organization."""
    return Principal(
        id=f"key-{name}",
        name=name,
        kind="key",
        levels=(Level("key", name, tuple(grants), tuple(denies)), *above),
        expires=expires,
    )


def context(
    config: Snapshot,
    *,
    principal: Principal = OWNER,
    endpoint: Endpoint = EVERYTHING,
    revision: str = "2026-07-28",
    **fields: Any,
) -> Context:
    return Context(
        principal=principal,
        snapshot=config,
        endpoint=endpoint,
        revision=revision,
        transport="double",
        **fields,
    )


def native(server: Server) -> Endpoint:
    """The endpoint that serves one server under its native names."""
    return Endpoint(frozenset({server.id}), native=True)


def call(method: str, ctx: Context, **params: object) -> Call:
    return Call(method, obj(**params), ctx)


# ---------------------------------------------------------------- a client


class Recorder:
    """A Caller that keeps what it is told and answers asks from a table.

    answers: by ask method; an RpcError is raised, a callable is called with the ask.
    hold: when set to an unset event, `tell` waits for it, as a slow client does.
    """

    def __init__(
        self,
        mode: AskMode = AskMode.NEVER,
        answers: Mapping[str, Response] | None = None,
        *,
        hold: anyio.Event | None = None,
    ) -> None:
        self.ask_mode = mode
        self.answers = dict(answers or {})
        self.hold = hold
        self.notes: list[Note] = []
        self.asked: list[Ask] = []
        self._news = anyio.Event()

    async def tell(self, note: Note) -> None:
        if self.hold is not None:
            await self.hold.wait()
        self.notes.append(note)
        self._news.set()
        self._news = anyio.Event()

    async def ask(self, ask: Ask) -> Raw:
        self.asked.append(ask)
        answer = self.answers.get(ask.method, RpcError(-32601, f"nobody answers {ask.method}"))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Raw):
            return answer
        return await answer(ask) if callable(answer) else raw(answer)

    async def noted(self, count: int) -> list[Note]:
        """The notes so far, once there are at least `count`."""
        with anyio.fail_after(PATIENCE):
            while len(self.notes) < count:
                await self._news.wait()
        return self.notes


# ---------------------------------------------------------------- a server


def info(
    *,
    modern: bool = True,
    revision: str | None = None,
    capabilities: Mapping[str, object] | None = None,
    instructions: str | None = None,
    asks_in_stream: bool = False,
) -> LinkInfo:
    """A LinkInfo; by default the server has everything."""
    if capabilities is None:
        capabilities = {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
            "logging": {},
        }
    return LinkInfo(
        revision=revision or ("2026-07-28" if modern else "2025-11-25"),
        modern=modern,
        capabilities=obj(**capabilities),
        server=raw({"name": "double", "version": "1"}),
        instructions=instructions,
        asks_in_stream=asks_in_stream,
    )


class ScriptedLink:
    """A Link that answers from a table of methods and records every call it gets.

    A method that is not in the table gets -32601. `running`: calls being handled right now.
    `cancelled`: calls whose task was cancelled.
    """

    def __init__(
        self, answers: Mapping[str, Answer] | None = None, *, info: LinkInfo | None = None
    ) -> None:
        self.answers: dict[str, Answer] = dict(answers or {})
        self.info = info or globals()["info"]()
        self.calls: list[Call] = []
        self.cancelled: list[Call] = []
        self.told: list[Note] = []
        self.running = 0
        self._news = anyio.Event()

    async def run(self, *, task_status: LinkStatus) -> None:
        task_status.started(self.info)
        await anyio.sleep_forever()

    async def handle(self, call: Call, caller: Caller) -> Reply:
        self.calls.append(call)
        self.running += 1
        self._tick()
        try:
            return await self._answer(call, caller)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(call)
            raise
        finally:
            self.running -= 1
            self._tick()

    async def tell(self, note: Note) -> None:
        self.told.append(note)

    async def _answer(self, call: Call, caller: Caller) -> Reply:
        answer = self.answers.get(call.method)
        if answer is None:
            raise RpcError(-32601, f"Method not found: {call.method}")
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return await answer(call, caller)
        return answer

    def _tick(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def methods(self) -> list[str]:
        """The methods of all calls so far, in order."""
        return [call.method for call in self.calls]

    def of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    async def reached(self, method: str, count: int = 1) -> Call:
        """The `count`-th call of `method`, once it has come."""
        return (await self._until(lambda: self.of(method), count))[count - 1]

    async def dropped(self, count: int = 1) -> list[Call]:
        """The cancelled calls, once there are `count`."""
        return await self._until(lambda: self.cancelled, count)

    async def idle(self) -> None:
        """Returns when no call is being handled."""
        with anyio.fail_after(PATIENCE):
            while self.running:
                await self._news.wait()

    async def _until(self, found: Callable[[], list[Call]], count: int) -> list[Call]:
        with anyio.fail_after(PATIENCE):
            while len(found()) < count:
                await self._news.wait()
        return found()


LIST_MEMBER = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


def listing(
    member: str, entries: Sequence[object], *, page: int | None = None, ttl_ms: int = 60_000
) -> Handling:
    """Answers a list method with `entries` (Raw or plain), `page` entries a page."""
    encoded = [one if isinstance(one, Raw) else raw(one) for one in entries]

    async def handle(call: Call, caller: Caller) -> Reply:
        start = int(plain(call.params["cursor"])) if "cursor" in call.params else 0
        size = page or max(1, len(encoded))
        result = obj(ttlMs=ttl_ms, cacheScope="private", **{member: encoded[start : start + size]})
        if start + size < len(encoded):
            result["nextCursor"] = raw(str(start + size))
        return Done(result)

    return handle


def tool(name: str, **fields: object) -> Raw:
    return raw({"name": name, "inputSchema": {"type": "object"}, **fields})


def text_result(text: str) -> Done:
    return Done(obj(content=[{"type": "text", "text": text}]))


def full_link(
    *,
    tools: Sequence[object] = (),
    prompts: Sequence[object] = (),
    resources: Sequence[object] = (),
    templates: Sequence[object] = (),
    ttl_ms: int = 60_000,
    page: int | None = None,
    answers: Mapping[str, Answer] | None = None,
    info: LinkInfo | None = None,
) -> ScriptedLink:
    """A link with the four lists and `answers` besides. Tools may be given by name."""
    named = [tool(one) if isinstance(one, str) else one for one in tools]
    script: dict[str, Answer] = {
        method: listing(LIST_MEMBER[method], entries, page=page, ttl_ms=ttl_ms)
        for method, entries in {
            "tools/list": named,
            "prompts/list": [{"name": p} if isinstance(p, str) else p for p in prompts],
            "resources/list": [
                {"uri": r, "name": r} if isinstance(r, str) else r for r in resources
            ],
            "resources/templates/list": [
                {"uriTemplate": t, "name": t} if isinstance(t, str) else t for t in templates
            ],
        }.items()
    }
    return ScriptedLink({**script, **(answers or {})}, info=info)


class Gate:
    """Holds a call until it is opened: `answers={"tools/call": gate.then(reply)}`."""

    def __init__(self) -> None:
        self._open = anyio.Event()

    def open(self) -> None:
        self._open.set()

    def then(self, answer: Answer) -> Handling:
        async def handle(call: Call, caller: Caller) -> Reply:
            await self._open.wait()
            if isinstance(answer, Exception):
                raise answer
            return await answer(call, caller) if callable(answer) else answer

        return handle


# ---------------------------------------------------------------- the pool


class ScriptedLinks:
    """Links that leases one link per server *name*. An UpstreamError in its place is raised.

    opened: names of servers leased so far, in order. out: leases not given back yet.
    scopes: what `scope` says, by server name; else the principal's id, or the session's.
    """

    def __init__(self, links: Mapping[str, Link | UpstreamError]) -> None:
        self.links: dict[str, Link | UpstreamError] = dict(links)
        self.infos: dict[str, LinkInfo] = {}
        self.scopes: dict[str, str] = {}
        self.opened: list[str] = []
        self.out = 0
        self.holds: dict[str, anyio.Event] = {}

    def lease(self, server: Server, ctx: Context, *, listening: bool = False) -> _Lease:
        return _Lease(self, server, self.scope(server, ctx))

    def scope(self, server: Server, ctx: Context) -> str:
        if server.name in self.scopes:
            return self.scopes[server.name]
        if server.isolate == "shared":
            return "shared"
        if server.isolate == "session" and ctx.session is not None:
            return f"session:{ctx.session}"
        return ctx.principal.id

    def own(self, server: Server, ctx: Context) -> Sequence[Link]:
        link = self.links.get(server.name)
        return () if link is None or isinstance(link, UpstreamError) else (link,)

    def hold(self, name: str) -> anyio.Event:
        """Let leases of this server wait until the returned event is set."""
        self.holds[name] = anyio.Event()
        return self.holds[name]


class _Lease:
    def __init__(self, links: ScriptedLinks, server: Server, scope: str) -> None:
        self._links = links
        self._server = server
        self._scope = scope

    async def __aenter__(self) -> Lease:
        links, name = self._links, self._server.name
        links.opened.append(name)
        if (hold := links.holds.get(name)) is not None:
            await hold.wait()
        link = links.links.get(name, UpstreamError("connect", "there is no such double"))
        if isinstance(link, UpstreamError):
            raise link
        links.out += 1
        told = links.infos.get(name) or getattr(link, "info", None) or info()
        return Lease(link, told, self._scope)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        self._links.out -= 1
        return False


# ---------------------------------------------------------------- vault, secrets, configuration


class PlainSeal:
    """A Seal whose tokens can be read. `now` is its clock: move it to let tokens expire."""

    def __init__(self) -> None:
        self.now = 0.0

    def seal(self, body: bytes, *, bind: bytes, purpose: str, ttl: float) -> str:
        fields = [body.hex(), bind.hex(), purpose, self.now + ttl]
        return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")

    def unseal(self, token: str, *, bind: bytes, purpose: str) -> bytes | None:
        try:
            padded = token + "=" * (-len(token) % 4)
            body, bound, why, until = json.loads(base64.urlsafe_b64decode(padded))
        except ValueError:
            return None
        if (bound, why) != (bind.hex(), purpose) or self.now > until:
            return None
        return bytes.fromhex(body)


class PlainSecrets:
    """Secrets from a table; what is not in it is missing."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def resolve(self, reference: str) -> str:
        if reference not in self.values:
            raise GatewayError(f"The secret {reference} is missing.", code="secret_missing")
        return self.values[reference]


class FixedConfig:
    """A Config that a test swaps by hand."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._changed: list[Callable[[Snapshot, Snapshot], None]] = []

    def subscribe(self, changed: Callable[[Snapshot, Snapshot], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def swap(self, new: Snapshot) -> None:
        old, self.snapshot = self.snapshot, new
        for changed in tuple(self._changed):
            changed(old, new)


# ---------------------------------------------------------------- a gateway


class ScriptedHandler:
    """A Handler for fronts: answers from a table of methods, -32601 for the rest."""

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self._link = ScriptedLink(answers)
        self.answers = self._link.answers
        self.calls = self._link.calls
        self.cancelled = self._link.cancelled
        self.reached = self._link.reached
        self.dropped = self._link.dropped

    async def handle(self, call: Call, caller: Caller) -> Reply:
        return await self._link.handle(call, caller)

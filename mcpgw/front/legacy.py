"""A legacy client's session (2024-11-05 … 2025-11-25), whatever it is carried by.

`initialize` agrees on a revision; what the client declared, asked to hear and is asked lives in a
Session. Each request becomes a Call of the core; what belongs to the call goes back by its Way:
the answer's own stream over HTTP, the one channel of SSE and stdio.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import anyio
from anyio import CancelScope
from msgspec import Raw, structs

from mcpgw.core import downgrade, mrtr, wire
from mcpgw.core.eras import (
    ASK_CAPABILITY,
    CLIENT_ASKS,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LATEST_LEGACY,
    LEGACY,
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    PROGRESS_TOKEN,
    TIMED_OUT,
    TWO_WAY_NOTES,
)
from mcpgw.front.exchange import internal, strayed
from mcpgw.front.feed import Feed, listed
from mcpgw.front.modern import (
    IMPLEMENTATION,
    Base,
    bounded,
    meta_of,
    own_meta,
    token_of,
    trace_of,
)
from mcpgw.front.streams import Book
from mcpgw.model.calls import (
    NOTHING,
    Ask,
    AskMode,
    Call,
    Context,
    Done,
    JsonObject,
    ListChanged,
    Log,
    Note,
    OtherNote,
    Parting,
    Progress,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Endpoint, Principal
from mcpgw.model.ports import Gate, Handler

ASK_WAIT: Final = 900.0  # seconds a person may take to answer a question
GOODBYE: Final = 1.0  # seconds for telling a client that its answer is no longer wanted
DEFAULT_LEVEL: Final = "info"  # what a client hears before it says what it wants
MAX_CALLS: Final = 1000  # calls of one session in flight

MODERN_METHODS: Final = frozenset({"server/discover", "subscriptions/listen"})
"""Methods of the core that no legacy revision has."""

_log = logging.getLogger("mcpgw.front")
_LEVEL = {level: at for at, level in enumerate(LOG_LEVELS)}


class Way(Protocol):
    """Where messages that belong to one call go. `two_way`: the client can be asked by it."""

    @property
    def two_way(self) -> bool: ...

    async def send(self, message: bytes) -> None:
        """Deliver in order; waits for a slow client, never raises for a gone one."""
        ...

    async def part(self) -> None:
        """Let the client go where it can come back for the rest."""
        ...


class Session:
    """What one legacy client declared, and what is going on with it.

    calls: scopes of its calls by id. asks: what waits for the client's answers. feed: its
    subscriptions. book: its event streams, over Streamable HTTP. on_close: run once at the end.
    """

    def __init__(
        self,
        *,
        id: str,
        principal: Principal,
        endpoint: Endpoint,
        transport: str,
        revision: str,
        capabilities: Mapping[str, Raw],
        client: Raw | None,
    ) -> None:
        self.id = id
        self.principal = principal
        self.endpoint = endpoint
        self.transport = transport
        self.revision = revision
        self.capabilities = capabilities
        self.client = client
        self.log_level = DEFAULT_LEVEL
        self.calls: dict[int | str, CancelScope] = {}
        self.asks: dict[int | str, asyncio.Future[wire.Response]] = {}
        self.lists: JsonObject = {}  # which list changes the server tells, as a listen filter
        self.feed: Feed | None = None
        self.two_way = False  # the latest request left a way to ask its client
        self.tell: Callable[[Note], None] | None = None  # where notes of no call go
        self.book = Book()
        self.closed = False
        self.on_close: list[Callable[[], None]] = []
        self.last = 0.0  # when the client was last heard, on the loop's clock
        self._asked = 0

    def close(self) -> None:
        """End everything that belongs to the session. May be called more than once."""
        if self.closed:
            return
        self.closed = True
        for scope in tuple(self.calls.values()):
            scope.cancel()
        if self.feed is not None:
            self.feed.close()
        for step in self.on_close:
            step()

    @property
    def busy(self) -> bool:
        """Somebody listens or waits, so silence is no sign that the client is gone."""
        return bool(self.calls) or self.book.live

    def next_ask(self) -> int:
        self._asked += 1
        return self._asked

    def answered(self, response: wire.Response) -> None:
        """The client answered a question; an answer to none is ignored."""
        if response.id is None:
            return
        waiting = self.asks.get(wire.id_key(response.id))
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    def noted(self, note: wire.Notification) -> None:
        """A notification of the client."""
        if note.method in TWO_WAY_NOTES and self.tell is not None:
            self.tell(OtherNote(note.method, note.params))
        if note.method != "notifications/cancelled":
            return
        id = note.params.get("requestId")
        try:
            scope = None if id is None else self.calls.get(wire.id_key(id))
        except ValueError:
            return
        if scope is not None:
            scope.cancel()

    def declared(self, *, two_way: bool) -> Mapping[str, Raw]:
        """The client's capabilities, without those that nothing could reach."""
        if two_way:
            return self.capabilities
        return {name: value for name, value in self.capabilities.items() if name not in CLIENT_ASKS}

    def message(self, note: Note) -> bytes | None:
        """A note that belongs to no call, as this client may have it."""
        return _note(note, None, self.log_level)


class LegacyCaller:
    """The way back to a legacy client: notes and questions while the call runs, not `over`."""

    __slots__ = ("_session", "_token", "_way", "ask_mode", "over")

    def __init__(self, session: Session, way: Way, token: Raw | None) -> None:
        self._session = session
        self._way = way
        self._token = token
        self.over = False
        able = way.two_way and not CLIENT_ASKS.isdisjoint(session.capabilities)
        self.ask_mode = AskMode.LIVE if able else AskMode.NEVER

    async def tell(self, note: Note) -> None:
        if self.over:
            return
        if isinstance(note, Parting):
            await self._way.part()
            return
        message = _note(note, self._token, self._session.log_level)
        if message is not None:
            await self._way.send(message)

    async def ask(self, ask: Ask) -> Raw:
        session = self._session
        needed = ASK_CAPABILITY.get(ask.method)
        able = self.ask_mode is AskMode.LIVE and self._way.two_way and not self.over
        if not able or needed is None:
            raise RpcError(METHOD_NOT_FOUND, f"the client cannot answer {ask.method}")
        if missing := mrtr.undeclared([ask], session.capabilities):
            raise mrtr.missing_capability(missing)
        asked = downgrade.question(session.revision, ask, minted=secrets.token_urlsafe(12))
        id = session.next_ask()
        waiting: asyncio.Future[wire.Response] = asyncio.get_running_loop().create_future()
        session.asks[id] = waiting
        response: wire.Response | None = None
        try:
            await self._way.send(wire.request(id, ask.method, asked.params))
            with anyio.move_on_after(ASK_WAIT):
                response = await waiting
        finally:
            session.asks.pop(id, None)
            if response is None and not session.closed:
                await self._withdraw(id)
        if response is None:
            raise RpcError(TIMED_OUT, f"the client did not answer {ask.method} in time")
        if response.error is not None:
            raise response.error
        return wire.dump_object(downgrade.answer(asked, response.result or {}))

    async def _withdraw(self, id: int) -> None:
        with anyio.move_on_after(GOODBYE, shield=True):
            params = {"requestId": wire.dump(id), "reason": wire.dump("no longer needed")}
            await self._way.send(wire.notification("notifications/cancelled", params))


def _note(note: Note, token: Raw | None, level: str) -> bytes | None:
    method, params = None, NOTHING
    if isinstance(note, Progress):
        if token is not None:
            method, params = "notifications/progress", {**note.params, PROGRESS_TOKEN: token}
    elif isinstance(note, Log):
        if _LEVEL.get(note.level, len(_LEVEL)) >= _LEVEL[level]:
            method, params = "notifications/message", note.params
    elif isinstance(note, ListChanged):
        method = f"notifications/{note.kind}/list_changed"
    elif isinstance(note, ResourceUpdated):
        method, params = "notifications/resources/updated", note.params
    elif isinstance(note, TaskChanged):
        method, params = "notifications/tasks/status", note.params
    elif isinstance(note, OtherNote):
        method, params = note.method, note.params
    return None if method is None else wire.notification(method, params)


class NoAsks:
    """A caller for the gateway's own calls: nothing is told or asked."""

    ask_mode = AskMode.NEVER

    async def tell(self, note: Note) -> None:
        """Nobody hears it."""

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, "nobody can be asked")


async def initialize(
    request: wire.Request, base: Base, handler: Handler, *, id: str, two_way: bool
) -> tuple[Session, JsonObject]:
    """A new session and the result that tells its client of it. Raises RpcError.

    two_way: the client can be asked by the way it came.
    """
    params = request.params
    wanted = wire.text(params.get("protocolVersion"))
    if wanted is None:
        raise RpcError(INVALID_PARAMS, "initialize has no protocolVersion")
    revision = wanted if wanted in LEGACY else LATEST_LEGACY
    try:
        capabilities = wire.members(params.get("capabilities", wire.EMPTY))
    except wire.BadMessage:
        raise RpcError(INVALID_PARAMS, "capabilities is not an object") from None
    session = Session(
        id=id,
        principal=base.principal,
        endpoint=base.endpoint,
        transport=base.transport,
        revision=revision,
        capabilities=capabilities,
        client=params.get("clientInfo"),
    )
    ctx = context(session, base, two_way=two_way)
    reply = await handler.handle(Call("server/discover", {}, ctx), NoAsks())
    told = reply.result if isinstance(reply, Done) else {}
    offered = downgrade.capabilities(revision, told.get("capabilities"))
    session.lists = listed(offered)
    session.two_way = two_way
    if isinstance(handler, Gate):
        session.tell = lambda note: handler.tell(context(session, base, two_way=True), note)
    result: JsonObject = {
        "protocolVersion": wire.dump(revision),
        "capabilities": wire.dump_object(offered),
        "serverInfo": IMPLEMENTATION,
    }
    if "instructions" in told:
        result["instructions"] = told["instructions"]
    return session, result


def context(session: Session, base: Base, *, two_way: bool) -> Context:
    return Context(
        principal=base.principal,
        snapshot=base.snapshot,
        endpoint=session.endpoint,
        revision=session.revision,
        transport=session.transport,
        session=session.id,
        capabilities=session.declared(two_way=two_way),
        client=session.client,
        headers=base.headers,
        log_level=session.log_level,
    )


async def answer(
    session: Session, request: wire.Request, base: Base, handler: Handler, way: Way
) -> bytes | None:
    """The response to one request of a session; None when its client cancelled it."""
    key = wire.id_key(request.id)
    if key in session.calls or len(session.calls) >= MAX_CALLS:
        reason = "the id is in use" if key in session.calls else "too many calls in flight"
        return wire.error(request.id, RpcError(INVALID_REQUEST, reason))
    message: bytes | None = None
    with CancelScope() as scope:
        session.calls[key] = scope
        try:
            result = await _result(session, request, base, handler, way)
            message = bounded(wire.result(request.id, result))
        except RpcError as error:
            message = wire.error(request.id, downgrade.error(request.method, error))
        except Exception as error:  # noqa: BLE001 - the boundary of a front request
            message = wire.error(request.id, internal(error))
        except asyncio.CancelledError as error:
            message = wire.error(request.id, strayed(error))
        finally:
            session.calls.pop(key, None)
    return None if scope.cancel_called else message


async def _result(
    session: Session, request: wire.Request, base: Base, handler: Handler, way: Way
) -> JsonObject:
    own = _OWN.get(request.method)
    session.two_way = way.two_way
    if own is not None:
        return await own(session, request.params, base, handler)
    if request.method in MODERN_METHODS:
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method}")
    meta = meta_of(request.params)
    request.params.pop("_meta", None)
    token = None if meta is None else token_of(meta)
    ctx = context(session, base, two_way=way.two_way)
    if meta is not None and (trace := trace_of(meta, base.headers)):
        ctx = structs.replace(ctx, trace=trace)
    call = Call(
        request.method,
        request.params,
        ctx,
        NOTHING if meta is None else own_meta(meta),
        token is not None,
    )
    caller = LegacyCaller(session, way, token)
    try:
        reply = await handler.handle(call, caller)
    finally:
        caller.over = True
    if not isinstance(reply, Done):
        # The relay drives these for whoever can be asked live; the rest cannot be helped.
        raise RpcError(INVALID_REQUEST, "this call needs input that the client cannot give")
    return downgrade.result(session.revision, request.method, reply.result)


async def _ping(session: Session, params: JsonObject, base: Base, handler: Handler) -> JsonObject:
    return {}


async def _set_level(
    session: Session, params: JsonObject, base: Base, handler: Handler
) -> JsonObject:
    level = wire.text(params.get("level"))
    if level not in _LEVEL:
        raise RpcError(INVALID_PARAMS, f"level is none of {', '.join(LOG_LEVELS)}")
    session.log_level = level
    return {}


async def _subscribe(
    session: Session, params: JsonObject, base: Base, handler: Handler
) -> JsonObject:
    feed, uri = _feed(session, params)
    await feed.add(uri, context(session, base, two_way=session.two_way))
    return {}


async def _unsubscribe(
    session: Session, params: JsonObject, base: Base, handler: Handler
) -> JsonObject:
    feed, uri = _feed(session, params)
    await feed.remove(uri, context(session, base, two_way=session.two_way))
    return {}


def _feed(session: Session, params: JsonObject) -> tuple[Feed, str]:
    uri = wire.text(params.get("uri"))
    if uri is None:
        raise RpcError(INVALID_PARAMS, "uri is not a string")
    if session.feed is None:
        raise RpcError(METHOD_NOT_FOUND, "this session has no way to be told of changes")
    return session.feed, uri


_Own = Callable[[Session, JsonObject, Base, Handler], Awaitable[JsonObject]]
_OWN: Final[Mapping[str, _Own]] = {
    "ping": _ping,
    "logging/setLevel": _set_level,
    "resources/subscribe": _subscribe,
    "resources/unsubscribe": _unsubscribe,
}
"""What a session answers by itself."""

"""2026-07-28 and later: from a request to a Call of the core, and from what comes back to bytes.

Stateless: everything the gateway must know stands in the request. The first half of this module
is the same on every channel; `serve` is the HTTP half (2026-07-28, transports).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Final

from anyio import CancelScope
from msgspec import Raw, Struct

from mcpgw import __version__
from mcpgw.core import headers as mirrored
from mcpgw.core import wire
from mcpgw.core.eras import (
    CLIENT_ASKS,
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    HEADER_MISMATCH,
    HOP_META,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    LOG_LEVEL,
    LOG_LEVELS,
    MAY_NEED_INPUT,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    MODERN,
    PROGRESS_TOKEN,
    PROTOCOL_VERSION,
    SERVER_INFO,
    SUBSCRIPTION_ID,
    SUPPORTED,
    TRACE_META,
    UNSUPPORTED_VERSION,
)
from mcpgw.core.sse import encode
from mcpgw.front.exchange import Exchange, internal, strayed
from mcpgw.model.calls import (
    NOTHING,
    Ask,
    AskMode,
    Call,
    Context,
    JsonObject,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    Note,
    OtherNote,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Endpoint, Principal, Snapshot
from mcpgw.model.ports import Handler

LISTEN: Final = "subscriptions/listen"
MAX_RESULT: Final = 32 * 1024 * 1024  # bytes of one answer

IMPLEMENTATION: Final = wire.dump({"name": "mcpgw", "title": "mcpgw", "version": __version__})
_META_WITH_SERVER: Final = wire.dump({SERVER_INFO: IMPLEMENTATION})

GONE_METHODS: Final = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    }
)
"""Methods that 2026-07-28 no longer has."""

STATUS: Final = {
    METHOD_NOT_FOUND: 404,
    MISSING_CAPABILITY: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
}
"""HTTP statuses that the specification ties to codes; every other error travels with 200."""

_LEVEL = {level: at for at, level in enumerate(LOG_LEVELS)}
_COMPLETE: Final = Raw(b'"complete"')
_INPUT_REQUIRED: Final = Raw(b'"input_required"')


class Base(Struct, frozen=True):
    """What a Context takes from the channel: who calls, through what, with which header fields."""

    principal: Principal
    snapshot: Snapshot
    endpoint: Endpoint
    transport: str
    headers: Mapping[str, str] = {}
    mirrored: bool = False
    session: str | None = None


class Lifted(Struct, frozen=True):
    """A request as a Call, with what its notes and its answer need again."""

    id: Raw
    call: Call
    token: Raw | None
    level: int | None
    ask_mode: AskMode

    @property
    def listening(self) -> bool:
        return self.call.method == LISTEN


def invalid(message: str) -> RpcError:
    return RpcError(INVALID_PARAMS, message, http_status=400)


def _mismatch(wrong: str) -> RpcError:
    return RpcError(HEADER_MISMATCH, f"Header mismatch: {wrong}", http_status=400)


def unsupported(version: str) -> RpcError:
    data = wire.dump({"supported": SUPPORTED, "requested": version})
    return RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", data, http_status=400)


def meta_of(params: Mapping[str, Raw]) -> JsonObject | None:
    """`_meta`, decoded one level; None when it is absent or no object."""
    raw = params.get("_meta")
    if raw is None:
        return None
    try:
        return wire.members(raw)
    except wire.BadMessage:
        return None


def check(
    request: wire.Request,
    meta: JsonObject | None,
    headers: Mapping[str, str] | None,
    twice: tuple[str, ...] = (),
) -> str:
    """The request's revision. Raises RpcError with its HTTP status for a broken envelope.

    headers None: the channel has none. twice: names of fields that were sent more than once.
    """
    if twice and (name := mirrored.doubled((name, "") for name in (*twice, *twice))) is not None:
        raise _mismatch(f"{name} is sent twice")
    if meta is None:
        raise invalid(f"params._meta must be an object with {PROTOCOL_VERSION}")
    for key in (PROTOCOL_VERSION, CLIENT_CAPABILITIES):
        if key not in meta:
            raise invalid(f"params._meta has no {key}")
    version = wire.text(meta[PROTOCOL_VERSION])
    if version is None and headers is None:
        raise invalid(f"{PROTOCOL_VERSION} is not a string")
    if headers is not None:
        wrong = mirrored.routing_mismatch(version or "", request.method, request.params, headers)
        if wrong is not None:
            raise _mismatch(wrong)
    if version not in MODERN:
        raise unsupported(version or "")
    if request.method in GONE_METHODS:
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {request.method}", http_status=404)
    return version


def lift(request: wire.Request, meta: JsonObject, version: str, base: Base) -> Lifted:
    """The Call that a checked request is. Raises RpcError for `_meta` of the wrong shape."""
    params = request.params
    params.pop("_meta", None)
    answers, state = params.pop("inputResponses", None), params.pop("requestState", None)
    state_text = None
    if state is not None and (state_text := wire.text(state)) is None:
        raise invalid("requestState is not a string")
    try:
        capabilities = wire.members(meta[CLIENT_CAPABILITIES])
        answered = None if answers is None else wire.members(answers)
    except wire.BadMessage:
        raise invalid("clientCapabilities and inputResponses must be objects") from None
    level = None
    if (told := meta.get(LOG_LEVEL)) is not None:
        level = wire.text(told)
        if level not in _LEVEL:
            raise invalid(f"{LOG_LEVEL} is none of {', '.join(LOG_LEVELS)}")
    token = token_of(meta)
    may_ask = request.method in MAY_NEED_INPUT and not CLIENT_ASKS.isdisjoint(capabilities)
    ctx = Context(
        principal=base.principal,
        snapshot=base.snapshot,
        endpoint=base.endpoint,
        revision=version,
        transport=base.transport,
        session=base.session,
        capabilities=capabilities,
        client=meta.get(CLIENT_INFO),
        headers=base.headers,
        mirrored=base.mirrored,
        log_level=level,
        trace=trace_of(meta, base.headers),
    )
    call = Call(
        request.method, params, ctx, own_meta(meta), token is not None, answered, state_text
    )
    ask_mode = AskMode.RETRY if may_ask else AskMode.NEVER
    return Lifted(request.id, call, token, None if level is None else _LEVEL[level], ask_mode)


def own_meta(meta: Mapping[str, Raw]) -> Mapping[str, Raw]:
    """`_meta` without what belongs to one hop."""
    kept = {key: value for key, value in meta.items() if key not in HOP_META}
    return kept or NOTHING


def token_of(meta: Mapping[str, Raw]) -> Raw | None:
    """A usable progress token: a string or an integer."""
    token = meta.get(PROGRESS_TOKEN)
    if token is None or len(bytes(token)) > wire.MAX_ID:
        return None
    first = bytes(token)[:1]
    return token if first == b'"' or first in b"-0123456789" else None


def trace_of(meta: Mapping[str, Raw], headers: Mapping[str, str]) -> Mapping[str, str]:
    """The W3C trace context: of `_meta`, else of the header fields."""
    found: dict[str, str] = {}
    for name in TRACE_META:
        text = wire.text(meta.get(name)) or headers.get(name)
        if text:
            found[name] = text
    return found


def note_message(note: Note, lifted: Lifted) -> bytes | None:
    """A note as this request's client may have it; None when it is not for it."""
    if lifted.listening:
        return _listened(note, lifted.id)
    method, params = None, NOTHING
    if isinstance(note, Progress):
        if lifted.token is not None:
            method, params = "notifications/progress", {**note.params, PROGRESS_TOKEN: lifted.token}
    elif isinstance(note, Log):
        if lifted.level is not None and _LEVEL.get(note.level, len(_LEVEL)) >= lifted.level:
            method, params = "notifications/message", note.params
    elif isinstance(note, OtherNote):
        method, params = note.method, note.params
    return None if method is None else wire.notification(method, params)


def _listened(note: Note, id: Raw) -> bytes | None:
    if isinstance(note, Listening):
        method = "notifications/subscriptions/acknowledged"
        params: Mapping[str, Raw] = {"notifications": wire.dump_object(note.wanted)}
    elif isinstance(note, ListChanged):
        method, params = f"notifications/{note.kind}/list_changed", {}
    elif isinstance(note, ResourceUpdated):
        method, params = "notifications/resources/updated", note.params
    elif isinstance(note, TaskChanged):
        method, params = "notifications/tasks", note.params
    elif isinstance(note, OtherNote):
        method, params = note.method, note.params
    else:
        return None
    return wire.notification(
        method, {**params, "_meta": _with(params.get("_meta"), SUBSCRIPTION_ID, id)}
    )


def result_message(lifted: Lifted, reply: Reply) -> bytes:
    """The answer to a request, `resultType` and serverInfo included."""
    if isinstance(reply, NeedInput):
        result: dict[str, Raw] = {**reply.result, "resultType": _INPUT_REQUIRED}
        if reply.asks:
            result["inputRequests"] = wire.dump(
                {
                    key: {"method": ask.method, "params": wire.dump_object(ask.params)}
                    for key, ask in reply.asks.items()
                }
            )
        if reply.state is not None:
            result["requestState"] = wire.dump(reply.state)
    else:
        kind = _COMPLETE if reply.kind == "complete" else wire.dump(reply.kind)
        result = {"resultType": kind, **reply.result}
    meta = result.get("_meta")
    result["_meta"] = (
        _META_WITH_SERVER if meta is None else _with(meta, SERVER_INFO, IMPLEMENTATION, keep=True)
    )
    if lifted.listening:
        result["_meta"] = _with(result["_meta"], SUBSCRIPTION_ID, lifted.id)
    return bounded(wire.result(lifted.id, result))


def bounded(message: bytes) -> bytes:
    """The message, unless it is larger than any client should have to take: RpcError then."""
    if len(message) > MAX_RESULT:
        raise RpcError(INTERNAL_ERROR, f"the result is larger than {MAX_RESULT} bytes")
    return message


def _with(meta: Raw | None, key: str, value: Raw, *, keep: bool = False) -> Raw:
    """`_meta` with one member set; `keep` leaves one that is there."""
    members: JsonObject = {}
    if meta is not None:
        try:
            members = wire.members(meta)
        except wire.BadMessage:
            members = {}
    if not (keep and key in members):
        members[key] = value
    return wire.dump_object(members)


def no_asks() -> RpcError:
    return RpcError(METHOD_NOT_FOUND, "this client cannot be asked while its call runs")


class HttpCaller:
    """The way back to a modern HTTP client: the response turns into a stream at the first note."""

    __slots__ = ("_exchange", "_lifted", "_silent", "ask_mode")

    def __init__(self, exchange: Exchange, lifted: Lifted, *, streams: bool) -> None:
        self._exchange = exchange
        self._lifted = lifted
        self._silent = not streams
        self.ask_mode = lifted.ask_mode

    async def tell(self, note: Note) -> None:
        exchange, lifted = self._exchange, self._lifted
        if self._silent or exchange.lost:
            return
        message = note_message(note, lifted)
        if message is None:
            return
        if not exchange.streaming:
            if exchange.started:  # the answer has gone out
                return
            await exchange.open_stream()
        await exchange.write(encode(message))

    async def ask(self, ask: Ask) -> Raw:
        raise no_asks()


async def serve(exchange: Exchange, lifted: Lifted, handler: Handler, *, streams: bool) -> None:
    """Answer one request over HTTP. Hanging up cancels the call.

    streams: the client takes server-sent events.
    """
    exchange.opener = exchange.open_stream if streams else None
    outcome: Reply | RpcError | None = None
    with CancelScope() as scope:
        exchange.on_gone = scope.cancel
        try:
            outcome = await handler.handle(
                lifted.call, HttpCaller(exchange, lifted, streams=streams)
            )
        except RpcError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - the boundary of a front request
            outcome = internal(error)
        except asyncio.CancelledError as error:
            outcome = strayed(error)
    exchange.on_gone = exchange.opener = None
    if outcome is None:
        outcome = exchange.verdict
    if exchange.lost or outcome is None:
        return
    failed, message = answer_message(lifted, outcome)
    if exchange.streaming:
        await exchange.end(encode(message))
    elif lifted.listening and failed is None:
        # The stream is the answer's form even when it ends before anything was told.
        await exchange.open_stream()
        await exchange.end(encode(message))
    else:
        await exchange.respond(*status_of(failed, message))


def answer_message(lifted: Lifted, outcome: Reply | RpcError) -> tuple[RpcError | None, bytes]:
    """The error, if the answer is one, and the message."""
    if not isinstance(outcome, RpcError):
        try:
            return None, result_message(lifted, outcome)
        except RpcError as error:
            outcome = error
    return outcome, wire.error(lifted.id, outcome)


def status_of(
    error: RpcError | None, message: bytes
) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
    """The HTTP answer that carries `message`: status, body, header fields."""
    if error is None:
        return 200, message, ()
    fields: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after is not None:
        fields = ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))),)
    return error.http_status or STATUS.get(error.code, 200), message, fields

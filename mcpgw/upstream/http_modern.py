"""A Streamable HTTP server of 2026-07-28: stateless, every call one POST.

The answer is JSON, or a stream of this call's notes that ends with it. Closing that stream is the
cancellation, so a cancelled task needs no goodbye. A call is never sent a second time: whoever
lost the answer is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import anyio
from msgspec import Raw

from mcpgw.core import extensions, headers, outbound, wire
from mcpgw.core.eras import LATEST, METHOD_NOT_FOUND
from mcpgw.core.handshake import (
    common,
    discover_params,
    discovered,
    has,
    modern_meta,
    no_common,
    supported,
)
from mcpgw.model.calls import (
    Call,
    Done,
    JsonObject,
    ListChanged,
    Listening,
    Log,
    Note,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkInfo, LinkStatus, Secrets, UpstreamError
from mcpgw.upstream.http1 import Client, Response
from mcpgw.upstream.http_calls import (
    ACCEPT,
    BACKOFF,
    EVENTS,
    HANDSHAKE,
    IDEMPOTENT,
    JSON,
    QUIET,
    STEADY,
    Events,
    Fields,
    Patience,
    Peer,
    hears,
    ignore,
    is_message,
    lost,
    media_type,
    parsed,
    token_of,
)

LISTEN: Final = "subscriptions/listen"
MAX_HEADS: Final = 64  # methods whose fields are kept; clients may invent any number of them

ListKind = Literal["tools", "prompts", "resources"]
_KINDS: Final[tuple[ListKind, ...]] = ("tools", "prompts", "resources")
_TRUE: Final = Raw(b"true")

_log = logging.getLogger("mcpgw.upstream")


class HttpModernLink:
    """A Link to one modern HTTP server.

    heard: takes list changes and notes of no call; must not block. discovered: what the server is
    known to say of itself; then `handle` works without `run`. The client is the caller's to close.
    """

    def __init__(
        self,
        server: Server,
        *,
        client: Client,
        secrets: Secrets,
        heard: Callable[[Note], None] = ignore,
        discovered: LinkInfo | None = None,
    ) -> None:
        self._server = server
        self._peer = Peer(server, client, secrets)
        self._heard = heard
        self._info = discovered
        self._revision = LATEST if discovered is None else discovered.revision
        self._known = frozenset[str]() if discovered is None else _known(discovered)
        self._ids = client.ids
        self._heads: dict[str, Fields] = {}  # by method: the fields that need no look at the call
        self._base: Fields | None = None

    async def run(self, *, task_status: LinkStatus) -> None:
        """Discover the server, report it, and listen for changed lists until cancelled."""
        info = self._info
        if info is None:
            info = self._info = await self._discover()
            self._revision, self._known = info.revision, _known(info)
            self._heads.clear()
        task_status.started(info)
        kinds: tuple[ListKind, ...] = tuple(
            kind for kind in _KINDS if has(info.capabilities, kind, "listChanged")
        )
        if kinds:
            await self._watch(kinds)
        await anyio.sleep_forever()

    async def tell(self, note: Note) -> None:
        """2026-07-28 knows no notes from client to server."""

    async def handle(self, call: Call, caller: Caller) -> Reply:
        try:
            if call.method == LISTEN:
                return await self._listen(call, caller)
            return await self._call(call, caller)
        except UpstreamError as error:
            raise outbound.failed(self._server.name, error) from error

    # One call.

    async def _call(self, call: Call, caller: Caller) -> Reply:
        patience = self._peer.patience(call)
        id = next(self._ids)
        body = outbound.modern_request(
            call, id, token_of(call, id), revision=self._revision, known=self._known
        )
        response = await self._peer.send(
            "POST", self._fields(call), body, patience, idempotent=call.method in IDEMPOTENT
        )
        kind = response.headers.get("content-type", "")
        if response.status == 200 and kind.startswith(JSON):
            message = parsed(await self._peer.read(response, patience))
            return _reply(call.method, message)
        if response.status == 200 and media_type(response) == EVENTS:
            return await self._stream(call, caller, response, patience)
        raise await self._peer.refusal(response)

    def _fields(self, call: Call) -> Fields:
        base = self._peer.fields()
        if base is not self._base:
            self._base = base
            self._heads.clear()
        head = self._heads.get(call.method)
        if head is None:
            head = self._head(call.method, base)
        fields = list(head)
        name = headers.name_of(call.method, call.params)
        if name is not None:
            fields.append((headers.NAME, headers.encode(name)))
        if call.param_headers:
            fields.extend(call.param_headers.items())
        if self._server.forward_headers:
            fields.extend(self._peer.forwarded(call.ctx))
        return fields

    def _head(self, method: str, base: Fields) -> Fields:
        head: Fields = [
            ("content-type", JSON),
            ("accept", ACCEPT),
            (headers.VERSION, self._revision),
            (headers.METHOD, method),
            *base,
        ]
        if len(self._heads) < MAX_HEADS:
            self._heads[method] = head
        return head

    async def _stream(
        self, call: Call, caller: Caller, response: Response, patience: Patience
    ) -> Reply:
        events = Events(response)
        try:
            while (event := await events.next(patience)) is not None:
                if not is_message(event):
                    continue
                message = parsed(event.data)
                if isinstance(message, wire.Response):
                    await events.finish()
                    return _reply(call.method, message)
                if isinstance(message, wire.Notification):
                    await self._told(call, caller, message, patience)
                # A request is against the rules of this revision, and has no way back.
            raise lost(self._server, events.why)
        finally:
            await response.aclose()

    async def _told(
        self, call: Call, caller: Caller, message: wire.Notification, patience: Patience
    ) -> None:
        note = outbound.note(message.method, message.params)
        if isinstance(note, Progress):
            patience.more()
            if not call.wants_progress:
                return
        elif isinstance(note, ListChanged | ResourceUpdated | TaskChanged):
            self._heard(note)  # of no call, wherever it was sent
            return
        elif isinstance(note, Log) and not hears(call.ctx, note):
            return
        # This stream is the call's own: a slow caller holds up only its own server side.
        await patience.aside(caller.tell(note))

    # Listening.

    async def _listen(self, call: Call, caller: Caller) -> Reply:
        body = outbound.modern_request(
            call, next(self._ids), revision=self._revision, known=self._known
        )
        return await self._subscribe(self._fields(call), body, caller.tell)

    async def _subscribe(
        self, fields: Fields, body: bytes, tell: Callable[[Note], Awaitable[None]]
    ) -> Done:
        """One subscription until the server ends it. Raises RpcError, UpstreamError when lost."""
        patience = Patience(self._server, HANDSHAKE, None)
        response = await self._peer.send("POST", fields, body, patience)
        if response.status != 200 or media_type(response) != EVENTS:
            raise await self._not_listening(response, patience)
        events = Events(response)
        try:
            while (event := await events.quiet(QUIET)) is not None:
                if not is_message(event):
                    continue
                message = parsed(event.data)
                if isinstance(message, wire.Response):
                    if message.error is not None:
                        raise message.error
                    return Done({})
                if isinstance(message, wire.Notification):
                    note = _listened(message)
                    if note is not None:
                        # A stream of this subscriber alone: waiting slows only its server side.
                        await tell(note)
            raise lost(self._server, events.why)
        finally:
            await response.aclose()

    async def _not_listening(
        self, response: Response, patience: Patience
    ) -> RpcError | UpstreamError:
        if response.status != 200 or media_type(response) != JSON:
            return await self._peer.refusal(response)
        message = parsed(await self._peer.read(response, patience))
        if isinstance(message, wire.Response) and message.error is not None:
            return message.error
        return UpstreamError("read", "ended the subscription before it began")

    async def _watch(self, kinds: tuple[ListKind, ...]) -> None:
        """Keep one subscription of our own open and hand on what it tells."""
        wanted = {outbound.LISTEN_MEMBER[kind]: _TRUE for kind in kinds}
        params: JsonObject = {
            "notifications": wire.dump_object(wanted),
            "_meta": wire.dump_object(modern_meta({}, self._revision)),
        }
        ears = _Ears(self._heard, kinds)
        failures = 0
        while True:
            ears.open = False
            began = anyio.current_time()
            body = wire.request(next(self._ids), LISTEN, params)
            try:
                fields = self._head(LISTEN, self._peer.fields())
                await self._subscribe(fields, body, ears.tell)
                why = "the server ended it"
            except RpcError as error:
                why = error.message
                if error.code == METHOD_NOT_FOUND:
                    _log.warning("server %s tells no list changes: %s", self._server.name, why)
                    return
            except UpstreamError as error:
                why = error.message
            steady = ears.open and anyio.current_time() - began > STEADY
            failures = 0 if steady else failures + 1
            ears.missed = True
            _log.info("server %s stopped telling list changes: %s", self._server.name, why)
            await anyio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])

    # The handshake.

    async def _discover(self) -> LinkInfo:
        """What the server says of itself. Raises UpstreamError."""
        patience = Patience(self._server, min(HANDSHAKE, self._server.timeout), None)
        try:
            result = await self._ask_discover(patience)
        except RpcError as error:
            offered = supported(error)
            if offered is None:
                raise UpstreamError("handshake", _discover_failed(error)) from error
            revision = common(offered)
            if revision is None:
                raise no_common(offered) from error
            self._revision = revision
            self._heads.clear()
            try:
                result = await self._ask_discover(patience)
            except RpcError as again:
                raise UpstreamError("handshake", _discover_failed(again)) from again
        info = discovered(result)
        if info is None:
            raise UpstreamError("handshake", "does not speak 2026-07-28 or later")
        return info

    async def _ask_discover(self, patience: Patience) -> JsonObject:
        method = "server/discover"
        body = wire.request(next(self._ids), method, discover_params(self._revision))
        fields = self._head(method, self._peer.fields())
        response = await self._peer.send("POST", fields, body, patience, idempotent=True)
        if response.status != 200 or media_type(response) not in (JSON, EVENTS):
            raise await self._peer.refusal(response)
        if media_type(response) == JSON:
            message = parsed(await self._peer.read(response, patience))
        else:
            message = await _first_response(response, patience)
        if not isinstance(message, wire.Response):
            raise UpstreamError("handshake", "answered server/discover with no response")
        if message.error is not None:
            raise message.error
        return message.result or {}


class _Ears:
    """The reader of the link's own subscription.

    open: the server acknowledged it. missed: there was a time without it, so that each list may
    have changed unheard.
    """

    def __init__(self, heard: Callable[[Note], None], kinds: tuple[ListKind, ...]) -> None:
        self._heard = heard
        self._kinds = kinds
        self.open = False
        self.missed = False

    async def tell(self, note: Note) -> None:
        if isinstance(note, Listening):
            self.open = True
            if self.missed:
                self.missed = False
                for kind in self._kinds:
                    self._heard(ListChanged(kind))
        else:
            self._heard(note)


def _known(info: LinkInfo) -> frozenset[str]:
    """The extensions that the server has."""
    return frozenset(extensions.of(info.capabilities))


def _reply(method: str, message: wire.Message) -> Reply:
    """The answer. Raises RpcError for an error, UpstreamError for what is none."""
    if not isinstance(message, wire.Response):
        raise UpstreamError("read", "answered with what is no response")
    if message.error is not None:
        raise message.error
    try:
        return outbound.modern_reply(method, message.result or {})
    except wire.BadMessage as error:
        raise UpstreamError("read", f"answered badly: {error.message}") from error


def _listened(message: wire.Notification) -> Note | None:
    """What a subscription tells; None for what has no place on one."""
    if message.method == outbound.ACKNOWLEDGED:
        told = message.params.get("notifications")
        try:
            return Listening({} if told is None else wire.members(told))
        except wire.BadMessage:
            return Listening({})
    note = outbound.note(message.method, message.params)
    return None if isinstance(note, Progress | Log) else note


async def _first_response(response: Response, patience: Patience) -> wire.Message | None:
    events = Events(response)
    try:
        while (event := await events.next(patience)) is not None:
            if is_message(event):
                message = parsed(event.data)
                if isinstance(message, wire.Response):
                    await events.finish()
                    return message
        return None
    finally:
        await response.aclose()


def _discover_failed(error: RpcError) -> str:
    return f"refused server/discover: {error.message} ({error.code})"

"""MCP over one ordered channel of messages: a child's pipes, the HTTP+SSE pair of 2024-11-05.

Both eras. What arrives is acted on at once. Such a channel does not say which call a legacy
server's question or log message belongs to, so both go to the one call they can belong to, and
else to nobody (protocol, section 3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from msgspec import Raw

from mcpgw.core import extensions, outbound, wire
from mcpgw.core.catalog import LISTS
from mcpgw.core.eras import (
    ASK_CAPABILITY,
    CLIENT_ASKS,
    INVALID_PARAMS,
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    WAITS,
)
from mcpgw.core.handshake import discover_result, has, initialize_params, initialized, modern_meta
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Done,
    JsonObject,
    ListChanged,
    Listening,
    Log,
    Note,
    OtherNote,
    Reply,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkInfo, UpstreamError
from mcpgw.upstream.inflight import Channel, Inflight, Open, Outcome, Question, refusal

__all__ = ["Channel", "Conversation", "Outcome", "tell"]

JUNK_LOGGED: Final = 10  # unreadable messages of one link that are logged; the rest is counted
JUNK_SHOWN: Final = 200  # bytes of an unreadable message that are logged
LONGEST: Final = 86_400.0  # seconds for a method that waits for something else to end
FOLLOW_AGAIN: Final = 30.0  # seconds until a subscription of ours that ended is opened again

LISTEN: Final = "subscriptions/listen"
SET_LEVEL: Final = "logging/setLevel"
_LEVELS: Final = {level: at for at, level in enumerate(LOG_LEVELS)}

_log = logging.getLogger("mcpgw.upstream")


class Conversation(Inflight):
    """Everything said with one server over one channel.

    capabilities: what was declared to a legacy server. heard: takes notes that belong to no call.
    `info` is set once both sides agreed; `handle` needs it.
    """

    def __init__(
        self,
        server: Server,
        channel: Channel,
        *,
        capabilities: Mapping[str, Raw],
        heard: Callable[[Note], None],
    ) -> None:
        super().__init__(server, channel)
        self.info: LinkInfo | None = None
        self.junk = 0  # unreadable messages so far
        self.dropped = 0  # notes that could not be delivered so far
        self._capabilities = capabilities
        self._heard = heard
        self._subscribed: dict[str, int] = {}
        self._level = len(LOG_LEVELS)
        self._can_ask = not CLIENT_ASKS.isdisjoint(capabilities)
        self._known: frozenset[str] | None = None

    # ------------------------------------------------------------ requests of the gateway

    async def initialize(self, *, timeout: float) -> LinkInfo:
        """The legacy handshake. Raises UpstreamError (handshake), or what `request` raises."""
        result = await self.request(
            "initialize", initialize_params(self._capabilities), timeout=timeout
        )
        info = initialized(result)
        self.notify("notifications/initialized", {})
        return info

    async def follow(self) -> None:
        """Keep a subscription to a modern server's lists; its notes are `heard`."""
        info = self.info
        if info is None or not info.modern:
            return
        filter = {
            member: Raw(b"true")
            for area, member in outbound.LISTEN_MEMBER.items()
            if has(info.capabilities, area, "listChanged")
        }
        while filter and self._lost is None:
            params = {
                "notifications": wire.dump_object(filter),
                "_meta": wire.dump_object(modern_meta({}, info.revision)),
            }
            entry = self._begin(None, None)
            entry.sink = self._heard
            try:
                if (
                    sending := self._channel.send(wire.request(entry.id, LISTEN, params))
                ) is not None:
                    await sending
                outcome = await entry.future
            except UpstreamError as error:
                outcome = error
            except asyncio.CancelledError:
                self._cancel(entry, "no longer needed")
                raise
            finally:
                self._end(entry)
            if isinstance(outcome, RpcError) and outcome.code in (METHOD_NOT_FOUND, INVALID_PARAMS):
                return
            await anyio.sleep(FOLLOW_AGAIN)

    # ------------------------------------------------------------ calls

    async def handle(self, call: Call, caller: Caller) -> Reply:
        """Answer one call, as a Link does."""
        info = self.info
        if info is None or self._lost is not None:
            raise outbound.failed(self._server.name, self._lost or _not_ready())
        method = call.method
        if method == "server/discover":
            return Done(discover_result(info))
        if method == LISTEN:
            return await (self._listen if info.modern else self._listen_legacy)(call, caller)
        ctx = call.ctx
        attends = (
            call.wants_progress
            or ctx.log_level is not None
            or (self._can_ask and not info.modern and caller.ask_mode is not AskMode.NEVER)
        )
        if ctx.log_level is not None and not info.modern:
            await self._set_level(ctx.log_level, info)
        entry = self._begin(call, caller if attends else None)
        entry.deadline = ctx.deadline
        self._arm(entry, LONGEST if method in WAITS else self._server.timeout)
        token = entry.id if call.wants_progress else None
        if info.modern:
            message = self._modern_request(call, info, entry.id, token)
        else:
            message = outbound.legacy_request(call, entry.id, token)
        outcome = await self._answer(entry, message)
        if isinstance(outcome, RpcError):
            if info.modern:
                raise outcome
            return outbound.legacy_error(call, outcome)
        if not info.modern:
            return outbound.legacy_reply(method, outcome)
        return self._modern_reply(method, outcome)

    def _modern_request(self, call: Call, info: LinkInfo, id: int, token: int | None) -> bytes:
        if self._known is None:
            self._known = frozenset(extensions.of(info.capabilities))
        return outbound.modern_request(call, id, token, revision=info.revision, known=self._known)

    def _modern_reply(self, method: str, result: JsonObject) -> Reply:
        try:
            return outbound.modern_reply(method, result)
        except wire.BadMessage as error:
            raise outbound.failed(
                self._server.name, UpstreamError("read", f"answered badly: {error.message}")
            ) from None

    # ------------------------------------------------------------ listening

    async def _listen(self, call: Call, caller: Caller) -> Reply:
        """A modern server serves the subscription itself; only its beginning has a bound."""
        info = self.info
        assert info is not None  # noqa: S101 - handle looked
        entry = self._begin(call, caller)
        entry.wanted = outbound.wanted(call)
        self._arm(entry, self._server.timeout)
        message = self._modern_request(call, info, entry.id, None)
        outcome = await self._answer(entry, message)
        if isinstance(outcome, RpcError):
            raise outcome
        return Done({})

    async def _listen_legacy(self, call: Call, caller: Caller) -> Reply:
        info = self.info
        assert info is not None  # noqa: S101 - handle looked
        kept = outbound.honoured(info, outbound.wanted(call))
        entry = self._begin(call, caller)
        del self._open[entry.id]
        self._listeners[entry.id] = entry
        entry.wanted = kept
        mine: list[str] = []
        try:
            for uri in outbound.uris(kept):
                if await self._subscribe(uri):
                    mine.append(uri)  # noqa: PERF401 - what was subscribed so far must be undone
            if "resourceSubscriptions" in kept:
                kept["resourceSubscriptions"] = wire.dump(mine)
            await caller.tell(Listening(kept))
            outcome = await self._attend(entry)
        except UpstreamError as error:
            outcome = error
        finally:
            del self._listeners[entry.id]
            for uri in mine:
                self._unsubscribe(uri)
        if isinstance(outcome, UpstreamError):
            raise outbound.failed(self._server.name, outcome)
        if isinstance(outcome, RpcError):
            raise outcome
        return Done({})

    async def _subscribe(self, uri: str) -> bool:
        """Whether the server notifies of `uri` now; the first who asks subscribes."""
        count = self._subscribed.get(uri, 0)
        self._subscribed[uri] = count + 1
        if count:
            return True
        try:
            params = {"uri": wire.dump(uri)}
            await self.request("resources/subscribe", params, timeout=self._server.timeout)
        except RpcError:
            self._forget(uri)
            return False
        except BaseException:
            self._unsubscribe(uri)
            raise
        return True

    def _unsubscribe(self, uri: str) -> None:
        if self._forget(uri) and self._lost is None:
            self.ask_soon("resources/unsubscribe", {"uri": wire.dump(uri)})

    def _forget(self, uri: str) -> bool:
        count = self._subscribed.pop(uri, 1) - 1
        if count:
            self._subscribed[uri] = count
        return not count

    # ------------------------------------------------------------ what arrives

    def receive(self, message: bytes) -> None:
        """Act on one message of the server. Never waits, never raises for what it says."""
        try:
            parsed = wire.parse(message)
        except wire.BadMessage as error:
            self._unreadable(message, error)
            return
        if type(parsed) is wire.Response:
            self._settle(parsed.id, parsed.error or parsed.result or {})
        elif type(parsed) is wire.Notification:
            self._noted(parsed.method, parsed.params)
        elif type(parsed) is wire.Request:
            self._requested(parsed)

    def _unreadable(self, message: bytes, error: wire.BadMessage) -> None:
        if wire.is_batch(message):
            try:
                batch = wire.array(wire.clean(message))
            except wire.BadMessage:
                batch = []
            if 0 < len(batch) <= wire.MAX_BATCH:
                for item in batch:
                    if not wire.is_batch(bytes(item)):
                        self.receive(bytes(item))
                return
        self.junk += 1
        if self.junk <= JUNK_LOGGED:
            shown = message[:JUNK_SHOWN].decode(errors="replace")
            _log.warning(
                "server %s sent what is no MCP message (%s): %s",
                self._server.name,
                error.message[:JUNK_SHOWN],
                shown,
            )
        if error.id is None:
            return
        if b'"method"' in message:
            self._channel.send_soon(wire.error(error.id, error))
            return
        bad = UpstreamError("read", f"answered badly: {error.message[:JUNK_SHOWN]}")
        self._settle(error.id, outbound.failed(self._server.name, bad))

    def _noted(self, method: str, params: JsonObject) -> None:
        if method == outbound.PROGRESS:
            self._progressed(params)
        elif method == outbound.MESSAGE:
            self._logged(params)
        elif method == outbound.CANCELLED:
            self._withdrawn(params.get("requestId"))
        elif method == outbound.ACKNOWLEDGED:
            if (entry := self._subscription(params)) is not None:
                self._acknowledged(entry, params)
        else:
            self._published(method, params)

    def _progressed(self, params: JsonObject) -> None:
        token = outbound.progress_token(params)
        entry = self._open.get(token) if isinstance(token, int) else None
        if entry is None or entry.future.done():
            return
        entry.since = self._loop.time()
        if entry.call is not None and entry.call.wants_progress:
            self._put(entry, outbound.note(outbound.PROGRESS, params))

    def _logged(self, params: JsonObject) -> None:
        """To the one call it can belong to; modern servers log only for those that asked."""
        note = outbound.note(outbound.MESSAGE, params)
        entries = [
            entry
            for entry in self._open.values()
            # Lists are fetched by the gateway, at any time and for nobody's ears.
            if entry.call is not None and entry.wanted is None and entry.call.method not in LISTS
        ]
        if self.info is not None and self.info.modern:
            entries = [e for e in entries if e.call and e.call.ctx.log_level is not None]
        if len(entries) != 1 or not isinstance(note, Log):
            self.dropped += 1
            return
        call = entries[0].call
        level = None if call is None else call.ctx.log_level
        if level is not None and _LEVELS.get(note.level, 0) >= _LEVELS.get(level, 0):
            self._put(entries[0], note)

    def _withdrawn(self, request: Raw | None) -> None:
        """The server does not want the answer to its question any more."""
        if request is None:
            return
        for entry in (*self._open.values(), *self._listeners.values()):
            if entry.question is not None and bytes(entry.question) == bytes(request):
                if entry.asking is not None:
                    entry.asking.cancel()
            elif entry.inbox:
                for item in tuple(entry.inbox):
                    if isinstance(item, Question) and bytes(item.id) == bytes(request):
                        entry.inbox.remove(item)

    def _subscription(self, params: JsonObject) -> Open | None:
        id = outbound.subscription_id(params)
        try:
            return None if id is None else self._open.get(int(id))
        except ValueError:
            return None

    def _acknowledged(self, entry: Open, params: JsonObject) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        told = params.get("notifications")
        try:
            kept = {} if told is None else wire.members(told)
        except wire.BadMessage:
            kept = {}
        self._put(entry, Listening(kept))

    def _published(self, method: str, params: JsonObject) -> None:
        """A note of no request: to those who listen for it, else to `heard`."""
        note = outbound.note(method, params)
        if self.info is not None and self.info.modern and "_meta" in params:
            entry = self._subscription(params)
            if entry is not None and entry.sink is None:
                self._put(entry, note)
                return
        taken = False
        for entry in tuple(self._listeners.values()):
            if entry.wanted is not None and _listens(entry.wanted, note):
                self._put(entry, note)
                taken = True
        if not taken or not isinstance(note, ResourceUpdated):
            self._heard(note)

    def _put(self, entry: Open, note: Note) -> None:
        if entry.put(note):
            return
        self.dropped += 1
        if entry.wanted is not None:
            behind = UpstreamError("read", "sent more notes than the subscriber could take")
            entry.settle(behind)

    # ------------------------------------------------------------ questions of the server

    def _requested(self, request: wire.Request) -> None:
        if request.method == "ping":
            self._channel.send_soon(wire.result(request.id, {}))
            return
        needed = ASK_CAPABILITY.get(request.method)
        owner = self._owner() if needed in self._capabilities else None
        question = Question(request.id, Ask(request.method, request.params))
        if owner is None or not owner.put(question):
            self._channel.send_soon(refusal(request.id, request.method))

    def _owner(self) -> Open | None:
        """The one party that can be asked: of one call, or of one session's latest call."""
        if self.info is not None and self.info.modern:
            return None  # it must not ask live (2026-07-28)
        calls = [e for e in self._open.values() if e.call is not None]
        if not calls:
            calls = list(self._listeners.values())
        can = [e for e in calls if e.caller and e.caller.ask_mode is not AskMode.NEVER]
        if len(calls) == 1:
            return can[0] if can else None
        sessions = {e.call.ctx.session for e in calls if e.call}
        return can[-1] if can and len(sessions) == 1 and None not in sessions else None

    async def _set_level(self, level: str, info: LinkInfo) -> None:
        """A legacy session logs at the most verbose level that anybody wanted."""
        wanted = _LEVELS.get(level)
        if wanted is None or wanted >= self._level or not has(info.capabilities, "logging"):
            return
        self._level = wanted
        try:
            params = {"level": wire.dump(level)}
            await self.request(SET_LEVEL, params, timeout=self._server.timeout)
        except RpcError as error:
            _log.info("server %s refused a log level: %s", self._server.name, error.message)
        except UpstreamError as error:
            raise outbound.failed(self._server.name, error) from error


def tell(conversation: Conversation, note: Note) -> None:
    """A client-to-server note, best effort."""
    if isinstance(note, OtherNote):
        conversation.notify(note.method, note.params)


def _listens(filter: Mapping[str, Raw], note: Note) -> bool:
    if isinstance(note, ListChanged):
        return outbound.LISTEN_MEMBER[note.kind] in filter
    return isinstance(note, ResourceUpdated) and note.uri in outbound.uris(filter)


def _not_ready() -> UpstreamError:
    return UpstreamError("handshake", "is not connected yet")

"""JSON-RPC over one ordered channel of messages: a child's pipes, the HTTP+SSE pair of 2024-11-05.

Ids and progress tokens are minted here and never leave. What arrives is acted on at once and never
waits for a caller: a result resolves its call's future; notes and questions go to a bounded inbox
that the call's own task empties, and only calls whose caller can take notes have one. A channel's
`send` writes at once or hands back what to wait for; `send_soon` is for what nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias

import anyio
from msgspec import Raw

from mcpgw.core import outbound, wire
from mcpgw.core.eras import (
    ASK_CAPABILITY,
    INVALID_PARAMS,
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    TIMED_OUT,
    UPSTREAM_FAILED,
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

INBOX: Final = 256  # notes one slow caller may fall behind before new ones are dropped
JUNK_LOGGED: Final = 10  # unreadable messages of one link that are logged; the rest is counted
JUNK_SHOWN: Final = 200  # bytes of an unreadable message that are logged
FOLLOW_AGAIN: Final = 30.0  # seconds until a subscription of ours that ended is opened again

LISTEN: Final = "subscriptions/listen"
SET_LEVEL: Final = "logging/setLevel"
_CANCEL_ANSWER: Final = {"action": Raw(b'"cancel"')}
_LEVELS: Final = {level: at for at, level in enumerate(LOG_LEVELS)}

Outcome: TypeAlias = JsonObject | RpcError | UpstreamError

_log = logging.getLogger("mcpgw.upstream")


class Channel(Protocol):
    """The way to the server."""

    def send(self, message: bytes) -> Awaitable[None] | None:
        """Write one message, or return what ends when it was taken.

        Both raise UpstreamError (send) when it cannot be delivered.
        """
        ...

    def send_soon(self, message: bytes) -> None:
        """Write one message when there is room; drops it rather than wait or raise."""
        ...


class _Question:
    """A request of the server, on its way to the caller."""

    __slots__ = ("ask", "id")

    def __init__(self, id: Raw, ask: Ask) -> None:
        self.id = id
        self.ask = ask


class _Open:
    """One request in flight. `call` None: a request of the gateway itself.

    inbox None: nobody takes notes. asking: a question of the server is with the caller, so the
    time-out rests. wanted: what a listen call asked for.
    """

    __slots__ = (
        "asking",
        "call",
        "caller",
        "deadline",
        "dropped",
        "future",
        "id",
        "inbox",
        "news",
        "question",
        "since",
        "sink",
        "timer",
        "wanted",
    )

    def __init__(
        self,
        id: int,
        call: Call | None,
        caller: Caller | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.id = id
        self.call = call
        self.caller = caller
        self.future: asyncio.Future[Outcome] = loop.create_future()
        self.inbox: deque[Note | _Question] | None = None if caller is None else deque()
        self.news: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.since = 0.0
        self.deadline: float | None = None
        self.asking: anyio.CancelScope | None = None
        self.question: Raw | None = None
        self.dropped = 0
        self.wanted: Mapping[str, Raw] | None = None
        self.sink: Callable[[Note], None] | None = None

    def settle(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.future.set_result(outcome)
        if self.timer is not None:
            self.timer.cancel()
        if self.asking is not None:
            self.asking.cancel()
        self.wake()

    def put(self, item: Note | _Question) -> bool:
        """Queue for the caller's task; False when the inbox is full or there is none."""
        inbox = self.inbox
        if inbox is None or len(inbox) >= INBOX:
            self.dropped += 1
            return False
        inbox.append(item)
        self.wake()
        return True

    def wake(self) -> None:
        news, self.news = self.news, None
        if news is not None and not news.done():
            news.set_result(None)


class Conversation:
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
        self.info: LinkInfo | None = None
        self.junk = 0
        self.dropped = 0
        self._server = server
        self._channel = channel
        self._capabilities = capabilities
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, _Open] = {}
        self._listeners: dict[int, _Open] = {}
        self._subscribed: dict[str, int] = {}
        self._level = len(LOG_LEVELS)
        self._last_id = 0
        self._lost: UpstreamError | None = None
        self._loss: asyncio.Future[None] | None = None
        self._can_ask = bool(capabilities)

    # ------------------------------------------------------------ requests of the gateway

    async def request(
        self, method: str, params: Mapping[str, Raw], *, timeout: float
    ) -> JsonObject:
        """One request without a caller. Raises RpcError as answered or TIMED_OUT; UpstreamError."""
        entry = self._begin(None, None)
        self._arm(entry, timeout)
        try:
            sending = self._channel.send(wire.request(entry.id, method, params))
            if sending is not None:
                await sending
            outcome = await entry.future
        finally:
            self._end(entry)
        if isinstance(outcome, RpcError | UpstreamError):
            raise outcome
        return outcome

    def post(self, method: str, params: Mapping[str, Raw]) -> asyncio.Future[Outcome]:
        """Send a request over a channel that writes at once; what it will be answered.

        Raises UpstreamError (send). The answer is waited for until the server is lost.
        """
        entry = self._begin(None, None)
        entry.future.add_done_callback(lambda _: self._end(entry))
        self._channel.send(wire.request(entry.id, method, params))
        return entry.future

    async def ended(self) -> UpstreamError:
        """Waits until the server is lost; the reason."""
        if self._lost is None:
            self._loss = self._loop.create_future()
            await self._loss
        assert self._lost is not None  # noqa: S101 - lost() sets both
        return self._lost

    def ask_soon(self, method: str, params: Mapping[str, Raw]) -> None:
        """Send a request whose answer does not matter."""
        self._last_id += 1
        self._channel.send_soon(wire.request(self._last_id, method, params))

    def notify(self, method: str, params: Mapping[str, Raw]) -> None:
        self._channel.send_soon(wire.notification(method, params))

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
        self._arm(entry, self._server.timeout)
        token = entry.id if call.wants_progress else None
        if info.modern:
            message = outbound.modern_request(call, entry.id, token, revision=info.revision)
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

    async def _answer(self, entry: _Open, message: bytes) -> JsonObject | RpcError:
        """Send the request and attend to it until it is answered."""
        try:
            if (sending := self._channel.send(message)) is not None:
                await sending
            if entry.inbox is None:
                outcome = await entry.future
            else:
                outcome = await self._attend(entry)
        except UpstreamError as error:
            outcome = error
        except asyncio.CancelledError:
            self._cancel(entry, "the caller gave up")
            raise
        finally:
            self._end(entry)
        if isinstance(outcome, UpstreamError):
            raise outbound.failed(self._server.name, outcome)
        return outcome

    async def _attend(self, entry: _Open) -> Outcome:
        """Deliver what comes for a call, in order, until it is answered."""
        inbox, caller = entry.inbox, entry.caller
        assert inbox is not None  # noqa: S101 - both are set together
        assert caller is not None  # noqa: S101
        while True:
            while inbox:
                item = inbox.popleft()
                if isinstance(item, _Question):
                    await self._ask(entry, item, caller)
                else:
                    await caller.tell(item)
            if entry.future.done():
                return entry.future.result()
            entry.news = self._loop.create_future()
            await entry.news

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
        message = outbound.modern_request(call, entry.id, None, revision=info.revision)
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

    def too_large(self, head: bytes, limit: int) -> None:
        """A message of more than `limit` bytes came and was thrown away; `head` is its start."""
        error = RpcError(
            UPSTREAM_FAILED,
            f'server "{self._server.name}" answered with more than {limit >> 20} MiB',
            wire.dump({"server": self._server.name, "stage": "read"}),
        )
        at = head.find(b'"id":')
        digits = head[at + 5 : at + 25].lstrip().split(b",")[0].split(b"}")[0] if at >= 0 else b""
        if digits.strip().isdigit():
            self._settle(Raw(digits.strip()), error)
        elif len(self._open) == 1:
            next(iter(self._open.values())).settle(error)

    def lost(self, error: UpstreamError) -> None:
        """The server is gone: every call that is open ends with `error`."""
        if self._lost is None:
            self._lost = error
        if self._loss is not None and not self._loss.done():
            self._loss.set_result(None)
        for entry in (*self._open.values(), *self._listeners.values()):
            entry.settle(error)

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    def _settle(self, id: Raw | None, outcome: JsonObject | RpcError) -> None:
        """Late answers, of calls that were given up, have no entry any more."""
        try:
            entry = self._open.get(int(bytes(id or b"")))
        except ValueError:
            return
        if entry is not None:
            entry.settle(outcome)

    def _unreadable(self, message: bytes, error: wire.BadMessage) -> None:
        if wire.is_batch(message):
            try:
                batch = wire.array(wire.clean(message))
            except wire.BadMessage:
                batch = []
            for item in batch:
                if not wire.is_batch(bytes(item)):
                    self.receive(bytes(item))
            if batch:
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
            if entry.call is not None and entry.wanted is None
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
                    if isinstance(item, _Question) and bytes(item.id) == bytes(request):
                        entry.inbox.remove(item)

    def _subscription(self, params: JsonObject) -> _Open | None:
        id = outbound.subscription_id(params)
        try:
            return None if id is None else self._open.get(int(id))
        except ValueError:
            return None

    def _acknowledged(self, entry: _Open, params: JsonObject) -> None:
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

    def _put(self, entry: _Open, note: Note) -> None:
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
        question = _Question(request.id, Ask(request.method, request.params))
        if owner is None or not owner.put(question):
            self._channel.send_soon(_refusal(request.id, request.method))

    def _owner(self) -> _Open | None:
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

    async def _ask(self, entry: _Open, question: _Question, caller: Caller) -> None:
        answer: bytes | None = None
        with anyio.CancelScope() as scope:
            entry.asking, entry.question = scope, question.id
            if entry.future.done():
                scope.cancel()
            try:
                answer = wire.result(question.id, wire.members(await caller.ask(question.ask)))
            except RpcError as refused:
                answer = wire.error(question.id, refused)
            except wire.BadMessage:
                answer = _refusal(question.id, question.ask.method)
            finally:
                entry.asking = entry.question = None
                entry.since = self._loop.time()
        if answer is not None:
            self._channel.send_soon(answer)

    # ------------------------------------------------------------ inside

    def _begin(self, call: Call | None, caller: Caller | None) -> _Open:
        if self._lost is not None:
            raise self._lost
        self._last_id = id = self._last_id + 1
        self._open[id] = entry = _Open(id, call, caller, self._loop)
        return entry

    def _end(self, entry: _Open) -> None:
        self._open.pop(entry.id, None)
        if entry.timer is not None:
            entry.timer.cancel()

    def _cancel(self, entry: _Open, reason: str) -> None:
        if not entry.future.done() and self._lost is None:
            self._channel.send_soon(outbound.cancelled(entry.id, reason))

    def _arm(self, entry: _Open, timeout: float) -> None:
        entry.since = now = self._loop.time()
        wait = timeout if entry.deadline is None else min(timeout, entry.deadline - now)
        entry.timer = self._loop.call_later(max(0.0, wait), self._expire, entry, timeout)

    def _expire(self, entry: _Open, timeout: float) -> None:
        """Time-out: `timeout` seconds without progress, or the call's deadline."""
        now = self._loop.time()
        until = now + timeout if entry.asking is not None else entry.since + timeout
        if entry.deadline is not None:
            until = min(until, entry.deadline)
        if until - now > 0.001:
            entry.timer = self._loop.call_later(until - now, self._expire, entry, timeout)
            return
        if entry.call is not None:
            self._cancel(entry, "timed out")
        late = entry.deadline is not None and now >= entry.deadline - 0.001
        within = "before the call's deadline" if late else f"within {timeout:g} s"
        data = wire.dump({"server": self._server.name, "stage": "read"})
        entry.settle(
            RpcError(TIMED_OUT, f'server "{self._server.name}" did not answer {within}', data)
        )

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


def _refusal(id: Raw, method: str) -> bytes:
    """What a server gets whose question reaches nobody."""
    if method == "elicitation/create":
        return wire.result(id, _CANCEL_ANSWER)
    if method == "sampling/createMessage":
        return wire.error(id, RpcError(-1, "nobody is there to sample"))
    return wire.error(id, RpcError(METHOD_NOT_FOUND, f"{method[:100]} is not available"))


def _not_ready() -> UpstreamError:
    return UpstreamError("handshake", "is not connected yet")

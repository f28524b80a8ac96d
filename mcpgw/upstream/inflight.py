"""Requests in flight over one ordered channel, and what waits for each of them.

Ids and progress tokens are minted here and never leave. A result resolves its request's future;
notes and questions go to a bounded inbox that the caller's own task empties, and only requests
whose caller can take notes have one. So whoever reads the channel never waits for a caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias

import anyio
from msgspec import Raw

from mcpgw.core import outbound, wire
from mcpgw.core.eras import METHOD_NOT_FOUND, MISSING_CAPABILITY, TIMED_OUT, UPSTREAM_FAILED
from mcpgw.model.calls import Ask, Call, JsonObject, Note, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, UpstreamError

INBOX: Final = 256  # notes one slow caller may fall behind before new ones are dropped

_CANCEL_ANSWER: Final = {"action": Raw(b'"cancel"')}
_SLACK: Final = 0.001  # seconds that a timer may be early

Outcome: TypeAlias = JsonObject | RpcError | UpstreamError


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


class Question:
    """A request of the server, on its way to the caller."""

    __slots__ = ("ask", "id")

    def __init__(self, id: Raw, ask: Ask) -> None:
        self.id = id
        self.ask = ask


class Open:
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
        self.inbox: deque[Note | Question] | None = None if caller is None else deque()
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

    def put(self, item: Note | Question) -> bool:
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


class Inflight:
    """The requests of the gateway that a server has not answered yet."""

    def __init__(self, server: Server, channel: Channel) -> None:
        self._server = server
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, Open] = {}
        self._listeners: dict[int, Open] = {}
        self._last_id = 0
        self._lost: UpstreamError | None = None
        self._loss: asyncio.Future[None] | None = None

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

    # For those who read the channel.

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
            return
        calls = [entry for entry in self._open.values() if entry.call is not None]
        if len(calls) == 1:
            calls[0].settle(error)

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

    # For calls.

    async def _answer(self, entry: Open, message: bytes) -> JsonObject | RpcError:
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

    async def _attend(self, entry: Open) -> Outcome:
        """Deliver what comes for a call, in order, until it is answered."""
        inbox, caller = entry.inbox, entry.caller
        assert inbox is not None  # noqa: S101 - both are set together
        assert caller is not None  # noqa: S101
        while True:
            while inbox:
                item = inbox.popleft()
                if isinstance(item, Question):
                    await self._ask(entry, item, caller)
                else:
                    await caller.tell(item)
            if entry.future.done():
                return entry.future.result()
            entry.news = self._loop.create_future()
            await entry.news

    async def _ask(self, entry: Open, question: Question, caller: Caller) -> None:
        answer: bytes | None = None
        with anyio.CancelScope() as scope:
            entry.asking, entry.question = scope, question.id
            if entry.future.done():
                scope.cancel()
            try:
                answer = wire.result(question.id, wire.members(await caller.ask(question.ask)))
            except RpcError as refused:
                answer = wire.error(question.id, refused)
                if refused.code == MISSING_CAPABILITY:  # nobody was asked
                    answer = refusal(question.id, question.ask.method)
            except wire.BadMessage:
                answer = refusal(question.id, question.ask.method)
            finally:
                entry.asking = entry.question = None
                entry.since = self._loop.time()
        if answer is not None:
            self._channel.send_soon(answer)

    def _begin(self, call: Call | None, caller: Caller | None) -> Open:
        if self._lost is not None:
            raise self._lost
        self._last_id = id = self._last_id + 1
        self._open[id] = entry = Open(id, call, caller, self._loop)
        return entry

    def _end(self, entry: Open) -> None:
        self._open.pop(entry.id, None)
        if entry.timer is not None:
            entry.timer.cancel()

    def _cancel(self, entry: Open, reason: str) -> None:
        # Cancelling the task that waits cancels what it waits for: that is no answer.
        answered = entry.future.done() and not entry.future.cancelled()
        if not answered and self._lost is None:
            self._channel.send_soon(outbound.cancelled(entry.id, reason))

    def _arm(self, entry: Open, timeout: float) -> None:
        entry.since = now = self._loop.time()
        wait = timeout if entry.deadline is None else min(timeout, entry.deadline - now)
        entry.timer = self._loop.call_later(max(0.0, wait), self._expire, entry, timeout)

    def _expire(self, entry: Open, timeout: float) -> None:
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


def refusal(id: Raw, method: str) -> bytes:
    """What a server gets whose question reaches nobody."""
    if method == "elicitation/create":
        return wire.result(id, _CANCEL_ANSWER)
    if method == "sampling/createMessage":
        return wire.error(id, RpcError(-1, "nobody is there to sample"))
    return wire.error(id, RpcError(METHOD_NOT_FOUND, f"{method[:100]} is not available"))

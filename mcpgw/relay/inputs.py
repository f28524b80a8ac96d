"""The two bridges between live asks (legacy) and retries (2026-07-28).

`Driving`: a legacy client with a modern server. Whatever the server needs is asked of the client
at once, and the call is made again with the answers.

`Parking`: a modern client with a legacy server. The upstream call runs in an owned task; when the
server asks, the client's call ends with NeedInput and a sealed state, and the upstream call
stays parked until the retry brings the answers. It is never run twice.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping

import anyio
import anyio.abc
import msgspec
from msgspec import Raw

from mcpgw.core import mrtr
from mcpgw.core.eras import INTERNAL_ERROR, LIMITED
from mcpgw.model.calls import Ask, AskMode, Call, NeedInput, Note, Reply, RpcError
from mcpgw.model.ports import Caller, Handler, Seal

PARKED = 32  # calls of one principal that may wait for input at once; each holds a session upstream
HELD_NOTES = 64  # notes kept for a parked call's client; the oldest go

_log = logging.getLogger("mcpgw.relay")


class Driving:
    """Legacy client, modern server: answers NeedInput by asking, then calls again."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    async def handle(self, call: Call, caller: Caller) -> Reply:
        reply = await self._inner.handle(call, caller)
        if isinstance(reply, NeedInput) and caller.ask_mode is AskMode.LIVE:
            return await drive(self._inner, call, reply, caller)
        return reply


async def drive(inner: Handler, call: Call, reply: Reply, caller: Caller) -> Reply:
    """Ask `caller` and call `inner` again until it is done. Raises RpcError after MAX_ROUNDS."""
    rounds = 0
    while isinstance(reply, NeedInput):
        rounds += 1
        missing = mrtr.undeclared(reply.asks.values(), call.ctx.capabilities)
        if missing:
            raise mrtr.missing_capability(missing)
        retry = mrtr.next_call(call, reply, {}, rounds=rounds)
        answers = await _ask_all(reply.asks, caller)
        call = msgspec.structs.replace(retry, answers=answers or None)
        reply = await inner.handle(call, caller)
    return reply


async def _ask_all(asks: Mapping[str, Ask], caller: Caller) -> dict[str, Raw]:
    """The answers to all asks, asked at once. The first that cannot be answered ends the rest."""
    answers: dict[str, Raw] = {}
    failures: list[RpcError] = []

    async def one(key: str, ask: Ask, tasks: anyio.abc.TaskGroup) -> None:
        try:
            answers[key] = await _ask(ask, caller)
        except RpcError as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for key, ask in asks.items():
            tasks.start_soon(one, key, ask, tasks)
    if failures:
        raise failures[0]
    return {key: answers[key] for key in asks}


async def _ask(ask: Ask, caller: Caller) -> Raw:
    try:
        return await caller.ask(ask)
    except RpcError as error:
        return mrtr.refused(ask, error)


class _Run:
    """One upstream call that may outlive the request that started it; the link's Caller.

    attached: a request of the client waits for it now. caller: that request, once it has the
    notes that were held while the call was parked.
    """

    ask_mode = AskMode.LIVE

    def __init__(self, key: str, call: Call) -> None:
        self.key = key
        self.call = call
        self.owner = call.ctx.principal.id
        self.attached = True
        self.caller: Caller | None = None
        self.resumed = anyio.Event()
        self.scope = anyio.CancelScope()
        self.news = anyio.Event()
        self.asks: dict[str, Ask] = {}
        self.reply: Reply | None = None
        self.error: RpcError | None = None
        self.held: deque[Note] = deque(maxlen=HELD_NOTES)
        self._answered: dict[str, anyio.Event] = {}
        self._answers: dict[str, Raw] = {}
        self._count = 0

    async def tell(self, note: Note) -> None:
        if self.caller is None:
            self.held.append(note)
        else:
            await self.caller.tell(note)

    async def ask(self, ask: Ask) -> Raw:
        missing = mrtr.undeclared([ask], self.call.ctx.capabilities)
        if missing:
            raise mrtr.missing_capability(missing)
        self._count += 1
        key = f"ask-{self._count}"
        self.asks[key] = ask
        answered = self._answered[key] = anyio.Event()
        self.news.set()
        try:
            await answered.wait()
            return self._answers.pop(key)
        finally:
            self.asks.pop(key, None)
            self._answered.pop(key, None)

    def answer(self, answers: Mapping[str, Raw]) -> None:
        """Hand the answers to whoever asked; unknown and repeated ones mean nothing."""
        for key, answer in answers.items():
            if self.asks.pop(key, None) is not None:
                self._answers[key] = answer
                self._answered[key].set()

    async def outcome(self, caller: Caller) -> Reply | None:
        """The end of the call for the client that waits; None when it has to be asked first."""
        while self.held:
            await caller.tell(self.held.popleft())
        self.caller = caller
        while True:
            if self.error is not None:
                raise self.error
            if self.reply is not None or self.asks:
                return self.reply
            self.news = anyio.Event()
            await self.news.wait()

    def park(self, deadline: float) -> None:
        self.attached, self.caller = False, None
        self.resumed = anyio.Event()
        self.scope.deadline = deadline

    def unpark(self) -> None:
        self.attached = True
        self.scope.deadline = float("inf")
        self.resumed.set()


class Parking:
    """Modern client, legacy server: a live ask becomes NeedInput, the upstream call waits."""

    def __init__(self, seal: Seal, *, keep: float = mrtr.PARKED_TTL, cap: int = PARKED) -> None:
        self._seal = seal
        self._keep = keep
        self._cap = cap
        self._runs: dict[str, _Run] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    def own(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """The task group that parked calls run in."""
        self._tasks = tasks

    @property
    def runs(self) -> int:
        """Upstream calls in its care, parked or not."""
        return len(self._runs)

    async def begin(
        self, inner: Handler, call: Call, caller: Caller, *, bind: bytes, server: str
    ) -> Reply:
        """Call `inner`, which may ask live; its first ask ends this with NeedInput.

        bind: what the state is sealed to. server: the id that the state names.
        """
        if self._tasks is None:
            raise RuntimeError("Gateway.run is not running")
        run = _Run(secrets.token_urlsafe(16), call)
        self._runs[run.key] = run
        self._tasks.start_soon(self._work, run, inner)
        return await self._wait(run, caller, bind, server)

    async def resume(
        self, key: str, call: Call, caller: Caller, *, bind: bytes, server: str
    ) -> Reply:
        """Go on with a parked call, whose answers `call` brings; open asks are asked again.

        Raises RpcError when the call is no longer there, or not this principal's.
        """
        run = self._runs.get(key)
        if run is None or run.attached or run.owner != call.ctx.principal.id:
            raise mrtr.start_again()
        run.unpark()
        run.answer(call.answers or {})
        return await self._wait(run, caller, bind, server)

    def revoke(self, stays: Callable[[str], bool]) -> None:
        """Cancel the calls of principals (by id) that are no more."""
        for run in tuple(self._runs.values()):
            if not stays(run.owner):
                run.scope.cancel()

    async def _wait(self, run: _Run, caller: Caller, bind: bytes, server: str) -> Reply:
        try:
            reply = await run.outcome(caller)
        except BaseException:
            # The client hung up, which cancels (2026-07-28, cancellation), or cannot be told; a
            # call that has ended does not mind.
            run.scope.cancel()
            raise
        return self._park(run, bind, server) if reply is None else reply

    def _park(self, run: _Run, bind: bytes, server: str) -> NeedInput:
        parked = sum(one.owner == run.owner and not one.attached for one in self._runs.values())
        if parked >= self._cap:
            run.scope.cancel()
            raise RpcError(LIMITED, f"{parked} calls wait for input already: answer them first.")
        run.park(anyio.current_time() + self._keep)
        body = mrtr.encode_state(mrtr.State(server, park=run.key))
        state = self._seal.seal(body, bind=bind, purpose=mrtr.PURPOSE, ttl=self._keep)
        return NeedInput(dict(run.asks), state)

    async def _work(self, run: _Run, inner: Handler) -> None:
        """An owned task: the upstream call from start to end, and its outcome until it is told."""
        try:
            with run.scope:
                await self._attempt(run, inner)
                run.news.set()
                if not run.attached:
                    await run.resumed.wait()
        finally:
            if run.reply is None and run.error is None:
                run.error = mrtr.start_again()
            del self._runs[run.key]
            run.news.set()

    async def _attempt(self, run: _Run, inner: Handler) -> None:
        ctx = msgspec.structs.replace(run.call.ctx, deadline=None)
        try:
            run.reply = await inner.handle(msgspec.structs.replace(run.call, ctx=ctx), run)
        except RpcError as error:
            run.error = error
        except Exception:  # noqa: BLE001 - a boundary: a parked call must not end the gateway
            _log.exception("a parked call failed")
            run.error = RpcError(INTERNAL_ERROR, "The gateway failed while the call waited.")

"""A call on its way to one server: lease, bridge between the eras, and errors in plain words.

The straight path (no input needed, or both sides of one era) adds no task and wraps nothing.
"""

from __future__ import annotations

import msgspec

from mcpgw.core import extensions, mrtr, tasks, wire
from mcpgw.core.eras import LEGACY, MISSING_CAPABILITY
from mcpgw.core.outbound import COMPLETE
from mcpgw.core.tasks import Name
from mcpgw.model.calls import AskMode, Call, Context, Done, NeedInput, Reply, RpcError
from mcpgw.model.ports import Caller, Lease, Links, Seal, UpstreamError
from mcpgw.relay import refusals
from mcpgw.relay.handles import Handles
from mcpgw.relay.inputs import Parking, drive
from mcpgw.relay.views import Seat

_LEGACY = frozenset(LEGACY)


class Forward:
    """Sends calls to servers. `parking` keeps those that wait for a modern client's answers."""

    def __init__(self, links: Links, seal: Seal, parking: Parking, handles: Handles) -> None:
        self._links = links
        self._seal = seal
        self._parking = parking
        self._handles = handles

    async def send(self, seat: Seat, asked: Call, call: Call, caller: Caller) -> Reply:
        """Relay `call` to the seat's server. `asked`: the call as the client made it.

        Raises RpcError, also for a server that cannot be reached.
        """
        if seat.unusable is not None:
            raise refusals.unusable(seat.server, seat.unusable)
        if call.state is not None or call.answers is not None:
            return await self._retry(seat, asked, call, caller)
        return await self._send(seat, asked, call, caller)

    async def _send(self, seat: Seat, asked: Call, call: Call, caller: Caller) -> Reply:
        try:
            async with self._links.lease(seat.server, call.ctx) as lease:
                if not _parks(lease, call.ctx, caller):
                    reply = await lease.link.handle(call, caller)
                    if isinstance(reply, Done) and reply.kind == COMPLETE:
                        return reply
                    return await self._needed(seat, asked, call, reply, caller, lease)
        except UpstreamError as error:
            raise refusals.unreachable(seat.server, error) from error
        except RpcError as error:
            return _told(error, call)
        reply = await self._parking.begin(
            _Leased(self._links, seat),
            call,
            caller,
            bind=mrtr.binding(asked),
            server=seat.server.id,
        )
        return self._again(seat, asked, reply)

    async def _retry(self, seat: Seat, asked: Call, call: Call, caller: Caller) -> Reply:
        """A call that brings answers: to a parked one, or to a modern server with its state."""
        if call.state is not None:
            bind = mrtr.binding(asked)
            body = self._seal.unseal(call.state, bind=bind, purpose=mrtr.PURPOSE)
            state = None if body is None else mrtr.decode_state(body)
            if state is None or state.server != seat.server.id:
                raise mrtr.start_again()
            if state.park is not None:
                reply = await self._parking.resume(
                    state.park, call, caller, bind=bind, server=seat.server.id
                )
                return self._again(seat, asked, reply)
            call = msgspec.structs.replace(call, state=state.state)
            if state.again:
                return await self._send(seat, asked, call, caller)
        try:
            async with self._links.lease(seat.server, call.ctx) as lease:
                if not lease.info.modern:
                    # A legacy server takes no answers, and must not run the call once more.
                    raise mrtr.start_again()
                reply = await lease.link.handle(call, caller)
                return await self._needed(seat, asked, call, reply, caller, lease)
        except UpstreamError as error:
            raise refusals.unreachable(seat.server, error) from error
        except RpcError as error:
            return _told(error, call)

    async def _needed(
        self, seat: Seat, asked: Call, call: Call, reply: Reply, caller: Caller, lease: Lease
    ) -> Reply:
        if isinstance(reply, NeedInput) and caller.ask_mode is AskMode.LIVE:
            reply = await drive(lease.link, call, reply, caller)
        if not isinstance(reply, NeedInput):
            return self._extended(seat, call, reply)
        missing = mrtr.undeclared(reply.asks.values(), call.ctx.capabilities)
        if missing or caller.ask_mode is AskMode.NEVER:
            raise mrtr.missing_capability(missing)
        if not lease.info.modern:
            return self._again(seat, asked, reply)
        if reply.state is None:
            return reply
        return self._sealed(asked, reply, mrtr.State(seat.server.id, state=reply.state))

    def _extended(self, seat: Seat, call: Call, reply: Done) -> Done:
        """A result that may be an extension's own; only who declared it can read it."""
        if reply.kind == COMPLETE:
            return reply
        ctx, tool = call.ctx, wire.text(call.params.get("name"))
        begun = reply.kind == tasks.KIND
        if begun and call.method == "tools/call" and tool is not None:
            id = wire.text(reply.result.get(tasks.ID))
            if id is not None and extensions.declares(ctx, extensions.TASKS):
                handle = self._handles.make(Name(seat.server.id, tool, id), ctx.principal.id)
                return Done(tasks.with_id(reply.result, handle), reply.kind)
        elif not begun and ctx.endpoint.native and ctx.revision not in _LEGACY:
            return reply
        what = f"answered with a result of the kind {reply.kind[:40]!r}, which nobody declared"
        raise UpstreamError("read", what)

    def _again(self, seat: Seat, asked: Call, reply: Reply) -> Reply:
        """A legacy server's need for input that is not a parked call: retried as a new one."""
        if not isinstance(reply, NeedInput) or reply.state is not None:
            return reply
        return self._sealed(asked, reply, mrtr.State(seat.server.id, again=True))

    def _sealed(self, asked: Call, reply: NeedInput, state: mrtr.State) -> NeedInput:
        token = self._seal.seal(
            mrtr.encode_state(state),
            bind=mrtr.binding(asked),
            purpose=mrtr.PURPOSE,
            ttl=mrtr.STATE_TTL,
        )
        return NeedInput(reply.asks, token, reply.result)


class _Leased:
    """A Handler that takes its own lease, for a task that outlives the request."""

    def __init__(self, links: Links, seat: Seat) -> None:
        self._links = links
        self._seat = seat

    async def handle(self, call: Call, caller: Caller) -> Reply:
        try:
            async with self._links.lease(self._seat.server, call.ctx) as lease:
                return await lease.link.handle(call, caller)
        except UpstreamError as error:
            raise refusals.unreachable(self._seat.server, error) from error


def _parks(lease: Lease, ctx: Context, caller: Caller) -> bool:
    return caller.ask_mode is AskMode.RETRY and not lease.info.modern and mrtr.can_be_asked(ctx)


def _told(error: RpcError, call: Call) -> Reply:
    """-32021 in a form that a legacy client understands; any other error is raised again."""
    legacy_tool = call.method == "tools/call" and call.ctx.revision in _LEGACY
    if error.code == MISSING_CAPABILITY and legacy_tool:
        return Done(mrtr.refusal(error))
    raise error

"""One request to a legacy HTTP server, from its response's headers to its answer.

The answer is JSON or a stream. A stream also carries what the server says and asks in the course
of the call, and it may break off: then it is resumed from the last event id, if the server gave
one (2025-11-25, transports, "Resumability and Redelivery"). The call is never sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final, Protocol

import anyio
from msgspec import Raw, Struct

from mcpgw.core import outbound, wire
from mcpgw.core.eras import (
    ASK_CAPABILITY,
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    PROGRESS_TOKEN,
)
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    JsonObject,
    ListChanged,
    Log,
    Note,
    Parting,
    Progress,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.ports import Caller, LinkInfo, UpstreamError
from mcpgw.upstream.http1 import Response
from mcpgw.upstream.http_calls import (
    EVENTS,
    JSON,
    Events,
    Fields,
    Patience,
    Peer,
    hears,
    is_message,
    lost,
    media_type,
    parsed,
)

RESUMES: Final = 5  # attempts in a row to resume a stream before the answer counts as lost
RETRY: Final = 1.0  # seconds before a stream is resumed, where the server says nothing
LEAST_RETRY: Final = 0.02  # seconds; what a server asks for may be less, but we do not spin
MAX_ASKS: Final = 16  # questions of one call that may be open at a time
SAMPLING_REFUSED: Final = -1  # "User rejected sampling request" (client/sampling)
PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # may be over next time
_CANCEL: Final = {"action": Raw(b'"cancel"')}


class Session(Struct, eq=False):
    """What was agreed. fields: of every request in it. level: most verbose one that was set."""

    id: str | None
    info: LinkInfo
    fields: Fields
    level: int = len(LOG_LEVELS)


class Back(Protocol):
    """What a call needs of its link."""

    def stray(self, note: Note) -> None:
        """A note that belongs to no call."""
        ...

    def declares(self, capability: str) -> bool:
        """Whether the server was told that the client can do this."""
        ...

    async def post(self, body: bytes) -> None:
        """Send an answer or a note. Raises UpstreamError, RpcError."""
        ...

    async def resume(self, last_id: str, patience: Patience) -> Response:
        """A GET with `Last-Event-ID`. Raises UpstreamError, RpcError."""
        ...


class Talk:
    """Follows one answer. call, caller: None for requests of the link itself."""

    def __init__(
        self,
        peer: Peer,
        back: Back,
        patience: Patience,
        call: Call | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._peer = peer
        self._back = back
        self._patience = patience
        self._call = call
        self._caller = caller
        self._response: Response | None = None
        self._events: Events | None = None
        self._pending: deque[wire.Message] = deque()
        self._asks: dict[Hashable, anyio.CancelScope] = {}
        self._failure: RpcError | UpstreamError | None = None

    async def follow(self, response: Response) -> wire.Response:
        """The answer behind a response with status 200. Raises RpcError, UpstreamError."""
        kind = media_type(response)
        if kind == JSON:
            return await self._json(response)
        if kind != EVENTS:
            raise await self._peer.refusal(response)
        self._response, self._events = response, Events(response)
        try:
            message = await self._next()
            if isinstance(message, wire.Request):
                message = await self._converse(message)
            return message
        finally:
            await self._hang_up()

    async def _json(self, response: Response) -> wire.Response:
        for message in _messages(await self._peer.read(response, self._patience)):
            if isinstance(message, wire.Response):
                return message
            if isinstance(message, wire.Notification):
                await self._told(message)
        raise UpstreamError("read", "answered with what is no response")

    async def _converse(self, message: wire.Request | wire.Response) -> wire.Response:
        """The server asks: from here on its stream is read while its questions are answered."""
        answer: wire.Response | None = None
        async with anyio.create_task_group() as tasks:
            try:
                while answer is None:
                    if isinstance(message, wire.Response):
                        answer = message
                    else:
                        tasks.start_soon(self._answer, message, tasks.cancel_scope)
                        message = await self._next()
            except (RpcError, UpstreamError) as error:
                self._failure = error
            # Whoever is still being asked need not answer any more.
            tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        assert answer is not None  # noqa: S101 - the loop ends with one or the other
        return answer

    async def _next(self) -> wire.Response | wire.Request:
        """The next message that is no note, over as many connections as it takes."""
        failures = 0
        last_id, why, retry = "", "", None
        while True:
            events = self._events
            if events is not None:
                message = await self._first(events)
                if message is not None:
                    return message
                last_id, failures = events.last_id or last_id, 0
                await self._hang_up()
                if events.closed and last_id and self._caller is not None:
                    await self._patience.aside(self._caller.tell(Parting()))
                why = events.why
                retry = retry if events.retry is None else events.retry
            failures += 1
            if not last_id or failures > RESUMES:
                raise lost(self._peer.server, why)
            pause = RETRY if retry is None else max(LEAST_RETRY, retry / 1000)
            await self._patience.wait(asyncio.sleep(pause))
            await self._resume(last_id)

    async def _first(self, events: Events) -> wire.Response | wire.Request | None:
        """The next message of this stream that is no note; None at its end."""
        while True:
            while self._pending:
                message = self._pending.popleft()
                if isinstance(message, wire.Notification):
                    await self._told(message)
                    continue
                if isinstance(message, wire.Response):
                    await events.finish()
                return message
            event = await events.next(self._patience)
            if event is None:
                return None
            if is_message(event):
                self._pending.extend(_messages(event.data))

    async def _hang_up(self) -> None:
        response, self._response, self._events = self._response, None, None
        if response is not None:
            await response.aclose()

    async def _resume(self, last_id: str) -> None:
        """Try to go on with the stream. Raises when there is no hope; failing softly is fine."""
        try:
            response = await self._back.resume(last_id, self._patience)
        except UpstreamError:
            return  # not reachable now; the next attempt may find it back
        if response.status == 200 and media_type(response) == EVENTS:
            self._response, self._events = response, Events(response)
            return
        await response.aclose()
        if response.status not in PASSING:
            raise lost(self._peer.server, f"the stream cannot be resumed ({response.status})")

    # What comes besides the answer.

    async def _told(self, message: wire.Notification) -> None:
        if message.method == outbound.CANCELLED:
            scope = self._asks.get(_key(message.params.get("requestId")))
            if scope is not None:
                scope.cancel()
            return
        note = outbound.note(message.method, message.params)
        if isinstance(note, ListChanged | ResourceUpdated | TaskChanged):
            self._back.stray(note)
            return
        if isinstance(note, Progress):
            self._patience.more()
        if self._call is None or self._caller is None or not wants(self._call, note):
            return
        # This stream is the call's own: a slow caller holds up only its own server side.
        await self._patience.aside(self._caller.tell(note))

    async def _answer(self, request: wire.Request, parent: anyio.CancelScope) -> None:
        """Answer one request of the server; what fails ends the call."""
        key = _key(request.id)
        with anyio.CancelScope() as scope:
            self._asks[key] = scope
            try:
                full = len(self._asks) > MAX_ASKS
                caller = None if full else self._caller
                await self._back.post(await answer(request, caller, self._back, self._patience))
            except (RpcError, UpstreamError) as error:
                self._failure = error
                parent.cancel()
            finally:
                if self._asks.get(key) is scope:
                    del self._asks[key]


async def answer(
    request: wire.Request, caller: Caller | None, back: Back, patience: Patience
) -> bytes:
    """The response to a request of the server, asking the caller where that can be done."""
    if request.method == "ping":
        return wire.result(request.id, {})
    capability = ASK_CAPABILITY.get(request.method)
    if (
        capability is None
        or caller is None
        or caller.ask_mode is AskMode.NEVER
        or not back.declares(capability)
    ):
        return refusal(request.id, request.method)
    patience.hold()
    try:
        told = await caller.ask(Ask(request.method, _asked(request.params)))
        return wire.result(request.id, wire.members(told))
    except RpcError as error:
        if error.code == MISSING_CAPABILITY:  # nobody was asked
            return refusal(request.id, request.method)
        return wire.error(request.id, error)
    except wire.BadMessage:
        return refusal(request.id, request.method)
    finally:
        patience.release()


def refusal(id: Raw, method: str) -> bytes:
    """What a server gets whose request reaches nobody."""
    if method == "elicitation/create":
        return wire.result(id, _CANCEL)
    if method == "sampling/createMessage":
        return wire.error(id, RpcError(SAMPLING_REFUSED, "nobody is there to sample"))
    return wire.error(id, RpcError(METHOD_NOT_FOUND, f"{method[:100]} is not available"))


def wants(call: Call, note: Note) -> bool:
    """Whether a note of this call has a reader."""
    if isinstance(note, Progress):
        return call.wants_progress
    return not isinstance(note, Log) or hears(call.ctx, note)


def _asked(params: Mapping[str, Raw]) -> JsonObject:
    """The params of a question without the keys of the server's own hop."""
    kept = dict(params)
    meta = kept.get("_meta")
    if meta is not None:
        left = {k: v for k, v in wire.members(meta).items() if k != PROGRESS_TOKEN}
        if left:
            kept["_meta"] = wire.dump_object(left)
        else:
            del kept["_meta"]
    return kept


def _key(id: Raw | None) -> Hashable:
    try:
        return None if id is None else wire.id_key(id)
    except ValueError:
        return None


def _messages(body: bytes) -> list[wire.Message]:
    """One message, or those of a batch, which 2025-03-26 allows as an answer."""
    if not wire.is_batch(body):
        return [parsed(body)]
    try:
        return [one for one in wire.parse_batch(body) if not isinstance(one, wire.BadMessage)]
    except wire.BadMessage as error:
        raise UpstreamError("read", f"answered what is no MCP message: {error.message}") from error

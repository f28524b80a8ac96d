"""Legacy Streamable HTTP (2025-03-26 … 2025-11-25): sessions, their POSTs and their GET streams.

A request is answered in JSON, or by a stream of its own as soon as a note or a question comes
first. A client that hangs up has not cancelled: its call goes on, and a stream that had begun can
be taken up again.
"""

from __future__ import annotations

import asyncio
import logging

import anyio.abc

from mcpgw.core import wire
from mcpgw.core.eras import ACCEPTS_BATCHES, INVALID_REQUEST, PRIMES_STREAMS, SUPPORTED
from mcpgw.front import batch, legacy
from mcpgw.front.exchange import Exchange, Refused, internal
from mcpgw.front.feed import Feed
from mcpgw.front.legacy import Session
from mcpgw.front.modern import Base, status_of, unsupported
from mcpgw.front.sessions import Sessions
from mcpgw.front.streams import Stream
from mcpgw.model.calls import Note, RpcError
from mcpgw.model.ports import Handler

SESSION_ID = "mcp-session-id"
JSON_TYPE = "application/json"
_log = logging.getLogger("mcpgw.front")


class PostWay:
    """The way of one POST: its response, which becomes a stream at the first message."""

    def __init__(self, exchange: Exchange, session: Session, *, streams: bool) -> None:
        self._exchange = exchange
        self._session = session
        self._stream: Stream | None = None
        self._streams = streams

    @property
    def two_way(self) -> bool:
        return self._streams and (self._stream is not None or not self._exchange.lost)

    async def open(self) -> None:
        """Let the response be a stream."""
        exchange, session = self._exchange, self._session
        if self._stream is not None or exchange.started or exchange.lost:
            return
        stream = self._stream = session.book.open(exchange)
        await exchange.open_stream()
        if session.revision in PRIMES_STREAMS:
            await stream.prime()

    async def send(self, message: bytes) -> None:
        if not self.two_way:
            return
        await self.open()
        if self._stream is not None:
            await self._stream.send(message)

    async def part(self) -> None:
        """End the response; its stream goes on without, until the client takes it up again."""
        if not self._streams or self._session.revision not in PRIMES_STREAMS:
            return
        await self.open()
        sink = None if self._stream is None else self._stream.sink
        if self._stream is None or sink is None:
            return
        if sink is self._exchange:
            self._stream.sink = None
            await sink.end()
        else:
            sink.close()

    async def finish(self, message: bytes | None, *, many: list[bytes] | None = None) -> None:
        """The answer: the stream's last event, or the whole response.

        message None: the client cancelled and awaits none. many: the answers of a batch.
        """
        exchange = self._exchange
        if self._stream is not None:
            answers = many if many is not None else [message]
            await self._end(self._stream, [one for one in answers if one is not None])
            return
        if exchange.lost:
            return
        body = batch.joined(many) if many else message
        if body is not None:
            await exchange.respond(200, body)
        elif self._session.closed:
            raise no_session()
        elif many is not None:
            await exchange.respond(202)
        elif self._streams:
            # A cancelled call has no answer (2025-11-25, cancellation): the stream ends without.
            await exchange.open_stream()
            await exchange.end()
        else:
            await exchange.respond(202)

    async def _end(self, stream: Stream, answers: list[bytes]) -> None:
        for one in answers:
            await stream.send(one)
        sink, stream.sink, stream.ended = stream.sink, None, True
        if sink is not None and sink is not self._exchange:
            sink.close()  # the client took the stream up again on another connection
        await self._exchange.end()


def stream_first(accept: str | None) -> bool:
    """Whether a client names server-sent events before JSON, and so prefers a stream."""
    if accept is None or accept.startswith(JSON_TYPE):
        return False
    told = accept.lower()
    return 0 <= told.find("text/event-stream") < told.find(JSON_TYPE)


def no_session() -> Refused:
    return Refused(404, RpcError(INVALID_REQUEST, "no such session; initialize again"))


class Streamable:
    """The legacy half of an MCP endpoint."""

    def __init__(self, handler: Handler, sessions: Sessions) -> None:
        self._handler = handler
        self._sessions = sessions
        self.tasks: anyio.abc.TaskGroup | None = None

    async def post(
        self, exchange: Exchange, message: wire.Message, base: Base, *, streams: bool
    ) -> None:
        """One posted message. Raises Refused."""
        if isinstance(message, wire.Request) and message.method == "initialize":
            await self._initialize(exchange, message, base, streams=streams)
            return
        session = self.session(exchange, base)
        if isinstance(message, wire.Response):
            session.answered(message)
            await exchange.respond(202)
        elif isinstance(message, wire.Notification):
            session.noted(message)
            await exchange.respond(202)
        else:
            way = PostWay(exchange, session, streams=streams)
            exchange.opener = way.open if streams else None
            if streams and session.revision in PRIMES_STREAMS:
                # Only a stream can be taken up again, so a call that lasts should have one soon.
                exchange.eager = True
                if stream_first(exchange.headers.get("accept")):
                    await way.open()
            await way.finish(await legacy.answer(session, message, base, self._handler, way))

    async def post_batch(
        self, exchange: Exchange, body: bytes, base: Base, *, streams: bool
    ) -> None:
        """A posted array. Raises Refused, BadMessage."""
        session = self.session(exchange, base)
        if session.revision not in ACCEPTS_BATCHES:
            raise Refused(400, RpcError(INVALID_REQUEST, f"{session.revision} has no batches"))
        items = wire.parse_batch(body)
        way = PostWay(exchange, session, streams=streams)
        exchange.opener = way.open if streams else None

        async def one(request: wire.Request) -> bytes | None:
            return await legacy.answer(session, request, base, self._handler, way)

        await way.finish(None, many=await batch.answer(session, items, one))

    async def get(self, exchange: Exchange, base: Base) -> None:
        """The stand-alone stream, or one that is taken up again. Raises Refused."""
        session = self.session(exchange, base)
        book = session.book
        after = 0
        if (last := exchange.headers.get("last-event-id")) is not None:
            found = book.find(last)
            if found is None:
                raise Refused(
                    400, RpcError(INVALID_REQUEST, "that stream can no longer be resumed")
                )
            stream, after = found
            await exchange.open_stream()
            await stream.resume(exchange, after)
        else:
            stream = book.stand(exchange)
            await exchange.open_stream()
            if session.revision in PRIMES_STREAMS:
                await stream.prime()
            self._listen(session, base)
        try:
            await exchange.held()
        finally:
            stream.left(exchange)
        await exchange.end()

    async def delete(self, exchange: Exchange, base: Base) -> None:
        """End a session. Raises Refused."""
        self._sessions.end(self.session(exchange, base))
        await exchange.respond(204)

    def session(self, exchange: Exchange, base: Base) -> Session:
        """The session a request names. Raises Refused: 400 without one, 404 for a dead one."""
        version = exchange.headers.get("mcp-protocol-version")
        if version is not None and version not in SUPPORTED:
            raise Refused(400, unsupported(version))
        id = exchange.headers.get(SESSION_ID)
        if id is None:
            raise Refused(
                400, RpcError(INVALID_REQUEST, "Mcp-Session-Id is missing; initialize first")
            )
        found = self._sessions.get(
            id,
            Session,
            principal=base.principal,
            endpoint=base.endpoint,
            now=asyncio.get_running_loop().time(),
        )
        if found is None or found.transport != base.transport:
            raise no_session()
        return found

    async def _initialize(
        self, exchange: Exchange, request: wire.Request, base: Base, *, streams: bool
    ) -> None:
        id = self._sessions.mint()
        try:
            session, result = await legacy.initialize(
                request, base, self._handler, id=id, two_way=streams
            )
        except RpcError as error:
            await exchange.respond(*status_of(error, wire.error(request.id, error)))
            return
        except Exception as error:  # noqa: BLE001 - the boundary of a front request
            failed = internal(error)
            await exchange.respond(*status_of(failed, wire.error(request.id, failed)))
            return
        self._sessions.add(session, asyncio.get_running_loop().time())
        session.on_close.append(session.book.close)
        if self.tasks is not None:

            async def deliver(note: Note) -> None:
                message = session.message(note)
                if message is not None:
                    await session.book.announce(message)

            session.feed = Feed(self._handler, self.tasks, session.lists, deliver)
        await exchange.respond(
            200, wire.result(request.id, result), ((b"mcp-session-id", session.id.encode()),)
        )

    def _listen(self, session: Session, base: Base) -> None:
        """Hear of list changes from now on."""
        if session.feed is not None and self.tasks is not None:
            self.tasks.start_soon(begin, session, base)


async def begin(session: Session, base: Base) -> None:
    """Let a session hear of list changes; where that fails it hears of none."""
    if session.feed is None:
        return
    try:
        await session.feed.begin(legacy.context(session, base, two_way=session.two_way))
    except RpcError as error:
        _log.info("a session cannot be told of list changes: %s", error.message)

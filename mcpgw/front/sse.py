"""HTTP+SSE (2024-11-05): one stream that the client holds, and POSTs to the address it was told.

The stream is the session: when it ends, so does everything that was called over it.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import parse_qsl

import anyio
import anyio.abc

from mcpgw.core import wire
from mcpgw.core.eras import INVALID_REQUEST
from mcpgw.core.sse import encode
from mcpgw.front.channel import Channel
from mcpgw.front.exchange import Exchange, Refused
from mcpgw.front.modern import Base
from mcpgw.front.sessions import Sessions
from mcpgw.model.calls import RpcError
from mcpgw.model.ports import Handler

MESSAGES: Final = "/messages"
DRAIN: Final = 5.0  # seconds that calls may take once the gateway ends a stream


class Sse:
    """The two addresses of the old transport."""

    def __init__(self, handler: Handler, sessions: Sessions) -> None:
        self._handler = handler
        self._sessions = sessions
        self.tasks: anyio.abc.TaskGroup | None = None

    async def open(self, exchange: Exchange, base: Base) -> None:
        """The stream. Returns when the client hangs up or the session ends. Raises Refused."""
        if self.tasks is None:
            raise Refused(503, RpcError(INVALID_REQUEST, "not ready"))

        async def send(message: bytes) -> None:
            await exchange.write(encode(message))

        channel = Channel(
            self._handler,
            self.tasks,
            send,
            id=self._sessions.mint(),
            principal=base.principal,
            endpoint=base.endpoint,
        )
        channel.on_close = exchange.close
        self._sessions.add(channel, asyncio.get_running_loop().time())
        try:
            await exchange.open_stream()
            where = f"{MESSAGES}?session_id={channel.id}"
            await exchange.write(encode(where.encode(), event="endpoint"))
            await exchange.held()
            if not exchange.lost:
                # The gateway ends the stream: what is under way may still come to its end.
                channel.end_endless()
                with anyio.move_on_after(DRAIN):
                    await channel.idle()
        finally:
            channel.on_close = None
            self._sessions.end(channel)
        await exchange.end()

    async def post(self, exchange: Exchange, base: Base, body: bytes) -> None:
        """One message of the client. The answer goes out on the stream. Raises Refused."""
        query = parse_qsl(exchange.scope["query_string"].decode("latin-1"))
        ids = [value for name, value in query if name in ("session_id", "sessionId")]
        channel = (
            self._sessions.get(
                ids[0],
                Channel,
                principal=base.principal,
                endpoint=None,
                now=asyncio.get_running_loop().time(),
            )
            if len(ids) == 1
            else None
        )
        if channel is None:
            raise Refused(404, RpcError(INVALID_REQUEST, "no such session; open the stream again"))
        message = None if wire.is_batch(body) else wire.parse(body)
        base = Base(
            base.principal,
            base.snapshot,
            channel.endpoint,
            base.transport,
            base.headers,
            session=channel.id,
        )
        await exchange.respond(202)
        # The call runs on in this request's task: its answer belongs to the stream.
        if message is None:
            await channel.take(body, base)
        else:
            await channel.hear(message, base)

"""HTTP+SSE of 2024-11-05: one stream for everything the server says, one POST for each message.

The stream's first event names the endpoint for the POSTs, which must be of the same origin as the
configured URL: else a server could have credentials sent elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

import anyio
from msgspec import Raw

from mcpgw.core import outbound
from mcpgw.core.eras import TIMED_OUT
from mcpgw.model.calls import NOTHING, Call, Note, Reply, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkInfo, LinkStatus, Secrets, UpstreamError
from mcpgw.upstream import auth, duplex
from mcpgw.upstream.http1 import Client, HttpError, Response
from mcpgw.upstream.http_calls import (
    EVENTS,
    HANDSHAKE,
    JSON,
    QUIET,
    Events,
    Patience,
    Peer,
    ignore,
    media_type,
)

POST_WAIT: Final = 30.0  # seconds for the server to take one message
WAITING: Final = 256  # messages that nobody waits for and that have not been sent yet
MAX_RECEIPT: Final = 64 * 1024  # bytes of the answer to a POST; what it says is ignored
SHOWN: Final = 300  # characters of a server's refusal that are shown


class SseLink:
    """A Link to one HTTP+SSE server. The client is the caller's to close."""

    def __init__(
        self,
        server: Server,
        *,
        client: Client,
        secrets: Secrets,
        capabilities: Mapping[str, Raw] = NOTHING,
        heard: Callable[[Note], None] = ignore,
    ) -> None:
        self._server = server
        self._peer = Peer(server, client, secrets)
        self._capabilities = capabilities
        self._heard = heard
        self._talk: duplex.Conversation | None = None
        self._up = False

    @property
    def lost(self) -> bool:
        """It was connected, and the server is gone."""
        return self._up and (self._talk is None or self._talk.is_lost)

    async def run(self, *, task_status: LinkStatus) -> None:
        """Open the stream, agree, serve until it ends. Raises UpstreamError."""
        response = await self._opened()
        try:
            events = Events(response)
            posts = _Posts(self._peer, await self._endpoint(events))
            talk = duplex.Conversation(
                self._server, posts, capabilities=self._capabilities, heard=self._heard
            )
            raise await self._serve(talk, posts, events, task_status)
        finally:
            await response.aclose()

    async def handle(self, call: Call, caller: Caller) -> Reply:
        talk = self._talk
        if talk is None:
            gone = UpstreamError("connect", "is not connected")
            raise outbound.failed(self._server.name, gone)
        return await talk.handle(call, caller)

    async def tell(self, note: Note) -> None:
        if self._talk is not None:
            duplex.tell(self._talk, note)

    async def _serve(
        self,
        talk: duplex.Conversation,
        posts: _Posts,
        events: Events,
        task_status: LinkStatus,
    ) -> UpstreamError:
        """Serve until the stream ends; why it did."""
        failure = UpstreamError("read", "was stopped")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_listen, events, talk)
                tasks.start_soon(posts.run)
                try:
                    info = talk.info = await self._agree(talk)
                    self._talk = talk
                    self._up = True
                    task_status.started(info)
                    failure = await talk.ended()
                except UpstreamError as error:
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            talk.lost(failure)
            self._talk = None
        return failure

    async def _agree(self, talk: duplex.Conversation) -> LinkInfo:
        try:
            return await talk.initialize(timeout=HANDSHAKE)
        except RpcError as error:
            if error.code == TIMED_OUT:
                told = f"did not finish the handshake within {HANDSHAKE:g} s"
            else:
                told = f"refused initialize: {error.message[:SHOWN]}"
            raise UpstreamError("handshake", told) from error

    async def _opened(self) -> Response:
        patience = Patience(self._server, HANDSHAKE, None)
        fields = [("accept", EVENTS), ("cache-control", "no-store"), *self._peer.fields()]
        try:
            response = await self._peer.send("GET", fields, b"", patience)
        except RpcError as late:
            raise UpstreamError("read", "did not open its event stream in time") from late
        if response.status == 200 and media_type(response) == EVENTS:
            return response
        refusal = await self._peer.refusal(response)
        if isinstance(refusal, RpcError):
            refusal = UpstreamError("handshake", f"refused: {refusal.message[:SHOWN]}")
        raise refusal

    async def _endpoint(self, events: Events) -> str:
        """Path and query to POST to. Raises UpstreamError."""
        event = await events.quiet(HANDSHAKE)
        if event is None or event.event != "endpoint":
            raise UpstreamError("handshake", "opened an event stream that names no endpoint")
        return endpoint(self._server.url or "", event.data.decode(errors="replace").strip())


def endpoint(url: str, told: str) -> str:
    """The target of the POSTs, from the server's URL and its `endpoint` event.

    Raises UpstreamError (handshake) for one of another origin, or none.
    """
    try:
        named, known = urlsplit(urljoin(url, told)), urlsplit(url)
        same = (named.scheme, named.hostname, _port(named.scheme, named.port)) == (
            known.scheme,
            known.hostname,
            _port(known.scheme, known.port),
        )
    except ValueError:
        raise UpstreamError("handshake", "named an endpoint that is no URL") from None
    if not same or named.username is not None:
        raise UpstreamError("handshake", "named an endpoint of another origin, which is refused")
    return (named.path or "/") + (f"?{named.query}" if named.query else "")


def _port(scheme: str, port: int | None) -> int:
    return port or (443 if scheme == "https" else 80)


async def _listen(events: Events, talk: duplex.Conversation) -> None:
    try:
        while (event := await events.quiet(QUIET)) is not None:
            if event.event == "message":
                talk.receive(event.data)
        why = events.why
    except UpstreamError as error:
        why = error.message
    talk.lost(UpstreamError("read", f"went away: {why}"))


class _Posts:
    """A Channel: one POST for each message."""

    def __init__(self, peer: Peer, target: str) -> None:
        self._peer = peer
        self._target = target
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()

    def send(self, message: bytes) -> Awaitable[None]:
        return self._post(message)

    def send_soon(self, message: bytes) -> None:
        if len(self._waiting) < WAITING:
            self._waiting.append(message)
            self._news.set()

    async def run(self) -> None:
        """Send what nobody waits for, in order."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                try:
                    await self._post(self._waiting.popleft())
                except UpstreamError:
                    continue  # the stream tells when the server is gone

    async def _post(self, message: bytes) -> None:
        peer = self._peer
        try:
            response = await peer.client.request(
                "POST",
                self._target,
                [("content-type", JSON), *peer.fields()],
                message,
                timeout=POST_WAIT,
            )
            try:
                if response.status in auth.REFUSALS:
                    raise auth.refused(response.status)
                if response.status >= 300:
                    raise UpstreamError("send", f"answered {response.status} to a message")
                await response.read(limit=MAX_RECEIPT, timeout=POST_WAIT)
            finally:
                await response.aclose()
        except HttpError as error:
            raise UpstreamError(error.stage, f"cannot be used: {error.message}") from error

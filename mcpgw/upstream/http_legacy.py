"""A Streamable HTTP server of 2025-03-26 to 2025-11-25: a session, and a stream of its own.

Each call is one POST; what the server says or asks in its course comes on that POST's stream, so
it is known which call it belongs to. The stand-alone GET stream carries what belongs to no call.
A session that the server has forgotten (404) is begun anew, once for all who notice, and the
request is sent again, because the 404 says that it was not carried out.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from msgspec import Raw

from mcpgw.core import outbound, wire
from mcpgw.core.eras import (
    LOG_LEVELS,
    METHOD_NOT_FOUND,
    SENDS_VERSION_HEADER,
    TIMED_OUT,
)
from mcpgw.core.handshake import discover_result, has, initialize_params, initialized
from mcpgw.model.calls import (
    NOTHING,
    Call,
    Context,
    Done,
    Note,
    OtherNote,
    Reply,
    RpcError,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkStatus, Secrets, UpstreamError
from mcpgw.upstream.http1 import Client, Response
from mcpgw.upstream.http_calls import (
    ACCEPT,
    EVENTS,
    HANDSHAKE,
    IDEMPOTENT,
    JSON,
    Fields,
    Patience,
    Peer,
    ignore,
    token_of,
)
from mcpgw.upstream.http_legacy_call import Session, Talk
from mcpgw.upstream.http_legacy_hear import Board, Hearing

LISTEN: Final = "subscriptions/listen"
SESSION: Final = "mcp-session-id"
VERSION: Final = "mcp-protocol-version"

COURTESY: Final = 1.0  # seconds a goodbye may take: nobody waits for what it brings
DELIVERY: Final = 30.0  # seconds the server may take to accept an answer or a note

_SESSION_ID = re.compile(r"[\x21-\x7E]{1,4096}")
_CONTENT: Final = (("content-type", JSON), ("accept", ACCEPT))

_log = logging.getLogger("mcpgw.upstream")


class HttpLegacyLink:
    """A Link to one legacy HTTP server.

    capabilities: what the server is told that its client can do; with any the link is one
    caller's alone. heard: takes notes of no call; must not block. The client is the caller's to
    close.
    """

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
        self._ids = client.ids
        self._session: Session | None = None
        self._renewing = anyio.Lock()
        self._subscribing = anyio.Lock()
        self._levelling = anyio.Lock()
        self._board = Board(server, heard)
        self._hearing = Hearing(self._peer, self, self._board)

    # The life of the link.

    async def run(self, *, task_status: LinkStatus) -> None:
        """Begin a session, report it, and hear what belongs to no call until cancelled."""
        self._session = session = await self._initialize()
        try:
            async with anyio.create_task_group() as tasks:
                task_status.started(session.info)
                await self._hearing.run(tasks)
        finally:
            session, self._session = self._session, None
            self._board.close()
            await self._goodbye(session)

    async def tell(self, note: Note) -> None:
        """A note to the server, best effort."""
        if isinstance(note, OtherNote) and self._session is not None:
            try:
                await self.post(wire.notification(note.method, note.params))
            except (UpstreamError, RpcError) as error:
                _log.info("server %s did not take a note: %s", self._server.name, error.message)

    async def handle(self, call: Call, caller: Caller) -> Reply:
        try:
            session = self.session()
            if call.method == LISTEN:
                return await self._listen(call, caller, session)
            if call.method == "server/discover":
                return Done(discover_result(session.info))
            if call.ctx.log_level is not None:
                await self._set_level(session, call.ctx.log_level)
            return await self._call(call, caller)
        except UpstreamError as error:
            raise outbound.failed(self._server.name, error) from error

    def session(self) -> Session:
        """The session of the moment. Raises UpstreamError outside of `run`."""
        if self._session is None:
            raise UpstreamError("handshake", "is not connected")
        return self._session

    # What a call needs (http_legacy_call.Back).

    def stray(self, note: Note) -> None:
        self._board.publish(note)

    def declares(self, capability: str) -> bool:
        return capability in self._capabilities

    async def post(self, body: bytes) -> None:
        """Send an answer or a note. Raises UpstreamError, RpcError when it is not accepted."""
        await self._deliver(self.session(), body, DELIVERY)

    async def resume(self, last_id: str, patience: Patience) -> Response:
        return await self.get(self.session(), last_id, patience)

    # Requests.

    async def get(self, session: Session, last_id: str, patience: Patience) -> Response:
        """Open the session's stream, or resume the one that `last_id` belongs to."""
        fields = [("accept", EVENTS), *self._peer.fields(), *session.fields]
        if last_id:
            fields.append(("last-event-id", last_id))
        return await self._peer.send("GET", fields, b"", patience, idempotent=True)

    async def _call(self, call: Call, caller: Caller) -> Reply:
        id = next(self._ids)
        patience = self._peer.patience(call)
        body = outbound.legacy_request(call, id, token_of(call, id))
        entry = self._board.enter(id, call, caller, patience)
        try:
            talk = Talk(self._peer, self, patience, call, caller)
            answer = await self._answer(call.method, body, call.ctx, talk, patience)
        except asyncio.CancelledError:
            await self._cancel(id, "the caller went away")
            raise
        except RpcError as error:
            if error.code == TIMED_OUT:
                await self._cancel(id, "timed out")
            raise
        finally:
            self._board.leave(id, entry)
        if answer.error is not None:
            return outbound.legacy_error(call, answer.error)
        return outbound.legacy_reply(call.method, answer.result or {})

    async def _ask(self, method: str, params: Mapping[str, Raw], *, renew: bool = True) -> None:
        """A request of the link itself. Raises RpcError, UpstreamError."""
        patience = self._peer.patience()
        body = wire.request(next(self._ids), method, params)
        talk = Talk(self._peer, self, patience)
        answer = await self._answer(method, body, None, talk, patience, renew=renew)
        if answer.error is not None:
            raise answer.error

    async def _answer(
        self,
        method: str,
        body: bytes,
        ctx: Context | None,
        talk: Talk,
        patience: Patience,
        *,
        renew: bool = True,
    ) -> wire.Response:
        session = self.session()
        response = await self._send(session, method, body, ctx, patience)
        if response.status != 200:
            refusal = await self._peer.refusal(response)
            if not renew or not _is_forgotten(session, response.status, refusal):
                raise refusal
            session = await self.renew(session)
            response = await self._send(session, method, body, ctx, patience)
            if response.status != 200:
                raise await self._peer.refusal(response)
        return await talk.follow(response)

    async def _send(
        self, session: Session, method: str, body: bytes, ctx: Context | None, patience: Patience
    ) -> Response:
        fields = [*_CONTENT, *self._peer.fields(), *session.fields]
        if ctx is not None and self._server.forward_headers:
            fields.extend(self._peer.forwarded(ctx))
        return await self._peer.send(
            "POST", fields, body, patience, idempotent=method in IDEMPOTENT
        )

    async def _deliver(self, session: Session, body: bytes, timeout: float) -> None:
        fields = [*_CONTENT, *self._peer.fields(), *session.fields]
        patience = Patience(self._server, timeout, None)
        response = await self._peer.send("POST", fields, body, patience)
        if response.status >= 300:
            raise await self._peer.refusal(response)
        await response.aclose()

    async def _cancel(self, id: int, reason: str) -> None:
        """A disconnect is not a cancel (2025-11-25, transports), so it has to be said."""
        session = self._session
        if session is None:
            return
        with anyio.move_on_after(COURTESY, shield=True):
            try:
                await self._deliver(session, outbound.cancelled(id, reason), COURTESY)
            except (UpstreamError, RpcError) as error:
                _log.info("server %s did not take a cancel: %s", self._server.name, error.message)

    # Sessions.

    async def _initialize(self) -> Session:
        """Begin a session. Raises UpstreamError."""
        patience = Patience(self._server, min(HANDSHAKE, self._server.timeout), None)
        try:
            body = wire.request(
                next(self._ids), "initialize", initialize_params(self._capabilities)
            )
            fields = [*_CONTENT, *self._peer.fields()]
            response = await self._peer.send("POST", fields, body, patience, idempotent=True)
            if response.status != 200:
                raise await self._peer.refusal(response)
            answer = await Talk(self._peer, self, patience).follow(response)
            if answer.error is not None:
                raise answer.error
            session = _begun(response, answer.result or {})
            note = wire.notification("notifications/initialized", {})
            await self._deliver(session, note, DELIVERY)
        except RpcError as error:
            raise UpstreamError(
                "handshake", f"refused initialize: {error.message} ({error.code})"
            ) from error
        return session

    async def renew(self, old: Session) -> Session:
        """A session in place of one the server has forgotten; one for all who ask at a time."""
        async with self._renewing:
            current = self.session()
            if current is not old:
                return current
            _log.info("server %s forgot the session; beginning another", self._server.name)
            session = self._session = await self._initialize()
            self._hearing.renewed(self._restore, session)
            return session

    async def _restore(self, session: Session) -> None:
        """Subscribe again to what the forgotten session had subscribed to."""
        for uri in self._board.subscribed():
            try:
                await self._ask("resources/subscribe", {"uri": wire.dump(uri)}, renew=False)
            except (UpstreamError, RpcError) as error:
                _log.warning(
                    "server %s did not renew a subscription: %s", self._server.name, error.message
                )
        self._board.missed(session.info)

    async def _goodbye(self, session: Session | None) -> None:
        if session is None or session.id is None:
            return
        with anyio.move_on_after(COURTESY, shield=True):
            try:
                fields = [*self._peer.fields(), *session.fields]
                patience = Patience(self._server, COURTESY, None)
                response = await self._peer.send("DELETE", fields, b"", patience)
                await response.aclose()
            except (UpstreamError, RpcError) as error:
                _log.debug("server %s took no goodbye: %s", self._server.name, error.message)

    async def _set_level(self, session: Session, level: str) -> None:
        """Let the session log as verbosely as anybody has wanted so far."""
        wanted = LOG_LEVELS.index(level) if level in LOG_LEVELS else len(LOG_LEVELS)
        if wanted >= session.level or not has(session.info.capabilities, "logging"):
            return
        async with self._levelling:
            if wanted >= session.level:
                return
            try:
                await self._ask("logging/setLevel", {"level": wire.dump(level)})
            except RpcError as error:
                _log.info("server %s refused a log level: %s", self._server.name, error.message)
            self.session().level = wanted

    # Subscriptions.

    async def _listen(self, call: Call, caller: Caller, session: Session) -> Reply:
        kept = outbound.honoured(session.info, outbound.wanted(call))
        held: list[str] = []
        listener = self._board.listen(kept)
        try:
            for uri in outbound.uris(kept):
                if not await self._subscribe(uri, held):
                    listener.uris.discard(uri)
            if "resourceSubscriptions" in kept:
                kept["resourceSubscriptions"] = wire.dump(held)
            return await listener.serve(kept, caller)
        finally:
            self._board.unlisten(listener)
            free = [uri for uri in held if self._board.release(uri)]
            with anyio.move_on_after(COURTESY, shield=True):
                for uri in free:
                    await self._unsubscribe(uri)

    async def _subscribe(self, uri: str, held: list[str]) -> bool:
        """Whether the server tells changes of `uri`; counted, so that it is asked once."""
        async with self._subscribing:
            if not self._board.hold(uri):
                try:
                    await self._ask("resources/subscribe", {"uri": wire.dump(uri)})
                except RpcError as error:
                    self._board.release(uri)
                    _log.info("server %s refused a subscription: %s", self._server.name, error)
                    return False
                except BaseException:
                    self._board.release(uri)
                    raise
            held.append(uri)
            return True

    async def _unsubscribe(self, uri: str) -> None:
        async with self._subscribing:
            # Somebody may have subscribed again while we waited for our turn.
            if uri not in self._board.subscribed() and self._session is not None:
                try:
                    await self._ask("resources/unsubscribe", {"uri": wire.dump(uri)}, renew=False)
                except (UpstreamError, RpcError) as error:
                    _log.info("server %s kept a subscription: %s", self._server.name, error)


def _begun(response: Response, result: Mapping[str, Raw]) -> Session:
    """The session that an initialize response begins. Raises UpstreamError (handshake)."""
    info = initialized(result, asks_in_stream=True)
    id = response.headers.get(SESSION)
    if id is not None and not _SESSION_ID.fullmatch(id):
        raise UpstreamError("handshake", "gave a session id that is not visible ASCII")
    fields: Fields = []
    if id is not None:
        fields.append((SESSION, id))
    if info.revision in SENDS_VERSION_HEADER:
        fields.append((VERSION, info.revision))
    return Session(id, info, fields)


def _is_forgotten(session: Session, status: int, refusal: RpcError | UpstreamError) -> bool:
    """Whether a refusal means that the server does not know the session any more."""
    if session.id is None:
        return False
    if status == 404:
        return not (isinstance(refusal, RpcError) and refusal.code == METHOD_NOT_FOUND)
    # Servers made after the TypeScript SDK's example say it with 400.
    return status == 400 and isinstance(refusal, RpcError) and "session" in refusal.message.lower()

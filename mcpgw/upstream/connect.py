"""What a URL speaks, found out once by asking it.

Modern first, then `initialize`, then the event stream of 2024-11-05 (2026-07-28, transports,
"Backward Compatibility"). A refused credential or a server's own trouble proves nothing: both are
raised, never read as "the other era". Nothing here runs a tool, so asking again does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Raw, Struct

from mcpgw.core import headers, wire
from mcpgw.core.eras import LATEST, LEGACY
from mcpgw.core.handshake import (
    discover_params,
    discovered,
    initialize_params,
    initialized,
    instead,
    is_modern_error,
    no_common,
    supported,
)
from mcpgw.model.calls import RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import LinkInfo, Secrets, UpstreamError
from mcpgw.upstream import auth
from mcpgw.upstream.http1 import Client, HttpError, Response
from mcpgw.upstream.http_calls import (
    ACCEPT,
    EVENTS,
    JSON,
    Events,
    Fields,
    Patience,
    Peer,
    media_type,
)

PROBE_WAIT: Final = (
    10.0  # seconds for the answer to one question; a silent server is asked the next
)
MAX_PROBE: Final = 1024 * 1024  # bytes of an answer to a question
GOODBYE: Final = 2.0  # seconds for ending the session that a question opened
SHOWN: Final = 300  # characters of a server's refusal that are shown

_TRY_EVENTS: Final = frozenset({400, 404, 405})
_HTML: Final = frozenset({"text/html", "application/xhtml+xml"})


class Found(Struct, frozen=True):
    """What a server speaks; `info` when it was told already."""

    era: Literal["modern", "legacy", "sse"]
    info: LinkInfo | None = None


class _Answer(Struct, frozen=True):
    status: int
    message: wire.Response | None = None
    session: str | None = None


async def probe(server: Server, client: Client, secrets: Secrets) -> Found:
    """Find out what `server.url` speaks. Raises UpstreamError.

    A transport that the user set limits the questions: `sse` asks none, `http` not for events.
    """
    if server.transport == "sse":
        return Found("sse")
    peer = Peer(server, client, secrets)
    info = await _modern(peer)
    if info is not None:
        return Found("modern", info)
    answer = await _ask(peer, "initialize", initialize_params({}), [])
    if answer.message is not None:
        await _legacy(peer, answer, answer.message)
        return Found("legacy")
    if server.transport == "auto" and answer.status in _TRY_EVENTS and await _streams(peer):
        return Found("sse")
    raise UpstreamError(
        "handshake", f"answered {answer.status} to initialize: is the URL an MCP endpoint?"
    )


def origin(url: str | None) -> str:
    """scheme://host[:port] of a server's URL. Raises UpstreamError for what is none."""
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UpstreamError("resolve", "has no http or https URL", permanent=True)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def _modern(peer: Peer) -> LinkInfo | None:
    """What a modern server says of itself; None: ask in the old way."""
    message = await _discover(peer, LATEST)
    if message is not None and (revision := instead(message.error)) is not None:
        message = await _discover(peer, revision)
    if message is None:
        return None
    error = message.error
    if error is None:
        return discovered(message.result or {})
    versions = supported(error)
    if versions is not None:
        if any(version in LEGACY for version in versions):
            return None
        raise no_common(versions)
    if is_modern_error(error):
        raise UpstreamError("handshake", f"refused server/discover: {error.message[:SHOWN]}")
    return None


async def _discover(peer: Peer, revision: str) -> wire.Response | None:
    """The answer to `server/discover`; None when there was none."""
    fields = [(headers.VERSION, revision), (headers.METHOD, "server/discover")]
    try:
        answer = await _ask(peer, "server/discover", discover_params(revision), fields)
    except _Unanswered:
        return None
    return answer.message


async def _legacy(peer: Peer, answer: _Answer, message: wire.Response) -> None:
    """Raises UpstreamError unless the server took `initialize`; ends the session it opened."""
    if message.error is not None:
        why = message.error.message[:SHOWN]
        raise UpstreamError("handshake", f"refused initialize: {why}")
    info = initialized(message.result or {})
    if answer.session is None:
        return
    fields = [("mcp-session-id", answer.session), (headers.VERSION, info.revision), *peer.fields()]
    patience = Patience(peer.server, GOODBYE, None)
    with contextlib.suppress(UpstreamError, RpcError):
        response = await peer.send("DELETE", fields, b"", patience)
        await response.aclose()


class _Unanswered(UpstreamError):
    """The request went out and nothing came back."""


async def _ask(peer: Peer, method: str, params: Mapping[str, Raw], fields: Fields) -> _Answer:
    """Ask one question. Raises UpstreamError for what proves nothing, or everything."""
    patience = Patience(peer.server, min(PROBE_WAIT, peer.server.timeout), None)
    sent = [("content-type", JSON), ("accept", ACCEPT), *fields, *peer.fields()]
    try:
        body = wire.request(next(peer.client.ids), method, params)
        response = await peer.send("POST", sent, body, patience, idempotent=True)
    except RpcError as late:
        raise _Unanswered("read", f"did not answer {method} in time") from late
    except UpstreamError as error:
        cause = error.__cause__
        if isinstance(cause, HttpError) and cause.sent:
            raise _Unanswered(error.stage, error.message) from error
        raise
    try:
        return await _read(peer, response, patience)
    except RpcError as late:
        raise _Unanswered("read", f"did not answer {method} in time") from late
    finally:
        await response.aclose()


async def _read(peer: Peer, response: Response, patience: Patience) -> _Answer:
    status, kind = response.status, media_type(response)
    if status in auth.REFUSALS:
        raise auth.refused(status)
    if status < 400 and kind in _HTML:
        raise UpstreamError("handshake", f"answered {kind}, not MCP: is the URL right?")
    if 300 <= status < 400 or status >= 500:
        refusal = await peer.refusal(response)
        if isinstance(refusal, RpcError):
            refusal = UpstreamError("handshake", f"answered {status}: {refusal.message[:SHOWN]}")
        raise refusal
    message: wire.Message | None = None
    if kind == EVENTS and status < 300:
        message = await _streamed(response, patience)
    elif kind == JSON:
        message = await _body(response, patience)
    if not isinstance(message, wire.Response):
        message = None
    if status == 200 and message is None:
        told = kind or "something without a content type"
        raise UpstreamError("handshake", f"answered {told}, not MCP: is the URL right?")
    return _Answer(status, message, response.headers.get("mcp-session-id"))


async def _body(response: Response, patience: Patience) -> wire.Message | None:
    try:
        body = await response.read(limit=MAX_PROBE, timeout=patience.left())
        return wire.parse(body)
    except (HttpError, wire.BadMessage):
        return None


async def _streamed(response: Response, patience: Patience) -> wire.Message | None:
    events = Events(response)
    while (event := await events.next(patience)) is not None:
        if not event.data:
            continue
        try:
            message = wire.parse(event.data)
        except wire.BadMessage:
            return None
        if isinstance(message, wire.Response):
            return message
    return None


async def _streams(peer: Peer) -> bool:
    """Whether a GET opens the event stream of 2024-11-05."""
    patience = Patience(peer.server, min(PROBE_WAIT, peer.server.timeout), None)
    try:
        response = await peer.send("GET", [("accept", EVENTS), *peer.fields()], b"", patience)
    except RpcError:
        return False
    try:
        if response.status in auth.REFUSALS:
            raise auth.refused(response.status)
        if response.status < 400 and media_type(response) in _HTML:
            raise UpstreamError("handshake", "answered text/html, not MCP: is the URL right?")
        if response.status != 200 or media_type(response) != EVENTS:
            return False
        return await _first(response, patience) == "endpoint"
    finally:
        await response.aclose()


async def _first(response: Response, patience: Patience) -> str | None:
    """The name of a stream's first event; None when none comes in time."""
    try:
        event = await Events(response).next(patience)
    except RpcError:
        return None
    return None if event is None else event.event

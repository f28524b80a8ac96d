"""Plain data that crosses the gateway. No ids, no tokens, no sockets.

The core speaks one dialect: 2026-07-28 without JSON-RPC ids. What the gateway does not need to
understand stays the bytes it came as: a `JsonObject` is an object decoded one level, its values
are `msgspec.Raw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from mcpgw.model.config import Endpoint, Principal, Snapshot

JsonObject: TypeAlias = dict[str, Raw]

NOTHING: Mapping[str, Raw] = {}


class AskMode(Enum):
    """How the party that made a call can be asked for input."""

    NEVER = "never"  # it declared no such capability, or there is no way back
    LIVE = "live"  # a server-initiated request while the call runs (2025-11-25 and older)
    RETRY = "retry"  # end the call with NeedInput, it calls again (2026-07-28)


class Context(Struct, frozen=True, kw_only=True):
    """Who calls, how it speaks, and how long it waits.

    session: the legacy session or stdio process the call belongs to; None for stateless callers.
    capabilities: the client's, as it declared them (`{"elicitation": {…}}`), decoded one level.
    client: the client's Implementation object (`{"name", "version", …}`), None when not told.
    headers: header fields of the request, names in lower case, for servers that forward some.
    mirrored: the request came over modern HTTP, so Mcp-Param-* headers must equal arguments.
    deadline: on the event loop's clock; None waits as long as the server's own time-out.
    trace: `traceparent`, `tracestate`, `baggage` as they came.
    """

    principal: Principal
    snapshot: Snapshot
    endpoint: Endpoint
    revision: str
    transport: str
    session: str | None = None
    capabilities: Mapping[str, Raw] = NOTHING
    client: Raw | None = None
    headers: Mapping[str, str] = {}
    mirrored: bool = False
    log_level: str | None = None
    deadline: float | None = None
    trace: Mapping[str, str] = {}


class Call(Struct, frozen=True):
    """One request in the core dialect.

    params: the request's params without `_meta`, `inputResponses` and `requestState`.
    meta: `_meta` without the keys that belong to one hop (core.eras.HOP_META).
    wants_progress: the caller sent a progress token, so progress notes have a reader.
    answers, state: `inputResponses` and `requestState` of a retry.
    param_headers: `Mcp-Param-*` header fields for the upstream, minted by the relay from the
        tool's schema and the arguments; encoded values by header name.
    """

    method: str
    params: JsonObject
    ctx: Context
    meta: Mapping[str, Raw] = NOTHING
    wants_progress: bool = False
    answers: Mapping[str, Raw] | None = None
    state: str | None = None
    param_headers: Mapping[str, str] = {}


class Done(Struct, frozen=True):
    """A whole result, without `resultType`; `kind` is its value: "complete" or an extension's."""

    result: JsonObject
    kind: str = "complete"


AskMethod: TypeAlias = Literal["elicitation/create", "sampling/createMessage", "roots/list"]


class Ask(Struct, frozen=True):
    """A question of the server to the client that made the call."""

    method: str
    params: JsonObject


class NeedInput(Struct, frozen=True):
    """The call needs answers before it can go on: retry it with them and with `state`."""

    asks: Mapping[str, Ask]
    state: str | None = None
    result: Mapping[str, Raw] = NOTHING  # members besides inputRequests, requestState, resultType


Reply: TypeAlias = Done | NeedInput


class Progress(Struct, frozen=True):
    """notifications/progress of this call; params without the token."""

    params: JsonObject


class Log(Struct, frozen=True):
    """notifications/message: `level` is one of core.eras.LOG_LEVELS, `params` has it too."""

    level: str
    params: JsonObject


class Listening(Struct, frozen=True):
    """First note of every subscriptions/listen call: the honoured subset of the filter."""

    wanted: JsonObject


class ListChanged(Struct, frozen=True):
    """One of the three lists is not what it was."""

    kind: Literal["tools", "prompts", "resources"]


class ResourceUpdated(Struct, frozen=True):
    """A subscribed resource changed; `params` are the note's, `uri` included."""

    uri: str
    params: JsonObject


class TaskChanged(Struct, frozen=True):
    """A task has another state; `params` are the note's, its `taskId` included."""

    id: str
    params: JsonObject


class Parting(Struct, frozen=True):
    """The server let go of the call's stream: the rest is to be fetched (2025-11-25, transports).

    No message of its own: a front that can let its client go as well does so.
    """


class OtherNote(Struct, frozen=True):
    """A note the gateway has no rule for."""

    method: str
    params: JsonObject


Note: TypeAlias = (
    Progress | Log | Listening | ListChanged | ResourceUpdated | TaskChanged | Parting | OtherNote
)


class RpcError(Exception):
    """A JSON-RPC error that travels from the answering side to the caller.

    data: the error's `data`, as bytes; None leaves the member out.
    raw: the whole error object as the other side sent it; it goes on as it is.
    http_status: what an HTTP front answers with, where the specification ties one to the error.
    retry_after: seconds until the call may succeed, for refusals by a limit.
    """

    def __init__(
        self,
        code: int,
        message: str,
        data: Raw | None = None,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        raw: JsonObject | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.http_status = http_status
        self.retry_after = retry_after
        self.raw = raw

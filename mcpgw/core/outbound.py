"""From a Call to the message a server gets, and from its messages to Reply and Note.

Every link of either era goes through here, so that hop keys, caching hints and error codes are
translated in one place. Ids and progress tokens are the link's; they come in as arguments.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import (
    CACHEABLE,
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    INVALID_PARAMS,
    KNOWS_URL_ERROR,
    LATEST,
    LEGACY_RESOURCE_NOT_FOUND,
    LEGACY_URL_ELICITATION,
    LOG_LEVEL,
    MAY_NEED_INPUT,
    MISSING_CAPABILITY,
    PROGRESS_TOKEN,
    PROTOCOL_VERSION,
    SUBSCRIPTION_ID,
    UPSTREAM_FAILED,
)
from mcpgw.core.handshake import IMPLEMENTATION, declared_to, has
from mcpgw.model.calls import (
    Ask,
    Call,
    Done,
    JsonObject,
    ListChanged,
    Log,
    NeedInput,
    Note,
    OtherNote,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
    TaskChanged,
)
from mcpgw.model.ports import LinkInfo, UpstreamError

COMPLETE: Final = "complete"
INPUT_REQUIRED: Final = "input_required"

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
MESSAGE: Final = "notifications/message"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
TASK_CHANGED: Final = frozenset({"notifications/tasks", "notifications/tasks/status"})
"""As the extension names it, and as 2025-11-25 does."""

LIST_CHANGED: Final = {
    "notifications/tools/list_changed": ListChanged("tools"),
    "notifications/prompts/list_changed": ListChanged("prompts"),
    "notifications/resources/list_changed": ListChanged("resources"),
}
LISTEN_MEMBER: Final = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}
"""Member of a listen filter by the kind of list."""

_COMPLETE: Final = b'"complete"'
_LATEST: Final = wire.dump(LATEST)
_ZERO: Final = Raw(b"0")
_PRIVATE: Final = Raw(b'"private"')
_SCOPES: Final = frozenset({b'"private"', b'"public"'})
_TRUE: Final = Raw(b"true")


# ---------------------------------------------------------------- requests


def legacy_request(call: Call, id: int | str, token: int | str | None = None) -> bytes:
    """`call` as a request of 2025-11-25 or older. token: None asks for no progress."""
    return wire.request(id, call.method, legacy_params(call, token))


def legacy_params(call: Call, token: int | str | None = None) -> Mapping[str, Raw]:
    """The params of `legacy_request`."""
    trace = call.ctx.trace
    if token is None and not call.meta and not trace:
        return call.params
    meta = dict(call.meta)
    for name, text in trace.items():
        if name not in meta:  # it came by a header field
            meta[name] = wire.dump(text)
    if token is not None:
        meta[PROGRESS_TOKEN] = wire.dump(token)
    params = dict(call.params)
    params["_meta"] = wire.dump_object(meta)
    return params


def modern_request(
    call: Call,
    id: int | str,
    token: int | str | None = None,
    *,
    revision: str = LATEST,
    known: Container[str] = (),
) -> bytes:
    """`call` as a request of 2026-07-28, answers and state of a retry included.

    token: None asks for no progress. revision: what was agreed with the server. known: the
    extensions that the server has.
    """
    return wire.request(id, call.method, modern_params(call, token, revision=revision, known=known))


def modern_params(
    call: Call,
    token: int | str | None = None,
    *,
    revision: str = LATEST,
    known: Container[str] = (),
) -> JsonObject:
    """The params of `modern_request`."""
    ctx = call.ctx
    meta: dict[str, Raw] = dict(call.meta)
    meta[PROTOCOL_VERSION] = _LATEST if revision == LATEST else wire.dump(revision)
    meta[CLIENT_INFO] = IMPLEMENTATION
    meta[CLIENT_CAPABILITIES] = (
        wire.dump_object(declared_to(ctx, known)) if ctx.capabilities else wire.EMPTY
    )
    if ctx.log_level is not None:
        meta[LOG_LEVEL] = wire.dump(ctx.log_level)
    if ctx.trace:
        for name, text in ctx.trace.items():
            if name not in meta:  # it came by a header field
                meta[name] = wire.dump(text)
    if token is not None:
        meta[PROGRESS_TOKEN] = wire.dump(token)
    params = dict(call.params)
    params["_meta"] = wire.dump_object(meta)
    if call.answers is not None:
        params["inputResponses"] = wire.dump_object(call.answers)
    if call.state is not None:
        params["requestState"] = wire.dump(call.state)
    return params


def cancelled(id: int | str, reason: str) -> bytes:
    """notifications/cancelled for the request `id`."""
    return wire.notification(CANCELLED, {"requestId": wire.dump(id), "reason": wire.dump(reason)})


# ---------------------------------------------------------------- results


def legacy_reply(method: str, result: JsonObject) -> Done:
    """A legacy result in the core's dialect: cacheable ones say that they must not be cached."""
    if method in CACHEABLE:
        result["ttlMs"] = _ZERO
        result["cacheScope"] = _PRIVATE
    return Done(result)


def legacy_error(call: Call, error: RpcError) -> NeedInput:
    """A legacy error in the core's dialect: raised, or the URL elicitations it stands for."""
    if error.code == LEGACY_RESOURCE_NOT_FOUND:
        raise wire.recoded(error, INVALID_PARAMS)
    asks = _url_asks(error) if error.code == LEGACY_URL_ELICITATION else None
    if not asks or call.method not in MAY_NEED_INPUT or _declined(call):
        raise error
    if not has(call.ctx.capabilities, "elicitation", "url"):
        needed = wire.dump({"requiredCapabilities": {"elicitation": {"url": {}}}})
        raise RpcError(MISSING_CAPABILITY, error.message, needed)
    if call.ctx.revision in KNOWS_URL_ERROR:
        raise error  # its client knows when the user is through, and calls again by itself
    return NeedInput(asks)


def modern_reply(method: str, result: JsonObject) -> Reply:
    """A modern result in the core's dialect. Raises BadMessage for a malformed one.

    Without a `resultType` it is complete. Missing or empty caching hints of a cacheable result
    become those that are safe.
    """
    told = result.pop("resultType", None)
    if told is None or bytes(told) == _COMPLETE:
        if method in CACHEABLE:
            _mend_caching(result)
        return Done(result)
    kind = wire.text(told)
    if kind == INPUT_REQUIRED:
        return _need_input(result)
    return Done(result, kind or COMPLETE)


def failed(server: str, error: UpstreamError) -> RpcError:
    """What a caller gets when the server called `server` could not be reached or went away."""
    data = wire.dump({"server": server, "stage": error.stage})
    return RpcError(UPSTREAM_FAILED, f'server "{server}" {error.message}', data)


# ---------------------------------------------------------------- notes


def note(method: str, params: JsonObject) -> Note:
    """A server's notification in the core's dialect, without tokens and ids of the hop."""
    if method == PROGRESS:
        return Progress({k: v for k, v in params.items() if k != PROGRESS_TOKEN})
    if (changed := LIST_CHANGED.get(method)) is not None:
        return changed
    if "_meta" in params:
        params = _without_subscription(params)
    if method == MESSAGE:
        return Log(wire.text(params.get("level")) or "info", params)
    if method == RESOURCE_UPDATED and (uri := wire.text(params.get("uri"))) is not None:
        return ResourceUpdated(uri, params)
    if method in TASK_CHANGED and (task := wire.text(params.get("taskId"))) is not None:
        return TaskChanged(task, params)
    return OtherNote(method, params)


def progress_token(params: Mapping[str, Raw]) -> int | str | None:
    """The token of a progress notification, as it compares; None when there is none."""
    return _key(params.get(PROGRESS_TOKEN))


def subscription_id(params: Mapping[str, Raw]) -> int | str | None:
    """The listen request a modern note or result belongs to; None when it names none."""
    meta = params.get("_meta")
    if meta is None:
        return None
    try:
        return _key(wire.members(meta).get(SUBSCRIPTION_ID))
    except wire.BadMessage:
        return None


# ---------------------------------------------------------------- listening


def wanted(call: Call) -> JsonObject:
    """The filter of a `subscriptions/listen` call. Raises RpcError when it is none."""
    notifications = call.params.get("notifications")
    if notifications is None:
        return {}
    try:
        return wire.members(notifications)
    except wire.BadMessage:
        raise RpcError(INVALID_PARAMS, "notifications must be an object") from None


def honoured(info: LinkInfo, filter: Mapping[str, Raw]) -> JsonObject:
    """The part of a listen filter that a server with these capabilities can serve."""
    kept: JsonObject = {}
    for area, member in LISTEN_MEMBER.items():
        if _is_true(filter.get(member)) and has(info.capabilities, area, "listChanged"):
            kept[member] = _TRUE
    if uris(filter) and has(info.capabilities, "resources", "subscribe"):
        kept["resourceSubscriptions"] = wire.dump(uris(filter))
    return kept


def uris(filter: Mapping[str, Raw]) -> tuple[str, ...]:
    """The resources that a listen filter names, each once, in its order."""
    told = filter.get("resourceSubscriptions")
    if told is None:
        return ()
    try:
        texts = [wire.text(item) for item in wire.array(told)]
    except wire.BadMessage:
        return ()
    return tuple(dict.fromkeys(text for text in texts if text is not None))


# ---------------------------------------------------------------- inside


def _key(raw: Raw | None) -> int | str | None:
    if raw is None:
        return None
    try:
        return wire.id_key(raw)
    except msgspec.DecodeError:
        return None


def _is_true(raw: Raw | None) -> bool:
    return raw is not None and bytes(raw) == b"true"


def _mend_caching(result: JsonObject) -> None:
    ttl = wire.number(result.get("ttlMs"))
    if ttl is None or ttl < 0:
        result["ttlMs"] = _ZERO
    scope = result.get("cacheScope")
    if scope is None or bytes(scope) not in _SCOPES:
        result["cacheScope"] = _PRIVATE


def _need_input(result: JsonObject) -> NeedInput:
    requests = result.pop("inputRequests", None)
    state = wire.text(result.pop("requestState", None))
    asks: dict[str, Ask] = {}
    if requests is not None:
        for name, request in wire.members(requests).items():
            fields = wire.members(request)
            method = wire.text(fields.get("method"))
            if method is None:
                raise wire.BadMessage(INVALID_PARAMS, "an input request without a method")
            params = fields.get("params")
            asks[name] = Ask(method, {} if params is None else wire.members(params))
    if not asks and state is None:
        raise wire.BadMessage(INVALID_PARAMS, "input_required that asks for nothing")
    return NeedInput(asks, state, result)


def _url_asks(error: RpcError) -> dict[str, Ask]:
    asks: dict[str, Ask] = {}
    if error.data is None:
        return asks
    try:
        listed = wire.members(error.data).get("elicitations", Raw(b"[]"))
        for at, item in enumerate(wire.array(listed)):
            params = wire.members(item)
            asks[wire.text(params.get("elicitationId")) or f"url-{at}"] = Ask(
                "elicitation/create", params
            )
    except wire.BadMessage:
        return {}
    return asks


def _declined(call: Call) -> bool:
    """Whether this is a retry whose user said no: asking again would not end."""
    if not call.answers:
        return False
    try:
        actions = [wire.members(one).get("action") for one in call.answers.values()]
    except wire.BadMessage:
        return True
    return any(wire.text(action) != "accept" for action in actions)


def _without_subscription(params: JsonObject) -> JsonObject:
    try:
        meta = wire.members(params["_meta"])
    except wire.BadMessage:
        return params
    if meta.pop(SUBSCRIPTION_ID, None) is None:
        return params
    kept = dict(params)
    if meta:
        kept["_meta"] = wire.dump_object(meta)
    else:
        del kept["_meta"]
    return kept

"""Rules of multi round-trip requests (2026-07-28), without I/O.

A call that needs input ends with asks and a state; the client calls again with answers and that
state. Whatever the state is, it is bound to the principal, the method and the params.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from mcpgw.core import wire
from mcpgw.core.eras import (
    ASK_CAPABILITY,
    CLIENT_ASKS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_CAPABILITY,
)
from mcpgw.model.calls import NOTHING, Ask, Call, Context, JsonObject, NeedInput, RpcError

MAX_ROUNDS: Final = 10  # times one call may ask a legacy client before it is given up
PARKED_TTL: Final = 300.0  # seconds a parked call waits for its client
STATE_TTL: Final = 86_400.0  # seconds a modern server's state stays good in the client's hands
PURPOSE: Final = "requestState"

CANCEL: Final = Raw(b'{"action":"cancel"}')


class State(Struct, frozen=True, omit_defaults=True):
    """What a sealed requestState holds, besides the server it is for.

    park: the name of a parked call. state: a modern server's own. again: a legacy server refused
    the call before it ran (-32042, 2025-11-25), so that the retry may be sent as a new call.
    """

    server: str
    park: str | None = None
    state: str | None = None
    again: bool = False


_states = msgspec.json.Decoder(State)


def encode_state(state: State) -> bytes:
    return msgspec.json.encode(state)


def decode_state(body: bytes) -> State:
    """Only for what a Seal opened, so it cannot be malformed."""
    return _states.decode(body)


def binding(call: Call) -> bytes:
    """What a state of this call is bound to: principal, method, and a digest of the params."""
    digest = sha256()
    for part in (call.ctx.principal.id.encode(), call.method.encode(), _canonical(call.params)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _canonical(params: JsonObject) -> bytes:
    """The params, independent of the order of members where they can be decoded whole."""
    encoded = bytes(wire.dump_object(params))
    try:
        return msgspec.json.encode(msgspec.json.decode(encoded), order="deterministic")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return encoded


def next_call(call: Call, reply: NeedInput, answers: Mapping[str, Raw], *, rounds: int) -> Call:
    """The retry that follows `reply`: same params, fresh answers, the state as it was given.

    rounds: how many times the call has asked so far; RpcError beyond MAX_ROUNDS.
    """
    if rounds > MAX_ROUNDS:
        raise RpcError(
            INTERNAL_ERROR, f"The server asked for input {MAX_ROUNDS} times without finishing."
        )
    return msgspec.structs.replace(call, answers=answers or None, state=reply.state)


def start_again() -> RpcError:
    """For any state that is not good: edited, expired, unknown, or another's."""
    return RpcError(
        INVALID_PARAMS,
        "This request state is unknown or has expired: start the call again without it.",
    )


def can_be_asked(ctx: Context) -> bool:
    """Whether the client declared anything that a server could ask it."""
    return not CLIENT_ASKS.isdisjoint(ctx.capabilities)


def undeclared(asks: Iterable[Ask], capabilities: Mapping[str, Raw]) -> dict[str, Raw]:
    """What `asks` need and the client did not declare, in the form of a declaration."""
    missing: dict[str, Raw] = {}
    for ask in asks:
        name = ASK_CAPABILITY.get(ask.method)
        if name is None:
            continue
        if name not in capabilities:
            missing.setdefault(name, wire.EMPTY)
        if (feature := _feature(ask, _members(capabilities.get(name)))) is not None:
            missing[name] = wire.dump({feature: {}})
    return missing


def _feature(ask: Ask, declared: Mapping[str, Raw]) -> str | None:
    """What of a capability the ask needs beyond its name, unless that is declared."""
    if ask.method == "elicitation/create":
        if _is_url(ask):
            return None if "url" in declared else "url"
        # Without any mode, forms are meant (2025-11-25, elicitation).
        return "form" if "url" in declared and "form" not in declared else None
    if ask.method == "sampling/createMessage" and "tools" in ask.params:
        return None if "tools" in declared else "tools"
    return None


def missing_capability(missing: Mapping[str, Raw]) -> RpcError:
    """-32021: the client would have to declare `missing` for this call."""
    names = ", ".join(sorted(missing)) or "an interactive client"
    data = wire.dump({"requiredCapabilities": missing})
    return RpcError(
        MISSING_CAPABILITY,
        f"This call needs input that the client cannot give ({names}).",
        data,
        http_status=400,
    )


def refusal(error: RpcError) -> JsonObject:
    """The result of tools/call that tells a legacy client what -32021 cannot tell it."""
    text = f"{error.message} Use a client that supports it."
    return {
        "content": wire.dump([{"type": "text", "text": text}]),
        "isError": Raw(b"true"),
    }


def refused(ask: Ask, error: RpcError) -> Raw:
    """The answer that stands for a client's error: a refused elicitation is cancelled.

    Any other error has no place among answers and ends the call.
    """
    if ask.method == "elicitation/create":
        return CANCEL
    raise error


def _is_url(ask: Ask) -> bool:
    mode: Literal["url"] | str | None = wire.text(ask.params.get("mode"))
    return ask.method == "elicitation/create" and mode == "url"


def _members(raw: Raw | None) -> Mapping[str, Raw]:
    if raw is None:
        return NOTHING
    try:
        return wire.members(raw)
    except wire.BadMessage:
        return NOTHING

"""Calls from the command line through a gateway: the running daemon's, or one of its own.

What a server answers stays bytes as long as it can; a JSON-RPC error becomes a GatewayError that
names the way on.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Raw, structs

from mcpgw.cli.io import Desk, mapping, sequence
from mcpgw.cli.person import Person
from mcpgw.core import eras, wire
from mcpgw.core.naming import public_name
from mcpgw.daemon.assembly import run
from mcpgw.daemon.reach import Reach, Unasked, reach
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.calls import Call, Done, JsonObject, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, UpstreamError
from mcpgw.store import registry

UNAVAILABLE = "mcpgw/unavailable"  # where a list's `_meta` names the servers it goes without
MAX_PAGES = 10_000  # pages of one list; a server that repeats its cursor must not hold us for good

T = TypeVar("T")

_LOST_SECRET = re.compile(r"The secret vault:(\S+) is missing")
_NOT_LET_IN = re.compile(r"\banswered 40[13]\b")

MENDS = {
    "resolve": "mcpgw server set {server} --url URL",
    "connect": "mcpgw server show {server}",
    "tls": "mcpgw server set {server} --ca FILE",
    "start": "mcpgw server show {server}",
    "auth": "mcpgw server set {server} --auth bearer --secret REF",
    "handshake": "mcpgw server show {server}",
    "send": "mcpgw server show {server}",
    "read": "mcpgw server show {server}",
    "time": "mcpgw server set {server} --timeout 300",
    "call": "mcpgw tools list --server {server}",
}
"""What helps when a server failed, by the stage it failed at."""


def reaching(
    desk: Desk,
    task: Callable[[Reach], Awaitable[T]],
    *,
    key: str | None = None,
    server: str | None = None,
) -> T:
    """The outcome of `task`, which gets a gateway for the owner, or for `key`."""
    path = desk.path

    async def session() -> T:
        async with reach(path, key=key, server=server) as reached:
            return await task(reached)

    with log_held_back():
        return run(session)


@contextmanager
def log_held_back() -> Generator[None]:
    """A gateway of our own logs nothing to this terminal, unless MCPGW_LOG names a level.

    What a person must know of a failure is in its error; the log would stand in between.
    """
    log = logging.getLogger("mcpgw")
    before = (log.handlers[:], log.level, log.propagate)
    level = logging.getLevelNamesMapping().get(os.environ.get("MCPGW_LOG", "").upper())
    log.handlers[:] = [logging.NullHandler() if level is None else logging.StreamHandler()]
    log.propagate = False
    if level is not None:
        log.setLevel(level)
    try:
        yield
    finally:
        log.handlers[:], level, log.propagate = before
        log.setLevel(level)


async def ask(
    reached: Reach,
    method: str,
    params: Mapping[str, Raw],
    *,
    person: Person | None = None,
    server: str | None = None,
) -> Done:
    """One call's result. `person`: who may be asked and sees progress. `server`: for advice."""
    ctx = reached.ctx
    caller: Caller = person or Unasked()
    if person is not None:
        ctx = structs.replace(ctx, capabilities=person.capabilities)
    call = Call(method, dict(params), ctx, wants_progress=person is not None)
    try:
        reply = await reached.handler.handle(call, caller)
    except RpcError as error:
        raise refusal(error, server) from error
    except UpstreamError as error:
        raise GatewayError(
            _sentence(error.message),
            next=mend(error.stage, server, error.message),
            code="upstream_failed",
            exit=Exit.UPSTREAM,
        ) from error
    if isinstance(reply, Done):
        return reply
    raise GatewayError(
        "The server needs input before it goes on.",
        why="Nobody is there to give it.",
        code="input_needed",
        exit=Exit.UPSTREAM,
    )


async def listed(
    reached: Reach, method: str, member: str, *, server: str | None = None
) -> tuple[list[JsonObject], dict[str, str]]:
    """All items of a list, and the servers that are missing from it with the reasons."""
    items: list[JsonObject] = []
    missing: dict[str, str] = {}
    params: dict[str, Raw] = {}
    seen: set[bytes] = set()
    while len(seen) < MAX_PAGES:
        done = await ask(reached, method, params, server=server)
        items += [wire.members(item) for item in wire.array(done.result.get(member, Raw(b"[]")))]
        missing.update(_missing(done.result))
        cursor = done.result.get("nextCursor")
        if cursor is None or wire.text(cursor) is None or bytes(cursor) in seen:
            break
        seen.add(bytes(cursor))
        params = {"cursor": cursor}
    return items, missing


def _missing(result: JsonObject) -> dict[str, str]:
    meta = result.get("_meta")
    if meta is None:
        return {}
    told = wire.members(meta).get(UNAVAILABLE)
    if told is None:
        return {}
    servers = map(mapping, sequence(wire.value(told)))
    return {str(server.get("server")): str(server.get("reason")) for server in servers}


def tell_missing(desk: Desk, missing: Mapping[str, str]) -> None:
    """Name the servers that a list goes without."""
    for server, reason in missing.items():
        desk.warn(f"{server} is missing: {reason}  (mcpgw server test {server})")


def refusal(error: RpcError, server: str | None) -> GatewayError:
    """A JSON-RPC error as what a person is told."""
    told = mapping(wire.value(error.data)) if error.data is not None else {}
    server = str(told["server"]) if "server" in told else server
    if error.code == eras.TIMED_OUT:
        return _upstream(error, "timed_out", mend("time", server))
    if error.code == eras.UPSTREAM_FAILED:
        return _upstream(
            error, "upstream_failed", mend(str(told.get("stage")), server, error.message)
        )
    if error.code == eras.LIMITED:
        return GatewayError(
            _sentence(error.message), next="Try again later", code="limited", exit=Exit.DENIED
        )
    missing = ("Unknown tool", "Unknown prompt", "Resource not found")
    if error.code == eras.INVALID_PARAMS and error.message.startswith(missing):
        return GatewayError(
            _sentence(error.message),
            why="It does not exist, or may not be used.",
            next="mcpgw tools list",
            code="not_found",
            exit=Exit.MISSING,
        )
    return _upstream(error, "refused", mend("call", server), why=f"Error {error.code}.")


def mend(stage: str, server: str | None, message: str = "") -> str | None:
    """The command that helps on after a failure at `stage` that was told as `message`."""
    if found := _LOST_SECRET.search(message):
        return f"mcpgw secret set {found[1]}"
    if _NOT_LET_IN.search(message):
        stage = "auth"
    advice = MENDS.get(stage, MENDS["connect"])
    return None if server is None else advice.format(server=server)


def _upstream(
    error: RpcError, code: str, advice: str | None, why: str | None = None
) -> GatewayError:
    return GatewayError(
        _sentence(error.message), why=why, next=advice, code=code, exit=Exit.UPSTREAM
    )


def _sentence(text: str) -> str:
    text = text.strip() or "the server failed without saying why"
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def locate(desk: Desk, word: str, kind: str) -> tuple[Server, str]:
    """The server of a tool or prompt, and the name in `word`: SERVER__NAME or SERVER/NAME.

    Raises GatewayError (MISSING) when no server goes by that name.
    """
    owner, slash, native = word.partition("/")
    with desk.store() as store:
        if slash:
            return registry.get_server(store, owner), native
        prefix = word.partition("__")[0]
        for server in registry.list_servers(store):
            if "__" in word and server.prefix.lower() == prefix.lower():
                return server, word
    raise unknown(kind, word)


def find(server: Server, items: list[JsonObject], word: str, kind: str) -> JsonObject:
    """The item that `word` names, by its own or its public name. Raises GatewayError (MISSING)."""
    names = {wire.text(item.get("name")) or "": item for item in items}
    if word in names:
        return names[word]
    public = {public_name(server.prefix, name): item for name, item in names.items()}
    if word in public:
        return public[word]
    raise unknown(kind, word, [*public, *names])


def unknown(kind: str, word: str, known: list[str] | None = None) -> GatewayError:
    """Nothing goes by that name."""
    from difflib import get_close_matches

    close = get_close_matches(word, known or [], n=1)
    return GatewayError(
        f'There is no {kind} called "{word}".',
        why=f"A {kind} is named SERVER__NAME or SERVER/NAME, and must be one that may be used.",
        next=f"Did you mean {close[0]}?" if close else f"mcpgw {kind}s list",
        code=f"no_such_{kind}",
        exit=Exit.MISSING,
    )

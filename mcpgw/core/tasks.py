"""Tasks: work that goes on behind an id, as 2025-11-25 has it and as the extension has it.

The id that a client holds names the server, the tool and the server's own id, sealed for one
principal: it routes, it authorizes nothing by itself, and to others it is unknown. Between the two
forms of tasks there is no bridge: one has ids asked for by clients and a result of its own, the
other is given by servers and polled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from mcpgw.core import extensions, wire
from mcpgw.core.eras import CORE_TASKS, RELATED_TASK
from mcpgw.core.handshake import has
from mcpgw.model.calls import JsonObject
from mcpgw.model.ports import LinkInfo

PURPOSE: Final = "task"
TTL: Final = 10 * 365 * 86_400.0  # seconds: how long a task lives is its server's affair
KIND: Final = "task"  # the `resultType` of a task that was begun (Tasks extension)
ID: Final = "taskId"
TASK: Final = "task"  # what asks for a task, and what tells of it (2025-11-25)
CAPABILITY: Final = "tasks"

CORE_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel"})
EXTENSION_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})

Rename = Callable[[str], str | None]


class Name(Struct, frozen=True, array_like=True):
    """What a task's id stands for: a server's id, the native name of the tool, the server's id."""

    server: str
    tool: str
    id: str


_names = msgspec.json.Decoder(Name)


def encode(name: Name) -> bytes:
    return msgspec.json.encode(name)


def decode(body: bytes) -> Name:
    """Only for what a Seal opened, so it cannot be malformed."""
    return _names.decode(body)


def offers(info: LinkInfo, *, core: bool) -> bool:
    """Whether a server has tasks: its revision's own, or the extension."""
    if core:
        return info.revision in CORE_TASKS and has(info.capabilities, CAPABILITY)
    return info.modern and extensions.TASKS in extensions.of(info.capabilities)


def augments(info: LinkInfo) -> bool:
    """Whether a server's tool calls can be asked for as tasks (2025-11-25)."""
    return offers(info, core=True) and _calls(info.capabilities)


def merged(capabilities: list[Mapping[str, Raw]]) -> Raw | None:
    """The `tasks` capability of several servers (2025-11-25): what any of them has."""
    features = [
        name
        for name in ("list", "cancel")
        if any(has(one, CAPABILITY, name) for one in capabilities)
    ]
    told: dict[str, object] = {name: {} for name in features}
    if any(_calls(one) for one in capabilities):
        told["requests"] = {"tools": {"call": {}}}
    return wire.dump(told) if told else None


def _calls(capabilities: Mapping[str, Raw]) -> bool:
    """Whether `tasks.requests.tools.call` is declared."""
    try:
        requests = wire.members(capabilities[CAPABILITY])["requests"]
        return has(wire.members(requests), "tools", "call")
    except (KeyError, wire.BadMessage):
        return False


def with_id(fields: Mapping[str, Raw], id: str) -> JsonObject:
    """A task under another id."""
    return {**fields, ID: wire.dump(id)}


def related(params: JsonObject, rename: Rename) -> JsonObject:
    """Params or a result whose `_meta` names a task, under the id that `rename` gives it."""
    meta = params.get("_meta")
    if meta is None or RELATED_TASK.encode() not in bytes(meta):
        return params
    try:
        members = wire.members(meta)
        task = wire.members(members[RELATED_TASK])
    except (KeyError, wire.BadMessage):
        return params
    id = wire.text(task.get(ID))
    renamed = None if id is None else rename(id)
    if renamed is None:
        return params
    members[RELATED_TASK] = wire.dump_object(with_id(task, renamed))
    return {**params, "_meta": wire.dump_object(members)}

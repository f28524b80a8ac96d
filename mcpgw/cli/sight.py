"""What a key can use at this moment, and how much of a model's context its tools take."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from mcpgw.cli import asking
from mcpgw.cli.io import Desk
from mcpgw.core import wire
from mcpgw.daemon.reach import Reach
from mcpgw.errors import GatewayError
from mcpgw.model.calls import JsonObject
from mcpgw.store.keys import Key

BYTES_PER_TOKEN = 4  # of JSON, for the common tokenizers; good to some 20 %
SHOWN = 40  # names that a person is shown; programs get all

_LISTS = {
    "tools": ("tools/list", "name"),
    "prompts": ("prompts/list", "name"),
    "resources": ("resources/list", "uri"),
}


class Sight(Struct):
    """Names by list, the size of the tools in tokens, and the servers that could not be asked."""

    names: dict[str, list[str]]
    tokens: int
    missing: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        gone = [{"server": name, "reason": reason} for name, reason in self.missing.items()]
        return {"can_use": self.names, "tokens": self.tokens, "unavailable": gone}

    def facts(self) -> tuple[tuple[str, str], ...]:
        found = [
            (f"{kind} now", f"{len(names)}: {_some(names)}")
            for kind, names in self.names.items()
            if names
        ]
        size = f"about {self.tokens} tokens of tools" if self.names["tools"] else "no tools"
        return (*found, ("size", size))


def see(desk: Desk, key: Key) -> Sight:
    """Ask as `key`. Servers that do not answer are named, never an error."""

    async def look(reached: Reach) -> Sight:
        names: dict[str, list[str]] = {}
        missing: dict[str, str] = {}
        size = 0
        for member, (method, field) in _LISTS.items():
            items, gone = await asking.listed(reached, method, member)
            missing.update(gone)
            names[member] = [wire.text(item.get(field)) or "" for item in items]
            if member == "tools":
                size = sum(len(_bytes(item)) + 1 for item in items)
        return Sight(names, -(-size // BYTES_PER_TOKEN), missing)

    with desk.busy("Asking the servers"):
        try:
            seen = asking.reaching(desk, look, key=key.name)
        except GatewayError as error:
            seen = Sight({member: [] for member in _LISTS}, 0, {"the gateway": error.what})
    if not desk.as_json:
        asking.tell_missing(desk, seen.missing)
    return seen


def _bytes(item: JsonObject) -> bytes:
    return bytes(wire.dump_object(item))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

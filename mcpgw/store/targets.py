"""What a person types to name what a key may use: `github`, `github/create_*`, `*`.

Words become `Target`s on a server's id, and ids become words again under the server's present name.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, NoReturn

from mcpgw.core.access import EVERY_SERVER, KINDS
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Target
from mcpgw.store.db import Store
from mcpgw.store.registry import get_server

LONGEST_GLOB: Final = 1024


def parse(store: Store, word: str) -> Target:
    """The target that `word` names. Raises GatewayError: no_such_server, bad_target."""
    where, slash, what = word.partition("/")
    if not where or (slash and not what) or len(word) > LONGEST_GLOB:
        _bad(word, "A target is SERVER, SERVER/TOOL, SERVER/prompt:NAME, SERVER/resource:URI or *.")
    if where.startswith("group:"):
        raise GatewayError(
            f'There is no group called "{where.removeprefix("group:")}".',
            why="No groups are defined in this store.",
            next="mcpgw server list",
            code="no_such_group",
            exit=Exit.MISSING,
        )
    server = EVERY_SERVER if where == EVERY_SERVER else get_server(store, where).id
    if not slash:
        return Target(server)
    before, colon, glob = what.partition(":")
    if colon and before in KINDS:
        if not glob:
            _bad(word, f"What stands behind {before}: is the name or pattern of a {before}.")
        return Target(server, before, glob)
    if colon and (close := get_close_matches(before, KINDS, n=1, cutoff=0.75)):
        _bad(word, f'"{before}:" is no kind; perhaps {close[0]}: was meant.')
    return Target(server, "tool", what)


def words(target: Target, names: Mapping[str, str]) -> str:
    """The target as it is typed. names: server names by id."""
    where = target.server if target.server == EVERY_SERVER else names[target.server]
    if target.kind is None:
        return where
    return f"{where}/{'' if target.kind == 'tool' else target.kind + ':'}{target.glob}"


def _bad(word: str, why: str) -> NoReturn:
    raise GatewayError(
        f'"{word}" names nothing that can be granted.',
        why=why,
        next="mcpgw key grant --help",
        code="bad_target",
        exit=Exit.USAGE,
    )

"""What is wrong with a file: where, what was expected, and what was probably meant.

A fault never repeats a value, for it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from msgspec import Struct

from mcpgw.errors import Exit, GatewayError

TOLD: Final = 20  # faults that are told at once; mending these shows the rest

Path = tuple[str | int, ...]
"""The keys and places that lead to a value: ("servers", "github", "allow", 0)."""


class Fault(Struct, frozen=True):
    """One thing that is wrong. line counts from 1; None where it cannot be told."""

    line: int | None
    path: str  # as `spelled` gives it; empty for the whole file
    what: str  # without a full stop


def spelled(path: Path) -> str:
    """A path for people: `servers.github.allow[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def told(fault: Fault) -> str:
    """A fault in one line."""
    where = f"line {fault.line}" if fault.line is not None else ""
    return f"{', '.join(filter(None, (where, fault.path)))}: {fault.what}".removeprefix(": ")


def close(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` or nothing."""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


def refused(name: str, faults: Sequence[Fault]) -> GatewayError:
    """The error for a file called `name`, with at most TOLD of its faults."""
    ordered = sorted(faults, key=lambda one: (one.line is None, one.line or 0))
    lines = [told(one) for one in ordered[:TOLD]]
    if len(ordered) > TOLD:
        lines.append(f"and {len(ordered) - TOLD} more")
    count = "a fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    return GatewayError(
        f"{name} has {count}, so nothing of it was used.",
        why="\n".join(lines),
        next="mcpgw config validate FILE" if name == "-" else f"mcpgw config validate {name}",
        code="bad_config",
        exit=Exit.USAGE,
    )

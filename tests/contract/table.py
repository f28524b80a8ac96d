"""README's table of what is bridged, drawn from the matrix: `python -m tests.contract.table`.

It prints the table; with `--write` it takes its place in README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.contract.features import FEATURES, LEGACY, MODERN, Feature, Impossible, impossible
from tests.contract.stage import CLIENTS, REVISIONS, SERVERS

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- the era matrix draws this: begin -->", "<!-- the era matrix draws this: end -->"

_BLOCKS = ((LEGACY, LEGACY), (LEGACY, MODERN), (MODERN, LEGACY), (MODERN, MODERN))


def render() -> str:
    """The table and its notes, as Markdown."""
    notes: list[Impossible] = []
    lines = [
        "| feature | handshake → handshake | handshake → 2026 | 2026 → handshake | 2026 → 2026 |",
        "|---|---|---|---|---|",
    ]
    for name, feature in FEATURES.items():
        cells = [_cell(name, clients, servers, notes) for clients, servers in _BLOCKS]
        lines.append(f"| {name}: {feature.says}{_limits(feature)} | {' | '.join(cells)} |")
    told = [f"{at}. {_note(row)}" for at, row in enumerate(notes, 1)]
    return "\n".join([*lines, "", *told])


def counted() -> tuple[int, int]:
    """How many pairs of sides the matrix runs, and how many features for each."""
    return len(CLIENTS) * len(SERVERS), len(FEATURES)


def placed(readme: str) -> str:
    """README with the table of today in it."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("README has no place for the table")
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{after}"


def _cell(
    name: str, clients: Sequence[str], servers: Sequence[str], notes: list[Impossible]
) -> str:
    """`yes`, `no`, or both with the numbers of the notes that say when; `-` where it is not."""
    rows = [impossible(name, client, server) for client in clients for server in servers]
    rows = [row for row in rows if row is None or not row.absent]
    if not rows:
        return "-"
    used: list[int] = []
    for row in rows:
        if row is None:
            continue
        if row not in notes:
            notes.append(row)
        if notes.index(row) + 1 not in used:
            used.append(notes.index(row) + 1)
    if not used:
        return "yes"
    numbers = ", ".join(str(number) for number in sorted(used))
    return f"no ({numbers})" if None not in rows else f"yes, but ({numbers})"


def _limits(feature: Feature) -> str:
    """Which revisions have the feature at all."""
    reasons = dict.fromkeys(row.reason for row in feature.impossible if row.absent)
    return f" ({'; '.join(reasons)})" if reasons else ""


def _note(row: Impossible) -> str:
    who = f"Clients of {_span(row.clients)}, servers of {_span(row.servers)}"
    return f"{who}: {row.answer}. {row.reason}"


def _span(revisions: Sequence[str]) -> str:
    if tuple(revisions) == REVISIONS:
        return "any revision"
    first, last = revisions[0], revisions[-1]
    return first if first == last else f"{first} to {last}"


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        README.write_text(placed(README.read_text()))
    else:
        sys.stdout.write(render() + "\n")


if __name__ == "__main__":
    main()

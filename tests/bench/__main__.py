"""What a call costs: `python -m tests.bench [--rounds N] [--seconds S] [--connections 1,16,64]`.

Every path is measured against the same upstream in one run: direct, through a bare pass-through,
and through the gateway. Rounds alternate between the paths, so that a slow minute of the machine
falls on all of them; medians are compared. CPU is that of the process in the middle (of the
upstream itself where the path is direct), so it does not depend on the machine's other cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import msgspec

from tests.bench import procs
from tests.bench.load import Plan
from tests.children import module

GATEWAY = "gateway"
BARE = "bare pass-through"


class Route(msgspec.Struct, frozen=True):
    """One way from the load to the upstream. pid: whose CPU is counted."""

    name: str
    era: str
    url: str
    tool: str
    pid: int
    headers: dict[str, str] = {}


class Row(msgspec.Struct):
    """A path at a number of connections: median, min and max of each figure over the rounds."""

    path: str
    era: str
    connections: int
    rate: tuple[float, float, float]
    p50: tuple[float, float, float]
    p99: tuple[float, float, float]
    cpu_ms: tuple[float, float, float]
    times_bare: float | None = None


@contextlib.contextmanager
def paths() -> Generator[list[Route]]:
    """Upstream, pass-through and gateway, up until the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpgw-bench-")))
        upstream, upstream_pid = stack.enter_context(procs.asgi("tests.bench.upstream", "http"))
        bare, bare_pid = stack.enter_context(procs.asgi("tests.bench.bare", upstream))
        store = folder / "bench.db"
        for name in ("modern", "legacy"):
            procs.cli(store, "server", "add", name, "--url", f"{upstream}/{name}")
        command = module("tests.bench.upstream", "stdio")
        procs.cli(store, "server", "add", "stdio", "--", *command)
        made = procs.cli(
            store,
            *("key", "create", "bench", "--json"),
            *("--grant", "modern", "--grant", "legacy", "--grant", "stdio"),
        )
        secret = json.loads(made)["keys"][0]["secret"]
        gateway, pid = stack.enter_context(procs.serving(store))
        key = {"Authorization": f"Bearer {secret}"}
        found: list[Route] = []
        for era in ("modern", "legacy"):
            found += [
                Route("direct", era, f"{upstream}/{era}", "echo", upstream_pid),
                Route(BARE, era, f"{bare}/{era}", "echo", bare_pid),
                Route(GATEWAY, era, f"{gateway}/mcp", f"{era}__echo", pid, key),
            ]
        for era, server in (("modern", "legacy"), ("legacy", "modern"), ("modern", "stdio")):
            name = f"{GATEWAY} to {server}"
            found.append(Route(name, era, f"{gateway}/mcp", f"{server}__echo", pid, key))
        yield found


def measure(
    found: Sequence[Route], *, connections: Sequence[int], rounds: int, seconds: float
) -> list[Row]:
    """All paths at all numbers of connections. Raises RuntimeError when a call fails."""
    rows: list[Row] = []
    for count in connections:
        samples: dict[int, list[procs.Sample]] = {at: [] for at in range(len(found))}
        for turn in range(rounds):
            for at, path in enumerate(found):
                modern = path.era == "modern"
                plan = Plan(path.url, path.tool, modern, count, seconds, headers=path.headers)
                samples[at].append(procs.load(plan, path.pid))
            print(f"{count} connections: round {turn + 1} of {rounds}", file=sys.stderr)
        rows += [row(path, count, samples[at]) for at, path in enumerate(found)]
    return compared(rows)


def row(path: Route, connections: int, samples: Sequence[procs.Sample]) -> Row:
    def spread(field: str) -> tuple[float, float, float]:
        values = [getattr(sample, field) for sample in samples]
        return round(statistics.median(values), 4), min(values), max(values)

    return Row(
        path.name,
        path.era,
        connections,
        rate=spread("rate"),
        p50=spread("p50"),
        p99=spread("p99"),
        cpu_ms=spread("cpu_ms"),
    )


def compared(rows: list[Row]) -> list[Row]:
    """Add how often the bare pass-through's CPU each row takes."""
    bare = {(one.era, one.connections): one.cpu_ms[0] for one in rows if one.path == BARE}
    for one in rows:
        base = bare.get((one.era, one.connections))
        if base and one.path != "direct":
            one.times_bare = round(one.cpu_ms[0] / base, 2)
    return rows


def show(rows: Sequence[Row]) -> None:
    titles = ("path", "client era", "conn", "calls/s", "p50 ms", "p99 ms", "CPU ms/call", "x bare")
    lines: list[tuple[str, ...]] = [titles]
    for one in rows:
        low, high = one.cpu_ms[1:]
        lines.append(
            (
                one.path,
                one.era,
                str(one.connections),
                f"{one.rate[0]:,.0f}",
                f"{one.p50[0]:.3f}",
                f"{one.p99[0]:.3f}",
                f"{one.cpu_ms[0]:.4f} ({low:.4f} to {high:.4f})",
                "" if one.times_bare is None else f"{one.times_bare:.2f}",
            )
        )
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of each path")
    parser.add_argument("--connections", default="1,16,64", help="comma-separated")
    parser.add_argument("--json", metavar="FILE", help="write every figure there too")
    words = parser.parse_args(argv)
    counts = [int(text) for text in words.connections.split(",")]
    with paths() as found:
        rows = measure(found, connections=counts, rounds=words.rounds, seconds=words.seconds)
    show(rows)
    if words.json:
        about = {"python": platform.python_version(), "machine": platform.machine()}
        content = {"rows": rows, **about, "rounds": words.rounds, "seconds": words.seconds}
        Path(words.json).write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

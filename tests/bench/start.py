"""What a start costs: `python -m tests.bench.start`.

`mcpgw --help`, `mcpgw serve` until it serves, and its memory with three stdio servers registered
but idle; with bytecode, as pip installs it. The first run writes the bytecode and is not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.bench import procs
from tests.children import gateway

ROUNDS = 5
BARS = {"help_seconds": 0.25, "ready_seconds": 0.6, "resident_mb": 60.0}
"""What each may come to on an idle machine."""


class Start(msgspec.Struct):
    """Medians."""

    help_seconds: float
    ready_seconds: float
    resident_mb: float


def measure(rounds: int = ROUNDS) -> Start:
    with tempfile.TemporaryDirectory(prefix="mcpgw-bench-") as folder:
        store = Path(folder) / "start.db"
        for name in ("one", "two", "three"):
            procs.cli(store, "server", "add", name, "--", sys.executable, "-m", "mcpgw.demo.stdio")
        helped = [_help() for _ in range(rounds + 1)][1:]
        served = [_serve(store) for _ in range(rounds + 1)][1:]
    ready, resident = zip(*served, strict=True)
    return Start(
        round(statistics.median(helped), 4),
        round(statistics.median(ready), 4),
        round(statistics.median(resident), 1),
    )


def _help() -> float:
    began = time.perf_counter()
    subprocess.run(gateway("--help"), env=procs.environment(), capture_output=True, check=True)
    return time.perf_counter() - began


def _serve(store: Path) -> tuple[float, float]:
    """Seconds until it serves, and MB then."""
    began = time.perf_counter()
    with procs.serving(store) as (_, pid):
        return time.perf_counter() - began, procs.resident(pid)


def main() -> int:
    start = measure()
    told = msgspec.to_builtins(start)
    for name, bar in BARS.items():
        print(f"{name:14} {told[name]:8.3f}   bar {bar:g}", file=sys.stderr)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What permits cost: `python -m tests.bench.access [--keys N]`.

A store of N keys in teams and organizations, with groups and policies, over 200 servers is read
into snapshots: how long that takes, what memory each key takes, how long one decision does; and
how each grows with the number of keys.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from mcpgw.core.access import Access, Ladder
from mcpgw.model.config import Snapshot
from mcpgw.store import groups, holders, permits, policies
from mcpgw.store.db import Store
from mcpgw.store.registry import ServerDraft, add_server
from mcpgw.store.secrets import Resolver
from mcpgw.store.snapshot import build
from mcpgw.store.vault import Vault

KEYS, TEAMS, ORGS, SERVERS, TOOLS = 10_000, 500, 20, 200, 100
T = TypeVar("T")

NOW = 1_800_000_000.0
ROUNDS = 5
BARS = {"build_seconds": 1.0, "decision_us": 5.0, "key_bytes": 4096.0}
"""What each may come to on an idle machine, at 10,000 keys."""


class Cost(msgspec.Struct):
    """Medians of several rounds. active_bytes: of a key in use, compiled for its servers."""

    keys: int
    build_seconds: float
    decision_us: float
    refusal_us: float
    compile_us: float
    key_bytes: float
    active_bytes: float


def fill(store: Store, keys: int) -> None:
    """Servers, organizations, teams, groups, a policy, and keys with three grants each."""
    with store.change() as connection:
        for at in range(SERVERS):
            add_server(store, ServerDraft(name=f"s{at}", url=f"https://s{at}.example/mcp"))
        groups.add_group(store, "reading", [f"s{at}/get_*" for at in range(20)])
        policies.add_policy(store, "safe", denies=["*/drop_*", "*/delete_*"])
        for at in range(ORGS):
            holders.add_org(store, f"o{at}")
            permits.deny(store, f"o{at}", ["*/admin_*"], holder="org")
            policies.attach_policy(store, "safe", "org", f"o{at}")
        for at in range(TEAMS):
            holders.add_team(store, f"t{at}", org=f"o{at % ORGS}")
            wide = [f"s{(at + step) % SERVERS}" for step in range(10)]
            permits.grant(store, f"t{at}", [*wide, "group:reading"], holder="team")
        teams = [
            row[0]
            for row in store.query("SELECT id FROM holders WHERE kind = 'team' ORDER BY rowid")
        ]
        servers = [row[0] for row in store.query("SELECT id FROM servers ORDER BY rowid")]
        # Keys are written straight: what is measured is how they are read.
        ids = [f"key_{at:016x}" for at in range(keys)]
        connection.executemany(
            "INSERT INTO holders (id, kind, name, parent, restricted, created) "
            "VALUES (?, 'key', ?, ?, ?, 0)",
            [(id, f"k{at}", teams[at % TEAMS], int(at % 3 > 0)) for at, id in enumerate(ids)],
        )
        connection.executemany("INSERT INTO keys VALUES (?, 'mcpgw_', NULL)", [(k,) for k in ids])
        connection.executemany(
            "INSERT INTO key_secrets VALUES (?, ?, NULL)",
            [(hashlib.sha256(id.encode()).digest(), id) for id in ids],
        )
        connection.executemany(
            "INSERT INTO grants (holder, effect, server, kind, glob) VALUES (?, 'allow', ?, ?, ?)",
            [
                (id, servers[(at % TEAMS + step) % SERVERS], "tool", glob)
                for at, id in enumerate(ids)
                if at % 3
                for step, glob in enumerate(("get_*", f"tool_{at % TOOLS}", "*_all"))
            ],
        )


def measure(keys: int, rounds: int = ROUNDS) -> Cost:
    with tempfile.TemporaryDirectory(prefix="mcpgw-bench-") as folder:
        with Store.open(Path(folder) / "few.db") as store:
            fill(store, 0)
            _, base = _traced(lambda: build(store, Resolver(Vault(store)), now=NOW))
        with Store.open(Path(folder) / "many.db") as store:
            fill(store, keys)
            secrets = Resolver(Vault(store))
            took = [_seconds(lambda: build(store, secrets, now=NOW)) for _ in range(rounds)]
            snapshot, size = _traced(lambda: build(store, secrets, now=NOW))
    some = list(snapshot.principals.values())[1 :: max(1, keys // 1000)][:1000]
    _, active = _traced(lambda: [_compiled(snapshot, who.id) for who in some])
    one = _compiled(snapshot, some[0].id)
    return Cost(
        keys=keys,
        build_seconds=round(statistics.median(took), 3),
        decision_us=_micros(one, "get_x"),
        refusal_us=_micros(one, "drop_x"),
        compile_us=round(_seconds(lambda: _compiled(snapshot, some[0].id)) * 1e6, 1),
        key_bytes=round((size - base) / keys),
        active_bytes=round((size - base) / keys + active / len(some)),
    )


def _compiled(snapshot: Snapshot, key: str) -> list[Access]:
    """Access to each server that a key was granted something of, as a view holds it."""
    principal = snapshot.principals[key]
    ladder = Ladder(principal)
    found = (Access(principal, server, ladder) for server in snapshot.servers.values())
    return [access for access in found if access.usable]


def _micros(usable: list[Access], native: str) -> float:
    count = 2000

    def many() -> None:
        for _ in range(count):
            for access in usable:
                access.allows("tool", native)

    return round(min(_seconds(many) for _ in range(5)) / (count * len(usable)) * 1e6, 2)


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _traced(work: Callable[[], T]) -> tuple[T, int]:
    gc.collect()
    tracemalloc.start()
    made = work()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return made, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=KEYS, help="the largest number of keys")
    most = parser.parse_args().keys
    costs = [measure(max(1, most // part)) for part in (8, 4, 2, 1)]
    for cost in costs:
        print(
            f"{cost.keys:6} keys: build {cost.build_seconds:6.3f} s, allowed {cost.decision_us} µs,"
            f" denied {cost.refusal_us} µs, compiled in {cost.compile_us} µs,"
            f" {cost.key_bytes:.0f} bytes a key, {cost.active_bytes:.0f} in use",
            file=sys.stderr,
        )
    print(json.dumps({"access": msgspec.to_builtins(costs), "bars": BARS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

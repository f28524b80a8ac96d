"""The figures that a user would notice, with limits wide enough for a busy machine.

They fail when something costs several times what it should; `python -m tests.bench` has the truth.
"""

from __future__ import annotations

import pytest

from tests.bench import __main__ as bench
from tests.bench import access, start

BUSY = 3.0  # how many times slower than its bar a start may be while other things run
CALL_MS = 0.5  # CPU per relayed call; the bar on an idle machine is 0.25
TIMES_BARE = 6.0  # of the bare pass-through's CPU
SLOW_CALL_MS = 60.0  # p99 at 16 connections

pytestmark = pytest.mark.slow


def test_a_start_is_quick_and_small() -> None:
    found = start.measure(rounds=3)
    assert found.help_seconds <= start.BARS["help_seconds"] * BUSY
    assert found.ready_seconds <= start.BARS["ready_seconds"] * BUSY
    assert found.resident_mb <= start.BARS["resident_mb"] * 1.2  # memory does not depend on load


def test_a_relayed_call_is_cheap_on_every_path() -> None:
    with bench.paths() as found:
        rows = bench.measure(found, connections=[16], rounds=1, seconds=1.0)
    relayed = [row for row in rows if row.path.startswith(bench.GATEWAY)]
    assert len(relayed) == 5
    for row in relayed:
        assert row.cpu_ms[0] <= CALL_MS, row
        assert row.p99[0] <= SLOW_CALL_MS, row
        assert row.times_bare is not None
        assert row.times_bare <= TIMES_BARE, row


def test_permits_cost_little_however_many_there_are() -> None:
    few, many = access.measure(1000, rounds=1), access.measure(access.KEYS, rounds=3)
    assert many.build_seconds <= access.BARS["build_seconds"] * BUSY
    assert many.decision_us <= access.BARS["decision_us"]
    assert many.active_bytes <= access.BARS["key_bytes"]
    assert many.decision_us <= few.decision_us * BUSY

"""The era matrix: every client revision against every server revision, feature by feature.

Both sides of a pair speak one revision over one transport and know nothing else, so that only a
bridge can have brought what arrives. Two principals run every feature at the same time, with the
same request ids. What is impossible is written down in `features`, and its answer asserted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import traceback
from collections.abc import Generator
from typing import TypeAlias

import anyio.from_thread
import pytest

from tests.contract import table
from tests.contract.features import FEATURES, Cell
from tests.contract.stage import CLIENTS, REVISIONS, SERVERS, Side, Stage, staged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FEATURE_TIME = 30.0  # seconds one feature may take for one pair

Run: TypeAlias = tuple[anyio.from_thread.BlockingPortal, Stage]
_runs = itertools.count(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Run]:
    with (
        anyio.from_thread.start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(staged(tmp_path_factory.mktemp("matrix"))) as standing,
    ):
        yield portal, standing


@pytest.mark.parametrize("server", SERVERS, ids=lambda side: f"to-{side}")
@pytest.mark.parametrize("client", CLIENTS, ids=lambda side: f"from-{side}")
def test_pair(stage: Run, client: Side, server: Side) -> None:
    portal, standing = stage
    failures = portal.call(_pair, standing, client, server)
    report = "\n".join(f"--- {feature}\n{reason}" for feature, reason in failures.items())
    assert not failures, f"{client} to {server}: {', '.join(failures)}\n{report}"


async def _pair(stage: Stage, client: Side, server: Side) -> dict[str, str]:
    """What failed, by feature."""
    failures: dict[str, str] = {}
    run = f"r{next(_runs)}"
    wanted = os.environ.get("MATRIX_FEATURES")
    async with (
        stage.client(client, server, "alice") as alice,
        stage.client(client, server, "bob") as bob,
    ):
        for feature, row in FEATURES.items():
            if wanted and feature not in wanted.split(","):
                continue
            cells = [Cell(one, server, stage.journal, feature, run) for one in (alice, bob)]
            try:
                async with asyncio.timeout(FEATURE_TIME):
                    outcomes = await asyncio.gather(
                        *(row.run(cell) for cell in cells), return_exceptions=True
                    )
            except TimeoutError as late:
                outcomes = [late]
            for cell, outcome in zip(cells, outcomes, strict=False):
                problems, cell.client.problems = cell.client.problems, []
                if isinstance(outcome, BaseException):
                    failures[f"{feature} ({cell.client.who})"] = "".join(
                        traceback.format_exception(outcome)
                    )
                elif problems:
                    failures[f"{feature} ({cell.client.who})"] = "\n".join(problems)
    return failures


def test_readme_has_the_table_of_the_matrix() -> None:
    readme = table.README.read_text()
    assert readme == table.placed(readme), "run: python -m tests.contract.table --write"


def test_every_impossible_pair_has_a_reason_and_stands_once() -> None:
    for feature, row in FEATURES.items():
        for client, server in itertools.product(REVISIONS, REVISIONS):
            rows = [
                one for one in row.impossible if client in one.clients and server in one.servers
            ]
            assert all(one.reason and one.answer for one in rows), feature
            assert len([one for one in rows if not one.absent]) <= 1, (feature, client, server)

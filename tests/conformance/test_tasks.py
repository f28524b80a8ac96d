"""The official suite's scenarios of the Tasks extension, through a real gateway."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.children import module
from tests.conformance import suite
from tests.conformance.test_server import with_key
from tests.e2e.gateway import House, child
from tests.servers import tasks

pytestmark = [pytest.mark.peer, pytest.mark.timeout(400)]

SCENARIOS = (
    "tasks-capability-negotiation",
    "tasks-dispatch-and-envelope",
    "tasks-lifecycle",
    "tasks-mrtr-composition",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-request-state-removal",
    "tasks-required-task-error",
    "tasks-wire-fields",
)
EMPTY = "tasks-status-notifications"  # the suite lists it and tests nothing
DIRECT, GATEWAY = "direct", "gateway"


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    house = House(tmp_path_factory.mktemp("tasks"))
    with child(module("tests.servers.tasks"), tasks.READY) as (line, _):
        direct = line.removeprefix(tasks.READY).strip()
        house.done("server", "add", "tasks", "--url", direct)
        secret = house.key("suite", "tasks")
        with house.serving() as address, with_key(address, secret) as front:
            yield {DIRECT: direct, GATEWAY: f"{front}/mcp/tasks"}


def test_these_are_all_scenarios_there_are() -> None:
    listed = {word for word in suite.listed("--server").split() if word.startswith("tasks-")}
    assert {word.strip(",:") for word in listed} == {*SCENARIOS, EMPTY}


@pytest.mark.parametrize("way", [DIRECT, GATEWAY])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(urls: dict[str, str], tmp_path: Path, scenario: str, way: str) -> None:
    leg = suite.run(tmp_path, "server", "--url", urls[way], "--scenario", scenario)
    leg.must_pass(1)

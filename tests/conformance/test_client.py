"""The official suite's client scenarios, with the gateway's upstream side as the client."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.children import module
from tests.conformance import suite
from tests.e2e.gateway import House

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

SCENARIOS = {
    "2025-11-25": (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}
AUTH = "auth/"


@dataclass
class Setting:
    """A running gateway, and the environment in which the suite's command finds it."""

    environment: dict[str, str]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Setting]:
    house = House(tmp_path_factory.mktemp("conformance"))
    secret = house.key("suite", "*")
    with house.serving() as address:
        yield Setting({**house.environment, "GATEWAY": address, "GATEWAY_KEY": secret})


@pytest.mark.parametrize(
    ("spec", "scenario"), [(spec, name) for spec, names in SCENARIOS.items() for name in names]
)
def test_every_scenario_passes(setting: Setting, tmp_path: Path, spec: str, scenario: str) -> None:
    command = shlex.join(module("tests.conformance.client"))
    words = ("client", "--command", command, "--scenario", scenario, "--spec-version", spec)
    leg = suite.run(tmp_path, *words, "--timeout", "60000", environment=setting.environment)
    leg.must_pass(1)


@pytest.mark.parametrize("spec", suite.SPECS)
def test_no_scenario_is_forgotten(spec: str) -> None:
    told = suite.listed("--client", "--spec-version", spec)
    found = re.findall(r"^  - (\S+) \[", told, re.MULTILINE)
    assert {name for name in found if not name.startswith(AUTH)} == set(SCENARIOS[spec])

"""The official suite's server scenarios through a real gateway that asks for a key."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.children import module
from tests.conformance import relay, suite, upstream
from tests.e2e.gateway import House, child

pytestmark = [pytest.mark.peer, pytest.mark.timeout(400)]

SCENARIOS = {"2025-11-25": 33, "2026-07-28": 40}
DIRECT = "direct"
UPSTREAMS = ("http", "stdio")

FEWER: Mapping[tuple[str, str], str] = {
    ("stdio", "server-sse-polling"): "a server on stdio has no stream that it could let go of",
}
"""(upstream, scenario) → why fewer checks pass through the gateway than directly."""


@dataclass
class Setting:
    """Addresses of the upstream itself, and of the gateway in front of each of its transports."""

    urls: dict[str, str]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Setting]:
    house = House(tmp_path_factory.mktemp("conformance"))
    with child(module("tests.conformance.upstream"), upstream.READY) as (line, _):
        direct = line.removeprefix(upstream.READY).strip()
        add = ("server", "add")
        house.done(*add, "http", "--url", direct)
        house.done(*add, "stdio", "--", *module("tests.conformance.upstream", "--stdio"))
        secret = house.key("suite", *UPSTREAMS)
        with house.serving() as address, with_key(address, secret) as front:
            yield Setting({DIRECT: direct, **{name: f"{front}/mcp/{name}" for name in UPSTREAMS}})


@contextlib.contextmanager
def with_key(address: str, secret: str) -> Generator[str]:
    """The same address for clients that cannot send a key."""
    command = module("tests.conformance.relay", str(urlsplit(address).port))
    environment = {"RELAY_HEADER": f"Authorization: Bearer {secret}"}
    with child(command, relay.READY, env=environment) as (line, _):
        yield f"http://127.0.0.1:{line.removeprefix(relay.READY).strip()}"


class Legs:
    """Runs of the suite, each made once."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._folder = folder
        self._done: dict[tuple[str, str | None], suite.Leg] = {}

    def of(self, name: str, spec: str | None) -> suite.Leg:
        key = (name, spec)
        if key not in self._done:
            folder = self._folder / f"{name}-{spec}"
            self._done[key] = suite.server(folder, self._setting.urls[name], spec)
        return self._done[key]


@pytest.fixture(scope="module")
def legs(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Legs:
    return Legs(setting, tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("spec", suite.SPECS)
def test_upstream_passes_by_itself(legs: Legs, spec: str) -> None:
    legs.of(DIRECT, spec).must_pass(SCENARIOS[spec])


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("spec", suite.SPECS)
def test_every_scenario_passes_through_the_gateway(legs: Legs, name: str, spec: str) -> None:
    legs.of(name, spec).must_pass(SCENARIOS[spec])


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("spec", suite.SPECS)
def test_as_many_checks_pass_as_directly(legs: Legs, name: str, spec: str) -> None:
    """A scenario can pass with fewer checks, when the suite skips what it is not offered."""
    direct, through = legs.of(DIRECT, spec).verdicts, legs.of(name, spec).verdicts
    fewer = {
        scenario: f"{through[scenario].passed} of {verdict.passed}"
        for scenario, verdict in direct.items()
        if through[scenario].passed < verdict.passed
    }
    assert fewer.keys() == {
        scenario for of, scenario in FEWER if of == name and scenario in direct
    }, fewer


def test_without_a_revision_the_same_scenarios_pass(legs: Legs) -> None:
    """This run alone has the scenarios of extensions, most of which the upstream does not have."""
    direct, through = legs.of(DIRECT, None), legs.of("http", None)
    assert through.verdicts.keys() == direct.verdicts.keys()
    assert set(through.passed) == set(direct.passed)
    assert len(direct.passed) > max(SCENARIOS.values())


def test_a_server_that_is_none_fails(tmp_path: Path) -> None:
    """The suite and the reading of its results can fail."""
    command = [sys.executable, "-c", _NO_SERVER]
    with child(command, "listens on ") as (line, _):
        url = f"http://127.0.0.1:{line.removeprefix('listens on ').strip()}/mcp"
        leg = suite.run(
            tmp_path, "server", "--url", url, "--scenario", "tools-list", "--timeout", "5000"
        )
    assert leg.status != 0
    with pytest.raises(AssertionError, match="0 of 1 pass"):
        leg.must_pass(1)


_NO_SERVER = """
import http.server, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
print("listens on", server.server_address[1], file=sys.stderr, flush=True)
server.serve_forever()
"""

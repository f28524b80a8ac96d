"""Permits that change while a real daemon serves: at once, and for nothing that runs already."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcpgw.store import holders, keys, permits
from mcpgw.store.db import Store
from tests.children import ROOT
from tests.e2e import wire
from tests.e2e.gateway import House
from tests.e2e.held import Legacy, daemon
from tests.e2e.wire import soon

ECHO = str(ROOT / "tests" / "servers" / "echo_stdio.py")
AT_ONCE = 0.5  # seconds until a change holds
STEPS = {"steps": 20, "pause": 0.1}


@dataclass
class Home:
    house: House
    url: str
    store: Store


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """A daemon with two servers, a team in an organization, and the store of both."""
    house = House(tmp_path)
    for name in ("echo", "other"):
        house.done("server", "add", name, "--", sys.executable, ECHO)
    with Store.open(tmp_path / "mcpgw.db") as store:
        holders.add_org(store, "acme")
        holders.add_team(store, "dev", org="acme")
        permits.grant(store, "dev", ["echo"], holder="team")
        with daemon(house) as (url, _):
            yield Home(house, url, store)


def made(home: Home, name: str, team: str | None = "dev") -> str:
    """A key's secret, once the daemon knows it."""
    _, secret = keys.create_key(home.store, name, team=team, now=time.time())
    soon(lambda: wire.ask(home.url, secret, "tools/list").status == 200)
    return secret


def ways(store: Store) -> list[tuple[Callable[[], object], Callable[[], object] | None]]:
    """What ends a key's streams, and how it is taken back."""
    return [
        (
            lambda: keys.set_key(store, "ann", enabled=False),
            lambda: keys.set_key(store, "ann", enabled=True),
        ),
        (
            lambda: holders.set_team(store, "dev", enabled=False),
            lambda: holders.set_team(store, "dev", enabled=True),
        ),
        (
            lambda: holders.set_org(store, "acme", enabled=False),
            lambda: holders.set_org(store, "acme", enabled=True),
        ),
        (lambda: keys.revoke_key(store, "ann", now=time.time()), None),
    ]


def test_whoever_may_no_longer_be_here_is_out_at_once(home: Home) -> None:
    ann, bob = made(home, "ann"), made(home, "bob", team=None)
    took: list[float] = []
    stays = Legacy(home.url, bob)
    for shut, opened in ways(home.store):
        session = Legacy(home.url, ann)
        with session.got() as stream:
            assert stream.event() is not None  # the priming one
            shut()
            began = time.monotonic()
            while stream.event() is not None:
                pass
            took.append(time.monotonic() - began)
        assert session.ask("ping").status == 401
        assert wire.ask(home.url, ann, "tools/list").status == 401
        assert stays.ask("ping").status == 200  # no other key notices
        if opened is not None:
            opened()
            soon(lambda: wire.ask(home.url, ann, "tools/list").status == 200)
    assert statistics.median(took) <= AT_ONCE, took
    assert max(took) <= 4 * AT_ONCE, took  # on a busy machine


def test_a_change_of_permits_holds_at_once_on_every_address(home: Home) -> None:
    ann = made(home, "ann")
    assert {name.partition("__")[0] for name in wire.tools(home.url, ann)} == {"echo"}
    assert wire.call(home.url, ann, "echo__echo", text="hi").text == "hi"
    home.house.done("group", "add", "some", "echo/echo", "other/echo")
    home.house.done("team", "grant", "dev", "group:some")
    soon(lambda: "other__echo" in wire.tools(home.url, ann))
    assert wire.tools(home.url, ann, "/mcp/@some") == ["echo__echo", "other__echo"]
    home.house.done("policy", "add", "safe", "--deny", "*/echo")
    home.house.done("policy", "attach", "safe", "org:acme")
    soon(lambda: wire.ask(home.url, ann, "tools/list", "/mcp/@some").status == 404)
    assert "echo__echo" not in wire.tools(home.url, ann)
    refused = wire.call(home.url, ann, "echo__echo", text="hi")
    absent = wire.call(home.url, ann, "echo__nothing", text="hi")
    assert refused.status == absent.status
    assert refused.error["code"] == absent.error["code"]
    assert refused.error["message"] == "Unknown tool: echo__echo"
    assert absent.error["message"] == "Unknown tool: echo__nothing"
    told = home.house.run("access", "explain", "ann", "echo__echo")
    assert told.returncode == 4
    assert "organization acme" in told.stdout
    home.house.done("key", "set", "ann", "--clear", "team")
    soon(lambda: wire.tools(home.url, ann) == [])


@pytest.mark.parametrize("change", ["ungrant", "disable"])
def test_a_call_that_runs_keeps_what_it_began_with(home: Home, change: str) -> None:
    ann = made(home, "ann")
    said: list[wire.Answer] = []

    def run() -> None:
        said.append(wire.call(home.url, ann, "echo__progress", **STEPS))

    call = threading.Thread(target=run)
    call.start()
    soon(lambda: any(link["in_flight"] for link in home.house.told("status")["links"]))
    if change == "ungrant":
        permits.ungrant(home.store, "dev", ["echo"], holder="team")
        soon(lambda: wire.tools(home.url, ann) == [])
        refused = wire.call(home.url, ann, "echo__progress", **STEPS)
        assert refused.error["message"] == "Unknown tool: echo__progress"
    else:
        keys.set_key(home.store, "ann", enabled=False)
        soon(lambda: wire.ask(home.url, ann, "tools/list").status == 401)
    assert not said  # it runs still
    call.join(wire.PATIENCE)
    assert said[0].text == "done"

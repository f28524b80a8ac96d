"""Sessions and streams of real processes: resumed, idle, too many, and outlived by a restart."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.children import ROOT, module
from tests.conformance import upstream
from tests.e2e import wire
from tests.e2e.gateway import House, child
from tests.e2e.held import Legacy, Stream, daemon, free_port
from tests.e2e.wire import soon

ECHO = str(ROOT / "tests" / "servers" / "echo_stdio.py")
STEPS = {"name": "echo__progress", "arguments": {"steps": 6, "pause": 0.05}}
TOKEN = {"_meta": {"progressToken": "p"}}


@dataclass
class Home:
    house: House
    alice: str
    bob: str


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A legacy server behind the gateway, and two keys for it."""
    house = House(tmp_path)
    house.done("server", "add", "echo", "--", sys.executable, ECHO)
    return Home(house, house.key("alice", "*"), house.key("bob", "*"))


@pytest.fixture
def running(home: Home) -> Generator[str]:
    with daemon(home.house) as (url, _):
        yield url


def counts(session: Legacy) -> dict[str, int]:
    """How often the server got each method."""
    return json.loads(session.call("echo__counts", "counts").text)


# ------------------------------------------------------------ streams that are taken up again


def begun(stream: Stream) -> str:
    """Read to the first progress; the id of its event."""
    priming = stream.event()
    assert priming is not None
    assert priming.id
    assert priming.data == b""
    assert priming.retry is not None
    first = stream.event()
    assert first is not None
    assert first.message["method"] == "notifications/progress"
    assert first.id
    return first.id


def test_a_broken_stream_is_taken_up_where_it_broke(running: str, home: Home) -> None:
    session = Legacy(running, home.alice)
    with session.posted("tools/call", **STEPS, **TOKEN) as stream:
        last = begun(stream)
    with session.got(last) as stream:
        *steps, answer = [event.message for event in stream.rest()]

    assert [step["params"]["progress"] for step in steps] == [2, 3, 4, 5, 6]
    assert answer["id"] == 1
    assert answer["result"]["content"][0]["text"] == "done"
    assert counts(session)["tools/call"] == 2  # once, and this very question


def test_an_answer_waits_for_a_client_that_was_away(running: str, home: Home) -> None:
    session = Legacy(running, home.alice)
    with session.posted("tools/call", **STEPS, **TOKEN) as stream:
        last = begun(stream)
    assert counts(session)  # other work goes on meanwhile
    soon(lambda: home.house.told("status")["links"][0]["in_flight"] == 0)
    with session.got(last) as stream:
        assert stream.answer()["result"]["content"][0]["text"] == "done"


def test_a_stream_replays_itself_alone(running: str, home: Home) -> None:
    session = Legacy(running, home.alice)
    with (
        session.posted("tools/call", "a", **STEPS, **TOKEN) as one,
        session.posted("tools/call", "b", **STEPS, **TOKEN) as two,
    ):
        first, second = begun(one), begun(two)
    assert first != second
    for last, id in ((first, "a"), (second, "b")):
        with session.got(last) as stream:
            answers = [m for event in stream.rest() if "id" in (m := event.message)]
        assert [answer["id"] for answer in answers] == [id]


def test_a_stream_is_its_sessions_alone(running: str, home: Home) -> None:
    mine, other = Legacy(running, home.alice), Legacy(running, home.alice)
    with mine.posted("tools/call", **STEPS, **TOKEN) as stream:
        last = begun(stream)
    with other.got(last) as stream:
        assert stream.status == 400
    theirs = Legacy(running, home.bob)
    theirs.id = mine.id
    with theirs.got(last) as stream:
        assert stream.status == 404


# ------------------------------------------------------------ how long, and how many


def test_an_idle_session_ends_and_a_used_one_does_not(home: Home) -> None:
    with daemon(home.house, front__sessions__IDLE=1.5) as (url, _):
        idle, used = Legacy(url, home.alice), Legacy(url, home.alice)
        end = time.monotonic() + 4.0  # time itself is what is tested
        while time.monotonic() < end:
            assert used.ask("ping").status == 200
            time.sleep(0.2)
        assert idle.ask("ping").status == 404


def test_a_held_stream_does_not_keep_a_session_for_ever(home: Home) -> None:
    short = daemon(home.house, front__sessions__IDLE=0.5, front__sessions__IDLE_LISTENING=2.0)
    with short as (url, _):
        session = Legacy(url, home.alice)
        with session.got() as stream:
            assert stream.status == 200
            assert stream.event() is not None  # the priming one
            assert stream.event() is None  # the gateway ended it
        assert session.ask("ping").status == 404


def test_a_key_has_so_many_sessions(home: Home) -> None:
    with daemon(home.house, front__sessions__MAX_OF_ONE=2) as (url, _):
        idle, held = Legacy(url, home.alice), Legacy(url, home.alice)
        with held.got() as stream:
            assert stream.event() is not None
            third = Legacy(url, home.alice)
            assert third.began.status == 200
            assert idle.ask("ping").status == 404  # the one that was not used went
            with third.got() as second:
                assert second.event() is not None
                refused = Legacy(url, home.alice).began
                assert refused.status == 429
                assert int(refused.headers["retry-after"]) > 0
                assert Legacy(url, home.bob).began.status == 200
            assert held.ask("ping").status == 200


# ------------------------------------------------------------ servers that come and go


def test_a_server_that_forgot_its_sessions_is_met_again_unnoticed(home: Home) -> None:
    port = str(free_port())
    serving = (module("tests.conformance.upstream", port), upstream.READY)
    with child(*serving) as (line, first):
        url = line.removeprefix(upstream.READY).strip()
        home.house.done("server", "add", "old", "--url", url)
        with daemon(home.house) as (gateway, _):
            session = Legacy(gateway, home.alice, elicitation={})
            before = session.call("old__test_simple_text")
            first.process.kill()
            first.process.wait()
            with child(*serving):
                after = session.call("old__test_simple_text")
            assert before.text == after.text


def test_a_call_that_ended_its_server_is_not_made_again(running: str, home: Home) -> None:
    session = Legacy(running, home.alice)
    assert session.call("echo__echo", text="hi").text == "hi"

    crashed = session.call("echo__crash")

    assert crashed.error["code"] == -32000
    assert session.call("echo__echo", text="again").text == "again"
    assert counts(session)["tools/call"] == 2  # of the new process: what came after the crash


# ------------------------------------------------------------ a restart of the gateway


def test_after_a_restart_a_legacy_client_is_told_to_begin_again(home: Home) -> None:
    port = free_port()
    with daemon(home.house, port) as (url, process):
        session = Legacy(url, home.alice)
        with session.got() as stream:
            assert stream.event() is not None
            assert process.end() == 0
            assert stream.event() is None
    with daemon(home.house, port) as (url, _):
        gone = session.ask("ping")
        unknown = Legacy(url, home.alice)
        unknown.id = "11223344-" + "a" * 32
        assert gone.status == 404
        assert gone.body == unknown.ask("ping").body
        assert Legacy(url, home.alice).call("echo__echo", text="hi").text == "hi"


def test_after_a_restart_a_modern_client_goes_on(home: Home) -> None:
    port = free_port()
    with daemon(home.house, port) as (url, process):
        before = wire.call(url, home.alice, "echo__echo", text="hi")
        filter = {"toolsListChanged": True}
        body = wire.modern("subscriptions/listen", "l", notifications=filter)
        headers = wire.fields(
            home.alice, mcp_protocol_version=wire.MODERN, mcp_method="subscriptions/listen"
        )
        with wire.raw(url, _request(body, headers)) as listening:
            wire.until(listening, b"acknowledged")
            assert process.end() == 0
            told = wire.until_end(listening)
        assert b'"resultType":"complete"' in told.replace(b" ", b"")
    with daemon(home.house, port) as (url, _):
        assert wire.call(url, home.alice, "echo__echo", text="hi").text == before.text


def _request(body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(["POST /mcp HTTP/1.1", "host: 127.0.0.1", *lines])
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

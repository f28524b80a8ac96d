"""Servers that are none, and those that misbehave: a clear answer, and nothing is lost by it.

Real processes and real sockets. Every house here has a good server, and after each fault the store
and that server still work.
"""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.home import (
    ECHO,
    Home,
    Web,
    alive,
    answering,
    daemon,
    refused_everywhere,
    well,
)
from tests.e2e.wire import ask, call, fields, initialize, legacy, send, soon, tools

pytestmark = pytest.mark.slow

SECRET = "sw0rdfish-value"
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {"UPSTREAM": SECRET}).settle()


# ---------------------------------------------------------------- names and commands


def test_an_unknown_server(home: Home) -> None:
    error = home.refused("server", "show", "goood")
    assert (error["code"], error["exit"]) == ("no_such_server", 3)
    assert "good" in error["next"]
    for words in (("server", "test", "nobody"), ("tools", "list", "--server", "nobody")):
        assert home.refused(*words)["exit"] == 3
    with home.serving() as url:
        assert ask(url, home.secret, "tools/list", "/mcp/nobody").status == 404
        error = call(url, home.secret, "nobody__tool").error
        assert (error["code"], error["message"]) == (-32602, "Unknown tool: nobody__tool")
        well(url, home.secret)
    home.unharmed()


def test_a_taken_name(home: Home) -> None:
    home.done("alias", "add", "nice", "good")
    for name in ("good", "GOOD", "nice"):
        error = home.refused("server", "add", name, "--url", "https://example.com/mcp")
        assert error["exit"] == 3
        assert error["next"].startswith("mcpgw ")
    assert home.refused("alias", "add", "good", "good")["exit"] == 3
    assert home.refused("key", "create", "all")["exit"] == 3
    home.unharmed()


def test_a_command_that_does_not_exist(home: Home) -> None:
    home.done("server", "add", "bad", "--", "/no/such/command", "x")
    refused_everywhere(home, "/no/such/command is not found")


def test_a_command_that_exits_at_once(home: Home) -> None:
    """Its last words are shown, to whoever calls it as well, without the secrets in them."""
    home.add("bad", "--fault", "exit", options=("--env", "TOKEN=env:UPSTREAM"))
    words = ("exited with status 3", "cannot start", "because of")
    refused_everywhere(home, *words)
    told = home.refused("tools", "call", "bad/echo")
    shown = told["what"] + (told["why"] or "")
    assert all(word in shown for word in words)
    with home.serving() as url:
        session, _ = initialize(url, home.secret)
        headers = fields(home.secret, mcp_session_id=session)
        body = legacy("tools/call", name="bad__echo", arguments={})
        said = [shown, send(url, body=body, headers=headers).error["message"]]
        said.append(call(url, home.secret, "bad__echo").error["message"])
    assert all(word in text for word in words for text in said)
    assert not any(SECRET in text for text in said)


# ---------------------------------------------------------------- URLs


def test_a_url_that_refuses(home: Home) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.done("server", "add", "bad", "--url", f"http://127.0.0.1:{port}/mcp")
    refused_everywhere(home, "cannot be reached", f"127.0.0.1:{port}: Connection refused")


def test_a_name_that_does_not_resolve(home: Home) -> None:
    home.done("server", "add", "bad", "--url", "http://no-such-host.invalid/mcp")
    refused_everywhere(home, "cannot be reached", "no-such-host.invalid")


def test_a_url_that_never_answers(home: Home) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        place = f"http://127.0.0.1:{hole.getsockname()[1]}/mcp"
        home.done("server", "add", "bad", "--url", place, "--timeout", "1")
        refused_everywhere(home, "did not answer")


def test_a_url_that_answers_html(home: Home) -> None:
    with Web(answering(200, b"<html>Sign in</html>", "text/html; charset=utf-8")) as web:
        home.done("server", "add", "bad", "--url", web.url)
        refused_everywhere(home, "text/html", "is the URL right?")


def test_a_url_that_answers_401(home: Home) -> None:
    challenge = 'Bearer resource_metadata="https://x.test/m"'
    with Web(answering(401, b"{}", www_authenticate=challenge)) as web:
        home.done("server", "add", "bad", "--url", web.url)
        refused_everywhere(home, "401")


def test_a_url_that_redirects(home: Home) -> None:
    """Credentials go where the person said, and nowhere else."""
    with Web(answering(200, b"{}")) as other:
        with Web(answering(307, b"", location=other.url)) as web:
            words = ("--auth", "bearer", "--secret", "env:UPSTREAM")
            home.done("server", "add", "bad", "--url", web.url, *words)
            refused_everywhere(home, "redirects", "is not followed")
        assert web.seen[0]["authorization"] == f"Bearer {SECRET}"
        assert other.seen == []


def test_a_url_that_sends_a_compression_bomb(home: Home) -> None:
    bomb = gzip.compress(b'{"jsonrpc": "2.0", "id": 1, "result": {"x": "' + b"0" * 200_000_000)
    with Web(answering(200, bomb, content_encoding="gzip")) as web:
        home.done("server", "add", "bad", "--url", web.url)
        refused_everywhere(home, "not MCP")


def test_an_event_stream_that_names_an_endpoint_elsewhere(home: Home) -> None:
    told = b"event: endpoint\ndata: http://evil.test/steal\n\n"
    with Web(answering(200, told, "text/event-stream")) as web:
        words = ("--auth", "bearer", "--secret", "env:UPSTREAM", "--transport", "sse")
        home.done("server", "add", "bad", "--url", web.url, *words)
        refused_everywhere(home, "another origin")


# ---------------------------------------------------------------- while they run


def test_junk_on_standard_output(home: Home) -> None:
    home.add("loud", "--fault", "junk")
    with daemon(home) as (url, child):
        assert call(url, home.secret, "loud__echo", text="still here").text == "still here"
        assert any("sent what is no MCP message" in line for line in child.lines)
        well(url, home.secret)
    home.unharmed()


def test_a_dead_server_delays_nobody_elses_list(home: Home) -> None:
    """A server that never answers costs the first list its patience, and no list after that."""
    home.add("mute", "--fault", "mute")
    other, third = home.key("other", "good"), home.key("third", "*")
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        place = f"http://127.0.0.1:{hole.getsockname()[1]}/mcp"
        home.done("server", "add", "hole", "--url", place)
        with home.serving() as url:
            began = time.monotonic()
            assert "good__echo" in tools(url, other)  # may not use the dead ones
            assert time.monotonic() - began < 2
            began = time.monotonic()
            listed = ask(url, home.secret, "tools/list").result
            assert time.monotonic() - began < 7
            assert "good__echo" in [tool["name"] for tool in listed["tools"]]
            assert {"hole", "mute"} == set(_left_out(listed))
            for key in (home.secret, other, third):  # the third is new to the dead ones
                for ask_again in (tools, call):
                    began = time.monotonic()
                    ask_again(url, key, *(("good__echo",) if ask_again is call else ()))
                    assert time.monotonic() - began < 0.5


def _left_out(listed: object) -> list[str]:
    """Servers that a list names as missing."""
    text = json.dumps(listed)
    return [name for name in ("hole", "mute", "good") if f'"server": "{name}"' in text]


@POSIX
def test_a_child_is_killed_in_mid_call(home: Home) -> None:
    with daemon(home) as (url, _), concurrent.futures.ThreadPoolExecutor() as pool:
        well(url, home.secret)
        [pid] = home.children()
        calls = [pool.submit(call, url, home.secret, "good__slow", id, seconds=60) for id in (1, 2)]
        soon(lambda: home.in_flight() == 2)
        os.kill(pid, signal.SIGKILL)
        for one in calls:
            assert "SIGKILL" in one.result(5).error["message"]
        well(url, home.secret)
        assert home.children() != [pid]
    home.unharmed()


# ---------------------------------------------------------------- the daemon's own end

DEAF = f"""
import runpy, sys, time
sys.argv[0] = {ECHO!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    time.sleep(600)
"""
"""A server that goes on when its input has ended, as many do."""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends them")
def test_a_killed_daemon_leaves_no_children(home: Home) -> None:
    deaf = home.folder / "deaf.py"
    deaf.write_text(DEAF)
    home.done("server", "add", "deaf", "--", sys.executable, str(deaf))
    with daemon(home) as (url, child):
        well(url, home.secret)
        assert call(url, home.secret, "deaf__echo", text="x").text == "x"
        pids = home.children()
        assert len(pids) == 2
        child.process.kill()
        child.process.wait()
        soon(lambda: not any(alive(pid) for pid in pids), 3)
    with home.serving() as url:  # what the dead one left behind is in nobody's way
        well(url, home.secret)
    home.unharmed()


@POSIX
def test_a_signal_in_mid_call_lets_it_end(home: Home) -> None:
    with daemon(home) as (url, child), concurrent.futures.ThreadPoolExecutor() as pool:
        well(url, home.secret)
        pids = home.children()
        waiting = pool.submit(call, url, home.secret, "good__slow", seconds=1.5)
        soon(lambda: home.in_flight() == 1)
        child.process.terminate()
        assert waiting.result(5).text == "late"
        assert child.process.wait(5) == 0
        assert not any(alive(pid) for pid in pids)
    home.unharmed()


def test_two_principals_with_the_same_ids(home: Home) -> None:
    home.add("shared", options=("--isolate", "shared"))
    keys = [home.key(f"k{n}", "shared") for n in range(4)]
    with home.serving() as url, concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = [
            pool.submit(call, url, keys[n % 4], "shared__echo", 1, text=f"{n}") for n in range(64)
        ]
        assert [one.result(30).text for one in calls] == [f"{n}" for n in range(64)]
        assert len(home.children()) == 1

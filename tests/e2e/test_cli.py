"""The real command in real processes: statuses, streams, terminals and a running daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0  # seconds for anything that must happen; only a fault takes that long

SERVER = """
import json, sys

TOOLS = [
    {"name": "ping", "description": "Says pong.", "inputSchema": {"type": "object"},
     "annotations": {"readOnlyHint": True}},
    {"name": "echo", "title": "Echo", "description": "Says it again.", "inputSchema": {
        "type": "object", "required": ["text"], "properties": {
            "text": {"type": "string", "description": "What to say."},
            "times": {"type": "integer"}}}},
    {"name": "fail", "description": "Never works.", "inputSchema": {"type": "object"}},
    {"name": "ask", "description": "Asks who is there.", "inputSchema": {"type": "object"}},
    {"name": "hang", "description": "Never answers.", "inputSchema": {"type": "object"}},
    {"name": "paint", "description": "Red \\x1b[31mletters.", "inputSchema": {"type": "object"}},
]
PROMPTS = [{"name": "greet", "description": "Greets.", "arguments": [{"name": "who"}]}]


def call(name, given):
    if name == "ping":
        return {"content": [{"type": "text", "text": "pong"}]}
    if name == "echo":
        return {"content": [
            {"type": "text", "text": given["text"] * given.get("times", 1)},
            {"type": "image", "mimeType": "image/png", "data": "aGVsbG8="}],
            "structuredContent": {"given": given, "big": 123456789012345678901234567890}}
    if name == "paint":
        return {"content": [{"type": "text", "text": "\\x1b]0;title\\x07red"}]}
    return {"content": [{"type": "text", "text": "it broke"}], "isError": True}


def ask():
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    print(json.dumps({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {
        "message": "Who is there?", "requestedSchema": schema}}), flush=True)
    told = json.loads(sys.stdin.readline())
    return {"content": [{"type": "text", "text": json.dumps(told.get("result", "refused"))}]}


def answer(method, params):
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "serverInfo": {"name": "small", "version": "1"},
                "capabilities": {"tools": {}, "prompts": {}, "resources": {}}}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return call(params["name"], params.get("arguments", {}))
    if method == "prompts/list":
        return {"prompts": PROMPTS}
    if method == "prompts/get":
        who = params.get("arguments", {}).get("who", "you")
        return {"messages": [{"role": "user", "content": {"type": "text", "text": "Hi " + who}}]}
    if method == "resources/list":
        return {"resources": [{"uri": "note://1", "name": "one"}]}
    if method == "resources/templates/list":
        return {"resourceTemplates": [{"uriTemplate": "note://{n}", "name": "any"}]}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": "a note"}]}
    if method == "ping":
        return {}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    params = message.get("params", {})
    if params.get("name") == "hang":
        continue
    result = ask() if params.get("name") == "ask" else answer(message["method"], params)
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if result is None:
        reply["error"] = {"code": -32601, "message": "unknown method"}
    else:
        reply["result"] = result
    print(json.dumps(reply), flush=True)
"""


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        assert self.out == ""
        return json.loads(self.err)["error"]


class Shell:
    """Runs `python -m mcpgw` with a store of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / "mcpgw.db"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MCPGW", "_MCPGW"))}
        self.env = {
            **kept,
            "MCPGW_STORE": str(self.store),
            "MCPGW_MASTER_KEY": "b" * 64,
            "HOME": str(home),
            "TERM": "xterm-256color",
            "COLUMNS": "100",
        }
        self.env.pop("NO_COLOR", None)

    def __call__(self, *words: str, stdin: str = "", **env: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "mcpgw", *words],
            input=stdin,
            env={**self.env, **env},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def done(self, *words: str, stdin: str = "", **env: str) -> Said:
        said = self(*words, stdin=stdin, **env)
        assert said.code == 0, said.err
        return said

    @contextmanager
    def terminal(self, *words: str, **env: str) -> Generator[Terminal]:
        """The command at a terminal of its own."""
        child, master = pty.fork()
        if child == 0:
            os.chdir(self.home)
            argv = [sys.executable, "-m", "mcpgw", *words]
            os.execve(sys.executable, argv, {**self.env, **env})
        terminal = Terminal(child, master)
        try:
            yield terminal
        finally:
            terminal.close()

    @contextmanager
    def serving(self, *words: str) -> Generator[str]:
        """A running daemon; its address."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mcpgw", "serve", "--port", "0", *words],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"mcpgw serves on (\S+)/mcp", line):
                    yield found[1]
                    break
            else:
                pytest.fail("the daemon did not start")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


class Terminal:
    """One command at a pseudo-terminal."""

    def __init__(self, child: int, master: int) -> None:
        self._child = child
        self._master = master
        self.screen = ""
        self._code: int | None = None

    def expect(self, text: str) -> None:
        """Wait until `text` is on the screen."""
        end = time.monotonic() + PATIENCE
        while text not in self.screen:
            if time.monotonic() > end or not self._more():
                pytest.fail(f"{text!r} did not come; there was {self.screen!r}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ends(self) -> int:
        """The exit status, once all is shown."""
        while self._more():
            pass
        _, status = os.waitpid(self._child, 0)
        self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def close(self) -> None:
        if self._code is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._master)

    def _more(self) -> bool:
        if not select.select([self._master], [], [], PATIENCE)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def mcpgw(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def small(mcpgw: Shell) -> Iterator[Callable[[], Shell]]:
    """Adds the small server to the store."""
    script = mcpgw.home / "small.py"
    script.write_text(SERVER)

    def add() -> Shell:
        mcpgw.done("server", "add", "small", "--", sys.executable, str(script))
        return mcpgw

    return add  # pyright: ignore[reportReturnType]


def test_a_first_hour(mcpgw: Shell) -> None:
    assert mcpgw.done("--version").out.startswith("mcpgw ")
    said = mcpgw.done("server", "add", "github", "--url", "https://example.com/mcp")
    assert said.out == ""
    said = mcpgw("server", "add", "github", "--url", "https://example.com/mcp")
    assert said.code == 3
    assert said.err.startswith("error: ")
    said = mcpgw("server", "remove", "githb", "--json", "--yes")
    assert said.code == 3
    assert said.error["code"] == "no_such_server"
    assert said.error["next"].endswith("mcpgw server remove github --json --yes")
    secret = mcpgw.done("key", "create", "ci", "--grant", "github").out
    assert re.fullmatch(r"mcpgw_[\w-]{43}\n", secret)
    status = mcpgw.done("status", "--json").json
    assert status["running"] is False
    assert status["servers"][0]["name"] == "github"
    assert "mcpgw serve" in mcpgw.done("status").err


def test_statuses(mcpgw: Shell) -> None:
    assert mcpgw("server", "list").code == 0
    assert mcpgw("nonsense").code == 2
    assert mcpgw("server", "show", "nobody").code == 3
    assert mcpgw("server", "add", "x").code == 2
    mcpgw.done("server", "add", "dead", "--", sys.executable, "-c", "raise SystemExit('gone')")
    said = mcpgw("server", "test", "dead", "--json")
    assert said.code == 5
    [report] = said.json["servers"]
    assert report["ok"] is False
    assert report["next"].startswith("mcpgw server ")
    assert mcpgw("tools", "call", "dead/x", "--json").error["next"].startswith("mcpgw ")


def test_help_is_quick(mcpgw: Shell) -> None:
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(mcpgw.home / "pyc")}
    mcpgw.done("--help", **compiled)
    best = PATIENCE
    for _ in range(20):  # the quickest counts: this machine may be busy with other tests
        began = time.perf_counter()
        mcpgw.done("--help", **compiled)
        best = min(best, time.perf_counter() - began)
        if best <= 0.25:
            return
    pytest.fail(f"mcpgw --help took {best:.2f} s")


def test_starting_imports_nothing_heavy(mcpgw: Shell) -> None:
    code = (
        "import sys; from mcpgw.cli.main import main; main(['--help']);"
        "heavy = {'rich', 'msgspec', 'anyio', 'sqlite3', 'uvicorn', 'mcp', 'cryptography'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=mcpgw.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_seen_enough(mcpgw: Shell) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mcpgw", "--help"],
        env=mcpgw.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE) == 0
    assert err == ""


def test_tools_over_an_own_gateway(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    tools = mcpgw.done("tools", "list", "--json").json["tools"]
    names = {f"small__{name}" for name in ("ping", "echo", "fail", "ask", "hang", "paint")}
    assert {tool["name"] for tool in tools} == names
    assert all(tool["server"] == "small" for tool in tools)
    only = mcpgw.done("tools", "list", "--server", "small", "--json").json["tools"]
    assert {tool["name"] for tool in only} == names
    assert "small__ping\tSays pong.\n" in mcpgw.done("tools", "list").out
    [tool] = mcpgw.done("tools", "show", "small__echo", "--json").json["tools"]
    assert tool["input_schema"]["required"] == ["text"]
    assert "text\tstring\trequired\tWhat to say." in mcpgw.done("tools", "show", "small/echo").out


def test_calls(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    said = mcpgw.done("tools", "call", "small__echo", "--arg", "text=ab", "--arg", "times=2")
    assert said.out == "abab\n[image image/png, 5 bytes]\n"
    whole = mcpgw.done("tools", "call", "small/echo", "--args", '{"text": "ä"}', "--json")
    assert whole.out.isascii()
    assert "123456789012345678901234567890" in whole.out
    assert whole.json["structuredContent"]["given"] == {"text": "ä"}
    said = mcpgw("tools", "call", "small__fail")
    assert (said.code, said.out) == (5, "")
    assert "it broke" in said.err
    said = mcpgw("tools", "call", "small__fail", "--json")
    assert said.code == 5
    assert said.json["isError"] is True
    said = mcpgw("tools", "call", "small__ech", "--json")
    assert said.code == 3
    assert "small__echo" in said.error["next"]
    assert mcpgw("tools", "call", "nobody__x").code == 3
    assert mcpgw("tools", "call", "small__echo", "--arg", "times=many").code == 2
    assert mcpgw.done("tools", "call", "small__paint").out == "\x1b]0;title\x07red\n"


def test_tests_of_tools(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    [report] = mcpgw.done("tools", "test", "--json").json["servers"]
    assert report["ok"] is True
    assert report["revision"] == "2025-11-25"
    assert [step["stage"] for step in report["stages"]] == ["handshake", "list", "call"]
    assert report["stages"][-1]["tool"] == "ping"
    said = mcpgw("tools", "test", "small/fail")
    assert said.code == 5
    assert "it broke" in said.out
    mcpgw.done("tools", "test", "small/echo", "--arg", "text=x")
    assert mcpgw("tools", "test", "small", "--arg", "text=x").code == 2
    assert mcpgw("tools", "test", "small/nothing").code == 3


def test_a_server_that_is_down_is_named_and_hides_no_other(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    mcpgw.done("server", "add", "gone", "--", "no-such-command-anywhere")
    said = mcpgw.done("tools", "list")
    assert "small__ping" in said.out
    assert "warning: gone is missing: " in said.err
    assert "mcpgw server test gone" in said.err
    told = mcpgw.done("tools", "list", "--json").json
    assert len(told["tools"]) == 6
    assert [server["server"] for server in told["unavailable"]] == ["gone"]
    assert mcpgw("tools", "list", "--server", "gone").code == 5


def test_advice_fits_the_failure(mcpgw: Shell) -> None:
    url = ("--url", "http://127.0.0.1:1/mcp", "--auth", "bearer")
    mcpgw.done("server", "add", "a", *url, "--secret", "vault:lost")
    said = mcpgw("server", "test", "a", "--json")
    assert said.code == 5
    assert said.json["servers"][0]["next"] == "mcpgw secret set lost"


def test_prompts_and_resources(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    assert mcpgw.done("prompts", "list").out == "small__greet\tGreets.\n"
    said = mcpgw.done("prompts", "get", "small__greet", "--arg", "who=Ada")
    assert said.out == "user: Hi Ada\n"
    told = mcpgw.done("resources", "list", "--json").json
    assert [item["uri"] for item in told["resources"]] == ["note://1"]
    assert [item["uri_template"] for item in told["templates"]] == ["note://{n}"]
    assert mcpgw.done("resources", "read", "note://1").out == "a note\n"


def test_a_key_sees_what_it_may_use(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    mcpgw.done("key", "create", "ci", "--grant", "small/ping")
    tools = mcpgw.done("tools", "list", "--key", "ci", "--json").json["tools"]
    assert [tool["name"] for tool in tools] == ["small__ping"]
    assert mcpgw.done("tools", "call", "small__ping", "--key", "ci").out == "pong\n"
    assert mcpgw("tools", "call", "small__echo", "--key", "ci", "--arg", "text=x").code == 3
    assert mcpgw("tools", "list", "--key", "nobody").code == 3


def test_through_the_running_daemon(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    with mcpgw.serving() as address:
        status = mcpgw.done("status", "--json").json
        assert status["running"] is True
        assert status["address"] == address
        assert mcpgw.done("tools", "call", "small__ping").out == "pong\n"
        status = mcpgw.done("status", "--json").json
        assert [server["state"] for server in status["servers"]] == ["up"]
        assert status["links"][0]["revision"] == "2025-11-25"
        mcpgw.done("tools", "test")
        said = mcpgw("serve", "--port", "0")
        assert said.code == 5
        assert " next: mcpgw status" in said.err
    assert mcpgw.done("status", "--json").json["running"] is False


def test_a_secret_is_asked_for_without_showing_it(mcpgw: Shell) -> None:
    words = ("server", "add", "x", "--url", "https://example.com/mcp", "--auth", "bearer")
    with mcpgw.terminal(*words) as terminal:
        terminal.expect("Secret for x (not shown): ")
        terminal.type("hunter2\n")
        assert terminal.ends() == 0
        assert "hunter2" not in terminal.screen
        assert "Added x." in terminal.screen
    [server] = mcpgw.done("server", "show", "x", "--json").json["servers"]
    assert server["secret"] == "vault:server/x"
    assert mcpgw(*words[:2], "y", *words[3:], "--json").error["code"] == "secret_needed"


def test_removal_asks_at_a_terminal(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "x", "--url", "https://example.com/mcp")
    with mcpgw.terminal("server", "remove", "x") as terminal:
        terminal.expect("[y/N] ")
        terminal.type("n\n")
        assert terminal.ends() == 130
    with mcpgw.terminal("server", "remove", "x") as terminal:
        terminal.expect("[y/N] ")
        terminal.type("\x03")
        assert terminal.ends() == 130
        assert "Traceback" not in terminal.screen
    with mcpgw.terminal("server", "remove", "x") as terminal:
        terminal.expect("[y/N] ")
        terminal.type("y\n")
        assert terminal.ends() == 0
    assert mcpgw.done("server", "list", "--json").json == {"servers": []}


def test_colour_and_tables_at_a_terminal_only(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "x", "--url", "https://example.com/mcp")
    with mcpgw.terminal("server", "list") as terminal:
        assert terminal.ends() == 0
        assert "NAME" in terminal.screen
        assert "\x1b[1m" in terminal.screen
    with mcpgw.terminal("server", "list", NO_COLOR="1") as terminal:
        assert terminal.ends() == 0
        assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.screen)
    with mcpgw.terminal("server", "show", "nobody", NO_COLOR="1") as terminal:
        assert terminal.ends() == 3
        assert "\x1b[" not in terminal.screen
    with mcpgw.terminal("server", "show", "nobody") as terminal:
        assert terminal.ends() == 3
        assert "\x1b[31;1merror:\x1b[0m" in terminal.screen
    assert "\x1b" not in mcpgw.done("server", "list").out


def test_what_servers_say_cannot_drive_a_terminal(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    with mcpgw.terminal("tools", "call", "small__paint") as terminal:
        assert terminal.ends() == 0
        assert "\\x1b]0;title\\x07red" in terminal.screen
        assert "\x1b]0;title" not in terminal.screen
    with mcpgw.terminal("tools", "list") as terminal:
        assert terminal.ends() == 0
        assert "Red \\x1b[31mletters." in terminal.screen


def tab(mcpgw: Shell, line: str) -> list[str]:
    """What bash would offer after `line`."""
    words = line.split(" ")
    said = mcpgw(_MCPGW_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert said.err == ""
    return said.out.split()


def test_tab(mcpgw: Shell) -> None:
    assert tab(mcpgw, "mcpgw server show ") == []
    assert not mcpgw.store.exists()
    mcpgw.done("server", "add", "github", "--url", "https://example.com/mcp")
    mcpgw.done("alias", "add", "hub", "github")
    mcpgw.done("key", "create", "ci")
    assert tab(mcpgw, "mcpgw server sh") == ["show"]
    assert tab(mcpgw, "mcpgw server show g") == ["github"]
    assert tab(mcpgw, "mcpgw server show ") == ["github"]
    assert tab(mcpgw, "mcpgw alias remove ") == ["hub"]
    assert tab(mcpgw, "mcpgw key show ") == ["ci"]
    assert tab(mcpgw, "mcpgw key grant ci gi") == ["github"]
    assert "github/prompt:*" in tab(mcpgw, "mcpgw key grant ci github/")
    assert tab(mcpgw, "mcpgw server add x --auth b") == ["bearer", "basic"]
    mcpgw.store.write_bytes(b"not a database")
    assert tab(mcpgw, "mcpgw server show g") == []


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_completes(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", "https://example.com/mcp")
    bin = mcpgw.home / "bin"
    bin.mkdir()
    (bin / "mcpgw").write_text(f'#!/bin/sh\nexec {sys.executable} -m mcpgw "$@"\n')
    (bin / "mcpgw").chmod(0o755)
    script = Path(__file__).parents[2] / "completions" / "mcpgw.bash"
    code = (
        f". {script}; COMP_WORDS=(mcpgw server remove gi); COMP_CWORD=3;"
        "_mcpgw_completion mcpgw; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", code],
        env={**mcpgw.env, "PATH": f"{bin}:{mcpgw.env['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "github\n"


def test_a_server_may_ask_the_person_at_the_terminal(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    with mcpgw.terminal("tools", "call", "small__ask") as terminal:
        terminal.expect("The server asks: Who is there?")
        terminal.expect("name: ")
        terminal.type("Ada\n")
        terminal.expect("Send this? [Y/n] ")
        terminal.type("\n")
        assert terminal.ends() == 0
        assert '"name": "Ada"' in terminal.screen
    said = mcpgw("tools", "call", "small__ask")
    assert "Ada" not in said.out


def test_a_call_can_be_interrupted(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    with mcpgw.terminal("tools", "call", "small__hang") as terminal:
        terminal.expect("Calling small__hang")
        terminal.type("\x03")
        assert terminal.ends() == 130
        assert "Traceback" not in terminal.screen
        assert "error:" in terminal.screen


def test_serving_ends_with_an_interrupt(mcpgw: Shell) -> None:
    with mcpgw.terminal("serve", "--port", "0") as terminal:
        terminal.expect("mcpgw serves on http://127.0.0.1:")
        terminal.type("\x03")
        assert terminal.ends() == 0


def test_stdio_speaks_nothing_but_the_protocol(small: Callable[[], Shell]) -> None:
    mcpgw = small()
    mcpgw.done("key", "create", "ci", "--grant", "small/ping")
    requests = [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mcpgw", "stdio", "--key", "ci"],
        env=mcpgw.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        answers: dict[int, Any] = {}
        for request in requests:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **request}) + "\n")
            process.stdin.flush()
            while "id" in request and request["id"] not in answers:
                answer = json.loads(process.stdout.readline())
                answers[answer.get("id")] = answer.get("result")
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    assert [tool["name"] for tool in answers[2]["tools"]] == ["small__ping"]
    assert mcpgw("stdio", "--key", "nobody").code == 3

"""`mcpgw demo` as a person runs it: all green, quick, and gone without a trace."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from mcpgw.demo import stage, tour
from mcpgw.errors import Exit
from tests.children import gateway

PATIENCE = 60.0  # seconds; a busy machine takes its time
BUSY = 3.0  # times 10 s, what the tour may take while other things run

pytestmark = [
    pytest.mark.slow,
    # A child of ours that is reaped late must not fail the test that started another one.
    pytest.mark.filterwarnings("default::ResourceWarning"),
]


class Trace:
    """What a demo leaves behind: files in its folder, processes that know the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)}

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*"))

    def processes(self) -> list[str]:
        """Command lines of processes whose environment or words name the folder."""
        found: list[str] = []
        if sys.platform == "linux":
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    known = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if os.fsencode(self.folder) in known and int(entry.name) != os.getpid():
                    found.append(words)
            return found
        told = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True)
        return [line for line in told.stdout.splitlines() if str(self.folder) in line]

    def assert_none(self) -> None:
        assert self.processes() == []
        assert self.files() == []


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path)


def start(trace: Trace, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        gateway("demo", *words),
        env=trace.environment,
        cwd=trace.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_client_reaches_every_server(trace: Trace) -> None:
    began = time.monotonic()
    with start(trace, "--json") as demo:
        out, err = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == Exit.DONE, err
    assert time.monotonic() - began < 10 * BUSY
    told = json.loads(out)
    assert out.count("\n") == 1
    assert told["ok"] is True
    checks: list[dict[str, Any]] = told["checks"]
    assert {frozenset(check) for check in checks} == {frozenset({"client", "server", "ok", "ms"})}
    assert all(check["ok"] and check["ms"] > 0 for check in checks)
    pairs = {(check["client"], check["server"]) for check in checks}
    clients = {client for client, _ in pairs}
    assert clients == {
        "streamable-http 2026-07-28",
        "streamable-http 2025-11-25",
        "streamable-http 2025-03-26",
        "sse 2024-11-05",
        "stdio 2025-11-25",
        "stdio 2026-07-28",
    }
    servers = {server for _, server in pairs}
    assert servers == {
        "stdio 2025-11-25",
        "stdio 2026-07-28",
        "streamable-http 2025-11-25",
        "streamable-http 2026-07-28",
        "sse 2024-11-05",
    }
    assert len(checks) == len(pairs) == 30
    trace.assert_none()


def test_a_person_sees_a_table_and_what_to_paste(trace: Trace) -> None:
    with start(trace) as demo:
        out, err = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == Exit.DONE, err
    assert "30 of 30 calls held." in out
    assert len(max(out.splitlines(), key=len)) <= 80
    assert all(out.count(server.revision) > 1 for server in stage.SERVERS)  # nothing is cut
    entries = re.findall(r"^\{.*?^\}", err, flags=re.DOTALL | re.MULTILINE)
    stdio, http = (json.loads(entry)["mcpServers"]["mcpgw"] for entry in entries)
    assert stdio["command"] == sys.executable
    assert stdio["args"] == ["-m", "mcpgw", "stdio"]
    assert http["type"] == "http"
    trace.assert_none()


@pytest.mark.anyio
async def test_what_is_kept_can_be_used_until_ctrl_c(trace: Trace) -> None:
    with start(trace, "--keep") as demo:
        try:
            entries = _entries(demo)
            http = entries[1]
            async with httpx2.AsyncClient(headers=http["headers"], timeout=PATIENCE) as client:
                way = streamable_http_client(http["url"], http_client=client)
                async with Client(way, mode="2026-07-28") as mcp:
                    result = await mcp.call_tool("sse-2024__add", {"a": 1, "b": 2})
                    assert result.content[0].model_dump()["text"] == "3"
            assert _adds(entries[0]) == "3"
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=PATIENCE)
        finally:
            demo.terminate()  # not kill: it ends its own children
    assert demo.returncode == Exit.DONE
    trace.assert_none()


def _entries(demo: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The two entries that are printed, read while the demo goes on."""
    assert demo.stderr is not None
    held, found = "", list[dict[str, Any]]()
    for line in demo.stderr:
        held = line if line == "{\n" else held + line
        if line == "}\n":
            found.append(json.loads(held)["mcpServers"]["mcpgw"])
        if len(found) == 2:
            return found
    raise AssertionError(f"two entries were not printed: {held}")


def _adds(entry: dict[str, Any]) -> str:
    """Use the stdio entry as a client would, by hand."""
    about: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
    about["clientInfo"] = {"name": "test", "version": "1"}
    call = {"name": "stdio-2026__add", "arguments": {"a": 1, "b": 2}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": about},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": call},
    ]
    with subprocess.Popen(
        [entry["command"], "-P", *entry["args"]],
        env={**os.environ, **entry["env"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def answer(message: dict[str, Any]) -> dict[str, Any]:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            child.stdin.flush()
            return json.loads(child.stdout.readline()) if "id" in message else {}

        *_, told = [answer(message) for message in messages]
        child.stdin.close()
        assert "result" in told, told
        return told["result"]["content"][0]["text"]


def has_children(trace: Trace) -> bool:
    return len(trace.processes()) > 1


def serves(trace: Trace) -> bool:
    return any(" serve " in words for words in trace.processes())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reached", [has_children, serves])
def test_a_signal_in_the_middle_leaves_nothing(
    trace: Trace, reached: Callable[[Trace], bool], number: signal.Signals
) -> None:
    with start(trace) as demo:
        ends = time.monotonic() + PATIENCE
        while not reached(trace):
            assert time.monotonic() < ends
            time.sleep(0.01)  # another process's progress can only be looked at
        demo.send_signal(number)
        demo.communicate(timeout=PATIENCE)
    assert demo.returncode == Exit.INTERRUPTED
    trace.assert_none()


def test_a_server_that_does_not_work_fails_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = stage.draft

    def broken(kind: stage.Kind, url: str | None) -> Any:
        made = draft(kind, url)
        if kind.name != "stdio-2025":
            return made
        dead = (sys.executable, "-c", "raise SystemExit('no such luck')")
        return msgspec.structs.replace(made, command=dead)

    monkeypatch.setattr(stage, "draft", broken)
    out, err = io.StringIO(), io.StringIO()
    status = tour.run(keep=False, json=True, out=out, err=err)
    assert status == Exit.UPSTREAM
    told = json.loads(out.getvalue())
    assert told["ok"] is False
    failed = {check["server"] for check in told["checks"] if not check["ok"]}
    assert failed == {"stdio 2025-11-25"}
    assert "stdio 2025-11-25" in err.getvalue()

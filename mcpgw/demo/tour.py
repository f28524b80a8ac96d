"""`mcpgw demo`: a gateway over servers of every kind, used by clients of every kind.

Everything is real but small and short-lived: a store in a temporary directory, servers that ship
in this package, a key, a `mcpgw serve` child on a free port. Nothing is left behind, however the
tour ends.
"""

from __future__ import annotations

import json as jsonlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TextIO

import anyio
import anyio.abc
import httpx2
from msgspec import Struct

from mcpgw.demo import clients
from mcpgw.demo.clients import Client, Failed
from mcpgw.demo.stage import KEY, SERVERS, Kind, Stage, python, stage
from mcpgw.errors import Exit

CLIENTS = (
    Kind("streamable-http", "2026-07-28"),
    Kind("streamable-http", "2025-11-25"),
    Kind("streamable-http", "2025-03-26"),
    Kind("sse", "2024-11-05"),
    Kind("stdio", "2025-11-25"),
    Kind("stdio", "2026-07-28"),
)
MASTER_KEY = "MCPGW_MASTER_KEY"


class Check(Struct, frozen=True):
    """One call through the gateway. `trouble` says what went wrong."""

    client: str
    server: str
    ok: bool
    ms: float
    trouble: str = ""


def run(*, keep: bool, json: bool, out: TextIO, err: TextIO) -> int:
    """Take the tour; the exit status: 0 when every check held, 5 when one did not.

    keep: leave everything running until SIGINT or SIGTERM. Raises a group with a GatewayError when
    something does not start, KeyboardInterrupt when a signal ends the tour early.
    """
    checks: list[Check] = []
    show = _Show(out, err, keep=keep, json=json)
    with _workplace() as folder:
        signalled = anyio.run(_tour, folder, checks, show)
    if signalled and not (keep and show.done):
        raise KeyboardInterrupt
    return Exit.DONE if _held(checks) else Exit.UPSTREAM


def _held(checks: Sequence[Check]) -> bool:
    return len(checks) == len(CLIENTS) * len(SERVERS) and all(check.ok for check in checks)


@contextmanager
def _workplace() -> Generator[Path]:
    """A private folder. The master key of its store lives in the environment alone."""
    before = os.environ.get(MASTER_KEY)
    os.environ[MASTER_KEY] = secrets.token_hex(32)
    folder = Path(tempfile.mkdtemp(prefix="mcpgw-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[MASTER_KEY]
        if before is not None:
            os.environ[MASTER_KEY] = before


async def _tour(folder: Path, checks: list[Check], show: _Show) -> bool:
    """Whether a signal ended it."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(_end_on_signal, tasks.cancel_scope)
        show.say("Starting five servers and a gateway …")
        async with stage(folder) as setting:
            for kind in CLIENTS:
                checks += await _use(kind, setting)
            show.result(checks)
            show.advice(setting)
            if show.keep:
                await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
        return False
    return True


async def _end_on_signal(
    scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def _use(kind: Kind, setting: Stage) -> list[Check]:
    """Be one client: list what there is, call a tool of each server."""
    try:
        async with _client(kind, setting) as client:
            listed = await client.tools()
            return [await _check(kind, client, server, listed) for server in SERVERS]
    except (Failed, httpx2.HTTPError, OSError) as error:
        return [Check(kind.label, server.label, False, 0.0, str(error)) for server in SERVERS]


def _client(kind: Kind, setting: Stage) -> AbstractAsyncContextManager[Client]:
    if kind.transport == "sse":
        return clients.sse(f"{setting.address}/sse", setting.secret, kind.revision)
    if kind.transport == "stdio":
        command = python("mcpgw", "--store", str(setting.store), "stdio", "--key", KEY)
        return clients.stdio(command, kind.revision)
    return clients.streamable_http(f"{setting.address}/mcp", setting.secret, kind.revision)


async def _check(kind: Kind, client: Client, server: Kind, listed: set[str]) -> Check:
    tool, began, trouble = f"{server.name}__add", time.perf_counter(), ""
    try:
        answer = await client.call(tool, {"a": 17, "b": 25})
        if answer != "42":
            trouble = f"17 + 25 gave {answer!r}"
        elif tool not in listed:
            trouble = f"{tool} is not in the list"
    except Failed as error:
        trouble = str(error)
    ms = round((time.perf_counter() - began) * 1000, 2)
    return Check(kind.label, server.label, not trouble, ms, trouble)


class _Show:
    """What the person sees: data on `out`, the rest on `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, keep: bool, json: bool) -> None:
        self.keep = keep
        self.done = False
        self._out = out
        self._err = err
        self._json = json

    def say(self, text: str) -> None:
        if not self._json:
            print(text, file=self._err, flush=True)

    def result(self, checks: Sequence[Check]) -> None:
        self.done = True
        if self._json:
            rows = [
                {"client": c.client, "server": c.server, "ok": c.ok, "ms": c.ms} for c in checks
            ]
            print(jsonlib.dumps({"checks": rows, "ok": _held(checks)}), file=self._out, flush=True)
        else:
            self._table(checks)
        for check in checks:
            if not check.ok:
                print(f"{check.client} -> {check.server}: {check.trouble}", file=self._err)

    def _table(self, checks: Sequence[Check]) -> None:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - not needed for --json
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        title = "One tool call each, in ms (http: Streamable HTTP)"
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left")
        table.add_column("client \\ server", no_wrap=True)
        for server in SERVERS:
            table.add_column("\n".join(server.short), justify="right", no_wrap=True)
        for kind in CLIENTS:
            row = [check for check in checks if check.client == kind.label]
            cells = (f"{c.ms:.1f}" if c.ok else "[red]failed[/red]" for c in row)
            table.add_row(" ".join(kind.short), *cells)
        Console(file=self._out).print(table)
        held = sum(check.ok for check in checks)
        print(f"{held} of {len(checks)} calls held.", file=self._out, flush=True)

    def advice(self, setting: Stage) -> None:
        """How to go on: what to paste into a client, with the path of this very installation."""
        if self.keep:
            url, secret = f"{setting.address}/mcp", setting.secret
            store = ["--store", str(setting.store)]
            self.say("\nThe demo goes on until Ctrl-C. Connect a client with either entry:")
        else:
            url, secret, store = "http://127.0.0.1:8765/mcp", "YOUR_KEY", []
            self.say("\nYour own gateway is three commands away:")
            for words in _FIRST_STEPS:
                self.say(f"  {executable()} {words}")
            self.say("Then give a client one of these entries:")
        headers = {"Authorization": f"Bearer {secret}"}
        http = {"type": "http", "url": url, "headers": headers}
        command, *before = _running()
        stdio: dict[str, object] = {"command": command, "args": [*before, *store, "stdio"]}
        if self.keep:
            stdio["env"] = {MASTER_KEY: os.environ[MASTER_KEY]}
        for entry in (stdio, http):
            self.say(jsonlib.dumps({"mcpServers": {"mcpgw": entry}}, indent=2))


_FIRST_STEPS = (
    "server add files -- npx -y @modelcontextprotocol/server-filesystem .",
    "key create me --grant files",
    "serve",
)


def executable() -> str:
    """How to run this very mcpgw, as one would type it."""
    return " ".join(_running())


def _running() -> list[str]:
    script = Path(sys.argv[0])
    if script.stem == "mcpgw" and (found := shutil.which(script)):
        return [str(Path(found).absolute())]
    return [sys.executable, "-m", "mcpgw"]

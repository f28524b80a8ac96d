"""Real child processes: both eras, bad commands, and no orphan ever."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Raw

from mcpgw.model.calls import (
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Note,
    Progress,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.config import Server
from mcpgw.model.ports import LinkInfo, UpstreamError
from mcpgw.upstream import process, stdio
from mcpgw.upstream.process import Lines
from mcpgw.upstream.stdio import StdioLink, environment
from tests.doubles import (
    PATIENCE,
    PlainSecrets,
    Recorder,
    call,
    context,
    obj,
    plain,
    server,
    snapshot,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: each starts and ends processes in its own way."""
    return "asyncio", {"use_uvloop": request.param}


ECHO = str(Path(__file__).parents[2] / "servers" / "echo_stdio.py")
ERAS = ["legacy", "modern"]
CTX = context(snapshot())


def echo(*words: str, **fields: Any) -> Server:
    """The echo server with these options."""
    return server("echo", command=(sys.executable, ECHO, *words), **fields)


class Running:
    def __init__(self, link: StdioLink, info: LinkInfo, heard: list[Note]) -> None:
        self.link = link
        self.info = info
        self.heard = heard
        self.ended = anyio.Event()
        self.failure: UpstreamError | None = None

    @property
    def pid(self) -> int:
        assert self.link.pid is not None
        return self.link.pid

    async def call(self, name: str, **arguments: Any) -> Any:
        """The text of a tool's result, decoded when it is JSON."""
        reply = await self.link.handle(tool(name, **arguments), Recorder())
        return text(reply)


def tool(name: str, **arguments: Any) -> Call:
    return call("tools/call", CTX, name=name, arguments=arguments)


def text(reply: object) -> Any:
    assert isinstance(reply, Done)
    told = plain(reply.result)["content"][0]["text"]
    with contextlib.suppress(ValueError):
        return json.loads(told)
    return told


@contextlib.asynccontextmanager
async def running(
    one: Server,
    *,
    capabilities: Mapping[str, Raw] | None = None,
    era: stdio.Era | None = None,
    secrets: PlainSecrets | None = None,
) -> AsyncGenerator[Running]:
    heard: list[Note] = []
    link = StdioLink(
        one,
        secrets=secrets or PlainSecrets(),
        capabilities=capabilities or {},
        heard=heard.append,
        era=era,
    )
    made: Running | None = None
    pid = 0

    async def run(*, task_status: anyio.abc.TaskStatus[LinkInfo]) -> None:
        try:
            await link.run(task_status=task_status)
        except UpstreamError as error:
            if made is None:
                raise
            made.failure = error
            made.ended.set()

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            info = await tasks.start(run)
        made = Running(link, info, heard)
        pid = made.pid
        yield made
        tasks.cancel_scope.cancel()
    await gone(pid)


@contextlib.contextmanager
def unwrapped() -> Any:
    """Lets the one UpstreamError of a task group through as itself."""
    caught: BaseException | None = None
    try:
        yield
    except* UpstreamError as group:
        found = group.subgroup(lambda error: isinstance(error, UpstreamError))
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        caught = found
    if caught is not None:
        raise caught


async def refused(one: Server, **options: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught, unwrapped():
        async with running(one, **options):
            pass
    return caught.value


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def gone(pid: int) -> None:
    with anyio.fail_after(PATIENCE):
        while alive(pid):  # noqa: ASYNC110 - the system tells only when asked
            await anyio.sleep(0.01)


# ---------------------------------------------------------------- the conversation


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_of_each_era_is_understood(era: str) -> None:
    async with running(echo("--era", era)) as echoed:
        assert echoed.info.modern == (era == "modern")
        assert echoed.info.instructions == "Say something."
        assert plain(echoed.info.server) == {"name": "echo", "version": "1"}
        assert echoed.link.era == era
        assert await echoed.call("echo", text="hi\n\u2028 \U0001f600") == "hi\n\u2028 \U0001f600"


@pytest.mark.parametrize("era", ERAS)
async def test_one_call_costs_one_upstream_request(era: str) -> None:
    async with running(echo("--era", era)) as echoed:
        for _ in range(100):
            await echoed.call("echo", text="x")

        counts = await echoed.call("counts")
        assert counts["tools/call"] == 101
        assert sum(n for name, n in counts.items() if name.startswith("tools/")) == 101


async def test_calls_are_multiplexed() -> None:
    async with running(echo()) as echoed:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(lambda: echoed.call("slow", seconds=0.3))
        assert (await echoed.call("counts"))["tools/call"] == 21


async def test_a_server_of_both_eras_is_met_in_the_modern_one() -> None:
    async with running(echo("--era", "both")) as echoed:
        assert echoed.info.modern


async def test_a_server_that_names_the_revision_it_refused_is_asked_again() -> None:
    async with running(echo("--era", "modern", "--fault", "picky")) as echoed:
        assert echoed.info.modern
        assert (await echoed.call("counts"))["server/discover"] == 2


async def test_a_remembered_era_saves_the_question() -> None:
    async with running(echo(), era="legacy") as echoed:
        assert "server/discover" not in await echoed.call("counts")


async def test_a_server_that_is_deaf_before_initialize(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "DISCOVER_WAIT", 0.2)
    async with running(echo("--fault", "deaf")) as echoed:
        assert not echoed.info.modern


async def test_a_server_that_exits_on_an_unknown_request_is_started_again() -> None:
    async with running(echo("--fault", "shy")) as echoed:
        assert not echoed.info.modern
        assert echoed.link.era == "legacy"
        assert await echoed.call("echo", text="hi") == "hi"


async def test_junk_on_standard_output_is_passed_over() -> None:
    async with running(echo("--fault", "junk")) as echoed:
        assert await echoed.call("echo", text="hi") == "hi"


@pytest.mark.parametrize("era", ERAS)
async def test_cancelling_reaches_the_server(era: str) -> None:
    async with running(echo("--era", era)) as echoed:
        with anyio.move_on_after(0.2):
            await echoed.call("slow")

        assert (await echoed.call("counts"))["cancelled"] == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_silent_call_times_out_and_is_cancelled(era: str) -> None:
    async with running(echo("--era", era, timeout=0.3)) as echoed:
        with pytest.raises(RpcError) as caught:
            await echoed.call("slow")

        assert caught.value.code == -32001
        assert (await echoed.call("counts"))["cancelled"] == 1


@pytest.mark.parametrize("era", ERAS)
async def test_progress_comes_in_order_before_the_result(era: str) -> None:
    async with running(echo("--era", era)) as echoed:
        caller = Recorder()
        made = Call(
            "tools/call", obj(name="progress", arguments={"steps": 5}), CTX, wants_progress=True
        )
        await echoed.link.handle(made, caller)

        assert [plain(n.params)["progress"] for n in caller.notes if isinstance(n, Progress)] == [
            1,
            2,
            3,
            4,
            5,
        ]


async def test_a_legacy_server_may_ask_the_one_who_called() -> None:
    asked = obj(elicitation={})
    async with running(echo(), capabilities=asked) as echoed:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept"}})

        assert text(await echoed.link.handle(tool("ask"), caller)) == {"action": "accept"}
        assert text(await echoed.link.handle(tool("ask"), Recorder())) == {"action": "cancel"}
        counts = await echoed.call("counts")
        assert counts["client_capabilities"] == {"elicitation": {}}


async def test_a_shared_link_declares_nothing() -> None:
    async with running(echo()) as echoed:
        assert (await echoed.call("counts"))["client_capabilities"] == {}


@pytest.mark.parametrize("era", ERAS)
async def test_list_changes_are_heard(era: str) -> None:
    async with running(echo("--era", era)) as echoed:
        await echoed.call("change")

        assert echoed.heard == [ListChanged("tools")]


@pytest.mark.parametrize("era", ERAS)
async def test_subscriptions_work(era: str) -> None:
    async with running(echo("--era", era)) as echoed, anyio.create_task_group() as tasks:
        caller = Recorder()
        made = call("subscriptions/listen", CTX, notifications={"resourceSubscriptions": ["a:b"]})
        tasks.start_soon(echoed.link.handle, made, caller)
        await caller.noted(1)

        await echoed.call("change", uri="a:b")

        first, second = await caller.noted(2)
        assert isinstance(first, Listening)
        assert isinstance(second, ResourceUpdated)
        tasks.cancel_scope.cancel()


async def test_large_results_pass_and_too_large_ones_fail_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "MAX_LINE", 2 * 1024 * 1024)
    async with running(echo()) as echoed:
        assert len(await echoed.call("big", size=1024 * 1024)) == 1024 * 1024
        with anyio.fail_after(PATIENCE), pytest.raises(RpcError, match="more than 2 MiB"):
            await echoed.call("big", size=3 * 1024 * 1024)
        assert await echoed.call("echo", text="still here") == "still here"


# ---------------------------------------------------------------- the end


async def test_a_crash_ends_the_calls_with_a_reason() -> None:
    async with running(echo()) as echoed:
        with anyio.fail_after(PATIENCE), pytest.raises(RpcError) as caught:
            await echoed.call("crash")
        await echoed.ended.wait()

        assert caught.value.message == 'server "echo" exited with status 7'
        assert plain(caught.value.data) == {"server": "echo", "stage": "read"}
        assert echoed.failure is not None
        assert echoed.link.lost


async def test_a_killed_child_is_named_by_its_signal() -> None:
    async with running(echo()) as echoed:
        os.kill(echoed.pid, signal.SIGKILL)
        with anyio.fail_after(PATIENCE):
            await echoed.ended.wait()

        assert echoed.failure is not None
        assert "SIGKILL" in echoed.failure.message


async def test_a_command_that_exits_at_once_shows_its_last_words_without_secrets() -> None:
    one = echo("--fault", "exit", env={"TOKEN": "env:T"})
    error = await refused(one, secrets=PlainSecrets({"env:T": "hush-hush"}))

    assert error.stage == "start"
    assert "exited with status 3 before it answered" in error.message
    assert "cannot start" in error.message
    assert "because of [redacted]" in error.message
    assert "hush" not in error.message


async def test_a_command_that_does_not_exist() -> None:
    error = await refused(server("s", command=("no-such-command-here", "x")))

    assert (error.stage, "no-such-command-here" in error.message) == ("start", True)


async def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    error = await refused(echo(cwd=str(tmp_path / "none")))

    assert "no directory" in error.message


async def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo")

    assert "cannot run" in (await refused(server("s", command=(str(script),)))).message


async def test_a_secret_that_is_missing() -> None:
    error = await refused(echo(env={"TOKEN": "env:T"}))

    assert (error.stage, "env:T" in error.message) == ("auth", True)


async def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "DISCOVER_WAIT", 0.1)
    monkeypatch.setattr(stdio, "HANDSHAKE_WAIT", 0.2)
    error = await refused(echo("--fault", "mute", timeout=0.1))

    assert (error.stage, "did not finish" in error.message) == ("handshake", True)


async def test_a_child_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_WAIT", 0.2)
    monkeypatch.setattr(process, "TERM_WAIT", 0.2)
    with anyio.fail_after(PATIENCE):
        async with running(echo("--fault", "stubborn")) as echoed:
            pid = echoed.pid
    assert not alive(pid)


async def test_what_a_child_started_ends_with_it() -> None:
    async with running(echo("--fault", "family")) as echoed:
        grandchild = (await echoed.call("counts"))["child"]
        assert alive(grandchild)

    await gone(grandchild)


async def test_a_cancelled_start_leaves_no_child(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"import os,time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    link = StdioLink(server("s", command=(sys.executable, "-c", program)), secrets=PlainSecrets())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: link.run(task_status=anyio.TASK_STATUS_IGNORED))
        with anyio.fail_after(PATIENCE):
            while not note.exists() or not note.read_text():  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()

    assert not alive(int(note.read_text()))


def test_a_child_ends_when_the_gateway_is_killed(tmp_path: Path) -> None:
    program = f"""
import anyio, sys
from mcpgw.upstream.stdio import StdioLink
from tests.doubles import PlainSecrets, server

class Status:
    def started(self, value): print(link.pid, flush=True)

link = StdioLink(server("e", command=(sys.executable, {ECHO!r})), secrets=PlainSecrets())
anyio.run(lambda: link.run(task_status=Status()))
"""
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    until = time.monotonic() + PATIENCE
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.01)


# ---------------------------------------------------------------- what a child sees


async def test_a_child_sees_little_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCPGW_MASTER_KEY", "secret")
    monkeypatch.setenv("OTHER_TOKEN", "secret")
    monkeypatch.setenv("LC_TIME", "C")
    async with running(
        echo(env={"MINE": "1", "TOKEN": "env:T"}), secrets=PlainSecrets({"env:T": "value"})
    ) as echoed:
        env = await echoed.call("env")

    assert env["MINE"] == "1"
    assert env["TOKEN"] == "value"
    assert env["LC_TIME"] == "C"
    assert env["PATH"] == os.environ["PATH"]
    assert "secret" not in env.values()
    assert not any(name.startswith("MCPGW_") for name in env)


def test_only_referenced_values_count_as_secret() -> None:
    one = server("s", env={"A": "env:A", "B": "literal-value", "C": "env:C"})

    env, hidden = environment(one, PlainSecrets({"env:A": "long-secret", "env:C": "1"}), {"X": "y"})

    assert env == {"A": "long-secret", "B": "literal-value", "C": "1"}
    assert hidden == ("long-secret",)


async def test_standard_error_goes_to_the_log_of_its_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    await refused(echo("--fault", "exit"))

    told = [r.getMessage() for r in caplog.records if r.name == "mcpgw.server.echo"]
    assert "cannot start" in told


async def test_a_flood_on_standard_error_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    program = "import sys; sys.stderr.write(('x' * 99 + chr(10)) * 20000); sys.exit(1)"
    await refused(server("flood", command=(sys.executable, "-c", program)))

    assert len([r for r in caplog.records if r.name == "mcpgw.server.flood"]) < 400


# ---------------------------------------------------------------- lines


def cut(limit: int) -> tuple[Lines, list[bytes], list[bytes]]:
    lines: list[bytes] = []
    long: list[bytes] = []
    return Lines(lines.append, limit=limit, too_long=long.append), lines, long


def by(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    machine, lines, long = cut(10)
    for piece in by(size)(b"one\n\ntwo\r\n" + b"x" * 30 + b"\n \n" + b"y" * 10 + b"\nrest"):
        machine.feed(piece)
    machine.end()

    assert lines == [b"one", b"two\r", b"y" * 10, b"rest"]
    assert len(long) == 1
    assert long[0].startswith(b"xxxxxxxxxx")

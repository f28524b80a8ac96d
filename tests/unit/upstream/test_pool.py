"""The pool over real children and servers: sharing, scopes, limits, failures, ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mcpgw.model.calls import Context, Done, ListChanged, Note, OtherNote, RpcError
from mcpgw.model.config import Endpoint, Server, Snapshot
from mcpgw.model.ports import Caller, Lease, UpstreamError
from mcpgw.upstream import pool as pool_module
from mcpgw.upstream import site as site_module
from mcpgw.upstream.pool import Pool
from tests.doubles import (
    PATIENCE,
    PlainSecrets,
    Recorder,
    call,
    context,
    key,
    obj,
    plain,
    server,
    snapshot,
)
from tests.servers.http_base import running
from tests.servers.http_legacy import LegacyServer
from tests.servers.http_modern import ModernServer
from tests.servers.sse import SseServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}


ECHO = str(Path(__file__).parents[2] / "servers" / "echo_stdio.py")
CONFIG: Snapshot = snapshot()


def echo(*words: str, name: str = "echo", **fields: Any) -> Server:
    return server(name, command=(sys.executable, ECHO, *words), **fields)


def ctx(who: str = "ann", **fields: Any) -> Context:
    return context(CONFIG, principal=key(who), **fields)


ASKS = obj(elicitation={})


class Pooled:
    """A running pool, and the calls of a test."""

    def __init__(self, pool: Pool, heard: list[tuple[str, str, Note]]) -> None:
        self.pool = pool
        self.heard = heard
        self.pids: set[int] = set()

    async def call(self, one: Server, who: Context, name: str = "echo", /, **arguments: Any) -> Any:
        with anyio.fail_after(PATIENCE):
            async with self.pool.lease(one, who) as lease:
                self.note()
                return await self.on(lease, who, name, **arguments)

    async def on(
        self, lease: Lease, who: Context, name: str, caller: Caller | None = None, **arguments: Any
    ) -> Any:
        made = call("tools/call", who, name=name, arguments=arguments)
        reply = await lease.link.handle(made, caller or Recorder())
        assert isinstance(reply, Done)
        told = plain(reply.result)["content"][0]["text"]
        with contextlib.suppress(ValueError):
            return json.loads(told)
        return told

    def note(self) -> None:
        self.pids.update(report.pid for report in self.pool.status() if report.pid is not None)

    def up(self) -> int:
        return sum(report.state == "up" for report in self.pool.status())


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextlib.asynccontextmanager
async def pooled() -> AsyncGenerator[Pooled]:
    """A pool that must leave no child behind."""
    heard: list[tuple[str, str, Note]] = []
    made = Pooled(
        Pool(
            secrets=PlainSecrets(),
            heard=lambda server, scope, note: heard.append((server, scope, note)),
        ),
        heard,
    )

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await made.pool.run(task_status=task_status)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            await tasks.start(run)
            yield made
            made.note()
            tasks.cancel_scope.cancel()
    assert not [pid for pid in made.pids if alive(pid)]
    assert made.pool.status() == []


async def until(condition: Any) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await anyio.sleep(0.01)


# ---------------------------------------------------------------- sharing


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_one_call_costs_one_upstream_request(era: str) -> None:
    one = echo("--era", era)
    async with pooled() as p:
        for at in range(100):
            assert await p.call(one, ctx(), text=at) == at

        assert (await p.call(one, ctx(), "counts"))["tools/call"] == 101
        assert p.up() == 1


async def test_one_call_costs_one_upstream_request_over_http_of_both_eras() -> None:
    for far, era in ((ModernServer(), "modern"), (LegacyServer(), "legacy")):
        async with running(far) as url, pooled() as p:
            one = server("h", transport="auto", url=far.url, command=())
            for _ in range(100):
                async with p.pool.lease(one, ctx()) as lease:
                    made = call("tools/call", ctx(), name="t", arguments={})
                    await lease.link.handle(made, Recorder())
                    assert lease.info.modern == (era == "modern")

            assert len(far.of("tools/call")) == 100
            assert len(far.of("server/discover")) == 1
            assert [report.transport for report in p.pool.status()] == ["http"]
            assert url


async def test_one_call_costs_one_upstream_request_over_sse() -> None:
    far = SseServer()
    async with running(far) as url, pooled() as p:
        one = server("h", transport="sse", url=f"{url}/sse", command=())
        for at in range(100):
            assert await p.call(one, ctx(), text=at) == at

    assert far.counts["tools/call"] == 100


async def test_connecting_is_done_once_for_all_who_wait() -> None:
    one = echo()
    async with pooled() as p:
        async with anyio.create_task_group() as tasks:
            for at in range(30):
                tasks.start_soon(lambda at: p.call(one, ctx(), text=at), at)

        assert len(p.pids) == 1


async def test_each_principal_has_a_link_of_its_own() -> None:
    one = echo()
    async with pooled() as p:
        await p.call(one, ctx("ann"))
        await p.call(one, ctx("bob"))
        await p.call(one, ctx("bob", session="s1"))

        assert len(p.pids) == 2
        assert {r.scope for r in p.pool.status()} == {"key-ann", "key-bob"}


async def test_isolation_can_be_widened_and_narrowed() -> None:
    shared, narrow = echo(isolate="shared"), echo(name="narrow", isolate="session")
    async with pooled() as p:
        await p.call(shared, ctx("ann"))
        await p.call(shared, ctx("bob"))
        assert len(p.pids) == 1
        await p.call(narrow, ctx("ann", session="1"))
        await p.call(narrow, ctx("ann", session="2"))
        await p.call(narrow, ctx("ann", session="2"))
        assert len(p.pids) == 3
        assert p.pool.scope(shared, ctx("ann")) == "shared"
        assert p.pool.scope(narrow, ctx("ann", session="2")) == "session:2"
        assert p.pool.scope(narrow, ctx("ann")) == "key-ann"


async def test_notes_of_no_call_are_heard_with_server_and_scope() -> None:
    one = echo()
    async with pooled() as p:
        await p.call(one, ctx(), "change")

        assert p.heard == [("id-echo", "key-ann", ListChanged("tools"))]


# ---------------------------------------------------------------- capabilities


async def test_a_legacy_link_with_capabilities_belongs_to_one_session() -> None:
    one = echo(isolate="shared")
    async with pooled() as p:
        await p.call(one, ctx("ann"))
        first = await p.call(one, ctx("ann", session="1", capabilities=ASKS), "counts")
        await p.call(one, ctx("ann", session="2", capabilities=ASKS))
        await p.call(one, ctx("ann", session="2", capabilities=ASKS))

        assert first["client_capabilities"] == {"elicitation": {}}
        assert (await p.call(one, ctx("bob"), "counts"))["client_capabilities"] == {}
        assert len(p.pids) == 3


async def test_what_a_client_notes_reaches_its_own_link_alone() -> None:
    one = echo()
    changed = OtherNote("notifications/roots/list_changed", {})
    first, second = (ctx("ann", session=name, capabilities=ASKS) for name in "12")
    async with pooled() as p:
        assert p.pool.own(one, first) == ()
        for who in (first, second, ctx("ann")):
            await p.call(one, who)
        for link in p.pool.own(one, first):
            await link.tell(changed)
        assert p.pool.own(one, ctx("ann")) == ()  # nobody was told what that client can

        assert (await p.call(one, first, "counts"))[changed.method] == 1
        assert changed.method not in await p.call(one, second, "counts")
        assert changed.method not in await p.call(one, ctx("ann"), "counts")


async def test_what_is_not_routed_makes_no_link_of_its_own() -> None:
    one = echo()
    async with pooled() as p:
        await p.call(one, ctx())
        await p.call(one, ctx(capabilities=obj(experimental={})))

        assert len(p.pids) == 1


CAPABILITIES: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": False},
    "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}},
}


async def test_a_legacy_server_hears_exactly_what_its_caller_declared() -> None:
    hidden: Any = {"experimental": {"x": {}}, "tasks": {"list": {}}}
    every = [
        tuple(combination)
        for size in range(len(CAPABILITIES) + 1)
        for combination in itertools.combinations(CAPABILITIES, size)
    ]
    legacy = LegacyServer()
    async with running(legacy), pooled() as p:
        one = server("web", transport="http", url=legacy.url, command=())
        for at, names in enumerate(every):
            declared: Any = {name: CAPABILITIES[name] for name in names}
            who = ctx(capabilities=obj(**declared, **hidden), session=str(at))
            await p.call(one, who)
            session = legacy.of("tools/call")[-1].headers["mcp-session-id"]
            begun = legacy.of("initialize")[int(session.removeprefix("session-")) - 1]
            assert begun.params["capabilities"] == declared
        assert len(legacy.sessions) >= len(every)


async def test_a_modern_server_hears_exactly_what_its_caller_declared() -> None:
    modern = ModernServer()
    modern.capabilities = {"tools": {}, "extensions": {"com.example/x": {}, "com.example/y": {}}}
    async with running(modern), pooled() as p:
        one = server("web", transport="http", url=modern.url, command=())
        extensions = {"com.example/x": {"a": None}, "com.example/z": {}}
        declared = {**CAPABILITIES, "extensions": extensions}
        at_one = Endpoint(frozenset({one.id}), native=True)
        await p.call(one, ctx(capabilities=obj(**declared), endpoint=at_one))
        await p.call(one, ctx(capabilities=obj(**declared)))
        heard = [
            exchange.params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
            for exchange in modern.of("tools/call")
        ]
        asks = {name: value for name, value in CAPABILITIES.items() if name != "extensions"}
        assert heard == [{**asks, "extensions": {"com.example/x": {"a": None}}}, asks]


async def test_sessions_that_declare_extensions_alone_share_a_link() -> None:
    one = echo()
    apps: Any = {"io.modelcontextprotocol/ui": {}}
    async with pooled() as p:
        for session in ("1", "2", None):
            await p.call(one, ctx(capabilities=obj(extensions=apps), session=session))
        told = await p.call(one, ctx(capabilities=obj(extensions=apps)), "counts")
        assert told["client_capabilities"] == {"extensions": apps}
        assert len(p.pids) == 1
        other: Any = {"io.modelcontextprotocol/ui": {"mimeTypes": []}}
        await p.call(one, ctx(capabilities=obj(extensions=other)))
        await p.call(one, ctx("bob", capabilities=obj(extensions=apps)))
        assert len(p.pids) == 3
        scope = p.pool.scope(one, ctx(capabilities=obj(extensions=apps)))
        assert scope == "key-ann (io.modelcontextprotocol/ui)"


async def test_what_a_legacy_server_offers_is_known_by_what_the_caller_can() -> None:
    old, new = echo(), echo("--era", "modern", name="new")
    able = ctx("ann", capabilities=ASKS)
    async with pooled() as p:
        for one in (old, new):
            await p.call(one, able)
        assert p.pool.scope(old, able) == "key-ann (elicitation)"
        assert p.pool.scope(old, ctx("ann")) == "key-ann"
        assert p.pool.scope(new, able) == "key-ann"
        await p.call(old, able, "change")
        await p.call(new, able, "change")
        assert p.heard == [
            ("id-echo", "key-ann (elicitation)", ListChanged("tools")),
            ("id-new", "key-ann", ListChanged("tools")),
        ]


async def test_a_modern_link_is_shared_whatever_the_caller_can() -> None:
    one = echo("--era", "modern")
    async with pooled() as p:
        await p.call(one, ctx(capabilities=ASKS))
        await p.call(one, ctx())
        await p.call(one, ctx(capabilities=obj(roots={}), session="1"))

        assert len(p.pids) == 1


async def test_sessionless_callers_with_capabilities_get_one_call_a_link() -> None:
    one, who = echo(), ctx(capabilities=ASKS)
    async with pooled() as p:
        inside, most = 0, 0
        per: dict[object, int] = {}

        async def use() -> None:
            nonlocal inside, most
            async with p.pool.lease(one, who) as lease:
                p.note()
                inside += 1
                most = max(most, inside)
                assert per.setdefault(lease.link, 0) == 0
                per[lease.link] += 1
                await p.on(lease, who, "slow", seconds=0.1)
                per[lease.link] -= 1
                inside -= 1

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(use)

        assert most == site_module.EXCLUSIVE_LINKS
        assert len(per) == site_module.EXCLUSIVE_LINKS
        await p.call(one, who)
        assert len(p.pids) == site_module.EXCLUSIVE_LINKS


async def test_waiting_for_an_exclusive_link_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "EXCLUSIVE_LINKS", 1)
    one, who = echo(timeout=0.2), ctx(capabilities=ASKS)
    async with pooled() as p, p.pool.lease(one, who):
        with pytest.raises(RpcError) as caught:
            async with p.pool.lease(one, who):
                pass
        assert caught.value.code == -32003
        assert caught.value.retry_after


async def test_subscriptions_take_nobodys_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "EXCLUSIVE_LINKS", 1)
    for one, who in ((echo(max_concurrent=1), ctx()), (echo(name="x"), ctx(capabilities=ASKS))):
        async with pooled() as p:
            async with (
                p.pool.lease(one, who, listening=True),
                p.pool.lease(one, who, listening=True),
            ):
                assert await p.call(one, who, text="x") == "x"
                assert [report.in_flight for report in p.pool.status()] == [0]
            assert len(p.pids) == 1


async def test_a_subscription_keeps_its_link_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LOOK", 0.02)
    monkeypatch.setattr(pool_module, "IDLE_STDIO", 0.05)
    async with pooled() as p:
        async with p.pool.lease(echo(), ctx(), listening=True):
            p.note()
            await anyio.sleep(0.2)
            assert p.up() == 1
        await until(lambda: p.pool.status() == [])


# ---------------------------------------------------------------- failures


async def test_a_dead_server_answers_at_once_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(site_module, "BACKOFF_FIRST", 0.3)
    runs = tmp_path / "runs"
    program = f"open({str(runs)!r}, 'a').write('x'); raise SystemExit(4)"
    one = server("dead", command=(sys.executable, "-c", program))
    async with pooled() as p:
        for _ in range(20):
            with pytest.raises(UpstreamError, match="status 4") as caught:
                await p.call(one, ctx())
            assert caught.value.stage == "start"
        assert len(runs.read_text()) == 2  # asked in the modern way, and then in the old one
        report = p.pool.status()[0]
        assert (report.state, report.pid) == ("failed", None)
        assert "status 4" in (report.error or "")

        await anyio.sleep(0.35)
        with pytest.raises(UpstreamError):
            await p.call(one, ctx("bob"))
        assert len(runs.read_text()) == 4


async def test_everybody_who_waits_hears_of_a_failure() -> None:
    one = server("none", command=("no-such-command",))
    failures: list[str] = []
    async with pooled() as p:

        async def use() -> None:
            try:
                await p.call(one, ctx())
            except UpstreamError as error:
                failures.append(error.message)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(use)

    assert len(failures) == 10
    assert len(set(failures)) == 1


async def test_a_crashed_server_is_started_again_by_the_next_lease() -> None:
    one = echo()
    async with pooled() as p:
        await p.call(one, ctx())
        with pytest.raises(RpcError, match="status 7"):
            await p.call(one, ctx(), "crash")

        assert await p.call(one, ctx(), text="back") == "back"
        assert len(p.pids) == 2


async def test_a_server_that_closed_its_output_is_replaced_while_it_lingers() -> None:
    one = echo()
    async with pooled() as p:
        await p.call(one, ctx())
        (pid,) = p.pids
        os.kill(pid, 19)  # stopped: it cannot even end
        try:
            os.kill(pid, 9)
            await until(lambda: not alive(pid))
            await until(lambda: p.up() == 0 or all(r.pid != pid for r in p.pool.status()))
            assert await p.call(one, ctx(), text="new") == "new"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 18)


async def test_the_remembered_failure_ends_with_the_configuration() -> None:
    bad, good = server("echo", command=("no-such-command",)), echo()
    async with pooled() as p:
        with pytest.raises(UpstreamError):
            await p.call(bad, ctx())
        p.pool.retire(bad.id)

        assert await p.call(good, ctx(), text="x") == "x"


async def test_a_url_that_is_none_is_a_lasting_failure() -> None:
    one = server("h", transport="http", url="ftp://x", command=())
    async with pooled() as p:
        with pytest.raises(UpstreamError) as caught:
            await p.call(one, ctx())
        assert caught.value.permanent


# ---------------------------------------------------------------- limits


async def test_max_concurrent_is_first_come_first_served() -> None:
    one = echo(max_concurrent=2)
    order: list[int] = []
    async with pooled() as p:
        inside, most = 0, 0

        async def use(at: int) -> None:
            nonlocal inside, most
            async with p.pool.lease(one, ctx(f"k{at % 3}")):
                p.note()
                inside += 1
                most = max(most, inside)
                order.append(at)
                await anyio.sleep(0.02)
                inside -= 1

        await p.call(one, ctx("k0"))
        async with anyio.create_task_group() as tasks:
            for at in range(9):
                tasks.start_soon(use, at)
                await anyio.lowlevel.checkpoint()

    assert most == 2
    assert sorted(order) == list(range(9))


async def test_waiting_for_a_turn_has_a_bound() -> None:
    one = echo(max_concurrent=1, timeout=0.2)
    async with pooled() as p:
        async with p.pool.lease(one, ctx()):
            began = time.monotonic()
            with pytest.raises(RpcError) as caught:
                await p.call(one, ctx())
            assert time.monotonic() - began < 2
        assert (caught.value.code, caught.value.retry_after is not None) == (-32003, True)
        assert await p.call(one, ctx(), text="x") == "x"


async def test_a_caller_that_gives_up_gives_its_turn_back() -> None:
    one = echo(max_concurrent=1)
    async with pooled() as p:
        async with p.pool.lease(one, ctx()):
            with anyio.move_on_after(0.05):
                await p.call(one, ctx())
        assert await p.call(one, ctx(), text="x") == "x"


async def test_a_turn_that_comes_too_late_is_not_lost() -> None:
    one = echo(max_concurrent=1)
    loop = asyncio.get_running_loop()
    async with pooled() as p:
        held = p.pool.lease(one, ctx())
        await held.__aenter__()
        site, berth = p.pool.find(one, ctx())
        loop.call_soon(p.pool.give_back, berth.slots[0])
        with pytest.raises(RpcError, match="1 calls at a time"):
            await p.pool.take(site, berth, ctx(deadline=loop.time()))

        assert site.running == 0
        assert await p.call(one, ctx(), text="x") == "x"


async def test_who_gets_no_turn_leaves_nothing() -> None:
    one = echo(max_concurrent=1, timeout=0.05)
    async with pooled() as p, p.pool.lease(one, ctx()):
        p.note()
        with pytest.raises(RpcError, match="1 calls at a time"):
            await p.call(one, ctx(session="s", capabilities=ASKS))
        site, _ = p.pool.find(one, ctx())
        assert list(site.berths) == ["key-ann"]


async def test_a_server_that_fails_gives_its_turn_back() -> None:
    one = server("none", command=("no-such-command",), max_concurrent=1)
    async with pooled() as p:
        for _ in range(3):
            with pytest.raises(UpstreamError, match="no-such-command"):
                await p.call(one, ctx())


async def test_a_link_that_is_handed_to_one_who_is_leaving_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(site_module, "EXCLUSIVE_LINKS", 1)
    one, who = echo(), ctx(capabilities=ASKS)
    async with pooled() as p:
        held = p.pool.lease(one, who)
        await held.__aenter__()
        waiting = asyncio.create_task(p.call(one, who))
        _, berth = p.pool.find(one, who)
        await until(lambda: berth.waiters)

        await held.__aexit__(None, None, None)  # hands it over
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting

        assert waiting.cancelled()
        assert await p.call(one, who, text="x") == "x"


async def test_links_of_one_server_are_bounded_and_the_idle_ones_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "MAX_LINKS", 2)
    one = echo()
    async with pooled() as p:
        async with p.pool.lease(one, ctx("a")), p.pool.lease(one, ctx("b")):
            p.note()
            with pytest.raises(RpcError) as caught:
                await p.call(one, ctx("c"))
            assert caught.value.code == -32003
        assert await p.call(one, ctx("c"), text="x") == "x"
        await until(lambda: len(p.pool.status()) == 2)


async def test_children_of_all_servers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_CHILDREN", 1)
    async with pooled() as p:
        async with p.pool.lease(echo(), ctx()):
            p.note()
            with pytest.raises(RpcError):
                await p.call(echo(name="other"), ctx())
        assert await p.call(echo(name="other"), ctx(), text="x") == "x"


# ---------------------------------------------------------------- ends


async def test_idle_links_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LOOK", 0.02)
    monkeypatch.setattr(pool_module, "IDLE_STDIO", 0.1)
    one = echo()
    async with pooled() as p:
        async with p.pool.lease(one, ctx()):
            p.note()
            await anyio.sleep(0.3)
            assert p.up() == 1
        await until(lambda: p.pool.status() == [])
        assert not any(alive(pid) for pid in p.pids)
        assert await p.call(one, ctx(), text="x") == "x"


async def test_a_retired_server_keeps_its_calls_and_takes_no_new_ones() -> None:
    old, new = echo(), echo("--era", "modern")
    async with pooled() as p:
        async with p.pool.lease(old, ctx()) as lease:
            p.note()
            p.pool.retire(old.id)
            assert await p.call(new, ctx(), text="x") == "x"
            assert len(p.pids) == 2
            assert await p.on(lease, ctx(), "echo", text="still") == "still"
        await until(lambda: len(p.pool.status()) == 1)
        assert p.pool.status()[0].revision == "2026-07-28"


async def test_a_retired_server_ends_stubborn_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "RETIRE_WAIT", 0.1)
    one = echo()
    async with pooled() as p, p.pool.lease(one, ctx()) as lease:
        p.note()
        p.pool.retire(one.id)
        with pytest.raises(RpcError):
            await p.on(lease, ctx(), "slow")


async def test_who_waits_for_a_server_that_is_retired_is_told() -> None:
    one = echo("--fault", "mute")
    async with pooled() as p:
        failures: list[UpstreamError] = []

        async def use() -> None:
            try:
                await p.call(one, ctx())
            except UpstreamError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await until(lambda: any(r.pid or r.state == "connecting" for r in p.pool.status()))
            p.pool.retire(one.id)

        assert "changed or removed" in failures[0].message


async def test_who_waits_for_a_turn_at_a_server_that_is_retired_is_told() -> None:
    one = echo(max_concurrent=1)
    async with pooled() as p:
        failures: list[UpstreamError] = []

        async def use() -> None:
            try:
                await p.call(one, ctx())
            except UpstreamError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks, p.pool.lease(one, ctx()):
            p.note()
            site, _ = p.pool.find(one, ctx())
            tasks.start_soon(use)
            await until(lambda: site.queue)
            p.pool.retire(one.id)

        assert "changed or removed" in failures[0].message
        await until(lambda: not p.pool.status())


async def test_a_changed_entry_is_noticed_without_being_told() -> None:
    old, new = echo(), echo("--era", "modern")
    async with pooled() as p:
        await p.call(old, ctx())
        later = context(snapshot(new, generation=2), principal=key("ann"))
        await p.call(new, later)
        # A call that began before the change uses what there is now.
        await p.call(old, ctx())
        assert [r.revision for r in p.pool.status() if r.state == "up"][-1] == "2026-07-28"
        assert len(p.pids) == 2


async def test_an_equal_entry_of_a_new_snapshot_keeps_its_links() -> None:
    async with pooled() as p:
        await p.call(echo(), ctx())
        await p.call(echo(), ctx())

        assert len(p.pids) == 1


async def test_nothing_is_left_of_sessions_that_came_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "BACKOFF_FIRST", 60.0)
    one = server("none", command=("no-such-command",), isolate="session")
    async with pooled() as p:
        for at in range(50):
            with pytest.raises(UpstreamError):
                await p.call(one, ctx(session=str(at)))
        site, _ = p.pool.find(one, ctx(session="last"))
        assert list(site.berths) == ["session:last"]


async def test_a_stopping_pool_ends_calls_and_children() -> None:
    one = echo()
    failed = anyio.Event()
    pool = Pool(secrets=PlainSecrets(), heard=lambda server, scope, note: None)
    pid = 0

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await pool.run(task_status=task_status)

    async with anyio.create_task_group() as calls:
        async with anyio.create_task_group() as tasks:
            await tasks.start(run)

            async def use() -> None:
                async with pool.lease(one, ctx()) as lease:
                    taken.set()
                    made = call("tools/call", ctx(), name="slow", arguments={})
                    with pytest.raises(RpcError):
                        await lease.link.handle(made, Recorder())
                failed.set()

            taken = anyio.Event()
            calls.start_soon(use)
            with anyio.fail_after(PATIENCE):
                await taken.wait()
            (pid,) = [r.pid for r in pool.status() if r.pid]
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await failed.wait()
    assert not alive(pid)
    with pytest.raises(UpstreamError, match="stopping"):
        async with pool.lease(one, ctx()):
            pass

"""Merged lists: order, pages, what is left out and comes back, and what a hit costs."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec import Raw

from mcpgw.core import catalog
from mcpgw.core.eras import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, UPSTREAM_FAILED
from mcpgw.model.calls import Call, Context, Done, ListChanged, Reply, RpcError
from mcpgw.model.config import Server, Target
from mcpgw.model.ports import Caller, UpstreamError
from mcpgw.relay import catalogue, lists
from tests.doubles import (
    PATIENCE,
    Gate,
    Recorder,
    ScriptedLink,
    call,
    context,
    full_link,
    info,
    key,
    listing,
    native,
    obj,
    plain,
    raw,
    server,
    snapshot,
    tool,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B, C = server("a"), server("b"), server("c")
CONFIG = snapshot(C, A, B)
DOWN = UpstreamError("connect", "connection refused")


async def listed(house: House, ctx: Context, method: str = "tools/list", **params: object) -> Any:
    reply = await house.handle(call(method, ctx, **params), Recorder())
    assert isinstance(reply, Done)
    return plain(reply.result)


def names(result: Any) -> list[str]:
    return [one["name"] for one in result["tools"]]


async def all_pages(house: House, ctx: Context) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    with anyio.fail_after(PATIENCE):
        while True:
            result = await listed(house, ctx, cursor=cursor)
            found.extend(names(result))
            cursor = result.get("nextCursor")
            if cursor is None:
                return found


async def test_lists_are_merged_by_server_name_in_upstream_order() -> None:
    links = {
        "c": full_link(tools=["z", "y"]),
        "a": full_link(tools=["m", "b", "m"]),
        "b": full_link(tools=["x"]),
    }
    async with running(links) as house:
        result = await listed(house, context(CONFIG))
        assert names(result) == ["a__m", "a__b", "b__x", "c__z", "c__y"]
        assert result["cacheScope"] == "private"
        assert 0 < result["ttlMs"] <= 60_000
        assert "_meta" not in result


async def test_only_the_name_of_an_entry_changes() -> None:
    body = Raw(
        b'{"x":1e400,"title":"T","name":"n","annotations":{"readOnlyHint":false,"q":null},'
        b'"inputSchema":{"type":"object"},"icons":[{"src":"\\ud83d"}],"_meta":{"b":2}}'
    )
    async with running({"a": full_link(tools=[body])}) as house:
        reply = await house.handle(call("tools/list", context(snapshot(A))), Recorder())
        assert isinstance(reply, Done)
        expected = bytes(body).replace(b'"name":"n"', b'"name":"a__n"')
        assert bytes(reply.result["tools"]) == b"[" + expected + b"]"
        ctx = context(snapshot(A), endpoint=native(A))
        reply = await house.handle(call("tools/list", ctx), Recorder())
        assert isinstance(reply, Done)
        assert bytes(reply.result["tools"]) == b"[" + bytes(body) + b"]"


async def test_entries_without_a_name_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    bad_header = {"properties": {"x": {"type": "object", "x-mcp-header": "X"}}}
    tools = [tool("good"), raw(1), raw({}), raw({"name": 3}), tool("odd", inputSchema=bad_header)]
    async with running({"a": full_link(tools=tools)}) as house:
        assert names(await listed(house, context(snapshot(A)))) == ["a__good"]
        assert len(caplog.records) == 4
    legacy = full_link(tools=tools, info=info(modern=False))
    async with running({"a": legacy}) as house:
        assert names(await listed(house, context(snapshot(A)))) == ["a__good", "a__odd"]


async def test_a_principal_sees_what_it_may_use() -> None:
    links = {name: full_link(tools=["read", "write"], prompts=["p"]) for name in "abc"}
    principal = key("ann", Target("id-a", "tool", "read"), Target("id-b", "prompt"))
    async with running(links) as house:
        ctx = context(CONFIG, principal=principal)
        assert names(await listed(house, ctx)) == ["a__read"]
        prompts = (await listed(house, ctx, "prompts/list"))["prompts"]
        assert [one["name"] for one in prompts] == ["b__p"]
        assert house.links.opened == ["a", "b"]
        assert names(await listed(house, context(CONFIG, principal=key("none")))) == []


async def test_upstream_pages_are_all_read() -> None:
    link = full_link(tools=[f"t{n}" for n in range(25)], page=4)
    async with running({"a": link}) as house:
        result = await listed(house, context(snapshot(A)))
        assert names(result) == [f"a__t{n}" for n in range(25)]
        assert len(link.calls) == 7


async def test_a_repeated_cursor_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def loop(asked: Call, caller: Caller) -> Reply:
        number = len(link.calls)
        return Done(obj(tools=[tool(f"t{number}")], nextCursor="again", ttlMs=1000))

    link = full_link(answers={"tools/list": loop})
    async with running({"a": link}) as house:
        assert names(await listed(house, context(snapshot(A)))) == ["a__t1", "a__t2"]
        assert "repeats a cursor" in caplog.text


async def test_an_endless_list_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(asked: Call, caller: Caller) -> Reply:
        number = len(link.calls)
        return Done(obj(tools=[tool(f"t{number}")], nextCursor=f"c{number}"))

    monkeypatch.setattr(catalogue, "MAX_PAGES", 5)
    link = full_link(answers={"tools/list": endless})
    async with running({"a": link}) as house:
        assert len(names(await listed(house, context(snapshot(A))))) == 5


async def test_too_long_a_list_is_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither its entries nor what is wrong with them hold up anybody, or fill the log."""
    monkeypatch.setattr(catalogue, "MAX_ITEMS", 40)
    monkeypatch.setattr(catalogue, "MAX_WARNINGS", 3)
    items: list[Any] = [*({} for _ in range(20)), *(tool(f"t{n:02}") for n in range(30))]
    link = full_link(answers={"tools/list": listing("tools", items)})
    async with running({"a": link}) as house:
        found = await listed(house, context(snapshot(A)))
    assert names(found) == [f"a__t{n:02}" for n in range(20)]
    assert "too many tools: cut" in caplog.text
    assert caplog.text.count("has no name") == 3
    assert "17 more entries" in caplog.text


async def test_merged_pages_have_their_own_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PAGE", 7)
    links = {name: full_link(tools=[f"t{n}" for n in range(10)], page=3) for name in "abc"}
    async with running(links) as house:
        ctx = context(CONFIG)
        expected = [f"{name}__t{n}" for name in "abc" for n in range(10)]
        assert await all_pages(house, ctx) == expected
        assert await all_pages(house, ctx) == expected


@pytest.mark.parametrize("cursor", ["", "x", "AAAA"])
async def test_an_unknown_cursor_is_refused(cursor: str) -> None:
    async with running({"a": full_link(tools=["t"])}) as house:
        with pytest.raises(RpcError) as caught:
            await listed(house, context(snapshot(A)), cursor=cursor)
        assert caught.value.code == INVALID_PARAMS
        with pytest.raises(RpcError) as caught:
            await listed(house, context(snapshot(A)), cursor=3)
        assert caught.value.code == INVALID_PARAMS
        assert names(await listed(house, context(snapshot(A)), cursor=None)) == ["a__t"]


async def test_a_cursor_is_good_for_its_principal_method_and_endpoint_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "PAGE", 1)
    links = {"a": full_link(tools=["t", "u"], prompts=["p", "q"])}
    async with running(links) as house:
        config = snapshot(A)
        cursor = (await listed(house, context(config)))["nextCursor"]
        assert names(await listed(house, context(config), cursor=cursor)) == ["a__u"]
        ann = key("ann", Target("*"))
        foreign = [
            (context(config, principal=ann), "tools/list"),
            (context(config), "prompts/list"),
            (context(config, endpoint=native(A)), "tools/list"),
        ]
        for ctx, method in foreign:
            with pytest.raises(RpcError):
                await listed(house, ctx, method, cursor=cursor)
        house.seal.now = lists.CURSOR_TTL + 1
        with pytest.raises(RpcError):
            await listed(house, context(config), cursor=cursor)


async def test_no_entry_is_lost_when_servers_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PAGE", 2)
    links = {name: full_link(tools=["t0", "t1", "t2"]) for name in "abc"}
    async with running(links) as house:
        first = await listed(house, context(snapshot(B)))
        assert names(first) == ["b__t0", "b__t1"]
        # "a" is new and before the place, "c" is new and after it, "b" lost its first tool.
        links["b"].answers["tools/list"] = listing("tools", [tool("t1"), tool("t2")])
        house.gateway.heard("id-b", "owner", ListChanged("tools"))
        rest = await listed(house, context(CONFIG), cursor=first["nextCursor"])
        assert names(rest) == ["b__t2", "c__t0"]
        # "b" is gone altogether.
        rest = await listed(house, context(snapshot(A, C)), cursor=first["nextCursor"])
        assert names(rest) == ["c__t0", "c__t1"]
        rest = await listed(house, context(snapshot(A)), cursor=first["nextCursor"])
        assert names(rest) == []


# ---------------------------------------------------------------- servers that fail


async def test_a_failed_server_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    config = snapshot(A, B, C, unusable={"id-c": "the secret env:X is missing"})
    async with running({"a": full_link(tools=["t"]), "b": DOWN}) as house:
        result = await listed(house, context(config))
        assert names(result) == ["a__t"]
        assert result["ttlMs"] == 0
        reasons = {x["server"]: x["reason"] for x in result["_meta"]["mcpgw/unavailable"]}
        assert list(reasons) == ["b", "c"]
        assert "connection refused" in reasons["b"]
        assert reasons["c"] == "the secret env:X is missing"
        assert "connection refused" in caplog.text


async def test_a_server_that_answers_lists_with_an_error_is_left_out() -> None:
    broken = full_link(answers={"tools/list": RpcError(INTERNAL_ERROR, "oops")})
    async with running({"a": full_link(tools=["t"]), "b": broken}) as house:
        result = await listed(house, context(snapshot(A, B)))
        assert names(result) == ["a__t"]
        assert result["_meta"]["mcpgw/unavailable"] == [{"server": "b", "reason": "oops"}]


@pytest.mark.parametrize("tools", [1, {"a": 1}, None])
async def test_a_list_that_is_no_list_is_a_failure(tools: object) -> None:
    broken = full_link(answers={"tools/list": Done(obj(tools=tools))})
    async with running({"b": broken}) as house:
        result = await listed(house, context(snapshot(B)))
        assert [x["server"] for x in result["_meta"]["mcpgw/unavailable"]] == ["b"]


async def test_a_fault_in_a_link_does_not_end_the_gateway(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = full_link(answers={"tools/list": KeyError("bug")})
    async with running({"a": full_link(tools=["t"]), "b": broken}) as house:
        result = await listed(house, context(snapshot(A, B)))
        assert names(result) == ["a__t"]
        assert "bug" in caplog.text


async def test_servers_without_the_capability_are_not_asked() -> None:
    bare = ScriptedLink(info=info(capabilities={"tools": {}}))
    async with running({"a": bare}) as house:
        result = await listed(house, context(snapshot(A)), "prompts/list")
        assert result["prompts"] == []
        assert "_meta" not in result
        assert not bare.calls
        with pytest.raises(RpcError) as caught:
            await listed(house, context(snapshot(A), endpoint=native(A)), "prompts/list")
        assert caught.value.code == METHOD_NOT_FOUND


async def test_a_server_without_templates_is_no_failure() -> None:
    link = full_link(resources=["x:1"])
    del link.answers["resources/templates/list"]
    async with running({"a": link}) as house:
        result = await listed(house, context(snapshot(A)), "resources/templates/list")
        assert result["resourceTemplates"] == []
        assert "_meta" not in result


async def test_at_its_own_address_a_servers_failure_is_the_answer() -> None:
    async with running({"b": DOWN}) as house:
        ctx = context(snapshot(B), endpoint=native(B))
        with pytest.raises(RpcError) as caught:
            await listed(house, ctx)
        assert caught.value.code == UPSTREAM_FAILED
        assert "connection refused" in caught.value.message


async def test_a_late_server_is_left_out_and_its_list_told_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "LIST_WAIT", 0.01)
    gate = Gate()
    late = full_link(answers={"tools/list": gate.then(Done(obj(tools=[tool("t")], ttlMs=9)))})
    async with running({"a": full_link(tools=["t"]), "b": late}) as house:
        ctx = context(snapshot(A, B))
        client = Recorder()
        async with anyio.create_task_group() as tasks:
            wanted = {"toolsListChanged": True}
            tasks.start_soon(
                house.handle, call("subscriptions/listen", ctx, notifications=wanted), client
            )
            await client.noted(1)
            result = await listed(house, ctx)
            assert names(result) == ["a__t"]
            assert [x["server"] for x in result["_meta"]["mcpgw/unavailable"]] == ["b"]
            gate.open()
            assert (await client.noted(2))[1] == ListChanged("tools")
            assert names(await listed(house, ctx)) == ["a__t", "b__t"]
            assert len(late.calls) >= 1
            tasks.cancel_scope.cancel()


async def test_a_late_server_is_waited_for_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for another list, nor by another principal, until it has answered somebody."""
    monkeypatch.setattr(catalogue, "LIST_WAIT", 0.01)
    config = snapshot(A, B)
    other = context(config, principal=key("other", Target("*")))
    async with running({"a": full_link(tools=["t"]), "b": full_link(tools=["u"])}) as house:
        hold = house.links.hold("b")
        await listed(house, context(config))
        monkeypatch.setattr(catalogue, "LIST_WAIT", 60.0)
        with anyio.fail_after(1.0):
            await listed(house, context(config), "prompts/list")
            assert names(await listed(house, other)) == ["a__t"]
        hold.set()
        await _settled(house, other, ["a__t", "b__u"])


async def test_a_late_server_is_waited_for_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LIST_WAIT", 0.01)
    async with running({"a": full_link(tools=["t"]), "b": full_link(tools=["u"])}) as house:
        ctx = context(snapshot(A, B))
        hold = house.links.hold("b")
        await listed(house, ctx)
        monkeypatch.setattr(catalogue, "LIST_WAIT", 60.0)
        with anyio.fail_after(1.0):
            assert names(await listed(house, ctx)) == ["a__t"]
        hold.set()
        await _settled(house, ctx, ["a__t", "b__u"])


async def test_at_its_own_address_a_server_has_the_time_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "LIST_WAIT", 0.0)
    gate = Gate()
    slow = full_link(answers={"tools/list": gate.then(Done(obj(tools=[tool("t")], ttlMs=9)))})
    async with running({"a": slow}) as house, anyio.create_task_group() as tasks:

        async def client() -> None:
            assert names(await listed(house, context(snapshot(A), endpoint=native(A)))) == ["t"]

        tasks.start_soon(client)
        await slow.reached("tools/list")
        gate.open()
    impatient = server("a", timeout=0.01)
    async with running({"a": full_link(tools=["t"])}) as house:
        house.links.hold("a")
        with pytest.raises(RpcError, match="did not answer within"):
            await listed(house, context(snapshot(impatient), endpoint=native(impatient)))


async def test_a_server_known_to_fail_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "REST", 0.0)
    async with running({"a": full_link(tools=["t"]), "b": DOWN}) as house:
        ctx = context(snapshot(A, B))
        await listed(house, ctx)
        hold = house.links.hold("b")  # from now on it does not even fail
        with anyio.fail_after(1.0):
            assert names(await listed(house, ctx)) == ["a__t"]
        house.links.links["b"] = full_link(tools=["u"])
        hold.set()
        await _settled(house, ctx, ["a__t", "b__u"])


async def _settled(house: House, ctx: Context, expected: list[str]) -> None:
    with anyio.fail_after(PATIENCE):
        while names(await listed(house, ctx)) != expected:
            await anyio.lowlevel.checkpoint()


async def test_a_failed_server_comes_back_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "REST", 0.0)
    async with running({"b": DOWN}) as house:
        ctx, client = context(snapshot(B)), Recorder()
        async with anyio.create_task_group() as tasks:
            wanted = {"toolsListChanged": True}
            tasks.start_soon(
                house.handle, call("subscriptions/listen", ctx, notifications=wanted), client
            )
            await client.noted(1)
            assert names(await listed(house, ctx)) == []
            house.links.links["b"] = full_link(tools=["u"])
            await listed(house, ctx)
            assert (await client.noted(2))[1] == ListChanged("tools")
            tasks.cancel_scope.cancel()


async def test_a_server_that_fails_later_is_taken_out_with_a_note() -> None:
    async with running({"b": full_link(tools=["u"])}) as house:
        ctx, client = context(snapshot(B)), Recorder()
        assert names(await listed(house, ctx)) == ["b__u"]
        async with anyio.create_task_group() as tasks:
            wanted = {"toolsListChanged": True}
            tasks.start_soon(
                house.handle, call("subscriptions/listen", ctx, notifications=wanted), client
            )
            await client.noted(1)
            house.links.links["b"] = DOWN
            house.gateway.heard("id-b", "owner", ListChanged("tools"))
            await client.noted(2)
            assert names(await listed(house, ctx)) == []
            assert (await client.noted(3))[2] == ListChanged("tools")
            tasks.cancel_scope.cancel()


# ---------------------------------------------------------------- what is kept


async def test_a_list_is_fetched_once_for_many_at_once() -> None:
    gate = Gate()
    link = full_link(answers={"tools/list": gate.then(listing("tools", [tool("t")]))})
    async with running({"a": link}) as house:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(listed, house, context(snapshot(A)))
            await link.reached("tools/list")
            gate.open()
        assert len(link.calls) == 1


async def test_a_hit_gives_the_same_bytes_and_asks_nobody() -> None:
    link = full_link(tools=["t"])
    async with running({"a": link}) as house:
        asked = call("tools/list", context(snapshot(A)))
        replies = [await house.handle(asked, Recorder()) for _ in range(3)]
        bodies = [reply.result["tools"] for reply in replies if isinstance(reply, Done)]
        assert bodies[0] is bodies[1] is bodies[2]
        assert len(link.calls) == 1


async def test_a_change_is_seen_by_the_next_list() -> None:
    link = full_link(tools=["old"])
    async with running({"a": link}) as house:
        ctx = context(snapshot(A))
        await listed(house, ctx)
        link.answers["tools/list"] = listing("tools", [tool("new")])
        assert names(await listed(house, ctx)) == ["a__old"]
        house.gateway.heard("id-a", "another scope", ListChanged("tools"))
        house.gateway.heard("id-a", "owner", ListChanged("prompts"))
        assert names(await listed(house, ctx)) == ["a__old"]
        house.gateway.heard("id-a", "owner", ListChanged("tools"))
        assert names(await listed(house, ctx)) == ["a__new"]
        await listed(house, ctx)
        assert len(link.calls) == 2


async def test_a_change_during_a_fetch_is_not_missed() -> None:
    gate = Gate()
    link = full_link(answers={"tools/list": gate.then(listing("tools", [tool("old")]))})
    async with running({"a": link}) as house:
        ctx = context(snapshot(A))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listed, house, ctx)
            await link.reached("tools/list")
            house.gateway.heard("id-a", "owner", ListChanged("tools"))
            gate.open()
        link.answers["tools/list"] = listing("tools", [tool("new")])
        assert names(await listed(house, ctx)) == ["a__new"]


async def test_a_modern_list_is_read_again_when_its_time_is_over() -> None:
    link = full_link(tools=["t"], ttl_ms=0)
    async with running({"a": link}) as house:
        result = await listed(house, context(snapshot(A)))
        assert result["ttlMs"] == 0
        await listed(house, context(snapshot(A)))
        assert len(link.calls) == 2


async def test_a_legacy_list_is_served_while_it_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = full_link(tools=["old"], ttl_ms=0, info=info(modern=False))
    async with running({"a": link}) as house:
        ctx, client = context(snapshot(A)), Recorder()
        await listed(house, ctx)
        assert (await listed(house, ctx))["ttlMs"] == 0
        assert len(link.calls) == 1  # good for a minute
        async with anyio.create_task_group() as tasks:
            wanted = {"toolsListChanged": True}
            tasks.start_soon(
                house.handle, call("subscriptions/listen", ctx, notifications=wanted), client
            )
            await client.noted(1)
            link.answers["tools/list"] = listing("tools", [tool("new")], ttl_ms=0)
            monkeypatch.setattr(catalogue, "UNTIMED", -1.0)
            house.gateway.heard("id-a", "owner", ListChanged("tools"))
            await client.noted(2)
            link.answers["tools/list"] = listing("tools", [tool("newer")], ttl_ms=0)
            assert names(await listed(house, ctx)) == ["a__newer"]  # it was told of a change
            link.answers["tools/list"] = listing("tools", [tool("newest")], ttl_ms=0)
            assert names(await listed(house, ctx)) == ["a__newer"]  # its minute is over
            assert (await client.noted(3))[2] == ListChanged("tools")
            assert names(await listed(house, ctx)) == ["a__newest"]
            tasks.cancel_scope.cancel()


async def test_what_is_private_to_a_scope_stays_there() -> None:
    async def mine(asked: Call, caller: Caller) -> Reply:
        return Done(obj(tools=[tool(f"of-{asked.ctx.principal.name}")], ttlMs=1000))

    link = full_link(answers={"tools/list": mine})
    async with running({"a": link}) as house:
        for name in ("ann", "bob", "ann"):
            ctx = context(snapshot(A), principal=key(name, Target("*")))
            assert names(await listed(house, ctx)) == [f"a__of-{name}"]
        assert len(link.calls) == 2


async def test_sessions_of_their_own_have_lists_of_their_own() -> None:
    async def mine(asked: Call, caller: Caller) -> Reply:
        return Done(obj(tools=[tool(f"of-{asked.ctx.session}")], ttlMs=1000))

    one = server("a", isolate="session")
    async with running({"a": full_link(answers={"tools/list": mine})}) as house:
        for session in ("s1", "s2", "s1"):
            ctx = context(snapshot(one), session=session)
            assert names(await listed(house, ctx)) == [f"a__of-{session}"]


@pytest.mark.parametrize(
    "change", [{"prefix": "z"}, {"allow": ("u",)}, {"deny": ("t",)}, {"command": ("other",)}]
)
async def test_a_changed_server_starts_anew(change: dict[str, Any]) -> None:
    link = full_link(tools=["t", "u"])
    async with running({"a": link}) as house:
        old = snapshot(A)
        await listed(house, context(old))
        changed: Server = msgspec.structs.replace(A, **change)
        new = snapshot(changed, generation=2)
        house.gateway.changed(old, new)
        expected = [f"{changed.prefix}__{name}" for name in ("t", "u")]
        if "allow" in change or "deny" in change:
            expected = ["a__u"]
        assert names(await listed(house, context(new))) == expected
        assert len(link.calls) == 2


async def test_an_unchanged_server_keeps_its_list() -> None:
    link = full_link(tools=["t"])
    async with running({"a": link, "b": full_link(tools=["u"])}) as house:
        old, new = snapshot(A), snapshot(server("a"), B, generation=2)
        await listed(house, context(old))
        house.gateway.changed(old, new)
        assert names(await listed(house, context(new))) == ["a__t", "b__u"]
        assert len(link.calls) == 1


async def test_what_else_a_server_says_with_a_list_is_kept_at_its_own_address() -> None:
    async def handle(call: Call, caller: Caller) -> Reply:
        if "cursor" in call.params:
            return Done(obj(tools=[tool("b")], more=3, ttlMs=0, cacheScope="private"))
        extra = {"_meta": {"x/y": None}, "more": [1]}
        return Done(obj(tools=[tool("a")], nextCursor="1", ttlMs=0, cacheScope="public", **extra))

    async with running({"a": full_link(answers={"tools/list": handle})}) as house:
        told = await house.handle(
            call("tools/list", context(snapshot(A), endpoint=native(A))), Recorder()
        )
        assert isinstance(told, Done)
        result = plain(told.result)
        assert [one["name"] for one in result.pop("tools")] == ["a", "b"]
        assert result == {
            "_meta": {"x/y": None},
            "more": [1],
            "ttlMs": 0,
            "cacheScope": "private",
        }
        merged = await house.handle(call("tools/list", context(snapshot(A))), Recorder())
        assert isinstance(merged, Done)
        assert set(merged.result) == {"tools", "ttlMs", "cacheScope"}


async def test_sessions_that_see_the_same_share_what_is_kept() -> None:
    async def answer(asked: Call, _: Caller) -> Reply:
        own = [tool("own")] if asked.ctx.session == "s3" else []
        return Done(obj(tools=[tool("x"), *own], ttlMs=60_000))

    one = server("a", isolate="session")
    config = snapshot(one)
    async with running({"a": ScriptedLink({"tools/list": answer})}) as house:
        for session in ("s1", "s2", "s3"):
            await listed(house, context(config, session=session))
        kept = house.gateway._catalogue  # pyright: ignore[reportPrivateUsage]
        first, second, third = (
            kept.listing(one, f"session:{session}", catalog.TOOLS) for session in ("s1", "s2", "s3")
        )
        assert second.entries is first.entries
        assert second.names is first.names
        assert second.version != first.version
        assert [entry.native for entry in third.entries] == ["x", "own"]
        house.gateway.changed(config, snapshot(generation=2))
        assert not kept._latest  # pyright: ignore[reportPrivateUsage]

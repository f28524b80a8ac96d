"""What a view leaves of the catalogue: at groups' addresses, with denies, under other names."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mcpgw.model.calls import Done, RpcError
from mcpgw.model.config import OWNER, Endpoint, Level, Principal, Target
from tests.doubles import (
    Recorder,
    call,
    context,
    full_link,
    key,
    plain,
    server,
    snapshot,
    text_result,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B = server("a"), server("b")
CONFIG = replace(
    snapshot(A, B),
    groups={
        "g": (Target("id-a", "tool", "get_*"), Target("id-b", "prompt")),
        "every": (Target("*", "tool", "get_x"),),
        "void": (),
    },
)
SERVERS = {
    name: full_link(
        tools=["get_x", "drop_x"], prompts=["p"], answers={"tools/call": text_result(name)}
    )
    for name in ("a", "b")
}


async def listed(house: House, who: Principal, endpoint: Endpoint, what: str = "tools") -> Any:
    ctx = context(CONFIG, principal=who, endpoint=endpoint)
    reply = await house.handle(call(f"{what}/list", ctx), Recorder())
    assert isinstance(reply, Done)
    return [one["name"] for one in plain(reply.result)[what]]


async def called(house: House, who: Principal, endpoint: Endpoint, name: str) -> bool:
    ctx = context(CONFIG, principal=who, endpoint=endpoint)
    try:
        await house.handle(call("tools/call", ctx, name=name), Recorder())
    except RpcError as error:
        if (error.code, error.message) != (-32602, f"Unknown tool: {name}"):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("servers", "groups", "tools", "prompts"),
    [
        ((), ("g",), ["a__get_x"], ["b__p"]),
        ((), ("every",), ["a__get_x", "b__get_x"], []),
        (("id-b",), ("g",), ["a__get_x", "b__get_x", "b__drop_x"], ["b__p"]),
        (("id-b",), (), ["b__get_x", "b__drop_x"], ["b__p"]),
        ((), ("void",), [], []),
        ((), ("gone",), [], []),
        ((), (), [], []),
    ],
)
async def test_an_address_narrows(
    servers: tuple[str, ...], groups: tuple[str, ...], tools: list[str], prompts: list[str]
) -> None:
    endpoint = Endpoint(frozenset(servers), groups=frozenset(groups))
    async with running(SERVERS) as house:
        assert await listed(house, OWNER, endpoint) == tools
        assert await listed(house, OWNER, endpoint, "prompts") == prompts
        for name in ("a__get_x", "a__drop_x", "b__get_x", "b__drop_x"):
            assert await called(house, OWNER, endpoint, name) is (name in tools)


async def test_an_address_grants_nothing() -> None:
    endpoint = Endpoint(frozenset({"id-a", "id-b"}), groups=frozenset({"g", "every"}))
    team = Level("team", "t", (Target("id-b"),), (Target("*", "tool", "drop_*"),))
    inheriting = Principal(id="k", name="k", kind="key", levels=(Level("key", "k", None), team))
    async with running(SERVERS) as house:
        assert await listed(house, key("none"), endpoint) == []
        assert await listed(house, key("one", Target("id-b", "tool", "drop_x")), endpoint) == [
            "b__drop_x"
        ]
        assert await listed(house, inheriting, endpoint) == ["b__get_x"]
        assert await called(house, inheriting, endpoint, "b__get_x")
        assert not await called(house, inheriting, endpoint, "b__drop_x")
        assert not await called(house, inheriting, endpoint, "a__get_x")

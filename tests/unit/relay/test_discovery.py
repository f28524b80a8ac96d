"""server/discover: what is advertised at the address of one server, and of all."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcpgw.core.eras import METHOD_NOT_FOUND, MISSING_CAPABILITY
from mcpgw.core.extensions import APPS, TASKS
from mcpgw.model.calls import Context, Done, RpcError
from mcpgw.model.config import Target
from mcpgw.model.ports import LinkInfo, UpstreamError
from mcpgw.relay import discovery
from tests.doubles import (
    Recorder,
    ScriptedLink,
    call,
    context,
    full_link,
    info,
    key,
    native,
    obj,
    plain,
    server,
    snapshot,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B = server("a"), server("b")
CONFIG = snapshot(A, B)
OTHER = "com.example/x"
LISTS: dict[str, Any] = {"tools": {}}
CORE: dict[str, Any] = {"list": {}, "requests": {"tools": {"call": {}}}}


def modern(*declared: str, **fields: Any) -> Context:
    settings: Any = {id: dict[str, Any]() for id in declared}
    capabilities = obj(extensions=settings) if declared else {}
    return context(CONFIG, capabilities=capabilities, **fields)


def legacy(*declared: str, **fields: Any) -> Context:
    return modern(*declared, **{"revision": "2025-11-25", "session": "s", **fields})


def link(told: LinkInfo) -> ScriptedLink:
    return full_link(tools=["t"], info=told)


def new(**extensions: Any) -> ScriptedLink:
    told = {id.replace("__", "/").replace("_", "."): value for id, value in extensions.items()}
    return link(info(capabilities={**LISTS, "extensions": told}))


def old(revision: str = "2025-11-25", **told: Any) -> ScriptedLink:
    return link(info(modern=False, revision=revision, capabilities={**LISTS, **told}))


def tasks(**more: Any) -> ScriptedLink:
    return link(info(capabilities={**LISTS, "extensions": {TASKS: {}, OTHER: {"a": 1}, **more}}))


async def told(house: House, ctx: Context) -> Any:
    reply = await house.handle(call("server/discover", ctx), Recorder())
    assert isinstance(reply, Done)
    return plain(reply.result)["capabilities"]


@pytest.mark.parametrize(
    ("ctx", "advertised"),
    [
        (modern(TASKS, OTHER), [TASKS]),
        (modern(OTHER), None),
        (modern(APPS), None),
        (legacy(TASKS, OTHER), None),
        (modern(TASKS, OTHER, endpoint=native(A)), [TASKS, OTHER]),
        (modern(APPS, endpoint=native(A)), None),
        (modern(endpoint=native(A)), [TASKS, OTHER]),
        (legacy(TASKS, OTHER, endpoint=native(A)), [OTHER]),
        (modern(TASKS, OTHER, endpoint=native(B)), None),
    ],
)
async def test_extensions_are_advertised_where_both_sides_and_the_gateway_know_them(
    ctx: Context, advertised: list[str] | None
) -> None:
    async with running({"a": tasks(), "b": new()}) as house:
        capabilities = await told(house, ctx)
        found = capabilities.get("extensions")
        assert (None if found is None else list(found)) == advertised
        if found and OTHER in found:
            assert found[OTHER] == {"a": 1}
        assert "tasks" not in capabilities


async def test_servers_are_met_for_it_once_and_only_for_who_may_use_tasks_or_extensions() -> None:
    async with running({"a": tasks(), "b": old()}) as house:
        assert "extensions" not in await told(house, modern())
        assert "extensions" not in await told(house, legacy(revision="2025-06-18"))
        assert not house.links.opened
        assert await told(house, modern(TASKS))
        assert sorted(house.links.opened) == ["a", "b"]
        assert list((await told(house, legacy(APPS))).get("extensions", {})) == []
        assert list((await told(house, modern()))["extensions"]) == [TASKS]
        # What a server can do is known for everybody.
        assert await told(house, modern(TASKS, principal=key("ann", Target("*"))))
        assert len(house.links.opened) == 2


async def test_servers_that_are_late_or_down_hold_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "DISCOVER_WAIT", 0.05)
    down = UpstreamError("connect", "refused")
    async with running({"a": tasks(), "b": down}) as house:
        hold = house.links.hold("a")
        with anyio.fail_after(3):
            assert "extensions" not in await told(house, modern(TASKS))
        hold.set()
        await anyio.wait_all_tasks_blocked()
        assert list((await told(house, modern(TASKS)))["extensions"]) == [TASKS]


async def test_what_a_principal_may_not_use_is_not_advertised() -> None:
    ann = key("ann", Target("id-b"))
    async with running({"a": tasks(), "b": new()}) as house:
        await told(house, modern(TASKS))
        assert "extensions" not in await told(house, modern(TASKS, principal=ann))


async def test_settings_that_servers_do_not_share_are_nobodys() -> None:
    html = {"mimeTypes": ["text/html"]}
    for other, both in ((html, html), ({}, {})):
        links = {"a": tasks(**{APPS: html}), "b": tasks(**{APPS: other})}
        async with running(links) as house:
            found = (await told(house, modern(TASKS, APPS)))["extensions"]
            assert found == {TASKS: {}, APPS: both}


@pytest.mark.parametrize(
    ("ctx", "advertised"),
    [
        (legacy(), {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}),
        (legacy(endpoint=native(A)), CORE),
        (legacy(revision="2025-06-18"), None),
        (legacy(revision="2025-06-18", endpoint=native(A)), None),
        (modern(TASKS), None),
        (modern(TASKS, endpoint=native(A)), None),
    ],
)
async def test_tasks_of_2025_are_advertised_to_clients_of_2025(
    ctx: Context, advertised: Any
) -> None:
    links = {"a": old(tasks=CORE), "b": old(tasks={"cancel": {}})}
    async with running(links) as house:
        capabilities = await told(house, ctx)
        assert capabilities.get("tasks") == advertised
        assert "extensions" not in capabilities


async def test_there_are_no_tasks_across_eras() -> None:
    async with running({"a": tasks(), "b": old("2025-06-18", tasks=CORE)}) as house:
        for endpoint in (native(A), native(B), context(CONFIG).endpoint):
            assert "tasks" not in await told(house, legacy(endpoint=endpoint))


async def test_a_changed_server_is_met_again() -> None:
    async with running({"a": tasks(), "b": new()}) as house:
        assert "extensions" in await told(house, modern(TASKS))
        changed = snapshot(server("a", timeout=3.0), B, generation=2)
        house.links.links["a"] = new()
        house.gateway.changed(CONFIG, changed)
        ctx = context(changed, capabilities=obj(extensions={TASKS: {}}))
        assert "extensions" not in await told(house, ctx)


async def test_tasks_are_unknown_where_no_server_has_them_and_missing_where_one_has() -> None:
    async with running({"a": tasks(), "b": new()}) as house:
        await told(house, modern(TASKS))
        for endpoint, code in (
            (context(CONFIG).endpoint, MISSING_CAPABILITY),
            (native(A), MISSING_CAPABILITY),
            (native(B), METHOD_NOT_FOUND),
        ):
            asked = call("tasks/get", modern(endpoint=endpoint), taskId="x")
            with pytest.raises(RpcError) as caught:
                await house.handle(asked, Recorder())
            assert caught.value.code == code

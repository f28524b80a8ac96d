"""Extensions that the gateway does not know: passed between one client and one server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcpgw.core.eras import METHOD_NOT_FOUND
from mcpgw.model.calls import Call, Context, Done, Listening, OtherNote, Reply, RpcError
from mcpgw.model.config import EVERYTHING, Target
from mcpgw.model.ports import Caller, LinkInfo
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

A = server("a")
CONFIG = snapshot(A)
SKILLS = "com.example/skills"
DONE = Done(obj(skills=[]))


def ctx(*declared: str, **fields: Any) -> Context:
    settings: Any = {id: dict[str, Any]() for id in declared}
    defaults: Any = {
        "endpoint": native(A),
        "principal": key("ann", Target("*")),
        "capabilities": obj(extensions=settings) if declared else {},
    }
    return context(CONFIG, **{**defaults, **fields})


def skilled(*, modern: bool = True) -> ScriptedLink:
    has: Any = {"tools": {"listChanged": True}, "extensions": {SKILLS: {}}}
    told: LinkInfo = info(modern=modern, capabilities=has)
    return full_link(answers={"skills/list": DONE}, info=told)


async def refused(house: House, asked: Call) -> bool:
    with pytest.raises(RpcError) as caught:
        await house.handle(asked, Recorder())
    return caught.value.code == METHOD_NOT_FOUND


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_a_method_of_an_extension_passes_as_it_came(modern: bool, revision: str) -> None:
    link = skilled(modern=modern)
    async with running({"a": link}) as house:
        asked = Call("skills/list", obj(uri="x", n=None), ctx(SKILLS, revision=revision), obj(m=1))
        assert await house.handle(asked, Recorder()) is DONE
        (seen,) = link.of("skills/list")
        assert seen.params is asked.params
        assert plain(seen.meta) == {"m": 1}
        assert not seen.param_headers


async def test_what_the_client_said_of_the_name_goes_with_it() -> None:
    link = skilled()
    async with running({"a": link}) as house:
        here = ctx(SKILLS, headers={"mcp-name": "=?base64?eA==?="}, mirrored=True)
        await house.handle(call("skills/list", here, uri="x"), Recorder())
        assert link.of("skills/list")[0].param_headers == {"mcp-name": "=?base64?eA==?="}


@pytest.mark.parametrize(
    "here",
    [
        ctx(),
        ctx("com.example/other"),
        ctx("io.modelcontextprotocol/ui", "io.modelcontextprotocol/tasks"),
        ctx(SKILLS, endpoint=EVERYTHING),
        # Nobody can tell what an extension reaches, so part of a server is not enough.
        ctx(SKILLS, principal=key("ann", Target("*", "tool"), Target("*", "prompt"))),
        ctx(SKILLS, principal=key("ann", Target("*"), denies=[Target("*", "tool", "x")])),
        ctx(SKILLS, principal=key("ann")),
    ],
)
async def test_what_is_not_known_by_both_is_an_unknown_method(here: Context) -> None:
    link = skilled()
    async with running({"a": link}) as house:
        assert await refused(house, call("skills/list", here))
        assert not link.of("skills/list")
    bare = full_link(answers={"skills/list": DONE})
    async with running({"a": bare}) as house:
        assert await refused(house, call("skills/list", ctx(SKILLS)))


async def test_notes_of_an_extension_are_listened_to() -> None:
    note = OtherNote("notifications/skills/list_changed", obj(n=None))

    async def listen(call: Call, caller: Caller) -> Reply:
        assert plain(call.params["notifications"]) == {"skillsListChanged": True, "x": [1]}
        await caller.tell(Listening(obj(skillsListChanged=True)))
        await caller.tell(note)
        await anyio.sleep_forever()
        raise AssertionError

    wanted = {"toolsListChanged": True, "skillsListChanged": True, "x": [1]}
    link = skilled()
    link.answers["subscriptions/listen"] = listen
    async with running({"a": link}) as house:
        client = Recorder()
        async with anyio.create_task_group() as tasks:
            asked = call("subscriptions/listen", ctx(SKILLS), notifications=wanted)
            tasks.start_soon(house.handle, asked, client)
            first, second = await client.noted(2)
            assert isinstance(first, Listening)
            assert plain(first.wanted) == {"toolsListChanged": True, "skillsListChanged": True}
            assert second == note
            tasks.cancel_scope.cancel()
        deaf = Recorder()
        async with anyio.create_task_group() as tasks:
            asked = call("subscriptions/listen", ctx(), notifications=wanted)
            tasks.start_soon(house.handle, asked, deaf)
            (first,) = await deaf.noted(1)
            assert isinstance(first, Listening)
            assert plain(first.wanted) == {"toolsListChanged": True}
            tasks.cancel_scope.cancel()


async def test_what_a_handshake_server_tells_beside_the_protocol_reaches_who_shares_it() -> None:
    note = OtherNote("notifications/skills/list_changed", obj(n=None))
    old: Any = {"revision": "2025-11-25", "session": "s"}
    async with running({"a": skilled(modern=False)}) as house:
        knows, other, bob = Recorder(), Recorder(), Recorder()
        async with anyio.create_task_group() as tasks:
            for client, here in (
                (knows, ctx(SKILLS, **old)),
                (other, ctx(**old)),
                (bob, ctx(SKILLS, **{**old, "principal": key("bob", Target("*"))})),
            ):
                asked = call("subscriptions/listen", here, notifications={"toolsListChanged": True})
                tasks.start_soon(house.handle, asked, client)
                await client.noted(1)
            house.gateway.heard("id-a", "key-ann", note)
            assert (await knows.noted(2))[1] == note
            await anyio.wait_all_tasks_blocked()
            assert (len(other.notes), len(bob.notes)) == (1, 1)
            tasks.cancel_scope.cancel()


async def test_whose_rights_are_narrowed_hears_no_more_of_it() -> None:
    note = OtherNote("notifications/skills/list_changed", obj(n=None))
    narrowed = key("ann", Target("id-a", "tool", "x*"))
    new = snapshot(A, principals=[narrowed], generation=2)
    here = ctx(SKILLS, revision="2025-11-25", session="s")
    async with running({"a": skilled(modern=False)}) as house:
        client = Recorder()
        async with anyio.create_task_group() as tasks:
            asked = call("subscriptions/listen", here, notifications={"toolsListChanged": True})
            tasks.start_soon(house.handle, asked, client)
            await client.noted(1)
            house.gateway.changed(snapshot(A, principals=[key("ann", Target("*"))]), new)
            await client.noted(2)  # that its lists are others
            house.gateway.heard("id-a", "key-ann", note)
            await anyio.wait_all_tasks_blocked()
            assert note not in client.notes
            tasks.cancel_scope.cancel()

"""Apps and cited resources: what a client reads is what the server that named it has."""

from __future__ import annotations

from typing import Any

import pytest

from mcpgw.core.eras import INVALID_PARAMS
from mcpgw.core.extensions import TASKS
from mcpgw.model.calls import Call, Context, Done, ListChanged, Reply, RpcError
from mcpgw.model.config import Target
from mcpgw.model.ports import Caller
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
    tool,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B = server("a"), server("b")
CONFIG = snapshot(A, B)
APP = "ui://clock/app.html"
HTML = "text/html;profile=mcp-app"


def link_to(uri: str) -> dict[str, str]:
    return {"type": "resource_link", "uri": uri, "name": "n"}


def serving(name: str, resources: list[Any], cited: list[str] | None = None) -> ScriptedLink:
    """A server whose tool cites resources, and which reads whatever it lists, or any `any:`."""
    known = {one if isinstance(one, str) else one["uri"] for one in resources}

    async def read(call: Call, caller: Caller) -> Reply:
        uri = plain(call.params["uri"])
        if uri not in known and not uri.startswith(("any:", "ui://")):
            raise RpcError(INVALID_PARAMS, "Resource not found", obj(x={"uri": uri})["x"])
        return Done(obj(contents=[{"uri": uri, "text": name}], ttlMs=0, cacheScope="private"))

    content = [link_to(uri) for uri in cited or []]
    app = {"ui": {"resourceUri": APP, "visibility": ["model"]}, "x": None}
    return full_link(
        tools=[tool("cite"), tool("show", _meta=app)],
        prompts=["p"],
        resources=resources,
        answers={
            "tools/call": Done(obj(content=content)),
            "prompts/get": Done(obj(messages=[{"role": "user", "content": content[0]}]))
            if content
            else Done({}),
            "resources/read": read,
        },
    )


async def done(house: House, method: str, ctx: Context, **params: Any) -> Any:
    reply = await house.handle(call(method, ctx, **params), Recorder())
    assert isinstance(reply, Done)
    return plain(reply.result)


async def text_of(house: House, ctx: Context, uri: str) -> str:
    told = await done(house, "resources/read", ctx, uri=uri)
    (contents,) = told["contents"]
    assert contents["uri"] == uri
    return contents["text"]


async def cited(house: House, ctx: Context, name: str) -> list[str]:
    told = await done(house, "tools/call", ctx, name=name)
    return [one["uri"] for one in told["content"]]


# ---------------------------------------------------------------- apps


async def test_the_app_of_a_tool_is_read_from_the_tools_own_server() -> None:
    links = {name: serving(name, []) for name in "ab"}  # apps need not be listed
    async with running(links) as house:
        ctx = context(CONFIG)
        for one in (await done(house, "tools/list", ctx))["tools"]:
            if one["name"].endswith("show"):
                ui = one["_meta"]["ui"]
                assert ui["resourceUri"].startswith("ui://")  # hosts take nothing else
                assert ui["visibility"] == ["model"]
                assert one["_meta"]["x"] is None
                assert await text_of(house, ctx, ui["resourceUri"]) == one["name"][0]
        one_only = context(CONFIG, endpoint=native(B))
        (_, show) = (await done(house, "tools/list", one_only))["tools"]
        assert show["_meta"] == {"ui": {"resourceUri": APP, "visibility": ["model"]}, "x": None}
        assert await text_of(house, one_only, APP) == "b"
        assert await text_of(house, ctx, APP) in "ab"


async def test_older_ways_to_name_an_app_follow_too_and_other_uris_stay() -> None:
    meta: Any = {
        "ui/resourceUri": APP,
        "openai/outputTemplate": APP,
        "other": APP,
        "ui": {"resourceUri": "https://example.com"},
    }
    odd: Any = {"ui": APP, "ui/resourceUri": None, "ui://": 1}
    link = full_link(tools=[tool("t", _meta=meta), tool("u", _meta=odd), tool("v", _meta=APP)])
    async with running({"a": link}) as house:
        (t, u, v) = (await done(house, "tools/list", context(snapshot(A))))["tools"]
        own = "ui://mcpgw/a/clock/app.html"
        assert t["_meta"] == {**meta, "ui/resourceUri": own, "openai/outputTemplate": own}
        assert (u["_meta"], v["_meta"]) == (odd, APP)


async def test_listed_apps_and_their_tools_name_the_same() -> None:
    listed: Any = {"uri": APP, "name": "clock", "mimeType": HTML, "_meta": {"ui": {"csp": {}}}}
    async with running({"a": serving("a", [listed]), "b": serving("b", [])}) as house:
        ctx = context(CONFIG)
        (one,) = (await done(house, "resources/list", ctx))["resources"]
        assert one == {**listed, "uri": "ui://mcpgw/a/clock/app.html"}
        at_one = context(CONFIG, endpoint=native(A))
        assert (await done(house, "resources/list", at_one))["resources"] == [listed]


async def test_a_denied_app_looks_absent_under_any_name() -> None:
    who = key("ann", Target("*"), denies=[Target("id-a", "resource", "ui://*")])
    absent = RpcError(INVALID_PARAMS, "Resource not found")
    a, b = serving("a", []), full_link(answers={"resources/read": absent})
    async with running({"a": a, "b": b}) as house:
        ctx = context(CONFIG, principal=who)
        for uri in (APP, "ui://mcpgw/a/clock/app.html"):
            with pytest.raises(RpcError) as caught:
                await house.handle(call("resources/read", ctx, uri=uri), Recorder())
            assert caught.value.message == "Resource not found"
        assert not a.of("resources/read")


# ---------------------------------------------------------------- links


async def test_what_a_tool_links_to_is_read_from_its_own_server() -> None:
    shared, mine = "file:///shared", "file:///b"
    links = {
        "a": serving("a", [shared], [shared]),
        "b": serving("b", [shared, mine], [shared, mine, "file:///nowhere", APP]),
    }
    async with running(links) as house:
        ctx = context(CONFIG)
        found = await cited(house, ctx, "b__cite")
        assert found == [
            "mcpgw:b/file:///shared",
            mine,
            "file:///nowhere",
            "ui://mcpgw/b/clock/app.html",
        ]
        assert [await text_of(house, ctx, uri) for uri in (*found[:2], found[3])] == ["b"] * 3
        assert await cited(house, ctx, "a__cite") == ["mcpgw:a/file:///shared"]
        told = await done(house, "prompts/get", ctx, name="b__p")
        assert told["messages"][0]["content"]["uri"] == "mcpgw:b/file:///shared"
        at_one = context(CONFIG, endpoint=native(B))
        assert await cited(house, at_one, "cite") == [shared, mine, "file:///nowhere", APP]


async def test_what_only_anothers_template_matches_names_its_server() -> None:
    a = full_link(tools=["t"], templates=["any:{x}"])
    b = serving("b", [], ["any:1"])
    async with running({"a": a, "b": b}) as house:
        ctx = context(CONFIG)
        (found,) = await cited(house, ctx, "b__cite")
        assert found == "mcpgw:b/any:1"
        assert await text_of(house, ctx, found) == "b"


async def test_answers_are_looked_into_only_where_they_may_cite() -> None:
    links = {"a": serving("a", ["file:///s"]), "b": serving("b", ["file:///s"], ["file:///s"])}
    links["b"].info = info(capabilities={"tools": {}, "prompts": {}})  # it has no resources
    text = Done(obj(content=[{"type": "text", "text": "hi"}]))
    links["a"].answers["tools/call"] = text
    async with running(links) as house:
        ctx = context(CONFIG)
        assert await house.handle(call("tools/call", ctx, name="a__cite"), Recorder()) is text
        assert await cited(house, ctx, "b__cite") == ["file:///s"]
        assert not links["a"].of("resources/list")
        who = key("ann", Target("id-a", "tool"))
        links["a"].answers["tools/call"] = Done(obj(content=[link_to(APP)]))
        assert await cited(house, context(CONFIG, principal=who), "a__cite") == [APP]


async def test_a_server_that_has_resources_by_now_is_looked_at() -> None:
    link = serving("a", [], [APP])
    link.info = info(capabilities={"tools": {"listChanged": True}})
    async with running({"a": link, "b": full_link()}) as house:
        ctx = context(CONFIG)
        assert await cited(house, ctx, "a__cite") == [APP]
        link.info = info()
        house.gateway.heard("id-a", "owner", ListChanged("tools"))
        await done(house, "tools/list", ctx)
        assert await cited(house, ctx, "a__cite") == ["ui://mcpgw/a/clock/app.html"]


async def test_parts_of_what_was_read_follow() -> None:
    async def read(call: Call, caller: Caller) -> Reply:
        contents = [{"uri": uri, "text": ""} for uri in ("dir:/", "dir:/1", "dir:/2")]
        return Done(obj(contents=contents, ttlMs=0, cacheScope="private"))

    a = full_link(resources=["dir:/", "dir:/1", "dir:/2"], answers={"resources/read": read})
    b = full_link(resources=["dir:/1"])
    async with running({"a": a, "b": b}) as house:
        for asked in ("dir:/", "mcpgw:a/dir:/"):
            told = await done(house, "resources/read", context(CONFIG), uri=asked)
            uris = [one["uri"] for one in told["contents"]]
            assert uris == [asked, "mcpgw:a/dir:/1", "dir:/2"]


async def test_what_a_task_brings_follows() -> None:
    task = {"taskId": "7", "status": "completed"}
    links = {"a": serving("a", ["file:///s"]), "b": serving("b", ["file:///s"])}
    links["b"].info = info(
        capabilities={"tools": {}, "resources": {}, "extensions": {TASKS: {}}},
    )
    links["b"].answers["tools/call"] = Done(obj(**task), "task")
    result = {"content": [link_to("file:///s")], "x": None}
    links["b"].answers["tasks/get"] = Done(obj(**task, result=result))
    async with running(links) as house:
        knows: Any = {TASKS: {}}
        ctx = context(CONFIG, capabilities=obj(extensions=knows))
        handle = (await done(house, "tools/call", ctx, name="b__cite"))["taskId"]
        told = await done(house, "tasks/get", ctx, taskId=handle)
        named = {"content": [link_to("mcpgw:b/file:///s")], "x": None}
        assert told == {"taskId": handle, "status": "completed", "result": named}

        old = info(
            modern=False,
            capabilities={
                "tools": {},
                "resources": {},
                "tasks": {"requests": {"tools": {"call": {}}}},
            },
        )
        links["b"].info = old
        links["b"].answers["tools/call"] = Done(obj(task=task))
        links["b"].answers["tasks/result"] = Done(obj(**result))
        ctx = context(CONFIG, revision="2025-11-25", session="s")
        begun = await done(house, "tools/call", ctx, name="b__cite", task={})
        told = await done(house, "tasks/result", ctx, taskId=begun["task"]["taskId"])
        assert told == named

"""The gateway: routing, names, access, discovery, and errors in plain words."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from msgspec import Raw

from mcpgw.core import headers
from mcpgw.core.eras import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    UPSTREAM_FAILED,
)
from mcpgw.model.calls import Call, Context, Done, ListChanged, OtherNote, Reply, RpcError
from mcpgw.model.config import Endpoint, Principal, Target
from mcpgw.model.ports import Caller, UpstreamError
from tests.doubles import (
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
    text_result,
    tool,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

GITHUB, DOCS = server("github", description="Issues and code"), server("docs")
BOTH = snapshot(GITHUB, DOCS)
OK = text_result("ok")


def github(**fields: Any) -> ScriptedLink:
    answers = {"tools/call": OK, "prompts/get": OK, "completion/complete": OK}
    return full_link(
        tools=["create_issue", "delete_repo"],
        prompts=["review"],
        answers={**answers, **fields.pop("answers", {})},
        **fields,
    )


async def result(house: House, asked: Call) -> Any:
    reply = await house.handle(asked, Recorder())
    assert isinstance(reply, Done)
    return plain(reply.result)


async def refusal(house: House, asked: Call) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await house.handle(asked, Recorder())
    return caught.value


async def test_a_call_goes_on_under_its_native_name_with_everything_else_as_it_came() -> None:
    link = github()
    async with running({"github": link, "docs": full_link()}) as house:
        arguments = Raw(b'{"n": 1e400, "deep": {"a":null}}')
        asked = Call(
            "tools/call",
            obj(name="github__create_issue", arguments=arguments, extra=[1]),
            context(BOTH),
            meta=obj(**{"x/y": 1}),
            wants_progress=True,
        )
        assert await house.handle(asked, Recorder()) is OK
        (seen,) = link.of("tools/call")
        assert plain(seen.params["name"]) == "create_issue"
        assert bytes(seen.params["arguments"]) == bytes(arguments)
        assert list(seen.params) == ["name", "arguments", "extra"]
        assert plain(seen.meta) == {"x/y": 1}
        assert seen.wants_progress
        assert seen.ctx is asked.ctx


async def test_a_hundred_calls_cost_a_hundred_upstream_requests_and_one_list() -> None:
    link = github()
    async with running({"github": link}) as house:
        for _ in range(100):
            await house.handle(
                call("tools/call", context(BOTH), name="github__create_issue"), Recorder()
            )
        assert len(link.of("tools/call")) == 100
        assert len(link.calls) == 101
        assert house.links.out == 0


async def test_native_names_at_the_address_of_one_server() -> None:
    link = github()
    ctx = context(BOTH, endpoint=native(GITHUB))
    async with running({"github": link}) as house:
        await house.handle(call("tools/call", ctx, name="create_issue"), Recorder())
        assert plain(link.of("tools/call")[0].params["name"]) == "create_issue"
        error = await refusal(house, call("tools/call", ctx, name="github__create_issue"))
        assert error.message == "Unknown tool: github__create_issue"


LIMITED = key("ann", Target("id-github"), denies=[Target("id-github", "tool", "delete_*")])


@pytest.mark.parametrize("name", ["github__delete_repo", "github__nothing", "docs__x", "x", ""])
async def test_denied_and_absent_tools_look_the_same(name: str) -> None:
    link, docs = github(), full_link(tools=["x"])
    async with running({"github": link, "docs": docs}) as house:
        error = await refusal(
            house, call("tools/call", context(BOTH, principal=LIMITED), name=name)
        )
        assert (error.code, error.message, error.data) == (
            INVALID_PARAMS,
            f"Unknown tool: {name}",
            None,
        )
        assert not link.of("tools/call")
        assert not docs.calls


@pytest.mark.parametrize("principal", [LIMITED, key("none")])
async def test_a_denied_call_never_reaches_the_server(principal: Principal) -> None:
    link = github()
    async with running({"github": link, "docs": full_link()}) as house:
        ctx = context(BOTH, principal=principal)
        await refusal(house, call("tools/call", ctx, name="github__delete_repo"))
        ctx = context(BOTH, principal=principal, endpoint=native(GITHUB))
        await refusal(house, call("tools/call", ctx, name="delete_repo"))
        assert not link.of("tools/call")


async def test_a_key_without_any_tool_of_a_server_costs_it_nothing() -> None:
    link = github()
    async with running({"github": link}) as house:
        ctx = context(BOTH, principal=key("ann", Target("id-github", "prompt")))
        error = await refusal(house, call("tools/call", ctx, name="github__create_issue"))
        assert error.message == "Unknown tool: github__create_issue"
        assert not house.links.opened


async def test_a_tool_that_appears_is_found_by_one_more_look() -> None:
    link = github()
    async with running({"github": link}) as house:
        ctx = context(BOTH)
        await refusal(house, call("tools/call", ctx, name="github__new"))
        link.answers["tools/list"] = listing("tools", [tool("new")])
        await refusal(house, call("tools/call", ctx, name="github__new"))
        assert len(link.of("tools/list")) == 1  # not more than one look a second
        house.gateway.heard("id-github", "owner", ListChanged("tools"))
        await house.handle(call("tools/call", ctx, name="github__new"), Recorder())


async def test_prompts_and_completions_are_renamed_too() -> None:
    link = github()
    async with running({"github": link, "docs": full_link()}) as house:
        ctx = context(BOTH)
        await house.handle(call("prompts/get", ctx, name="github__review"), Recorder())
        assert plain(link.of("prompts/get")[0].params["name"]) == "review"
        ref = {"type": "ref/prompt", "name": "github__review", "title": None}
        await house.handle(
            call("completion/complete", ctx, ref=ref, argument={"name": "a", "value": ""}),
            Recorder(),
        )
        assert plain(link.of("completion/complete")[0].params) == {
            "ref": {"type": "ref/prompt", "name": "review", "title": None},
            "argument": {"name": "a", "value": ""},
        }
        error = await refusal(house, call("prompts/get", ctx, name="github__none"))
        assert error.message == "Unknown prompt: github__none"


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("tools/call", {}, "`name` must be a string"),
        ("tools/call", {"name": 1}, "`name` must be a string"),
        ("prompts/get", {"name": None}, "`name` must be a string"),
        ("resources/read", {}, "`uri` must be a string"),
        ("completion/complete", {}, "`ref` must be"),
        ("completion/complete", {"ref": []}, "`ref` must be"),
        ("completion/complete", {"ref": {"type": "ref/x"}}, "`ref` must be"),
        ("subscriptions/listen", {}, "`notifications` must be an object"),
        ("subscriptions/listen", {"notifications": 1}, "`notifications` must be an object"),
    ],
)
async def test_malformed_params_are_said_so(
    method: str, params: dict[str, object], message: str
) -> None:
    async with running({"github": github(), "docs": full_link()}) as house:
        error = await refusal(house, call(method, context(BOTH), **params))
        assert error.code == INVALID_PARAMS
        assert message in error.message


async def test_a_client_notes_something_to_every_server_it_may_use() -> None:
    one, other = github(), github()
    told = OtherNote("notifications/roots/list_changed", {})
    who = key("ann", Target("id-github"))
    async with running({"github": one, "docs": other}) as house:
        house.gateway.tell(context(BOTH, principal=who), told)
        await result(house, call("tools/list", context(BOTH, principal=who)))
    assert one.told == [told]
    assert other.told == []
    house.gateway.tell(context(BOTH, principal=who), told)  # it has stopped: nothing happens
    assert len(one.told) == 1


async def test_unknown_methods() -> None:
    async with running({}) as house:
        error = await refusal(house, call("tasks/get", context(BOTH), taskId="1"))
        assert error.code == METHOD_NOT_FOUND


async def test_a_server_that_cannot_be_reached_is_named_with_the_stage() -> None:
    down = UpstreamError("connect", "cannot be reached: connection refused")
    async with running({"github": down}) as house:
        error = await refusal(house, call("tools/call", context(BOTH), name="github__x"))
        assert error.code == UPSTREAM_FAILED
        assert error.message == 'The server "github" cannot be reached: connection refused'
        assert error.data is not None
        assert plain(error.data) == {"server": "github", "stage": "connect"}


async def test_a_server_that_went_away_between_list_and_call() -> None:
    async with running({"github": github()}) as house:
        asked = call("tools/call", context(BOTH), name="github__create_issue")
        await house.handle(asked, Recorder())
        house.links.links["github"] = UpstreamError("start", "no such file")
        error = await refusal(house, asked)
        assert (error.code, "no such file" in error.message) == (UPSTREAM_FAILED, True)


async def test_a_server_whose_reference_is_missing() -> None:
    config = snapshot(GITHUB, unusable={"id-github": "the secret env:TOKEN is missing"})
    link = github()
    async with running({"github": link}) as house:
        error = await refusal(house, call("tools/call", context(config), name="github__x"))
        assert error.code == UPSTREAM_FAILED
        assert "env:TOKEN" in error.message
        error = await refusal(
            house, call("server/discover", context(config, endpoint=native(GITHUB)))
        )
        assert "env:TOKEN" in error.message
        assert not link.calls


async def test_errors_of_a_server_pass() -> None:
    failing = github(answers={"tools/call": RpcError(-32602, "bad", raw({"x": 1}))})
    async with running({"github": failing}) as house:
        error = await refusal(house, call("tools/call", context(BOTH), name="github__create_issue"))
        assert (error.code, error.message, plain(error.data)) == (-32602, "bad", {"x": 1})


async def test_discovery_of_the_whole_gateway() -> None:
    async with running({}) as house:
        told = await result(house, call("server/discover", context(BOTH)))
        assert told["capabilities"]["tools"] == {"listChanged": True}
        assert told["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
        assert told["serverInfo"]["name"] == "mcpgw"
        assert "2026-07-28" in told["supportedVersions"]
        assert told["cacheScope"] == "private"
        assert "- github: Issues and code" in told["instructions"]
        assert "- docs" in told["instructions"]
        assert not house.links.opened
        told = await result(house, call("server/discover", context(BOTH, principal=LIMITED)))
        assert "docs" not in told["instructions"]


async def test_discovery_of_one_server() -> None:
    has = info(
        capabilities={"tools": {"x": 1}, "completions": {}, "experimental": {"y": {}}},
        instructions="Be kind.",
    )
    async with running({"github": ScriptedLink(info=has)}) as house:
        told = await result(house, call("server/discover", context(BOTH, endpoint=native(GITHUB))))
        assert told["capabilities"] == {
            "tools": {"x": 1, "listChanged": True},
            "completions": {},
        }
        assert told["instructions"] == "Be kind."


async def test_the_address_of_a_server_that_is_not_mine_looks_like_none() -> None:
    async with running({"docs": full_link()}) as house:
        denied = context(BOTH, principal=LIMITED, endpoint=native(DOCS))
        absent = context(BOTH, principal=LIMITED, endpoint=Endpoint(frozenset({"id-x"}), True))
        for method in ("server/discover", "tools/list"):
            errors = [await refusal(house, call(method, ctx)) for ctx in (denied, absent)]
            assert (errors[0].code, errors[0].message) == (errors[1].code, errors[1].message)
        assert not house.links.opened


# ---------------------------------------------------------------- mirrored arguments

SCHEMA = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}
REGIONAL = tool("query", inputSchema=SCHEMA)


async def test_arguments_are_mirrored_upstream() -> None:
    link = full_link(tools=[REGIONAL], answers={"tools/call": OK})
    async with running({"github": link}) as house:
        asked = call(
            "tools/call", context(BOTH), name="github__query", arguments={"region": "eu ä"}
        )
        await house.handle(asked, Recorder())
        (seen,) = link.of("tools/call")
        assert seen.param_headers == {"mcp-param-region": headers.encode("eu ä")}


@pytest.mark.parametrize(
    ("sent", "good"),
    [({"mcp-param-region": "eu"}, True), ({"mcp-param-region": "us"}, False), ({}, False)],
)
async def test_what_a_modern_client_mirrors_is_checked(sent: dict[str, str], good: bool) -> None:
    link = full_link(tools=[REGIONAL], answers={"tools/call": OK})
    async with running({"github": link}) as house:
        ctx = context(BOTH, mirrored=True, headers=sent)
        asked = call("tools/call", ctx, name="github__query", arguments={"region": "eu"})
        if good:
            assert await house.handle(asked, Recorder()) is OK
        else:
            error = await refusal(house, asked)
            assert (error.code, error.http_status) == (HEADER_MISMATCH, 400)
            assert not link.of("tools/call")


async def test_after_a_header_mismatch_the_list_is_read_again_and_the_call_made_once_more() -> None:
    async def fussy(asked: Call, caller: Caller) -> Reply:
        if "mcp-param-zone" not in asked.param_headers:
            raise RpcError(HEADER_MISMATCH, "mcp-param-zone is missing")
        return OK

    link = full_link(tools=[REGIONAL], answers={"tools/call": fussy})
    async with running({"github": link}) as house:
        arguments = {"region": "eu", "zone": "a"}
        asked = call("tools/call", context(BOTH), name="github__query", arguments=arguments)
        error = await refusal(house, asked)
        assert error.code == HEADER_MISMATCH
        assert len(link.of("tools/call")) == 2
        properties = {"zone": {"type": "string", "x-mcp-header": "zone"}}
        changed = tool("query", inputSchema={"type": "object", "properties": properties})
        link.answers["tools/list"] = listing("tools", [changed])
        assert await house.handle(asked, Recorder()) is OK
        assert len(link.of("tools/call")) == 4


# ---------------------------------------------------------------- resources


def reader(*uris: str, answers: Any = None, templates: tuple[str, ...] = ()) -> ScriptedLink:
    async def read(asked: Call, caller: Caller) -> Reply:
        uri = plain(asked.params["uri"])
        if uri.startswith("gone:") or (uri not in uris and not templates):
            raise RpcError(-32602, f"no {uri}")
        return Done(obj(contents=[{"uri": uri, "text": "hello", "_meta": {"a": None}}]))

    return full_link(resources=uris, templates=templates, answers={"resources/read": read})


async def uri_read(house: House, ctx: Context, uri: str) -> Any:
    return (await result(house, call("resources/read", ctx, uri=uri)))["contents"][0]["uri"]


async def test_resources_keep_their_uri_while_it_is_unambiguous() -> None:
    one, two = reader("file:///a", "file:///c"), reader("file:///b", "file:///c")
    async with running({"github": one, "docs": two}) as house:
        ctx = context(BOTH)
        listed = await result(house, call("resources/list", ctx))
        uris = [item["uri"] for item in listed["resources"]]
        assert uris == ["file:///b", "mcpgw:docs/file:///c", "file:///a", "mcpgw:github/file:///c"]
        for uri in uris:
            assert await uri_read(house, ctx, uri) == uri
        assert [plain(c.params["uri"]) for c in one.of("resources/read")] == [
            "file:///a",
            "file:///c",
        ]
        assert len(two.of("resources/read")) == 2


async def test_unlisted_resources_go_where_a_template_fits_and_else_where_they_are_found() -> None:
    one, two = reader("x:1", templates=("file:///{path}",)), reader("x:2", "secret:unlisted")
    two.answers["resources/list"] = listing("resources", [{"uri": "x:2", "name": "x"}])
    async with running({"github": one, "docs": two}) as house:
        ctx = context(BOTH)
        assert await uri_read(house, ctx, "file:///some/path") == "file:///some/path"
        assert not two.of("resources/read")
        assert await uri_read(house, ctx, "secret:unlisted") == "secret:unlisted"


async def test_a_slow_server_does_not_hold_up_a_resource_that_is_known() -> None:
    one, two = reader("file:///a"), reader("x:2", "x:3")
    async with running({"github": one, "docs": two}) as house:
        ctx = context(BOTH)
        await result(house, call("resources/list", ctx))
        house.links.hold("docs")
        house.gateway.heard("id-docs", "owner", ListChanged("resources"))
        with anyio.fail_after(1.0):
            assert await uri_read(house, ctx, "file:///a") == "file:///a"


async def test_denied_and_absent_resources_look_the_same() -> None:
    principal = key("ann", Target("id-github", "resource", "file:///*"))
    one, two = reader("file:///a"), reader("x:2")
    async with running({"github": one, "docs": two}) as house:
        ctx = context(BOTH, principal=principal)
        assert await uri_read(house, ctx, "file:///a") == "file:///a"
        for uri in ("x:2", "file:///none", "gone:", "mcpgw:docs/x:2", "mcpgw:none/x:2"):
            error = await refusal(house, call("resources/read", ctx, uri=uri))
            assert (error.code, error.message) == (INVALID_PARAMS, "Resource not found")
            assert plain(error.data) == {"uri": uri}
        assert not two.calls


async def test_completion_of_a_template_that_two_servers_have() -> None:
    one, two = reader(templates=("file:///{path}",)), reader(templates=("file:///{path}",))
    one.answers["completion/complete"] = two.answers["completion/complete"] = OK
    async with running({"github": one, "docs": two}) as house:
        ctx = context(BOTH)
        listed = await result(house, call("resources/templates/list", ctx))
        assert [item["uriTemplate"] for item in listed["resourceTemplates"]] == [
            "mcpgw:docs/file:///{path}",
            "mcpgw:github/file:///{path}",
        ]
        ref = {"type": "ref/resource", "uri": "mcpgw:github/file:///{path}"}
        await house.handle(call("completion/complete", ctx, ref=ref), Recorder())
        assert plain(one.of("completion/complete")[0].params["ref"])["uri"] == "file:///{path}"
        assert not two.of("completion/complete")
        error = await refusal(
            house, call("completion/complete", context(BOTH, principal=key("no")), ref=ref)
        )
        assert error.message == "Resource not found"


async def test_a_call_keeps_the_configuration_it_came_with() -> None:
    link = github()
    async with running({"github": link}) as house:
        old = context(BOTH)
        new = snapshot(msgspec.structs.replace(GITHUB, deny=("create_issue",)), generation=2)
        house.gateway.changed(BOTH, new)
        await refusal(house, call("tools/call", context(new), name="github__create_issue"))
        await house.handle(call("tools/call", old, name="github__create_issue"), Recorder())
        # Also when the gateway was not told yet, each sees its own.
        renamed = snapshot(msgspec.structs.replace(GITHUB, prefix="gh"), generation=3)
        await house.handle(
            call("tools/call", context(renamed), name="gh__create_issue"), Recorder()
        )
        await refusal(house, call("tools/call", context(renamed), name="github__create_issue"))

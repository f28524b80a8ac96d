"""Addresses of groups, and what `x-mcp-servers` leaves of the common one."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mcpgw.model.calls import Done
from mcpgw.model.config import Target
from tests.doubles import FixedConfig, ScriptedHandler, key, obj, server, snapshot
from tests.unit.front.rig import ALICE, BOB, front, mirrored, modern

pytestmark = pytest.mark.anyio

BODY = modern("tools/list")
EMPTY = key("empty")
GROUPS = {
    "g1": (Target("id-github", "tool", "get_*"),),
    "g2": (Target("id-jira"),),
    "g3": (),
    "g4": (Target("*", "tool", "x"),),
}
CONFIG = replace(
    snapshot(server("github", aliases=("gh",)), server("jira"), principals=(ALICE, BOB, EMPTY)),
    groups=GROUPS,
    group_names={"dev": "g1", "ops": "g2", "void": "g3", "all": "g4"},
)


def handler() -> ScriptedHandler:
    return ScriptedHandler({"tools/list": Done(obj(tools=[], ttlMs=0, cacheScope="private"))})


@pytest.mark.parametrize(
    ("path", "who", "group"),
    [
        ("/mcp/@dev", "bob", "g1"),
        ("/mcp/@DEV", "bob", "g1"),
        ("/mcp/%40dev", "bob", "g1"),
        ("/@dev/mcp", "bob", "g1"),
        ("/mcp/@all", "bob", "g4"),
        ("/mcp/@ops", "alice", "g2"),
        ("/mcp/@ops", "bob", None),  # nothing in it is his, so it is not there
        ("/mcp/@void", "alice", None),
        ("/mcp/@all", "empty", None),
        ("/mcp/@nobody", "alice", None),
        ("/mcp/@github", "alice", None),  # a server is no group
        ("/mcp/dev", "alice", None),  # nor a group a server
        ("/mcp/@", "alice", None),
        ("/mcp/@@dev", "alice", None),
        ("/mcp/@dev/x", "alice", None),
        ("/mcp/group:dev", "alice", None),
    ],
)
async def test_groups_have_addresses(path: str, who: str, group: str | None) -> None:
    answers = handler()
    async with front(answers, config=FixedConfig(CONFIG)) as here:
        peer = await here.peer(who)
        answer = await peer.ask("POST", path, BODY, mirrored(BODY))
    assert answer.status == (200 if group else 404)
    if group:
        endpoint = answers.calls[0].ctx.endpoint
        assert (endpoint.groups, endpoint.servers, endpoint.native) == ({group}, set(), False)
    else:
        assert answer.json["error"]["message"] == "there is nothing at this address"


@pytest.mark.parametrize(
    ("named", "servers", "groups"),
    [
        ("github", {"id-github"}, set[str]()),
        ("GitHub , jira", {"id-github", "id-jira"}, set[str]()),
        ("gh", {"id-github"}, set[str]()),
        ("dev", set[str](), {"g1"}),
        ("jira,DEV,nobody", {"id-jira"}, {"g1"}),
        ("nobody", set[str](), set[str]()),
        (",", set[str](), set[str]()),
        ("@dev", set[str](), set[str]()),
        ("*", set[str](), set[str]()),
        ("", None, set[str]()),
    ],
)
async def test_a_client_restricts_itself(
    named: str, servers: set[str] | None, groups: set[str]
) -> None:
    answers = handler()
    async with front(answers, config=FixedConfig(CONFIG)) as here:
        peer = await here.peer("bob")
        for path in ("/mcp", "/mcp/"):
            sent = {**mirrored(BODY), "x-mcp-servers": named}
            assert (await peer.ask("POST", path, BODY, sent)).status == 200
    for call in answers.calls:
        assert (call.ctx.endpoint.servers, call.ctx.endpoint.groups) == (servers, groups)
        assert not call.ctx.endpoint.native
        assert "x-mcp-servers" not in call.ctx.headers


async def test_an_address_goes_before_the_header() -> None:
    answers = handler()
    async with front(answers, config=FixedConfig(CONFIG)) as here:
        peer = await here.peer("alice")
        sent = {**mirrored(BODY), "x-mcp-servers": "github"}
        assert (await peer.ask("POST", "/mcp/jira", BODY, sent)).status == 200
    assert answers.calls[0].ctx.endpoint.servers == {"id-jira"}

"""Organizations, teams, groups, policies and the explanation, over a real store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.driver import Shell


@pytest.fixture(autouse=True)
def servers(mcpgw: Shell) -> None:
    for name in ("github", "jira"):
        mcpgw.done("server", "add", name, "--disabled", "--", "false")
        mcpgw.done("server", "enable", name)


def one(mcpgw: Shell, noun: str, name: str) -> dict[str, Any]:
    more = ("--brief",) if noun == "key" else ()
    [told] = next(iter(mcpgw.done(noun, "show", name, *more, "--json").json.values()))
    return told


def explained(mcpgw: Shell, key: str, thing: str) -> dict[str, Any]:
    said = mcpgw("access", "explain", key, thing, "--json")
    [told] = said.json["decisions"]
    assert said.code == (0 if told["allowed"] else 4)
    return told


def test_a_ladder_from_organization_to_key(mcpgw: Shell) -> None:
    mcpgw.done("org", "add", "acme")
    said = mcpgw.done("team", "add", "dev", "--org", "acme")
    assert "mcpgw team grant dev SERVER" in said.err
    said = mcpgw.done("key", "create", "ann", "--team", "dev")
    assert "what the team dev may" in said.err
    assert not explained(mcpgw, "ann", "github__get_x")["allowed"]
    mcpgw.done("team", "grant", "dev", "github")
    told = explained(mcpgw, "ann", "github__get_x")
    assert told["allowed"]
    assert [(step["who"], step["passes"]) for step in told["steps"]] == [
        ("key ann", True),
        ("team dev", True),
        ("organization acme", True),
        ("server github", True),
    ]
    assert told["steps"][0]["reason"] == "has github of team dev"
    mcpgw.done("org", "grant", "acme", "jira")
    told = explained(mcpgw, "ann", "github__get_x")
    assert (told["allowed"], told["rule"]) == (False, "organization acme")
    mcpgw.done("org", "set", "acme", "--clear", "grants")
    assert explained(mcpgw, "ann", "github__get_x")["allowed"]
    assert one(mcpgw, "team", "dev") == {
        "name": "dev",
        "enabled": True,
        "grants": ["github"],
        "denies": [],
        "policies": [],
        "org": "acme",
        "keys": ["ann"],
    }
    assert one(mcpgw, "org", "acme")["teams"] == ["dev"]
    assert one(mcpgw, "key", "ann")["grants"] is None


def test_own_grants_and_back(mcpgw: Shell) -> None:
    mcpgw.done("team", "add", "dev")
    mcpgw.done("team", "grant", "dev", "github")
    mcpgw.done("key", "create", "ann", "--team", "dev", "--grant", "github/get_*")
    mcpgw.done("key", "ungrant", "ann", "github/get_*")
    assert not explained(mcpgw, "ann", "github/get_x")["allowed"]
    said = mcpgw.done("key", "set", "ann", "--inherit")
    assert said.err == "ann may use what the team dev may.\n"
    assert explained(mcpgw, "ann", "github/get_x")["allowed"]
    mcpgw.done("key", "set", "ann", "--clear", "team", "--name", "anna")
    assert not explained(mcpgw, "anna", "github/get_x")["allowed"]
    mcpgw.done("key", "set", "anna", "--expires", "1h")
    assert one(mcpgw, "key", "anna")["expires"] is not None
    mcpgw.done("key", "set", "anna", "--clear", "expires")
    assert one(mcpgw, "key", "anna")["expires"] is None


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("key", "disable", "ann"), "disabled"),
        (("team", "disable", "dev"), "team disabled"),
        (("org", "disable", "acme"), "organization disabled"),
    ],
)
def test_what_is_disabled_refuses(mcpgw: Shell, words: tuple[str, ...], state: str) -> None:
    mcpgw.done("org", "add", "acme")
    mcpgw.done("team", "add", "dev", "--org", "acme")
    mcpgw.done("key", "create", "ann", "--team", "dev", "--grant", "*")
    assert "refused" in mcpgw.done(*words).err
    assert one(mcpgw, "key", "ann")["state"] == state
    told = explained(mcpgw, "ann", "github__x")
    assert not told["allowed"]
    assert told["reason"].endswith("is disabled")
    said = mcpgw("tools", "list", "--key", "ann", "--json")
    assert (said.code, said.error["code"]) == (3, "no_such_key")
    mcpgw.done(words[0], "enable", words[2])
    assert one(mcpgw, "key", "ann")["state"] == "active"
    assert explained(mcpgw, "ann", "github__x")["allowed"]


def test_groups(mcpgw: Shell) -> None:
    mcpgw.done("group", "add", "reading", "github/get_*", "jira/get_*")
    mcpgw.done("key", "create", "ann", "--grant", "group:reading")
    told = explained(mcpgw, "ann", "jira__get_x")
    assert (told["allowed"], told["rule"]) == (True, "key ann: jira/get_* (group:reading)")
    mcpgw.done("group", "set", "reading", "--drop", "jira/get_*", "--add", "jira/list_*")
    assert not explained(mcpgw, "ann", "jira__get_x")["allowed"]
    assert one(mcpgw, "group", "reading")["targets"] == ["github/get_*", "jira/list_*"]
    assert mcpgw("group", "set", "reading", "--drop", "nope").code == 2
    assert mcpgw("group", "set", "reading").code == 2
    assert mcpgw("group", "add", "GitHub", "jira", "--json").error["code"] == "name_taken"
    assert mcpgw("key", "grant", "ann", "group:readin").code == 3
    assert mcpgw.done("group", "list").out == "reading\tgithub/get_*, jira/list_*\n"
    assert mcpgw("group", "remove", "reading").code == 2
    mcpgw.done("group", "remove", "reading", "--yes")
    assert one(mcpgw, "key", "ann")["grants"] == []


def test_policies(mcpgw: Shell) -> None:
    mcpgw.done("team", "add", "dev")
    mcpgw.done("key", "create", "ann", "--team", "dev", "--grant", "*")
    mcpgw.done("policy", "add", "safe", "--deny", "*/delete_*", "--deny", "jira")
    assert explained(mcpgw, "ann", "github/delete_x")["allowed"]
    mcpgw.done("policy", "attach", "safe", "team:dev")
    told = explained(mcpgw, "ann", "github/delete_x")
    assert (told["allowed"], told["rule"]) == (False, "team dev: deny */delete_* (policy safe)")
    assert one(mcpgw, "policy", "safe") == {
        "name": "safe",
        "denies": ["*/delete_*", "jira"],
        "attached": ["team:dev"],
    }
    assert one(mcpgw, "team", "dev")["policies"] == ["safe"]
    assert mcpgw("policy", "remove", "safe", "--yes", "--json").error["code"] == "policy_in_use"
    mcpgw.done("policy", "detach", "safe", "team:dev")
    assert explained(mcpgw, "ann", "github/delete_x")["allowed"]
    mcpgw.done("policy", "remove", "safe", "--yes")
    assert mcpgw("policy", "add", "empty").code == 2
    for whom in ("dev", "team:", ":dev", "server:github"):
        assert mcpgw("policy", "attach", "safe", whom).code == 2


def test_limits_are_not_accepted_before_they_hold(mcpgw: Shell) -> None:
    for option in ("--rate", "--quota", "--when"):
        said = mcpgw("policy", "add", "p", "--deny", "jira", option, "60/m", "--json")
        assert said.error["code"] == "usage"


@pytest.mark.parametrize(
    ("thing", "code", "kind", "name"),
    [
        ("github__get_x", 0, "tool", "get_x"),
        ("GitHub__get_x", 0, "tool", "get_x"),
        ("github/get_x", 0, "tool", "get_x"),
        ("github/a__b", 0, "tool", "a__b"),
        ("github/prompt:p", 0, "prompt", "p"),
        ("github/resource:file:///a/b", 0, "resource", "file:///a/b"),
        ("nope__x", 3, "", ""),
        ("nope/x", 3, "", ""),
        ("github", 2, "", ""),
        ("github/", 2, "", ""),
        ("github__", 2, "", ""),
        ("*/x", 2, "", ""),
        ("", 2, "", ""),
        ("github__" + "x" * 80, 2, "", ""),
    ],
)
def test_things_to_explain(mcpgw: Shell, thing: str, code: int, kind: str, name: str) -> None:
    mcpgw.done("key", "create", "ann", "--grant", "*")
    said = mcpgw("access", "explain", "ann", thing, "--json")
    assert said.code == code
    if not code:
        [told] = said.json["decisions"]
        assert (told["kind"], told["name"]) == (kind, name)


def test_an_explanation_for_people(mcpgw: Shell) -> None:
    mcpgw.done("server", "disable", "github")
    mcpgw.done("key", "create", "ann", "--grant", "*")
    said = mcpgw("access", "explain", "ann", "github__x")
    assert said.code == 4
    assert said.out.splitlines() == [
        "denied: server github is disabled",
        "key ann\tyes\tit allows *",
        "server github\tno\tit is disabled",
    ]
    mcpgw.done("key", "revoke", "ann", "--yes")
    assert "key ann is revoked" in mcpgw("access", "explain", "ann", "jira__x").out
    assert mcpgw("access", "explain", "nobody", "jira__x").code == 3


def test_words_that_change_nothing_are_refused(mcpgw: Shell) -> None:
    mcpgw.done("org", "add", "acme")
    mcpgw.done("team", "add", "dev")
    mcpgw.done("key", "create", "ann")
    for noun, name in (("org", "acme"), ("team", "dev"), ("key", "ann")):
        assert mcpgw(noun, "set", name).code == 2
        assert mcpgw(noun, "set", name, "--clear", "name").code == 2
        assert mcpgw(noun, "set", "nobody", "--name", "x").code == 3
    assert mcpgw("team", "add", "DEV", "--json").error["code"] == "name_taken"
    assert mcpgw("team", "remove", "dev").code == 2
    mcpgw.done("team", "set", "dev", "--org", "acme", "--name", "devs")
    assert mcpgw("org", "remove", "acme", "--yes", "--json").error["code"] == (
        "organization_in_use"
    )
    mcpgw.done("team", "set", "devs", "--clear", "org")
    mcpgw.done("org", "remove", "acme", "--yes")
    mcpgw.done("team", "remove", "devs", "--yes")
    assert mcpgw.done("team", "list", "--json").json == {"teams": []}
    assert mcpgw.done("org", "list", "--json").json == {"orgs": []}


def test_listings(mcpgw: Shell) -> None:
    mcpgw.done("org", "add", "acme")
    mcpgw.done("team", "add", "dev", "--org", "acme")
    mcpgw.done("team", "deny", "dev", "jira")
    mcpgw.done("policy", "add", "safe", "--deny", "jira")
    mcpgw.done("key", "create", "ann", "--team", "dev")
    assert mcpgw.done("org", "list").out == "acme\tenabled\twhatever else allows\t\n"
    assert mcpgw.done("team", "list").out == "dev\tenabled\tacme\twhatever else allows\tjira\n"
    assert mcpgw.done("policy", "list").out == "safe\tjira\t\n"
    assert "\tdev\twhat the team dev may\t\n" in mcpgw.done("key", "list").out
    actions = [row["action"] for row in mcpgw.done("store", "changes", "--json").json["changes"]]
    assert {"org.add", "team.add", "team.deny", "policy.add", "key.create"} <= set(actions)


def test_what_a_key_can_use_now(mcpgw: Shell) -> None:
    import sys

    mcpgw.done(
        "server", "add", "real", "--", sys.executable, "-m", "mcpgw.demo.stdio", "2025-11-25"
    )
    mcpgw.done("key", "create", "ann", "--grant", "real/add", "--grant", "github")
    [told] = mcpgw.done("key", "show", "ann", "--json").json["keys"]
    assert told["can_use"] == {"tools": ["real__add"], "prompts": [], "resources": []}
    assert 10 < told["tokens"] < 1000
    assert [gone["server"] for gone in told["unavailable"]] == ["github"]
    said = mcpgw.done("key", "show", "ann")
    assert "tools now:\t1: real__add" in said.out
    assert f"size:\tabout {told['tokens']} tokens of tools" in said.out
    assert "github is missing" in said.err
    assert "can_use" not in one(mcpgw, "key", "ann")

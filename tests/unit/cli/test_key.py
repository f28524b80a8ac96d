"""`mcpgw key` over a real store."""

from __future__ import annotations

import re
from typing import Any

from tests.unit.cli.driver import Shell

SECRET = re.compile(r"mcpgw_[A-Za-z0-9_-]{43}")


def shown(mcpgw: Shell, name: str) -> dict[str, Any]:
    [key] = mcpgw.done("key", "show", name, "--json").json["keys"]
    return key


def test_the_secret_is_alone_on_stdout_and_nowhere_else(mcpgw: Shell) -> None:
    said = mcpgw.done("key", "create", "ci")
    secret = said.out.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert secret not in said.err
    assert "mcpgw key grant ci" in said.err
    for words in (("list",), ("list", "--json"), ("show", "ci"), ("show", "ci", "--json")):
        assert secret not in mcpgw.done("key", *words).out
    assert secret not in mcpgw.done("store", "changes", "--json").out


def test_a_key_as_json(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", "https://x.example/mcp")
    said = mcpgw.done(
        "key", "create", "ci", "--expires", "90d", "--grant", "github/get_*", "--json"
    )
    [key] = said.json["keys"]
    assert SECRET.fullmatch(key["secret"])
    assert key["secret"].startswith(key["start"])
    assert (key["name"], key["state"], key["grants"]) == ("ci", "active", ["github/get_*"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", key["expires"])
    assert said.err == ""


def test_grants(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", "https://x.example/mcp")
    mcpgw.done("key", "create", "ci")
    assert shown(mcpgw, "ci")["grants"] in (None, [])
    mcpgw.done("key", "grant", "ci", "github", "github/prompt:*")
    mcpgw.done("key", "deny", "ci", "github/delete_*")
    key = shown(mcpgw, "ci")
    assert sorted(key["grants"]) == ["github", "github/prompt:*"]
    assert key["denies"] == ["github/delete_*"]
    mcpgw.done("key", "ungrant", "ci", "github", "github/delete_*")
    key = shown(mcpgw, "ci")
    assert (key["grants"], key["denies"]) == (["github/prompt:*"], [])
    said = mcpgw("key", "grant", "ci", "githb/get_*")
    assert said.code == 3
    assert "mcpgw key grant ci 'github/get_*'" in said.err
    assert mcpgw("key", "grant", "nobody", "github").code == 3
    assert mcpgw("key", "grant", "ci").code == 2


def test_rotation_and_revocation(mcpgw: Shell) -> None:
    first = mcpgw.done("key", "create", "ci").out
    said = mcpgw.done("key", "rotate", "ci", "--grace", "0s")
    assert SECRET.fullmatch(said.out.removesuffix("\n"))
    assert said.out != first
    assert "refused now" in said.err
    assert mcpgw("key", "rotate", "ci", "--grace", "soon").code == 2
    assert mcpgw("key", "revoke", "ci").code == 2
    mcpgw.done("key", "revoke", "ci", "--yes")
    assert shown(mcpgw, "ci")["state"] == "revoked"
    assert mcpgw.done("key", "list").out.startswith("ci\trevoked\tmcpgw_")
    assert mcpgw("key", "revoke", "nobody", "--yes").code == 3


def test_refusals(mcpgw: Shell) -> None:
    mcpgw.done("key", "create", "ci")
    assert mcpgw("key", "create", "ci", "--json").error["code"] == "name_taken"
    assert mcpgw("key", "create", "x", "--expires", "90").code == 2
    assert mcpgw("key", "create", "y", "--grant", "nobody").code == 3
    assert [key["name"] for key in mcpgw.done("key", "list", "--json").json["keys"]] == ["ci"]

"""`mcpgw server`, `alias` and `secret` over a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpgw.store.db import Store
from mcpgw.store.vault import Vault
from tests.unit.cli.driver import Said, Shell

URL = "https://mcp.example.com/mcp"


def shown(mcpgw: Shell, name: str) -> dict[str, Any]:
    [server] = mcpgw.done("server", "show", name, "--json").json["servers"]
    return server


def sealed(mcpgw: Shell) -> dict[str, str | None]:
    with Store.open(mcpgw.path) as store:
        vault = Vault(store)
        return {name: vault.get(name) for name in vault.names()}


def refused(said: Said, code: int) -> dict[str, str]:
    assert said.code == code, said.err
    return said.error


def test_a_server_at_a_url(mcpgw: Shell) -> None:
    said = mcpgw.done("server", "add", "github", "--url", URL, "--description", "Code")
    assert said.out == ""
    assert "mcpgw server test github" in said.err
    server = shown(mcpgw, "github")
    assert server["url"] == URL
    assert server["transport"] == "auto"
    assert server["description"] == "Code"
    assert server["enabled"] is True
    assert "id" not in server
    assert mcpgw.done("server", "list").out == f"github\tenabled\tauto\tnone\t{URL}\n"


def test_a_server_that_a_command_starts(mcpgw: Shell, tmp_path: Path) -> None:
    mcpgw.done(
        *("server", "add", "fs", "--env", "LOG=debug", "--env", "T=env:FS_T"),
        *("--cwd", str(tmp_path), "--allow", "read_*", "--deny", "read_media", "--isolate"),
        *("session", "--timeout", "5", "--max-concurrent", "3", "--disabled"),
        *("--", "npx", "-y", "server", "--json"),
    )
    server = shown(mcpgw, "fs")
    assert server["transport"] == "stdio"
    assert server["command"] == ["npx", "-y", "server", "--json"]
    assert server["env"] == {"LOG": "debug", "T": "env:FS_T"}
    assert server["cwd"] == str(tmp_path)
    assert (server["allow"], server["deny"]) == (["read_*"], ["read_media"])
    assert (server["isolate"], server["timeout"], server["max_concurrent"]) == ("session", 5.0, 3)
    assert server["enabled"] is False


def test_nothing_to_list_is_no_failure(mcpgw: Shell) -> None:
    assert mcpgw.done("server", "list").out == ""
    assert mcpgw.done("server", "list", "--json").json == {"servers": []}
    assert mcpgw.done("alias", "list", "--json").json == {"aliases": []}
    assert mcpgw.done("secret", "list", "--json").json == {"secrets": []}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--url", URL, "--", "npx"),
        ("--url", "ftp://x"),
        ("--url", URL, "--env", "A=b"),
        ("--url", URL, "--cwd", "/"),
        ("--url", URL, "--secret", "env:T"),
        ("--url", URL, "--auth", "bearer"),
        ("--url", URL, "--auth", "bearer", "--secret", "hunter2hunter2"),
        ("--url", URL, "--header", "Authorization=Bearer hunter2hunter2"),
        ("--url", URL, "--header", "nonsense"),
        ("--url", URL, "--forward-header", "no name"),
        ("--url", URL, "--timeout", "0"),
        ("--url", URL, "--max-concurrent", "none"),
        ("--url", URL, "--transport", "carrier-pigeon"),
        ("--url", f"{URL}?token=hunter2hunter2"),
        ("--auth", "bearer", "--", "npx"),
        ("--env", "API_TOKEN=hunter2hunter2", "--", "npx"),
        ("--env", "MCPGW_TEST_UNSET", "--", "npx"),
        ("--", "npx", "--token", "hunter2hunter2"),
        ("--", "npx", "ghp_hunter2hunter2hunter2hunter2hunter2abcd"),
    ],
)
def test_words_that_are_refused(mcpgw: Shell, words: tuple[str, ...]) -> None:
    said = mcpgw("server", "add", "x", "--json", *words)
    error = refused(said, 2)
    assert error["code"] in {"usage", "secret_needed", "bad_server"}
    assert "hunter2" not in said.err
    assert mcpgw.done("server", "list", "--json").json == {"servers": []}
    assert sealed(mcpgw) == {}


@pytest.mark.parametrize("name", ["-x", "a__b", "a_", "", "a b", "x" * 33, "é"])
def test_names_that_are_refused(mcpgw: Shell, name: str) -> None:
    assert mcpgw("server", "add", "--url", URL, "--", name).code == 2


def test_a_taken_name(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", URL)
    said = mcpgw("server", "add", "GitHub", "--url", URL, "--auth", "bearer", "--json")
    assert refused(said, 3)["code"] == "name_taken"
    mcpgw.done("alias", "add", "gh", "github")
    assert refused(mcpgw("server", "add", "gh", "--url", URL, "--json"), 3)["code"] == "name_taken"


def test_an_unknown_server_comes_with_the_command_that_was_meant(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", URL)
    mcpgw.done("server", "add", "jira", "--url", URL)
    said = mcpgw("server", "remove", "githb", "--yes")
    assert said.code == 3
    assert said.err.splitlines() == [
        'error: There is no server called "githb".',
        "  why: 2 servers are registered: github, jira.",
        " next: Did you mean github?  mcpgw server remove github --yes",
    ]


def test_a_file_that_is_not_there(mcpgw: Shell) -> None:
    said = mcpgw("server", "add", "x", "--url", URL, "--ca", "/nowhere/ca.pem", "--json")
    assert refused(said, 3)["code"] == "no_such_file"


def test_a_secret_from_stdin_is_sealed(mcpgw: Shell) -> None:
    mcpgw.done(
        *("server", "add", "github", "--url", URL, "--auth", "bearer", "--secret", "-"),
        stdin="hunter2\n",
    )
    assert sealed(mcpgw) == {"server/github": "hunter2"}
    server = shown(mcpgw, "github")
    assert (server["auth"], server["secret"]) == ("bearer", "vault:server/github")
    mcpgw.done("server", "remove", "github", "--yes")
    assert sealed(mcpgw) == {}


def test_a_failed_addition_leaves_no_secret_behind(
    mcpgw: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpgw.errors import GatewayError
    from mcpgw.store import registry

    def full(*_: object) -> None:
        raise GatewayError("The disk is full.")

    monkeypatch.setattr(registry, "add_server", full)
    words = ("server", "add", "github", "--url", URL, "--auth", "bearer", "--secret", "-")
    assert mcpgw(*words, stdin="hunter2\n").code == 1
    assert sealed(mcpgw) == {}


def test_a_basic_secret_has_a_colon(mcpgw: Shell) -> None:
    words = ("server", "add", "x", "--url", URL, "--auth", "basic", "--secret", "-")
    assert mcpgw(*words, stdin="hunter2\n").code == 2
    mcpgw.done(*words, stdin="me:hunter2\n")


def test_a_renamed_servers_secret_is_not_overwritten(mcpgw: Shell) -> None:
    words = ("--url", URL, "--auth", "bearer", "--secret", "-")
    mcpgw.done("server", "add", "a", *words, stdin="one\n")
    mcpgw.done("server", "set", "a", "--name", "b")
    mcpgw.done("server", "add", "a", *words, stdin="two\n")
    assert sealed(mcpgw) == {"server/a": "one", "server/a-2": "two"}
    mcpgw.done("server", "remove", "a", "--yes")
    assert sealed(mcpgw) == {"server/a": "one"}


def test_a_variable_copied_from_the_environment_is_sealed(
    mcpgw: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FS_TOKEN", "hunter2")
    mcpgw.done("server", "add", "fs", "--env", "FS_TOKEN", "--", "npx")
    assert shown(mcpgw, "fs")["env"] == {"FS_TOKEN": "vault:server/fs/FS_TOKEN"}
    assert sealed(mcpgw) == {"server/fs/FS_TOKEN": "hunter2"}


def test_plain_http_with_credentials_is_warned_about(mcpgw: Shell) -> None:
    auth = ("--auth", "bearer", "--secret", "env:T")
    said = mcpgw.done("server", "add", "a", "--url", "http://10.0.0.1/mcp", *auth, "--json")
    assert said.err.startswith("warning: a is reached without TLS")
    assert mcpgw.done("server", "add", "b", "--url", "http://10.0.0.1/mcp", "--json").err == ""
    assert mcpgw.done("server", "add", "c", "--url", "http://127.0.0.1/", *auth, "--json").err == ""


def test_set_changes_what_is_named(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "a", "--url", URL, "--header", "X-A=1", "--allow", "x")
    mcpgw.done(
        *("server", "set", "a", "--header", "x-a=2", "--header", "X-B=3", "--timeout", "9"),
    )
    server = shown(mcpgw, "a")
    assert server["headers"] == {"x-a": "2", "X-B": "3"}
    assert (server["url"], server["allow"], server["timeout"]) == (URL, ["x"], 9.0)


def test_set_clears(mcpgw: Shell) -> None:
    mcpgw.done(
        *("server", "add", "a", "--url", URL, "--header", "X-A=1", "--header", "X-B=2"),
        *("--allow", "x", "--deny", "y", "--auth", "bearer", "--secret", "env:T"),
    )
    mcpgw.done("server", "set", "a", "--clear", "header:X-A", "--clear", "allow")
    server = shown(mcpgw, "a")
    assert (server["headers"], server["allow"], server["deny"]) == ({"X-B": "2"}, None, ["y"])
    mcpgw.done("server", "set", "a", "--clear", "header", "--header", "X-C=3", "--clear", "secret")
    server = shown(mcpgw, "a")
    assert (server["headers"], server["auth"], server["secret"]) == ({"X-C": "3"}, "none", None)
    assert mcpgw("server", "set", "a", "--clear", "everything").code == 2
    assert mcpgw("server", "set", "a", "--clear", "header:X-Z").code == 3
    assert mcpgw("server", "set", "a").code == 2


def test_set_moves_a_server_between_a_url_and_a_command(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "a", "--url", URL, "--auth", "bearer", "--secret", "env:T")
    mcpgw.done("server", "set", "a", "--", "npx", "x")
    server = shown(mcpgw, "a")
    assert (server["transport"], server["url"], server["auth"]) == ("stdio", None, "none")
    mcpgw.done("server", "set", "a", "--url", URL)
    server = shown(mcpgw, "a")
    assert (server["transport"], server["url"], server["command"]) == ("auto", URL, [])


def test_names_prefixes_and_aliases(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "github", "--url", URL)
    assert mcpgw.done("alias", "add", "gh", "github", "--json").json == {
        "aliases": [{"alias": "gh", "server": "github", "prefix": False}]
    }
    mcpgw.done("server", "set", "gh", "--prefix", "gh", "--name", "hub")
    server = shown(mcpgw, "gh")
    assert (server["name"], server["prefix"], server["aliases"]) == ("hub", "gh", ["gh"])
    assert mcpgw.done("alias", "list").out == "gh\thub\tbefore its tools\n"
    assert mcpgw("alias", "remove", "gh").code == 2
    mcpgw.done("alias", "remove", "gh", "--yes")
    assert shown(mcpgw, "hub")["prefix"] == "hub"
    assert mcpgw("alias", "remove", "gh", "--yes").code == 3
    assert mcpgw("alias", "add", "x", "nobody").code == 3


def test_switching(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "a", "--url", URL)
    assert mcpgw.done("server", "disable", "a", "--json").json["servers"][0]["enabled"] is False
    mcpgw.done("server", "disable", "a")
    assert mcpgw.done("server", "list").out.split("\t")[1] == "disabled"
    assert mcpgw("server", "test", "a").code == 5
    mcpgw.done("server", "enable", "a")
    assert shown(mcpgw, "a")["enabled"] is True


def test_removal_asks(mcpgw: Shell) -> None:
    mcpgw.done("server", "add", "a", "--url", URL)
    assert refused(mcpgw("server", "remove", "a", "--json"), 2)["code"] == "confirmation_needed"
    said = mcpgw("server", "remove", "a", stdin="n\n", terminal=True)
    assert said.code == 130
    assert "Nothing was changed." in said.err
    shown(mcpgw, "a")
    mcpgw.done("server", "remove", "a", stdin="y\n", terminal=True)
    assert mcpgw("server", "show", "a").code == 3


def test_literals_of_another_hand_are_veiled(mcpgw: Shell) -> None:
    from mcpgw.store import registry

    with Store.open(mcpgw.path) as store:
        headers = {"Authorization": "Bearer hunter2", "X-Team": "core"}
        registry.add_server(
            store, registry.ServerDraft(name="a", transport="http", url=URL, headers=headers)
        )
    for words in (("show", "a"), ("show", "a", "--json"), ("list", "--json")):
        said = mcpgw.done("server", *words)
        assert "hunter2" not in said.out
        assert "core" in said.out


def test_secrets(mcpgw: Shell) -> None:
    said = mcpgw.done("secret", "set", "github", "--json", stdin="line one\nline two\n")
    assert said.json == {"secrets": [{"name": "github", "reference": "vault:github"}]}
    assert sealed(mcpgw) == {"github": "line one\nline two"}
    words = ("--url", URL, "--auth", "bearer", "--secret", "vault:github")
    mcpgw.done("server", "add", "a", *words)
    assert mcpgw.done("secret", "list").out == "github\ta\n"
    mcpgw.done("server", "remove", "a", "--yes")
    assert sealed(mcpgw) == {"github": "line one\nline two"}
    assert mcpgw("secret", "remove", "github").code == 2
    mcpgw.done("secret", "remove", "github", "--yes")
    assert refused(mcpgw("secret", "remove", "github", "--yes", "--json"), 3)["code"] == (
        "no_such_secret"
    )
    assert mcpgw("secret", "set", "github", stdin="").code == 2


def test_changes_and_backup(mcpgw: Shell, tmp_path: Path) -> None:
    mcpgw.done("server", "add", "a", "--url", URL)
    mcpgw.done("server", "set", "a", "--timeout", "7")
    [last, first] = mcpgw.done("store", "changes", "--json").json["changes"]
    assert last["subject"].endswith("a")
    assert first["before"] is None
    assert last["time"].endswith("Z")
    assert "timeout" in mcpgw.done("store", "changes", "--limit", "1").out
    copy = tmp_path / "copy.db"
    mcpgw.done("store", "backup", str(copy))
    said = mcpgw.done("--store", str(copy), "server", "list", "--json")
    assert [server["name"] for server in said.json["servers"]] == ["a"]
    assert "hunter2" not in json.dumps(last)

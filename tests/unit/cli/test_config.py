from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.driver import Shell
from tests.unit.store.files import seed

FILE = """\
servers:
  github:
    url: https://api.example.com/mcp
    auth: bearer
    secret: vault:github
    aliases: [gh]
  fs: {command: [npx, fs], env: {LEVEL: INFO}}
teams:
  core: {grants: [gh, fs]}
keys:
  ann: {team: core, grants: [gh/get_*]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcpgw.yaml"
    path.write_text(FILE)
    return path


def test_apply_makes_everything_and_then_nothing(mcpgw: Shell, file: Path) -> None:
    first = mcpgw.done("config", "apply", "-f", str(file), "--json").json
    assert [f"{one['action']} {one['kind']} {one['name']}" for one in first["changes"]] == [
        "add server github",
        "add server fs",
        "add team core",
        "add key ann",
    ]
    assert [key["name"] for key in first["keys"]] == ["ann"]
    assert first["keys"][0]["secret"].startswith("mcpgw_")
    again = mcpgw.done("config", "apply", "-f", str(file), "--json").json
    assert again == {"changes": [], "keys": []}
    assert mcpgw.done("config", "plan", "-f", str(file)).out == ""
    assert mcpgw.done("key", "show", "ann", "--json").json["keys"][0]["grants"] == ["github/get_*"]


def test_a_plan_changes_nothing_and_says_what(mcpgw: Shell, file: Path) -> None:
    mcpgw.done("config", "apply", "-f", str(file), "--json")
    file.write_text(
        FILE.replace("env: {LEVEL: INFO}", "env: {LEVEL: DEBUG}, timeout: 30").replace(
            "keys:\n", "keys:\n  ben: {expires: 2030-01-01, grants: []}\n"
        )
    )
    before = mcpgw.path.read_bytes()
    said = mcpgw.done("config", "plan", "-f", str(file))
    assert said.out == (
        "~ server fs: env {LEVEL: ***} -> {LEVEL: ***}, timeout 60.0 -> 30.0\n"
        "+ key ben: grants [], expires 2030-01-01T00:00:00Z\n"
    )
    assert mcpgw.path.read_bytes() == before
    told = mcpgw.done("config", "plan", "-f", str(file), "--json").json["changes"][1]
    assert told["after"]["expires"] == "2030-01-01T00:00:00Z"


def test_secrets_that_nobody_would_see_are_not_made(mcpgw: Shell, file: Path) -> None:
    said = mcpgw("config", "apply", "-f", str(file))
    assert said.code == 2
    assert "Nobody would see the secret of ann" in said.err
    assert mcpgw.done("server", "list", "--json").json == {"servers": []}
    shown = mcpgw.done("config", "apply", "-f", str(file), terminal=True)
    assert "ann\tmcpgw_" in shown.out


def test_prune_asks_and_takes_out_what_the_file_lacks(mcpgw: Shell, file: Path) -> None:
    mcpgw.done("config", "apply", "-f", str(file), "--json")
    file.write_text("servers:\n  fs: {command: [npx, fs], env: {LEVEL: INFO}}\n")
    kept = mcpgw.done("config", "apply", "-f", str(file), "--json").json
    assert kept["changes"] == []
    refused = mcpgw("config", "apply", "-f", str(file), "--prune")
    assert refused.code == 2
    assert "Remove server github, team core, key ann?" in refused.err
    no = mcpgw("config", "apply", "-f", str(file), "--prune", stdin="n\n", terminal=True)
    assert no.code == 130
    mcpgw.done("config", "apply", "-f", str(file), "--prune", "--yes")
    names = [one["name"] for one in mcpgw.done("server", "list", "--json").json["servers"]]
    assert names == ["fs"]
    assert mcpgw.done("key", "show", "ann", "--json").json["keys"][0]["state"] == "revoked"


def test_bad_input_loses_nothing(mcpgw: Shell, file: Path) -> None:
    mcpgw.done("config", "apply", "-f", str(file), "--json")
    before = mcpgw.done("config", "export").out
    file.write_text("servers:\n  new: {url: https://n.example/mcp}\n  fs: {comand: [x]}\n")
    said = mcpgw("config", "apply", "-f", str(file), "--prune", "--yes")
    assert said.code == 2
    assert "line 3, servers.fs.comand: unknown key; did you mean command?" in said.err
    assert mcpgw.done("config", "export").out == before


def test_a_program_sends_json_through_stdin(mcpgw: Shell) -> None:
    text = json.dumps({"servers": {"x": {"url": "https://x.example/mcp"}}, "keys": {"k": {}}})
    done = mcpgw.done("config", "apply", "-f", "-", "--json", stdin=text).json
    assert [one["name"] for one in done["keys"]] == ["k"]


def test_a_secret_by_reference(
    mcpgw: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANN", "mcpgw_planted_0123456789")
    file = tmp_path / "k.toml"
    file.write_text('[keys.ann]\nsecret = "env:ANN"\n')
    first = mcpgw.done("config", "apply", "-f", str(file), "--json")
    assert first.json["keys"] == []
    assert mcpgw.done("config", "apply", "-f", str(file), "--json").json["changes"] == []
    monkeypatch.setenv("ANN", "mcpgw_another_0123456789")
    changed = mcpgw.done("config", "apply", "-f", str(file))
    assert "~ key ann: secret another -> env:ANN" in changed.err
    monkeypatch.delenv("ANN")
    said = mcpgw("config", "apply", "-f", str(file))
    assert said.code == 4
    assert "env:ANN" in said.err


@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_export_is_what_apply_takes(mcpgw: Shell, file: Path, form: str, tmp_path: Path) -> None:
    mcpgw.done("config", "apply", "-f", str(file), "--json")
    text = mcpgw.done("config", "export", "--format", form).out
    assert text.startswith("# Sealed in the vault, and not in here: github\n")
    other = str(tmp_path / "other.db")
    mcpgw.done("--store", other, "config", "apply", "-f", "-", "--json", stdin=text)
    assert mcpgw.done("--store", other, "config", "export", "--format", form).out == text


def test_validate(mcpgw: Shell, file: Path) -> None:
    said = mcpgw.done("config", "validate", str(file))
    assert said.err == f"{file} is valid: 2 servers, 1 team, 1 key.\n"
    assert not mcpgw.path.exists()
    file.write_text(FILE.replace("gh/get_*", "gitlab/get_*"))
    wrong = mcpgw("config", "validate", str(file), "--json")
    assert wrong.code == 2
    assert wrong.error["code"] == "bad_config"
    why = "line 11, keys.ann.grants[0]: there is no server of this name; did you mean github?"
    assert wrong.error["why"] == why


def test_the_seed_works_unchanged(mcpgw: Shell, tmp_path: Path) -> None:
    names = ("config.yaml", "secret.yaml", "access.yaml")
    texts = (seed.CONFIGURATION, seed.SECRET, seed.ACCESS)
    told: list[Any] = []
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).write_text(text)
        told.append(mcpgw.done("config", "import", str(tmp_path / name), "--json").json)
    assert [key["name"] for key in told[2]["keys"]] == ["dev-team-key", "admin-key"]
    shown = mcpgw.done("key", "show", "admin-key", "--json").json["keys"][0]
    assert shown["grants"] == ["github-tools", "internal-tools"]
    again = mcpgw.done("config", "import", str(tmp_path / names[0]), "--json").json
    assert again["changes"] == []


def test_an_import_seals_reports_and_keeps_what_was_there(mcpgw: Shell, tmp_path: Path) -> None:
    mcpgw.done("server", "add", "x", "--url", "https://old.example/mcp", "--timeout", "5")
    mcpgw.done("alias", "add", "ex", "x")
    file = tmp_path / "config.yaml"
    file.write_text(
        "mcp_servers: {x: {url: 'https://x.example/mcp', auth_type: api_key, "
        "auth_value: planted-1, strange: 1}}\n"
    )
    dry = mcpgw.done("config", "import", str(file), "--dry-run")
    assert dry.out.startswith("~ server x: url https://old.example/mcp -> https://x.example/mcp")
    assert mcpgw.done("secret", "list", "--json").json == {"secrets": []}
    said = mcpgw.done("config", "import", str(file))
    assert "warning: mcp_servers.x.strange: has no counterpart here" in said.err
    assert "planted-1" not in said.err + said.out
    server = mcpgw.done("server", "show", "x", "--json").json["servers"][0]
    assert server["secret"] == "vault:server/x"
    assert server["timeout"] == 5
    assert server["aliases"] == ["ex"]
    assert b"planted-1" not in b"".join(p.read_bytes() for p in tmp_path.glob("mcpgw.db*"))


def test_a_file_of_litellm_is_no_file_of_ours(mcpgw: Shell, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(seed.CONFIGURATION)
    said = mcpgw("config", "apply", "-f", str(file))
    assert "line 4, mcp_servers: this is another program's file; mcpgw config import" in said.err


def test_there_is_no_file(mcpgw: Shell) -> None:
    assert mcpgw("config", "apply", "-f", "nowhere.yaml").code == 3

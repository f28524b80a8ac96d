"""A daemon that serves from a file alone follows the file, and keeps its secrets to itself."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.children import gateway
from tests.e2e.gateway import SERVES, Child, House, child
from tests.unit.store.files import seed

AT_ONCE = 0.5  # seconds in which a change takes effect
PATIENCE = 20.0  # seconds for what has no promise
GAP = 0.02  # seconds between two looks at the daemon
PLANTED = "planted-0123456789-secret"

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def written(path: Path, document: dict[str, Any]) -> None:
    """Written beside and moved, as editors and deployments do; JSON is one of the forms."""
    beside = path.with_name("." + path.name)
    beside.write_text(json.dumps(document))
    beside.rename(path)


def adder() -> dict[str, Any]:
    return {"command": [sys.executable, "-m", "mcpgw.demo.stdio", "2025-11-25"]}


def status(address: str, key: str) -> int:
    request = urllib.request.Request(
        f"{address}/mcp",
        data=json.dumps(INITIALIZE).encode(),
        headers={
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def until(holds: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < patience, "it never held"
        time.sleep(GAP)
    return time.monotonic() - began


def serving(house: House, file: Path) -> Any:
    command = gateway("serve", "--port", "0", "--config", str(file))
    return child(command, SERVES, env=house.environment, cwd=house.folder)


def address_of(line: str) -> str:
    return line.removeprefix(SERVES).strip().removesuffix("/mcp")


def test_it_follows_the_file(house: House) -> None:
    file = house.folder / "gateway.json"
    document: dict[str, Any] = {"servers": {"adder": adder()}, "keys": {}}
    written(file, document)
    secrets = [f"secret-number-{n}-0123456789" for n in range(3)]
    took: list[float] = []
    with serving(house, file) as (line, daemon):
        address = address_of(line)
        for n, secret in enumerate(secrets):
            (house.folder / f"key{n}").write_text(secret + "\n")
            document["keys"][f"k{n}"] = {"grants": ["adder"], "secret": f"file:key{n}"}
            written(file, document)
            took.append(until(lambda secret=secret: status(address, secret) == 200))
        # A change of one key leaves the sessions of others, and their processes, alone.
        told = house.done("tools", "call", "adder__add", "--arg", "a=1", "--arg", "b=2")
        assert told.strip() == "3"
        file.write_text("servers: {adder: 1}\n")
        daemon.news("the last good configuration stays in force")
        assert status(address, secrets[0]) == 200
        assert "gateway.json has a fault" in house.told("status")["config"]["fault"]
        file.write_text("{}")
        daemon.news("is empty")
        assert status(address, secrets[0]) == 200
        del document["keys"]["k0"]
        written(file, document)
        took.append(until(lambda: status(address, secrets[0]) == 401))
        assert status(address, secrets[1]) == 200
        assert house.told("status")["config"]["fault"] is None
        assert daemon.end() == 0
    assert min(took) < AT_ONCE, took
    assert not list(house.folder.glob("mcpgw.db*"))


def test_what_the_file_says_is_read_only(house: House) -> None:
    house.done("server", "add", "mine", "--url", "https://mine.example/mcp")
    file = house.folder / "gateway.json"
    written(file, {"servers": {"adder": adder()}, "keys": {"k": {}}})
    with serving(house, file):
        assert [one["name"] for one in house.told("server", "list")["servers"]] == ["adder"]
        for words in (
            ("server", "remove", "adder", "--yes"),
            ("key", "create", "other"),
            ("key", "rotate", "k"),
            ("secret", "set", "x"),
            ("config", "apply", "-f", str(file), "--json"),
        ):
            refused = house.run(*words)
            assert refused.returncode in {2, 4}, words
            assert refused.stdout == ""
        assert str(file) in house.run("server", "disable", "adder").stderr
        why = house.told("status")["config"]["unusable_keys"]["k"]
        assert why == "The file names no secret for it (secret: REF)."
        again = house.run("serve", "--port", "0", "--config", str(file))
        assert "serves from a file here already" in again.stderr
    assert [one["name"] for one in house.told("server", "list")["servers"]] == ["mine"]


def test_a_broken_file_does_not_start(house: House) -> None:
    file = house.folder / "gateway.yaml"
    file.write_text("servers:\n  a: {urll: https://a.example/mcp}\n")
    refused = house.run("serve", "--port", "0", "--config", str(file))
    assert refused.returncode == 2
    assert "line 2, servers.a.urll: unknown key; did you mean url?" in refused.stderr
    assert house.run("serve", "--config", "nowhere.yaml").returncode == 3
    assert not list(house.folder.glob("mcpgw.db*"))


def mounted(folder: Path, **values: str) -> None:
    """A Kubernetes Secret's mount: files are links into ..data, which is swapped in one step."""
    folder.mkdir(exist_ok=True)
    data = folder / f"..{time.monotonic_ns()}"
    data.mkdir()
    for name, value in values.items():
        (data / name).write_text(value)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data", name))
    fresh = folder / "..data_tmp"
    fresh.symlink_to(data.name)
    fresh.rename(folder / "..data")


def test_mounted_secrets_are_read_again_when_they_are_rotated(house: House) -> None:
    mount = house.folder / "secrets"
    mounted(mount, robot="first-secret-0123456789", config=json.dumps({"servers": {}}))
    file = house.folder / "gateway.json"
    written(
        file,
        {
            "servers": {
                "adder": adder(),
                "late": {**adder(), "env": {"A": f"file:{mount}/late"}},
            },
            "keys": {"robot": {"grants": ["adder"], "secret": f"file:{mount}/robot"}},
        },
    )
    with serving(house, file) as (line, daemon):
        address = address_of(line)
        assert status(address, "first-secret-0123456789") == 200
        assert f"file:{mount}/late" in daemon.news("a server cannot be used")
        mounted(mount, robot="second-secret-0123456789", late="x")
        until(lambda: status(address, "second-secret-0123456789") == 200)
        assert status(address, "first-secret-0123456789") == 401
        until(lambda: house.told("status")["servers"][1]["unusable"] is None)
        # Gone: nobody gets in with what is not there any more.
        mounted(mount, late="x")
        until(lambda: status(address, "second-secret-0123456789") == 401)
        assert f"file:{mount}/robot" in house.told("status")["config"]["unusable_keys"]["robot"]


def test_a_mounted_configuration_is_followed_through_its_links(house: House) -> None:
    mount = house.folder / "config"
    mounted(mount, **{"gateway.json": json.dumps({"servers": {"one": adder()}})})
    with serving(house, mount / "gateway.json"):
        mounted(mount, **{"gateway.json": json.dumps({"servers": {"two": adder()}})})
        until(lambda: house.told("server", "list")["servers"][0]["name"] == "two")


def test_a_configuration_of_litellm_is_served_as_it_is(house: House) -> None:
    file = house.folder / "config.yaml"
    file.write_text(f"{seed.CONFIGURATION}\n{seed.ACCESS}")
    house.environment["MCP_GITHUB_TOKEN"] = PLANTED
    with serving(house, file) as (_, daemon):
        servers = {one["name"]: one for one in house.told("status")["servers"]}
        assert servers["github-tools"]["unusable"] is None
        assert "os.environ/MCP_INTERNAL_KEY" in servers["internal-tools"]["unusable"]
        assert "store_model_in_db" in daemon.news("store_model_in_db")
        shown = house.told("key", "show", "admin-key")["keys"][0]
        assert shown["grants"] == ["github-tools", "internal-tools"]


def test_planted_secrets_are_nowhere(house: House) -> None:
    file = house.folder / "config.yaml"
    (house.folder / "robot").write_text(PLANTED)
    file.write_text(
        "mcp_servers:\n"
        f"  a: {{url: 'http://127.0.0.1:9/mcp', auth_type: bearer, api_key: {PLANTED}}}\n"
        f"  b: {{command: 'false', env: {{API_TOKEN: {PLANTED}}}}}\n"
        f"  c: {{url: x, auth_type: {PLANTED}, transport: {PLANTED}}}\n"
        "key_settings: {robot: {allowed_mcp_servers: [a, b]}}\n"
    )
    own = house.folder / "own.yaml"
    own.write_text(
        "servers: {a: {url: 'http://127.0.0.1:9/mcp', auth: bearer, secret: 'env:A'}}\n"
        "keys: {robot: {grants: [a], secret: 'file:robot'}}\n"
    )
    house.environment["A"] = PLANTED
    said: list[str] = []
    commands = (
        ("status", "--json"),
        ("server", "list", "--json"),
        ("server", "show", "a"),
        ("key", "list", "--json"),
        ("config", "export"),
        ("store", "changes", "--json"),
        ("tools", "list"),
    )

    def look(daemon: Child) -> None:
        for words in commands:
            done = house.run(*words)
            said.extend((done.stdout, done.stderr))
        said.extend(daemon.lines)
        for path in house.folder.glob("mcpgw.db*"):
            if path.is_file():
                assert PLANTED.encode() not in path.read_bytes(), path

    for one in (own, file):
        with serving(house, one) as (_, daemon):
            look(daemon)
            broken = f"servers: {{a: {{secret: {PLANTED}, {PLANTED}: 1}}}}\nx: {PLANTED}\n"
            one.write_text(broken.replace(f"{PLANTED}: 1", f"timeout: {PLANTED}"))
            daemon.news("stays in force")
            look(daemon)
    assert PLANTED not in "".join(said)

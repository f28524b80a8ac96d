# ruff: noqa: E501 - each case is one line: a file and its fault
from __future__ import annotations

from pathlib import Path

import pytest

from mcpgw.errors import GatewayError
from mcpgw.store.files.names import Names, settle
from mcpgw.store.files.schema import Document, decode
from mcpgw.store.files.text import parse

BASE = Path("/etc/mcpgw")


def document(text: str, name: str = "mcpgw.yaml") -> Document:
    parsed = parse(text, name)
    found = decode(parsed, BASE)
    return settle(parsed, found, Names(found))


def faults(text: str, name: str = "mcpgw.yaml") -> list[str]:
    with pytest.raises(GatewayError) as refused:
        document(text, name)
    assert refused.value.code == "bad_config"
    return (refused.value.why or "").splitlines()


URL = "url: https://x.example/mcp"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {}", "line 1, server: there is no such section; did you mean servers?"),
        (
            "zzz: {}",
            "line 1, zzz: there is no such section; there are servers, groups, policies, organizations, teams, keys",
        ),
        ("mcpServers: {}", "line 1, mcpServers: this is another program's file; mcpgw config import reads it"),
        ("- a", "line 1: expected a mapping with sections, found a list"),
        ("servers:\n- a", "line 1, servers: expected a mapping with entries by name, found a list"),
        ("servers:\n  x: y", "line 2, servers.x: expected a mapping with its fields, found text"),
        (f"servers:\n  x:\n    {URL}\n    tiemout: 3", "line 4, servers.x.tiemout: unknown key; did you mean timeout?"),
        (f"servers:\n  x: {{{URL}, timeout: abc}}", "line 2, servers.x.timeout: expected a number, found text"),
        (f"servers:\n  x: {{{URL}, timeout: 0}}", "line 2, servers.x: its time-out must be more than 0 and at most 86400 seconds"),
        (f"servers:\n  x: {{{URL}, enabled: 1}}", "line 2, servers.x.enabled: expected true or false, found a whole number"),
        (f"servers:\n  x: {{{URL}, allow: a}}", "line 2, servers.x.allow: expected a list, found text"),
        (f"servers:\n  x:\n    {URL}\n    allow:\n    - a\n    - 7", "line 6, servers.x.allow[1]: expected text, found a whole number; put it in quotes"),
        (f"servers:\n  x: {{{URL}, auth: beerer, secret: env:A}}", "line 2, servers.x.auth: expected one of none, api-key, bearer, basic, token; did you mean bearer?"),
        (f"servers:\n  x: {{{URL}, auth: bearer}}", "line 2, servers.x: a secret goes with a way to send it (--auth), and the other way round"),
        ("servers:\n  x: {command: [a], env: {P: 80}}", "line 2, servers.x.env.P: expected text, found a whole number; put it in quotes"),
        ("servers:\n  x: {}", "line 2, servers.x: a server needs a URL or a command"),
        (f"servers:\n  a__b: {{{URL}}}", 'line 2, servers.a__b: "a__b" cannot be a name: it has two underscores in a row, which separate a server from its tool'),
        (f"servers:\n  x: {{{URL}, prefix: y}}", "line 2, servers.x.prefix: expected the server's name or one of its aliases"),
        (f"servers:\n  x: {{{URL}}}\n  X: {{{URL}}}", "line 3, servers.X: x is the same name; upper and lower case are one"),
        (f"servers:\n  x: {{{URL}, aliases: [g]}}\ngroups:\n  G: []", 'line 4, groups.G: the name "G" is taken by servers.x'),
        ("keys:\n  a b: {}", "line 2, keys.a b: this cannot be a name: it has 1 to 64 of A-Z, a-z, 0-9 and _.@+-, and begins with a letter or a digit"),
        ("keys:\n  k: {expires: soon}", "line 2, keys.k.expires: expected a date or a time such as 2027-01-31T12:00:00Z"),
        ("keys:\n  k: {expires: 5}", "line 2, keys.k.expires: expected a date or a time, found a whole number"),
        ("keys:\n  k: {team: core}\nteams:\n  Cor: {}", "line 2, keys.k.team: there is no team of this name; did you mean Cor?"),
        (f"servers:\n  x: {{{URL}}}\nkeys:\n  k: {{grants: [y]}}", "line 4, keys.k.grants[0]: there is no server of this name"),
        (f"servers:\n  x: {{{URL}}}\nkeys:\n  k: {{grants: [x/tols:y]}}", "line 4, keys.k.grants[0]: tols: is no kind of thing; did you mean tool?"),
        (f"servers:\n  x: {{{URL}}}\ngroups:\n  g: [x]\nkeys:\n  k: {{grants: [g]}}", "line 6, keys.k.grants[0]: there is no server of this name; a group is written group:g"),
        ("policies:\n  p: {rate: often}", "line 2, policies.p: a rate is a number of calls per second, minute or hour: 5/s, 60/m, 1000/h"),
        ("teams:\n  t: {policies: [p]}", "line 2, teams.t.policies[0]: there is no policy of this name"),
        ("a: 1\n---\nb: 2", "it has more than one YAML document"),
    ],
)  # fmt: skip
def test_faults(text: str, said: str) -> None:
    assert said in faults(text)


def test_toml_has_lines_too() -> None:
    text = '[servers.x]\nurl = "https://x.example/mcp"\n\n[servers.x.headers]\nA = 1\n'
    said = "line 5, servers.x.headers.A: expected text, found a whole number; put it in quotes"
    assert faults(text, "mcpgw.toml") == [said]


def test_all_faults_are_told_at_once() -> None:
    assert len(faults("servers:\n  a: {b: 1}\n  c: {d: 1, e: 2}\nx: {}\n")) == 4
    many = "servers:\n" + "".join(f"  s{n}: {{zzz: 1}}\n" for n in range(40))
    told = faults(many)
    assert len(told) == 21
    assert told[-1] == "and 20 more"


@pytest.mark.parametrize(
    "text",
    [
        "servers:\n  x: {url: https://x.example/mcp, auth: bearer, secret: planted-secret}",
        "servers:\n  x: {url: https://x.example/mcp, headers: {Authorization: Bearer planted-secret}}",
        "servers:\n  x: {command: [a], env: {API_TOKEN: planted-secret}}",
        "servers:\n  x: {url: https://x.example/mcp, auth: planted-secret}",
        "servers:\n  x: {url: 'https://u:planted-secret@x.example/mcp'}",
        "keys:\n  k: {secret: planted-secret}",
        "keys:\n  k: {expires: planted-secret}",
        "keys: planted-secret",
    ],
)
def test_no_fault_repeats_a_secret(text: str) -> None:
    told = faults(text)
    assert told
    assert "planted-secret" not in "".join(told)


def test_relative_paths_start_at_the_file() -> None:
    found = document(
        "servers:\n  x: {command: [a], cwd: run, env: {A: 'file:k', B: 'file:/abs'}}\n"
        "keys:\n  k: {secret: 'file:../s'}\n"
    )
    assert found.servers["x"].cwd == "/etc/mcpgw/run"
    assert found.servers["x"].env == {"A": "file:/etc/mcpgw/k", "B": "file:/abs"}
    assert found.keys["k"].secret == "file:/etc/mcpgw/../s"


def test_moments() -> None:
    yaml = "keys: {a: {expires: 2030-01-01}, b: {expires: '2030-01-01T01:00:00+01:00'}}"
    toml = "keys.a.expires = 2030-01-01\nkeys.b.expires = 2030-01-01T00:00:00Z"
    for text, name in ((yaml, "a.yaml"), (toml, "a.toml")):
        assert {key.expires for key in document(text, name).keys.values()} == {1893456000}


def test_an_empty_file_has_nothing() -> None:
    assert document("") == Document()
    assert document("servers:\nkeys:\n") == Document()

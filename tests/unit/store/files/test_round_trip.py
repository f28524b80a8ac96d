"""Export, apply into a fresh store, export again: the same text; apply it again: no change."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgw.store.db import Store
from mcpgw.store.files import export
from mcpgw.store.files.apply import Applied, apply
from mcpgw.store.files.plan import plan
from mcpgw.store.files.schema import decode
from mcpgw.store.files.text import parse
from mcpgw.store.secrets import Resolver
from mcpgw.store.vault import Vault

WORDS = st.sampled_from(["a", "b-c", "D", "e_f", "g7", "Hh"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
GLOBS = st.sampled_from(
    ["*", "get_*", "prompt:*", "resource:file:///*", "tool:prompt:x", "a:b", "[x]"]
)
PLAIN = st.sampled_from(["true", "info", "yes", "1e3", "0x1", "null", "~", "a: b", "# c", " d "])


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Plain values of a file that is without fault."""
    names = draw(st.lists(WORDS, unique_by=str.lower, min_size=1, max_size=4))
    servers = {name: draw(servers_of(name)) for name in names}
    aliases = [f"x{n}" for n in range(draw(st.integers(0, 2)))]
    for alias in aliases:
        entry = servers[draw(st.sampled_from(names))]
        entry.setdefault("aliases", []).append(alias)
        if draw(st.booleans()):
            entry["prefix"] = alias.upper()
    target = st.one_of(
        st.just("*"),
        st.sampled_from([*names, *aliases]),
        st.builds("{}/{}".format, st.sampled_from([*names, "*"]), GLOBS),
    )
    targets = st.lists(target, max_size=3)
    groups = {f"grp{n}": draw(targets) for n in range(draw(st.integers(0, 2)))}
    policies = {
        f"pol{n}": draw(
            st.fixed_dictionaries(
                {}, optional={"deny": targets, "rate": st.just("5/m"), "quota": st.just("9/d")}
            )
        )
        for n in range(draw(st.integers(0, 2)))
    }
    granted = st.lists(
        st.one_of(target, st.sampled_from([f"group:{name}" for name in groups] or ["*"])),
        max_size=3,
    )
    held: dict[str, st.SearchStrategy[Any]] = {
        "grants": granted,
        "denies": granted,
        "enabled": st.booleans(),
        "policies": st.lists(
            st.sampled_from(list(policies) or ["none"]), max_size=2 if policies else 0
        ),
    }
    holder = st.fixed_dictionaries({}, optional=held)
    orgs = {f"o{n}": draw(holder) for n in range(draw(st.integers(0, 2)))}
    teams = {f"t{n}": draw(holder) for n in range(draw(st.integers(0, 2)))}
    keys = {f"k.{n}@x": draw(holder) for n in range(draw(st.integers(0, 3)))}
    for team in teams.values():
        if orgs and draw(st.booleans()):
            team["organization"] = draw(st.sampled_from(list(orgs)))
    for key in keys.values():
        if teams and draw(st.booleans()):
            key["team"] = draw(st.sampled_from(list(teams)))
        if draw(st.booleans()):
            key["expires"] = draw(st.sampled_from(["2001-01-01", "2040-02-03T04:05:06+01:00"]))
    return {
        "servers": servers,
        "groups": groups,
        "policies": policies,
        "organizations": orgs,
        "teams": teams,
        "keys": keys,
    }


def servers_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    common: dict[str, st.SearchStrategy[Any]] = {
        "description": TEXTS,
        "allow": st.lists(GLOBS, max_size=2),
        "deny": st.lists(GLOBS, max_size=2),
        "isolate": st.sampled_from(["session", "key", "shared"]),
        "timeout": st.sampled_from([1, 0.5, 60, 86400]),
        "max_concurrent": st.integers(1, 9),
        "enabled": st.booleans(),
    }
    url: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {"url": st.just(f"https://{name.replace('_', '-')}.example/mcp?a=b")},
        optional={
            **common,
            "transport": st.sampled_from(["auto", "http", "sse"]),
            "headers": st.dictionaries(st.sampled_from(["X-A", "x-b"]), PLAIN, max_size=2),
            "forward_headers": st.lists(st.sampled_from(["X-C", "x-d"]), max_size=2),
        },
    )
    signed = url.map(lambda one: {**one, "auth": "bearer", "secret": "env:NOT_SET"})
    command: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {"command": st.lists(st.sampled_from(["-y", "ünï", "a b", ""]), max_size=3).map(npx)},
        optional={
            **common,
            "env": st.dictionaries(st.sampled_from(["A", "B c"]), PLAIN, max_size=2),
            "cwd": st.just("/srv"),
        },
    )
    return st.one_of(url, signed, command)


def npx(words: list[str]) -> list[str]:
    return ["npx", *words]


def put(store: Store, text: str, *, prune: bool = False) -> Applied:
    parsed = parse(text, "-")
    document = decode(parsed, Path("/"))
    return apply(store, parsed, document, Resolver(Vault(store)), prune=prune)


def told(store: Store, form: Literal["yaml", "toml"]) -> str:
    values, masked = export.tree(export.current(store))
    assert masked == []
    return export.written(values, form)


@pytest.mark.parametrize("form", ["yaml", "toml"])
@given(first=files(), second=files())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip(
    form: Literal["yaml", "toml"],
    first: dict[str, Any],
    second: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MCPGW_MASTER_KEY", "a" * 64)
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder, "one.db"), Path(folder, "other.db")
        with Store.open(one) as store:
            put(store, export.written(first, form))
            text = told(store, form)
            assert put(store, text, prune=True).changes == ()
        with Store.open(other) as store:
            # From whatever was there before to just what the file says.
            put(store, export.written(second, form))
            put(store, text, prune=True)
            assert told(store, form) == text
            assert put(store, text, prune=True).changes == ()
            parsed = parse(text, "-")
            document = decode(parsed, Path("/"))
            again = plan(store, parsed, document, Resolver(Vault(store)), prune=True)
            assert again.changes == ()

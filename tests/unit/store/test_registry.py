from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpgw.core.naming import check_name
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Server
from mcpgw.store import audit
from mcpgw.store.db import Store
from mcpgw.store.registry import (
    Alias,
    ServerDraft,
    add_alias,
    add_server,
    get_server,
    list_aliases,
    list_servers,
    remove_alias,
    remove_server,
    set_server,
)


def draft(name: str = "github", **fields: Any) -> ServerDraft:
    known: dict[str, Any] = {"name": name, "url": "https://example.com/mcp"}
    return ServerDraft(**(known | fields))


def code(caught: pytest.ExceptionInfo[GatewayError]) -> tuple[str, Exit]:
    return caught.value.code, caught.value.exit


FULL = draft(
    transport="http",
    auth="bearer",
    secret="env:TOKEN",
    headers={"X-Team": "a"},
    forward_headers=("x-request-id",),
    allow=("get_*",),
    deny=("drop_*",),
    isolate="session",
    timeout=5.0,
    max_concurrent=3,
    ca="/etc/ca.pem",
    client_cert="/etc/cert.pem",
    description='It\'s "ours"; DROP TABLE',
    enabled=False,
)


def test_a_server_comes_back_as_it_was_added(store: Store) -> None:
    added = add_server(store, FULL)
    assert get_server(store, "github") == added
    for field in FULL.__struct_fields__:
        assert getattr(added, field) == getattr(FULL, field)
    assert added.prefix == "github"
    assert isinstance(added, Server)


def test_a_command_makes_a_stdio_server(store: Store) -> None:
    added = add_server(
        store, ServerDraft(name="fs", command=("npx", "-y", "x"), env={"A": "env:B"})
    )
    assert (added.transport, added.command, added.env) == (
        "stdio",
        ("npx", "-y", "x"),
        {"A": "env:B"},
    )


def test_no_server_and_a_slip_of_the_finger(store: Store) -> None:
    with pytest.raises(GatewayError) as caught:
        get_server(store, "githb")
    assert caught.value.why == "No server is registered yet."
    assert caught.value.next == "mcpgw server add NAME --url URL"
    add_server(store, draft("jira"))
    add_server(store, draft("github"))
    with pytest.raises(GatewayError) as caught:
        get_server(store, "githb")
    assert code(caught) == ("no_such_server", Exit.MISSING)
    assert caught.value.what == 'There is no server called "githb".'
    assert caught.value.why == "2 servers are registered: github, jira."
    assert caught.value.next == "Did you mean github?  mcpgw server show github"


@pytest.mark.parametrize("taken", ["github", "GitHub", "gh", "GH"])
def test_one_namespace_whatever_the_case(store: Store, taken: str) -> None:
    add_server(store, draft())
    add_alias(store, "gh", "github")
    for attempt in (
        lambda: add_server(store, draft(taken)),
        lambda: add_alias(store, taken, "github"),
        lambda: set_server(store, "other", name=taken),
    ):
        if not any(one.name == "other" for one in list_servers(store)):
            add_server(store, draft("other"))
        with pytest.raises(GatewayError) as caught:
            attempt()
        assert code(caught) == ("name_taken", Exit.MISSING)
    assert [one.name for one in list_servers(store)] == ["github", "other"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=st.text(st.sampled_from("aZ09_-. é/\0"), max_size=40))
def test_exactly_the_names_of_the_rule_are_taken(store: Store, name: str) -> None:
    if check_name(name) is None:
        assert add_server(store, draft(name)).name == name
        assert remove_server(store, name).name == name
    else:
        for attempt in (
            lambda: add_server(store, draft(name)),
            lambda: add_alias(store, name, "x"),
        ):
            with pytest.raises(GatewayError) as caught:
                attempt()
            assert code(caught) == ("bad_name", Exit.USAGE)


@pytest.mark.parametrize(
    "fields",
    [
        {"url": None},
        {"url": ""},
        {"url": "ftp://x"},
        {"url": "https://"},
        {"url": "https://u:p@x/"},
        {"url": "https://x/ y"},
        {"url": "https://x/#y"},
        {"url": "https://x:99999/"},
        {"command": ("x",)},
        {"transport": "stdio"},
        {"transport": "http", "command": ("x",), "url": None},
        {"transport": "carrier-pigeon"},
        {"url": None, "command": ("",)},
        {"auth": "bearer"},
        {"secret": "env:X"},
        {"auth": "bearer", "secret": "hunter2"},
        {"headers": {"X-A": "a\r\nb: c"}},
        {"headers": {"X A": "a"}},
        {"forward_headers": ("x a",)},
        {"url": None, "command": ("x",), "env": {"A=B": "c"}},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_concurrent": 0},
        {"allow": ("",)},
    ],
)
def test_what_cannot_work_is_not_stored(store: Store, fields: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        add_server(store, draft(**fields))
    assert code(caught) == ("bad_server", Exit.USAGE)
    assert caught.value.why
    assert "hunter2" not in f"{caught.value.what}{caught.value.why}"
    assert list_servers(store) == []


def test_setting_changes_what_is_named_and_no_more(store: Store) -> None:
    before = add_server(store, FULL)
    after = set_server(store, "github", timeout=9.0, allow=None, enabled=True)
    assert (after.timeout, after.allow, after.enabled) == (9.0, None, True)
    assert after.headers == before.headers
    assert after.id == before.id
    row = audit.changes(store)[0]
    assert row.action == "server.set"
    assert row.before == {"timeout": 5.0, "allow": ["get_*"], "enabled": False}
    assert row.after == {"timeout": 9.0, "allow": None, "enabled": True}


def test_setting_to_the_same_leaves_no_audit_row(store: Store) -> None:
    add_server(store, draft())
    set_server(store, "github", timeout=60.0)
    assert [row.action for row in audit.changes(store)] == ["server.add"]


def test_setting_what_cannot_work_changes_nothing(store: Store) -> None:
    before = add_server(store, draft())
    with pytest.raises(GatewayError, match="cannot be stored"):
        set_server(store, "github", name="other", timeout=-1)
    with pytest.raises(GatewayError, match="cannot be stored"):
        set_server(store, "github", timeout="soon")
    with pytest.raises(TypeError):
        set_server(store, "github", color="red")
    assert list_servers(store) == [before]


def test_renaming_moves_nothing_else(store: Store) -> None:
    old = add_server(store, draft())
    add_alias(store, "gh", "github")
    new = set_server(store, "gh", name="code")
    assert (new.id, new.name, new.aliases) == (old.id, "code", ("gh",))
    assert set_server(store, "code", name="Code").name == "Code"
    with pytest.raises(GatewayError):
        get_server(store, "github")


def test_a_prefix_is_the_name_or_an_alias_of_the_server(store: Store) -> None:
    add_server(store, draft())
    add_server(store, draft("jira"))
    add_alias(store, "gh", "github")
    assert set_server(store, "github", prefix="GH").prefix == "gh"
    assert list_aliases(store) == [Alias("gh", "github", prefix=True)]
    assert set_server(store, "github", name="code").prefix == "gh"
    assert set_server(store, "gh", prefix="code").prefix == "code"
    for foreign in ("gh", "nope"):
        with pytest.raises(GatewayError) as caught:
            set_server(store, "jira", prefix=foreign)
        assert caught.value.code == "bad_prefix"


def test_an_alias_that_goes_takes_its_prefix_along(store: Store) -> None:
    add_server(store, draft())
    add_alias(store, "gh", "github")
    set_server(store, "github", prefix="gh")
    assert remove_alias(store, "GH") == Alias("gh", "github", prefix=True)
    assert get_server(store, "github").prefix == "github"
    with pytest.raises(GatewayError) as caught:
        remove_alias(store, "github")
    assert code(caught) == ("no_such_alias", Exit.MISSING)


def test_removing_takes_the_aliases_along_and_a_name_comes_back_as_another(store: Store) -> None:
    old = add_server(store, draft())
    add_alias(store, "gh", "github")
    assert remove_server(store, "gh").id == old.id
    assert (list_servers(store), list_aliases(store)) == ([], [])
    assert add_server(store, draft()).id != old.id


def test_servers_and_aliases_are_listed_by_name(store: Store) -> None:
    for name in ("b", "A", "c"):
        add_server(store, draft(name))
    for alias in ("z", "y"):
        add_alias(store, alias, "c")
    assert [one.name for one in list_servers(store)] == ["A", "b", "c"]
    assert [one.alias for one in list_aliases(store)] == ["y", "z"]
    assert get_server(store, "c").aliases == ("y", "z")


def test_long_lists_of_names_are_cut(store: Store) -> None:
    for number in range(15):
        add_server(store, draft(f"server{number:02}"))
    with pytest.raises(GatewayError) as caught:
        get_server(store, "x")
    assert "and 3 more." in (caught.value.why or "")
    assert caught.value.next == "mcpgw server list"

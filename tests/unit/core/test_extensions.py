"""Which extensions are passed upstream, and which are advertised."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from mcpgw.core import extensions, handshake
from mcpgw.core.extensions import APPS, TASKS
from mcpgw.model.calls import Context
from mcpgw.model.config import EVERYTHING
from tests.doubles import context, native, obj, plain, server, snapshot

GITHUB = server("github")
CONFIG = snapshot(GITHUB)
HTML = {"mimeTypes": ["text/html;profile=mcp-app"]}
ALL = {TASKS: {}, APPS: HTML, "com.example/x": {"a": None}}


def ctx(declared: Any = None, *, one: bool = False, revision: str = "2026-07-28") -> Context:
    capabilities = obj(elicitation={"form": {}}, roots={"listChanged": False}, sampling={})
    if declared is not None:
        capabilities["extensions"] = obj(x=declared)["x"]
    return context(
        CONFIG,
        capabilities=capabilities,
        revision=revision,
        endpoint=native(GITHUB) if one else EVERYTHING,
    )


@pytest.mark.parametrize(
    ("one", "revision", "passed"),
    [
        (False, "2026-07-28", [TASKS, APPS]),
        (False, "2025-11-25", [APPS]),
        (True, "2026-07-28", ["com.example/x", TASKS, APPS]),
        (True, "2025-11-25", ["com.example/x", APPS]),
    ],
)
def test_what_of_a_clients_extensions_may_go_upstream(
    one: bool, revision: str, passed: list[str]
) -> None:
    here = ctx(ALL, one=one, revision=revision)
    assert plain(extensions.passable(here)) == {id: ALL[id] for id in passed}
    assert list(extensions.passable(here)) == passed
    known = [APPS, "com.example/x", "com.example/y"]
    assert list(extensions.common(here, known)) == [id for id in passed if id in known]


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"x"', b"{"])
def test_extensions_of_the_wrong_shape_are_none(raw: bytes) -> None:
    assert extensions.of({"extensions": Raw(raw)}) == {}
    assert extensions.of({}) == {}


def test_extensions_too_many_to_be_remembered_are_passed_too() -> None:
    many: Any = dict.fromkeys([f"com.example/{at}" for at in range(1000)], 1)
    assert len(extensions.passable(ctx(many, one=True))) == 1000


@pytest.mark.parametrize(
    ("declared", "one", "revision", "modern", "told"),
    [
        # Nothing is advertised that one of the two does not know,
        ({APPS: HTML}, True, "2026-07-28", True, [APPS]),
        ({APPS: HTML}, True, "2025-11-25", False, [APPS]),
        ({"com.example/y": {}}, True, "2026-07-28", True, []),
        ({}, True, "2026-07-28", True, []),
        (None, True, "2025-11-25", False, []),
        # nor beside others what could not be routed,
        (ALL, False, "2026-07-28", True, [TASKS, APPS]),
        (ALL, True, "2026-07-28", True, [TASKS, APPS, "com.example/x"]),
        # nor tasks where one of the two cannot have them;
        (ALL, True, "2026-07-28", False, [APPS, "com.example/x"]),
        (ALL, True, "2025-11-25", True, [APPS, "com.example/x"]),
        # and who only looks is told of all.
        (None, True, "2026-07-28", True, [TASKS, APPS, "com.example/x"]),
        (None, False, "2026-07-28", True, [TASKS, APPS]),
    ],
)
def test_what_of_a_servers_extensions_a_client_is_told(
    declared: Any, one: bool, revision: str, modern: bool, told: list[str]
) -> None:
    mine = obj(**{TASKS: {}, APPS: {"s": 1}, "com.example/x": {}})
    here = ctx(declared, one=one, revision=revision)
    offered = extensions.offered(here, mine, modern=modern)
    assert list(offered) == told
    assert all(offered[id] is mine[id] for id in told)  # with the server's settings


def test_a_server_is_told_what_the_client_declared_with_all_below_it_and_no_more() -> None:
    asks: Any = {"elicitation": {"form": {}}, "roots": {"listChanged": False}, "sampling": {}}
    here = ctx(ALL)
    here.capabilities["experimental"] = Raw(b'{"x":{}}')  # type: ignore[index]
    here.capabilities["tasks"] = Raw(b'{"list":{}}')  # type: ignore[index]
    # A legacy server tells what it knows only afterwards.
    assert plain(handshake.declared(here)) == {**asks, "extensions": {APPS: HTML}}
    assert plain(handshake.declared_to(here, [TASKS])) == {**asks, "extensions": {TASKS: {}}}
    assert plain(handshake.declared_to(here, ["com.example/x"])) == asks
    assert plain(handshake.declared_to(here, [])) == asks
    assert plain(handshake.declared(ctx({TASKS: {}}))) == asks
    assert handshake.declared(context(CONFIG)) == {}


def test_a_missing_extension_is_named_as_it_would_be_declared() -> None:
    error = extensions.missing(TASKS)
    assert (error.code, error.http_status) == (-32021, 400)
    assert plain(error.data) == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    assert extensions.declares(ctx({TASKS: {}}), TASKS)
    assert not extensions.declares(ctx({APPS: {}}), TASKS)

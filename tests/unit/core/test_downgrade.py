"""What legacy clients get of modern answers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from mcpgw.core import downgrade
from mcpgw.model.calls import RpcError
from tests.doubles import obj, plain, raw


def test_members_that_legacy_revisions_do_not_have_are_taken_off() -> None:
    modern = obj(tools=[], nextCursor="", ttlMs=1, cacheScope="private", unknown=None)
    assert plain(downgrade.result("2025-11-25", "tools/list", modern)) == {
        "tools": [],
        "nextCursor": "",
        "unknown": None,
    }
    assert "ttlMs" in modern


@pytest.mark.parametrize(
    ("revision", "content", "kept"),
    [
        ("2025-11-25", {"a": 1}, True),
        ("2025-06-18", {"a": 1}, True),
        ("2025-03-26", {"a": 1}, False),
        ("2024-11-05", {"a": 1}, False),
        ("2025-11-25", [1], False),
        ("2025-11-25", "text", False),
        ("2025-11-25", None, False),
    ],
)
def test_structured_content_is_an_object_or_nothing(
    revision: str, content: object, kept: bool
) -> None:
    modern = obj(content=[], structuredContent=content)
    assert ("structuredContent" in downgrade.result(revision, "tools/call", modern)) == kept
    assert "structuredContent" in downgrade.result(revision, "prompts/get", modern)


def test_only_the_servers_name_leaves_meta() -> None:
    name = "io.modelcontextprotocol/serverInfo"
    both: Any = {name: {}, "other": 1}
    assert plain(downgrade.result("2025-11-25", "x", obj(_meta=both))) == {"_meta": {"other": 1}}
    assert downgrade.result("2025-11-25", "x", obj(_meta={name: {}})) == {}
    strange = {"_meta": Raw(b"[1]")}
    assert downgrade.result("2025-11-25", "x", strange) == strange


def test_an_unknown_resource_has_its_old_number() -> None:
    missing = RpcError(-32602, "Resource not found", raw({"uri": "a:b"}))
    assert downgrade.error("resources/read", missing).code == -32002
    assert downgrade.error("tools/call", missing) is missing
    for other in (
        RpcError(-32602, "bad"),
        RpcError(-32602, "bad", raw([1])),
        RpcError(-32602, "bad", raw({"a": 1})),
        RpcError(-32000, "bad", raw({"uri": "a"})),
    ):
        assert downgrade.error("resources/read", other) is other


def test_capabilities_a_revision_does_not_know_are_not_advertised() -> None:
    modern = raw({"tools": {"listChanged": True}, "completions": {}, "extensions": {}, "tasks": {}})
    # Extensions are of no revision: whoever declared one understands it (SEP-2133).
    assert set(downgrade.capabilities("2024-11-05", modern)) == {"tools", "extensions"}
    told = {"tools", "completions", "extensions"}
    assert set(downgrade.capabilities("2025-06-18", modern)) == told
    assert set(downgrade.capabilities("2025-11-25", modern)) == told | {"tasks"}
    assert downgrade.capabilities("2025-11-25", None) == {}

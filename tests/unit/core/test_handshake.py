"""What mcpgw says of itself, and what it reads in the answers."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import types as sdk

from mcpgw.core import handshake
from mcpgw.model.calls import RpcError
from mcpgw.model.ports import UpstreamError
from tests.doubles import obj, plain, raw

DISCOVERED: dict[str, Any] = {
    "supportedVersions": ["2099-01-01", "2026-07-28"],
    "capabilities": {"tools": {}},
    "instructions": "Be kind.",
    "ttlMs": 0,
    "cacheScope": "public",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1", "odd": None}},
}


def test_only_what_is_routed_is_declared() -> None:
    declared = obj(roots={"listChanged": True}, elicitation={}, experimental={"x": {}})

    params = handshake.initialize_params(handshake.routed(declared))

    told = plain(params)
    assert told["capabilities"] == {"elicitation": {}, "roots": {"listChanged": True}}
    assert told["protocolVersion"] == "2025-11-25"
    assert sdk.InitializeRequestParams.model_validate(told).client_info.name == "mcpgw"


def test_the_modern_meta_has_all_that_is_required() -> None:
    meta = plain(handshake.discover_params())["_meta"]

    prefix = "io.modelcontextprotocol/"
    assert meta[prefix + "protocolVersion"] == "2026-07-28"
    assert meta[prefix + "clientCapabilities"] == {}
    assert meta[prefix + "clientInfo"]["name"] == "mcpgw"


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_an_initialize_result_becomes_a_link_info(revision: str) -> None:
    info = handshake.initialized(
        obj(
            protocolVersion=revision,
            capabilities={"tools": {"listChanged": True}},
            serverInfo={"name": "s", "version": "1"},
            instructions="Be kind.",
        )
    )

    assert (info.revision, info.modern, info.instructions) == (revision, False, "Be kind.")
    assert plain(info.server) == {"name": "s", "version": "1"}
    assert handshake.has(info.capabilities, "tools", "listChanged")
    assert not handshake.has(info.capabilities, "resources")


@pytest.mark.parametrize("told", [{}, {"protocolVersion": "2026-07-28"}, {"protocolVersion": 3}])
def test_an_initialize_result_of_no_legacy_revision_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(UpstreamError) as caught:
        handshake.initialized(obj(**told))

    assert caught.value.stage == "handshake"


def test_capabilities_that_are_no_object_are_refused() -> None:
    with pytest.raises(UpstreamError, match="capabilities"):
        handshake.initialized(obj(protocolVersion="2025-11-25", capabilities=[]))


def test_a_discover_result_becomes_a_link_info() -> None:
    info = handshake.discovered(obj(**DISCOVERED))

    assert info is not None
    assert (info.revision, info.modern, info.instructions) == ("2026-07-28", True, "Be kind.")
    assert plain(info.server) == {"name": "s", "version": "1", "odd": None}


def test_a_discover_result_without_a_modern_revision_asks_for_the_old_way() -> None:
    assert handshake.discovered(obj(supportedVersions=["2025-06-18"])) is None
    assert handshake.discovered(obj(tools=[])) is None


def test_a_discover_result_of_unknown_revisions_only_is_refused() -> None:
    with pytest.raises(UpstreamError, match="2099-01-01"):
        handshake.discovered(obj(supportedVersions=["2099-01-01"]))


def test_an_unsupported_version_error_lists_what_is_supported() -> None:
    error = RpcError(-32022, "no", raw({"supported": ["2025-06-18", 7], "requested": "x"}))

    assert handshake.supported(error) == ("2025-06-18",)
    assert handshake.is_modern_error(error)
    assert handshake.supported(RpcError(-32601, "no")) is None
    assert handshake.supported(RpcError(-32022, "no", raw([]))) is None


def test_a_link_info_becomes_the_discover_result_of_the_core() -> None:
    info = handshake.discovered(obj(**DISCOVERED))
    assert info is not None

    told = plain(handshake.discover_result(info))

    assert told["supportedVersions"] == ["2026-07-28"]
    assert told["capabilities"] == {"tools": {}}
    assert told["instructions"] == "Be kind."
    assert (told["ttlMs"], told["cacheScope"]) == (0, "private")

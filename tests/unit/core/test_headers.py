"""Mirrored header fields, compared with the official SDK wherever both have a rule."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound
from msgspec import Raw

from mcpgw.core import headers
from mcpgw.core.headers import BadSchema, Param


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def prop(kind: Any, header: Any) -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


SAMPLE = schema(
    region=prop("string", "Region"),
    count=prop("integer", "Count"),
    dry=prop("boolean", "X-Dry"),
    deep=schema(inner=prop("string", "Inner")),
    plain={"type": "string"},
)


@pytest.mark.parametrize(
    "text",
    [
        "us-west1",
        "",
        "Hello, 世界",
        " padded ",
        "line1\nline2",
        "=?base64?literal?=",
        "a\tb",
        "\x7f",
    ],
)
def test_encoding_is_the_sdks(text: str) -> None:
    encoded = headers.encode(text)
    assert encoded == inbound.encode_header_value(text)
    assert headers.decode(encoded) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives(text: str) -> None:
    encoded = headers.encode(text)
    assert encoded == inbound.encode_header_value(text)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert headers.decode(encoded) == text


@pytest.mark.parametrize(
    "value",
    [
        "=?base64?!!?=",
        "=?base64?YQ?=",
        "=?base64?YR==?=",
        "=?base64?/w==?=",
        "=?BASE64?YQ==?=",
        "=?base64?YQ==",
        "=?base64?=",
        "=?base64??=",
    ],
)
def test_odd_values_decode_as_the_sdk_does(value: str) -> None:
    assert headers.decode(value) == inbound.decode_header_value(value)


@pytest.mark.parametrize("value", ["é", "a\x00", "a\nb"])
def test_characters_that_no_field_may_hold_equal_nothing(value: str) -> None:
    assert headers.decode(value) is None


def test_the_params_of_a_schema() -> None:
    assert headers.params_of(raw(SAMPLE)) == (
        Param(("count",), "mcp-param-count", "integer"),
        Param(("deep", "inner"), "mcp-param-inner", "string"),
        Param(("dry",), "mcp-param-x-dry", "boolean"),
        Param(("region",), "mcp-param-region", "string"),
    )
    assert headers.params_of(None) == ()
    assert headers.params_of(raw({"type": "object"})) == ()


def test_an_escaped_annotation_is_seen() -> None:
    escaped = rb'{"properties":{"a":{"type":"string","x\u002dmcp-header":"A"}}}'
    assert headers.params_of(Raw(escaped)) == (Param(("a",), "mcp-param-a", "string"),)


def test_data_that_looks_like_an_annotation_is_data() -> None:
    sample = schema(a={"type": "object", "default": {"x-mcp-header": 1}, "enum": [{}]})
    assert headers.params_of(raw(sample)) == ()
    named = schema(**{"x-mcp-header": {"type": "string"}})
    assert headers.params_of(raw(named)) == ()


INVALID: list[Any] = [
    {"x-mcp-header": "Root"},
    schema(a=prop("string", "")),
    schema(a=prop("string", "has space")),
    schema(a=prop("string", "cr\r\nlf")),
    schema(a=prop("string", 7)),
    schema(a=prop("string", None)),
    schema(a=prop("number", "A")),
    schema(a=prop("object", "A")),
    schema(a=prop(["string", "null"], "A")),
    schema(a={"x-mcp-header": "A"}),
    schema(a=prop("string", "Same"), b=prop("string", "same")),
    schema(a={"type": "array", "items": prop("string", "A")}),
    {"anyOf": [schema(a=prop("string", "A"))]},
    {"$defs": {"d": schema(a=prop("string", "A"))}},
    {"if": schema(a=prop("string", "A"))},
    schema(a={"patternProperties": {".": prop("string", "A")}}),
]


@pytest.mark.parametrize("sample", INVALID, ids=json.dumps)
def test_invalid_annotations_are_refused_as_by_the_sdk(sample: Any) -> None:
    assert inbound.find_invalid_x_mcp_header(sample) is not None
    with pytest.raises(BadSchema):
        headers.params_of(raw(sample))


ARGUMENTS: list[dict[str, Any]] = [
    {"region": "us", "count": 42, "dry": True, "deep": {"inner": "é"}},
    {"region": None, "count": -7, "dry": False, "deep": None},
    {"region": " x ", "deep": [1]},
    {"region": 5, "count": "five", "dry": "yes", "deep": {"inner": {"a": 1}}},
    {"region": 1.5, "count": 1.5, "deep": {"inner": "=?base64?x?="}},
    {"count": 123456789012345678901234567890},
    {"count": 0},
    {},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=json.dumps)
def test_what_is_minted_passes_here_and_at_the_sdk(arguments: dict[str, Any]) -> None:
    params = headers.params_of(raw(SAMPLE))
    minted = headers.mint(params, raw(arguments))
    expected = inbound.mcp_param_headers(inbound.x_mcp_header_map(SAMPLE), arguments)
    assert minted == {name.lower(): value for name, value in expected.items()}
    assert headers.mismatch(params, raw(arguments), minted) is None
    assert inbound.validate_mcp_param_headers(SAMPLE, arguments, minted) is None


@pytest.mark.parametrize("text", ["42", "42.0", "4.2e1", "-0", "1e3", "1.50"])
def test_number_texts_pass_at_the_sdk(text: str) -> None:
    params = headers.params_of(raw(SAMPLE))
    body = Raw(b'{"count":' + text.encode() + b"}")
    minted = headers.mint(params, body)
    assert headers.mismatch(params, body, minted) is None
    assert inbound.validate_mcp_param_headers(SAMPLE, json.loads(bytes(body)), minted) is None


@pytest.mark.parametrize("text", ["1e400", "1" * 5000])
def test_numbers_without_a_text_are_left_out(text: str) -> None:
    params = headers.params_of(raw(SAMPLE))
    assert headers.mint(params, Raw(b'{"count":' + text.encode() + b"}")) == {}


def test_a_lone_surrogate_has_no_field() -> None:
    assert headers.mint(headers.params_of(raw(SAMPLE)), Raw(rb'{"region":"\ud83d"}')) == {}


COMPARED: list[tuple[Any, dict[str, str]]] = [
    ({"count": 42}, {"mcp-param-count": "42.0"}),
    ({"count": 42.0}, {"mcp-param-count": "42"}),
    ({"count": 42}, {"mcp-param-count": "042"}),
    ({"count": 42}, {"mcp-param-count": "42.5"}),
    ({"count": 42}, {"mcp-param-count": "4.2e1"}),
    ({"count": 42}, {"mcp-param-count": "43"}),
    ({"count": 42}, {"mcp-param-count": "=?base64?NDI=?="}),
    ({"count": 9007199254740993}, {"mcp-param-count": "9007199254740992"}),
    ({"count": "42"}, {"mcp-param-count": "42.0"}),
    ({"count": True}, {"mcp-param-count": "true"}),
    ({"count": 1}, {"mcp-param-count": "1" * 5000}),
    ({"region": "42"}, {"mcp-param-region": "42.0"}),
    ({"region": "us"}, {"mcp-param-region": "US"}),
    ({"region": "us"}, {"mcp-param-region": "=?base64?dXM=?="}),
    ({"region": "us"}, {"mcp-param-region": "=?base64?dXM?="}),
    ({"region": "us"}, {}),
    ({"region": None}, {"mcp-param-region": "null"}),
    ({"region": {}}, {"mcp-param-region": "x"}),
    ({}, {"mcp-param-region": "us"}),
    ({}, {"mcp-param-other": "us"}),
    ({"dry": True}, {"mcp-param-x-dry": "True"}),
]


@pytest.mark.parametrize(("arguments", "sent"), COMPARED, ids=str)
def test_comparison_is_the_sdks(arguments: Any, sent: dict[str, str]) -> None:
    params = headers.params_of(raw(SAMPLE))
    ours = headers.mismatch(params, raw(arguments), sent)
    theirs = inbound.validate_mcp_param_headers(SAMPLE, arguments, sent)
    assert (ours is None) == (theirs is None), (ours, theirs)


def envelope(version: Any, method: str, **params: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}


ROUTED: list[tuple[dict[str, Any], dict[str, str]]] = [
    (envelope("2026-07-28", "tools/list"), {"mcp-method": "tools/list"}),
    (envelope("2026-07-28", "tools/list"), {}),
    (envelope("2026-07-28", "tools/list"), {"mcp-method": "Tools/list"}),
    (envelope("2026-07-28", "tools/list"), {"mcp-method": "tools/list", "mcp-name": "x"}),
    (envelope("2026-07-28", "tools/call", name="a"), {"mcp-method": "tools/call"}),
    (
        envelope("2026-07-28", "tools/call", name="a"),
        {"mcp-method": "tools/call", "mcp-name": "a"},
    ),
    (
        envelope("2026-07-28", "tools/call", name="é"),
        {"mcp-method": "tools/call", "mcp-name": "=?base64?w6k=?="},
    ),
    (
        envelope("2026-07-28", "resources/read", uri="a:b"),
        {"mcp-method": "resources/read", "mcp-name": "a:c"},
    ),
]


@pytest.mark.parametrize(("body", "sent"), ROUTED, ids=str)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", None])
def test_routing_fields_are_compared_as_the_sdk_does(
    body: dict[str, Any], sent: dict[str, str], version: str | None
) -> None:
    fields = sent if version is None else {**sent, "mcp-protocol-version": version}
    params = msgspec.json.decode(json.dumps(body["params"]), type=dict[str, Raw])
    ours = headers.routing_mismatch("2026-07-28", body["method"], params, fields)
    theirs = inbound.classify_inbound_request(body, headers=fields)
    assert (ours is None) == isinstance(theirs, inbound.InboundModernRoute), (ours, theirs)


def test_what_a_name_mirrors() -> None:
    assert headers.name_of("tools/call", {"name": Raw(b'"a"')}) == "a"
    assert headers.name_of("tasks/get", {"taskId": Raw(b'"t"')}) == "t"
    assert headers.name_of("tools/list", {"name": Raw(b'"a"')}) is None
    assert headers.name_of("prompts/get", {}) is None


def test_doubled_fields_are_found() -> None:
    assert headers.doubled([("Mcp-Name", "a"), ("mcp-name", "a")]) == "mcp-name"
    assert headers.doubled([("Mcp-Param-X", "a"), ("mcp-param-x", "b")]) == "mcp-param-x"
    assert headers.doubled([("accept", "a"), ("accept", "b"), ("mcp-name", "a")]) is None

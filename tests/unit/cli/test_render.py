"""What servers answer, as people and programs get it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from mcpgw.cli import render
from mcpgw.core import wire
from mcpgw.model.calls import JsonObject


def result(**members: Any) -> JsonObject:
    return wire.members(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "hello\nworld"}, "hello\nworld"),
        ({"type": "text", "text": "half \ud83d"}, "half ?"),
        (
            {"type": "image", "mimeType": "image/png", "data": "aGVsbG8="},
            "[image image/png, 5 bytes]",
        ),
        ({"type": "audio", "mimeType": "audio/wav", "data": ""}, "[audio audio/wav, 0 bytes]"),
        ({"type": "resource_link", "name": "n", "uri": "a://b"}, "[resource n a://b]"),
        ({"type": "resource", "resource": {"uri": "a://b", "text": "inside"}}, "inside"),
        (
            {"type": "resource", "resource": {"uri": "a://b", "blob": "aGk="}},
            "[binary, 2 bytes, a://b]",
        ),
        ({"type": "hologram", "x": 1}, '{"type":"hologram","x":1}'),
    ],
)
def test_blocks(block: dict[str, Any], text: str) -> None:
    shown = render.contents(result(content=[block]))
    assert shown.replace(" ", "") == text.replace(" ", "")


def test_structured_content_stands_in_for_missing_content() -> None:
    assert json.loads(render.contents(result(content=[], structuredContent={"a": 1}))) == {"a": 1}
    both = result(content=[{"type": "text", "text": "a"}], structuredContent={"a": 1})
    assert render.contents(both) == "a"
    assert render.contents(result()) == ""


def test_messages() -> None:
    told = result(
        messages=[
            {"role": "user", "content": {"type": "text", "text": "Hi"}},
            {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
        ]
    )
    assert render.messages(told) == "user: Hi\n\nassistant: Ho"


@pytest.mark.parametrize(
    "text", ['{"a":"ä\U0001f600\u2028","n":1e400}', '{"a":"\x7f\x9b"}', '{"a":"\\u00e4"}']
)
def test_ascii_json_loses_nothing(text: str) -> None:
    shown = render.ascii_json(Raw(text.encode()))
    assert shown.isascii()
    assert "\x7f" not in shown
    assert json.loads(shown) == json.loads(text)


def test_items_in_snake_case() -> None:
    item = result(inputSchema={"maxItems": 1}, uriTemplate="x", _meta={"a": 1}, name="n")
    assert render.snake(item) == {
        "input_schema": {"maxItems": 1},
        "uri_template": "x",
        "meta": {"a": 1},
        "name": "n",
    }

"""The URIs in what servers answer: which follow a renaming, and that all else stays."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from mcpgw.core import citations
from tests.doubles import obj, plain

NEW = {"x:1": "mcpgw:a/x:1"}.get


def link(uri: str, **more: Any) -> Any:
    return {"type": "resource_link", "uri": uri, "name": "n", **more}


def embedded(uri: str, **more: Any) -> Any:
    return {"type": "resource", "resource": {"uri": uri, "text": "t", **more}}


@pytest.mark.parametrize(
    ("member", "before", "after"),
    [
        ("content", [link("x:1", y=None)], [link("mcpgw:a/x:1", y=None)]),
        ("content", [embedded("x:1", _meta={"z": 1})], [embedded("mcpgw:a/x:1", _meta={"z": 1})]),
        ("contents", [{"uri": "x:1", "blob": ""}], [{"uri": "mcpgw:a/x:1", "blob": ""}]),
        (
            "messages",
            [{"role": "user", "content": link("x:1")}, {"role": "user", "content": link("x:2")}],
            [
                {"role": "user", "content": link("mcpgw:a/x:1")},
                {"role": "user", "content": link("x:2")},
            ],
        ),
    ],
)
def test_what_is_renamed_follows(member: str, before: Any, after: Any) -> None:
    result = obj(**{member: before}, other={"uri": "x:1"})
    assert citations.cites(result)
    told = citations.renamed(result, NEW)
    assert plain(told) == {member: after, "other": {"uri": "x:1"}}
    assert told["other"] is result["other"]


@pytest.mark.parametrize(
    "content",
    [
        b'[{"type":"text","text":"\\"uri\\": x:1"}]',
        b'[{"type":"text","uri":"x:1"}]',
        b'[{"type":"new","uri":"x:1"}]',
        b'[{"type":"resource_link","uri":"x:2"}]',
        b'[{"type":"resource_link","uri":1}, {"uri":"x:1"}]',
        b'[{"type":"resource","resource":[{"uri":"x:1"}]}]',
        b'[{"type":"resource","uri":"x:1"}, 7, null, "uri"]',
        b'{"type":"resource_link","uri":"x:1"}',
        b'["uri", {"uri"]',
    ],
)
def test_what_is_not_renamed_stays_the_bytes_it_was(content: bytes) -> None:
    for member in ("content", "messages", "structuredContent"):
        result = {member: Raw(content)}
        assert citations.renamed(result, NEW) is result


def test_only_items_that_change_are_written_anew() -> None:
    odd = b'{"type":"text","n":1e400,"text":"\\ud83d"}'
    body = b"[" + odd + b', {"type":"resource_link", "uri":"x:1", "n":[1e400]}]'
    told = citations.renamed({"content": Raw(body)}, NEW)
    assert bytes(told["content"]) == (
        b"[" + odd + b',{"type":"resource_link","uri":"mcpgw:a/x:1","n":[1e400]}]'
    )


def test_whose_contents_a_read_brought() -> None:
    two = obj(contents=[{"uri": "x:1"}, {"uri": "x:2"}, {"text": ""}])
    assert citations.contents_of(two) == ["x:1", "x:2"]
    for odd in ({}, obj(contents=1), obj(contents=["x"])):
        assert citations.contents_of(odd) == []
    assert not citations.cites({})
    assert not citations.cites(obj(structuredContent={"uri": 1}, content=[{"text": "a"}]))

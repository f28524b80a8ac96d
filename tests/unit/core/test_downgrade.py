"""What legacy clients get of modern answers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from mcpgw.core import downgrade
from mcpgw.model.calls import Ask, RpcError
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


def test_what_only_structured_content_says_is_said_as_text() -> None:
    told = plain(downgrade.result("2025-11-25", "tools/call", obj(structuredContent=[1, "é"])))
    assert told == {"content": [{"type": "text", "text": '[1,"é"]'}]}
    kept = obj(content=[{"type": "text", "text": "one"}], structuredContent=[1])
    told = plain(downgrade.result("2025-11-25", "tools/call", kept))
    assert told == {"content": [{"type": "text", "text": "one"}]}


@pytest.mark.parametrize(
    ("revision", "schema", "kept"),
    [
        ("2025-11-25", {"type": "object"}, True),
        ("2025-06-18", {"type": "object"}, True),
        ("2025-06-18", {"type": "array"}, False),
        ("2025-11-25", {"oneOf": []}, False),
        ("2025-11-25", True, False),
        ("2025-03-26", {"type": "object"}, False),
    ],
)
def test_an_output_schema_is_of_an_object_or_not_there(
    revision: str, schema: object, kept: bool
) -> None:
    listed: Any = [{"name": "a", "icons": None}, {"name": "b", "outputSchema": schema, "x": 1}]
    told = plain(downgrade.result(revision, "tools/list", obj(tools=listed)))["tools"]
    assert told[0] == listed[0]
    assert ("outputSchema" in told[1]) is kept
    assert told[1]["x"] == 1


TITLED: Any = {"type": "string", "oneOf": [{"const": "r", "title": "Red"}], "title": "Colour"}
SEVERAL: Any = {"type": "array", "items": {"anyOf": [{"const": "x", "title": "Ex"}]}, "minItems": 1}


def form(**fields: object) -> Ask:
    schema = {"type": "object", "properties": fields, "required": ["one"]}
    return Ask("elicitation/create", obj(mode="form", message="?", requestedSchema=schema))


def test_choices_are_asked_in_the_words_of_the_revision() -> None:
    asked = downgrade.question("2025-06-18", form(one=TITLED, many=SEVERAL), minted="m")
    told = plain(asked.params)
    assert "mode" not in told
    assert told["requestedSchema"]["required"] == ["one"]
    assert told["requestedSchema"]["properties"] == {
        "one": {"type": "string", "title": "Colour", "enum": ["r"], "enumNames": ["Red"]},
        "many": {"type": "string", "enum": ["x"], "enumNames": ["Ex"]},
    }
    answer = downgrade.answer(asked, obj(action="accept", content={"one": "r", "many": "x"}))
    assert plain(answer) == {"action": "accept", "content": {"one": "r", "many": ["x"]}}
    assert downgrade.answer(asked, obj(action="decline")) == obj(action="decline")


def test_choices_of_plain_values_are_kept() -> None:
    plain_choice: Any = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}
    asked = downgrade.question("2025-06-18", form(many=plain_choice), minted="m")
    properties = plain(asked.params)["requestedSchema"]["properties"]
    assert properties == {"many": {"type": "string", "enum": ["a", "b"]}}


def test_what_knows_no_single_answer_is_not_asked() -> None:
    with pytest.raises(RpcError, match="2 of `many`"):
        downgrade.question("2025-06-18", form(many={**SEVERAL, "minItems": 2}), minted="m")


def test_a_revision_that_knows_choices_gets_them_as_they_are() -> None:
    ask = form(one=TITLED, many=SEVERAL)
    assert downgrade.question("2025-11-25", ask, minted="m").params is ask.params
    odd = Ask("elicitation/create", obj(message="?"))
    assert plain(downgrade.question("2025-06-18", odd, minted="m").params) == {"message": "?"}


def test_a_url_question_has_an_id_where_the_revision_wants_one() -> None:
    ask = Ask("elicitation/create", obj(mode="url", url="https://x.example", message="?"))
    asked = downgrade.question("2025-11-25", ask, minted="m")
    assert plain(asked.params)["elicitationId"] == "m"
    own = Ask("elicitation/create", obj(mode="url", elicitationId="own"))
    asked = downgrade.question("2025-11-25", own, minted="m")
    assert plain(asked.params)["elicitationId"] == "own"

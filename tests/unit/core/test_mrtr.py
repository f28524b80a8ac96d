"""Multi round-trip requests: states, bindings, and what a client must have declared."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from mcpgw.core import mrtr
from mcpgw.core.eras import MISSING_CAPABILITY
from mcpgw.model.calls import Ask, Call, NeedInput, RpcError
from mcpgw.model.config import Target
from tests.doubles import call, context, key, obj, plain, snapshot

CTX = context(snapshot())
ASKED = call("tools/call", CTX, name="t", arguments={"a": 1, "b": [2]})


@pytest.mark.parametrize("state", [mrtr.State("s", park="p"), mrtr.State("s", state="é\x00")])
def test_states_come_back(state: mrtr.State) -> None:
    assert mrtr.decode_state(mrtr.encode_state(state)) == state


@pytest.mark.parametrize(
    "other",
    [
        call("prompts/get", CTX, name="t", arguments={"a": 1, "b": [2]}),
        call("tools/call", CTX, name="t", arguments={"a": 1, "b": [3]}),
        call("tools/call", CTX, name="u", arguments={"a": 1, "b": [2]}),
        call("tools/call", CTX, name="t", arguments={"a": 1, "b": [2]}, c=None),
        call(
            "tools/call",
            context(snapshot(), principal=key("k", Target("*"))),
            name="t",
            arguments={"a": 1, "b": [2]},
        ),
    ],
)
def test_a_binding_is_of_one_principal_method_and_params(other: Call) -> None:
    assert mrtr.binding(other) != mrtr.binding(ASKED)


def test_a_binding_does_not_hang_on_the_order_or_spacing_of_members() -> None:
    same = Call("tools/call", {"arguments": Raw(b'{"b": [2] ,"a":1}'), "name": Raw(b'"t"')}, CTX)
    assert mrtr.binding(same) == mrtr.binding(ASKED)


@pytest.mark.parametrize("odd", [b'"\\ud83d"', b"1e999", b"[" * 2000 + b"]" * 2000])
def test_params_that_cannot_be_decoded_bind_as_they_are(odd: bytes) -> None:
    asked = Call("tools/call", {"a": Raw(odd)}, CTX)
    assert mrtr.binding(asked) == mrtr.binding(asked)
    assert mrtr.binding(asked) != mrtr.binding(Call("tools/call", {"a": Raw(b"1")}, CTX))


def test_the_next_call_has_answers_and_the_state_as_it_was_given() -> None:
    reply = NeedInput({}, "st")
    following = mrtr.next_call(ASKED, reply, obj(k=1), rounds=1)
    assert (following.state, following.answers) == ("st", obj(k=1))
    assert following.params == ASKED.params
    assert mrtr.next_call(ASKED, NeedInput({}), {}, rounds=10).answers is None
    with pytest.raises(RpcError):
        mrtr.next_call(ASKED, reply, {}, rounds=11)


@pytest.mark.parametrize(
    ("ask", "declared", "missing"),
    [
        (Ask("elicitation/create", obj(mode="form")), obj(elicitation={}), {}),
        (Ask("elicitation/create", {}), obj(elicitation={}), {}),
        (Ask("elicitation/create", {}), {}, {"elicitation": {}}),
        (
            Ask("elicitation/create", obj(mode="url")),
            obj(elicitation={"form": {}}),
            {"elicitation": {"url": {}}},
        ),
        (Ask("elicitation/create", obj(mode="url")), {}, {"elicitation": {"url": {}}}),
        (Ask("elicitation/create", obj(mode="url")), obj(elicitation={"url": {}}), {}),
        (
            Ask("elicitation/create", obj(mode="url")),
            obj(elicitation=1),
            {"elicitation": {"url": {}}},
        ),
        (
            Ask("elicitation/create", obj(mode="form")),
            obj(elicitation={"url": {}}),
            {"elicitation": {"form": {}}},
        ),
        (Ask("sampling/createMessage", {}), obj(roots={}), {"sampling": {}}),
        (
            Ask("sampling/createMessage", obj(tools=[])),
            obj(sampling={}),
            {"sampling": {"tools": {}}},
        ),
        (Ask("sampling/createMessage", obj(tools=[])), obj(sampling={"tools": {}}), {}),
        (Ask("roots/list", {}), obj(roots={}), {}),
        (Ask("future/ask", {}), {}, {}),
    ],
)
def test_what_must_be_declared(ask: Ask, declared: dict[str, Raw], missing: object) -> None:
    assert plain(mrtr.undeclared([ask], declared)) == missing


def test_a_missing_capability_in_both_forms() -> None:
    error = mrtr.missing_capability({"sampling": Raw(b"{}")})
    assert (error.code, error.http_status) == (MISSING_CAPABILITY, 400)
    assert error.data is not None
    assert plain(error.data) == {"requiredCapabilities": {"sampling": {}}}
    told = mrtr.refusal(error)
    assert plain(told["isError"]) is True
    assert "sampling" in plain(told["content"])[0]["text"]


def test_only_an_elicitation_can_be_refused_by_an_answer() -> None:
    error = RpcError(-1, "no")
    answer = mrtr.refused(Ask("elicitation/create", {}), error)
    assert msgspec.json.decode(answer) == {"action": "cancel"}
    with pytest.raises(RpcError):
        mrtr.refused(Ask("roots/list", {}), error)


def test_who_can_be_asked() -> None:
    assert not mrtr.can_be_asked(CTX)
    assert not mrtr.can_be_asked(context(snapshot(), capabilities=obj(experimental={})))
    assert mrtr.can_be_asked(context(snapshot(), capabilities=obj(roots={})))

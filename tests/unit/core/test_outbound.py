"""From calls to messages, and from messages to replies and notes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from mcpgw.core import outbound, wire
from mcpgw.model.calls import (
    Call,
    Done,
    JsonObject,
    ListChanged,
    Log,
    NeedInput,
    OtherNote,
    Progress,
    ResourceUpdated,
    RpcError,
)
from tests.doubles import call, context, info, obj, plain, raw, snapshot

PREFIX = "io.modelcontextprotocol/"


def asked(**fields: Any) -> Call:
    ctx = context(snapshot(), **fields)
    return call("tools/call", ctx, name="t", arguments={"n": 1})


def test_a_legacy_request_without_meta_is_the_call_and_an_id() -> None:
    assert plain(Raw(outbound.legacy_request(asked(), 7))) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "t", "arguments": {"n": 1}},
    }


def test_a_legacy_request_carries_meta_trace_and_token() -> None:
    made = asked(trace={"traceparent": "00-1"}, log_level="debug")
    made = msgspec.structs.replace(made, meta=obj(**{"com.example/x": None}))

    meta = plain(Raw(outbound.legacy_request(made, 7, 7)))["params"]["_meta"]

    assert meta == {"com.example/x": None, "traceparent": "00-1", "progressToken": 7}


def test_a_modern_request_carries_everything_of_its_hop() -> None:
    made = asked(log_level="info", capabilities=obj(elicitation={"form": {}}, experimental={}))
    made = msgspec.structs.replace(
        made, meta=obj(x=1), answers=obj(a={"action": "accept"}), state="S"
    )

    params = plain(Raw(outbound.modern_request(made, 1, "p")))["params"]

    assert params["name"] == "t"
    assert params["inputResponses"] == {"a": {"action": "accept"}}
    assert params["requestState"] == "S"
    meta = params["_meta"]
    assert meta.pop(PREFIX + "clientInfo")["name"] == "mcpgw"
    assert meta == {
        "x": 1,
        PREFIX + "protocolVersion": "2026-07-28",
        PREFIX + "clientCapabilities": {"elicitation": {"form": {}}},
        PREFIX + "logLevel": "info",
        "progressToken": "p",
    }


def test_the_call_itself_is_not_changed() -> None:
    made = asked()
    before = dict(made.params)

    outbound.modern_request(made, 1, 1)
    outbound.legacy_request(made, 1, 1)

    assert made.params == before


def test_legacy_lists_say_that_they_are_not_to_be_cached() -> None:
    assert plain(outbound.legacy_reply("tools/list", obj(tools=[])).result) == {
        "tools": [],
        "ttlMs": 0,
        "cacheScope": "private",
    }
    assert plain(outbound.legacy_reply("tools/call", obj(content=[])).result) == {"content": []}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, (0, "private")),
        ({"ttlMs": 5, "cacheScope": "public"}, (5, "public")),
        ({"ttlMs": -1, "cacheScope": ""}, (0, "private")),
        ({"ttlMs": "x", "cacheScope": 1}, (0, "private")),
    ],
)
def test_caching_hints_of_modern_lists_are_mended(
    told: dict[str, object], kept: tuple[int, str]
) -> None:
    reply = outbound.modern_reply("tools/list", obj(tools=[], resultType="complete", **told))

    assert isinstance(reply, Done)
    result = plain(reply.result)
    assert (result["ttlMs"], result["cacheScope"]) == kept
    assert "resultType" not in result


def test_a_result_without_a_type_is_complete_and_others_keep_theirs() -> None:
    assert outbound.modern_reply("tools/call", {}) == Done({})
    reply = outbound.modern_reply("tools/call", obj(resultType="task", taskId="1"))
    assert isinstance(reply, Done)
    assert reply.kind == "task"


def test_input_required_becomes_asks() -> None:
    reply = outbound.modern_reply(
        "tools/call",
        obj(
            resultType="input_required",
            inputRequests={"a": {"method": "roots/list"}, "b": {"method": "m", "params": {"x": 1}}},
            requestState="S",
            extra=1,
        ),
    )

    assert isinstance(reply, NeedInput)
    assert reply.state == "S"
    assert {k: (a.method, plain(a.params)) for k, a in reply.asks.items()} == {
        "a": ("roots/list", {}),
        "b": ("m", {"x": 1}),
    }
    assert plain(reply.result) == {"extra": 1}


@pytest.mark.parametrize(
    "told",
    [{}, {"inputRequests": []}, {"inputRequests": {"a": {}}}, {"inputRequests": {"a": 1}}],
)
def test_input_required_without_sense_is_bad(told: dict[str, object]) -> None:
    with pytest.raises(wire.BadMessage):
        outbound.modern_reply("tools/call", obj(resultType="input_required", **told))


URL = {"mode": "url", "elicitationId": "e1", "url": "https://x", "message": "Go"}


def url_error() -> RpcError:
    return RpcError(-32042, "URL", raw({"elicitations": [URL]}))


def test_a_url_elicitation_error_becomes_an_ask() -> None:
    made = asked(capabilities=obj(elicitation={"url": {}}))

    needed = outbound.legacy_error(made, url_error())

    assert plain(needed.asks["e1"].params) == URL


def test_a_url_elicitation_needs_a_client_that_can() -> None:
    with pytest.raises(RpcError) as caught:
        outbound.legacy_error(asked(capabilities=obj(elicitation={})), url_error())

    assert caught.value.code == -32021


def test_a_client_that_knows_the_url_error_gets_it_as_it_is() -> None:
    made = asked(revision="2025-11-25", capabilities=obj(elicitation={"url": {}}))
    error = url_error()
    with pytest.raises(RpcError) as caught:
        outbound.legacy_error(made, error)
    assert caught.value is error


def test_a_url_elicitation_that_was_declined_is_not_asked_again() -> None:
    made = asked(capabilities=obj(elicitation={"url": {}}))
    made = msgspec.structs.replace(made, answers=obj(e1={"action": "decline"}))

    with pytest.raises(RpcError) as caught:
        outbound.legacy_error(made, url_error())

    assert caught.value.code == -32042


def test_a_missing_resource_is_an_invalid_parameter_now() -> None:
    with pytest.raises(RpcError) as caught:
        outbound.legacy_error(asked(), RpcError(-32002, "gone", raw({"uri": "x"})))

    assert (caught.value.code, caught.value.message) == (-32602, "gone")


def test_notes_lose_the_keys_of_their_hop() -> None:
    progress = outbound.note("notifications/progress", obj(progressToken=3, progress=1))
    assert isinstance(progress, Progress)
    assert plain(progress.params) == {"progress": 1}

    meta = {PREFIX + "subscriptionId": 4, "kept": 1}
    params = obj(uri="a:b", _meta=meta)
    updated = outbound.note("notifications/resources/updated", params)
    assert isinstance(updated, ResourceUpdated)
    assert (updated.uri, plain(updated.params)) == ("a:b", {"uri": "a:b", "_meta": {"kept": 1}})
    assert outbound.subscription_id(params) == 4

    log = outbound.note("notifications/message", obj(level="error", data=1))
    assert isinstance(log, Log)
    assert log.level == "error"
    assert outbound.note("notifications/tools/list_changed", {}) == ListChanged("tools")
    other: JsonObject = obj(x=1)
    assert outbound.note("notifications/x", other) == OtherNote("notifications/x", other)


def test_a_listen_filter_is_cut_to_what_the_server_can() -> None:
    able = info(modern=False, capabilities={"tools": {"listChanged": True}, "resources": {}})
    filter = obj(toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=["a:b"])

    assert plain(outbound.honoured(able, filter)) == {"toolsListChanged": True}
    able = info(modern=False, capabilities={"resources": {"subscribe": True}})
    assert plain(outbound.honoured(able, filter)) == {"resourceSubscriptions": ["a:b"]}
    assert outbound.uris(obj(resourceSubscriptions=["a:b", 1, "a:b"])) == ("a:b",)


TRACED = obj(traceparent=raw("00-a-b-01"), tracestate=raw(5))


def test_a_trace_in_meta_goes_on_as_it_came() -> None:
    ctx = context(snapshot(), trace={"traceparent": "00-a-b-01", "baggage": "x=y"})
    traced = Call("tools/call", {}, ctx, {**TRACED, "traceparent": Raw(rb'"00-\u0061-b-01"')})
    for params in (outbound.legacy_params(traced), outbound.modern_params(traced)):
        meta = wire.members(params["_meta"])
        assert bytes(meta["traceparent"]) == rb'"00-\u0061-b-01"'
        assert bytes(meta["tracestate"]) == b"5"
        assert bytes(meta["baggage"]) == b'"x=y"'

"""2026-07-28 over HTTP: the tables of the specification, notes, listening, cancellation."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec import Raw

from mcpgw.front.http import Connection
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.ports import Caller
from tests.doubles import Gate, ScriptedHandler, obj, plain, raw, text_result
from tests.unit.front.rig import BOTH, MODERN, front, mirrored, modern, note

pytestmark = pytest.mark.anyio

META = "io.modelcontextprotocol/"
CALL = {"name": "github__echo", "arguments": {"n": 1}}


async def test_a_call_comes_back_as_json() -> None:
    handler = ScriptedHandler({"tools/call": text_result("hi")})
    body = modern(
        "tools/call",
        CALL,
        id="x",
        capabilities={"elicitation": {}},
        meta={"traceparent": "00-1", "custom": 1},
    )
    async with front(handler) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    result = answer.json["result"]
    assert answer.json["id"] == "x"
    assert result["resultType"] == "complete"
    assert result["content"] == [{"type": "text", "text": "hi"}]
    assert result["_meta"][META + "serverInfo"]["name"] == "mcpgw"
    (call,) = handler.calls
    assert call.method == "tools/call"
    assert plain(call.params) == CALL
    assert plain(call.meta) == {"traceparent": "00-1", "custom": 1}
    ctx = call.ctx
    assert (ctx.principal.name, ctx.revision, ctx.mirrored) == ("alice", MODERN, True)
    assert ctx.trace == {"traceparent": "00-1"}
    assert plain(ctx.capabilities) == {"elicitation": {}}
    assert "authorization" not in ctx.headers


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"mcp-method": None}, 400, -32020),
        ({"mcp-method": "tools/Call"}, 400, -32020),
        ({"mcp-name": None}, 400, -32020),
        ({"mcp-name": "other"}, 400, -32020),
        ({"mcp-name": "=?base64?!!?="}, 400, -32020),
        ({"mcp-protocol-version": None}, 400, -32020),
        ({"mcp-protocol-version": "2025-11-25"}, 400, -32020),
        ({"content-type": "text/plain"}, 415, -32600),
        ({"content-type": None}, 415, -32600),
        ({"accept": "text/html"}, 406, -32600),
        ({"mcp-name": " github__echo \t", "mcp-method": "\ttools/call  "}, 200, None),
        ({"mcp-name": "=?base64?Z2l0aHViX19lY2hv?="}, 200, None),
        ({"accept": None}, 200, None),
        ({"accept": "*/*"}, 200, None),
        ({"content-type": "application/json; charset=utf-8"}, 200, None),
    ],
)
async def test_headers_must_mirror_the_body(
    change: dict[str, str | None], status: int, code: int | None
) -> None:
    handler = ScriptedHandler({"tools/call": text_result("hi")})
    body = modern("tools/call", CALL)
    async with front(handler) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, {**mirrored(body), **change})
    assert answer.status == status
    assert answer.json.get("error", {}).get("code") == code
    assert len(handler.calls) == (0 if code else 1)


@pytest.mark.parametrize("name", ["mcp-method", "MCP-Name", "Mcp-Param-X"])
async def test_a_mirroring_header_sent_twice_is_refused(name: str) -> None:
    body = modern("tools/call", CALL)
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        fields = {**mirrored(body), "mcp-param-x": "1"}
        sent = peer.request_bytes("POST", "/mcp", body, fields)
        value = fields[name.lower()]
        await peer.stream.send(sent.replace(b"\r\n", f"\r\n{name}: {value}\r\n".encode(), 1))
        answer = await peer.response()
    assert (answer.status, answer.json["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("meta", "status", "code"),
    [
        (None, 400, -32602),
        ({META + "protocolVersion": MODERN}, 400, -32602),
        ({META + "clientCapabilities": {}}, 400, -32602),
        ([], 400, -32602),
        ({META + "protocolVersion": MODERN, META + "clientCapabilities": 5}, 400, -32602),
    ],
)
async def test_meta_must_be_whole(meta: object, status: int, code: int) -> None:
    body = modern("tools/list")
    body["params"]["_meta"] = meta
    if meta is None:
        del body["params"]["_meta"]
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        answer = await peer.ask(
            "POST", "/mcp", body, {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"}
        )
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.json["id"] == 1


async def test_an_unknown_version_is_told_what_is_supported() -> None:
    body = modern("server/discover", meta={META + "protocolVersion": "2099-01-01"})
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        answer = await peer.ask(
            "POST",
            "/mcp",
            body,
            {"mcp-protocol-version": "2099-01-01", "mcp-method": "server/discover"},
        )
    assert answer.status == 400
    error = answer.json["error"]
    assert error["code"] == -32022
    assert error["data"]["requested"] == "2099-01-01"
    assert MODERN in error["data"]["supported"]


@pytest.mark.parametrize("method", ["ping", "initialize", "logging/setLevel", "nobody/knows"])
async def test_unknown_methods_are_404(method: str) -> None:
    body = modern(method)
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
    assert (answer.status, answer.json["error"]["code"]) == (404, -32601)


async def test_notifications_are_accepted_and_responses_refused() -> None:
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        headers: dict[str, str | None] = {"mcp-protocol-version": MODERN}
        answer = await peer.ask("POST", "/mcp", note("notifications/cancelled"), headers)
        assert (answer.status, answer.body) == (202, b"")
        response: Any = {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert (await peer.ask("POST", "/mcp", response, headers)).status == 400
        body = modern("ping")
        assert (await peer.ask("POST", "/mcp", [body], mirrored(body))).status == 400
        for method in ("GET", "DELETE", "PUT"):
            answer = await peer.ask(method, "/mcp", headers=headers)
            assert answer.status == 405
            assert "POST" in answer.headers["allow"]


async def test_errors_keep_their_data_status_and_retry_time() -> None:
    failed = RpcError(-32003, "slow down", raw({"a": 1}), http_status=429, retry_after=1.2)
    handler = ScriptedHandler({"tools/call": failed, "tools/list": RpcError(-32602, "bad cursor")})
    async with front(handler) as here:
        peer = await here.peer()
        body = modern("tools/call", CALL)
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert answer.json["error"] == {"code": -32003, "message": "slow down", "data": {"a": 1}}
        body = modern("tools/list")
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
        assert (answer.status, answer.json["error"]["code"]) == (200, -32602)


async def test_a_fault_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    handler = ScriptedHandler({"tools/call": ZeroDivisionError("secret detail")})
    body = modern("tools/call", CALL)
    async with front(handler) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
    assert answer.json["error"] == {"code": -32603, "message": "internal error"}
    assert "secret detail" in caplog.text


async def test_input_required_and_its_retry() -> None:
    need = NeedInput({"who": Ask("elicitation/create", obj(message="who?"))}, "STATE")
    seen: list[AskMode] = []

    async def handle(call: Call, caller: Caller) -> Reply:
        seen.append(caller.ask_mode)
        with pytest.raises(RpcError):
            await caller.ask(Ask("roots/list", {}))
        return need if call.state is None else text_result("done")

    handler = ScriptedHandler({"tools/call": handle})
    async with front(handler) as here:
        peer = await here.peer()
        body = modern("tools/call", CALL, capabilities={"elicitation": {}})
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
        result = answer.json["result"]
        assert result["resultType"] == "input_required"
        assert result["requestState"] == "STATE"
        assert result["inputRequests"] == {
            "who": {"method": "elicitation/create", "params": {"message": "who?"}}
        }
        body = modern("tools/call", {**CALL, "requestState": "STATE", "inputResponses": {"who": 1}})
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
        assert answer.json["result"]["resultType"] == "complete"
    assert seen == [AskMode.RETRY, AskMode.NEVER]
    retry = handler.calls[1]
    assert (retry.state, plain(retry.answers)) == ("STATE", {"who": 1})
    assert plain(retry.params) == CALL


async def chatty(call: Call, caller: Caller) -> Reply:
    await caller.tell(Progress(obj(progress=1, message="half")))
    await caller.tell(Log("debug", obj(level="debug", data="no")))
    await caller.tell(Log("error", obj(level="error", data="yes")))
    await caller.tell(ListChanged("tools"))
    return text_result("end")


async def test_notes_turn_the_answer_into_a_stream() -> None:
    body = modern(
        "tools/call", CALL, id=7, meta={"progressToken": "t", META + "logLevel": "warning"}
    )
    async with front(ScriptedHandler({"tools/call": chatty})) as here:
        peer = await here.peer()
        await peer.send("POST", "/mcp", body, mirrored(body))
        status, headers = await peer.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert headers["x-accel-buffering"] == "no"
        messages = [await peer.message() for _ in range(3)]
        assert await peer.event() is None
    assert messages[0]["params"] == {"progress": 1, "message": "half", "progressToken": "t"}
    assert messages[1]["params"] == {"level": "error", "data": "yes"}
    assert messages[2]["id"] == 7


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
async def test_notes_are_dropped_for_who_takes_no_stream(accept: str) -> None:
    body = modern("tools/call", CALL, meta={"progressToken": 1, META + "logLevel": "debug"})
    async with front(ScriptedHandler({"tools/call": chatty})) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, {**mirrored(body), "accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["result"]["content"][0]["text"] == "end"


async def test_notes_nobody_asked_for_leave_the_answer_json() -> None:
    body = modern("tools/call", CALL)
    async with front(ScriptedHandler({"tools/call": chatty})) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, mirrored(body))
    assert answer.headers["content-type"] == "application/json"


async def listening(call: Call, caller: Caller) -> Reply:
    await caller.tell(Listening({"toolsListChanged": Raw(b"true")}))
    await caller.tell(ListChanged("tools"))
    await caller.tell(Progress(obj(progress=1)))
    await caller.tell(ResourceUpdated("a:b", obj(uri="a:b", _meta={"k": 1})))
    await anyio.sleep_forever()
    raise AssertionError


def listen(id: object = 9) -> Any:
    return modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id=id)


async def test_listening_until_the_gateway_ends_it() -> None:
    handler = ScriptedHandler({"subscriptions/listen": listening})
    async with front(handler) as here:
        peer = await here.peer()
        await peer.send("POST", "/mcp", listen(), mirrored(listen()))
        await peer.head()
        first, second, third = [await peer.message() for _ in range(3)]
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        assert second["method"] == "notifications/tools/list_changed"
        assert third["params"]["_meta"]["k"] == 1
        for message in (first, second, third):
            assert message["params"]["_meta"][META + "subscriptionId"] == 9
        await here.app.drain()
        last = await peer.message()
        assert last["id"] == 9
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["_meta"][META + "subscriptionId"] == 9
        assert await peer.event() is None


async def test_listening_needs_a_stream() -> None:
    async with front(ScriptedHandler({"subscriptions/listen": listening})) as here:
        peer = await here.peer()
        headers = {**mirrored(listen()), "accept": "application/json"}
        assert (await peer.ask("POST", "/mcp", listen(), headers)).status == 406


async def test_silence_is_broken_by_comments() -> None:
    gate = Gate()
    handler = ScriptedHandler({"tools/call": gate.then(text_result("late"))})
    body = modern("tools/call", CALL)
    async with front(handler, quiet=0.05) as here:
        peer = await here.peer()
        await peer.send("POST", "/mcp", body, mirrored(body))
        status, headers = await peer.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert (await peer.comment()).startswith(b":")
        assert (await peer.comment()).startswith(b":")
        gate.open()
        assert (await peer.message())["result"]["content"][0]["text"] == "late"


@pytest.mark.parametrize("http", [Connection, "httptools"])
async def test_hanging_up_cancels(http: type[Connection] | str) -> None:
    handler = ScriptedHandler({"tools/call": Gate().then(text_result("never"))})
    body = modern("tools/call", CALL)
    async with front(handler, http=http) as here:
        peer = await here.peer()
        await peer.send("POST", "/mcp", body, mirrored(body))
        await handler.reached("tools/call")
        await peer.stream.aclose()
        await handler.dropped()


async def test_hanging_up_in_a_pipeline_cancels_the_first() -> None:
    handler = ScriptedHandler({"tools/call": Gate().then(text_result("never"))})
    body = modern("tools/call", CALL)
    async with front(handler) as here:
        peer = await here.peer()
        one = peer.request_bytes("POST", "/mcp", body, mirrored(body))
        await peer.stream.send(one + one + one[:20])
        await handler.reached("tools/call")
        await here.close()
        await handler.dropped()
        assert len(handler.calls) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def echo(call: Call, caller: Caller) -> Reply:
        await anyio.lowlevel.checkpoint()
        return Done(obj(n=call.params["n"]))

    async with front(ScriptedHandler({"tools/list": echo})) as here:
        peer = await here.peer()
        sent = b""
        for n in range(20):
            body = modern("tools/list", {"n": n}, id=n)
            sent += peer.request_bytes("POST", "/mcp", body, mirrored(body))
        await peer.stream.send(sent)
        answers = [(await peer.response()).json for _ in range(20)]
    assert [(a["id"], a["result"]["n"]) for a in answers] == [(n, n) for n in range(20)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":"\xff"}', -32700),
        (b"[" * 5000 + b"]" * 5000, None),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":'
            + b"[" * 5000
            + b"]" * 5000
            + b"}}",
            -32700,
        ),
        (b'{"jsonrpc":"2.0","id":null,"method":"m"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', -32600),
        (b'{"id":1}', -32600),
        (b"7", -32600),
    ],
)
async def test_bad_json_is_400(body: bytes, code: int | None) -> None:
    async with front(ScriptedHandler()) as here:
        peer = await here.peer()
        answer = await peer.ask("POST", "/mcp", body, {"accept": BOTH})
    assert answer.status == 400
    if code is not None:
        assert answer.json["error"]["code"] == code


async def test_a_revoked_key_ends_its_listens() -> None:
    import msgspec

    from tests.unit.front.rig import SNAPSHOT

    handler = ScriptedHandler({"subscriptions/listen": listening})
    async with front(handler) as here:
        peer, other = await here.peer(), await here.peer("bob")
        for one in (peer, other):
            await one.send("POST", "/mcp", listen(), mirrored(listen()))
            await one.head()
            for _ in range(3):
                await one.message()
        gone = {id: p for id, p in SNAPSHOT.principals.items() if p.name != "alice"}
        here.config.swap(msgspec.structs.replace(SNAPSHOT, principals=gone, keys={}))
        assert (await peer.message())["error"]["code"] == -32600
        assert await peer.event() is None
        await handler.dropped()
        assert len(handler.cancelled) == 1

"""Envelopes: what is taken, what is refused, and that nothing inside them changes."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR
from mcpgw.core.wire import BadMessage, Notification, Request, Response
from mcpgw.model.calls import RpcError

LONE = b'"\\ud83d"'


def refused(body: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        wire.parse(body)
    return caught.value


def test_request() -> None:
    message = wire.parse(b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x"}}')
    assert isinstance(message, Request)
    assert (bytes(message.id), message.method) == (b'"a"', "tools/call")
    assert bytes(message.params["name"]) == b'"x"'


def test_missing_and_null_params_are_empty() -> None:
    for body in (b'{"id":1,"method":"ping"}', b'{"id":1,"method":"ping","params":null}'):
        message = wire.parse(body)
        assert isinstance(message, Request)
        assert message.params == {}


def test_notification() -> None:
    assert wire.parse(b'{"method":"notifications/initialized"}') == Notification(
        "notifications/initialized", {}
    )


def test_responses() -> None:
    done = wire.parse(b'{"id":7,"result":{"ok":true}}')
    assert isinstance(done, Response)
    assert done.result is not None
    assert bytes(done.result["ok"]) == b"true"
    failed = wire.parse(b'{"id":null,"error":{"code":-32700,"message":"no","data":[1e400]}}')
    assert isinstance(failed, Response)
    assert failed.id is None
    assert failed.error is not None
    assert failed.error.data is not None
    assert (failed.error.code, bytes(failed.error.data)) == (-32700, b"[1e400]")


@pytest.mark.parametrize(
    ("body", "code", "id"),
    [
        (b"", PARSE_ERROR, None),
        (b"{", PARSE_ERROR, None),
        (b"{} x", PARSE_ERROR, None),
        (b'{"id":1,"method":NaN}', PARSE_ERROR, None),
        (b"\xff", PARSE_ERROR, None),
        (b'{"id":1,"method":"\xff"}', PARSE_ERROR, None),
        (b"[]", INVALID_REQUEST, None),
        (b"12", INVALID_REQUEST, None),
        (b'{"id":4,"method":"x","params":[1]}', INVALID_REQUEST, b"4"),
        (b'{"id":4,"method":7}', INVALID_REQUEST, b"4"),
        (b'{"id":1.5,"method":"x"}', INVALID_REQUEST, None),
        (b'{"id":null,"method":"x"}', INVALID_REQUEST, None),
        (b'{"id":true,"method":"x"}', INVALID_REQUEST, None),
        (b'{"id":"' + b"x" * 300 + b'","method":"x"}', INVALID_REQUEST, None),
        (b'{"id":3}', INVALID_REQUEST, b"3"),
        (b'{"result":{}}', INVALID_REQUEST, None),
        (
            b'{"id":1,"method":"x","params":{"a":' + b"[" * 1500 + b"]" * 1500 + b"}}",
            PARSE_ERROR,
            None,
        ),
        (b'{"id":1,"method":' + LONE + b"}", INVALID_REQUEST, b"1"),
        (b'{"id":1,"method":"x","params":{"a":' + LONE, PARSE_ERROR, None),
        (b'{"id":1,"method":"x","params":[' + LONE + b"]}", INVALID_REQUEST, None),
    ],
)
def test_refused(body: bytes, code: int, id: bytes | None) -> None:
    error = refused(body)
    assert error.code == code
    assert (bytes(error.id) if error.id is not None else None) == id


def test_deep_nesting_next_to_a_lone_surrogate_is_refused() -> None:
    body = b'{"id":1,"method":"x","params":{"s":' + LONE + b',"a":' + b"[" * 100_000
    assert refused(body).code == PARSE_ERROR


def test_duplicate_keys_cannot_mean_two_things() -> None:
    message = wire.parse(b'{"id":1,"method":"a","method":"b","params":{"name":1,"name":2}}')
    assert isinstance(message, Request)
    out = wire.request(9, message.method, message.params)
    assert out == b'{"jsonrpc":"2.0","id":9,"method":"b","params":{"name":2}}'


def test_line_ends_between_tokens_become_spaces() -> None:
    message = wire.parse(b'{"id":1,\r\n"method":"x","params":{"a":[1,\r\n2]}}')
    assert isinstance(message, Request)
    assert bytes(message.params["a"]) == b"[1,  2]"


def test_lone_surrogates_cross_untouched() -> None:
    body = b'{"id":1,"method":"x","params":{"a":{"deep":["\\ud83d"]},"\\udc00":"\\ud83d"}}'
    message = wire.parse(body)
    assert isinstance(message, Request)
    again = wire.request(1, "x", message.params)
    assert again == b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + body.split(b'"params":')[1]


def test_lone_surrogates_in_results_and_errors() -> None:
    done = wire.parse(b'{"id":1,"result":{"t" : ' + LONE + b" }}")
    assert isinstance(done, Response)
    assert done.result is not None
    assert bytes(done.result["t"]) == LONE
    failed = wire.parse(
        b'{"id":1,"error":{"code":-5,"message":' + LONE + b',"data":' + LONE + b"}}"
    )
    assert isinstance(failed, Response)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (-5, "?")
    assert wire.error(1, failed.error).endswith(b'"data":' + LONE + b"}}")


def test_batches() -> None:
    good, bad = wire.parse_batch(b' [{"id":1,"method":"ping"}, 3]')
    assert isinstance(good, Request)
    assert isinstance(bad, BadMessage)
    assert wire.is_batch(b" \n[")
    assert not wire.is_batch(b"{}")
    with pytest.raises(BadMessage, match="empty"):
        wire.parse_batch(b"[]")
    most = b",".join([b'{"method":"x"}'] * wire.MAX_BATCH)
    assert len(wire.parse_batch(b"[" + most + b"]")) == wire.MAX_BATCH
    with pytest.raises(BadMessage, match="more than 256"):
        wire.parse_batch(b"[" + most + b",0]")
    surrogate = wire.parse_batch(b'[{"id":1,"method":"x","params":{"a":' + LONE + b"}}]")
    assert isinstance(surrogate[0], Request)


def test_what_is_split_slowly_is_bounded() -> None:
    """A lone surrogate must not make a large message cost seconds."""
    many = b'{"a":' + LONE + b"".join(b',"%d":0' % n for n in range(wire.MAX_SPLIT)) + b"}"
    with pytest.raises(BadMessage, match="more than 50000 members"):
        wire.members(many)
    with pytest.raises(BadMessage, match="more than 50000 members"):
        wire.array(b"[" + LONE + b",0" * wire.MAX_SPLIT + b"]")
    assert len(wire.array(b"[" + LONE + b",0" * 1000 + b"]")) == 1001


def test_ids_compare_as_json_does() -> None:
    raw = msgspec.Raw
    assert wire.id_key(raw(b'"a"')) == wire.id_key(raw(b'"\\u0061"'))
    assert wire.id_key(raw(b"1")) != wire.id_key(raw(b'"1"'))


def test_errors_keep_their_data() -> None:
    out = wire.error(msgspec.Raw(b'"q"'), RpcError(-1, "no", msgspec.Raw(b'{"n":1e400}')))
    assert (
        out == b'{"jsonrpc":"2.0","id":"q","error":{"code":-1,"message":"no","data":{"n":1e400}}}'
    )


def test_scalars() -> None:
    assert wire.text(msgspec.Raw(b'"x"')) == "x"
    assert wire.text(msgspec.Raw(b"1")) is None
    assert wire.text(msgspec.Raw(LONE)) is None
    assert wire.text(None) is None
    assert wire.number(msgspec.Raw(b"2")) == 2
    assert wire.number(msgspec.Raw(b'"2"')) is None
    assert wire.value(LONE) == "\ud83d"
    with pytest.raises(BadMessage):
        wire.value(b"{")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.booleans(), st.booleans())
def test_any_params_cross_as_they_are(params: dict[str, Any], pretty: bool, lone: bool) -> None:
    if lone:
        params = {**params, "lone": "\ud83d"}
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": params}, indent=1 if pretty else None
    ).encode()
    message = wire.parse(body)
    assert isinstance(message, Request)
    sent = wire.request(1, "x", message.params)
    assert json.loads(sent)["params"] == params
    assert list(json.loads(sent)["params"]) == list(params)
    assert b"\n" not in sent


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadMessage):  # any other exception fails
        wire.parse(body)


ODD_ERRORS = [
    rb'{"data":null,"code":-5,"message":"\ud83d","later":{"\ud83d":1e400}}',
    rb'{"code":-5,"message":"\u0061","data":{"n":123456789012345678901234567890}}',
]


@pytest.mark.parametrize("error", ODD_ERRORS)
def test_an_error_goes_on_as_it_came(error: bytes) -> None:
    parsed = wire.parse(b'{"jsonrpc":"2.0","id":1,"error":' + error + b"}")
    assert isinstance(parsed, wire.Response)
    assert parsed.error is not None
    assert parsed.error.code == -5
    parsed.error.message.encode()  # it can be shown
    sent = wire.error(7, parsed.error)
    assert json.loads(sent) == {"jsonrpc": "2.0", "id": 7, "error": json.loads(error)}
    recoded = json.loads(wire.error(7, wire.recoded(parsed.error, -6)))
    assert recoded["error"] == {**json.loads(error), "code": -6}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (b"{}", INTERNAL_ERROR, ""),
        (b'{"code":"x","message":[]}', INTERNAL_ERROR, ""),
        (b'{"code":1.5,"message":"m"}', INTERNAL_ERROR, "m"),
        (b'{"message":"m","x":"\\ud83d"}', INTERNAL_ERROR, "m"),
    ],
)
def test_what_an_error_lacks_is_put_in(error: bytes, code: int, message: str) -> None:
    parsed = wire.parse(b'{"jsonrpc":"2.0","id":1,"error":' + error + b"}")
    assert isinstance(parsed, wire.Response)
    assert parsed.error is not None
    sent = json.loads(wire.error(7, parsed.error))["error"]
    assert (sent["code"], sent["message"]) == (code, message)


def test_lone_surrogates_cross_at_every_depth() -> None:
    content = {"\ud83d": [{"\udc00": Raw(b"1e400")}, ["\ud83d"]]}
    assert bytes(wire.dump(content)) == rb'{"\ud83d":[{"\udc00":1e400},["\ud83d"]]}'


def test_a_value_may_hold_numbers_beyond_all_bounds() -> None:
    huge = b"9" * 5000
    assert wire.value(b'{"a":' + huge + b',"b":-' + huge + b',"c":1e400}') == {
        "a": math.inf,
        "b": -math.inf,
        "c": math.inf,
    }

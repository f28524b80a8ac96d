"""JSON-RPC envelopes as bytes, without I/O.

An envelope is decoded to its top-level fields; `params`, `result` and `error.data` are kept as the
bytes they came as, one level down (design: JSON crosses untouched). White space between tokens
is all that may change. msgspec refuses a lone surrogate escape even where it only skips over it,
yet JavaScript servers send those: such messages take the slower splitter below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, cast

import msgspec
from msgspec import Raw, Struct

from mcpgw.core.eras import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR
from mcpgw.model.calls import JsonObject, RpcError

MAX_ID = 256  # bytes of a JSON-RPC id; longer ones are refused, as they are echoed and kept
MAX_SPLIT = 50_000  # members or items that the slow splitter takes, at 5 us each
MAX_BATCH = 256  # messages of one batch; each costs far more to take apart than to send
NULL = Raw(b"null")
EMPTY = Raw(b"{}")

_ABSENT = Raw(b"")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadMessage(Exception):
    """Not a JSON-RPC message. `id` is the message's own where it could be read."""

    def __init__(self, code: int, message: str, id: Raw | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class Request(Struct, frozen=True):
    """A message that wants an answer. `params` is decoded one level."""

    id: Raw
    method: str
    params: JsonObject


class Notification(Struct, frozen=True):
    """A message that wants no answer."""

    method: str
    params: JsonObject


class Response(Struct, frozen=True):
    """`id` None: an error response that names no request. Exactly one of result, error is set."""

    id: Raw | None
    result: JsonObject | None
    error: RpcError | None = None


Message: TypeAlias = Request | Notification | Response


class _Envelope(Struct):
    jsonrpc: str = ""
    id: Raw = _ABSENT
    method: str | None = None
    params: JsonObject | None = None
    result: JsonObject | None = None
    error: JsonObject | None = None


class _Id(Struct):
    id: Raw = _ABSENT


_envelope = msgspec.json.Decoder(_Envelope)
_only_id = msgspec.json.Decoder(_Id)
_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)
_key = msgspec.json.Decoder(int | str)
_integer = msgspec.json.Decoder(int)
_encoder = msgspec.json.Encoder()


def parse(body: bytes) -> Message:
    """One message. Raises BadMessage for anything else, batches included."""
    body = clean(body)
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise BadMessage(
            INVALID_REQUEST, f"not a JSON-RPC message: {error}", _id_of(body)
        ) from None
    except msgspec.DecodeError as error:
        envelope = _slow_envelope(body, error)
    except RecursionError:
        raise BadMessage(PARSE_ERROR, "the JSON is nested too deeply") from None
    return _message(envelope)


def is_batch(body: bytes) -> bool:
    """Whether the body is a JSON array (allowed in 2025-03-26 only)."""
    return body[:64].lstrip()[:1] == b"["


def parse_batch(body: bytes) -> list[Message | BadMessage]:
    """The messages of a batch, each parsed for itself.

    Raises BadMessage for what is no array, for an empty one, and for one beyond MAX_BATCH.
    """
    items = array(clean(body))
    if not items:
        raise BadMessage(INVALID_REQUEST, "the batch is empty")
    if len(items) > MAX_BATCH:
        raise BadMessage(INVALID_REQUEST, f"a batch of more than {MAX_BATCH} messages")
    parsed: list[Message | BadMessage] = []
    for item in items:
        try:
            parsed.append(parse(bytes(item)))
        except BadMessage as error:
            parsed.append(error)
    return parsed


def clean(body: bytes) -> bytes:
    """`body`, checked to be UTF-8, with line ends between tokens as spaces.

    CR and LF can only stand between tokens in JSON, and would break SSE and stdio framing.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadMessage(PARSE_ERROR, "the body is not UTF-8") from None
    if b"\n" in body:
        body = body.replace(b"\n", b" ")
    if b"\r" in body:
        body = body.replace(b"\r", b" ")
    return body


def members(raw: Raw | bytes) -> JsonObject:
    """An object, decoded one level. Raises BadMessage when it is none."""
    try:
        return _object.decode(raw)
    except msgspec.ValidationError as error:
        raise BadMessage(INVALID_REQUEST, f"not an object: {error}") from None
    except msgspec.DecodeError as error:
        return _split(bytes(raw), error)
    except RecursionError:
        raise BadMessage(PARSE_ERROR, "the JSON is nested too deeply") from None


def array(raw: Raw | bytes) -> list[Raw]:
    """An array, decoded one level. Raises BadMessage when it is none."""
    try:
        return _array.decode(raw)
    except msgspec.ValidationError as error:
        raise BadMessage(INVALID_REQUEST, f"not an array: {error}") from None
    except msgspec.DecodeError as error:
        return _split_array(bytes(raw), error)
    except RecursionError:
        raise BadMessage(PARSE_ERROR, "the JSON is nested too deeply") from None


def text(raw: Raw | None) -> str | None:
    """The string that `raw` is; None when it is absent or something else."""
    if raw is None:
        return None
    try:
        return _string.decode(raw)
    except msgspec.DecodeError:
        return None


def number(raw: Raw | None) -> float | None:
    """The finite number that `raw` is; None when it is absent or something else."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=float)
    except msgspec.DecodeError:
        return None


def value(raw: Raw | bytes) -> Any:  # noqa: ANN401 - a JSON value is any of seven types
    """`raw` decoded whole, for what the gateway must understand. Raises BadMessage."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        try:
            return json.loads(bytes(raw), parse_int=_integer_of)
        except (ValueError, RecursionError):
            raise BadMessage(PARSE_ERROR, "not JSON") from None


def _integer_of(digits: str) -> float:
    """int() refuses thousands of digits, and nothing is decided on those."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def dump(content: object) -> Raw:
    """`content` as JSON bytes."""
    return Raw(_encode(content))


def dump_object(content: Mapping[str, Raw]) -> Raw:
    """An object decoded one level, as JSON bytes again."""
    return Raw(_encode(content))


def request(id: int | str, method: str, params: Mapping[str, Raw]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Mapping[str, Raw]) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})


def result(id: Raw | int | str, result: Mapping[str, Raw]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "result": result})


def error(id: Raw | int | str | None, error: RpcError | BadMessage) -> bytes:
    body: Mapping[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, RpcError):
        if error.raw is not None:
            body = error.raw
        elif error.data is not None:
            body = {**body, "data": error.data}
    return _encode({"jsonrpc": "2.0", "id": id, "error": body})


def recoded(error: RpcError, code: int) -> RpcError:
    """The same error under another code."""
    raw = None if error.raw is None else {**error.raw, "code": dump(code)}
    return RpcError(code, error.message, error.data, raw=raw)


def id_key(id: Raw) -> int | str:
    """The id as a value that compares as JSON does: `1` is not `"1"`, `"a"` is `"\\u0061"`."""
    return _key.decode(id)


def _message(envelope: _Envelope) -> Message:
    id = envelope.id
    if envelope.method is not None:
        params = envelope.params if envelope.params is not None else {}
        if id is _ABSENT:
            return Notification(envelope.method, params)
        _check_id(id)
        return Request(id, envelope.method, params)
    if envelope.error is not None:
        return Response(_valid(id), None, _error(envelope.error))
    if envelope.result is not None and id is not _ABSENT:
        _check_id(id)
        return Response(id, envelope.result)
    raise BadMessage(
        INVALID_REQUEST, "neither a request, a notification nor a response", _valid(id)
    )


def _error(raw: JsonObject) -> RpcError:
    """An error object; a code or message of the wrong type becomes what the rules want."""
    told, said = raw.get("code"), raw.get("message")
    try:
        code = INTERNAL_ERROR if told is None else _integer.decode(told)
    except msgspec.DecodeError:
        code = INTERNAL_ERROR
        raw["code"] = dump(code)
    if told is None:
        raw["code"] = dump(code)
    message = text(said)
    if message is None:
        lone = said is not None and bytes(said)[:1] == b'"'  # a lone surrogate, only for show
        message = _shown(said) if lone and said is not None else ""
        if not lone:
            raw["message"] = dump(message)
    return RpcError(code, message, raw.get("data"), raw=raw)


def _shown(said: Raw) -> str:
    """A string that may hold lone surrogates, without them."""
    return str(value(said)).encode(errors="replace").decode()


def _check_id(id: Raw) -> None:
    if _valid(id) is None:
        raise BadMessage(INVALID_REQUEST, "the id is neither a string nor an integer")


def _valid(id: Raw) -> Raw | None:
    content = bytes(id)
    if not content or len(content) > MAX_ID:
        return None
    try:
        id_key(id)
    except msgspec.DecodeError:
        return None
    return id


def _id_of(body: bytes) -> Raw | None:
    try:
        return _valid(_only_id.decode(body).id)
    except (msgspec.DecodeError, RecursionError):
        return None


def _encode(content: object) -> bytes:
    try:
        return _encoder.encode(content)
    except UnicodeEncodeError:  # a key with a lone surrogate
        return _slow_encode(content)


def _slow_encode(content: object) -> bytes:
    if isinstance(content, Raw):
        return bytes(content)
    if isinstance(content, Mapping):
        pairs = cast("Mapping[str, object]", content)
        body = b",".join(
            json.dumps(key).encode() + b":" + _slow_encode(item) for key, item in pairs.items()
        )
        return b"{" + body + b"}"
    if isinstance(content, list | tuple):
        listed = cast("Sequence[object]", content)
        return b"[" + b",".join(map(_slow_encode, listed)) + b"]"
    return json.dumps(content).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Numbers stay texts: only where a value ends matters here, and int() refuses very long ones.
_scanner = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
_SPACE = re.compile(r"[ \t\n\r]*")


def _slow_envelope(body: bytes, cause: Exception) -> _Envelope:
    fields = _split(body, cause)
    envelope = _Envelope(id=fields.get("id", _ABSENT))
    if (method := fields.get("method")) is not None:
        envelope.method = text(method)
        if envelope.method is None:
            raise BadMessage(INVALID_REQUEST, "the method is not a string", _valid(envelope.id))
    for name in ("params", "result", "error"):
        if (field := fields.get(name)) is not None and bytes(field) != b"null":
            setattr(envelope, name, members(field))
    return envelope


def _slow_text(body: bytes, cause: Exception) -> str:
    if _SURROGATE.search(body) is None:
        raise BadMessage(PARSE_ERROR, f"not JSON: {cause}") from None
    return body.decode()


def _split(body: bytes, cause: Exception) -> JsonObject:
    """An object's members by the standard library's scanner, which takes lone surrogates."""
    source = _slow_text(body, cause)
    found: JsonObject = {}
    for key_text, item in _pairs(source, "{", "}"):
        found[key_text] = item
    return found


def _split_array(body: bytes, cause: Exception) -> list[Raw]:
    return [item for _, item in _pairs(_slow_text(body, cause), "[", "]")]


def _pairs(source: str, opening: str, closing: str) -> list[tuple[str, Raw]]:
    try:
        at = _skip(source, 0, opening)
        found: list[tuple[str, Raw]] = []
        if source[at : at + 1] == closing:
            _end(source, at + 1)
            return found
        while True:
            key = ""
            if opening == "{":
                decoded, at = _scanner.raw_decode(source, at)
                if not isinstance(decoded, str):
                    raise ValueError("a member's name is not a string")  # noqa: TRY301
                key, at = decoded, _skip(source, at, ":")
            _, end = _scanner.raw_decode(source, at)
            found.append((key, Raw(source[at:end].encode())))
            if len(found) > MAX_SPLIT:
                raise BadMessage(INVALID_REQUEST, f"more than {MAX_SPLIT} members at one level")
            at = _SPACE.match(source, end).end()  # pyright: ignore[reportOptionalMemberAccess]
            if source[at : at + 1] == closing:
                _end(source, at + 1)
                return found
            at = _skip(source, at, ",")
    except (ValueError, IndexError) as error:
        raise BadMessage(PARSE_ERROR, f"not JSON: {error}") from None
    except RecursionError:
        raise BadMessage(PARSE_ERROR, "the JSON is nested too deeply") from None


def _skip(source: str, at: int, expected: str) -> int:
    """Past white space, `expected`, and white space."""
    at = _SPACE.match(source, at).end()  # pyright: ignore[reportOptionalMemberAccess]
    if source[at : at + 1] != expected:
        raise ValueError(f"expected {expected!r} at character {at}")
    return _SPACE.match(source, at + 1).end()  # pyright: ignore[reportOptionalMemberAccess]


def _end(source: str, at: int) -> None:
    if _SPACE.match(source, at).end() != len(source):  # pyright: ignore[reportOptionalMemberAccess]
        raise ValueError("trailing characters")

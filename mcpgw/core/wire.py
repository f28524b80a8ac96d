"""JSON-RPC envelopes as bytes, without I/O.

An envelope is decoded to its top-level fields; `params`, `result` and `error.data` are kept as the
bytes they came as, one level down (design: JSON crosses untouched). White space between tokens
is all that may change. msgspec refuses a lone surrogate escape even where it only skips over it,
yet JavaScript servers send those: such messages take the slower splitter below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec
from msgspec import Raw, Struct

from mcpgw.core.eras import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR
from mcpgw.model.calls import JsonObject, RpcError

MAX_ID = 256  # bytes of a JSON-RPC id; longer ones are refused, as they are echoed and kept
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


class _Error(Struct):
    code: int = INTERNAL_ERROR
    message: str = ""
    data: Raw = _ABSENT  # not `Raw | None`, which msgspec takes for null alone


class _Envelope(Struct):
    jsonrpc: str = ""
    id: Raw = _ABSENT
    method: str | None = None
    params: JsonObject | None = None
    result: JsonObject | None = None
    error: _Error | None = None


class _Id(Struct):
    id: Raw = _ABSENT


_envelope = msgspec.json.Decoder(_Envelope)
_only_id = msgspec.json.Decoder(_Id)
_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)
_key = msgspec.json.Decoder(int | str)
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
    """The messages of a batch, each parsed for itself. Raises BadMessage for an empty array."""
    items = array(clean(body))
    if not items:
        raise BadMessage(INVALID_REQUEST, "the batch is empty")
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
            return json.loads(bytes(raw))
        except (ValueError, RecursionError):
            raise BadMessage(PARSE_ERROR, "not JSON") from None


def dump(content: object) -> Raw:
    """`content` as JSON bytes."""
    return Raw(_encoder.encode(content))


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
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, RpcError) and error.data is not None:
        body["data"] = error.data
    return _encode({"jsonrpc": "2.0", "id": id, "error": body})


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
        failed = envelope.error
        data = None if failed.data is _ABSENT else failed.data
        return Response(_valid(id), None, RpcError(failed.code, failed.message, data))
    if envelope.result is not None and id is not _ABSENT:
        _check_id(id)
        return Response(id, envelope.result)
    raise BadMessage(
        INVALID_REQUEST, "neither a request, a notification nor a response", _valid(id)
    )


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
        pairs: Mapping[str, object] = content  # pyright: ignore[reportUnknownVariableType]
        body = b",".join(
            json.dumps(key).encode() + b":" + _slow_encode(item) for key, item in pairs.items()
        )
        return b"{" + body + b"}"
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
    for name in ("params", "result"):
        if (field := fields.get(name)) is not None and bytes(field) != b"null":
            setattr(envelope, name, members(field))
    if (failed := fields.get("error")) is not None:
        parts = members(failed)
        code = number(parts.get("code"))
        envelope.error = _Error(
            int(code) if code is not None else INTERNAL_ERROR,
            str(value(parts.get("message", Raw(b'""')))).encode(errors="replace").decode(),
            parts.get("data", _ABSENT),
        )
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

"""Server-sent events: the rules of WHATWG, however the stream is cut, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpgw.core import sse
from mcpgw.core.sse import Decoder, Event, StreamError, encode


def decode(stream: bytes) -> list[Event]:
    return Decoder().feed(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("message", b"a")]),
        (b"data:a\n\n", [Event("message", b"a")]),
        (b"data:  a\n\n", [Event("message", b" a")]),
        (b"data: a\r\r", [Event("message", b"a")]),
        (b"data: a\r\n\r\n", [Event("message", b"a")]),
        (b"data: a\n\r\n", [Event("message", b"a")]),
        (b"data: a\ndata\ndata: b\n\n", [Event("message", b"a\n\nb")]),
        (b"data\n\n", [Event("message", b"")]),
        (b"data:\n\n", [Event("message", b"")]),
        (b"data\ndata\n\n", [Event("message", b"\n")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("message", b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("message", b"a")]),
        (b": ping\n\ndata: a\n:x\n\n", [Event("message", b"a")]),
        (b"event: endpoint\ndata: /x?y=1\n\n", [Event("endpoint", b"/x?y=1")]),
        (b"event:\ndata: a\n\n", [Event("message", b"a")]),
        (b"event: lost\n\ndata: a\n\n", [Event("message", b"a")]),
        (b"id: 7\ndata:\n\n", [Event("message", b"", "7")]),
        (b"id\ndata: a\n\n", [Event("message", b"a", "")]),
        (b"id: a\0b\ndata: a\n\n", [Event("message", b"a")]),
        (b"retry: 250\ndata: a\n\n", [Event("message", b"a", None, 250)]),
        (b"retry: 2s\nretry: -1\nretry:\ndata: a\n\n", [Event("message", b"a")]),
        (b"Data: a\n data: b\nother: c\n\n", []),
        (b"data: a\n", []),
        (b"event: message\ndata: a:b\n\n", [Event("message", b"a:b")]),
        (b"event: message\r\ndata: a\r\n\r\n", [Event("message", b"a")]),
        (b"event: message\ndata: a\rdata: b\n\n", [Event("message", b"a\nb")]),
        (b"event: message\r\ndata: a\ndata: b\r\n\r\n", [Event("message", b"a\nb")]),
        (b"event: message\ndata: a\ndata: b\n\n", [Event("message", b"a\nb")]),
        (
            b"event: message\ndata: a\n\ndata: b\n\n",
            [Event("message", b"a"), Event("message", b"b")],
        ),
        (b"event: message\ndata: \n\n", [Event("message", b"")]),
        (b"data: \xff\xfe\n\n", [Event("message", b"\xff\xfe")]),
    ],
)
def test_rules(stream: bytes, events: list[Event]) -> None:
    assert decode(stream) == events
    apart = Decoder()
    assert [event for byte in stream for event in apart.feed(bytes([byte]))] == events


def test_an_event_is_told_as_soon_as_its_blank_line_came() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [Event("message", b"a")]
    assert decoder.feed(b"\ndata: b\n\n") == [Event("message", b"b")]
    assert decoder.feed(b"") == []


def test_the_common_shape_is_not_taken_for_whole_inside_an_open_block() -> None:
    decoder = Decoder()
    assert decoder.feed(b"id: 1\n") == []
    assert decoder.feed(b"event: message\ndata: a\n\n") == [Event("message", b"a", "1")]
    assert decoder.feed(b"da") == []
    assert decoder.feed(b"event: message\ndata: a\n\n") == [Event("message", b"a")]


def test_ids_and_retry_outlive_their_block() -> None:
    decoder = Decoder()
    assert decoder.feed(b"id: 1\nretry: 10\n\n") == []
    assert (decoder.last_id, decoder.retry) == ("1", 10)
    assert decoder.feed(b"data: a\n\n") == [Event("message", b"a")]
    assert (decoder.last_id, decoder.retry) == ("1", 10)
    decoder.feed(b"id: 2\n")
    assert decoder.last_id == "1"
    decoder.feed(b"\n")
    assert decoder.last_id == "2"
    decoder.feed(b"id\n\n")
    assert decoder.last_id == ""


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"a" * 200,
        b"data: aaaaaaa\n" * 20,
        b"data\n" * 200,
        b"event: message\ndata: " + b"a" * 200 + b"\n\n",
        b":" + b"a" * 200,
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_event_too_large_is_refused(stream: bytes, step: int) -> None:
    with pytest.raises(StreamError, match="100 bytes"):
        feed_by(step, stream, Decoder(limit=100))


def test_long_names_and_ids_are_refused() -> None:
    for field in (b"event", b"id"):
        with pytest.raises(StreamError):
            decode(field + b": " + b"a" * (sse.MAX_FIELD + 1) + b"\n")


def test_endless_small_things_are_no_large_event() -> None:
    decoder = Decoder(limit=100)
    for _ in range(1000):
        assert decoder.feed(b": still he") == []
        assert decoder.feed(b"re\n") == []
        assert len(decoder.feed(b"data: 1234567890\n\n")) == 1


def test_encode() -> None:
    assert encode(b"{}") == b"event: message\ndata: {}\n\n"
    assert encode(b"{}", event=None) == b"data: {}\n\n"
    assert encode(b"", event=None, id="7", retry=5) == b"id: 7\nretry: 5\ndata: \n\n"
    assert (
        encode(b"a\r\nb\rc\nd")
        == b"event: message\n" + b"".join(b"data: %c\n" % letter for letter in b"abcd") + b"\n"
    )
    assert decode(sse.KEEP_ALIVE) == []


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_encode_refuses_line_ends_in_fields(text: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        encode(b"", event=text)
    with pytest.raises(ValueError, match="line end"):
        encode(b"", id=text)


def feed_by(step: int, stream: bytes, decoder: Decoder) -> None:
    for at in range(0, len(stream), step):
        decoder.feed(stream[at : at + step])


texts = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
plain = st.binary(max_size=60).filter(lambda data: b"\r" not in data)
written = st.builds(Event, texts.filter(bool), plain, st.none() | texts, st.none() | st.just(9))


@given(st.lists(written), st.data())
def test_what_is_encoded_comes_back_however_it_is_cut(
    events: list[Event], data: st.DataObject
) -> None:
    stream = b"".join(encode(e.data, e.event, e.id, e.retry) for e in events)
    assert cut(stream, data) == events


@given(st.lists(st.sampled_from([b"data: a", b"data", b"id: 1", b"event: x", b"\n", b"\r", b": "])))
@example([b"data: a", b"\r", b"\n", b"\r", b"\n"])
def test_cutting_changes_nothing(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    whole = Decoder()
    events = whole.feed(stream)
    for size in (1, 2, 3):
        pieces = Decoder()
        cuts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [event for piece in cuts for event in pieces.feed(piece)] == events
        assert (pieces.last_id, pieces.retry) == (whole.last_id, whole.retry)


def cut(stream: bytes, data: st.DataObject) -> list[Event]:
    decoder = Decoder()
    events: list[Event] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        events += decoder.feed(stream[:size])
        stream = stream[size:]
    return events

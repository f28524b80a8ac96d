"""A broken upstream: a clear error in time, other requests unharmed, nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import anyio
import pytest

from mcpgw.upstream import http1, http1_body, http1_conn
from mcpgw.upstream.http1 import Client, HttpError
from tests.faults.peer import GOOD, PATIENCE, Fault, Wire, ask, reaching, serving

pytestmark = pytest.mark.anyio

SOON = 0.3  # seconds; the time-out of requests that are never answered
HEAD = b"HTTP/1.1 200 OK\r\n"
BIG = b"x" * (8 * 1024 * 1024)


def says(data: bytes, *, step: int = 0) -> Fault:
    """Send this and close."""

    async def fault(wire: Wire, request: bytes) -> None:
        await wire.send(data, step=step)
        await wire.close()

    return fault


def stays(data: bytes) -> Fault:
    """Send this and stay, silently."""

    async def fault(wire: Wire, request: bytes) -> None:
        await wire.send(data)
        await wire.gone()

    return fault


def drips(start: bytes, data: bytes) -> Fault:
    async def fault(wire: Wire, request: bytes) -> None:
        await wire.send(start)
        await wire.drip(data, 0.01)

    return fault


def endless(start: bytes, data: bytes) -> Fault:
    async def fault(wire: Wire, request: bytes) -> None:
        await wire.send(start)
        while True:
            await wire.send(data)

    return fault


async def resets(wire: Wire, request: bytes) -> None:
    await wire.send(HEAD + b"content-length: 9\r\n\r\nabc")
    wire.reset()


async def resets_unread(wire: Wire, request: bytes) -> None:
    wire.reset()


def bomb() -> bytes:
    body = gzip.compress(b"\0" * (64 * 1024 * 1024))
    return HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SHORT = gzip.compress(b"a" * 100)[:-9]
FAULTS: dict[str, tuple[Fault, str]] = {
    "closes at once": (says(b""), "closed the connection"),
    "closes in the head": (says(HEAD + b"content-"), "closed the connection"),
    "closes before the body": (says(HEAD + b"content-length: 3\r\n\r\n"), "closed the connection"),
    "closes in the body": (says(HEAD + b"content-length: 3\r\n\r\nab"), "closed the connection"),
    "closes between chunks": (says(CHUNKED + b"2\r\nab\r\n"), "closed the connection"),
    "closes in a chunk": (says(CHUNKED + b"3\r\nab"), "closed the connection"),
    "closes before the last line": (says(CHUNKED + b"0\r\n"), "closed the connection"),
    "content-length is too long": (stays(HEAD + b"content-length: 9\r\n\r\nabc"), "within 0.3 s"),
    "garbage": (says(b"SSH-2.0-OpenSSH_9.9\r\n"), "not an HTTP response"),
    "garbage after the status": (says(HEAD + b"no header\r\n\r\n"), "not an HTTP response"),
    "bad chunk": (says(CHUNKED + b"zz\r\nab\r\n"), "not an HTTP response"),
    "bare line feeds": (says(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"), "not an HTTP response"),
    "huge header": (says(HEAD + b"x: %b\r\n\r\n" % (b"a" * 70000)), "too large"),
    "many headers": (says(HEAD + b"x: a\r\n" * 300 + b"\r\n"), "too many headers"),
    "endless header": (endless(HEAD + b"x: ", b"a" * 1000), "too large"),
    "endless headers": (endless(HEAD, b"x: %b\r\n" % (b"a" * 1000)), "too large"),
    "endless interim answers": (endless(b"", b"HTTP/1.1 102 P\r\n\r\n" * 100), "too large"),
    "endless trailers": (endless(CHUNKED + b"1\r\na\r\n0\r\n", b"x: a\r\n" * 100), "too "),
    "endless chunk extension": (endless(CHUNKED + b"1;", b"a" * 1000), "too large"),
    "endless body": (endless(HEAD + b"\r\n", b"a" * 65536), "larger than 1048576 bytes"),
    "endless chunks": (endless(CHUNKED, b"2\r\nab\r\n" * 100), "larger than 1048576 bytes"),
    "too large a body": (stays(HEAD + b"content-length: 1048577\r\n\r\n"), "larger than 1048576"),
    "never answers": (stays(b""), "no answer within 0.3 s"),
    "never ends the head": (stays(HEAD), "no answer within 0.3 s"),
    "only interim answers": (stays(b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer within 0.3 s"),
    "drips the head": (drips(HEAD, b"x: a\r\n"), "no answer within 0.3 s"),
    "drips the body": (drips(HEAD + b"\r\n", b"a"), "did not end within 0.3 s"),
    "resets before the answer": (resets_unread, "connection"),
    "resets in the body": (resets, "connection"),
    "length and chunks": (
        says(HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "not an HTTP response",
    ),
    "two lengths": (
        says(HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        "not an HTTP response",
    ),
    "negative length": (says(HEAD + b"content-length: -3\r\n\r\nabc"), "not an HTTP response"),
    "folded header": (says(HEAD + b"x: a\r\n b\r\n\r\n"), "not an HTTP response"),
    "strange transfer coding": (
        says(HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        "transfer-encoding",
    ),
    "switches protocols": (
        says(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nabc"),
        "switched protocols",
    ),
    "gzip bomb": (says(bomb()), "larger than 1048576 bytes"),
    "gzip cut off": (
        says(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(SHORT) + SHORT),
        "cut off",
    ),
    "no gzip": (
        says(HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"),
        "not compressed as it says",
    ),
    "unknown coding": (
        says(HEAD + b"content-encoding: br\r\ncontent-length: 3\r\n\r\nabc"),
        "not compressed as it says",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_is_told_in_time_and_harms_nobody_else(name: str) -> None:
    fault, words = FAULTS[name]
    async with serving(fault) as peer, reaching(peer.origin) as client:
        with anyio.fail_after(PATIENCE):
            other = await client.request("GET", "/good-stream", [], timeout=PATIENCE)
            with pytest.raises(HttpError, match=words) as caught:
                await broken(client)
            assert caught.value.sent
            assert caught.value.stage in ("read", "send")
            peer.go_on.set()
            assert await other.read() == b"onetwo"
            assert await ask(client, "/good") == b"good"
        assert sum(b"/bad" in request for request in peer.requests) == 1


async def broken(client: Client) -> bytes:
    response = await client.request("POST", "/bad", [], b"{}", timeout=SOON)
    # What does not end must be stopped by its size; what drips, by the clock.
    timeout = SOON if "content-length" in response.headers or not response.headers else PATIENCE
    return await response.read(limit=1024 * 1024, timeout=timeout)


async def test_content_length_too_short_gives_the_body_and_ends_the_connection() -> None:
    async with (
        serving(stays(HEAD + b"content-length: 3\r\n\r\nabcdef")) as peer,
        reaching(peer.origin) as client,
    ):
        assert await ask(client, "/bad") == b"abc"
        assert await ask(client, "/good") == b"good"
        assert peer.connections == 2


async def test_a_second_response_nobody_asked_for_reaches_nobody() -> None:
    evil = HEAD + b"content-length: 4\r\n\r\nevil"
    async with serving(stays(GOOD + evil)) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad") == b"good"
        assert await ask(client, "/good") == b"good"
        assert peer.connections == 2


async def test_bytes_on_an_idle_connection_end_it() -> None:
    sent = anyio.Event()

    async def chatty(wire: Wire, request: bytes) -> None:
        await wire.send(GOOD)
        await wire.peer.go_on.wait()
        await wire.send(HEAD + b"content-length: 4\r\n\r\nevil")
        sent.set()
        await wire.gone()

    async with serving(chatty) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad") == b"good"
        peer.go_on.set()
        await sent.wait()
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()
        assert await ask(client, "/good") == b"good"


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_tiny_segments(size: int) -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED[:-2] + b"X: 1\r\nx: 2\r\n\r\n"
        b"3;ext=1\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\n"
    )
    async with serving(says(answer, step=size)) as peer, reaching(peer.origin) as client:
        response = await client.request("POST", "/bad", [], b"{}", timeout=PATIENCE)
        assert response.headers == {"transfer-encoding": "chunked", "x": "1, 2"}
        assert await response.read() == b"abcd"


# Stale connections


async def leaves(wire: Wire, request: bytes) -> None:
    """Answer, then close without having said so."""
    await wire.send(GOOD)
    await wire.close()


async def test_a_connection_that_the_server_left_is_not_used_again() -> None:
    async with serving(leaves) as peer, reaching(peer.origin) as client:
        for _ in range(3):
            assert await ask(client, "/bad") == b"good"
            with anyio.fail_after(PATIENCE):
                await peer.all_closed()
            # The client has not run since: it must look before it writes.
        assert peer.connections == 3


async def dies_on_the_second(wire: Wire, request: bytes) -> None:
    """The race that cannot be seen: closes when the second request has arrived."""
    if wire.asked == 1:
        await wire.send(GOOD)
    else:
        await wire.close()


async def test_a_stale_connection_fails_a_request_that_may_have_been_acted_on() -> None:
    async with serving(dies_on_the_second) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad") == b"good"
        with pytest.raises(HttpError) as caught:
            await ask(client, "/bad")
        assert caught.value.sent
        assert len(peer.requests) == 2
        assert await ask(client, "/good") == b"good"


async def test_an_idempotent_request_is_sent_again_once_on_a_fresh_connection() -> None:
    async with serving(dies_on_the_second) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad", method="GET", body=b"") == b"good"
        assert await ask(client, "/bad", method="GET", body=b"", idempotent=True) == b"good"
        assert (peer.connections, len(peer.requests)) == (2, 3)


async def test_an_idempotent_request_that_fails_afresh_is_not_sent_again() -> None:
    async with serving(says(b"")) as peer, reaching(peer.origin) as client:
        with pytest.raises(HttpError):
            await ask(client, "/bad", idempotent=True)
        assert len(peer.requests) == 1


async def test_an_answer_that_began_is_never_asked_for_again() -> None:
    async def half(wire: Wire, request: bytes) -> None:
        await wire.send(GOOD if wire.asked == 1 else HEAD)
        if wire.asked > 1:
            await wire.close()

    async with serving(half) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad") == b"good"
        with pytest.raises(HttpError):
            await ask(client, "/bad", idempotent=True)
        assert len(peer.requests) == 2


# Large requests


async def test_a_server_that_never_reads_is_given_up() -> None:
    async def deaf(wire: Wire, request: bytes) -> None:
        raise AssertionError

    async with serving(deaf) as peer:
        stop = asyncio.Event()

        async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stop.wait()
            writer.close()

        server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024)
        port = server.sockets[0].getsockname()[1]
        async with reaching(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(HttpError, match="no answer within") as caught:
                await ask(client, "/", body=BIG * 4, timeout=SOON)
            assert caught.value.stage == "send"
        stop.set()
        server.close()
        await server.wait_closed()
        assert peer.connections == 0


async def test_an_answer_before_the_request_is_complete() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge"

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with reaching(f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            response = await client.request("POST", "/", [], BIG * 4, timeout=PATIENCE)
            assert response.status == 413
            assert await response.read() == b"large"
    server.close()
    await server.wait_closed()


async def test_a_large_request_arrives_whole() -> None:
    async def counts(wire: Wire, request: bytes) -> None:
        size = b"%d" % len(request.partition(b"\r\n\r\n")[2])
        await wire.send(HEAD + b"content-length: %d\r\n\r\n%b" % (len(size), size))

    async with serving(counts) as peer, reaching(peer.origin) as client:
        for _ in range(2):
            assert await ask(client, "/count", body=BIG) == b"%d" % len(BIG)
        assert peer.connections == 1


# Cancellation


async def test_cancelling_before_the_answer_closes_that_connection() -> None:
    asked = anyio.Event()

    async def slow(wire: Wire, request: bytes) -> None:
        asked.set()
        await wire.gone()

    async with serving(slow) as peer, reaching(peer.origin) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client, "/bad")
            await asked.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()
        assert await ask(client, "/good") == b"good"


async def test_cancelling_while_a_large_request_goes_out() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await stop.wait()
        writer.close()

    accepted, stop = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    async with reaching(f"http://127.0.0.1:{port}") as client:
        task = asyncio.ensure_future(ask(client, "/", body=BIG * 4))
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    stop.set()
    server.close()
    await server.wait_closed()


async def test_cancelling_while_the_body_arrives_closes_that_connection() -> None:
    async with serving(stays(CHUNKED + b"3\r\nabc\r\n")) as peer, reaching(peer.origin) as client:
        response = await client.request("GET", "/bad", [], timeout=PATIENCE)
        stream = response.chunks()
        assert await anext(stream) == b"abc"
        task = asyncio.ensure_future(response.read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()
        assert await ask(client, "/good") == b"good"


async def test_cancelling_as_the_answer_arrives_gives_no_used_connection_away() -> None:
    """The cancellation and the answer meet: whoever takes the connection next is not cut off."""
    async with serving() as peer, reaching(peer.origin) as client:
        for turns in range(12):
            task = asyncio.ensure_future(ask(client, "/good"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            next_one = asyncio.ensure_future(ask(client, "/good"))
            with anyio.fail_after(PATIENCE):
                assert await next_one == b"good"
            await asyncio.gather(task, return_exceptions=True)


async def test_giving_a_response_up_closes_its_connection() -> None:
    async with serving(stays(CHUNKED + b"3\r\nabc\r\n")) as peer, reaching(peer.origin) as client:
        async with await client.request("GET", "/bad", [], timeout=PATIENCE) as response:
            assert response.status == 200
        with anyio.fail_after(PATIENCE):
            await peer.all_closed()
        with pytest.raises(HttpError, match="was closed"):
            await response.read()


# Back-pressure and encodings


async def test_reading_waits_for_a_slow_consumer() -> None:
    written = 0

    async def pours(wire: Wire, request: bytes) -> None:
        nonlocal written
        await wire.send(HEAD + b"content-length: %d\r\n\r\n" % (len(BIG) * 8))
        for _ in range(8 * 128):
            await wire.send(BIG[: len(BIG) // 128])
            written += len(BIG) // 128

    async with serving(pours) as peer, reaching(peer.origin) as client:
        response = await client.request("GET", "/pour", [], timeout=PATIENCE)
        stream = response.chunks()
        got = len(await anext(stream))
        before = -1
        while before != written:  # until the writer stands still
            before = written
            await asyncio.sleep(0.05)
        # What the sockets' buffers and the high-water mark hold, and no more.
        assert written < len(BIG) * 8
        assert response.held <= 2 * http1_body.HIGH_WATER  # the mark and one read
        async for chunk in stream:
            got += len(chunk)
        assert got == len(BIG) * 8
        assert await ask(client, "/good") == b"good"
        assert peer.connections == 1


@pytest.mark.parametrize("wbits", [31, 15, -15], ids=["gzip", "zlib", "deflate"])
@pytest.mark.parametrize("step", [0, 1])
async def test_encodings(wbits: int, step: int) -> None:
    text = b"".join(b"line %d\n" % number for number in range(300))
    packer = zlib.compressobj(wbits=wbits)
    body = packer.compress(text) + packer.flush()
    name = b"gzip" if wbits == 31 else b"deflate"
    answer = HEAD + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (name, len(body))
    async with serving(says(answer + body, step=step)) as peer, reaching(peer.origin) as client:
        assert await ask(client, "/bad") == text


async def test_compressed_streams_are_told_as_they_come() -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    second = packer.compress(b"data: 2\n\n") + packer.flush()

    async def streams(wire: Wire, request: bytes) -> None:
        await wire.send(HEAD + b"content-encoding: gzip\r\n\r\n" + first)
        await wire.peer.go_on.wait()
        await wire.send(second)
        await wire.close()

    async with serving(streams) as peer, reaching(peer.origin) as client:
        response = await client.request("GET", "/bad", [], timeout=PATIENCE)
        stream = response.chunks()
        assert await anext(stream) == b"data: 1\n\n"
        peer.go_on.set()
        assert [chunk async for chunk in stream] == [b"data: 2\n\n"]


async def test_gzip_members_and_empty_bodies() -> None:
    body = gzip.compress(b"one") + gzip.compress(b"two")
    head = HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    async with (
        serving(says(head % len(body) + body)) as peer,
        serving(says(head % 0)) as empty,
        reaching(peer.origin) as client,
        reaching(empty.origin) as other,
    ):
        assert await ask(client, "/bad") == b"onetwo"
        assert await ask(other, "/bad") == b""


def test_the_bounds_are_what_the_tests_assume() -> None:
    assert http1_conn.MAX_HEAD < 70000
    assert http1_conn.MAX_HEADERS < 300
    assert http1.MAX_BODY == 32 * 1024 * 1024

"""The 2024-11-05 link against a real server over loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import anyio.abc
import pytest
from msgspec import Raw

from mcpgw.model.calls import AskMode, Call, Done, ListChanged, RpcError
from mcpgw.model.ports import LinkInfo, UpstreamError
from mcpgw.upstream.http1 import Client
from mcpgw.upstream.sse import SseLink, endpoint
from tests.doubles import (
    PATIENCE,
    PlainSecrets,
    Recorder,
    call,
    context,
    obj,
    plain,
    server,
    snapshot,
)
from tests.servers.http_base import Ears, running
from tests.servers.sse import SseServer

pytestmark = pytest.mark.anyio

CTX = context(snapshot())


def tool(name: str, **arguments: Any) -> Call:
    return call("tools/call", CTX, name=name, arguments=arguments)


class Ran:
    """A running link, what it heard, and why it ended."""

    def __init__(self, link: SseLink, info: LinkInfo, heard: Ears) -> None:
        self.link = link
        self.info = info
        self.heard = heard
        self.failure: UpstreamError | None = None
        self.ended = anyio.Event()

    async def text(self, name: str, **arguments: Any) -> str:
        with anyio.fail_after(PATIENCE):
            reply = await self.link.handle(tool(name, **arguments), Recorder())
        assert isinstance(reply, Done)
        return plain(reply.result)["content"][0]["text"]


@contextlib.asynccontextmanager
async def linked(
    far: SseServer, *, capabilities: Mapping[str, Raw] | None = None, **fields: Any
) -> AsyncGenerator[Ran]:
    heard = Ears()
    made: Ran | None = None
    async with running(far) as url:
        one = server("s", transport="sse", url=f"{url}/sse", command=(), **fields)
        client = Client(url)
        link = SseLink(
            one,
            client=client,
            secrets=PlainSecrets({"env:T": "t0p"}),
            capabilities=capabilities or {},
            heard=heard,
        )

        async def run(*, task_status: anyio.abc.TaskStatus[LinkInfo]) -> None:
            try:
                await link.run(task_status=task_status)
            except UpstreamError as error:
                if made is None:
                    raise
                made.failure = error
                made.ended.set()

        try:
            async with anyio.create_task_group() as tasks:
                with anyio.fail_after(PATIENCE):
                    info = await tasks.start(run)
                made = Ran(link, info, heard)
                yield made
                tasks.cancel_scope.cancel()
        finally:
            await client.aclose()


async def refused(far: SseServer) -> UpstreamError:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with linked(far):
            pass
    inner: BaseException = caught.value
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
    assert isinstance(inner, UpstreamError)
    return inner


async def test_calls_are_answered_over_the_stream() -> None:
    far = SseServer()
    async with linked(far) as ran:
        assert (ran.info.revision, ran.info.modern) == ("2024-11-05", False)
        for at in range(100):
            assert await ran.text("echo", text=at) == str(at)

    assert far.counts["tools/call"] == 100
    assert far.counts["initialize"] == far.counts["notifications/initialized"] == 1


async def test_credentials_go_with_every_request() -> None:
    far = SseServer()
    async with linked(far, auth="bearer", secret="env:T") as ran:
        await ran.text("echo", text="x")

    assert len(far.headers) >= 4
    assert all(fields["authorization"] == "Bearer t0p" for fields in far.headers)


async def test_a_question_goes_to_the_one_who_called() -> None:
    far = SseServer()
    async with linked(far, capabilities=obj(roots={})) as ran:
        caller = Recorder(AskMode.LIVE, {"roots/list": {"roots": [1]}})
        with anyio.fail_after(PATIENCE):
            reply = await ran.link.handle(tool("ask"), caller)

    assert isinstance(reply, Done)
    assert plain(reply.result) == {"roots": {"roots": [1]}}
    assert far.capabilities == {"roots": {}}


async def test_cancelling_is_told() -> None:
    far = SseServer()
    async with linked(far) as ran:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ran.link.handle, tool("slow"), Recorder())
            with anyio.fail_after(PATIENCE):
                while "tools/call" not in far.counts:
                    await far.reached("POST", len(far.of("POST")) + 1)
                tasks.cancel_scope.cancel()
        await far.reached("notifications/cancelled")
        await ran.text("echo", text="x")

    assert len(far.cancelled) == 1


async def test_stray_notes_are_heard_and_pings_answered() -> None:
    far = SseServer()
    async with linked(far) as ran:
        await far.say(id="p", method="ping")
        await far.say(method="notifications/tools/list_changed")

        assert await ran.heard.noted(1) == [ListChanged("tools")]
        assert await far.answered("p") == {}


async def test_a_stream_that_ends_ends_the_calls() -> None:
    far = SseServer()
    async with linked(far) as ran:
        with pytest.raises(RpcError) as caught:
            await ran.text("hang_up")
        with anyio.fail_after(PATIENCE):
            await ran.ended.wait()

        assert "went away" in caught.value.message
        assert plain(caught.value.data) == {"server": "s", "stage": "read"}
        assert ran.link.lost


@pytest.mark.parametrize(("status", "stage"), [(401, "auth"), (403, "auth"), (500, "send")])
async def test_a_refused_message_fails_its_call(status: int, stage: str) -> None:
    far = SseServer()
    async with linked(far) as ran:
        far.posts = status
        with pytest.raises(RpcError) as caught:
            await ran.text("echo", text="x")

        assert plain(caught.value.data)["stage"] == stage
        assert str(status) in caught.value.message


async def test_an_endpoint_of_another_origin_is_refused() -> None:
    far = SseServer()
    far.endpoint = "https://127.0.0.1:1/messages"

    error = await refused(far)

    assert "another origin" in error.message


@pytest.mark.parametrize(
    ("told", "target"),
    [
        ("/m?s=1", "/m?s=1"),
        ("m", "/a/m"),
        ("?s=1", "/a/sse?s=1"),
        ("http://h:80/m", "/m"),
        ("http://H/m", "/m"),
    ],
)
def test_where_messages_go(told: str, target: str) -> None:
    assert endpoint("http://h/a/sse", told) == target


@pytest.mark.parametrize(
    "told",
    [
        "http://other/m",
        "//other/m",
        "https://h/m",
        "http://h:81/m",
        "http://user@h/m",
        "http://h:x/m",
        "javascript:alert(1)",
    ],
)
def test_where_messages_never_go(told: str) -> None:
    with pytest.raises(UpstreamError):
        endpoint("http://h/a/sse", told)

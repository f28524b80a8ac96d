"""What every Handler keeps to: the gateway, its wrappers, the links, and the doubles.

A subject is a Handler over a server that behaves as a test says. To put a Handler under the
contract, add a factory to SUBJECTS.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.abc
import pytest
from msgspec import Raw, Struct

from mcpgw.core.eras import METHOD_NOT_FOUND
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Context,
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
from mcpgw.model.config import EVERYTHING, Endpoint
from mcpgw.model.ports import Caller, Handler
from mcpgw.relay.gateway import Gateway
from mcpgw.relay.inputs import Driving, Parking
from tests.doubles import (
    Answer,
    PlainSeal,
    Recorder,
    ScriptedLink,
    ScriptedLinks,
    call,
    context,
    full_link,
    info,
    native,
    obj,
    plain,
    raw,
    server,
    snapshot,
)

pytestmark = pytest.mark.anyio

ONE = server("one")
CONFIG = snapshot(ONE)
CAN = obj(elicitation={}, sampling={}, roots={})
FORM = Ask("elicitation/create", obj(message="?"))


class Subject(Struct, frozen=True):
    """A Handler, the server behind it, and what its tool and resource are called there."""

    handler: Handler
    link: ScriptedLink
    ctx: Context
    tool: str
    uri: str = "x:1"

    def call(self, **params: object) -> Call:
        return call("tools/call", self.ctx, name=self.tool, **params)


Factory = Callable[[Mapping[str, Answer], bool], AbstractAsyncContextManager[Subject]]
"""(what the server answers, whether it is modern) -> a subject."""


def _link(answers: Mapping[str, Answer], modern: bool) -> ScriptedLink:
    return full_link(tools=["t"], resources=["x:1"], answers=answers, info=info(modern=modern))


@asynccontextmanager
async def _bare(answers: Mapping[str, Answer], modern: bool) -> AsyncGenerator[Subject]:
    link = _link(answers, modern)
    yield Subject(link, link, context(CONFIG, capabilities=CAN), "t")


@asynccontextmanager
async def _driving(answers: Mapping[str, Answer], modern: bool) -> AsyncGenerator[Subject]:
    link = _link(answers, modern)
    yield Subject(Driving(link), link, context(CONFIG, capabilities=CAN), "t")


class _Parked:
    """Parking with one server, as a Handler."""

    def __init__(self, parking: Parking, link: ScriptedLink) -> None:
        self._parking = parking
        self._link = link

    async def handle(self, call: Call, caller: Caller) -> Reply:
        return await self._parking.begin(self._link, call, caller, bind=b"", server="id-one")


@asynccontextmanager
async def _parking(answers: Mapping[str, Answer], modern: bool) -> AsyncGenerator[Subject]:
    link, parking = _link(answers, modern), Parking(PlainSeal())
    async with anyio.create_task_group() as tasks:
        parking.own(tasks)
        ctx = context(CONFIG, capabilities=CAN)
        yield Subject(_Parked(parking, link), link, ctx, "t")
        tasks.cancel_scope.cancel()


async def _run(gateway: Gateway, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await gateway.run(task_status=task_status)


def _gateway(endpoint: Endpoint, tool: str) -> Factory:
    @asynccontextmanager
    async def subject(answers: Mapping[str, Answer], modern: bool) -> AsyncGenerator[Subject]:
        link = _link(answers, modern)
        gateway = Gateway(ScriptedLinks({"one": link}), PlainSeal())
        async with anyio.create_task_group() as tasks:
            await tasks.start(_run, gateway)
            ctx = context(CONFIG, capabilities=CAN, endpoint=endpoint)
            yield Subject(gateway, link, ctx, tool)
            tasks.cancel_scope.cancel()

    return subject


SUBJECTS: dict[str, Factory] = {
    "double": _bare,
    "driving": _driving,
    "parking": _parking,
    "gateway": _gateway(EVERYTHING, "one__t"),
    "gateway, one server": _gateway(native(ONE), "t"),
}


@pytest.fixture(params=list(SUBJECTS))
def factory(request: pytest.FixtureRequest) -> Factory:
    return SUBJECTS[request.param]


@pytest.fixture(params=[True, False], ids=["modern", "legacy"])
def modern(request: pytest.FixtureRequest) -> bool:
    return request.param


async def test_a_result_arrives_as_it_was_given(factory: Factory, modern: bool) -> None:
    result = {
        "content": Raw(b'[{"type":"future","n":1e400,"u":"\\ud83d"}]'),
        "_meta": Raw(b'{"a":null}'),
        "later": Raw(b"123456789012345678901234567890"),
    }
    async with factory({"tools/call": Done(result, "complete")}, modern) as subject:
        reply = await subject.handler.handle(subject.call(arguments={}), Recorder())
        assert isinstance(reply, Done)
        assert reply.kind == "complete"
        assert {name: bytes(member) for name, member in reply.result.items()} == {
            name: bytes(member) for name, member in result.items()
        }


async def test_an_error_arrives_as_it_was_given(factory: Factory, modern: bool) -> None:
    error = RpcError(-1234, "went wrong", raw({"why": [1]}))
    async with factory({"tools/call": error}, modern) as subject:
        with pytest.raises(RpcError) as caught:
            await subject.handler.handle(subject.call(), Recorder())
        assert (caught.value.code, caught.value.message) == (-1234, "went wrong")
        assert caught.value.data is not None
        assert plain(caught.value.data) == {"why": [1]}


async def test_what_is_not_known_is_no_method(factory: Factory, modern: bool) -> None:
    async with factory({}, modern) as subject:
        with pytest.raises(RpcError) as caught:
            await subject.handler.handle(call("future/thing", subject.ctx), Recorder())
        assert caught.value.code == METHOD_NOT_FOUND


async def test_notes_come_in_order_and_before_the_reply(factory: Factory, modern: bool) -> None:
    notes = [Progress(obj(progress=n)) for n in range(5)] + [Log("info", obj(data="x"))]

    async def talk(asked: Call, caller: Caller) -> Reply:
        for note in notes:
            await caller.tell(note)
        return Done({})

    async with factory({"tools/call": talk}, modern) as subject:
        client = Recorder()
        await subject.handler.handle(subject.call(), client)
        assert client.notes == notes


async def test_cancelling_the_task_cancels_the_call(factory: Factory, modern: bool) -> None:
    async def forever(asked: Call, caller: Caller) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError

    async with factory({"tools/call": forever}, modern) as subject:
        async with anyio.create_task_group() as tasks:
            client = Recorder(AskMode.RETRY)
            tasks.start_soon(subject.handler.handle, subject.call(), client)
            await subject.link.reached("tools/call")
            tasks.cancel_scope.cancel()
        assert len(await subject.link.dropped()) == 1
        await subject.link.idle()


async def test_calls_do_not_mix(factory: Factory, modern: bool) -> None:
    both = anyio.Event()

    async def echo(asked: Call, caller: Caller) -> Reply:
        await caller.tell(Progress(obj(of=asked.params["arguments"])))
        if len(subject.link.of("tools/call")) == 20:
            both.set()
        await both.wait()
        return Done(obj(echo=asked.params["arguments"]))

    async def one(number: int) -> None:
        client = Recorder()
        reply = await subject.handler.handle(subject.call(arguments=number), client)
        assert isinstance(reply, Done)
        assert plain(reply.result) == {"echo": number}
        assert client.notes == [Progress(obj(of=number))]

    async with factory({"tools/call": echo}, modern) as subject:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(one, number)


async def test_a_slow_caller_holds_up_nobody_else(factory: Factory, modern: bool) -> None:
    async def talk(asked: Call, caller: Caller) -> Reply:
        await caller.tell(Progress(obj(progress=1)))
        return Done({})

    async with factory({"tools/call": talk}, modern) as subject:
        hold = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.handler.handle, subject.call(), Recorder(hold=hold))
            await subject.link.reached("tools/call")
            with anyio.fail_after(5):
                assert await subject.handler.handle(subject.call(), Recorder()) == Done({})
            hold.set()


# Parking is for callers that cannot be asked live.
@pytest.mark.parametrize("factory", [f for n, f in SUBJECTS.items() if n != "parking"])
async def test_a_legacy_server_asks_while_the_call_runs(factory: Factory) -> None:
    async def asking(asked: Call, caller: Caller) -> Reply:
        return Done(obj(got=await caller.ask(FORM)))

    async with factory({"tools/call": asking}, False) as subject:
        client = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "decline"}})
        reply = await subject.handler.handle(subject.call(), client)
        assert isinstance(reply, Done)
        assert plain(reply.result) == {"got": {"action": "decline"}}
        assert client.asked == [FORM]


async def test_a_modern_server_that_needs_input_says_so(factory: Factory) -> None:
    needs = NeedInput({"k": FORM}, None)
    async with factory({"tools/call": needs}, True) as subject:
        client = Recorder(AskMode.RETRY)
        reply = await subject.handler.handle(subject.call(), client)
        assert isinstance(reply, NeedInput)
        assert dict(reply.asks) == {"k": FORM}
        assert not client.asked


async def test_a_subscription_is_one_long_call(factory: Factory, modern: bool) -> None:
    updated = ResourceUpdated("x:1", obj(uri="x:1"))

    async def source(asked: Call, caller: Caller) -> Reply:
        await caller.tell(Listening(obj(resourceSubscriptions=["x:1"])))
        await caller.tell(updated)
        await anyio.sleep_forever()
        raise AssertionError

    async with factory({"subscriptions/listen": source}, modern) as subject:
        client = Recorder()
        wanted = {"resourceSubscriptions": [subject.uri]}
        asked = call("subscriptions/listen", subject.ctx, notifications=wanted)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subject.handler.handle, asked, client)
            await client.noted(2)
            tasks.cancel_scope.cancel()
        notes = client.notes
        assert isinstance(notes[0], Listening)
        assert plain(notes[0].wanted) == wanted
        assert notes[1] == updated
        assert not any(isinstance(note, ListChanged) for note in notes)
        assert len(await subject.link.dropped()) == 1

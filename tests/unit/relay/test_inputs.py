"""Both bridges between the eras: asking live, retrying, and what may go wrong in between."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec import Raw

from mcpgw.core import mrtr
from mcpgw.core.eras import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    LIMITED,
    MISSING_CAPABILITY,
)
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Context,
    Done,
    NeedInput,
    Note,
    Progress,
    Reply,
    RpcError,
)
from mcpgw.model.config import Principal, Target
from mcpgw.model.ports import Caller
from mcpgw.relay import inputs
from mcpgw.relay.inputs import Driving, Parking
from tests.doubles import (
    PlainSeal,
    Recorder,
    ScriptedLink,
    call,
    context,
    full_link,
    info,
    key,
    obj,
    plain,
    raw,
    server,
    snapshot,
    text_result,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A = server("a")
CONFIG = snapshot(A)
CAN = obj(elicitation={"form": {}, "url": {}}, sampling={}, roots={})
ACCEPT = {"action": "accept", "content": {"x": 1}}
FORM = Ask("elicitation/create", obj(mode="form", message="?"))
URL = Ask("elicitation/create", obj(mode="url", url="https://x", message="?"))
SAMPLE = Ask("sampling/createMessage", obj(messages=[]))
ROOTS = Ask("roots/list", {})
OK = text_result("ok")


def retrying(**fields: Any) -> Context:
    return context(CONFIG, capabilities=fields.pop("capabilities", CAN), **fields)


def living(**fields: Any) -> Context:
    return retrying(revision="2025-11-25", **fields)


def tool_call(ctx: Context, **arguments: object) -> Call:
    return call("tools/call", ctx, name="a__t", arguments=arguments)


def retry(asked: Call, state: str | None, **answers: object) -> Call:
    return msgspec.structs.replace(asked, state=state, answers=obj(**answers) if answers else None)


def modern(*asks: Ask, state: str | None = "opaque") -> ScriptedLink:
    """Needs all asks answered, then echoes the answers."""

    async def handle(asked: Call, caller: Caller) -> Reply:
        keys = {f"k{n}": ask for n, ask in enumerate(asks)}
        if asked.answers is None or set(asked.answers) != set(keys):
            return NeedInput(keys, state)
        assert asked.state == state
        return Done(obj(answers=dict(asked.answers)))

    return full_link(tools=["t"], answers={"tools/call": handle})


def legacy(*asks: Ask) -> ScriptedLink:
    """Asks live one after the other, then echoes the answers."""

    async def handle(asked: Call, caller: Caller) -> Reply:
        await caller.tell(Progress(obj(progress=1)))
        answers = [await caller.ask(ask) for ask in asks]
        return Done(obj(answers=answers))

    return full_link(tools=["t"], answers={"tools/call": handle}, info=info(modern=False))


async def error_of(house: House, asked: Call, caller: Caller) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await house.handle(asked, caller)
    return caught.value


async def needed(house: House, asked: Call) -> NeedInput:
    reply = await house.handle(asked, Recorder(AskMode.RETRY))
    assert isinstance(reply, NeedInput)
    return reply


# ---------------------------------------------------------------- legacy client, modern server


async def test_all_asks_are_asked_at_once() -> None:
    together = anyio.Event()

    async def answer(ask: Ask) -> Raw:
        if len(client.asked) == 3:
            together.set()
        await together.wait()
        return raw({"to": ask.method})

    methods = [ask.method for ask in (FORM, SAMPLE, ROOTS)]
    client = Recorder(AskMode.LIVE, dict.fromkeys(methods, answer))
    async with running({"a": modern(FORM, SAMPLE, ROOTS)}) as house:
        with anyio.fail_after(5):
            reply = await house.handle(tool_call(living()), client)
        assert isinstance(reply, Done)
        assert plain(reply.result["answers"]) == {
            f"k{n}": {"to": method} for n, method in enumerate(methods)
        }


async def test_a_client_that_refuses_an_elicitation_cancels_it() -> None:
    client = Recorder(AskMode.LIVE, {"elicitation/create": RpcError(-1, "no")})
    reply = await Driving(modern(FORM)).handle(tool_call(living()), client)
    assert isinstance(reply, Done)
    assert plain(reply.result["answers"]) == {"k0": {"action": "cancel"}}


async def test_any_other_error_of_the_client_ends_the_call() -> None:
    client = Recorder(AskMode.LIVE, {"sampling/createMessage": RpcError(-1, "rejected")})
    with pytest.raises(RpcError, match="rejected"):
        await Driving(modern(SAMPLE)).handle(tool_call(living()), client)


async def test_a_server_that_never_has_enough_is_given_up() -> None:
    async def greedy(asked: Call, caller: Caller) -> Reply:
        return NeedInput({"k": FORM}, "s")

    link = full_link(tools=["t"], answers={"tools/call": greedy})
    client = Recorder(AskMode.LIVE, {"elicitation/create": ACCEPT})
    with pytest.raises(RpcError) as caught:
        await Driving(link).handle(tool_call(living()), client)
    assert caught.value.code == INTERNAL_ERROR
    assert len(client.asked) == mrtr.MAX_ROUNDS


async def test_driving_leaves_everybody_else_alone() -> None:
    reply = await Driving(modern(FORM)).handle(tool_call(retrying()), Recorder(AskMode.RETRY))
    assert isinstance(reply, NeedInput)


@pytest.mark.parametrize(
    ("ask", "capabilities", "missing"),
    [
        (SAMPLE, obj(elicitation={}), {"sampling": {}}),
        (URL, obj(elicitation={}), {"elicitation": {"url": {}}}),
        (FORM, {}, {"elicitation": {}}),
    ],
)
async def test_what_the_client_did_not_declare_is_not_asked(
    ask: Ask, capabilities: dict[str, Raw], missing: object
) -> None:
    async with running({"a": modern(ask)}) as house:
        client = Recorder(AskMode.LIVE)
        reply = await house.handle(tool_call(living(capabilities=capabilities)), client)
        assert isinstance(reply, Done)
        assert plain(reply.result["isError"]) is True
        assert next(iter(plain(missing))) in plain(reply.result["content"])[0]["text"]
        error = await error_of(
            house, tool_call(retrying(capabilities=capabilities)), Recorder(AskMode.RETRY)
        )
        assert error.code == MISSING_CAPABILITY
        assert error.http_status == 400
        assert error.data is not None
        assert plain(error.data) == {"requiredCapabilities": plain(missing)}
        assert not client.asked


async def test_a_client_without_a_way_back_is_told_in_its_own_terms() -> None:
    async with running({"a": modern(FORM)}) as house:
        client = Recorder(AskMode.NEVER)
        reply = await house.handle(tool_call(living()), client)
        assert isinstance(reply, Done)
        assert plain(reply.result["isError"]) is True
        error = await error_of(house, tool_call(retrying()), client)
        assert error.code == MISSING_CAPABILITY


async def test_missing_capability_from_upstream_is_text_for_legacy_tools() -> None:
    link = full_link(
        tools=["t"],
        prompts=["p"],
        answers={
            "tools/call": RpcError(MISSING_CAPABILITY, "needs sampling"),
            "prompts/get": RpcError(MISSING_CAPABILITY, "needs sampling"),
        },
    )
    async with running({"a": link}) as house:
        reply = await house.handle(tool_call(living()), Recorder())
        assert isinstance(reply, Done)
        assert "needs sampling" in plain(reply.result["content"])[0]["text"]
        error = await error_of(house, call("prompts/get", living(), name="a__p"), Recorder())
        assert error.code == MISSING_CAPABILITY


# ---------------------------------------------------------------- modern client, modern server


async def test_a_modern_servers_state_travels_sealed() -> None:
    async with running({"a": modern(FORM, ROOTS)}) as house:
        asked = tool_call(retrying(), q=1)
        first = await needed(house, asked)
        assert first.asks == {"k0": FORM, "k1": ROOTS}
        assert first.state is not None
        assert first.state != "opaque"
        reply = await house.handle(
            retry(asked, first.state, k0=ACCEPT, k1={"roots": []}), Recorder(AskMode.RETRY)
        )
        assert isinstance(reply, Done)
        assert plain(reply.result["answers"]) == {"k0": ACCEPT, "k1": {"roots": []}}


async def test_a_state_belongs_to_its_principal_method_and_params() -> None:
    link = modern(FORM)
    link.answers["resources/read"] = link.answers["tools/call"]
    async with running({"a": link}) as house:
        asked = tool_call(retrying(), q=1)
        state = (await needed(house, asked)).state
        assert state is not None
        eve = key("eve", Target("*"))
        calls = len(link.of("tools/call"))
        for wrong in (
            retry(tool_call(retrying(), q=2), state, k0=ACCEPT),
            retry(tool_call(retrying(principal=eve), q=1), state, k0=ACCEPT),
            retry(asked, state[:-2], k0=ACCEPT),
            retry(asked, "", k0=ACCEPT),
            retry(asked, "opaque", k0=ACCEPT),
        ):
            error = await error_of(house, wrong, Recorder(AskMode.RETRY))
            assert error.code == INVALID_PARAMS
            assert "start the call again" in error.message
        assert len(link.of("tools/call")) == calls
        # The same params in another order are the same params.
        swapped = obj(arguments={"q": 1}, name="a__t")
        again = msgspec.structs.replace(asked, params=swapped)
        reply = await house.handle(retry(again, state, k0=ACCEPT), Recorder(AskMode.RETRY))
        assert isinstance(reply, Done)


async def test_a_state_does_not_outlive_its_server() -> None:
    again = snapshot(server("a", id="another"), generation=2)
    async with running({"a": modern(FORM)}) as house:
        asked = tool_call(retrying())
        state = (await needed(house, asked)).state
        new = tool_call(context(again, capabilities=CAN))
        error = await error_of(house, retry(new, state, k0=ACCEPT), Recorder(AskMode.RETRY))
        assert "start the call again" in error.message


async def test_answers_without_a_state_go_to_a_server_that_gave_none() -> None:
    async with running({"a": modern(FORM, state=None)}) as house:
        asked = tool_call(retrying())
        first = await needed(house, asked)
        assert first.state is None
        reply = await house.handle(retry(asked, None, k0=ACCEPT), Recorder(AskMode.RETRY))
        assert isinstance(reply, Done)


# ---------------------------------------------------------------- modern client, legacy server


async def test_a_legacy_servers_asks_become_retries() -> None:
    link = legacy(FORM, ROOTS)
    async with running({"a": link}) as house:
        asked, client = tool_call(retrying()), Recorder(AskMode.RETRY)
        one = await house.handle(asked, client)
        assert isinstance(one, NeedInput)
        assert one.asks == {"ask-1": FORM}
        assert client.notes == [Progress(obj(progress=1))]
        two = await needed(house, retry(asked, one.state, **{"ask-1": ACCEPT}))
        assert two.asks == {"ask-2": ROOTS}
        again = await needed(house, retry(asked, two.state))  # it forgot the answer
        assert again.asks == {"ask-2": ROOTS}
        answers: dict[str, object] = {"ask-2": {"roots": []}, "ask-1": 3, "x": 1}
        end = await house.handle(retry(asked, again.state, **answers), client)
        assert isinstance(end, Done)
        assert plain(end.result["answers"]) == [ACCEPT, {"roots": []}]
        assert len(link.of("tools/call")) == 1
        for state in (one.state, two.state, again.state):
            error = await error_of(house, retry(asked, state, **{"ask-2": ACCEPT}), client)
            assert error.code == INVALID_PARAMS
            assert "start the call again" in error.message
        await _given_back(house)
        assert house.gateway._parking.runs == 0


async def _given_back(house: House) -> None:
    with anyio.fail_after(5):
        while house.links.out or house.gateway._parking.runs:
            await anyio.lowlevel.checkpoint()


async def test_a_parked_call_belongs_to_its_principal_and_params() -> None:
    async with running({"a": legacy(FORM)}) as house:
        ann, eve = key("ann", Target("*")), key("eve", Target("*"))
        asked = tool_call(retrying(principal=ann))
        state = (await needed(house, asked)).state
        for wrong in (
            retry(tool_call(retrying(principal=eve)), state, **{"ask-1": ACCEPT}),
            retry(tool_call(retrying(principal=ann), q=1), state, **{"ask-1": ACCEPT}),
        ):
            error = await error_of(house, wrong, Recorder(AskMode.RETRY))
            assert "start the call again" in error.message
        reply = await house.handle(
            retry(asked, state, **{"ask-1": ACCEPT}), Recorder(AskMode.RETRY)
        )
        assert isinstance(reply, Done)


async def test_a_call_that_goes_on_cannot_be_gone_on_with_twice() -> None:
    gate = anyio.Event()

    async def handle(asked: Call, caller: Caller) -> Reply:
        await caller.ask(FORM)
        answered.set()
        await gate.wait()
        return OK

    answered = anyio.Event()
    link = full_link(tools=["t"], answers={"tools/call": handle}, info=info(modern=False))
    async with running({"a": link}) as house:
        asked = tool_call(retrying())
        again = retry(asked, (await needed(house, asked)).state, **{"ask-1": ACCEPT})
        replies: list[Reply] = []

        async def first() -> None:
            replies.append(await house.handle(again, Recorder(AskMode.RETRY)))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first)
                await answered.wait()
                error = await error_of(house, again, Recorder(AskMode.RETRY))
                assert "start the call again" in error.message
                gate.set()
        assert replies == [OK]


async def test_parking_itself_looks_at_the_owner() -> None:
    link, parking = legacy(FORM), Parking(PlainSeal())
    async with anyio.create_task_group() as tasks:
        parking.own(tasks)
        await Owned(parking).begin(link, tool_call(retrying()))
        eve = tool_call(retrying(principal=key("eve", Target("*"))))
        with pytest.raises(RpcError, match="start the call again"):
            await Owned(parking).resume(_park_of(parking), eve, Recorder())
        tasks.cancel_scope.cancel()


async def test_answers_for_a_legacy_server_never_start_a_call() -> None:
    link = legacy()
    async with running({"a": link}) as house:
        error = await error_of(
            house, retry(tool_call(retrying()), None, k0=ACCEPT), Recorder(AskMode.RETRY)
        )
        assert error.code == INVALID_PARAMS
        assert not link.of("tools/call")


async def test_a_client_that_cannot_be_asked_takes_the_straight_path() -> None:
    link = legacy()
    async with running({"a": link}) as house:
        client = Recorder(AskMode.RETRY)
        await house.handle(tool_call(retrying(capabilities={})), client)
        assert house.links.opened == ["a", "a"]  # the list and the call: no task of its own
        assert client.notes == [Progress(obj(progress=1))]


async def test_a_legacy_client_of_a_legacy_server_is_asked_live() -> None:
    async with running({"a": legacy(FORM)}) as house:
        client = Recorder(AskMode.LIVE, {"elicitation/create": ACCEPT})
        reply = await house.handle(tool_call(living()), client)
        assert isinstance(reply, Done)
        assert client.asked == [FORM]


@pytest.mark.parametrize("capabilities", [CAN, obj(elicitation={"url": {}}, sampling={})])
async def test_a_legacy_server_that_wants_a_page_visited_first_is_called_again(
    capabilities: dict[str, Raw],
) -> None:
    async def visit(asked: Call, caller: Caller) -> Reply:
        # What a link makes of -32042: the call did not run.
        return NeedInput({"k": URL}) if asked.answers is None else Done(obj(got=asked.answers))

    link = full_link(tools=["t"], answers={"tools/call": visit}, info=info(modern=False))
    async with running({"a": link}) as house:
        asked = tool_call(retrying(capabilities=capabilities))
        first = await needed(house, asked)
        assert first.asks == {"k": URL}
        for _ in range(2):
            reply = await house.handle(
                retry(asked, first.state, k={"action": "accept"}), Recorder(AskMode.RETRY)
            )
            assert isinstance(reply, Done)
            assert plain(reply.result) == {"got": {"k": {"action": "accept"}}}
        client = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept"}})
        assert isinstance(await house.handle(tool_call(living()), client), Done)


async def test_a_legacy_server_may_ask_only_what_was_declared() -> None:
    async with running({"a": legacy(SAMPLE)}) as house:
        asked = tool_call(retrying(capabilities=obj(elicitation={})))
        error = await error_of(house, asked, Recorder(AskMode.RETRY))
        assert error.code == MISSING_CAPABILITY


async def test_a_client_that_cannot_be_told_cancels_the_upstream_call() -> None:
    parked, told = anyio.Event(), anyio.Event()

    class Broken(Recorder):
        async def tell(self, note: Note) -> None:
            raise RuntimeError("broken")

    async def works(asked: Call, caller: Caller) -> Reply:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller.ask, FORM)
            await parked.wait()
            await caller.tell(Progress(obj(progress=1)))
            told.set()
            await anyio.sleep_forever()
        raise AssertionError

    link = full_link(tools=["t"], answers={"tools/call": works}, info=info(modern=False))
    async with running({"a": link}) as house:
        asked = tool_call(retrying())
        needs = await house.handle(asked, Recorder(AskMode.RETRY))
        assert isinstance(needs, NeedInput)
        parked.set()
        with anyio.fail_after(5):
            await told.wait()
        with pytest.raises(RuntimeError):
            await house.handle(retry(asked, needs.state), Broken(AskMode.RETRY))
        assert len(await link.dropped()) == 1
        await _given_back(house)


async def test_a_client_that_hangs_up_cancels_the_upstream_call() -> None:
    async def forever(asked: Call, caller: Caller) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError

    link = full_link(tools=["t"], answers={"tools/call": forever}, info=info(modern=False))
    async with running({"a": link}) as house:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.handle, tool_call(retrying()), Recorder(AskMode.RETRY))
            await link.reached("tools/call")
            tasks.cancel_scope.cancel()
        assert len(await link.dropped()) == 1
        await _given_back(house)


class Owned:
    """A Parking with a task group, for its limits."""

    def __init__(self, parking: Parking) -> None:
        self.parking = parking

    async def begin(self, link: ScriptedLink, asked: Call) -> Reply:
        client = Recorder(AskMode.RETRY)
        return await self.parking.begin(link, asked, client, bind=b"b", server="id-a")

    async def resume(self, key: str, asked: Call, client: Caller) -> Reply:
        return await self.parking.resume(key, asked, client, bind=b"b", server="id-a")


def _park_of(parking: Parking) -> str:
    (name,) = parking._runs
    return name


async def test_a_parked_call_ends_when_its_time_is_over() -> None:
    link, parking = legacy(FORM), Parking(PlainSeal(), keep=0.0)
    async with anyio.create_task_group() as tasks:
        parking.own(tasks)
        await Owned(parking).begin(link, tool_call(retrying()))
        await link.dropped()
        with pytest.raises(RpcError, match="start the call again"):
            await Owned(parking).resume("x", tool_call(retrying()), Recorder())
    assert parking.runs == 0


async def test_a_principal_has_a_bounded_number_of_parked_calls() -> None:
    link, parking = legacy(FORM), Parking(PlainSeal(), cap=2)
    async with anyio.create_task_group() as tasks:
        parking.own(tasks)
        house = Owned(parking)
        for _ in range(2):
            assert isinstance(await house.begin(link, tool_call(retrying())), NeedInput)
        with pytest.raises(RpcError) as caught:
            await house.begin(link, tool_call(retrying()))
        assert caught.value.code == LIMITED
        other = retrying(principal=key("bob", Target("*")))
        assert isinstance(await house.begin(link, tool_call(other)), NeedInput)
        assert len(await link.dropped()) == 1
        tasks.cancel_scope.cancel()


async def test_a_result_that_comes_while_parked_waits_for_its_client() -> None:
    async def impatient(asked: Call, caller: Caller) -> Reply:
        with anyio.CancelScope() as asking:
            stop.append(asking)
            await caller.ask(FORM)
        await caller.tell(Progress(obj(progress=2)))
        return OK

    stop: list[anyio.CancelScope] = []
    link = ScriptedLink({"tools/call": impatient}, info=info(modern=False))
    parking = Parking(PlainSeal())
    async with anyio.create_task_group() as tasks:
        parking.own(tasks)
        house = Owned(parking)
        assert isinstance(await house.begin(link, tool_call(retrying())), NeedInput)
        stop[0].cancel()
        await link.idle()
        client = Recorder(AskMode.RETRY)
        assert await house.resume(_park_of(parking), tool_call(retrying()), client) is OK
        assert client.notes == [Progress(obj(progress=2))]
    assert parking.runs == 0


async def test_a_fault_in_a_parked_call_is_the_callers_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = full_link(tools=["t"], answers={"tools/call": KeyError()}, info=info(modern=False))
    async with running({"a": link}) as house:
        error = await error_of(house, tool_call(retrying()), Recorder(AskMode.RETRY))
        assert error.code == INTERNAL_ERROR
        assert "a parked call failed" in caplog.text


async def test_a_revoked_key_loses_its_parked_calls() -> None:
    link = legacy(FORM)
    ann: Principal = key("ann", Target("*"))
    old = snapshot(A, principals=[ann])
    async with running({"a": link}) as house:
        ctx = context(old, principal=ann, capabilities=CAN)
        await needed(house, tool_call(ctx))
        house.gateway.changed(old, snapshot(A, generation=2))
        assert len(await link.dropped()) == 1


async def test_a_waiting_client_is_told_when_the_gateway_stops() -> None:
    async def forever(asked: Call, caller: Caller) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError

    link = full_link(tools=["t"], answers={"tools/call": forever}, info=info(modern=False))
    errors: list[RpcError] = []

    async def client(house: House) -> None:
        errors.append(await error_of(house, tool_call(retrying()), Recorder(AskMode.RETRY)))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, running({"a": link}) as house:
            tasks.start_soon(client, house)
            await link.reached("tools/call")
    assert [error.code for error in errors] == [INVALID_PARAMS]


def test_the_bounds_are_what_the_protocol_page_says() -> None:
    assert (mrtr.PARKED_TTL, mrtr.MAX_ROUNDS, inputs.PARKED) == (300.0, 10, 32)

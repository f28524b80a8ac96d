"""The conversation over one ordered channel, without a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from msgspec import Raw

from mcpgw.model.calls import (
    AskMode,
    Call,
    Done,
    ListChanged,
    Listening,
    Log,
    NeedInput,
    Note,
    OtherNote,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.ports import Caller, UpstreamError
from mcpgw.upstream import duplex
from mcpgw.upstream.duplex import Conversation
from mcpgw.upstream.inflight import INBOX
from tests.doubles import (
    PATIENCE,
    Recorder,
    call,
    context,
    info,
    obj,
    plain,
    raw,
    server,
    snapshot,
)

pytestmark = pytest.mark.anyio

PREFIX = "io.modelcontextprotocol/"


class Wire:
    """A channel whose server is the test: it sees every message and answers by hand."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.broken: UpstreamError | None = None
        self._news = anyio.Event()
        self.talk: Conversation

    def send(self, message: bytes) -> None:
        if self.broken is not None:
            raise self.broken
        self.sent.append(plain(Raw(message)))
        self._news.set()
        self._news = anyio.Event()

    def send_soon(self, message: bytes) -> None:
        self.send(message)

    async def got(self, method: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th message with this method (or, for answers, this id)."""
        with anyio.fail_after(PATIENCE):
            while (
                len(found := [m for m in self.sent if method in (m.get("method"), m.get("id"))])
                < count
            ):
                await self._news.wait()
        return found[count - 1]

    def says(self, **message: Any) -> None:
        self.talk.receive(bytes(raw({"jsonrpc": "2.0", **message})))

    def note(self, method: str, **params: Any) -> None:
        self.says(method=method, params=params)


class House:
    """A conversation that is connected, and the calls that a test makes in it."""

    def __init__(self, wire: Wire, talk: Conversation, heard: list[Note]) -> None:
        self.wire = wire
        self.talk = talk
        self.heard = heard
        self.outcomes: dict[str, Reply | RpcError] = {}
        self.ended: dict[str, anyio.Event] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.tasks: anyio.abc.TaskGroup

    def start(self, name: str, made: Call, caller: Caller | None = None) -> None:
        self.ended[name] = anyio.Event()
        self.scopes[name] = anyio.CancelScope()
        self.tasks.start_soon(self._run, name, made, caller or Recorder())

    async def _run(self, name: str, made: Call, caller: Caller) -> None:
        with self.scopes[name]:
            try:
                self.outcomes[name] = await self.talk.handle(made, caller)
            except RpcError as error:
                self.outcomes[name] = error
        self.ended[name].set()

    async def outcome(self, name: str) -> Any:
        with anyio.fail_after(PATIENCE):
            await self.ended[name].wait()
        return self.outcomes.get(name)


@contextlib.asynccontextmanager
async def house(
    *, modern: bool = False, capabilities: dict[str, Any] | None = None, timeout: float = 60.0
) -> AsyncGenerator[House]:
    wire, heard = Wire(), list[Note]()
    talk = Conversation(
        server("s", timeout=timeout),
        wire,
        capabilities=obj(**(capabilities or {})),
        heard=heard.append,
    )
    wire.talk = talk
    talk.info = info(modern=modern)
    made = House(wire, talk, heard)
    async with anyio.create_task_group() as tasks:
        made.tasks = tasks
        yield made
        tasks.cancel_scope.cancel()


CTX = context(snapshot())


def tool(name: str = "t", **fields: Any) -> Call:
    return Call("tools/call", obj(name=name), context(snapshot(), **fields))


async def test_calls_are_told_apart_by_ids_of_our_own() -> None:
    async with house() as h:
        h.start("a", tool("a"))
        h.start("b", tool("b"))
        first, second = await h.wire.got("tools/call"), await h.wire.got("tools/call", 2)

        h.wire.says(id=second["id"], result={"x": 2})
        h.wire.says(id=first["id"], result={"x": 1})

        assert first["params"] == {"name": "a"}
        assert await h.outcome("a") == Done(obj(x=1)) or plain((await h.outcome("a")).result) == {
            "x": 1
        }
        assert plain((await h.outcome("b")).result) == {"x": 2}


async def test_an_error_reaches_its_caller_as_it_was() -> None:
    async with house() as h:
        h.start("a", tool())
        id = (await h.wire.got("tools/call"))["id"]

        h.wire.says(id=id, error={"code": 7, "message": "no", "data": {"why": None}})

        error = await h.outcome("a")
        assert (error.code, error.message, plain(error.data)) == (7, "no", {"why": None})


async def test_discover_is_answered_from_what_is_known() -> None:
    async with house() as h:
        h.start("a", call("server/discover", CTX))

        assert plain((await h.outcome("a")).result)["supportedVersions"] == ["2025-11-25"]
        assert h.wire.sent == []


async def test_a_cancelled_call_says_so_and_its_late_answer_is_dropped() -> None:
    async with house() as h:
        h.start("a", tool())
        id = (await h.wire.got("tools/call"))["id"]

        h.scopes["a"].cancel()
        told = await h.wire.got("notifications/cancelled")
        h.wire.says(id=id, result={})

        assert told["params"]["requestId"] == id
        assert await h.outcome("a") is None


async def test_a_silent_server_is_given_up_and_told() -> None:
    async with house(timeout=0.05) as h:
        h.start("a", tool())

        error = await h.outcome("a")

        assert error.code == -32001
        assert plain(error.data) == {"server": "s", "stage": "read"}
        assert (await h.wire.got("notifications/cancelled"))["params"]["requestId"] == 1


async def test_a_deadline_ends_a_call_before_the_time_out() -> None:
    async with house() as h:
        h.start("a", tool(deadline=asyncio.get_running_loop().time() + 0.05))

        assert (await h.outcome("a")).code == -32001


async def test_progress_resets_the_time_out_and_is_told_in_order() -> None:
    async with house(timeout=0.2) as h:
        caller = Recorder()
        made = Call("tools/call", obj(name="t"), CTX, wants_progress=True)
        h.start("a", made, caller)
        sent = await h.wire.got("tools/call")
        token = sent["params"]["_meta"]["progressToken"]

        for step in range(4):
            await anyio.sleep(0.1)
            h.wire.note("notifications/progress", progressToken=token, progress=step)
        h.wire.says(id=sent["id"], result={})

        assert isinstance(await h.outcome("a"), Done)
        assert [plain(n.params) for n in caller.notes if isinstance(n, Progress)] == [
            {"progress": step} for step in range(4)
        ]


async def test_no_token_is_minted_for_a_caller_that_wants_no_progress() -> None:
    async with house() as h:
        h.start("a", tool(log_level="info"), caller := Recorder())
        sent = await h.wire.got("logging/setLevel")
        h.wire.says(id=sent["id"], result={})
        sent = await h.wire.got("tools/call")

        h.wire.note("notifications/progress", progressToken=sent["id"], progress=1)
        h.wire.says(id=sent["id"], result={})

        await h.outcome("a")
        assert "_meta" not in sent["params"]
        assert caller.notes == []


async def test_a_slow_caller_delays_nobody_else_and_loses_only_notes() -> None:
    async with house() as h:
        hold = anyio.Event()
        slow = Recorder(hold=hold)
        h.start("slow", Call("tools/call", obj(name="t"), CTX, wants_progress=True), slow)
        h.start("quick", tool())
        first, second = await h.wire.got("tools/call"), await h.wire.got("tools/call", 2)

        for step in range(INBOX + 100):
            h.wire.note("notifications/progress", progressToken=first["id"], progress=step)
        h.wire.says(id=first["id"], result={})
        h.wire.says(id=second["id"], result={})

        assert isinstance(await h.outcome("quick"), Done)
        assert not h.ended["slow"].is_set()
        hold.set()
        assert isinstance(await h.outcome("slow"), Done)
        assert INBOX <= len(slow.notes) < INBOX + 100
        assert h.talk.dropped == INBOX + 100 - len(slow.notes)


async def test_logs_go_to_the_only_call_and_by_its_level() -> None:
    async with house() as h:
        h.start("a", tool(log_level="warning"), caller := Recorder())
        level = await h.wire.got("logging/setLevel")
        h.wire.says(id=level["id"], result={})
        sent = await h.wire.got("tools/call")

        h.wire.note("notifications/message", level="info", data="a")
        h.wire.note("notifications/message", level="error", data="b")
        h.wire.says(id=sent["id"], result={})

        await h.outcome("a")
        assert level["params"] == {"level": "warning"}
        assert [n.level for n in caller.notes if isinstance(n, Log)] == ["error"]


async def test_a_list_that_is_fetched_meanwhile_takes_no_logs() -> None:
    async with house() as h:
        h.start("a", tool(log_level="debug"), caller := Recorder())
        h.wire.says(id=(await h.wire.got("logging/setLevel"))["id"], result={})
        sent = await h.wire.got("tools/call")
        h.start("list", call("tools/list", CTX))
        await h.wire.got("tools/list")

        h.wire.note("notifications/message", level="error", data="the call's")
        h.wire.says(id=sent["id"], result={})

        await h.outcome("a")
        assert len(caller.notes) == 1


async def test_logs_that_could_be_anybodys_are_dropped() -> None:
    async with house() as h:
        h.start("a", tool(log_level="debug"), caller := Recorder())
        h.wire.says(id=(await h.wire.got("logging/setLevel"))["id"], result={})
        sent = await h.wire.got("tools/call")
        h.start("b", tool())
        await h.wire.got("tools/call", 2)

        h.wire.note("notifications/message", level="error", data="whose?")
        h.wire.says(id=sent["id"], result={})

        await h.outcome("a")
        assert caller.notes == []


async def test_the_level_is_set_once_and_only_to_a_more_verbose_one() -> None:
    async with house() as h:
        for name, level in (("a", "info"), ("b", "error"), ("c", "debug")):
            h.start(name, tool(log_level=level))
            if name != "b":
                at = 1 if name == "a" else 2
                h.wire.says(id=(await h.wire.got("logging/setLevel", at))["id"], result={})
            at = "abc".index(name) + 1
            h.wire.says(id=(await h.wire.got("tools/call", at))["id"], result={})
            await h.outcome(name)

        levels = [m["params"]["level"] for m in h.wire.sent if m["method"] == "logging/setLevel"]
        assert levels == ["info", "debug"]


async def test_ping_is_answered_and_unknown_requests_are_refused() -> None:
    async with house() as h:
        h.wire.says(id="p", method="ping")
        h.wire.says(id="u", method="unknown/thing", params={})

        assert (await h.wire.got("p"))["result"] == {}
        assert (await h.wire.got("u"))["error"]["code"] == -32601


ASKS: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}


async def test_a_question_reaches_the_one_who_called() -> None:
    async with house(capabilities=ASKS) as h:
        caller = Recorder(AskMode.LIVE, {"elicitation/create": {"action": "accept", "x": None}})
        h.start("a", tool(), caller)
        sent = await h.wire.got("tools/call")

        h.wire.says(id="q", method="elicitation/create", params={"message": "Who?"})
        answer = await h.wire.got("q")
        h.wire.says(id=sent["id"], result={})

        await h.outcome("a")
        assert answer["result"] == {"action": "accept", "x": None}
        assert plain(caller.asked[0].params) == {"message": "Who?"}


async def test_a_refusal_of_the_caller_goes_back_to_the_server() -> None:
    async with house(capabilities=ASKS) as h:
        h.start("a", tool(), Recorder(AskMode.LIVE))
        await h.wire.got("tools/call")

        h.wire.says(id="q", method="roots/list")

        assert (await h.wire.got("q"))["error"]["code"] == -32601


REFUSALS = [
    ("elicitation/create", {"result": {"action": "cancel"}}),
    ("sampling/createMessage", {"error": -1}),
    ("roots/list", {"error": -32601}),
]


@pytest.mark.parametrize(("method", "answer"), REFUSALS)
@pytest.mark.parametrize("calls", ["none", "two", "never"])
async def test_a_question_of_no_single_caller_is_refused(
    method: str, answer: dict[str, Any], calls: str
) -> None:
    async with house(capabilities=ASKS) as h:
        mode = AskMode.NEVER if calls == "never" else AskMode.LIVE
        for at in range({"none": 0, "two": 2, "never": 1}[calls]):
            h.start(str(at), tool(), Recorder(mode))
            await h.wire.got("tools/call", at + 1)

        h.wire.says(id="q", method=method, params={})

        told = await h.wire.got("q")
        assert told.get("result") == answer.get("result")
        assert ("error" in answer) == ("error" in told)
        assert "error" not in told or told["error"]["code"] == answer["error"]


@pytest.mark.parametrize("modern", [False, True])
async def test_nobody_is_asked_over_a_link_that_declared_nothing(modern: bool) -> None:
    async with house(modern=modern, capabilities=ASKS if modern else None) as h:
        h.start("a", tool(), caller := Recorder(AskMode.LIVE))
        await h.wire.got("tools/call")

        h.wire.says(id="q", method="elicitation/create", params={})

        assert (await h.wire.got("q"))["result"] == {"action": "cancel"}
        assert caller.asked == []


async def test_two_calls_of_one_session_can_be_asked() -> None:
    async with house(capabilities=ASKS) as h:
        answers: dict[str, Any] = {"roots/list": {"roots": []}}
        for at in range(2):
            h.start(str(at), tool(session="s1"), Recorder(AskMode.LIVE, answers))
            await h.wire.got("tools/call", at + 1)

        h.wire.says(id="q", method="roots/list")

        assert (await h.wire.got("q"))["result"] == {"roots": []}


async def test_the_time_out_rests_while_a_person_is_asked() -> None:
    async with house(capabilities=ASKS, timeout=0.1) as h:
        asked, go = anyio.Event(), anyio.Event()

        async def think(_: object) -> Raw:
            asked.set()
            await go.wait()
            return raw({"action": "decline"})

        h.start("a", tool(), Recorder(AskMode.LIVE, {"elicitation/create": think}))
        sent = await h.wire.got("tools/call")
        h.wire.says(id="q", method="elicitation/create", params={})
        await asked.wait()
        await anyio.sleep(0.3)
        assert not h.ended["a"].is_set()
        go.set()
        await h.wire.got("q")
        h.wire.says(id=sent["id"], result={})

        assert isinstance(await h.outcome("a"), Done)


@pytest.mark.parametrize("by", ["result", "cancelled"])
async def test_a_question_that_is_no_longer_asked_is_withdrawn(by: str) -> None:
    async with house(capabilities=ASKS) as h:
        asked, dropped = anyio.Event(), anyio.Event()

        async def think(_: object) -> Raw:
            asked.set()
            try:
                await anyio.sleep_forever()
            finally:
                dropped.set()
            raise AssertionError

        h.start("a", tool(), Recorder(AskMode.LIVE, {"elicitation/create": think}))
        sent = await h.wire.got("tools/call")
        h.wire.says(id="q", method="elicitation/create", params={})
        await asked.wait()
        if by == "cancelled":
            h.wire.note("notifications/cancelled", requestId="q")
            with anyio.fail_after(PATIENCE):
                await dropped.wait()
        h.wire.says(id=sent["id"], result={})

        assert isinstance(await h.outcome("a"), Done)
        assert dropped.is_set()
        assert all(message.get("id") != "q" for message in h.wire.sent)


async def test_when_the_server_is_lost_every_call_ends_with_the_reason() -> None:
    async with house() as h:
        h.start("a", tool())
        h.start("b", Call("tools/call", obj(name="t"), CTX, wants_progress=True))
        await h.wire.got("tools/call", 2)

        h.talk.lost(UpstreamError("read", "exited with status 3"))

        for name in "ab":
            error = await h.outcome(name)
            assert (error.code, error.message) == (-32000, 'server "s" exited with status 3')
            assert plain(error.data) == {"server": "s", "stage": "read"}
        h.start("c", tool())
        assert (await h.outcome("c")).code == -32000
        assert len(h.wire.sent) == 2


async def test_a_call_that_cannot_be_sent_fails_at_once() -> None:
    async with house() as h:
        h.wire.broken = UpstreamError("send", "does not read its input")
        h.start("a", tool())

        assert plain((await h.outcome("a")).data) == {"server": "s", "stage": "send"}


@pytest.mark.parametrize(
    "junk", [b"hello", b"{", b'{"x":1}', b"[1]", b"\xff\xfe", b"[" * 2000, b"null"]
)
async def test_junk_is_counted_and_harms_nobody(junk: bytes) -> None:
    async with house() as h:
        h.start("a", tool())
        sent = await h.wire.got("tools/call")

        h.talk.receive(junk)
        h.wire.says(id=999, result={})
        h.wire.says(id=sent["id"], result={})

        assert isinstance(await h.outcome("a"), Done)
        assert h.talk.junk >= (0 if junk == b"[1]" else 1)


async def test_junk_is_logged_a_few_times_only(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as h:
        for _ in range(100):
            h.talk.receive(b"x" * 10_000)

        assert len(caplog.records) == duplex.JUNK_LOGGED
        assert max(len(record.getMessage()) for record in caplog.records) < 600


async def test_an_answer_that_is_no_result_fails_its_call_at_once() -> None:
    async with house() as h:
        h.start("a", tool())
        sent = await h.wire.got("tools/call")

        h.wire.says(id=sent["id"], result=[1])

        assert "answered badly" in (await h.outcome("a")).message


async def test_a_bad_request_with_our_id_does_not_end_our_call() -> None:
    async with house() as h:
        h.start("a", tool())
        sent = await h.wire.got("tools/call")

        h.wire.says(id=sent["id"], method="ping", params=[1])
        h.wire.says(id=sent["id"], result={})

        assert isinstance(await h.outcome("a"), Done)


async def test_a_batch_is_taken_apart() -> None:
    async with house() as h:
        h.start("a", tool())
        sent = await h.wire.got("tools/call")

        batch: list[Any] = [{"jsonrpc": "2.0", "id": sent["id"], "result": {}}]
        h.talk.receive(bytes(raw([{"jsonrpc": "2.0", "id": "p", "method": "ping"}, *batch])))

        assert isinstance(await h.outcome("a"), Done)
        assert (await h.wire.got("p"))["result"] == {}


async def test_an_endless_batch_is_junk() -> None:
    async with house() as h:
        ping: dict[str, Any] = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        h.talk.receive(bytes(raw([ping] * 257)))
        h.talk.receive(bytes(raw({**ping, "id": "q"})))

        assert (await h.wire.got("q"))["result"] == {}
        assert h.talk.junk == 1


async def test_notes_of_no_call_are_heard() -> None:
    async with house() as h:
        h.wire.note("notifications/tools/list_changed")
        h.wire.note("notifications/resources/updated", uri="a:b")
        h.wire.note("notifications/odd", x=1)

        assert [type(note) for note in h.heard] == [ListChanged, ResourceUpdated, OtherNote]


# ---------------------------------------------------------------- modern


async def test_a_modern_request_says_all_about_itself() -> None:
    async with house(modern=True) as h:
        h.start("a", tool(capabilities=obj(elicitation={}), log_level="info"))
        meta = (await h.wire.got("tools/call"))["params"]["_meta"]

        assert meta[PREFIX + "protocolVersion"] == "2026-07-28"
        assert meta[PREFIX + "clientCapabilities"] == {"elicitation": {}}
        assert meta[PREFIX + "logLevel"] == "info"
        assert all(message["method"] != "logging/setLevel" for message in h.wire.sent)


async def test_input_required_is_a_reply_of_its_own() -> None:
    async with house(modern=True) as h:
        h.start("a", tool())
        sent = await h.wire.got("tools/call")

        asks = {"k": {"method": "roots/list"}}
        h.wire.says(
            id=sent["id"],
            result={"resultType": "input_required", "inputRequests": asks, "requestState": "S"},
        )

        reply = await h.outcome("a")
        assert isinstance(reply, NeedInput)
        assert (reply.state, list(reply.asks)) == ("S", ["k"])


async def test_a_malformed_modern_result_is_the_servers_fault() -> None:
    async with house(modern=True) as h:
        h.start("a", tool())
        h.wire.says(
            id=(await h.wire.got("tools/call"))["id"], result={"resultType": "input_required"}
        )

        assert (await h.outcome("a")).code == -32000


async def test_modern_logs_go_to_the_one_call_that_asked() -> None:
    async with house(modern=True) as h:
        h.start("quiet", tool())
        h.start("asks", tool(log_level="debug"), caller := Recorder())
        await h.wire.got("tools/call", 2)

        h.wire.note("notifications/message", level="error", data="x")

        assert isinstance((await caller.noted(1))[0], Log)


def listen(**wanted: Any) -> Call:
    return call("subscriptions/listen", CTX, notifications=wanted)


async def test_modern_listeners_get_what_carries_their_id() -> None:
    async with house(modern=True) as h:
        one, two = Recorder(), Recorder()
        h.start("one", listen(toolsListChanged=True), one)
        h.start("two", listen(resourceSubscriptions=["a:b"]), two)
        first = await h.wire.got("subscriptions/listen")
        second = await h.wire.got("subscriptions/listen", 2)
        ids = [{PREFIX + "subscriptionId": sent["id"]} for sent in (first, second)]

        acknowledged = "notifications/subscriptions/acknowledged"
        h.wire.note(acknowledged, notifications={"toolsListChanged": True}, _meta=ids[0])
        h.wire.note(acknowledged, notifications={}, _meta=ids[1])
        h.wire.note("notifications/tools/list_changed", _meta=ids[0])
        h.wire.note("notifications/resources/updated", uri="a:b", _meta=ids[1])
        await one.noted(2)
        await two.noted(2)
        h.wire.says(id=first["id"], result={"resultType": "complete", "_meta": ids[0]})
        h.scopes["two"].cancel()

        assert await h.outcome("one") == Done({})
        assert (
            plain((await h.wire.got("notifications/cancelled"))["params"]["requestId"])
            == second["id"]
        )
        assert one.notes == [Listening(one.notes[0].wanted), ListChanged("tools")]  # type: ignore[union-attr]
        assert isinstance(two.notes[1], ResourceUpdated)
        assert h.heard == []


async def test_a_subscription_that_is_never_acknowledged_times_out() -> None:
    async with house(modern=True, timeout=0.05) as h:
        h.start("a", listen(toolsListChanged=True))

        assert (await h.outcome("a")).code == -32001


async def test_an_acknowledged_subscription_has_no_time_out() -> None:
    async with house(modern=True, timeout=0.05) as h:
        h.start("a", listen(toolsListChanged=True), caller := Recorder())
        sent = await h.wire.got("subscriptions/listen")
        meta = {PREFIX + "subscriptionId": sent["id"]}
        h.wire.note("notifications/subscriptions/acknowledged", notifications={}, _meta=meta)
        await caller.noted(1)

        await anyio.sleep(0.15)

        assert not h.ended["a"].is_set()


async def test_a_listener_that_falls_behind_is_lost_not_cut() -> None:
    async with house(modern=True) as h:
        hold = anyio.Event()
        h.start("a", listen(toolsListChanged=True), Recorder(hold=hold))
        sent = await h.wire.got("subscriptions/listen")
        meta = {PREFIX + "subscriptionId": sent["id"]}
        for _ in range(INBOX + 2):
            h.wire.note("notifications/tools/list_changed", _meta=meta)
        hold.set()

        assert "more notes" in (await h.outcome("a")).message


async def test_a_modern_link_follows_the_lists_of_its_server() -> None:
    async with house(modern=True) as h:
        h.tasks.start_soon(h.talk.follow)
        sent = await h.wire.got("subscriptions/listen")

        h.wire.note(
            "notifications/prompts/list_changed", _meta={PREFIX + "subscriptionId": sent["id"]}
        )

        assert h.heard == [ListChanged("prompts")]
        assert sent["params"]["notifications"] == {
            "toolsListChanged": True,
            "promptsListChanged": True,
            "resourcesListChanged": True,
        }


# ---------------------------------------------------------------- legacy subscriptions


async def subscribed(h: House, at: int) -> None:
    h.wire.says(id=(await h.wire.got("resources/subscribe", at))["id"], result={})


async def test_legacy_subscriptions_are_counted() -> None:
    async with house() as h:
        one, two = Recorder(), Recorder()
        h.start("one", listen(resourceSubscriptions=["a:1", "a:2"]), one)
        await subscribed(h, 1)
        await subscribed(h, 2)
        await one.noted(1)
        h.start("two", listen(resourceSubscriptions=["a:2"]), two)
        await two.noted(1)

        h.wire.note("notifications/resources/updated", uri="a:2")
        h.wire.note("notifications/resources/updated", uri="a:1")
        await one.noted(3)
        await two.noted(2)
        h.scopes["one"].cancel()
        await h.outcome("one")
        assert (await h.wire.got("resources/unsubscribe"))["params"] == {"uri": "a:1"}
        h.scopes["two"].cancel()
        assert (await h.wire.got("resources/unsubscribe", 2))["params"] == {"uri": "a:2"}

        methods = [message["method"] for message in h.wire.sent]
        assert methods.count("resources/subscribe") == 2
        assert [n.uri for n in two.notes if isinstance(n, ResourceUpdated)] == ["a:2"]


async def test_a_refused_subscription_is_not_acknowledged() -> None:
    async with house() as h:
        h.start(
            "a", listen(resourceSubscriptions=["a:1"], toolsListChanged=True), one := Recorder()
        )
        sent = await h.wire.got("resources/subscribe")
        h.wire.says(id=sent["id"], error={"code": 1, "message": "no"})

        first = (await one.noted(1))[0]
        assert isinstance(first, Listening)
        assert plain(first.wanted) == {"toolsListChanged": True, "resourceSubscriptions": []}


async def test_a_lost_server_ends_a_legacy_subscription_with_an_error() -> None:
    async with house() as h:
        h.start("a", listen(toolsListChanged=True), one := Recorder())
        await one.noted(1)

        h.talk.lost(UpstreamError("read", "went away"))

        assert (await h.outcome("a")).code == -32000


async def test_client_notes_are_passed_on() -> None:
    async with house() as h:
        duplex.tell(h.talk, OtherNote("notifications/roots/list_changed", {}))

        assert await h.wire.got("notifications/roots/list_changed")

"""Tasks of both eras: handles, whose they are, and what cannot be bridged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpgw.core.eras import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, UPSTREAM_FAILED
from mcpgw.core.extensions import TASKS
from mcpgw.model.calls import (
    Ask,
    AskMode,
    Call,
    Context,
    Done,
    Listening,
    NeedInput,
    OtherNote,
    Progress,
    Reply,
    RpcError,
    TaskChanged,
)
from mcpgw.model.config import Target
from mcpgw.model.ports import Caller, LinkInfo
from mcpgw.relay import handles as handles_module
from mcpgw.relay import tasks as tasks_module
from tests.doubles import (
    Answer,
    Recorder,
    ScriptedLink,
    call,
    context,
    full_link,
    info,
    key,
    native,
    obj,
    plain,
    raw,
    server,
    snapshot,
    text_result,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B = server("a"), server("b")
CONFIG = snapshot(A, B)
ANN, BOB = key("ann", Target("*")), key("bob", Target("*"))
KNOWS = obj(extensions={TASKS: {}}, elicitation={})
RELATED = "io.modelcontextprotocol/related-task"
CORE: dict[str, Any] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
PLAIN = text_result("plain")


def modern(**fields: Any) -> Context:
    defaults: Any = {"principal": ANN, "capabilities": KNOWS}
    return context(CONFIG, **{**defaults, **fields})


def legacy(session: str = "s1", **fields: Any) -> Context:
    defaults: Any = {"principal": ANN, "revision": "2025-11-25", "session": session}
    return context(CONFIG, **{**defaults, **fields})


def has_extension() -> LinkInfo:
    return info(capabilities={"tools": {}, "extensions": {TASKS: {}}})


def has_core(revision: str = "2025-11-25", **tasks: Any) -> LinkInfo:
    told = {"tools": {}, "tasks": tasks or CORE}
    return info(modern=False, revision=revision, capabilities=told)


def task(id: str, status: str = "working", **more: Any) -> dict[str, Any]:
    return {"taskId": id, "status": status, "ttlMs": None, **more}


async def created(call: Call, caller: Caller) -> Reply:
    """A modern server that gives a task to who knows of tasks."""
    if "extensions" not in call.ctx.capabilities:
        return PLAIN
    return Done(obj(**task("7", x=None)), "task")


async def augmented(call: Call, caller: Caller) -> Reply:
    """A 2025-11-25 server."""
    if "task" not in call.params:
        return PLAIN
    return Done(obj(task=task("7", x=None), _meta={"m": 1}))


def new_link(**answers: Answer) -> ScriptedLink:
    script: dict[str, Answer] = {"tools/call": created}
    script |= {name.replace("_", "/"): answer for name, answer in answers.items()}
    return full_link(tools=["work", "other"], answers=script, info=has_extension())


def old_link(**answers: Answer) -> ScriptedLink:
    script: dict[str, Answer] = {"tools/call": augmented}
    script |= {name.replace("_", "/"): answer for name, answer in answers.items()}
    return full_link(tools=["work", "other"], answers=script, info=has_core())


async def done(house: House, asked: Call, caller: Recorder | None = None) -> Any:
    reply = await house.handle(asked, caller or Recorder())
    assert isinstance(reply, Done)
    return plain(reply.result)


async def refusal(house: House, asked: Call) -> tuple[int, str]:
    with pytest.raises(RpcError) as caught:
        await house.handle(asked, Recorder())
    return caught.value.code, caught.value.message


async def begun(house: House, ctx: Context, name: str = "a__work") -> str:
    """The handle of a task that was begun."""
    if ctx.revision == "2026-07-28":
        told = await done(house, call("tools/call", ctx, name=name))
    else:
        told = (await done(house, call("tools/call", ctx, name=name, task={"ttl": 5})))["task"]
    assert told["status"] == "working"
    assert told["x"] is None
    return told["taskId"]


UNKNOWN = (INVALID_PARAMS, "Task not found")


# ---------------------------------------------------------------- the extension


async def test_a_task_is_given_under_a_handle_and_found_by_it() -> None:
    got = Done(obj(**task("7", "completed", result={"content": []}, n=1)))
    link = new_link(tasks_get=got, tasks_update=Done({}), tasks_cancel=Done({}))
    async with running({"a": link, "b": new_link()}) as house:
        reply = await house.handle(call("tools/call", modern(), name="a__work"), Recorder())
        assert isinstance(reply, Done)
        assert reply.kind == "task"
        handle = plain(reply.result["taskId"])
        assert handle != "7"
        assert handle.isascii()

        told = await done(house, call("tasks/get", modern(), taskId=handle, more=1))
        assert told == task(handle, "completed", result={"content": []}, n=1)
        assert plain(link.of("tasks/get")[0].params) == {"taskId": "7", "more": 1}

        answers = obj(name={"action": "accept"})
        update = Call("tasks/update", obj(taskId=handle), modern(), answers=answers)
        assert await done(house, update) == {}
        (sent,) = link.of("tasks/update")
        assert plain(sent.params) == {"taskId": "7"}
        assert plain(sent.answers) == plain(answers)

        assert await done(house, call("tasks/cancel", modern(), taskId=handle)) == {}
        assert plain(link.of("tasks/cancel")[0].params) == {"taskId": "7"}
        assert not house.gateway._handles.all  # pyright: ignore[reportPrivateUsage]


async def test_a_handle_outlives_the_gateway() -> None:
    async with running({"a": new_link()}) as house:
        handle = await begun(house, modern())
    link = new_link(tasks_get=Done(obj(**task("7"))))
    async with running({"a": link}) as house:
        told = await done(house, call("tasks/get", modern(), taskId=handle))
        assert told["taskId"] == handle


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_anothers_task_looks_unknown(method: str) -> None:
    link = new_link(**{method.replace("/", "_"): Done({})})
    async with running({"a": link, "b": full_link()}) as house:
        handle = await begun(house, modern())
        changed = handle[:-1] + ("A" if handle[-1] != "A" else "B")
        for ctx, id in (
            (modern(principal=BOB), handle),
            (modern(), "7"),
            (modern(), ""),
            (modern(), changed),
            (modern(endpoint=native(B)), handle),
        ):
            assert await refusal(house, call(method, ctx, taskId=id)) == UNKNOWN
        assert not link.of(method)
        await done(house, call(method, modern(endpoint=native(A)), taskId=handle))
        code, message = await refusal(house, call(method, modern(), taskId=7))
        assert code == INVALID_PARAMS
        assert "taskId" in message


async def test_who_lost_the_tool_lost_the_task() -> None:
    link = new_link(tasks_get=Done({}))
    async with running({"a": link}) as house:
        handle = await begun(house, modern())
        for denied in (Target("id-a", "tool", "work"), Target("id-a")):
            ann = key("ann", Target("*"), denies=[denied])
            ctx = modern(principal=ann)
            assert await refusal(house, call("tasks/get", ctx, taskId=handle)) == UNKNOWN
        ctx = context(snapshot(B), principal=ANN, capabilities=KNOWS)
        assert await refusal(house, call("tasks/get", ctx, taskId=handle)) == UNKNOWN
        assert not link.of("tasks/get")


async def test_whoever_did_not_declare_tasks_gets_none() -> None:
    link = new_link(tasks_get=Done({}))
    async with running({"a": link}) as house:
        without = modern(capabilities=obj(elicitation={}))
        assert await done(house, call("tools/call", without, name="a__work")) == plain(PLAIN.result)
        handle = await begun(house, modern())
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            with pytest.raises(RpcError) as caught:
                await house.handle(call(method, without, taskId=handle), Recorder())
            assert caught.value.code == MISSING_CAPABILITY
            assert plain(caught.value.data) == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        assert not link.of("tasks/get")


async def test_a_task_that_nobody_asked_for_is_a_fault_of_the_server() -> None:
    link = new_link(tools_call=Done(obj(**task("7")), "task"), prompts_get=Done({}, "task"))
    link.answers["prompts/list"] = full_link(prompts=["p"]).answers["prompts/list"]
    link.info = info(capabilities={"tools": {}, "prompts": {}, "extensions": {TASKS: {}}})
    async with running({"a": link}) as house:
        for ctx in (modern(capabilities={}), legacy(capabilities=KNOWS)):
            code, message = await refusal(house, call("tools/call", ctx, name="a__work"))
            assert (code, "which nobody declared" in message) == (UPSTREAM_FAILED, True)
        code, _ = await refusal(house, call("prompts/get", modern(), name="a__p"))
        assert code == UPSTREAM_FAILED


async def test_the_kind_of_another_extension_passes_where_it_can_be_known() -> None:
    link = new_link(tools_call=Done(obj(x=1), "com.example/kind"))
    async with running({"a": link}) as house:
        at_one = modern(endpoint=native(A))
        reply = await house.handle(call("tools/call", at_one, name="work"), Recorder())
        assert isinstance(reply, Done)
        assert reply.kind == "com.example/kind"
        for ctx, name in ((modern(), "a__work"), (legacy(endpoint=native(A)), "work")):
            assert (await refusal(house, call("tools/call", ctx, name=name)))[0] == UPSTREAM_FAILED


async def test_a_task_may_come_after_input() -> None:
    async def asks(call: Call, caller: Caller) -> Reply:
        if call.answers is None:
            return NeedInput({"name": Ask("elicitation/create", obj(mode="form"))}, "state")
        return Done(obj(**task("7")), "task")

    link = new_link(tools_call=asks, tasks_get=Done(obj(**task("7"))))
    async with running({"a": link}) as house:
        asked = call("tools/call", modern(), name="a__work")
        first = await house.handle(asked, Recorder(AskMode.RETRY))
        assert isinstance(first, NeedInput)
        retry = Call(asked.method, asked.params, asked.ctx, answers=obj(name={}), state=first.state)
        second = await house.handle(retry, Recorder(AskMode.RETRY))
        assert isinstance(second, Done)
        assert second.kind == "task"
        handle = plain(second.result["taskId"])
        assert (await done(house, call("tasks/get", modern(), taskId=handle)))["taskId"] == handle


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list", "tasks/status"])
async def test_methods_of_the_other_form_are_unknown(method: str) -> None:
    async with running({"a": new_link()}) as house:
        handle = await begun(house, modern())
        code, _ = await refusal(house, call(method, modern(), taskId=handle))
        assert code == METHOD_NOT_FOUND
    async with running({"a": old_link()}) as house:
        handle = await begun(house, legacy())
        code, _ = await refusal(house, call("tasks/update", legacy(), taskId=handle))
        assert code == METHOD_NOT_FOUND


async def test_errors_about_a_task_pass() -> None:
    link = new_link(tasks_get=RpcError(-32602, "Task has expired", raw({"a": 1})))
    async with running({"a": link}) as house:
        handle = await begun(house, modern())
        asked = call("tasks/get", modern(), taskId=handle)
        assert await refusal(house, asked) == (-32602, "Task has expired")


# ---------------------------------------------------------------- what is told of tasks


@asynccontextmanager
async def listening(house: House, ctx: Context, **wanted: Any) -> AsyncGenerator[Recorder]:
    client = Recorder()
    async with anyio.create_task_group() as tasks:
        asked = call("subscriptions/listen", ctx, notifications=wanted)
        tasks.start_soon(house.handle, asked, client)
        await client.noted(1)
        yield client
        tasks.cancel_scope.cancel()


async def test_news_of_tasks_come_under_their_handles() -> None:
    async def listen(call: Call, caller: Caller) -> Reply:
        assert plain(call.params["notifications"]) == {"taskIds": ["7"]}
        await caller.tell(Listening(obj(taskIds=["7"])))
        await caller.tell(TaskChanged("8", obj(**task("8"))))
        await caller.tell(TaskChanged("7", obj(**task("7"))))
        await caller.tell(TaskChanged("7", obj(**task("7", "completed", n=1))))
        await anyio.sleep_forever()
        raise AssertionError

    link = new_link()
    link.answers["subscriptions/listen"] = listen
    async with running({"a": link, "b": new_link()}) as house:
        handle, foreign = await begun(house, modern()), await begun(house, modern(principal=BOB))
        async with listening(house, modern(), taskIds=[handle, foreign, "7"]) as client:
            (first, *_) = client.notes
            assert isinstance(first, Listening)
            assert plain(first.wanted) == {"taskIds": [handle]}
            while not (
                isinstance(client.notes[-1], TaskChanged) and "n" in client.notes[-1].params
            ):
                await client.noted(len(client.notes) + 1)
            changes = [note for note in client.notes if isinstance(note, TaskChanged)]
            assert {note.id for note in changes} == {handle}
            assert plain(changes[-1].params) == task(handle, "completed", n=1)


async def test_listening_to_tasks_needs_the_extension() -> None:
    async with running({"a": new_link()}) as house:
        ctx = modern(capabilities={})
        wanted = {"taskIds": ["x"]}
        code, _ = await refusal(house, call("subscriptions/listen", ctx, notifications=wanted))
        assert code == MISSING_CAPABILITY


async def test_news_of_a_handshake_server_reach_only_the_session_that_holds_the_task() -> None:
    async with running({"a": old_link()}) as house:
        handle = await begun(house, legacy("s1"))
        own = {"mcpgw/tasks": True}
        async with (
            listening(house, legacy("s1"), **own) as mine,
            listening(house, legacy("s2"), **own) as other,
            listening(house, legacy("s1", principal=BOB), **own) as bob,
            listening(house, legacy("s1"), toolsListChanged=True) as deaf,
        ):
            for scope, id in (("key-ann", "7"), ("key-bob", "7"), ("key-ann", "8")):
                told = task(id, "completed" if scope == "key-ann" else "failed")
                house.gateway.heard("id-a", scope, TaskChanged(id, obj(**told)))
            house.gateway.heard("id-b", "key-ann", TaskChanged("7", obj(**task("7"))))
            notes = await mine.noted(2)
            assert notes[1:] == [TaskChanged(handle, obj(**task(handle, "completed")))]
            await anyio.wait_all_tasks_blocked()
            assert [len(one.notes) for one in (mine, other, bob, deaf)] == [2, 1, 1, 1]
        # Whoever used the task last is told.
        house.links.links["a"] = old_link(tasks_get=Done(obj(**task("7"))))
        await done(house, call("tasks/get", legacy("s2"), taskId=handle))
        async with listening(house, legacy("s2"), **own) as other:
            house.gateway.heard("id-a", "key-ann", TaskChanged("7", obj(**task("7"))))
            await other.noted(2)


# ---------------------------------------------------------------- 2025-11-25


async def test_a_task_that_was_asked_for_is_found_by_its_handle() -> None:
    result = Done(obj(content=[], _meta={RELATED: {"taskId": "7"}, "x": 1}))
    link = old_link(
        tasks_get=Done(obj(**task("7", "completed"))),
        tasks_result=result,
        tasks_cancel=Done(obj(**task("7", "cancelled"))),
    )
    async with running({"a": link, "b": old_link()}) as house:
        handle = await begun(house, legacy())
        sent = link.of("tools/call")[0]
        assert plain(sent.params) == {"name": "work", "task": {"ttl": 5}}
        told = await done(house, call("tasks/get", legacy(), taskId=handle))
        assert told == task(handle, "completed")
        told = await done(house, call("tasks/result", legacy(), taskId=handle))
        assert told == {"content": [], "_meta": {RELATED: {"taskId": handle}, "x": 1}}
        told = await done(house, call("tasks/cancel", legacy(), taskId=handle))
        assert told == task(handle, "cancelled")
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            assert plain(link.of(method)[0].params) == {"taskId": "7"}
            for ctx in (legacy(principal=BOB), legacy(endpoint=native(B))):
                assert await refusal(house, call(method, ctx, taskId=handle)) == UNKNOWN
            older = legacy(revision="2025-06-18")
            assert (await refusal(house, call(method, older, taskId=handle)))[0] == METHOD_NOT_FOUND


async def test_a_task_has_one_handle() -> None:
    async with running({"a": old_link()}) as house:
        handle = await begun(house, legacy())
        house.seal.now = 1.0  # from now on handles look different
        assert await begun(house, legacy("s2")) == handle
        assert await begun(house, legacy(principal=BOB)) != handle


async def test_news_of_a_task_end_with_the_right_to_its_tool() -> None:
    ann = key("ann", Target("*"), denies=[Target("id-a", "tool", "work")])
    async with running({"a": old_link()}) as house:
        await begun(house, legacy())
        async with listening(house, legacy(), **{"mcpgw/tasks": True}) as client:
            house.gateway.changed(CONFIG, snapshot(A, B, principals=[ann], generation=2))
            await anyio.wait_all_tasks_blocked()
            house.gateway.heard("id-a", "key-ann", TaskChanged("7", obj(**task("7"))))
            await anyio.wait_all_tasks_blocked()
            assert len(client.notes) == 1


async def test_a_task_is_its_principals_in_every_session() -> None:
    link = old_link(tasks_get=Done(obj(**task("7"))))
    async with running({"a": link}) as house:
        handle = await begun(house, legacy("s1"))
        assert (await done(house, call("tasks/get", legacy("s2"), taskId=handle)))["status"]


@pytest.mark.parametrize(
    ("ctx", "link", "kept"),
    [
        (legacy(), new_link(), False),  # no tasks across eras
        (legacy(revision="2025-06-18"), old_link(), False),
        (modern(capabilities={}), old_link(), False),
        (modern(capabilities={}), new_link(), True),  # it means nothing there
    ],
)
async def test_where_tasks_cannot_be_had_a_call_runs_plainly(
    ctx: Context, link: ScriptedLink, kept: bool
) -> None:
    async with running({"a": link}) as house:
        asked = call("tools/call", ctx, name="a__work", task={}, arguments={"a": 1})
        assert await done(house, asked) == plain(PLAIN.result)
        params = {"name": "work", "arguments": {"a": 1}}
        assert plain(link.of("tools/call")[0].params) == (
            {**params, "task": {}} if kept else params
        )


async def test_servers_without_tasks_for_tools_run_calls_plainly() -> None:
    declared: Any = ({"list": {}}, {"requests": {}})
    for told in declared:
        link = old_link()
        link.info = has_core(**told)
        async with running({"a": link}) as house:
            asked = call("tools/call", legacy(), name="a__work", task={})
            assert await done(house, asked) == plain(PLAIN.result)


async def test_a_task_of_one_form_is_unknown_to_the_other() -> None:
    link = new_link(tasks_get=Done({}))
    async with running({"a": link}) as house:
        handle = await begun(house, modern())
        assert await refusal(house, call("tasks/get", legacy(), taskId=handle)) == UNKNOWN
        house.links.links["a"] = old_link(tasks_get=Done({}))
        assert await refusal(house, call("tasks/get", modern(), taskId=handle)) == UNKNOWN


async def test_questions_about_a_task_name_its_handle_and_so_do_the_answers() -> None:
    told: list[Any] = []

    async def result(call: Call, caller: Caller) -> Reply:
        about = {RELATED: {"taskId": "7"}}
        await caller.tell(OtherNote("x/y", obj(_meta=about)))
        await caller.tell(Progress(obj(progress=1)))
        told.append(plain(await caller.ask(Ask("elicitation/create", obj(m=1, _meta=about)))))
        told.append(plain(await caller.ask(Ask("elicitation/create", obj(m=2)))))
        return Done(obj(content=[]))

    link = old_link(tasks_result=result)
    async with running({"a": link}) as house:
        handle = await begun(house, legacy())
        related = {RELATED: {"taskId": handle}}
        client = Recorder(
            AskMode.LIVE, {"elicitation/create": {"action": "accept", "_meta": related}}
        )
        await done(house, call("tasks/result", legacy(), taskId=handle), client)
        assert plain(client.asked[0].params) == {"m": 1, "_meta": related}
        assert plain(client.asked[1].params) == {"m": 2}
        assert told[0] == {"action": "accept", "_meta": {RELATED: {"taskId": "7"}}}
        assert client.notes == [OtherNote("x/y", obj(_meta=related)), Progress(obj(progress=1))]


async def test_news_of_a_task_in_the_course_of_any_call_name_its_handle() -> None:
    async def work(call: Call, caller: Caller) -> Reply:
        if "task" not in call.params:
            await caller.tell(OtherNote("x", obj(_meta={RELATED: {"taskId": "7"}})))
        return await augmented(call, caller)

    async with running({"a": old_link(tools_call=work)}) as house:
        ann, bob = Recorder(), Recorder()
        handle = await begun(house, legacy())
        await done(house, call("tools/call", legacy(), name="a__other"), ann)
        await done(house, call("tools/call", legacy(principal=BOB), name="a__other"), bob)
        assert ann.notes == [OtherNote("x", obj(_meta={RELATED: {"taskId": handle}}))]
        assert bob.notes == [OtherNote("x", obj(_meta={RELATED: {"taskId": "7"}}))]


# ---------------------------------------------------------------- lists of tasks


def paged(*pages: list[str]) -> Answer:
    async def handle(call: Call, caller: Caller) -> Reply:
        at = int(plain(call.params["cursor"])) if "cursor" in call.params else 0
        result = obj(tasks=[task(id) for id in pages[at]])
        if at + 1 < len(pages):
            result["nextCursor"] = raw(str(at + 1))
        return Done(result)

    return handle


async def listed(house: House, ctx: Context) -> list[list[str]]:
    pages: list[list[str]] = []
    params: dict[str, Any] = {}
    while len(pages) < 20:
        told = await done(house, call("tasks/list", ctx, **params))
        pages.append([one["taskId"] for one in told["tasks"]])
        if "nextCursor" not in told:
            break
        params = {"cursor": told["nextCursor"]}
    return pages


async def test_a_list_has_ones_own_tasks_alone_page_by_page() -> None:
    a, b = old_link(tasks_list=paged(["1", "7"], [], ["3"])), old_link(tasks_list=paged(["7"]))
    async with running({"a": a, "b": b}) as house:
        assert await listed(house, legacy()) == [[]]
        mine = await begun(house, legacy(), "a__work")
        assert await listed(house, legacy()) == [[mine], [], []]
        there = await begun(house, legacy(), "b__work")
        assert await listed(house, legacy("s2")) == [[mine], [], [], [there]]
        assert await listed(house, legacy(endpoint=native(B))) == [[there]]
        assert await listed(house, legacy(principal=BOB)) == [[]]
        house.links.links["a"] = RpcErrorLink()
        assert await listed(house, legacy()) == [[], [there]]


class RpcErrorLink(ScriptedLink):
    """A server that fails at everything."""

    def __init__(self) -> None:
        super().__init__({"tasks/list": RpcError(-32603, "broken")}, info=has_core())


async def test_cursors_of_a_list_are_ones_own() -> None:
    a = old_link(tasks_list=paged(["7"], ["8"]))
    async with running({"a": a}) as house:
        await begun(house, legacy())
        cursor = (await done(house, call("tasks/list", legacy())))["nextCursor"]
        for ctx, token in (
            (legacy(principal=BOB), cursor),
            (legacy(), cursor[:-2]),
            (legacy(), "1"),
        ):
            code, message = await refusal(house, call("tasks/list", ctx, cursor=token))
            assert (code, "cursor" in message) == (INVALID_PARAMS, True)
        code, _ = await refusal(house, call("tasks/list", legacy(), cursor=1))
        assert code == INVALID_PARAMS


async def test_a_list_without_end_is_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks_module, "MAX_PAGES", 3)
    count = iter(range(100))

    async def endless(call: Call, caller: Caller) -> Reply:
        return Done(obj(tasks=[], nextCursor=str(next(count))))

    for answer, pages in ((endless, 4), (Done(obj(tasks=[], nextCursor="x")), 2)):
        async with running({"a": old_link(tasks_list=answer)}) as house:
            await begun(house, legacy())
            assert len(await listed(house, legacy())) == pages
            assert "no end of tasks" in caplog.text
            caplog.clear()


# ---------------------------------------------------------------- what is remembered


async def test_what_is_remembered_is_bounded_and_goes_with_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handles_module, "MAX_KNOWN", 3)
    ids = iter("12345")

    async def work(call: Call, caller: Caller) -> Reply:
        return Done(obj(task=task(next(ids), x=None)))

    link = old_link(tools_call=work, tasks_list=paged(list("12345")))
    async with running({"a": link}) as house:
        made = [await begun(house, legacy()) for _ in range(5)]
        assert await listed(house, legacy()) == [made[2:]]
        house.gateway.changed(CONFIG, snapshot(B))
        assert await listed(house, legacy()) == [[]]
        assert not house.gateway._handles.all  # pyright: ignore[reportPrivateUsage]

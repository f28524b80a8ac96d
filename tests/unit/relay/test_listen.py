"""subscriptions/listen: who is told what, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from mcpgw.core.eras import METHOD_NOT_FOUND, UPSTREAM_FAILED
from mcpgw.model.calls import (
    Call,
    Context,
    Done,
    ListChanged,
    Listening,
    Note,
    OtherNote,
    Progress,
    Reply,
    ResourceUpdated,
    RpcError,
)
from mcpgw.model.config import Target
from mcpgw.model.ports import Caller
from mcpgw.relay import listen
from tests.doubles import (
    Recorder,
    ScriptedLink,
    call,
    context,
    full_link,
    key,
    native,
    obj,
    plain,
    server,
    snapshot,
)
from tests.unit.relay.house import House, running

pytestmark = pytest.mark.anyio

A, B = server("a"), server("b")
CONFIG = snapshot(A, B)
LISTS: dict[str, Any] = {
    "toolsListChanged": True,
    "promptsListChanged": True,
    "resourcesListChanged": True,
}


class Ear:
    """One open listen call of a client."""

    def __init__(self, client: Recorder, scope: anyio.CancelScope) -> None:
        self.client = client
        self.scope = scope
        self.ended = anyio.Event()
        self.outcome: Reply | RpcError | None = None

    async def heard(self, count: int) -> list[Note]:
        """The notes after the acknowledgement, once there are `count`."""
        return (await self.client.noted(count + 1))[1:]

    def honoured(self) -> Any:
        (first, *_) = self.client.notes
        assert isinstance(first, Listening)
        return plain(first.wanted)

    async def end(self) -> Reply | RpcError | None:
        with anyio.fail_after(5):
            await self.ended.wait()
        return self.outcome


@asynccontextmanager
async def listening(
    house: House, ctx: Context, client: Recorder | None = None, **wanted: object
) -> AsyncGenerator[Ear]:
    """A client that listens until the block ends; entered when it was acknowledged."""
    async with anyio.create_task_group() as tasks:
        ear = Ear(client or Recorder(), tasks.cancel_scope)

        async def run() -> None:
            asked = call("subscriptions/listen", ctx, notifications=wanted)
            try:
                ear.outcome = await house.handle(asked, ear.client)
            except RpcError as error:
                ear.outcome = error
            ear.ended.set()

        tasks.start_soon(run)
        if client is None or client.hold is None:
            await ear.client.noted(1)
        yield ear
        tasks.cancel_scope.cancel()


class Source(ScriptedLink):
    """A server with resources, which tells of changes when the test says so."""

    def __init__(self, *uris: str, takes: tuple[str, ...] | None = None) -> None:
        super().__init__(full_link(resources=uris).answers)
        self.answers["subscriptions/listen"] = self._listen
        self.callers: list[Caller] = []
        self.lost = anyio.Event()
        self._takes = takes

    async def _listen(self, asked: Call, caller: Caller) -> Reply:
        wanted = plain(asked.params["notifications"])["resourceSubscriptions"]
        taken = [uri for uri in wanted if self._takes is None or uri in self._takes]
        self.callers.append(caller)
        await caller.tell(Listening(obj(resourceSubscriptions=taken)))
        await self.lost.wait()
        raise RpcError(UPSTREAM_FAILED, "lost")

    async def update(self, uri: str) -> None:
        await self.callers[-1].tell(ResourceUpdated(uri, obj(uri=uri, extra=None)))


async def test_the_first_note_says_what_is_honoured() -> None:
    async with (
        running({"a": Source("x:1", takes=("x:1",)), "b": full_link()}) as house,
        listening(
            house,
            context(CONFIG),
            toolsListChanged=True,
            promptsListChanged=False,
            resourceSubscriptions=["x:1", "x:none"],
            future={"x": 1},
        ) as ear,
    ):
        assert ear.honoured() == {"toolsListChanged": True, "resourceSubscriptions": ["x:1"]}


async def test_list_changes_reach_those_they_concern() -> None:
    ann = key("ann", Target("id-a"))
    prompts_only = key("bob", Target("id-a", "prompt"))
    async with (
        running({"a": full_link(), "b": full_link()}) as house,
        listening(house, context(CONFIG, principal=ann), **LISTS) as mine,
        listening(house, context(CONFIG, principal=ann), toolsListChanged=True) as tools_only,
        listening(house, context(CONFIG, principal=prompts_only), **LISTS) as others,
        listening(house, context(CONFIG), **LISTS) as owners,
        listening(house, context(CONFIG, endpoint=native(B)), **LISTS) as elsewhere,
    ):
        heard = house.gateway.heard
        heard("id-a", ann.id, OtherNote("notifications/x", {}))
        heard("id-b", ann.id, ListChanged("tools"))
        heard("id-a", ann.id, ListChanged("prompts"))
        heard("id-a", ann.id, ListChanged("tools"))
        heard("id-a", prompts_only.id, ListChanged("tools"))
        heard("id-a", "owner", ListChanged("resources"))
        heard("id-b", "owner", ListChanged("tools"))
        assert await mine.heard(2) == [ListChanged("prompts"), ListChanged("tools")]
        assert await tools_only.heard(1) == [ListChanged("tools")]
        assert await owners.heard(2) == [ListChanged("resources"), ListChanged("tools")]
        assert await elsewhere.heard(1) == [ListChanged("tools")]
        assert await others.heard(0) == []


async def test_a_pending_change_is_not_queued_twice() -> None:
    hold = anyio.Event()
    client = Recorder(hold=hold)
    async with (
        running({"a": full_link(), "b": full_link()}) as house,
        listening(house, context(CONFIG), client, **LISTS) as ear,
        listening(house, context(CONFIG), toolsListChanged=True) as quick,
    ):
        for count in range(1, 4):
            house.gateway.heard("id-a", "owner", ListChanged("tools"))
            await quick.heard(count)
        house.gateway.heard("id-a", "owner", ListChanged("prompts"))
        house.gateway.heard("id-a", "owner", ListChanged("tools"))
        await quick.heard(4)
        hold.set()
        assert await ear.heard(2) == [ListChanged("tools"), ListChanged("prompts")]


async def test_a_storm_costs_little() -> None:
    async with (
        running({"a": full_link()}) as house,
        listening(house, context(snapshot(A)), **LISTS) as ear,
    ):
        for _ in range(10_000):
            house.gateway.heard("id-a", "owner", ListChanged("tools"))
        house.gateway.heard("id-a", "owner", ListChanged("prompts"))
        assert await ear.heard(2) == [ListChanged("tools"), ListChanged("prompts")]


async def test_resources_are_grouped_by_server_and_mapped_both_ways() -> None:
    one, two = Source("x:1", "x:2", "x:both"), Source("x:both", "x:3")
    uris = ["x:1", "x:2", "mcpgw:a/x:both", "mcpgw:b/x:both", "x:3"]
    async with (
        running({"a": one, "b": two}) as house,
        listening(house, context(CONFIG), resourceSubscriptions=uris) as ear,
    ):
        assert ear.honoured() == {"resourceSubscriptions": uris}
        assert [len(link.of("subscriptions/listen")) for link in (one, two)] == [1, 1]
        (seen,) = one.of("subscriptions/listen")
        assert plain(seen.params["notifications"]) == {
            "resourceSubscriptions": ["x:1", "x:2", "x:both"]
        }
        await one.update("x:both")
        await one.update("x:1/below")
        await one.update("x:none")
        await two.update("x:both")
        notes = await ear.heard(3)
        assert [note.uri for note in notes if isinstance(note, ResourceUpdated)] == [
            "mcpgw:a/x:both",
            "x:1/below",
            "mcpgw:b/x:both",
        ]
        assert isinstance(notes[0], ResourceUpdated)
        assert plain(notes[0].params) == {"uri": "mcpgw:a/x:both", "extra": None}
    assert len(one.cancelled) == len(two.cancelled) == 1
    assert house.links.out == 0


async def test_denied_resources_are_silently_not_honoured() -> None:
    ann = key("ann", Target("id-a", "resource", "x:1*"))
    one, two = Source("x:1", "x:2"), Source("x:3")
    async with (
        running({"a": one, "b": two}) as house,
        listening(
            house,
            context(CONFIG, principal=ann),
            resourceSubscriptions=["x:1", "x:2", "x:3", "x:none", 5],
        ) as ear,
    ):
        assert ear.honoured() == {"resourceSubscriptions": ["x:1"]}
        assert not two.calls


async def test_a_server_that_takes_no_subscriptions_is_not_asked_again() -> None:
    link = Source("x:1")
    link.answers["subscriptions/listen"] = RpcError(METHOD_NOT_FOUND, "no")
    async with (
        running({"a": link}) as house,
        listening(house, context(snapshot(A)), resourceSubscriptions=["x:1"]) as ear,
    ):
        assert ear.honoured() == {"resourceSubscriptions": []}
        assert len(link.of("subscriptions/listen")) == 1


async def test_a_server_that_does_not_answer_is_not_honoured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "LIST_WAIT", 0.01)
    async with running({"a": Source("x:1")}) as house:
        house.links.hold("a")
        ctx = context(snapshot(A))
        async with listening(house, ctx, resourceSubscriptions=["x:1"]) as ear:
            assert ear.honoured() == {"resourceSubscriptions": []}


async def test_a_lost_server_is_listened_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "RELISTEN", (0.0, 0.0))
    link = Source("x:1")
    async with (
        running({"a": link}) as house,
        listening(house, context(snapshot(A)), resourceSubscriptions=["x:1"]) as ear,
    ):
        lost, link.lost = link.lost, anyio.Event()
        lost.set()
        # What happened meanwhile is unknown, so the resource counts as updated.
        assert await ear.heard(1) == [ResourceUpdated("x:1", obj(uri="x:1"))]
        await link.reached("subscriptions/listen", 2)
        await link.update("x:1")
        assert len(await ear.heard(2)) == 2


async def test_progress_and_logs_of_a_subscription_are_dropped() -> None:
    link = Source("x:1")
    async with (
        running({"a": link}) as house,
        listening(house, context(snapshot(A)), resourceSubscriptions=["x:1"]) as ear,
    ):
        await link.callers[0].tell(Progress({}))
        await link.update("x:1")
        assert len(await ear.heard(1)) == 1


async def test_a_listener_that_falls_behind_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "INBOX", 2)
    link = Source("x:")
    client = Recorder()
    async with (
        running({"a": link}) as house,
        listening(house, context(snapshot(A)), client, resourceSubscriptions=["x:"]) as ear,
    ):
        client.hold = anyio.Event()  # it stops reading
        for number in range(10):
            await link.update(f"x:{number}")
            await anyio.lowlevel.checkpoint()
        outcome = await ear.end()
        assert isinstance(outcome, RpcError)
        assert outcome.code == UPSTREAM_FAILED
        assert "lost" in outcome.message


async def test_the_gateways_end_is_a_clean_end() -> None:
    client = Recorder()
    outcomes: list[Reply] = []

    async def run(house: House) -> None:
        asked = call("subscriptions/listen", context(CONFIG), notifications=LISTS)
        outcomes.append(await house.handle(asked, client))

    async with anyio.create_task_group() as tasks, running({}) as house:
        tasks.start_soon(run, house)
        await client.noted(1)
    assert outcomes == [Done({})]


async def test_a_revoked_key_ends_its_listens() -> None:
    ann, bob = key("ann", Target("id-a")), key("bob", Target("id-a"))
    old = snapshot(A, B, principals=[ann, bob])
    new = snapshot(A, B, principals=[bob], generation=2)
    async with (
        running({}) as house,
        listening(house, context(old, principal=ann), **LISTS) as hers,
        listening(house, context(old, principal=bob), **LISTS) as his,
    ):
        house.gateway.changed(old, new)
        assert await hers.end() == Done({})
        house.gateway.heard("id-a", bob.id, ListChanged("tools"))
        assert await his.heard(1) == [ListChanged("tools")]
        assert not his.ended.is_set()


async def test_a_changed_configuration_is_a_change_of_what_one_sees() -> None:
    ann = key("ann", Target("id-a"))
    old = snapshot(A, principals=[ann])
    new = snapshot(A, B, principals=[ann], generation=2)
    wider = key("ann", Target("id-a"), Target("id-b"))
    widest = snapshot(A, B, principals=[wider], generation=3)
    async with (
        running({}) as house,
        listening(house, context(old, principal=ann), toolsListChanged=True) as hers,
        listening(house, context(old), toolsListChanged=True) as owners,
        listening(house, context(old, endpoint=native(A)), **LISTS) as elsewhere,
    ):
        house.gateway.changed(old, new)
        assert await owners.heard(1) == [ListChanged("tools")]
        house.gateway.heard("id-b", ann.id, ListChanged("tools"))  # not hers to see
        house.gateway.changed(new, widest)
        assert await hers.heard(1) == [ListChanged("tools")]
        house.gateway.heard("id-b", ann.id, ListChanged("tools"))
        assert len(await hers.heard(2)) == 2
        assert len(await owners.heard(1)) == 1
        gone = snapshot(B, principals=[wider], generation=4)
        house.gateway.changed(widest, gone)
        assert await elsewhere.end() == Done({})
        assert await elsewhere.heard(0) == []


async def test_a_narrowed_key_hears_no_more_of_a_resource() -> None:
    link = Source("x:1", "x:2")
    ann = key("ann", Target("id-a", "resource"))
    narrowed = key("ann", Target("id-a", "resource", "x:2"))
    old = snapshot(A, principals=[ann])
    new = snapshot(A, principals=[narrowed], generation=2)
    async with (
        running({"a": link}) as house,
        listening(
            house,
            context(old, principal=ann),
            resourcesListChanged=True,
            resourceSubscriptions=["x:1", "x:2"],
        ) as ear,
    ):
        house.gateway.changed(old, new)
        await ear.heard(1)
        await link.update("x:1")
        await link.update("x:2")
        notes = await ear.heard(2)
        assert [note.uri for note in notes if isinstance(note, ResourceUpdated)] == ["x:2"]


async def test_what_begins_late_begins_under_the_newest_configuration() -> None:
    link = Source("x:1", "x:2")
    ann = key("ann", Target("id-a", "resource"))
    bob = key("bob", Target("id-a"))
    narrowed = key("ann", Target("id-a", "resource", "x:2"))
    old = snapshot(A, principals=[ann, bob])
    new = snapshot(A, principals=[narrowed], generation=2)
    wanted: dict[str, Any] = {"resourceSubscriptions": ["x:1", "x:2"]}
    async with running({"a": link}) as house:
        house.gateway.changed(old, new)
        async with listening(house, context(old, principal=ann), **wanted) as ear:
            assert ear.honoured() == {"resourceSubscriptions": ["x:2"]}
        gone = call("subscriptions/listen", context(old, principal=bob), notifications=wanted)
        assert await house.handle(gone, Recorder()) == Done({})
        house.gateway.changed(new, snapshot(generation=3))
        late = call("subscriptions/listen", context(old, endpoint=native(A)), notifications=wanted)
        with pytest.raises(RpcError):
            await house.handle(late, Recorder())
        assert len(link.of("subscriptions/listen")) == 1


async def test_nothing_is_left_behind() -> None:
    link = Source("x:1")
    async with running({"a": link}) as house:
        for _ in range(3):
            async with listening(house, context(snapshot(A)), resourceSubscriptions=["x:1"]):
                pass
        assert len(house.gateway._listens) == 0  # pyright: ignore[reportPrivateUsage]
        assert len(link.cancelled) == 3
        assert house.links.out == 0
        unchanged = msgspec.structs.replace(snapshot(A), generation=9)
        house.gateway.changed(snapshot(A), unchanged)

"""What the pool keeps for one configured server, as plain state without tasks.

A Site is a server's configuration and what was learned of it; a Berth is whose link it is and
holds the Slots, each of which is one link. Most berths hold one link that many calls share. A berth
is exclusive when its server cannot say which call a question belongs to and its caller has no
session: then a link carries one call at a time and further ones open beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import anyio
from msgspec import Raw, Struct

from mcpgw.model.config import Server
from mcpgw.model.ports import Lease, Link, LinkInfo, UpstreamError
from mcpgw.upstream.http1 import Client

BACKOFF_FIRST: Final = 0.5  # seconds that a failure to connect is remembered
BACKOFF_MOST: Final = 30.0  # the same after many failures in a row
EXCLUSIVE_LINKS: Final = 8  # links of one berth that take one call at a time

Era: TypeAlias = Literal["modern", "legacy", "sse"]
State: TypeAlias = Literal["connecting", "up", "failed"]


class LinkReport(Struct, frozen=True, kw_only=True):
    """One line of the status: a link, or a server that could not be reached.

    since: when the state began, in seconds since the epoch.
    """

    server_id: str
    scope: str
    state: State
    transport: str
    revision: str | None
    in_flight: int
    since: float
    error: str | None
    pid: int | None


class Slot:
    """One link, from the first attempt to connect until its end."""

    __slots__ = (
        "berth",
        "cancel",
        "in_flight",
        "info",
        "lease",
        "link",
        "listening",
        "retired",
        "since",
        "state",
        "used",
    )

    def __init__(self, berth: Berth) -> None:
        self.berth = berth
        self.cancel = anyio.CancelScope()
        self.link: Link | None = None
        self.info: LinkInfo | None = None
        self.lease: Lease | None = None
        self.state: State = "connecting"
        self.in_flight = 0
        self.listening = 0  # subscriptions, which take nobody's turn
        self.used = 0.0  # on the event loop's clock
        self.since = time.time()
        self.retired = False

    @property
    def busy(self) -> bool:
        return self.in_flight > 0 or self.listening > 0 or self.state == "connecting"

    @property
    def lost(self) -> bool:
        """Its server is gone, though the link is still cleaning up."""
        return getattr(self.link, "lost", False)

    def let_go(self) -> None:
        """End the link now; no further call gets it."""
        self.retired = True
        if self in self.berth.slots:
            self.berth.slots.remove(self)
        self.cancel.cancel()


class Berth:
    """The links of one scope, and who waits for one of them, in order."""

    __slots__ = (
        "alone",
        "capabilities",
        "home",
        "key",
        "legacy",
        "scope",
        "site",
        "slots",
        "waiters",
    )

    def __init__(
        self,
        site: Site,
        key: str,
        scope: str,
        *,
        home: str,
        capabilities: Mapping[str, Raw],
        alone: bool,
        legacy: bool,
    ) -> None:
        self.site = site
        self.key = key
        self.scope = scope
        self.home = home  # whose it is, whatever they can be asked
        self.legacy = legacy  # links of a modern server that are met in the old way
        self.capabilities = capabilities  # the caller's, which its links declare
        self.alone = alone  # its caller has no session that would own the link
        self.slots: list[Slot] = []
        self.waiters: deque[asyncio.Future[Slot]] = deque()

    @property
    def exclusive(self) -> bool:
        """One call at a time; not known before a first link is up."""
        if not (self.capabilities and self.alone):
            return False
        infos = [slot.info for slot in self.slots if slot.info is not None]
        return any(not info.modern and not info.asks_in_stream for info in infos)

    def pick(self) -> Slot | None:
        """A link that can take a call now."""
        exclusive = bool(self.capabilities) and self.exclusive
        for slot in self.slots:
            if slot.state == "up" and not (exclusive and slot.in_flight) and not slot.lost:
                return slot
        return None

    def any_up(self) -> Slot | None:
        """A link that can take a subscription, whatever else it carries."""
        for slot in self.slots:
            if slot.state == "up" and not slot.lost:
                return slot
        return None

    def room(self) -> bool:
        """Whether another link should be opened for those who wait."""
        live = [slot for slot in self.slots if not slot.lost]
        if not live:
            return True
        if not self.exclusive or len(live) >= EXCLUSIVE_LINKS:
            return False
        return sum(slot.state == "connecting" for slot in live) < len(self.waiters)

    def serve(self) -> None:
        """Hand free links to those who wait longest."""
        waiters = self.waiters
        while waiters:
            if waiters[0].done():
                waiters.popleft()
                continue
            slot = self.pick()
            if slot is None:
                return
            slot.in_flight += 1
            waiters.popleft().set_result(slot)

    def fail(self, error: UpstreamError) -> None:
        """No link is left: whoever waits gets `error`."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(again(error))


class Site:
    """One configured server: its links, its era, its last failure, its limit."""

    def __init__(self, server: Server, generation: int) -> None:
        self.server = server
        self.generation = generation  # of the snapshot that `server` is from
        self.slots: set[Slot] = set()
        self.berths: dict[str, Berth] = {}
        self.era: Era | None = None
        self.legacy: bool | None = None  # a modern server's other tongue; None: not tried yet
        self.client: Client | None = None
        self.probing = asyncio.Lock()
        self.retired = False
        self.limit = server.max_concurrent
        self.running = 0
        self.queue: deque[asyncio.Future[None]] = deque()
        self._failure: UpstreamError | None = None
        self._failed_at = 0.0
        self._failures = 0
        self._until = 0.0

    def failed(self, error: UpstreamError, now: float) -> None:
        """Connecting failed: remember it for a while."""
        wait = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._failures, 16))
        self._failures += 1
        self._failure, self._failed_at = error, time.time()
        self._until = float("inf") if error.permanent else now + wait

    def connected(self) -> None:
        self._failure = None
        self._failures = 0

    def failure(self, now: float) -> UpstreamError | None:
        """The failure that is still remembered, as an error of its own."""
        if self._failure is None or now >= self._until:
            return None
        return again(self._failure)

    def free(self) -> None:
        """A call of a server with a limit ended: let the next one run."""
        self.running -= 1
        while self.queue:
            waiter = self.queue.popleft()
            if not waiter.done():
                self.running += 1
                waiter.set_result(None)
                return

    def fail(self, error: UpstreamError) -> None:
        """Whoever waits for a turn gets `error`."""
        while self.queue:
            waiter = self.queue.popleft()
            if not waiter.done():
                waiter.set_exception(again(error))

    def transport(self) -> str:
        server = self.server
        if server.transport == "auto":
            return "stdio" if server.command else "sse" if self.era == "sse" else "http"
        return server.transport

    def reports(self) -> list[LinkReport]:
        reports = [
            LinkReport(
                server_id=self.server.id,
                scope=slot.berth.scope,
                state=slot.state,
                transport=self.transport(),
                revision=None if slot.info is None else slot.info.revision,
                in_flight=slot.in_flight,
                since=slot.since,
                error=None,
                pid=getattr(slot.link, "pid", None),
            )
            for slot in sorted(self.slots, key=lambda slot: slot.since)
        ]
        if self._failure is not None and not reports:
            reports.append(
                LinkReport(
                    server_id=self.server.id,
                    scope="",
                    state="failed",
                    transport=self.transport(),
                    revision=None,
                    in_flight=0,
                    since=self._failed_at,
                    error=self._failure.message,
                    pid=None,
                )
            )
        return reports


def again(error: UpstreamError) -> UpstreamError:
    """A copy to raise: an exception that is raised twice keeps both tracebacks."""
    return UpstreamError(error.stage, error.message, permanent=error.permanent)

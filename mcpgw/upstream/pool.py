"""Where the relay gets links from: opened when first needed, shared, kept warm, ended when idle.

Links run as tasks of the pool, whoever asked first. A lease on a warm link is two dictionary
look-ups and a counter. Whose link a call gets is decided in one place, `_berth`: by the server's
isolation, and for legacy servers by what the caller can be asked, because such a server hears of
the client's capabilities once and may then ask at any time (protocol, section 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal

import anyio
import anyio.abc
from msgspec import Raw

from mcpgw.core import extensions, wire
from mcpgw.core.eras import CLIENT_ASKS, LEGACY, LIMITED
from mcpgw.core.handshake import declared
from mcpgw.model.calls import NOTHING, Context, Note, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Heard, Lease, Link, LinkInfo, Secrets, UpstreamError
from mcpgw.upstream import auth, connect, links
from mcpgw.upstream.http1 import Client
from mcpgw.upstream.site import Berth, LinkReport, Site, Slot

__all__ = ["LinkReport", "Pool"]

IDLE_STDIO: Final = 600.0  # seconds without a call after which a child process is ended
IDLE_HTTP: Final = 300.0  # seconds without a call after which an HTTP session is ended
LOOK: Final = 5.0  # seconds between looks for idle links
RETIRE_WAIT: Final = 30.0  # seconds that calls in flight have when their server's entry changed
CONNECT_WAIT: Final = 90.0  # seconds one attempt to connect may take in all
MAX_LINKS: Final = 64  # links of one server
MAX_CHILDREN: Final = 256  # child processes of all servers
RETRY_AFTER: Final = 1.0  # seconds a refused caller is told to wait

_LEGACY: Final = frozenset(LEGACY)
_ASKS: Final = tuple(sorted(CLIENT_ASKS))
_log = logging.getLogger("mcpgw.upstream")


class Pool:
    """Links to every server, by scope. `run` must be running while leases are taken."""

    def __init__(self, *, secrets: Secrets, heard: Heard) -> None:
        self._secrets = secrets
        self._heard = heard
        self._sites: dict[str, Site] = {}
        self._retired: list[Site] = []
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep links until cancelled; then end all of them, children included."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                try:
                    while True:
                        await anyio.sleep(LOOK)
                        self._reap()
                finally:
                    self._tasks = None
        finally:
            with anyio.CancelScope(shield=True):
                for site in (*self._sites.values(), *self._retired):
                    await _closed(site)
            self._sites.clear()
            self._retired.clear()

    def lease(self, server: Server, ctx: Context, *, listening: bool = False) -> _Leasing:
        """A connected link for this caller.

        listening: for a subscription, which lasts and therefore takes nobody's turn. Entering
        raises UpstreamError when there is none, RpcError (LIMITED) when all are taken for too long.
        """
        return _Leasing(self, server, ctx, listening=listening)

    def scope(self, server: Server, ctx: Context) -> str:
        """Whose session a call of `ctx` would use, and what it can be asked there.

        A handshake server may offer more to a client that it can ask, so that what it offers is
        known for one set of capabilities at a time.
        """
        whose = _whose(server, ctx)
        if not ctx.capabilities:
            return whose
        site = self._sites.get(server.id)
        if site is not None and site.era == "modern" and not _met_as_legacy(site, ctx):
            return whose
        told = [name for name in _ASKS if name in ctx.capabilities]
        if extensions.MEMBER in ctx.capabilities:
            told += [id for id in extensions.passable(ctx) if id not in extensions.MODERN_ONLY]
        return f"{whose} ({', '.join(told)})" if told else whose

    def own(self, server: Server, ctx: Context) -> Sequence[Link]:
        """The live links that declare what this caller can be asked, and are nobody else's."""
        site = self._sites.get(server.id)
        if site is None or not ctx.capabilities:
            return ()
        berth = site.berths.get(_place(site, server, ctx)[1])
        if berth is None or not berth.capabilities:
            return ()
        return [slot.link for slot in berth.slots if slot.state == "up" and slot.link is not None]

    def retire(self, server_id: str) -> None:
        """The server's entry changed or went: no new call on its links, which end soon."""
        site = self._sites.pop(server_id, None)
        if site is None:
            return
        site.retired = True
        self._retired.append(site)
        for berth in site.berths.values():
            berth.fail(_changed())
        site.fail(_changed())
        for slot in tuple(site.slots):
            slot.retired = True
            if slot.in_flight == 0:
                slot.let_go()
            else:
                asyncio.get_running_loop().call_later(RETIRE_WAIT, slot.cancel.cancel)
        self._dismiss(site)

    def status(self) -> list[LinkReport]:
        sites = (*self._sites.values(), *self._retired)
        return [report for site in sites for report in site.reports()]

    # ------------------------------------------------------------ leases

    async def take(self, site: Site, berth: Berth, ctx: Context) -> Slot:
        """A link of `berth` for one call. Raises UpstreamError, RpcError (LIMITED)."""
        if site.limit is not None:
            try:
                await self._admitted(site, ctx)
            except BaseException:
                _prune(berth)
                raise
        try:
            return await self._link(site, berth, ctx)
        except BaseException:
            if site.limit is not None:
                site.free()
            raise

    async def join(self, site: Site, berth: Berth, ctx: Context) -> Slot:
        """A link of `berth` for one subscription. Raises UpstreamError, RpcError (LIMITED)."""
        slot = berth.any_up()
        if slot is None:
            slot = await self._link(site, berth, ctx)
            slot.in_flight -= 1
            slot.listening += 1
            self._freed(slot)
        else:
            slot.listening += 1
        return slot

    def leave(self, slot: Slot) -> None:
        """A subscription ended."""
        slot.listening -= 1
        self._freed(slot)

    def give_back(self, slot: Slot) -> None:
        """A call ended."""
        site = slot.berth.site
        slot.in_flight -= 1
        self._freed(slot)
        if site.limit is not None:
            site.free()

    def find(self, server: Server, ctx: Context) -> tuple[Site, Berth]:
        """The server's site, and whose link this call gets."""
        site = self._sites.get(server.id)
        if site is None or site.server is not server:
            site = self._current(site, server, ctx.snapshot.generation)
        home, key, capabilities, legacy = _place(site, server, ctx)
        berth = site.berths.get(key)
        if berth is None:
            berth = Berth(
                site,
                key,
                self.scope(server, ctx),
                home=home,
                capabilities=capabilities,
                alone=ctx.session is None and not CLIENT_ASKS.isdisjoint(capabilities),
                legacy=legacy,
            )
            site.berths[key] = berth
        return site, berth

    def _current(self, site: Site | None, server: Server, generation: int) -> Site:
        """The site for `server` as a snapshot has it; a newer one is kept."""
        if site is not None:
            if site.server == server:
                site.server = server
                return site
            if site.generation > generation:
                return site
            self.retire(server.id)
        self._sites[server.id] = site = Site(server, generation)
        return site

    async def _admitted(self, site: Site, ctx: Context) -> None:
        """Waits for a turn at a server that takes so many calls at a time."""
        assert site.limit is not None  # noqa: S101 - looked at by the caller
        if site.running < site.limit:
            site.running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        site.queue.append(waiter)
        try:
            async with asyncio.timeout(_patience(site.server, ctx)):
                await waiter
        except TimeoutError:
            _turn_back(site, waiter)
            raise _limited(site.server, f"takes {site.limit} calls at a time") from None
        except asyncio.CancelledError:
            _turn_back(site, waiter)
            raise

    async def _link(self, site: Site, berth: Berth, ctx: Context) -> Slot:
        if site.retired:
            raise _changed()
        if not berth.waiters and (slot := berth.pick()) is not None:
            slot.in_flight += 1
            return slot
        loop = asyncio.get_running_loop()
        room = berth.room()
        if room and (error := site.failure(loop.time())) is not None:
            _prune(berth)
            raise error
        waiter: asyncio.Future[Slot] = loop.create_future()
        berth.waiters.append(waiter)
        try:
            if room or berth.room():
                self._open(berth)
            async with asyncio.timeout(_longest(berth, ctx)):
                return await waiter
        except TimeoutError:
            self._withdraw(berth, waiter)
            raise _limited(site.server, "has no free link for this caller") from None
        except BaseException:
            self._withdraw(berth, waiter)
            raise

    def _withdraw(self, berth: Berth, waiter: asyncio.Future[Slot]) -> None:
        """Whoever waited has gone: what it was given goes to the next."""
        if waiter in berth.waiters:
            berth.waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            slot = waiter.result()
            slot.in_flight -= 1
            self._freed(slot)
        _prune(berth)

    def _freed(self, slot: Slot) -> None:
        slot.used = asyncio.get_running_loop().time()
        if slot.retired:
            if not slot.in_flight and not slot.listening:
                slot.let_go()
        elif slot.berth.waiters:
            slot.berth.serve()

    # ------------------------------------------------------------ links

    def _open(self, berth: Berth) -> None:
        """Start to connect. Raises UpstreamError, RpcError (LIMITED)."""
        tasks = self._tasks
        if tasks is None:
            raise UpstreamError("start", "cannot be reached: the gateway is stopping")
        site = berth.site
        if not self._make_room(site):
            raise _limited(site.server, "has too many links already")
        slot = Slot(berth)
        berth.slots.append(slot)
        site.slots.add(slot)
        tasks.start_soon(self._keep, site, slot, berth.capabilities)

    async def _keep(self, site: Site, slot: Slot, capabilities: Mapping[str, Raw]) -> None:
        """The life of one link."""
        loop = asyncio.get_running_loop()
        error: UpstreamError | None = None
        late = loop.call_later(CONNECT_WAIT, slot.cancel.cancel)
        began = loop.time()
        try:
            with slot.cancel:
                if not await self._met_legacy(site, slot, capabilities, late):
                    slot.link = await self._made(site, slot.berth, capabilities)
                    await slot.link.run(task_status=_Starting(self, slot, late))
                error = UpstreamError("read", "went away")
            if slot.state == "connecting" and loop.time() - began >= CONNECT_WAIT:
                error = UpstreamError("connect", f"was not ready within {CONNECT_WAIT:g} s")
        except UpstreamError as failure:
            error = failure
        except RpcError as failure:
            error = UpstreamError("handshake", f"did not agree: {failure.message}")
        except Exception:  # noqa: BLE001 - marked boundary: one link's fault ends no other
            _log.exception("server %s: the link failed in an unforeseen way", site.server.name)
            error = UpstreamError("handshake", "could not be used: see the log of the gateway")
        finally:
            late.cancel()
            if error is not None:
                error = auth.redacted(error, site.server, self._secrets)
            self._ended(site, slot, error)

    async def _met_legacy(
        self, site: Site, slot: Slot, capabilities: Mapping[str, Raw], late: asyncio.TimerHandle
    ) -> bool:
        """Meet a modern server in the old way, for a legacy client, and serve until it is lost.

        False: it does not know that way, which is remembered. Raises UpstreamError.
        """
        berth = slot.berth
        if not berth.legacy:
            return False
        try:
            slot.link = await self._made(site, berth, capabilities)
            await slot.link.run(task_status=_Starting(self, slot, late))
        except UpstreamError as error:
            if slot.state == "up" or site.legacy or error.stage != "handshake":
                raise
            site.legacy = berth.legacy = False
            return False
        return True

    async def _made(self, site: Site, berth: Berth, capabilities: Mapping[str, Raw]) -> Link:
        server = site.server
        era = "legacy" if berth.legacy else site.era

        def heard(note: Note) -> None:
            self._heard(server.id, berth.scope, note)

        if server.command or server.transport == "stdio":
            return links.stdio(server, era, self._secrets, capabilities, heard)
        client = self._client(site)
        info = await self._probed(site, client)
        era = "legacy" if berth.legacy else site.era
        return links.http(server, era, client, self._secrets, capabilities, heard, info)

    def _client(self, site: Site) -> Client:
        """One client for all links of a server: they share its kept connections."""
        if site.client is None:
            server = site.server
            try:
                site.client = Client(
                    connect.origin(server.url), ca=server.ca, client_cert=server.client_cert
                )
            except ValueError as error:
                raise UpstreamError(
                    "resolve", f"has a URL that cannot be used: {error}", permanent=True
                ) from error
        return site.client

    async def _probed(self, site: Site, client: Client) -> LinkInfo | None:
        """Find out what the server speaks, once; what it said of itself when that was told."""
        async with site.probing:
            if site.era is not None:
                return None
            found = await connect.probe(site.server, client, self._secrets)
            site.era = found.era
            return found.info

    def up(self, slot: Slot, info: LinkInfo) -> None:
        """A link is connected."""
        berth = slot.berth
        assert slot.link is not None  # noqa: S101 - it is what says so
        slot.info, slot.state, slot.since = info, "up", time.time()
        slot.used = asyncio.get_running_loop().time()
        if info.modern:
            berth.scope = berth.home  # it offers the same to all, whatever they can be asked
        slot.lease = Lease(slot.link, info, berth.scope)
        site = berth.site
        site.connected()
        if berth.legacy:
            site.legacy = True
        elif site.era is None:
            site.era = "modern" if info.modern else "legacy"
        ours = site.berths.get(berth.key) is berth  # not when it was given up meanwhile
        if info.modern and ours and berth.home not in site.berths:
            # It asks nobody live, so that it may serve the whole scope.
            del site.berths[berth.key]
            berth.key, berth.capabilities = berth.home, NOTHING
            site.berths[berth.home] = berth
        berth.serve()
        with contextlib.suppress(UpstreamError, RpcError):  # then they wait for this one
            while berth.waiters and berth.room():
                self._open(berth)

    def _ended(self, site: Site, slot: Slot, error: UpstreamError | None) -> None:
        """A link is no more. error None: it was ended from here."""
        berth = slot.berth
        site.slots.discard(slot)
        if slot in berth.slots:
            berth.slots.remove(slot)
        if error is not None and not slot.retired:
            _log.warning("server %s %s", site.server.name, error.message)
            if slot.state == "connecting":
                site.failed(error, asyncio.get_running_loop().time())
                if error.stage == "handshake":
                    site.era = site.legacy = None  # it may speak another one by now
        if not berth.slots:
            berth.fail(error or UpstreamError("connect", "was let go before it was ready"))
            _prune(berth)
        self._dismiss(site)

    # ------------------------------------------------------------ bounds

    def _make_room(self, site: Site) -> bool:
        """Whether one more link may be opened; ends the one that was idle longest if need be."""
        if len(site.slots) >= MAX_LINKS and not _evict(site.slots):
            return False
        if not site.server.command:
            return True
        children = [
            slot
            for one in (*self._sites.values(), *self._retired)
            if one.server.command
            for slot in one.slots
        ]
        return len(children) < MAX_CHILDREN or _evict(children)

    def _reap(self) -> None:
        now = asyncio.get_running_loop().time()
        for site in self._sites.values():
            idle = IDLE_STDIO if site.server.command else IDLE_HTTP
            for slot in tuple(site.slots):
                if not slot.busy and not slot.retired and now - slot.used >= idle:
                    slot.let_go()

    def _dismiss(self, site: Site) -> None:
        """Forget a retired server once its last link has ended."""
        if not site.retired or site.slots or site not in self._retired:
            return
        self._retired.remove(site)
        if self._tasks is not None and site.client is not None:
            self._tasks.start_soon(_closed, site)


class _Leasing:
    """The context manager of one lease; `lease` finds a warm link without waiting."""

    __slots__ = ("_ctx", "_listening", "_pool", "_server", "_slot")

    def __init__(self, pool: Pool, server: Server, ctx: Context, *, listening: bool) -> None:
        self._pool = pool
        self._server = server
        self._ctx = ctx
        self._listening = listening
        self._slot: Slot | None = None

    async def __aenter__(self) -> Lease:
        site, berth = self._pool.find(self._server, self._ctx)
        if (
            site.limit is None
            and not self._listening
            and not berth.waiters
            and (slot := berth.pick()) is not None
        ):
            slot.in_flight += 1
        else:
            slot = await self._taken(site, berth)
        self._slot = slot
        lease = slot.lease
        assert lease is not None  # noqa: S101 - every link that is up has one
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        slot, self._slot = self._slot, None
        if slot is not None:
            (self._pool.leave if self._listening else self._pool.give_back)(slot)
        return False

    async def _taken(self, site: Site, berth: Berth) -> Slot:
        pool, ctx = self._pool, self._ctx
        take = pool.join if self._listening else pool.take
        slot = await take(site, berth, ctx)
        if _met_as_legacy(site, ctx) is not slot.berth.legacy:
            # Connecting showed that this is a modern server, to be asked for the old way too.
            (pool.leave if self._listening else pool.give_back)(slot)
            slot = await take(*pool.find(self._server, ctx), ctx)
        return slot


class _Starting:
    """What a link reports to when it is connected."""

    def __init__(self, pool: Pool, slot: Slot, late: asyncio.TimerHandle) -> None:
        self._pool = pool
        self._slot = slot
        self._late = late

    def started(self, value: LinkInfo) -> None:
        self._late.cancel()
        self._pool.up(self._slot, value)


async def _closed(site: Site) -> None:
    client, site.client = site.client, None
    if client is not None:
        await client.aclose()


def _whose(server: Server, ctx: Context) -> str:
    """Who shares a session of this server with the caller, by the server's isolation."""
    if server.isolate == "shared":
        return "shared"
    if server.isolate == "session" and ctx.session is not None:
        return f"session:{ctx.session}"
    return ctx.principal.id


def _place(site: Site, server: Server, ctx: Context) -> tuple[str, str, Mapping[str, Raw], bool]:
    """Whose link a call gets: home, the berth's key, what it declares, and met in the old way."""
    key = home = _whose(server, ctx)
    capabilities = NOTHING
    legacy = _met_as_legacy(site, ctx)
    if ctx.capabilities and (site.era != "modern" or legacy):
        capabilities = declared(ctx)
        if capabilities:
            key = _private(home, ctx, capabilities)
    return home, f"{key}\0legacy" if legacy else key, capabilities, legacy


def _met_as_legacy(site: Site, ctx: Context) -> bool:
    """A server of both eras is met in the client's own: no bridge keeps more than none."""
    return site.era == "modern" and site.legacy is not False and ctx.revision in _LEGACY


def _private(home: str, ctx: Context, capabilities: Mapping[str, Raw]) -> str:
    """The key of links that declare `capabilities`.

    Where the client can be asked, they are one session's, or those of the calls of one principal
    that declare the same; extensions alone are shared like links that declare nothing.
    """
    if ctx.session is not None and not CLIENT_ASKS.isdisjoint(capabilities):
        return f"{home}\0{ctx.principal.id}\0session:{ctx.session}"
    same = hashlib.sha256(wire.dump_object(capabilities)).hexdigest()
    if CLIENT_ASKS.isdisjoint(capabilities):
        return f"{home}\0{same}"
    return f"{home}\0{ctx.principal.id}\0{same}"


def _evict(slots: Iterable[Slot]) -> bool:
    """End the link that was idle longest; False when all are busy."""
    idle = [slot for slot in slots if not slot.busy and not slot.retired]
    if not idle:
        return False
    oldest = min(idle, key=lambda slot: slot.used)
    oldest.let_go()
    return True


def _prune(berth: Berth) -> None:
    """Forget a berth that nothing is left of: there is one for every session that comes by."""
    berths = berth.site.berths
    if not berth.slots and not berth.waiters and berths.get(berth.key) is berth:
        del berths[berth.key]


def _turn_back(site: Site, waiter: asyncio.Future[None]) -> None:
    """Whoever waited for a turn has gone: one that it was given goes to the next."""
    if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
        site.free()


def _changed() -> UpstreamError:
    return UpstreamError("connect", "was changed or removed while the call waited for it")


def _patience(server: Server, ctx: Context) -> float:
    """Seconds a call may wait for its turn."""
    if ctx.deadline is None:
        return server.timeout
    left = ctx.deadline - asyncio.get_running_loop().time()
    return max(0.0, min(server.timeout, left))


def _longest(berth: Berth, ctx: Context) -> float:
    """Seconds a call may wait for a link: to be free, or first to be connected."""
    if any(slot.state == "up" for slot in berth.slots):
        return _patience(berth.site.server, ctx)
    longest = CONNECT_WAIT + RETRY_AFTER  # connecting has its own, earlier end
    if ctx.deadline is None:
        return longest
    return max(0.0, min(longest, ctx.deadline - asyncio.get_running_loop().time()))


def _limited(server: Server, why: str) -> RpcError:
    return RpcError(
        LIMITED,
        f'server "{server.name}" {why}; try again later',
        wire.dump({"server": server.name, "stage": "connect"}),
        retry_after=RETRY_AFTER,
    )

"""A legacy session's subscriptions: one long `subscriptions/listen` call of the core.

The set of URIs changes by opening a new call and then closing the old one, so nothing falls
between them. A call that is lost is opened again, with growing pauses.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import anyio.abc
from msgspec import Raw

from mcpgw.core import wire
from mcpgw.core.eras import INVALID_PARAMS, TIMED_OUT
from mcpgw.front.exchange import internal
from mcpgw.model.calls import Ask, AskMode, Call, Context, JsonObject, Listening, Note, RpcError
from mcpgw.model.ports import Handler

SETTLE: Final = 30.0  # seconds a listen call may take to say what it honours
MAX_PAUSE: Final = 30.0  # seconds between attempts to open a lost listen call again, at most
MAX_URIS: Final = 1000  # resources one session may subscribe to

_log = logging.getLogger("mcpgw.front")
_FILTERS: Final = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}
_TASKS: Final = "mcpgw/tasks"  # what servers tell of the session's tasks; of the core alone
_TRUE: Final = Raw(b"true")


def listed(capabilities: Mapping[str, Raw]) -> JsonObject:
    """The listen filter for what these server capabilities promise to tell."""
    wanted: JsonObject = {}
    for name, filter in _FILTERS.items():
        if name in capabilities:
            promised = wire.members(capabilities[name]).get("listChanged")
            if promised is not None and bytes(promised) == b"true":
                wanted[filter] = _TRUE
    if "tasks" in capabilities:
        wanted[_TASKS] = _TRUE
    return wanted


class Feed:
    """The subscriptions of one session.

    lists: a listen filter of list changes. deliver: takes each note that the client should hear.
    """

    def __init__(
        self,
        handler: Handler,
        tasks: anyio.abc.TaskGroup,
        lists: Mapping[str, Raw],
        deliver: Callable[[Note], Awaitable[None]],
    ) -> None:
        self._handler = handler
        self._tasks = tasks
        self._lists = lists
        self._deliver = deliver
        self._uris: frozenset[str] = frozenset()
        self._current: _Listen | None = None
        self._changing = anyio.Lock()
        self._closed = False

    async def begin(self, ctx: Context) -> None:
        """Listen to list changes, if nothing is listened to yet and there are any to tell."""
        async with self._changing:
            if self._current is None and self._lists:
                await self._change(self._uris, ctx)

    async def add(self, uri: str, ctx: Context) -> None:
        """Subscribe. Raises RpcError when the server does not honour it."""
        async with self._changing:
            if uri in self._uris:
                return
            if len(self._uris) >= MAX_URIS:
                raise RpcError(INVALID_PARAMS, f"more than {MAX_URIS} subscriptions")
            await self._change(self._uris | {uri}, ctx, needed=uri)

    async def remove(self, uri: str, ctx: Context) -> None:
        """Unsubscribe; from what is not subscribed to, nothing happens."""
        async with self._changing:
            if uri in self._uris:
                await self._change(self._uris - {uri}, ctx)

    def close(self) -> None:
        self._closed = True
        if self._current is not None:
            self._current.scope.cancel()

    async def _change(
        self, uris: frozenset[str], ctx: Context, *, needed: str | None = None
    ) -> None:
        """Open a call for `uris`, then close the one before it. Raises RpcError; then all is as
        it was."""
        old = self._current
        if not uris and not self._lists:
            new = None
        else:
            wanted: JsonObject = dict(self._lists)
            if uris:
                wanted["resourceSubscriptions"] = wire.dump(sorted(uris))
            new = _Listen(Call("subscriptions/listen", {"notifications": wire.dump(wanted)}, ctx))
            self._tasks.start_soon(new.run, self._handler, self._deliver)
            try:
                await new.settle(needed)
            except BaseException:
                new.scope.cancel()
                raise
        self._current, self._uris = new, uris
        if old is not None:
            old.scope.cancel()
        if self._closed and new is not None:
            new.scope.cancel()


class _Listen:
    """One listen call, and the Caller it is made for."""

    ask_mode = AskMode.NEVER

    def __init__(self, call: Call) -> None:
        self.scope = anyio.CancelScope()
        self._call = call
        self._settled = anyio.Event()
        self._honoured: JsonObject | None = None
        self._failed: RpcError | None = None
        self._deliver: Callable[[Note], Awaitable[None]] | None = None

    async def settle(self, needed: str | None) -> None:
        """Returns when the call is under way and honours `needed`, a URI. Raises RpcError."""
        with anyio.move_on_after(SETTLE):
            await self._settled.wait()
        if self._failed is not None:
            raise self._failed
        if self._honoured is None:
            raise RpcError(TIMED_OUT, "the subscription was not confirmed in time")
        if needed is not None and needed not in self._uris():
            raise RpcError(INVALID_PARAMS, "Resource not found", wire.dump({"uri": needed}))

    def _uris(self) -> set[str]:
        honoured = (self._honoured or {}).get("resourceSubscriptions")
        if honoured is None:
            return set()
        return {uri for uri in map(wire.text, wire.array(honoured)) if uri is not None}

    async def run(self, handler: Handler, deliver: Callable[[Note], Awaitable[None]]) -> None:
        self._deliver = deliver
        pause = 0.5
        with self.scope:
            while True:
                began = anyio.current_time()
                try:
                    await handler.handle(self._call, self)
                except RpcError as error:
                    self._failed = self._failed or (None if self._settled.is_set() else error)
                except Exception as error:  # noqa: BLE001 - the boundary of a session's own call
                    fault = internal(error)
                    self._failed = None if self._settled.is_set() else fault
                if not self._settled.is_set():
                    self._failed = self._failed or RpcError(
                        INVALID_PARAMS, "the subscription ended before it began"
                    )
                    self._settled.set()
                if self._failed is not None:
                    return
                pause = 0.5 if anyio.current_time() - began > MAX_PAUSE else pause * 2
                await anyio.sleep(min(pause, MAX_PAUSE))

    async def tell(self, note: Note) -> None:
        if isinstance(note, Listening):
            self._honoured = note.wanted
            self._settled.set()
        elif self._deliver is not None:
            await self._deliver(note)

    async def ask(self, ask: Ask) -> Raw:
        raise RpcError(INVALID_PARAMS, "a subscription asks nothing")

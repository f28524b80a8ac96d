"""The ids of tasks that clients hold, and which tasks of 2025-11-25 are whose.

A handle needs no memory: it is sealed. What is remembered are the tasks of handshake servers that
somebody began or used here, because such a server lists tasks, and tells of them, for everybody
behind the same credentials; only whose a task is known to be hears of it. A client that uses its
handle after a restart makes it known again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from mcpgw.core import tasks
from mcpgw.core.tasks import Name
from mcpgw.model.calls import Context
from mcpgw.model.ports import Seal

MAX_KNOWN: Final = 50_000  # tasks of handshake servers that are remembered; the oldest go


class Known(Struct, frozen=True):
    """A task of a handshake server.

    public: the handle. session: the client's session that used it last. scope: of the link.
    """

    name: Name
    principal: str
    public: str
    session: str | None
    scope: str


class Handles:
    """Makes and opens handles.

    all: the tasks of handshake servers that are remembered, by server, principal and id.
    """

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self.all: OrderedDict[tuple[str, str, str], Known] = OrderedDict()
        self._holders: dict[tuple[str, str], set[str]] = {}

    def make(self, name: Name, principal: str) -> str:
        return self._seal.seal(
            tasks.encode(name), bind=principal.encode(), purpose=tasks.PURPOSE, ttl=tasks.TTL
        )

    def open(self, handle: str, principal: str) -> Name | None:
        """What the handle stands for; None when it is edited, or another's."""
        body = self._seal.unseal(handle, bind=principal.encode(), purpose=tasks.PURPOSE)
        return None if body is None else tasks.decode(body)

    def know(self, name: Name, ctx: Context, scope: str, handle: str | None = None) -> str:
        """Remember a task of a handshake server as this caller's; its handle.

        handle: the one that the caller used.
        """
        key = (name.server, ctx.principal.id, name.id)
        known = self.all.pop(key, None)
        if handle is None:
            handle = self.make(name, ctx.principal.id) if known is None else known.public
        self.all[key] = Known(name, ctx.principal.id, handle, ctx.session, scope)
        self._holders.setdefault((name.server, name.id), set()).add(ctx.principal.id)
        while len(self.all) > MAX_KNOWN:
            self._forget(next(iter(self.all)))
        return handle

    def known(self, server: str, principal: str, id: str) -> Known | None:
        """The task that the server calls `id`, if it is known to be this principal's."""
        return self.all.get((server, principal, id))

    def holders(self, server: str, id: str) -> Iterator[Known]:
        """Everybody whose task it is known to be."""
        for principal in tuple(self._holders.get((server, id), ())):
            yield self.all[server, principal, id]

    def servers(self, principal: str) -> list[str]:
        """The ids of the servers that have a task of this principal, in a stable order."""
        return sorted({server for server, owner, _ in self.all if owner == principal})

    def forget(self, servers: Iterable[str]) -> None:
        """Servers were removed: their tasks are nobody's."""
        gone = frozenset(servers)
        for key in [key for key in self.all if key[0] in gone]:
            self._forget(key)

    def _forget(self, key: tuple[str, str, str]) -> None:
        server, principal, id = key
        del self.all[key]
        holders = self._holders[server, id]
        holders.discard(principal)
        if not holders:
            del self._holders[server, id]

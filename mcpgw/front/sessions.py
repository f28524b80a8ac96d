"""Every session there is: bounded in number, bound to one principal and one endpoint, and reaped.

An id is 192 random bits behind the mark of this process; knowing one authenticates nobody. It is
good only for the principal that began the session, at the address where it began.
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol, TypeVar

from mcpgw.core.eras import LIMITED
from mcpgw.front.auth import valid
from mcpgw.front.exchange import Refused
from mcpgw.model.calls import RpcError
from mcpgw.model.config import Endpoint, Principal, Snapshot

IDLE: Final = 30 * 60.0  # seconds without a word after which a session ends
IDLE_LISTENING: Final = 24 * 3600.0  # the same while a stream is held open or a call runs
MAX_OF_ONE: Final = 100  # sessions of one principal
_RETRY_AFTER: Final = 60.0  # seconds until trying again may help


class Held(Protocol):
    """What the registry keeps: a legacy session, or a channel that may become one."""

    id: str
    principal: Principal
    endpoint: Endpoint
    last: float

    @property
    def busy(self) -> bool: ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Held)


class Sessions:
    """The sessions of one front."""

    def __init__(self) -> None:
        self._boot = secrets.token_hex(4)
        self._all: dict[str, Held] = {}
        self._of: dict[str, dict[str, Held]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def mint(self) -> str:
        return f"{self._boot}-{secrets.token_urlsafe(24)}"

    def add(self, held: Held, now: float) -> None:
        """Keep it. At the bound the longest idle one goes; raises Refused (429) if none is idle."""
        own = self._of.setdefault(held.principal.id, {})
        if len(own) >= MAX_OF_ONE:
            idle = min((one for one in own.values() if not one.busy), key=_last, default=None)
            if idle is None:
                raise Refused(
                    429,
                    RpcError(LIMITED, f"more than {MAX_OF_ONE} sessions of one key"),
                    (b"retry-after", b"%d" % _RETRY_AFTER),
                )
            self.end(idle)
            own = self._of.setdefault(held.principal.id, {})
        held.last = now
        own[held.id] = self._all[held.id] = held

    def get(
        self, id: str, kind: type[T], *, principal: Principal, endpoint: Endpoint | None, now: float
    ) -> T | None:
        """The session, if it is this principal's. endpoint None: whatever address it began at."""
        held = self._all.get(id)
        if not isinstance(held, kind) or held.principal.id != principal.id:
            return None
        if endpoint is not None and held.endpoint != endpoint:
            return None
        held.last = now
        return held

    def end(self, held: Held) -> None:
        """Forget it and end what belongs to it."""
        if self._all.pop(held.id, None) is not None:
            own = self._of[held.principal.id]
            del own[held.id]
            if not own:
                del self._of[held.principal.id]
        held.close()

    def sweep(self, now: float) -> None:
        """End what has been idle for too long."""
        for held in tuple(self._all.values()):
            if now - held.last >= (IDLE_LISTENING if held.busy else IDLE):
                self.end(held)

    def recheck(self, snapshot: Snapshot, clock: float) -> None:
        """End the sessions of principals that may no longer be here. clock: since the epoch."""
        for own in tuple(self._of.values()):
            first = next(iter(own.values()))
            if not valid(first.principal, snapshot, clock):
                for held in tuple(own.values()):
                    self.end(held)

    def close(self) -> None:
        """End all."""
        for held in tuple(self._all.values()):
            self.end(held)


def _last(held: Held) -> float:
    return held.last

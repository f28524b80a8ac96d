"""The seams: everything with behaviour implements one of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, runtime_checkable

from msgspec import Raw, Struct

from mcpgw.model.calls import Ask, AskMode, Call, Context, Note, Reply
from mcpgw.model.config import Server, Snapshot


class Caller(Protocol):
    """The way back to whoever made the call. Valid only while the call runs."""

    @property
    def ask_mode(self) -> AskMode: ...

    async def tell(self, note: Note) -> None:
        """Deliver a note in order. Waits for a slow far side; never raises for a gone peer."""
        ...

    async def ask(self, ask: Ask) -> Raw:
        """Ask the caller and wait for the result object. Raises RpcError when it refuses."""
        ...


class Handler(Protocol):
    """Anything that answers MCP calls: a link, the gateway, a wrapper, a test double."""

    async def handle(self, call: Call, caller: Caller) -> Reply:
        """Answer one call or raise RpcError. Cancelling the task cancels the call."""
        ...


@runtime_checkable
class Gate(Handler, Protocol):
    """A Handler that also takes what a client notes outside of its calls."""

    def tell(self, ctx: Context, note: Note) -> None:
        """Hand the note to every server that is in a session with this client. Never waits."""
        ...


class LinkInfo(Struct, frozen=True, kw_only=True):
    """What an upstream said of itself.

    server: its Implementation object. asks_in_stream: a live ask is known to belong to one call.
    modern: it speaks 2026-07-28 or later, so it never asks live.
    """

    revision: str
    modern: bool
    capabilities: Mapping[str, Raw]
    server: Raw
    instructions: str | None = None
    asks_in_stream: bool = False


class LinkStatus(Protocol):
    """The part of anyio's TaskStatus that a link needs; keeps anyio out of the model."""

    def started(self, value: LinkInfo) -> None: ...


class Link(Handler, Protocol):
    """One live connection to one upstream server, of any transport and revision."""

    async def run(self, *, task_status: LinkStatus) -> None:
        """Connect, agree on a revision, report LinkInfo, serve until lost or cancelled.

        Raises UpstreamError (mcpgw.model.ports) when the server cannot be reached or understood.
        """
        ...

    async def tell(self, note: Note) -> None:
        """Client-to-server note (roots changed). Best effort, never raises for a lost peer."""
        ...


class UpstreamError(Exception):
    """An upstream could not be reached, understood, or went away.

    stage: resolve, connect, tls, start, handshake, auth, send, read. message: for people, without
    secrets. permanent: trying again cannot help before the configuration changes.
    """

    def __init__(self, stage: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.stage = stage
        self.message = message
        self.permanent = permanent


class Lease(Struct, frozen=True):
    """A link that is the caller's until the lease ends. `scope` names whose session it is."""

    link: Link
    info: LinkInfo
    scope: str


class Links(Protocol):
    """Where the relay gets links from; upstream.pool implements it."""

    def lease(
        self, server: Server, ctx: Context, *, listening: bool = False
    ) -> AbstractAsyncContextManager[Lease]:
        """A connected link for this caller. Entering raises UpstreamError when there is none.

        listening: for `subscriptions/listen`, which lasts and therefore takes nobody's turn.
        """
        ...

    def scope(self, server: Server, ctx: Context) -> str:
        """Whose session a call of `ctx` would use: what is cached belongs to one scope."""
        ...

    def own(self, server: Server, ctx: Context) -> Sequence[Link]:
        """The live links that are this caller's alone, for what it can be asked."""
        ...


Heard: TypeAlias = Callable[[str, str, Note], None]
"""(server id, scope, note): a note of an upstream that belongs to no call. Must not block."""


class Seal(Protocol):
    """Integrity and secrecy for state that passes through clients. store.vault implements it."""

    def seal(self, body: bytes, *, bind: bytes, purpose: str, ttl: float) -> str:
        """`body` as an opaque URL-safe string that only the same bind and purpose open again."""
        ...

    def unseal(self, token: str, *, bind: bytes, purpose: str) -> bytes | None:
        """The body; None when edited, expired, foreign or of another purpose."""
        ...


class Secrets(Protocol):
    """Turns references into values. store.secrets implements it."""

    def resolve(self, reference: str) -> str:
        """The value. Raises GatewayError (code `secret_missing`) that names the reference only."""
        ...


class Config(Protocol):
    """The configuration of the moment; the daemon swaps it when the store changes."""

    @property
    def snapshot(self) -> Snapshot: ...

    def subscribe(self, changed: Callable[[Snapshot, Snapshot], None]) -> Callable[[], None]:
        """Call `changed(old, new)` after each swap; returns the way to stop it. Must not block."""
        ...

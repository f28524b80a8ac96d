"""A server that is a child process and speaks MCP on its standard input and output.

Which era it speaks is found by asking: `server/discover` first, and `initialize` after any answer
that is not a modern one, or none in time. A server that exits on the question is started again and
met in the old way.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import anyio
from msgspec import Raw

from mcpgw.core import outbound
from mcpgw.core.eras import LEGACY, TIMED_OUT
from mcpgw.core.handshake import discover_params, discovered, instead, no_common, supported
from mcpgw.core.references import is_reference
from mcpgw.model.calls import NOTHING, Call, Note, Reply, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Caller, LinkInfo, LinkStatus, Secrets, UpstreamError
from mcpgw.upstream import auth, duplex
from mcpgw.upstream.process import Child

DISCOVER_WAIT: Final = 3.0  # seconds for an answer to server/discover before initialize is sent
HANDSHAKE_WAIT: Final = 60.0  # least seconds for a handshake: package runners download first
SHOWN: Final = 300  # characters of a server's refusal that are shown

Era: TypeAlias = Literal["modern", "legacy"]

_INHERITED: Final = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TMPDIR", "USER", "SHELL", "TERM", "LOGNAME", "TZ"}
    if os.name == "posix"
    else {
        "APPDATA",
        "COMSPEC",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PATH",
        "PATHEXT",
        "PROCESSOR_ARCHITECTURE",
        "PROGRAMFILES",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "USERNAME",
        "USERPROFILE",
    }
)


def environment(
    server: Server, secrets: Secrets, inherited: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a child sees, and the secret values in it.

    Raises UpstreamError (auth) for a reference that resolves to nothing.
    """
    env = {
        name: text
        for name, text in inherited.items()
        if name.upper() in _INHERITED or name.startswith("LC_")
    }
    hidden: list[str] = []
    for name, told in server.env.items():
        env[name] = auth.value(told, secrets)
        if is_reference(told) and len(env[name]) >= auth.SHORTEST_SECRET:
            hidden.append(env[name])
    return env, tuple(hidden)


class StdioLink:
    """One child process and the conversation with it.

    capabilities: what is declared to a legacy server. era: remembered from an earlier link, None
    to find it out; afterwards `era` is what was found.
    """

    def __init__(
        self,
        server: Server,
        *,
        secrets: Secrets,
        capabilities: Mapping[str, Raw] = NOTHING,
        heard: Callable[[Note], None] = lambda note: None,
        era: Era | None = None,
    ) -> None:
        self.era: Era | None = era
        self._server = server
        self._secrets = secrets
        self._capabilities = capabilities
        self._heard = heard
        self._child: Child | None = None
        self._talk: duplex.Conversation | None = None
        self._up = False

    @property
    def pid(self) -> int | None:
        """The child's, while it runs."""
        child = self._child
        return None if child is None or child.exited.is_set() else child.pid

    @property
    def lost(self) -> bool:
        """It was connected, and the server is gone."""
        return self._up and (self._talk is None or self._talk.is_lost)

    async def run(self, *, task_status: LinkStatus) -> None:
        """Start the command, agree, serve until it ends. Raises UpstreamError."""
        if self.era != "legacy" and not await self._live(task_status, asking=True):
            self.era = "legacy"
        # Here only when the child ended on a question it did not know, or the era is known.
        await self._live(task_status, asking=False)

    async def handle(self, call: Call, caller: Caller) -> Reply:
        talk = self._talk
        if talk is None:
            gone = UpstreamError("start", "is not running")
            raise outbound.failed(self._server.name, gone)
        return await talk.handle(call, caller)

    async def tell(self, note: Note) -> None:
        if self._talk is not None:
            duplex.tell(self._talk, note)

    async def _live(self, task_status: LinkStatus, *, asking: bool) -> bool:
        """One life of the child. False: it ended before both sides agreed, and was `asking`."""
        child, talk = await self._start()
        agreed = False
        failure = UpstreamError("read", "was stopped")
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    info = await self._agree(talk, child, asking=asking)
                    agreed = True
                    talk.info = info
                    self._child, self._talk = child, talk
                    self.era = "modern" if info.modern else "legacy"
                    self._up = True
                    task_status.started(info)
                    tasks.start_soon(talk.follow)
                    failure = await talk.ended()
                except UpstreamError as error:
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            talk.lost(failure)
            self._child = self._talk = None
            await child.close()
        if not agreed and asking and child.exited_by_itself:
            return False
        raise failure

    async def _start(self) -> tuple[Child, duplex.Conversation]:
        server = self._server
        env, hidden = environment(server, self._secrets, os.environ)

        def redact(text: str) -> str:
            for secret in hidden:
                text = text.replace(secret, auth.REDACTED)
            return text

        def ended(how: str) -> None:
            if talk.info is None:
                told = UpstreamError("start", f"{how} before it answered{child.last_words()}")
            else:  # callers see this one: standard error stays in the log
                told = UpstreamError("read", how)
            talk.lost(told)

        child = Child(logging.getLogger(f"mcpgw.server.{server.name}"), redact, ended)
        talk = duplex.Conversation(
            server, child, capabilities=self._capabilities, heard=self._heard
        )
        child.line, child.too_long = talk.receive, talk.too_large
        await child.start(server.command, env=env, cwd=server.cwd)
        return child, talk

    # ------------------------------------------------------------ the handshake

    async def _agree(self, talk: duplex.Conversation, child: Child, *, asking: bool) -> LinkInfo:
        """What the server says of itself. Raises UpstreamError."""
        wait = max(HANDSHAKE_WAIT, self._server.timeout)
        try:
            if asking:
                return await self._find_out(talk, wait)
            return await talk.initialize(timeout=wait)
        except RpcError as error:
            if error.code == TIMED_OUT:
                told = f"did not finish the handshake within {wait:g} s"
                raise UpstreamError("handshake", told + child.last_words()) from error
            raise UpstreamError(
                "handshake", f"refused initialize: {error.message[:SHOWN]}"
            ) from error

    async def _find_out(self, talk: duplex.Conversation, wait: float) -> LinkInfo:
        """Ask for the modern era, then for the old one.

        A slow starter may answer the first question after the second was sent: an answer to
        `initialize` wins, since it has chosen the era of the process.
        """
        patience = wait if self.era == "modern" else DISCOVER_WAIT
        asked = talk.post("server/discover", discover_params())
        await asyncio.wait([asked], timeout=patience)
        if asked.done() and (revision := _instead(asked.result())) is not None:
            asked = talk.post("server/discover", discover_params(revision))
            await asyncio.wait([asked], timeout=patience)
        if asked.done() and (info := _modern(asked.result())) is not None:
            return info
        try:
            return await talk.initialize(timeout=wait)
        except RpcError:
            if asked.done() and (info := _modern(asked.result())) is not None:
                return info
            raise


def _instead(outcome: duplex.Outcome) -> str | None:
    return instead(outcome) if isinstance(outcome, RpcError) else None


def _modern(outcome: duplex.Outcome) -> LinkInfo | None:
    """What a server said when asked in the modern way; None: try the old way.

    Raises UpstreamError when it is gone, or speaks only revisions that mcpgw does not.
    """
    if isinstance(outcome, UpstreamError):
        raise outcome
    if not isinstance(outcome, RpcError):
        return discovered(outcome)
    versions = supported(outcome)
    if versions and not any(version in LEGACY for version in versions):
        raise no_common(versions)
    return None

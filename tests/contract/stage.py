"""One gateway in front of every one-revision server, and a journal of what the servers notice.

The gateway is a real daemon (`mcpgw serve`) in a process of its own, the servers over HTTP run in
the test's process, those over stdio are the gateway's children. Each server has two keys, so that
two principals use it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcpgw.store.db import Store
from mcpgw.store.keys import create_key
from mcpgw.store.registry import ServerDraft, add_server
from tests.contract.clients import PATIENCE, Client, Json, connected
from tests.e2e.gateway import House
from tests.servers import era, era_http
from tests.servers.http_base import running

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
STDIO = Path(era.__file__).parent / "era_stdio.py"


@dataclass(frozen=True, order=True)
class Side:
    """What one side of a pair speaks."""

    revision: str
    transport: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.revision}"

    @property
    def modern(self) -> bool:
        return self.revision == REVISIONS[-1]

    def since(self, revision: str) -> bool:
        return self.revision >= revision


CLIENTS = (
    *(Side(revision, "http") for revision in REVISIONS[1:]),
    *(Side(revision, "sse") for revision in REVISIONS[:-1]),
    *(Side(revision, "stdio") for revision in REVISIONS),
)
SERVERS = CLIENTS
"""Every revision over every transport it has; the event stream ended with 2025-11-25, where it was
kept for the sake of older peers."""


class Journal(era.Journal):
    """What all servers noticed, in order; children tell it over a Unix socket."""

    def __init__(self) -> None:
        self.entries: list[Json] = []
        self._news = asyncio.Condition()
        self._open: dict[str, asyncio.Event] = {}
        self._children: set[asyncio.StreamWriter] = set()
        self._ticks: set[asyncio.Task[None]] = set()

    def tell(self, what: str, **facts: Any) -> None:
        self._add({"what": what, **facts})

    async def gate(self, tag: str) -> None:
        await self._open.setdefault(tag, asyncio.Event()).wait()

    async def child(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._children.add(writer)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._add(json.loads(line))
        self._children.discard(writer)
        writer.close()

    def pass_on(self, tag: str) -> None:
        """Let whoever waits at the gate `tag` go on."""
        self._open.setdefault(tag, asyncio.Event()).set()
        for writer in self._children:
            writer.write(tag.encode() + b"\n")

    def _add(self, entry: Json) -> None:
        self.entries.append(entry)
        task = asyncio.ensure_future(self._tick())
        self._ticks.add(task)
        task.add_done_callback(self._ticks.discard)

    async def _tick(self) -> None:
        async with self._news:
            self._news.notify_all()

    def of(self, what: str, **facts: Any) -> list[Json]:
        wanted = {"what": what, **facts}
        return [one for one in self.entries if wanted.items() <= one.items()]

    async def wait(self, what: str, **facts: Any) -> Json:
        """The first entry like this, once it is there."""
        try:
            async with asyncio.timeout(PATIENCE), self._news:
                await self._news.wait_for(lambda: bool(self.of(what, **facts)))
        except TimeoutError:
            raise AssertionError(f"no server told {what} {facts}") from None
        return self.of(what, **facts)[0]


CAPABILITIES: dict[str, Json] = {
    "2024-11-05": {"sampling": {}, "roots": {"listChanged": True}},
    "2025-03-26": {"sampling": {}, "roots": {"listChanged": True}},
    "2025-06-18": {"sampling": {}, "roots": {"listChanged": True}, "elicitation": {}},
    "2025-11-25": {
        "sampling": {},
        "roots": {"listChanged": True},
        "elicitation": {"form": {}, "url": {}},
    },
    "2026-07-28": {"sampling": {}, "roots": {}, "elicitation": {"form": {}, "url": {}}},
}
"""What clients of a revision declare here: all they can be asked."""


@dataclass
class Stage:
    store: Path
    address: str
    journal: Journal
    secrets: dict[str, str] = field(default_factory=dict[str, str])

    @contextlib.asynccontextmanager
    async def client(self, client: Side, server: Side, who: str) -> AsyncGenerator[Client]:
        """Alice comes by the common address, where names have a prefix; Bob by the server's own."""
        name = str(server)
        own = who == "bob" and client.transport != "stdio"
        async with connected(
            client.revision,
            client.transport,
            who=who,
            address=self.address,
            server=name if own else None,
            prefix="" if own else f"{name}__",
            secret=self.secrets[f"{who}-{name}"],
            store=self.store,
            key=f"{who}-{name}",
            capabilities=CAPABILITIES[client.revision],
        ) as connection:
            yield connection


@contextlib.contextmanager
def _daemon(house: House) -> Generator[str]:
    with house.serving() as address:
        yield address


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[Stage]:
    """Everything, until the block ends."""
    house = House(folder)
    journal = Journal()
    place = folder / "journal.sock"
    listener = await asyncio.start_unix_server(journal.child, place)
    stack = contextlib.AsyncExitStack()
    async with stack:
        stack.callback(listener.close)
        url = await stack.enter_async_context(running(era_http.application(journal)))
        store = Path(house.environment["MCPGW_STORE"])
        secrets = _configured(store, url, place)
        loop = asyncio.get_running_loop()
        daemon = _daemon(house)
        address = await loop.run_in_executor(None, daemon.__enter__)
        try:
            yield Stage(store, address, journal, secrets)
        finally:
            await loop.run_in_executor(None, daemon.__exit__, None, None, None)


def _configured(path: Path, url: str, place: Path) -> dict[str, str]:
    """Register all servers, make two keys for each; secrets by the name of the key."""
    secrets: dict[str, str] = {}
    with Store.open(path) as store:
        for side in SERVERS:
            name = str(side)
            if side.transport == "stdio":
                command = (sys.executable, "-S", str(STDIO), side.revision, str(place))
                add_server(store, ServerDraft(name=name, command=command, transport="stdio"))
            else:
                add_server(store, ServerDraft(name=name, url=f"{url}/{name}"))
            for who in ("alice", "bob"):
                key = f"{who}-{name}"
                _, secrets[key] = create_key(store, key, grants=(name,), now=time.time())
    return secrets

"""A one-revision server on standard input and output: `python era_stdio.py REVISION JOURNAL`.

JOURNAL is a Unix socket that is told, one JSON text a line, what the server noticed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent)

import era  # noqa: E402 - a script beside it


class Journal(era.Journal):
    def __init__(self, place: str, server: str) -> None:
        self._server = server
        self._open: dict[str, asyncio.Event] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(place)
        self._held = b""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def tell(self, what: str, **facts: Any) -> None:
        line = {"what": what, "server": self._server, "pid": os.getpid(), **facts}
        self._socket.sendall(json.dumps(line).encode() + b"\n")

    async def gate(self, tag: str) -> None:
        await self._open.setdefault(tag, asyncio.Event()).wait()

    def _read(self) -> None:
        data = self._socket.recv(4096)
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._open.setdefault(line.decode(), asyncio.Event()).set()


async def main(revision: str, place: str) -> None:
    journal = Journal(place, f"stdio-{revision}")

    async def send(message: era.Json) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    legacy = era.Legacy(revision, journal, send) if revision < era.MODERN else None
    modern = era.Modern(journal)
    tasks: dict[Any, asyncio.Task[Any]] = {}

    async def serve(message: era.Json) -> None:
        try:
            await modern.receive(message, send)
        finally:
            tasks.pop(message["id"], None)

    running: set[asyncio.Task[Any]] = set()
    while line := await source.readline():
        message = json.loads(line)
        if legacy is not None:
            task = asyncio.ensure_future(legacy.receive(message, send))
            running.add(task)
            task.add_done_callback(running.discard)
        elif message["method"] == "notifications/cancelled":
            task = tasks.get(message["params"]["requestId"])
            if task is not None:
                task.cancel()
        elif "id" in message:
            tasks[message["id"]] = asyncio.ensure_future(serve(message))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

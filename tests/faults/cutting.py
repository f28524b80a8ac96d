"""A proxy of bytes between the gateway and a server: it cuts, slows down and takes apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """cut: bytes of the server's that pass before both ends are closed. step: bytes of a chunk.

    delay: seconds before each chunk. All of them may change while it runs.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.cut: int | None = None
        self.step = 65536
        self.delay = 0.0
        self.tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        up = asyncio.create_task(self._pass(reader, far_writer, down=False))
        try:
            await self._pass(far_reader, writer, down=True)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            up.cancel()
            await asyncio.wait([up])
            for one in (writer, far_writer):
                one.transport.abort()
            self.tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(self.step if down else 65536):
                if down and self.delay:
                    await asyncio.sleep(self.delay)
                if down and self.cut is not None:
                    data, self.cut = data[: self.cut], self.cut - len(data)
                writer.write(data)
                await writer.drain()
                if down and self.cut is not None and self.cut <= 0:
                    self.cut = None
                    return
            if not down:
                writer.close()


@asynccontextmanager
async def cutting(target: int) -> AsyncGenerator[Proxy]:
    """A listening proxy in front of the port `target`."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        tasks = tuple(proxy.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

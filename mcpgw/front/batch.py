"""Batches of JSON-RPC messages, which 2025-03-26 must accept and no other revision has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from mcpgw.core import wire
from mcpgw.core.eras import INVALID_REQUEST
from mcpgw.front.legacy import Session


async def answer(
    session: Session,
    items: list[wire.Message | wire.BadMessage],
    one: Callable[[wire.Request], Awaitable[bytes | None]],
) -> list[bytes]:
    """The responses to a batch, each request answered by `one`, all at the same time."""
    answers: list[bytes | None] = [None] * len(items)

    async def run(at: int, request: wire.Request) -> None:
        answers[at] = await one(request)

    async with anyio.create_task_group() as tasks:
        for at, item in enumerate(items):
            if isinstance(item, wire.BadMessage):
                answers[at] = wire.error(item.id, item)
            elif isinstance(item, wire.Response):
                session.answered(item)
            elif isinstance(item, wire.Notification):
                session.noted(item)
            elif item.method == "initialize":
                error = wire.BadMessage(INVALID_REQUEST, "initialize cannot be in a batch")
                answers[at] = wire.error(item.id, error)
            else:
                tasks.start_soon(run, at, item)
    return [answer for answer in answers if answer is not None]


def joined(answers: list[bytes]) -> bytes:
    return b"[" + b",".join(answers) + b"]"

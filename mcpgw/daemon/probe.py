"""Reach one server step by step, to see where it fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Raw

from mcpgw.core import wire
from mcpgw.daemon.door import live_status
from mcpgw.daemon.reach import Reach, Unasked, reach
from mcpgw.model.calls import Call, Done, JsonObject, RpcError

Then: TypeAlias = Callable[[Reach, JsonObject], Awaitable[list[dict[str, object]]]]


async def test_server(
    store: Path, name: str, *, then: Then | None = None
) -> list[dict[str, object]]:
    """Reach one server and list its tools: `{"stage", "ok", "detail", "ms"}` for each step.

    then: more steps to take once the tools are listed; gets the way there and the list's result.

    A live link of the running daemon is used as it is. Where it has none the test connects by
    itself, so that what the daemon remembers of an earlier failure cannot hide a mended server.
    """
    live = await live_status(store)
    links: list[dict[str, Any]] = live["links"] if live else []
    own = not any(link["server"] == name and link["state"] == "up" for link in links)
    async with reach(store, server=name, own=own) as reached:
        ctx = reached.ctx
        steps: list[dict[str, object]] = []
        methods = {"handshake": "server/discover", "list": "tools/list"}
        for stage, method in methods.items():
            began = time.perf_counter()
            try:
                reply = await reached.handler.handle(Call(method, {}, ctx), Unasked())
            except RpcError as error:
                steps.append(_step(_stage(error) or stage, began, failed=error.message))
                return steps
            result = reply.result if isinstance(reply, Done) else {}
            if stage == "handshake":
                status = await reached.status()
                mine = [link for link in status["links"] if link["server"] == name]
                revision = mine[-1]["revision"] if mine else None
                steps.append(_step(stage, began, revision=revision))
                if "tools" not in wire.members(result.get("capabilities", wire.EMPTY)):
                    return steps
            else:
                tools = len(wire.array(result.get("tools", Raw(b"[]"))))
                steps.append(_step(stage, began, tools=tools))
                if then is not None:
                    steps += await then(reached, result)
        return steps


def _step(
    stage: str, began: float, *, failed: str | None = None, **facts: object
) -> dict[str, object]:
    ms = round((time.perf_counter() - began) * 1000, 1)
    detail = failed if failed is not None else ", ".join(f"{k} {v}" for k, v in facts.items() if v)
    return {"stage": stage, "ok": failed is None, "detail": detail, "ms": ms, **facts}


def _stage(error: RpcError) -> str | None:
    """Where an upstream failed, as the relay tells it in the error's data."""
    if error.data is None:
        return None
    try:
        return wire.text(wire.members(error.data).get("stage"))
    except wire.BadMessage:  # an upstream's own data may be anything
        return None

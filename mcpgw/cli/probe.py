"""`server test` and `tools test`: does a server answer, how fast, and what mends it if not.

A failing server is the answer here, not a refusal: the report goes to stdout and the exit status
is 5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import typer
from msgspec import Raw

from mcpgw.cli import asking, render, values
from mcpgw.cli.io import Desk, mapping, paint, usage
from mcpgw.core import wire
from mcpgw.daemon.assembly import run
from mcpgw.daemon.probe import Then, test_server
from mcpgw.daemon.reach import Reach
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.calls import JsonObject
from mcpgw.model.config import Server
from mcpgw.store import registry

AT_ONCE = 8  # servers tested at the same time: each may be a process to start
SHOWN = 100  # characters of an answer that a report quotes


def probe(desk: Desk, name: str | None) -> None:
    """Test one server, or every enabled one."""
    _report(desk, _examine(desk, _chosen(desk, name), None))


def probe_tools(desk: Desk, what: str | None, *, pairs: list[str], whole: str | None) -> None:
    """The same, and call what is safe to call, or the one tool that `what` names."""
    if what is None or not ("/" in what or "__" in what):
        if pairs or whole is not None:
            usage("Arguments are for one tool.", next="mcpgw tools test SERVER/TOOL --arg K=V")
        _report(desk, _examine(desk, _chosen(desk, what), _safe_calls))
        return
    server, word = asking.locate(desk, what, "tool")

    def one(server: Server) -> Then:
        async def then(reached: Reach, result: JsonObject) -> list[dict[str, object]]:
            tool = asking.find(server, _tools(result), word, "tool")
            schema = mapping(wire.value(tool.get("inputSchema", wire.EMPTY)))
            given = values.arguments(pairs, whole, schema, desk)
            return [await _call(reached, server, tool, given)]

        return then

    _report(desk, _examine(desk, _chosen(desk, server.name), one))


def _chosen(desk: Desk, name: str | None) -> list[Server]:
    with desk.store() as store:
        if name is None:
            return [server for server in registry.list_servers(store) if server.enabled]
        server = registry.get_server(store, name)
    if not server.enabled:
        raise GatewayError(
            f"{server.name} is disabled.",
            next=f"mcpgw server enable {server.name}",
            code="disabled",
            exit=Exit.UPSTREAM,
        )
    return [server]


def _examine(
    desk: Desk, servers: list[Server], then: Callable[[Server], Then] | None
) -> list[dict[str, Any]]:
    reports: dict[str, dict[str, Any]] = {}
    path = desk.path

    async def one(server: Server, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            steps = await test_server(path, server.name, then=then(server) if then else None)
        reports[server.name] = _judged(server, steps)

    async def all_of_them() -> None:
        limit = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(one, server, limit)

    names = ", ".join(server.name for server in servers)
    with desk.busy(f"Testing {names}"), asking.log_held_back():
        run(all_of_them)
    return [reports[server.name] for server in servers]


def _judged(server: Server, steps: list[dict[str, object]]) -> dict[str, Any]:
    failed = next((step for step in steps if not step["ok"]), None)
    facts: dict[str, object] = {}
    for step in steps:
        facts.update(step)
    advice = (
        asking.mend(str(failed["stage"]), server.name, str(failed["detail"])) if failed else None
    )
    return {
        "name": server.name,
        "ok": failed is None,
        "revision": facts.get("revision"),
        "tools": facts.get("tools"),
        "ms": round(sum(float(str(step["ms"])) for step in steps), 1),
        "stages": steps,
        "why": str(failed["detail"]) if failed else None,
        "next": advice,
    }


def _report(desk: Desk, reports: list[dict[str, Any]]) -> None:
    ok = all(report["ok"] for report in reports)
    if desk.as_json:
        desk.emit({"servers": reports, "ok": ok})
    else:
        rows = [
            (
                report["name"],
                str(step["stage"]) + (f" {step['tool']}" if "tool" in step else ""),
                "ok" if step["ok"] else "failed",
                f"{step['ms']} ms",
                str(step["detail"]),
            )
            for report in reports
            for step in report["stages"]
        ]
        desk.rows(
            ("SERVER", "STAGE", "RESULT", "TIME", "DETAIL"),
            rows,
            empty="There is no enabled server. Next: mcpgw server add NAME --url URL",
        )
        for report in reports:
            if not report["ok"]:
                label = paint(desk.stderr, " next:", "36")
                desk.stderr.write(f"{label} {report['next']}\n")
    if not ok:
        raise typer.Exit(Exit.UPSTREAM)


def _tools(result: JsonObject) -> list[JsonObject]:
    return [wire.members(tool) for tool in wire.array(result.get("tools", Raw(b"[]")))]


def _safe_calls(server: Server) -> Then:
    async def then(reached: Reach, result: JsonObject) -> list[dict[str, object]]:
        return [await _call(reached, server, tool, {}) for tool in _tools(result) if is_safe(tool)]

    return then


def is_safe(tool: JsonObject) -> bool:
    """Whether a tool says that it only reads, and needs no argument."""
    notes = mapping(wire.value(tool.get("annotations", wire.EMPTY)))
    schema = mapping(wire.value(tool.get("inputSchema", wire.EMPTY)))
    return notes.get("readOnlyHint") is True and not schema.get("required")


async def _call(
    reached: Reach, server: Server, tool: JsonObject, given: JsonObject
) -> dict[str, object]:
    """One call as a step of the report. An error of the tool itself is a failure too."""
    began = time.perf_counter()
    name = wire.text(tool.get("name")) or ""
    step: dict[str, object] = {"stage": "call", "tool": name}
    params = {"name": tool["name"], "arguments": wire.dump_object(given)}
    try:
        done = await asking.ask(reached, "tools/call", params, server=server.name)
    except GatewayError as error:
        step.update(ok=False, detail=error.what)
    else:
        failed = wire.value(done.result.get("isError", wire.NULL)) is True
        text = " ".join(render.contents(done.result).split())
        step.update(ok=not failed, detail=text if len(text) <= SHOWN else text[:SHOWN] + "…")
    step["ms"] = round((time.perf_counter() - began) * 1000, 1)
    return step

"""A server that is quoted in the log cannot write lines of its own there."""

from __future__ import annotations

import json
import logging

import pytest

from mcpgw.daemon import logs


def lines(capsys: pytest.CaptureFixture[str], log_format: str, message: str) -> list[str]:
    root, own = logging.getLogger(), logging.getLogger("mcpgw")
    handlers, levels = root.handlers[:], (root.level, own.level)
    try:
        logs.set_up(log_format)
        logging.getLogger("mcpgw.server.x").warning("it said %s", message)
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
    return capsys.readouterr().err.removesuffix("\n").split("\n")


EVIL = "hi\n2026-01-01 00:00:00,000 INFO    mcpgw.daemon: all is well\r\x1b[2J\x9b1m\u2028end"


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines(capsys, "text", EVIL)
    assert first.endswith("WARNING mcpgw.server.x: it said hi")
    assert second.startswith("    2026-01-01")
    assert second.endswith(r"all is well\x0d\x1b[2J\x9b1m\x2028end")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = lines(capsys, "json", EVIL)
    assert json.loads(line)["message"] == f"it said {EVIL}"
    assert not {"\x1b", "\x9b", "\u2028"} & set(line)

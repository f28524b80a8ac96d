"""The person at the terminal, asked by a server."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from mcpgw.cli.io import Desk, Spinner
from mcpgw.cli.person import Person, typed
from mcpgw.core import wire
from mcpgw.model.calls import Ask, AskMode, Progress, RpcError
from tests.unit.cli.driver import Terminal

pytestmark = pytest.mark.anyio

FORM = {
    "message": "Who\x1b[2J are you?",
    "requestedSchema": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "title": "Name"},
            "age": {"type": "integer"},
            "member": {"type": "boolean", "default": True},
            "colour": {"type": "string", "enum": ["red", "blue"]},
        },
    },
}


@contextmanager
def person(typing: str) -> Generator[tuple[Person, io.StringIO]]:
    """Somebody who types this; what they see."""
    reading, writing = os.pipe()
    os.write(writing, typing.encode())
    os.close(writing)
    screen = Terminal()
    with os.fdopen(reading) as keyboard:
        desk = Desk(None)
        desk.stderr = screen
        desk.stdin = keyboard
        keyboard.isatty = lambda: True  # pyright: ignore[reportAttributeAccessIssue]
        yield Person(desk, Spinner(None)), screen


async def answer(someone: Person, params: dict[str, Any]) -> dict[str, Any]:
    with anyio.fail_after(10):
        raw = await someone.ask(
            Ask("elicitation/create", wire.members(json.dumps(params).encode()))
        )
    return json.loads(bytes(raw))


async def test_a_form() -> None:
    with person("Ada\nold\n36\n\ngreen\nblue\n\n") as (someone, screen):
        told = await answer(someone, FORM)
    assert told == {
        "action": "accept",
        "content": {"name": "Ada", "age": 36, "member": True, "colour": "blue"},
    }
    assert "\x1b" not in screen.getvalue()
    assert "This takes a whole number." in screen.getvalue()
    assert "This takes red, blue." in screen.getvalue()


async def test_what_is_required_is_asked_again() -> None:
    with person("\nAda\n\n\n\ny\n") as (someone, _):
        told = await answer(someone, FORM)
    assert told["content"] == {"name": "Ada", "member": True}


async def test_a_no() -> None:
    with person("Ada\n\n\n\nn\n") as (someone, _):
        assert await answer(someone, FORM) == {"action": "decline"}


async def test_a_page_to_open() -> None:
    with person("\n") as (someone, screen):
        params = {"mode": "url", "message": "Sign in.", "url": "https://example.com/\x1b[2J"}
        assert await answer(someone, params) == {"action": "accept"}
    assert "https://example.com/\\x1b[2J" in screen.getvalue()


async def test_a_closed_terminal() -> None:
    with person("") as (someone, _), pytest.raises(RpcError):
        await answer(someone, FORM)


async def test_only_elicitation_is_answered() -> None:
    with person("") as (someone, _):
        assert set(someone.capabilities) == {"elicitation"}
        with pytest.raises(RpcError):
            await someone.ask(Ask("sampling/createMessage", {}))


async def test_nobody_is_there() -> None:
    desk = Desk(None)
    desk.stdin, desk.stderr = io.StringIO(), io.StringIO()
    nobody = Person(desk, Spinner(None))
    assert nobody.ask_mode is AskMode.NEVER
    assert nobody.capabilities == {}
    with pytest.raises(RpcError):
        await nobody.ask(Ask("elicitation/create", {}))
    await nobody.tell(Progress(wire.members(b'{"progress": 1, "total": 2}')))


@pytest.mark.parametrize(
    ("text", "rules", "value"),
    [
        ("yes", {"type": "boolean"}, True),
        ("N", {"type": "boolean"}, False),
        ("1.5", {"type": "number"}, 1.5),
        ("a, b", {"type": "array"}, ["a", "b"]),
        ("x", {}, "x"),
    ],
)
async def test_types(text: str, rules: dict[str, Any], value: object) -> None:
    assert typed(text, rules, []) == value

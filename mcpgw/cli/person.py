"""The person at the terminal as a caller: sees progress, and answers what a server asks.

Where nobody can be asked nothing is declared, so servers know it before they ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from msgspec import Raw

from mcpgw.cli.io import Desk, Spinner, mapping, one_line, sequence
from mcpgw.core import wire
from mcpgw.core.eras import METHOD_NOT_FOUND
from mcpgw.model.calls import Ask, AskMode, Note, Progress, RpcError

_ABLE = {"elicitation": Raw(b'{"form":{},"url":{}}')}


class Person:
    """Reads progress on stderr and answers elicitations where `desk` has a terminal."""

    def __init__(self, desk: Desk, spinner: Spinner) -> None:
        self._desk = desk
        self._spinner = spinner
        self.ask_mode = AskMode.LIVE if desk.interactive else AskMode.NEVER

    @property
    def capabilities(self) -> Mapping[str, Raw]:
        """What a server may ask for."""
        return _ABLE if self.ask_mode is AskMode.LIVE else {}

    async def tell(self, note: Note) -> None:
        if not isinstance(note, Progress):
            return
        parts = {name: wire.value(raw) for name, raw in note.params.items()}
        of = f"/{parts['total']}" if "total" in parts else ""
        self._spinner.say(f"{parts.get('progress', '')}{of} {parts.get('message', '')}")

    async def ask(self, ask: Ask) -> Raw:
        if ask.method != "elicitation/create" or self.ask_mode is not AskMode.LIVE:
            raise RpcError(METHOD_NOT_FOUND, f"nobody is there to answer {ask.method}")
        params = {name: wire.value(raw) for name, raw in ask.params.items()}
        with self._spinner.paused():
            return wire.dump(await self._elicit(params))

    async def _elicit(self, params: Mapping[str, Any]) -> dict[str, object]:
        self._desk.stderr.write(f"The server asks: {one_line(str(params.get('message', '')))}\n")
        if params.get("mode") == "url":
            self._desk.stderr.write(f"Open {one_line(str(params.get('url', '')))}\n")
            return {"action": await self._choice("Done?")}
        schema = mapping(params.get("requestedSchema"))
        required = sequence(schema.get("required"))
        content: dict[str, object] = {}
        for name, rules in mapping(schema.get("properties")).items():
            value = await self._field(name, mapping(rules), needed=name in required)
            if value is not None:
                content[name] = value
        action = await self._choice("Send this?")
        return {"action": action, "content": content} if action == "accept" else {"action": action}

    async def _choice(self, question: str) -> str:
        answer = (await self._line(f"{question} [Y/n] ")).strip().lower()
        return "accept" if answer in {"", "y", "yes"} else "decline"

    async def _field(self, name: str, rules: Mapping[str, Any], *, needed: bool) -> object:
        label = one_line(str(rules.get("title") or rules.get("description") or name))
        default = rules.get("default")
        choices = _choices(rules)
        hint = f" ({', '.join(map(one_line, choices))})" if choices else ""
        kept = f" [{one_line(str(default))}]" if default is not None else ""
        while True:
            text = await self._line(f"  {label}{hint}{kept}: ")
            if not text:
                if default is not None or not needed:
                    return default
                continue
            try:
                return typed(text, rules, choices)
            except ValueError as error:
                self._desk.stderr.write(f"  {error}\n")

    async def _line(self, prompt: str) -> str:
        """One line; Ctrl-C ends the wait, as no thread sits in a read."""
        self._desk.stderr.write(prompt)
        self._desk.stderr.flush()
        await anyio.wait_readable(self._desk.stdin)
        line = self._desk.stdin.readline()
        if not line:
            raise RpcError(METHOD_NOT_FOUND, "the terminal was closed")
        return line.strip()


def _choices(rules: Mapping[str, Any]) -> list[str]:
    holder = mapping(rules.get("items")) if rules.get("type") == "array" else rules
    titled = sequence(holder.get("oneOf") or holder.get("anyOf"))
    return [str(value) for value in sequence(holder.get("enum"))] or [
        str(mapping(option).get("const")) for option in titled
    ]


def typed(text: str, rules: Mapping[str, Any], choices: list[str]) -> object:
    """What was typed, as the type that the server wants. Raises ValueError with what is wrong."""
    kind = rules.get("type", "string")
    if kind == "boolean":
        if text.lower() not in {"y", "yes", "true", "n", "no", "false"}:
            raise ValueError("Answer yes or no.")
        return text.lower() in {"y", "yes", "true"}
    if kind in {"integer", "number"}:
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            raise ValueError(
                f"This takes {'a whole' if kind == 'integer' else 'a'} number."
            ) from None
    values = [part.strip() for part in text.split(",")] if kind == "array" else [text]
    if choices and not set(values) <= set(choices):
        raise ValueError(f"This takes {', '.join(map(one_line, choices))}.")
    return values if kind == "array" else text

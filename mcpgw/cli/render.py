"""What servers answer, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Raw

from mcpgw.cli.io import one_line
from mcpgw.core import wire
from mcpgw.model.calls import JsonObject

_FOREIGN = re.compile(r"[^\x00-\x7e]")


def ascii_json(raw: Raw) -> str:
    """JSON text in ASCII. Nothing is lost: other characters only stand in strings."""

    def escaped(found: re.Match[str]) -> str:
        return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"

    return _FOREIGN.sub(escaped, bytes(raw).decode())


def contents(result: JsonObject) -> str:
    """A tool's result for people: texts as they are, everything else described."""
    blocks = [wire.members(block) for block in wire.array(result.get("content", Raw(b"[]")))]
    parts = [block_text(block) for block in blocks]
    structured = result.get("structuredContent")
    if not parts and structured is not None:
        parts.append(pretty(structured))
    return "\n".join(parts)


def messages(result: JsonObject) -> str:
    """A prompt's messages, each after whose it is."""
    return "\n\n".join(_messages(result))


def _messages(result: JsonObject) -> Iterator[str]:
    for raw in wire.array(result.get("messages", Raw(b"[]"))):
        message = wire.members(raw)
        content = message.get("content", wire.EMPTY)
        blocks = wire.array(content) if wire.is_batch(bytes(content)) else [content]
        text = "\n".join(block_text(wire.members(block)) for block in blocks)
        yield f"{wire.text(message.get('role')) or 'user'}: {text}"


def resource(content: JsonObject) -> str:
    """One of a resource's contents: its text, or what it is."""
    text = wire.text(content.get("text"))
    if text is not None:
        return text
    blob = wire.text(content.get("blob")) or ""
    kind = wire.text(content.get("mimeType")) or "binary"
    return f"[{kind}, {_bytes(blob)} bytes, {wire.text(content.get('uri')) or ''}]"


def block_text(block: JsonObject) -> str:
    """One block of content."""
    kind = wire.text(block.get("type"))
    if kind == "text":
        return wire.text(block.get("text")) or _lossy(block.get("text"))
    if kind in {"image", "audio"}:
        size = _bytes(wire.text(block.get("data")) or "")
        return f"[{kind} {one_line(wire.text(block.get('mimeType')) or '')}, {size} bytes]"
    if kind == "resource_link":
        return (
            f"[resource {wire.text(block.get('name')) or ''} {wire.text(block.get('uri')) or ''}]"
        )
    if kind == "resource":
        return resource(wire.members(block.get("resource", wire.EMPTY)))
    return bytes(wire.dump_object(block)).decode(errors="replace")


def pretty(raw: Raw) -> str:
    """JSON over several lines."""
    return json.dumps(wire.value(raw), indent=2, ensure_ascii=False)


def snake(item: JsonObject) -> dict[str, Any]:
    """An item of a list with its own members in snake_case; what is in them stays as it came."""
    return {_snake(name): wire.value(raw) for name, raw in item.items()}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", name).lstrip("_")


def _lossy(raw: Raw | None) -> str:
    """A text with a lone surrogate in it."""
    value = "" if raw is None else wire.value(raw)
    return str(value).encode(errors="replace").decode() if isinstance(value, str) else ""


def _bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")

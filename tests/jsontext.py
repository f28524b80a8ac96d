"""JSON as text, read without a JSON library: what tests of losslessness compare.

Two texts are the same when they differ in nothing but white space between tokens.
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(
    rb'[ \t\r\n]*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[][{}:,])', re.DOTALL
)
_SPACE = re.compile(rb"[ \t\r\n]*")


def tokens(text: bytes) -> list[bytes]:
    """The tokens as they stand. Raises ValueError for what is none."""
    found: list[bytes] = []
    at = 0
    while match := _TOKEN.match(text, at):
        found.append(match[1])
        at = match.end()
    space = _SPACE.match(text, at)
    if space is None or space.end() != len(text):
        raise ValueError(f"no JSON token at byte {at}: {text[at : at + 40]!r}")
    return found


def squeezed(text: bytes) -> bytes:
    """The text without white space between tokens."""
    return b"".join(tokens(text))


def name_of(token: bytes) -> str:
    """A string token's value; lone surrogates stay what they are."""
    return json.loads(token)


def members(text: bytes) -> dict[str, bytes]:
    """An object's members in order, squeezed; of a repeated name the last one counts."""
    parts = tokens(text)
    if parts[0] != b"{" or parts[-1] != b"}":
        raise ValueError(f"not an object: {text[:80]!r}")
    found: dict[str, bytes] = {}
    at = 1
    while parts[at] != b"}":
        key = name_of(parts[at])
        end = _end(parts, at + 2)
        found[key] = b"".join(parts[at + 2 : end])
        at = end + (parts[end] == b",")
    return found


def items(text: bytes) -> list[bytes]:
    """An array's items in order, squeezed."""
    parts = tokens(text)
    if parts[0] != b"[" or parts[-1] != b"]":
        raise ValueError(f"not an array: {text[:80]!r}")
    found: list[bytes] = []
    at = 1
    while parts[at] != b"]":
        end = _end(parts, at)
        found.append(b"".join(parts[at:end]))
        at = end + (parts[end] == b",")
    return found


def _end(parts: list[bytes], at: int) -> int:
    """The index behind the value that begins at `at`."""
    depth = 0
    while True:
        if parts[at] in (b"{", b"["):
            depth += 1
        elif parts[at] in (b"}", b"]"):
            depth -= 1
        at += 1
        if not depth:
            return at


def obj(*pairs: tuple[bytes, bytes], space: bytes = b"") -> bytes:
    """An object of name tokens and values, with `space` between all tokens."""
    inner = (space + b"," + space).join(
        name + space + b":" + space + value for name, value in pairs
    )
    return b"{" + space + inner + space + b"}"

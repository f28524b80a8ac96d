"""Arguments of tools from the words of a command."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mcpgw.cli import values
from mcpgw.cli.io import Desk
from mcpgw.errors import Exit, GatewayError

SCHEMA: dict[str, Any] = {
    "properties": {
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "yes": {"type": "boolean"},
        "o": {"type": "object"},
        "a": {"type": "array"},
        "s": {"type": "string"},
        "either": {"type": ["string", "null"]},
        "any_of": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "free": {"description": "anything"},
    }
}


def read(*pairs: str, whole: str | None = None, stdin: str = "") -> dict[str, str]:
    desk = Desk(None)
    desk.stdin = io.StringIO(stdin)
    return {k: bytes(v).decode() for k, v in values.arguments(pairs, whole, SCHEMA, desk).items()}


@pytest.mark.parametrize(
    ("pair", "json"),
    [
        ("n=7", "7"),
        ("n=-123456789012345678901234567890", "-123456789012345678901234567890"),
        ("x=1e400", "1e400"),
        ("x=0.10", "0.10"),
        ("yes=TRUE", "true"),
        ('o={"b": [1]}', '{"b": [1]}'),
        ("a=[1, 2]", "[1, 2]"),
        ("s=7", '"7"'),
        ("s=", '""'),
        ('s=a "quoted" ä', '"a \\"quoted\\" ä"'),
        ("either=null", "null"),
        ("either=nil", '"nil"'),
        ("any_of=3", "3"),
        ("free=3", '"3"'),
        ("unknown=true", '"true"'),
        ("n:=1.5", "1.5"),
        ('s:={"k": null}', '{"k": null}'),
        ("s=a:=b", '"a:=b"'),
    ],
)
def test_one_argument(pair: str, json: str) -> None:
    assert list(read(pair).values()) == [json]


@pytest.mark.parametrize(
    "pair",
    [
        "n=seven",
        "n=1.5",
        "n=01",
        "x=1.",
        "x=NaN",
        "yes=1",
        "o=[1]",
        "a=x",
        "any_of=x",
        "n:=x",
        "n:=",
    ],
)
def test_what_the_schema_does_not_take(pair: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(pair)
    assert caught.value.exit is Exit.USAGE


@pytest.mark.parametrize("pair", ["", "n", "=7"])
def test_what_is_no_pair(pair: str) -> None:
    with pytest.raises(GatewayError):
        read(pair)


def test_pairs_win_over_the_whole() -> None:
    assert read("n=2", whole='{"n": 1, "free": 1e400}') == {"n": "2", "free": "1e400"}


def test_the_whole_from_stdin() -> None:
    assert read(whole="-", stdin='{"n":\n1}') == {"n": "1"}


@pytest.mark.parametrize("whole", ["", "[]", "7", "{", '{"a":}'])
def test_what_is_no_whole(whole: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read(whole=whole)
    assert caught.value.exit is Exit.USAGE

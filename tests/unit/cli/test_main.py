"""The boundary: what escapes a verb becomes three lines and a status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from mcpgw.cli import running
from mcpgw.errors import Exit, GatewayError
from tests.unit.cli.driver import Shell

HIDDEN = "hunter2"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException], None]]:
    """Makes `mcpgw status` raise."""

    def fail(error: BaseException) -> None:
        def raising(_: object) -> dict[str, object]:
            secret = HIDDEN
            raise error if secret else AssertionError

        monkeypatch.setattr(running, "condition", raising)

    return fail  # pyright: ignore[reportReturnType]


def test_a_refusal_is_three_lines(mcpgw: Shell, failing: Callable[[BaseException], None]) -> None:
    failing(GatewayError("What.", why="Why\nso.", next="mcpgw status", exit=Exit.DENIED))
    said = mcpgw("status")
    assert said.code == 4
    assert said.out == ""
    assert said.err == "error: What.\n  why: Why\n       so.\n next: mcpgw status\n"


def test_a_refusal_as_json(mcpgw: Shell, failing: Callable[[BaseException], None]) -> None:
    failing(GatewayError("What\x1b.", code="odd", exit=Exit.UPSTREAM))
    said = mcpgw("status", "--json")
    assert said.code == 5
    assert said.error == {"code": "odd", "what": "What\x1b.", "why": None, "next": None}


def test_control_characters_do_not_reach_the_terminal(
    mcpgw: Shell, failing: Callable[[BaseException], None]
) -> None:
    failing(GatewayError("What\x1b[2J."))
    assert mcpgw("status").err == "error: What\\x1b[2J.\n"


def test_a_refusal_among_other_errors_wins(
    mcpgw: Shell, failing: Callable[[BaseException], None]
) -> None:
    refusal = GatewayError("What.", exit=Exit.MISSING)
    failing(BaseExceptionGroup("g", [ValueError("x"), ExceptionGroup("h", [refusal])]))
    assert mcpgw("status").code == 3


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_a_fault_says_where_and_hides_the_rest(
    words: tuple[str, ...], mcpgw: Shell, failing: Callable[[BaseException], None]
) -> None:
    failing(RuntimeError(f"bad value {HIDDEN}"))
    said = mcpgw(*words)
    assert said.code == 1
    assert said.out == ""
    assert HIDDEN not in said.err
    assert "RuntimeError" in said.err
    assert "MCPGW_DEBUG=1" in said.err
    assert len(said.err.splitlines()) <= 2


def test_a_fault_with_a_traceback_shows_no_locals(
    mcpgw: Shell, failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGW_DEBUG", "1")
    failing(RuntimeError("bad value"))
    said = mcpgw("status")
    assert "Traceback" in said.err
    assert HIDDEN not in said.err


def test_an_interruption(mcpgw: Shell, failing: Callable[[BaseException], None]) -> None:
    failing(KeyboardInterrupt())
    assert mcpgw("status").code == 130
    failing(BaseExceptionGroup("g", [KeyboardInterrupt()]))
    assert mcpgw("status").code == 130


def test_a_reader_that_has_seen_enough(
    mcpgw: Shell, failing: Callable[[BaseException], None]
) -> None:
    failing(BrokenPipeError(32, "Broken pipe"))
    said = mcpgw("status")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("servr",), "Did you mean 'server'"),
        (("server", "lst"), "No such command"),
        (("server", "list", "--jsn"), "--json"),
        (("server", "show"), "Missing"),
        (("serve", "--port", "many"), "--port"),
        (("serve", "--port", "70000"), "--port"),
        (("serve", "--log-format", "xml"), "--log-format"),
        (("serve", "--trusted-proxy", "proxy"), "10.0.0.0/8"),
        (("serve", "--allow-origin", "example.com"), "https://app.example.com"),
    ],
)
def test_wrong_words(words: tuple[str, ...], hint: str, mcpgw: Shell) -> None:
    said = mcpgw(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert hint in said.err


def test_wrong_words_as_json(mcpgw: Shell) -> None:
    said = mcpgw("server", "show", "--json")
    assert said.code == 2
    assert said.error["code"] == "usage"
    assert said.error["next"] == "mcpgw server show --help"


def test_json_after_the_dashes_belongs_to_the_command(mcpgw: Shell) -> None:
    said = mcpgw("server", "add", "a_", "--", "npx", "--json")
    assert said.err.startswith("error: ")
    with pytest.raises(json.JSONDecodeError):
        json.loads(said.err)


def test_advice_works_on_the_store_that_was_named(
    mcpgw: Shell, failing: Callable[[BaseException], None]
) -> None:
    failing(GatewayError("What.", next="Try mcpgw server list or mcpgw status"))
    said = mcpgw("--store", "/x y/s.db", "status")
    named = "mcpgw --store '/x y/s.db'"
    assert said.err.endswith(f" next: Try {named} server list or {named} status\n")


@pytest.mark.parametrize("status", [0, 5])
def test_the_demo_decides_its_status(
    status: int, mcpgw: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpgw.demo import tour

    def run(*, keep: bool, json: bool, out: TextIO, err: TextIO) -> int:
        out.write(f"{keep} {json}\n")
        return status

    monkeypatch.setattr(tour, "run", run)
    said = mcpgw("demo", "--keep", "--json")
    assert (said.code, said.out) == (status, "True True\n")

"""Streams: what goes where, and what a terminal is spared."""

from __future__ import annotations

import io

import pytest

from mcpgw.cli.io import Cancelled, Desk, harmless, moment, one_line, paint, timestamp
from mcpgw.errors import Exit, GatewayError
from tests.unit.cli.driver import Terminal


def at(*, terminal: bool, stdin: str = "", as_json: bool = False) -> Desk:
    desk = Desk(None, as_json=as_json)
    kind = Terminal if terminal else io.StringIO
    desk.stdin, desk.stdout, desk.stderr = kind(stdin), kind(), kind()
    return desk


def told(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


@pytest.mark.parametrize(
    "character", ["\x1b", "\x07", "\x08", "\r", "\x9b", "\u202e", "\x7f", "\0"]
)
def test_what_a_terminal_would_obey_is_shown_instead(character: str) -> None:
    shown = harmless(f"a{character}b\n\tc")
    assert character not in shown
    assert shown.endswith("b\n\tc")


def test_a_cell_is_one_line() -> None:
    assert one_line(" a\n\tb\r c\x1b[31m ") == "a b c\\x1b[31m"


def test_a_listing_in_a_pipe_has_tabs_and_no_headings() -> None:
    desk = at(terminal=False)
    desk.rows(("A", "B"), [("1", "two\tthree"), ("2", "")])
    assert told(desk.stdout) == "1\ttwo three\n2\t\n"


def test_a_listing_on_a_terminal_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    desk = at(terminal=True)
    desk.rows(("NAME", "WHAT"), [("a", "[bold]not markup[/bold]\x1b[2J")])
    shown = told(desk.stdout)
    assert "NAME" in shown
    assert "[bold]not markup[/bold]\\x1b[2J" in shown


def test_nothing_to_list_is_told_to_people_only() -> None:
    desk = at(terminal=False)
    desk.rows(("A",), [], empty="nothing")
    assert told(desk.stdout) == ""
    assert told(desk.stderr) == "nothing\n"


def test_data_in_a_pipe_is_left_as_it_is() -> None:
    desk = at(terminal=False)
    desk.data("\x1b[31mred")
    assert told(desk.stdout) == "\x1b[31mred\n"
    desk = at(terminal=True)
    desk.data("\x1b[31mred")
    assert told(desk.stdout) == "\\x1b[31mred\n"


def test_programs_are_spared_the_words_for_people() -> None:
    desk = at(terminal=False, as_json=True)
    desk.say("Added.")
    assert told(desk.stderr) == ""


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_yes(answer: str) -> None:
    desk = at(terminal=True, stdin=answer)
    desk.confirm("Remove?", yes=False)
    assert told(desk.stderr) == "Remove? [y/N] "


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "yep\n"])
def test_anything_else_is_a_no(answer: str) -> None:
    with pytest.raises(Cancelled):
        at(terminal=True, stdin=answer).confirm("Remove?", yes=False)


def test_nobody_to_ask() -> None:
    desk = at(terminal=False, stdin="y\n")
    with pytest.raises(GatewayError) as caught:
        desk.confirm("Remove?", yes=False)
    assert caught.value.exit is Exit.USAGE
    desk.confirm("Remove?", yes=True)


def test_a_piped_secret_is_one_line() -> None:
    assert at(terminal=False, stdin="s3cret\r\nmore\n").read_secret() == "s3cret"
    with pytest.raises(GatewayError):
        at(terminal=False, stdin="\n").read_secret()


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint(io.StringIO(), "x", "1") == "x"
    assert paint(Terminal(), "x", "1") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint(Terminal(), "x", "1") == "x"


def test_times() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(None) is None
    assert moment(None) == "never"

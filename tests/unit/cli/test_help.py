"""Everything that can be typed says what it is, and nothing else is promised in the README."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mcpgw import __version__
from mcpgw.cli.completion import script
from mcpgw.cli.groups import Panel
from mcpgw.cli.main import app
from tests.unit.cli.driver import Shell

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
FILES = {"bash": "mcpgw.bash", "zsh": "_mcpgw", "fish": "mcpgw.fish"}


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, groups included, by its words."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk((*words, name), inner)

    return walk((), typer.main.get_command(app))


COMMANDS = dict(commands())


def options(words: tuple[str, ...]) -> set[str]:
    command = COMMANDS[words]
    return {"--help", "-h"} | {opt for param in command.params for opt in param.opts}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_everything_has_help(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.help, f"{words} says nothing"
    for param in command.params:
        assert getattr(param, "help", None), f"{words} {param.name} says nothing"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_can_be_asked_for_everywhere(words: tuple[str, ...], mcpgw: Shell) -> None:
    said = mcpgw.done(*words, "--help")
    assert said.out.startswith("Usage: mcpgw")
    assert said.err == ""
    assert not mcpgw.path.exists()


def test_commands_stand_in_panels(mcpgw: Shell) -> None:
    said = mcpgw.done("--help")
    places = [said.out.index(f"\n{panel}:\n") for panel in Panel]
    assert places == sorted(places)
    assert "\nCommands:\n" not in said.out


@pytest.mark.parametrize("words", [(), ("server",), ("key",), ("tools",)], ids=" ".join)
def test_a_noun_alone_says_which_verbs_there_are(words: tuple[str, ...], mcpgw: Shell) -> None:
    assert mcpgw.done(*words).out == mcpgw.done(*words, "--help").out


def test_the_version(mcpgw: Shell) -> None:
    assert mcpgw.done("--version").out == f"mcpgw {__version__}\n"


@pytest.mark.parametrize("shell", FILES)
def test_the_completion_files_are_what_the_command_prints(shell: str, mcpgw: Shell) -> None:
    printed = mcpgw.done("completion", shell).out
    assert printed == script(shell)  # pyright: ignore[reportArgumentType]
    assert (ROOT / "completions" / FILES[shell]).read_text() == printed


def promised(text: str) -> Iterator[list[str]]:
    """The commands in code spans and blocks of a README, split into words."""
    blocks = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    code = [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        for part in re.split(r"[|;&()]+", line):
            found = re.search(r"(?:^|[\s/$])mcpgw((?:\s.*)?)$", part.partition(" #")[0])
            if found is not None:
                try:
                    yield shlex.split(found[1])
                except ValueError:
                    yield found[1].split()


def strangers(words: list[str]) -> list[str]:
    """The words of one command that do not exist: its verb, or options."""
    at: tuple[str, ...] = ()
    known: set[str] = set()
    unknown: list[str] = []
    value_next = False
    for word in words:
        if word == "--":
            break
        known |= options(at)
        if word.startswith("-"):
            name = word.partition("=")[0]
            if name not in options(at):
                unknown.append(word)
            value_next = "=" not in word and takes_value(at, name)
        elif value_next:
            value_next = False
        elif hasattr(COMMANDS[at], "commands") and re.fullmatch(r"[a-z]+", word):
            if (*at, word) not in COMMANDS:
                return [*unknown, word]
            at = (*at, word)
    return unknown


def takes_value(at: tuple[str, ...], name: str) -> bool:
    return any(
        name in param.opts and not getattr(param, "is_flag", False) for param in COMMANDS[at].params
    )


def test_the_readme_names_only_what_there_is() -> None:
    for words in promised(README.read_text()):
        assert strangers(words) == [], f"mcpgw {shlex.join(words)}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("mcpgw server add github --url https://x/mcp --auth bearer", []),
        ("mcpgw --store x.db server list --json", []),
        ("mcpgw server add fs -- npx --nonsense", []),
        ("mcpgw server frobnicate x", ["frobnicate"]),
        ("mcpgw server list --nonsense", ["--nonsense"]),
        ("mcpgw frob", ["frob"]),
    ],
)
def test_a_readme_can_be_caught(line: str, wrong: list[str]) -> None:
    for text in (f"```sh\n$ {line}\n```", f"Use `{line}`."):
        assert [strangers(words) for words in promised(text)] == [wrong]

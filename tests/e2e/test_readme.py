"""The README's commands do what it says, in a bare directory and a bare virtual environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers import PIP_DOWN, UNREACHABLE

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = 300.0  # seconds for an installation from the registry
SHIPPED = ("mcpgw", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def block(name: str) -> str:
    """The one shell block that is marked so."""
    (found,) = re.findall(rf"<!-- run: {name} -->\n```sh\n(.+?)\n```", README, flags=re.DOTALL)
    return found


@dataclass
class Machine:
    """A directory with a checkout in it, and a home of its own."""

    checkout: Path
    environment: dict[str, str]

    def paste(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL,
            check=False,
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """As fresh as it gets: python3 is this Python's base, and no virtual environment is active."""
    folder = tmp_path_factory.mktemp("machine")
    checkout, bin, home = folder / "checkout", folder / "bin", folder / "home"
    for made in (checkout, bin, home):
        made.mkdir()
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, checkout)
    (bin / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    dropped = ("MCPGW_", "VIRTUAL_ENV", "PYTHON", "XDG_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    own = str(Path(sys.executable).parent)
    path = [part for part in environment["PATH"].split(os.pathsep) if part != own]
    environment["PATH"] = os.pathsep.join([str(bin), *path])
    environment["HOME"] = str(home)
    environment["PIP_CACHE_DIR"] = _pip_cache()
    return Machine(checkout, environment)


def _pip_cache() -> str:
    """The cache of whoever runs the tests, so that one installation is fetched once."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def shown(machine: Machine) -> tuple[Machine, str]:
    """The machine after the demo's command, and what that said."""
    done = machine.paste(block("demo"))
    if done.returncode and any(sign in done.stdout + done.stderr for sign in PIP_DOWN):
        pytest.skip(f"{UNREACHABLE}: PyPI")
    assert done.returncode == 0, done.stdout + done.stderr
    return machine, done.stdout


def test_the_first_command_sets_up_and_shows_the_main_job(shown: tuple[Machine, str]) -> None:
    machine, said = shown
    assert "\n" not in block("demo")
    assert "30 of 30 calls held." in said
    site = next((machine.checkout / ".venv").glob("lib/python*/site-packages"))
    assert (site / "mcpgw" / "daemon" / "serve.py").is_file()


def test_the_quick_start_works_as_pasted(shown: tuple[Machine, str]) -> None:
    machine, _ = shown
    commands = "\n".join(block(name) for name in ("quick start", "keys", "teams"))
    done = machine.paste(commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n42\n" in done.stdout
    assert re.search(r"\bmcpgw_[\w-]{43}\b", done.stdout)
    assert list(Path(machine.environment["HOME"]).rglob("mcpgw.db"))


def test_the_second_command_is_one_line_and_what_ci_runs() -> None:
    command = block("tests")
    assert "\n" not in command
    assert command.endswith("-m tests.check")
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- run: tests -->" in script
    assert "tests.check" not in script  # it takes the command from the README alone
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_command_names_the_other_project_of_the_registry() -> None:
    texts = [README, *(path.read_text() for path in (ROOT / "mcpgw").rglob("*.py"))]
    for text in texts:
        assert not re.search(r"(pip3? install|uvx|pipx (run|install)|uv tool \w+) mcpgw\b", text)


def verbs() -> Generator[tuple[str, list[str]]]:
    """Every command of the command line, and its options."""
    from typer.main import get_command

    from mcpgw.cli.main import app

    def walk(command: Any, words: list[str]) -> Generator[tuple[str, list[str]]]:
        inner: dict[str, Any] = getattr(command, "commands", {})
        if not inner:
            options = [name for one in command.params for name in one.opts if name[:2] == "--"]
            yield " ".join(words), options
        for name, one in inner.items():
            yield from walk(one, [*words, name])

    yield from walk(get_command(app), ["mcpgw"])


def test_every_command_is_in_the_readme_and_no_other() -> None:
    told: set[str] = set()
    rows = re.findall(
        r"^\| `(mcpgw [a-z]+)(?: ([a-z]+))?`((?:, `[a-z]+`)*) \|", README, re.MULTILINE
    )
    for noun, verb, more in rows:
        told.update(f"{noun} {name}".strip() for name in (verb, *re.findall(r"`([a-z]+)`", more)))
    assert told == {command for command, _ in verbs()}


@pytest.mark.parametrize("command", ["mcpgw server add", "mcpgw serve"])
def test_every_option_of_the_chief_commands_is_in_the_readme(command: str) -> None:
    options = dict(verbs())[command]
    assert len(options) > 8
    for option in options:
        if option not in ("--json", "--help"):
            assert f"`{option}" in README, option


def test_every_variable_is_in_the_readme() -> None:
    texts = [path.read_text() for path in (ROOT / "mcpgw").rglob("*.py")]
    used = {name for text in texts for name in re.findall(r'"(MCPGW_[A-Z_]+)"', text)}
    assert used == set(re.findall(r"^\| `(MCPGW_[A-Z_]+)` \|", README, re.MULTILINE))

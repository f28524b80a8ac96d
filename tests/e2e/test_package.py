"""What is installed is what is tested, and it is whole."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import mcpgw

ROOT = Path(__file__).resolve().parent.parent.parent


def editable() -> bool:
    """Whether the checkout itself is what is installed (a developer's choice)."""
    told = metadata.distribution("mcpgw").read_text("direct_url.json")
    return bool(told and json.loads(told).get("dir_info", {}).get("editable"))


def installed() -> Path:
    """Where this environment's mcpgw must come from."""
    return ROOT if editable() else Path(sysconfig.get_path("purelib"))


def test_the_tests_import_the_installed_package() -> None:
    assert Path(mcpgw.__file__).parent.parent.resolve() == installed().resolve()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-P", "-c"], id="python -P"),
        pytest.param([sys.executable, "-c"], id="python"),
    ],
)
def test_a_child_of_the_tests_imports_it_too(command: list[str], tmp_path: Path) -> None:
    code = "import mcpgw; print(mcpgw.__file__)"
    done = subprocess.run(
        [*command, code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent.parent.resolve() == installed().resolve()


def test_the_wheel_holds_every_module_and_the_marker() -> None:
    if editable():
        held = {str(path.relative_to(ROOT)) for path in (ROOT / "mcpgw").rglob("*")}
    else:
        held = {str(path) for path in metadata.files("mcpgw") or ()}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "mcpgw").rglob("*.py")}
    assert ours <= held
    assert "mcpgw/py.typed" in held


def test_the_command_of_the_environment_is_ours() -> None:
    script = Path(sysconfig.get_path("scripts")) / "mcpgw"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mcpgw", mcpgw.__version__]

"""The import contracts break when something is planted that they forbid."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FLOORS = "Floors"
PURE = "core, model and errors do no I/O"
CYCLES = "No cycles inside packages"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package with its contracts."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mcpgw", tmp_path / "mcpgw", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(house: Path, path: str, line: str) -> None:
    target = house / "mcpgw" / path
    assert target.parent.is_dir()
    before = target.read_text() if target.exists() else '"""Planted."""\n'
    target.write_text(f"{before}\n{line}\n")


def judged(house: Path) -> dict[str, bool]:
    """Each contract's first words, and whether it was kept."""
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "lint-imports", "--no-cache"],
        cwd=house,
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, bool] = {}
    for line in done.stdout.splitlines():
        for name in (FLOORS, PURE, CYCLES):
            if line.startswith(name) and line.endswith((" KEPT", " BROKEN")):
                found[name] = line.endswith(" KEPT")
    assert set(found) == {FLOORS, PURE, CYCLES}, done.stdout + done.stderr
    assert (done.returncode == 0) == all(found.values())
    return found


def test_the_house_as_it_is_keeps_its_contracts(house: Path) -> None:
    assert all(judged(house).values())


@pytest.mark.parametrize(
    ("contract", "path", "line"),
    [
        (FLOORS, "core/naming.py", "import mcpgw.store.db"),
        (FLOORS, "model/calls.py", "import mcpgw.core.wire"),
        (FLOORS, "front/http.py", "import mcpgw.relay.gateway"),
        (FLOORS, "upstream/auth.py", "import mcpgw.store.secrets"),
        (FLOORS, "relay/gateway.py", "import mcpgw.daemon"),
        (FLOORS, "daemon/serve.py", "import mcpgw.cli.main"),
        (FLOORS, "extra.py", "# a module that no floor has"),
        (PURE, "core/naming.py", "import time"),
        (PURE, "core/wire.py", "import httpx2"),
        (PURE, "model/config.py", "import random"),
        (PURE, "errors.py", "import logging"),
        (CYCLES, "store/schema.py", "import mcpgw.store.snapshot"),
    ],
)
def test_a_breach_breaks_its_contract(house: Path, contract: str, path: str, line: str) -> None:
    plant(house, path, line)
    assert judged(house)[contract] is False


def test_a_cycle_of_two_new_modules_is_seen(house: Path) -> None:
    plant(house, "relay/one.py", "import mcpgw.relay.two")
    plant(house, "relay/two.py", "import mcpgw.relay.one")
    verdicts = judged(house)
    assert verdicts[CYCLES] is False
    assert verdicts[FLOORS] is True

"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.driver import Shell


@pytest.fixture
def mcpgw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """The command, over an empty store."""
    return Shell(monkeypatch, tmp_path)

"""Fixtures every kind of test shares.

The installed mcpgw is what the tests run: the checkout's root comes last on the path, so that its
`tests` package is found and its `mcpgw` only where none is installed in front of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [entry for entry in sys.path if entry not in ("", ".", _ROOT)] + [_ROOT]


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio (uvloop where there is one) and nothing else."""
    return "asyncio"

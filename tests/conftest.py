"""Fixtures every kind of test shares."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio (uvloop where there is one) and nothing else."""
    return "asyncio"

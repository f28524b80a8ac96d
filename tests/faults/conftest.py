"""Faults are tried on both event loops: what a lost connection looks like differs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.faults.peer import nothing_left


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(autouse=True)
async def clean(anyio_backend: object) -> AsyncGenerator[None]:
    """Every test leaves no task and no socket behind."""
    async with nothing_left():
        yield

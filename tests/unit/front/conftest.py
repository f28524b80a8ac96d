"""The fronts run on both event loops: uvloop serves, asyncio where there is no uvloop."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}

"""Whatever blocks the event loop fails a contract."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def unblocked() -> Generator[None]:
    """A call of mcpgw that waits for the system inside the loop raises BlockingError."""
    with blockbuster_ctx("mcpgw"):
        yield

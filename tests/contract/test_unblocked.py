"""The fixture that guards contracts against a blocked event loop sees one."""

from __future__ import annotations

from pathlib import Path

import pytest
from blockbuster import BlockingError

from mcpgw.store.db import Store

pytestmark = pytest.mark.anyio


async def test_opening_a_store_in_the_loop_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(BlockingError), Store.open(tmp_path / "mcpgw.db"):
        pass

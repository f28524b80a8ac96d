"""A front on stdio over the scripted handler of the fronts' tests; run as a program by them."""

from __future__ import annotations

import anyio

from mcpgw.front import stdio
from tests.doubles import context
from tests.e2e.test_fronts import scripted
from tests.unit.front.rig import SNAPSHOT


async def _main() -> None:
    await stdio.serve(scripted(), ctx=context(SNAPSHOT))


if __name__ == "__main__":
    anyio.run(_main)

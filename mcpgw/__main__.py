"""`python -m mcpgw` and the `mcpgw` command."""

from __future__ import annotations

import sys

from mcpgw.cli.main import main as run


def main() -> None:
    """The console script's entry."""
    sys.exit(run())


if __name__ == "__main__":
    main()

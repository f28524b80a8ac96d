"""How tests start Python children: the installed mcpgw wins there too."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_AS_MAIN = (
    "import runpy, sys; sys.path.append({root!r}); "
    "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


def gateway(*words: str) -> list[str]:
    """The command line, from the installed package whatever the working directory is."""
    return [sys.executable, "-P", "-m", "mcpgw", *words]


def module(name: str, *words: str) -> list[str]:
    """A module of the tests as a program: the checkout comes last on its path."""
    code = _AS_MAIN.format(root=str(ROOT), module=name)
    return [sys.executable, "-P", "-c", code, *words]

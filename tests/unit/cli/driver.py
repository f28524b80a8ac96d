"""Runs one command in this process and keeps what it said."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcpgw.cli.main import main


@dataclass
class Said:
    """One command's exit status and its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The one error on stderr; stdout must be empty."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        return json.loads(self.err)["error"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Shell:
    """A shell in which MCPGW_STORE names a store of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        self._patch = patch
        self.path = home / "mcpgw.db"
        patch.setenv("MCPGW_STORE", str(self.path))
        patch.setenv("MCPGW_MASTER_KEY", "a" * 64)
        patch.delenv("MCPGW_DEBUG", raising=False)

    def __call__(self, *words: str, stdin: str = "", terminal: bool = False) -> Said:
        """Run `mcpgw words…`. `terminal`: all three streams are one."""
        kind = Terminal if terminal else io.StringIO
        out, err = kind(), kind()
        with self._patch.context() as patch:
            patch.setattr(sys, "stdin", kind(stdin))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main(list(words))
        return Said(int(code), out.getvalue(), err.getvalue())

    def done(self, *words: str, stdin: str = "", terminal: bool = False) -> Said:
        """The same, for what must work."""
        said = self(*words, stdin=stdin, terminal=terminal)
        assert said.code == 0, said.err
        return said

"""Which texts are references to secrets: `env:NAME`, `file:PATH` and the like, never a value."""

from __future__ import annotations

import re

_REFERENCE = re.compile(
    r"(?:env:|os\.environ/)[A-Za-z_][A-Za-z0-9_]*"
    r"|file:[^\s\0][^\0\n]*"
    r"|keyring:[^\s\0][^\0\n]*"
    r"|vault:[^\s\0]+"
)


def is_reference(text: str) -> bool:
    """Whether `text` names a secret rather than being a value.

    `env:NAME`, `os.environ/NAME`, `file:PATH`, `keyring:[SERVICE/]NAME`, `vault:NAME`.
    """
    return _REFERENCE.fullmatch(text) is not None

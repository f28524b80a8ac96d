"""Which texts are references to secrets: `env:NAME`, `file:PATH` and the like, never a value."""

from __future__ import annotations

from typing import Final

PREFIXES: Final = ("env:", "os.environ/", "file:", "keyring:", "vault:")


def is_reference(text: str) -> bool:
    """Whether `text` names a secret rather than being a value."""
    return text.startswith(PREFIXES)

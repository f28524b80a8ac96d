"""References to secrets, and the values behind them.

`env:NAME` and `os.environ/NAME`, `file:PATH` (read again within a second of a change),
`keyring:NAME` and `keyring:SERVICE/NAME`, `vault:NAME`. Values of the vault and the keyring are
looked up once and again after `refresh`, so that a request waits for neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from mcpgw.errors import Exit, GatewayError
from mcpgw.store import ring
from mcpgw.store.looks import is_reference, looks_secret
from mcpgw.store.vault import Vault

__all__ = ["LONGEST_FILE", "Resolver", "is_reference", "looks_secret"]

LONGEST_FILE: Final = 1024 * 1024  # bytes; whoever names a bigger file has the wrong one

FRESH: Final = 1.0  # seconds that a file is not looked at again: a stat costs as much as a seal


class _File(Struct):
    """A file as it was read; `mark` tells whether it is still that file."""

    value: str
    mark: tuple[int, ...]
    fresh_until: float


class Resolver:
    """Turns references into values; implements `model.ports.Secrets`."""

    def __init__(self, vault: Vault, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._held: dict[str, str] = {}

    def resolve(self, reference: str) -> str:
        """The value. Raises GatewayError (secret_missing) that names the reference only.

        An empty value counts as missing: sending it could look like a credential.
        """
        if (held := self._held.get(reference)) is not None:
            return held
        if is_reference(reference):
            if reference.startswith("os.environ/"):
                return self._environment(reference, reference[len("os.environ/") :])
            kind, _, name = reference.partition(":")
            match kind:
                case "env":
                    return self._environment(reference, name)
                case "file":
                    return self._file(reference, name)
                case "keyring":
                    value = self._keyring(reference, name)
                case _:
                    value = self._sealed(reference, name)
            self._held[reference] = value
            return value
        raise GatewayError(
            "A secret is configured that is no reference.",
            why="It is not shown here. References are env:NAME, os.environ/NAME, file:PATH, "
            "keyring:NAME and vault:NAME.",
            next="mcpgw secret set NAME",
            code="secret_missing",
            exit=Exit.DENIED,
        )

    def anew(self) -> Resolver:
        """One that has looked nothing up yet, for another thread."""
        return Resolver(self._vault, clock=self._clock)

    def adopt(self, other: Resolver) -> None:
        """Go on with what `other` has looked up, and look up the rest again."""
        self._held, self._files = other._held, other._files

    def refresh(self) -> None:
        """Look everything up again when it is next needed."""
        self._held.clear()
        for file in self._files.values():
            file.fresh_until = 0.0

    def _environment(self, reference: str, name: str) -> str:
        value = os.environ.get(name)
        if value:
            return value
        why = "The variable is empty." if value == "" else "The variable is not set."
        raise _missing(reference, why, f"export {name}=…")

    def _file(self, reference: str, name: str) -> str:
        known = self._files.get(name)
        now = self._clock()
        if known is not None and now < known.fresh_until:
            return known.value
        path = Path(name).expanduser()
        try:
            found = path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            if known is not None and known.mark == mark:
                known.fresh_until = now + FRESH
                return known.value
            with path.open("rb") as file:
                raw = file.read(LONGEST_FILE + 1)
            value = raw.decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            why = f"{os.strerror(error.errno)}." if error.errno else "It cannot be read."
            raise _missing(reference, why, f"ls -l {name}") from None
        except UnicodeDecodeError:
            raise _missing(reference, "The file is not UTF-8 text.", f"file {name}") from None
        if not value or len(raw) > LONGEST_FILE:
            why = (
                f"The file is longer than {LONGEST_FILE} bytes." if value else "The file is empty."
            )
            raise _missing(reference, why, f"ls -l {name}")
        self._files[name] = _File(value, mark, now + FRESH)
        return value

    def _keyring(self, reference: str, name: str) -> str:
        service, slash, entry = name.rpartition("/")
        service = service if slash else ring.SERVICE
        try:
            value = ring.read(service, entry)
        except ring.RingError as error:
            said = str(error)
            why = f"{said[:1].upper()}{said[1:]}."
            raise _missing(reference, why, "mcpgw secret set NAME") from None
        if value:
            return value
        why = "The OS keyring has no such entry."
        raise _missing(reference, why, f"keyring set {service} {entry}")

    def _sealed(self, reference: str, name: str) -> str:
        try:
            value = self._vault.get(name)
        except GatewayError as error:
            raise _missing(
                reference, f"{error.what} {error.why or ''}".rstrip(), error.next
            ) from None
        if value is not None:
            return value
        raise _missing(reference, "The vault has no such secret.", f"mcpgw secret set {name}")


def _missing(reference: str, why: str, follow: str | None) -> GatewayError:
    return GatewayError(
        f"The secret {reference} is missing.",
        why=why,
        next=follow,
        code="secret_missing",
        exit=Exit.DENIED,
    )

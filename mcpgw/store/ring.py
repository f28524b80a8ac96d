"""The operating system's keyring, which may be absent, slow, or hang.

A look at it runs in a thread of its own that is left behind when it takes too long; then the
keyring counts as gone for a while, so that a hanging D-Bus is waited for once. Where no session
bus can exist the `keyring` library (0.1 s) is not even imported.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

SERVICE: Final = "mcpgw"
WAIT: Final = 3.0  # seconds; a running keyring answers in milliseconds
GONE: Final = 60.0  # seconds that a keyring which hung is not asked again
ABSENT: Final = "this system has no keyring"

T = TypeVar("T")
_ALWAYS = sys.platform in ("darwin", "win32")
_gone_until = 0.0  # on time.monotonic(); one keyring per process


class RingError(Exception):
    """The keyring cannot be used; the message says why, for people."""


def present() -> bool:
    """Whether a keyring may be there, found out without asking for it."""
    if _ALWAYS or os.environ.get("PYTHON_KEYRING_BACKEND"):
        return True
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return True
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return (Path(config).expanduser() / "python_keyring" / "keyringrc.cfg").is_file()


def read(service: str, name: str) -> str | None:
    """The entry's value, None when there is none. Raises RingError."""

    def ask() -> str | None:
        import keyring  # noqa: PLC0415 - 0.1 s

        _check()
        return keyring.get_password(service, name)

    return _bounded(ask)


def write(service: str, name: str, value: str) -> None:
    """Store a value and see that it is there. Raises RingError."""

    def ask() -> bool:
        import keyring  # noqa: PLC0415 - 0.1 s

        _check()
        keyring.set_password(service, name, value)
        return keyring.get_password(service, name) == value

    if not _bounded(ask):
        raise RingError("the keyring of this system keeps nothing")


def _check() -> None:
    import keyring  # noqa: PLC0415 - 0.1 s
    from keyring.backends import fail, null  # noqa: PLC0415

    if isinstance(keyring.get_keyring(), (fail.Keyring, null.Keyring)):
        raise RingError(ABSENT)


def _bounded(ask: Callable[[], T]) -> T:
    global _gone_until  # the keyring is the process's, not a vault's
    if not present():
        raise RingError(ABSENT)
    if time.monotonic() < _gone_until:
        raise RingError("the keyring did not answer a moment ago")
    answers: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - boundary: backends raise what they like
            faults.append(error)

    thread = threading.Thread(target=run, name="mcpgw-keyring", daemon=True)
    thread.start()
    thread.join(WAIT)
    if thread.is_alive():
        _gone_until = time.monotonic() + GONE
        raise RingError(f"the keyring did not answer within {WAIT:g} s")
    if faults:
        if isinstance(faults[0], RingError):
            raise faults[0]
        raise RingError(f"the keyring refused ({type(faults[0]).__name__})") from faults[0]
    return answers[0]

"""What was typed after `server add` and `server set`, before anything of it is understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SEALED = "server/"  # what vault names begin with that were not chosen by a person

CLEARABLE = {
    "env": "env",
    "header": "headers",
    "forward-header": "forward_headers",
    "allow": "allow",
    "deny": "deny",
    "secret": "secret",
    "cwd": "cwd",
    "timeout": "timeout",
    "max-concurrent": "max_concurrent",
    "ca": "ca",
    "client-cert": "client_cert",
    "description": "description",
}


class Words(NamedTuple):
    """What was typed; None for what was not."""

    command: Sequence[str] | None = None
    url: str | None = None
    transport: str | None = None
    env: Sequence[str] | None = None
    cwd: str | None = None
    auth: str | None = None
    secret: str | None = None
    header: Sequence[str] | None = None
    forward_header: Sequence[str] | None = None
    allow: Sequence[str] | None = None
    deny: Sequence[str] | None = None
    isolate: str | None = None
    timeout: float | None = None
    max_concurrent: int | None = None
    ca: str | None = None
    client_cert: str | None = None
    description: str | None = None

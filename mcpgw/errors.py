"""The one error a person sees: what happened, why, and what to do next.

Everything that mcpgw refuses on purpose raises a GatewayError; the CLI prints it and turns `exit`
into the process's status. JSON-RPC errors of a relayed call are `RpcError` of `mcpgw.model.calls`.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of the command line."""

    DONE = 0
    FAULT = 1  # an unexpected fault of mcpgw itself
    USAGE = 2  # the words of the command were wrong
    MISSING = 3  # the named thing does not exist, or exists already
    DENIED = 4  # not allowed, or credentials are missing
    UPSTREAM = 5  # an upstream server or the daemon did not do its part
    INTERRUPTED = 130


class GatewayError(Exception):
    """A failure with an explanation.

    what: one sentence that says what happened, without a secret in it.
    why: the reason, or None when `what` says it all.
    next: a command or an action that helps, or None.
    code: a stable snake_case word for programs (`--json`).
    """

    def __init__(
        self,
        what: str,
        *,
        why: str | None = None,
        next: str | None = None,
        code: str = "failed",
        exit: Exit = Exit.FAULT,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next
        self.code = code
        self.exit = exit

"""What a caller is told when the gateway itself says no.

What is denied and what does not exist get the same words: there is one function for both.
"""

from __future__ import annotations

from mcpgw.core import wire
from mcpgw.core.catalog import PROMPTS, TOOLS, ListKind
from mcpgw.core.eras import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, UPSTREAM_FAILED
from mcpgw.model.calls import RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import UpstreamError

_NOUNS = {TOOLS.method: "tool", PROMPTS.method: "prompt"}


def unknown(kind: ListKind, name: str) -> RpcError:
    """A tool or prompt that is absent or denied."""
    return RpcError(INVALID_PARAMS, f"Unknown {_NOUNS[kind.method]}: {name}")


def not_found(uri: str) -> RpcError:
    """A resource that is absent or denied."""
    return RpcError(INVALID_PARAMS, "Resource not found", wire.dump({"uri": uri}))


def no_task() -> RpcError:
    """A task that is absent, another's, or of a tool that is denied."""
    return RpcError(INVALID_PARAMS, "Task not found")


def bad_param(name: str, expected: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"Invalid params: `{name}` must be {expected}.")


def bad_cursor() -> RpcError:
    return RpcError(INVALID_PARAMS, "Invalid cursor: list again from the beginning.")


def no_method(method: str) -> RpcError:
    return RpcError(METHOD_NOT_FOUND, f"Method not found: {method}")


def no_endpoint() -> RpcError:
    """A native endpoint whose server is absent or not the principal's."""
    return RpcError(INVALID_PARAMS, "There is no such server at this address.")


def unreachable(server: Server, error: UpstreamError) -> RpcError:
    """Only for a server that the principal may use, as it is named.

    The error's message goes on where the server's name ends: "did not answer", "exited with …".
    """
    return RpcError(
        UPSTREAM_FAILED,
        f'The server "{server.prefix}" {error.message}',
        wire.dump({"server": server.prefix, "stage": error.stage}),
    )


def unusable(server: Server, reason: str) -> RpcError:
    """A server whose configuration cannot work, say for a secret that is missing."""
    return RpcError(
        UPSTREAM_FAILED,
        f'The server "{server.prefix}" cannot be used: {reason}',
        wire.dump({"server": server.prefix, "stage": "configuration"}),
    )


def unexpected(server: Server) -> RpcError:
    return RpcError(
        INTERNAL_ERROR,
        f'The gateway failed while it talked to the server "{server.prefix}".',
        wire.dump({"server": server.prefix, "stage": "gateway"}),
    )


def late(seconds: float) -> UpstreamError:
    return UpstreamError("read", f"did not answer within {seconds:g} s")

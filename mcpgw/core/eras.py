"""What differs between revisions, as tables. `if revision >= …` stands nowhere else.

"Modern" is 2026-07-28 and later (stateless, `_meta` on every request); "legacy" is everything
before it (an `initialize` handshake).
"""

from __future__ import annotations

from typing import Final

LEGACY: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN: Final = ("2026-07-28",)
SUPPORTED: Final = (*LEGACY, *MODERN)
LATEST_LEGACY: Final = "2025-11-25"
LATEST: Final = "2026-07-28"
NO_HEADER: Final = "2025-03-26"  # what a legacy HTTP request without MCP-Protocol-Version speaks

ACCEPTS_BATCHES: Final = frozenset({"2025-03-26"})
SENDS_VERSION_HEADER: Final = frozenset({"2025-06-18", "2025-11-25"})
PRIMES_STREAMS: Final = frozenset({"2025-11-25"})  # an empty first event that can be resumed from
STRUCTURED_CONTENT: Final = frozenset({"2025-06-18", "2025-11-25", "2026-07-28"})
TITLED_CHOICES: Final = frozenset({"2025-11-25", "2026-07-28"})  # in forms; also several at once

KNOWS_URL_ERROR: Final = frozenset({"2025-11-25"})  # -32042: go to these URLs first
TWO_WAY_NOTES: Final = frozenset({"notifications/roots/list_changed"})
"""What a client may note outside of any call, for the servers it uses (legacy revisions)."""

_PREFIX: Final = "io.modelcontextprotocol/"
PROTOCOL_VERSION: Final = _PREFIX + "protocolVersion"
CLIENT_CAPABILITIES: Final = _PREFIX + "clientCapabilities"
CLIENT_INFO: Final = _PREFIX + "clientInfo"
SERVER_INFO: Final = _PREFIX + "serverInfo"
LOG_LEVEL: Final = _PREFIX + "logLevel"
SUBSCRIPTION_ID: Final = _PREFIX + "subscriptionId"
PROGRESS_TOKEN: Final = "progressToken"  # noqa: S105 - the name of a key, no secret
RELATED_TASK: Final = _PREFIX + "related-task"
TRACE_META: Final = frozenset({"traceparent", "tracestate", "baggage"})

HOP_META: Final = frozenset(
    {PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, SUBSCRIPTION_ID, PROGRESS_TOKEN}
)
"""`_meta` keys of one hop: taken off where a call comes in, minted where it goes out."""

LOG_LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)

CACHEABLE: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Methods whose complete modern results must carry `ttlMs` and `cacheScope`."""

MAY_NEED_INPUT: Final = frozenset({"tools/call", "prompts/get", "resources/read"})

CORE_TASKS: Final = frozenset({"2025-11-25"})
"""Revisions with tasks of their own; later ones have them as an extension."""

WAITS: Final = frozenset({"tasks/result"})
"""Methods that are answered when something else has ended, however long that takes."""

NAME_PARAM: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Which param the `Mcp-Name` header mirrors (2026-07-28, transports)."""

ASK_CAPABILITY: Final = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""The client capability behind each request that a server may make."""

CLIENT_ASKS: Final = frozenset({"elicitation", "sampling", "roots"})

# JSON-RPC and MCP error codes.
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
LEGACY_RESOURCE_NOT_FOUND: Final = -32002
LEGACY_URL_ELICITATION: Final = -32042
# Ours, from the range that 2026-07-28 leaves to implementations (-32000 … -32019).
UPSTREAM_FAILED: Final = -32000
TIMED_OUT: Final = -32001
LIMITED: Final = -32003

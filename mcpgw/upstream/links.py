"""The kind of Link for what a server speaks.

The HTTP links are imported where a server needs them, which keeps the start of the gateway short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw

from mcpgw.model.calls import Note
from mcpgw.model.config import Server
from mcpgw.model.ports import Link, LinkInfo, Secrets
from mcpgw.upstream.http1 import Client
from mcpgw.upstream.site import Era
from mcpgw.upstream.stdio import StdioLink


def stdio(
    server: Server,
    era: Era | None,
    secrets: Secrets,
    capabilities: Mapping[str, Raw],
    heard: Callable[[Note], None],
) -> Link:
    """A child process. era None: found out by the link."""
    known = None if era == "sse" else era
    return StdioLink(server, secrets=secrets, capabilities=capabilities, heard=heard, era=known)


def http(
    server: Server,
    era: Era | None,
    client: Client,
    secrets: Secrets,
    capabilities: Mapping[str, Raw],
    heard: Callable[[Note], None],
    info: LinkInfo | None,
) -> Link:
    """A link to a URL. info: what a modern server has just said of itself."""
    if era == "modern":
        from mcpgw.upstream.http_modern import HttpModernLink  # noqa: PLC0415

        return HttpModernLink(server, client=client, secrets=secrets, heard=heard, discovered=info)
    if era == "sse":
        from mcpgw.upstream.sse import SseLink  # noqa: PLC0415

        return SseLink(
            server, client=client, secrets=secrets, capabilities=capabilities, heard=heard
        )
    from mcpgw.upstream.http_legacy import HttpLegacyLink  # noqa: PLC0415

    return HttpLegacyLink(
        server, client=client, secrets=secrets, capabilities=capabilities, heard=heard
    )

"""Which program a file is of, and what of it can be taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from mcpgw.errors import Exit, GatewayError
from mcpgw.store.files import clients, kubernetes, litellm
from mcpgw.store.files.brought import Basket, Brought, Report, members
from mcpgw.store.files.names import Names
from mcpgw.store.files.schema import SECTIONS, Document
from mcpgw.store.files.text import Text


def is_foreign(text: Text) -> bool:
    """Whether the file is another program's."""
    return any(_reader(text, members(tree)) is not None for tree in text.documents)


def bring(text: Text) -> Brought:
    """What the file has, in our form. Raises GatewayError (unknown_format) for other files."""
    basket = Basket()
    for tree in text.documents:
        reader = _reader(text, members(tree))
        if reader is not None:
            reader(members(tree), basket)
        elif tree is not None:
            raise _unknown(text, members(tree))
    if not text.documents:
        raise _unknown(text, {})
    return basket.brought()


def _reader(text: Text, tree: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of three functions
    if kubernetes.is_secret(tree):
        return kubernetes.bring
    if tree.keys() & litellm.MARKS:
        return litellm.bring
    found = clients.servers_of(tree)
    # A file of ours has `servers` as well; editors keep theirs as JSON.
    ours = text.format != "json" or not tree.keys().isdisjoint(SECTIONS.keys() - {"servers"})
    if found is None or (found[0] == ("servers",) and ours):
        return None
    return clients.bring


def known(brought: Brought, store: Document) -> Brought:
    """The same without grants on servers that are neither in the file nor in the store.

    Without them less is allowed, and each is reported.
    """
    names = Names(brought.document, store)
    reports = list(brought.reports)
    sections: dict[str, dict[str, Any]] = {}
    for section in ("keys", "teams", "organizations"):
        sections[section] = {}
        for name, entry in getattr(brought.document, section).items():
            kept: list[str] = []
            for word in entry.grants or ():
                server = word.partition("/")[0]
                if word.startswith("group:") or server == "*" or server.lower() in names.servers:
                    kept.append(word)
                else:
                    what = f"there is no server called {server}, so nothing of it is granted"
                    reports.append(Report(f"{section}.{name}", what))
            grants = None if entry.grants is None else tuple(kept)
            sections[section][name] = replace(entry, grants=grants)
    document = replace(brought.document, **sections)
    return replace(brought, document=document, reports=tuple(reports))


def _unknown(text: Text, tree: Mapping[str, Any]) -> GatewayError:
    if tree.keys() & SECTIONS.keys():
        return GatewayError(
            f"{text.name} is a file of mcpgw's own.",
            why="import takes files of other programs.",
            next=f"mcpgw config apply -f {text.name}",
            code="own_format",
            exit=Exit.USAGE,
        )
    return GatewayError(
        f"{text.name} is of no kind that can be imported.",
        why="These can: LiteLLM's config.yaml (mcp_servers, key_settings), the mcpServers or "
        "servers JSON of clients and editors, and Kubernetes Secrets.",
        next="mcpgw config import --help",
        code="unknown_format",
        exit=Exit.USAGE,
    )

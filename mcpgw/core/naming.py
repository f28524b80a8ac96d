"""Names on the wire are a view of (server, native name); this is how the view is made.

A public name is `prefix__native`, which no other pair can give: a prefix has no `__` and does not
end in `_`. What model providers would refuse (64 of `[A-Za-z0-9_-]`) is cut and gets a digest of
the native name. Resources keep their URI, or take the reversible form `mcpgw:PREFIX/URI` where
two servers of an endpoint might mean the same one. Those of apps (`ui://`) always name their
server, as `ui://mcpgw/PREFIX/…`: servers need not list them, so nobody could tell whether two
mean the same, and hosts take no other scheme (MCP Apps, 2026-01-26).
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""Server, alias and group names, as a whole; `check_name` has the two rules a regex hides."""

MAX_PUBLIC: Final = 64  # what model providers allow in a tool's name
SEPARATOR: Final = "__"
SCHEME: Final = "mcpgw:"
APPS: Final = "ui://"
"""The scheme of resources that hosts show as apps."""


_OWN_APPS = f"{APPS}mcpgw/"
_LEGAL = re.compile(r"[A-Za-z0-9_-]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]+")
_DIGEST_BYTES = 6
_MARK = "--"  # between the cut name and its digest
_MARKED = re.compile(rf".*{_MARK}[0-9a-f]{{{2 * _DIGEST_BYTES}}}")


def check_name(name: str) -> str | None:
    """Why `name` cannot be a server's, an alias' or a group's name; None when it can."""
    if not name:
        return "it is empty"
    if len(name) > 32:
        return "it has more than 32 characters"
    if NAME.fullmatch(name) is None:
        return "it may only have A-Z, a-z, 0-9, _ and -, and begins with a letter or a digit"
    if SEPARATOR in name:
        return "it has two underscores in a row, which separate a server from its tool"
    if name.endswith("_"):
        return "it ends in an underscore, which would blur where a tool's name begins"
    return None


def public_name(prefix: str, native: str) -> str:
    """The name of a tool or prompt beside those of other servers: at most 64 `[A-Za-z0-9_-]`.

    `prefix` must pass `check_name`. Different pairs give different names (cut ones as far as a
    48-bit digest goes), and the same pair always the same.
    """
    name = f"{prefix}{SEPARATOR}{native}"
    # A native name that looks like a cut one is cut as well, so that no server can take another
    # tool's name on purpose.
    if len(name) <= MAX_PUBLIC and _LEGAL.fullmatch(name) and not _MARKED.fullmatch(native):
        return name
    digest = blake2b(native.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    room = MAX_PUBLIC - len(prefix) - len(SEPARATOR) - len(_MARK) - len(digest)
    cut = _FOREIGN.sub("_", native)[:room]
    return f"{prefix}{SEPARATOR}{cut}{_MARK}{digest}"


def public_uri(prefix: str, uri: str) -> str:
    """The form of a URI or URI template that names its server; `split_uri` reverses it."""
    if uri.startswith(APPS):
        return f"{_OWN_APPS}{prefix}/{uri.removeprefix(APPS)}"
    return f"{SCHEME}{prefix}/{uri}"


def split_uri(uri: str) -> tuple[str, str] | None:
    """(prefix, URI) of a form that names its server; None for any other URI."""
    head, scheme = (SCHEME, "") if uri.startswith(SCHEME) else (_OWN_APPS, APPS)
    if not uri.startswith(head):
        return None
    prefix, slash, original = uri[len(head) :].partition("/")
    if not slash or check_name(prefix) is not None:
        return None
    return prefix, scheme + original


def may_stay(uri: str) -> bool:
    """Whether a URI can stay as it is beside other servers', if only one of them has it.

    Not one that could be mistaken for a form that names its server, nor an app's.
    """
    return not uri.startswith((SCHEME, APPS))

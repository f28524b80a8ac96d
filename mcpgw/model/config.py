"""Everything configured, as plain frozen data. The store builds it; the request path reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

Transport: TypeAlias = Literal["auto", "http", "sse", "stdio"]
Auth: TypeAlias = Literal["none", "api-key", "bearer", "basic", "token"]
Isolation: TypeAlias = Literal["session", "key", "shared"]
Kind: TypeAlias = Literal["tool", "prompt", "resource"]


class Server(Struct, frozen=True, kw_only=True):
    """One configured upstream server. Values of `headers`, `env` and `secret` may be references.

    id: never reused and never shown to clients; grants hang on it.
    prefix: what stands before `__` in public names: `name`, or the alias chosen for display.
    secret: the reference for `auth`; `api-key` sends `x-api-key: V`, `bearer` `Authorization:
        Bearer V`, `token` `Authorization: token V`, `basic` `Authorization: Basic base64(V)`.
    allow, deny: globs over native tool names; allow None is every tool.
    timeout: seconds for one request without progress.
    """

    id: str
    name: str
    prefix: str
    transport: Transport
    url: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    cwd: str | None = None
    auth: Auth = "none"
    secret: str | None = None
    headers: Mapping[str, str] = {}
    forward_headers: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    isolate: Isolation = "key"
    timeout: float = 60.0
    max_concurrent: int | None = None
    ca: str | None = None
    client_cert: str | None = None
    description: str = ""
    enabled: bool = True
    aliases: tuple[str, ...] = ()


class Target(Struct, frozen=True):
    """What a grant or a deny names.

    server: a server's id, or `*` for every server, also those added later.
    kind: None means every kind. glob: over native names (URIs for resources).
    via: the group or policy it stands in, for people; it decides nothing.
    """

    server: str
    kind: Kind | None = None
    glob: str = "*"
    via: str = ""


class Level(Struct, frozen=True):
    """One step of the ladder a permission must pass: the key itself, its team, its organization.

    grants None: not set. A key then has what its team is granted, and nothing without a team that
    is; above the key it restricts nothing. An empty tuple allows nothing anywhere.
    closed: why nothing passes here at all, such as "disabled"; empty when something may.
    """

    name: str  # "key", "team", "organization"
    label: str  # whose: the key's, the team's, the organization's name
    grants: tuple[Target, ...] | None
    denies: tuple[Target, ...] = ()
    closed: str = ""


class Principal(Struct, frozen=True, kw_only=True):
    """Who may act: a key, the store's owner, or (with --no-auth) anybody.

    levels: from the inside out. The owner and --no-auth have one level that grants `*`.
    expires: seconds since the epoch, None never.
    """

    id: str
    name: str
    kind: Literal["key", "owner", "anonymous"]
    levels: tuple[Level, ...]
    expires: float | None = None


class Step(Struct, frozen=True):
    """What one step of the ladder says to one access question.

    who: "key ann", "team dev", "organization acme", "server github". passes: it lets the thing
    through. rule: what it rests on, such as "key ann: github/get_*"; reason: a clause for people.
    """

    who: str
    passes: bool
    rule: str
    reason: str


class Decision(Struct, frozen=True):
    """The outcome of one access question; `rule` is the deciding one, for people.

    steps: what each step of the ladder said, from the inside out; all must pass.
    """

    allowed: bool
    rule: str
    reason: str
    steps: tuple[Step, ...] = ()


class Endpoint(Struct, frozen=True):
    """What an address of the gateway serves: all, or one server under its native names.

    servers: ids; None is every server the principal may use.
    native: names without the prefix (only with exactly one server).
    groups: ids of groups whose targets are served besides `servers`.
    """

    servers: frozenset[str] | None = None
    native: bool = False
    groups: frozenset[str] = frozenset()


EVERYTHING = Endpoint()


class Snapshot(Struct, frozen=True, kw_only=True):
    """The configuration at one moment.

    servers: enabled ones by id. names: lower-case server names and aliases to ids.
    prefixes: public prefixes to ids. keys: principals by the SHA-256 (bytes) of the key's secret.
    principals: the same by id. groups: what groups stand for, by id; group_names: lower-case names
    to ids. unusable: server id to the reason it cannot be used (say, a
    reference that resolves to nothing), for errors and status.
    generation: grows with every change of the configuration.
    """

    generation: int
    servers: Mapping[str, Server]
    names: Mapping[str, str]
    prefixes: Mapping[str, str]
    keys: Mapping[bytes, Principal]
    principals: Mapping[str, Principal]
    unusable: Mapping[str, str] = {}
    groups: Mapping[str, tuple[Target, ...]] = {}
    group_names: Mapping[str, str] = {}


OWNER = Principal(
    id="owner", name="owner", kind="owner", levels=(Level("key", "owner", (Target("*"),)),)
)
ANYBODY = Principal(
    id="anonymous",
    name="anonymous",
    kind="anonymous",
    levels=(Level("key", "anonymous", (Target("*"),)),),
)

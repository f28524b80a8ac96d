"""Servers and their aliases: one namespace, ids that never come back.

Grants and prefixes hang on ids and rows, so renaming moves nothing, and a name that is added again
is another server. What is stored is checked here, whoever asks.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NoReturn
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from mcpgw.core.naming import check_name
from mcpgw.errors import Exit, GatewayError
from mcpgw.model.config import Auth, Isolation, Server, Transport
from mcpgw.store import audit, looks
from mcpgw.store.db import Store, Value

NAMES_TOLD: Final = 12  # names listed in an error; more would bury its point

_JSON: Final = frozenset({"command", "env", "headers", "forward_headers", "allow", "deny"})
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")


class ServerDraft(Struct, frozen=True, kw_only=True):
    """A server as it is to be; fields mean what they mean in `model.config.Server`."""

    name: str
    transport: Transport = "auto"
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


class Alias(Struct, frozen=True):
    """Another name for the server called `server`. prefix: its tools are shown under it."""

    alias: str
    server: str
    prefix: bool


_FIELDS: Final = tuple(name for name in ServerDraft.__struct_fields__ if name != "name")


# ---------------------------------------------------------------- servers


def add_server(store: Store, draft: ServerDraft) -> Server:
    """Register a server. Raises GatewayError: name_taken, bad_name, bad_server."""
    draft = checked(draft)
    check_new_name(draft.name, "server")
    server_id = f"srv_{os.urandom(8).hex()}"
    with store.change() as connection:
        check_free(store, draft.name)
        values = _values(draft)
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        connection.execute(
            f"INSERT INTO servers (id, created, {columns}) VALUES (?, ?, {marks})",  # noqa: S608
            (server_id, time.time(), *values.values()),
        )
        connection.execute(
            "INSERT INTO names (name, kind, server) VALUES (?, 'server', ?)",
            (draft.name, server_id),
        )
        server = get_server(store, draft.name)
        audit.record(connection, store, "server.add", server.name, after=view(server))
    return server


def set_server(store: Store, name: str, /, **changes: object) -> Server:
    """Change fields of a ServerDraft; `name` renames, `prefix` is an alias of it or its name.

    Raises GatewayError: no_such_server, name_taken, bad_name, bad_server, bad_prefix.
    """
    with store.change() as connection:
        old = get_server(store, name)
        prefix = changes.pop("prefix", None)
        wanted = {field: getattr(old, field) for field in ("name", *_FIELDS)} | changes
        try:
            draft = checked(msgspec.convert(wanted, ServerDraft))
        except msgspec.ValidationError as error:
            _bad(old.name, f"{error}.")
        if unknown := changes.keys() - set(ServerDraft.__struct_fields__):
            raise TypeError(f"a server has no {', '.join(sorted(unknown))}")
        if draft.name != old.name:
            _rename(store, connection, old, draft.name)
        values = _values(draft)
        assignments = ", ".join(f"{column} = ?" for column in values)
        connection.execute(
            f"UPDATE servers SET {assignments} WHERE id = ?",  # noqa: S608 - columns of ours
            (*values.values(), old.id),
        )
        if prefix is not None:
            _set_prefix(store, connection, draft.name, str(prefix))
        server = get_server(store, draft.name)
        if server != old:
            # Compared before they are masked: a secret that changed is a change.
            differ = [f for f in server.__struct_fields__ if getattr(old, f) != getattr(server, f)]
            before, after = (
                {f: v for f, v in view(s).items() if f in differ} for s in (old, server)
            )
            audit.record(connection, store, "server.set", old.name, before=before, after=after)
    return server


def remove_server(store: Store, name: str) -> Server:
    """Take a server out, with its aliases and every grant on it. Raises no_such_server."""
    with store.change() as connection:
        server = get_server(store, name)
        connection.execute("DELETE FROM servers WHERE id = ?", (server.id,))
        audit.record(connection, store, "server.remove", server.name, before=view(server))
    return server


def get_server(store: Store, name: str) -> Server:
    """The server of this name or alias. Raises no_such_server."""
    rows = store.query(_BY_NAME, (name,))
    if not rows:
        raise no_such_server(store, name)
    return _server(rows[0])


def list_servers(store: Store) -> list[Server]:
    """All servers by name, disabled ones too."""
    return [_server(row) for row in store.query(_SELECT + " ORDER BY n.name")]


def no_such_server(store: Store, name: str) -> GatewayError:
    """The error for a name that is no server's, with the names that are."""
    known = [row[0] for row in store.query("SELECT name FROM names WHERE kind <> 'group'")]
    servers = [row[0] for row in store.query("SELECT name FROM names WHERE kind = 'server'")]
    return missing("server", name, servers, known, add="mcpgw server add NAME --url URL")


def missing(
    noun: str,
    name: str,
    names: Sequence[str],
    known: Sequence[str],
    *,
    add: str,
    show: str | None = None,
    typed: str | None = None,
) -> GatewayError:
    """No `noun` is called `name`. names: those told; known: those a slip may have meant.

    add: the command that makes one; show: the verb that shows one, with its name left off;
    typed: the noun as commands have it, where that is another word.
    """
    typed = typed or noun
    names = sorted(names, key=str.lower)
    if not names:
        why, follow = f"No {noun} is registered yet.", add
    else:
        told = ", ".join(names[:NAMES_TOLD])
        more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        count = f"1 {noun} is" if len(names) == 1 else f"{len(names)} {_plural(noun)} are"
        why, follow = f"{count} registered: {told}{more}.", f"mcpgw {typed} list"
        by_lower = {one.lower(): one for one in known}
        if close := get_close_matches(name.lower(), by_lower, n=1):
            meant = by_lower[close[0]]
            follow = f"Did you mean {meant}?  {show or f'mcpgw {typed} show'} {meant}"
    return GatewayError(
        f'There is no {noun} called "{name}".',
        why=why,
        next=follow,
        code=f"no_such_{noun}",
        exit=Exit.MISSING,
    )


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def view(server: Server) -> dict[str, object]:
    """A server as JSON members for people and logs: no id, no literal that may be a secret."""
    shown: dict[str, object] = {
        field: getattr(server, field)
        for field in server.__struct_fields__
        if field not in ("id", "env", "headers", "command", "url")
    }
    shown["url"] = None if server.url is None else looks.masked_url(server.url)
    shown["command"] = looks.masked_words(server.command)
    shown["env"] = looks.masked(server.env)
    shown["headers"] = looks.masked(server.headers)
    return shown


# ---------------------------------------------------------------- aliases


def add_alias(store: Store, alias: str, server: str) -> Alias:
    """Give a server another name. Raises no_such_server, name_taken, bad_name."""
    check_new_name(alias, "alias")
    with store.change() as connection:
        owner = get_server(store, server)
        check_free(store, alias)
        connection.execute(
            "INSERT INTO names (name, kind, server) VALUES (?, 'alias', ?)", (alias, owner.id)
        )
        audit.record(connection, store, "alias.add", alias, after={"server": owner.name})
    return Alias(alias, owner.name, prefix=False)


def list_aliases(store: Store) -> list[Alias]:
    """All aliases by name."""
    rows = store.query(
        "SELECT a.name AS alias, n.name AS server, s.prefix IS a.name AS prefix FROM names a "
        "JOIN names n ON n.server = a.server AND n.kind = 'server' "
        "JOIN servers s ON s.id = a.server WHERE a.kind = 'alias' ORDER BY a.name"
    )
    return [Alias(row["alias"], row["server"], prefix=bool(row["prefix"])) for row in rows]


def remove_alias(store: Store, alias: str) -> Alias:
    """Take an alias away; a server shown under it is shown under its own name again.

    Raises no_such_alias.
    """
    with store.change() as connection:
        aliases = list_aliases(store)
        found = next((one for one in aliases if one.alias.lower() == alias.lower()), None)
        if found is None:
            names = [one.alias for one in aliases]
            add, remove = "mcpgw alias add ALIAS SERVER", "mcpgw alias remove"
            raise missing("alias", alias, names, names, add=add, show=remove)
        connection.execute("DELETE FROM names WHERE name = ?", (found.alias,))
        before = {"server": found.server, "prefix": found.prefix}
        audit.record(connection, store, "alias.remove", found.alias, before=before)
    return found


# ---------------------------------------------------------------- rows

_SELECT = """SELECT s.*, n.name AS name,
    (SELECT json_group_array(name) FROM
        (SELECT name FROM names WHERE server = s.id AND kind = 'alias' ORDER BY name)) AS aliases
    FROM servers s JOIN names n ON n.server = s.id AND n.kind = 'server'"""
_BY_NAME = f"{_SELECT} JOIN names t ON t.server = s.id AND t.name = ?"


def _server(row: sqlite3.Row) -> Server:
    fields: dict[str, object] = {
        field: msgspec.json.decode(row[field]) if field in _JSON and row[field] else row[field]
        for field in _FIELDS
    }
    fields["enabled"] = bool(row["enabled"])
    return msgspec.convert(
        {
            **fields,
            "id": row["id"],
            "name": row["name"],
            "prefix": row["prefix"] or row["name"],
            "aliases": msgspec.json.decode(row["aliases"]),
        },
        Server,
    )


def _values(draft: ServerDraft) -> dict[str, Value]:
    """Columns of the row."""
    values: dict[str, Value] = {}
    for field in _FIELDS:
        value = getattr(draft, field)
        encode = field in _JSON and value is not None
        values[field] = msgspec.json.encode(value).decode() if encode else value
    values["enabled"] = int(draft.enabled)
    values["timeout"] = float(draft.timeout)
    return values


def _rename(store: Store, connection: sqlite3.Connection, old: Server, new: str) -> None:
    check_new_name(new, "server")
    if new.lower() != old.name.lower():
        check_free(store, new)
    connection.execute(
        "UPDATE names SET name = ? WHERE server = ? AND kind = 'server'", (new, old.id)
    )


def _set_prefix(store: Store, connection: sqlite3.Connection, name: str, prefix: str) -> None:
    server = get_server(store, name)
    if prefix.lower() == server.name.lower():
        connection.execute("UPDATE servers SET prefix = NULL WHERE id = ?", (server.id,))
        return
    alias = next((one for one in server.aliases if one.lower() == prefix.lower()), None)
    if alias is None:
        raise GatewayError(
            f'"{prefix}" is not an alias of the server "{server.name}".',
            why=f"Its aliases: {', '.join(server.aliases)}." if server.aliases else "It has none.",
            next=f"mcpgw alias add {prefix} {server.name}",
            code="bad_prefix",
            exit=Exit.MISSING,
        )
    connection.execute("UPDATE servers SET prefix = ? WHERE id = ?", (alias, server.id))


# ---------------------------------------------------------------- checks


def check_new_name(name: str, noun: str) -> None:
    """Refuse what cannot be the name of a server, an alias or a group (bad_name)."""
    if (wrong := check_name(name)) is not None:
        raise GatewayError(
            f'"{name}" cannot be the name of {"an" if noun == "alias" else "a"} {noun}.',
            why=f"{wrong[0].upper()}{wrong[1:]}.",
            next=f"mcpgw {noun} add --help",
            code="bad_name",
            exit=Exit.USAGE,
        )


def check_free(store: Store, name: str) -> None:
    """One namespace, whatever the case. Call inside the change that takes the name."""
    rows = store.query(
        "SELECT t.name, t.kind, n.name AS owner FROM names t "
        "LEFT JOIN names n ON n.server = t.server AND n.kind = 'server' WHERE t.name = ?",
        (name,),
    )
    if not rows:
        return
    taken, kind, owner = rows[0]
    if kind == "alias":
        why, show = f'"{taken}" is an alias of the server "{owner}".', f"mcpgw server show {owner}"
    else:
        why = f'There is a {kind} called "{taken}"; upper and lower case count as one.'
        show = f"mcpgw {kind} show {taken}"
    raise GatewayError(
        f'The name "{name}" is taken.', why=why, next=show, code="name_taken", exit=Exit.MISSING
    )


def checked(draft: ServerDraft) -> ServerDraft:
    """The draft with its transport settled. Raises GatewayError (bad_server) for what cannot be."""
    try:
        draft = msgspec.convert(msgspec.structs.asdict(draft), ServerDraft)
    except msgspec.ValidationError as error:
        _bad(draft.name, f"{error}.")
    if draft.command and draft.transport == "auto":
        draft = msgspec.structs.replace(draft, transport="stdio")
    for wrong in (_place_fault(draft), _credential_fault(draft), _limit_fault(draft)):
        if wrong is not None:
            _bad(draft.name, wrong)
    return draft


def _place_fault(draft: ServerDraft) -> str | None:
    if draft.transport == "stdio":
        return _command_fault(draft)
    if draft.command:
        return f"A server that a command starts speaks stdio, not {draft.transport}."
    if not draft.url:
        return "A server needs a URL or a command."
    return _url_fault(draft.url)


def _command_fault(draft: ServerDraft) -> str | None:
    if draft.url is not None:
        return "A server has a URL or a command, not both."
    if not draft.command or not draft.command[0]:
        return "A stdio server needs a command."
    if any("\0" in word for word in (*draft.command, draft.cwd or "")):
        return "A NUL character cannot stand in a command."
    return None


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "Its URL cannot be taken apart into host and port."
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "Its URL must begin with http:// or https:// and name a host."
    if parts.username is not None or parts.password is not None:
        return "Its URL has credentials in it; --auth basic sends them from a reference."
    if parts.fragment or _BLANK_OR_CONTROL.search(url):
        return "Its URL has a fragment, a blank or a control character."
    return None


def _credential_fault(draft: ServerDraft) -> str | None:
    if (draft.auth == "none") != (draft.secret is None):
        return "A secret goes with a way to send it (--auth), and the other way round."
    if draft.secret is not None and not looks.is_reference(draft.secret):
        return "Its secret must be a reference: env:NAME, file:PATH, keyring:NAME or vault:NAME."
    for name, value in draft.headers.items():
        if _HEADER.fullmatch(name) is None or _CONTROL.search(value):
            return f"{name!r} cannot be sent as a header field."
    for name in draft.forward_headers:
        if _HEADER.fullmatch(name) is None:
            return f"{name!r} cannot be the name of a header field."
    for name, value in draft.env.items():
        if not name or "=" in name or "\0" in name + value:
            return f"{name!r} cannot be an environment variable."
    return None


def _limit_fault(draft: ServerDraft) -> str | None:
    if not 0 < draft.timeout <= 86_400:
        return "Its time-out must be more than 0 and at most 86400 seconds."
    if draft.max_concurrent is not None and draft.max_concurrent < 1:
        return "At least one call at a time must be allowed."
    if any(not glob for glob in (*(draft.allow or ()), *draft.deny)):
        return "A pattern of its tools is empty."
    return None


def _bad(name: str, why: str) -> NoReturn:
    raise GatewayError(
        f'The server "{name}" cannot be stored like this.',
        why=why,
        next="mcpgw server add --help",
        code="bad_server",
        exit=Exit.USAGE,
    )

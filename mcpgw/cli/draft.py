"""From the words of `server add` and `server set` to the fields of a server.

Values that come from a prompt, stdin or the environment are sealed in the vault; the server only
gets their references. `Sealing` holds them back until all words have been understood, and takes
them out again when the store refuses the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcpgw.cli import words
from mcpgw.cli.io import Desk, usage
from mcpgw.cli.typed import CLEARABLE, SEALED, Words
from mcpgw.errors import Exit, GatewayError
from mcpgw.store.looks import is_reference

if TYPE_CHECKING:
    from mcpgw.model.config import Server
    from mcpgw.store.vault import Vault

_EMPTY: dict[str, object] = {
    "env": {},
    "headers": {},
    "forward_headers": (),
    "allow": None,
    "deny": (),
    "secret": None,
    "cwd": None,
    "timeout": 60.0,
    "max_concurrent": None,
    "ca": None,
    "client_cert": None,
    "description": "",
}
_FOR_URL = ("auth", "secret", "header", "forward_header", "ca", "client_cert", "transport")
_FOR_COMMAND = ("env", "cwd")


class Sealing:
    """Secrets on their way into the vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held: dict[str, str] = {}

    def hold(self, name: str, value: str) -> str:
        """Take `value`; the reference to it. A name that is in use gets a number."""
        taken = {*self._vault.names(), *self._held}
        free, at = name, 1
        while free in taken:
            at += 1
            free = f"{name}-{at}"
        self._held[free] = value
        return f"vault:{free}"

    @contextmanager
    def sealed(self) -> Generator[None]:
        """The block runs with the secrets in the vault; they leave it again when it fails."""
        for name, value in self._held.items():
            self._vault.put(name, value)
        try:
            yield
        except BaseException:
            for name in self._held:
                self._vault.remove(name)
            raise


def fields(
    typed: Words, *, name: str, before: Server | None, sealing: Sealing, desk: Desk
) -> dict[str, Any]:
    """The fields of a server that the words set. `before`: the server as it is, if there is one.

    Raises GatewayError (USAGE) for words that do not fit together or show a secret.
    """
    literals = words.Literals(name)
    found = _place(typed, before, literals)
    stdio = found["transport"] == "stdio" if "transport" in found else _is_stdio(before)
    _refuse_foreign(typed, stdio=stdio)
    if typed.env is not None:
        found["env"] = {
            **(before.env if before else {}),
            **dict(_variable(pair, literals, sealing) for pair in typed.env),
        }
    if typed.header is not None:
        given = words.headers(typed.header, literals)
        kept = {k.lower() for k in given}
        old: Mapping[str, str] = before.headers if before else {}
        found["headers"] = {**{k: v for k, v in old.items() if k.lower() not in kept}, **given}
    if typed.cwd is not None:
        found["cwd"] = _path(typed.cwd, "--cwd", directory=True)
    found.update(_lists(typed))
    found.update(_plain(typed))
    for field, option in (("ca", "--ca"), ("client_cert", "--client-cert")):
        if (file := getattr(typed, field)) is not None:
            found[field] = _path(file, option)
    if not stdio:
        found.update(_credentials(typed, name, before, sealing, desk))
    return found


def cleared(what: Sequence[str], before: Server) -> dict[str, Any]:
    """The fields that `--clear` empties. `env:NAME` and `header:NAME` take one entry out."""
    found: dict[str, Any] = {}
    for word in what:
        option, colon, entry = word.partition(":")
        field = CLEARABLE.get(option)
        if field is None or (colon and option not in {"env", "header"}):
            usage(
                f'--clear does not know "{word}".',
                why=f"It takes {', '.join(CLEARABLE)}, env:NAME or header:NAME.",
            )
        if not colon:
            found[field] = _EMPTY[field]
            if field == "secret":
                found["auth"] = "none"
            continue
        entries: dict[str, str] = dict(found.get(field, getattr(before, field)))
        if entry not in entries:
            raise GatewayError(
                f'"{before.name}" has no {option} "{entry}".',
                next=f"mcpgw server show {before.name}",
                code="no_such_entry",
                exit=Exit.MISSING,
            )
        del entries[entry]
        found[field] = entries
    return found


def _is_stdio(server: Server | None) -> bool:
    return server is not None and server.transport == "stdio"


def _place(typed: Words, before: Server | None, literals: words.Literals) -> dict[str, Any]:
    """Where the server is: its URL or its command."""
    if typed.command and typed.url is not None:
        usage("A server has a URL or a command, not both.", next="mcpgw server add --help")
    if typed.command:
        if not typed.command[0]:
            usage("The command after -- is empty.")
        literals.check_command(typed.command)
        found: dict[str, Any] = {"transport": "stdio", "command": tuple(typed.command)}
        if before is not None and not _is_stdio(before):
            gone = ("url", "headers", "forward_headers", "secret", "ca", "client_cert")
            found.update({field: _EMPTY.get(field) for field in gone}, auth="none")
        return found
    if typed.url is not None:
        found = {"url": words.url(typed.url, literals), "transport": typed.transport or "auto"}
        if before is not None and before.url is not None and typed.transport is None:
            found["transport"] = before.transport
        if _is_stdio(before):
            found.update(command=(), env={}, cwd=None)
        return found
    if before is None:
        usage(
            "A server needs a URL or a command.",
            why="Give --url URL for a server that runs elsewhere, or -- COMMAND ARG... for one "
            "that mcpgw starts.",
            next="mcpgw server add --help",
        )
    return {"transport": typed.transport} if typed.transport and not _is_stdio(before) else {}


def _refuse_foreign(typed: Words, *, stdio: bool) -> None:
    """Refuse options that the other kind of server has."""
    for field in _FOR_URL if stdio else _FOR_COMMAND:
        if getattr(typed, field) is not None:
            option = "--" + field.replace("_", "-")
            usage(
                f"{option} does not go with a {'command' if stdio else 'URL'}.",
                why="A command gets its secrets as variables: --env NAME=REF."
                if stdio
                else "Only a command has an environment and a directory.",
                next="mcpgw server add --help",
            )


def _variable(pair: str, literals: words.Literals, sealing: Sealing) -> tuple[str, str]:
    name, value = words.variable(pair)
    if value is None:
        if name not in os.environ:
            usage(
                f"--env {name} copies {name} from your environment, which does not have it.",
                next=f"export {name}=...",
            )
        return name, sealing.hold(f"{SEALED}{literals.secret(name)}", os.environ[name])
    if not is_reference(value):
        literals.check(name, value, "--env")
    return name, value


def _lists(typed: Words) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if typed.forward_header is not None:
        found["forward_headers"] = tuple(
            words.header_name(name).lower() for name in typed.forward_header
        )
    for field in ("allow", "deny"):
        if (patterns := getattr(typed, field)) is not None:
            if not all(patterns):
                usage(f"--{field} has an empty pattern.")
            found[field] = tuple(patterns)
    return found


def _plain(typed: Words) -> dict[str, Any]:
    plain = ("isolate", "timeout", "max_concurrent", "description")
    values = {field: getattr(typed, field) for field in plain}
    return {field: value for field, value in values.items() if value is not None}


def _path(text: str, option: str, *, directory: bool = False) -> str:
    path = Path(text).expanduser().absolute()
    if path.is_dir() if directory else path.is_file():
        return str(path)
    raise GatewayError(
        f"There is no {'directory' if directory else 'file'} {text}.",
        why=f"{option} names one.",
        code="no_such_file",
        exit=Exit.MISSING,
    )


def _credentials(
    typed: Words, name: str, before: Server | None, sealing: Sealing, desk: Desk
) -> dict[str, Any]:
    """`auth` and `secret`: a reference that was typed, or a secret that is asked for and sealed."""
    old_auth, old_secret = (before.auth, before.secret) if before else ("none", None)
    auth = typed.auth or old_auth
    if typed.secret is None and typed.auth is None:
        return {}
    if auth == "none":
        if typed.secret is not None:
            usage(
                "--secret needs to know how it is sent.",
                why="--auth says it: api-key, bearer, basic or token.",
                next="mcpgw server add NAME --url URL --auth bearer --secret REF",
            )
        return {"auth": "none", "secret": None}
    if typed.secret is None and old_secret is not None:
        return {"auth": auth}
    if typed.secret not in (None, "-"):
        if not is_reference(typed.secret):
            usage(
                "--secret takes a reference, never the secret itself.",
                why="Every process of this machine can read a command line, and shells keep it. "
                "References are env:NAME, os.environ/NAME, file:PATH, keyring:NAME and "
                f"vault:NAME. Seal yours in the vault and write --secret vault:{name} instead.",
                next=f"mcpgw secret set {name}",
            )
        return {"auth": auth, "secret": typed.secret}
    value = _secret_value(typed, auth, name, desk)
    _check_secret(auth, value)
    return {"auth": auth, "secret": sealing.hold(f"{SEALED}{name}", value)}


def _secret_value(typed: Words, auth: str, name: str, desk: Desk) -> str:
    piped = typed.secret == "-"  # noqa: S105 - stands for stdin
    if piped and not desk.stdin.isatty():
        return desk.read_secret()
    if not desk.interactive:
        raise GatewayError(
            f"--auth {auth} needs a secret.",
            why="Nobody can be asked for it, as this is not a terminal.",
            next="Give --secret REF, or --secret - to read it from stdin",
            code="secret_needed",
            exit=Exit.USAGE,
        )
    hint = "USER:PASSWORD" if auth == "basic" else "Secret"
    return desk.ask_secret(f"{hint} for {name} (not shown): ")


def _check_secret(auth: str, value: str) -> None:
    if re.search(r"[\r\n\0]", value):
        usage("The secret has a line end in it.", why="It is sent in a header.")
    if auth == "basic" and ":" not in value:
        usage("A secret for --auth basic is USER:PASSWORD.", why="There is no colon in it.")

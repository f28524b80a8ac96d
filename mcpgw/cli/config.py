"""`mcpgw config`: the whole configuration as a file, and files of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import Desk, desk, timestamp
from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from mcpgw.store.files.apply import Applied
    from mcpgw.store.files.brought import Brought
    from mcpgw.store.files.plan import Change
    from mcpgw.store.files.text import Text

app = noun("Keep the configuration in a file, and bring it along from other programs.")

SIGNS = {"add": "+", "change": "~", "remove": "-"}

FileOption: TypeAlias = Annotated[
    str,
    typer.Option("--file", "-f", metavar="FILE", help="YAML, TOML or JSON; - reads stdin."),
]
FileArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="FILE", help="The file; - reads stdin.")
]
Prune: TypeAlias = Annotated[
    bool, typer.Option("--prune", help="Take out what the file does not have.")
]


@app.command("apply", help="Make the store what a file says: all of it, or nothing.")
def apply(
    ctx: typer.Context,
    file: FileOption,
    prune: Prune = False,
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    from mcpgw.store.files import apply as work
    from mcpgw.store.files.plan import plan
    from mcpgw.store.files.schema import decode
    from mcpgw.store.secrets import Resolver
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    text = _read(at, file)
    document = decode(text, _base(file))
    with at.store() as store:
        secrets = Resolver(Vault(store))
        planned = plan(store, text, document, secrets, prune=prune)
        _tell(at, planned.changes)
        _check_seen(at, planned.unminted)
        going = [one for one in planned.changes if one.action == "remove"]
        if going:
            names = ", ".join(f"{one.kind} {one.name}" for one in going[:10])
            more = f" and {len(going) - 10} more" if len(going) > 10 else ""
            at.confirm(f"Remove {names}{more}?", yes=yes)
        agreed = frozenset(f"{one.section}.{one.name}" for one in going)
        done = work.apply(store, text, document, secrets, prune=prune, agreed=agreed)
    _hand_over(at, done)


@app.command("plan", help="Show what `apply` would change, and change nothing.")
def plan_(ctx: typer.Context, file: FileOption, prune: Prune = False, json: o.Json = False) -> None:
    from mcpgw.store.files.plan import plan
    from mcpgw.store.files.schema import decode
    from mcpgw.store.secrets import Resolver
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    text = _read(at, file)
    document = decode(text, _base(file))
    with at.store() as store:
        planned = plan(store, text, document, Resolver(Vault(store)), prune=prune)
    if json:
        at.emit({"changes": [_as_json(one) for one in planned.changes]})
        return
    _tell(at, planned.changes, to_stdout=True)


@app.command("export", help="Print the configuration as a file that `apply` takes.")
def export(
    ctx: typer.Context,
    form: Annotated[
        Literal["yaml", "toml"], typer.Option("--format", help="How it is written.")
    ] = "yaml",
) -> None:
    from mcpgw.store.files import export as files

    at = desk(ctx)
    with at.store() as store:
        document = files.current(store)
    values, masked = files.tree(document)
    if sealed := files.vault_names(document):
        at.data(f"# Sealed in the vault, and not in here: {', '.join(sealed)}")
    at.data(files.written(values, form))
    for place in masked:
        at.warn(f"{place} seems to hold a secret, which is masked: apply will not take it so")


@app.command("validate", help="Check a file, without looking at the store.")
def validate(ctx: typer.Context, file: FileArgument, json: o.Json = False) -> None:
    from mcpgw.store.files.names import Names, settle
    from mcpgw.store.files.schema import NOUNS, decode

    at = desk(ctx, as_json=json)
    text = _read(at, file)
    document = decode(text, _base(file))
    document = settle(text, document, Names(document))
    counts = {
        section: len(document.section(section))
        for section in document.__struct_fields__
        if document.section(section)
    }
    if json:
        at.emit({"files": [{"name": text.name, "valid": True, **counts}]})
    told = ", ".join(
        f"{count} {NOUNS[section] if count == 1 else section}" for section, count in counts.items()
    )
    at.say(f"{text.name} is valid: {told or 'nothing in it'}.")


@app.command(
    "import",
    help="Take over servers, keys and secrets from a file of another program.",
    epilog="LiteLLM's config.yaml, the mcpServers JSON of Claude, Cursor and VS Code, and "
    "Kubernetes Secrets. Secrets that stand in them are sealed in the vault.",
)
def import_(
    ctx: typer.Context,
    file: FileArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    json: o.Json = False,
) -> None:
    from mcpgw.store.files import apply as work
    from mcpgw.store.files import imports
    from mcpgw.store.files.export import current
    from mcpgw.store.files.plan import plan
    from mcpgw.store.secrets import Resolver
    from mcpgw.store.vault import Vault

    at = desk(ctx, as_json=json)
    text = _read(at, file)
    brought = imports.bring(text)
    with at.store() as store:
        brought = imports.known(brought, current(store))
        vault = Vault(store)
        planned = plan(store, text, brought.document, Resolver(vault), merge=True)
        _report(at, brought)
        _tell(at, planned.changes, to_stdout=dry_run and not json)
        if dry_run:
            if json:
                told = [_as_json(one) for one in planned.changes]
                at.emit({"changes": told, **_findings(brought)})
            return
        _check_seen(at, planned.unminted)
        done = work.apply(
            store,
            text,
            brought.document,
            Resolver(vault),
            merge=True,
            seals=brought.seals,
            vault=vault,
        )
    _hand_over(at, done, more=_findings(brought))


# ---------------------------------------------------------------- files


def _read(desk: Desk, file: str) -> Text:
    from mcpgw.store.files import text

    if file == "-":
        return text.parse(desk.read_text(), "-")
    return text.read(Path(file))


def _base(file: str) -> Path:
    """Where relative paths in the file start."""
    return Path.cwd() if file == "-" else Path(file).absolute().parent


# ---------------------------------------------------------------- what would change


def _tell(desk: Desk, changes: Sequence[Change], *, to_stdout: bool = False) -> None:
    """The changes, a line each: the answer of `plan`, words for people elsewhere."""
    lines = [_line(one) for one in changes]
    if to_stdout and lines:
        desk.data("\n".join(lines))
    elif to_stdout or not lines:
        desk.say("Nothing to change.")
    else:
        desk.say("\n".join(lines))


def _line(change: Change) -> str:
    head = f"{SIGNS[change.action]} {change.kind} {change.name}"
    match change.action:
        case "add":
            members = ", ".join(f"{k} {_shown(k, v)}" for k, v in (change.after or {}).items())
            return f"{head}: {members}" if members else head
        case "change":
            before, after = change.before or {}, change.after or {}
            return f"{head}: " + ", ".join(
                f"{k} {_shown(k, before.get(k))} -> {_shown(k, after.get(k))}" for k in after
            )
        case _:
            return head


def _shown(field: str, value: object) -> str:
    if value is None:
        return "none"
    if field == "expires" and isinstance(value, int):
        return timestamp(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
    return str(value)


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "before": _dated(change.before),
        "after": _dated(change.after),
    }


def _dated(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    if fields is None or fields.get("expires") is None:
        return fields
    return {**fields, "expires": timestamp(fields["expires"])}


# ---------------------------------------------------------------- what was done


def _check_seen(desk: Desk, names: Sequence[str]) -> None:
    """A secret is shown once; where nobody would see it, none is made."""
    if not names or desk.as_json or desk.stdout.isatty():
        return
    told = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    raise GatewayError(
        f"Nobody would see the {'secrets' if len(names) > 1 else 'secret'} of {told}.",
        why="A new key's secret is printed once, to a terminal or with --json; nothing was done.",
        next="Give the same command again with --json, or name a secret for each key: secret: REF",
        code="secrets_unseen",
        exit=Exit.USAGE,
    )


def _hand_over(desk: Desk, done: Applied, *, more: Mapping[str, object] | None = None) -> None:
    if desk.as_json:
        told = [{"name": key.name, "start": key.start, "secret": s} for key, s in done.minted]
        desk.emit(
            {"changes": [_as_json(one) for one in done.changes], "keys": told, **(more or {})}
        )
        return
    for key, secret in done.minted:
        desk.data(f"{key.name}\t{secret}")
    desk.stdout.flush()
    if done.minted:
        desk.say("This is the only time that these secrets are shown.")
    if done.changes:
        count = len(done.changes)
        desk.say(f"Done: {count} change{'s' if count > 1 else ''}.")


def _report(desk: Desk, brought: Brought) -> None:
    if desk.as_json:
        return
    for report in brought.reports:
        desk.warn(f"{report.path}: {report.what}")
    if brought.seals:
        desk.say(f"To the vault: {', '.join(sorted(brought.seals))}")


def _findings(brought: Brought) -> dict[str, object]:
    return {
        "reports": [{"path": one.path, "what": one.what} for one in brought.reports],
        "secrets": [{"name": name, "reference": f"vault:{name}"} for name in sorted(brought.seals)],
    }

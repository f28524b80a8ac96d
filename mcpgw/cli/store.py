"""`mcpgw store`: the file that everything configured is in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mcpgw.cli import options as o
from mcpgw.cli.groups import noun
from mcpgw.cli.io import desk, timestamp

app = noun("Back up the store, and see what was changed in it.")


@app.command("backup", help="Write a copy of the store, also while the gateway runs.")
def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; must not exist yet.")],
    json: o.Json = False,
) -> None:
    at = desk(ctx, as_json=json)
    with at.store() as store, at.busy("Copying the store"):
        store.backup(file)
    if json:
        at.emit({"backups": [{"store": str(at.path), "file": str(file.absolute())}]})
    at.say(f"Copied {at.path} to {file}.")


@app.command("changes", help="Show what was changed, when and by whom, newest first.")
def changes(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many at most.")] = 50,
    json: o.Json = False,
) -> None:
    from mcpgw.store import audit

    at = desk(ctx, as_json=json)
    with at.store() as store:
        found = audit.changes(store, limit)
    if json:
        told = [
            {
                "time": timestamp(change.at),
                "actor": change.actor,
                "action": change.action,
                "subject": change.subject,
                "before": change.before,
                "after": change.after,
            }
            for change in found
        ]
        at.emit({"changes": told})
        return
    at.rows(
        ("TIME", "WHO", "WHAT", "OF", "CHANGED"),
        [
            (
                timestamp(change.at) or "",
                change.actor,
                change.action,
                change.subject,
                _difference(change.before, change.after),
            )
            for change in found
        ],
        empty="Nothing was changed yet.",
    )


def _difference(before: Mapping[str, object] | None, after: Mapping[str, object] | None) -> str:
    """What differs, where something was altered."""
    if before is None or after is None:
        return ""
    return ", ".join(
        f"{field}: {before.get(field)} -> {after.get(field)}" for field in {**before, **after}
    )

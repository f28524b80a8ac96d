"""How commands are grouped and how their help reads.

Help is plain text in panels by purpose, the same on a terminal and in a pipe: drawing it with
rich would double the time that `mcpgw --help` takes.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Protocol

import typer
from typer.core import TyperGroup

from mcpgw.cli.io import paint

LONGEST = 200  # characters of a command's line in a list, which wraps


class Panel(StrEnum):
    """The headings of `mcpgw --help`, in their order."""

    RUN = "Run the gateway"
    SERVERS = "Servers behind it"
    ACCESS = "Who may use what"
    USE = "Use it from here"
    UPKEEP = "Upkeep"


class _Formatter(Protocol):
    """The part of typer's help formatter that is used here."""

    def section(self, name: str) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: list[tuple[str, str]]) -> None: ...


class Grouped(TyperGroup):
    """A group of commands whose help lists them by panel."""

    def format_commands(self, ctx: typer.Context, formatter: _Formatter) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - typer keeps the type private
        panels: dict[str, list[tuple[str, Any]]] = {panel: [] for panel in Panel}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                heading = panel if isinstance(panel, str) else "Commands"
                panels.setdefault(heading, []).append((name, command))
        widest = max((len(name) for rows in panels.values() for name, _ in rows), default=0)
        for panel, commands in panels.items():
            if commands:
                with formatter.section(paint(sys.stdout, panel, "1")):
                    formatter.write_dl(
                        [
                            (f"{name:<{widest}}", c.get_short_help_str(LONGEST))
                            for name, c in commands
                        ]
                    )


def group(help: str) -> typer.Typer:
    """An empty group of commands; on its own it says which there are."""
    return typer.Typer(
        cls=Grouped,
        help=help,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )


def noun(help: str) -> typer.Typer:
    """A group for one noun; without a verb it says which there are."""
    app = group(help)

    @app.callback(invoke_without_command=True, help=help)
    def verbs(ctx: typer.Context) -> None:  # pyright: ignore[reportUnusedFunction]
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help())

    return app

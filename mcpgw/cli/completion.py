"""`mcpgw completion`: what a shell needs so that Tab completes commands and names."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from mcpgw.cli.complete import VARIABLE
from mcpgw.cli.groups import Panel

Shell: TypeAlias = Literal["bash", "zsh", "fish"]

EPILOG = (
    "bash: mcpgw completion bash > ~/.local/share/bash-completion/completions/mcpgw\n\n"
    "zsh: mcpgw completion zsh > ~/.zfunc/_mcpgw (with ~/.zfunc in fpath)\n\n"
    "fish: mcpgw completion fish > ~/.config/fish/completions/mcpgw.fish"
)


def script(shell: Shell) -> str:
    """The completion script of a shell, as `completions/` has it too."""
    from typer.completion import get_completion_script  # pyright: ignore[reportPrivateImportUsage]

    text = get_completion_script(prog_name="mcpgw", complete_var=VARIABLE, shell=shell)
    return text + "\n"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose script.")],
) -> None:
    typer.echo(script(shell), nl=False)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the root."""
    app.command(
        "completion",
        help="Print a script that completes commands and names with Tab.",
        epilog=EPILOG,
        rich_help_panel=Panel.UPKEEP,
    )(completion)

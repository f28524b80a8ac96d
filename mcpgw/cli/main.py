"""The command line as a whole: every noun's verbs, and the one place where errors become answers.

A verb raises GatewayError for what it refuses; here that turns into three lines on stderr (or one
line of JSON) and an exit status. Anything else that escapes is a fault of mcpgw: its text might
hold what nobody should see, so only its kind and place are told unless MCPGW_DEBUG is set.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, TextIO, cast

import typer

from mcpgw import __version__
from mcpgw.cli import (
    access,
    alias,
    complete,
    completion,
    config,
    group,
    groups,
    key,
    org,
    policy,
    prompts,
    resources,
    running,
    secret,
    server,
    store,
    team,
    tools,
)
from mcpgw.cli.groups import Panel
from mcpgw.cli.io import Cancelled, harmless, paint
from mcpgw.errors import Exit, GatewayError

PROGRAM = "mcpgw"

app = groups.group("One gateway in front of every Model Context Protocol server.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Work on this store instead of the one in your data directory (or MCPGW_STORE).",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Tell the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Without a verb: say which there are."""
    del store, version  # verbs find them in the root's context
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


running.add_to(app)
app.add_typer(server.app, name="server", rich_help_panel=Panel.SERVERS)
app.add_typer(alias.app, name="alias", rich_help_panel=Panel.SERVERS)
app.add_typer(secret.app, name="secret", rich_help_panel=Panel.SERVERS)
app.add_typer(key.app, name="key", rich_help_panel=Panel.ACCESS)
app.add_typer(team.app, name="team", rich_help_panel=Panel.ACCESS)
app.add_typer(org.app, name="org", rich_help_panel=Panel.ACCESS)
app.add_typer(group.app, name="group", rich_help_panel=Panel.ACCESS)
app.add_typer(policy.app, name="policy", rich_help_panel=Panel.ACCESS)
app.add_typer(access.app, name="access", rich_help_panel=Panel.ACCESS)
app.add_typer(tools.app, name="tools", rich_help_panel=Panel.USE)
app.add_typer(prompts.app, name="prompts", rich_help_panel=Panel.USE)
app.add_typer(resources.app, name="resources", rich_help_panel=Panel.USE)
app.add_typer(config.app, name="config", rich_help_panel=Panel.UPKEEP)
app.add_typer(store.app, name="store", rich_help_panel=Panel.UPKEEP)
completion.add_to(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Everything it says goes to the process's streams."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            # Servers may send what this terminal's encoding cannot show.
            reconfigure(errors="backslashreplace")
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_quietly()
        return Exit.DONE
    return status


def _run(words: list[str]) -> int:
    command = typer.main.get_command(app)
    if complete.asked():
        complete.prepare()
        command.main(words, prog_name=PROGRAM)  # ends the process
    try:
        with command.make_context(PROGRAM, list(words)) as ctx:
            command.invoke(ctx)
    except typer.Exit as done:
        return done.exit_code
    except BaseException as error:  # noqa: BLE001 - the boundary that this module is for
        return _refuse(_cause(error), words)
    return Exit.DONE


def _cause(error: BaseException) -> BaseException:
    """What a group of errors is about: a refusal if there is one in it, else its first error."""
    leaves = list(_leaves(error))
    for kind in (GatewayError, KeyboardInterrupt, BrokenPipeError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _refuse(error: BaseException, words: list[str]) -> int:
    """Say what went wrong; the exit status for it."""
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, Cancelled):
        refusal = GatewayError("Nothing was changed.", code="cancelled", exit=Exit.INTERRUPTED)
    elif isinstance(error, KeyboardInterrupt):
        refusal = GatewayError("Interrupted.", code="interrupted", exit=Exit.INTERRUPTED)
    elif isinstance(error, GatewayError):
        refusal = error
    elif isinstance(error, typer.TyperException):
        refusal = _misused(error)
    else:
        refusal = _fault(error)
    report(refusal, words, sys.stderr)
    return refusal.exit


def report(error: GatewayError, words: Sequence[str], stream: TextIO) -> None:
    """Write a refusal: three lines for people, one line of JSON where `--json` was given."""
    next_step = _in_same_store(_mended(error, words), words)
    verb = words[: words.index("--")] if "--" in words else words
    if "--json" in verb:
        told = {"code": error.code, "what": error.what, "why": error.why, "next": next_step}
        stream.write(json.dumps({"error": told}) + "\n")
        return
    for label, text, colour in (
        ("error:", error.what, "31;1"),
        ("  why:", error.why, "2"),
        (" next:", next_step, "36"),
    ):
        if text:
            shown = harmless(text).rstrip().replace("\n", "\n       ")
            stream.write(f"{paint(stream, label, colour)} {shown}\n")
    stream.flush()


def _mended(error: GatewayError, words: Sequence[str]) -> str | None:
    """The advice; a guess at the right name comes with the command that uses it."""
    guess = re.match(r'Did you mean "?([\w./-]+?)"?\?', error.next or "")
    wrong = re.search(r'"([^"]+)"', error.what)
    if guess is None or wrong is None:
        return error.next
    again = [_renamed(word, wrong[1], guess[1]) for word in words]
    if again == list(words):
        return error.next
    return f"Did you mean {guess[1]}?  {shlex.join([PROGRAM, *again])}"


def _renamed(word: str, wrong: str, right: str) -> str:
    name, slash, rest = word.partition("/")
    return right + slash + rest if name == wrong or word == wrong else word


def _in_same_store(text: str | None, words: Sequence[str]) -> str | None:
    """Commands in an advice work on the store that was named."""
    if text is None or words[:1] != ["--store"] or len(words) < 2:
        return text
    named = f"{PROGRAM} --store {shlex.quote(words[1])} "
    return re.sub(rf"(?<![\w/-]){PROGRAM} (?=[a-z])", lambda _: named, text)


def _misused(error: typer.TyperException) -> GatewayError:
    """Words that the parser did not understand."""
    ctx: typer.Context | None = getattr(error, "ctx", None)
    command = ctx.command_path if ctx else PROGRAM
    text = " ".join(error.format_message().split())
    return GatewayError(
        text if text.endswith((".", "?", ")")) else f"{text}.",
        why=f"{' '.join(ctx.get_usage().split())}" if ctx else None,
        next=f"{command} --help",
        code="usage",
        exit=Exit.USAGE,
    )


def _fault(error: BaseException) -> GatewayError:
    """An error that nobody foresaw. Its own text stays hidden: it may quote a secret."""
    if os.environ.get("MCPGW_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}mcpgw{os.sep}" in frame.filename] or frames
    place = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
    return GatewayError(
        f"mcpgw failed unexpectedly ({type(error).__name__}{place}).",
        next="Set MCPGW_DEBUG=1 and try again for a traceback",
        code="fault",
    )


def _close_quietly() -> None:
    """Whoever read our output has seen enough; the interpreter's last flush must not complain."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        return

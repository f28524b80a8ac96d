"""A verb's desk: where its answer goes, whom it may ask, and which store it works on.

Data goes to stdout and words for people to stderr. On a terminal a listing is a table; anywhere
else it is one line a row with tabs between the cells, without headings, so that `cut` and `awk`
read it. Text that servers wrote cannot move the cursor or recolour a terminal.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import typer

from mcpgw.errors import Exit, GatewayError

if TYPE_CHECKING:
    from rich.status import Status

    from mcpgw.store.db import Store

MAX_SECRET = 64 * 1024  # characters of a secret that are read from stdin; PEM bundles fit

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_SPACE = re.compile(r"\s+")


class Cancelled(Exception):
    """The person at the terminal said no."""


class Spinner:
    """What turns while something lasts; nothing turns where `status` is None."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def say(self, text: str) -> None:
        """Another line beside it."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(one_line(text)))

    @contextmanager
    def paused(self) -> Generator[None]:
        """The block has the terminal for itself."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


class Desk:
    """Streams are those of the process at the time; `as_json` is the verb's own `--json`."""

    def __init__(self, store: Path | None, *, as_json: bool = False) -> None:
        self._store = store
        self._path: Path | None = None
        self.as_json = as_json
        self.stdin: TextIO = sys.stdin
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr

    @property
    def named(self) -> Path:
        """The store that was meant: --store, MCPGW_STORE, or in the user's data directory."""
        if self._store is None:
            from mcpgw.store.db import default_path

            self._store = default_path()
        return self._store

    @property
    def path(self) -> Path:
        """Where the store is: as named, or what `serve --config` serves there instead."""
        if self._path is None:
            from mcpgw.store.db import served_path

            self._path = self.named
            if (served := served_path(self.named)).exists():
                from mcpgw.daemon.door import answers, door_path

                if answers(door_path(served)):
                    self._path = served
        return self._path

    @contextmanager
    def store(self) -> Generator[Store]:
        """The store, open for one verb. Raises GatewayError when it cannot be used."""
        from mcpgw.store.db import Store

        with Store.open(self.path) as store:
            yield store

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: they type, and they see the question."""
        return self.stdin.isatty() and self.stderr.isatty()

    # --- answers ---------------------------------------------------------------------------

    def emit(self, answer: Mapping[str, object]) -> None:
        """The verb's one JSON object."""
        self.stdout.write(json.dumps(answer) + "\n")

    def data(self, text: str) -> None:
        """Text that is the answer; only a terminal gets it made harmless."""
        text = harmless(text) if self.stdout.isatty() else text
        self.stdout.write(text if text.endswith("\n") else text + "\n")

    def rows(
        self, headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = ""
    ) -> None:
        """A listing. `empty`: what a person is told when there is nothing to list."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        if not cells:
            if empty:
                self.say(empty)
        elif self.stdout.isatty():
            self._table(headings, cells)
        else:
            self.stdout.writelines("\t".join(row) + "\n" for row in cells)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """One thing's properties, a line each; those without a value are left out."""
        shown = [(name, one_line(text)) for name, text in facts if text]
        width = max((len(name) for name, _ in shown), default=0)
        for name, text in shown:
            label = f"{name}:".ljust(width + 2) if self.stdout.isatty() else f"{name}:\t"
            self.stdout.write(f"{label}{text}\n")

    def _table(self, headings: Sequence[str], rows: list[list[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for at, heading in enumerate(headings):
            last = at == len(headings) - 1
            table.add_column(heading, no_wrap=at == 0, overflow="fold", ratio=1 if last else None)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(file=self.stdout, highlight=False).print(table)

    # --- words for people ------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Words for people. Programs that want JSON are not bothered with them."""
        if not self.as_json:
            self.stderr.write(harmless(text) + "\n")
            self.stderr.flush()

    def warn(self, text: str) -> None:
        """What people must know, also beside `--json`."""
        self.stderr.write(paint(self.stderr, "warning:", "33;1") + f" {harmless(text)}\n")
        self.stderr.flush()

    @contextmanager
    def busy(self, text: str) -> Generator[Spinner]:
        """A spinner on a terminal while something lasts; nothing in a pipe."""
        if not self.stderr.isatty():
            yield Spinner(None)
            return
        from rich.console import Console
        from rich.text import Text

        with Console(file=self.stderr).status(Text(harmless(text))) as status:
            yield Spinner(status)

    # --- questions -------------------------------------------------------------------------

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is destroyed. Raises Cancelled for a no.

        Raises GatewayError (USAGE) where nobody can be asked and `--yes` was not given.
        """
        if yes:
            return
        if not self.interactive:
            raise GatewayError(
                "This needs --yes where nobody can be asked.",
                why=f"It would ask: {question}",
                next="Give the same command again with --yes",
                code="confirmation_needed",
                exit=Exit.USAGE,
            )
        if self.ask(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
            raise Cancelled

    def ask(self, prompt: str) -> str:
        """One line from the person at the terminal."""
        self.stderr.write(harmless(prompt))
        self.stderr.flush()
        line = self.stdin.readline()
        if not line:
            raise Cancelled
        return line.rstrip("\r\n")

    def ask_secret(self, prompt: str) -> str:
        """One line that is not shown while it is typed. Raises GatewayError when it is empty."""
        try:
            value = getpass.getpass(prompt, stream=self.stderr)
        except EOFError:
            raise Cancelled from None
        return _not_empty(value)

    def read_secret(self) -> str:
        """A secret from stdin: one line, without its end. Raises GatewayError when it is empty."""
        return _not_empty(self.stdin.readline(MAX_SECRET).rstrip("\r\n"))

    def read_text(self) -> str:
        """All of stdin, for what may have several lines."""
        return self.stdin.read()


def _not_empty(value: str) -> str:
    if value:
        return value
    raise GatewayError(
        "The secret is empty.",
        why="Nothing was typed, or nothing came on stdin.",
        code="empty_secret",
        exit=Exit.USAGE,
    )


def desk(ctx: typer.Context, *, as_json: bool = False) -> Desk:
    """The desk of the verb that `ctx` runs."""
    store = ctx.find_root().params.get("store")
    return Desk(Path(store) if store else None, as_json=as_json)


def harmless(text: str) -> str:
    """`text` without anything that a terminal would obey: controls and text direction."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def one_line(text: str) -> str:
    """`text` as one cell of a listing."""
    return harmless(_SPACE.sub(" ", text).strip())


def paint(stream: TextIO, text: str, colour: str) -> str:
    """`text` in a colour (an SGR number) where `stream` shows colours."""
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def timestamp(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def moment(seconds: float | None, *, none: str = "never") -> str:
    """Seconds since the epoch, for people, in UTC."""
    return none if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def usage(what: str, *, why: str | None = None, next: str | None = None) -> NoReturn:
    """Refuse the words of a command."""
    raise GatewayError(what, why=why, next=next, code="usage", exit=Exit.USAGE)


def plain(value: object) -> Any:  # noqa: ANN401 - JSON for json.dumps
    """A value of the model as JSON types."""
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {str(key): plain(item) for key, item in pairs.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("Sequence[object]", value)]
    return value


def mapping(value: object) -> dict[str, Any]:
    """A JSON value as an object; an empty one when it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """A JSON value as an array; an empty one when it is something else."""
    return cast("list[Any]", value) if isinstance(value, list) else []

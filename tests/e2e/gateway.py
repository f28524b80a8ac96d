"""A gateway as a person sets it up: the real command line, a temporary store, a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.children import gateway

PATIENCE = 60.0  # seconds for one command or the start of a child
SERVES = "mcpgw serves on "


@dataclass
class House:
    """One store, and the commands on it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MCPGW_")}
        settings = {"MCPGW_STORE": str(self.folder / "mcpgw.db"), "MCPGW_MASTER_KEY": "5a" * 32}
        own = {**settings, "HOME": str(self.folder), "NO_COLOR": "1"}
        self.environment = {**kept, **own, **self.environment}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            gateway(*words),
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def done(self, *words: str) -> str:
        """Run a command that must succeed; what it says on stdout."""
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def told(self, *words: str) -> Any:
        """Run a command with --json; what it tells."""
        return json.loads(self.done(*words, "--json"))

    def key(self, name: str, *targets: str) -> str:
        """Make a key; its secret."""
        grants = [word for target in targets for word in ("--grant", target)]
        return self.told("key", "create", name, *grants)["keys"][0]["secret"]

    @contextlib.contextmanager
    def serving(self, *words: str) -> Generator[str]:
        """`mcpgw serve` on a free port; `http://HOST:PORT`. It must end cleanly."""
        command = gateway("serve", "--port", "0", *words)
        with child(command, SERVES, env=self.environment, cwd=self.folder) as (line, daemon):
            yield line.removeprefix(SERVES).strip().removesuffix("/mcp")
            assert daemon.end() == 0, "".join(daemon.lines)


class Child:
    """A process whose stderr is read all along, so that it never waits for a reader."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._heard = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.lines.append(line)
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def says(self, start: str) -> str:
        """The first line that begins so, once it was said."""
        return self._first(start, lambda line: line.startswith(start))

    def news(self, part: str) -> str:
        """The first line with this in it, once it was said."""
        return self._first(part, lambda line: part in line)

    def _first(self, what: str, fits: Callable[[str], bool]) -> str:
        def found() -> str | None:
            return next((line for line in self.lines if fits(line)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() is not None or self._ended, PATIENCE)
            line = found()
        assert line is not None, f"never said {what!r}: {''.join(self.lines)}"
        return line

    def end(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextlib.contextmanager
def child(
    command: Sequence[str],
    ready: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Generator[tuple[str, Child]]:
    """A process, once a line of its stderr begins with `ready`; it does not outlive the block."""
    started = Child(command, env=env, cwd=cwd)
    try:
        yield started.says(ready), started
    finally:
        started.end()

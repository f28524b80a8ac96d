"""The processes of a benchmark: started, measured and ended by the one that measures."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import msgspec

from tests.bench.load import Measured, Plan
from tests.children import gateway, module

START = 20.0  # seconds a child may take to say that it is ready
SERVES = "mcpgw serves on "


def environment(**more: str) -> dict[str, str]:
    """As pip installs it: with bytecode, and without settings of whoever measures."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MCPGW_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "MCPGW_LOG": "warning", **more}


@contextlib.contextmanager
def child(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str]]:
    """A child with pipes; it ends with the block: first its input, then a signal, then by force."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env or environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextlib.contextmanager
def asgi(name: str, *words: str) -> Generator[tuple[str, int]]:
    """A module that serves an app; its origin and its pid."""
    with child(module(name, *words)) as process:
        yield _line(process, "http", out=True).strip(), process.pid


@contextlib.contextmanager
def serving(store: Path, *words: str) -> Generator[tuple[str, int]]:
    """`mcpgw serve` on a free port; its origin and its pid."""
    command = gateway("--store", str(store), "serve", "--port", "0", *words)
    with child(command) as process:
        line = _line(process, SERVES, out=False)
        yield line.removeprefix(SERVES).strip().removesuffix("/mcp"), process.pid


def _line(process: subprocess.Popen[str], start: str, *, out: bool) -> str:
    """The first line that begins so. Raises RuntimeError when the child ends before."""
    pipe = process.stdout if out else process.stderr
    if pipe is None:
        raise RuntimeError("the child was started without this pipe")
    told: list[str] = []
    for line in pipe:
        if line.startswith(start):
            return line
        told.append(line)
    rest = "" if process.stderr is None or not out else process.stderr.read()
    raise RuntimeError(f"the child ended before it was ready: {''.join(told)}{rest}")


def cli(store: Path, *words: str) -> str:
    """Run the command line on a store; what it says on stdout."""
    done = subprocess.run(
        gateway("--store", str(store), *words),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mcpgw {' '.join(words)}: {done.stderr}")
    return done.stdout


def cpu(pid: int) -> float:
    """CPU seconds that a process has used, user and system, without its children."""
    if sys.platform == "linux":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    told = subprocess.run(
        ["ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    seconds = 0.0
    for part in told.stdout.strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    if sys.platform == "linux":
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(told.stdout) * 1024 / 1e6


class Sample(msgspec.Struct):
    """One round of one path. cpu_ms: CPU of the process in the middle per call, in ms."""

    rate: float
    p50: float
    p99: float
    cpu_ms: float


def load(plan: Plan, pid: int) -> Sample:
    """Carry out a plan against the process `pid`. Raises RuntimeError when a call failed."""
    with child(module("tests.bench.load")) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the load has no pipes")
        process.stdin.write(msgspec.json.encode(plan).decode() + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "go\n":
            process.kill()
            told = process.stderr.read() if process.stderr else ""
            raise RuntimeError(f"the load did not begin: {told}")
        before = cpu(pid)
        time.sleep(plan.seconds)
        used = cpu(pid) - before
        measured = msgspec.json.decode(process.stdout.read(), type=Measured)
    if measured.failed or not measured.calls:
        raise RuntimeError(f"{measured.failed} calls failed: {measured.said}")
    rate = measured.calls / measured.seconds
    cpu_ms = used * 1000 / measured.calls
    return Sample(round(rate, 1), measured.p50, measured.p99, round(cpu_ms, 4))

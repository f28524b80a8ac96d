"""Everything that must hold, in one run: `python -m tests.check [STEP...]`.

Steps: format, lint, types, imports, unit (all tests that are fast), whole (slow ones, real peers).
The installed mcpgw is what is checked at run time: the checkout's root comes last on the path.
Under CI=true a skipped test is a failure, unless its registry could not be reached.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.peers import UNREACHABLE

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS = 5  # pytest's exit status when a selection is empty


@dataclass
class Outcome:
    """What a step came to. Counts are of tests, where the step runs tests."""

    name: str
    ok: bool
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def run(*command: str) -> int:
    """Run a tool from the checkout's root; its exit status."""
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def tool(name: str) -> str:
    """A console script of this very environment."""
    return str(Path(sys.executable).parent / name)


def tests(selection: str) -> Callable[[str], Outcome]:
    """A step that runs the tests whose marks match."""

    def step(name: str) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="mcpgw-check-") as folder:
            report = Path(folder) / "report.xml"
            # -P: the working directory stays off the path (tests/conftest.py puts it last).
            status = run(
                *(sys.executable, "-P", "-m", "pytest", "-q", "-m", selection),
                *("--durations=8", "--durations-min=2", f"--junitxml={report}"),
            )
            outcome = counted(name, report)
        outcome.ok = outcome.ok and status in (0, NO_TESTS)
        return outcome

    return step


def counted(name: str, report: Path) -> Outcome:
    """What pytest's report says; no report is a failure."""
    if not report.exists():
        return Outcome(name, ok=False)
    outcome = Outcome(name, ok=True)
    for case in ET.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif skip is not None:
            outcome.skipped += 1
            reason = skip.get("message", "")
            if os.environ.get("CI") and UNREACHABLE not in reason:
                print(
                    f"skipped without leave: {case.get('classname')}.{case.get('name')}: {reason}"
                )
                outcome.ok = False
        else:
            outcome.passed += 1
    return outcome


def command(*words: str) -> Callable[[str], Outcome]:
    """A step that is one command."""
    return lambda name: Outcome(name, ok=run(*words) == 0)


STEPS: dict[str, Callable[[str], Outcome]] = {
    "format": command(tool("ruff"), "format", "--check", "."),
    "lint": command(tool("ruff"), "check", "."),
    "types": command(tool("pyright"), "--pythonpath", sys.executable),
    "imports": command(tool("lint-imports")),
    "unit": tests("not slow and not peer"),
    "whole": tests("slow or peer"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    wanted: list[str] = parser.parse_args(argv).steps or list(STEPS)
    if unknown := [name for name in wanted if name not in STEPS]:
        parser.error(f"no such step: {', '.join(unknown)}")
    outcomes: list[Outcome] = []
    for name in wanted:
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        outcome = STEPS[name](name)
        outcome.seconds = time.monotonic() - began
        outcomes.append(outcome)
    return summary(outcomes)


def summary(outcomes: Sequence[Outcome]) -> int:
    """Print what each step came to; the exit status."""
    print("\n=== summary")
    for outcome in outcomes:
        tests = ""
        if outcome.passed or outcome.failed or outcome.skipped:
            tests = f"  {outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped"
        verdict = "ok" if outcome.ok else "FAILED"
        print(f"{outcome.name:8} {verdict:7} {outcome.seconds:7.1f} s{tests}")
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The official conformance suite as a program, and what its output folder says.

It always gets an `--expected-failures` file, an empty one: only then does its exit status count
warnings. The verdicts are read from its files all the same, so that its status is not taken on
trust.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import peers

SPECS = ("2025-11-25", "2026-07-28")
EXPECTED = Path(__file__).parent / "expected-failures.yml"
LEG = 300.0  # seconds for one run of the suite
SCHEMA_CHECKS = frozenset({"wire-schema-valid", "wire-schema-harness-error"})
"""Checks that the suite adds to every scenario: they alone do not show that one ran."""

_STAMP = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass
class Verdict:
    """One scenario: how many checks passed, and what each of the others said."""

    passed: int = 0
    own: int = 0
    wrong: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not self.wrong and self.own > 0


@dataclass
class Leg:
    """One run of the suite."""

    status: int
    log: str
    verdicts: dict[str, Verdict]

    @property
    def passed(self) -> list[str]:
        return [name for name, verdict in self.verdicts.items() if verdict.ok]

    def must_pass(self, scenarios: int) -> None:
        """Every scenario passed, none left without a result, and nothing warned."""
        bad = {
            name: verdict.wrong or ["no check of its own"]
            for name, verdict in self.verdicts.items()
            if not verdict.ok
        }
        told = json.dumps(bad, indent=1)
        assert not bad, f"{len(self.passed)} of {len(self.verdicts)} pass: {told}"
        assert self.status == 0, self.log[-4000:]
        assert len(self.verdicts) == scenarios, sorted(self.verdicts)


def run(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> Leg:
    """Run the suite; its results land in `folder`."""
    told = (*words, "-o", str(folder), "--expected-failures", str(EXPECTED))
    done = _program(*told, environment=environment or {})
    log = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return Leg(done.returncode, log, verdicts(folder, log))


def listed(*words: str) -> str:
    """What the suite says of the scenarios it has."""
    done = _program("list", *words, environment={})
    assert done.returncode == 0, done.stdout
    return done.stdout


def _program(*words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    node = peers.node()
    path = f"{node.node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [*node.script("@modelcontextprotocol/conformance", "dist/index.js"), *words],
        env={**os.environ, **environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LEG,
        check=False,
    )


def server(folder: Path, url: str, spec: str | None) -> Leg:
    """All server scenarios of a revision; None: of every revision, and those of extensions."""
    words = () if spec is None else ("--spec-version", spec)
    return run(folder, "server", "--url", url, "--suite", "all", *words)


def verdicts(folder: Path, log: str) -> dict[str, Verdict]:
    """What each scenario came to; one that was begun and left no result is wrong."""
    begun = re.findall(
        r"^(?:=== Running scenario: |Starting scenario: |Running client scenario ')(\S+?)"
        r"(?: ===$|$|')",
        log,
        re.MULTILINE,
    )
    found = {name: Verdict(wrong=["left no result"]) for name in begun}
    for file in sorted(folder.rglob("checks.json")):
        name = _STAMP.sub("", file.parent.relative_to(folder).as_posix())
        if name not in found:
            name = name.removeprefix("server-")
        found[name] = _verdict(json.loads(file.read_text()))
    return found


def _verdict(checks: list[dict[str, Any]]) -> Verdict:
    verdict = Verdict()
    for check in checks:
        if check["status"] == "SUCCESS":
            verdict.passed += 1
            verdict.own += check["id"] not in SCHEMA_CHECKS
        elif check["status"] in ("FAILURE", "WARNING"):
            told = check.get("errorMessage") or check.get("description") or ""
            verdict.wrong.append(f"{check['status']} {check['id']}: {told.strip()}")
    return verdict

"""The entry to all checks: what fails it, and what is a reason to skip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import check, peers

PASSED = '<testcase classname="a" name="one"/>'
FAILED = '<testcase classname="a" name="two"><failure message="no"/></testcase>'
BROKEN = '<testcase classname="a" name="three"><error message="no"/></testcase>'


def skipped(reason: str) -> str:
    return f'<testcase classname="a" name="four"><skipped message="{reason}"/></testcase>'


def report(folder: Path, *cases: str) -> Path:
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_tests_are_counted(tmp_path: Path) -> None:
    found = check.counted("unit", report(tmp_path, PASSED, FAILED, BROKEN, skipped("why")))
    assert (found.passed, found.failed, found.skipped) == (1, 2, 1)


def test_a_run_without_a_report_has_failed(tmp_path: Path) -> None:
    assert check.counted("unit", tmp_path / "none.xml").ok is False


@pytest.mark.parametrize(
    ("ci", "reason", "ok"),
    [
        ("true", "needs a newer kernel", False),
        ("true", f"Skipped: {peers.UNREACHABLE}: npm", True),
        ("", "needs a newer kernel", True),
    ],
)
def test_a_skip_in_ci_needs_the_one_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, reason: str, ok: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    assert check.counted("unit", report(tmp_path, PASSED, skipped(reason))).ok is ok


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        check.main(["nonsense"])
    assert refused.value.code == 2


def test_one_failed_step_fails_all(capsys: pytest.CaptureFixture[str]) -> None:
    good = check.Outcome("unit", ok=True, passed=3)
    assert check.summary([good]) == 0
    assert check.summary([good, check.Outcome("lint", ok=False)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 passed, 0 failed, 0 skipped"


def installer(said: str) -> list[str]:
    return [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"]


def test_a_registry_that_is_away_is_a_reason_to_skip(tmp_path: Path) -> None:
    for said, signs in (
        ("npm error code ECONNREFUSED", peers.NPM_DOWN),
        ("NewConnectionError('Failed to establish a new connection')", peers.PIP_DOWN),
    ):
        with pytest.raises(pytest.skip.Exception, match=peers.UNREACHABLE):
            peers.install_by(installer(said), tmp_path, signs, {})


def test_a_package_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    for said, signs in (
        ("npm error code ETARGET", peers.NPM_DOWN),
        ("No matching distribution found for mcp-server-time==0", peers.PIP_DOWN),
    ):
        with pytest.raises(pytest.fail.Exception, match="failed"):
            peers.install_by(installer(said), tmp_path, signs, {})

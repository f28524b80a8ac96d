"""The manifest of requirements names revisions and tests that there are."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import TypedDict, cast

import pytest

from mcpgw.core.eras import SUPPORTED


class Requirement(TypedDict):
    section: str
    must: str
    tests: list[str]


TESTS = Path(__file__).resolve().parent.parent
MANIFEST = tomllib.loads(Path(__file__).with_name("requirements.toml").read_text("utf-8"))
REQUIREMENTS = cast("list[Requirement]", MANIFEST["requirement"])


@cache
def functions(file: str) -> frozenset[str]:
    """The tests of a file that pytest collects."""
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = (node.name for node in tree.body if isinstance(node, kinds))
    return frozenset(name for name in names if name.startswith("test_"))


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda one: one["must"])
def test_every_named_test_exists(requirement: Requirement) -> None:
    assert requirement.keys() == Requirement.__annotations__.keys()
    assert requirement["section"].partition("/")[0] in SUPPORTED
    assert requirement["tests"]
    for test in requirement["tests"]:
        file, _, name = test.partition("::")
        assert name in functions(file), f"{test} is not there"


def test_nothing_is_required_twice() -> None:
    said = [one["must"] for one in REQUIREMENTS]
    assert len(said) == len(set(said))
    for one in REQUIREMENTS:
        assert len(one["tests"]) == len(set(one["tests"]))

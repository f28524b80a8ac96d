from __future__ import annotations

from pathlib import Path

import pytest

from mcpgw.errors import GatewayError
from mcpgw.store.files.text import parse, read


def fault(text: str | bytes, name: str) -> str:
    with pytest.raises(GatewayError) as refused:
        parse(text, name)
    return refused.value.why or ""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.yaml",
            "a:\n  b: 1\n  c: 2\n  b: 3\n",
            "line 4, a.b: the key stands twice, first in line 2",
        ),
        ("a.yaml", "yes: 1\n", 'line 1: a key must be text; put it in quotes: "yes"'),
        ("a.yaml", "a:\n  1: x\n", 'line 2, a: a key must be text; put it in quotes: "1"'),
        ("a.yaml", "a: [1\nb: }\n", "line 2: this is no YAML: did not find expected ',' or ']'"),
        ("a.yaml", "a:\n  b: 2027-13-45\n", "line 2, a.b: this is no date or number that can be"),
        (
            "a.yaml",
            "a: &a [*a]\n",
            "line 1, a[0][0]: this is too big or too deep, aliases counted each time",
        ),
        ("a.yaml", "<<: 1\n", "line 1: only a mapping can be merged with <<"),
        ("a.yaml", b"a: 1\nb: \xff\n", "line 2: it is not UTF-8 text"),
        ("a.toml", "a = 1\na = 2\n", "line 2: this is no TOML: Cannot overwrite a value"),
        ("a.toml", "a = \n", "line 1: this is no TOML: Invalid value"),
        ("a.json", '{"a": 1,\n "a": 2}', "line 2, a: the key stands twice"),
        ("a.json", '{"a": 1,\n "b" 2}', "line 2: this is no JSON: Expecting ':' delimiter"),
    ],
)
def test_what_cannot_be_read(name: str, text: str | bytes, said: str) -> None:
    assert fault(text, name) == said


def test_nothing_in_a_file_names_an_object() -> None:
    assert "could not determine a constructor" in fault("a: !!python/object:os.system x", "a.yaml")
    assert "the tag !x is not known here" in fault("a: !x [1]", "a.yaml")


def test_small_files_cannot_become_huge() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "too big" in fault("\n".join(lines), "a.yaml")
    assert "this is too deep" in fault("[" * 100_000 + "]" * 100_000, "a.json")


def test_merge_keys_and_anchors() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{y: 4}, *a]}\n"
    assert parse(text, "a.yaml").documents[0]["b"] == {"x": 1, "y": 3}
    assert parse(text, "a.yaml").documents[0]["c"] == {"x": 1, "y": 4}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("# c\n[servers.x]\nurl = 'y'\n", "toml"),
        ("a = 1\n", "toml"),
        ("a: b = c\n", "yaml"),
        ("// c\n{}\n", "json"),
        ("---\na: 1\n", "yaml"),
    ],
)
def test_stdin_tells_its_format(text: str, form: str) -> None:
    assert parse(text, "-").format == form


def test_lines() -> None:
    yaml = parse("a:\n  b:\n    - x\n    - y\n", "a.yaml")
    assert [yaml.line(p) for p in (("a",), ("a", "b", 1), ("a", "b", 9), ("z",))] == [1, 4, 2, None]
    toml = parse("[a.'b.c']\n\nd.e = 1\n[[f]]\n", "a.toml")
    assert [toml.line(p) for p in (("a", "b.c"), ("a", "b.c", "d", "e"), ("f",))] == [1, 3, 4]
    json = parse('{"a": {\n\t"b": 1, // x\n\t"c": "//no"\n}}', "a.json")
    assert [json.line(p) for p in (("a", "b"), ("a", "c"))] == [2, 3]
    assert json.documents[0]["a"]["c"] == "//no"


def test_files(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="There is no file"):
        read(tmp_path / "none")
    with pytest.raises(GatewayError, match="cannot be read"):
        read(tmp_path)

"""YAML, TOML and JSON as one kind of tree that knows the line of everything in it.

Keys are texts and stand once; YAML's anchors and merge keys work, within bounds. Nothing in a file
can name a Python object.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

from msgspec import Struct

from mcpgw.errors import Exit, GatewayError
from mcpgw.store.files.faults import Fault, Path, refused, spelled

LONGEST: Final = 16 * 1024 * 1024  # bytes of a file; 10,000 keys take 2 MB
MOST: Final = 1_000_000  # values, aliases counted each time: nothing small may become huge
DEEPEST: Final = 50  # levels

Format: TypeAlias = Literal["yaml", "toml", "json"]

_TOML_LINE = re.compile(r"(\[\[?[^\[\]]+\]\]?\s*(#.*)?|[\w.\"'-]+\s*=.*)")
_COMMENT = re.compile(r"\s*(#.*)?")


class Text(Struct, frozen=True):
    """A file's documents (YAML may have several) and the line of each path in the first one."""

    name: str
    format: Format
    documents: tuple[Any, ...]
    lines: Mapping[Path, int] = {}

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it, but for the whole file."""
        if not path:
            return self.lines.get(path)
        while path:
            if (line := self.lines.get(path)) is not None:
                return line
            path = path[:-1]
        return None

    def fault(self, path: Path, what: str) -> Fault:
        return Fault(self.line(path), spelled(path), what)


def read(file: File) -> Text:
    """A file's text, understood. Raises GatewayError: no_such_file, unreadable_file, bad_config."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(LONGEST + 1)
    except FileNotFoundError:
        raise GatewayError(
            f"There is no file {file}.",
            next=f"ls -l {file.parent}",
            code="no_such_file",
            exit=Exit.MISSING,
        ) from None
    except OSError as error:
        raise GatewayError(
            f"The file {file} cannot be read.",
            why=f"{error.strerror or 'The system says no'}.",
            next=f"ls -l {file}",
            code="unreadable_file",
            exit=Exit.DENIED,
        ) from error
    return parse(raw, str(file))


def parse(raw: bytes | str, name: str) -> Text:
    """The same for text that is at hand. `name` tells the format, else the text does."""
    if len(raw) > LONGEST:
        raise refused(name, [Fault(None, "", f"it is longer than {LONGEST} bytes")])
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise refused(name, [Fault(line, "", "it is not UTF-8 text")]) from None
    kind = _format(name, raw)
    if kind == "toml":
        return _toml(raw, name)
    if kind == "json":
        return _json(raw, name)
    return _yaml(raw, name)


def _format(name: str, text: str) -> Format:
    suffix = File(name).suffix.lower()
    by_suffix: dict[str, Format] = {
        ".toml": "toml",
        ".json": "json",
        ".jsonc": "json",
        ".yaml": "yaml",
        ".yml": "yaml",
    }
    if (named := by_suffix.get(suffix)) is not None:
        return named
    first = next((line for line in text.splitlines() if not _COMMENT.fullmatch(line)), "").strip()
    if first.startswith(("{", "//", "/*")):
        return "json"
    return "toml" if _TOML_LINE.fullmatch(first) else "yaml"


# ---------------------------------------------------------------- YAML


def _yaml(text: str, name: str) -> Text:
    import yaml  # noqa: PLC0415 - 30 ms, for what reads files only

    loader_type: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents: list[Any] = []
    walk: _Nodes | None = None
    lines: dict[Path, int] = {}
    try:
        loader = loader_type(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                walk = _Nodes(loader, name)
                documents.append(walk.value(node, ()))
                lines = lines or walk.lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"this is no YAML: {error.problem or error.context or 'it cannot be read'}"
        raise refused(name, [Fault(mark.line + 1 if mark else None, "", what)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        what = f"this is no YAML: {(str(error).splitlines() or ['it cannot be read'])[0]}"
        raise refused(name, [Fault(None, "", what)]) from None
    return Text(name, "yaml", tuple(documents), lines)


_YAML: Final = "tag:yaml.org,2002:"


class _Nodes:
    """From YAML's nodes to values, with a note of where each stands."""

    def __init__(self, loader: Any, name: str) -> None:  # noqa: ANN401 - PyYAML is untyped
        self.lines: dict[Path, int] = {}
        self._loader = loader
        self._name = name
        self._count = 0

    def value(self, node: Any, path: Path) -> Any:  # noqa: ANN401 - any YAML value
        self._count += 1
        if self._count > MOST or len(path) > DEEPEST:
            self._refuse(node, path[:3], "this is too big or too deep, aliases counted each time")
        self.lines.setdefault(path, node.start_mark.line + 1)
        container = {"mapping": "map", "sequence": "seq"}.get(node.id)
        if node.tag != f"{_YAML}{container}" and (container or not node.tag.startswith(_YAML)):
            self._refuse(node, path, f"the tag {node.tag} is not known here")
        if container == "map":
            return self._mapping(node, path)
        if container == "seq":
            items: list[Any] = node.value
            return [self.value(item, (*path, at)) for at, item in enumerate(items)]
        try:
            return self._loader.construct_object(node)
        except ValueError:
            return self._refuse(node, path, "this is no date or number that can be")

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_YAML}merge":
                merged = {**self._merged(value_node, path), **merged}
                continue
            if key_node.tag != f"{_YAML}str":
                spelling = getattr(key_node, "value", "")
                shown = f'; put it in quotes: "{spelling}"' if isinstance(spelling, str) else ""
                self._refuse(key_node, path, f"a key must be text{shown}")
            key: str = key_node.value
            here = (*path, key)
            if key in found:
                first = self.lines[here]
                self._refuse(key_node, here, f"the key stands twice, first in line {first}")
            self.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here)
        return {**merged, **found}

    def _merged(self, node: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401
        """What `<<:` brings in: a mapping, or the first of several that has a key."""
        value = self.value(node, path)
        parts = cast("list[Any]", value) if isinstance(value, list) else [value]
        merged: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, dict):
                self._refuse(node, path, "only a mapping can be merged with <<")
            merged = {**part, **merged}
        return merged

    def _refuse(self, node: Any, path: Path, what: str) -> NoReturn:  # noqa: ANN401
        fault = Fault(node.start_mark.line + 1, spelled(path), what)
        raise refused(self._name, [fault])


# ---------------------------------------------------------------- TOML


def _toml(text: str, name: str) -> Text:
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        said = re.sub(r"\s*\(at .*\)$", "", str(error))
        line = re.search(r"at line (\d+)", str(error))
        end = text.count("\n") + 1
        fault = Fault(int(line[1]) if line else end, "", f"this is no TOML: {said}")
        raise refused(name, [fault]) from None
    return Text(name, "toml", (tree,), dict(_toml_lines(text)))


_HEADER = re.compile(r"\s*\[\[?(.+?)\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*\S+?)*)\s*=")


def _toml_lines(text: str) -> Iterator[tuple[Path, int]]:
    """The lines of headers and keys. tomllib keeps none, so they are searched for."""
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.fullmatch(line)) and (keys := _toml_keys(header[1])):
            table = keys
            yield table, number
        elif (entry := _ENTRY.match(line)) and (keys := _toml_keys(entry[1])):
            yield (*table, *keys), number


def _toml_keys(dotted: str) -> Path:
    """The keys of a dotted name."""
    try:
        tree: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(tree, dict):
        key, tree = next(iter(cast("dict[str, Any]", tree).items()))
        keys.append(key)
    return tuple(keys)


# ---------------------------------------------------------------- JSON


class _Twice(ValueError):
    """A key that stands twice in one object."""


def _json(text: str, name: str) -> Text:
    plain = _without_comments(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise _Twice(twice)
        return found

    try:
        tree = json.loads(plain, object_pairs_hook=unique)
    except _Twice as error:
        fault = Fault(_last_line(plain, str(error)), str(error), "the key stands twice")
        raise refused(name, [fault]) from None
    except json.JSONDecodeError as error:
        fault = Fault(error.lineno, "", f"this is no JSON: {error.msg}")
        raise refused(name, [fault]) from None
    except (ValueError, RecursionError):
        raise refused(name, [Fault(None, "", "a number is too long or this is too deep")]) from None
    return Text(name, "json", (tree,), _json_lines(plain))


def _last_line(text: str, key: str) -> int | None:
    places = [found.start() for found in re.finditer(re.escape(json.dumps(key)), text)]
    return text.count("\n", 0, places[-1]) + 1 if places else None


def _json_lines(text: str) -> dict[Path, int]:
    """Lines by path: JSON is YAML as well, but for white space. None where it is not."""
    try:
        return dict(_yaml(text.replace("\t", " "), "").lines)
    except GatewayError:
        return {}


_BLANKED = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def _without_comments(text: str) -> str:
    """JSON from the JSON that editors keep: without comments and last commas, lines as before."""

    def blank(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == '"' else re.sub(r"[^\n]", " ", found[0])

    def last_comma(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == '"' else " "

    strings_and = r'"(?:[^"\\\n]|\\.)*"|'
    text = re.sub(strings_and + _BLANKED.pattern, blank, text, flags=re.DOTALL)
    return re.sub(strings_and + r",(?=\s*[}\]])", last_comma, text, flags=re.DOTALL)

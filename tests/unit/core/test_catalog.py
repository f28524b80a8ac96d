"""Entries, merged lists and their places, and URI templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcpgw.core import catalog
from mcpgw.core.catalog import PROMPTS, RESOURCES, TEMPLATES, TOOLS, Place, Shelf
from tests.doubles import plain, raw, tool


def shelf(server: str, *natives: str, kind: catalog.ListKind = TOOLS) -> Shelf:
    items = [raw({kind.naming: native}) for native in natives]
    found, warnings = catalog.entries(items, kind, server, modern=True)
    assert not warnings
    return Shelf(server, found)


def test_an_entry_keeps_its_bytes_but_for_the_name() -> None:
    body = Raw(b'{"a":1e400,"name":"n","z":{"name":"inner"},"b":"\\ud83d"}')
    (entry,), warnings = catalog.entries([body], PROMPTS, "s", modern=True)
    assert not warnings
    assert (entry.native, entry.public) == ("n", "s__n")
    assert bytes(entry.body) == bytes(body)
    assert bytes(entry.renamed) == bytes(body).replace(b'"name":"n"', b'"name":"s__n"')
    assert bytes(entry.native_json) == b'"n"'


def test_what_cannot_be_an_entry_is_dropped_with_a_warning() -> None:
    items = [raw(1), raw({}), raw({"name": ""}), raw({"name": 1}), raw({"name": "a"})]
    found, warnings = catalog.entries([*items, raw({"name": "a", "x": 1})], TOOLS, "s", modern=True)
    assert [plain(entry.body) for entry in found] == [{"name": "a"}]
    assert len(warnings) == 5


def test_mirrored_arguments_are_found_and_wrong_ones_drop_a_modern_servers_tool() -> None:
    def marked(kind: str) -> Raw:
        argument = {"type": kind, "x-mcp-header": "Region"}
        return tool("t", inputSchema={"type": "object", "properties": {"r": argument}})

    (good,), _ = catalog.entries([marked("string")], TOOLS, "s", modern=True)
    assert [param.header for param in good.params] == ["mcp-param-region"]
    assert catalog.entries([marked("object")], TOOLS, "s", modern=True)[0] == []
    (kept,), _ = catalog.entries([marked("object")], TOOLS, "s", modern=False)
    assert kept.params == ()


def test_names_in_a_merged_list() -> None:
    shelves = [shelf("a", "x"), shelf("b", "x", "y")]
    assert [one.name for one in catalog.merged(shelves, TOOLS, native=False)] == [
        "a__x",
        "b__x",
        "b__y",
    ]
    assert [one.name for one in catalog.merged(shelves[1:], TOOLS, native=True)] == ["x", "y"]


@pytest.mark.parametrize("kind", [RESOURCES, TEMPLATES])
def test_uris_stay_while_they_mean_one_server(kind: catalog.ListKind) -> None:
    shelves = [shelf("a", "x:1", "mcpgw:b/x:2", kind=kind), shelf("b", "x:1", "x:2", kind=kind)]
    placed = catalog.merged(shelves, kind, native=False)
    assert [one.name for one in placed] == [
        "mcpgw:a/x:1",
        "mcpgw:a/mcpgw:b/x:2",
        "mcpgw:b/x:1",
        "x:2",
    ]
    assert [plain(one.body)[kind.naming] for one in placed] == [one.name for one in placed]


servers = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.sampled_from(["t0", "t1", "t2", "t3", "t4"]), unique=True),
    max_size=4,
)


def _shelves(content: dict[str, list[str]]) -> list[Shelf]:
    return [shelf(name, *content[name]) for name in sorted(content)]


@given(servers, st.integers(1, 4))
def test_walking_by_places_visits_everything_once(content: dict[str, list[str]], size: int) -> None:
    shelves = _shelves(content)
    placed = catalog.merged(shelves, TOOLS, native=False)
    seen: list[str] = []
    start = 0
    while start < len(placed):
        chunk = placed[start : start + size]
        seen.extend(one.name for one in chunk)
        start = catalog.start_of(catalog.place_of(chunk[-1], shelves), shelves, placed)
    assert seen == [one.name for one in placed]


@given(servers, servers, st.data())
def test_what_was_not_there_changes_no_place(
    content: dict[str, list[str]], other: dict[str, list[str]], data: st.DataObject
) -> None:
    """Whole servers come and go: what stays and lies behind the place is still to come."""
    shelves = _shelves(content)
    placed = catalog.merged(shelves, TOOLS, native=False)
    if not placed:
        return
    at = data.draw(st.integers(0, len(placed) - 1))
    place = catalog.place_of(placed[at], shelves)
    stays = {name: tools for name, tools in content.items() if data.draw(st.booleans())}
    later = _shelves({**{k: v for k, v in other.items() if k not in content}, **stays})
    again = catalog.merged(later, TOOLS, native=False)
    rest = [one.name for one in again[catalog.start_of(place, later, again) :]]
    expected = [one.name for one in placed[at + 1 :] if one.name.split("__")[0] in stays]
    assert [name for name in rest if name in {one.name for one in placed}] == expected


@given(servers, st.text("abcdefg", min_size=1, max_size=2), st.integers(0, 99), st.text(max_size=3))
def test_any_place_leads_somewhere(
    content: dict[str, list[str]], server: str, index: int, native: str
) -> None:
    shelves = _shelves(content)
    placed = catalog.merged(shelves, TOOLS, native=False)
    assert 0 <= catalog.start_of(Place(server, index, native), shelves, placed) <= len(placed)


@pytest.mark.parametrize(
    ("template", "uri", "fits"),
    [
        ("file:///{path}", "file:///a/b", True),
        ("file:///{path}", "file://a", False),
        ("x:{a}/mid/{b}", "x:1/mid/2", True),
        ("x:{a}/mid/{b}", "x:1/2", False),
        ("x:{a}.txt", "x:1.txt", True),
        ("x:{a}.txt", "x:1.txt2", False),
        ("x:ab{c}ab", "x:ab", False),
        ("x:1{?q,r}", "x:1?q=2", True),
        ("x:1{?q,r}", "x:1", True),
        ("x:1", "x:1", True),
        ("x:1", "x:12", False),
        ("x:{broken", "x:{broken", False),
        ("{a}" * 33, "x", False),
    ],
)
def test_templates(template: str, uri: str, fits: bool) -> None:
    assert catalog.matches(template, uri) is fits


@pytest.mark.parametrize(
    ("content", "strings"),
    [(b'["a",1,null,"b"]', ["a", "b"]), (b"{}", []), (b"1", []), (b"[]", [])],
)
def test_texts(content: bytes, strings: list[str]) -> None:
    assert catalog.texts(Raw(content)) == strings
    assert catalog.texts(None) == []

"""Names: what is legal, that no two things share one, and that URIs come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgw.core import naming

prefixes = st.from_regex(naming.NAME, fullmatch=True).filter(
    lambda name: naming.check_name(name) is None
)
natives = st.text(min_size=1, max_size=140)


@pytest.mark.parametrize("name", ["a", "A9", "github", "my-server_2", "x" * 32, "9-"])
def test_good_names(name: str) -> None:
    assert naming.check_name(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("x" * 33, "32"),
        ("-a", "begins"),
        ("_a", "begins"),
        ("a.b", "may only"),
        ("ä", "may only"),
        ("a\n", "may only"),
        ("a__b", "two underscores"),
        ("a_", "ends in"),
    ],
)
def test_bad_names_say_why(name: str, why: str) -> None:
    reason = naming.check_name(name)
    assert reason is not None
    assert why in reason


def test_legal_names_are_plain() -> None:
    assert naming.public_name("github", "create_issue") == "github__create_issue"
    assert naming.public_name("a", "_b") == "a___b"


def test_long_and_foreign_names_are_cut_and_stay_apart() -> None:
    one = naming.public_name("github", "x" * 70 + "1")
    two = naming.public_name("github", "x" * 70 + "2")
    assert one != two
    assert one.startswith("github__xxx")
    assert len(one) == 64
    assert naming.public_name("s", "a.b") != naming.public_name("s", "a/b")
    assert naming.public_name("s", "a.b") == "s__a_b--" + naming.public_name("s", "a.b")[-12:]


def test_a_native_name_cannot_take_the_name_of_a_cut_one() -> None:
    cut = naming.public_name("s", "a.b")
    assert naming.public_name("s", cut.removeprefix("s__")) != cut


@given(prefixes, natives)
def test_public_names_are_legal_and_stable(prefix: str, native: str) -> None:
    name = naming.public_name(prefix, native)
    assert 0 < len(name) <= 64
    assert name.isascii()
    assert name.replace("_", "").replace("-", "").isalnum()
    assert name == naming.public_name(prefix, native)
    assert name.partition("__")[0] == prefix


@given(st.sets(st.tuples(prefixes, natives), max_size=30))
def test_no_two_pairs_share_a_name(pairs: set[tuple[str, str]]) -> None:
    assert len({naming.public_name(*pair) for pair in pairs}) == len(pairs)


@given(prefixes, st.one_of(st.text(), st.text().map("ui://".__add__)))
def test_uris_come_back(prefix: str, uri: str) -> None:
    public = naming.public_uri(prefix, uri)
    assert naming.split_uri(public) == (prefix, uri)
    assert not naming.may_stay(public)
    assert naming.may_stay(uri) is not uri.startswith(("mcpgw:", "ui://"))


def test_apps_keep_the_scheme_that_hosts_know_them_by() -> None:
    assert naming.public_uri("a", "ui://clock/app.html") == "ui://mcpgw/a/clock/app.html"
    assert naming.public_uri("a", "ui://mcpgw/b/x") == "ui://mcpgw/a/mcpgw/b/x"
    assert naming.split_uri("ui://clock/app.html") is None
    assert naming.split_uri("ui://mcpgw/a") is None


@pytest.mark.parametrize("uri", ["file:///a", "mcpgw:", "mcpgw:abc", "mcpgw:a__b/x", "mcpgw:/x"])
def test_other_uris_name_no_server(uri: str) -> None:
    assert naming.split_uri(uri) is None

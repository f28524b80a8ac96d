"""Tasks: what servers offer, and the ids in what is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from mcpgw.core import tasks
from mcpgw.core.tasks import Name
from tests.doubles import info, obj, plain

ALL: Any = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
RELATED = "io.modelcontextprotocol/related-task"


SERVERS: Any = [
    (False, "2025-11-25", {"tasks": ALL}, True, False, True),
    (False, "2025-11-25", {"tasks": {"list": {}}}, True, False, False),
    (False, "2025-11-25", {"tasks": {"requests": {"tools": {}}}}, True, False, False),
    (False, "2025-11-25", {"tasks": {"requests": 1}}, True, False, False),
    (False, "2025-11-25", {"tasks": None}, False, False, False),
    (False, "2025-11-25", {}, False, False, False),
    (False, "2025-06-18", {"tasks": ALL}, False, False, False),
    (True, "2026-07-28", {"tasks": ALL}, False, False, False),
    (True, "2026-07-28", {"extensions": {tasks.extensions.TASKS: {}}}, False, True, False),
    (False, "2025-11-25", {"extensions": {tasks.extensions.TASKS: {}}}, False, False, False),
]


@pytest.mark.parametrize(
    ("modern", "revision", "declared", "core", "extension", "augments"), SERVERS
)
def test_which_tasks_a_server_has(
    modern: bool, revision: str, declared: Any, core: bool, extension: bool, augments: bool
) -> None:
    here = info(modern=modern, revision=revision, capabilities=declared)
    assert tasks.offers(here, core=True) is core
    assert tasks.offers(here, core=False) is extension
    assert tasks.augments(here) is augments


def test_several_servers_have_what_any_of_them_has() -> None:
    one = obj(tasks={"list": {}})
    two = obj(tasks={"cancel": {}, "requests": {"tools": {"call": {"x": 1}}}})
    assert plain(tasks.merged([one, two])) == ALL
    assert plain(tasks.merged([one])) == {"list": {}}
    assert tasks.merged([obj(tasks={})]) is None
    assert tasks.merged([]) is None


def test_a_name_survives_the_seal() -> None:
    name = Name("id-github", "tööl\x00", "7\ud83d"[:1])
    assert tasks.decode(tasks.encode(name)) == name


def test_the_task_that_a_message_is_about_is_renamed_and_nothing_else() -> None:
    meta = Raw(b'{"x": 1e400,"' + RELATED.encode() + b'": {"taskId":"7","y":null}}')
    params = {"message": Raw(b'"hi"'), "_meta": meta}
    told = tasks.related(params, {"7": "handle"}.get)
    assert bytes(told["message"]) == b'"hi"'
    assert bytes(told["_meta"]) == (
        b'{"x":1e400,"' + RELATED.encode() + b'":{"taskId":"handle","y":null}}'
    )
    assert plain(params["_meta"])[RELATED]["taskId"] == "7"


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {"x": RELATED},
        {RELATED: None},
        {RELATED: {}},
        {RELATED: {"taskId": 7}},
        {RELATED: {"taskId": "8"}},
        [RELATED],
    ],
)
def test_what_names_no_known_task_stays_what_it_is(meta: Any) -> None:
    params = obj(x=1) if meta is None else obj(x=1, _meta=meta)
    assert tasks.related(params, {"7": "handle"}.get) is params

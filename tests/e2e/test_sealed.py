"""What the gateway seals and clients carry: whatever is not exactly theirs looks unknown."""

from __future__ import annotations

import base64
import functools
import json
import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from tests.children import ROOT, module
from tests.conformance import upstream
from tests.e2e import wire
from tests.e2e.gateway import House, child
from tests.e2e.held import Legacy, daemon, free_port
from tests.e2e.wire import META, Answer, fields, send, soon

Of: TypeAlias = tuple[str, str, dict[str, Any]]
"""A call: its method, the name of what is called, and its arguments."""

ECHO = str(ROOT / "tests" / "servers" / "echo_stdio.py")
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}}
ACCEPTED = {"action": "accept", "content": {"name": "Ada", "ok": True}}
PARKED: Of = ("tools/call", "parks__ask", {"method": "elicitation/create"})
OWN: Of = ("tools/call", "states__test_input_required_result_request_state", {})
CALLS: dict[str, Of] = {"parked": PARKED, "modern": OWN}


@dataclass
class Home:
    house: House
    alice: str
    bob: str
    url: str = ""

    def ask(self, key: str, method: str, **params: Any) -> Answer:
        """A modern request with the client's capabilities."""
        name = params.get("name", params.get("uri"))
        headers = fields(key, mcp_protocol_version=wire.MODERN, mcp_method=method)
        if name is not None:
            headers["mcp-name"] = name
        meta = {META + "protocolVersion": wire.MODERN, META + "clientCapabilities": CAPABILITIES}
        told = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        return send(self.url, body=json.dumps(told).encode(), headers=headers)

    def call(self, of: Of, key: str | None = None, **retry: Any) -> Answer:
        method, name, arguments = of
        return self.ask(key or self.alice, method, name=name, arguments=arguments, **retry)

    def begun(self, of: Of) -> tuple[str, dict[str, Any]]:
        """The state of a call that needs input, and answers to what it asks."""
        result = self.call(of).result
        assert result["resultType"] == "input_required"
        return result["requestState"], dict.fromkeys(result["inputRequests"], ACCEPTED)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[Home]:
    """A server whose calls are parked, and one whose own state passes through."""
    house = House(tmp_path_factory.mktemp("sealed"))
    with child(module("tests.conformance.upstream"), upstream.READY) as (line, _):
        house.done("server", "add", "states", "--url", line.removeprefix(upstream.READY).strip())
        house.done("server", "add", "parks", "--", sys.executable, ECHO)
        yield Home(house, house.key("alice", "*"), house.key("bob", "*"))


@pytest.fixture
def home(house: Home) -> Generator[Home]:
    with daemon(house.house, core__catalog__PAGE=3) as (url, _):
        yield Home(house.house, house.alice, house.bob, url)


def unknown(home: Home, of: Of, key: str | None = None) -> Any:
    """What a state gets that never was."""
    error = home.call(of, key, requestState="bm90aGluZw", inputResponses={}).error
    assert error["code"] == -32602
    return error


def failed(home: Home, of: Of, state: str) -> bool:
    return b"error" in home.call(of, requestState=state).body


def edited(token: str) -> list[str]:
    """The token with one character changed, cut short, and made longer."""
    places = (0, len(token) // 2, len(token) - 2)
    changed = [token[:i] + ("B" if token[i] == "A" else "A") + token[i + 1 :] for i in places]
    return [*changed, token[:-1], token[: len(token) // 2], token + "A", token + "=", token + "\n"]


@pytest.mark.parametrize("kind", CALLS)
def test_a_state_is_good_for_its_call_alone(home: Home, kind: str) -> None:
    of = CALLS[kind]
    method, name, arguments = of
    state, answers = home.begun(of)
    nothing = unknown(home, of)
    other = (method, name, {**arguments, "more": 1})

    for one in edited(state):
        assert home.call(of, requestState=one, inputResponses=answers).error == nothing
    assert home.call(other, requestState=state, inputResponses=answers).error == nothing
    for elsewhere in CALLS.values():
        if elsewhere is not of:
            refused = home.call(elsewhere, requestState=state, inputResponses=answers).error
            assert refused == nothing
    theirs = home.call(of, home.bob, requestState=state, inputResponses=answers).error
    assert theirs == unknown(home, of, home.bob) == nothing

    # All this has not used it up.
    done = home.call(of, requestState=state, inputResponses=answers)
    assert done.result["resultType"] == "complete"


def test_a_parked_call_goes_on_once(home: Home) -> None:
    state, answers = home.begun(PARKED)
    done = home.call(PARKED, requestState=state, inputResponses=answers)
    assert json.loads(done.text) == ACCEPTED

    again = home.call(PARKED, requestState=state, inputResponses=answers)

    assert again.error == unknown(home, PARKED)  # a second run would ask again


def test_a_prompt_has_no_use_for_a_tools_state(home: Home) -> None:
    state, answers = home.begun(OWN)
    asked: dict[str, Any] = {"name": "states__test_input_required_result_prompt", "arguments": {}}
    refused = home.ask(
        home.alice, "prompts/get", requestState=state, inputResponses=answers, **asked
    )
    assert refused.error["code"] == -32602
    assert "unknown or has expired" in refused.error["message"]


def test_a_cursor_is_good_for_its_list_alone(home: Home) -> None:
    def page(key: str, cursor: str, method: str = "tools/list", path: str = "/mcp") -> Answer:
        return wire.ask(home.url, key, method, path, cursor=cursor)

    first = wire.ask(home.url, home.alice, "tools/list").result
    cursor = first["nextCursor"]
    nothing = page(home.alice, "bm90aGluZw").error
    assert nothing["code"] == -32602

    for one in edited(cursor):
        assert page(home.alice, one).error == nothing
    assert page(home.bob, cursor).error == nothing
    assert page(home.alice, cursor, path="/mcp/states").error == nothing
    assert page(home.alice, cursor, "prompts/list").error == nothing
    state, _ = home.begun(OWN)
    assert page(home.alice, state).error == nothing
    refused = home.call(OWN, requestState=cursor, inputResponses={}).error
    assert refused == unknown(home, OWN)

    second = page(home.alice, cursor).result["tools"]
    names = {tool["name"] for tool in first["tools"]}
    assert len(second) == 3
    assert names.isdisjoint(tool["name"] for tool in second)


def test_a_session_is_its_keys_alone(home: Home) -> None:
    mine = Legacy(home.url, home.alice)
    assert mine.ask("ping").status == 200

    def gone(id: str, key: str, path: str = "/mcp") -> Answer:
        session = Legacy(home.url, key, path)
        session.id = id
        return session.ask("ping")

    nothing = gone("11223344-" + "a" * 32, home.alice)
    assert nothing.status == 404
    for id in (*edited(mine.id)[:-1], mine.id.upper()):
        assert (found := gone(id, home.alice)).status == 404
        assert found.body == nothing.body
    for key, path in ((home.bob, "/mcp"), (home.alice, "/mcp/parks")):
        found = gone(mine.id, key, path)
        assert (found.status, found.body) == (nothing.status, nothing.body)
    assert mine.ask("ping").status == 200


def test_a_session_id_authenticates_nobody(home: Home) -> None:
    mine = Legacy(home.url, home.alice)
    body = wire.legacy("ping")
    for key in (None, mine.id):
        headers = fields(key, mcp_session_id=mine.id)
        assert send(home.url, body=body, headers=headers).status == 401


def test_all_of_it_expires(house: Home) -> None:
    short = daemon(
        house.house,
        core__mrtr__PARKED_TTL=1.0,
        core__mrtr__STATE_TTL=1.0,
        relay__lists__CURSOR_TTL=1.0,
        core__catalog__PAGE=3,
    )
    with short as (url, _):
        home = Home(house.house, house.alice, house.bob, url)
        cursor = wire.ask(url, home.alice, "tools/list").result["nextCursor"]
        states = [(of, *home.begun(of)) for of in CALLS.values()]

        soon(lambda: b"error" in wire.ask(url, home.alice, "tools/list", cursor=cursor).body)
        nothing = wire.ask(url, home.alice, "tools/list", cursor="bm90aGluZw").error
        assert wire.ask(url, home.alice, "tools/list", cursor=cursor).error == nothing
        for of, state, answers in states:
            soon(functools.partial(failed, home, of, state))
            refused = home.call(of, requestState=state, inputResponses=answers).error
            assert refused == unknown(home, of)


def test_a_restart_ends_parked_calls_and_nothing_else(house: Home) -> None:
    port = free_port()
    with daemon(house.house, port, core__catalog__PAGE=3) as (url, process):
        home = Home(house.house, house.alice, house.bob, url)
        parked, answers = home.begun(PARKED)
        own, own_answers = home.begun(OWN)
        cursor = wire.ask(url, home.alice, "tools/list").result["nextCursor"]
        assert process.end() == 0
    with daemon(house.house, port, core__catalog__PAGE=3) as (url, _):
        gone = home.call(PARKED, requestState=parked, inputResponses=answers).error
        assert gone == unknown(home, PARKED)
        assert "start the call again" in gone["message"]
        done = home.call(OWN, requestState=own, inputResponses=own_answers)
        assert done.result["resultType"] == "complete"
        assert len(wire.ask(url, home.alice, "tools/list", cursor=cursor).result["tools"]) == 3
        # And starting again works.
        state, fresh = home.begun(PARKED)
        assert (
            json.loads(home.call(PARKED, requestState=state, inputResponses=fresh).text) == ACCEPTED
        )


def test_nothing_in_a_token_can_be_read(home: Home) -> None:
    """Server ids, native names and places in lists are nobody's business."""
    state, _ = home.begun(PARKED)
    cursor = wire.ask(home.url, home.alice, "tools/list").result["nextCursor"]
    for token in (state, cursor):
        content = base64.urlsafe_b64decode(token + "==")
        assert not any(word in content for word in (b"parks", b"states", b"server", b"echo"))

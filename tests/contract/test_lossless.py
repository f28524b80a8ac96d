"""What crosses the gateway arrives as it was sent: all bytes except white space between tokens.

Every pair of transports and revisions is tried with the same conversation: a call, progress and log
notes, a question with its answer, and a result or an error, each with whatever JSON allows.

What the gateway may change, and nothing else:

- HOP: keys of `_meta` that belong to one hop. Taken off where a call comes in, minted where it goes
  out; `traceparent`, `tracestate` and `baggage` may be added from header fields of that name.
- RESULT: members of results that one era has and the other has not.
- SERVER_INFO in a result's `_meta`, and `_meta` itself where it holds nothing else.
- `name` of lists and calls, where the endpoint serves more than one server; `uri` likewise.
- progressToken of a progress note, ids, and what stands beside `params`, `result` and `error`.
- `inputResponses` and `requestState` of the second half of a call.
- Names of members at the levels that decide (params, `_meta`, results, notes, errors): the name is
  the same string, though its escapes may be written in another way, and of a name that is there
  twice the last value counts, so that one message means the same on both sides.
- `structuredContent` that is no object is taken off for legacy clients, which cannot express it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping

import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tests import rawclient
from tests.contract.house import House, looping, serving
from tests.jsontext import items, members, obj, squeezed
from tests.rawclient import Heard, RawClient
from tests.servers import raw
from tests.servers.raw import RawServer, Talk, playing

PREFIX = "io.modelcontextprotocol/"
HOP = {
    PREFIX + "protocolVersion",
    PREFIX + "clientCapabilities",
    PREFIX + "clientInfo",
    PREFIX + "logLevel",
    PREFIX + "subscriptionId",
    "progressToken",
}
SERVER_INFO = PREFIX + "serverInfo"
RESULT = {"resultType", "ttlMs", "cacheScope"}
TRACE = {"traceparent", "tracestate", "baggage"}
RESERVED = HOP | RESULT | TRACE | {SERVER_INFO}
METHODS = ("tools/call", "prompts/get", "resources/read", "completion/complete")

# ---------------------------------------------------------------- any JSON, as text

FRAGMENTS = (
    b"a", b"Z9", b" ", b"{}[]:,", b"\\u0061", b"\\u0000", b"\\ud83d", b"\\uDE00", b"\\ud83d\\ude00",
    b"\\/", b"/", b"\\\\", b'\\"', b"\\n\\r\\t", b"\\b\\f", b"\\u2028", "\u2028\u2029".encode(),
    "\N{GRINNING FACE}".encode(), "é".encode(), b"\x7f", "\ufeff".encode(), b"data: x",
)  # fmt: skip
STRINGS = st.lists(st.sampled_from(FRAGMENTS), max_size=4).map(
    lambda parts: b'"' + b"".join(parts) + b'"'
)
NUMBERS = st.one_of(
    st.sampled_from(
        (
            b"0", b"-0", b"-0.0", b"1.0", b"1e400", b"-1E-400", b"0.1e+1", b"1" * 30,
            b"-" + b"9" * 31, b"18446744073709551616", b"9007199254740993", b"1" * 5000,
            b"0.10000000000000000000000000001", b"1.7976931348623157e309",
        )
    ),
    st.integers().map(lambda n: b"%d" % n),
)  # fmt: skip
SCALARS = st.one_of(st.sampled_from((b"null", b"false", b"true")), NUMBERS, STRINGS)
SPACES = st.sampled_from((b"", b"", b" ", b"\n", b"\r\n\t  "))


def _array(parts: tuple[list[bytes], bytes]) -> bytes:
    values, space = parts
    return b"[" + space + (space + b"," + space).join(values) + space + b"]"


def _object(parts: tuple[list[tuple[bytes, bytes]], bytes]) -> bytes:
    pairs, space = parts
    return obj(*pairs, space=space)


def _nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.tuples(st.lists(inner, max_size=3), SPACES).map(_array),
        # The same name may come twice: below the levels that decide, both stay.
        st.tuples(st.lists(st.tuples(STRINGS, inner), max_size=3), SPACES).map(_object),
    )


VALUES = st.recursive(SCALARS, _nested, max_leaves=8)
KEYS = STRINGS.filter(lambda token: json.loads(token) not in RESERVED)
DEEP = b'{"a":' * 300 + b"[" * 300 + b"]" * 300 + b"}" * 300
LONG = b'"' + b"x\\u0000" * 4_000 + b'"'


class Case(Struct, frozen=True):
    """One conversation: three values and a name that stand in every place that takes any.

    quiet: nothing comes before the answer, so that it may be JSON in one piece. asks: the server
    wants input first, where the method may.
    """

    a: bytes
    b: bytes
    c: bytes
    key: bytes
    space: bytes = b""
    asks: bool = False
    fails: bool = False
    quiet: bool = False
    method: str = "tools/call"

    def __repr__(self) -> str:
        values = [getattr(self, name) for name in self.__struct_fields__]
        return f"Case{tuple(v[:100] if isinstance(v, bytes) else v for v in values)}"

    def extra(self, *pairs: tuple[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """Members that no schema knows, behind those that one does."""
        return (*pairs, (self.key, self.b), (b'"later/x"', self.c), (b'""', b"null"))

    def object(self, *pairs: tuple[bytes, bytes]) -> bytes:
        return obj(*self.extra(*pairs), space=self.space)

    @property
    def meta(self) -> tuple[tuple[bytes, bytes], ...]:
        traced = ((b'"traceparent"', self.text), (b'"tracestate"', self.b))
        return self.extra((b'"com.example/\\u0061"', self.a), *traced)

    @property
    def asking(self) -> bool:
        return self.asks and self.method != "completion/complete"

    def params(self, prefix: str) -> tuple[tuple[bytes, bytes], ...]:
        """prefix: what stands before names at the client's endpoint."""
        arguments = (b'"arguments"', self.a)
        if self.method == "tools/call":
            return self.extra((b'"name"', b'"%bt"' % prefix.encode()), arguments)
        if self.method == "prompts/get":
            return self.extra(arguments, (b'"name"', b'"%bp"' % prefix.encode()))
        if self.method == "resources/read":
            return self.extra((b'"uri"', b'"x:1"'))
        reference = ((b'"type"', b'"ref/prompt"'), (b'"name"', b'"%bp"' % prefix.encode()))
        argument = self.object((b'"name"', self.text), (b'"value"', self.text))
        return self.extra((b'"ref"', self.object(*reference)), (b'"argument"', argument))

    def structured(self, *, modern: bool) -> bytes:
        """modern: the client is of the revision that allows any value."""
        return self.a if modern else self.object((b'"a"', self.a))

    def result(self, *, modern: bool) -> bytes:
        known = ((b'"type"', b'"future"'), (b'"annotations"', b'{"readOnlyHint":false}'))
        content = b"[" + self.space + self.object(*known) + b"," + self.a + self.space + b"]"
        return self.object(
            (b'"content"', content),
            (b'"contents"', b"[" + self.object((b'"uri"', b'"x:1"')) + b"]"),
            (b'"structuredContent"', self.structured(modern=modern)),
            (b'"isError"', b"false"),
            (b'"_meta"', obj(*self.meta, space=self.space)),
        )

    @property
    def error(self) -> bytes:
        return self.object((b'"code"', b"-1234"), (b'"message"', self.text), (b'"data"', self.a))

    @property
    def text(self) -> bytes:
        return self.a if self.a.startswith(b'"') else b'"why\\ud83d"'

    def progress(self, token: bytes) -> bytes:
        known = ((b'"progressToken"', token), (b'"progress"', b"0.1e+1"), (b'"total"', b"1e400"))
        return self.object(*known, (b'"_meta"', obj(*self.meta)))

    @property
    def log(self) -> bytes:
        known = ((b'"level"', b'"error"'), (b'"data"', self.a), (b'"logger"', self.text))
        return self.object(*known, (b'"_meta"', obj(*self.meta)))

    @property
    def question(self) -> bytes:
        schema = self.object((b'"type"', b'"object"'))
        return self.object((b'"message"', self.text), (b'"requestedSchema"', schema))

    @property
    def answer(self) -> bytes:
        return self.object((b'"action"', b'"accept"'), (b'"content"', self.a))


CASES = st.builds(
    Case,
    a=VALUES,
    b=VALUES,
    c=SCALARS,
    key=KEYS,
    space=SPACES,
    asks=st.booleans(),
    fails=st.booleans(),
    quiet=st.booleans(),
    method=st.sampled_from(METHODS),
)
BIG = Case(DEEP, LONG, b"1e400", b'"\\ud83d"', b"\r\n")

# ---------------------------------------------------------------- the conversation


class Player:
    """The server's part: what it was asked and answered."""

    def __init__(self, case: Case, *, modern: bool) -> None:
        self.case = case
        self.modern = modern  # the client
        self.params: list[bytes] = []
        self.answers: list[bytes] = []

    async def __call__(self, talk: Talk) -> None:
        case = self.case
        self.params.append(talk.params)
        if not case.quiet:
            assert talk.token is not None
            await talk.note(b"notifications/progress", case.progress(talk.token))
            await talk.note(b"notifications/message", case.log)
        if case.asking and not await self._asked(talk):
            return
        if case.fails:
            await talk.error(case.error, case.space)
        elif talk.modern:
            result = _pairs(case.result(modern=self.modern))
            kind = (b'"resultType"', b'"complete"')
            await talk.result(obj(kind, *result, space=case.space), case.space)
        else:
            await talk.result(case.result(modern=self.modern), case.space)

    async def _asked(self, talk: Talk) -> bool:
        """Whether the question has been answered."""
        case = self.case
        if not talk.modern:
            told = members(await talk.ask(b"elicitation/create", case.question))
            self.answers.append(told["result"])
            return True
        given = members(talk.params).get("inputResponses")
        if given is not None:
            self.answers += members(given).values()
            return True
        request = obj((b'"method"', b'"elicitation/create"'), (b'"params"', case.question))
        await talk.result(
            obj(
                (b'"resultType"', b'"input_required"'),
                (b'"inputRequests"', obj((case.key, request), space=case.space)),
                (b'"requestState"', b'"s\\u0061"'),
            ),
            case.space,
        )
        return False


def _pairs(text: bytes) -> list[tuple[bytes, bytes]]:
    """An object's members, with names written in the plainest way."""
    return [(json.dumps(name).encode(), value) for name, value in members(text).items()]


def _without(told: Mapping[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {name: value for name, value in told.items() if name not in names}


def _same(sent: Mapping[str, bytes], got: Mapping[str, bytes]) -> None:
    """Equal members in equal order."""
    assert list(got.items()) == list(sent.items())


def _same_with_meta(sent: bytes, got: Mapping[str, bytes], hop: set[str], more: set[str]) -> None:
    """Equal but for `hop` in `_meta` and the members `more`."""
    wanted, told = _without(members(sent), more), _without(got, more)
    _same(
        _without(members(wanted.pop("_meta", b"{}")), hop),
        _without(members(told.pop("_meta", b"{}")), hop),
    )
    _same(wanted, told)


def _check(case: Case, heard: Heard, player: Player) -> None:
    sent = obj(*case.params(""), (b'"_meta"', obj(*case.meta)))
    rounds = 2 if len(player.params) == 2 else 1
    assert len(player.params) == rounds
    for params in player.params:
        told = members(params)
        if "ref" in told:  # a level that decides
            wanted = members(case.params("")[0][1])
            _same(wanted, members(told["ref"]))
            told["ref"] = members(sent)["ref"]
        _same_with_meta(sent, told, HOP, {"inputResponses", "requestState"})
    if rounds == 2:
        assert members(player.params[1])["requestState"] in (b'"sa"', b'"s\\u0061"')
    _check_notes(case, heard, rounds)
    if case.asking:
        assert len(heard.asks) == len(player.answers) == 1
        _same(members(case.question), members(heard.asks[0]))
        _same(members(case.answer), members(player.answers[0]))
    if case.fails:
        _same(members(case.error), members(heard.answer["error"]))
    else:
        _same_with_meta(case.result(modern=player.modern), heard.result, {SERVER_INFO}, RESULT)


def _check_notes(case: Case, heard: Heard, rounds: int) -> None:
    notes = ["notifications/progress", "notifications/message"]
    assert [method for method, _ in heard.notes] == ([] if case.quiet else notes * rounds)
    for method, params in heard.notes:
        if method == notes[0]:
            hop = {"progressToken"}
            _same(_without(members(case.progress(b"0")), hop), _without(members(params), hop))
        else:
            _same(members(case.log), members(params))


# ---------------------------------------------------------------- the pairs


@pytest.fixture(scope="module")
def portal() -> Generator[BlockingPortal]:
    with looping() as found:
        yield found


class Pair(Struct):
    """A client and a server with the gateway between them."""

    portal: BlockingPortal
    house: House
    client: RawClient
    server: RawServer
    prefix: str = ""

    def play(self, case: Case) -> None:
        player = self.server.script = Player(case, modern=self.client.modern)

        async def run() -> Heard:
            return await self.client.call(
                case.method,
                case.params(self.prefix),
                case.meta,
                answering=lambda asked: case.answer,
                space=case.space,
            )

        heard = self.portal.call(run)
        _check(case, heard, player)


@pytest.fixture(scope="module", params=rawclient.KINDS)
def front(request: pytest.FixtureRequest) -> rawclient.Kind:
    return request.param


@pytest.fixture(scope="module", params=raw.KINDS)
def upstream(request: pytest.FixtureRequest) -> raw.Kind:
    return request.param


@pytest.fixture(scope="module")
def pair(portal: BlockingPortal, front: rawclient.Kind, upstream: raw.Kind) -> Generator[Pair]:
    with (
        portal.wrap_async_context_manager(playing(upstream)) as server,
        portal.wrap_async_context_manager(serving(server)) as house,
        portal.wrap_async_context_manager(house.client(front)) as client,
    ):
        yield Pair(portal, house, client, server)


SETTINGS = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@given(case=CASES)
@example(case=BIG)
@example(case=Case(DEEP, LONG, b"-0", b'"\\ud83d"', b"\r\n", asks=True))
@example(case=Case(b'"\\ud83d"', b"[]", b'"\xe2\x80\xa8"', b'"\\udc00"', b"\n", fails=True))
def test_a_conversation_arrives_as_it_was_held(pair: Pair, case: Case) -> None:
    pair.play(case)


@pytest.mark.slow
@settings(SETTINGS, max_examples=200)
@given(case=CASES)
def test_many_conversations_arrive_as_they_were_held(pair: Pair, case: Case) -> None:
    pair.play(case)


@pytest.fixture(scope="module", params=rawclient.KINDS)
def merged(request: pytest.FixtureRequest, portal: BlockingPortal) -> Generator[Pair]:
    """Where names have the server's prefix."""
    with (
        portal.wrap_async_context_manager(playing("http modern")) as server,
        portal.wrap_async_context_manager(serving(server)) as house,
        portal.wrap_async_context_manager(house.client(request.param, one=False)) as client,
    ):
        yield Pair(portal, house, client, server, "one__")


@SETTINGS
@given(case=CASES)
def test_a_conversation_under_another_name_too(merged: Pair, case: Case) -> None:
    merged.play(case)


# ---------------------------------------------------------------- lists

NAMING = {
    "tools/list": "name",
    "prompts/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uriTemplate",
}


def _entries(case: Case, member: str) -> list[bytes]:
    """Two entries that differ in where the member stands that names them."""
    schema = case.object((b'"type"', b'"object"'))
    known = [
        (b'"inputSchema"', schema),
        (b'"outputSchema"', schema),
        (b'"annotations"', b'{"readOnlyHint":false,"x":null}'),
        (b'"icons"', b"[" + case.object((b'"src"', case.text)) + b"]"),
        (b'"_meta"', obj(*case.meta)),
    ]
    name = member.encode()
    return [
        case.object((b'"%b"' % name, b'"x:1"'), *known),
        case.object(*known, (b'"%b"' % name, b'"x:\\u0032"')),
    ]


def _listed(pair: Pair, case: Case, method: str) -> list[bytes]:
    """What a client is shown of these entries."""
    entries = _entries(case, NAMING[method])
    space = case.space
    pair.server.lists[method] = b"[" + space + (space + b"," + space).join(entries) + b"]"

    async def run() -> Heard:
        pair.house.changed()
        return await pair.client.call(method, case.extra(), case.meta, space=space)

    member, _ = raw.LISTS[method]
    return items(pair.portal.call(run).result[member])


@settings(SETTINGS, max_examples=15)
@given(case=CASES)
@example(case=BIG)
@pytest.mark.parametrize("method", list(NAMING))
def test_entries_of_lists_arrive_as_they_were_listed(pair: Pair, method: str, case: Case) -> None:
    wanted = [squeezed(entry) for entry in _entries(case, NAMING[method])]
    assert _listed(pair, case, method) == wanted


@settings(SETTINGS, max_examples=15)
@given(case=CASES)
@example(case=BIG)
@pytest.mark.parametrize("method", list(NAMING))
def test_a_renamed_entry_keeps_all_but_its_name(merged: Pair, method: str, case: Case) -> None:
    member = NAMING[method]
    wanted = [members(entry) for entry in _entries(case, member)]
    got = [members(entry) for entry in _listed(merged, case, method)]
    if member == "name":
        for entry in got:
            assert entry[member].startswith(b'"one__x_')
            entry[member] = b'""'
        for entry in wanted:
            entry[member] = b'""'
    assert [list(one.items()) for one in got] == [list(one.items()) for one in wanted]

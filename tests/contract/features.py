"""What a client can use of a server, as small conversations; and what no gateway can bridge.

A feature runs once for each principal, at the same time and with the same request ids. Where its
row says that a pair is impossible, the conversation asserts the answer that both sides then get.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.contract.clients import PATIENCE, Client, Json, RpcError
from tests.contract.stage import REVISIONS, Journal, Side
from tests.servers import era

LEGACY, MODERN = REVISIONS[:-1], REVISIONS[-1:]


@dataclass(frozen=True)
class Cell:
    """One principal's use of one feature."""

    client: Client
    server: Side
    journal: Journal
    feature: str
    run: str

    @property
    def tag(self) -> str:
        """Unique to this conversation of this principal."""
        return f"{self.run}-{self.feature}-{self.client.who}".replace(" ", "_")

    @property
    def possible(self) -> bool:
        return impossible(self.feature, self.client.revision, self.server.revision) is None


def text(result: Json) -> str:
    return result["content"][0]["text"]


# ---------------------------------------------------------------- lists, calls, reads


async def tools(cell: Cell) -> None:
    client = cell.client
    listed = await client.all("tools/list", "tools")
    assert {tool["name"] for tool in listed} == {client.prefix + name for name in era.NAMES}
    result = await client.call("echo", tag=cell.tag)
    assert text(result) == cell.tag
    assert "isError" not in result
    assert ("resultType" in result) is client.modern


async def prompts(cell: Cell) -> None:
    client = cell.client
    listed = await client.all("prompts/list", "prompts")
    assert client.prefix + "greet" in [prompt["name"] for prompt in listed]
    params = {"name": client.prefix + "greet", "arguments": {"who": cell.tag}}
    got = await client.complete("prompts/get", params)
    assert got["messages"][0]["content"]["text"] == f"Hello {cell.tag}"


async def resources(cell: Cell) -> None:
    client = cell.client
    listed = await client.all("resources/list", "resources")
    assert {era.TEXT, era.BLOB} <= {one["uri"] for one in listed}
    read = await client.complete("resources/read", {"uri": era.TEXT})
    assert read["contents"] == [{"uri": era.TEXT, "mimeType": "text/plain", "text": "words"}]
    read = await client.complete("resources/read", {"uri": era.BLOB})
    assert read["contents"] == [{"uri": era.BLOB, "blob": "AAEC"}]
    assert ("ttlMs" in read) is client.modern


async def templates(cell: Cell) -> None:
    client = cell.client
    listed = await client.all("resources/templates/list", "resourceTemplates")
    assert [one["uriTemplate"] for one in listed] == [era.TEMPLATE]
    uri = f"era://item/{cell.tag}"
    read = await client.complete("resources/read", {"uri": uri})
    assert read["contents"] == [{"uri": uri, "text": cell.tag}]


async def completion(cell: Cell) -> None:
    client = cell.client
    for ref in (
        {"type": "ref/prompt", "name": client.prefix + "greet"},
        {"type": "ref/resource", "uri": era.TEMPLATE},
    ):
        argument = {"name": "who", "value": cell.tag}
        got = await client.request("completion/complete", {"ref": ref, "argument": argument})
        assert got["completion"]["values"] == [cell.tag + "1", cell.tag + "2"]


async def pages(cell: Cell) -> None:
    """Every page of a server, in its order."""
    client = cell.client
    listed = await client.all("tools/list", "tools")
    assert [tool["name"] for tool in listed] == [client.prefix + name for name in era.NAMES]
    listed = await client.all("resources/list", "resources")
    assert len(listed) == 8
    with_bad_cursor = client.request("tools/list", {"cursor": "at-5"})
    assert await code_of(with_bad_cursor) == -32602


async def structured(cell: Cell) -> None:
    """An object as structured content, and the schema that it keeps to."""
    client = cell.client
    echo = (await client.all("tools/list", "tools"))[0]
    result = await client.call("echo", tag=cell.tag)
    assert text(result) == cell.tag
    if cell.possible:
        assert result["structuredContent"] == {"said": cell.tag}
        assert echo["outputSchema"]["type"] == "object"
    else:
        assert "structuredContent" not in result
        assert "outputSchema" not in echo


async def any_structured(cell: Cell) -> None:
    """A list as structured content."""
    client = cell.client
    listed = await client.all("tools/list", "tools")
    items = next(tool for tool in listed if tool["name"] == client.prefix + "items")
    result = await client.call("items", tag=cell.tag)
    assert json.loads(text(result)) == [cell.tag]
    if cell.possible:
        assert result["structuredContent"] == [cell.tag]
        assert items["outputSchema"]["type"] == "array"
    else:
        assert "structuredContent" not in result
        assert "outputSchema" not in items


async def icons(cell: Cell) -> None:
    client = cell.client
    echo = (await client.all("tools/list", "tools"))[0]
    greet = (await client.all("prompts/list", "prompts"))[0]
    assert echo.get("icons") == ([era.ICON] if cell.possible else None)
    assert greet.get("icons") == ([era.ICON] if cell.possible else None)


async def hints(cell: Cell) -> None:
    client = cell.client
    echo = (await client.all("tools/list", "tools"))[0]
    first = (await client.all("resources/list", "resources"))[0]
    assert echo.get("annotations") == (era.HINTS if cell.possible else None)
    wanted = {"audience": ["user"], "priority": 0} if cell.possible else None
    assert first.get("annotations") == wanted


async def headers(cell: Cell) -> None:
    """An argument that a header field repeats (x-mcp-header)."""
    client = cell.client
    await client.all("tools/list", "tools")
    result = await client.call("mirror", tag=cell.tag, region="eu-1")
    assert text(result) == "eu-1"
    seen = await cell.journal.wait("mirror", tag=cell.tag)
    if cell.server.modern and cell.server.transport == "http":
        assert seen["header"] == "eu-1"
    else:
        assert seen["header"] is None
    if client.modern and client.transport == "http":
        for wrong in ("us-2", None):
            options = {"headers": {"mcp-param-Region": wrong}}
            with_wrong = client.call("mirror", options, tag=cell.tag + "x", region="eu-1")
            assert await code_of(with_wrong) == -32020
        assert cell.journal.of("mirror", tag=cell.tag + "x") == []


async def errors(cell: Cell) -> None:
    client = cell.client
    result = await client.call("broken", tag=cell.tag)
    assert result["isError"] is True
    assert text(result) == f"it broke ({cell.tag})"
    error = await error_of(client.call("failing", tag=cell.tag))
    assert (error.code, error.message) == (-32603, "it failed")
    assert error.data == {"tag": cell.tag, "exact": 1}
    assert await code_of(client.call("nothing")) == -32602
    error = await error_of(client.complete("resources/read", {"uri": "era://nothing"}))
    assert error.code == (-32602 if client.modern else -32002)
    assert error.data == {"uri": "era://nothing"}


# ---------------------------------------------------------------- while a call runs


async def progress(cell: Cell) -> None:
    client = cell.client
    params = {"name": client.prefix + "count", "arguments": {"tag": cell.tag}}
    call = await client.begin("tools/call", params, token="the same token")
    assert text(await call.result()) == cell.tag
    told = call.of("notifications/progress")
    assert [one["progress"] for one in told] == [1, 2, 3]
    assert {one["progressToken"] for one in told} == {"the same token"}
    assert {one["total"] for one in told} == {3}
    if cell.server.since(era.ANNOTATIONS):
        assert {one["message"] for one in told} == {cell.tag}
    call = await client.begin("tools/call", params)  # without a token nothing is told
    await call.result()
    assert call.of("notifications/progress") == []


async def logging(cell: Cell) -> None:
    client = cell.client
    params = {"name": client.prefix + "talk", "arguments": {"tag": cell.tag}}
    for level, levels in (
        ("warning", ["warning", "error"]),
        ("debug", ["debug", "info", "warning", "error"]),
        ("error", ["error"]),
    ):
        if not client.modern:
            await client.request("logging/setLevel", {"level": level})
        call = await client.begin(
            "tools/call", params, **({"level": level} if client.modern else {})
        )
        await call.result()
        told = call.of("notifications/message")
        assert [one["level"] for one in told] == levels, level
        assert {one["data"] for one in told} == {cell.tag}
    if client.modern:
        call = await client.begin("tools/call", params)  # who asks for none hears none
        await call.result()
        assert call.of("notifications/message") == []


async def cancel(cell: Cell) -> None:
    """The client gives one call up; another of the same client goes on."""
    client, journal = cell.client, cell.journal
    calls: dict[str, Any] = {}
    for name in ("first", "second"):
        arguments = {"tag": f"{cell.tag}-{name}"}
        params = {"name": client.prefix + "slow", "arguments": arguments}
        calls[name] = await client.begin("tools/call", params)
        await journal.wait("started", tag=f"{cell.tag}-{name}")
    await client.cancel(calls["first"])
    await journal.wait("cancelled", tag=f"{cell.tag}-first")
    assert text(await client.call("echo", tag=cell.tag)) == cell.tag
    assert journal.of("cancelled", tag=f"{cell.tag}-second") == []
    await client.cancel(calls["second"])
    await journal.wait("cancelled", tag=f"{cell.tag}-second")


async def withdraw(cell: Cell) -> None:
    """The server asks, and then wants no answer any more."""
    client, journal = cell.client, cell.journal
    if not cell.possible:
        assert await code_of(client.call("withdraw", tag=cell.tag)) == -32601
        return

    async def answer(method: str, params: Json) -> Json:
        assert params["systemPrompt"] == cell.tag
        journal.pass_on(cell.tag)
        await journal.wait("withdrawn", tag=cell.tag)
        if client.modern:
            journal.pass_on(f"{cell.tag} end")
        else:
            await asyncio.sleep(PATIENCE)  # until the gateway withdraws the question
        return {}

    client.answer = answer
    calling = asyncio.ensure_future(client.call("withdraw", tag=cell.tag))
    if not client.modern:
        await client.was_withdrawn()
        journal.pass_on(f"{cell.tag} end")
    assert text(await calling) == f"withdrawn {cell.tag}"


# ---------------------------------------------------------------- questions to the client


async def sampling(cell: Cell) -> None:
    answer = {
        "role": "assistant",
        "content": {"type": "text", "text": cell.tag},
        "model": "m",
        "stopReason": "endTurn",
    }
    params = {**era.SAMPLING, "systemPrompt": cell.tag}
    got = await asked(cell, "sampling/createMessage", "sampling", params, answer)
    assert got == answer


async def roots(cell: Cell) -> None:
    answer = {"roots": [{"uri": f"file:///{cell.tag}", "name": "r"}]}
    assert await asked(cell, "roots/list", "roots", {}, answer) == answer


async def rounds(cell: Cell) -> None:
    """Two questions in one call, one after the other."""
    client = cell.client
    asked: list[str] = []

    async def answer(method: str, params: Json) -> Json:
        asked.append(method)
        if method == "roots/list":
            return {"roots": [{"uri": f"file:///{cell.tag}"}]}
        assert params["systemPrompt"] == cell.tag
        content = {"type": "text", "text": cell.tag}
        return {"role": "assistant", "content": content, "model": "m"}

    client.answer = answer
    first, second = json.loads(text(await client.call("pair", tag=cell.tag)))
    assert asked == ["sampling/createMessage", "roots/list"]
    assert first["content"]["text"] == cell.tag
    assert second["roots"] == [{"uri": f"file:///{cell.tag}"}]


async def prompt_asks(cell: Cell) -> None:
    """A prompt that asks, too."""
    client = cell.client

    async def answer(method: str, params: Json) -> Json:
        assert params["systemPrompt"] == cell.tag
        content = {"type": "text", "text": cell.tag}
        return {"role": "assistant", "content": content, "model": "m"}

    client.answer = answer
    params = {"name": client.prefix + "inquire", "arguments": {"who": cell.tag}}
    got = await client.complete("prompts/get", params)
    assert cell.tag in got["messages"][0]["content"]["text"]


async def refusing(cell: Cell) -> None:
    """A client that answers with an error, or that declines."""
    client = cell.client
    if not client.modern:

        async def refuse(method: str, params: Json) -> Json:
            raise RpcError({"code": -1, "message": "User rejected sampling request"})

        client.answer = refuse
        arguments = {"method": "sampling/createMessage", "capability": "sampling"}
        sent = client.call("ask", tag=cell.tag, params=era.SAMPLING, **arguments)
        if cell.server.modern:  # an error has no place among input responses: it ends the call
            assert await code_of(sent) == -1
        else:
            told = json.loads(text(await sent))
            assert told["error"]["code"] == -1
    if client.since(era.ELICITATION) and cell.server.since(era.ELICITATION):
        got = await asked(cell, "elicitation/create", "elicitation", era.FORM, DECLINE)
        assert got == DECLINE


async def elicitation(cell: Cell) -> None:
    """A form."""
    answer = {"action": "accept", "content": {"name": cell.tag}}
    if cell.possible:
        params = {**era.FORM, "message": cell.tag}
        got = await asked(cell, "elicitation/create", "elicitation", params, answer)
        assert got == answer
        return
    await unanswerable(cell, era.FORM, "elicitation")


async def choices(cell: Cell) -> None:
    """Choices with titles, of one and of many."""
    client = cell.client
    if not cell.possible and not cell.client.since(era.ELICITATION):
        await unanswerable(cell, era.CHOICE, "elicitation")
        return
    if not cell.server.since(era.ICONS):
        return  # such a server has no such forms
    content = {"one": "r", "many": ["x"]} if cell.possible else {"one": "r", "many": "x"}
    shown: list[Json] = []

    async def answer(method: str, params: Json) -> Json:
        shown.append(params["requestedSchema"]["properties"])
        return {"action": "accept", "content": content}

    client.answer = answer
    arguments = {"method": "elicitation/create", "capability": "elicitation"}
    result = await client.call("ask", tag=cell.tag, params=era.CHOICE, **arguments)
    got = json.loads(text(result))
    assert got == {"action": "accept", "content": {"one": "r", "many": ["x"]}}
    if cell.possible:
        assert shown == [era.CHOICE["requestedSchema"]["properties"]]
    else:
        assert shown[0]["one"] == {
            "type": "string",
            "enum": ["r", "g"],
            "enumNames": ["Red", "Green"],
        }
        many = {"type": "string", "enum": ["x", "y"], "enumNames": ["Ex", "Why"]}
        assert shown[0]["many"] == many


async def urls(cell: Cell) -> None:
    """A URL that the user is sent to."""
    client = cell.client
    if not cell.possible:
        await unanswerable(cell, {"mode": "url"}, "elicitation")
        return
    arguments = {"method": "elicitation/create", "capability": "elicitation"}
    shown: list[Json] = []

    async def answer(method: str, params: Json) -> Json:
        shown.append(params)
        return {"action": "accept"}

    client.answer = answer
    result = await client.call("ask", tag=cell.tag, params={"mode": "url"}, **arguments)
    assert json.loads(text(result)) == {"action": "accept"}
    asked = shown[0]
    assert asked["url"] == f"https://example.com/{cell.tag}"
    assert asked["mode"] == "url"
    if client.revision == era.URLS:
        assert isinstance(asked["elicitationId"], str)
        assert asked["elicitationId"] == f"el-{cell.tag}" or cell.server.modern


async def url_first(cell: Cell) -> None:
    """A server that refuses until the user went to a URL (-32042, 2025-11-25)."""
    client = cell.client
    await client.call("mark", tag="nobody")
    if cell.server.revision != era.URLS:
        return  # there is no such error
    if cell.possible and client.modern:
        shown: list[Json] = []

        async def answer(method: str, params: Json) -> Json:
            shown.append(params)
            return {"action": "accept"}

        client.answer = answer
        assert text(await client.call("urls", tag=cell.tag)) == f"signed in {cell.tag}"
        assert [one["url"] for one in shown] == [f"https://example.com/{cell.tag}"]
    elif cell.possible:
        error = await error_of(client.call("urls", tag=cell.tag))
        assert error.code == -32042
        assert error.data == {"elicitations": [era.url_elicitation(cell.tag, minted=True)]}
        assert text(await client.call("urls", tag=cell.tag)) == f"signed in {cell.tag}"
    else:
        result = await client.call("urls", tag=cell.tag)
        assert result["isError"] is True


async def declared(cell: Cell) -> None:
    """A server is told what the calling client can be asked, and no more."""
    client = cell.client
    await client.call("who", tag=cell.tag)
    seen = (await cell.journal.wait("who", tag=cell.tag))["capabilities"]
    for name in ("sampling", "elicitation", "roots"):
        assert seen[name] == client.capabilities.get(name), name


async def roots_changed(cell: Cell) -> None:
    client, journal = cell.client, cell.journal
    await client.call("mark", tag=cell.tag)
    if client.modern:
        return  # it has no such note
    method = "notifications/roots/list_changed"
    await client.notify(method, {})
    if cell.possible:
        await journal.wait("note", method=method, mark=cell.tag)
    else:
        await client.call("echo", tag=cell.tag)
    told = journal.of("note", method=method, mark=cell.tag)
    assert len(told) == (1 if cell.possible else 0)


# ---------------------------------------------------------------- what happens between calls


async def subscriptions(cell: Cell) -> None:
    client, journal = cell.client, cell.journal
    uri, other = f"era://watched/{cell.tag}", f"era://other/{cell.tag}"
    updated = "notifications/resources/updated"
    subscription = await client.subscribe(uris=(uri,))
    await journal.wait("resources/subscribe", uri=uri)
    await client.call("touch", uri=other)
    await client.call("touch", uri=uri)
    told = await client.heard(updated)
    assert {one["uri"] for one in told} == {uri}
    await client.unsubscribe(subscription)
    await journal.wait("resources/unsubscribe", uri=uri)
    client.notes.clear()
    await client.call("touch", uri=uri)
    await client.call("echo", tag=cell.tag)
    assert client.of(updated) == []


async def list_changes(cell: Cell) -> None:
    client = cell.client
    client.notes.clear()
    subscription = await client.subscribe(lists=("tools", "prompts"))
    for kind in ("tools", "prompts"):
        await client.call("change", kind=kind)
        await client.heard(f"notifications/{kind}/list_changed")
    await client.call("change", kind="resources")
    if client.modern:  # it asked for two of the three
        await client.call("echo", tag=cell.tag)
        assert client.of("notifications/resources/list_changed") == []
    else:
        await client.heard("notifications/resources/list_changed")
    await client.unsubscribe(subscription)


# ---------------------------------------------------------------- helpers

DECLINE = {"action": "decline"}


async def error_of(sent: Awaitable[Any]) -> RpcError:
    try:
        result = await sent
    except RpcError as error:
        return error
    raise AssertionError(f"no error, but {result}")


async def code_of(sent: Awaitable[Any]) -> int:
    return (await error_of(sent)).code


async def asked(cell: Cell, method: str, capability: str, params: Json, answer: Json) -> Any:
    """What the server got as answer to a question that it asked of this client."""
    client = cell.client
    seen: list[tuple[str, Json]] = []

    async def told(method: str, params: Json) -> Json:
        seen.append((method, params))
        return answer

    client.answer = told
    arguments = {"method": method, "capability": capability}
    result = await client.call("ask", tag=cell.tag, params=params, **arguments)
    assert "isError" not in result, result
    assert seen == [(method, params)]
    return json.loads(text(result))


async def unanswerable(cell: Cell, params: Json, capability: str) -> None:
    """A question that this client cannot be asked, or that its server does not have."""
    client = cell.client
    before = len(client.asked)
    arguments = {"method": "elicitation/create", "capability": capability}
    url = params.get("mode") == "url"
    since = era.URLS if url else era.ELICITATION
    if not cell.server.since(since):
        return  # it has no such question
    result = await client.call("ask", tag=cell.tag, params=params, **arguments)
    assert result["isError"] is True
    # A server that asks all the same is refused; the client is not bothered.
    sent = await client.call("insist", tag=cell.tag, params=params, **arguments)
    if cell.server.modern:
        assert sent["isError"] is True
    else:
        assert json.loads(text(sent)) == {"action": "cancel"}
    assert len(client.asked) == before


# ---------------------------------------------------------------- the table

Run: TypeAlias = Callable[[Cell], Awaitable[None]]


@dataclass(frozen=True)
class Impossible:
    """Pairs of revisions that no gateway can bridge.

    reason: from the specification, as the digest of it says. answer: what is asserted instead.
    absent: one of the two revisions has no such thing at all, so that there is nothing to bridge.
    """

    clients: tuple[str, ...]
    servers: tuple[str, ...]
    reason: str
    answer: str
    absent: bool = False


@dataclass(frozen=True)
class Feature:
    run: Run
    says: str
    impossible: tuple[Impossible, ...] = ()


def before(revision: str) -> tuple[str, ...]:
    return tuple(one for one in REVISIONS if one < revision)


def since(revision: str) -> tuple[str, ...]:
    return tuple(one for one in REVISIONS if one >= revision)


def old_client(revision: str, answer: str, reason: str = "") -> Impossible:
    told = reason or "Legacy clients get what their revision can express."
    return Impossible(before(revision), since(revision), told, answer)


def old_server(revision: str) -> Impossible:
    return absent(REVISIONS, before(revision), f"servers since {revision}")


def absent(clients: tuple[str, ...], servers: tuple[str, ...], reason: str) -> Impossible:
    return Impossible(clients, servers, reason, "nothing is made up", absent=True)


NEVER_DECLARED = "Never declare upstream what the client did not declare."

GONE = "gone from 2026-07-28"

FEATURES: dict[str, Feature] = {
    "tools": Feature(tools, "`tools/list`, `tools/call`"),
    "prompts": Feature(prompts, "`prompts/list`, `prompts/get`"),
    "resources": Feature(resources, "`resources/list`, `resources/read`, text and binary"),
    "templates": Feature(templates, "`resources/templates/list`, reading what they describe"),
    "completion": Feature(completion, "`completion/complete` for prompts and templates"),
    "pagination": Feature(pages, "every page, with cursors of the gateway's own"),
    "structured content": Feature(
        structured,
        "objects in `structuredContent`, `outputSchema`",
        (
            old_client(era.STRUCTURED, "the text, without both"),
            old_server(era.STRUCTURED),
        ),
    ),
    "any structured content": Feature(
        any_structured,
        "lists and plain values in `structuredContent`",
        (
            old_client(MODERN[0], "the text, without both"),
            old_server(MODERN[0]),
        ),
    ),
    "icons": Feature(icons, "`icons`", (old_server(era.ICONS),)),
    "annotations": Feature(
        hints,
        "`annotations`, also those that say false",
        (old_server(era.ANNOTATIONS),),
    ),
    "mirrored arguments": Feature(headers, "`x-mcp-header`: checked, and minted anew"),
    "errors": Feature(errors, "`isError`, error codes and their `data`, unknown names"),
    "progress": Feature(progress, "`notifications/progress` under the client's own token"),
    "logging": Feature(logging, "`logging/setLevel` ↔ `logLevel`, heard by the call alone"),
    "cancellation": Feature(cancel, "by the client, of one call only"),
    "withdrawn questions": Feature(
        withdraw,
        "by the server, of what it asked",
        (
            absent(
                REVISIONS,
                MODERN,
                "not of 2026-07-28: `input_required` has ended the call",
            ),
        ),
    ),
    "sampling": Feature(sampling, "`sampling/createMessage`"),
    "roots": Feature(roots, "`roots/list`"),
    "several questions": Feature(rounds, "one after the other in one call"),
    "questions of prompts": Feature(prompt_asks, "in the course of `prompts/get`"),
    "refused questions": Feature(refusing, "declined, or answered with an error"),
    "elicitation by form": Feature(
        elicitation,
        "`elicitation/create`",
        (
            old_client(
                era.ELICITATION,
                "an `isError` text; a server that asks all the same gets `cancel`",
                NEVER_DECLARED,
            ),
            old_server(era.ELICITATION),
        ),
    ),
    "titled choices": Feature(
        choices,
        "single and multiple choices with titles",
        (
            Impossible(
                before(era.ELICITATION),
                since(era.ICONS),
                NEVER_DECLARED,
                "an `isError` text; a server that asks all the same gets `cancel`",
            ),
            Impossible(
                ("2025-06-18",),
                since(era.ICONS),
                "Downgrade titled enums.",
                "the same choices as `enum` with `enumNames`, of many only one",
            ),
            old_server(era.ICONS),
        ),
    ),
    "elicitation by URL": Feature(
        urls,
        "`elicitation/create` with `mode: url`",
        (
            old_client(
                era.URLS,
                "an `isError` text; a server that asks all the same gets `cancel`",
                NEVER_DECLARED,
            ),
            old_server(era.URLS),
        ),
    ),
    "elicitation before a call": Feature(
        url_first,
        "error -32042 ↔ `input_required` with URLs",
        (
            Impossible(
                before(era.URLS),
                (era.URLS,),
                "Client lacks `elicitation.url` → -32021, for `tools/call` an `isError` text.",
                "an `isError` text",
            ),
            absent(REVISIONS, (*before(era.URLS), *MODERN), "of servers of 2025-11-25"),
        ),
    ),
    "declared capabilities": Feature(declared, "the server sees those of the calling client"),
    "changed roots": Feature(
        roots_changed,
        "`notifications/roots/list_changed`",
        (
            absent(MODERN, REVISIONS, GONE),
            absent(LEGACY, MODERN, GONE),
        ),
    ),
    "subscriptions": Feature(
        subscriptions, "`resources/subscribe`, `unsubscribe` ↔ `subscriptions/listen`"
    ),
    "changed lists": Feature(list_changes, "`list_changed` notes, to those they concern"),
}


def impossible(feature: str, client: str, server: str) -> Impossible | None:
    """The first row of the table that says so; None for what must work."""
    for row in FEATURES[feature].impossible:
        if client in row.clients and server in row.servers:
            return row
    return None

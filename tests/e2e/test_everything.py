"""`server-everything`, the reference server, through a real gateway: every tool that it has.

A client of the Python SDK that can do everything its SDK can do is connected at 2025-11-25 and at
2026-07-28, to the server over stdio and over Streamable HTTP. It calls each tool that is listed.
What a tool must bring stands in `TRIALS`; a tool without an entry fails the test.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import json
import subprocess
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from pydantic import FileUrl

from tests import peers
from tests.children import gateway
from tests.e2e.gateway import PATIENCE, House
from tests.e2e.test_peers import everything

pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

LEGACY, MODERN = "legacy", "2026-07-28"
REVISION = {LEGACY: "2025-11-25", MODERN: "2026-07-28"}
SERVERS = ("everything", "everything-http")
BEAT = 5.0  # seconds between two of the server's simulated messages
FILE = "Grüße an die Packer\n" * 40
ROOT = types.Root(uri=FileUrl("file:///srv/garden"), name="The garden")
THE_LIST = "resources/list"
URL_ELICITATION_REQUIRED = -32042
FORM = {
    "name": "Ada Lovelace",
    "check": True,
    "email": "ada@example.com",
    "homepage": "https://example.com/ada",
    "birthdate": "1815-12-10",
    "integer": 42,
    "number": 3.25,
    "untitledSingleSelectEnum": "Ross",
    "untitledMultipleSelectEnum": ["Piano", "Bass"],
    "titledSingleSelectEnum": "hero-2",
    "titledMultipleSelectEnum": ["fish-1", "fish-3"],
    "legacyTitledEnum": "pet-4",
}
CITIES = {
    "New York": {"temperature": 33, "conditions": "Cloudy", "humidity": 82},
    "Chicago": {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82},
    "Los Angeles": {"temperature": 73, "conditions": "Sunny / Clear", "humidity": 48},
}


class Ears:
    """What one client is asked and told, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[types.ElicitRequestParams] = []
        self.sampled: list[types.CreateMessageRequestParams] = []
        self.roots = 0
        self.logged: list[types.LoggingMessageNotificationParams] = []
        self.changed: list[str] = []  # URIs of resources, and THE_LIST
        self.answer = types.ElicitResult(action="accept", content=dict(FORM))
        self._news = anyio.Event()

    def options(self, mode: str) -> dict[str, Any]:
        """Options of a Client that has every callback."""
        return {
            "mode": mode,
            "elicitation_callback": self._elicit,
            "sampling_callback": self._sample,
            "list_roots_callback": self._list_roots,
            "logging_callback": self._log,
            "message_handler": self._message,
            "log_level": None if mode == LEGACY else "debug",
        }

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until what was heard makes this true."""
        with anyio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()

    def changes(self, what: str) -> None:
        self.changed.append(what)
        self._new()

    def _new(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def _elicit(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params)
        if isinstance(params, types.ElicitRequestURLParams):
            return types.ElicitResult(action=self.answer.action)
        return self.answer

    async def _sample(
        self, context: Any, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult:
        self.sampled.append(params)
        said = types.TextContent(type="text", text="A haiku, sampled.")
        return types.CreateMessageResult(
            role="assistant", content=said, model="model-of-the-client", stop_reason="endTurn"
        )

    async def _list_roots(self, context: Any) -> types.ListRootsResult:
        self.roots += 1
        return types.ListRootsResult(roots=[ROOT])

    async def _log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append(params)
        self._new()

    async def _message(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.changes(message.params.uri)
        elif isinstance(message, types.ResourceListChangedNotification):
            self.changes(THE_LIST)


@dataclass
class Stand:
    """One client at one server's address of the gateway."""

    client: Client
    ears: Ears
    server: str
    mode: str
    files: str

    @property
    def tag(self) -> str:
        return f"{self.server}-{self.mode}"

    async def call(self, tool: str, /, **arguments: Any) -> types.CallToolResult:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result
        return result

    async def resources(self) -> list[str]:
        page = await self.client.list_resources(cache_mode="refresh")
        assert page.next_cursor is None
        return [one.uri for one in page.resources]

    async def read(self, uri: str) -> types.TextResourceContents | types.BlobResourceContents:
        contents = (await self.client.read_resource(uri)).contents
        assert [one.uri for one in contents] == [uri]
        return contents[0]

    @asynccontextmanager
    async def hearing(self, uri: str | None = None) -> AsyncGenerator[None]:
        """Let the ears hear of changes of a resource, or of their list."""
        client, ears = self.client, self.ears
        ears.changed.clear()
        if self.mode == LEGACY:
            if uri is not None:
                await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]
            yield
            if uri is not None:
                await client.unsubscribe_resource(uri)  # pyright: ignore[reportDeprecated]
            return
        uris = [] if uri is None else [uri]
        async with (
            client.listen(resources_list_changed=uri is None, resource_subscriptions=uris) as told,
            anyio.create_task_group() as tasks,
        ):

            async def hear() -> None:
                async for event in told:
                    if isinstance(event, ResourceUpdated):
                        ears.changes(event.uri)
                    else:
                        assert isinstance(event, ResourcesListChanged)
                        ears.changes(THE_LIST)

            tasks.start_soon(hear)
            yield
            tasks.cancel_scope.cancel()


def texts(result: types.CallToolResult) -> list[str]:
    return [part.text for part in result.content if isinstance(part, types.TextContent)]


def png(part: Any) -> bytes:
    """The image behind a content block."""
    assert isinstance(part, types.ImageContent)
    assert part.mime_type == "image/png"
    image = base64.b64decode(part.data, validate=True)
    assert image.startswith(b"\x89PNG\r\n")
    assert image.endswith(b"IEND\xaeB`\x82")
    return image


Trial: TypeAlias = Callable[[Stand], Awaitable[None]]
TRIALS: dict[str, Trial] = {}


def trial(tool: str) -> Callable[[Trial], Trial]:
    """Enter the trial of one tool."""

    def enter(one: Trial) -> Trial:
        TRIALS[tool] = one
        return one

    return enter


@trial("echo")
async def echo(stand: Stand) -> None:
    result = await stand.call("echo", message=f"über {stand.tag} \N{EARTH GLOBE AMERICAS}")
    assert texts(result) == [f"Echo: über {stand.tag} \N{EARTH GLOBE AMERICAS}"]


@trial("get-annotated-message")
async def annotated(stand: Stand) -> None:
    for kind, priority, audience in (
        ("error", 1.0, ["user", "assistant"]),
        ("success", 0.7, ["user"]),
        ("debug", 0.3, ["assistant"]),
    ):
        result = await stand.call("get-annotated-message", messageType=kind, includeImage=True)
        words, image = result.content
        assert words.annotations == types.Annotations(priority=priority, audience=audience)  # type: ignore[arg-type]
        assert image.annotations == types.Annotations(priority=0.5, audience=["user"])
        assert png(image)
    result = await stand.call("get-annotated-message", messageType="error")
    assert texts(result) == ["Error: Operation failed"]
    assert len(result.content) == 1


@trial("get-env")
async def environment(stand: Stand) -> None:
    (told,) = texts(await stand.call("get-env"))
    assert json.loads(told)["PLANTED"] == f"for {stand.server}"


@trial("get-resource-links")
async def resource_links(stand: Stand) -> None:
    result = await stand.call("get-resource-links", count=4)
    assert texts(result) == ["Here are 4 resource links to resources available in this server:"]
    links = [part for part in result.content if isinstance(part, types.ResourceLink)]
    assert len(links) == 4
    for number, link in enumerate(links, 1):
        found = await stand.read(link.uri)
        if isinstance(found, types.TextResourceContents):
            told = found.text
        else:
            told = base64.b64decode(found.blob).decode()
        assert told.startswith(f"Resource {number}: This is a ")
    assert [link.name.split()[0] for link in links] == ["Blob", "Text", "Blob", "Text"]


@trial("get-resource-reference")
async def resource_reference(stand: Stand) -> None:
    for kind, number in (("Text", 7), ("Blob", 8)):
        result = await stand.call("get-resource-reference", resourceType=kind, resourceId=number)
        first, held, last = result.content
        assert isinstance(held, types.EmbeddedResource)
        uri = f"demo://resource/dynamic/{kind.lower()}/{number}"
        assert held.resource.uri == uri
        assert texts(result) == [
            f"Returning resource reference for Resource {number}:",
            f"You can access this resource using the URI: {uri}",
        ]
        assert [first.type, last.type] == ["text", "text"]
        assert type(await stand.read(uri)) is type(held.resource)


@trial("get-structured-content")
async def structured(stand: Stand) -> None:
    for city, weather in CITIES.items():
        result = await stand.call("get-structured-content", location=city)
        assert result.structured_content == weather
        assert [json.loads(told) for told in texts(result)] == [weather]


@trial("get-sum")
async def total(stand: Stand) -> None:
    assert texts(await stand.call("get-sum", a=19, b=23.5)) == ["The sum of 19 and 23.5 is 42.5."]
    wrong = await stand.client.call_tool("get-sum", {"a": "nineteen", "b": 23})
    assert wrong.is_error
    assert "Input validation error" in texts(wrong)[0]


@trial("get-tiny-image")
async def image(stand: Stand) -> None:
    before, picture, after = (await stand.call("get-tiny-image")).content
    assert png(picture)
    assert isinstance(before, types.TextContent)
    assert before.text == "Here's the image you requested:"
    assert isinstance(after, types.TextContent)
    assert after.text == "The image above is the MCP logo."


@trial("gzip-file-as-resource")
async def zipped(stand: Stand) -> None:
    """From a URL, as a link that is there for this client, and whole in the answer."""
    name = f"{stand.tag}.gz"
    uri = f"demo://resource/session/{name}"
    assert uri not in await stand.resources()
    async with stand.hearing():
        (link,) = (await stand.call("gzip-file-as-resource", name=name, data=stand.files)).content
        await stand.ears.until(lambda: THE_LIST in stand.ears.changed)
    assert uri in await stand.resources()
    assert isinstance(link, types.ResourceLink)
    assert (link.uri, link.mime_type) == (uri, "application/gzip")
    found = await stand.read(uri)
    assert isinstance(found, types.BlobResourceContents)
    assert gzip.decompress(base64.b64decode(found.blob)).decode() == FILE

    (whole,) = (
        await stand.call(
            "gzip-file-as-resource",
            name=name,
            data="data:text/plain,in%20short",
            outputType="resource",
        )
    ).content
    assert isinstance(whole, types.EmbeddedResource)
    assert isinstance(whole.resource, types.BlobResourceContents)
    assert gzip.decompress(base64.b64decode(whole.resource.blob)) == b"in short"


@trial("toggle-simulated-logging")
async def logging(stand: Stand) -> None:
    """Switched on, heard in the course of a call, switched off."""
    if stand.mode == LEGACY:
        await stand.client.set_logging_level("debug")  # pyright: ignore[reportDeprecated]
    (began,) = texts(await stand.call("toggle-simulated-logging"))
    assert began.startswith("Started simulated, random-leveled logging")
    stand.ears.logged.clear()
    await stand.call("trigger-long-running-operation", duration=BEAT + 0.5, steps=1)
    simulated = [note for note in stand.ears.logged if "level" in str(note.data)]
    assert simulated, "no message in all the time that one call took"
    (ended,) = texts(await stand.call("toggle-simulated-logging"))
    assert ended.startswith("Stopped simulated logging")


@trial("toggle-subscriber-updates")
async def updates(stand: Stand) -> None:
    """Switched on, heard of the one resource that was subscribed to, switched off."""
    uri = "demo://resource/static/document/features.md"
    async with stand.hearing(uri):
        (began,) = texts(await stand.call("toggle-subscriber-updates"))
        assert began.startswith("Started simulated resource updated notifications")
        await stand.ears.until(lambda: uri in stand.ears.changed)
        (ended,) = texts(await stand.call("toggle-subscriber-updates"))
        assert ended.startswith("Stopped simulated resource updates")
    assert set(stand.ears.changed) - {THE_LIST} == {uri}


@trial("trigger-long-running-operation")
async def long_running(stand: Stand) -> None:
    heard: list[tuple[float, float | None]] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total))

    result = await stand.client.call_tool(
        "trigger-long-running-operation", {"duration": 0.5, "steps": 5}, progress_callback=told
    )
    assert texts(result) == ["Long running operation completed. Duration: 0.5 seconds, Steps: 5."]
    assert heard == [(step, 5) for step in (1, 2, 3, 4, 5)]


@trial("get-roots-list")
async def roots(stand: Stand) -> None:
    (told,) = texts(await stand.call("get-roots-list"))
    assert told.startswith("Current MCP Roots (1 total):")
    assert f"1. {ROOT.name}\n   URI: {ROOT.uri}" in told
    assert stand.ears.roots


@trial("trigger-elicitation-request")
async def form(stand: Stand) -> None:
    """Every kind of field arrives, and so does every answer."""
    ears = stand.ears
    ears.asked.clear()
    said = texts(await stand.call("trigger-elicitation-request"))
    (asked,) = ears.asked
    assert isinstance(asked, types.ElicitRequestFormParams)
    assert asked.message == "Please provide inputs for the following fields:"
    fields = asked.requested_schema["properties"]
    assert set(FORM) < set(fields)
    assert fields["titledSingleSelectEnum"]["oneOf"][1] == {
        "const": "hero-2",
        "title": "Green Lantern",
    }
    assert fields["titledMultipleSelectEnum"]["items"]["anyOf"][0]["title"] == "Tuna"
    assert fields["legacyTitledEnum"]["enumNames"][3] == "Fish"
    assert said[0] == "✅ User provided the requested information!"
    assert "- Favorite Number: 3.25" in said[1]
    assert raw(said) == {"action": "accept", "content": FORM}

    for action, words in (("decline", "❌ User declined"), ("cancel", "⚠️ User cancelled")):
        ears.answer = types.ElicitResult(action=action)  # type: ignore[arg-type]
        said = texts(await stand.call("trigger-elicitation-request"))
        assert said[0].startswith(words)
        assert raw(said) == {"action": action}
    ears.answer = types.ElicitResult(action="accept", content=dict(FORM))


@trial("trigger-url-elicitation")
async def url(stand: Stand) -> None:
    """By a question in the course of the call, and by the error that says what to do before."""
    ears = stand.ears
    ears.asked.clear()
    here = f"http://127.0.0.1:9/sign-in/{stand.tag}"
    said = texts(await stand.call("trigger-url-elicitation", url=here, message="Sign in."))
    assert [(one.message, getattr(one, "url", None)) for one in ears.asked] == [("Sign in.", here)]
    assert said[0].startswith("✅ User completed the URL elicitation flow.")
    assert raw(said) == {"action": "accept"}

    ears.asked.clear()
    wanted = {"url": f"{here}/before", "errorPath": True}
    if stand.mode == LEGACY:
        with pytest.raises(MCPError) as refused:
            await stand.client.call_tool("trigger-url-elicitation", wanted)
        assert refused.value.error.code == URL_ELICITATION_REQUIRED
        (first,) = refused.value.error.data["elicitations"]
        assert (first["mode"], first["url"]) == ("url", "https://modelcontextprotocol.io")
        assert ears.asked == []
        first = []
    else:  # the error is not of 2026-07-28; the client is asked to go there, and comes back
        first = ["https://modelcontextprotocol.io"]
    said = texts(await stand.call("trigger-url-elicitation", **wanted))
    assert [getattr(one, "url", None) for one in ears.asked] == [*first, f"{here}/before"]
    assert said[0].startswith("✅ User completed the URL elicitation flow.")


@trial("trigger-sampling-request")
async def sampling(stand: Stand) -> None:
    stand.ears.sampled.clear()
    said = texts(await stand.call("trigger-sampling-request", prompt="A haiku?", maxTokens=17))
    (asked,) = stand.ears.sampled
    assert (asked.max_tokens, asked.temperature) == (17, 0.7)
    assert asked.system_prompt == "You are a helpful test server."
    assert json.loads(said[0].partition("\n")[2]) == {
        "model": "model-of-the-client",
        "stopReason": "endTurn",
        "role": "assistant",
        "content": {"type": "text", "text": "A haiku, sampled."},
    }


@trial("simulate-research-query")
async def research(stand: Stand) -> None:
    """A task of 2025-11-25, which a later client has no way to ask for: it gets an answer."""
    name, arguments = "simulate-research-query", {"topic": "python", "ambiguous": True}
    plain = await stand.client.call_tool(name, arguments)
    assert plain.is_error
    assert "requires task augmentation (taskSupport: 'required')" in texts(plain)[0]
    if stand.mode == MODERN:
        return
    session = stand.client.session
    params = {"name": name, "arguments": arguments, "task": {"ttl": 60_000}}
    # The SDK's client knows of tasks, but takes no task for the answer to a call.
    sender = session._dispatcher  # pyright: ignore[reportPrivateUsage]
    answer = await sender.send_raw_request("tools/call", params, {})
    began = types.CreateTaskResult.model_validate(answer, by_name=False)
    assert began.task.status == "working"
    stand.ears.asked.clear()
    stand.ears.answer = types.ElicitResult(action="accept", content={"interpretation": "snake"})
    id = types.GetTaskPayloadRequestParams(task_id=began.task.task_id)
    result = await session.send_request(
        types.GetTaskPayloadRequest(params=id), types.CallToolResult
    )
    stand.ears.answer = types.ElicitResult(action="accept", content=dict(FORM))
    assert texts(result)[0].startswith("# Research Report: python (snake)")
    assert [one.message.split('"')[1] for one in stand.ears.asked] == ["python"]
    ended = await session.send_request(
        types.GetTaskRequest(params=types.GetTaskRequestParams(task_id=began.task.task_id)),
        types.GetTaskResult,
    )
    assert ended.status == "completed"


def raw(said: list[str]) -> Any:
    """What the server got as the answer to its question."""
    return json.loads(said[-1].partition("Raw result: ")[2])


# ---------------------------------------------------------------- the house


@dataclass
class Setting:
    """A running gateway in front of the server, and the server itself."""

    house: House
    address: str
    secrets: dict[str, str]  # one key for the clients of each era
    http: str
    files: str
    testing: subprocess.Popen[str]

    @asynccontextmanager
    async def stand(self, server: str, mode: str) -> AsyncGenerator[Stand]:
        """A client through the gateway."""
        ears = Ears()
        headers = {"Authorization": f"Bearer {self.secrets[mode]}"}
        async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http:
            way = streamable_http_client(f"{self.address}/mcp/{server}", http_client=http)
            async with Client(way, **ears.options(mode)) as client:
                assert client.protocol_version == REVISION[mode]
                yield Stand(client, ears, server, mode, self.files)

    @asynccontextmanager
    async def direct(self, server: str) -> AsyncGenerator[Client]:
        """A client of the server's own revision without a gateway, with the same callbacks."""
        command, *words = peers.node().server("everything")
        way = (
            self.http
            if server == "everything-http"
            else StdioServerParameters(command=command, args=words)
        )
        async with Client(way, **Ears().options(LEGACY)) as client:
            yield client


class Files(http.server.BaseHTTPRequestHandler):
    """The one file that can be fetched."""

    def do_GET(self) -> None:
        body = FILE.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests have other words."""


@contextlib.contextmanager
def files() -> Generator[str]:
    """The URL of the file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/greetings.txt"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Setting]:
    """Both transports registered by the command line, a key for them, a daemon.

    `mcpgw tools test` begins at once, because one of the tools it calls takes ten seconds.
    """
    house = House(tmp_path_factory.mktemp("everything"))
    planted = {"PLANTED": "for everything-http"}
    with everything(peers.node(), **planted) as url, files() as file:
        command = peers.node().server("everything")
        env = ("--env", "PLANTED=for everything")
        house.done("server", "add", "everything", *env, "--", *command)
        house.done("server", "add", "everything-http", "--url", url)
        secrets = {
            mode: house.key(f"key-{revision}", *SERVERS) for mode, revision in REVISION.items()
        }
        with house.serving() as address:
            testing = subprocess.Popen(
                gateway("tools", "test", "everything", "--json"),
                env=house.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with testing:
                try:
                    yield Setting(house, address, secrets, url, file, testing)
                finally:
                    testing.kill()


async def every_tool(client: Client) -> dict[str, types.Tool]:
    """All tools that a server lists, by name."""
    tools: dict[str, types.Tool] = {}
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools.update({tool.name: tool for tool in page.tools})
        if page.next_cursor is None:
            return tools
        cursor = page.next_cursor


CASES = [
    pytest.param(server, mode, id=f"{server} {REVISION[mode]}")
    for server in SERVERS
    for mode in (LEGACY, MODERN)
]


@pytest.mark.anyio
@pytest.mark.parametrize("server", SERVERS)
async def test_every_tool_does_its_work(setting: Setting, server: str) -> None:
    """For clients of both eras at the same time."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for mode in REVISION:
                tasks.start_soon(_try_every_tool, setting, server, mode)


async def _try_every_tool(setting: Setting, server: str, mode: str) -> None:
    async with setting.stand(server, mode) as stand:
        listed = await every_tool(stand.client)
        assert set(listed) == set(TRIALS), "every tool has a trial, every trial a tool"
        for name in listed:
            try:
                await TRIALS[name](stand)
            except Exception as error:
                error.add_note(f"in the trial of {name} at {REVISION[mode]}")
                raise


@pytest.mark.anyio
@pytest.mark.parametrize(("server", "mode"), CASES)
async def test_the_tools_are_those_of_the_server(setting: Setting, server: str, mode: str) -> None:
    """Also in all that is told of them, but for what a revision does not have."""
    with anyio.fail_after(PATIENCE):
        async with setting.direct(server) as direct:
            there = await every_tool(direct)
        async with setting.stand(server, mode) as stand:
            here = await every_tool(stand.client)
    assert list(here) == list(there)
    for name, tool in there.items():
        assert here[name] == tool, name


def test_the_command_line_tests_its_tools(setting: Setting) -> None:
    """Those that only read and need no arguments; a plain test has no client behind it."""
    told, said = setting.testing.communicate(timeout=PATIENCE)
    assert setting.testing.returncode == 0, said
    (server,) = json.loads(told)["servers"]
    assert server["ok"] is True
    calls = {one["tool"]: one for one in server["stages"] if one["stage"] == "call"}
    assert all(one["ok"] for one in calls.values())
    assert {"get-env", "get-tiny-image", "trigger-long-running-operation"} <= set(calls)

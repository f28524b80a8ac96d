"""A legacy client and a daemon whose ends a test decides on: streams read event by event."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.children import gateway, module
from tests.e2e.gateway import SERVES, Child, House, child
from tests.e2e.wire import PATIENCE, Answer, fields, legacy, send


def free_port() -> int:
    """A port that a daemon may take, leave and take again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def daemon(house: House, port: int = 0, **constants: float) -> Generator[tuple[str, Child]]:
    """A real daemon and its address. constants: `a__b__NAME` of mcpgw is another (tests.e2e.hasty).

    It need not end by itself: a test may have ended it.
    """
    words = ("serve", "--port", str(port))
    told = {"mcpgw." + name.replace("__", "."): value for name, value in constants.items()}
    command = module("tests.e2e.hasty", *words) if told else gateway(*words)
    environment = {**house.environment, "HASTY": json.dumps(told)}
    with child(command, SERVES, env=environment, cwd=house.folder) as (line, process):
        yield line.removeprefix(SERVES).strip().removesuffix("/mcp"), process


@dataclass(frozen=True)
class Event:
    id: str | None
    data: bytes
    retry: int | None

    @property
    def message(self) -> Any:
        return json.loads(self.data)


class Stream:
    """A response whose events are read one by one."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._response = response

    def event(self) -> Event | None:
        """The next event, comments left out; None at the end of the stream."""
        found: dict[str, str] = {}
        while line := self._response.readline().decode():
            name, _, value = line.rstrip("\r\n").partition(":")
            if name:
                found[name] = value.removeprefix(" ")
            elif found:
                retry = found.get("retry")
                data = found.get("data", "").encode()
                return Event(found.get("id"), data, None if retry is None else int(retry))
        return None

    def rest(self) -> list[Event]:
        return list(iter(self.event, None))

    def answer(self) -> Any:
        """The response that the stream ends with."""
        *_, last = self.rest()
        return last.message


class Legacy:
    """One session of a client of 2025-11-25."""

    revision = "2025-11-25"

    def __init__(self, url: str, key: str, path: str = "/mcp", **capabilities: Any) -> None:
        self.url, self.key, self.path = url, key, path
        body = legacy(
            "initialize",
            protocolVersion=self.revision,
            capabilities=capabilities,
            clientInfo={"name": "test", "version": "1"},
        )
        self.began = send(url, path=path, body=body, headers=fields(key))
        self.id = self.began.headers.get("mcp-session-id", "")

    def fields(self, **more: str) -> dict[str, str]:
        own = {"mcp_session_id": self.id, "mcp_protocol_version": self.revision}
        return fields(self.key, **(own | more))

    def ask(self, method: str, id: Any = 1, **params: Any) -> Answer:
        body = legacy(method, id, **params)
        return send(self.url, path=self.path, body=body, headers=self.fields())

    def call(self, name: str, id: Any = 1, **arguments: Any) -> Answer:
        return self.ask("tools/call", id, name=name, arguments=arguments)

    @contextlib.contextmanager
    def posted(self, method: str, id: Any = 1, **params: Any) -> Generator[Stream]:
        """A request whose stream is read as it comes; leaving hangs up."""
        with self._opened("POST", legacy(method, id, **params), self.fields()) as stream:
            yield stream

    @contextlib.contextmanager
    def got(self, last: str | None = None) -> Generator[Stream]:
        """The stand-alone stream, or one taken up again behind event `last`."""
        more = {} if last is None else {"last_event_id": last}
        headers = self.fields(accept="text/event-stream", **more)
        with self._opened("GET", b"", headers) as stream:
            yield stream

    @contextlib.contextmanager
    def _opened(self, method: str, body: bytes, headers: Mapping[str, str]) -> Generator[Stream]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, self.path, body, dict(headers))
            with connection.getresponse() as response:
                yield Stream(response)

"""Finding out what a URL speaks, against real servers over loopback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpgw.model.ports import UpstreamError
from mcpgw.upstream import connect
from mcpgw.upstream.connect import Found
from mcpgw.upstream.http1 import Client
from tests.doubles import PlainSecrets, server
from tests.servers.http_base import Exchange, HttpServer, running
from tests.servers.http_legacy import LegacyServer
from tests.servers.http_modern import ModernServer
from tests.servers.sse import SseServer

pytestmark = pytest.mark.anyio


async def outcome(far: HttpServer, **fields: Any) -> Found | UpstreamError:
    async with running(far) as url:
        client = Client(url)
        one = server("s", **{"transport": "auto", "url": far.url, "command": (), **fields})
        try:
            return await connect.probe(one, client, PlainSecrets({"env:T": "t0p"}))
        except UpstreamError as error:
            return error
        finally:
            await client.aclose()


async def probed(far: HttpServer, **fields: Any) -> Found:
    found = await outcome(far, **fields)
    assert isinstance(found, Found), found
    return found


async def refused(far: HttpServer, **fields: Any) -> UpstreamError:
    error = await outcome(far, **fields)
    assert isinstance(error, UpstreamError)
    return error


class Scripted(HttpServer):
    """Answers by JSON-RPC method, or `GET`: a status, or a status and a body."""

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.table = answers

    async def script(self, exchange: Exchange) -> None:
        name = (exchange.rpc or exchange.method).replace("/", "_")
        status, kind, body = self.table.get(name, (404, "text/plain", ""))
        if not isinstance(body, str):
            body = json.dumps({"jsonrpc": "2.0", "id": 1, **body})
        await exchange.respond(status, body.encode(), kind)


def error(code: int, data: Any = None, status: int = 400) -> tuple[int, str, Any]:
    told = {"code": code, "message": "no", **({} if data is None else {"data": data})}
    return status, "application/json", {"error": told}


INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x"}}
LEGACY = (200, "application/json", {"result": INITIALIZED})


async def test_a_modern_server_is_known_by_one_question() -> None:
    far = ModernServer()

    found = await probed(far)

    assert found.era == "modern"
    assert found.info is not None
    assert found.info.instructions == "Be kind."
    assert len(far.seen) == 1


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_legacy_server_is_known_and_its_session_ended(revision: str) -> None:
    far = LegacyServer(revision=revision)

    assert (await probed(far)).era == "legacy"
    assert far.minted == 1
    assert far.sessions == set()


async def test_an_event_stream_server_is_known() -> None:
    class Bare(SseServer):
        async def script(self, exchange: Exchange) -> None:
            if exchange.method == "GET":
                await super().script(exchange)
            else:
                await exchange.respond(405)

    assert await probed(Bare()) == Found("sse")


async def test_a_transport_that_was_set_is_believed() -> None:
    far = SseServer()
    assert await probed(far, transport="sse") == Found("sse")
    assert far.seen == []

    failure = await refused(SseServer(), transport="http")
    assert "405" in failure.message


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32000, -32022])
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_any_error_that_is_not_modern_leads_to_initialize(code: int, status: int) -> None:
    data = {"supported": ["2025-06-18"]} if code == -32022 else None
    far = Scripted(server_discover=error(code, data, status), initialize=LEGACY)

    assert (await probed(far)).era == "legacy"


async def test_a_modern_server_of_another_revision_says_so() -> None:
    far = Scripted(server_discover=error(-32022, {"supported": ["2099-01-01"]}))

    failure = await refused(far)

    assert "2099-01-01" in failure.message
    assert len(far.seen) == 1


class Picky(ModernServer):
    """Refuses the revision of the first questions, and names it as supported."""

    refusals = 1

    async def script(self, exchange: Exchange) -> None:
        if exchange.rpc == "server/discover" and self.refusals:
            self.refusals -= 1
            told = {"supported": ["2025-11-25", "2026-07-28"], "requested": "2026-07-28"}
            await exchange.error(-32022, "no", told, 400)
        else:
            await super().script(exchange)


async def test_a_server_that_names_the_revision_it_refused_is_asked_again() -> None:
    far = Picky()

    assert (await probed(far)).era == "modern"
    assert len(far.seen) == 2


async def test_a_server_is_not_asked_a_third_time() -> None:
    far = Picky()
    far.refusals = 9

    await refused(far)

    assert [seen.rpc for seen in far.seen].count("server/discover") == 2


async def test_a_modern_refusal_is_no_legacy_server() -> None:
    far = Scripted(server_discover=error(-32020), initialize=LEGACY)

    assert "refused server/discover" in (await refused(far)).message


@pytest.mark.parametrize("method", ["server_discover", "initialize"])
@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_prove_nothing(method: str, status: int) -> None:
    far = Scripted(**{method: (status, "text/plain", "s3cret")})

    failure = await refused(far, auth="bearer", secret="env:T")

    assert (failure.stage, failure.permanent) == ("auth", False)
    assert failure.message == f"refused the credentials ({status})"
    assert far.seen[0].headers["authorization"] == "Bearer t0p"


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_trouble_of_the_server_proves_nothing(status: int) -> None:
    far = Scripted(server_discover=(status, "text/html", "<p>"), initialize=LEGACY)

    assert str(status) in (await refused(far)).message
    assert len(far.seen) == 1


async def test_a_web_page_is_named_as_one() -> None:
    far = Scripted(server_discover=(200, "text/html; charset=utf-8", "<html>"))

    assert (await refused(far)).message == "answered text/html, not MCP: is the URL right?"


async def test_a_web_page_behind_404_is_named_as_one() -> None:
    far = Scripted(GET=(200, "text/html", "<html>"))

    assert "text/html, not MCP" in (await refused(far)).message


async def test_a_redirect_is_not_followed_but_told() -> None:
    class Moved(HttpServer):
        async def script(self, exchange: Exchange) -> None:
            await exchange.respond(307, headers={"location": "https://new.example/mcp"})

    failure = await refused(Moved())

    assert "https://new.example/mcp" in failure.message


async def test_nothing_there_at_all() -> None:
    failure = await refused(HttpServer())

    assert failure.stage == "handshake"
    assert "404" in failure.message


async def test_a_port_where_nobody_listens() -> None:
    client = Client("http://127.0.0.1:9")
    one = server("s", transport="auto", url="http://127.0.0.1:9/mcp", command=())
    with pytest.raises(UpstreamError) as caught:
        await connect.probe(one, client, PlainSecrets())

    assert caught.value.stage == "connect"
    await client.aclose()


async def test_a_server_that_does_not_answer_the_first_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "PROBE_WAIT", 0.3)

    class Deaf(Scripted):
        async def script(self, exchange: Exchange) -> None:
            if exchange.rpc == "server/discover":
                await exchange.gone()
            else:
                await super().script(exchange)

    assert (await probed(Deaf(initialize=LEGACY))).era == "legacy"


async def test_a_refused_initialize_is_told() -> None:
    failure = await refused(Scripted(initialize=error(-32602, status=200)))

    assert failure.message == "refused initialize: no"


def test_an_origin_is_cut_from_a_url() -> None:
    assert connect.origin("https://user:pw@h:1/a?b") == "https://h:1"
    with pytest.raises(UpstreamError):
        connect.origin("ftp://h")
    with pytest.raises(UpstreamError):
        connect.origin(None)

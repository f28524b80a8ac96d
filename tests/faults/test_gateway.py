"""What a caller hears when the line between gateway and server fails; others are not harmed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from tests.contract.house import House, serving
from tests.faults.cutting import Proxy, cutting
from tests.jsontext import members
from tests.rawclient import Heard, RawClient
from tests.servers.raw import RawServer, playing

pytestmark = pytest.mark.anyio
KINDS = ["http modern", "http legacy", "stdio legacy", "sse"]
IN_TIME = 10.0  # seconds until every call has its answer


@asynccontextmanager
async def town(kind: Any) -> AsyncGenerator[tuple[House, Proxy, RawServer]]:
    """A server behind a proxy, and another that is reached directly."""
    async with playing(kind) as raw, cutting(raw.port) as proxy, playing("sse", "two") as good:
        raw.port = proxy.port
        async with serving(raw, good) as house:
            yield house, proxy, raw


async def call(client: RawClient, server: str) -> Heard:
    name = f'"{server}__t"'.encode()
    with anyio.fail_after(IN_TIME):
        return await client.call("tools/call", ((b'"name"', name), (b'"arguments"', b"{}")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 40, 120])
async def test_a_line_that_is_cut_is_told_and_comes_back(kind: Any, cut: int) -> None:
    async with (
        town(kind) as (house, proxy, raw),
        house.client("http modern", one=False) as client,
        house.client("http modern", "bob", one=False) as other,
    ):
        for who in (client, other):
            assert "result" in (await call(who, "one")).answer
            assert "result" in (await call(who, "two")).answer
        seen = len(raw.seen)
        proxy.cut = cut
        heard = await call(client, "one")
        if "result" not in heard.answer:  # the cut may fall behind the answer
            error = members(heard.answer["error"])
            assert error["code"] == b"-32000"
            assert b'server \\"one\\"' in error["message"]
        assert len(raw.seen) <= seen + 1  # never run twice
        assert "result" in (await call(other, "two")).answer
        with anyio.fail_after(IN_TIME):
            while "result" not in (await call(client, "one")).answer:  # noqa: ASYNC110
                await anyio.sleep(0.05)  # the link comes back after its first rest


@pytest.mark.parametrize("kind", KINDS)
async def test_a_line_that_drips_is_slow_and_no_more(kind: Any) -> None:
    async with town(kind) as (house, proxy, _), house.client("http modern", one=False) as client:
        proxy.step = 1
        assert "result" in (await call(client, "one")).answer
        proxy.step, proxy.delay = 65536, 0.05
        assert "result" in (await call(client, "one")).answer
        assert "result" in (await call(client, "two")).answer

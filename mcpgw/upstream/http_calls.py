"""What both eras of Streamable HTTP share: an endpoint, its patience, its streams, its refusals.

A call is one POST whose answer is JSON or a stream of its own. Because the stream belongs to one
call, whoever reads it may wait for its caller: TCP then slows the server down, and nobody else.
"""

from __future__ import annotations

import asyncio
import http
from collections import deque
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from mcpgw.core import wire
from mcpgw.core.eras import LOG_LEVELS, TIMED_OUT, WAITS
from mcpgw.core.outbound import failed
from mcpgw.core.references import is_reference
from mcpgw.core.sse import Decoder, Event, StreamError
from mcpgw.model.calls import Call, Context, Log, Note, RpcError
from mcpgw.model.config import Server
from mcpgw.model.ports import Secrets, UpstreamError
from mcpgw.upstream import auth
from mcpgw.upstream.http1 import Client, HttpError, Response

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
ACCEPT: Final = f"{JSON}, {EVENTS}"

LONGEST: Final = 86_400.0  # seconds for a method that waits for something else to end
HANDSHAKE: Final = 30.0  # seconds to agree on a revision, however long calls may take
QUIET: Final = 600.0  # seconds a listening stream may be silent before it counts as lost
MAX_REFUSAL: Final = 256 * 1024  # bytes that are read of a body that comes with an error status
REFUSAL_TIME: Final = 5.0  # seconds for the same
BACKOFF: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a lost stream is opened again
STEADY: Final = 5.0  # seconds after which a stream that ends did not just fail to open

IDEMPOTENT: Final = frozenset(
    {
        "server/discover",
        "initialize",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    }
)
"""Methods that may be sent again when a kept connection proves dead: they change nothing."""

Fields = list[tuple[str, str]]
T = TypeVar("T")


def ignore(note: Note) -> None:
    """For links whose stray notes nobody wants."""


class Peer:
    """One server's endpoint: the client, the target, and the fields of every request."""

    __slots__ = ("_fields", "_secrets", "_volatile", "client", "server", "target")

    def __init__(self, server: Server, client: Client, secrets: Secrets) -> None:
        self.server = server
        self.client = client
        parts = urlsplit(server.url or "")
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secrets = secrets
        self._fields: Fields | None = None
        told = (*server.headers.values(), server.secret or "")
        # What a reference names may change while the link lives; the resolver looks for that.
        self._volatile = any(is_reference(one) and not one.startswith("env:") for one in told)

    def fields(self) -> Fields:
        """Credentials and static fields. Not to be changed. Raises UpstreamError (auth)."""
        fields = self._fields
        if fields is None or self._volatile:
            fields = self._fields = auth.headers(self.server, self._secrets)
        return fields

    def forwarded(self, ctx: Context) -> Fields:
        return auth.forwarded(self.server, ctx) if self.server.forward_headers else []

    def patience(self, call: Call | None = None) -> Patience:
        if call is None:
            return Patience(self.server, self.server.timeout, None)
        idle = LONGEST if call.method in WAITS else self.server.timeout
        return Patience(self.server, idle, call.ctx.deadline)

    async def send(
        self,
        method: str,
        fields: Iterable[tuple[str, str]],
        body: bytes,
        patience: Patience,
        *,
        idempotent: bool = False,
    ) -> Response:
        """The response once its headers are there. Raises UpstreamError, RpcError when late."""
        left = patience.left()
        try:
            return await self.client.request(
                method, self.target, fields, body, timeout=left, idempotent=idempotent
            )
        except HttpError as error:
            raise patience.reason(error) from error

    async def read(self, response: Response, patience: Patience) -> bytes:
        """The whole body. Raises UpstreamError, RpcError when late."""
        try:
            return await response.read(timeout=patience.left())
        except HttpError as error:
            raise patience.reason(error) from error

    async def refusal(self, response: Response) -> RpcError | UpstreamError:
        """What a response stands for that is neither JSON nor a stream of a success."""
        status = response.status
        body = b""
        try:
            if status >= 400 and media_type(response) == JSON:
                body = await response.read(limit=MAX_REFUSAL, timeout=REFUSAL_TIME)
        except HttpError:
            pass
        finally:
            await response.aclose()
        if status in auth.REFUSALS:
            self._fields = None
            return auth.refused(status)
        return _rpc_error(body) or UpstreamError("read", _explained(response))


class Patience:
    """Until when one call is waited for: so long without progress, and the caller's deadline."""

    __slots__ = ("_deadline", "_held", "_idle", "_loop", "_server", "_timer", "until")

    def __init__(self, server: Server, idle: float, deadline: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._idle = idle
        self._deadline = deadline
        self._held = 0
        self._timer: asyncio.Timeout | None = None
        self.until: float | None = self._loop.time() + idle
        if deadline is not None and deadline < self.until:
            self.until = deadline

    def left(self) -> float:
        """Seconds left. Raises RpcError when there are none."""
        if self.until is None:
            return self._idle
        left = self.until - self._loop.time()
        if left <= 0:
            raise self.late()
        return left

    def more(self) -> None:
        """There was a sign of progress: the time without any starts again."""
        if not self._held:
            until = self._loop.time() + self._idle
            self._set(until if self._deadline is None else min(until, self._deadline))

    def hold(self) -> None:
        """Somebody is being asked: a person takes the time it takes, within the deadline."""
        self._held += 1
        self._set(self._deadline)

    def release(self) -> None:
        self._held -= 1
        self.more()

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`. Raises RpcError when the patience ends before it comes."""
        try:
            async with asyncio.timeout_at(self.until) as self._timer:
                return await awaitable
        except TimeoutError:
            raise self.late() from None
        finally:
            self._timer = None

    def late(self) -> RpcError:
        name = self._server.name
        data = wire.dump({"server": name, "stage": "read"})
        over = self._deadline is not None and self._loop.time() >= self._deadline
        within = "before the call's deadline" if over else f"within {self._idle:g} s"
        return RpcError(TIMED_OUT, f'server "{name}" did not answer {within}', data)

    def reason(self, error: HttpError) -> RpcError | UpstreamError:
        """Why an exchange failed: too late, or what the client says."""
        if self.until is not None and self._loop.time() >= self.until:
            return self.late()
        reached = error.stage in ("send", "read")
        what = "went away before it answered" if reached else "cannot be reached"
        return UpstreamError(error.stage, f"{what}: {error.message}")

    async def aside(self, work: Awaitable[None]) -> None:
        """Await what the server has no part in: the time that takes does not count."""
        began = self._loop.time()
        await work
        if self.until is not None:
            until = self.until + self._loop.time() - began
            self._set(until if self._deadline is None else min(until, self._deadline))

    def _set(self, until: float | None) -> None:
        self.until = until
        if self._timer is not None:
            self._timer.reschedule(until)


class Events:
    """The events of one response. It ends as None, whether the server closed it or it broke.

    closed: the server ended it in good order. why: for people.
    """

    __slots__ = ("_decoder", "_ready", "_response", "closed", "why")

    def __init__(self, response: Response) -> None:
        self._response = response
        self._decoder = Decoder()
        self._ready: deque[Event] = deque()
        self.closed = False
        self.why = "the stream ended"

    @property
    def last_id(self) -> str:
        """The id to resume from; "" when the server gave none."""
        return self._decoder.last_id

    @property
    def retry(self) -> int | None:
        """Milliseconds the server wants to pass before the stream is opened again."""
        return self._decoder.retry

    async def next(self, patience: Patience) -> Event | None:
        """The next event, None at the end. Raises RpcError when the patience ends."""
        while not self._ready:
            try:
                chunk = await patience.wait(anext(self._response.chunks(), None))
                if chunk is None:
                    self.closed = True
                    return None
                self._ready.extend(self._decoder.feed(chunk))
            except HttpError as error:
                self.why = error.message
                return None
            except StreamError as error:
                raise UpstreamError("read", f"sent {error}") from error
        return self._ready.popleft()

    async def quiet(self, seconds: float) -> Event | None:
        """The next event of a stream that may be silent for `seconds`; None at the end.

        Comments count as signs of life.
        """
        while not self._ready:
            try:
                async with asyncio.timeout(seconds):
                    chunk = await anext(self._response.chunks(), None)
                if chunk is None:
                    return None
                self._ready.extend(self._decoder.feed(chunk))
            except TimeoutError:
                self.why = f"the stream was silent for {seconds:g} s"
                return None
            except HttpError as error:
                self.why = error.message
                return None
            except StreamError as error:
                self.why = str(error)
                return None
        return self._ready.popleft()

    async def finish(self) -> None:
        """The answer was read: keep the connection if the stream's end comes right behind it."""
        await asyncio.sleep(0)
        await self._response.aclose()

    async def close(self) -> None:
        await self._response.aclose()


def is_message(event: Event) -> bool:
    """Whether an event carries a message: others only say that the stream is alive."""
    return bool(event.data) and event.event == "message"


def media_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def parsed(body: bytes) -> wire.Message:
    """One message. Raises UpstreamError when it is none."""
    try:
        return wire.parse(body)
    except wire.BadMessage as error:
        raise UpstreamError("read", f"answered what is no MCP message: {error.message}") from error


def hears(ctx: Context, note: Log) -> bool:
    """Whether the caller asked for log messages of this level."""
    wanted = ctx.log_level
    if wanted is None:
        return False
    return note.level not in LOG_LEVELS or LOG_LEVELS.index(note.level) >= LOG_LEVELS.index(wanted)


def lost(server: Server, why: str) -> RpcError:
    """A stream ended without the answer, so nobody knows whether the call was carried out."""
    return failed(server.name, UpstreamError("read", f"went away before it answered: {why}"))


def token_of(call: Call, id: int) -> int | None:
    """The progress token of a request: its id, which is unique as well."""
    return id if call.wants_progress else None


def _rpc_error(body: bytes) -> RpcError | None:
    if not body:
        return None
    try:
        message = wire.parse(body)
    except wire.BadMessage:
        return None
    return message.error if isinstance(message, wire.Response) else None


def _explained(response: Response) -> str:
    status, kind = response.status, media_type(response)
    if 300 <= status < 400:
        place = urlsplit(response.headers.get("location", ""))
        where = f"{place.scheme}://{place.netloc.rpartition('@')[2]}" if place.netloc else ""
        return f"redirects to {where}{place.path}, which is not followed: use that URL"
    if status in (404, 405):
        return f"has no MCP endpoint at its URL ({status})"
    if status >= 400:
        try:
            phrase = f" {http.HTTPStatus(status).phrase}"
        except ValueError:
            phrase = ""
        return f"answered {status}{phrase}"
    if status == 202:
        return "accepted the request (202) and answered nothing"
    if status == 200:
        return f"answered {kind or 'without a content type'} instead of MCP: is the URL right?"
    return f"answered {status} to a request"

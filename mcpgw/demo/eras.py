"""The two eras of MCP as small servers see them, without I/O: a message in, the answer out.

`Session` is one client's conversation with a handshake server (up to 2025-11-25); `stateless`
answers one self-contained request of 2026-07-28. Both are exactly of their era: a request of the
other one is refused as the specification says.
"""

from __future__ import annotations

from mcpgw import __version__
from mcpgw.core.eras import (
    CACHEABLE,
    CLIENT_CAPABILITIES,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LATEST,
    LEGACY,
    MODERN,
    PROTOCOL_VERSION,
    SERVER_INFO,
    SUBSCRIPTION_ID,
    UNSUPPORTED_VERSION,
)
from mcpgw.demo.offers import Json, Refused, answer, capabilities, fields

LIST_TTL = 60_000  # milliseconds a client may keep a list; these never change


def implementation(name: str) -> Json:
    return {"name": name, "version": __version__}


def result(message: Json, content: Json) -> Json:
    return {"jsonrpc": "2.0", "id": message["id"], "result": content}


def error(message: object, refused: Refused) -> Json:
    body: Json = {"code": refused.code, "message": refused.message}
    if refused.data is not None:
        body["data"] = refused.data
    return {"jsonrpc": "2.0", "id": fields(message).get("id"), "error": body}


class Session:
    """A handshake conversation. `revision`: the newest one this server speaks."""

    def __init__(self, name: str, revision: str) -> None:
        self.name = name
        self.newest = revision
        self.revision = revision
        self.open = False

    def receive(self, message: object) -> Json | None:
        """The response to a request; None for a notification or a response."""
        try:
            return self._receive(message)
        except Refused as refused:
            return error(message, refused)

    def _receive(self, message: object) -> Json | None:
        request = _request(message)
        if request is None:
            return None
        method, params = request["method"], _params(request)
        if method == "initialize":
            return result(request, self._initialize(params))
        if method == "ping":
            return result(request, {})
        if not self.open:
            raise Refused(INVALID_REQUEST, "initialize comes first")
        return result(request, answer(method, params, revision=self.revision, name=self.name))

    def _initialize(self, params: Json) -> Json:
        """Echo the wanted revision when it is one of ours, else offer the newest."""
        ours = LEGACY[: LEGACY.index(self.newest) + 1]
        wanted = params.get("protocolVersion")
        self.revision = wanted if wanted in ours else self.newest
        self.open = True
        return {
            "protocolVersion": self.revision,
            "capabilities": capabilities(),
            "serverInfo": implementation(self.name),
            "instructions": f"A demo server of mcpgw ({self.name}).",
        }


def stateless(name: str, message: object) -> Json | None:
    """Answer one message of 2026-07-28; None for a notification. Raises Refused.

    A subscription gets its acknowledgement, and nothing more for as long as it lasts: what
    these servers offer never changes.
    """
    request = _request(message)
    if request is None:
        return None
    method, params = request["method"], _params(request)
    _check_meta(fields(params.get("_meta")))
    if method == "server/discover":
        content: Json = {
            "supportedVersions": list(MODERN),
            "capabilities": capabilities(),
            "instructions": f"A demo server of mcpgw ({name}).",
        }
    elif method == "subscriptions/listen":
        return _acknowledgement(request)
    else:
        content = answer(method, params, revision=LATEST, name=name)
    if method in CACHEABLE:
        content = {**content, "ttlMs": LIST_TTL, "cacheScope": "public"}
    told = {SERVER_INFO: implementation(name)}
    return result(request, {**content, "resultType": "complete", "_meta": told})


def _acknowledgement(request: Json) -> Json:
    meta = {SUBSCRIPTION_ID: request["id"]}
    params: Json = {"_meta": meta, "notifications": {}}
    method = "notifications/subscriptions/acknowledged"
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _check_meta(meta: Json) -> None:
    for key in (PROTOCOL_VERSION, CLIENT_CAPABILITIES):
        if key not in meta:
            raise Refused(INVALID_PARAMS, f"_meta lacks {key}", http_status=400)
    wanted = meta[PROTOCOL_VERSION]
    if wanted not in MODERN:
        data: Json = {"supported": list(MODERN), "requested": wanted}
        raise Refused(UNSUPPORTED_VERSION, "Unsupported version", data=data, http_status=400)


def _request(message: object) -> Json | None:
    """The message when it is a request; None for a notification or a response."""
    request = fields(message)
    if not isinstance(message, dict):
        raise Refused(INVALID_REQUEST, "not a JSON-RPC message", http_status=400)
    if "id" not in request or "method" not in request:
        return None
    if not isinstance(request["method"], str) or not isinstance(request["id"], (str, int)):
        raise Refused(INVALID_REQUEST, "not a JSON-RPC request", http_status=400)
    return request


def _params(request: Json) -> Json:
    params: object = request.get("params", {})
    if not isinstance(params, dict):
        raise Refused(INVALID_PARAMS, "params is not an object")
    return request.get("params", {})

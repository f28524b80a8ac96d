"""What every demo server offers: two tools, a prompt and a resource, in the words of any revision.

Pure: a method and its params in, a result out. The eras around it are `mcpgw.demo.eras`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from mcpgw.core.eras import INVALID_PARAMS, METHOD_NOT_FOUND, STRUCTURED_CONTENT

Json: TypeAlias = dict[str, Any]
"""A JSON object, decoded whole: these servers are small and understand all they get."""

ABOUT = "demo://about"

_NUMBER: Json = {"type": "number"}
_ADD: Json = {
    "name": "add",
    "description": "Add two numbers.",
    "inputSchema": {
        "type": "object",
        "properties": {"a": _NUMBER, "b": _NUMBER},
        "required": ["a", "b"],
    },
}
_SUM: Json = {"type": "object", "properties": {"sum": _NUMBER}, "required": ["sum"]}
_ECHO: Json = {
    "name": "echo",
    "description": "Give back what was said.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
}
_GREET: Json = {
    "name": "greet",
    "description": "Greet somebody.",
    "arguments": [{"name": "who", "description": "Whom to greet", "required": True}],
}


class Refused(Exception):
    """A JSON-RPC error. http_status: what the HTTP transport of 2026-07-28 answers with."""

    def __init__(
        self, code: int, message: str, *, data: Json | None = None, http_status: int = 200
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.http_status = http_status


def fields(value: object) -> Json:
    """The value when it is an object; an empty one when it is anything else."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def capabilities() -> Json:
    return {"tools": {}, "prompts": {}, "resources": {}}


def answer(method: str, params: Json, *, revision: str, name: str) -> Json:
    """The result of one request that means the same in every revision. Raises Refused."""
    match method:
        case "tools/call":
            return _call(params, revision)
        case "prompts/get":
            return _greeting(params)
        case "resources/read":
            return _read(params, revision, name)
        case _:
            return _list(method, revision)


def _list(method: str, revision: str) -> Json:
    match method:
        case "tools/list":
            return {"tools": _tools(revision)}
        case "prompts/list":
            return {"prompts": [_GREET]}
        case "resources/list":
            about = {"uri": ABOUT, "name": "about", "mimeType": "text/plain"}
            return {"resources": [about]}
        case "resources/templates/list":
            return {"resourceTemplates": []}
        case _:
            raise Refused(METHOD_NOT_FOUND, f"Method not found: {method}", http_status=404)


def _tools(revision: str) -> list[Json]:
    if revision not in STRUCTURED_CONTENT:
        return [_ADD, _ECHO]
    hints = {"annotations": {"readOnlyHint": True, "openWorldHint": False}}
    return [{**_ADD, "title": "Add", "outputSchema": _SUM, **hints}, {**_ECHO, **hints}]


def _call(params: Json, revision: str) -> Json:
    arguments = fields(params.get("arguments"))
    match params.get("name"):
        case "add":
            a, b = arguments.get("a"), arguments.get("b")
            if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
                return {**_text("a and b must be numbers"), "isError": True}
            told = {"structuredContent": {"sum": a + b}} if revision in STRUCTURED_CONTENT else {}
            return {**_text(str(a + b)), **told}
        case "echo":
            return _text(str(arguments.get("text", "")))
        case other:
            raise Refused(INVALID_PARAMS, f"Unknown tool: {other}")


def _text(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def _greeting(params: Json) -> Json:
    if params.get("name") != "greet":
        raise Refused(INVALID_PARAMS, f"Unknown prompt: {params.get('name')}")
    who = fields(params.get("arguments")).get("who", "you")
    content = {"type": "text", "text": f"Say hello to {who}."}
    return {"messages": [{"role": "user", "content": content}]}


def _read(params: Json, revision: str, name: str) -> Json:
    if params.get("uri") != ABOUT:
        raise Refused(INVALID_PARAMS, "Resource not found", data={"uri": params.get("uri")})
    told = f"{name}: a demo server of mcpgw that speaks MCP {revision}."
    return {"contents": [{"uri": ABOUT, "mimeType": "text/plain", "text": told}]}

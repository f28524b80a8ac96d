"""What the conformance upstream's tools do, as the suite's scenarios name and describe them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import mcp_types as t
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

PNG = (  # 1x1, red
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA=="  # 8 kHz, mono, one sample
EMPTY: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def text(value: str) -> t.TextContent:
    return t.TextContent(type="text", text=value)


def image() -> t.ImageContent:
    return t.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, mime: str, body: str) -> t.EmbeddedResource:
    return t.EmbeddedResource(
        type="resource", resource=t.TextResourceContents(uri=uri, mime_type=mime, text=body)
    )


def obj(required: str, kind: str = "string") -> dict[str, Any]:
    return {"type": "object", "properties": {required: {"type": kind}}, "required": [required]}


def ask(message: str, schema: dict[str, Any]) -> t.ElicitRequest:
    return t.ElicitRequest(
        params=t.ElicitRequestFormParams(message=message, requested_schema=schema)
    )


def sample(prompt: str, max_tokens: int) -> t.CreateMessageRequest:
    return t.CreateMessageRequest(
        params=t.CreateMessageRequestParams(
            messages=[t.SamplingMessage(role="user", content=text(prompt))], max_tokens=max_tokens
        )
    )


@dataclass
class Call:
    """One tools/call or prompts/get: the request context and what the client sent with it."""

    ctx: Any
    args: dict[str, Any]
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    state: str | None = None

    @property
    def caps(self) -> t.ClientCapabilities:
        return self.ctx.session.client_capabilities or t.ClientCapabilities()

    async def log(self, message: str) -> None:
        await self.ctx.session.send_log_message(
            "info", message, related_request_id=self.ctx.request_id
        )

    async def elicit(self, message: str, schema: dict[str, Any]) -> str:
        if self.caps.elicitation is None:
            raise ValueError("the client did not declare elicitation")
        r = await self.ctx.session.elicit_form(
            message, schema, related_request_id=self.ctx.request_id
        )
        return f"action={r.action}, content={json.dumps(r.content or {})}"

    def field(self, key: str, name: str) -> Any:
        """The value `name` of an accepted elicitation answer, else None."""
        a = self.answers.get(key)
        return a.content.get(name) if isinstance(a, t.ElicitResult) and a.content else None


Result = str | list[Any] | t.CallToolResult | t.InputRequiredResult
TOOLS: dict[str, tuple[t.Tool, Callable[[Call], Awaitable[Result]]]] = {}


Work = Callable[[Call], Awaitable[Result]]


def tool(name: str, description: str, schema: dict[str, Any] = EMPTY) -> Callable[[Work], Work]:
    def register(fn: Work) -> Work:
        TOOLS[name] = (t.Tool(name=name, description=description, input_schema=schema), fn)
        return fn

    return register


# ------------------------------------------------------------ plain results


@tool("test_simple_text", "Returns one text")
async def _(c: Call) -> Result:
    return "This is a simple text response for testing."


@tool("test_image_content", "Returns one image")
async def _(c: Call) -> Result:
    return [image()]


@tool("test_audio_content", "Returns one audio clip")
async def _(c: Call) -> Result:
    return [t.AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@tool("test_embedded_resource", "Returns one embedded resource")
async def _(c: Call) -> Result:
    return [
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ]


@tool("test_multiple_content_types", "Returns text, an image and a resource")
async def _(c: Call) -> Result:
    return [
        text("Multiple content types test:"),
        image(),
        embedded(
            "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
        ),
    ]


@tool("test_error_handling", "Always fails")
async def _(c: Call) -> Result:
    raise ValueError("This tool intentionally returns an error for testing")


# ------------------------------------------------------------ notes and questions to the client


async def log_thrice(c: Call) -> Result:
    for i, message in enumerate(
        ("Tool execution started", "Tool processing data", "Tool execution completed")
    ):
        if i:
            await asyncio.sleep(0.05)
        await c.log(message)
    return "logged"


tool("test_tool_with_logging", "Logs three messages while it runs")(log_thrice)
tool("test_logging_tool", "Logs; at 2026-07-28 only if the request asked for logs")(log_thrice)


@tool("test_tool_with_progress", "Reports progress 0, 50 and 100 of 100")
async def _(c: Call) -> Result:
    for i, done in enumerate((0, 50, 100)):
        if i:
            await asyncio.sleep(0.05)
        await c.ctx.session.report_progress(done, 100, f"{done} of 100")
    return "done"


@tool("test_sampling", "Asks the client's model", obj("prompt"))
async def _(c: Call) -> Result:
    if c.caps.sampling is None:
        raise ValueError("the client did not declare sampling")
    r = await c.ctx.session.create_message(
        [t.SamplingMessage(role="user", content=text(c.args["prompt"]))],
        max_tokens=100,
        related_request_id=c.ctx.request_id,
    )
    return f"LLM response: {getattr(r.content, 'text', '(not text)')}"


@tool("test_elicitation", "Asks the user", obj("message"))
async def _(c: Call) -> Result:
    schema = {
        "type": "object",
        "properties": {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        },
        "required": ["username", "email"],
    }
    return "User response: " + await c.elicit(c.args["message"], schema)


@tool("test_elicitation_sep1034_defaults", "Asks the user; every primitive has a default")
async def _(c: Call) -> Result:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {
                "type": "string",
                "enum": ["active", "inactive", "pending"],
                "default": "active",
            },
            "verified": {"type": "boolean", "default": True},
        },
    }
    return "Elicitation completed: " + await c.elicit("Please review the defaults", schema)


@tool("test_elicitation_sep1330_enums", "Asks the user; five kinds of enumeration")
async def _(c: Call) -> Result:
    plain = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{i}", "title": f"{n} Choice"}
        for i, n in enumerate(("First", "Second", "Third"), 1)
    ]
    schema = {
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2"],
                "enumNames": ["Option One", "Option Two"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        },
    }
    return "Elicitation completed: " + await c.elicit("Please choose", schema)


@tool("test_reconnection", "Closes its SSE stream while it runs; the rest is replayed (SEP-1699)")
async def _(c: Call) -> Result:
    await c.log("before the disconnect")
    if c.ctx.close_sse_stream:
        await c.ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    await c.log("after the reconnect")
    return "Reconnection test completed"


# ------------------------------------------------------------ JSON Schema, headers, capabilities


@tool(
    "json_schema_2020_12_tool",
    "Its schema uses the JSON Schema 2020-12 vocabulary",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def _(c: Call) -> Result:
    return json.dumps(c.args, sort_keys=True)


@tool(
    "test_x_mcp_header",
    "One argument is mirrored in the header Mcp-Param-Region (SEP-2243)",
    {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
)
async def _(c: Call) -> Result:
    return f"region={c.args.get('region')}"


@tool("test_missing_capability", "Needs the client's sampling capability")
async def _(c: Call) -> Result:
    if c.caps.sampling is None:
        raise MCPError(
            code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="This tool needs the client capability 'sampling'",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return "the client declared sampling"


# ------------------------------------------------------------ input required (SEP-2322)


@tool("test_input_required_result_elicitation", "Needs one elicitation")
async def _(c: Call) -> Result:
    name = c.field("user_name", "name")
    if name is not None:
        return f"Hello, {name}!"
    return t.InputRequiredResult(
        input_requests={"user_name": ask("What is your name?", obj("name"))}
    )


@tool("test_streaming_elicitation", "Needs one elicitation after a progress report")
async def _(c: Call) -> Result:
    await c.ctx.session.report_progress(1, 2)
    name = c.field("user_name", "name")
    if name is not None:
        return f"Hello, {name}!"
    return t.InputRequiredResult(
        input_requests={"user_name": ask("What is your name?", obj("name"))}
    )


@tool("test_input_required_result_sampling", "Needs one model answer")
async def _(c: Call) -> Result:
    a = c.answers.get("capital_question")
    if isinstance(a, t.CreateMessageResult):
        return f"The model said: {getattr(a.content, 'text', '(not text)')}"
    return t.InputRequiredResult(
        input_requests={"capital_question": sample("What is the capital of France?", 100)}
    )


@tool("test_input_required_result_list_roots", "Needs the client's roots")
async def _(c: Call) -> Result:
    a = c.answers.get("client_roots")
    if isinstance(a, t.ListRootsResult):
        return "Roots: " + ", ".join(str(r.uri) for r in a.roots)
    return t.InputRequiredResult(input_requests={"client_roots": t.ListRootsRequest()})


@tool("test_input_required_result_request_state", "Needs a confirmation and its own state back")
async def _(c: Call) -> Result:
    if c.state == "nonce-1" and "confirm" in c.answers:
        return "state-ok"
    return t.InputRequiredResult(
        input_requests={"confirm": ask("Please confirm", obj("ok", "boolean"))},
        request_state="nonce-1",
    )


@tool(
    "test_input_required_result_multiple_inputs",
    "Needs an elicitation, a model answer and the roots",
)
async def _(c: Call) -> Result:
    wanted: dict[str, Any] = {
        "user_name": ask("What is your name?", obj("name")),
        "greeting": sample("Generate a greeting", 50),
        "client_roots": t.ListRootsRequest(),
    }
    if wanted.keys() <= c.answers.keys():
        return "all inputs received"
    return t.InputRequiredResult(input_requests=wanted, request_state="multiple")


@tool("test_input_required_result_multi_round", "Needs two elicitations, one after the other")
async def _(c: Call) -> Result:
    state: dict[str, Any] = json.loads(c.state) if c.state else {}
    if state.get("round") == 2 and (color := c.field("step2", "color")) is not None:
        return f"{state['name']} likes {color}"
    if state.get("round") == 1 and (name := c.field("step1", "name")) is not None:
        return t.InputRequiredResult(
            input_requests={"step2": ask("Step 2: What is your favorite color?", obj("color"))},
            request_state=json.dumps({"round": 2, "name": name}),
        )
    return t.InputRequiredResult(
        input_requests={"step1": ask("Step 1: What is your name?", obj("name"))},
        request_state=json.dumps({"round": 1}),
    )


@tool(
    "test_input_required_result_tampered_state",
    "Its state is sealed by the SDK's request-state boundary",
)
async def _(c: Call) -> Result:
    if c.state is not None:
        return "state-ok"
    return t.InputRequiredResult(
        input_requests={"confirm": ask("Please confirm", obj("ok", "boolean"))},
        request_state="sealed",
    )


@tool("test_input_required_result_capabilities", "Asks only for what the client declared")
async def _(c: Call) -> Result:
    wanted: dict[str, Any] = {}
    if c.caps.sampling is not None:
        wanted["sample"] = sample("Say hello", 50)
    if c.caps.elicitation is not None:
        wanted["ask"] = ask("What is your name?", obj("name"))
    return t.InputRequiredResult(input_requests=wanted or None, request_state="capabilities")


# ------------------------------------------------------------ list changes

BUS = InMemorySubscriptionBus()


@tool("test_trigger_tool_change", "Announces a changed tool list")
async def _(c: Call) -> Result:
    await BUS.publish(ToolsListChanged())
    return "announced"


@tool("test_trigger_prompt_change", "Announces a changed prompt list")
async def _(c: Call) -> Result:
    await BUS.publish(PromptsListChanged())
    return "announced"

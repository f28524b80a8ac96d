"""A small MCP server on standard input and output, for tests: nothing but the standard library.

    python echo_stdio.py [--era legacy|modern|both] [--fault NAME]

Faults: `deaf` ignores what comes before initialize, `shy` exits on an unknown first request, `exit`
writes two lines on standard error and exits with status 3, `junk` writes noise on standard output,
`mute` never answers, `stubborn` ignores the end of input and SIGTERM, `family` starts a child of
its own that would live on, `greedy` never reads its input, `picky` refuses the revision of the
first question and names it as supported.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

META = "io.modelcontextprotocol/"
LOCK = threading.Lock()
COUNTS: dict[str, int] = {}
CANCELLED: list[object] = []
ANSWERS: dict[object, Json] = {}
ANSWERED = threading.Condition()
CHANGED = threading.Event()
LISTENING: dict[object, Json] = {}
SUBSCRIBED: list[str] = []
SAID: dict[str, object] = {}
FAULTS: dict[str, bool] = {}

TOOLS = ["echo", "counts", "slow", "progress", "ask", "log", "crash", "big", "env", "change", "say"]


def send(message: Json) -> None:
    with LOCK:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def note(method: str, **params: Any) -> None:
    send({"jsonrpc": "2.0", "method": method, "params": params})


def ask(method: str, params: Json) -> Json:
    id = f"q{COUNTS.setdefault('asks', 0)}"
    COUNTS["asks"] += 1
    send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    with ANSWERED:
        ANSWERED.wait_for(lambda: id in ANSWERS, 30)
    return ANSWERS.pop(id, {})


def text(content: str, **more: Any) -> Json:
    return {"content": [{"type": "text", "text": content}], **more}


def call(name: str, arguments: Json, id: object, params: Json) -> Json:
    token = params.get("_meta", {}).get("progressToken")
    if name == "echo":
        return text(str(arguments.get("text", "")), echoed=params)
    if name == "counts":
        told = {**COUNTS, "cancelled": len(CANCELLED), "subscribed": SUBSCRIBED, **SAID}
        return text(json.dumps(told))
    if name == "slow":
        limit = time.monotonic() + arguments.get("seconds", 30)
        while time.monotonic() < limit and id not in CANCELLED:
            time.sleep(0.01)
        return text("late")
    if name == "progress":
        for step in range(arguments.get("steps", 3)):
            note("notifications/progress", progressToken=token, progress=step + 1)
            time.sleep(arguments.get("pause", 0))
        return text("done")
    if name == "ask":
        answer = ask(
            arguments.get("method", "elicitation/create"),
            arguments.get("params", {"message": "Who?", "requestedSchema": {"type": "object"}}),
        )
        return text(json.dumps(answer))
    if name == "log":
        for level in ("debug", "warning"):
            note("notifications/message", level=level, data=f"a {level}")
        return text("logged")
    if name == "crash":
        sys.stderr.write("about to crash with s3cret-value\n")
        sys.stderr.flush()
        os._exit(7)
    if name == "big":
        return text("x" * arguments["size"])
    if name == "env":
        return text(json.dumps(dict(os.environ)))
    if name == "change":
        change(arguments.get("uri"))
        return text("changed")
    raise KeyError(name)


def change(uri: str | None) -> None:
    if LISTENING:
        for id, wanted in list(LISTENING.items()):
            meta = {META + "subscriptionId": id}
            if uri is None and wanted.get("toolsListChanged"):
                note("notifications/tools/list_changed", _meta=meta)
            if uri is not None and uri in wanted.get("resourceSubscriptions", []):
                note("notifications/resources/updated", uri=uri, _meta=meta)
    elif uri is None:
        note("notifications/tools/list_changed")
    else:
        note("notifications/resources/updated", uri=uri)


CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True},
    "logging": {},
}


class Refused(Exception):
    def __init__(self, code: int, message: str, data: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def answer(request: Json, era: str) -> Json | None:
    method, params, id = request["method"], request.get("params", {}), request["id"]
    if method == "initialize" and era != "modern":
        SAID["client_capabilities"] = params["capabilities"]
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": CAPABILITIES,
            "serverInfo": {"name": "echo", "version": "1"},
            "instructions": "Say something.",
        }
    if method == "server/discover" and FAULTS.pop("picky", None):
        raise Refused(-32022, "Unsupported protocol version", {"supported": ["2026-07-28"]})
    if method == "server/discover" and era != "legacy":
        return {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": CAPABILITIES,
            "instructions": "Say something.",
            "ttlMs": 1000,
            "cacheScope": "public",
            "_meta": {META + "serverInfo": {"name": "echo", "version": "1"}},
        }
    modern = META + "protocolVersion" in params.get("_meta", {})
    if method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        return {"tools": tools}
    if method == "tools/call":
        result = call(params["name"], params.get("arguments", {}), id, params)
        return {"resultType": "complete", **result} if modern else result
    if method == "subscriptions/listen" and modern:
        LISTENING[id] = params["notifications"]
        note(
            "notifications/subscriptions/acknowledged",
            notifications=params["notifications"],
            _meta={META + "subscriptionId": id},
        )
        return None
    if method == "resources/subscribe":
        SUBSCRIBED.append(params["uri"])
        return {}
    if method == "resources/unsubscribe":
        SUBSCRIBED.remove(params["uri"])
        return {}
    if method in ("ping", "logging/setLevel"):
        return {}
    raise Refused(-32601, f"Method not found: {method}")


def serve(request: Json, era: str) -> None:
    try:
        result = answer(request, era)
        if result is not None and request["id"] not in CANCELLED:
            send({"jsonrpc": "2.0", "id": request["id"], "result": result})
    except Refused as error:
        body: Json = {"code": error.code, "message": str(error)}
        if error.data is not None:
            body["data"] = error.data
        send({"jsonrpc": "2.0", "id": request["id"], "error": body})


def take(message: Json, era: str) -> None:
    if "method" not in message:
        with ANSWERED:
            ANSWERS[message["id"]] = message.get("result") or {"error": message.get("error")}
            ANSWERED.notify_all()
    elif "id" in message:
        COUNTS[message["method"]] = COUNTS.get(message["method"], 0) + 1
        name = message.get("params", {}).get("name")
        if name in ("slow", "progress", "ask"):
            threading.Thread(target=serve, args=(message, era), daemon=True).start()
        else:
            serve(message, era)
    elif message["method"] == "notifications/cancelled":
        CANCELLED.append(message["params"]["requestId"])
        LISTENING.pop(message["params"]["requestId"], None)
    else:
        COUNTS[message["method"]] = COUNTS.get(message["method"], 0) + 1


def begin(fault: str | None) -> None:
    FAULTS[fault or ""] = True
    if fault == "exit":
        sys.stderr.write(f"cannot start\nbecause of {os.environ.get('TOKEN', 'nothing')}\n")
        sys.stderr.flush()
        sys.exit(3)
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fault == "family":
        child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
        SAID["child"] = child.pid
    if fault == "greedy":
        time.sleep(60)
    if fault == "junk":
        sys.stdout.write('starting up\n{"half": \n\n[1, 2]\n\xff\n')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", default="legacy", choices=["legacy", "modern", "both"])
    parser.add_argument("--fault")
    options = parser.parse_args()
    begin(options.fault)
    initialized = False
    for line in sys.stdin:
        message = json.loads(line)
        initialized = initialized or message.get("method") == "initialize"
        if options.fault == "mute" or (options.fault == "deaf" and not initialized):
            continue
        if options.fault == "shy" and not initialized:
            sys.exit(1)
        take(message, options.era)
    if options.fault == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main()

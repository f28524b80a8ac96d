"""A house with a good server in it, and what a test of faults asks of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.children import ROOT, gateway
from tests.e2e.gateway import PATIENCE, SERVES, Child, House
from tests.e2e.wire import ask, call, tools

ECHO = str(ROOT / "tests" / "servers" / "echo_stdio.py")


class Home(House):
    """`secret` is a key that may use everything; the server `good` works."""

    secret: str

    def settle(self) -> Home:
        self.add("good")
        self.secret = self.key("all", "*")
        return self

    def add(self, name: str, *words: str, options: tuple[str, ...] = ()) -> None:
        """One more of the small stdio servers."""
        self.done("server", "add", name, *options, "--", sys.executable, ECHO, *words)

    def refused(self, *words: str) -> dict[str, Any]:
        """The error of a command that must fail, and its exit status as `exit`."""
        done = self.run(*words, "--json")
        assert done.returncode not in (0, 1), f"{' '.join(words)}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return {**json.loads(done.stderr)["error"], "exit": done.returncode}

    def tested(self, name: str) -> dict[str, Any]:
        """The last stage that `server test` tells of a bad server."""
        done = self.run("server", "test", name, "--json")
        assert done.returncode == 5, done.stdout + done.stderr
        [report] = json.loads(done.stdout)["servers"]
        assert report["ok"] is False
        assert report["next"].startswith("mcpgw ")
        return report["stages"][-1]

    def limited(self, before: Callable[[], None], *words: str) -> tuple[int, dict[str, Any]]:
        """A command that starts after `before`; its status, and its error when there is one."""
        done = subprocess.run(
            gateway(*words, "--json"),
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            preexec_fn=before,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stderr)["error"] if done.returncode else {}

    def children(self) -> list[int]:
        """The processes of the running daemon's links."""
        return [link["pid"] for link in self.told("status")["links"] if link["pid"]]

    def in_flight(self) -> int:
        """Calls that the running daemon waits for."""
        return sum(link["in_flight"] for link in self.told("status")["links"])

    def unharmed(self) -> None:
        """The store and the good server work."""
        assert self.done("tools", "call", "good__echo", "--arg", "text=hi").startswith("hi")
        assert "good" in [one["name"] for one in self.told("server", "list")["servers"]]


@contextlib.contextmanager
def daemon(home: Home, *words: str) -> Generator[tuple[str, Child]]:
    """`mcpgw serve`, its address and its process, whatever becomes of it."""
    child = Child(gateway("serve", "--port", "0", *words), env=home.environment, cwd=home.folder)
    try:
        line = child.says(SERVES)
        yield line.removeprefix(SERVES).strip().removesuffix("/mcp"), child
    finally:
        child.end()


def well(url: str, key: str | None) -> None:
    """The good server works through the gateway."""
    assert call(url, key, "good__echo", text="hi").text == "hi"
    assert "good__echo" in tools(url, key)


def refused_everywhere(home: Home, *words: str) -> None:
    """The server `bad` cannot be used, which everybody is told in these words."""
    detail = home.tested("bad")["detail"]
    assert all(word in detail for word in words), detail
    with home.serving() as url:
        message = call(url, home.secret, "bad__x").error["message"]
        assert all(word in message for word in words), message
        listed = ask(url, home.secret, "tools/list").result
        assert "bad" in json.dumps(listed["_meta"])
        well(url, home.secret)
    home.unharmed()


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be asked for its status does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


Script = Callable[[BaseHTTPRequestHandler, bytes], None]


class Web:
    """A small web server of which a test says how it answers. seen: header fields, lower case."""

    def __init__(self, answer: Script) -> None:
        seen = self.seen = list[dict[str, str]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                seen.append({name.lower(): value for name, value in self.headers.items()})
                with contextlib.suppress(ConnectionError):  # who asked may have heard enough
                    answer(self, body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

            do_GET = do_DELETE = do_POST

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def answering(status: int, body: bytes, kind: str = "application/json", **headers: str) -> Script:
    """The same answer to every request; `_` in a header's name stands for `-`."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer

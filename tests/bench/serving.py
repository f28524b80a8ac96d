"""Serve an ASGI app on a free loopback port in this process, until stdin ends."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from typing import Any

import uvicorn


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def serve_asgi(app: Any) -> None:
    """Write `http://HOST:PORT` to stdout and serve; the same settings as the gateway's own."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=0,
    )
    server = _Uvicorn(config)

    def end() -> None:
        sys.stdin.read()
        server.should_exit = server.force_exit = True

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        threading.Thread(target=end, daemon=True).start()
        host, port = listener.getsockname()
        print(f"http://{host}:{port}", flush=True)
        server.run([listener])

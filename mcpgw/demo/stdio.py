"""A demo server on stdin and stdout: `python -m mcpgw.demo.stdio REVISION`."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from mcpgw.core.eras import LATEST, LEGACY, MODERN, PARSE_ERROR
from mcpgw.demo import eras
from mcpgw.demo.offers import Json, Refused


def serve(revision: str, incoming: TextIO, outgoing: TextIO) -> None:
    """Answer line by line until the input ends."""
    name = f"stdio {revision}"
    session = eras.Session(name, revision) if revision in LEGACY else None

    def send(message: Json) -> None:
        outgoing.write(json.dumps(message, separators=(",", ":")) + "\n")
        outgoing.flush()

    for line in incoming:
        if not line.strip():
            continue
        try:
            message: object = json.loads(line)
        except ValueError:
            send(eras.error(None, Refused(PARSE_ERROR, "not JSON")))
            continue
        if session is not None:
            reply = session.receive(message)
        else:
            try:
                reply = eras.stateless(name, message)
            except Refused as refused:
                reply = eras.error(message, refused)
        if reply is not None:
            send(reply)


def main() -> None:
    revision = sys.argv[1] if len(sys.argv) == 2 else LATEST
    if revision not in (*LEGACY, *MODERN):
        sys.exit(f"{revision} is no revision of MCP")
    try:
        serve(revision, sys.stdin, sys.stdout)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()


if __name__ == "__main__":
    main()

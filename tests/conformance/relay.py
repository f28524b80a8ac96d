"""A loopback relay that adds one header to every HTTP/1.1 request, and changes nothing else.

The suite cannot send a header of one's own, so this is how its server scenarios reach a gateway
that asks for a key. Header names, their case, white space and order pass byte for byte, for the
suite tests those; only the relay's own address in Host and Origin becomes the target's. Responses
are not looked at. `relay.py TARGET_PORT`, the header in RELAY_HEADER; the port is told on stderr.
"""

from __future__ import annotations

import asyncio
import os
import sys

READY = "relay listens on "
HEAD = 1 << 20  # bytes of one request's head


def body_length(head: bytes) -> int | None:
    """The request body's length; None for a chunked one."""
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
        elif name.strip().lower() == b"transfer-encoding" and b"chunked" in value.lower():
            return None
    return length


async def copy_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
) -> None:
    length = body_length(head)
    if length is not None:
        writer.write(await reader.readexactly(length))
        return
    size = -1
    while size != 0:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        writer.write(line + await reader.readexactly(size + 2))


async def requests(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: int, target: int, header: bytes
) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        for host in (b"localhost", b"127.0.0.1", b"[::1]"):
            head = head.replace(b"%s:%d\r\n" % (host, own), b"%s:%d\r\n" % (host, target))
        first, _, rest = head.partition(b"\r\n")
        writer.write(first + b"\r\n" + header + b"\r\n" + rest)
        await copy_body(reader, writer, head)
        await writer.drain()


async def responses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def main(target: int, header: bytes) -> None:
    own = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        ways = [
            asyncio.create_task(requests(reader, up_writer, own, target, header)),
            asyncio.create_task(responses(up_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, up_writer):
            end.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=HEAD) as server:
        own = server.sockets[0].getsockname()[1]
        sys.stderr.write(f"{READY}{own}\n")
        sys.stderr.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), os.environ["RELAY_HEADER"].encode()))

# SPDX-License-Identifier: BSD-2-Clause
"""The server behind the soak, a process of its own so that it can be killed: t/soak/origin.py PORT. Its answers follow from the
request, so that a client knows what it must get: see content() and the targets in serve()."""

import asyncio
import hashlib
import sys


def content(target, size):
    """The same bytes for a target each time, others for another."""
    return (hashlib.sha256(target.encode()).digest() * (size // 32 + 1))[:size]


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    return head[0].split(" "), fields


async def read_body(reader, fields):
    """Yields pieces."""
    if fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).partition(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readline()
        while await reader.readline() not in (b"\r\n", b""):
            pass
    else:
        left = int(fields.get("content-length", 0))
        while left > 0:
            piece = await reader.read(min(left, 65536))
            if not piece:
                raise EOFError
            left -= len(piece)
            yield piece


async def echo(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def serve(reader, writer):
    try:
        while True:
            (_, target, _), fields = await read_head(reader)
            if "upgrade" in fields:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                await echo(reader, writer)
                break
            digest, length = hashlib.sha256(), 0
            async for piece in read_body(reader, fields):
                digest.update(piece)
                length += len(piece)
            # /size/NUMBER?..., /chunked/NUMBER?..., /sum
            kind, _, number = target.partition("?")[0].strip("/").partition("/")
            if kind == "sum":
                body = f"{length} {digest.hexdigest()}".encode()
            else:
                body = content(target, int(number or 0))
            if kind == "chunked":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(body), 30000):
                    piece = body[at:at + 30000]
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (OSError, EOFError, ValueError):  # the proxy went away
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024, limit=1 << 18)
    async with server:
        await server.serve_forever()

if __name__ == "__main__":
    asyncio.run(main())

# SPDX-License-Identifier: BSD-2-Clause
"""The mixed load of the soak: t/soak/load.py PORT SECONDS. Each function below is a kind of client, of which KINDS says how many
go on at once. A line of JSON for each thing that was not as it should be, when and what; the last line has how often
each kind came to its end. run judges them: it knows who was killed when."""

import asyncio
import hashlib
import json
import random
import socket
import struct
import sys
import time

from origin import content, read_body, read_head

PORT = int(sys.argv[1])
counts = {}


class Wrong(Exception):
    """The answer was not the one that must come."""


def must(condition, what):
    if not condition:
        raise Wrong(what)


async def connect(receive=None):
    s = socket.socket()
    s.setblocking(False)
    if receive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    await asyncio.get_running_loop().sock_connect(s, ("127.0.0.1", PORT))
    return await asyncio.open_connection(sock=s, limit=1 << 18)


def reset(writer):
    """Closes with a reset instead of an end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def answer(reader, target, size):
    line, fields = await read_head(reader)
    digest = hashlib.sha256()
    async for piece in read_body(reader, fields):
        digest.update(piece)
    must(line[1] == "200", f"{target}: {line[1]}")
    must(digest.digest() == hashlib.sha256(content(target, size)).digest(), f"{target}: wrong content")


def get(target, close=False):
    return f"GET {target} HTTP/1.1\r\nHost: soak\r\n{'Connection: close' if close else 'X-Soak: 1'}\r\n\r\n".encode()


def some_target():
    size = random.choice([0, 10, 500, 5000, 70_000])
    return f"/{random.choice(['size', 'chunked', 'slow'])}/{size}?{random.random()}", size


async def keep_alive():
    reader, writer = await connect()
    try:
        for _ in range(40):
            target, size = some_target()
            writer.write(get(target))
            await answer(reader, target, size)
            await asyncio.sleep(random.random() * 0.02)
    finally:
        writer.close()


async def close():
    reader, writer = await connect()
    try:
        target, size = some_target()
        writer.write(get(target, True))
        await answer(reader, target, size)
        must(await reader.read() == b"", "bytes behind the response")
        await asyncio.sleep(0.01)
    finally:
        writer.close()


async def download():
    reader, writer = await connect()
    try:
        target = f"/size/{10 << 20}?{random.random()}"
        writer.write(get(target))
        await answer(reader, target, 10 << 20)
        await asyncio.sleep(0.5)
    finally:
        writer.close()


async def upload():
    reader, writer = await connect()
    try:
        body = random.randbytes(random.choice([1, 5000, 300_000, 3_000_000]))
        chunked = random.random() < 0.5
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        writer.write(f"POST /sum HTTP/1.1\r\nHost: soak\r\n{framing}\r\n\r\n".encode())
        for at in range(0, len(body), 50_000):
            piece = body[at:at + 50_000]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        line, fields = await read_head(reader)
        said = b"".join([piece async for piece in read_body(reader, fields)])
        must(line[1] == "200", f"upload: {line[1]}")
        must(said.decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}", "upload: wrong content")
        await asyncio.sleep(0.1)
    finally:
        writer.close()


async def pipeline():
    reader, writer = await connect()
    try:
        asked = [some_target() for _ in range(8)]
        writer.write(b"".join(get(target) for target, _ in asked))
        for target, size in asked:
            await answer(reader, target, size)
        await asyncio.sleep(0.1)
    finally:
        writer.close()


async def slow_reader():
    reader, writer = await connect(receive=16384)
    try:
        writer.write(get(f"/size/{2 << 20}?{random.random()}"))
        line, _ = await read_head(reader)
        must(line[1] == "200", f"slow reader: {line[1]}")
        for _ in range(random.randrange(30, 120)):
            must(await reader.read(16384), "slow reader: an early end")
            await asyncio.sleep(0.03)
        if random.random() < 0.5:
            reset(writer)
    finally:
        writer.close()


async def abort():
    """Goes away at a moment of its choice: in the head, in the body, before or in the response."""
    reader, writer = await connect()
    try:
        whole = (b"POST /sum HTTP/1.1\r\nHost: soak\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000),
                 get(f"/size/2000000?{random.random()}"))[random.randrange(2)]
        writer.write(whole[:random.randrange(1, len(whole) + 1)])
        await writer.drain()
        if random.random() < 0.5:
            try:
                await asyncio.wait_for(reader.read(random.choice([1, 20_000])), 0.2)
            except asyncio.TimeoutError:
                pass
        if random.random() < 0.7:
            reset(writer)
    finally:
        writer.close()
    await asyncio.sleep(0.05)


MALFORMED = [
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    b"POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    b"POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
]


async def malformed():
    reader, writer = await connect()
    try:
        writer.write(random.choice(MALFORMED))
        got = await reader.read(200)
        must(got == b"" or got[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5"), f"malformed: {got[:60]}")
        while got:  # until it is closed
            got = await reader.read(65536)
    except ConnectionError:
        pass
    finally:
        writer.close()
    await asyncio.sleep(0.05)


async def tunnel(messages=30, pause=0.02):
    reader, writer = await connect()
    try:
        writer.write(b"GET /tunnel HTTP/1.1\r\nHost: soak\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        line, _ = await read_head(reader)
        must(line[1] == "101", f"tunnel: {line[1]}")
        for _ in range(messages):
            data = random.randbytes(random.choice([1, 100, 20_000]))
            writer.write(data)
            must(await reader.readexactly(len(data)) == data, "tunnel: wrong content")
            await asyncio.sleep(random.random() * 2 * pause)
        writer.write_eof()
        must(await reader.read() == b"", "tunnel: bytes behind the end")
    finally:
        writer.close()


async def long_tunnel():
    """Lives through reloads."""
    await tunnel(60, 0.5)


KINDS = {keep_alive: 6, close: 2, download: 1, upload: 2, pipeline: 1, slow_reader: 6, abort: 3, malformed: 1, tunnel: 2, long_tunnel: 4}


async def client(kind, until):
    name = kind.__name__
    counts.setdefault(name, 0)
    while (began := time.time()) < until:
        try:
            await asyncio.wait_for(kind(), 90)
            counts[name] += 1
        except (OSError, EOFError, ValueError, IndexError, asyncio.TimeoutError, asyncio.LimitOverrunError, Wrong) as error:
            print(json.dumps({"time": time.time(), "began": began, "kind": name, "error": repr(error)}), flush=True)
            await asyncio.sleep(0.3)


async def main():
    until = time.time() + float(sys.argv[2])
    await asyncio.gather(*(client(kind, until) for kind, count in KINDS.items() for _ in range(count)))
    print(json.dumps({"counts": counts}), flush=True)

if __name__ == "__main__":
    asyncio.run(main())

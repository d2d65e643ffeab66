# SPDX-License-Identifier: BSD-2-Clause
"""Upgrades: a WebSocket library on both sides, large messages, ends and half-closes, time-outs, scripts."""
import asyncio
import base64
import contextlib
import os
import socket
import threading
import time

import pytest

from conftest import eventually, free_port, read_all, several

websockets = pytest.importorskip("websockets", reason="Debian: python3-websockets")


class Echo:
    """A WebSocket server that echoes, in a thread of its own."""

    def __init__(self):
        self.paths = []
        self.headers = []
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self.run, args=(ready,), daemon=True).start()
        assert ready.wait(5)

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        self.stopped = asyncio.Event()
        self.loop.run_until_complete(self.serve(ready))

    async def serve(self, ready):
        async with websockets.serve(self.echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
            self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
            ready.set()
            await self.stopped.wait()

    async def echo(self, socket_, path=None):
        self.paths.append(path or socket_.path)
        self.headers.append(dict(socket_.request_headers))
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in socket_:
                await socket_.send(message)

    def close(self):
        self.loop.call_soon_threadsafe(self.stopped.set)


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


def gate_to(moongate, address, frontend="", **how):
    return moongate(f"upstream app {{ server {address}; }}", f"route / app;\n{frontend}", **how)


def url(gate, path="/chat?a=b"):
    return f"ws://{gate.address}{path}"


def test_messages_are_echoed(moongate, echo):
    gate = gate_to(moongate, echo.address, "x_forwarded append;")

    async def talk():
        async with websockets.connect(url(gate)) as ws:
            for message in ("hello", "", "ünïcode", b"\0\xff" * 10):
                await ws.send(message)
                assert await ws.recv() == message
            await (await ws.ping())
    asyncio.run(talk())
    assert echo.paths == ["/chat?a=b"]
    headers = {name.lower(): value for name, value in echo.headers[0].items()}
    assert headers["x-forwarded-for"] == "127.0.0.1" and headers["upgrade"].lower() == "websocket"
    eventually(lambda: gate.stats()["tunnels_active"] == 0)
    stats = gate.stats()
    assert stats["tunnels"] == 1 and stats["requests_active"] == 0
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_large_messages_both_ways(moongate, echo):
    gate = gate_to(moongate, echo.address, level="info")
    message = os.urandom(8 << 20)

    async def talk():
        async with websockets.connect(url(gate), max_size=None, compression=None) as ws:
            await ws.send(message)
            assert await ws.recv() == message
            for _ in range(20):
                await ws.send(message[:100000])
            for _ in range(20):
                assert await ws.recv() == message[:100000]
    asyncio.run(talk())


def test_many_at_once(moongate, echo):
    gate = gate_to(moongate, echo.address, level="info", workers=2)

    async def one(n):
        async with websockets.connect(url(gate, f"/{n}")) as ws:
            for i in range(10):
                await ws.send(f"{n}:{i}")
                assert await ws.recv() == f"{n}:{i}"

    async def all_():
        await asyncio.gather(*(one(n) for n in range(50)))
    asyncio.run(all_())
    eventually(lambda: gate.stats()["tunnels_active"] == 0)
    assert gate.stats()["tunnels"] == 50


def test_the_server_ends_it(moongate, echo):
    gate = gate_to(moongate, echo.address)

    async def talk():
        async with websockets.connect(url(gate)) as ws:
            await ws.send("x")
            await ws.recv()
            echo.close()
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(ws.recv(), 5)
    asyncio.run(talk())
    eventually(lambda: gate.stats()["tunnels_active"] == 0)


# ---- raw: what a library does not do


HANDSHAKE = (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\n"
             b"Sec-WebSocket-Key: " + base64.b64encode(b"x" * 16) + b"\r\n\r\n")
SWITCHED = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"X-Mine: 1\r\n\r\n")


class Raw:
    """Accepts one connection, reads a head, answers, and hands the socket to the test."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.answer = answer
        self.head = b""
        self.socket = None
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            server, _ = self.listener.accept()
            server.settimeout(5)
            while b"\r\n\r\n" not in self.head:
                self.head += server.recv(1000)
            server.sendall(self.answer)
            self.socket = server

    def close(self):
        self.listener.close()
        if self.socket:
            self.socket.close()


@pytest.fixture
def raw():
    yield from several(lambda answer=SWITCHED: Raw(answer))


def switch(gate, server, more=b""):
    """A client that has been upgraded, and what came behind the 101."""
    s = gate.connect(5)
    s.sendall(HANDSHAKE + more)
    got = b""
    while b"\r\n\r\n" not in got:
        got += s.recv(1000)
    head, _, rest = got.partition(b"\r\n\r\n")
    eventually(lambda: server.socket)
    return s, head, rest


def test_the_heads_of_an_upgrade(moongate, raw):
    server = raw()
    gate = gate_to(moongate, server.address)
    s, head, _ = switch(gate, server)
    with s:
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        lines = [line.lower() for line in head.split(b"\r\n")]
        assert lines.count(b"connection: upgrade") == 1
        assert b"upgrade: websocket" in lines and b"x-mine: 1" in lines
        assert not any(line.startswith((b"content-length", b"transfer-encoding")) for line in lines)
        sent = [line.lower() for line in server.head.split(b"\r\n")]
        assert sent.count(b"connection: upgrade") == 1 and b"upgrade: websocket" in sent
        assert b"sec-websocket-version: 13" in sent


def test_bytes_that_come_with_the_heads_are_not_lost(moongate, raw):
    server = raw(SWITCHED + b"server first")
    gate = gate_to(moongate, server.address)
    s, _, rest = switch(gate, server, b"client first")
    with s:
        while len(rest) < 12:
            rest += s.recv(100)
        assert rest == b"server first"
        got = server.head.partition(b"\r\n\r\n")[2]
        while len(got) < 12:
            got += server.socket.recv(100)
        assert got == b"client first"


def test_a_half_close_is_passed_on(moongate, raw):
    server = raw()
    gate = gate_to(moongate, server.address)
    s, _, _ = switch(gate, server)
    with s:
        s.sendall(b"last words")
        s.shutdown(socket.SHUT_WR)
        assert read_all(server.socket) == b"last words"
        server.socket.sendall(b"heard")
        server.socket.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"heard"
    eventually(lambda: gate.stats()["tunnels_active"] == 0)


def test_a_tunnel_of_a_removed_listener_ends_at_drain_timeout(moongate, raw):
    servers, other = [raw(), raw()], free_port()
    top = "".join(f"upstream u{n} {{ server {server.address}; }}" for n, server in enumerate(servers))
    top += "drain_timeout 300ms;"
    routes = "route /0 u0; route /1 u1;"
    gate = moongate(top, f"listen 127.0.0.1:{other}; {routes}")

    def tunnel(port, number):
        s = socket.create_connection(("127.0.0.1", port), 5)
        s.sendall(HANDSHAKE.replace(b"GET /", b"GET /%d" % number))
        assert s.recv(1000).startswith(b"HTTP/1.1 101")
        return s

    with tunnel(gate.port, 0) as stays, tunnel(other, 1) as goes:
        eventually(lambda: gate.stats()["tunnels_active"] == 2)
        gate.configure(top, routes)
        gate.reload()
        assert read_all(goes) == b""
        assert gate.stats()["tunnels_active"] == 1
        eventually(lambda: servers[0].socket)
        servers[0].socket.sendall(b"still here")
        assert stays.recv(100) == b"still here"


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_ends_both(moongate, raw, who):
    server = raw()
    gate = gate_to(moongate, server.address)
    s, _, _ = switch(gate, server)
    one, other = (s, server.socket) if who == "client" else (server.socket, s)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.close()
    assert read_all(other) == b""
    other.close()
    eventually(lambda: gate.stats()["tunnels_active"] == 0 and gate.stats()["connections_active"] == 0)


def test_a_silent_tunnel_ends_after_tunnel_timeout(moongate, raw):
    server = raw()
    gate = gate_to(moongate, server.address, "tunnel_timeout 400ms;")
    s, _, _ = switch(gate, server)
    with s:
        for _ in range(4):  # any byte in any direction keeps it
            time.sleep(0.25)
            server.socket.sendall(b"x")
            assert s.recv(10) == b"x"
        began = time.monotonic()
        assert read_all(s) == b""
        assert 0.3 < time.monotonic() - began < 1.5


def test_a_slow_side_holds_the_other_back(moongate, raw):
    server = raw()
    gate = gate_to(moongate, server.address, level="info")
    s, _, _ = switch(gate, server)
    with s:
        s.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                sent += s.send(b"z" * 65536)
        assert sent < 64 << 20
        got = 0
        while got < sent:
            got += len(server.socket.recv(1 << 20))
        s.sendall(b"end")
        assert server.socket.recv(10) == b"end"


def test_a_refused_upgrade_is_an_ordinary_response(moongate, origin):
    origin.reply = (b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\nUpgrade: foo\r\n"
                    b"Connection: Upgrade\r\n\r\nno")
    gate = gate_to(moongate, origin.address)
    with gate.connect() as s:
        for _ in range(2):
            s.sendall(HANDSHAKE)
            got = s.recv(1000)
            assert got.startswith(b"HTTP/1.1 426 ") and got.endswith(b"no")


def test_a_script_refuses_an_upgrade(moongate, echo):
    script = """return { request = function(req)
        if req.headers.upgrade then return req:respond(403, {}, 'no') end end }"""
    gate = gate_to(moongate, echo.address, "script a.lua;", files={"a.lua": script})

    async def talk():
        with pytest.raises(websockets.InvalidStatusCode) as refused:
            async with websockets.connect(url(gate)):
                pass
        assert refused.value.status_code == 403
    asyncio.run(talk())
    assert echo.paths == []


def test_a_tunnel_lives_through_reloads(moongate, echo):
    gate = gate_to(moongate, echo.address)

    async def talk():
        async with websockets.connect(url(gate)) as ws:
            for n in range(5):
                await ws.send(str(n))
                assert await ws.recv() == str(n)
                await asyncio.get_running_loop().run_in_executor(None, gate.reload)
    asyncio.run(talk())
    assert gate.show("generations")

# SPDX-License-Identifier: BSD-2-Clause
"""WebSocket to servers of HTTP/2 (RFC 8441), from clients of HTTP/1 and of HTTP/2. Behind the handshake bytes are bytes:
the server here sends back what comes, and nobody looks at frames."""
import base64
import hashlib
import socket
import threading

import pytest
from hyperframe.frame import SettingsFrame

from conftest import eventually, read_all
from h2_peer import H2
from h2origin import H2Origin
from test_http2_websocket import Tunnel

CONNECT_PROTOCOL = 8
KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
UPGRADE = ("GET /chat?x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat\r\n\r\n").encode()


def echo(link, stream):
    if stream.header(":protocol") is None:
        link.respond(stream.id, [(":status", "200")], b"ok")
        return
    if stream.path == "/refused":
        link.respond(stream.id, [(":status", "403")], b"no")
        return
    link.headers(stream.id, [(":status", "200"), ("sec-websocket-protocol", "chat")])
    sent = 0

    def gone():
        return stream.reset is not None or link.closed

    while not gone() and not (stream.ended.is_set() and sent == len(stream.body)):
        eventually(lambda: len(stream.body) > sent or stream.ended.is_set() or gone(), 20, 0.001)
        part = stream.body[sent:]
        for at in range(0, len(part), 16384):
            piece = part[at:at + 16384]
            with link.can_send:
                while min(link.window, stream.window) < len(piece) and not gone():
                    link.can_send.wait(0.5)
                link.window -= len(piece)
                stream.window -= len(piece)
            link.data(stream.id, piece)
        sent += len(part)
        if b"bye" in part:
            link.data(stream.id, b"", end=True)
            return
    if not gone():
        link.data(stream.id, b"", end=True)


@pytest.fixture
def server():
    with H2Origin({SettingsFrame.MAX_CONCURRENT_STREAMS: 100, CONNECT_PROTOCOL: 1}) as origin:
        origin.reply, origin.early = echo, True
        yield origin


@pytest.fixture
def gate(moongate, server):
    return moongate(f"upstream app {{ server {server.address}; protocol h2; }}", "route / app; tunnel_timeout 20s;")


def read(s, size):
    data = b""
    while len(data) < size:
        chunk = s.recv(65536)
        assert chunk, data
        data += chunk
    return data


def upgraded(gate, request=UPGRADE):
    """A socket behind the 101, with the response's head; what came with it is left out."""
    s = gate.connect()
    s.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        head += s.recv(1)
    return s, head.decode()


def test_a_client_of_http1(gate, server):
    s, head = upgraded(gate)
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n") and f"sec-websocket-accept: {ACCEPT}\r\n" in head
    assert "upgrade: websocket\r\n" in head and "connection: upgrade\r\n" in head
    assert "sec-websocket-protocol: chat\r\n" in head and "content-length" not in head and "chunked" not in head
    for size in (1, 100, 100000, 1000000):
        data = bytes(range(256)) * (size // 256 + 1)
        threading.Thread(target=s.sendall, args=(data,), daemon=True).start()
        assert read(s, len(data)) == data
    [stream] = server.requests
    assert stream.headers[:2] == [(":method", "CONNECT"), (":scheme", "http")] and stream.path == "/chat?x"
    assert stream.header(":protocol") == "websocket" and stream.header("sec-websocket-version") == "13"
    for gone in ("sec-websocket-key", "upgrade", "connection", "content-length"):
        assert stream.header(gone) is None
    assert gate.stats()["tunnels_active"] == 1
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == b""
    eventually(lambda: stream.ended.is_set())
    eventually(lambda: gate.stats()["tunnels_active"] == 0 and gate.stats()["requests_active"] == 0)
    assert gate.get("/").body == b"ok" and len(server.links) == 1


def test_bytes_right_behind_the_request(gate):
    s, _ = upgraded(gate, UPGRADE + b"early")
    assert read(s, 5) == b"early"
    s.close()


def test_a_client_of_http2(gate, server):
    with H2(gate) as peer:
        tunnel = Tunnel(peer, "/chat", early=b"early")
        assert tunnel.answer.status == 200
        assert tunnel.take(5) == b"early"
        for size in (1, 1000, 30000):
            tunnel.send(b"z" * size)
            assert tunnel.take(size) == b"z" * size
    eventually(lambda: server.requests[0].reset is not None or server.requests[0].ended.is_set())
    eventually(lambda: gate.stats()["tunnels_active"] == 0)


def test_many_on_one_connection(gate, server):
    sockets = [upgraded(gate)[0] for _ in range(20)]
    for n, s in enumerate(sockets):
        s.sendall(b"%d" % n * 100)
    for n, s in enumerate(sockets):
        assert read(s, len(b"%d" % n * 100)) == b"%d" % n * 100
        s.close()
    assert len(server.links) == 1
    eventually(lambda: gate.stats()["tunnels_active"] == 0)


def test_the_server_ends_it(gate):
    s, _ = upgraded(gate)
    s.sendall(b"bye")
    assert read_all(s) == b"bye"
    s.close()


def test_the_client_vanishes(gate, server):
    s, _ = upgraded(gate)
    s.sendall(b"x")
    assert read(s, 1) == b"x"
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
    eventually(lambda: server.requests[0].reset == 8)
    eventually(lambda: gate.stats()["tunnels_active"] == 0)


def test_a_slow_reader_holds_back_itself_alone(gate, server):
    s, _ = upgraded(gate)
    sender = threading.Thread(target=s.sendall, args=(b"y" * (8 << 20),), daemon=True)
    sender.start()
    other, _ = upgraded(gate)
    for _ in range(50):
        other.sendall(b"ping")
        assert read(other, 4) == b"ping"
    assert read(s, 8 << 20) == b"y" * (8 << 20)
    assert len(server.links) == 1


def test_a_refusal(gate, server):
    got = gate.get("/refused", {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                                "Sec-WebSocket-Key": KEY})
    assert got.status == 403 and got.body == b"no"
    assert gate.get("/").body == b"ok" and len(server.links) == 1


def test_a_silent_tunnel(moongate, server):
    gate = moongate(f"upstream app {{ server {server.address}; protocol h2; }}", "route / app; tunnel_timeout 300ms;")
    s, _ = upgraded(gate)
    for _ in range(6):
        s.sendall(b"x")
        assert read(s, 1) == b"x"
    assert read_all(s) == b""
    eventually(lambda: server.requests[0].reset == 8)


def test_a_server_that_does_not_offer_it(moongate):
    with H2Origin() as server:
        gate = moongate(f"upstream app {{ server {server.address}; protocol h2; }}", "route / app;")
        # Before and after the server's SETTINGS are known.
        for _ in range(2):
            assert gate.raw(UPGRADE.replace(b"Upgrade\r\n", b"Upgrade, close\r\n", 1)).startswith(b"HTTP/1.1 501")
            assert gate.get("/").status == 200
        gate.wait_log("which has no such upgrade there")
        assert [stream.method for stream in server.requests] == ["GET", "GET"]


@pytest.mark.parametrize("fields", [{"Upgrade": "other", "Sec-WebSocket-Key": KEY}, {"Upgrade": "websocket"},
                                    {"Upgrade": "websocket", "Sec-WebSocket-Key": "short"}])
def test_another_upgrade(gate, server, fields):
    assert gate.get("/", {"Connection": "Upgrade", **fields}).status == 501
    assert server.requests == []


def test_through_hooks(moongate, server):
    gate = moongate(f"upstream app {{ server {server.address}; protocol h2; }}", "route / app; script s.lua;",
                    files={"s.lua": """return {
        request = function(req) req.headers["x-seen"] = req.headers["upgrade"] end,
        response = function(req, res) res.headers["x-status"] = res.status end }"""})
    s, head = upgraded(gate)
    assert "x-status: 101\r\n" in head and server.requests[0].header("x-seen") == "websocket"
    s.sendall(b"hello")
    assert read(s, 5) == b"hello"
    s.close()

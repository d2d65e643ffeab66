# SPDX-License-Identifier: BSD-2-Clause
"""WebSocket over HTTP/2 (RFC 8441) to origins of HTTP/1: frames by hand, and python3-h2's, on one side, a WebSocket
library on the other."""
import os
import socket
import struct
import time

import pytest

import h2_peer
from conftest import eventually
from h2_peer import H2, raw

pytest.importorskip("websockets", reason="Debian: python3-websockets")
from test_websocket import echo, gate_to  # noqa: E402,F401


def connect(path="/chat", more=()):
    return [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path),
            (":authority", "h"), ("sec-websocket-version", "13"), *more]


def message(data, opcode=2):
    """A frame of a client, masked (RFC 6455, 5.2)."""
    mask = os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data)) \
        if len(data) < 65536 else struct.pack(">BQ", 0x80 | 127, len(data))
    pad = (mask * (len(data) // 4 + 1))[:len(data)]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")
    return bytes([0x80 | opcode]) + size + mask + masked


class Tunnel:
    def __init__(self, peer, path="/chat", more=(), early=b""):
        self.peer, self.stream, self.read = peer, peer.id(), 0
        peer.until(lambda: peer.settings)
        assert peer.settings[8] == 1
        peer.write(peer.head(self.stream, connect(path, more), end=False) +
                   (raw(h2_peer.DATA, 0, self.stream, early) if early else b""))
        peer.until(lambda: self.answer.headers or self.answer.over)

    @property
    def answer(self):
        return self.peer.answers[self.stream]

    def send(self, data):
        self.peer.until(lambda: True)
        for i in range(0, len(data), 16384):
            self.peer.write(raw(h2_peer.DATA, 0, self.stream, data[i:i + 16384]))

    def take(self, n):
        self.peer.until(lambda: len(self.answer.body) >= self.read + n or self.answer.over)
        self.read += n
        return self.answer.body[self.read - n:self.read]

    def receive(self):
        """The content of one message."""
        first, size = self.take(2)
        if size == 126:
            size = struct.unpack(">H", self.take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.take(8))[0]
        return first & 15, self.take(size)


def test_messages_are_echoed_beside_requests(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address, "script a.lua;", files={"a.lua": """
        return { request = function(req) if req.path == "/plain" then return req:respond(200, {}, "hi") end end }"""})
    with H2(gate) as peer:
        tunnels = [Tunnel(peer, f"/chat{n}") for n in range(3)]
        assert [t.answer.status for t in tunnels] == [200] * 3
        assert not {"upgrade", "connection", "sec-websocket-accept"} & {name for name, _ in tunnels[0].answer.headers}
        for size in (0, 1, 125, 126, 5000, 60000):
            for n, tunnel in enumerate(tunnels):
                data = bytes([n]) * size
                tunnel.send(message(data))
                assert tunnel.receive() == (2, data)
            assert peer.get("/plain").body == b"hi"
        assert gate.stats()["tunnels_active"] == 3
        for tunnel in tunnels:
            tunnel.send(message(b"\x03\xe8", 8))
            assert tunnel.receive()[0] == 8
            peer.until(lambda t=tunnel: t.answer.over)
            assert tunnel.answer.ended
        eventually(lambda: gate.stats()["tunnels_active"] == 0)
        assert peer.get("/plain").body == b"hi"
    assert echo.paths == [f"/chat{n}" for n in range(3)]
    assert gate.stats()["tunnels"] == 3 and gate.stats()["requests_active"] == 0


def test_much_goes_both_ways(moongate, echo):  # noqa: F811
    """More than the windows: they are given back as the origin takes it."""
    gate = gate_to(moongate, echo.address, "max_body 1000;")
    data = os.urandom(3000000)
    with H2(gate) as peer:
        tunnel = Tunnel(peer)
        framed = message(data)
        sent = 0
        while sent < len(framed):
            room = min(peer.settings[4] + peer.stream_windows[tunnel.stream], 65535 + peer.window) - sent
            if room <= 0:
                peer.step()
                continue
            piece = framed[sent:sent + min(room, 16384)]
            peer.send(raw(h2_peer.DATA, 0, tunnel.stream, piece))
            sent += len(piece)
        assert tunnel.receive() == (2, data)


def test_what_comes_before_the_agreement_waits_for_it(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address)
    with H2(gate) as peer:
        tunnel = Tunnel(peer, early=message(b"early"))
        assert tunnel.receive() == (2, b"early")


def test_the_client_s_end_reaches_the_origin(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address)
    with H2(gate) as peer:
        tunnel = Tunnel(peer)
        tunnel.send(message(b"last"))
        assert tunnel.receive() == (2, b"last")
        peer.send(raw(h2_peer.DATA, h2_peer.END_STREAM, tunnel.stream))
        peer.until(lambda: tunnel.answer.over)
        assert tunnel.answer.ended


def test_a_reset_ends_the_tunnel(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address)
    with H2(gate) as peer:
        tunnel = Tunnel(peer)
        peer.send(raw(h2_peer.RST_STREAM, 0, tunnel.stream, b"\0\0\0\x08"))
        eventually(lambda: gate.stats()["tunnels_active"] == 0)
        assert peer.ping()


def test_a_silent_tunnel_ends(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address, "tunnel_timeout 400ms;")
    with H2(gate) as peer:
        tunnel = Tunnel(peer)
        for _ in range(4):
            time.sleep(0.2)
            tunnel.send(message(b"alive"))
            assert tunnel.receive() == (2, b"alive")
        began = time.monotonic()
        peer.until(lambda: tunnel.answer.over)
        assert tunnel.answer.reset is not None and 0.2 < time.monotonic() - began < 2
        assert peer.ping()


def test_a_script_sees_an_upgrade_and_may_refuse_it(moongate, echo):  # noqa: F811
    gate = gate_to(moongate, echo.address, "script a.lua;", files={"a.lua": """
        return { request = function(req)
          if req.path == "/no" then return req:respond(403, {}, "no") end
          if req.path == "/ok" then return req:respond(200, {}, "no tunnel") end
          req.headers["x-was"] = req.method .. " " .. tostring(req.headers["upgrade"])
        end }"""})
    with H2(gate) as peer:
        assert Tunnel(peer, "/no").answer.status == 403
        assert Tunnel(peer, "/ok").answer.status == 502  # a 200 would be consent
        assert Tunnel(peer, "/yes").answer.status == 200
    # The answer is on its way before the library has noted what was asked.
    assert eventually(lambda: echo.headers)[0]["x-was"] == "GET websocket"


@pytest.mark.parametrize("reply", [
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: c3RhbGUgYW5zd2VyIG9mIGFub3RoZXI=\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"Upgrade: other\r\nConnection: upgrade\r\n",
])
def test_an_answer_to_another_key_is_none(moongate, origin, reply):
    gate = gate_to(moongate, origin.address)
    origin.reply = b"HTTP/1.1 101 Switching Protocols\r\n" + reply + b"\r\nstolen"
    with H2(gate) as peer:
        tunnel = Tunnel(peer)
        assert tunnel.answer.status == 502 and b"stolen" not in tunnel.answer.body
    request = origin.requests[0]
    assert request.line == "GET /chat HTTP/1.1" and request.header("sec-websocket-version") == "13"
    assert len(request.header("sec-websocket-key")) == 24 and request.header("upgrade") == "websocket"


def test_keys_differ(moongate, origin):
    gate = gate_to(moongate, origin.address)
    with H2(gate) as peer:
        for _ in range(3):
            assert Tunnel(peer).answer.status == 502
    assert len({request.header("sec-websocket-key") for request in origin.requests}) == 3


def test_a_client_of_python3_h2(moongate, echo):  # noqa: F811
    """A library of its own makes the frames."""
    connection = pytest.importorskip("h2.connection", reason="Debian: python3-h2")
    config = pytest.importorskip("h2.config")
    events = pytest.importorskip("h2.events")
    gate = gate_to(moongate, echo.address)
    with socket.create_connection(("127.0.0.1", gate.port), 10) as s:
        client = connection.H2Connection(config.H2Configuration(client_side=True, header_encoding="utf-8"))
        client.initiate_connection()
        s.sendall(client.data_to_send())
        got, body = {}, b""
        client_sent = False
        while not body.endswith(b"through h2"):
            for event in client.receive_data(s.recv(65536)):
                if isinstance(event, events.RemoteSettingsChanged) and not client_sent:
                    client_sent = True
                    client.send_headers(1, connect())
                elif isinstance(event, events.ResponseReceived):
                    got = dict(event.headers)
                    client.send_data(1, message(b"through h2"))
                elif isinstance(event, events.DataReceived):
                    body += event.data
            s.sendall(client.data_to_send())
    assert got[":status"] == "200"

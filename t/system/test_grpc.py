# SPDX-License-Identifier: BSD-2-Clause
"""gRPC through moongate, HTTP/2 on both sides: the four kinds of calls, errors without a message, deadlines and
cancellation. The client is made of python3-h2, the server of h2origin; both speak gRPC's framing (a byte, a length of
four, the message) and its fields."""
import socket
import ssl
import struct
import threading

import h2.connection
import h2.config
import h2.events
import pytest

from conftest import eventually
from h2origin import H2Origin
from pki import Authority

OK = [(":status", "200"), ("content-type", "application/grpc")]


def pack(*messages):
    return b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)


def unpack(data):
    """The whole messages of some bytes, and what is left."""
    messages = []
    while len(data) >= 5 and len(data) >= 5 + struct.unpack(">I", data[1:5])[0]:
        size = struct.unpack(">I", data[1:5])[0]
        messages.append(data[5:5 + size])
        data = data[5 + size:]
    return messages, data


class Call:
    """What came of a call: headers, messages, trailers; ended; reset: the code of RST_STREAM."""

    def __init__(self, client, stream):
        self.client, self.stream = client, stream
        self.headers, self.trailers, self.body = None, None, b""
        self.ended, self.reset = False, None

    @property
    def messages(self):
        return unpack(self.body)[0]

    @property
    def status(self):
        return dict(self.trailers or self.headers or {}).get("grpc-status")

    def send(self, *messages, end=False):
        self.client.send(self.stream, pack(*messages), end)

    def cancel(self):
        self.client.h2.reset_stream(self.stream, 8)
        self.client.flush()

    def wait(self, what):
        self.client.run(lambda: what(self))
        return self

    def finish(self):
        return self.wait(lambda call: call.ended or call.reset is not None)


class Client:
    """One connection, any number of calls at the same time; events are read where something is waited for."""

    def __init__(self, port, context=None):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="site.test")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.calls = {}
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def call(self, method, *messages, end=True, fields=()):
        stream = self.h2.get_next_available_stream_id()
        call = self.calls[stream] = Call(self, stream)
        self.h2.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", f"/t.Echo/{method}"),
                                      (":authority", "site.test"), ("te", "trailers"),
                                      ("content-type", "application/grpc"), *fields])
        self.send(stream, pack(*messages), end)
        return call

    def send(self, stream, data, end):
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if room:
                self.h2.send_data(stream, data[:room])
                data = data[room:]
                self.flush()
            else:
                self.read()
        if end:
            self.h2.end_stream(stream)
        self.flush()

    def run(self, done):
        while not done():
            self.read()

    def read(self):
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        for event in self.h2.receive_data(data):
            call = self.calls.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.ResponseReceived):
                call.headers = event.headers
            elif isinstance(event, h2.events.TrailersReceived):
                call.trailers = event.headers
            elif isinstance(event, h2.events.DataReceived):
                call.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                call.ended = True
            elif isinstance(event, h2.events.StreamReset):
                call.reset = event.error_code
        self.flush()

    def close(self):
        self.socket.close()


def trailers(status="0", message=None):
    return [("grpc-status", status)] + ([("grpc-message", message)] if message else [])


def incoming(link, stream):
    """The messages of a request as they come."""
    seen = 0

    def over():
        return stream.ended.is_set() or stream.reset is not None or link.closed

    while True:
        eventually(lambda: len(unpack(stream.body)[0]) > seen or over(), 10, 0.001)
        messages = unpack(stream.body)[0]
        yield from messages[seen:]
        if over() and len(unpack(stream.body)[0]) == len(messages):
            return
        seen = len(messages)


def service(link, stream):
    method = stream.path.rpartition("/")[2]
    if method == "Unary":
        [message] = incoming(link, stream)
        link.respond(stream.id, OK + [("x-head", "1")], pack(b"echo " + message), trailers() + [("x-trail", "2")])
    elif method == "ServerStream":
        link.headers(stream.id, OK)
        for n in range(500):
            link.data(stream.id, pack(b"%d" % n))
        link.headers(stream.id, trailers(), end=True)
    elif method == "ClientStream":
        total = sum(int(message) for message in incoming(link, stream))
        link.respond(stream.id, OK, pack(b"%d" % total), trailers())
    elif method == "Bidi":
        link.headers(stream.id, OK)
        for message in incoming(link, stream):
            link.data(stream.id, pack(message.upper()))
        if stream.reset is None and not link.closed:
            link.headers(stream.id, trailers(), end=True)
    elif method == "Fail":
        link.headers(stream.id, OK + trailers("5", "no such thing"), end=True)
    elif method == "FailLate":
        link.respond(stream.id, OK, pack(b"one"), trailers("13", "broken"))
    elif method == "Big":
        [message] = incoming(link, stream)
        link.headers(stream.id, OK)
        packed = pack(message)
        sent = 0
        while sent < len(packed):
            size = min(16384, len(packed) - sent)
            with link.can_send:
                while min(link.window, stream.window) < size:
                    link.can_send.wait(1)
                link.window -= size
                stream.window -= size
                link.data(stream.id, packed[sent:sent + size])
            sent += size
        link.headers(stream.id, trailers(), end=True)
    elif method == "Never":
        link.headers(stream.id, OK)


@pytest.fixture
def server():
    with H2Origin() as origin:
        origin.reply, origin.early = service, True
        yield origin


@pytest.fixture
def client(moongate, server):
    gate = moongate(f"upstream app {{ server {server.address}; protocol h2; }}", "route / app;")
    client = Client(gate.port)
    client.gate = gate
    yield client
    client.close()


def test_unary(client, server):
    call = client.call("Unary", b"hi", fields=[("x-meta", "m"), ("grpc-timeout", "5S")]).finish()
    assert call.messages == [b"echo hi"] and call.status == "0"
    assert dict(call.headers)["x-head"] == "1" and dict(call.trailers)["x-trail"] == "2"
    [request] = server.requests
    assert request.header("te") == "trailers" and request.header("content-type") == "application/grpc"
    assert request.header("x-meta") == "m" and request.header("grpc-timeout") == "5S"
    assert request.path == "/t.Echo/Unary"


def test_server_streaming(client):
    call = client.call("ServerStream", b"").finish()
    assert call.messages == [b"%d" % n for n in range(500)] and call.status == "0"


def test_client_streaming(client):
    call = client.call("ClientStream", end=False)
    for n in range(100):
        call.send(b"%d" % n)
    call.send(end=True)
    assert call.finish().messages == [b"4950"] and call.status == "0"


def test_bidirectional_streaming(client):
    """Each message is answered before the next is sent: nothing may be held back in between."""
    call = client.call("Bidi", end=False)
    for n in range(20):
        call.send(b"m%d" % n)
        call.wait(lambda call: len(call.messages) == n + 1)
    assert call.messages[-1] == b"M19" and not call.ended
    call.send(end=True)
    assert call.finish().status == "0"


def test_an_error_without_a_message(client):
    call = client.call("Fail", b"x").finish()
    # Everything stands in the one head, which ends the stream: else clients miss the status.
    assert call.ended and call.trailers is None and call.body == b""
    assert dict(call.headers)["grpc-status"] == "5" and dict(call.headers)["grpc-message"] == "no such thing"


def test_an_error_behind_a_message(client):
    call = client.call("FailLate", b"x").finish()
    assert call.messages == [b"one"] and call.status == "13" and dict(call.trailers)["grpc-message"] == "broken"


def test_a_deadline_that_passes(client, server):
    """The client gives up: its reset reaches the server."""
    call = client.call("Never", b"x", fields=[("grpc-timeout", "100m")]).wait(lambda call: call.headers)
    call.cancel()
    eventually(lambda: server.requests[0].reset == 8)
    assert client.call("Unary", b"on").finish().status == "0"


def test_a_call_that_is_cancelled_while_both_stream(client, server):
    call = client.call("Bidi", b"a", end=False).wait(lambda call: call.messages)
    call.cancel()
    eventually(lambda: server.requests[0].reset == 8)
    assert client.call("Unary", b"on").finish().status == "0"
    assert len(server.links) == 1


def test_a_client_that_goes_cancels_all(client, server):
    for _ in range(5):
        client.call("Never", b"x").wait(lambda call: call.headers)
    client.close()
    eventually(lambda: all(request.reset == 8 for request in server.requests))
    eventually(lambda: client.gate.stats()["requests_active"] == 0)


def test_a_server_that_goes(client, server):
    call = client.call("Never", b"x").wait(lambda call: call.headers)
    server.links[0].close()
    assert call.finish().reset is not None
    assert client.call("Unary", b"on").finish().status == "0"


def test_a_large_message(client):
    body = bytes(range(256)) * 8000
    call = client.call("Big", body).finish()
    assert call.messages == [body] and call.status == "0"


def test_many_calls_at_the_same_time(client, server):
    calls = [client.call("Unary", b"%d" % n) for n in range(80)]
    streams = [client.call("Bidi", end=False) for _ in range(10)]
    for n, call in enumerate(streams):
        call.send(b"s%d" % n, end=True)
    for n, call in enumerate(calls):
        assert call.finish().messages == [b"echo %d" % n] and call.status == "0"
    for n, call in enumerate(streams):
        assert call.finish().messages == [b"S%d" % n] and call.status == "0"
    assert len(server.links) <= 4


def test_over_tls_on_both_sides(moongate, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    ca = Authority(folder)
    site = ca.issue("site", "site.test", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.pem, site.key)
    context.set_alpn_protocols(["h2"])
    server.wrap = lambda s: context.wrap_socket(s, server_side=True)
    gate = moongate(f"upstream app {{ server {server.address}; tls {{ ca {ca.path}; name site.test; }} }}", "route / app;",
                    start=False)
    gate.config.write_text(gate.config.read_text().replace(
        f"listen {gate.address};", f"listen {gate.address} tls {{ {site.lines} alpn h2; }}"))
    gate.start()
    trusting = ssl.create_default_context(cafile=ca.path)
    trusting.set_alpn_protocols(["h2"])
    client = Client(gate.port, trusting)
    assert client.call("Unary", b"hi").finish().messages == [b"echo hi"]
    call = client.call("Bidi", b"a", end=False).wait(lambda call: call.messages)
    call.send(b"b", end=True)
    assert call.finish().messages == [b"A", b"B"] and call.status == "0"
    client.close()

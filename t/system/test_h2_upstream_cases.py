# SPDX-License-Identifier: BSD-2-Clause
"""What HTTP/2 servers may send, case by case: each is answered 502, cut off, or passed on. Behind each a good request
must work: on the same connection when only a stream was at fault, on another one when the connection was. A new defect
is a new row."""
import http.client
import io
import struct
import threading

import pytest
from hyperframe import frame as frames

from conftest import Response, eventually, read_all
from h2origin import H2Origin

OK = (":status", "200")
GET, HEAD = "GET", "HEAD"


def head(*fields, end=False, body=b"ok"):
    def send(link, stream):
        link.headers(stream.id, list(fields), end=end)
        if not end:
            link.data(stream.id, body, end=True)
    return send


def field(name, value="x"):
    return head(OK, (name, value))


def raw_field(name, value):
    """A literal field that hpack would change or refuse to make: name and value are bytes."""
    def send(link, stream):
        block = b"\x88" + b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        link.send(frames.HeadersFrame(stream.id, data=block, flags=["END_HEADERS"]))
        link.data(stream.id, b"ok", end=True)
    return send


def status(value):
    return head((":status", value), ("content-type", "text/plain"))


def length(value, body, end=True):
    def send(link, stream):
        link.headers(stream.id, [OK, ("content-length", value)])
        link.data(stream.id, body, end=end)
    return send


def interims(count):
    def send(link, stream):
        for _ in range(count):
            link.headers(stream.id, [(":status", "103"), ("link", "</a>")])
        link.respond(stream.id, [OK], b"ok")
    return send


def reset(code):
    return lambda link, stream: link.reset(stream.id, code)


# Only the stream is at fault: 502, and the connection goes on.
STREAM = {
    "no status": head(("content-type", "text/plain")),
    "two statuses": head(OK, OK),
    "two different statuses": head(OK, (":status", "204")),
    "a status of two digits": status("20"),
    "a status of four digits": status("2000"),
    "a status of letters": status("abc"),
    "a signed status": status("+20"),
    "an empty status": status(""),
    "status 000": status("000"),
    "status 099": status("099"),
    "status 600": status("600"),
    "status 999": status("999"),
    "status 101": status("101"),
    "the status behind a field": head(("content-type", "text/plain"), OK),
    "an unknown pseudo-header field": field(":foo"),
    ":path in a response": field(":path", "/"),
    ":method in a response": field(":method", "GET"),
    "a name with a capital": raw_field(b"X-Capital", b"x"),
    "a name with a space": raw_field(b"x capital", b"x"),
    "a name with a colon": raw_field(b"x:y", b"x"),
    "a name with CR LF": raw_field(b"x\r\nset-cookie", b"x"),
    "a name with NUL": raw_field(b"x\0", b"x"),
    "an empty name": raw_field(b"", b"x"),
    "a name beyond ASCII": raw_field(b"x\xff", b"x"),
    "CR in a value": raw_field(b"x-a", b"a\rb"),
    "LF in a value": raw_field(b"x-a", b"a\nb"),
    "CR LF in a value": raw_field(b"x-a", b"a\r\nset-cookie: b"),
    "NUL in a value": raw_field(b"x-a", b"a\0b"),
    "DEL in a value": raw_field(b"x-a", b"a\x7fb"),
    "a control in a value": raw_field(b"x-a", b"a\x01b"),
    "a space before a value": raw_field(b"x-a", b" a"),
    "a space behind a value": raw_field(b"x-a", b"a "),
    "connection": field("connection", "close"),
    "connection: keep-alive": field("connection", "keep-alive"),
    "keep-alive": field("keep-alive", "timeout=5"),
    "proxy-connection": field("proxy-connection", "close"),
    "transfer-encoding": field("transfer-encoding", "chunked"),
    "transfer-encoding: identity": field("transfer-encoding", "identity"),
    "upgrade": field("upgrade", "websocket"),
    "content-length with underscore": field("content_length", "2"),
    "transfer-encoding with underscore": field("transfer_encoding", "chunked"),
    "two lengths": head(OK, ("content-length", "2"), ("content-length", "2")),
    "two different lengths": head(OK, ("content-length", "2"), ("content-length", "3")),
    "a length that is no number": length("two", b"ok"),
    "a length with a sign": length("+2", b"ok"),
    "a negative length": length("-2", b"ok"),
    "a list of lengths": length("2, 2", b"ok"),
    "an empty length": length("", b"ok"),
    "a length beyond 63 bits": length("9223372036854775808", b"ok"),
    "a length, and no content": head(OK, ("content-length", "2"), end=True),
    "204 with a length": head((":status", "204"), ("content-length", "2"), end=True),
    "205 with a length": head((":status", "205"), ("content-length", "2")),
    "an interim response that ends": head((":status", "103"), end=True),
    "an interim response with a length": head((":status", "103"), ("content-length", "2")),
    "content behind an interim response": head((":status", "103")),
    "33 interim responses": interims(33),
    "a head that is too long": field("x-long", "y" * 5000),
    "a head that is too long, of many fields": head(OK, *((f"x-{n}", "y" * 100) for n in range(45))),
    "too many fields": head(OK, *((f"x-{n}", "") for n in range(51))),
    "RST_STREAM: PROTOCOL_ERROR": reset(1),
    "RST_STREAM: INTERNAL_ERROR": reset(2),
    "RST_STREAM: CANCEL": reset(8),
    "RST_STREAM: HTTP_1_1_REQUIRED": reset(13),
    "RST_STREAM: an unknown code": reset(12345),
    "RST_STREAM: NO_ERROR without a response": reset(0),
    "a reset behind an interim response": lambda link, stream: (
        link.headers(stream.id, [(":status", "103")]), link.reset(stream.id, 2)),
}


# The same, but the head may have left, which is all that there is to such a response.
BODILESS = {
    "204 with content": (head((":status", "204")), GET, 204),
    "205 with content": (head((":status", "205")), GET, 205),
    "304 with content": (head((":status", "304")), GET, 304),
    "HEAD with content": (head(OK), HEAD, 200),
    "HEAD with the content that its length tells": (length("2", b"ok"), HEAD, 200),
}


def frame(kind, stream, payload=b"", flags=0):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def sends(*parts):
    return lambda link, stream: link.raw(b"".join(part(stream.id) if callable(part) else part for part in parts))


# The connection is at fault: 502, and it is closed with GOAWAY.
CONNECTION = {
    "content before a head": lambda link, stream: link.data(stream.id, b"ok", end=True),
    "an end before a head": lambda link, stream: link.data(stream.id, b"", end=True),
    "DATA on stream 0": sends(frame(0, 0, b"x")),
    "HEADERS on stream 0": sends(frame(1, 0, b"\x88", 4)),
    "RST_STREAM on stream 0": sends(frame(3, 0, b"\0\0\0\0")),
    "SETTINGS on a stream": sends(lambda id: frame(4, id, b"")),
    "PING on a stream": sends(lambda id: frame(6, id, b"12345678")),
    "GOAWAY on a stream": sends(lambda id: frame(7, id, b"\0" * 8)),
    "a response to a request that was not made": sends(frame(1, 12345, b"\x88", 5)),
    "RST_STREAM of a request that was not made": sends(frame(3, 12345, b"\0\0\0\0")),
    "WINDOW_UPDATE of a request that was not made": sends(frame(8, 12345, b"\0\0\0\1")),
    "HEADERS on an even stream": sends(frame(1, 2, b"\x88", 5)),
    "PUSH_PROMISE": sends(lambda id: frame(5, id, b"\0\0\0\2\x82\x86\x84", 4)),
    "a window update of nothing": sends(frame(8, 0, b"\0\0\0\0")),
    "a window beyond 2^31": sends(frame(8, 0, b"\x7f\xff\xff\xff")),
    "a window update of five bytes": sends(frame(8, 0, b"\0\0\0\1\1")),
    "SETTINGS of five bytes": sends(frame(4, 0, b"12345")),
    "SETTINGS: an acknowledgement with content": sends(frame(4, 0, b"\0\3\0\0\0\1", 1)),
    "SETTINGS: ENABLE_PUSH 2": sends(frame(4, 0, b"\0\2\0\0\0\2")),
    "SETTINGS: a window beyond 2^31": sends(frame(4, 0, b"\0\4\x80\0\0\0")),
    "SETTINGS: too small a frame": sends(frame(4, 0, b"\0\5\0\0\0\1")),
    "SETTINGS: too large a frame": sends(frame(4, 0, b"\0\5\1\0\0\0")),
    "PING of seven bytes": sends(frame(6, 0, b"1234567")),
    "RST_STREAM of three bytes": sends(lambda id: frame(3, id, b"\0\0\0")),
    "GOAWAY of three bytes": sends(frame(7, 0, b"\0\0\0")),
    "a frame beyond the maximum": sends(lambda id: frame(0, id, b"x" * 16385)),
    "CONTINUATION without a head": sends(lambda id: frame(9, id, b"\x88", 4)),
    "another frame within a head": sends(lambda id: frame(1, id, b"\x88"), frame(6, 0, b"12345678")),
    "CONTINUATION of another stream": sends(lambda id: frame(1, id, b"\x88"), frame(9, 12345, b"", 4)),
    "a head that HPACK cannot read": sends(lambda id: frame(1, id, b"\xff\xff\xff\xff\xff\xff", 5)),
    "an index that HPACK does not have": sends(lambda id: frame(1, id, b"\xbf", 5)),
    "an index of nothing": sends(lambda id: frame(1, id, b"\x80", 5)),
    "a table larger than was allowed": sends(lambda id: frame(1, id, b"\x3f\xe1\xff\x03\x88", 5)),
    "a string with bad Huffman coding": sends(lambda id: frame(1, id, b"\x88\x00\x81\xff\x01x", 5)),
    "padding longer than its frame": sends(lambda id: frame(1, id, b"\x88", 4), lambda id: frame(0, id, b"\x10x", 8)),
    "a head padded beyond its frame": sends(lambda id: frame(1, id, b"\x10\x88", 4 | 8)),
}


def two_settings(link, stream):
    link.raw(frame(4, 0, b"\0\3\0\0\0\x10") * 3)
    link.respond(stream.id, [OK], b"ok")


# Odd, but in order: (what, method, status, body)
FINE = {
    "a head alone": (head(OK, end=True), GET, 200, b""),
    "a head, then an empty end": (head(OK, body=b""), GET, 200, b""),
    "a length of nothing": (head(OK, ("content-length", "0"), end=True), GET, 200, b""),
    "a length that is right": (length("2", b"ok"), GET, 200, b"ok"),
    "a length with zeros before it": (length("002", b"ok"), GET, 200, b"ok"),
    "empty frames within": (lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b""), link.data(stream.id, b"o"),
        link.data(stream.id, b""), link.data(stream.id, b"k"), link.data(stream.id, b"", end=True)),
        GET, 200, b"ok"),
    "a body byte by byte": (lambda link, stream: (
        link.headers(stream.id, [OK]), [link.data(stream.id, b"x") for _ in range(500)],
        link.data(stream.id, b"", end=True)), GET, 200, b"x" * 500),
    "padding": (sends(lambda id: frame(1, id, b"\x03\x88\0\0\0", 4 | 8), lambda id: frame(0, id, b"\x02ok\0\0", 1 | 8)),
                GET, 200, b"ok"),
    "a priority in HEADERS": (sends(lambda id: frame(1, id, b"\0\0\0\0\x10\x88", 4 | 0x20),
                                    lambda id: frame(0, id, b"ok", 1)), GET, 200, b"ok"),
    "a frame of an unknown kind": (sends(lambda id: frame(0xbe, id, b"what", 0xff), lambda id: frame(1, id, b"\x88", 4),
                                         frame(0xef, 0, b"ever"), lambda id: frame(0, id, b"ok", 1)),
                                   GET, 200, b"ok"),
    "PRIORITY frames": (sends(lambda id: frame(2, id, b"\0\0\0\0\x10"), lambda id: frame(1, id, b"\x88", 4),
                              lambda id: frame(0, id, b"ok", 1)), GET, 200, b"ok"),
    "a head in ten parts": (lambda link, stream: (
        link.headers(stream.id, [OK, ("x-a", "y" * 500)], split=10), link.data(stream.id, b"ok", end=True)),
        GET, 200, b"ok"),
    "a head of almost the limit": (field("x-long", "y" * 3900), GET, 200, b"ok"),
    "fifty fields": (head(OK, *((f"x-{n}", "") for n in range(50))), GET, 200, b"ok"),
    "32 interim responses": (interims(32), GET, 200, b"ok"),
    "100, asked for by nobody": (lambda link, stream: (
        link.headers(stream.id, [(":status", "100")]), link.respond(stream.id, [OK], b"ok")), GET, 200, b"ok"),
    "204": (head((":status", "204"), end=True), GET, 204, b""),
    "204 with a length of nothing": (head((":status", "204"), ("content-length", "0"), end=True), GET, 204, b""),
    "304 with the length of another response": (head((":status", "304"), ("content-length", "5"), end=True),
                                                GET, 304, b""),
    "205 without content": (head((":status", "205"), end=True), GET, 205, b""),
    "HEAD with a length": (head(OK, ("content-length", "5"), end=True), HEAD, 200, b""),
    "HEAD without one": (head(OK, end=True), HEAD, 200, b""),
    "status 599": (status("599"), GET, 599, b"ok"),
    "trailers": (lambda link, stream: link.respond(stream.id, [OK], b"ok", [("x-sum", "1")]), GET, 200, b"ok"),
    "trailers behind no content": (lambda link, stream: link.respond(stream.id, [OK], b"", [("x-sum", "1")]),
                                   GET, 200, b""),
    "trailers that are dropped": (lambda link, stream: link.respond(
        stream.id, [OK], b"ok", [("set-cookie", "1"), ("content-type", "a/b")]), GET, 200, b"ok"),
    "PING within": (sends(frame(6, 0, b"12345678"), lambda id: frame(1, id, b"\x88", 4), frame(6, 0, b"12345678"),
                          lambda id: frame(0, id, b"ok", 1)), GET, 200, b"ok"),
    "SETTINGS within": (two_settings, GET, 200, b"ok"),
    "a reset behind the whole": (lambda link, stream: (link.respond(stream.id, [OK], b"ok"), link.reset(stream.id, 0)),
                                 GET, 200, b"ok"),
    "a field beyond ASCII": (raw_field(b"x-a", "ä".encode()), GET, 200, b"ok"),
    "a tab within a value": (raw_field(b"x-a", b"a\tb"), GET, 200, b"ok"),
    "an empty value": (raw_field(b"x-a", b""), GET, 200, b"ok"),
    "the table emptied": (sends(lambda id: frame(1, id, b"\x20\x88", 4), lambda id: frame(0, id, b"ok", 1)),
                          GET, 200, b"ok"),
}

# The head has left: the client is cut off, and the connection goes on.
CUT = {
    "too little content": length("5", b"ok"),
    "too much content": lambda link, stream: (
        link.headers(stream.id, [OK, ("content-length", "2")]), link.data(stream.id, b"o"),
        link.data(stream.id, b"kay", end=True)),
    "a reset within": lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b"ok"), link.reset(stream.id, 2)),
    "NO_ERROR within": lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b"ok"), link.reset(stream.id, 0)),
    "trailers that do not end": lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b"ok"), link.headers(stream.id, [("x-sum", "1")])),
    "a status in trailers": lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b"ok"), link.headers(stream.id, [OK], end=True)),
    "a capital in trailers": lambda link, stream: (
        link.headers(stream.id, [OK]), link.data(stream.id, b"ok"),
        link.send(frames.HeadersFrame(stream.id, data=b"\0\3X-Y\1z", flags=["END_HEADERS", "END_STREAM"]))),
    "a connection's field in trailers": lambda link, stream: link.respond(
        stream.id, [OK], b"ok", [("transfer-encoding", "chunked")]),
    "trailers that are too long": lambda link, stream: link.respond(stream.id, [OK], b"ok", [("x-y", "z" * 5000)]),
}


@pytest.fixture(scope="module")
def server():
    with H2Origin() as origin:
        yield origin


@pytest.fixture
def gate(moongate, server):
    server.requests.clear()
    server.links.clear()
    return moongate(f"upstream app {{ server {server.address}; protocol h2; max_response_head 4k; "
                    "max_response_headers 50; retry off; }", "route / app;")


def good(link, stream):
    link.respond(stream.id, [OK, ("content-type", "text/plain")], b"good")


def parsed(data, method):
    """The final response, or the error of one that is cut off."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(b"\r\n\r\n")[2]
    raw = http.client.HTTPResponse(type("Socket", (), {"makefile": lambda *_: io.BytesIO(data)})(), method=method)
    try:
        raw.begin()
        return Response(raw)
    except http.client.HTTPException as error:
        return error


def ask(gate, server, answer, method=GET):
    """The case, behind a good request and before another; each says on which connection it came."""
    server.reply = lambda link, stream: (answer if stream.path == "/case" else good)(link, stream)
    assert gate.get("/before").body == b"good"
    got = parsed(gate.raw(f"{method} /case HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()), method)
    assert gate.get("/behind").body == b"good"
    return got, [stream.connection for stream in server.requests]


def groups(cases, size=8):
    """A moongate serves several cases: one each would take too long."""
    names = list(cases)
    return [names[i:i + size] for i in range(0, len(names), size)]


@pytest.mark.parametrize("names", groups(STREAM), ids=lambda names: names[0])
def test_a_stream_that_breaks_the_rules(gate, server, names):
    for name in names:
        server.requests.clear()
        got, connections = ask(gate, server, STREAM[name])
        assert isinstance(got, Response) and got.status == 502, name
        assert b"request " in got.body and not got.headers.get("x-a"), name
        assert len(set(connections)) == 1, f"{name}: another connection was made"


def test_content_where_there_is_none(gate, server):
    for name, (answer, method, status) in BODILESS.items():
        server.requests.clear()
        got, connections = ask(gate, server, answer, method)
        assert getattr(got, "status", 502) == 502 or (got.status, got.body) == (status, b""), f"{name}: {got}"
        assert len(set(connections)) == 1, f"{name}: another connection was made"


@pytest.mark.parametrize("names", groups(CONNECTION), ids=lambda names: names[0])
def test_a_connection_that_breaks_the_rules(gate, server, names):
    for name in names:
        server.requests.clear()
        got, connections = ask(gate, server, CONNECTION[name])
        cut = isinstance(got, http.client.HTTPException)
        # The head of the one may have left.
        assert (cut and name == "padding longer than its frame") or got.status == 502, f"{name}: {got}"
        assert connections[0] == connections[1] != connections[2], name
        bad = server.links[connections[0] - 1]
        assert eventually(lambda: bad.goaway), name
        eventually(lambda: bad.closed)


@pytest.mark.parametrize("names", groups(FINE), ids=lambda names: names[0])
def test_what_is_odd_but_in_order(gate, server, names):
    for name in names:
        server.requests.clear()
        answer, method, status, body = FINE[name]
        got, connections = ask(gate, server, answer, method)
        assert isinstance(got, Response) and (got.status, got.body) == (status, body), f"{name}: {got}"
        assert len(set(connections)) == 1, f"{name}: another connection was made"


@pytest.mark.parametrize("names", groups(CUT), ids=lambda names: names[0])
def test_a_response_that_breaks_off(gate, server, names):
    for name in names:
        server.requests.clear()

        sent, seen = [], threading.Event()

        def slowly(link, stream, name=name, sent=sent, seen=seen):
            # The head must have reached the client before the rest is wrong.
            raw, link.raw = link.raw, sent.append
            CUT[name](link, stream)
            link.raw = raw
            raw(sent[0])
            seen.wait(5)
            raw(b"".join(sent[1:]))

        server.reply = lambda link, stream, slowly=slowly: (slowly if stream.path == "/case" else good)(link, stream)
        with gate.connect() as s:
            s.sendall(b"GET /case HTTP/1.1\r\nHost: h\r\n\r\n")
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(65536)
            seen.set()
            got += read_all(s)
        assert isinstance(parsed(got, GET), http.client.HTTPException), f"{name}: {got}"
        assert b"x-sum" not in got.lower(), name
        assert gate.get("/behind").body == b"good"
        assert len({stream.connection for stream in server.requests}) == 1, name

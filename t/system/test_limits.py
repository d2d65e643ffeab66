# SPDX-License-Identifier: BSD-2-Clause
"""Limits where they are set: at the top, in a frontend, in a route; and requests meant to be read in two
ways, sent for real, which must never reach an origin in another form than the one that was checked."""
import contextlib
import re
import socket
import threading
import time

import pytest

from conftest import eventually, read_all

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def statuses(answer):
    return [int(n) for n in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def post(size, path="/", chunked=False):
    head = b"POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" % path.encode()
    if chunked:
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % size + b"x" * size


# ---- max_body


@pytest.mark.parametrize("chunked", [False, True])
def test_max_body_of_a_route_counts_not_that_of_the_frontend(moongate, origin, chunked):
    gate = moongate(f"upstream app {{ server {origin.address}; }}",
                    "max_body 1000;\nroute / app;\nroute /large app {{ max_body 5000; }}\nroute /small app "
                    "{{ max_body 10; }}\n"
                    .replace("{{", "{").replace("}}", "}") + "route /any app { max_body 0; }")
    for path, size, expected in (("/", 1000, 200), ("/", 1001, 413), ("/large", 5000, 200),
                                 ("/large", 5001, 413),
                                 ("/small", 10, 200), ("/small", 11, 413), ("/any", 100000, 200)):
        assert statuses(gate.raw(post(size, path, chunked))) == [expected], (path, size)
    assert [len(request.body) for request in origin.requests if request.target == "/any"] == [100000]


def test_max_body_cuts_a_chunked_body_that_is_on_its_way(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "max_body 100k;\nroute / app;")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(40):
                s.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                time.sleep(0.002)
        assert statuses(read_all(s)) == [413]
    assert origin.requests == []  # it never saw an end
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_max_body_while_a_script_waits(moongate, origin):
    """The route, and with it the limit, is known only afterwards."""
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app { max_body "
                                                                    "100; }",
                    {"a.lua": "local gate = require 'moongate'\nreturn { request = function() "
                              "gate.sleep(0.1) end }"})
    assert statuses(gate.raw(post(100))) == [200]
    assert statuses(gate.raw(post(101))) == [413]
    assert statuses(gate.raw(post(101, chunked=True))) == [413]
    assert len(origin.requests) == 1


# ---- heads


def test_limits_of_heads_are_exact(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "max_uri 100; max_headers 5; max_head "
                                                                    "2k; route / app;")
    base = b"Host: h\r\nConnection: close\r\n"
    assert statuses(gate.raw(b"GET /" + b"a" * 99 + b" HTTP/1.1\r\n" + base + b"\r\n")) == [200]
    assert statuses(gate.raw(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n" + base + b"\r\n")) == [414]
    assert statuses(gate.raw(b"GET / HTTP/1.1\r\n" + base + b"X: y\r\n" * 3 + b"\r\n")) == [200]
    assert statuses(gate.raw(b"GET / HTTP/1.1\r\n" + base + b"X: y\r\n" * 4 + b"\r\n")) == [431]
    assert statuses(gate.raw(b"GET / HTTP/1.1\r\n" + base + b"X: " + b"y" * 1900 + b"\r\n\r\n")) == [200]
    assert statuses(gate.raw(b"GET / HTTP/1.1\r\n" + base + b"X: " + b"y" * 2100 + b"\r\n\r\n")) == [431]


def test_an_endless_head_is_cut(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
    for start, piece in ((b"GET /", b"a" * 1000), (b"GET / HTTP/1.1\r\n", b"X: " + b"y" * 500 + b"\r\n"),
                         (b"", b"\r\n" * 500)):
        with gate.connect() as s:
            with contextlib.suppress(OSError):
                s.sendall(start)
                for _ in range(200):
                    s.sendall(piece)
                    time.sleep(0.0005)
            assert statuses(read_all(s)) in ([414], [431], [400])
    assert origin.requests == []


def test_limits_of_response_heads(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; max_response_headers 5; max_response_head "
                    f"2k; }}", "route / app;")
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"X: y\r\n" * 4 + b"\r\n"
    assert gate.get().status == 200
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"X: y\r\n" * 5 + b"\r\n"
    assert gate.get().status == 502
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"y" * 3000 + b"\r\n\r\n"
    assert gate.get().status == 502


def test_endless_interim_responses_are_cut(moongate, origin):
    origin.reply = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + OK
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
    answer = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert statuses(answer)[-1] == 502 and len(statuses(answer)) < 100


# ---- one request read as two


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

TRICKS = {
    "CL and TE": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"0\r\n\r\n" % (5 + len(SMUGGLED)),
    "TE and CL": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
                 b"0\r\n\r\n",
    "TE with a space before the colon": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n"
                                        b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE behind a bare LF": b"POST / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n"
                           b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE behind a bare CR": b"POST / HTTP/1.1\r\nHost: h\r\nX: y\rTransfer-Encoding: chunked\r\n"
                           b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE on a continued line": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n"
                              b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE xchunked": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n"
                   b"0\r\n\r\n",
    "TE twice": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n"
                b"\r\n0\r\n\r\n",
    "TE with a vertical tab": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n"
                              b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE named by Connection": b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Transfer-Encoding\r\n"
                              b"Transfer-Encoding: chunked\r\n"
                              b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "TE in 1.0": b"POST / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
                 b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two CL": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
               b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)),
    "CL list": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n",
    "CL +": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n",
    "CL with underscore is nothing": b"POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 3\r\n"
                                     b"Content-Length: x\r\n\r\n",
    "chunk size 0x": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "chunk size overflow": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                           b"100000000000000000\r\n\r\n0\r\n\r\n",
    "chunk ended by LF": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
    "chunk extension with LF": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;\n\r\n"
                               b"a\r\n0\r\n\r\n",
    "NUL in a name": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length\0: 3\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "CR LF in the target": b"GET /\r\nX: y HTTP/1.1\r\nHost: h\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused_and_nothing_behind_them_is_read(moongate, origin, trick):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
    answer = gate.raw(TRICKS[trick] + SMUGGLED)
    assert len(statuses(answer)) == 1 and statuses(answer)[0] in (400, 501, 505), answer
    assert origin.requests == []


def test_what_is_passed_on_is_written_afresh(moongate, origin):
    """Bytes that another parser might stumble over do not leave as they came."""
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
    gate.raw(b"POST / HTTP/1.1\r\nhOsT:h\r\nTransfer-Encoding: CHUNKED\r\nX:  \t spaced \t \r\n"
             b"Connection: close\r\n\r\n"
             b"0003;ext=\"1\"\r\nabc\r\n0000\r\n\r\n")
    assert origin.requests[0].head == (b"POST / HTTP/1.1\r\nhOsT: h\r\nX: spaced\r\n"
                                       b"transfer-encoding: chunked\r\n\r\n")
    gate.raw(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0003\r\nConnection: close\r\n\r\nabc")
    assert origin.requests[1].head == b"POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\n"


def test_an_absolute_target_decides_the_host(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
    gate.raw(b"GET http://real:81/x HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert origin.requests[0].all("host") == ["real:81"]


def test_garbage_kills_nothing(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "header_timeout 500ms; route / app;",
                    level="info")
    pid = gate.workers()[0]
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 5000, b"\xff" * 5000,
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\r\n" * 10 + b"\x80", b"GET / HTTP/9.9\r\n\r\n", b":" * 20000,
                    b"GET " + b"\xf0\x9f\x8c\x99" * 100):
        assert all(status >= 400 for status in statuses(gate.raw(garbage)))
    assert gate.workers() == [pid]
    assert gate.get().status == 200


# ---- how many


def test_at_the_limit_of_connections_others_wait(moongate, origin):
    gate = moongate(start=False)
    gate.configure(f"upstream app {{ server {origin.address}; }}", "keepalive_timeout 5s; route / app;",
                   level="info")
    gate.config.write_text(gate.config.read_text().replace("connections 4096;", "connections 3; connections_full wait;"))
    gate.start()
    held = [gate.connect() for _ in range(3)]
    for s in held:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert statuses(s.recv(1000)) == [200]
    with gate.connect() as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        held.pop().close()
        waiting.settimeout(5)
        assert statuses(waiting.recv(1000)) == [200]
    for s in held:
        s.close()


def test_a_client_that_reads_no_answers_gets_no_more_started(moongate, origin):
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;", level="info")
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", gate.port))
    with s:
        def pump():
            with contextlib.suppress(OSError):
                for _ in range(3000):
                    s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        threading.Thread(target=pump, daemon=True).start()
        time.sleep(1)
        first = len(origin.requests)
        time.sleep(0.5)
        assert len(origin.requests) == first < 200
    eventually(lambda: gate.stats()["connections_active"] == 0)

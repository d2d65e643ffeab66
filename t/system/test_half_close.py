# SPDX-License-Identifier: BSD-2-Clause
"""One side ends its direction while the other goes on: clients behind a whole request, clients in the middle of
one, servers that have answered before the request was complete."""
import socket
import threading

import pytest

from conftest import eventually, read_all

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def gate_to(moongate, origin, frontend="half_close on;", upstream="", **how):
    return moongate(f"upstream app {{ server {origin.address}; {upstream} }}", f"{frontend} route / app;", **how)


def half_closed(gate, data):
    s = gate.connect(5)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    return s


@pytest.fixture
def slow(origin):
    """Answers when slow.set() was called."""
    go = threading.Event()
    origin.reply = lambda request: (go.wait(5), OK)[1]
    yield go
    go.set()


def test_a_whole_request_is_answered_and_the_connection_ends(moongate, origin, slow):
    gate = gate_to(moongate, origin)
    with half_closed(gate, GET % 1) as s:
        eventually(lambda: origin.requests)
        gate.stats()  # the end is seen before the answer
        slow.set()
        got = read_all(s)
    assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"ok") and b"connection: close" in got
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_the_end_that_comes_with_the_request_too(moongate, origin):
    gate = gate_to(moongate, origin)
    for _ in range(50):
        with half_closed(gate, GET % 1) as s:
            assert read_all(s).endswith(b"ok")


def test_a_body_that_is_whole(moongate, origin):
    gate = gate_to(moongate, origin)
    body = b"x" * 3000000
    for framing, text in ((b"Content-Length: %d" % len(body), body),
                          (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))):
        with half_closed(gate, b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n" + text) as s:
            assert read_all(s).endswith(b"ok")
        assert origin.requests[-1].body == body


def test_every_request_of_a_pipeline_is_answered(moongate, origin):
    gate = gate_to(moongate, origin)
    with half_closed(gate, b"".join(GET % n for n in range(100))) as s:
        assert read_all(s).count(b"HTTP/1.1 200") == 100
    assert [request.target for request in origin.requests] == [f"/{n}" for n in range(100)]


def test_a_client_that_reads_late_gets_all(moongate, origin):
    body = b"y" * 5000000
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    gate = gate_to(moongate, origin)
    with half_closed(gate, GET % 1 + GET % 2) as s:
        eventually(lambda: origin.requests)
        assert read_all(s).count(b"y" * 1000000) == 10


CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("beginning", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\n",
                                       b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc",
                                       CHUNKED + b"3\r\nabc\r\n",
                                       CHUNKED + b"0\r\n"])
def test_an_end_in_the_middle_of_a_request_is_an_error(moongate, origin, beginning):
    gate = gate_to(moongate, origin)
    with half_closed(gate, GET % 1 + beginning) as s:
        got = read_all(s)
    assert got.count(b"HTTP/1.1 ") <= 1
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert gate.stats()["requests_active"] == 0
    assert [request.target for request in origin.requests] == ["/1"]  # the other never became whole


def test_with_off_the_end_ends_the_request(moongate, origin, slow):
    gate = gate_to(moongate, origin, "")
    with half_closed(gate, GET % 1) as s:
        assert read_all(s) == b""
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_a_reset_ends_the_request(moongate, origin, slow):
    gate = gate_to(moongate, origin)
    s = gate.connect()
    s.sendall(GET % 1)
    eventually(lambda: origin.requests)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_a_client_that_is_gone_is_noticed_when_it_is_written_to(moongate, origin):
    """It closed both directions: the first bytes are refused, the rest of the response is not fetched."""
    go, pieces = threading.Event(), []

    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        go.wait(5)
        for _ in range(10000):
            pieces.append(1)
            yield b"2710\r\n" + b"z" * 10000 + b"\r\n"
    origin.reply = answer
    gate = gate_to(moongate, origin)
    with gate.connect() as s:
        s.sendall(GET % 1)
        assert s.recv(1000)
    go.set()
    eventually(lambda: gate.stats()["requests_active"] == 0)
    assert len(pieces) < 5000


# ---- servers


def upload(gate, length):
    s = gate.connect(5)
    s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length + b"a" * 1000)
    return s


@pytest.mark.parametrize("end", ["half", "close", "keep"])
def test_an_answer_while_the_body_flows_is_passed_on_at_once(moongate, end):
    """Both connections end behind it, for nobody knows where the client's next request would begin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        origin = type("", (), {"address": "127.0.0.1:%d" % listener.getsockname()[1]})
        gate = gate_to(moongate, origin, "linger_timeout 300ms;")
        with upload(gate, 10000000) as s:
            server, _ = listener.accept()
            with server:
                server.settimeout(5)
                while b"aaaa" not in server.recv(100000):
                    pass
                server.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno" )
                if end == "half":
                    server.shutdown(socket.SHUT_WR)
                elif end == "close":
                    server.close()
                stream = s.makefile("rb")
                head = b"".join(iter(stream.readline, b"\r\n"))
                assert head.startswith(b"HTTP/1.1 413") and b"connection: close" in head
                assert stream.read(2) == b"no"
                s.sendall(b"a" * 100000)  # is taken and thrown away, so that the answer is not lost
                if end != "close":
                    eventually(lambda: gate.stats()["requests_active"] == 0)
                    server.settimeout(5)
                    assert read_all(server).strip(b"a") == b""
        assert gate.stats()["upstream_idle"] == 0


def test_a_server_that_ends_its_side_without_an_answer_is_502_at_once(moongate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        origin = type("", (), {"address": "127.0.0.1:%d" % listener.getsockname()[1]})
        gate = gate_to(moongate, origin, upstream="retry off;")
        with upload(gate, 10000000) as s:
            server, _ = listener.accept()
            with server:
                server.shutdown(socket.SHUT_WR)
                assert s.recv(1000).startswith(b"HTTP/1.1 502")


def test_a_body_until_the_end_while_the_request_still_flows(moongate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        origin = type("", (), {"address": "127.0.0.1:%d" % listener.getsockname()[1]})
        gate = gate_to(moongate, origin)
        with upload(gate, 10000000) as s:
            server, _ = listener.accept()
            with server:
                assert server.recv(1000)  # an answer to nothing would be refused
                server.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
                server.shutdown(socket.SHUT_WR)
                s.settimeout(5)
                got = b""
                while b"0\r\n\r\n" not in got and (piece := s.recv(1000)):
                    got += piece
                assert b"9\r\nall of it\r\n0\r\n\r\n" in got


def test_an_early_head_does_not_stop_the_upload(moongate, origin):
    """A server that says 200 first, and reads and answers while it reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        origin = type("", (), {"address": "127.0.0.1:%d" % listener.getsockname()[1]})
        gate = gate_to(moongate, origin, upstream="read_timeout 500ms;")
        with gate.connect(5) as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n")
            server, _ = listener.accept()
            with server, server.makefile("rb") as stream:
                assert b"".join(iter(stream.readline, b"\r\n"))
                server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
                answer = s.makefile("rb")
                assert b"".join(iter(answer.readline, b"\r\n"))
                for n in range(10):
                    s.sendall(b"%d" % n)
                    assert stream.read(1) == b"%d" % n
                    server.sendall(b"%d" % n)
                    assert answer.read(1) == b"%d" % n


def test_a_connect_hook_waits_for_a_client_that_has_sent_all_it_will(moongate, origin):
    hook = "local gate = require 'moongate'\nreturn { connect = function() gate.sleep(0.1) end }\n"
    for frontend, answered in (("half_close on;", True), ("half_close off;", False)):
        gate = moongate(f"upstream app {{ server {origin.address}; }}", f"{frontend} script a.lua; route / app;",
                        {"a.lua": hook})
        with half_closed(gate, GET % 1) as s:
            assert read_all(s).startswith(b"HTTP/1.1 200") is answered
        eventually(lambda: gate.stats()["connections_active"] == 0)

# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 to upstream servers: streams and connections, GOAWAY, refusals, pings, flow control, time-outs, what is made
of requests. What servers may do wrong is in test_h2_upstream_cases.py."""
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hyperframe import frame as frames

from conftest import eventually, free_port, read_all, rss, SANITIZED
from h2origin import H2Origin

OK = (":status", "200")
STREAMS = frames.SettingsFrame.MAX_CONCURRENT_STREAMS
WINDOW = frames.SettingsFrame.INITIAL_WINDOW_SIZE
NGHTTPD = shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/sbin")


@pytest.fixture
def server():
    with H2Origin() as origin:
        yield origin


def gate_to(moongate, server, upstream="", frontend="", **how):
    return moongate(f"upstream app {{ server {server.address}; protocol h2; {upstream} }}",
                    f"route / app; {frontend}", **how)


def together(*calls):
    """The results of several calls at the same time, in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class Gate:
    """Holds answers back until it is opened; counts those that wait."""

    def __init__(self, answer=None):
        self.opened, self.waiting = threading.Event(), 0
        self.answer = answer or (lambda link, stream: link.respond(stream.id, [OK], b"ok"))

    def __call__(self, link, stream):
        self.waiting += 1
        assert self.opened.wait(15)
        self.answer(link, stream)


# ---- requests and responses


def test_a_request_becomes_a_stream(moongate, server):
    gate = gate_to(moongate, server)
    assert gate.get("/a/b?c=d", {"X-Mixed-Case": "Value"}).body == b"ok"
    [request] = server.requests
    assert request.headers[:4] == [(":method", "GET"), (":scheme", "http"), (":authority", gate.address),
                                   (":path", "/a/b?c=d")]
    assert request.header("x-mixed-case") == "Value" and request.header("host") is None
    assert request.body == b"" and request.ended.is_set()


def test_an_absolute_target_goes_on_in_origin_form(moongate, server):
    gate = gate_to(moongate, server)
    gate.raw(b"GET http://other.example:81/x?y HTTP/1.1\r\nHost: ignored\r\nConnection: close\r\n\r\n")
    assert server.requests[0].headers[2:4] == [(":authority", "other.example:81"), (":path", "/x?y")]


def test_options_for_the_server_itself(moongate, server):
    gate = gate_to(moongate, server)
    gate.raw(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert server.requests[0].path == "*"


def test_what_belongs_to_a_connection_stays_behind(moongate, server):
    gate = gate_to(moongate, server)
    fields = {"Connection": "close, x-named", "Keep-Alive": "timeout=5", "Proxy-Connection": "close", "TE": "gzip",
              "X-Named": "1", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA", "X-Kept": "1"}
    assert gate.get("/", fields).status == 200
    names = [name for name, _ in server.requests[0].headers if not name.startswith(":")]
    assert sorted(names) == ["accept-encoding", "x-kept"]


HOSTILE = {
    "both framings": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "a coding in disguise": b"Transfer-Encoding: xchunked\r\n",
    "a coding with a tab": b"Transfer-Encoding:\tchunked\r\n",
    "an underscore": b"Transfer_Encoding: chunked\r\n",
    "a pseudo-header field": b":path: /admin\r\n",
    "a pseudo-header field within": b"X: 1\r\n:method: DELETE\r\n",
    "a second host": b"Host: other\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "a bare CR": b"X: a\rb: c\r\n",
    "a bare LF": b"X: a\nb: c\r\n",
    "NUL": b"X: a\0b\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a folded line": b"X: a\r\n b\r\n",
}


def test_hostile_fields_of_http1_never_become_a_stream(moongate, server):
    gate = gate_to(moongate, server)
    for name, fields in HOSTILE.items():
        got = gate.raw(b"POST /x HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got.split()[1] in (b"400", b"501"), f"{name}: {got}"
    assert server.requests == []


def test_a_chunked_body_is_content_alone(moongate, server):
    gate = gate_to(moongate, server)
    got = gate.raw(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                   b"5;ext=1\r\nhello\r\n3\r\n\r\n0\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert b"200 OK" in got
    [request] = server.requests
    assert request.body == b"hello\r\n0" and request.trailers == [("x-sum", "1")]
    assert request.header("content-length") is None and request.header("transfer-encoding") is None


def test_a_length_goes_on(moongate, server):
    gate = gate_to(moongate, server)
    assert gate.get("/", method="PUT", body=b"x" * 100000).status == 200
    [request] = server.requests
    assert request.all("content-length") == ["100000"] and request.body == b"x" * 100000


def test_an_empty_body_with_a_length(moongate, server):
    gate = gate_to(moongate, server)
    assert gate.get("/", method="POST", body=b"").status == 200
    assert server.requests[0].all("content-length") == ["0"]


def test_trailers_and_te_go_both_ways(moongate, server):
    server.reply = lambda link, stream: link.respond(stream.id, [OK], b"ok", [("x-sum", "2"), ("grpc-status", "0")])
    gate = gate_to(moongate, server)
    got = gate.raw(b"POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: te, close\r\n"
                   b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-in: 1\r\n\r\n")
    assert got.endswith(b"2\r\nok\r\n0\r\nx-sum: 2\r\ngrpc-status: 0\r\n\r\n")
    assert server.requests[0].all("te") == ["trailers"] and server.requests[0].trailers == [("x-in", "1")]


def test_interim_responses(moongate, server):
    def reply(link, stream):
        link.headers(stream.id, [(":status", "103"), ("link", "</a>")])
        link.headers(stream.id, [(":status", "100")])
        stream.wait_end()
        link.respond(stream.id, [OK], stream.body)
    server.reply, server.early = reply, True
    gate = gate_to(moongate, server)
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        got = b""
        while b"100 Continue" not in got:
            got += s.recv(65536)
        s.sendall(b"hi")
        got += read_all(s)
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>") and got.endswith(b"2\r\nhi\r\n0\r\n\r\n")


def test_head_204_and_304(moongate, server):
    answers = {"/204": [(":status", "204")], "/304": [(":status", "304"), ("etag", '"x"')],
               "/head": [OK, ("content-length", "1000")]}
    server.reply = lambda link, stream: link.respond(stream.id, answers[stream.path])
    gate = gate_to(moongate, server)
    client = gate.client()
    assert client.ask("/204").status == 204
    assert client.ask("/304").headers["etag"] == '"x"'
    got = client.ask("/head", method="HEAD")
    assert got.headers["content-length"] == "1000" and got.body == b""
    assert gate.stats()["connections_accepted"] == 1
    client.close()


def test_an_early_answer_ends_only_its_stream(moongate, server):
    server.early = True
    server.reply = lambda link, stream: link.respond(stream.id, [(":status", "413")], b"no")
    gate = gate_to(moongate, server)
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nxxx")
        got = read_all(s)
    assert got.startswith(b"HTTP/1.1 413") and got.endswith(b"2\r\nno\r\n0\r\n\r\n")
    eventually(lambda: server.requests[0].reset is not None)
    assert gate.get("/").status == 413 and len(server.links) == 1


def test_a_client_that_goes_resets_its_stream(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: held.waiting)
    eventually(lambda: server.requests[0].reset == 8)
    held.opened.set()
    assert gate.get("/").status == 200 and len(server.links) == 1


def test_a_fetch_of_a_script(moongate, server):
    server.reply = lambda link, stream: link.respond(stream.id, [OK, ("x-a", "b")], stream.body + b"!")
    gate = gate_to(moongate, server, frontend="script s.lua;", files={"s.lua": """
        local gate = require "moongate"
        return { request = function(req)
          local got = assert(gate.fetch("http://app/x", { upstream = "app", method = "POST", body = "hi" }))
          return req:respond(got.status, {}, got.headers["x-a"] .. got.body)
        end }"""})
    assert gate.get("/").body == b"bhi!"


def test_scripts_and_the_log_see_what_went(moongate, server):
    gate = gate_to(moongate, server, frontend="""script s.lua; access_log {folder}/access.log json;""".replace(
        "{folder}", "/tmp"), start=False, files={"s.lua": """return {
        response = function(req, res) res.headers["x-seen"] = res.status .. res.headers["content-type"] end }"""})
    text = gate.config.read_text().replace("/tmp/access.log", str(gate.folder / "access.log"))
    gate.config.write_text(text)
    gate.folder.chmod(0o777)
    gate.start()
    assert gate.get("/").headers["x-seen"] == "200text/plain"
    line = json.loads(gate.wait_log(r"^\{.*\}$", path=gate.folder / "access.log").group())
    assert line["status"] == 200 and server.address in json.dumps(line)


def test_an_upgrade_is_answered_501(moongate, server):
    gate = gate_to(moongate, server)
    got = gate.get("/", {"Connection": "Upgrade", "Upgrade": "websocket"})
    assert got.status == 501 and server.requests == []
    gate.wait_log("HTTP/2, which has no such upgrade there")
    assert gate.get("/").status == 200


def test_nghttpd(moongate, tmp_path):
    if not NGHTTPD:
        pytest.skip("nghttpd is missing: Debian's nghttp2-server")
    tmp_path.chmod(0o755)
    (tmp_path / "big").write_bytes(bytes(range(256)) * 40000)
    port = free_port()
    with subprocess.Popen([NGHTTPD, "--no-tls", "--echo-upload", "-d", tmp_path, str(port)],
                          stdout=subprocess.DEVNULL) as process:
        try:
            gate = moongate(f"upstream app {{ server 127.0.0.1:{port}; protocol h2; }}", "route / app;")
            eventually(lambda: gate.get("/big").status == 200)
            bodies = together(*[lambda: gate.get("/big").body] * 8)
            assert all(body == (tmp_path / "big").read_bytes() for body in bodies)
            sent = bytes(range(256)) * 10000
            assert gate.get("/echo", method="POST", body=sent).body == sent
            assert gate.stats()["upstream_connects"] <= 4
        finally:
            process.terminate()


# ---- connections


def test_requests_share_a_connection(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    calls = threading.Thread(target=lambda: together(*[gate.get] * 30))
    calls.start()
    eventually(lambda: held.waiting == 30)
    held.opened.set()
    calls.join()
    assert len(server.links) == 1 and server.links[0].most_open == 30
    assert gate.stats()["upstream_connects"] == 1 and gate.stats()["upstream_streams"] == 30


def test_the_limit_of_the_server_is_kept(moongate):
    with H2Origin({STREAMS: 2}) as server:
        held = server.reply = Gate()
        gate = gate_to(moongate, server, "http2_connections 3;")
        results = []
        calls = threading.Thread(target=lambda: results.extend(together(*[gate.get] * 12)))
        calls.start()
        eventually(lambda: held.waiting == 6 and gate.stats()["upstream_waiting"] == 6)
        held.opened.set()
        calls.join()
        assert [result.status for result in results] == [200] * 12
        assert len(server.links) == 3 and all(link.most_open <= 2 for link in server.links)
        assert gate.stats()["upstream_refused"] == 0


def test_our_own_limit_is_kept(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server, "http2_connections 2; http2_streams 3;")
    calls = threading.Thread(target=lambda: together(*[gate.get] * 10))
    calls.start()
    eventually(lambda: held.waiting == 6 and gate.stats()["upstream_waiting"] == 4)
    held.opened.set()
    calls.join()
    assert len(server.links) == 2 and all(link.most_open == 3 for link in server.links)


def test_those_that_wait_go_when_the_server_allows_more(moongate):
    with H2Origin({STREAMS: 1}) as server:
        held = server.reply = Gate()
        gate = gate_to(moongate, server, "http2_connections 1;")
        calls = threading.Thread(target=lambda: together(*[gate.get] * 4))
        calls.start()
        eventually(lambda: held.waiting == 1 and gate.stats()["upstream_waiting"] == 3)
        server.links[0].send(frames.SettingsFrame(0, settings={STREAMS: 10}))
        eventually(lambda: held.waiting == 4)
        held.opened.set()
        calls.join()
        assert len(server.links) == 1


def test_a_server_that_allows_none(moongate):
    with H2Origin({STREAMS: 0}) as server:
        gate = gate_to(moongate, server, "http2_connections 1; queue_timeout 300ms;")
        # The first goes before the server has said anything, which RFC 9113 allows (3.4); others do not.
        server.reply = lambda link, stream: link.reset(stream.id, 7)
        assert gate.get("/").status in (502, 503)
        assert gate.get("/").status == 503
        gate.wait_log("queue_timeout has passed")


def test_those_that_come_while_connecting_wait_for_it(moongate, server):
    ready = threading.Event()

    def greet(link):
        ready.wait(10)
        link.send(frames.SettingsFrame(0, settings={STREAMS: 50}))

    server.greet = greet
    gate = gate_to(moongate, server)
    calls = threading.Thread(target=lambda: together(*[gate.get] * 20))
    calls.start()
    eventually(lambda: gate.stats()["requests_active"] == 20)
    assert len(server.links) == 1
    ready.set()
    calls.join()
    assert len(server.links) == 1 and len(server.requests) == 20


def test_a_server_that_does_not_begin(moongate, server):
    server.greet = lambda link: None
    server.hears = lambda link, frame: False
    gate = gate_to(moongate, server, "connect_timeout 300ms; tries 1;")
    assert [got.status for got in together(*[gate.get] * 3)] == [504] * 3
    gate.wait_log("did not begin HTTP/2")


def test_a_server_of_http1(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; protocol h2; }}", "route / app;")
    assert gate.get("/").status == 502
    assert origin.requests[0].line.startswith("PRI * HTTP/2.0")


def test_an_idle_connection_ends_with_goaway(moongate, server):
    gate = gate_to(moongate, server, "keepalive 8 idle=200ms;")
    assert gate.get("/").status == 200
    eventually(lambda: server.links[0].goaway == 0)
    assert gate.get("/").status == 200 and len(server.links) == 2


def test_no_pool(moongate, server):
    gate = gate_to(moongate, server, "keepalive 0;")
    assert gate.get("/").status == 200 and gate.get("/").status == 200
    assert len(server.links) == 2
    eventually(lambda: server.links[0].goaway == 0)


def test_connections_live_through_reloads(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    results = []
    calls = threading.Thread(target=lambda: results.extend(together(*[gate.get] * 5)))
    calls.start()
    eventually(lambda: held.waiting == 5)
    for _ in range(5):
        gate.reload()
    held.opened.set()
    calls.join()
    assert [got.status for got in results] == [200] * 5
    eventually(lambda: server.links[0].goaway == 0)
    assert gate.get("/").status == 200


def test_max_active_counts_streams(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server, "max_active 2;")
    calls = threading.Thread(target=lambda: together(*[gate.get] * 5))
    calls.start()
    eventually(lambda: held.waiting == 2 and gate.stats()["upstream_waiting"] == 3)
    held.opened.set()
    calls.join()
    assert server.links[0].most_open == 2


# ---- GOAWAY, refusals, retries


def test_goaway_lets_what_began_end_and_sends_the_rest_elsewhere(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    results = []
    calls = threading.Thread(target=lambda: results.extend(
        together(*[lambda: gate.get("/", method="POST", body=b"x" * 1000)] * 6)))
    calls.start()
    eventually(lambda: held.waiting == 6)
    ids = sorted(server.links[0].streams)
    server.links[0].go_away(ids[1])
    eventually(lambda: held.waiting == 10)  # four of them a second time
    held.opened.set()
    calls.join()
    assert [got.status for got in results] == [200] * 6
    assert [len(link.streams) for link in server.links] == [6, 4]
    assert all(stream.body == b"x" * 1000 for stream in server.requests)
    stats = gate.stats()
    assert (stats["upstream_goaways"], stats["upstream_refused"], stats["retries_refused"]) == (1, 4, 4)


def test_a_graceful_goaway_takes_new_requests_elsewhere(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    first = threading.Thread(target=gate.get)
    first.start()
    eventually(lambda: held.waiting == 1)
    server.links[0].go_away(2**31 - 1)
    eventually(lambda: gate.stats()["upstream_goaways"] == 1)
    second = threading.Thread(target=gate.get)
    second.start()
    eventually(lambda: held.waiting == 2)
    assert [len(link.streams) for link in server.links] == [1, 1]
    held.opened.set()
    first.join()
    second.join()
    eventually(lambda: server.links[0].goaway == 0)  # it closed the first one: nothing was left on it


def test_goaway_on_an_idle_connection(moongate, server):
    gate = gate_to(moongate, server)
    assert gate.get("/").status == 200
    server.links[0].go_away(1)
    eventually(lambda: gate.stats()["upstream_idle"] == 0)
    assert gate.get("/", method="POST", body=b"x").status == 200
    assert len(server.links) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_request_is_sent_again(moongate, server, method):
    def reply(link, stream):
        if len(server.requests) < 3:
            link.reset(stream.id, 7)
        else:
            link.respond(stream.id, [OK], stream.body)
    server.reply = reply
    gate = gate_to(moongate, server)
    assert gate.get("/", method=method, body=b"hello").body == b"hello"
    assert len(server.requests) == 3 and gate.stats()["retries_refused"] == 2


def test_not_more_often_than_tries(moongate, server):
    server.reply = lambda link, stream: link.reset(stream.id, 7)
    gate = gate_to(moongate, server, "tries 2;")
    assert gate.get("/").status == 502 and len(server.requests) == 2


def test_not_when_it_is_left_out(moongate, server):
    server.reply = lambda link, stream: link.reset(stream.id, 7)
    gate = gate_to(moongate, server, "retry connect stale idempotent;")
    assert gate.get("/").status == 502 and len(server.requests) == 1


def test_another_reset_of_a_post_is_not_repeated(moongate, server):
    server.reply = lambda link, stream: link.reset(stream.id, 2)
    gate = gate_to(moongate, server)
    assert gate.get("/", method="POST", body=b"x").status == 502 and len(server.requests) == 1
    gate.wait_log(r"RST_STREAM \(INTERNAL_ERROR\)")


@pytest.mark.parametrize("method,times", [("GET", 2), ("POST", 1)])
def test_a_connection_that_ends_without_an_answer(moongate, server, method, times):
    server.reply = lambda link, stream: link.close() if len(server.requests) == 1 else link.respond(stream.id, [OK])
    gate = gate_to(moongate, server)
    assert gate.get("/", method=method, body=b"x").status == (200 if times == 2 else 502)
    assert len(server.requests) == times


def test_a_connection_that_breaks_under_many(moongate, server):
    held = server.reply = Gate()
    gate = gate_to(moongate, server)
    results = []
    calls = threading.Thread(target=lambda: results.extend(together(*[gate.get] * 10)))
    calls.start()
    eventually(lambda: held.waiting == 10)
    server.links[0].close()
    eventually(lambda: held.waiting == 20)
    held.opened.set()
    calls.join()
    assert [got.status for got in results] == [200] * 10


def test_a_server_that_cannot_be_connected_to(moongate, server):
    nobody = free_port()
    gate = moongate(f"upstream app {{ server 127.0.0.1:{nobody}; server {server.address}; protocol h2; }}",
                    "route / app;")
    for _ in range(5):
        assert [got.status for got in together(*[gate.get] * 6)] == [200] * 6


# ---- health


def test_a_silent_connection_is_asked(moongate, server):
    gate = gate_to(moongate, server, "http2_ping 100ms; keepalive 8 idle=60s;")
    assert gate.get("/").status == 200
    eventually(lambda: server.links[0].pings >= 3)
    assert gate.get("/").status == 200 and len(server.links) == 1


def test_a_dead_one_is_given_up(moongate, server):
    server.pong = False
    server.reply = lambda link, stream: None
    gate = gate_to(moongate, server, "http2_ping 100ms; connect_timeout 300ms; retry off;")
    assert gate.get("/").status == 504
    gate.wait_log("no answer to PING")
    assert gate.stats()["upstream_pings_lost"] == 1


def test_a_dead_idle_one_is_noticed_before_a_request_is(moongate, server):
    gate = gate_to(moongate, server, "http2_ping 100ms; connect_timeout 300ms;")
    assert gate.get("/").status == 200
    server.pong = False
    eventually(lambda: gate.stats()["upstream_idle"] == 0)
    server.pong = True
    assert gate.get("/", method="POST", body=b"x").status == 200 and len(server.links) == 2


# ---- time-outs


def test_no_response_in_time(moongate, server):
    server.reply = lambda link, stream: None if stream.path == "/slow" else link.respond(stream.id, [OK])
    gate = gate_to(moongate, server, "response_timeout 200ms;")
    assert gate.get("/slow").status == 504
    eventually(lambda: server.requests[0].reset == 8)
    assert gate.get("/").status == 200 and len(server.links) == 1


def test_a_body_that_stops(moongate, server):
    def reply(link, stream):
        link.headers(stream.id, [OK])
        link.data(stream.id, b"begun")
    server.reply = reply
    gate = gate_to(moongate, server, "read_timeout 200ms;")
    with pytest.raises(http.client.IncompleteRead):
        gate.get("/")
    eventually(lambda: server.requests[0].reset == 8)


def test_a_request_that_is_not_taken(moongate, server):
    server.credit = False
    gate = gate_to(moongate, server, "write_timeout 300ms; response_timeout 10s;")
    assert gate.get("/", method="POST", body=b"x" * 300000).status == 504
    assert len(server.requests[0].body) <= 65535


# ---- flow control


def test_a_slow_client_stalls_no_other(moongate, server):
    server.reply = lambda link, stream: link.respond(stream.id, [OK], b"ok") if stream.path == "/small" else (
        link.headers(stream.id, [OK]), link.pour(stream, 64 << 20))
    gate = gate_to(moongate, server, "http2_window 64k;")
    slow = []
    for _ in range(40):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", gate.port))
        s.sendall(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        slow.append(s)
    eventually(lambda: len(server.requests) == 40)
    worker = gate.workers()[0]

    def stands():
        """what the server has poured stands still"""
        before = [stream.window for stream in server.requests]
        time.sleep(0.3)
        return before == [stream.window for stream in server.requests]

    eventually(stands, 20)
    assert len(server.links) == 1
    for _ in range(20):
        assert gate.get("/small").body == b"ok"
    if not SANITIZED:
        # buffer_high and http2_window for each, and what moongate itself takes
        assert rss(worker) < (40 * (256 + 64 + 64) << 10) + (32 << 20)
    for s in slow:
        s.close()
    eventually(lambda: all(stream.reset == 8 for stream in server.requests if stream.path == "/big"))
    assert gate.get("/small").body == b"ok" and len(server.links) == 1


def test_a_server_that_sends_more_than_it_may(moongate, server):
    def reply(link, stream):
        link.headers(stream.id, [OK])
        while stream.reset is None and stream.path == "/big":
            link.data(stream.id, b"x" * 16384)
        link.data(stream.id, b"", end=True)
    server.reply = reply
    gate = gate_to(moongate, server, "http2_window 64k;")
    with gate.connect() as s:
        s.sendall(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")  # and reads nothing
        eventually(lambda: server.requests and server.requests[0].reset == 3)
    assert gate.get("/").status == 200 and len(server.links) == 1


def test_a_slow_server_stream_stalls_no_other(moongate):
    """The server gives no window for one upload; others on the connection go on."""
    with H2Origin() as server:
        server.credit = False

        def hears(link, frame):
            if isinstance(frame, frames.DataFrame) and frame.flow_controlled_length:
                link.send(frames.WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
                if link.streams[frame.stream_id].path != "/stuck":
                    link.send(frames.WindowUpdateFrame(frame.stream_id, window_increment=frame.flow_controlled_length))
            return True

        server.hears = hears
        gate = gate_to(moongate, server)
        with gate.connect() as stuck:
            stuck.sendall(b"POST /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n")
            sender = threading.Thread(target=lambda: send_quietly(stuck, b"x" * 10000000), daemon=True)
            sender.start()
            eventually(lambda: server.requests and len(server.requests[0].body) == 65535)
            for _ in range(3):
                assert gate.get("/", method="POST", body=b"y" * 500000).status == 200
            assert len(server.requests[0].body) == 65535 and len(server.links) == 1
            stuck.shutdown(socket.SHUT_RDWR)
        assert server.requests[1].body == b"y" * 500000


def send_quietly(s, data):
    try:
        s.sendall(data)
    except OSError:
        pass


def test_a_large_response_byte_for_byte(moongate, server):
    server.reply = lambda link, stream: (link.headers(stream.id, [OK, ("content-length", str(20 << 20))]),
                                         link.pour(stream, 20 << 20))
    gate = gate_to(moongate, server)
    assert gate.get("/").body == b"x" * (20 << 20)


def test_the_window_that_was_asked_for(moongate, server):
    gate = gate_to(moongate, server, "http2_window 123456;")
    assert gate.get("/").status == 200
    settings = server.links[0].settings
    assert settings[WINDOW] == 123456
    assert settings[frames.SettingsFrame.ENABLE_PUSH] == 0


def test_a_window_that_shrinks_and_grows(moongate, server):
    server.credit = False

    def hears(link, frame):
        if isinstance(frame, frames.HeadersFrame):
            link.send(frames.SettingsFrame(0, settings={WINDOW: 0}))
        return True

    server.hears, server.early = hears, True

    def reply(link, stream):
        eventually(lambda: len(stream.body) > 0 or time.sleep(0.2) or True)
        link.send(frames.SettingsFrame(0, settings={WINDOW: 1 << 20}),
                  frames.WindowUpdateFrame(0, window_increment=1 << 20))
        stream.wait_end()
        link.respond(stream.id, [OK], b"%d" % len(stream.body))

    server.reply = reply
    gate = gate_to(moongate, server)
    assert gate.get("/", method="POST", body=b"x" * 300000).body == b"300000"

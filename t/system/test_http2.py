# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 towards clients, by prior knowledge: requests and responses as they are meant to be. What is not:
test_http2_cases.py, test_http2_floods.py."""
import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

import h2_peer
from conftest import SANITIZED, eventually, free_port, rss
from h2_peer import H2, raw


def gate_for(moongate, origin, frontend="", **how):
    return moongate(f"upstream app {{ server {origin.address}; }}", f"{frontend} route / app;", **how)


def sized(body, more=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), more) + body


# ---- real clients


def test_curl_gets_and_posts(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = lambda request: sized(request.method.encode() + b" " + request.body)
    for body in (None, "x" * 200000):
        done = subprocess.run(["curl", "-sS", "-m", "10", "--http2-prior-knowledge", "-w", "|%{http_version}",
                               *(["-d", "@-"] if body else []), gate.url("/a?b=c")], capture_output=True, text=True,
                              timeout=20, check=True, input=body)
        assert done.stdout == (f"POST {'x' * 200000}|2" if body else "GET |2")
    assert [request.target for request in origin.requests] == ["/a?b=c"] * 2
    assert origin.requests[0].header("host") == gate.address


def test_curl_asks_for_an_upgrade_and_is_served_as_http1(moongate, origin):
    gate = gate_for(moongate, origin)
    done = subprocess.run(["curl", "-sS", "-m", "10", "--http2", "-w", "|%{http_version}", gate.url()],
                          capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "ok|1.1"
    assert not origin.requests[0].header("upgrade")


@pytest.mark.skipif(not shutil.which("nghttp"), reason="no nghttp2-client")
def test_nghttp_with_many_requests_and_priorities(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = sized(b"z" * 100000)
    done = subprocess.run(["nghttp", "-ns", "-t", "10", "-w", "20", "-m", "30", gate.url("/x")], capture_output=True,
                          text=True, timeout=30, check=True)
    assert len(re.findall(r" 200 +97K /x", done.stdout)) == 30, done.stdout


@pytest.mark.skipif(not shutil.which("h2load"), reason="no nghttp2-client")
@pytest.mark.parametrize("size", [10, 30000, 2000000])
def test_h2load_succeeds_with_every_request(moongate, origin, size):
    gate = gate_for(moongate, origin, "keepalive_requests 0;", level="info")
    origin.reply = sized(b"q" * size)
    count = 2000 if size == 10 else 400 if size == 30000 else 40
    done = subprocess.run(["h2load", "-n", str(count), "-c", "4", "-m", "20", gate.url("/x")], capture_output=True,
                          text=True, timeout=60, check=True)
    assert f"{count} succeeded, 0 failed, 0 errored" in done.stdout, done.stdout


# ---- messages


def test_a_request_becomes_one_of_http1(moongate, origin):
    gate = gate_for(moongate, origin)
    with H2(gate) as peer:
        answer = peer.get("/p?q", headers=[("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("te", "trailers")],
                          authority="example.org:81")
    assert answer.status == 200 and answer.body == b"ok" and answer.header("content-length") == "2"
    request = origin.requests[0]
    assert request.line == "GET /p?q HTTP/1.1"
    assert request.headers[0] == ("host", "example.org:81")
    assert request.all("cookie") == ["a=1; b=2"] and request.header("x-one") == "1"
    assert not request.header("transfer-encoding") and not request.header("content-length")


def test_host_stands_in_for_authority(moongate, origin):
    gate = gate_for(moongate, origin)
    with H2(gate) as peer:
        stream = peer.id()
        peer.send(peer.head(stream, [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "h.example")]))
        assert peer.answer(stream).status == 200
        stream = peer.request(headers=[("host", "H")])
        assert peer.answer(stream).status == 200
    assert [request.all("host") for request in origin.requests] == [["h.example"], ["h"]]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("size", [0, 1, 70000, 3000000])
def test_bodies_go_up(moongate, origin, length, size):
    """More than the windows hold: they are given back as the origin takes it."""
    gate = gate_for(moongate, origin)
    body = bytes(i % 251 for i in range(size))
    with H2(gate) as peer:
        peer.until(lambda: peer.settings)
        stream = peer.request(method="PUT", headers=[("content-length", str(size))] if length else [], end=False)
        sent = 0
        stream_window = peer.settings[4]
        while sent < size:
            room = min(stream_window + peer.stream_windows[stream], 65535 + peer.window) - sent
            piece = body[sent:sent + min(room, 16384)]
            if piece:
                peer.send(raw(h2_peer.DATA, 0, stream, piece))
                sent += len(piece)
            else:
                peer.step()
        peer.send(raw(h2_peer.DATA, h2_peer.END_STREAM, stream))
        assert peer.answer(stream).status == 200
    assert origin.requests[0].body == body
    assert origin.requests[0].header("content-length") == (str(size) if length else None)


def test_bodies_come_down(moongate, origin):
    gate = gate_for(moongate, origin)
    body = bytes(i % 253 for i in range(2500000))
    with H2(gate) as peer:
        origin.reply = sized(body)
        assert peer.get().body == body
        origin.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n"
        answer = peer.get()
        assert answer.body == b"hello there" and not answer.header("transfer-encoding")
        assert not answer.header("content-length")
        origin.reply = (b"HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\n\r\n"
                        b"to the end")
        answer = peer.get()
        assert answer.body == b"to the end"
        assert not {"connection", "x-hop", "keep-alive"} & {name for name, _ in answer.headers}


def test_names_are_sent_in_lower_case_and_reason_is_dropped(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = b"HTTP/1.1 418 Short And Stout\r\nX-MiXed: Value\r\nContent-Length: 0\r\n\r\n"
    with H2(gate) as peer:
        answer = peer.get()
    assert answer.status == 418 and answer.header("x-mixed") == "Value" and answer.ended and answer.data_frames == 0


@pytest.mark.parametrize("method, reply, length", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n", "77"),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "5"),
    ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
])
def test_responses_without_content(moongate, origin, method, reply, length):
    gate = gate_for(moongate, origin)
    origin.reply = reply
    with H2(gate) as peer:
        answer = peer.get(method=method)
        assert answer.status == int(reply.split()[1]) and answer.ended and not answer.body
        assert answer.header("content-length") == length
        origin.reply = sized(b"next")
        assert peer.get().body == b"next"


def test_trailers_both_ways(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\n\r\n"
    with H2(gate) as peer:
        stream = peer.request(method="POST", body=b"data", end=False)
        peer.send(peer.head(stream, [("x-check", "7"), ("authorization", "dropped")]))
        answer = peer.answer(stream)
    assert answer.body == b"hi" and answer.trailers == [("x-sum", "9")]
    assert origin.requests[0].body == b"data"
    assert b"x-check: 7" in origin.requests[0].trailers.lower() and b"authorization" not in origin.requests[0].trailers


def test_interim_responses_are_passed_on(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + sized(b"ok")
    with H2(gate) as peer:
        answer = peer.get()
    assert answer.status == 200 and [dict(head)[":status"] for head in answer.interims] == ["103"]
    assert dict(answer.interims[0])["link"] == "</a>"


def test_a_script_sees_the_version_and_the_log_too(moongate):
    gate = moongate("", "script a.lua; access_log stderr;",
                    {"a.lua": """return { request = function(req)
                        return req:respond(200, {}, req.version .. req.scheme) end }"""})
    with H2(gate) as peer:
        assert peer.get("/v").body == b"2.0http"
    gate.wait_log(r'"GET /v HTTP/2\.0" 200 7')


def test_an_early_answer_resets_the_rest_of_the_request_without_an_error(moongate):
    gate = moongate("", "script a.lua;",
                    {"a.lua": "return { request = function(req) return req:respond(413, {}, 'no') end }"})
    with H2(gate) as peer:
        stream = peer.request(method="POST", body=b"x" * 1000, end=False)
        answer = peer.answer(stream)
        peer.until(lambda: answer.reset is not None)
        assert (answer.status, answer.body, answer.reset) == (413, b"no", h2_peer.NO_ERROR)
        # What was under way is passed over, its part of the connection's window is given back.
        for _ in range(200):
            peer.send(raw(h2_peer.DATA, 0, stream, b"y" * 10000))
            peer.ping()
        assert peer.window >= 983041 + 1000000
        assert peer.get().status == 413


@pytest.mark.parametrize("directives, fields, status", [
    ("max_head 1k; ", [("x", "y" * 1100)], 431),
    ("max_line 100;", [("x", "y" * 110)], 431),
    ("max_headers 5;", [(f"x{i}", "y") for i in range(9)], 431),
    ("max_uri 64;", [], 414),
    ("methods GET;", [], 405),
])
def test_limits_of_a_head_are_answered(moongate, origin, directives, fields, status):
    gate = gate_for(moongate, origin, directives)
    with H2(gate) as peer:
        assert peer.get("/" + "p" * (100 if status == 414 else 0), headers=fields,
                        method="PUT" if status == 405 else "GET").status == status
        assert peer.get().status == 200
    assert len(origin.requests) == 1


def test_a_body_that_is_too_large_is_answered_413(moongate, origin):
    gate = gate_for(moongate, origin, "max_body 1000;")
    with H2(gate) as peer:
        assert peer.answer(peer.request(method="POST", body=b"x" * 1001)).status == 413
        assert peer.get(method="POST", headers=[("content-length", "1001")], end=False).status == 413
        assert peer.answer(peer.request(method="POST", body=b"x" * 1000)).status == 200


def test_an_origin_that_breaks_off_resets_the_stream(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhalf"
    with H2(gate) as peer:
        answer = peer.get()
        assert answer.reset == h2_peer.INTERNAL_ERROR and not answer.ended
        origin.reply = sized(b"ok")
        assert peer.get().body == b"ok"


def test_a_request_taken_back_ends_at_the_origin(moongate, origin):
    gate = gate_for(moongate, origin, "access_log stderr;")
    gone = threading.Event()

    def reply(request):
        if request.target == "/slow":
            try:
                while True:
                    time.sleep(0.02)
                    yield b"" if gone.is_set() else b"HTTP/1.1 103 Early Hints\r\n\r\n"
            finally:
                gone.set()
        yield sized(b"ok")
    origin.reply = reply
    with H2(gate) as peer:
        stream = peer.request("/slow")
        peer.until(lambda: peer.answers[stream].interims)
        peer.send(raw(h2_peer.RST_STREAM, 0, stream, b"\0\0\0\x08"))
        assert gone.wait(5)
        assert peer.get("/x").status == 200
    assert gate.stats()["http2_resets"] == 1


# ---- multiplexing


def test_streams_are_answered_as_they_are_ready(moongate, origin):
    gate = gate_for(moongate, origin)
    first = threading.Event()

    def reply(request):
        if request.target == "/late":
            first.wait(5)
        return sized(request.target.encode())
    origin.reply = reply
    with H2(gate) as peer:
        late = peer.request("/late")
        assert peer.get("/early").body == b"/early"
        assert not peer.answers[late].over
        first.set()
        assert peer.answer(late).body == b"/late"


def test_a_stream_that_is_not_read_stalls_no_other(moongate, origin):
    """Twenty responses that the client gives no window for, and one that it takes."""
    gate = gate_for(moongate, origin)
    origin.reply = lambda request: sized(b"b" * (5000000 if request.target == "/big" else 300000))
    with H2(gate, settings={4: 0}, windows=False) as peer:
        peer.send(raw(h2_peer.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        for _ in range(20):
            peer.request("/big")
        stream = peer.request("/small")
        peer.send(raw(h2_peer.WINDOW_UPDATE, 0, stream, (1 << 20).to_bytes(4, "big")))
        assert len(peer.answer(stream).body) == 300000


def test_a_slow_origin_stalls_only_its_upload(moongate, origin):
    """Its stream's window is used up, the connection's is not."""
    held = socket.create_server(("127.0.0.1", 0))
    gate = moongate(f"upstream app {{ server {origin.address}; }} "
                    f"upstream slow {{ server 127.0.0.1:{held.getsockname()[1]}; }}",
                    "route / app; route /slow slow; buffer_high 16k; buffer_low 8k; http2_stream_window 64k;")
    with held, H2(gate) as peer:
        peer.until(lambda: peer.settings)
        slow = peer.request("/slow", method="POST", end=False)
        sent, quiet = 0, 0
        while quiet < 5:  # until no more window comes
            room = min(65536 + peer.stream_windows[slow], 65535 + peer.window) - sent
            if room > 0:
                peer.send(raw(h2_peer.DATA, 0, slow, b"s" * min(room, 16384)))
                sent += min(room, 16384)
                quiet = 0
            peer.ping()
            quiet += room <= 0
            time.sleep(0.02 if room <= 0 else 0)
        assert sent < 16 << 20
        assert peer.answer(peer.request(method="POST", body=b"f" * 60000)).status == 200


def test_urgent_responses_come_first(moongate, origin):
    """RFC 9218, by a field and by PRIORITY_UPDATE: all are there before the window opens."""
    gate = gate_for(moongate, origin)
    origin.reply = lambda request: sized(request.target[-1:].encode() * 20000)
    with H2(gate, windows=False) as peer:
        filler = peer.request("/f")                      # the connection's window is used up
        peer.answer(filler)
        peer.answer(peer.request("/f"))
        blocked = peer.request("/f")
        peer.until(lambda: len(peer.answers[blocked].body) == 65535 - 40000 if 65535 - 40000 < 20000
                   else peer.answers[blocked].over)
        streams = {u: peer.request(f"/{u}", headers=[("priority", f"u={u}")]) for u in (6, 4, 5)}
        streams[1] = peer.request("/1", headers=[("priority", "u=7")])
        peer.send(raw(h2_peer.PRIORITY_UPDATE, 0, 0, streams[1].to_bytes(4, "big") + b"u=1"))
        peer.until(lambda: all(peer.answers[stream].headers for stream in streams.values()))
        peer.ping()
        order = []
        note = peer.note

        def watch(kind, flags, stream, payload):
            if kind == h2_peer.DATA and stream in streams.values() and stream not in order:
                order.append(stream)
            note(kind, flags, stream, payload)
        peer.note = watch
        time.sleep(0.3)                                  # for the bodies to be there
        peer.send(raw(h2_peer.WINDOW_UPDATE, 0, 0, (200000).to_bytes(4, "big")))
        for stream in streams.values():
            peer.answer(stream)
    begun = [stream for stream in order]
    assert begun[1:] == [streams[u] for u in (1, 4, 5, 6) if streams[u] != begun[0]] or \
        begun == [streams[u] for u in (1, 4, 5, 6)]


def test_more_streams_than_allowed_are_refused(moongate, origin):
    hold = threading.Event()
    gate = gate_for(moongate, origin, "http2_max_streams 3;")

    def reply(request):
        hold.wait(5)
        return sized(b"ok")
    origin.reply = reply
    with H2(gate) as peer:
        # Before the client can know.
        streams = [peer.request() for _ in range(5)]
        peer.until(lambda: sum(peer.answers[stream].reset is not None for stream in streams) == 2)
        assert [peer.answers[stream].reset for stream in streams[3:]] == [h2_peer.REFUSED_STREAM] * 2
        assert peer.settings[3] == 3
        hold.set()
        assert [peer.answer(stream).status for stream in streams[:3]] == [200] * 3
        assert peer.get().status == 200


def test_a_turn_begins_no_more_than_its_share(moongate):
    gate = moongate("", "script a.lua;",
                    {"a.lua": "return { request = function(req) return req:respond(200, {}, '') end }"})
    with H2(gate) as peer:
        peer.get()
        before = gate.stats()
        data, streams = b"", []
        for _ in range(90):
            streams.append(peer.id())
            data += peer.head(streams[-1], peer.fields())
        peer.write(data)
        assert all(peer.answer(stream).status == 200 for stream in streams)
    after = gate.stats()
    assert after["turns_shared"] - before["turns_shared"] >= 90 / 16 - 1


def test_output_leaves_in_few_sends(moongate):
    """Heads and small bodies of many streams share what is sent."""
    gate = moongate("", "script a.lua;",
                    {"a.lua": "return { request = function(req) return req:respond(200, {}, 'hello') end }"})
    with H2(gate) as peer:
        peer.get()
        streams = [peer.id() for _ in range(64)]
        before = gate.stats()["ring_submissions"]
        peer.write(b"".join(peer.head(stream, peer.fields()) for stream in streams))
        assert all(peer.answer(stream).body == b"hello" for stream in streams)
        assert gate.stats()["ring_submissions"] - before < 40


@pytest.mark.skipif(SANITIZED or not shutil.which("h2load"), reason="no nghttp2-client, or a worker that is slow")
def test_responses_of_a_busy_worker_share_their_sends(moongate, nginx):
    """Each request has a send of its own to the server; those to the clients are fewer. The best of several rounds: what
    there is to share depends on how busy the machine is with others."""
    nginx.write("index.html", "hello")
    gate = moongate(f"upstream app {{ server {nginx.address}; keepalive 512; }}", "route / app; keepalive_requests 0;")
    found = []
    for _ in range(5):
        before = gate.stats()
        done = subprocess.run(["h2load", "-n", "20000", "-c", "16", "-m", "32", gate.url("/")], capture_output=True,
                              text=True, timeout=60, check=True)
        assert "20000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
        after = gate.stats()
        found.append((after["ring_submissions"] - before["ring_submissions"]) / 20000)
        if found[-1] < 1.4:
            return
    pytest.fail(f"operations for each request: {found}")


# ---- time


def test_a_head_that_does_not_end(moongate, origin):
    gate = gate_for(moongate, origin, "header_timeout 300ms;")
    with H2(gate) as peer:
        assert peer.get().status == 200
        peer.send(peer.head(peer.id(), peer.fields(), flags=0))
        began = time.monotonic()
        peer.goaway()
        assert 0.2 < time.monotonic() - began < 2


@pytest.mark.parametrize("first", [b"", h2_peer.PREFACE[:5], h2_peer.PREFACE])
def test_a_first_request_that_does_not_come(moongate, origin, first):
    gate = gate_for(moongate, origin, "header_timeout 300ms;")
    with gate.connect() as s:
        s.sendall(first)
        began = time.monotonic()
        while s.recv(1000):
            pass
        assert 0.2 < time.monotonic() - began < 2


def test_a_body_that_stops_is_answered_408(moongate, origin):
    gate = gate_for(moongate, origin, "body_timeout 300ms;")
    with H2(gate) as peer:
        answer = peer.answer(peer.request(method="POST", body=b"some", end=False))
        assert answer.status == 408
        assert peer.get().status == 200


def test_a_body_that_drips_is_answered_408(moongate, origin):
    gate = gate_for(moongate, origin, "body_timeout 5s; body_min_rate 200 grace=400ms;")
    with H2(gate) as peer:
        stream = peer.request(method="POST", end=False)
        began = time.monotonic()
        peer.sock.settimeout(0.05)
        while not peer.answers[stream].over and time.monotonic() - began < 5:
            peer.send(raw(h2_peer.DATA, 0, stream, b"x"))
            with contextlib.suppress(TimeoutError):
                peer.step()
        assert peer.answers[stream].status == 408


def test_a_response_without_a_window_is_given_up(moongate, origin):
    gate = gate_for(moongate, origin, "send_timeout 400ms;")
    origin.reply = sized(b"x" * 100000)
    with H2(gate, settings={4: 10}, windows=False) as peer:
        stream = peer.request()
        began = time.monotonic()
        answer = peer.answer(stream)
        assert answer.reset == h2_peer.CANCEL and len(answer.body) == 10 and 0.3 < time.monotonic() - began < 3
        assert peer.ping()
        origin.reply = sized(b"tiny")
        assert peer.get().body == b"tiny"
    assert gate.stats()["http2_stalled"] == 1


def test_an_idle_connection_ends_with_goaway(moongate, origin):
    gate = gate_for(moongate, origin, "keepalive_timeout 300ms;")
    with H2(gate) as peer:
        assert peer.get().status == 200
        began = time.monotonic()
        assert peer.goaway() == h2_peer.NO_ERROR
        assert 0.2 < time.monotonic() - began < 2


def test_pings_do_not_keep_an_idle_connection(moongate, origin):
    gate = gate_for(moongate, origin, "keepalive_timeout 500ms;")
    with H2(gate) as peer:
        assert peer.get().status == 200
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while not peer.goaways and time.monotonic() - began < 3:
                peer.ping()
                time.sleep(0.05)
        assert time.monotonic() - began < 2


# ---- the end


def test_so_many_requests_then_goaway(moongate, origin):
    gate = gate_for(moongate, origin, "keepalive_requests 3;")
    with H2(gate) as peer:
        assert [peer.get().status for _ in range(3)] == [200] * 3
        assert peer.goaway() == h2_peer.NO_ERROR
        assert [last for _, last in peer.goaways] == [2 ** 31 - 1, 5]


def test_a_graceful_stop_lets_streams_end(moongate, origin):
    """The first GOAWAY takes nothing away: what was sent before it was seen is served."""
    hold = threading.Event()
    gate = gate_for(moongate, origin)

    def reply(request):
        hold.wait(5)
        return sized(b"whole")
    origin.reply = reply
    with H2(gate) as peer:
        first = peer.request()
        eventually(lambda: origin.requests)
        note = peer.note
        peer.note = lambda kind, *more: None if kind == h2_peer.PING else note(kind, *more)  # unanswered
        gate.kill(3)
        peer.until(lambda: peer.goaways)
        assert peer.goaways == [(0, 2 ** 31 - 1)]
        second = peer.request()
        eventually(lambda: len(origin.requests) == 2)
        peer.until(lambda: len(peer.goaways) == 2)
        assert peer.goaways[1] == (0, second)
        hold.set()
        assert [peer.answer(stream).body for stream in (first, second)] == [b"whole"] * 2
        assert peer.goaway() == 0
    assert gate.wait_end() == 0


def test_reloads_leave_connections_alone(moongate, origin):
    gate = gate_for(moongate, origin)
    with H2(gate) as peer:
        for _ in range(5):
            assert peer.get().status == 200
            gate.reload()
            assert peer.get().status == 200
        assert not peer.goaways


def test_a_removed_listener_drains(moongate, origin):
    gate = gate_for(moongate, origin)
    with H2(gate) as peer:
        assert peer.get().status == 200
        gate.port = free_port()
        gate.configure(f"upstream app {{ server {origin.address}; }}", "route / app;")
        gate.reload()
        assert peer.goaway() == 0 and len(peer.goaways) == 2


def test_a_client_that_leaves_ends_its_requests(moongate, origin):
    gate = gate_for(moongate, origin)
    origin.reply = lambda request: time.sleep(0.5) or sized(b"x" * 1000)
    with H2(gate) as peer:
        for _ in range(10):
            peer.request()
        eventually(lambda: gate.stats()["requests_active"] == 10)
    eventually(lambda: gate.stats()["requests_active"] == 0)
    assert gate.stats()["connections_active"] == 0


def test_half_closed_clients_get_their_responses_when_allowed(moongate, origin):
    gate = gate_for(moongate, origin, "half_close on;")
    origin.reply = lambda request: time.sleep(0.2) or sized(b"late")
    with H2(gate) as peer:
        stream = peer.request()
        peer.ping()
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.answer(stream).body == b"late"
        peer.goaway()


def test_goaway_of_the_client_ends_an_idle_connection(moongate, origin):
    gate = gate_for(moongate, origin)
    with H2(gate) as peer:
        stream = peer.request()
        peer.send(raw(h2_peer.GOAWAY, 0, 0, bytes(8)))
        assert peer.answer(stream).status == 200
        while peer.step():
            pass
        assert peer.closed


def test_the_preface_may_come_in_pieces(moongate, origin):
    gate = gate_for(moongate, origin)
    data = h2_peer.PREFACE + raw(h2_peer.SETTINGS)
    for cut in (1, 3, 14, 23, 24, 30):
        with gate.connect() as s:
            s.sendall(data[:cut])
            time.sleep(0.03)
            s.sendall(data[cut:])
            peer = H2(gate, greet=False, sock=s)
            assert peer.get().status == 200


def test_what_only_begins_like_the_preface_is_http1(moongate, origin):
    gate = gate_for(moongate, origin)
    with gate.connect() as s:
        s.sendall(b"P")
        time.sleep(0.05)
        s.sendall(b"UT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in s.recv(4096)
    assert b" 505 " in gate.raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")


def test_http2_off(moongate, origin):
    gate = gate_for(moongate, origin, "http2 off;")
    with gate.connect() as s:
        s.sendall(h2_peer.PREFACE + raw(h2_peer.SETTINGS))
        assert b" 505 " in s.recv(4096)


def test_idle_connections_are_shed_with_goaway(moongate, origin):
    gate = gate_for(moongate, origin, connections=4)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(H2(gate)) for _ in range(4)]
        assert all(peer.get().status == 200 for peer in peers)
        with H2(gate) as one_more:
            assert one_more.get().status == 200
        assert peers[0].goaway() == 0
        assert gate.stats()["connections_shed"] >= 1


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' memory says nothing")
def test_h2load_leaves_no_memory(moongate, origin):
    """A connection's end frees what it held."""
    gate = gate_for(moongate, origin, level="info")
    origin.reply = sized(b"m" * 1000)

    def load():
        subprocess.run(["h2load", "-n", "400", "-c", "40", "-m", "10", gate.url()], capture_output=True, timeout=60,
                       check=True)
        eventually(lambda: gate.stats()["connections_active"] == 0)
        return rss(gate.workers()[0])
    load()
    load()
    before = load()
    assert load() - before < 1 << 20

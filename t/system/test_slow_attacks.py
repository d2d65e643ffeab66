# SPDX-License-Identifier: BSD-2-Clause
"""Clients that are slow on purpose: alone, each with the limit that ends it; and a thousand at a time."""
import contextlib
import http.client
import re
import selectors
import shutil
import socket
import subprocess
import threading
import time

import pytest

from conftest import SANITIZED, eventually, read_all

pytestmark = pytest.mark.alone


def statuses(answer):
    return [int(n) for n in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


def gate_for(moongate, origin, frontend, **how):
    return moongate(f"upstream app {{ server {origin.address}; }}", f"{frontend} route / app;", level="info", **how)


# ---- a body


def drip(s, piece, every, seconds):
    """Sends a piece again and again until an answer comes; returns it, and how long it took."""
    began = time.monotonic()
    s.settimeout(every)
    while time.monotonic() - began < seconds:
        s.sendall(piece)
        with contextlib.suppress(TimeoutError):
            return s.recv(4096), time.monotonic() - began
    return b"", time.monotonic() - began


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_below_its_least_rate_is_answered_408(moongate, origin, chunked):
    """Each byte comes well within body_timeout."""
    gate = gate_for(moongate, origin, "body_timeout 5s; body_min_rate 200 grace=500ms;")
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000"
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n")
        answer, took = drip(s, b"1\r\nx\r\n" if chunked else b"x", 0.05, 5)
    assert statuses(answer) == [408] and 0.4 < took < 2.5
    assert all(len(request.body) < 1000 for request in origin.requests)  # it never saw an end
    gate.wait_log("the request body came too slowly")


def test_a_body_above_its_least_rate_arrives(moongate, origin):
    gate = gate_for(moongate, origin, "body_min_rate 200 grace=200ms;")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
        answer, _ = drip(s, b"x" * 50, 0.03, 5)
    assert statuses(answer) == [200] and origin.requests[0].body == b"x" * 1000


def test_a_pause_before_the_body_is_not_slow(moongate, origin):
    """Nothing at all is body_timeout's affair: a client may wait for 100 Continue."""
    gate = gate_for(moongate, origin, "body_min_rate 1m grace=100ms;")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        s.sendall(b"hello")
        assert statuses(read_all(s)) == [200]


# ---- a response


def reader(gate, target="/", close=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", gate.port))
    s.settimeout(10)
    more = b"Connection: close\r\n" if close else b""
    s.sendall(b"GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n" % (target.encode(), more))
    return s


def large(origin, size):
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


@pytest.mark.parametrize("size", [50 << 20, 6 << 20])
def test_a_reader_below_the_least_rate_is_dropped(moongate, origin, size):
    """Also when all that is left of the response waits in moongate, and its connection is to be closed."""
    large(origin, size)
    gate = gate_for(moongate, origin, "send_timeout 20s; send_min_rate 1m grace=500ms; buffer_high 8m;")
    with reader(gate, close=True) as s:
        eventually(lambda: gate.stats()["connections_active"] == 1)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 8 and s.recv(2000):  # 40 KB/s
                time.sleep(0.05)
                if time.monotonic() - began > 0.6 and conns(gate) == 0:
                    break
        assert 0.4 < time.monotonic() - began < 5
    eventually(lambda: conns(gate) == 0)


def sockets(gate, *states):
    """Those of the gate's side that somebody still holds, as the kernel says: no counter knows those that drain."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return sum(row[1].endswith(f":{gate.port:04X}") and row[3] in states and row[9] != "0" for row in rows)


def conns(gate):
    """Established."""
    return sockets(gate, "01")


def test_a_slow_reader_is_kept_while_it_takes_anything(moongate, origin):
    """Between two sends to a socket more time may pass than send_timeout: the kernel waits until much of its
    buffer is free. What the client has acknowledged counts."""
    large(origin, 12 << 20)
    gate = gate_for(moongate, origin, "send_timeout 400ms;")
    with reader(gate) as s:
        end, got = time.monotonic() + 2.5, 0
        while time.monotonic() < end:
            got += len(s.recv(4000))
            time.sleep(0.02)
        assert gate.stats()["requests_active"] == 1 and got < 2 << 20
        assert s.recv(1000)


# ---- a refused upload


@pytest.mark.parametrize("client", ["curl", "python"])
def test_413_reaches_a_client_that_is_still_uploading(moongate, origin, tmp_path, client):
    """Without the lingering close its unread bytes would make the kernel reset the connection."""
    gate = gate_for(moongate, origin, "max_body 1m;")
    path = tmp_path / "upload"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    for _ in range(3):
        if client == "curl":
            done = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T", path,
                                   "-H", "Expect:", gate.url("/x")], capture_output=True, text=True, timeout=30)
            assert done.stdout == "413", done.stderr
        else:
            connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
            connection.request("PUT", "/x", path.open("rb"), {"Content-Length": str(100 << 20)})
            assert connection.getresponse().status == 413
            connection.close()
    assert origin.requests == []


def test_lingering_ends_at_its_time_and_at_its_bytes(moongate, origin):
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n"
    gate = gate_for(moongate, origin, "max_body 10; linger_timeout 600ms; linger_max 1m;")
    with gate.connect() as s:  # says no more, but does not close
        s.sendall(head)
        assert statuses(s.recv(4096)) == [413]
        began = time.monotonic()
        eventually(lambda: sockets(gate, "01", "04", "05") == 0, 5)
        assert 0.3 < time.monotonic() - began < 3
    sent = 0
    with gate.connect() as s:  # goes on
        s.sendall(head)
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                sent += s.send(b"x" * 65536)
    assert 1 << 20 <= sent < 32 << 20


# ---- requests sent ahead


def test_what_a_client_may_send_ahead_is_bounded(moongate, origin):
    """While its first request is being answered nothing is read beyond max_pipelined (and what a socket holds)."""
    def wait(request):
        yield b"HTTP/1.1 200 OK\r\n"
        go_on.wait(10)
        yield b"Content-Length: 0\r\n\r\n"
    go_on = threading.Event()
    origin.reply = wait
    gate = gate_for(moongate, origin, "max_pipelined 4k;")
    with gate.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: len(origin.requests) == 1)
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 200)
        eventually(lambda: gate.stats()["bytes_from_clients"] > 4096)
        before = gate.stats()["bytes_from_clients"]
        s.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            for _ in range(10000):
                s.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        assert gate.stats()["bytes_from_clients"] - before < 200000
        assert len(origin.requests) == 1
        go_on.set()


# ---- a thousand of them: slowhttptest


ATTACKS = {  # its mode, with what it asks for
    "headers": (["-H", "-i", "1", "-t", "GET", "-x", "24"], "/"),
    "body": (["-B", "-i", "1", "-s", "8192", "-t", "POST", "-x", "10"], "/discard"),
    "range": (["-R", "-a", "10", "-b", "3000", "-t", "HEAD"], "/large"),
    "read": (["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"], "/large"),
}


def ask_at_once(asked):
    """Sends a request on a new connection to each (port, target) at the same time; how long each answer took."""
    began, took = time.monotonic(), [None] * len(asked)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for n, (port, target) in enumerate(asked):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", port))
            selector.register(s, selectors.EVENT_WRITE, n)
        while None in took:
            ready = selector.select(10)
            assert ready, f"no answer in ten seconds: {took}"
            for key, _ in ready:
                if key.events == selectors.EVENT_WRITE:
                    key.fileobj.send(b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                                     % asked[key.data][1].encode())
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                else:
                    assert statuses(key.fileobj.recv(4096)) == [200], asked[key.data]
                    took[key.data] = time.monotonic() - began
                    selector.unregister(key.fileobj)
    return took


@pytest.mark.skipif(not shutil.which("slowhttptest"), reason="no slowhttptest")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_thousand_slow_clients_delay_nobody_and_are_gone_in_time(moongate, nginx, attack):
    """Somebody else is answered in less than 100 ms all the while, by a script and by the server behind, and no attacker
    is left when the time-outs are over, though they would go on for longer. The same request is sent straight to the
    server at the same moments: what that took at worst the machine took, which has other work, and not moongate."""
    count, seconds = (200 if SANITIZED else 1000), 15
    nginx.write("large", b"x" * (10 << 20))
    nginx.write("small", b"small")
    limits = """header_timeout 2s; body_timeout 2s; body_min_rate 200 grace=2s; send_timeout 2s; keepalive_timeout 2s;
        send_min_rate 100k grace=2s; linger_timeout 1s;"""
    gate = moongate(f"upstream app {{ server {nginx.address}; }}", f"{limits} script a.lua; route / app;", {"a.lua": """
        return { request = function(req) if req.path == "/ok" then return req:respond(200, {}, "ok") end end }"""},
                    level="notice")
    options, path = ATTACKS[attack]
    process = subprocess.Popen(["slowhttptest", "-c", str(count), "-r", str(count), "-l", str(seconds), *options,
                                "-u", gate.url(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    asked = [(gate.port, "/ok"), (gate.port, "/small"), (nginx.port, "/small")]
    times, accepted, active = [], 0, 1
    try:
        began = time.monotonic()
        while (accepted < count or active > 0) and time.monotonic() - began < seconds:
            times.append(ask_at_once(asked))
            stats = gate.stats()
            accepted, active = stats["connections_accepted"] - 2 * len(times), stats["connections_active"]
            time.sleep(0.01)
        assert accepted >= count and active == 0, (accepted, active)
    finally:
        process.kill()
        process.wait()
    by_script, through, straight = zip(*times)
    worst = f"{len(times)} times: by a script {max(by_script):.3f}, through {max(through):.3f}, straight {max(straight):.3f}"
    assert len(times) > 20 and max(by_script + through) < 0.1 + max(straight) + (2 if SANITIZED else 0), worst
    eventually(lambda: gate.stats()["requests_active"] == 0)
    assert gate.get("/ok").status == 200

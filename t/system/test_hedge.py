# SPDX-License-Identifier: BSD-2-Clause
"""Hedged requests (hedge): one whose server is slow is sent to a second one, the first answer counts, the other
request is cancelled and leaves nothing behind. Servers count what they are asked, and see who closes."""
import contextlib
import http.client
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hyperframe import frame as frames

from conftest import MOONGATE, eventually, several
from h2origin import H2Origin

CANCEL = 8


def answer(body, status="200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


class Server:
    """Answers `reply` (None: closes) when it is `opened`, and `delay(n)` seconds after its nth request."""

    def __init__(self, reply=answer(b"fast"), opened=True, delay=lambda n: 0):
        self.reply, self.delay, self.opened = reply, delay, threading.Event()
        if opened:
            self.opened.set()
        self.seen = []      # (method, target, body)
        self.given_up = 0   # times that the client closed before it was answered
        self.connections = 0  # open now
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        with self.lock:
            self.connections += 1
        with contextlib.suppress(OSError), s, s.makefile("rb") as stream:
            while self.one(s, stream):
                pass
        with self.lock:
            self.connections -= 1

    def one(self, s, stream):
        line, length = stream.readline(), 0
        if not line:
            return False
        while (field := stream.readline().lower()) not in (b"\r\n", b""):
            if field.startswith(b"content-length:"):
                length = int(field.split()[1])
        method, target, _ = line.decode().split()
        body = stream.read(length)
        with self.lock:
            self.seen.append((method, target, body))
            ready = time.monotonic() + self.delay(len(self.seen))
        while not self.opened.is_set() or time.monotonic() < ready:
            left = max(0, ready - time.monotonic())
            readable, _, _ = select.select([s], [], [], left if self.opened.is_set() else 0.005)
            if readable and not s.recv(1, socket.MSG_PEEK):
                with self.lock:
                    self.given_up += 1
                return False
        if self.reply:
            s.sendall(self.reply)
        return bool(self.reply)

    def close(self):
        self.opened.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def servers():
    yield from several(Server)


def gate_to(moongate, first, *others, hedge="hedge after=30ms;", upstream="", frontend="", top="", **how):
    """The first server gets nearly all requests."""
    lines = f"server {first.address} weight=250;" + "".join(f"server {other.address};" for other in others)
    return moongate(f"{top}\nlog_format hedged '$method $status $upstream_addr $upstream_hedged $upstream_attempts';\n"
                    f"upstream app {{ {lines} {hedge} {upstream} }}",
                    f"access_log %FOLDER%/access hedged; route / app; {frontend}", **how)


def logged(gate, count=1):
    path = gate.folder / "access"
    eventually(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    lines = path.read_text().splitlines()
    assert len(lines) == count
    return lines[-1]


def hedges(gate):
    stats = gate.stats()
    return [stats[name] for name in ("upstream_hedged", "upstream_hedge_won", "upstream_hedge_withheld")]


def quiet(gate):
    """Nothing is under way any more."""
    eventually(lambda: gate.stats()["requests_active"] == 0)
    for upstream in gate.show("upstreams")["upstreams"]:
        assert all(server["active"] == 0 for server in upstream["servers"])


def test_the_faster_server_answers(moongate, servers):
    slow, fast = servers(answer(b"slow"), opened=False), servers()
    gate = gate_to(moongate, slow, fast)
    got = gate.get("/x")
    assert got.text == "fast" and hedges(gate) == [1, 1, 0]
    eventually(lambda: slow.given_up == 1)
    assert slow.seen == fast.seen == [("GET", "/x", b"")]
    assert logged(gate) == f"GET 200 {fast.address} won 1"
    quiet(gate)
    # The winner's connection goes on.
    slow.opened.set()
    eventually(lambda: gate.stats()["upstream_idle"] == 1)


def test_hooks_see_one_response(moongate, servers):
    slow, fast = servers(answer(b"slow"), opened=False), servers()
    gate = gate_to(moongate, slow, fast, frontend="script %FOLDER%/a.lua;", files={"a.lua": """
local seen, hooks = 0, {}
function hooks.request() seen = seen + 10000 end
function hooks.route() seen = seen + 100 end
function hooks.response(req, res)
  seen = seen + 1
  res.headers["x-seen"] = tostring(seen)
end
return hooks
"""})
    assert gate.get().headers["x-seen"] == "10101"
    assert hedges(gate) == [1, 1, 0]
    quiet(gate)


def test_a_server_that_is_not_slow_is_not_hedged(moongate, servers):
    first, second = servers(answer(b"first")), servers()
    gate = gate_to(moongate, first, second, hedge="hedge after=2s;")
    client = gate.client()
    assert {client.ask().text for _ in range(20)} == {"first"}
    assert logged(gate, 20) == f"GET 200 {first.address} - 1" and hedges(gate) == [0, 0, 0] and not second.seen
    client.close()
    quiet(gate)


def test_the_first_may_still_win(moongate, servers):
    first, second = servers(answer(b"first"), opened=False), servers(opened=False)
    gate = gate_to(moongate, first, second)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(gate.get)
        eventually(lambda: second.seen)
        first.opened.set()
        assert got.result().text == "first"
    eventually(lambda: second.given_up == 1)
    assert logged(gate) == f"GET 200 {first.address} lost 1" and hedges(gate) == [1, 0, 0]
    quiet(gate)


def percentile(gate, share, count=300):
    def timed(_):
        began = time.monotonic()
        assert gate.get().status == 200
        return time.monotonic() - began
    with ThreadPoolExecutor(4) as pool:
        return sorted(pool.map(timed, range(count)))[int(count * share)]


@pytest.mark.alone
def test_the_slowest_answers_are_faster(moongate, servers):
    two = [servers(delay=lambda n: 0.6 if n % 20 == 10 else 0) for _ in range(2)]
    lines = "".join(f"server {server.address};" for server in two)
    gate = moongate(f"upstream off {{ {lines} }}", "route / off;")
    without = percentile(gate, 0.99)
    gate.configure(f"upstream on {{ {lines} hedge after=40ms; }}", "route / on;")
    gate.reload()
    hedged = percentile(gate, 0.99)
    print(f"99 of 100 answers: {without:.3f} s without, {hedged:.3f} s with hedge")
    assert without > 0.55 and hedged < 0.4
    assert hedges(gate)[1] >= 5


@pytest.mark.parametrize("method, body", [("POST", b"money"), ("POST", None), ("PATCH", b"x"), ("PUT", b"x" * 5000)])
def test_what_must_not_be_done_twice_is_not(moongate, servers, method, body):
    slow, fast = servers(answer(b"slow"), delay=lambda n: 0.3), servers()
    gate = gate_to(moongate, slow, fast, upstream="retry_body 4k;")
    assert gate.get(method=method, body=body).text == "slow"
    assert not fast.seen and hedges(gate) == [0, 0, 0]


def test_a_body_goes_to_both(moongate, servers):
    slow, fast = servers(answer(b"slow"), opened=False), servers()
    gate = gate_to(moongate, slow, fast, upstream="retry off;")
    assert gate.get("/put", method="PUT", body=b"x" * 50000).text == "fast"
    assert slow.seen == fast.seen == [("PUT", "/put", b"x" * 50000)]
    assert hedges(gate) == [1, 1, 0]
    quiet(gate)


def test_no_second_request_beyond_the_budget(moongate, servers):
    slow, fast = servers(answer(b"slow"), delay=lambda n: 0.08), servers()
    gate = gate_to(moongate, slow, fast, hedge="hedge after=20ms;", upstream="retry_budget 10% min=0;")
    with ThreadPoolExecutor(8) as pool:
        assert {got.status for got in pool.map(lambda _: gate.get(), range(80))} == {200}
    hedged, won, withheld = hedges(gate)
    assert 1 <= hedged <= 8 and won == hedged and withheld >= 60
    assert len(fast.seen) <= hedged + 1  # of its weight it gets at most one


def test_alone_it_waits(moongate, servers):
    slow = servers(answer(b"slow"), delay=lambda n: 0.2)
    gate = gate_to(moongate, slow)
    assert gate.get().text == "slow" and len(slow.seen) == 1 and hedges(gate) == [0, 0, 1]
    assert logged(gate) == f"GET 200 {slow.address} - 1"


def test_an_upgrade_is_not_hedged(moongate, servers):
    slow, fast = servers(answer(b"slow"), delay=lambda n: 0.2), servers()
    gate = gate_to(moongate, slow, fast)
    assert gate.get(headers={"Connection": "upgrade", "Upgrade": "other"}).text == "slow"
    assert not fast.seen and hedges(gate) == [0, 0, 0]


def test_both_answer_at_the_same_time(moongate, servers):
    first = servers(answer(b"1" * 3000), delay=lambda n: 0.02 + n % 7 * 0.0004)
    second = servers(answer(b"2" * 3000))
    gate = gate_to(moongate, first, second, hedge="hedge after=20ms;", upstream="retry_budget off;")
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda n: gate.get(f"/{n}").text, range(200)))
    assert set(got) <= {"1" * 3000, "2" * 3000}
    hedged, won, _ = hedges(gate)
    assert hedged > 20 and got.count("2" * 3000) >= won
    quiet(gate)


CLOSES = [(0.06, 0.1), (0.2, 0), (0.1, 0.07)]


@pytest.mark.parametrize("first, second", CLOSES)
def test_both_fail_and_the_client_is_told_once(moongate, servers, first, second):
    two = [servers(None, delay=lambda n, wait=wait: wait) for wait in (first, second)]
    gate = gate_to(moongate, *two, upstream="tries 1; eject off;")
    assert gate.get().status == 502
    assert [len(server.seen) for server in two] == [1, 1]
    assert logged(gate) == f"GET 502 {two[0].address} lost 1"
    assert hedges(gate) == [1, 0, 0] and gate.stats()["responses_5xx"] == 1
    quiet(gate)


@pytest.mark.parametrize("first, second", CLOSES)
def test_both_fail_and_a_third_is_asked(moongate, servers, first, second):
    two = [servers(None, delay=lambda n, wait=wait: wait) for wait in (first, second)]
    third = servers(answer(b"third"))
    gate = moongate(f"upstream app {{ server {two[0].address} weight=250; server {two[1].address} weight=8;\n"
                    f"server {third.address}; hedge after=30ms; eject off; }}", "route / app;")
    assert gate.get().text == "third"
    assert [len(server.seen) for server in two] == [1, 1] and gate.stats()["upstream_retries"] == 1
    quiet(gate)


def test_when_the_first_fails_the_second_is_waited_for(moongate, servers):
    first, second = servers(None, delay=lambda n: 0.1), servers(answer(b"second"), delay=lambda n: 0.2)
    gate = gate_to(moongate, first, second)
    assert gate.get().text == "second"
    assert logged(gate) == f"GET 200 {second.address} won 1" and gate.stats()["upstream_retries"] == 0
    assert [len(server.seen) for server in (first, second)] == [1, 1]
    quiet(gate)


def test_an_error_of_the_second_is_no_answer(moongate, servers):
    first = servers(answer(b"first"), delay=lambda n: 0.2)
    second = servers(answer(b"bad", "503 No"))
    gate = gate_to(moongate, first, second)
    assert gate.get().text == "first" and hedges(gate) == [1, 0, 0]
    assert logged(gate) == f"GET 200 {first.address} lost 1"
    # But it is better than none.
    first.reply, second.delay = None, lambda n: 0.3
    assert gate.get().status == 503 and hedges(gate) == [2, 1, 0]
    quiet(gate)


BROKEN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n"


def test_a_second_that_breaks_behind_its_head_is_no_answer(moongate, servers):
    first, second = servers(answer(b"first"), delay=lambda n: 0.2), servers(BROKEN)
    gate = gate_to(moongate, first, second, upstream="eject off; tries 1;")
    assert gate.get().text == "first" and hedges(gate) == [1, 0, 0]
    # And where it is the only one, the client is told.
    first.reply, second.delay = None, lambda n: 0.3
    assert gate.get().status == 502 and hedges(gate) == [2, 0, 0]
    quiet(gate)


def test_an_http2_second_that_breaks_behind_its_head_is_no_answer(moongate):
    with H2Origin() as first, H2Origin() as second:
        closes = []

        def late(link, stream):
            time.sleep(0.2)
            if closes:
                link.close()
            else:
                link.respond(stream.id, [(":status", "200")], b"first")

        def broken(link, stream):
            time.sleep(0.3 if closes else 0)
            block = link.encoder.encode([(":status", "200")])
            link.send(frames.HeadersFrame(stream.id, block, flags=["END_HEADERS"]),
                      frames.RstStreamFrame(stream.id, error_code=2))
        first.reply, second.reply = late, broken
        gate = gate_to(moongate, first, second, upstream="protocol h2; eject off; tries 1;")
        assert gate.get().text == "first" and hedges(gate) == [1, 0, 0]
        closes.append(True)
        assert gate.get().status == 502 and hedges(gate) == [2, 1, 0]
        quiet(gate)


def test_a_client_that_goes_ends_both(moongate, servers):
    two = [servers(opened=False) for _ in range(2)]
    gate = gate_to(moongate, *two)
    descriptors = f"/proc/{gate.workers()[0]}/fd"
    before = len(os.listdir(descriptors))
    s = gate.connect()
    s.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: two[1].seen)
    s.close()
    eventually(lambda: [server.given_up for server in two] == [1, 1])
    assert logged(gate) == f"GET - {two[0].address} lost 1" and hedges(gate) == [1, 0, 0]
    quiet(gate)
    eventually(lambda: len(os.listdir(descriptors)) <= before)


def test_a_client_that_goes_before_the_time_ends_the_hedge(moongate, servers):
    first, second = servers(opened=False), servers()
    gate = gate_to(moongate, first, second, hedge="hedge after=300ms;")
    s = gate.connect()
    s.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: first.seen)
    s.close()
    eventually(lambda: first.given_up == 1)
    quiet(gate)
    time.sleep(0.4)  # that which must not happen
    assert not second.seen and hedges(gate) == [0, 0, 0]


def test_a_second_that_cannot_be_reached(moongate, servers):
    first = servers(answer(b"first"), delay=lambda n: 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(3):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        gate = moongate(f"upstream app {{ server {first.address} weight=250;\n"
                        f"server 127.0.0.1:{full.getsockname()[1]}; hedge after=30ms; }}", "route / app;")
        assert gate.get().text == "first" and hedges(gate) == [1, 0, 0]
        quiet(gate)


def test_what_scripts_ask_for_is_hedged(moongate, servers):
    slow, fast = servers(answer(b"slow"), opened=False), servers()
    gate = gate_to(moongate, slow, fast, frontend="script %FOLDER%/a.lua;", files={"a.lua": """
local gate = require "moongate"
local hooks = {}
function hooks.request(req)
  local res, why = gate.fetch("/fetched", { upstream = "app" })
  req:respond(res and 200 or 502, {}, res and res.body or why)
end
return hooks
"""})
    assert gate.get().text == "fast" and hedges(gate) == [1, 1, 0]
    eventually(lambda: slow.given_up == 1)
    quiet(gate)


def test_a_reload_in_the_middle(moongate, servers):
    slow, fast, other = servers(answer(b"slow"), opened=False), servers(opened=False), servers(answer(b"other"))
    gate = gate_to(moongate, slow, fast)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(gate.get)
        eventually(lambda: fast.seen)
        gate.configure(f"upstream app {{ server {other.address}; }}", "route / app;")
        gate.reload()
        assert gate.get().text == "other"
        fast.opened.set()
        assert got.result().text == "fast"
    eventually(lambda: slow.given_up == 1)
    quiet(gate)


def test_a_long_response_of_the_second(moongate, servers):
    body = os.urandom(3 << 20)
    slow, fast = servers(answer(b"slow"), opened=False), servers(answer(body))
    gate = gate_to(moongate, slow, fast)
    assert gate.get().body == body
    with gate.connect() as s:  # one that reads late: the server has to wait
        s.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        eventually(lambda: len(fast.seen) == 2)
        time.sleep(0.3)
        got = b""
        while chunk := s.recv(1 << 16):
            got += chunk
    assert got.endswith(body) and hedges(gate) == [2, 2, 0]
    quiet(gate)


@pytest.mark.skipif(not shutil.which("h2load"), reason="no nghttp2-client")
def test_over_http2_to_the_client(moongate, servers):
    body = os.urandom(3 << 20)
    slow, fast = servers(answer(b"slow"), opened=False), servers(answer(body))
    gate = gate_to(moongate, slow, fast, upstream="retry_budget off;")
    got = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", gate.url("/x")], capture_output=True, timeout=30,
                         check=False)
    assert (got.stdout, got.stderr, got.returncode) == (body, b"", 0)
    got = subprocess.run(["h2load", "-n", "20", "-c", "2", "-m", "5", gate.url("/y")], capture_output=True, text=True,
                         timeout=30, check=False)
    assert "20 succeeded, 0 failed" in got.stdout and f"({20 * len(body)}) data" in got.stdout, got.stdout
    assert hedges(gate) == [21, 21, 0]
    eventually(lambda: slow.given_up == 21)
    quiet(gate)


def test_over_http2_to_the_servers(moongate):
    body, opened = os.urandom(300000), threading.Event()
    with H2Origin() as slow, H2Origin() as fast:
        reset = []
        slow.reply = lambda link, stream: opened.wait(10)
        fast.reply = lambda link, stream: link.respond(stream.id, [(":status", "200")], body, [("x-last", "yes")])
        gate = gate_to(moongate, slow, fast, upstream="protocol h2; retry_budget off;")
        for n in range(3):
            got = gate.raw(b"GET /%d HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n" % n)
            assert got.startswith(b"HTTP/1.1 200 ") and b"x-last: yes" in got
        assert hedges(gate) == [3, 3, 0]
        streams = [stream for link in slow.links for stream in link.streams.values()]
        eventually(lambda: [stream.reset for stream in streams] == [CANCEL] * 3)
        assert len(slow.links) == 1 and len(fast.links) == 1  # nobody's connection was closed
        assert gate.get(method="PUT", body=b"y" * 50000).body == body
        assert [stream.body for link in fast.links for stream in link.streams.values()][-1] == b"y" * 50000
        quiet(gate)
        opened.set()


def test_a_body_that_hooks_have_made_goes_to_both(moongate):
    script = """
local hooks = {}
function hooks.request_body(req)
  for chunk in req:body() do req:write(chunk:upper()) end
end
function hooks.response_body(req, res)
  for chunk in res:body() do res:write(chunk:lower()) end
end
return hooks
"""
    opened = threading.Event()
    with H2Origin() as slow, H2Origin() as fast:
        slow.reply = lambda link, stream: opened.wait(10)
        fast.reply = lambda link, stream: link.respond(stream.id, [(":status", "200")], b"FAST" * 20000)
        gate = gate_to(moongate, slow, fast, upstream="protocol h2;", frontend="script %FOLDER%/a.lua;",
                       files={"a.lua": script})
        got = gate.get(method="PUT", body=b"body" * 5000)
        assert got.text == "fast" * 20000
        bodies = [stream.body for origin in (slow, fast) for link in origin.links for stream in link.streams.values()]
        assert bodies == [b"BODY" * 5000] * 2 and hedges(gate) == [1, 1, 0]
        quiet(gate)
        opened.set()


def test_interim_responses_of_the_second_are_nobodys(moongate, servers):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    slow, fast = servers(answer(b"slow"), opened=False), servers(hints + answer(b"fast"))
    gate = gate_to(moongate, slow, fast)
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"fast") and gate.stats()["responses_1xx"] == 0
    quiet(gate)


def test_a_server_that_is_always_outrun_counts_as_slow(moongate, servers):
    slow, b, c = servers(answer(b"slow"), opened=False), servers(), servers()
    lines = "".join(f"server {server.address};" for server in (slow, b, c))
    gate = moongate(f"upstream app {{ {lines} hedge after=60ms; retry_budget off;\n"
                    "eject latency=3 requests=5 window=1s time=30s most=60s; }", "route / app;")

    def ejected():
        assert gate.get().text == "fast"
        return "is ejected" in gate.log()
    eventually(ejected, 15)
    gate.wait_log(f'server "{slow.address}" is ejected for .*: it took ')
    asked = len(slow.seen)
    assert all(gate.get().text == "fast" for _ in range(20)) and len(slow.seen) == asked


def test_a_second_server_that_is_outrun_counts_as_slow_too(moongate, servers):
    first, second = servers(delay=lambda n: 0.12 if n % 2 else 0), servers(opened=False)
    gate = gate_to(moongate, first, second, upstream="retry_budget off; eject latency=1 requests=3 window=1s time=30s "
                                                     "most=60s;")

    def ejected():
        assert gate.get().text == "fast"
        return "is ejected" in gate.log()
    eventually(ejected, 15)
    gate.wait_log(f'server "{second.address}" is ejected for .*: it took ')


def test_those_that_are_outrun_count_as_nothing_else(moongate, servers):
    slow, fast = servers(answer(b"slow"), opened=False), servers()
    gate = gate_to(moongate, slow, fast, upstream="eject consecutive=2 rate=10% requests=2; retry_budget off;")
    assert {gate.get().text for _ in range(12)} == {"fast"}
    assert gate.stats()["ejections"] == 0 and len(slow.seen) >= 11


def test_a_client_stays_with_its_server(moongate, servers):
    two = [servers(answer(b"%d" % n)) for n in range(2)]
    lines = "".join(f"server {server.address};" for server in two)
    gate = moongate(f"upstream app {{ {lines} hedge after=30ms; sticky cookie s; }}", "route / app;")
    first = gate.get()
    cookie = first.headers["set-cookie"].split(";")[0]
    two[int(first.text)].delay = lambda n: 0.2
    assert gate.get(headers={"Cookie": cookie}).text == first.text and hedges(gate) == [0, 0, 0]


# ---- faults on purpose (src/base/fault.h)

needs_faults = pytest.mark.skipif(
    " faults" not in subprocess.run([MOONGATE, "-V"], capture_output=True, text=True, check=False).stdout,
    reason="a build without --enable-faults")


@needs_faults
@pytest.mark.parametrize("faults", ["recv_short=3 send_short=3 again=4 recv_nobufs=4",
                                    "cancel_late=2 canceled=3 once=2 again=4", "cancel_early=2 recv_short=2"])
def test_what_the_kernel_may_do_changes_nothing(moongate, servers, monkeypatch, faults):
    monkeypatch.setenv("MOONGATE_FAULTS", f"seed=7 {faults}")
    first = servers(answer(b"1" * 20000), delay=lambda n: 0.02 + n % 5 * 0.001 if n % 2 else 0)
    second = servers(answer(b"2" * 20000), delay=lambda n: 0.001 * (n % 4))
    gate = gate_to(moongate, first, second, hedge="hedge after=20ms;", upstream="retry_budget off;", level="notice")
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda n: gate.get(f"/{n}").text, range(120)))
    assert set(got) <= {"1" * 20000, "2" * 20000} and hedges(gate)[0] > 20
    quiet(gate)


@needs_faults
@pytest.mark.parametrize("protocol", ["", "protocol h2;"], ids=["h1", "h2"])
@pytest.mark.parametrize("method, body", [("GET", None), ("PUT", b"x" * 10000)])
def test_each_allocation_may_fail(moongate, servers, monkeypatch, protocol, method, body):
    monkeypatch.setenv("MOONGATE_FAULTS", "alloc_sweep=1")
    with contextlib.ExitStack() as stack:
        if protocol:
            slow, fast = stack.enter_context(H2Origin()), stack.enter_context(H2Origin())
            slow.reply = lambda link, stream: (time.sleep(0.1), link.respond(stream.id, [(":status", "200")], b"slow"))
            fast.reply = lambda link, stream: link.respond(stream.id, [(":status", "200")], b"fast")
        else:
            slow, fast = servers(answer(b"slow"), delay=lambda n: 0.1), servers()
        gate = gate_to(moongate, slow, fast, hedge="hedge after=5ms;",
                       upstream=f"keepalive 0; eject off; retry_budget off; {protocol}")
        statuses = set()
        for n in range(1, 400):
            for fails in (True, False):
                with contextlib.suppress(ConnectionError, http.client.HTTPException):
                    got = gate.get(method=method, body=body)  # the n-th allocation fails, or none
                    statuses.add(got.status)
                    assert got.status in (200, 500, 502, 503) and (got.status != 200 or got.text in ("slow", "fast"))
                    assert fails or got.status == 200
            if f"fault: allocation {n} fails" not in gate.log():
                break
        assert 5 < n < 399 and {200, 503} <= statuses
        assert hedges(gate)[1] > n / 2
        quiet(gate)


# ---- the directive

@pytest.mark.parametrize("line, why", [("hedge", "too few"), ("hedge 30ms", "unexpected"),
                                       ("hedge off on", "unexpected"), ("hedge after=0", "out of bounds"),
                                       ("hedge after=soon", "time")])
def test_errors_are_named(moongate, line, why):
    gate = moongate(f"upstream app {{ server 127.0.0.1:1; {line}; }}", "route / app;", start=False)
    done = gate.run("-t")
    assert done.returncode != 0 and "hedge" in done.stderr and why in done.stderr, done.stderr


def test_the_configuration_is_printed(moongate):
    gate = moongate("upstream app { server 127.0.0.1:1; hedge after=1500ms; } upstream b { server 127.0.0.1:1; }",
                    "route / app; route /b b;", start=False)
    shown = gate.run("-T").stdout
    assert "hedge after=1500ms;" in shown and "hedge off;" in shown

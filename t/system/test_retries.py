# SPDX-License-Identifier: BSD-2-Clause
"""When a request is sent again, and that one which may have been acted upon never is: servers that count what
they were asked, and fail in every way. Also the queue of those for whom no server is free (max_active)."""
import contextlib
import os
import signal
import socket
import struct
import threading
import time

import pytest

from conftest import eventually, free_port, hold, several

RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Does with each request what the next of `plan` says, the last for ever: "ok", "close" or "reset" when
    it is read, "head reset" when its head is, "once" (each connection one answer, after a while), "silent",
    "slow close", or bytes to send before it closes."""

    def __init__(self, *plan):
        self.plan = list(plan) or ["ok"]
        self.seen = []       # (method, body)
        self.pooled = None   # the socket that answered last
        self.connections = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        with contextlib.suppress(OSError, EOFError), s, s.makefile("rb") as stream:
            while self.one(s, stream):
                pass

    def one(self, s, stream):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            head += line
        with self.lock:
            step = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
            self.seen.append([head.split()[0].decode(), b""])
            mine = self.seen[-1]
        fields = head.lower()
        if step == "head reset":
            return self.reset(s)
        if b"chunked" in fields:
            while size := int(stream.readline(), 16):
                mine[1] += stream.read(size)
                stream.readline()
            stream.readline()
        elif b"content-length: " in fields:
            mine[1] = stream.read(int(fields.partition(b"content-length: ")[2].split()[0]))
        if step == "reset":
            return self.reset(s)
        if step == "slow close":
            time.sleep(0.3)
        elif step == "once":
            time.sleep(0.1)
            s.sendall(OK)
            while stream.readline() not in (b"\r\n", b""):
                pass
        elif step == "silent":
            return bool(stream.readline())
        elif step == "ok":
            self.pooled = s
            s.sendall(OK)
            return True
        elif step != "close":
            s.sendall(step)
        return False

    @staticmethod
    def reset(s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return False

    def methods(self):
        return [method for method, _ in self.seen]

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def servers():
    yield from several(Server)


def gate_to(moongate, *servers, upstream="", frontend="", **how):
    lines = "".join(f"server {getattr(server, 'address', server)}; " for server in servers)
    return moongate(f"upstream app {{ {lines} {upstream} }}", f"route / app; {frontend}", **how)


FAILURES = ["close", "reset", "head reset"]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
@pytest.mark.parametrize("method, body", [("POST", b"money"), ("POST", None), ("PATCH", None),
                                          ("LOCK", None)])
def test_what_may_have_been_done_is_not_done_again(moongate, servers, failure, pooled, method, body):
    server = servers(*(["ok"] if pooled else []), failure, "ok")
    gate = gate_to(moongate, server, upstream="retry connect stale idempotent timeout; tries 5;")
    client = gate.client()
    if pooled:
        assert client.ask().status == 200
    assert client.ask(method=method, body=body).status == 502
    assert server.methods().count(method) == 1
    assert gate.stats()["upstream_retries"] == 0
    assert client.ask().status == 200


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "OPTIONS"])
def test_what_does_no_harm_is_sent_again(moongate, servers, failure, pooled, method):
    server = servers(*(["ok"] if pooled else []), failure, "ok")
    gate = gate_to(moongate, server)
    client = gate.client()
    if pooled:
        assert client.ask(method="POST").status == 200
    body = b"the same" if method in ("PUT", "DELETE") else None
    assert client.ask(method=method, body=body).status == 200
    assert server.methods()[-2:] == [method, method]
    assert server.seen[-1][1] == (body or b"")
    stats = gate.stats()
    assert stats["upstream_retries"] == 1
    assert stats["retries_stale" if pooled else "retries_idempotent"] == 1
    gate.wait_log(f"{method} is sent again after attempt 1")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("tries", [1, 2, 4])
def test_never_more_often_than_tries(moongate, servers, failure, tries):
    server = servers(failure)
    gate = gate_to(moongate, server, upstream=f"tries {tries};")
    assert gate.get().status == 502
    assert len(server.seen) == tries
    assert gate.stats()["upstream_retries"] == tries - 1


def test_off_is_off(moongate, servers):
    server = servers("ok", "close", "ok")
    gate = gate_to(moongate, server, f"127.0.0.1:{free_port()}", upstream="retry off;")
    assert sorted(gate.get().status for _ in range(4)) == [200, 502, 502, 502]
    assert len(server.seen) == 2 and gate.stats()["upstream_retries"] == 0


def test_a_pool_that_the_server_closed_fails_nobody(moongate, servers):
    server = servers("ok")
    gate = gate_to(moongate, server)
    for _ in range(20):
        for method in ("POST", "GET"):
            assert gate.get(method=method).status == 200
            server.pooled.shutdown(socket.SHUT_RDWR)
            eventually(lambda: gate.stats()["upstream_idle"] == 0)
    assert len(server.seen) == 40 and gate.stats()["upstream_retries"] == 0


@pytest.mark.parametrize("says, kept", [("timeout=2", True), ("max=100, Timeout=2", True),
                                        ("timeout=1", False), ("timeout=0", False)])
def test_a_pooled_connection_is_closed_before_the_server_does(moongate, origin, says, kept):
    origin.reply = OK.replace(b"\r\n\r\n", f"\r\nKeep-Alive: {says}\r\n\r\n".encode())
    gate = gate_to(moongate, origin)
    assert gate.get().status == 200
    assert gate.stats()["upstream_idle"] == kept
    eventually(lambda: gate.stats()["upstream_idle"] == 0, 2)


@pytest.mark.parametrize("says", ["timeout=1000", "timeout=", "timeout=x", "timeout=-1", "timeout", "max=1",
                                  "timeout=99999999999999999999"])
def test_what_else_it_says_is_not_looked_at(moongate, origin, says):
    origin.reply = OK.replace(b"\r\n\r\n", f"\r\nKeep-Alive: {says}\r\n\r\n".encode())
    gate = gate_to(moongate, origin)
    assert gate.get().status == gate.get().status == 200
    assert gate.stats()["upstream_idle"] == 1 == origin.connections


def arrived(s):
    """Whether the peer's kernel has what was sent on a socket, its end too."""
    with contextlib.suppress(OSError):
        state, unacked = struct.unpack_from("B23xI", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))
        return unacked == 0 and state != 4  # FIN_WAIT1
    return True  # closed by a reset, which nobody acknowledges


@pytest.mark.parametrize("how", ["close", "reset", "late answer"])
def test_post_in_the_turn_in_which_its_connection_ended(moongate, servers, how):
    """The worker finds both when it wakes up: the end of the idle connection, and a POST."""
    server = servers("ok")
    gate = gate_to(moongate, server)
    worker = gate.workers()[0]
    client = gate.client()
    for _ in range(10):
        assert client.ask().status == 200
        eventually(lambda: gate.stats()["upstream_idle"] == 1)
        hold(worker)
        try:
            client.request("POST", "/", b"money")
            if how == "late answer":
                server.pooled.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            elif how == "close":
                server.pooled.shutdown(socket.SHUT_WR)
            else:
                server.pooled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                with contextlib.suppress(OSError):
                    server.pooled.shutdown(socket.SHUT_RD)
                eventually(lambda: server.pooled.fileno() == -1)
            eventually(lambda: arrived(server.pooled))
        finally:
            os.kill(worker, signal.SIGCONT)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok")
    assert server.methods().count("POST") <= 10


def test_post_whose_connection_ended_while_the_worker_was_busy(moongate, servers):
    server = servers("ok")
    gate = gate_to(moongate, server, frontend="script a.lua;", files={"a.lua": """
        return { request = function(req)
          local t = os.clock()
          while req.path == "/busy" and os.clock() - t < 0.3 do end
        end }"""})
    client = gate.client()
    assert client.ask().status == 200
    client.request("POST", "/busy", b"money")
    time.sleep(0.1)
    server.pooled.shutdown(socket.SHUT_RDWR)
    assert client.getresponse().status == 200
    assert server.methods() == ["GET", "POST"]


def test_after_a_stale_connection_comes_a_new_one(moongate, servers):
    """All that are in the pool may be stale."""
    server = servers("once")
    gate = gate_to(moongate, server, upstream="tries 2;")
    clients = [ask(gate, number) for number in range(4)]
    assert [status(client) for client in clients] == [200] * 4
    eventually(lambda: gate.stats()["upstream_idle"] == 4)
    for _ in range(3):
        assert gate.get().status == 200
    assert gate.stats()["retries_stale"] == 3


def test_a_refused_connection_sends_any_method_to_the_next(moongate, servers):
    server = servers("ok")
    gate = gate_to(moongate, f"127.0.0.1:{free_port()}", server)
    for _ in range(6):
        assert gate.get(method="POST", body=b"money").status == 200
    assert server.seen == [["POST", b"money"]] * 6
    stats = gate.stats()
    assert stats["retries_connect"] == stats["upstream_retries"] >= 1


def test_a_silent_server_is_asked_again_only_by_directive_and_never_to_post(moongate, servers):
    server = servers("silent")
    gate = gate_to(moongate, server, upstream="response_timeout 100ms;")
    assert gate.get().status == 504 and len(server.seen) == 1
    gate.configure(f"upstream app {{ server {server.address}; response_timeout 100ms; retry timeout; }}",
                   "route / app;")
    gate.reload()
    assert gate.get(method="POST", body=b"x").status == 504 and len(server.seen) == 2
    assert gate.get().status == 504 and len(server.seen) == 5
    assert gate.stats()["retries_timeout"] == 2


@pytest.mark.parametrize("beginning", [
    b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"nonsense\r\n\r\n"])
def test_an_answer_that_has_begun_is_the_answer(moongate, servers, beginning):
    server = servers(beginning, "ok")
    gate = gate_to(moongate, server)
    with contextlib.suppress(OSError, Exception):
        assert gate.get().status in (200, 502)
    assert len(server.seen) == 1 and gate.stats()["upstream_retries"] == 0


def test_no_attempt_begins_after_retry_timeout(moongate, servers):
    server = servers("slow close")
    gate = gate_to(moongate, server, upstream="retry_timeout 400ms; tries 10;")
    assert gate.get().status == 502
    assert len(server.seen) == 2


# ---- bodies that are held


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("pooled", [False, True], ids=["new", "pooled"])
def test_a_held_body_is_repeated_byte_for_byte(moongate, servers, framing, pooled):
    body = os.urandom(60000)
    server = servers(*(["ok"] if pooled else []), "close", "reset", "ok")
    gate = gate_to(moongate, server)
    client = gate.client()
    if pooled:
        assert client.ask(method="POST").status == 200
    sent = body if framing == "length" else (body[at:at + 7777] for at in range(0, len(body), 7777))
    client.request("PUT", "/", sent, {} if framing == "length" else {"Transfer-Encoding": "chunked"},
                   encode_chunked=True)
    assert client.getresponse().status == 200
    puts = [seen for seen in server.seen if seen[0] == "PUT"]
    assert len(puts) == 3 and all(got == body for _, got in puts)


def test_a_held_body_of_tiny_pieces(moongate, servers):
    body = os.urandom(5000)
    server = servers("close", "ok")
    gate = gate_to(moongate, server)
    with gate.connect() as s:
        s.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        s.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    assert [got for _, got in server.seen] == [body, body]


def test_a_part_of_a_body_is_repeated_and_the_rest_follows(moongate, servers):
    server = servers("head reset", "ok")
    gate = gate_to(moongate, server)
    with gate.connect() as s:
        s.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfirst")
        eventually(lambda: gate.stats()["upstream_retries"] == 1)
        s.sendall(b" last")
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.seen[-1] == ["PUT", b"first last"]


def test_a_body_that_outgrew_retry_body_is_not_repeated(moongate, servers):
    server = servers("close", "ok")
    gate = gate_to(moongate, server, upstream="retry_body 1000;")
    assert gate.get(method="PUT", body=b"x" * 1001).status == 502
    assert server.methods() == ["PUT"]


def test_large_uploads_hold_no_more_than_retry_body(moongate, servers):
    server = servers("ok")
    gate = gate_to(moongate, server, upstream="retry_body 1m;")
    body = os.urandom(5 << 20)
    assert gate.get(method="PUT", body=body).status == 200
    assert server.seen == [["PUT", body]]


# ---- max_active and the queue


class Slow:
    """Answers when the test says so; knows how many requests it has at the same time."""

    def __init__(self, origin):
        self.origin, self.now, self.most = origin, 0, 0
        self.go = threading.Semaphore(0)
        self.lock = threading.Lock()
        origin.reply = self.answer

    def answer(self, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.acquire(timeout=10)
        with self.lock:
            self.now -= 1
        return OK

    def targets(self):
        return [request.target for request in self.origin.requests]


def ask(gate, number):
    s = gate.connect(10)
    s.sendall(b"GET /%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % number)
    return s


def status(s):
    with s:
        return int(s.recv(10000).split()[1])


def waiting(gate, number):
    eventually(lambda: gate.stats()["upstream_waiting"] == number)


def test_those_who_wait_are_served_in_order_and_never_more_at_once(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 2;")
    clients = []
    for number in range(10):
        clients.append(ask(gate, number))
        eventually(lambda: len(origin.requests) == min(number + 1, 2))
        waiting(gate, max(number - 1, 0))
    for done in range(8):
        slow.go.release()
        eventually(lambda: len(origin.requests) == done + 3)
    for _ in range(2):
        slow.go.release()
    assert [status(client) for client in clients] == [200] * 10
    assert slow.most == 2
    assert slow.targets() == [f"/{number}" for number in range(10)]
    stats = gate.stats()
    assert stats["upstream_waited"] == 8 and stats["upstream_waiting"] == 0


def test_a_pipeline_does_not_overtake_those_who_wait(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1;")
    with gate.connect() as pipeline:
        pipeline.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in (0, 2)))
        eventually(lambda: slow.now == 1)
        other = ask(gate, 1)
        waiting(gate, 1)
        slow.go.release(3)
        assert status(other) == 200
        eventually(lambda: len(origin.requests) == 3)
    assert slow.targets() == ["/0", "/1", "/2"]


def test_a_full_queue_is_503_with_retry_after(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1; queue 1;")
    first = ask(gate, 0)
    eventually(lambda: slow.now == 1)
    second = ask(gate, 1)
    waiting(gate, 1)
    answer = gate.get("/2")
    assert answer.status == 503 and answer.headers["Retry-After"] == "1"
    assert gate.stats()["upstream_queue_full"] == 1
    slow.go.release(2)
    assert status(first) == status(second) == 200
    assert slow.targets() == ["/0", "/1"]


def test_without_a_queue_nobody_waits(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1; queue 0;")
    first = ask(gate, 0)
    eventually(lambda: slow.now == 1)
    assert gate.get("/1").status == 503
    slow.go.release()
    assert status(first) == 200


def test_who_waits_too_long_is_answered_503(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1; queue_timeout 200ms;")
    first = ask(gate, 0)
    eventually(lambda: slow.now == 1)
    began = time.monotonic()
    answer = gate.get("/1")
    assert answer.status == 503 and 0.15 < time.monotonic() - began < 2
    assert answer.headers["Retry-After"] == "1"
    assert gate.stats()["upstream_queue_timeouts"] == 1
    slow.go.release()
    assert status(first) == 200


def test_a_client_that_goes_leaves_the_queue(moongate, origin):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1; queue_timeout 10s;")
    first = ask(gate, 0)
    eventually(lambda: slow.now == 1)
    second, third = ask(gate, 1), ask(gate, 2)
    waiting(gate, 2)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    second.close()
    waiting(gate, 1)
    slow.go.release(2)
    assert status(first) == status(third) == 200
    assert slow.targets() == ["/0", "/2"]


def test_a_server_that_fails_frees_its_place(moongate, servers):
    server = servers("slow close", "ok")
    gate = gate_to(moongate, server, upstream="max_active 1; retry off;")
    first = ask(gate, 0)
    eventually(lambda: server.seen)
    second = ask(gate, 1)
    waiting(gate, 1)
    assert [status(first), status(second)] == [502, 200]


def test_each_server_has_its_own_limit(moongate, origins):
    slow = [Slow(origins()) for _ in range(2)]
    gate = gate_to(moongate, *(one.origin for one in slow), upstream="max_active 1;")
    clients = [ask(gate, number) for number in range(4)]
    waiting(gate, 2)
    eventually(lambda: [one.now for one in slow] == [1, 1])
    for one in slow:
        one.go.release(4)
    assert [status(client) for client in clients] == [200] * 4
    assert [one.most for one in slow] == [1, 1]


def test_a_tunnel_keeps_its_place(moongate, servers):
    server = servers(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "ok")
    server.one = lambda s, stream, one=server.one: one(s, stream) or bool(stream.readline())
    gate = gate_to(moongate, server, upstream="max_active 1; queue_timeout 300ms;")
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert b" 101 " in s.recv(1000)
        assert gate.get().status == 503
    eventually(lambda: gate.stats()["tunnels_active"] == 0)
    assert gate.get().status == 200


def test_those_who_wait_during_a_reload_are_served_by_what_they_came_to(moongate, origin, origins):
    slow = Slow(origin)
    gate = gate_to(moongate, origin, upstream="max_active 1;")
    clients = [ask(gate, 0)]
    eventually(lambda: slow.now == 1)
    clients += [ask(gate, 1), ask(gate, 2)]
    waiting(gate, 2)
    other = origins()
    gate.configure(f"upstream app {{ server {other.address}; }}", "route / app;")
    gate.reload()
    assert gate.get("/new").status == 200 and len(other.requests) == 1
    slow.go.release(3)
    assert [status(client) for client in clients] == [200] * 3
    assert slow.targets() == ["/0", "/1", "/2"]
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1)


# ---- try_timeout ------------------------------------------------------------------------------------------------

def timed(gate, **how):
    begin = time.monotonic()
    return gate.get(**how).status, time.monotonic() - begin


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_try_that_takes_too_long_goes_to_another_server(moongate, servers, method):
    slow, fast = servers("silent"), servers("ok")
    gate = gate_to(moongate, slow, fast, upstream="try_timeout 300ms; eject off;")
    results = [timed(gate, method=method) for _ in range(4)]
    assert {status for status, _ in results} == {200}
    assert sum(0.29 < seconds < 1 for _, seconds in results) == 2, results
    assert gate.stats()["retries_timeout"] == 2


def test_a_try_that_cannot_be_repeated_has_the_whole_time(moongate, servers):
    slow, fast = servers(b"HTTP/1.1 200 OK\r\n", "silent"), servers("ok")
    gate = gate_to(moongate, slow, upstream="try_timeout 200ms; response_timeout 700ms; eject off;")
    # Something has come back: no other server may be asked.
    assert timed(gate)[0] == 502
    for how in ({"method": "POST"}, {"method": "POST", "body": b"money"}):
        status, seconds = timed(gate, **how)
        assert status == 504 and 0.65 < seconds < 1.2
    assert [method for method, _ in slow.seen] == ["GET", "POST", "POST"] and gate.stats()["upstream_retries"] == 0


def test_the_last_try_has_the_whole_time(moongate, servers):
    gate = gate_to(moongate, servers("silent"), servers("silent"),
                   upstream="try_timeout 200ms; response_timeout 700ms; tries 2; eject off;")
    status, seconds = timed(gate)
    assert status == 504 and 0.85 < seconds < 1.4
    assert gate.stats()["retries_timeout"] == 1


def test_without_a_budget_the_first_try_goes_on(moongate, servers):
    gate = gate_to(moongate, servers("once"), servers("once"),
                   upstream="try_timeout 30ms; retry_budget 0% min=0; eject off; keepalive 0;")
    assert [timed(gate)[0] for _ in range(4)] == [200] * 4
    assert gate.stats()["retries_over_budget"] == 4 and gate.stats()["upstream_retries"] == 0


def test_a_response_that_has_begun_is_waited_for(moongate, origins):
    def reply(request):
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        time.sleep(0.5)
        yield OK
    slow = origins()
    slow.reply = reply
    gate = gate_to(moongate, slow, upstream="try_timeout 100ms; response_timeout 2s; eject off;")
    answer = gate.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 103 ") and answer.endswith(b"\r\n\r\nok")
    assert gate.stats()["upstream_retries"] == 0

# SPDX-License-Identifier: BSD-2-Clause
"""Faults on purpose (src/base/fault.h): what a kernel seldom does to operations must not be seen from outside, and where
memory or descriptors run out one connection may fail, in an orderly way, and no other. Needs a build with --enable-faults,
as check-asan makes it."""
import collections
import contextlib
import hashlib
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import MOONGATE, Origin, eventually, read_all
from namespace import namespace  # noqa: F401: a fixture

pytestmark = pytest.mark.skipif(
    " faults" not in subprocess.run([MOONGATE, "-V"], capture_output=True, text=True).stdout,
    reason="a build without --enable-faults")

SIZES = {"/small": 5, "/64k": 64 << 10, "/10m": 10 << 20}
SCRIPT = """
local gate = require "moongate"
local settings = ...
local hooks = {}
-- The same as /fetch by hand, on a socket that is kept.
local function by_socket()
  local sock, why = gate.tcp.connect(settings.peer)
  if not sock then return nil, why end
  local sent, no = sock:send { "POST /small?socket HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: 5000\\r\\n\\r\\n", ("b"):rep(5000) }
  if not sent then return nil, no end
  local head, body
  head, why = sock:receive_until("\\r\\n\\r\\n")
  if head then body, why = sock:receive(tonumber(head:match("Length: (%d+)"))) end
  if body then sock:keepalive() end
  return body, why
end
function hooks.request(req)
  if req.path == "/socket" then
    local udp = gate.udp.connect(settings.peer)
    if udp then udp:send("x") end
    local body, why = by_socket()
    return req:respond(body and 200 or 502, {}, body or why)
  end
  if req.path == "/slow" then gate.sleep(0.01) end
  if req.path == "/fetch" then
    local res, why = gate.fetch("/small?fetched", { upstream = "app", method = "POST", body = ("b"):rep(5000) })
    return req:respond(res and res.status or 502, {}, res and res.body or why)
  end
  if req.path == "/own" then return req:respond(200, { ["x-own"] = "1" }, "own") end
  req.headers["x-seen"] = req.id
end
function hooks.response(req, res)
  res.headers["x-path"] = req.path
end
return hooks
"""


def content(path):
    """What the origin has below a path: the same bytes each time, all different."""
    size = SIZES.get(path.partition("?")[0], 100)
    return (hashlib.sha256(path.encode()).digest() * (size // 32 + 1))[:size]


class Peer(Origin):
    """Serves content(target); echoes bodies in chunks below /echo, and bytes behind an upgrade."""

    def __init__(self):
        super().__init__()
        self.reply = self.answer

    def answer(self, request):
        if request.target == "/echo":
            return self.chunked(request.body)
        body = content(request.target)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    @staticmethod
    def chunked(body):
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for at in range(0, len(body), 7000):
            piece = body[at:at + 7000]
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"

    def read(self, stream, number):
        request = super().read(stream, number)
        if request and request.header("upgrade"):
            client = next(s for s in self.open if s.fileno() == stream.fileno())
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            while piece := stream.read1(65536):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return None
        return request


@pytest.fixture
def peer():
    server = Peer()
    yield server
    server.close()


def start(moongate, peer, monkeypatch, faults, upstream="", top="", **how):
    monkeypatch.setenv("MOONGATE_FAULTS", faults)
    return moongate(f"upstream app {{ server {peer.address}; {upstream} }}\n{top}", f"script s.lua peer={peer.address}; route / app;",
                    files={"s.lua": SCRIPT}, level="notice", **how)


# ---- the load: each function is one client, and raises when anything is not as it should be

def keep_alive(gate, seed):
    client = gate.client(20)
    for i in range(18):
        path = ("/small", "/64k", "/slow", "/own", "/fetch", "/socket")[i % 6] + f"?{seed}.{i}"
        response = client.ask(path)
        assert response.status == 200, (path, response.status, response.body)
        own = {"/own": b"own", "/fetch": content("/small?fetched"), "/socket": content("/small?socket")}.get(path.partition("?")[0])
        assert response.body == (own or content(path)), path
    client.close()


def big(gate, seed):
    path = f"/10m?{seed}"
    response = gate.get(path, timeout=40)
    assert response.status == 200 and response.headers["x-path"] == "/10m"
    assert hashlib.sha256(response.body).digest() == hashlib.sha256(content(path)).digest()


def upload(gate, seed):
    body = random.Random(seed).randbytes(300_000)
    response = gate.get("/echo", None, "POST",
                        iter([body[at:at + 20_000] for at in range(0, len(body), 20_000)]), timeout=40)
    assert response.status == 200 and response.body == body


def pipeline(gate, seed):
    paths = [f"/{name}?{seed}.{i}" for i, name in enumerate(["small", "64k", "small", "slow", "small", "64k"])]
    with gate.connect(20) as s:
        s.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n" %
                           (path.encode(), b"Connection: close\r\n" if path is paths[-1] else b"")
                           for path in paths))
        got = read_all(s)
    for path in paths:
        head, _, got = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), (path, head)
        body = content(path)
        assert got[:len(body)] == body, path
        got = got[len(body):]
    assert got == b""


def tunnel(gate, seed):
    data = random.Random(seed).randbytes(300_000)
    with gate.connect(20) as s:
        s.sendall(b"GET /tunnel HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = s.recv(1)
            assert piece, head
            head += piece
        assert head.startswith(b"HTTP/1.1 101 "), head

        def send():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        got = read_all(s)
        sender.join(20)
    assert got == data


def leave(gate, seed):
    """Goes in the middle of a body, of both kinds, with a reset or without: what was received then must come back."""
    for i in range(8):
        with gate.connect(20) as s:
            if i % 2:
                s.sendall(b"GET /10m?%d HTTP/1.1\r\nHost: h\r\n\r\n" % seed)
                assert s.recv(1000)
            else:
                s.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + bytes(200_000))
            if i % 4 < 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


CLIENTS = (keep_alive, big, upload, pipeline, tunnel, leave)


def run_load(gate, rounds=2):
    """Every client `rounds` times, all at once. Returns what failed."""
    failures = []

    def run(client, seed):
        try:
            client(gate, seed)
        except Exception as error:  # pylint: disable=broad-except
            failures.append(f"{client.__name__}: {error!r}")
    threads = [threading.Thread(target=run, args=(client, i)) for i in range(rounds) for client in CLIENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    return failures


def nothing_is_left(gate):
    """Nothing is open that no client holds, and what the ring lent came back when the worker ended."""
    def gone():
        stats = gate.stats()
        return not any(stats[name] for name in ("connections_active", "requests_active", "tunnels_active"))
    gone.__doc__ = f"counters at 0: {gate.stats()}"
    eventually(gone)
    gate.stop()
    for kind in re.findall(r"([a-z_]+)=[1-4]\b", os.environ["MOONGATE_FAULTS"]):  # rarer ones need not happen
        if kind not in ("seed", "sq", "cq", "alloc_sweep"):
            assert re.search(rf"fault: {kind} [1-9]", gate.log()), f"{kind} never happened"
    assert "receive buffers did not come back" not in gate.log()
    assert "did not close in time" not in gate.log()


TRANSPARENT = ["recv_nobufs=3", "recv_short=4", "once=2", "again=3", "canceled=3",
               "cancel_late=2 once=3 again=4", "cancel_early=1", "send_short=3", "sq=2 cq=4", "sq=1 cq=2 cancel_late=2",
               "recv_nobufs=9 recv_short=9 once=5 again=9 canceled=9 cancel_late=5 cancel_early=5 send_short=9 sq=4 cq=8"]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("faults", TRANSPARENT)
def test_what_the_kernel_may_do_is_not_seen_from_outside(moongate, peer, monkeypatch, faults, seed):
    gate = start(moongate, peer, monkeypatch, f"seed={seed} {faults}",
                 top=f"access_log access.log; receive_buffers {'1m' if seed == 1 else '8m'};")
    assert run_load(gate) == []
    nothing_is_left(gate)


def test_a_log_written_a_byte_at_a_time_is_whole(moongate, peer, monkeypatch):
    gate = start(moongate, peer, monkeypatch, "write_short=1 again=4", top="access_log access.log;")
    for i in range(20):
        assert gate.get(f"/small?{i}").status == 200
    nothing_is_left(gate)
    lines = (gate.folder / "access.log").read_text().splitlines()
    assert len(lines) == 20
    assert all(re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET /small\?\d+ HTTP/1\.1" 200 5 "-" "-"', line) for line in lines)


# ---- memory and descriptors run out

def ask_raw(gate, request, timeout=20):
    """Sends a request and reads to the end: (status or None, body, whole). The timeout is a hang."""
    with gate.connect(timeout) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(request)
        got = read_all(s)
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return None, b"", not got
    fields = dict(re.findall(rb"(?m)^([\w-]+): *(.*?)\r$", head.lower() + b"\r"))
    whole = False
    if b"content-length" in fields:
        whole = len(body) == int(fields[b"content-length"])
    elif fields.get(b"transfer-encoding") == b"chunked":
        plain = b""
        while size := int(body.partition(b"\r\n")[0] or b"0", 16):
            body = body.partition(b"\r\n")[2]
            plain, body = plain + body[:size], body[size + 2:]
        whole = body == b"0\r\n\r\n"
        body = plain
    return int(head.split()[1]), body, whole


BODY = bytes(range(256)) * 150
REQUESTS = {
    "get": (b"GET /64k?1 HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 5000 + b"\r\nConnection: close\r\n\r\n",
            content("/64k?1")),
    "post": (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
             % (len(BODY), BODY), BODY),
    "own": (b"GET /own HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", b"own"),
    "fetch": (b"GET /fetch HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", content("/small?fetched")),
    "socket": (b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", content("/small?socket")),
    "slow": (b"GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", content("/slow")),
}


@pytest.mark.parametrize("pool", ["keepalive 8;", "keepalive 0;", "keepalive 8; max_active 1;"])
@pytest.mark.parametrize("what", REQUESTS)
def test_each_allocation_of_an_exchange_may_fail(moongate, peer, monkeypatch, what, pool):
    gate = start(moongate, peer, monkeypatch, "alloc_sweep=1", pool, "access_log access.log json;")
    request, body = REQUESTS[what]
    outcomes = collections.Counter()
    for n in range(1, 400):
        status, got, whole = ask_raw(gate, request)  # the n-th allocation fails
        outcomes[status] += 1
        assert status in (None, 200, 500, 502, 503), (n, status)
        # What looks whole is whole; what is not says so by its length.
        assert not (whole and status == 200) or got == body, n
        assert whole or body.startswith(got) or status is None, n
        status, got, whole = ask_raw(gate, request)  # none fails
        assert (status, whole) == (200, True) and got == body, n
        if not re.search(rf"fault: allocation {n} fails", gate.log()):
            break
    else:
        pytest.fail("no end of allocations")
    assert n > 5 and outcomes[503] + outcomes[500] > 0, outcomes
    assert "memory is out" in gate.log()
    nothing_is_left(gate)


V2 = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH4s4sHHBH", 0x21, 0x11, 12 + 3 + 40, bytes([203, 0, 113, 9]),
                                          bytes([192, 0, 2, 1]), 5555, 443, 0xe0, 40) + bytes(40)


def behind_a_proxy(gate, seed):
    """A header in pieces, then a request."""
    request = V2 + b"GET /small?%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % seed
    with gate.connect(20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, 60, 20):
            s.sendall(request[at:at + 20])
            time.sleep(0.001)
        s.sendall(request[60:])
        got = read_all(s)
    assert got.endswith(b"\r\n\r\n" + content(f"/small?{seed}")), got


def test_each_allocation_for_a_proxy_header_may_fail(moongate, peer, monkeypatch):
    gate = moongate("", "", start=False)
    monkeypatch.setenv("MOONGATE_FAULTS", "alloc_sweep=1")
    gate.configure(f"upstream app {{ server {peer.address}; }}", "route / app; connections_per_client 100;",
                   level="notice", listen=f"{gate.address} proxy_protocol")
    gate.start()
    for n in range(1, 200):
        with contextlib.suppress(AssertionError, ConnectionError):
            behind_a_proxy(gate, n)  # the n-th allocation fails
        behind_a_proxy(gate, n)
        if not re.search(rf"fault: allocation {n} fails", gate.log()):
            break
    assert 5 < n < 199
    nothing_is_left(gate)


@pytest.mark.parametrize("faults", ["again=3", "canceled=3", "recv_short=3 once=2", "cancel_late=2 canceled=4"])
def test_a_proxy_header_survives_what_the_kernel_may_do(moongate, peer, monkeypatch, faults):
    gate = moongate("", "", start=False)
    monkeypatch.setenv("MOONGATE_FAULTS", "seed=5 " + faults)
    gate.configure(f"upstream app {{ server {peer.address}; }}", "route / app;", level="notice",
                   listen=f"{gate.address} proxy_protocol")
    gate.start()
    for n in range(30):
        behind_a_proxy(gate, n)
    nothing_is_left(gate)


def test_each_allocation_of_a_race_may_fail(namespace, moongate, peer, monkeypatch):  # noqa: F811
    """For a connection, where the server that is asked first never answers."""
    silent = " ".join(f"server {address}:80;" for address in ("10.66.0.66", "[2001:db8:66::66]"))
    gate = start(moongate, peer, monkeypatch, "alloc_sweep=1",
                 f"{silent} keepalive 0; eject off; connect_stagger 10ms;")
    request, body = REQUESTS["get"]
    for n in range(1, 400):
        status, got, whole = ask_raw(gate, request)  # the n-th allocation fails
        assert status in (None, 200, 500, 502, 503), (n, status)
        assert not (whole and status == 200) or got == body, n
        status, got, whole = ask_raw(gate, request)  # none fails; of three such pairs two begin with one that is silent
        assert (status, whole) == (200, True) and got == body, n
        if n > 3 and not any(re.search(rf"fault: allocation {m} fails", gate.log()) for m in (n - 2, n - 1, n)):
            break
    else:
        pytest.fail("no end of allocations")
    assert n > 5 and gate.stats()["upstream_raced"] > n / 2
    nothing_is_left(gate)


def test_a_tunnel_survives_no_allocation_or_ends_in_order(moongate, peer, monkeypatch):
    gate = start(moongate, peer, monkeypatch, "alloc_sweep=1")
    for n in range(1, 200):
        with contextlib.suppress(AssertionError, ConnectionError):
            tunnel(gate, n)  # the n-th allocation fails
        tunnel(gate, n)
        if not re.search(rf"fault: allocation {n} fails", gate.log()):
            break
    assert 5 < n < 199
    nothing_is_left(gate)


def test_each_allocation_of_a_reload_may_fail(moongate, peer, monkeypatch):
    gate = start(moongate, peer, monkeypatch, "alloc_sweep=1", top="access_log access.log;")
    refused = 0
    for n in range(1, 400):
        gate.connect().close()  # from now on the n-th allocation fails
        eventually(lambda: gate.stats()["connections_active"] == 0)
        done = gate.ctl("reload", check=False)
        refused += done.returncode
        assert done.returncode == 0 or "memory" in done.stderr, done.stderr
        assert gate.get("/small?1").body == content("/small?1")  # none fails
        if not re.search(rf"fault: allocation {n} fails", gate.log()):
            break
    else:
        pytest.fail("no end of allocations")
    assert n > 50 and refused > 0
    assert "generation" in gate.reload()
    nothing_is_left(gate)


def test_want_of_descriptors_is_no_fault_of_the_server(moongate, peer, monkeypatch):
    gate = start(moongate, peer, monkeypatch, "seed=4 socket=2", "keepalive 0;")
    answers = collections.Counter(gate.get("/small?1").status for _ in range(40))
    assert set(answers) == {200, 503} and answers[200] > 10, answers
    gate.wait_log(r'no connection to "[^"]*" can be made: .*[Tt]oo many open files')
    nothing_is_left(gate)


@pytest.mark.parametrize("faults", ["alloc=150", "socket=3", "accept=2 once=1", "alloc=300 recv_short=9 once=5 send_short=9 canceled=9"])
def test_what_runs_out_fails_requests_and_nothing_else(moongate, peer, monkeypatch, faults):
    gate = start(moongate, peer, monkeypatch, f"seed=3 {faults}", "keepalive 0;")
    for failure in run_load(gate, 3):
        assert not re.search("hangs|[Tt]imed? ?out", failure), failure
    nothing_is_left(gate)

# SPDX-License-Identifier: BSD-2-Clause
"""Bodies in both directions: whole, chunked, with trailers, large, slow on either side; bounded memory."""
import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time

import pytest

from conftest import SANITIZED, eventually, read_all, rss, several


def gate_to(moongate, address, upstream="", frontend="", **how):
    return moongate(f"upstream app {{ server {address}; {upstream} }}", f"route / app;\n{frontend}", **how)


class Sink:
    """An origin that reads bodies of any size without keeping them, at a pace, and answers with their
    SHA-256; and that sends /bytes/N, generated, as fast as it is taken."""

    def __init__(self, pause=0.0):
        self.pause = pause
        self.sent = 0
        self.received = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def pieces(self, stream, head):
        length = re.search(rb"content-length: (\d+)", head, re.I)
        if length:
            left = int(length.group(1))
            while left:
                piece = stream.read(min(left, 65536))
                if not piece:
                    raise EOFError
                left -= len(piece)
                yield piece
        elif b"chunked" in head.lower():
            while size := int(stream.readline(), 16):
                yield stream.read(size)
                stream.readline()
            while stream.readline() != b"\r\n":
                pass

    def serve(self, server):
        with contextlib.suppress(OSError, EOFError, ValueError), server, server.makefile("rb",
                                                                                         65536) as stream:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                digest = hashlib.sha256()
                for piece in self.pieces(stream, head):
                    digest.update(piece)
                    self.received += len(piece)
                    if self.pause:
                        time.sleep(self.pause)
                want = re.match(rb"\w+ /bytes/(\d+)", head)
                if want:
                    self.send(server, int(want.group(1)))
                else:
                    text = digest.hexdigest().encode()
                    server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def send(self, server, count):
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
        block, at = bytes(range(256)) * 1024, 0
        while at < count:
            sent = server.send(block[at % 256:][:count - at])
            self.sent += sent
            at += sent

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def sinks():
    yield from several(Sink)


@pytest.fixture
def sink(sinks):
    return sinks()


# ---- whole bodies


def test_post_of_100_mib_arrives_whole(moongate, sink, tmp_path):
    file = tmp_path / "large"
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    with open(file, "wb") as to:
        for n in range(100):
            piece = n.to_bytes(4, "big") + block[4:]
            to.write(piece)
            digest.update(piece)
    gate = gate_to(moongate, sink.address, level="info")
    before = rss(gate.workers()[0])
    for arguments in ([], ["-H", "Transfer-Encoding: chunked"]):
        done = subprocess.run(["curl", "-sS", "-H", "Expect:", *arguments, "--data-binary", f"@{file}",
                               gate.url("/")],
                              capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == digest.hexdigest()
    assert SANITIZED or rss(gate.workers()[0]) - before < 20 << 20  # the receive buffers' pages, not the body


def test_get_of_a_large_file_of_nginx(moongate, nginx):
    content = os.urandom(1 << 20) * 24
    nginx.write("large", content)
    gate = gate_to(moongate, nginx.address, level="info")
    done = subprocess.run(["curl", "-sS", gate.url("/large")], capture_output=True, timeout=60, check=True)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(content).digest()
    part = subprocess.run(["curl", "-sS", "-r", "1000000-1999999", gate.url("/large")], capture_output=True,
                          timeout=20, check=True)
    assert part.stdout == content[1000000:2000000]


@pytest.mark.alone
def test_the_end_of_a_response_does_not_wait_for_an_acknowledgement(moongate, origin):
    def in_two(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"
        time.sleep(0.005)  # long enough to be forwarded alone
        yield b"two"
    origin.reply = in_two
    gate = gate_to(moongate, origin.address, level="info")
    took = []
    with contextlib.closing(gate.client()) as client:
        for _ in range(40):
            begin = time.monotonic()
            assert client.ask().body == b"onetwo"
            took.append(time.monotonic() - begin)
    assert sorted(took)[20] < 0.025  # the kernel delays acknowledgements by 40 ms


@pytest.mark.parametrize("size", [0, 1, 4031, 4032, 4033, 65535, 65536, 65537, 262144, 1 << 20])
def test_sizes_at_the_edges(moongate, sink, size):
    gate = gate_to(moongate, sink.address, level="info")
    body = os.urandom(size)
    client = gate.client()
    assert client.ask("/", method="POST", body=body).text == hashlib.sha256(body).hexdigest()
    chunks = [body[at:at + 5000] for at in range(0, size, 5000)]
    assert client.ask("/", method="POST", body=iter(chunks)).text == hashlib.sha256(body).hexdigest()
    assert len(client.ask(f"/bytes/{size}").body) == size


def test_chunks_pass_both_ways_with_trailers(moongate, origin):
    origin.reply = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;x=y\r\n"
                    b"hello\r\n6\r\n world\r\n"
                    b"0\r\nX-Sum: 1\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\n")
    gate = gate_to(moongate, origin.address)
    got = gate.raw(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
                   b"Trailer: X-Mine\r\n\r\n"
                   b"3\r\nabc\r\n3;ext\r\ndef\r\n0\r\nX-Mine: 2\r\nAuthorization: x\r\n\r\n")
    request = origin.requests[0]
    assert request.body == b"abcdef" and request.header("transfer-encoding") == "chunked"
    assert request.header("content-length") is None and request.header("trailer") == "X-Mine"
    assert request.trailers == b"X-Mine: 2\r\n"
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower() and b"content-length" not in head.lower()
    assert re.sub(rb"\b[0-9a-f]+\r\n(?!X)", b"", body).replace(b"\r\n", b"").startswith(b"hello world")
    assert body.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


def test_a_body_that_ends_with_the_connection(moongate, origin):
    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst "
        time.sleep(0.05)
        yield b"second"
    origin.reply = answer
    gate = gate_to(moongate, origin.address)
    client = gate.client()
    for _ in range(3):
        answer = client.ask()
        assert answer.body == b"first second" and answer.headers["transfer-encoding"] == "chunked"


def test_the_response_streams(moongate, origin):
    go_on = threading.Event()

    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"
        go_on.wait(5)
        yield b"two"
    origin.reply = answer
    gate = gate_to(moongate, origin.address)
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        got = b""
        while not got.endswith(b"one"):
            got += s.recv(1000)
        go_on.set()
        assert read_all(s) == b"two"


def test_the_request_streams(moongate, sink):
    gate = gate_to(moongate, sink.address)
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 6\r\n\r\none")
        eventually(lambda: sink.received == 0 or sink.received == 3, 1)
        time.sleep(0.1)
        s.sendall(b"two")
        assert read_all(s).endswith(hashlib.sha256(b"onetwo").hexdigest().encode())


def test_an_answer_before_the_body_is_there(moongate, origin):
    """The client that still sends gets the answer whole, not a reset; its connection is not used again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    server, _ = listener.accept()
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += server.recv(1000)
                    server.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nstop")
                    time.sleep(0.3)
                    server.close()
        threading.Thread(target=serve, daemon=True).start()
        gate = gate_to(moongate, "127.0.0.1:%d" % listener.getsockname()[1])
        with gate.connect() as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n")
            s.settimeout(5)
            for _ in range(20):  # what it sends is taken, and thrown away
                s.sendall(b"x" * 10000)
                time.sleep(0.005)
            got = read_all(s)
        assert got.startswith(b"HTTP/1.1 403 ") and got.endswith(b"stop")
        assert b"connection: close" in got.lower()
        eventually(lambda: gate.stats()["requests_active"] == 0)


# ---- slow peers and bounded memory


def small_window(gate, size=4096):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    s.settimeout(10)
    s.connect(("127.0.0.1", gate.port))
    return s


def held_by_the_kernel(gate):
    """Of a response to a client that has stopped reading: bytes sent and not acknowledged, and not sent."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", gate.port))
        s.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (64 << 20))
        s.recv(1)
        time.sleep(0.5)  # what the kernel takes, it takes at once
        return int(subprocess.run(["ss", "-Htn", "state", "established", "sport", "=", f":{gate.port}"], check=True,
                                  capture_output=True, text=True).stdout.split()[1])


def test_notsent_lowat_bounds_what_the_kernel_holds_for_a_reader_that_stops(moongate, sink):
    gate = gate_to(moongate, sink.address, level="info")
    assert 0 < held_by_the_kernel(gate) < 300_000
    app = f"upstream app {{ server {sink.address}; }}"
    gate.configure(app, "route / app; notsent_lowat 0;", level="info")
    gate.reload()
    assert held_by_the_kernel(gate) > 1_000_000
    gate.configure(app, "route / app; notsent_lowat 16k;", level="info")
    gate.reload()
    assert 0 < held_by_the_kernel(gate) < 200_000


class Growth:
    """How much larger a gate's worker, which has just begun, was at most."""

    def __init__(self, gate):
        self.pid = gate.workers()[0]
        self.before = self.highest = rss(self.pid)

    def watch(self, s, seconds):
        """While 1 KiB a second is read from s."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            s.recv(64)
            time.sleep(0.06)
            self.highest = max(self.highest, rss(self.pid))

    def is_small(self):
        more = (self.highest - self.before) >> 10
        assert SANITIZED or more < 2048, f"{more} KiB more"


@pytest.mark.parametrize("without", ["", "incremental"])
def test_readers_of_1_kib_a_second_cost_a_new_worker_little(moongate, sink, monkeypatch, without):
    """One gigabyte each, one reader after the other."""
    monkeypatch.setenv("MOONGATE_RING_WITHOUT", without)
    gate = gate_to(moongate, sink.address, level="info")
    assert gate.get("/bytes/10").status == 200
    growth = Growth(gate)
    for n in range(1, 4):
        with small_window(gate) as s:
            s.sendall(b"GET /bytes/1073741824 HTTP/1.1\r\nHost: h\r\n\r\n")
            growth.watch(s, 1)
            assert sink.sent < n * (32 << 20)  # what the kernel holds: the server is held back
            assert gate.stats()["requests_active"] == 1
        eventually(lambda: gate.stats()["requests_active"] == 0)
    growth.is_small()


@pytest.mark.parametrize("without", ["", "incremental"])
def test_uploads_to_a_server_that_reads_1_kib_a_second_cost_a_new_worker_little(moongate, monkeypatch, without):
    """One gigabyte each, one upload after the other."""
    monkeypatch.setenv("MOONGATE_RING_WITHOUT", without)

    def upload(s):
        with contextlib.suppress(OSError):
            s.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1073741824\r\n\r\n")
            while True:
                sent.append(s.send(bytes(65536)))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        gate = gate_to(moongate, "127.0.0.1:%d" % listener.getsockname()[1], frontend="max_body 2g;", level="info")
        with gate.connect() as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            with listener.accept()[0] as server:
                server.recv(4096)
                server.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                assert first.recv(4096)
        growth = Growth(gate)
        for _ in range(3):
            sent = []
            with gate.connect() as s:
                thread = threading.Thread(target=upload, args=(s,))
                thread.start()
                with listener.accept()[0] as server:
                    growth.watch(server, 1)
                    s.shutdown(socket.SHUT_RDWR)
                thread.join()
            assert 1 << 20 < sum(sent) < 32 << 20  # what the kernel holds: the client is held back
    growth.is_small()


@pytest.mark.alone
def test_a_hundred_slow_readers_do_not_hold_the_others(moongate, sink):
    gate = gate_to(moongate, sink.address, level="info")
    gate.configure(f"receive_buffers 2m;\nupstream app {{ server {sink.address}; }}", "route / app;",
                   level="info")
    gate.stop()
    gate.start()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(small_window(gate)) for _ in range(100)]
        for s in slow:
            s.sendall(b"GET /bytes/5000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.5)
        client = gate.client()
        for _ in range(20):
            began = time.monotonic()
            assert len(client.ask("/bytes/100000").body) == 100000
            assert time.monotonic() - began < 6  # the sink is slow itself with a hundred threads
    eventually(lambda: gate.stats()["requests_active"] == 0)


@pytest.mark.parametrize("high",
                         ["64k", "8m"])  # most of it waits with the server; with us, after the exchange's end
def test_a_slow_reader_gets_everything(moongate, sink, high):
    gate = gate_to(moongate, sink.address, level="info",
                   frontend=f"keepalive_timeout 200ms; send_timeout 5s; buffer_low 16k; buffer_high {high};")
    with small_window(gate, 16384) as s:
        s.sendall(b"GET /bytes/6000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        got, end = bytearray(), time.monotonic() + 15
        while time.monotonic() < end:
            piece = s.recv(50000)
            if not piece:
                break
            got += piece
            time.sleep(0.01)
        body = bytes(got.partition(b"\r\n\r\n")[2])
    assert len(body) == 6000000
    assert body == (bytes(range(256)) * 23438)[:6000000]


@pytest.mark.parametrize("without", ["", "incremental"])  # whole buffers: several pieces come at once
def test_a_server_that_sends_while_a_script_waits_loses_nothing(moongate, sink, monkeypatch, without):
    monkeypatch.setenv("MOONGATE_RING_WITHOUT", without)
    script = "local gate = require 'moongate'\nreturn { response = function() gate.sleep(0.2) end }"
    gate = gate_to(moongate, sink.address, frontend="script a.lua; buffer_low 4k; buffer_high 8k;",
                   files={"a.lua": script}, level="info")
    for _ in range(3):
        body = gate.get("/bytes/4000000").body
        assert len(body) == 4000000 and hashlib.sha256(body).digest() == hashlib.sha256(
            (bytes(range(256)) * 15625)[:4000000]).digest()


@pytest.mark.parametrize("high", ["64k", "8m"])
def test_a_slow_reader_gets_everything_before_the_connection_closes(moongate, sink, high):
    gate = gate_to(moongate, sink.address, level="info",
                   frontend=f"keepalive_timeout 200ms; send_timeout 5s; buffer_low 16k; buffer_high {high};")
    with small_window(gate, 16384) as s:
        s.sendall(b"GET /bytes/6000000 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        got, end = bytearray(), time.monotonic() + 15
        while time.monotonic() < end and (piece := s.recv(50000)):
            got += piece
            time.sleep(0.01)
    assert len(got.partition(b"\r\n\r\n")[2]) == 6000000


def test_a_reader_that_stops_is_dropped_after_send_timeout(moongate, sink):
    gate = gate_to(moongate, sink.address, frontend="send_timeout 400ms; keepalive_timeout 10s;",
                   level="info")
    with small_window(gate) as s:
        s.sendall(b"GET /bytes/100000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["connections_active"] == 1)
        began = time.monotonic()
        eventually(lambda: gate.stats()["connections_active"] == 0, 5, 0.05)
        assert time.monotonic() - began > 0.3
    assert gate.stats()["requests_active"] == 0


def test_a_reader_that_stops_at_the_end_is_dropped_too(moongate, sink):
    """The exchange is over, its last bytes are not taken."""
    gate = gate_to(moongate, sink.address, frontend="send_timeout 400ms; keepalive_timeout 300ms; "
                                                    "buffer_high 8m;", level="info")
    with small_window(gate) as s:
        s.sendall(b"GET /bytes/6000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["connections_active"] == 1)
        eventually(lambda: gate.stats()["connections_active"] == 0, 5, 0.05)


@pytest.mark.long
def test_a_slow_server_holds_the_uploader_back(moongate, sinks):
    slow = sinks(pause=0.05)
    gate = gate_to(moongate, slow.address, level="info")
    pid = gate.workers()[0]
    gate.get()
    before = rss(pid)
    with gate.connect() as s:
        s.settimeout(1.5)
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1073741824\r\n\r\n")
        sent, block, highest = 0, b"x" * 65536, 0
        with contextlib.suppress(TimeoutError):
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                sent += s.send(block)
                highest = max(highest, rss(pid))
        assert sent < 64 << 20
    assert SANITIZED or highest - before < 10 << 20, f"{highest - before} bytes more"
    # That the client went is seen behind what it had sent, for which the server need not take its time any more.
    slow.pause = 0
    eventually(lambda: gate.stats()["requests_active"] == 0, 30)


def test_a_slow_uploader_arrives_whole(moongate, sink):
    gate = gate_to(moongate, sink.address)
    body = os.urandom(100)
    with gate.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100\r\n\r\n")
        for at in range(0, 100, 5):
            s.sendall(body[at:at + 5])
            time.sleep(0.02)
        assert read_all(s).endswith(hashlib.sha256(body).hexdigest().encode())


def test_a_server_that_reads_nothing_is_given_up(moongate):
    """Whatever the pieces' size: one that just fills the server's window leaves no short send behind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gate = gate_to(moongate, "127.0.0.1:%d" % listener.getsockname()[1],
                       "write_timeout 400ms; response_timeout 30s;", level="info")
        answers = {}

        def upload(size):
            with gate.connect() as s:
                s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")

                def pump():
                    with contextlib.suppress(OSError):
                        for _ in range(0, 100000000, size):
                            s.sendall(b"x" * size)
                            time.sleep(0.0005 + size / 3e8)  # so that what came before has left
                threading.Thread(target=pump, daemon=True).start()
                with contextlib.suppress(OSError):
                    s.settimeout(5)
                    answers[size] = s.recv(1000)[:13]
                    s.shutdown(socket.SHUT_RDWR)
        sizes = [1000, 4096, 16384, 50000, 65536, 131072, 200000, 262143, 262144, 262145, 300000, 524288]
        threads = [threading.Thread(target=upload, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {size: b"HTTP/1.1 504 " for size in sizes}
        eventually(lambda: gate.stats()["requests_active"] == 0)


def test_many_bodies_at_once(moongate, sink):
    gate = gate_to(moongate, sink.address, level="info", workers=2)
    failures = []

    def run(n):
        try:
            client = gate.client(20)
            for size in (n * 1000, 300000 + n):
                body = bytes([n]) * size
                if client.ask("/", method="POST", body=body).text != hashlib.sha256(body).hexdigest():
                    failures.append((n, size))
                if len(client.ask(f"/bytes/{size}").body) != size:
                    failures.append((n, -size))
            client.close()
        except Exception as error:  # pylint: disable=broad-except
            failures.append((n, repr(error)))
    threads = [threading.Thread(target=run, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    eventually(lambda: gate.stats()["connections_active"] == 0)

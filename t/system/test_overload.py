# SPDX-License-Identifier: BSD-2-Clause
"""At the limits of a worker: connections, connections of one client, descriptors, memory. What is idle goes
first, new ones wait or are refused as configured, the log says so once, and all is well again by itself."""
import contextlib
import ctypes
import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import pytest

from conftest import MOONGATE, SANITIZED, USER, eventually, free_port, read_all, rss

ANSWER = {"a.lua": "return { request = function(req) return req:respond(200, {}, 'hello') end }"}
SLEEP = {"a.lua": """
    local gate = require "moongate"
    return { request = function(req)
        gate.sleep(tonumber(req.path:match("%d+")) / 1000)
        return req:respond(200, {}, "hello")
    end }"""}
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def asked(gate):
    """A connection that has had its first answer."""
    s = gate.connect()
    s.sendall(GET)
    assert b"hello" in s.recv(4096)
    return s


def is_open(s):
    s.setblocking(False)
    try:
        return s.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        s.settimeout(10)


def lines(gate, pattern):
    return len(re.findall(pattern, gate.log()))


# ---- connections


def test_at_the_limit_the_longest_idle_connection_makes_room(moongate):
    gate = moongate("", "script a.lua;", ANSWER, level="notice", connections=10)
    idle = [asked(gate) for _ in range(10)]
    idle[0].sendall(GET)  # not the longest idle one any more
    assert b"hello" in idle[0].recv(4096)
    more = [asked(gate) for _ in range(3)]
    eventually(lambda: not any(map(is_open, idle[1:4])))
    assert all(map(is_open, idle[:1] + idle[4:] + more))
    assert gate.stats()["connections_shed"] == 3
    for s in idle + more:
        s.close()
    gate.wait_log("limit of connections: over after .* 3 idle connections were closed")
    assert lines(gate, "limit of connections: 10 are open") == 1


@pytest.mark.alone
def test_while_none_is_idle_new_connections_wait(moongate):
    gate = moongate("", "script a.lua;", SLEEP, level="notice", connections=4)
    busy = [gate.connect() for _ in range(4)]
    for s in busy:
        s.sendall(b"GET /900 HTTP/1.1\r\nHost: h\r\n\r\n")
    eventually(lambda: gate.stats()["requests_active"] == 4)
    began = time.monotonic()
    assert gate.get("/1").status == 200
    assert time.monotonic() - began > 0.4
    for s in busy:
        with s:
            assert b"hello" in s.recv(4096) or not is_open(s)
    gate.wait_log("limit of connections: over after")
    assert lines(gate, "limit of connections: 4 are open") == 1


@pytest.mark.alone
def test_a_connection_that_has_just_come_is_not_shed(moongate):
    """Its first request is on its way; one that has brought none for a second is."""
    gate = moongate("", "script a.lua;", ANSWER, level="notice", connections=2)
    silent = [gate.connect(), gate.connect()]
    eventually(lambda: gate.stats()["connections_active"] == 2)
    with gate.connect() as third:
        third.sendall(GET)
        third.settimeout(0.4)
        with pytest.raises(TimeoutError):
            third.recv(1)
        assert all(map(is_open, silent))
        third.settimeout(5)
        assert b"hello" in third.recv(4096)
    assert sum(map(is_open, silent)) == 1
    for s in silent:
        s.close()


def test_refuse_resets_new_connections_at_the_limit(moongate):
    gate = moongate("connections_full refuse;", "script a.lua;", ANSWER, level="notice", connections=3)
    held = [asked(gate) for _ in range(3)]
    for _ in range(5):
        with pytest.raises(OSError), gate.connect() as s:
            s.sendall(GET)
            s.recv(1)
    assert all(map(is_open, held))
    assert gate.stats()["connections_refused"] == 5
    held.pop().close()
    eventually(lambda: gate.stats()["connections_active"] == 2)
    eventually(lambda: _answers(gate))
    gate.wait_log("limit of connections: over after .* 5 connections or requests refused")
    assert lines(gate, "limit of connections: 3 are open") == 1
    for s in held:
        s.close()


def _answers(gate):
    with contextlib.suppress(OSError):
        return gate.get().status == 200


# ---- connections of one client


@pytest.mark.parametrize("listen, sources", [("127.0.0.1", ["127.0.0.1", "127.0.0.2"]), ("[::1]", ["::1"])])
def test_a_client_has_so_many_connections_and_no_more(moongate, listen, sources):
    gate = moongate(start=False)
    gate.configure("", "connections_per_client 3; script a.lua;", level="info", listen=f"{listen}:{gate.port}")
    gate.write("a.lua", ANSWER["a.lua"])
    gate.start()

    def connect(source):
        s = socket.create_connection((listen.strip("[]"), gate.port), 5, (source, 0))
        s.sendall(GET)
        return s

    def refused(source):
        with contextlib.suppress(OSError), connect(source) as s:
            return s.recv(1) == b""
        return True
    held = {source: [connect(source) for _ in range(3)] for source in sources}
    assert all(b"hello" in s.recv(4096) for each in held.values() for s in each)
    for source in sources:
        assert refused(source) and refused(source)
    assert gate.stats()["clients_limited"] == 2 * len(sources)
    assert lines(gate, f"client {sources[0]} has 3 connections") == 1
    held[sources[0]].pop().close()
    eventually(lambda: gate.stats()["connections_active"] == 3 * len(sources) - 1)
    with connect(sources[0]) as s:
        assert b"hello" in s.recv(4096)
    for each in held.values():
        for s in each:
            s.close()


# ---- descriptors


def limit_descriptors(pid, number):
    """Of a worker, by its own user; None for as many as it may have."""
    become = {"user": USER, "group": grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name, "extra_groups": []} \
        if os.getuid() == 0 else {}
    number = number or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={number}:"], check=True, **become)


def used_descriptors(pid):
    """When nothing is being closed any more."""
    counts = []

    def settled():
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))
        return len(counts) >= 10 and len(set(counts[-10:])) == 1
    eventually(settled, every=0.02)
    return counts[-1]


@pytest.mark.alone
@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit")
def test_without_descriptors_idle_connections_go_and_others_wait(moongate):
    gate = moongate("connections_full wait;", "script a.lua;", SLEEP, level="notice", connections=6)
    pid = gate.workers()[0]
    # Accepting goes by the limit that held when it began: it has to begin anew, and does behind the limit of
    # connections.
    held = [gate.connect() for _ in range(6)]
    eventually(lambda: gate.stats()["connections_limited"] == 1)
    limit_descriptors(pid, used_descriptors(pid) - 1)
    for s in held:
        s.close()
    eventually(lambda: gate.stats()["connections_active"] == 0)
    idle = gate.client()
    assert idle.ask("/1").status == 200
    busy = [gate.connect() for _ in range(4)]
    for s in busy:
        s.sendall(b"GET /1500 HTTP/1.1\r\nHost: h\r\n\r\n")
    eventually(lambda: gate.stats()["requests_active"] == 4)
    with gate.connect() as s:  # takes the idle one's place
        s.sendall(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
        s.settimeout(1)
        assert b"hello" in s.recv(4096)
        s.sendall(b"GET /1500 HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] == 5)
        with gate.connect() as waiting:
            waiting.sendall(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
            waiting.settimeout(0.3)
            turns = gate.stats()["ring_turns"]
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            assert gate.stats()["ring_turns"] - turns < 60, "it spins"
            waiting.settimeout(5)
            assert b"hello" in waiting.recv(4096)
    for s in busy:
        s.close()
    gate.wait_log("shortage of descriptors or kernel memory: over after")
    assert 1 <= gate.stats()["connections_shed"] <= 4
    assert lines(gate, "shortage of descriptors or kernel memory: Too many open files") == 1
    assert gate.workers() == [pid]
    idle.close()


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit")
def test_without_a_single_descriptor_accepting_goes_on_when_there_is_one(moongate):
    """No connection is there whose end would tell; nor does the worker spin meanwhile."""
    gate = moongate("connections_full wait;", "script a.lua;", ANSWER, level="notice", connections=3)
    pid = gate.workers()[0]
    held = [gate.connect() for _ in range(3)]
    eventually(lambda: gate.stats()["connections_limited"] == 1)
    limit_descriptors(pid, 3)
    for s in held:
        s.close()
    eventually(lambda: gate.stats()["connections_active"] == 0)
    with gate.connect() as s:
        s.sendall(GET)
        gate.wait_log("shortage of descriptors or kernel memory: Too many open files")
        turns = gate.stats()["ring_turns"]
        s.settimeout(0.4)
        with pytest.raises(TimeoutError):
            s.recv(1)
        assert gate.stats()["ring_turns"] - turns < 60
        limit_descriptors(pid, None)
        s.settimeout(5)
        assert b"hello" in s.recv(4096)
    gate.wait_log("shortage of descriptors or kernel memory: over after")


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit")
def test_without_descriptors_for_a_server_requests_get_503_and_the_server_is_not_blamed(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; keepalive 0; }}", "route / app;", level="notice")
    pid = gate.workers()[0]
    assert gate.get().status == 200
    client = gate.client()
    assert client.ask().status == 200
    eventually(lambda: gate.stats()["upstream_connects"] == 2)
    limit_descriptors(pid, 3)
    assert client.ask().status == 503
    limit_descriptors(pid, None)
    assert gate.get().status == 200
    gate.wait_log("shortage of descriptors or kernel memory: over after")


def test_a_hard_limit_of_descriptors_bounds_the_connections(moongate):
    """What the system does not give is said with both numbers, and fewer connections are held."""
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        if os.getuid() == 0:  # without the right to raise it again
            ctypes.CDLL(None).prctl(24, 24, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE: gone with exec
    gate = moongate("", "script a.lua;", ANSWER, start=False, level="notice", connections=4000)
    with open(gate.stderr, "a", encoding="ascii") as stderr:
        gate.process = subprocess.Popen([MOONGATE, "-c", gate.config], env=gate.environment(), stderr=stderr,
                                        stdin=subprocess.DEVNULL, preexec_fn=lower)
    gate.master = gate.process.pid
    gate.wait_serving()
    gate.wait_log("at most 256 descriptors are allowed, 4000 connections and 1024 sockets of scripts need 9280: .*LimitNOFILE")
    clients = [asked(gate) for _ in range(120)]
    assert gate.stats()["connections_active"] <= 64
    assert gate.stats()["connections_shed"] >= 56
    for s in clients:
        s.close()


# ---- memory


def test_at_memory_limit_idle_connections_go_then_requests_are_refused(moongate):
    gate = moongate("", "script a.lua;", SLEEP, level="notice")
    idle = [gate.client() for _ in range(4)]
    for client in idle:
        assert client.ask("/1").status == 200
    busy = gate.connect()
    busy.sendall(b"GET /2500 HTTP/1.1\r\nHost: h\r\n\r\nGET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
    eventually(lambda: gate.stats()["requests_active"] == 1)
    gate.configure("memory_limit 1m;", "script a.lua;", level="notice")
    gate.reload()
    gate.wait_log("limit of memory: [0-9]+ KiB are in use, memory_limit is 1024 KiB")
    eventually(lambda: gate.stats()["connections_shed"] == 4)
    with gate.connect() as waiting:
        waiting.sendall(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
        with busy:  # what it had begun goes on, its next request is refused
            answers = read_all(busy)
            assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"503"]
        assert gate.stats()["requests_refused"] == 1
        gate.configure("", "script a.lua;", level="notice")
        gate.reload()
        waiting.settimeout(5)
        assert b"hello" in waiting.recv(4096)
    gate.wait_log("limit of memory: over after .* 4 idle connections were closed, 1 connections or requests refused")
    assert lines(gate, "limit of memory: [0-9]+ KiB") == 1


# ---- idle connections in thousands


@pytest.mark.alone
def test_ten_thousand_idle_connections_cost_little_and_the_next_one_a_place(moongate, nginx):
    """Under 1 KiB each; at the limit the longest idle one is shed for the next, with one line in the log."""
    count = 1000 if SANITIZED else 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 2 * count + 500), max(hard, 2 * count + 500)))
    have = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (have, have))
    count = min(count, (have - 256) // 2)  # a worker counts two descriptors for each
    if count < 1000:
        pytest.skip(f"{have} descriptors are too few")
    try:
        nginx.write("index.html", "hello")
        gate = moongate(f"upstream app {{ server {nginx.address}; }}", "route / app;", level="notice", connections=count)
        pid = gate.workers()[0]
        one = gate.client()
        for _ in range(count // 2):  # the same work, so that only the connections differ
            one.ask()
        one.close()
        before = rss(pid)
        clients = []
        for _ in range(count):
            s = gate.connect()
            s.sendall(GET)
            clients.append(s)
            if len(clients) % 100 == 0:
                for waiting in clients[-100:]:
                    assert b"hello" in waiting.recv(4096)
        each = (rss(pid) - before) / count
        assert gate.stats()["connections_active"] == count
        for _ in range(20):
            clients.append(asked(gate))
        assert gate.stats()["connections_shed"] == 20

        def closed():
            return [n for n, s in enumerate(clients) if not is_open(s)]
        eventually(lambda: len(closed()) == 20)
        assert max(closed()) < 100  # in which order the answers of a hundred came is nginx's affair
        assert lines(gate, "limit of connections: ") == 1
        for s in clients:
            s.close()
        eventually(lambda: gate.stats()["connections_active"] == 0, 10)
        assert SANITIZED or each < 1024, f"{each:.0f} bytes each"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, have))


# ---- a listener that goes


def test_a_connection_of_a_removed_listener_has_its_first_request_answered(moongate):
    gate = moongate("", "script a.lua;", ANSWER, level="info")
    early = [gate.connect() for _ in range(20)]
    old = gate.port
    gate.configure("", "script a.lua;", level="info", listen=f"127.0.0.1:{free_port()}")
    gate.reload()
    for s in early:
        with s:
            s.sendall(GET)
            answer = read_all(s)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"onnection: close" in answer
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old))


@pytest.mark.alone
def test_a_silent_connection_does_not_hold_a_graceful_stop_up(moongate):
    gate = moongate("", "script a.lua;", ANSWER, level="info")
    silent, late = gate.connect(), gate.connect()
    eventually(lambda: gate.stats()["connections_active"] == 2)
    began = time.monotonic()
    gate.kill(signal.SIGQUIT)
    eventually(lambda: refuses(gate))
    late.sendall(GET)
    assert read_all(late).startswith(b"HTTP/1.1 200 ")
    assert gate.wait_end() == 0
    assert time.monotonic() - began < 4
    silent.close()
    late.close()


def refuses(gate):
    try:
        gate.connect(1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the queue of the socket when that was closed
    return False

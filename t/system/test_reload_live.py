# SPDX-License-Identifier: BSD-2-Clause
"""Reloads and dying workers under traffic: what changes, on which connection, and that nothing is lost."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import SANITIZED, eventually, free_port, read_all, rss

pytestmark = pytest.mark.alone

VERSION = """
local hooks = {}
function hooks.request(req) req.headers["x-version"] = "%d" end
function hooks.response(req, res) res.headers["x-version"] = "%d" end
return hooks
"""


def gate_to(moongate, address, files=None, frontend="", top="", **how):
    how.setdefault("level", "info")
    return moongate(f"upstream app {{ server {address}; }}\n{top}", f"{frontend}\nroute / app;", files, **how)


# ---- what changes


def test_an_edited_script_serves_the_next_request_of_the_same_connection(moongate, origin):
    gate = gate_to(moongate, origin.address, {"v.lua": VERSION % (1, 1)}, "script v.lua;")
    client = gate.client()
    client.connect()
    port = client.sock.getsockname()[1]
    for version in range(1, 6):
        gate.write("v.lua", VERSION % (version, version))
        gate.reload()
        assert client.ask().headers["x-version"] == str(version)
        assert origin.requests[-1].header("x-version") == str(version)
        assert client.sock.getsockname()[1] == port, "another connection"
    assert gate.stats()["connections_accepted"] == 1


def test_an_exchange_ends_in_the_generation_that_it_began_in(moongate, origin):
    go_on = threading.Event()

    def answer(request):
        go_on.wait(10)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    origin.reply = answer
    gate = gate_to(moongate, origin.address, {"v.lua": VERSION % (1, 1)}, "script v.lua;")
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: origin.requests)
        gate.write("v.lua", VERSION % (2, 2))
        gate.reload()
        go_on.set()
        assert b"x-version: 1\r\n" in s.recv(1000).lower()
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"x-version: 2\r\n" in s.recv(1000).lower()
    eventually(lambda: "generation" in gate.ctl("show", "generations").stdout.lower())


def test_a_syntax_error_is_refused_with_file_and_line(moongate, origin):
    gate = gate_to(moongate, origin.address, {"v.lua": VERSION % (1, 1)}, "script v.lua;")
    client = gate.client()
    assert client.ask().headers["x-version"] == "1"
    for bad, line in (("local x = 1\nthis is not lua\n", 2), ("return {\n", 2), ("local t = nil\nlocal y = "
                                                                                 "t.x\nreturn {}", 2),
                      ("return 1", 0), ("return { reqest = function() end }", 0)):
        gate.write("v.lua", bad)
        done = gate.ctl("reload", check=False)
        assert done.returncode == 1, bad
        assert re.search(rf"v\.lua:{line or ''}", done.stderr), done.stderr
        answer = client.ask()
        assert answer.status == 200 and answer.headers["x-version"] == "1"
    gate.write("v.lua", VERSION % (2, 2))
    gate.reload()
    assert client.ask().headers["x-version"] == "2"


def test_routes_upstreams_and_limits_change(moongate, origins):
    one, two = origins(), origins()
    two.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
    gate = gate_to(moongate, one.address)
    client = gate.client()
    assert client.ask("/").text == "ok"
    gate.configure(f"upstream app {{ server {one.address}; }} upstream b {{ server {two.address}; }}",
                   "max_uri 64; x_forwarded replace; route / app; route /b b;", level="info")
    gate.reload()
    assert client.ask("/b").text == "two" and two.requests[0].header("x-forwarded-for") == "127.0.0.1"
    assert client.ask("/" + "a" * 100).status == 414
    gate.configure(f"upstream b {{ server {two.address}; }}", "route /b b;", level="info")
    gate.reload()
    client = gate.client()
    assert client.ask("/").status == 404 and client.ask("/b").text == "two"


def test_a_listener_that_is_added_serves_and_one_that_is_removed_drains(moongate, origin):
    gate = gate_to(moongate, origin.address)
    other = free_port()
    text = gate.config.read_text()
    gate.config.write_text(text.replace("route / app;", f"listen 127.0.0.1:{other};\nroute / app;"))
    gate.reload()
    slow = threading.Event()
    with socket.create_connection(("127.0.0.1", other)) as busy, socket.create_connection(("127.0.0.1",
                                                                                           other)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        origin.reply = lambda request: (slow.wait(5), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")[1]
        busy.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: len(origin.requests) == 2)
        gate.config.write_text(text)
        gate.reload()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other))
        idle.settimeout(3)
        assert idle.recv(1) == b""
        slow.set()
        got = read_all(busy)
        assert got.endswith(b"late") and b"connection: close" in got.lower()
    assert gate.get().status == 200


# ---- under load


class Load:
    """Clients of our own on keep-alive connections until stopped: counts what was not a whole 200."""

    def __init__(self, gate, clients=16, path="/"):
        self.gate, self.path = gate, path
        self.failures, self.done = [], 0
        self.stopping = False
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        with contextlib.suppress(OSError), self.gate.connect() as s:
            s.settimeout(10)
            stream = s.makefile("rb")
            while not self.stopping:
                try:
                    s.sendall(f"GET {self.path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                    status = stream.readline()
                    length = 0
                    while (line := stream.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    body = stream.read(length)
                    if not status.startswith(b"HTTP/1.1 200") or len(body) != length:
                        self.failures.append(status + body)
                        return
                    self.done += 1
                except OSError as error:
                    self.failures.append(repr(error))
                    return

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()


@pytest.mark.skipif(not shutil.which("wrk"), reason="no wrk (Debian: wrk)")
def test_30_reloads_under_wrk_lose_nothing_and_memory_is_flat(moongate, nginx):
    nginx.write("page", "x" * 100)
    gate = gate_to(moongate, nginx.address, {"v.lua": VERSION % (0, 0)}, "script v.lua;", level="warn")
    seconds = 8
    with subprocess.Popen(["wrk", "-t1", "-c64", f"-d{seconds}s", gate.url("/page")], stdout=subprocess.PIPE,
                          text=True) as wrk:
        pid, third, generations = gate.workers()[0], 0, set()
        began = time.monotonic()
        for n in range(30):
            gate.write("v.lua", VERSION % (n, n))
            gate.reload()
            if n == 3:
                time.sleep(0.3)
                third = rss(pid)
            time.sleep(max(0, began + (n + 1) * (seconds - 1) / 30 - time.monotonic()))
        time.sleep(0.2)
        last = rss(pid)
        report = wrk.communicate(timeout=30)[0]
    assert "Socket errors" not in report and "Non-2xx" not in report, report
    requests = int(re.search(r"(\d+) requests in", report).group(1))
    assert requests > 1000, report
    assert gate.workers() == [pid]
    assert SANITIZED or last - third < 1 << 20, f"{third} -> {last}"
    assert gate.stats()["responses_5xx"] == 0 and gate.stats()["aborted"] == 0


def test_reloads_with_other_listeners_and_upstreams_under_load(moongate, origins):
    one, two = origins(), origins()
    gate = gate_to(moongate, one.address, workers=2, level="warn")
    load = Load(gate, 8)
    for n in range(10):
        gate.configure(f"upstream app {{ server {(one, two)[n % 2].address}; }}",
                       f"listen 127.0.0.1:{free_port()};\nroute / app;", workers=2, level="warn")
        gate.reload()
        time.sleep(0.1)
    load.stop()
    assert not load.failures and load.done > 50
    assert one.requests and two.requests


def test_a_refused_reload_under_load_disturbs_nobody(moongate, origin):
    gate = gate_to(moongate, origin.address, {"v.lua": VERSION % (1, 1)}, "script v.lua;", level="warn")
    load = Load(gate, 8)
    for _ in range(8):
        gate.write("v.lua", "this is not lua")
        assert gate.ctl("reload", check=False).returncode == 1
        time.sleep(0.05)
    load.stop()
    assert not load.failures and load.done > 50


def test_old_generations_are_freed(moongate, origin):
    gate = gate_to(moongate, origin.address, {"v.lua": VERSION % (1, 1)}, "script v.lua;")
    client = gate.client()
    for _ in range(5):
        client.ask()
        gate.reload()

    eventually(lambda: all(len(w["generations"]) == 1 for w in gate.show("generations")["workers"]))


# ---- a worker dies


COUNTING = """
local gate = require "moongate"
local numbers = gate.shared "numbers"
local hooks = {}
function hooks.request(req)
  if req.path == "/get" then return req:respond(200, {}, tostring(numbers:get("n"))) end
  return req:respond(200, {}, tostring(numbers:incr("n", 1, 0)))
end
return hooks
"""


def test_a_killed_worker_loses_only_its_own_and_the_dictionary_stays(moongate):
    gate = moongate("shared numbers 1m;", "script c.lua;", {"c.lua": COUNTING}, workers=2, level="info")
    clients = {}
    for _ in range(60):  # until each worker has one
        s = gate.connect()
        s.settimeout(5)
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
        clients[s.getsockname()[1]] = s
    before = [worker for worker in gate.workers()]
    assert gate.get("/get").text == "60"
    stop = threading.Event()
    highest = [60]

    def hammer():
        while not stop.is_set():
            with contextlib.suppress(Exception):
                highest[0] = max(highest[0], int(gate.get("/", timeout=2).text))
    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: (lambda now: len(now) == 2 and now[0] != before[0] and now[0])(gate.workers()), 5)
    eventually(lambda: all(w["state"] == "serving" for w in gate.show("workers")["workers"]), 5)
    assert SANITIZED or time.monotonic() - began < 1.0
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    lost = kept = 0
    for s in clients.values():
        with contextlib.suppress(OSError):
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        got = b""
        with contextlib.suppress(OSError):
            got = s.recv(1000)
        if got.startswith(b"HTTP/1.1 200"):
            kept += 1
        else:
            lost += 1
        s.close()
    assert lost > 0 and kept > 0, (lost, kept)
    assert int(gate.get("/get").text) >= highest[0] + kept
    assert gate.workers()[1] == before[1]

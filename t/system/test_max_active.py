# SPDX-License-Identifier: BSD-2-Clause
"""max_active over several workers: never more at a server than that, whoever asks; each worker has its share while
others wait; what a worker had when it died and what a reload left to end. One worker's queue is test_retries.py's."""
import contextlib
import os
import signal
import threading
import time

import pytest

from conftest import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Counting:
    """Counts how many requests an origin has at the same time. They take `seconds`, or until `go` is set."""

    def __init__(self, origin, seconds=None):
        self.now = self.most = 0
        self.seconds = seconds
        self.go = threading.Event()
        self.lock = threading.Lock()
        origin.reply = self.answer

    def answer(self, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        if self.seconds is None:
            self.go.wait(20)
        else:
            time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return OK


def start(moongate, made, more, workers=4):
    lines = " ".join(f"server {origin.address};" for origin in made)
    return moongate(f"upstream app {{ {lines} queue_timeout 20s; {more} }}", "route / app;", workers=workers,
                    level="notice")


def load(gate, clients, seconds):
    """That many clients, on a connection each, for so long. Returns how many answers each one got."""
    answers, ends = [0] * clients, time.monotonic() + seconds

    def ask(number):
        with contextlib.closing(gate.client(30)) as client:
            while time.monotonic() < ends:
                assert client.ask().status == 200
                answers[number] += 1
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def those_who_served(gate):
    return sum(worker["requests"] > 0 for worker in gate.show("stats")["workers"])


def ask_later(gate):
    s = gate.connect(20)
    s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    return s


def status(s):
    with s:
        return int(s.recv(10000).split()[1])


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random2", "hash client"])
def test_never_more_than_that_over_all_workers(moongate, origins, balance):
    made = [origins(), origins()]
    counts = [Counting(origin, 0.005) for origin in made]
    gate = start(moongate, made, f"max_active 3; balance {balance};")
    answers = load(gate, 24, 2)
    assert those_who_served(gate) >= 3
    used = [count.most for count in counts]
    assert used == ([3, 3] if balance != "hash client" else sorted(used)) and max(used) == 3
    assert min(answers) > 0


@pytest.mark.alone
@pytest.mark.parametrize("most", [1, 2, 5])
def test_each_worker_has_its_share(moongate, origin, most):
    count = Counting(origin, 0.002)
    gate = start(moongate, [origin], f"max_active {most};", workers=3)
    answers = load(gate, 18, 3)
    assert count.most == most
    assert those_who_served(gate) >= 2
    # A worker with few clients gives each of them more than one with many; nobody is left out.
    assert min(answers) * 12 > max(answers), answers


def test_what_a_worker_had_when_it_died_is_free_again(moongate, origin):
    count = Counting(origin)
    gate = start(moongate, [origin], "max_active 2;", workers=2)
    held = [ask_later(gate) for _ in range(2)]
    eventually(lambda: count.now == 2)
    waits = [ask_later(gate) for _ in range(4)]
    eventually(lambda: gate.stats()["upstream_waiting"] == 4)
    victims = gate.workers()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not set(victims) & set(gate.workers()))
    gate.wait_serving()
    for s in held + waits:
        s.close()
    assert count.most == 2
    shown, = gate.show("upstreams")["upstreams"][0]["servers"]
    assert shown["active"] == 0
    # What the origin still works on is not moongate's any more.
    count.seconds = 0
    assert gate.get().status == 200
    count.go.set()


def test_what_a_reload_leaves_to_end_is_counted(moongate, origin):
    count = Counting(origin)
    gate = start(moongate, [origin], "max_active 1;", workers=2)
    first = ask_later(gate)
    eventually(lambda: count.now == 1)
    gate.reload()
    second = ask_later(gate)
    eventually(lambda: gate.stats()["upstream_waiting"] == 1)
    assert count.most == 1
    count.go.set()
    assert status(first) == 200 and status(second) == 200 and count.most == 1


def test_without_max_active_nobody_waits(moongate, origin):
    count = Counting(origin)
    gate = start(moongate, [origin], "")
    held = [ask_later(gate) for _ in range(12)]
    eventually(lambda: count.now == 12)
    count.go.set()
    assert [status(s) for s in held] == [200] * 12 and gate.stats()["upstream_waited"] == 0

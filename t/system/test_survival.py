# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of requests when servers fail: while one is well no idempotent request fails, and with all of them bad
they are asked all the same (panic). Under what a kernel may do at any time, too (src/base/fault.h), in a build with
--enable-faults, as check-asan makes it."""
import contextlib
import itertools
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import MOONGATE, Origin, eventually, several

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad"
EVERY = "every=200ms timeout=200ms jitter=0 rise=2 fall=2"
FAULTS = " faults" in subprocess.run([MOONGATE, "-V"], capture_output=True, text=True, check=True).stdout


def asked(origin):
    return sum(request.target == "/x" for request in list(origin.requests))


def shares(gate, *made, count=20, status=200):
    """How many of some requests, all answered with that status, each origin is asked."""
    before = [asked(origin) for origin in made]
    assert [gate.get("/x").status for _ in range(count)] == [status] * count
    return [asked(origin) - old for origin, old in zip(made, before)]


def states(gate, made):
    shown = {server["server"]: server["state"] for server in gate.show("upstreams")["upstreams"][0]["servers"]}
    return [shown[origin.address] for origin in made]


def upstream(made, more):
    return "upstream app {" + " ".join(f"server {origin.address};" for origin in made) + more + "}"


# ---- panic ------------------------------------------------------------------------------------------------

def test_when_checks_say_that_all_are_bad_all_are_asked(moongate, origins):
    made = [origins(), origins()]
    for origin in made:
        origin.reply = lambda request: BAD if request.target == "/healthz" else GOOD
    gate = moongate(upstream(made, f"health http /healthz {EVERY} start=down;"), "route / app;", workers=2)
    eventually(lambda: states(gate, made) == ["unhealthy"] * 2)
    assert min(shares(gate, *made)) >= 6
    gate.wait_log('upstream "app": too few servers are well: health is not looked at until there are more')
    # What an operator said holds all the same.
    gate.ctl("set", "server", f"app/{made[0].address}", "down")
    assert shares(gate, *made) == [0, 20]
    gate.ctl("set", "server", f"app/{made[0].address}", "up")
    # The first that is well again ends it.
    made[1].reply = GOOD
    gate.wait_log(rf'"{made[1].address}" is up')
    eventually(lambda: shares(gate, *made, count=6) == [0, 6])


def test_when_all_are_ejected_all_are_asked(moongate, origins):
    made = [origins(), origins()]
    for origin in made:
        origin.reply = None
    gate = moongate(upstream(made, "eject consecutive=2 time=60s most=60s max_ejected=100%; keepalive 0; tries 2;"),
                    "route / app;", workers=2)
    for _ in range(4):
        assert gate.get("/x").status == 502
    eventually(lambda: states(gate, made) == ["failing"] * 2)
    for origin in made:
        origin.reply = GOOD
    gate.wait_log('upstream "app": too few servers are well')
    # Who answers is well, whatever time it had been ejected for.
    assert sum(shares(gate, *made)) == 20
    assert "answers again" in gate.log() and "up" in states(gate, made)


def test_one_checked_down_and_one_ejected_are_none(moongate, origins):
    sick, broken = origins(), origins()
    sick.reply = lambda request: BAD if request.target == "/healthz" else GOOD
    broken.reply = lambda request: GOOD if request.target == "/healthz" else None
    gate = moongate(upstream([sick, broken], f"health http /healthz {EVERY}; keepalive 0; tries 4;\n"
                             "eject consecutive=2 time=60s most=60s;"), "route / app;")
    gate.wait_log(rf'"{sick.address}" is down')
    eventually(lambda: gate.get("/x") and states(gate, [sick, broken]) == ["unhealthy", "failing"])
    assert shares(gate, sick, broken)[0] == 20


@pytest.mark.parametrize("percent, panics", [(0, False), (33, False), (34, True), (100, True)])
def test_panic_says_how_few_are_too_few(moongate, origins, percent, panics):
    """With one of three well."""
    made = [origins() for _ in range(3)]
    for origin in made[:2]:
        origin.reply = lambda request: BAD if request.target == "/healthz" else GOOD
    gate = moongate(upstream(made, f"health http /healthz {EVERY}; panic {percent};"), "route / app;")
    eventually(lambda: states(gate, made) == ["unhealthy", "unhealthy", "up"])
    eventually(lambda: shares(gate, *made, count=6) == ([2, 2, 2] if panics else [0, 0, 6]))


@pytest.mark.parametrize("tries, statuses", [(3, {200}), (2, {502})])
def test_who_is_said_to_be_down_is_asked_when_the_others_have_failed_a_request_twice(moongate, origins, tries, statuses):
    """What was found may be out of date, and a request has nothing to lose then."""
    spare, broken = origins(), origins()
    spare.reply = lambda request: BAD if request.target == "/healthz" else GOOD
    broken.reply = lambda request: GOOD if request.target == "/healthz" else None
    gate = moongate(upstream([spare, broken], f"health http /healthz {EVERY}; eject off; keepalive 0; tries {tries};"),
                    "route / app;")
    gate.wait_log(rf'"{spare.address}" is down')
    assert {gate.get("/x").status for _ in range(5)} == statuses
    assert (asked(spare), asked(broken)) == ((5, 10) if tries == 3 else (0, 10))


# ---- one is well ------------------------------------------------------------------------------------------

class Faulty(Origin):
    """One that is told, while it serves, how to fail: kind is None, or a name of KINDS."""

    def __init__(self):
        super().__init__()
        self.kind = None
        self.turns = itertools.count()
        self.reply = self.answer

    def answer(self, request):
        kind = self.kind
        if kind == "flaps":
            kind = "closes" if next(self.turns) % 3 else None
        if kind == "hangs":
            time.sleep(0.6)
        return None if kind in ("closes", "hangs") else GOOD

    def serve(self, client, number):
        if self.kind in ("resets", "drops"):
            if self.kind == "resets":  # at once; else behind the request
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with contextlib.suppress(OSError):
                    client.recv(10)
            with self.lock:
                self.open.discard(client)
            client.close()
            return
        super().serve(client, number)


KINDS = ["closes", "hangs", "flaps", "resets", "drops"]
EJECT = {"consecutive": "eject consecutive=2 time=100ms most=400ms;",
         "rate": "eject consecutive=3 rate=30% requests=4 time=100ms most=400ms;",
         "checked": f"eject time=100ms most=400ms; health http /healthz {EVERY};"}


@pytest.fixture
def faulty():
    yield from several(Faulty)


def idempotent_load(gate, over, failures):
    methods = itertools.cycle(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    while not over.is_set():
        with contextlib.closing(gate.client(20)) as client:
            for method in itertools.islice(methods, 7):
                try:
                    status = client.ask("/x", method=method, body=b"body" if method == "PUT" else None).status
                except OSError as error:
                    status = repr(error)
                if status != 200:
                    failures.append((method, status))


def sicken(gate, made, seconds):
    """Each origin fails in each way for a while, never all of them at a time. Returns what requests came to."""
    failures, over = [], threading.Event()
    threads = [threading.Thread(target=idempotent_load, args=(gate, over, failures)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for kind in KINDS:
            for well in made:
                for origin in made:
                    origin.kind = None if origin is well else kind
                time.sleep(seconds)  # for which it is so
                for origin in made:  # one after the other is well, so that the next that fails is not the last
                    origin.kind = None
                eventually(lambda: states(gate, made) == ["up"] * len(made), 20)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    return failures


def survive(moongate, made, eject, seconds=0.5):
    gate = moongate(upstream(made, f"response_timeout 300ms; retry connect stale idempotent timeout refused; tries 6;\n"
                             f"retry_budget off; {EJECT[eject]}"), "route / app;", workers=2, level="notice")
    assert sicken(gate, made, seconds) == []
    assert "is ejected" in gate.log() and "answers again" in gate.log()
    if eject == "checked":
        assert "is down:" in gate.log() and "is up" in gate.log()
    stats = gate.stats()
    assert stats["upstream_retries"] > 0
    return gate


@pytest.mark.alone
@pytest.mark.parametrize("eject", EJECT)
def test_while_one_server_is_well_no_idempotent_request_fails(moongate, faulty, eject):
    survive(moongate, [faulty(), faulty()], eject)


@pytest.mark.alone
@pytest.mark.skipif(not FAULTS, reason="a build without --enable-faults")
@pytest.mark.parametrize("faults", ["recv_short=3 send_short=3", "again=3 canceled=3", "cancel_late=2 once=2",
                                    "recv_nobufs=9 recv_short=9 once=5 again=9 canceled=9 cancel_late=5 send_short=9"])
@pytest.mark.parametrize("eject", ["rate", "checked"])
def test_nor_does_one_when_the_kernel_does_what_it_may(moongate, faulty, monkeypatch, faults, eject):
    monkeypatch.setenv("MOONGATE_FAULTS", f"seed=5 {faults}")
    gate = survive(moongate, [faulty(), faulty()], eject, seconds=0.3)
    gate.stop()
    for kind in re.findall(r"([a-z_]+)=[1-4]\b", faults):
        assert re.search(rf"fault: {kind} [1-9]", gate.log()), f"{kind} never happened"

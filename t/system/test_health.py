# SPDX-License-Identifier: BSD-2-Clause
"""Health of servers: active checks (health), what they find, who does them, and that state outlives reloads and
workers; ejection of those that fail requests (eject), and what becomes of the requests. Origins are python's, openssl's and HTTP/2 frame by frame; they count what they are asked."""
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import Nginx, Origin, eventually, free_port
from h2origin import H2Origin
from pki import Authority

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad"
EVERY = "every=200ms timeout=200ms jitter=0 rise=2 fall=2"


def checks(origin, target="/healthz"):
    return sum(request.target == target for request in list(origin.requests))


def answers(health=GOOD, other=GOOD):
    return lambda request: health if request.target == "/healthz" else other


def asked(gate, *origins, count=20):
    """How many of some requests each origin is asked."""
    before = [checks(origin, "/x") for origin in origins]
    assert all(gate.get("/x").status == 200 for _ in range(count))
    return [checks(origin, "/x") - old for origin, old in zip(origins, before)]


def test_a_bad_server_is_left_alone_until_it_is_well_again(moongate, origins):
    a, b = origins(), origins()
    a.reply = b.reply = answers()
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; health http GET /healthz {EVERY}; }}",
                    "route / app;")
    eventually(lambda: checks(a) and checks(b))
    assert asked(gate, a, b) == [10, 10]
    a.reply = answers(BAD)
    gate.wait_log(rf'upstream "app": server "{a.address}" is down: it answers with status 500')
    assert asked(gate, a, b) == [0, 20]
    shown = {server["server"]: server for server in gate.show("upstreams")["upstreams"][0]["servers"]}
    assert [shown[origin.address]["state"] for origin in (a, b)] == ["unhealthy", "up"]
    assert shown[a.address]["check"] == "down" and shown[a.address]["check_failure"] == "it answers with status 500"
    a.reply = answers()
    gate.wait_log(rf'server "{a.address}" is up')
    assert min(asked(gate, a, b)) > 5
    # Each change was told once, and nothing was told of the other.
    assert len(re.findall("is down:|is up", gate.log())) == 2 and f'"{b.address}" is' not in gate.log()
    stats = gate.stats()
    assert stats["health_changes"] == 2
    assert 2 <= stats["health_check_failures"] < stats["health_checks"]
    # What a check says of itself.
    request = next(request for request in a.requests if request.target == "/healthz")
    assert (request.method, request.header("host"), request.header("connection")) == ("GET", a.address, "close")


def test_one_failure_or_success_is_not_enough(moongate, origins):
    a, b = origins(), origins()
    plan = [GOOD, BAD, GOOD, BAD, GOOD, BAD, GOOD]  # never two in a row

    def reply(request):
        return (plan.pop(0) if plan else GOOD) if request.target == "/healthz" else GOOD
    a.reply = reply
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; health http /healthz {EVERY}; }}",
                    "route / app;")
    eventually(lambda: not plan)
    assert "is down" not in gate.log()
    plan += [BAD, BAD, GOOD, BAD, GOOD, BAD]
    gate.wait_log("is down")
    eventually(lambda: not plan)
    gate.wait_log("is up")
    assert len(re.findall("is down:|is up", gate.log())) == 2


CASES = {  # options, what the origin does, what the log says
    "status": ("http /healthz status=204", GOOD, "it answers with status 200"),
    "default status": ("http /healthz", BAD, "it answers with status 500"),
    "body": ("http /healthz body=fine", GOOD, "its answer lacks the text of body="),
    "slow": ("http /healthz", lambda request: time.sleep(5), "no answer within 200ms"),
    "slow body": ("http /healthz",
                  lambda request: (time.sleep(n) or piece for n, piece in
                                   ((0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"), (5, b"k"))),
                  "no answer within 200ms"),
    "garbage": ("http /healthz", b"\x00\x01garbage\r\n\r\n", "the upstream server broke the protocol"),
    "close": ("http /healthz", None, "the upstream server closed the connection too early"),
    "cut": ("http /healthz", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok"],
            "the upstream server closed the connection too early"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_well(name, moongate, origins):
    options, reply, why = CASES[name]
    a, b = origins(), origins()
    a.reply = reply if callable(reply) else lambda request: reply
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; health {options} {EVERY}; }}",
                    "route / app;")
    gate.wait_log(rf'"{a.address}" is down: {re.escape(why)} \(check\)')


GOODS = {
    "statuses": ("http /healthz status=204,500-503", BAD),
    "body": ("http /healthz body=needle", b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\na needle in."),
    "body in pieces": ("http /healthz body=needle",
                       lambda request: (time.sleep(n) or piece for n, piece in
                                        ((0, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), (0.01, b"xne"),
                                         (0.01, b"e"), (0.01, b"dle"), (0.01, b"yyy")))),
    "quoted body": ("http /healthz body=\"needle in\"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nneedle in."),
    "head": ("http HEAD /healthz", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
    "host": ("http /healthz host=app.test",
             lambda request: GOOD if request.header("host") == "app.test" else BAD),
    "until closed": ("http /healthz", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"),
    "tcp": ("tcp", BAD),
}


@pytest.mark.parametrize("name", GOODS)
def test_what_is_well(name, moongate, origins):
    options, reply = GOODS[name]
    a = origins()
    a.reply = reply
    every = EVERY.replace("200ms", "1s").replace("fall=2", "fall=1")
    gate = moongate(f"upstream app {{ server {a.address}; health {options} start=down {every}; }}", "route / app;")
    gate.wait_log(rf'"{a.address}" is up')
    assert "is down" not in gate.log()


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_nobody_listens(kind, moongate, origin):
    gone = f"127.0.0.1:{free_port()}"
    gate = moongate(f"upstream app {{ server {gone}; server {origin.address}; health {kind} {EVERY}; }}", "route / app;")
    gate.wait_log(rf'"{gone}" is down: it cannot be connected to: Connection refused')
    assert asked(gate, origin) == [20]
    # The checks' failures say nothing where only requests do.
    assert gate.stats()["upstream_connect_errors"] == 0


def test_start_down_waits_for_the_first_good_check(moongate, origins):
    a, b = origins(), origins()
    a.reply = answers(BAD)
    b.reply = answers()
    health = f"health http /healthz {EVERY}"
    gate = moongate(f"upstream app {{ server {b.address}; {health}; }}", "route / app;")
    gate.configure(f"upstream app {{ server {b.address}; server {a.address}; {health} start=down; }}", "route / app;")
    eventually(lambda: checks(b) > 1)
    gate.reload()
    assert asked(gate, a, b) == [0, 20]
    eventually(lambda: checks(a) > 3)
    assert asked(gate, a, b) == [0, 20]
    a.reply = answers()
    gate.wait_log(rf'"{a.address}" is up')
    assert min(asked(gate, a, b)) > 5


# ---- TLS and HTTP/2 ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture
def tls_origin(pki):
    made = []

    def make(name, *names, h2=False, alpn=None):
        certificate = pki.issue(name, *names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.pem, certificate.key)
        if h2 or alpn:
            context.set_alpn_protocols(alpn or ["h2"])

        class Secure(Origin):
            def serve(self, client, number):
                try:
                    client.settimeout(10)
                    client = context.wrap_socket(client, server_side=True)
                except OSError:
                    client.close()
                else:
                    super().serve(client, number)
        made.append(H2Origin(wrap=lambda s: context.wrap_socket(s, server_side=True)) if h2 else Secure())
        return made[-1]

    yield make
    for origin in made:
        origin.close()


@pytest.mark.parametrize("kind", ["tls", "http"])
def test_tls(kind, moongate, pki, tls_origin):
    good, bad = tls_origin("good", "127.0.0.1"), tls_origin("bad", "other.test")
    every = EVERY.replace("200ms", "1s")
    gate = moongate(f"upstream app {{ server {good.address}; server {bad.address}; tls {{ ca {pki.path}; }}\n"
                    f"health {kind} {every} start=down fall=1; }}", "route / app;")
    gate.wait_log(rf'"{good.address}" is up')
    eventually(lambda: gate.stats()["health_check_failures"] > 0)
    assert f'"{bad.address}" is up' not in gate.log()
    assert gate.get("/").status == 200


def test_the_reason_of_a_bad_certificate_is_told(moongate, pki, tls_origin):
    good, bad = tls_origin("good2", "127.0.0.1"), tls_origin("bad2", "other.test")
    gate = moongate(f"upstream app {{ server {good.address}; server {bad.address}; tls {{ ca {pki.path}; }}\n"
                    f"health tls {EVERY.replace('200ms', '500ms')}; }}", "route / app;")
    gate.wait_log(rf'"{bad.address}" is down: the TLS handshake failed: .*')


@pytest.mark.parametrize("kind", ["h2", "http /healthz"])
def test_http2(kind, moongate, origin):
    every = EVERY.replace("200ms", "1s").replace("fall=2", "fall=1")
    with H2Origin() as good:
        gate = moongate(f"upstream app {{ server {good.address}; server {origin.address}; protocol h2;\n"
                        f"health {kind} {every}; }}", "route / app;")
        gate.wait_log(rf'"{origin.address}" is down: ', 10)
        assert gate.get("/").status == 200
        assert f'"{good.address}" is down' not in gate.log()


def test_http2_is_asked_for_by_alpn(moongate, pki, tls_origin):
    good, bad = tls_origin("h2", "127.0.0.1", h2=True), tls_origin("h1", "127.0.0.1", alpn=["http/1.1"])
    gate = moongate(f"upstream app {{ server {good.address}; server {bad.address}; tls {{ ca {pki.path}; }}\n"
                    f"health h2 {EVERY.replace('200ms', '500ms')}; }}", "route / app;")
    gate.wait_log(rf'"{bad.address}" is down: it does not speak HTTP/2')
    assert f'"{good.address}" is down' not in gate.log()


# ---- one check for all workers ----------------------------------------------------------------------------

def test_eight_workers_check_once(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; health http /healthz every=200ms jitter=0; }}",
                    "route / app;", workers=8)
    eventually(lambda: checks(origin) > 0)
    first, began = checks(origin), time.monotonic()
    eventually(lambda: checks(origin) >= first + 20, 30)
    took = time.monotonic() - began
    assert 20 * 0.2 * 0.9 < took, f"20 checks in {took:.2f} s"
    done = [worker["health_checks"] for worker in gate.show("stats")["workers"]]
    assert sum(done) <= checks(origin) + 1


def test_a_reload_changes_no_state(moongate, origins):
    a, b = origins(), origins()
    a.reply = answers(BAD)
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; health http /healthz {EVERY}; }}",
                    "route / app;", workers=2)
    gate.wait_log("is down")
    for n in range(5):
        before = checks(a)
        gate.reload()
        assert asked(gate, a, b, count=5) == [0, 5]
        eventually(lambda: checks(a) > before + 1)
    assert len(re.findall("is down:|is up", gate.log())) == 1
    # Without the directive nothing is known of checks, and none is made.
    gate.configure(f"upstream app {{ server {a.address}; server {b.address}; }}", "route / app;", workers=2)
    gate.reload()
    assert min(asked(gate, a, b)) > 0
    count = checks(a)
    time.sleep(0.3)
    assert checks(a) == count


def test_checks_go_on_when_a_worker_dies_in_the_middle_of_one(moongate, origins):
    a, b = origins(), origins()
    a.reply = answers(BAD)
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address};\n"
                    f"health http /healthz {EVERY.replace('200ms', '300ms')}; }}", "route / app;", workers=2)
    gate.wait_log("is down")
    b.reply = lambda request: time.sleep(0.2) or GOOD
    for _ in range(3):
        count = checks(b)
        eventually(lambda: checks(b) > count)  # it is being asked
        victims = gate.workers()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        count = checks(b)
        eventually(lambda: not set(victims) & set(gate.workers()))
        gate.wait_serving()
        eventually(lambda: checks(b) > count + 1)
        assert asked(gate, a, b, count=2) == [0, 2]
    a.reply = answers()
    gate.wait_log(rf'"{a.address}" is up')
    assert f'"{b.address}" is down' not in gate.log()


# ---- ejection ---------------------------------------------------------------------------------------------

FAIL = "keepalive 0; response_timeout 300ms; retry connect stale idempotent timeout refused;"


def to_two(moongate, a, b, more, **how):
    return moongate(f"upstream app {{ server {a.address}; server {b.address}; {more} }}", "route / app;", **how)


BROKEN = {"close": None, "garbage": b"nonsense\r\n\r\n", "slow": lambda request: time.sleep(1)}


@pytest.mark.long
@pytest.mark.parametrize("how", BROKEN)
def test_requests_without_an_answer_eject(how, moongate, origins):
    a, b = origins(), origins()
    a.reply = BROKEN[how]
    gate = to_two(moongate, a, b, f"{FAIL} eject consecutive=3 time=2s most=3s;", workers=2)
    bad = sum(gate.get("/x").status != 200 for _ in range(8))
    gate.wait_log(rf'server "{a.address}" is ejected for 2000 ms: 3 requests without an answer in a row')
    assert bad == (3 if how == "garbage" else 0)  # what breaks the protocol is not repeated
    assert checks(a, "/x") == 3
    gate.reload()
    assert asked(gate, a, b, count=10) == [0, 10]
    # On trial, and found wanting.
    eventually(lambda: gate.get("/x") and "is ejected for 3000 ms: requests without" in gate.log())
    a.reply = GOOD
    eventually(lambda: gate.get("/x").status == 200 and f'"{a.address}" answers again' in gate.log())
    assert min(asked(gate, a, b)) > 5
    assert gate.stats()["ejections"] == 2


def test_servers_that_cannot_be_connected_to_are_ejected_however_many(moongate, origins):
    good = [origins(), origins()]
    gone = [f"127.0.0.1:{free_port()}" for _ in good]
    lines = " ".join(f"server {address};" for address in [*gone, *(origin.address for origin in good)])
    gate = moongate(f"upstream app {{ {lines} eject time=60s most=60s max_ejected=25%; }}", "route / app;")
    for _ in range(20):
        assert gate.get("/x").status == 200
    for address in gone:
        gate.wait_log(rf'"{address}" is ejected for 60000 ms: 2 connections that could not be made in a row')
    errors = gate.stats()["upstream_connect_errors"]
    assert asked(gate, *good) == [10, 10] and gate.stats()["upstream_connect_errors"] == errors


def test_a_trial_is_one_request(moongate, origins):
    """Until that is answered all others go elsewhere."""
    a, b = origins(), origins()
    a.reply = None
    gate = to_two(moongate, a, b, "keepalive 0; eject consecutive=2 time=2s;")
    assert all(gate.get("/x").status == 200 for _ in range(6))
    gate.wait_log("is ejected for 2000 ms")
    release = threading.Event()
    a.reply = lambda request: release.wait(10) and GOOD
    before, over = checks(a, "/x"), threading.Event()

    def ask():
        while not over.is_set() and gate.get("/x").status == 200 and checks(a, "/x") == before:
            time.sleep(0.01)
    on_trial = threading.Thread(target=ask)
    on_trial.start()
    try:
        eventually(lambda: checks(a, "/x") > before)
        assert asked(gate, a, b, count=10) == [0, 10]
    finally:
        over.set()
        release.set()
        on_trial.join()
    gate.wait_log("answers again")
    assert min(asked(gate, a, b)) > 5 and gate.stats()["ejections"] == 1


@pytest.mark.long
def test_a_rate_of_errors_ejects(moongate, origins):
    a, b = origins(), origins()
    a.reply = BAD
    gate = to_two(moongate, a, b, "eject rate=50% requests=5 time=2s most=3s;")
    statuses = [gate.get("/x").status for _ in range(20)]
    assert statuses.count(500) == 5
    gate.wait_log(rf'"{a.address}" is ejected for 2000 ms: 5 of 5 requests were answered with a status of 500')
    eventually(lambda: gate.get("/x") and "is ejected for 3000 ms" in gate.log())
    a.reply = GOOD
    eventually(lambda: gate.get("/x").status == 200 and f'"{a.address}" answers again' in gate.log())
    assert min(asked(gate, a, b)) > 5


@pytest.mark.long
@pytest.mark.parametrize("checked", [False, True])
def test_errors_in_a_row_eject(moongate, origins, checked):
    a, b = origins(), origins()
    a.reply = answers(other=BAD)
    # What a check finds good does not end it.
    health = f"health http /healthz {EVERY};" if checked else ""
    gate = to_two(moongate, a, b, f"eject errors=3 time=2s most=3s; {health}", workers=2)
    statuses = [gate.get("/x").status for _ in range(16)]
    gate.wait_log(rf'"{a.address}" is ejected for 2000 ms: 3 answers with a status of 500 or more in a row')
    assert statuses.count(500) == 3
    gate.reload()
    assert asked(gate, a, b, count=10) == [0, 10]
    # On trial, and found wanting.
    eventually(lambda: gate.get("/x") and "is ejected for 3000 ms: answers with a status" in gate.log())
    a.reply = GOOD
    eventually(lambda: gate.get("/x").status == 200 and f'"{a.address}" answers again' in gate.log())
    assert min(asked(gate, a, b)) > 5 and gate.stats()["ejections"] == 2


def test_errors_that_are_not_in_a_row_do_not(moongate, origins):
    a, b = origins(), origins()
    count = iter(range(1000))
    a.reply = lambda request: GOOD if next(count) % 3 == 2 else BAD
    gate = to_two(moongate, a, b, "eject errors=3;", workers=2)
    for _ in range(40):
        gate.get("/x")
    assert checks(a, "/x") >= 15 and "is ejected" not in gate.log()


def test_a_few_errors_do_not(moongate, origins):
    a, b = origins(), origins()
    count = iter(range(1000))
    a.reply = lambda request: BAD if next(count) % 4 == 0 else GOOD
    gate = to_two(moongate, a, b, "eject rate=50% requests=5;")
    for _ in range(60):
        gate.get("/x")
    assert checks(a, "/x") == 30 and "is ejected" not in gate.log()


def test_a_server_that_is_slower_than_its_peers(moongate, origins):
    a, b, c = origins(), origins(), origins()
    a.reply = lambda request: time.sleep(0.05) or GOOD
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; server {c.address};\n"
                    "eject latency=4 requests=4 window=300ms time=5s; }", "route / app;")
    eventually(lambda: gate.get("/x") and "is ejected" in gate.log())
    gate.wait_log(rf'"{a.address}" is ejected for 5000 ms: it took [5-9]\d\.\d ms for an answer, its peers')
    assert asked(gate, a, b, c) == [0, 10, 10]
    assert gate.stats()["ejections"] == 1


def test_no_more_than_max_ejected(moongate, origins):
    a, b, c = origins(), origins(), origins()
    a.reply = b.reply = BAD
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; server {c.address};\n"
                    "eject rate=50% requests=5 time=60s most=60s; }", "route / app;")
    for _ in range(40):
        gate.get("/x")
    assert gate.log().count("is ejected") == 1 and gate.stats()["ejections_withheld"] > 0


def test_one_server_alone_is_asked_whatever_it_does(moongate, origin):
    origin.reply = None
    gate = moongate(f"upstream app {{ server {origin.address}; {FAIL} eject consecutive=1 rate=1% requests=1; }}",
                    "route / app;")
    for _ in range(5):
        assert gate.get("/x").status == 502
    origin.reply = BAD
    assert gate.get("/x").status == 500
    origin.reply = GOOD
    assert gate.get("/x").status == 200 and "is ejected" not in gate.log()


def test_with_all_of_them_bad_they_are_asked_all_the_same(moongate, origins):
    ports = [free_port(), free_port()]
    gate = moongate("upstream app { server 127.0.0.1:%d; server 127.0.0.1:%d; eject time=60s most=60s; }" % tuple(ports),
                    "route / app;")
    for _ in range(4):
        assert gate.get("/x").status == 502
    for port in ports:
        gate.wait_log(rf'127.0.0.1:{port}" is ejected for 60000 ms')
    with socket.create_server(("127.0.0.1", ports[0])) as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    s, _ = listener.accept()
                    with s:
                        s.recv(65536)
                        s.sendall(GOOD)
        threading.Thread(target=serve, daemon=True).start()
        assert [gate.get("/x").status for _ in range(5)] == [200] * 5
        listener.shutdown(socket.SHUT_RDWR)


def test_a_post_is_never_sent_twice(moongate, origins):
    a, b = origins(), origins()
    count = iter(range(10000))
    a.reply = lambda request: None if next(count) % 2 else GOOD
    gate = to_two(moongate, a, b, f"{FAIL.replace('keepalive 0;', '')} eject consecutive=2 time=20ms most=100ms;",
                  workers=2)
    answered = []

    def post(number):
        for n in range(25):
            name = f"/post/{number}/{n}"
            answered.append((name, gate.get(name, method="POST", body=name.encode()).status))
    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [request.target for origin in (a, b) for request in origin.requests]
    assert len(seen) == len(set(seen)) and set(seen) <= {name for name, _ in answered}
    good = [name for name, status in answered if status == 200]
    assert len(good) > 100 and set(good) <= set(seen)


def test_a_retry_budget_bounds_what_is_sent_again(moongate, origins):
    a, b = origins(), origins()
    plans = {"budget": "retry_budget 10% min=0;", "least": "retry_budget 0% min=2;", "off": "retry_budget off;"}
    gate = moongate("".join(f"upstream {name} {{ server {a.address}; server {b.address}; keepalive 0; tries 2;\n"
                            f"eject off; {line} }}\n" for name, line in plans.items()),
                    "".join(f"route /{name} {name};" for name in plans))
    assert all(gate.get("/budget").status == 200 for _ in range(30))
    a.reply = b.reply = None
    before = gate.stats()
    assert all(gate.get("/budget").status == 502 for _ in range(20))
    after = gate.stats()
    # Of 50 requests in all, and fewer before that.
    assert 3 <= after["upstream_retries"] - before["upstream_retries"] <= 5
    assert after["retries_over_budget"] >= 15
    gate.wait_log('upstream "budget": requests that fail are not sent again: retry_budget is used up')
    for name, least, most in (("least", 20, 20), ("off", 30, 30)):
        before = gate.stats()["upstream_retries"]
        assert all(gate.get(f"/{name}").status == 502 for _ in range(30))
        assert least <= gate.stats()["upstream_retries"] - before <= most


class Killable(Nginx):
    """An nginx that dies, stalls and comes back on the same port."""

    def processes(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def signal(self, number):
        for pid in self.processes():
            os.kill(pid, number)

    def die(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def revive(self):
        self.process = subprocess.Popen(self.process.args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        eventually(self.answers)


def fail_in_turn(gate, servers, hurt, heal):
    """Each server is hurt until it is seen, then healed until all are up again: one is well all the time."""
    def up():
        shown = gate.show("upstreams")["upstreams"][0]["servers"]
        return {server["server"] for server in shown if server["state"] == "up"}
    for server in servers:
        hurt(server)
        eventually(lambda: server.address not in up(), 10)
        heal(server)
        eventually(lambda: len(up()) == len(servers), 10)


@pytest.mark.alone
@pytest.mark.skipif(not Nginx.program() or not shutil.which("wrk"), reason="no nginx or no wrk")
@pytest.mark.parametrize("checked", [False, True])
def test_dying_and_stalling_servers_under_load_fail_no_request(checked, moongate):
    servers = [Killable(), Killable()]
    a, b = servers
    for server in servers:
        server.write("page", "x" * 100)
    health = "health http /page every=200ms timeout=200ms;" if checked else ""
    gate = moongate(f"upstream app {{ server {a.address}; server {b.address}; connect_timeout 500ms;\n"
                    "response_timeout 800ms; retry connect stale idempotent timeout refused; tries 4;\n"
                    f"eject time=200ms most=1s; {health} }}", "route / app;", workers=2, level="notice")
    try:
        with subprocess.Popen(["wrk", "-t1", "-c32", "-d30s", gate.url("/page")], stdout=subprocess.PIPE,
                              text=True) as wrk:
            gate.wait_serving()
            eventually(lambda: gate.stats()["requests"] > 100)
            for _ in range(2):
                fail_in_turn(gate, servers, Killable.die, Killable.revive)
                fail_in_turn(gate, servers, lambda it: it.signal(signal.SIGSTOP), lambda it: it.signal(signal.SIGCONT))
            wrk.send_signal(signal.SIGINT)
            report = wrk.communicate(timeout=30)[0]
        assert "Non-2xx" not in report and "Socket errors" not in report, report
        assert int(re.search(r"(\d+) requests in", report)[1]) > 500, report
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)
            server.close()


# ---- configuration ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("line, error", [
    ("health", "too few arguments"),
    ("health ping", "no kind of check"),
    ("health tcp /x", "unexpected"),
    ("health tcp status=200", "unexpected"),
    ("health tls", "without tls"),
    ("health h2", "protocol h2"),
    ("health http get /", "bad method"),
    ("health http /a#b", "bad path"),
    ("health http status=2xx", "bad \"status=2xx\""),
    ("health http status=299-200", "bad \"status"),
    ("health http status=1,2", "bad \"status"),
    ("health http every=1s timeout=2s", "timeout is longer than every"),
    ("health http start=maybe", "start=up or start=down"),
    ("health http rise=0", "out of bounds"),
    ("health http body=", "expected at most"),
    ("retry_budget", "too few"),
    ("retry_budget 101%", "out of bounds"),
    ("retry_budget 5% 3", "unexpected"),
    ("retry_budget off min=1", "unexpected"),
    ("eject", "too few arguments"),
    ("eject sometimes", "unexpected"),
    ("eject rate=101%", "out of bounds"),
    ("eject rate=x%", "bad value"),
    ("eject time=2s most=1s", "time is longer than most"),
])
def test_what_is_refused(line, error, moongate):
    gate = moongate(start=False)
    gate.configure(f"upstream app {{ server 127.0.0.1:1; {line}; }}", "route / app;")
    done = gate.run("-t")
    assert done.returncode != 0 and error in done.stderr, done.stderr


def test_what_is_printed_is_read_again(moongate):
    gate = moongate(start=False)
    gate.configure("upstream app { server 127.0.0.1:1; health http HEAD /a?b status=200,300-310 \"body=x y\" host=h "
                   "every=7s timeout=3s jitter=0 rise=4 fall=5 start=down; eject rate=5% latency=3 requests=7; retry_budget 5%; }",
                   "route / app;")
    first = gate.run("-T").stdout
    assert re.search(r"health http HEAD /a\?b status=200-200,300-310 .body=x y. host=h every=7s timeout=3s jitter=0s? "
                     r"rise=4 fall=5 start=down;", first), first
    assert ("eject connect=2 consecutive=5 errors=0 rate=5% latency=3 window=10s requests=7 time=1s most=30s max_ejected=50%;"
            in first)
    assert "retry_budget 5% min=10;" in first
    gate.write("moongate.conf", first)
    assert gate.run("-T").stdout == first

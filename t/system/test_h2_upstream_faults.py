# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 to upstream servers in a build with --enable-faults: the kernel's rarer answers change nothing, memory that is
out fails single requests; nothing is lost, and the sanitizers have nothing to say."""
import http.client
import random
import ssl
import subprocess
import threading

import pytest

from conftest import MOONGATE, eventually
from h2origin import H2Origin
from pki import Authority

OK = [(":status", "200")]


pytestmark = pytest.mark.skipif(
    " faults" not in subprocess.run([MOONGATE, "-V"], capture_output=True, text=True).stdout,
    reason="a build without --enable-faults")


def calm(link, stream):
    if stream.path == "/big":
        link.headers(stream.id, OK)
        link.pour(stream, 300000)
    else:
        link.respond(stream.id, OK, stream.body or b"ok", [("x-sum", "1")])


def wild(link, stream):
    if stream.path == "/reset":
        link.reset(stream.id, random.choice([2, 7]))
    elif stream.path == "/goaway":
        link.respond(stream.id, OK, b"ok")
        link.go_away(stream.id)
    elif stream.path == "/die":
        link.close()
    else:
        calm(link, stream)


@pytest.fixture(params=["plain", "tls"])
def origin(request, tmp_path):
    tmp_path.chmod(0o755)
    origin = H2Origin()
    origin.tls = ""
    if request.param == "tls":
        ca = Authority(tmp_path)
        site = ca.issue("site", "site.test", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.pem, site.key)
        context.set_alpn_protocols(["h2"])
        origin.wrap = lambda s: context.wrap_socket(s, server_side=True)
        origin.tls = f"tls {{ ca {ca.path}; }}"
    with origin:
        yield origin


def load(gate, paths, clients=6, requests=40):
    """What came of many requests: a list of (path, body sent, Response or error)."""
    came = []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(requests):
            path, body = chance.choice(paths), b"z" * chance.choice([0, 10, 50000])
            try:
                came.append((path, body, gate.get(path, method=chance.choice(["GET", "POST"]), body=body, timeout=30)))
            except (OSError, http.client.HTTPException) as error:
                came.append((path, body, error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


@pytest.mark.parametrize("faults", ["recv_short=3 send_short=3 again=4 recv_nobufs=4",
                                    "cancel_late=2 canceled=3 once=2 again=4"])
def test_the_kernels_rarer_answers_change_nothing(moongate, origin, faults, monkeypatch):
    monkeypatch.setenv("MOONGATE_FAULTS", f"seed=3 {faults}")
    origin.reply = calm
    gate = moongate(f"upstream app {{ server {origin.address}; protocol h2; {origin.tls} }}", "route / app;", level="notice")
    for path, body, got in load(gate, ["/", "/big"]):
        assert got.status == 200, got
        assert got.body == (b"x" * 300000 if path == "/big" else body or b"ok")


def test_memory_that_is_out_fails_single_requests(moongate, origin, monkeypatch):
    monkeypatch.setenv("MOONGATE_FAULTS", "seed=5 alloc=200")
    origin.reply = wild
    gate = moongate(f"upstream app {{ server {origin.address}; protocol h2; http2_ping 200ms; {origin.tls} }}",
                    "route / app;", level="notice")
    came = load(gate, ["/", "/", "/big", "/reset", "/goaway", "/die"])
    statuses = [getattr(got, "status", None) for _, _, got in came]
    assert statuses.count(200) > 20 and set(statuses) <= {200, 502, 503, 504, None}
    for path, body, got in came:
        if getattr(got, "status", None) == 200 and path == "/big":
            assert got.body == b"x" * 300000
    eventually(lambda: gate.stats()["requests_active"] == 0)

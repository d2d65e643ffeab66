# SPDX-License-Identifier: BSD-2-Clause
"""TLS and HTTP/2 on both sides while memory runs out: each allocation of handshakes, sessions and exchanges fails once,
the library's own among them. What is answered is right or visibly broken, and the next client sees nothing of it. Needs a
build with --enable-faults."""
import collections
import http.client
import os
import re
import socket

import pytest

from conftest import eventually
from h2_peer import H2
from h2origin import H2Origin
from pki import Authority
from test_faults import pytestmark  # noqa: F401  (skips all of it in other builds)
from test_tls import context
from test_tls_upstream import TlsOrigin, context_of

LARGE, BODY = bytes(range(256)) * 256, bytes(range(256)) * 100
# What each client asks of its one connection.
WANTED = [("GET", "/large", None, LARGE), ("POST", "/echo", BODY, BODY)]


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def site(ca):
    return ca.issue("site", "site.test", "127.0.0.1")


def reply(request):
    body = LARGE if request.target == "/large" else request.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def reply_h2(link, stream):
    link.headers(stream.id, [(":status", "200")])
    body = LARGE if stream.path == "/large" else stream.body
    for at in range(0, len(body), 16384):
        piece = body[at:at + 16384]
        with link.can_send:
            while min(link.window, stream.window) < len(piece) and stream.reset is None and not link.closed:
                link.can_send.wait(0.5)
            link.window -= len(piece)
            stream.window -= len(piece)
        link.data(stream.id, piece)
    link.headers(stream.id, [("x-sum", str(len(body)))], end=True)


@pytest.fixture
def back(request, origins, site):
    """The upstream of a kind, as (what stands in its block, the origin)."""
    made = []

    def make(kind):
        if kind == "h1":
            origin = origins()
        elif kind == "tls":
            origin = TlsOrigin(context_of(site, ["http/1.1"]))
        elif kind == "h2":
            origin = H2Origin()
        else:
            tls = context_of(site, ["h2"])
            origin = H2Origin(wrap=lambda s: tls.wrap_socket(s, server_side=True))
        origin.reply = reply_h2 if "h2" in kind else reply
        made.append(origin)
        return origin

    yield make
    for origin in made:
        origin.close()


def front(gate, kind, trusting):
    s = gate.connect(20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "tls" not in kind:
        return s
    try:
        return trusting.wrap_socket(s, server_hostname="site.test")
    except BaseException:
        s.close()
        raise


class OneClient(http.client.HTTPConnection):
    """On a connection that is there, and no other."""

    def __init__(self, sock):
        super().__init__("h")
        self.sock, self.auto_open = sock, 0


def ask_h1(sock):
    client = OneClient(sock)
    for method, path, body, _ in WANTED:
        try:
            client.request(method, path, iter([body]) if body else None, encode_chunked=True)
            response = client.getresponse()
        except http.client.HTTPException:
            return
        try:
            yield response.status, response.read(), True
        except http.client.IncompleteRead as broken:
            yield response.status, broken.partial, False
            return
        if client.sock is None:
            return


def ask_h2(sock, scheme):
    peer = H2(None, sock=sock, timeout=20, scheme=scheme)
    streams = [peer.request(path, method, body=body) for method, path, body, _ in WANTED]
    for stream in streams:
        answer = peer.answer(stream)
        yield answer.status, answer.body, answer.ended


def exchange(gate, kind, trusting):
    """What came of each of WANTED, as (status, body, whole); those that nothing came of are left out."""
    got = []
    try:
        with front(gate, kind, trusting) as sock:
            for one in ask_h2(sock, "https" if "tls" in kind else "http") if "h2" in kind else ask_h1(sock):
                got.append(one)
    except TimeoutError:  # a hang; anything else of the socket is an end
        raise
    except OSError:
        pass
    return got


def check(got, n):
    for (status, body, whole), (_, _, _, right) in zip(got, WANTED):
        assert status in (None, 200, 500, 502, 503), (n, status)
        assert not (whole and status == 200) or body == right, n
        assert status != 200 or right.startswith(body), n
        assert status is not None or not whole, n


def sweep(moongate, monkeypatch, ca, site, origin, kinds, faults, upstream, most):
    """Returns what came of those whose allocation failed, and how many did."""
    monkeypatch.setenv("MOONGATE_FAULTS", faults)
    first, last = kinds
    protocol = {"h1": "", "tls": f"tls {{ ca {ca.path}; }}", "h2": "protocol h2;",
                "h2 tls": f"protocol h2; tls {{ ca {ca.path}; }}"}[last]
    alpn = "alpn h2;" if "h2" in first else "alpn http/1.1;"
    gate = moongate(f"upstream app {{ server {origin.address}; {protocol} {upstream} }}", "route / app;", level="notice",
                    listen="%ADDRESS%" + (f" tls {{ {site.lines} {alpn} }}" if "tls" in first else ""))
    trusting = context(ca, alpn=["h2" if "h2" in first else "http/1.1"])
    workers, outcomes = gate.workers(), collections.Counter()
    for turn in range(1, most):
        got = exchange(gate, first, trusting)  # an allocation fails
        check(got, turn)
        outcomes.update(status if whole else "cut" for status, _, whole in got)
        outcomes["none"] += len(WANTED) - len(got)
        got = exchange(gate, first, trusting)  # none fails
        assert [(status, whole) for status, _, whole in got] == [(200, True)] * len(WANTED), (turn, got)
        check(got, turn)
        if len(re.findall(r"fault: allocation \d+ fails", gate.log())) < turn:
            break
    else:
        pytest.fail("no end of allocations")
    assert gate.workers() == workers
    print(kinds, upstream, f"{turn} allocations failed:", dict(outcomes))

    def gone():
        stats = gate.stats()
        return not any(stats[name] for name in ("connections_active", "requests_active", "tls_handshakes_active"))
    eventually(gone)
    gate.stop()
    assert "receive buffers did not come back" not in gate.log() and "did not close in time" not in gate.log()
    return outcomes, turn


PAIRS = [("tls", "h1"), ("h2", "h1"), ("h2 tls", "h1"), ("h1", "tls"), ("h1", "h2"), ("h1", "h2 tls"), ("h2 tls", "h2 tls")]


@pytest.mark.parametrize("upstream", ["keepalive 0;", "keepalive 8;"])
@pytest.mark.parametrize("kinds", PAIRS, ids=[" to ".join(pair) for pair in PAIRS])
def test_each_allocation_may_fail(moongate, monkeypatch, ca, site, back, kinds, upstream):
    outcomes, turn = sweep(moongate, monkeypatch, ca, site, back(kinds[1]), kinds, "alloc_sweep=1", upstream, 1000)
    assert turn > 5 and outcomes[503] + outcomes[500] + outcomes["none"] + outcomes["cut"] > 0, outcomes


# OpenSSL takes some 1500 pieces of memory for an exchange: ALLOC_STEP=1 lets each of them fail, which takes minutes.
STEP = int(os.environ.get("ALLOC_STEP", "23"))


@pytest.mark.parametrize("kinds", [("tls", "h1"), ("h2 tls", "h1"), ("h1", "tls"), ("h1", "h2 tls")], ids=" to ".join)
def test_each_allocation_of_openssl_may_fail(moongate, monkeypatch, ca, site, back, kinds):
    outcomes, turn = sweep(moongate, monkeypatch, ca, site, back(kinds[1]), kinds, f"alloc_sweep={STEP} alloc_openssl=1",
                           "keepalive 0;", 10000)
    assert turn * STEP > 500 and outcomes[503] + outcomes[502] + outcomes["none"] > 0, outcomes


def test_want_of_memory_makes_no_certificate_good(moongate, monkeypatch, ca, back, tmp_path):
    """While a server's certificate is of an unknown authority, whatever fails meanwhile."""
    tmp_path.chmod(0o755)
    other = Authority(tmp_path, "other")
    monkeypatch.setenv("MOONGATE_FAULTS", f"alloc_sweep={STEP} alloc_openssl=1")
    gate = moongate(f"upstream app {{ server {back('tls').address}; tls {{ ca {other.path}; }} keepalive 0; }}", "route / app;",
                    level="notice")
    for turn in range(1, 10000):
        for _ in range(2):  # with and without one that fails
            got = exchange(gate, "h1", None)
            assert {status for status, _, _ in got} <= {500, 502, 503}, (turn, got)
        if len(re.findall(r"fault: allocation \d+ fails", gate.log())) < turn:
            break
    assert turn * STEP > 300
    assert {status for status, _, _ in got} == {502}
    eventually(lambda: gate.stats()["requests_active"] == 0)

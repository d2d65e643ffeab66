# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 under faults on purpose (test_faults.py): what the kernel seldom does is not seen from outside; without memory
a stream or a connection ends, and the worker lives. Needs a build with --enable-faults."""
import contextlib
import os

import pytest

import h2_peer
from conftest import eventually
from h2_peer import H2, raw
from test_faults import pytestmark  # noqa: F401  (skips all of it in other builds)

BODY = os.urandom(300000)


def gate_with(moongate, origin, monkeypatch, faults, frontend=""):
    monkeypatch.setenv("MOONGATE_FAULTS", faults)
    origin.reply = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (
        len(BODY) if request.target == "/large" else len(request.body)) + (
        BODY if request.target == "/large" else request.body)
    return moongate(f"upstream app {{ server {origin.address}; }}", f"{frontend} route / app;", level="info")


@pytest.mark.parametrize("faults", [
    "seed=1 recv_short=3 send_short=3 again=6", "seed=2 once=2 canceled=7 cancel_late=3 recv_nobufs=5",
    "seed=3 recv_short=5 send_short=2 cancel_early=3 once=3 again=4"])
def test_rare_answers_of_the_kernel_are_not_seen(moongate, origin, monkeypatch, faults):
    gate = gate_with(moongate, origin, monkeypatch, faults)
    for turn in range(4):
        with H2(gate, timeout=30) as peer:
            streams = {}
            for n in range(12):
                if n % 3:
                    streams[peer.request(method="POST", body=BODY[:n * 1000])] = BODY[:n * 1000]
                else:
                    streams[peer.request("/large")] = BODY
            for stream, body in streams.items():
                answer = peer.answer(stream)
                assert answer.status == 200 and answer.body == body, (turn, stream, answer.reset, peer.goaways)


@pytest.mark.parametrize("seed", range(4))
def test_without_memory_one_ends_and_no_other(moongate, origin, monkeypatch, seed):
    gate = gate_with(moongate, origin, monkeypatch, f"seed={seed} alloc={40 + 30 * seed}")
    workers = gate.workers()
    served = 0
    for _ in range(25):
        with contextlib.suppress(OSError), H2(gate) as peer:
            streams = [peer.request("/large" if n % 4 == 0 else "/", method="POST", body=BODY[:2000])
                       for n in range(8)]
            peer.send(raw(h2_peer.RST_STREAM, 0, streams.pop(), b"\0\0\0\x08"))
            for stream in streams:
                peer.until(lambda s=stream: peer.answers[s].over)
                answer = peer.answers[stream]
                # Whole, or visibly not.
                assert not answer.ended or answer.status >= 500 or answer.body in (BODY, BODY[:2000])
                served += answer.ended and answer.status == 200
    assert served > 0 and gate.workers() == workers
    eventually(lambda: gate.stats()["requests_active"] == 0)

# SPDX-License-Identifier: BSD-2-Clause
"""The table of t/cases/http2.py: each case ends as it says, and a request is served behind it, on the same connection
where that goes on, on a new one where it does not. Nothing of a request that is refused reaches the origin."""
import sys
import time

import pytest

from conftest import SRCDIR, Gate, Origin
from h2_peer import H2

sys.path.insert(0, str(SRCDIR / "t" / "cases"))
import http2  # noqa: E402


@pytest.fixture(scope="module")
def origin():
    origin = Origin()

    def reply(request):
        if request.target == "/slow":
            time.sleep(0.2)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    origin.reply = reply
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def gate(origin):
    gate = Gate()
    gate.write("held.lua", """local gate = require "moongate"
        return { request = function(req) if req.path == "/held" then gate.sleep(1) end end }""")
    gate.configure(f"upstream app {{ server {origin.address}; }}",
                   "route / app; http2_max_errors 0; script held.lua;", level="info")
    gate.start()
    yield gate
    gate.release()


@pytest.mark.parametrize("case", http2.CASES, ids=[f"{case.section}: {case.name}" for case in http2.CASES])
def test_case(gate, origin, case):
    asked = len(origin.requests)
    with H2(gate, greet=case.greeted) as peer:
        peer.stays = True
        stream = case.send(peer)
        kind = case.expect[0]
        if kind == "conn":
            error = peer.goaway()
            assert error is not None and http2.ERRORS[error] in case.expect[1:], error
        elif kind == "either":
            peer.until(lambda: peer.goaways or peer.answers[stream].reset is not None)
            error = peer.goaways[0][0] if peer.goaways else peer.answers[stream].reset
            assert http2.ERRORS[error] in case.expect[1:]
            peer.stays = not peer.goaways
        elif kind == "stream":
            answer = peer.answer(stream)
            assert answer.reset is not None and http2.ERRORS[answer.reset] == case.expect[1], answer.__dict__
            assert not answer.headers
        elif stream is not None:
            answer = peer.answer(stream)
            status = case.expect[1] if kind == "answered" else 200
            assert (answer.status, answer.ended) == (status, True), answer.__dict__
        if kind != "conn" and peer.stays:
            assert peer.get("/after").status == 200 and not peer.goaways
    if kind == "conn" or not peer.stays:
        with H2(gate) as peer:
            assert peer.get("/after").status == 200
    assert not [request.target for request in origin.requests[asked:] if "smuggled" in request.target]


def test_there_are_enough():
    assert len(http2.CASES) >= 140 and len({case.section for case in http2.CASES}) >= 20

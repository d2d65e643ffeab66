# SPDX-License-Identifier: BSD-2-Clause
"""Early data (0-RTT): off unless it is wanted, for requests alone that may come twice."""
import ssl
import subprocess

import pytest

from test_tls import ask, ca, context, dial, s_client, secure, site  # noqa: F401 (fixtures)

GET = "GET /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture
def resumed(tmp_path):
    """resumed(gate, request, ...) -> what openssl s_client prints that sends the request as early data of a session
    that it has begun before."""
    def go(gate, request, session=None, patience=20, more=""):
        path = session or tmp_path / "session"
        if not session:
            out = s_client(gate, "-tls1_3", "-alpn", "http/1.1", "-sess_out", path, "-ign_eof",
                           data="GET /first HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert "200 OK" in out and path.exists(), out
        data = tmp_path / "request"
        data.write_bytes(request.encode())
        return s_client(gate, "-tls1_3", "-alpn", "http/1.1", "-sess_in", path, "-early_data", data, "-ign_eof",
                        patience=patience, data=more)
    return go


def test_off_unless_it_is_wanted(secure, origin, resumed):
    gate = secure()
    with pytest.raises(subprocess.TimeoutExpired):  # nothing of it is read, and s_client sends nothing else
        resumed(gate, GET, patience=1)
    assert [request.target for request in origin.requests] == ["/first"]


def test_a_safe_request_is_served_and_marked(secure, origin, resumed):
    gate = secure("early_data on;")
    out = resumed(gate, GET)
    assert "Early data was accepted" in out and out.count("200 OK") == 1, out
    assert [request.header("early-data") for request in origin.requests] == [None, "1"]
    assert gate.stats()["tls_resumed"] == 1 and gate.stats()["requests_too_early"] == 0


@pytest.mark.parametrize("request_text", [
    "POST /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
    "DELETE /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
])
def test_others_are_to_come_again(secure, origin, resumed, request_text):
    gate = secure("early_data on;")
    out = resumed(gate, request_text)
    assert "425 Too Early" in out, out
    assert [request.target for request in origin.requests] == ["/first"]
    assert gate.stats()["requests_too_early"] == 1


def test_what_is_sent_twice_is_served_twice_at_most_so(secure, origin, resumed, tmp_path):
    """There is no cache against replays: a recorded GET may be served again, marked as such; nothing else is."""
    gate = secure("early_data on;")
    resumed(gate, GET)
    out = resumed(gate, GET, tmp_path / "session")
    assert "Early data was accepted" in out
    assert [request.header("early-data") for request in origin.requests] == [None, "1", "1"]


def test_a_request_after_the_handshake_is_not_marked(secure, ca, origin):
    gate = secure("early_data on;")
    for most in ("TLSv1_3", "TLSv1_2"):
        with dial(gate, ca, most=ssl.TLSVersion[most]) as s:
            for _ in range(3):
                assert ask(s, method="POST", head="Content-Length: 2\r\n", body=b"hi")[1] == b"ok"
    assert all(request.header("early-data") is None for request in origin.requests)


def test_what_follows_the_handshake_on_the_same_connection_is_not_early(secure, origin, resumed):
    gate = secure("early_data on;")
    out = resumed(gate, GET.replace("Connection: close\r\n", ""),
                  more="POST /later HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    assert out.count("200 OK") == 2, out
    assert [request.header("early-data") for request in origin.requests] == [None, "1", None]


def test_large_answers_to_early_requests(secure, origin, resumed):
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999995 + b"end\r\n"
    gate = secure("early_data on;")
    out = resumed(gate, GET)
    assert out.count("x" * 1000) > 900


def test_with_hooks_that_wait(secure, origin, resumed):
    gate = secure("early_data on;", frontend="script hook.lua;", files={"hook.lua": """
        local gate = require "moongate"
        return { tls_hello = function(conn) gate.sleep(0.05) end, tls_done = function(conn) gate.sleep(0.05) end }"""})
    out = resumed(gate, GET)
    assert "Early data was accepted" in out and "200 OK" in out
    assert origin.requests[-1].header("early-data") in ("1", None)


def test_a_reload_that_turns_it_off(secure, origin, resumed, tmp_path):
    gate = secure("early_data on;")
    resumed(gate, GET)
    gate.write("moongate.conf", gate.config.read_text().replace("early_data on", "early_data off"))
    gate.reload()
    with pytest.raises(subprocess.TimeoutExpired):
        resumed(gate, GET, tmp_path / "session", patience=1)
    assert len(origin.requests) == 2

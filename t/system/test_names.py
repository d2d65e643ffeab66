# SPDX-License-Identifier: BSD-2-Clause
"""Servers by name: what gate.fetch and route hooks name is resolved when it is connected to, tried address by address,
and kept away from this machine and its neighbours unless route_allow names them."""
import collections
import contextlib
import http.client
import subprocess
import threading

import pytest

from conftest import MOONGATE, eventually, hold
from nameserver import nameserver  # noqa: F401: a fixture

# Goes where x-to says; with x-fetch it asks there by itself.
GO = """
local gate = require "moongate"
return {
  request = function(req)
    local url = req.headers["x-fetch"]
    if not url then return end
    local answer, why = gate.fetch(url, { timeout = tonumber(req.headers["x-timeout"]) })
    return req:respond(200, nil, answer and answer.status .. " " .. answer.body or "nil " .. why)
  end,
  route = function(req) return req.headers["x-to"] end,
}
"""
LOOPBACK = "route_allow 127.0.0.0/8;\n"


def make(moongate, names, top=LOOPBACK, frontend="", **how):
    return moongate(names.directive + top, "script a.lua;\n" + frontend, {"a.lua": GO}, **how)


def go(gate, to, **how):
    return gate.get("/p?q", {"X-To": to}, **how)


def fetch(gate, url, **headers):
    return gate.get("/", {"X-Fetch": url, **headers}).text


def test_by_a_route_hook_and_by_fetch(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.1"})
    gate = make(moongate, names)
    for _ in range(3):
        answer = go(gate, f"App.test:{origin.port}")
        assert (answer.status, answer.text) == (200, "ok")
    assert origin.requests[0].target == "/p?q" and origin.requests[0].header("host") == gate.address
    assert fetch(gate, f"http://APP.test:{origin.port}/x") == "200 ok"
    assert origin.requests[-1].target == "/x" and origin.requests[-1].header("host") == f"APP.test:{origin.port}"
    assert origin.connections == 1 and names.asked("app.test") == 1  # one pool for the address
    assert go(gate, f"127.0.0.1:{origin.port}").status == 200 and origin.connections == 1


def test_each_connection_is_made_to_what_the_name_stands_for_then(moongate, nameserver, origin):
    names = nameserver(ttl=1, **{"app.test": "127.0.0.9"})
    gate = make(moongate, names)
    assert go(gate, f"app.test:{origin.port}").status == 502
    names.tell(**{"app.test": "127.0.0.1"})
    eventually(lambda: go(gate, f"app.test:{origin.port}").status == 200, every=0.1)


def test_the_next_address_is_tried_within_tries(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.8 127.0.0.9 127.0.0.1",
                          "far.test": "127.0.0.5 127.0.0.6 127.0.0.7 127.0.0.8"})
    gate = make(moongate, names, workers=1)
    for n in range(4):  # whichever comes first
        assert go(gate, f"app.test:{origin.port}", method="POST", body=b"x").status == 200, n
        assert fetch(gate, f"http://app.test:{origin.port}/") == "200 ok"
    assert origin.requests[0].body == b"x"
    assert go(gate, f"far.test:{origin.port}").status == 502
    tried = [line for line in gate.log().splitlines() if "connecting to" in line][-3:]
    assert len({line.split('connecting to "')[1].split('"')[0] for line in tried}) == 3  # each another


def test_an_address_that_failed_is_left_alone_for_a_while(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.9 127.0.0.1"})
    gate = make(moongate, names)
    for _ in range(30):
        assert go(gate, f"app.test:{origin.port}").status == 200
    assert gate.stats()["upstream_connect_errors"] < 6


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
                                     "100.64.0.1", "224.0.0.1", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1",
                                     "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"])
def test_a_name_does_not_lead_to_places_that_are_not_public(moongate, nameserver, origin, address):
    names = nameserver(**{"evil.test": address})
    gate = make(moongate, names, top="")
    assert go(gate, f"evil.test:{origin.port}").status == 502
    gate.wait_log(r'warn.*no server "evil.test:\d+": it stands for .*, which route_allow does not let in')
    assert fetch(gate, f"http://evil.test:{origin.port}/") == "nil upstream_denied"
    assert origin.connections == 0 and gate.stats()["upstream_connect_errors"] == 0


def test_the_hosts_file_is_no_way_around(moongate, origin):
    gate = moongate("", "script a.lua;", {"a.lua": GO})
    assert go(gate, f"localhost:{origin.port}").status == 502
    assert fetch(gate, f"http://localhost:{origin.port}/") == "nil upstream_denied" and origin.connections == 0


def test_addresses_and_upstreams_are_not_looked_at(moongate, nameserver, origin):
    names = nameserver()
    gate = make(moongate, names, f"route_allow none;\nupstream app {{ server {origin.address}; }}", "route / app;")
    assert go(gate, "app").status == go(gate, origin.address).status == gate.get("/").status == 200
    assert fetch(gate, f"http://{origin.address}/") == "200 ok"


def test_what_is_not_let_in_is_passed_over(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.2 127.0.0.1 ::1"})
    gate = make(moongate, names, "route_allow public 127.0.0.1/32;")
    for _ in range(4):
        assert go(gate, f"app.test:{origin.port}").status == 200
    assert gate.stats()["upstream_connect_errors"] == 0


def test_routes_and_frontends_have_their_own(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.1"})
    gate = make(moongate, names, f"upstream app {{ server {origin.address}; }}",
                "route / app;\nroute /p app { route_allow any; }")
    assert go(gate, f"app.test:{origin.port}").status == 200
    assert gate.get("/other", {"X-To": f"app.test:{origin.port}"}).status == 502


def test_what_fails_says_why(moongate, nameserver, origin):
    names = nameserver(**{"app.test": "127.0.0.1"})
    gate = make(moongate, names, LOOPBACK + "resolver_timeout 300ms; resolver_tries 1;")
    assert go(gate, "none.test:80").status == 502 and fetch(gate, "http://none.test/") == "nil upstream_name"
    gate.wait_log(r'warn.*no server "none.test:80": no such name')
    for bad in ("app.test", "app.test:0", "app.test:65536", "app.test:x", "a..b:80", "app.test:80:80", ":80", "1.2:80"):
        assert go(gate, bad).status == 502, bad
        gate.wait_log(f"a script chose \"{bad}\", which is neither")
    hold(names.process.pid)
    assert go(gate, "late.test:80").status == 504
    assert fetch(gate, "http://later.test/") == "nil upstream_name"


def test_the_next_one_of_a_list_is_tried_when_a_name_leads_nowhere(moongate, nameserver, origin):
    names = nameserver(**{"evil.test": "10.0.0.1", "app.test": "127.0.0.1"})
    gate = moongate(names.directive + LOOPBACK, "script a.lua;", {"a.lua": f"""
        return {{ route = function(req)
          return {{ "none.test:80", "evil.test:80", "app.test:{origin.port}" }}
        end }}"""})
    assert gate.get("/").status == 200


def test_a_client_that_goes_while_a_name_is_resolved(moongate, nameserver, origin):
    names = nameserver(relay=True, **{"app.test": "127.0.0.1"})
    names.delay = 0.5
    gate = make(moongate, names)
    with gate.connect() as s:
        s.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nX-To: app.test:{origin.port}\r\n\r\n".encode())
        eventually(lambda: gate.stats()["dns_lookups_active"] == 1)
    eventually(lambda: gate.stats()["requests_active"] == 0)
    eventually(lambda: gate.stats()["dns_lookups_active"] == 0)
    assert origin.connections == 0
    assert fetch(gate, f"http://app.test:{origin.port}/") == "200 ok"


def test_a_reload_while_a_name_is_resolved(moongate, nameserver, origin):
    names = nameserver(relay=True, **{"app.test": "127.0.0.1"})
    names.delay = 1
    gate = make(moongate, names)
    with gate.connect() as s, gate.connect() as other:
        s.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-To: app.test:{origin.port}\r\n\r\n".encode())
        other.sendall(f"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Fetch: http://app.test:{origin.port}/\r\n\r\n"
                      .encode())
        eventually(lambda: gate.stats()["requests_active"] >= 2)
        gate.configure("resolver 127.0.0.1:9;", "script a.lua;")
        gate.reload()
        assert s.recv(65536).endswith(b"ok") and other.recv(65536).endswith(b"200 ok")


def test_names_and_addresses_that_are_not_used_make_room(moongate, nameserver, origin):
    records = {f"n{n}.test": "127.0.0.1" for n in range(20)}
    names = nameserver(**records)
    gate = make(moongate, names, level="info")
    with contextlib.closing(gate.client()) as client:
        for n in range(4500):
            assert client.ask("/", {"X-To": f"n{n % 20}.test:{n + 1 if n % 20 else origin.port}"}).status in (200, 502)
        assert client.ask("/", {"X-To": f"n1.test:{origin.port}"}).status == 200
    assert "are in use" not in gate.log()


@pytest.mark.skipif(" faults" not in subprocess.run([MOONGATE, "-V"], capture_output=True, text=True).stdout,
                    reason="a build without --enable-faults")
@pytest.mark.parametrize("faults", ["cancel_late=2 sq=4", "cancel_early=2 alloc=40", "alloc=15", "socket=4 cancel_late=3"])
def test_faults_cost_requests_and_nothing_else(moongate, nameserver, origin, faults):
    names = nameserver(ttl=1, **{f"n{n}.test": "127.0.0.1 127.0.0.9" for n in range(30)})
    gate = make(moongate, names, LOOPBACK + "resolver_min_ttl 1ms; resolver_max_ttl 50ms; resolver_negative_ttl 1ms;\n"
                "resolver_cache 10; resolver_timeout 500ms;", start=False, level="warn")
    gate.start(MOONGATE_FAULTS=f"seed=7 {faults}")
    pid, seen = gate.workers(), collections.Counter()

    def ask(first):
        for n in range(first, first + 150):
            to = f"n{n % 30}.test:{origin.port}"
            headers = {"X-Fetch": f"http://{to}/", "X-Timeout": "0.01" if n % 7 == 0 else "5"} if n % 2 else {"X-To": to}
            with contextlib.suppress(OSError, http.client.HTTPException):
                seen[gate.get("/", headers).status] += 1

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(0, 60, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # That many go through is a matter of luck; with one allocation in 15 failing it is one in six.
    assert seen[200] > 40 and set(seen) <= {200, 500, 502, 503, 504}, seen
    assert gate.workers() == pid
    eventually(lambda: gate.stats()["dns_lookups_active"] == 0 and gate.stats()["requests_active"] == 0)


@pytest.mark.parametrize("line, expected", [
    ("route_allow public 10.0.0.0/8 2001:db8::/32 192.0.2.1 ::1;",
     "route_allow public 10.0.0.0/8 2001:db8::/32 192.0.2.1/32 ::1/128;"),
    ("route_allow any;", "route_allow any;"),
    ("route_allow none;", "route_allow none;"),
    ("", "route_allow public;"),
    ("route_allow any 10.0.0.0/8;", None),
    ("route_allow 10.0.0.1/8;", None),
    ("route_allow everything;", None),
    ("route_allow 10.0.0.0/33;", None),
])
def test_the_directive_is_checked(moongate, line, expected):
    gate = moongate(line, "script a.lua;", {"a.lua": "return {}"}, start=False)
    done = gate.run("-t")
    assert (done.returncode == 0) == (expected is not None), done.stderr
    if expected:
        assert expected in gate.run("-T").stdout

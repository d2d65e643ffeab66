# SPDX-License-Identifier: BSD-2-Clause
"""Servers that cannot be reached, in a network of the test's own: another one is connected to beside them (RFC 8305),
the first connection wins, and what never answers costs no more than connect_stagger, or connect_timeout in all."""
import concurrent.futures
import os
import time

import pytest

from conftest import eventually
from namespace import namespace  # noqa: F401: a fixture
from nameserver import nameserver  # noqa: F401: a fixture

# Of connections that fall to another address: within so many seconds. What a crowded machine adds, it does not add to
# all of a few.
FALL = 0.3
NEVER = "eject off;"


@pytest.fixture
def network(namespace, nameserver, origin):  # noqa: F811
    """network(name="address ..."): a nameserver; .origin answers at 127.0.0.1."""
    def make(**records):
        names = nameserver(**{name + ".test": addresses for name, addresses in records.items()})
        return names
    make.origin = origin
    make.namespace = namespace
    return make


def start(moongate, names, lines, more="", **how):
    return moongate(names.directive + "upstream app {\n%s\nkeepalive 0; %s\n}\n" % (lines, more),
                    "route / app;", **how)


def timed(gate, **how):
    begin = time.monotonic()
    return gate.get(**how).status, time.monotonic() - begin


def median(times):
    return sorted(times)[len(times) // 2]


def fell_in_time(times):
    return 0.248 <= min(times) < FALL and median(times) < 2 * FALL  # timers count whole milliseconds


def at_rest(gate):
    servers = [s for u in gate.show("upstreams")["upstreams"] for s in u["servers"]]
    return servers and all(s["active"] == 0 for s in servers)


@pytest.mark.parametrize("addresses", ["2001:db8:66::66 127.0.0.1", "2001:db8:66::66 2001:db8:66::67 2001:db8:66::68 127.0.0.1"])
def test_ipv4_takes_over_where_ipv6_is_broken(moongate, network, addresses):
    names = network(dual=addresses)
    gate = start(moongate, names, "server dual.test:%d;" % network.origin.port, NEVER)
    eventually(lambda: len(gate.show("upstreams")["upstreams"][0]["servers"]) == len(addresses.split()))
    results = [timed(gate) for _ in range(12)]
    assert {status for status, _ in results} == {200}
    fallen = [seconds for _, seconds in results if seconds > 0.2]
    assert len(fallen) >= 6 and fell_in_time(fallen), results
    assert gate.stats()["upstream_raced"] >= len(fallen) and gate.stats()["upstream_retries"] == 0
    assert eventually(lambda: at_rest(gate))


def test_a_family_that_is_broken_is_left_alone_after_a_while(moongate, network):
    names = network(dual="2001:db8:66::66 127.0.0.1")
    gate = start(moongate, names, "server dual.test:%d;" % network.origin.port, "eject connect=2 time=30s most=30s;")
    eventually(lambda: len(gate.show("upstreams")["upstreams"][0]["servers"]) == 2)
    results = [timed(gate) for _ in range(20)]
    assert {status for status, _ in results} == {200}
    assert sum(seconds > 0.2 for _, seconds in results) == 2, results
    gate.wait_log(r'server "\[2001:db8:66::66\]:\d+" is ejected for 30000 ms: 2 connections that could not be made in a row')


def test_a_name_that_a_script_gives_is_asked_by_ipv4_too(moongate, network):
    names = network(dual="2001:db8:66::66 2001:db8:66::67 127.0.0.1")
    gate = moongate(names.directive + "route_allow any;\nupstream none { server 127.0.0.1:1; }",
                    "script a.lua; route / none;", {"a.lua": 'return { route = function() return "dual.test:%d" end }' % network.origin.port})
    status, seconds = timed(gate)
    assert status == 200 and 0.2 < seconds < 2
    assert gate.stats()["upstream_raced"] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_server_line_takes_over(moongate, network, method):
    names = network()
    gate = start(moongate, names, "server 10.66.0.66:80; server %s;" % network.origin.address, NEVER)
    results = [timed(gate, method=method) for _ in range(8)]
    assert {status for status, _ in results} == {200} and len(network.origin.requests) == 8
    fallen = [seconds for _, seconds in results if seconds > 0.2]
    assert len(fallen) == 4 and fell_in_time(fallen), results


def test_where_all_are_dead_the_answer_comes_in_time(moongate, network):
    names = network(dual="2001:db8:66::66 10.66.0.66")
    gate = start(moongate, names, "server dual.test:80;", NEVER + "connect_timeout 600ms; tries 1;")
    status, seconds = timed(gate)
    assert status == 504 and 0.55 < seconds < 1
    assert gate.stats()["upstream_raced"] == 1
    gate.wait_log("connecting to .* failed: Connection timed out")
    assert eventually(lambda: at_rest(gate))


def test_where_all_refuse_the_answer_is_there_at_once(moongate, network):
    names = network(dual="::1 127.0.0.1")
    gate = start(moongate, names, "server dual.test:1;", NEVER)
    status, seconds = timed(gate)
    assert status == 502 and seconds < 0.2


def test_one_that_refuses_makes_room_for_the_next_at_once(moongate, network):
    names = network()
    gate = start(moongate, names, "server 10.66.0.66:80; server 127.0.0.1:1; server %s;" % network.origin.address,
                 NEVER + "connect_stagger 400ms; balance round_robin;")
    status, seconds = timed(gate)
    assert status == 200 and 0.39 < seconds < 0.7
    assert gate.stats()["upstream_raced"] == 2 and gate.stats()["upstream_retries"] == 0


def test_without_a_stagger_one_is_asked_at_a_time(moongate, network):
    names = network()
    gate = start(moongate, names, "server 10.66.0.66:80; server %s;" % network.origin.address,
                 NEVER + "connect_stagger 0; connect_timeout 700ms;")
    status, seconds = timed(gate)
    assert status == 200 and 0.65 < seconds < 1.2
    assert gate.stats()["upstream_raced"] == 0 and gate.stats()["upstream_retries"] == 1


def test_a_client_that_goes_takes_all_its_connections_with_it(moongate, network):
    names = network(dual="2001:db8:66::66 10.66.0.66")
    gate = start(moongate, names, "server dual.test:80;", NEVER + "connect_stagger 50ms;")
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        servers = lambda: gate.show("upstreams")["upstreams"][0]["servers"]
        assert eventually(lambda: [s["active"] for s in servers()] == [1, 1])
    assert eventually(lambda: at_rest(gate))
    assert gate.stats()["upstream_connect_errors"] == 0


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_many_at_once(moongate, network, protocol):
    """With HTTP/2 they wait for the same connections."""
    names = network(dual="2001:db8:66::66 127.0.0.1")
    behind = moongate("", "script a.lua;", {"a.lua": "return { request = function(req) req:respond(200) end }"})
    gate = start(moongate, names, "server dual.test:%d;" % behind.port, NEVER + "protocol %s;" % protocol)
    eventually(lambda: len(gate.show("upstreams")["upstreams"][0]["servers"]) == 2)
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        results = list(pool.map(lambda _: timed(gate), range(90)))
    assert {status for status, _ in results} == {200}
    assert median([seconds for _, seconds in results]) < 1
    assert eventually(lambda: at_rest(gate))
    assert gate.stats()["upstream_raced"] >= 1


def test_max_active_holds_for_those_beside(moongate, network):
    names = network()
    gate = start(moongate, names, "server 10.66.0.66:80; server 10.66.0.66:81;",
                 NEVER + "max_active 1; queue 0; connect_timeout 1s; tries 1;")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: timed(gate)[0], range(4)))
    assert sorted(results) == [503, 503, 504, 504]
    assert gate.stats()["upstream_raced"] == 0


DIAL = """
local gate = require "moongate"
return { request = function(req)
  local socket, why = gate.tcp.connect(req.headers["x-to"], { timeout = tonumber(req.headers["x-timeout"]) })
  if not socket then return req:respond(200, nil, why) end
  socket:send("GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
  local line = socket:receive_line()
  req:respond(200, nil, line)
end }
"""


def test_a_scripts_socket_takes_the_address_that_answers(moongate, network):
    names = network(dual="2001:db8:66::66 2001:db8:66::67 127.0.0.1", dead="2001:db8:66::66 10.66.0.66",
                    none="::1 127.0.0.1")
    gate = moongate(names.directive + "route_allow any;\n", "script a.lua;", {"a.lua": DIAL})

    def dial(to, timeout=5):
        begin = time.monotonic()
        text = gate.get(headers={"X-To": to, "X-Timeout": str(timeout)}).text
        return text, time.monotonic() - begin

    fds = lambda: len(os.listdir("/proc/%d/fd" % gate.workers()[0]))
    text, seconds = dial("dual.test:%d" % network.origin.port)
    eventually(lambda: gate.stats()["connections_active"] == 0)
    before = fds()
    assert text.startswith("HTTP/1.1 200") and 0.2 < seconds < 2
    text, seconds = dial("none.test:1")
    assert text == "refused" and seconds < 0.2
    text, seconds = dial("dead.test:80", 0.7)
    assert text == "timeout" and 0.65 < seconds < 2
    # What was begun beside it is gone as well.
    assert eventually(lambda: fds() <= before)

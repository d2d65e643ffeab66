# SPDX-License-Identifier: BSD-2-Clause
"""Upstreams of names: the servers follow what the DNS says, with records that change, servers of names that die, go
lame, are slow or truncate, and starts without any. dns_peer.py answers, or dnsmasq where nothing has to go wrong."""
import collections
import contextlib
import re
import time

import pytest

from conftest import Origin, eventually, free_port
from dns_peer import dns_peer  # noqa: F401: a fixture
from nameserver import nameserver  # noqa: F401: a fixture

QUICK = "resolver_timeout 400ms; resolver_tries 1; resolver_negative_ttl 1s;\n"
NAME = "_http._tcp.app.test"


def make(moongate, names, server, top="", upstream="", **how):
    return moongate(f"{names.directive}{top}upstream app {{ server {server}; {upstream}{';' * bool(upstream)} }}", "route / app;", **how)


def answers(gate, times=20):
    """How many requests each server has answered, by the text of its answer."""
    seen = collections.Counter()
    for _ in range(times):
        answer = gate.get("/")
        seen[answer.text if answer.status == 200 else answer.status] += 1
    return seen


@pytest.fixture
def homes():
    """homes("127.0.0.2", ...): servers on these addresses with one port, which answer with their address."""
    made = []

    def make(*addresses, port=0):
        for address in addresses:
            one = Origin(at=(address, port))
            one.reply = f"HTTP/1.1 200 OK\r\nContent-Length: {len(address)}\r\n\r\n{address}".encode()
            made.append(one)
            port = port or one.port
        return port
    yield make
    for one in made:
        one.close()


def test_all_addresses_of_a_name_are_servers(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.2 127.0.0.3"})
    gate = make(moongate, names, f"app.test:{homes('127.0.0.2', '127.0.0.3')}")
    assert answers(gate) == {"127.0.0.2": 10, "127.0.0.3": 10}
    assert names.asked("app.test") == names.asked("app.test", "AAAA") == 1


def test_traffic_follows_the_records(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 1 127.0.0.2"]})
    port = homes("127.0.0.2", "127.0.0.3", "127.0.0.4")
    gate = make(moongate, peer, f"app.test:{port}", level="info")
    assert set(answers(gate)) == {"127.0.0.2"}
    for records in (["A 1 127.0.0.3"], ["A 1 127.0.0.4", "A 1 127.0.0.2"], ["CNAME 1 other.test"]):
        peer.records["app.test"] = records
        expected = {text.split()[2] for text in records if text[0] == "A"} or {"127.0.0.4"}
        peer.records["other.test"] = ["A 60 127.0.0.4"]
        begin = time.monotonic()
        while set(seen := answers(gate, 4)) != expected:  # within the TTL and a second
            assert set(seen) <= {"127.0.0.2", "127.0.0.3", "127.0.0.4"} and time.monotonic() - begin < 2, seen
        assert set(answers(gate)) == expected
    gate.wait_log(r"info.*server \"app.test:\d+\" no longer has the address 127.0.0.3")


def follows(gate, tell, expected, seconds, path="/"):
    """How long after tell() all requests go where `expected` says; fails when that is not within so many seconds."""
    tell()
    begin = last = time.monotonic()
    with contextlib.closing(gate.client()) as client:
        while (now := time.monotonic()) < begin + seconds + 0.3:
            answer = client.ask(path)
            assert answer.status == 200
            if answer.text not in expected:
                last = now
            time.sleep(0.005)
    assert last - begin < seconds, last - begin
    return last - begin


@pytest.mark.long
@pytest.mark.parametrize("ttl", [1, 2])
def test_traffic_follows_a_real_server_within_the_time_to_live_and_a_second(moongate, nameserver, homes, ttl):
    names = nameserver(ttl=ttl, **{"app.test": "127.0.0.2"})
    gate = make(moongate, names, f"app.test:{homes('127.0.0.2', '127.0.0.3')}", workers=2)
    assert set(answers(gate)) == {"127.0.0.2"}
    for address in ("127.0.0.3", "127.0.0.2", "127.0.0.3"):
        follows(gate, lambda: names.tell(**{"app.test": address}), {address}, ttl + 1)
    # A reload in the middle of its time does not begin it anew.
    names.tell(**{"app.test": "127.0.0.2"})
    gate.reload()
    follows(gate, lambda: None, {"127.0.0.2"}, ttl + 1)


@pytest.mark.long
def test_so_does_that_of_services_and_of_names_that_scripts_give(moongate, dns_peer, homes):
    port = homes("127.0.0.2", "127.0.0.3")
    peer = dns_peer({NAME: [f"SRV 1 1 1 {port} a.test"], "a.test": ["A 1 127.0.0.2"], "b.test": ["A 1 127.0.0.3"]})
    peer.delay = 0.2  # twice, for a service
    script = {"a.lua": f'return {{ route = function(req) if req.path == "/s" then return "a.test:{port}" end end }}'}
    gate = moongate(f"{peer.directive}route_allow any; upstream app {{ server {NAME} service; }}", "script a.lua; route / app;", script)
    assert set(answers(gate)) == {"127.0.0.2"} and gate.get("/s").text == "127.0.0.2"

    def another_target():
        peer.records[NAME] = [f"SRV 1 1 1 {port} b.test"]

    def another_address():
        peer.records["b.test"] = ["A 1 127.0.0.2"]

    def an_address_of_the_name():
        peer.records["a.test"] = ["A 1 127.0.0.3"]
    follows(gate, another_target, {"127.0.0.3"}, 2)
    follows(gate, another_address, {"127.0.0.2"}, 2)
    follows(gate, an_address_of_the_name, {"127.0.0.3"}, 2, path="/s")


def test_a_line_that_does_not_exist_is_asked_for_again_after_its_negative_time(moongate, dns_peer, homes):
    peer = dns_peer()
    gate = make(moongate, peer, f"app.test:{homes('127.0.0.2')}", QUICK, workers=1)
    eventually(lambda: gate.get("/").status == 503, every=0.05)
    before = peer.asked("app.test")
    begin = time.monotonic()
    peer.records["app.test"] = ["A 60 127.0.0.2"]
    eventually(lambda: gate.get("/").status == 200, every=0.02)
    assert time.monotonic() - begin < 2 and peer.asked("app.test") == before + 1


@pytest.mark.long
@pytest.mark.parametrize("upstream", ["", "health tcp every=200ms", "keepalive 8 warm=2"])
def test_no_request_fails_while_addresses_come_and_go_and_one_works(moongate, dns_peer, homes, upstream):
    port = homes("127.0.0.2", "127.0.0.3")
    peer = dns_peer({"app.test": ["A 1 127.0.0.2", "A 1 127.0.0.8"]})
    gate = make(moongate, peer, f"app.test:{port}", upstream=upstream)
    changes = (["A 1 127.0.0.8", "A 1 127.0.0.3"], ["A 1 127.0.0.9", "A 1 127.0.0.2", "A 1 127.0.0.3"], ["A 1 127.0.0.2"])
    for records in changes:
        asked = peer.asked("app.test")
        peer.records["app.test"] = records
        while peer.asked("app.test") < asked + 2:
            assert set(answers(gate, 10)) <= {"127.0.0.2", "127.0.0.3"}


def test_what_runs_on_an_address_that_is_gone_ends_well(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 1 127.0.0.2"]})
    port = homes("127.0.0.3")
    slow = Origin(at=("127.0.0.2", port))
    slow.reply = lambda request: (piece for piece in [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"o", *wait(), b"k"])

    def wait():
        eventually(lambda: peer.asked("app.test") >= 3)
        return []
    gate = make(moongate, peer, f"app.test:{port}")
    with contextlib.closing(slow), gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: slow.requests)
        peer.records["app.test"] = ["A 1 127.0.0.3"]
        eventually(lambda: answers(gate, 1) == {"127.0.0.3": 1}, every=0.1)
        data = b""
        while chunk := s.recv(65536):
            data += chunk
        assert data.endswith(b"ok")
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_a_start_without_any_dns_succeeds_and_heals(moongate, dns_peer, homes):
    port = homes("127.0.0.2")
    peer = dns_peer({"app.test": ["A 1 127.0.0.2"]})
    peer.stop()
    gate = make(moongate, peer, f"app.test:{port}", QUICK, workers=2)
    assert gate.get("/").status == 503
    gate.wait_log(r'warn.*upstream "app": server "app.test:\d+" is down: it is not resolved')
    eventually(lambda: gate.get("/").status == 503 and peer.queries == [])
    peer.start()
    eventually(lambda: answers(gate, 8) == {"127.0.0.2": 8}, every=0.1)
    gate.wait_log(r'notice.*upstream "app": server "app.test:\d+" is resolved again')
    assert len(re.findall("warn .*is down: it is not resolved", gate.log())) == 1  # not one for each worker, or each attempt


def test_a_configuration_with_names_is_checked_without_asking(moongate, dns_peer):
    peer = dns_peer()
    gate = make(moongate, peer, "app.test:80", upstream=f"server {NAME} service; server other.test:81 weight=3", start=False)
    assert gate.run("-t").returncode == 0 and not peer.queries
    shown = gate.run("-T").stdout
    assert "server app.test:80;" in shown and f"server {NAME} service;" in shown and "server other.test:81 weight=3;" in shown


@pytest.mark.parametrize("line, expected", [
    ("app.test", "bad address"), ("app.test:0", "bad address"), ("app.test:70000", "bad address"), ("a..b:80", "bad address"),
    ("1.2.3:80", "bad address"), ("app.test:80 weight=0", "weight"), ("127.0.0.1 service", "bad name"),
    (f"{NAME} service weight=2", "unexpected"), (f"{NAME} services", "bad address"), (f"{NAME}:80 service", "bad name")])
def test_lines_are_checked(moongate, dns_peer, line, expected):
    done = make(moongate, dns_peer(), line, start=False).run("-t")
    assert done.returncode == 1 and expected in done.stderr, done.stderr


def test_requests_wait_for_the_first_answer(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 60 127.0.0.2"]})
    peer.delay = 0.7
    gate = make(moongate, peer, f"app.test:{homes('127.0.0.2')}")
    begin = time.monotonic()
    assert gate.get("/").text == "127.0.0.2" and gate.stats()["upstream_waited"] == 1
    assert time.monotonic() - begin < 4


def test_and_no_longer_than_queue_timeout(moongate, dns_peer):
    peer = dns_peer()
    peer.silent = True
    gate = make(moongate, peer, "app.test:80", upstream="queue_timeout 300ms")
    begin = time.monotonic()
    answer = gate.get("/")
    assert answer.status == 503 and 0.2 < time.monotonic() - begin < 3
    assert gate.stats()["upstream_queue_timeouts"] == 1


def test_a_line_that_is_not_resolved_leaves_the_others_in_peace(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 60 127.0.0.2"]})
    peer.twist = lambda answer, query: [] if b"gone" in query else [answer]
    port = homes("127.0.0.2", "127.0.0.3")
    gate = make(moongate, peer, f"app.test:{port}", upstream=f"server gone.test:80; server 127.0.0.3:{port}")
    eventually(lambda: answers(gate, 4) == {"127.0.0.2": 2, "127.0.0.3": 2}, every=0.1)


@pytest.mark.long
@pytest.mark.parametrize("how", ["dead", "lame", "refusing", "silent"])
def test_the_last_addresses_stay_in_use_while_the_dns_fails(moongate, dns_peer, homes, how):
    peer = dns_peer({"app.test": ["A 1 127.0.0.2"]})
    port = homes("127.0.0.2", "127.0.0.3")
    gate = make(moongate, peer, f"app.test:{port}", QUICK + "resolver_stale 1s;\n")
    assert answers(gate, 4) == {"127.0.0.2": 4}
    if how == "dead":
        peer.stop()
    else:
        peer.rcode, peer.silent = {"lame": 2, "refusing": 5}.get(how, 0), how == "silent"
    gate.wait_log(r'warn.*server "app.test:\d+" is not resolved: .*; its last addresses stay in use')
    end = time.monotonic() + 3  # also beyond resolver_stale, which is the cache's
    while time.monotonic() < end:
        assert answers(gate, 4) == {"127.0.0.2": 4}
    gate.reload()
    assert answers(gate, 4) == {"127.0.0.2": 4}
    peer.records["app.test"] = ["A 1 127.0.0.3"]
    peer.rcode, peer.silent = 0, False
    if how == "dead":
        peer.start()
    eventually(lambda: answers(gate, 4) == {"127.0.0.3": 4}, every=0.1)
    gate.wait_log(r'notice.*server "app.test:\d+" is resolved again')
    assert len(re.findall("warn .*stay in use", gate.log())) == 2  # each generation says so once


def test_a_name_that_is_gone_is_an_answer(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 1 127.0.0.2"]})
    gate = make(moongate, peer, f"app.test:{homes('127.0.0.2')}", QUICK)
    assert answers(gate, 4) == {"127.0.0.2": 4}
    del peer.records["app.test"]
    eventually(lambda: gate.get("/").status == 503, every=0.1)
    gate.wait_log(r'warn.*server "app.test:\d+" is down: it is not resolved: no such name')
    peer.records["app.test"] = ["A 1 127.0.0.2"]
    eventually(lambda: gate.get("/").status == 200, every=0.1)


def test_no_request_fails_while_one_address_works(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 1 127.0.0.2", "A 1 127.0.0.8", "A 1 127.0.0.9"]})
    gate = make(moongate, peer, f"app.test:{homes('127.0.0.2')}")
    assert answers(gate, 60) == {"127.0.0.2": 60}


def test_the_next_resolver_is_asked_when_one_is_lame_dead_or_slow(moongate, dns_peer, homes):
    port = homes("127.0.0.2", "127.0.0.3")
    lame, dead, slow, good = (dns_peer({"app.test": ["A 1 127.0.0.2"]}) for _ in range(4))
    lame.rcode, slow.silent = 5, True
    dead.stop()
    gate = moongate(f"resolver {lame.address} {dead.address} {slow.address} {good.address}; resolver_timeout 2s;\n"
                    f"upstream app {{ server app.test:{port}; }}", "route / app;")
    assert gate.get("/").text == "127.0.0.2" and lame.queries and slow.queries and good.queries
    good.records["app.test"] = ["A 1 127.0.0.3"]
    begin = time.monotonic()
    eventually(lambda: answers(gate, 1) == {"127.0.0.3": 1}, every=0.1)
    assert time.monotonic() - begin < 4


def test_an_answer_that_is_too_long_comes_by_tcp(moongate, nameserver, homes):
    addresses = [f"127.0.1.{n}" for n in range(1, 61)]
    port = homes(*addresses)
    gate = make(moongate, nameserver(**{"app.test": " ".join(addresses)}), f"app.test:{port}")
    assert answers(gate, 120) == {address: 2 for address in addresses}


def test_a_reload_keeps_what_is_known_and_a_new_line_is_asked_for(moongate, dns_peer, homes):
    peer = dns_peer({"app.test": ["A 60 127.0.0.2"], "b.test": ["A 60 127.0.0.3"]})
    port = homes("127.0.0.2", "127.0.0.3")
    gate = make(moongate, peer, f"app.test:{port}")
    assert answers(gate, 2) == {"127.0.0.2": 2}
    gate.reload()
    assert answers(gate, 2) == {"127.0.0.2": 2} and peer.asked("app.test") == 1
    peer.delay = 0.5
    gate.configure(f"{peer.directive}upstream app {{ server b.test:{port}; }}", "route / app;")
    gate.reload()
    assert answers(gate, 2) == {"127.0.0.3": 2}


def test_services(moongate, dns_peer, homes):
    port = homes("127.0.0.2", "127.0.0.3", "127.0.0.4")
    other = homes("127.0.0.5")
    peer = dns_peer({NAME: [f"SRV 1 1 30 {port} a.test", f"SRV 1 1 10 {port} b.test", f"SRV 1 5 0 {port} c.test"],
                     "a.test": ["A 60 127.0.0.2"], "b.test": ["A 60 127.0.0.3"], "c.test": ["A 60 127.0.0.4"]})
    gate = make(moongate, peer, NAME + " service", QUICK)
    assert answers(gate, 40) == {"127.0.0.2": 30, "127.0.0.3": 10}
    # The weights of records that stay are followed, too; and a port that changes is another server.
    peer.records[NAME] = [f"SRV 1 1 1 {port} a.test", f"SRV 1 1 1 {port} b.test", f"SRV 1 5 0 {other} d.test"]
    peer.records["d.test"] = ["A 60 127.0.0.5"]
    eventually(lambda: answers(gate, 40) == {"127.0.0.2": 20, "127.0.0.3": 20}, every=0.1)
    peer.records[NAME] = [f"SRV 1 5 0 {other} d.test"]
    eventually(lambda: answers(gate, 4) == {"127.0.0.5": 4}, every=0.1)
    peer.records[NAME] = ["SRV 1 0 0 0 ."]
    eventually(lambda: gate.get("/").status == 503, every=0.1)
    gate.wait_log(r'warn.*server "_http._tcp.app.test" is down: it is not resolved: the name has no services')


def test_the_next_priority_serves_while_the_first_cannot_be_connected_to(moongate, dns_peer, homes):
    port = homes("127.0.0.4")
    peer = dns_peer({NAME: [f"SRV 60 1 1 {port} a.test", f"SRV 60 2 0 {port} c.test"],
                     "a.test": ["A 60 127.0.0.2"], "c.test": ["A 60 127.0.0.4"]})
    gate = make(moongate, peer, NAME + " service")
    assert answers(gate, 20) == {"127.0.0.4": 20}
    homes("127.0.0.2", port=port)
    eventually(lambda: answers(gate, 5) == {"127.0.0.2": 5}, seconds=20, every=0.2)


def test_a_target_that_is_not_resolved_keeps_its_servers(moongate, dns_peer, homes):
    port = homes("127.0.0.2", "127.0.0.3")
    peer = dns_peer({NAME: [f"SRV 1 1 1 {port} a.test", f"SRV 1 1 1 {port} b.test"],
                     "a.test": ["A 1 127.0.0.2"], "b.test": ["A 1 127.0.0.3"]})
    gate = make(moongate, peer, NAME + " service", QUICK + "resolver_stale 0;\n")
    assert answers(gate, 4) == {"127.0.0.2": 2, "127.0.0.3": 2}
    peer.twist = lambda answer, query: [] if query[12:15] == b"\x01b\x04" else [answer]
    gate.wait_log("its last addresses stay in use", seconds=10)
    assert answers(gate, 4) == {"127.0.0.2": 2, "127.0.0.3": 2}


def test_a_stop_while_names_are_asked_for(moongate, dns_peer):
    peer = dns_peer()
    peer.silent = True
    gate = make(moongate, peer, "app.test:80", upstream=f"server {NAME} service")
    eventually(lambda: len(peer.queries) >= 3)
    gate.reload()
    gate.stop()

# SPDX-License-Identifier: BSD-2-Clause
"""Services: what gate.resolve tells of SRV records (RFC 2782), from dnsmasq and from a server that does what it should
not (dns_peer.py)."""
import struct
import time

import pytest

from conftest import eventually
from dns_peer import dns_peer, message, packed, record  # noqa: F401: a fixture
from nameserver import nameserver  # noqa: F401: a fixture

# "PRIORITY/WEIGHT TARGET:PORT=ADDRESS,...; ... TTL [stale]", or "nil WHY".
ASK = """
local gate = require "moongate"
return { request = function(req)
  local found, why = gate.resolve(req.path:sub(2), { type = "SRV", allowed = req.headers["x-allowed"] and true })
  if not found then return req:respond(200, nil, "nil " .. why) end
  local list = {}
  for _, one in ipairs(found) do
    table.sort(one)
    list[#list + 1] = ("%d/%d %s:%d=%s"):format(one.priority, one.weight, one.target, one.port, table.concat(one, ","))
  end
  return req:respond(200, nil, table.concat(list, "; ") .. " " .. found.ttl .. (found.stale and " stale" or ""))
end }
"""
NAME = "_http._tcp.app.test"


def asker(moongate, names, top="", **how):
    return moongate(names.directive + top, "script a.lua;", {"a.lua": ASK}, **how)


def ask(gate, name=NAME, **headers):
    return gate.get("/" + name, {"X-" + key.title(): str(value) for key, value in headers.items()}).text


def test_of_dnsmasq(moongate, nameserver):
    names = nameserver(ttl=77, services=[f"{NAME},b.test,9001,2,5", f"{NAME},a.test,9000,1,10", f"{NAME},a.test,9002,1,0"],
                       **{"a.test": "192.0.2.1 2001:db8::1", "b.test": "192.0.2.2"})
    gate = asker(moongate, names)
    expected = ("1/10 a.test:9000=192.0.2.1,2001:db8::1; 1/0 a.test:9002=192.0.2.1,2001:db8::1; "
                "2/5 b.test:9001=192.0.2.2 77")
    assert ask(gate) == expected and ask(gate, NAME.upper()).startswith(expected[:-2])
    assert names.asked(NAME, "SRV") == 1 and names.asked("a.test") == 1
    assert ask(gate, "_none._tcp.test") == "nil no such name"
    assert ask(gate, "a.test") == "nil the name has no services"


def test_what_is_no_name_is_not_asked_for(moongate, dns_peer):
    peer = dns_peer()
    gate = asker(moongate, peer)
    for bad in ("192.0.2.1", "2001:db8::1", "_http._tcp..test", "x" * 64 + ".test"):
        assert ask(gate, bad) == "nil this is no host name"
    assert not peer.queries


def test_only_what_route_allow_lets_in(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 in.test", "SRV 60 1 1 80 out.test"], "in.test": ["A 60 10.0.0.1", "A 60 8.8.8.8"],
                     "out.test": ["A 60 192.168.0.1"]})
    gate = asker(moongate, peer)
    assert ask(gate, allowed=1) == "0/1 in.test:80=8.8.8.8; 1/1 out.test:80= 60"


def test_the_shortest_time_of_all_that_leads_there_counts(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 50 0 1 80 a.test"], "a.test": ["A 40 192.0.2.1"],
                     "_x._tcp.test": ["CNAME 30 " + NAME], "_y._tcp.test": ["SRV 20 0 1 80 a.test"]})
    gate = asker(moongate, peer)
    assert ask(gate) == "0/1 a.test:80=192.0.2.1 40"
    assert ask(gate, "_x._tcp.test") == "0/1 a.test:80=192.0.2.1 30"
    assert ask(gate, "_y._tcp.test") == "0/1 a.test:80=192.0.2.1 20"


def test_the_root_says_that_there_is_no_service(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 0 0 ."], "_odd._tcp.test": ["SRV 60 0 0 80 .", "SRV 60 1 1 80 a.test"],
                     "a.test": ["A 60 192.0.2.1"]})
    gate = asker(moongate, peer, "resolver_negative_ttl 60s;")
    assert ask(gate) == ask(gate) == "nil the name has no services" and peer.asked(NAME, "SRV") == 1
    assert ask(gate, "_odd._tcp.test") == "1/1 a.test:80=192.0.2.1 60"
    assert gate.stats()["dns_not_found"] == 1 and gate.stats()["dns_failures"] == 0


def test_a_target_that_leads_nowhere_does_not_spoil_the_others(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 a.test", "SRV 60 0 1 80 gone.test"], "a.test": ["A 60 192.0.2.1"]})
    gate = asker(moongate, peer, "resolver_negative_ttl 7s;")
    # All of it holds until it makes sense to ask for the one that failed again.
    assert ask(gate) == "0/1 a.test:80=192.0.2.1; 0/1 gone.test:80= 7"


def test_records_are_followed_when_their_time_is_over(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 1 0 1 80 a.test"], "a.test": ["A 60 192.0.2.1"], "b.test": ["A 60 192.0.2.2"]})
    gate = asker(moongate, peer)
    assert ask(gate) == "0/1 a.test:80=192.0.2.1 1"
    peer.records[NAME] = ["SRV 9 0 1 81 b.test"]
    eventually(lambda: ask(gate) == "0/1 b.test:81=192.0.2.2 9", every=0.1)
    assert peer.asked("a.test") == 1


def test_records_are_used_beyond_their_time_while_the_servers_fail(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 1 0 1 80 a.test"], "a.test": ["A 1 192.0.2.1"]})
    gate = asker(moongate, peer, "resolver_timeout 400ms; resolver_tries 1; resolver_negative_ttl 200ms;")
    assert ask(gate) == "0/1 a.test:80=192.0.2.1 1"
    peer.rcode = 2
    eventually(lambda: ask(gate) == "0/1 a.test:80=192.0.2.1 0 stale", every=0.1)
    peer.rcode = 0
    peer.records[NAME] = ["SRV 1 0 1 82 a.test"]
    eventually(lambda: ask(gate) == "0/1 a.test:82=192.0.2.1 1", every=0.1)
    del peer.records[NAME]
    eventually(lambda: ask(gate) == "nil no such name", every=0.1)


def test_of_many_records_the_same_ones_are_taken_whatever_their_order(moongate, dns_peer):
    peer = dns_peer({"a.test": ["A 60 192.0.2.1"]})
    everything = [f"SRV 1 {n // 25} 1 {1000 + n} a.test" for n in range(200)]
    expected = "; ".join(f"{n // 25}/1 a.test:{1000 + n}=192.0.2.1" for n in range(32)) + " 1"
    gate = asker(moongate, peer)
    for order in (everything, everything[::-1], everything[100:] + everything[:100] + everything[:50]):
        peer.records[NAME] = order
        eventually(lambda: ask(gate) == expected, every=0.1)
        before = peer.asked(NAME, "SRV")
        eventually(lambda: ask(gate) == expected and peer.asked(NAME, "SRV") > before, every=0.1)


def test_a_long_answer_comes_by_tcp(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 a.test"], "a.test": ["A 60 192.0.2.1"]})
    peer.truncate = True
    assert ask(asker(moongate, peer)) == "0/1 a.test:80=192.0.2.1 60"
    assert peer.by_tcp >= 2


@pytest.mark.parametrize("how", ["another name", "an alias of itself", "a chain without end", "a pointer to itself",
                                 "cut short", "data cut short", "nothing", "more records than there are",
                                 "a target that is no name", "a port of 0", "another class"])
def test_lies(moongate, dns_peer, how):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 a.test"], "a.test": ["A 60 192.0.2.1"]})
    chain = [record(f"n{n}.test" if n else NAME, f"CNAME 60 n{n + 1}.test") for n in range(40)]
    good = record(NAME, "SRV 60 0 1 80 a.test")
    data = struct.pack(">HHH", 0, 1, 80)

    def twist(answer, query):
        if query.find(b"\x05_http") < 0:
            return [answer]
        return [{
            "another name": lambda: message(query, [record("_http._tcp.other.test", "SRV 60 0 1 80 a.test")]),
            "an alias of itself": lambda: message(query, [record(NAME, "CNAME 60 " + NAME)]),
            "a chain without end": lambda: message(query, chain + [record("n40.test", "SRV 60 0 1 80 a.test")]),
            "a pointer to itself": lambda: message(query, [
                packed(NAME) + struct.pack(">HHIH", 33, 1, 60, 8) + data + b"\xc0" + bytes([len(answer) - len(good) + 10
                                                                                   + len(packed(NAME)) + 6])]),
            "cut short": lambda: answer[:-3],
            "data cut short": lambda: message(query, [packed(NAME) + struct.pack(">HHIH", 33, 1, 60, 5) + data[:5]]),
            "nothing": lambda: message(query),
            "more records than there are": lambda: answer[:6] + b"\xff\xff" + answer[8:],
            "a target that is no name": lambda: message(query, [
                packed(NAME) + struct.pack(">HHIH", 33, 1, 60, 6 + 5) + data + b"\x03a b\0"]),
            "a port of 0": lambda: message(query, [record(NAME, "SRV 60 0 1 0 a.test")]),
            "another class": lambda: message(query, [good.replace(b"\0\x21\0\x01", b"\0\x21\0\x03")]),
        }[how]()]

    peer.twist = twist
    gate = asker(moongate, peer, "resolver_timeout 600ms; resolver_tries 1; resolver_negative_ttl 1s;")
    nonsense = how in ("an alias of itself", "a chain without end", "a pointer to itself", "cut short", "data cut short",
                       "more records than there are")
    assert ask(gate) == "nil " + ("a resolver sent nonsense" if nonsense else "the name has no services")
    peer.twist = None
    eventually(lambda: ask(gate) == "0/1 a.test:80=192.0.2.1 60", every=0.1)


def test_a_slow_target_is_waited_for_as_long_as_names_are(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 a.test", "SRV 60 0 1 80 b.test"], "a.test": ["A 60 192.0.2.1"]})
    peer.twist = lambda answer, query: [] if b"\x01b\x04test" in query[:20] else [answer]
    gate = asker(moongate, peer, "resolver_timeout 700ms; resolver_tries 1;")
    begin = time.monotonic()
    assert ask(gate).startswith("0/1 a.test:80=192.0.2.1; 0/1 b.test:80= ")
    assert 0.4 < time.monotonic() - begin < 3


def test_whoever_goes_while_it_is_asked_for_leaves_nothing_behind(moongate, dns_peer):
    peer = dns_peer({NAME: ["SRV 60 0 1 80 a.test"], "a.test": ["A 60 192.0.2.1"]})
    peer.delay = 0.5
    gate = asker(moongate, peer)
    for name, kind, asked in ((NAME, "SRV", NAME), (NAME, "A", "a.test")):  # while either is being asked for
        with gate.connect() as s:
            s.sendall(f"GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            eventually(lambda: peer.asked(asked, kind))
        eventually(lambda: gate.stats()["requests_active"] == 0 and gate.stats()["dns_lookups_active"] == 0)
    assert ask(gate).startswith("0/1 a.test:80=192.0.2.1 ")

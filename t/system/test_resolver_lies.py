# SPDX-License-Identifier: BSD-2-Clause
"""DNS servers that lie, for addresses (those of services: test_services.py): forged messages, aliases in circles, more
addresses than there is room for; and times between their floor and ceiling."""
import struct

import pytest

from conftest import eventually
from dns_peer import dns_peer, message, packed, question, record  # noqa: F401: a fixture
from test_resolver import ASK, resolve

QUICK = "resolver_timeout 800ms; resolver_tries 1; resolver_negative_ttl 300ms;\n"


def asker(moongate, peer, top=QUICK):
    return moongate(peer.directive + top, "script a.lua;", {"a.lua": ASK})


@pytest.mark.parametrize("forged", ["another id", "another name", "another type", "two questions", "garbage", "empty"])
def test_a_forged_message_before_the_answer_is_not_believed(moongate, dns_peer, forged):
    peer = dns_peer({"app.test": ["A 60 192.0.2.1"]})

    def twist(answer, query):
        name, kind, asked = question(query)
        evil = [record(name, "A 60 203.0.113.66")] if kind == 1 else []
        lie = message(query, evil)
        other = {"another id": bytes([lie[0] ^ 0x55]) + lie[1:],
                 "another name": message(query[:12] + packed("evil.test") + query[-4:], [record("evil.test", "A 60 203.0.113.66")]),
                 "another type": message(query[:12] + packed(name) + b"\0\x10\0\x01", evil),
                 "two questions": lie[:4] + b"\0\2" + lie[6:], "garbage": b"\xff" * 40, "empty": b""}[forged]
        return [other, answer] if other else [answer]
    peer.twist = twist
    got = resolve(asker(moongate, peer), "app.test", family=4)
    # What is nonsense may cost the attempt; it is never believed.
    assert got.startswith("192.0.2.1 ") or got.startswith("nil "), got
    if forged in ("another id", "another name"):
        assert got.startswith("192.0.2.1 ")


@pytest.mark.parametrize("records", [
    {"app.test": ["CNAME 60 app.test"]}, {"app.test": ["CNAME 60 b.test"], "b.test": ["CNAME 60 app.test"]}])
def test_aliases_in_circles_lead_nowhere(moongate, dns_peer, records):
    peer = dns_peer(records)
    gate = asker(moongate, peer)
    assert resolve(gate, "app.test").startswith("nil ")
    peer.records = {"app.test": ["A 60 192.0.2.1"]}
    eventually(lambda: resolve(gate, "app.test") == "192.0.2.1 60", every=0.1)


def test_a_chain_of_aliases_holds_for_the_shortest_time(moongate, dns_peer):
    peer = dns_peer({f"n{n}.test": [f"CNAME {60 - n} n{n + 1}.test"] for n in range(8)} | {"n8.test": ["A 60 192.0.2.1"]})
    assert resolve(asker(moongate, peer), "n0.test", family=4) == "192.0.2.1 53"


def test_a_name_with_more_addresses_than_there_is_room_for(moongate, dns_peer):
    peer = dns_peer({"many.test": [f"A 60 10.0.{n // 250}.{n % 250}" for n in range(1500)],
                     "both.test": [f"A 60 10.1.0.{n}" for n in range(100)] + [f"AAAA 60 2001:db8::{n:x}" for n in range(100)],
                     "few.test": [f"A 60 10.2.0.{n}" for n in range(100)] + ["AAAA 60 2001:db8::1"]})
    gate = asker(moongate, peer, "resolver_timeout 5s;\n")
    for name, four, six in (("many.test", 64, 0), ("both.test", 32, 32), ("few.test", 63, 1)):
        found = resolve(gate, name).split()[0].split(",")
        assert len(set(found)) == len(found) == 64
        assert (sum(":" not in one for one in found), sum(":" in one for one in found)) == (four, six)


def test_times_of_services_are_kept_between_a_floor_and_a_ceiling(moongate, dns_peer):
    from test_services import ASK as SERVICES
    peer = dns_peer({"_a._tcp.test": ["SRV 1 0 1 80 a.test"], "_b._tcp.test": ["SRV 86400 0 1 80 a.test"],
                     "a.test": ["A 86400 192.0.2.1"]})
    gate = moongate(peer.directive + "resolver_min_ttl 20s; resolver_max_ttl 90s;", "script a.lua;", {"a.lua": SERVICES})
    assert gate.get("/_a._tcp.test").text == "0/1 a.test:80=192.0.2.1 20"
    assert gate.get("/_b._tcp.test").text == "0/1 a.test:80=192.0.2.1 90"


def test_a_record_cut_short_is_nonsense(moongate, dns_peer):
    peer = dns_peer({"app.test": ["A 60 192.0.2.1"]})

    def twist(answer, query):
        name, kind, _ = question(query)
        return [message(query, [packed(name) + struct.pack(">HHIH", kind, 1, 60, 2) + b"\xc0\0"])]
    peer.twist = twist
    gate = asker(moongate, peer)
    assert resolve(gate, "app.test").startswith("nil ")
    peer.twist = None
    eventually(lambda: resolve(gate, "app.test") == "192.0.2.1 60", every=0.1)

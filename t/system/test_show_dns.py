# SPDX-License-Identifier: BSD-2-Clause
"""moongatectl show dns: what the workers count, and what they know of each name, with a real DNS server."""
import concurrent.futures
import os
import re
import signal
import time

from conftest import eventually
from nameserver import nameserver  # noqa: F401: a fixture
from test_resolver import ASK, asker, resolve


def test_show_dns(moongate, nameserver):
    names = nameserver(**{"app.test": "192.0.2.1"})
    gate = asker(moongate, names, workers=2)
    for name in ("app.test", "app.test", "none.test"):
        resolve(gate, name)
    got = gate.show("dns")
    total = got["total"]
    assert got["resolvers"] == [names.address] and [worker["worker"] for worker in got["workers"]] == [0, 1]
    assert total["hits"] + total["misses"] == 3 and total["not_found"] >= 1 and total["failures"] == 0
    assert total["entries"] == sum(worker["entries"] for worker in got["workers"]) >= 2 and total["under_way"] == 0
    text = gate.ctl("show", "dns").stdout.splitlines()
    assert text[0] == f"names are resolved by {names.address}"
    assert text[1].split()[:3] == ["worker", "kept", "under"]
    assert text[4].split()[:2] == ["all", str(total["entries"])]


def known(gate):
    return {(entry["name"], entry["type"]): entry for entry in gate.show("dns")["names"]}


def test_show_dns_names(moongate, nameserver):
    names = nameserver(ttl=30, services=["_a._tcp.app.test,app.test,9000,10,5", "_a._tcp.app.test,b.app.test,9001,20,0"],
                       **{"app.test": "192.0.2.1 192.0.2.2 2001:db8::1", "b.app.test": "192.0.2.3"})
    gate = moongate(names.directive + "upstream app { server _a._tcp.app.test service; }", "script a.lua;",
                    {"a.lua": ASK}, workers=2)
    resolve(gate, "none.test")
    eventually(lambda: known(gate)[("_a._tcp.app.test", "SRV")]["workers"] == 2)
    got = known(gate)
    assert list(got) == [("_a._tcp.app.test", "SRV"), ("app.test", "A+AAAA"), ("b.app.test", "A+AAAA"), ("none.test", "A+AAAA")]
    assert sorted(got[("_a._tcp.app.test", "SRV")]["values"]) == ["10 5 9000 app.test", "20 0 9001 b.app.test"]
    app, none = got[("app.test", "A+AAAA")], got[("none.test", "A+AAAA")]
    assert sorted(app["values"]) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert app["state"] == "fresh" and 25 < app["left"] <= 30 and app["workers"] == 2 and app["failure"] == ""
    assert none["state"] == "failed" and none["values"] == [] and none["failure"] == "no such name" and none["workers"] == 1
    assert 0 < none["left"] <= 10 and gate.show("dns")["silent"] == []
    text = gate.ctl("show", "dns").stdout.splitlines()
    lines = {line.split()[0]: line for line in text[text.index("") + 2:]}
    assert re.fullmatch(r"b\.app\.test +A\+AAAA +fresh +[0-9.]+ s +2  192\.0\.2\.3", lines["b.app.test"])
    assert re.fullmatch(r"none\.test +A\+AAAA +failed +[0-9.]+ s +1  no such name", lines["none.test"])
    # Asked by many at the same time each is told all of it.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(known, gate) for _ in range(24)]:
            assert list(one.result()) == list(got)


def test_show_dns_of_names_that_the_servers_fail_for(moongate, nameserver):
    names = nameserver(ttl=1, **{"app.test": "192.0.2.1"})
    gate = asker(moongate, names, "resolver_timeout 200ms; resolver_tries 1; resolver_negative_ttl 5s;")
    resolve(gate, "app.test")
    eventually(lambda: known(gate)[("app.test", "A+AAAA")]["state"] == "expired")
    names.stop()
    resolve(gate, "app.test")
    got = known(gate)[("app.test", "A+AAAA")]
    assert got["state"] == "stale" and got["values"] == ["192.0.2.1"] and got["failure"] and 0 < got["left"] <= 5
    assert re.search(r"^app\.test .* stale .*  192\.0\.2\.1 \(no resolver answered in time\)$", gate.ctl("show", "dns").stdout, re.M)


def test_show_dns_of_a_worker_that_is_held_or_dies(moongate, nameserver):
    names = nameserver(**{"app.test": "192.0.2.1"})
    gate = moongate(names.directive + "upstream app { server app.test:80; }", "route / app;", workers=2)
    eventually(lambda: known(gate)[("app.test", "A+AAAA")]["workers"] == 2)
    held = gate.workers()[1]
    os.kill(held, signal.SIGSTOP)
    began = time.monotonic()
    got = gate.show("dns")
    assert 0.9 < time.monotonic() - began < 5
    assert got["silent"] == [1] and got["names"][0]["workers"] == 1
    assert gate.ctl("show", "dns").stdout.endswith("no answer in time from worker 1\n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waits = pool.submit(gate.show, "dns")
        time.sleep(0.1)
        os.kill(held, signal.SIGKILL)
        assert waits.result()["names"][0]["name"] == "app.test"
    eventually(lambda: known(gate)[("app.test", "A+AAAA")]["workers"] == 2)


def test_show_dns_of_many_names(moongate, nameserver):
    names = nameserver()
    gate = asker(moongate, names, "resolver_cache 20000;")
    label = "x" * 60
    for n in range(3000):
        resolve(gate, f"{n}.{label}.{label}.test")
    got = gate.show("dns")
    assert len(got["names"]) == got["total"]["entries"] == 3000

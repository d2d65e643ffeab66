# SPDX-License-Identifier: BSD-2-Clause
"""Names: what gate.resolve tells of a real DNS server's answers, how long they are kept, and what becomes of those who
wait when the server is slow, dead or changed."""
import contextlib
import time

import pytest

from conftest import eventually, hold
from nameserver import nameserver  # noqa: F401: a fixture

# Answers with what the name in the path resolves to: "ADDRESS,... TTL [stale]", or "nil WHY".
ASK = """
local gate = require "moongate"
return { request = function(req)
  local found, why = gate.resolve(req.path:sub(2), { family = tonumber(req.headers["x-family"]),
    allowed = req.headers["x-allowed"] and true,
    timeout = tonumber(req.headers["x-timeout"]) })
  if not found then return req:respond(200, nil, "nil " .. why) end
  table.sort(found)
  return req:respond(200, nil, table.concat(found, ",") .. " " .. found.ttl .. (found.stale and " stale" or ""))
end }
"""


UNREACHABLE = "nil the resolvers cannot be reached or refuse to answer"
ONCE = "resolver_tries 1;\n"  # each query is counted
TIMEOUT = "nil no resolver answered in time"


def asker(moongate, names, top="", **how):
    return moongate(names.directive + top, "script a.lua;", {"a.lua": ASK}, **how)


def resolve(gate, name, **headers):
    return gate.get("/" + name, {"X-" + key.title(): str(value) for key, value in headers.items()}).text


def test_addresses_of_both_families(moongate, nameserver):
    names = nameserver(**{"both.test": "192.0.2.1 2001:db8::1", "four.test": "192.0.2.2 192.0.2.3"})
    gate = asker(moongate, names)
    assert resolve(gate, "both.test") == "192.0.2.1,2001:db8::1 600"
    assert resolve(gate, "both.test", family=6) == "2001:db8::1 600"
    assert resolve(gate, "both.test", family=4) == "192.0.2.1 600"
    assert resolve(gate, "four.test") == "192.0.2.2,192.0.2.3 600"
    assert resolve(gate, "four.test", family=6) == "nil the name has no address"


def test_only_what_route_allow_lets_in(moongate, nameserver):
    names = nameserver(**{"mixed.test": "10.0.0.1 8.8.8.8 127.0.0.1 192.168.7.7", "inside.test": "10.0.0.1"})
    gate = asker(moongate, names, "route_allow public 192.168.7.0/24;")
    assert resolve(gate, "mixed.test") == "10.0.0.1,127.0.0.1,192.168.7.7,8.8.8.8 600"
    assert resolve(gate, "mixed.test", allowed=1) == "192.168.7.7,8.8.8.8 600"
    assert resolve(gate, "inside.test", allowed=1) == "nil route_allow lets none of its addresses in"
    assert resolve(gate, "10.0.0.1", allowed=1) == "nil route_allow lets none of its addresses in"


def test_what_is_no_name_is_not_asked_for(moongate, nameserver):
    names = nameserver()
    gate = asker(moongate, names)
    for bad in ("a..test", "-" * 64 + ".test", "a_!.test", ".", "127.1", "1.2.3.4.5", "x" * 254):
        assert resolve(gate, bad) == "nil this is no host name", bad
    assert resolve(gate, "192.0.2.7") == "192.0.2.7 3600" and resolve(gate, "2001:db8::7") == "2001:db8::7 3600"
    assert resolve(gate, "192.0.2.7", family=6) == "nil the name has no address"
    assert "query[" not in names.log()


def test_an_answer_is_kept_while_it_holds_and_asked_for_again_then(moongate, nameserver):
    names = nameserver(ttl=2, **{"app.test": "192.0.2.1"})
    gate = asker(moongate, names)
    assert resolve(gate, "app.test") == "192.0.2.1 2"
    names.tell(**{"app.test": "192.0.2.2"})
    assert resolve(gate, "APP.test").startswith("192.0.2.1 ") and names.asked("app.test") == 1
    eventually(lambda: resolve(gate, "app.test").startswith("192.0.2.2 "), every=0.1)
    assert names.asked("app.test") == 2
    stats = gate.stats()
    assert stats["dns_misses"] == stats["dns_lookups"] == 2 and stats["dns_hits"] >= 2
    assert stats["dns_entries_active"] == 1 and stats["dns_lookups_active"] == 0


def test_times_are_kept_between_a_floor_and_a_ceiling(moongate, nameserver):
    names = nameserver(ttl=1, **{"app.test": "192.0.2.1"})
    gate = asker(moongate, names, "resolver_min_ttl 300s;")
    assert resolve(gate, "app.test") == "192.0.2.1 300"
    names = nameserver(ttl=86400, **{"app.test": "192.0.2.1"})
    gate = asker(moongate, names, "resolver_max_ttl 90s;")
    assert resolve(gate, "app.test") == "192.0.2.1 90"


def test_that_a_name_does_not_exist_is_remembered_for_its_own_time(moongate, nameserver):
    names = nameserver()
    gate = asker(moongate, names, "resolver_negative_ttl 1s;")
    assert resolve(gate, "new.test") == "nil no such name"
    names.tell(**{"new.test": "192.0.2.1"})
    assert resolve(gate, "new.test") == "nil no such name" and names.asked("new.test") == 1
    eventually(lambda: resolve(gate, "new.test") == "192.0.2.1 600", every=0.1)
    assert gate.stats()["dns_not_found"] == 1 and gate.stats()["dns_failures"] == 0


def test_a_truncated_answer_is_fetched_by_tcp(moongate, nameserver):
    many = [f"192.0.2.{n}" for n in range(1, 61)]
    names = nameserver(**{"many.test": " ".join(many)})
    gate = asker(moongate, names)
    assert resolve(gate, "many.test") == ",".join(sorted(many)) + " 600"


def test_a_refusal_is_told(moongate, nameserver):
    gate = asker(moongate, nameserver(), "resolver_tries 1;")
    assert resolve(gate, "elsewhere.example") == UNREACHABLE
    assert gate.stats()["dns_failures"] == 1
    gate.wait_log(r'warn.*resolver: "elsewhere.example": the resolvers cannot')


def test_a_server_that_does_not_answer_is_a_time_out(moongate, nameserver):
    names = nameserver(**{"app.test": "192.0.2.1"})
    hold(names.process.pid)
    gate = asker(moongate, names, "resolver_timeout 700ms; resolver_tries 2;")
    begin = time.monotonic()
    assert resolve(gate, "app.test") == TIMEOUT
    assert 0.5 < time.monotonic() - begin < 3
    assert resolve(gate, "app.test") == TIMEOUT  # remembered
    assert gate.stats()["dns_timeouts"] == 1 and gate.stats()["dns_lookups"] == 1


def test_a_server_that_is_gone_is_told_and_asked_again_later(moongate, nameserver):
    names = nameserver(**{"app.test": "192.0.2.1"})
    names.stop()
    gate = asker(moongate, names, "resolver_negative_ttl 200ms; resolver_timeout 1s;")
    begin = time.monotonic()
    assert resolve(gate, "app.test") in (UNREACHABLE, TIMEOUT)
    assert time.monotonic() - begin < 3
    names.start()
    eventually(lambda: resolve(gate, "app.test") == "192.0.2.1 600", every=0.1)


def test_one_family_counts_when_nothing_is_heard_of_the_other(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1 2001:db8::1"})
    names.drop = "AAAA"
    gate = asker(moongate, names, "resolver_timeout 1s;")
    assert resolve(gate, "app.test") == "192.0.2.1 600"
    assert gate.stats()["dns_timeouts"] == 0


def test_the_next_server_is_asked_when_one_fails(moongate, nameserver):
    dead, names = nameserver(), nameserver(**{"app.test": "192.0.2.1"})
    dead.stop()
    gate = moongate(f"resolver {dead.address} {names.address};", "script a.lua;", {"a.lua": ASK})
    assert resolve(gate, "app.test") == "192.0.2.1 600"


def test_addresses_are_used_beyond_their_time_while_the_servers_fail(moongate, nameserver):
    names = nameserver(ttl=1, **{"app.test": "192.0.2.1", "other.test": "192.0.2.2"})
    gate = asker(moongate, names, "resolver_timeout 400ms; resolver_tries 1; resolver_negative_ttl 300ms;")
    assert resolve(gate, "app.test") == "192.0.2.1 1"
    names.stop()
    eventually(lambda: resolve(gate, "app.test") == "192.0.2.1 0 stale", every=0.1)
    begin = time.monotonic()
    for _ in range(20):
        assert resolve(gate, "app.test") == "192.0.2.1 0 stale"
    assert time.monotonic() - begin < 0.4 * 20 / 2, "each one waited for the dead server"
    names.tell(**{"app.test": "192.0.2.9"})
    names.start()
    eventually(lambda: resolve(gate, "app.test").startswith("192.0.2.9 "), every=0.1)
    assert gate.stats()["dns_stale"] >= 21
    # That it does not exist any more is an answer.
    names.tell()
    eventually(lambda: resolve(gate, "app.test") == "nil no such name", every=0.1)


def test_stale_answers_may_be_switched_off(moongate, nameserver):
    names = nameserver(ttl=1, **{"app.test": "192.0.2.1"})
    gate = asker(moongate, names, "resolver_timeout 300ms; resolver_tries 1; resolver_stale 0;")
    assert resolve(gate, "app.test") == "192.0.2.1 1"
    names.stop()
    eventually(lambda: resolve(gate, "app.test") in (UNREACHABLE, TIMEOUT), every=0.1)


def at_once(gate, paths):
    """All answers to requests that are under way at the same time, in order."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(gate.connect()) for _ in paths]
        for s, path in zip(sockets, paths):
            s.sendall(f"GET /{path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        answers = []
        for s in sockets:
            data = b""
            while chunk := s.recv(65536):
                data += chunk
            answers.append(data.partition(b"\r\n\r\n")[2].decode())
        return answers


def test_many_who_ask_for_one_name_wait_for_one_query(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1"})
    names.delay = 0.3
    gate = asker(moongate, names, ONCE)
    assert at_once(gate, ["app.test"] * 50) == ["192.0.2.1 600"] * 50
    assert names.asked("app.test") == 1 and gate.stats()["dns_lookups"] == 1


def test_many_names_at_the_same_time(moongate, nameserver):
    records = {f"n{n}.test": f"192.0.2.{n}" for n in range(200)}
    names = nameserver(**records)
    gate = asker(moongate, names)
    assert at_once(gate, list(records)) == [f"{address} 600" for address in records.values()]
    assert gate.stats()["dns_entries_active"] == 200


def test_names_being_asked_for_are_bounded_and_so_are_those_kept(moongate, nameserver):
    records = {f"n{n}.test": f"192.0.2.{n}" for n in range(40)}
    names = nameserver(relay=True, **records)
    gate = asker(moongate, names, ONCE + "resolver_queries 10; resolver_cache 20;")
    assert resolve(gate, "n0.test") == "192.0.2.0 600"
    names.delay = 1.5
    answers = at_once(gate, list(records)[1:])
    assert answers.count("nil too many names are being resolved") == 29
    assert gate.stats()["dns_refused"] == 29 and gate.stats()["dns_entries_active"] == 11
    assert resolve(gate, "n0.test").startswith("192.0.2.0 ")
    assert names.asked("n0.test") == 1  # those that were refused have pushed nothing out
    names.delay = 0
    for name, address in records.items():
        assert resolve(gate, name).startswith(f"{address} ")
    assert gate.stats()["dns_entries_active"] == 20
    before = names.asked("n39.test")  # whether it was among the ten at the beginning is a matter of who came first
    assert resolve(gate, "n39.test").startswith("192.0.2.39 ") and names.asked("n39.test") == before  # the last stay


def test_who_waits_may_have_less_time_and_the_answer_is_kept_all_the_same(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1"})
    names.delay = 0.5
    gate = asker(moongate, names, ONCE)
    assert resolve(gate, "app.test", timeout=0.1) == "nil timeout"
    eventually(lambda: gate.stats()["dns_lookups_active"] == 0)
    assert resolve(gate, "app.test", timeout=0.1).startswith("192.0.2.1 ") and names.asked("app.test") == 1


def test_a_client_that_goes_leaves_nothing_behind(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1"})
    names.delay = 0.6
    gate = asker(moongate, names)
    with gate.connect() as gone, gate.connect() as stays:
        for s in (gone, stays):
            s.sendall(b"GET /app.test HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] == 2)
        gone.close()
        eventually(lambda: gate.stats()["requests_active"] == 1)
        assert stays.recv(65536).endswith(b"192.0.2.1 600")
    with gate.connect() as gone:
        gone.sendall(b"GET /none.test HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] == 1)
    eventually(lambda: gate.stats()["requests_active"] == 0 and gate.stats()["dns_lookups_active"] == 0)


def test_a_reload_keeps_those_who_wait_and_what_is_known(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1", "late.test": "192.0.2.2"})
    gate = asker(moongate, names)
    assert resolve(gate, "app.test").startswith("192.0.2.1 ")
    names.delay = 1
    with gate.connect() as s:
        s.sendall(b"GET /late.test HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["dns_lookups_active"] == 1)
        gate.reload()
        assert resolve(gate, "app.test").startswith("192.0.2.1 ") and names.asked("app.test") == 1
        assert s.recv(65536).endswith(b"192.0.2.2 600")


def test_a_reload_that_changes_the_resolver_lets_those_who_wait_end_with_the_old_one(moongate, nameserver):
    old = nameserver(relay=True, **{"app.test": "192.0.2.1", "late.test": "192.0.2.2"})
    new = nameserver(**{"app.test": "192.0.2.9"})
    gate = asker(moongate, old)
    assert resolve(gate, "app.test").startswith("192.0.2.1 ")
    old.delay = 1
    with gate.connect() as s:
        s.sendall(b"GET /late.test HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["dns_lookups_active"] == 1)
        gate.configure(new.directive, "script a.lua;")
        gate.reload()
        assert resolve(gate, "app.test").startswith("192.0.2.9 ")
        assert s.recv(65536).endswith(b"192.0.2.2 600")
    eventually(lambda: gate.stats()["dns_entries_active"] == 1)  # the old one's are gone


def test_a_worker_that_is_stopped_while_it_asks_ends_well(moongate, nameserver):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1"})
    names.delay = 30
    gate = asker(moongate, names)
    with gate.connect() as s:
        s.sendall(b"GET /app.test HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["dns_lookups_active"] == 1)
        gate.stop()


def test_without_the_directive_the_hosts_file_counts(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": ASK})
    assert "127.0.0.1" in resolve(gate, "localhost", family=4)


@pytest.mark.parametrize("hook, frontend", [
    ("connect = function(conn) say() end", ""),
    ("request = function(req) say() return req:respond(200) end", ""),
    ("route = function(req) say() end", "route / app;"),
    ("response = function(req, res) say() end", "route / app;"),
    ("request_body = function(req) say() for c in req:body() do req:write(c) end end", "route / app;"),
    ("response_body = function(req, res) say() for c in res:body() do res:write(c) end end", "route / app;"),
    ("error = function(req, res) say() end", ""),
    ("log = function(req) say() end", "route / app;"),
    ("init = function() say() end", "route / app;"),
    ("worker_init = function() say() end", "route / app;"),
    ("exit = function() say() end", "route / app;"),
    ("worker_init = function() gate.after(0.01, say) end", "route / app;"),
    ("worker_init = function() gate.spawn(say) gate.sleep(1) end", "route / app;"),
])
def test_every_hook_may_ask(moongate, nameserver, origin, hook, frontend):
    names = nameserver(relay=True, **{"app.test": "192.0.2.1"})
    names.delay = 0.1
    gate = moongate(names.directive + (f"upstream app {{ server {origin.address}; }}" if frontend else ""),
                    f"script a.lua;\n{frontend}", {"a.lua": f"""
        local gate = require "moongate"
        local function say() gate.log.notice("found", assert(gate.resolve("app.test"))[1]) end
        return {{ {hook} }}"""})
    gate.get("/", method="POST", body=b"x")
    if "exit" in hook:
        gate.reload()
    gate.wait_log(r"notice.*found 192\.0\.2\.1")


def test_a_script_that_loads_may_not(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": "require('moongate').resolve('localhost') return {}"}, start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and "gate.resolve is for hooks, timers and tasks" in done.stderr


@pytest.mark.parametrize("line, expected", [
    ("resolver 127.0.0.1 [::1]:5353 ::1;", None),
    ("resolver nameserver.example;", 'bad address "nameserver.example"'),
    ("resolver unix:/x;", "bad address"),
    ("resolver *:53;", "bad address"),
    ("resolver [fe80::1%lo]:53;", "bad address"),
    ("resolver 127.0.0.1:0;", "bad address"),
    ("resolver;", "too few arguments"),
    ("resolver_min_ttl 2h;", "expected the first not to be longer"),
])
def test_the_directive_is_checked(moongate, line, expected):
    gate = moongate(line, "script a.lua;", {"a.lua": "return {}"}, start=False)
    done = gate.run("-t")
    assert (done.returncode == 0) == (expected is None) and (expected or "") in done.stderr
    if not expected:
        assert "resolver 127.0.0.1:53 [::1]:5353 [::1]:53;" in gate.run("-T").stdout

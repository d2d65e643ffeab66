# SPDX-License-Identifier: BSD-2-Clause
"""The resolve hook: scripts answer, change and refuse what names stand for, wherever names come from, before DNS is
asked; what becomes of it when they are slow, fail, are dropped or lie."""
import collections
import contextlib
import re
import socket
import time

import pytest

from conftest import Origin, eventually
from dns_peer import dns_peer  # noqa: F401: a fixture
from nameserver import nameserver  # noqa: F401: a fixture
from test_members import homes  # noqa: F401: a fixture

# Every way in which a name is wanted, by the request's path: what came of it is the answer's text.
WAYS = """
local gate = require "moongate"
local settings = gate.settings(..., { port = "string" })
local function told(...)
  local all = { ... }
  for i = 1, select("#", ...) do all[i] = tostring(all[i]) end
  return table.concat(all, " ")
end
local ways = {}
function ways.resolve(name, req)
  local found, why = gate.resolve(name, { family = tonumber(req.headers["x-family"]), type = req.headers["x-type"],
    allowed = req.headers["x-allowed"] and true })
  if not found then return told(found, why) end
  if req.headers["x-type"] then
    for i, one in ipairs(found) do
      found[i] = told(one.priority, one.weight, one.target, one.port, table.concat(one, "+"))
    end
  end
  return table.concat(found, ",") .. " " .. found.ttl
end
function ways.fetch(name)
  local answer, why = gate.fetch("http://" .. name .. ":" .. settings.port .. "/")
  return answer and answer.status .. " " .. answer.body or told(nil, why)
end
function ways.tcp(name)
  local sock, why = gate.tcp.connect(name .. ":" .. settings.port)
  return told(sock and sock.remote_ip or sock and "connected" or nil, why)
end
return {
  request = function(req)
    local way, name = req.path:match("^/(%w+)/(.*)$")
    if ways[way] then return req:respond(200, nil, ways[way](name, req)) end
  end,
  route = function(req)
    local name = req.path:match("^/route/(.*)$")
    if name then return name .. ":" .. settings.port end
  end,
}
"""
ALLOWED = "route_allow 127.0.0.0/8;\n"
HOOK = """
local gate = require "moongate"
return { resolve = function(name, options)
  CODE
end }
"""


def make(moongate, names, code, port=1, top="", frontend="", scripts=None, upstream="", **how):
    files = {"ways.lua": WAYS, "hook.lua": HOOK.replace("CODE", code), **(scripts or {})}
    return moongate(f"{names.directive}{ALLOWED}{top}{upstream}",
                    f"script hook.lua; script ways.lua port={port};\n{frontend}" + ("route / app;" if upstream else ""),
                    files, **how)


def test_an_answer_counts_in_place_of_dns(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.9", "other.test": "127.0.0.2"})
    port = homes("127.0.0.2", "127.0.0.3")
    gate = make(moongate, names, """
        if name == "app.test" then return { "127.0.0.3", ttl = 7 } end
        if name == "one.test" then return "127.0.0.2" end
        if name == "none.test" then return {} end
        if name == "both.test" then return { "127.0.0.3", "::1", "2001:DB8::1" } end""", port)
    for way, one, other in (("route", "127.0.0.3", "127.0.0.2"), ("fetch", "200 127.0.0.3", "200 127.0.0.2")):
        assert gate.get(f"/{way}/App.test").text == one
        assert gate.get(f"/{way}/one.test").text == gate.get(f"/{way}/other.test").text == other
    assert gate.get("/resolve/app.test").text == "127.0.0.3 7"
    assert gate.get("/resolve/one.test").text == "127.0.0.2 1"  # resolver_min_ttl
    assert gate.get("/resolve/both.test").text == "127.0.0.3,::1,2001:db8::1 1"
    assert gate.get("/resolve/both.test", {"X-Family": "6"}).text == "::1,2001:db8::1 1"
    assert gate.get("/resolve/both.test", {"X-Family": "4"}).text == "127.0.0.3 1"
    assert gate.get("/resolve/both.test", {"X-Allowed": "1"}).text == "127.0.0.3 1"  # route_allow holds
    assert gate.get("/resolve/one.test", {"X-Family": "6"}).text == "nil the name has no address"
    assert gate.get("/resolve/none.test").text == "nil the name has no address"
    assert gate.get("/resolve/other.test").text == "127.0.0.2 600"
    assert gate.get("/tcp/app.test").text != "nil refused" and gate.get("/tcp/none.test").text.startswith("nil ")
    assert names.asked("app.test") == names.asked("one.test") == 0 and names.asked("other.test") == 1
    assert gate.stats()["dns_scripted"] >= 10


def test_addresses_and_what_is_no_name_are_not_asked_about(moongate, nameserver, homes):
    port = homes("127.0.0.2")
    gate = make(moongate, nameserver(), 'gate.log.notice("asked for", name) return { "127.0.0.2" }', port)
    assert gate.get("/resolve/127.0.0.5").text == "127.0.0.5 3600"
    assert gate.get("/resolve/a..test").text == "nil this is no host name"
    assert gate.get("/fetch/127.0.0.2").text == "200 127.0.0.2"
    assert gate.get("/route/127.0.0.2").text == "127.0.0.2"
    assert "asked for" not in gate.log()


def test_a_name_is_refused_with_a_reason(moongate, nameserver, homes):
    names = nameserver(**{"evil.test": "127.0.0.2"})
    port = homes("127.0.0.2")
    gate = make(moongate, names, 'if name == "evil.test" then return false, "not\\nfrom here" end', port)
    assert gate.get("/resolve/evil.test").text == "nil a script refuses it"
    assert gate.get("/fetch/evil.test").text == "nil upstream_denied"
    assert gate.get("/tcp/evil.test").text == "nil a script refuses it"
    assert gate.get("/route/evil.test").status == 502
    gate.wait_log(r'warn.*script "hook.lua", resolve hook: "evil.test" is refused: not\s+from here')
    gate.wait_log(r'warn.*no server "evil.test:\d+": a script refuses it')
    assert names.asked("evil.test") == 0 and "\nfrom here" not in gate.log()  # a line of the log is no script's to make
    assert gate.stats()["script_errors"] == 0


def test_what_dns_says_is_changed(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.9 127.0.0.3", "dead.test": "10.0.0.1"})
    port = homes("127.0.0.2", "127.0.0.3")
    gate = make(moongate, names, """
        local found, why = gate.resolve(name, options)   -- DNS itself
        if not found then return nil end
        if name == "dead.test" then return gate.resolve("app.test") end
        local kept = { ttl = found.ttl }
        for _, address in ipairs(found) do
          if address ~= "127.0.0.9" then kept[#kept + 1] = address end
        end
        return kept""", port)
    for _ in range(4):
        assert gate.get("/route/app.test").text == "127.0.0.3"
    assert gate.get("/resolve/app.test").text.startswith("127.0.0.3 ")
    assert "127.0.0.9" in gate.get("/resolve/dead.test").text
    assert gate.get("/resolve/none.test").text == "nil no such name"
    assert names.asked("none.test") == 1  # what is known of it is told


def test_a_hook_that_asks_for_its_own_name_in_every_way_asks_dns(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.2"})
    port = homes("127.0.0.2")
    gate = make(moongate, names, f"""
        local answer = assert(gate.fetch("http://" .. name .. ":{port}/"))
        assert(gate.tcp.connect(name .. ":{port}")):close()
        local task = gate.spawn(function() return gate.resolve(name), gate.fetch("http://" .. name .. ":{port}/").body end)
        local ok, found, body = task:wait()
        return {{ answer.body == body and found[1] }}""", port)
    assert gate.get("/resolve/app.test").text == "127.0.0.2 1"
    assert gate.get("/route/app.test").text == "127.0.0.2" and gate.stats()["script_errors"] == 0
    assert gate.stats()["dns_scripted"] == 2


def test_one_script_after_the_other_is_asked(moongate, nameserver):
    names = nameserver(**{"dns.test": "127.0.0.9"})
    first = """return { resolve = function(name)
        if name == "a.test" or name == "both.test" then return "127.0.0.1" end
        if name == "refused.test" then return false end
      end }"""
    gate = make(moongate, names, """
        if name:find("^%w%.test") or name == "both.test" or name == "refused.test" then return "127.0.0.2" end""",
                frontend="", scripts={"first.lua": first})
    gate.configure(f"{names.directive}{ALLOWED}",
                   "script first.lua; script hook.lua; script ways.lua port=1;")
    gate.reload()
    for name, expected in (("a", "127.0.0.1 1"), ("b", "127.0.0.2 1"), ("both", "127.0.0.1 1"), ("dns", "127.0.0.9 600"),
                           ("refused", "nil a script refuses it")):
        assert gate.get(f"/resolve/{name}.test").text == expected


def test_it_may_wait_and_its_client_may_go(moongate, nameserver, homes):
    port = homes("127.0.0.2")
    gate = make(moongate, nameserver(), 'gate.sleep(name == "slow.test" and 30 or 0.2) return "127.0.0.2"', port)
    begin = time.monotonic()
    assert gate.get("/route/a.test").text == "127.0.0.2" and gate.get("/resolve/a.test").text == "127.0.0.2 1"
    assert time.monotonic() - begin > 0.35
    with contextlib.ExitStack() as stack:
        for way in ("route", "resolve", "fetch", "tcp"):
            s = stack.enter_context(gate.connect())
            s.sendall(f"GET /{way}/slow.test HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        eventually(lambda: gate.stats()["timers_active"] == 4)
    eventually(lambda: not any(gate.stats()[name] for name in ("requests_active", "timers_active", "scripts_active")))
    assert gate.get("/route/a.test").text == "127.0.0.2"


@pytest.mark.parametrize("code, why", [
    ("error('broken')", "broken"), ("return 7", "the resolve hook returned a number: expected nothing, an address"),
    ("return 'app.example'", "returned a string"), ("return { '127.0.0.1', 'x' }", "returned a table"),
    ("return { 5 }", "returned a table"), ("return { ttl = -1, '127.0.0.1' }", "returned a table"),
    ("return { ttl = 'x', '127.0.0.1' }", "returned a table"), ("return true", "returned a boolean"),
    ("local t = {} for i = 1, 65 do t[i] = '127.0.0.1' end return t", "returned a table"),
    ("return setmetatable({}, { __index = function() error('no') end, __len = function() return 1e9 end })", None),
    ("gate.sleep(10)", "the hook took longer than script_time_limit")])
def test_errors_fail_closed(moongate, nameserver, homes, code, why):
    names = nameserver(**{"app.test": "127.0.0.2"})
    gate = make(moongate, names, code, homes("127.0.0.2"), frontend="script_time_limit 300ms;")
    if why is None:  # no method of the script's is called
        assert gate.get("/resolve/app.test").text == "nil the name has no address"
        assert gate.stats()["script_errors"] == 0
        return
    if "sleep" not in code:  # else the hook that asks is over time, too
        assert gate.get("/resolve/app.test").text == "nil a script that was asked for it failed"
    assert gate.get("/route/app.test").status == 502
    assert "sleep" in code or gate.get("/fetch/app.test").text == "nil upstream_name"
    assert names.asked("app.test") == 0 and gate.stats()["script_errors"] >= 3
    gate.wait_log(r'error.*script "hook.lua", resolve hook: .*' + why)


def test_errors_pass_where_on_script_error_says_so(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.2"})
    gate = make(moongate, names, "error('broken')", homes("127.0.0.2"), frontend="on_script_error pass;")
    assert gate.get("/route/app.test").text == "127.0.0.2" and gate.stats()["script_errors"] == 1


def test_route_allow_holds_for_what_a_script_answers(moongate, nameserver, origin):
    gate = make(moongate, nameserver(), 'return { "10.0.0.1", "192.168.0.1" }', origin.port)
    assert gate.get("/route/app.test").status == 502 and gate.get("/fetch/app.test").text == "nil upstream_denied"
    gate.wait_log(r'no server "app.test:\d+": it stands for 10.0.0.1 and others, which route_allow does not let in')
    assert gate.get("/tcp/app.test").text == "nil denied"


def test_services(moongate, dns_peer):
    peer = dns_peer({"a.test": ["A 60 127.0.0.5"], "_dns._tcp.test": ["SRV 60 1 2 80 a.test"]})
    gate = make(moongate, peer, """
        if name == "_app._tcp.test" and options.type == "SRV" then
          return { ttl = 9, { priority = 2, weight = 5, port = 81, target = "B.test" }, { priority = 1, weight = 0, port = 80,
            target = "a.test" } }
        end
        if name == "_none._tcp.test" then return {} end
        if name == "_bad._tcp.test" then return { { priority = 1, weight = 0, port = 0, target = "a.test" } } end
        if name == "b.test" then return "127.0.0.6" end""")
    srv = {"X-Type": "SRV"}
    assert gate.get("/resolve/_app._tcp.test", srv).text == "2 5 b.test 81 127.0.0.6,1 0 a.test 80 127.0.0.5 1"
    assert gate.get("/resolve/_dns._tcp.test", srv).text == "1 2 a.test 80 127.0.0.5 60"
    assert gate.get("/resolve/_none._tcp.test", srv).text == "nil the name has no services"
    assert gate.get("/resolve/_bad._tcp.test", srv).text == "nil a script that was asked for it failed"


def texts(gate, times=20):
    seen = collections.Counter()
    for _ in range(times):
        answer = gate.get("/")
        seen[answer.text if answer.status == 200 else answer.status] += 1
    return seen


@pytest.mark.long
def test_servers_of_the_configuration(moongate, nameserver, homes):
    names = nameserver(**{"app.test": "127.0.0.9", "dns.test": "127.0.0.2"})
    port = homes("127.0.0.2", "127.0.0.3", "127.0.0.4")
    gate = make(moongate, names, """
        local at = gate.shared("told"):get(name)
        if at == "refused" then return false, "closed" end
        if at == "broken" then error("broken") end
        if at == "dns" then return nil end
        if name == "app.test" then return at or "127.0.0.3" end""", port, top="shared told 1m;\nresolver_negative_ttl 1s;\n",
                upstream=f"upstream app {{ server app.test:{port}; }}\n", frontend="script tell.lua;\n",
                scripts={"tell.lua": """return { request = function(req) local at = req.path:match("^/tell/(.*)$")
                    if at then require("moongate").shared("told"):set("app.test", at) return req:respond(200) end end }"""})

    def tell(what, expected):
        assert gate.get("/tell/" + what).status == 200
        eventually(lambda: texts(gate, 4) == {expected: 4}, every=0.05)
    assert texts(gate) == {"127.0.0.3": 20}
    tell("127.0.0.4", "127.0.0.4")
    tell("refused", 503)
    gate.wait_log(r'warn.*upstream "app": server "app.test:\d+" is down: it is not resolved: a script refuses it')
    tell("127.0.0.2", "127.0.0.2")
    gate.get("/tell/broken")  # as resolvers that fail: what was known stays in use
    gate.wait_log(r'warn.*server "app.test:\d+" is not resolved: a script that was asked for it failed; its last addresses')
    assert texts(gate) == {"127.0.0.2": 20}
    gate.reload()
    assert texts(gate) == {"127.0.0.2": 20}
    tell("127.0.0.4", "127.0.0.4")
    gate.reload()
    assert texts(gate) == {"127.0.0.4": 20} and names.asked("app.test") == 0


def test_all_scripts_are_asked_for_servers_each_once(moongate, nameserver, homes):
    port = homes("127.0.0.2", "127.0.0.3")
    names = nameserver(**{"app.test": "127.0.0.9"})
    script = """local gate = require "moongate"
        local settings = gate.settings(..., { name = "string" })
        return { resolve = function(name) gate.log.notice("asked", settings.name)
            if settings.name == "last" then return { "127.0.0.2", ttl = 60 } end end }"""
    gate = moongate(f"""{names.directive}upstream app {{ server app.test:{port}; }}
        frontend one {{ listen unix:@moongate-test-one-{port}; script a.lua name=x; script a.lua name=y; route / app; }}
        frontend two {{ listen unix:@moongate-test-two-{port}; script a.lua name=x; script a.lua name=last; script a.lua name=never; route / app; }}""",
                    "route / app;", {"a.lua": script})
    assert gate.get("/").text == "127.0.0.2"
    assert re.findall(r"asked (\w+)", gate.log()) == ["x", "y", "last"]


def test_a_hook_that_waits_at_a_reload_and_at_a_stop(moongate, nameserver, homes):
    port = homes("127.0.0.2")
    gate = make(moongate, nameserver(), 'gate.sleep(name == "app.test" and 0.7 or 30) return "127.0.0.2"', port,
                upstream=f"upstream app {{ server app.test:{port}; server slow.test:{port}; }}\n")
    with gate.connect() as s:
        s.sendall(b"GET /route/app.test HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] >= 1)
        gate.reload()
        assert s.recv(65536).endswith(b"127.0.0.2")
    with gate.connect() as s:
        s.sendall(b"GET /route/slow.test HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] >= 1)
        gate.stop()


def test_an_init_hook_may_ask_too(moongate, nameserver):
    gate = make(moongate, nameserver(), 'return "127.0.0.2"', scripts={"init.lua": """local gate = require "moongate"
        return { init = function() assert(gate.resolve("a.test")[1] == "127.0.0.2") end }"""}, frontend="script init.lua;")
    assert gate.get("/resolve/x.test").text == "127.0.0.2 1"

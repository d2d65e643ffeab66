# SPDX-License-Identifier: BSD-2-Clause
"""Scripts in a running moongate: the design's example as it is printed there, each hook, failures, waiting,
and that a script can put nothing on the wire that another parser would read in another way."""
import contextlib
import re
import socket
import threading
import time

import pytest

from conftest import SANITIZED, eventually, read_all, rss

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: origin/1\r\n\r\nok"

FIREWALL = """
local gate     = require "moongate"
local settings = ...
local denied   = gate.cidr_file(settings.denied)
local limits   = gate.shared "limits"
local hooks    = {}

function hooks.connect(conn)                       -- before a byte is read
  if denied:contains(conn.remote_ip) then return conn:reject() end
end

function hooks.request(req)                        -- head parsed, nothing forwarded yet
  if not limits:take(req.conn.remote_ip, tonumber(settings.rate)) then
    return req:respond(429, { ["retry-after"] = "1" }, "slow down\\n")
  end
  req.headers["x-real-ip"] = req.conn.remote_ip
end

function hooks.route(req)                          -- where to; asked again for each retry (req.attempt)
  if req.headers["x-canary"] then return "canary" end
end

function hooks.response(req, res)                  -- head from upstream, nothing sent yet
  res.headers["server"] = nil
end

function hooks.response_body(req, res)             -- pull, change, push; what is not written is dropped
  for chunk in res:body() do res:write((chunk:gsub("secret", "******"))) end
end                                                -- request_body(req) likewise: req:body(), req:write()

return hooks
"""


def script(text):
    return {"a.lua": "local gate = require 'moongate'\nlocal hooks = {}\n" + text + "\nreturn hooks\n"}


def gate_to(moongate, origin, text, top="", frontend="", **how):
    return moongate(f"upstream app {{ server {origin.address}; }}\n{top}",
                    f"script a.lua;\nroute / app;\n{frontend}", script(text), **how)


# ---- the design's page


@pytest.fixture
def firewall(moongate, origins):
    def make(denied="", rate=1000):
        app, canary = origins(), origins()
        app.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\nServer: origin/1\r\n\r\nmy secret, secrets"
        canary.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary"
        gate = moongate(start=False, files={"firewall.lua": FIREWALL, "denied.txt": denied})
        gate.configure(f"shared limits 1m; upstream app {{ server {app.address}; }} upstream canary {{ "
                       f"server {canary.address}; }}",
                       f"script firewall.lua rate={rate} denied={gate.folder}/denied.txt; route / app;")
        return gate.start(), app, canary
    return make


def test_the_designs_script_runs_as_printed(firewall):
    gate, app, canary = firewall("10.0.0.0/8\n")
    answer = gate.get()
    assert answer.status == 200 and answer.text == "my ******, ******s" and answer.headers["server"] is None
    assert app.requests[0].header("x-real-ip") == "127.0.0.1"
    answer = gate.get("/", {"X-Canary": "1", "X-Real-IP": "6.6.6.6"})
    assert answer.text == "canary" and canary.requests[0].all("x-real-ip") == ["127.0.0.1"]


def test_the_designs_script_rejects_networks(firewall):
    gate, app, _ = firewall("# ours\n127.0.0.0/8\n")
    assert gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") == b""
    assert app.connections == 0 and gate.stats()["connections_rejected"] >= 1
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_the_designs_script_limits(firewall):
    gate, app, _ = firewall(rate=5)
    client = gate.client()
    answers = [client.ask() for _ in range(12)]
    assert [a.status for a in answers[:5]] == [200] * 5
    late = answers[-1]
    assert late.status == 429 and late.headers["retry-after"] == "1" and late.text == "slow down\n"
    time.sleep(0.5)
    assert client.ask().status == 200
    assert len(app.requests) <= 9


# ---- requests


def test_what_a_script_sees(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req)
          local lines = { req.method, req.target, req.path, req.query, req.host, req.scheme,
                          tostring(req.version), req.headers["X-Mixed"], req.headers.cookie or "none",
                          req.conn.remote_ip, tostring(req.attempt ~= nil) }
          return req:respond(200, { ["content-type"] = "text/plain" }, table.concat(lines, "|"))
        end""")
    got = gate.get("/a/../b%20c?d=1", {"x-mIXED": "v", "Host": "name:81"}).text.split("|")
    assert got[:4] == ["GET", "/a/../b%20c?d=1", "/b c", "d=1"]
    assert got[4].startswith("name") and got[5] == "http" and "1.1" in got[6]
    assert got[7:10] == ["v", "none", "127.0.0.1"]


def test_what_a_script_changes_is_passed_on(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req)
          req.headers["x-new"] = "1"
          req.headers["x-old"] = nil
          req.headers["x-twice"] = "once"
        end
        function hooks.response(req, res)
          res.status = 203
          res.headers["x-added"] = "2"
        end""")
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nX-Old: a\r\nx-twice: 1\r\nX-OLD: b\r\nX-Twice: 2\r\n"
                   b"Connection: close\r\n\r\n")
    request = origin.requests[0]
    assert request.all("x-new") == ["1"] and request.all("x-old") == [] and request.all("x-twice") == ["once"]
    assert got.startswith(b"HTTP/1.1 203 ") and b"\r\nx-added: 2\r\n" in got.lower()


@pytest.mark.parametrize("bad", ['"a\\r\\nX-Evil: 1"', '"a\\nb"', '"a\\0b"', '"\\127"'])
def test_a_script_cannot_split_a_head(moongate, origin, bad):
    gate = gate_to(moongate, origin, f"""
        function hooks.request(req)
          if req.path == "/req" then req.headers["x-a"] = {bad} end
          if req.path == "/name" then req.headers[{bad}] = "v" end
          if req.path == "/respond" then return req:respond(200, {{ ["x-a"] = {bad} }}, "") end
        end
        function hooks.response(req, res) if req.path == "/res" then res.headers["x-a"] = {bad} end end""")
    assert [gate.get(path).status for path in ("/req", "/name", "/respond", "/res")] == [500, 500, 500, 502]
    assert gate.stats()["script_errors"] == 4
    assert "x-evil" not in repr(origin.requests[-1].headers).lower()


def test_a_script_cannot_change_the_framing(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req)
          pcall(function() req.headers["content-length"] = "100" end)
          pcall(function() req.headers["transfer-encoding"] = "chunked" end)
          pcall(function() req.headers["connection"] = "close" end)
        end
        function hooks.response(req, res)
          pcall(function() res.headers["content-length"] = "1" end)
          pcall(function() res.headers["transfer-encoding"] = "chunked" end)
        end""")
    client = gate.client()
    for _ in range(3):
        answer = client.ask("/", method="POST", body=b"abc")
        assert answer.body == b"ok" and answer.headers["content-length"] == "2"
        assert answer.headers["transfer-encoding"] is None
    for request in origin.requests:
        assert request.body == b"abc" and request.all("content-length") == ["3"]
        assert request.all("transfer-encoding") == []


def test_a_redirect(moongate, origin):
    gate = gate_to(moongate, origin, "function hooks.request(req) return req:redirect('https://' .. "
                                     "req.host .. req.target) end")
    answer = gate.get("/x?y", {"Host": "name"})
    assert answer.status in (301, 302, 307, 308) and answer.headers["location"] == "https://name/x?y"


def test_an_answer_to_head_has_no_body(moongate, origin):
    gate = gate_to(moongate, origin, "function hooks.request(req) return req:respond(200, {}, 'body') end")
    client = gate.client()
    for _ in range(2):
        answer = client.ask("/", method="HEAD")
        assert answer.headers["content-length"] == "4" and answer.body == b""
        assert client.ask("/").body == b"body"


def test_an_answer_while_the_body_comes(moongate, origin):
    gate = gate_to(moongate, origin, "function hooks.request(req) return req:respond(401, {}, 'who') end")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(30):
                s.sendall(b"x" * 10000)
                time.sleep(0.002)
        got = read_all(s)
    assert got.startswith(b"HTTP/1.1 401 ") and got.endswith(b"who")
    # A whole one leaves the connection in step.
    client = gate.client()
    for _ in range(3):
        assert client.ask("/", method="POST", body=b"short").status == 401


# ---- where to


def test_the_route_hook_chooses(moongate, origins):
    one, two = origins(), origins()
    two.reply = OK.replace(b"ok", b"2!")
    gate = moongate(f"upstream one {{ server {one.address}; }} upstream two {{ server {two.address}; }}",
                    "script a.lua; route / one;", script("""
        function hooks.route(req)
          if req.path == "/two" then return "two" end
          if req.path == "/none" then return "nowhere" end
        end"""))
    assert [gate.get(path).text for path in ("/", "/two", "/x")] == ["ok", "2!", "ok"]
    assert gate.get("/none").status in (500, 502)


def test_the_route_hook_is_asked_for_each_attempt(moongate, origins):
    origin = origins()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gate = moongate(f"upstream dead {{ server 127.0.0.1:{closed.getsockname()[1]}; }} upstream app {{ "
                        f"server {origin.address}; }}",
                        "script a.lua; route / dead;",
                        script("function hooks.route(req) if req.attempt > 1 then return 'app' end end"))
        assert gate.get().text == "ok"
    assert gate.stats()["upstream_retries"] == 1


# ---- waiting


def test_a_hook_that_sleeps_holds_nobody_else(moongate, origin):
    gate = gate_to(moongate, origin, "function hooks.request(req) if req.path == '/slow' then "
                                     "gate.sleep(0.5) end end")
    began = time.monotonic()
    done = {}

    def slow():
        done["slow"] = gate.get("/slow").status
        done["time"] = time.monotonic() - began
    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.05)
    client = gate.client()
    for _ in range(50):
        assert client.ask("/").status == 200
    assert time.monotonic() - began < 0.45
    thread.join()
    assert done["slow"] == 200 and 0.45 < done["time"] < 1.5
    assert gate.stats()["script_yields"] == 1


def test_every_hook_may_sleep(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.connect(conn) gate.sleep(0.05) end
        function hooks.request(req) gate.sleep(0.05) end
        function hooks.route(req) gate.sleep(0.05) end
        function hooks.response(req, res) gate.sleep(0.05) res.headers["x-slept"] = "yes" end""")
    client = gate.client()
    for _ in range(2):
        began = time.monotonic()
        answer = client.ask("/", method="POST", body=b"x" * 1000)
        assert answer.status == 200 and answer.headers["x-slept"] == "yes" and time.monotonic() - began > 0.14
    assert origin.requests[0].body == b"x" * 1000


def test_clients_that_go_while_hooks_sleep(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.connect(conn) gate.sleep(0.2) end
        function hooks.request(req) gate.sleep(0.2) req.headers["x"] = "y" end
        function hooks.response(req, res) gate.sleep(0.2) res.headers["x"] = "y" end""")
    for wait in (0.1, 0.3, 0.5):
        for reset in (False, True):
            with gate.connect() as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                time.sleep(wait)
                if reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(0.3)
    eventually(lambda: gate.stats()["requests_active"] == 0 and gate.stats()["connections_active"] == 0)
    assert gate.get().headers["x"] == "y"
    assert gate.stats()["script_errors"] == 0


def test_a_hook_answers_and_goes_on_sleeping(moongate, origin):
    """What the server still sends must not get behind the script's answer."""
    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"o" * 1000
        time.sleep(0.05)
        yield b"o" * 1000
    origin.reply = answer
    gate = gate_to(moongate, origin, "function hooks.response(req, res) req:respond(403, {}, 'mine') "
                                     "gate.sleep(0.2) end")
    client = gate.client()
    for _ in range(3):
        got = client.ask()
        assert (got.status, got.body) in ((403, b"mine"), (500, got.body), (502, got.body))


# ---- failing


def test_an_error_is_500_with_a_traceback_and_nobody_else_sees_it(moongate, origin):
    gate = gate_to(moongate, origin, """
        local function deep(req) local x = nil; return x.field end
        function hooks.request(req) if req.path == "/bad" then deep(req) end end""")
    other = gate.client()
    assert other.ask().status == 200
    bad = gate.client()
    answer = bad.ask("/bad")
    assert answer.status == 500
    number = re.search(r"request (\w+)", answer.text).group(1)
    log = gate.wait_log(rf"error .*{number}").string
    assert re.search(r"a\.lua:4: attempt to index .*x",
                     log) and "traceback" in log and re.search(r"a\.lua:5: in function", log)
    assert bad.ask("/good").status == 200  # the connection lives
    assert other.ask().status == 200
    assert gate.stats()["script_errors"] == 1


def test_each_hook_fails_closed(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.connect(conn) if gate.shared("n"):incr("connects", 1, 0) == 3 then error("c") end end
        function hooks.request(req) if req.path == "/request" then error({}) end end
        function hooks.route(req) if req.path == "/route" then error("r") end end
        function hooks.response(req, res) if req.path == "/response" then error() end end""", "shared n 1m;")
    client = gate.client()
    client.connect()
    assert [client.ask(path).status for path in ("/request", "/route", "/response", "/")] == [500, 500, 502,
                                                                                              200]
    seen = []
    for _ in range(3):
        seen.append(bool(gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")))
    assert seen.count(False) == 1
    assert gate.stats()["script_errors"] == 4


def test_an_error_may_be_passed_over(moongate, origin):
    gate = gate_to(moongate, origin, "function hooks.request(req) error('oh') end",
                   frontend="on_script_error pass;")
    assert gate.get().status == 200
    assert gate.stats()["script_errors"] == 1
    gate.wait_log("oh")


def test_stale_handles_raise(moongate, origin):
    gate = gate_to(moongate, origin, """
        local kept
        function hooks.request(req)
          if req.path == "/keep" then kept = req return end
          local ok, why = pcall(function() return kept.path end)
          local ok2, why2 = pcall(function() kept.headers["x"] = "y" end)
          return req:respond(200, {}, tostring(ok) .. tostring(why) .. tostring(ok2) .. tostring(why2))
        end""")
    gate.get("/keep")
    text = gate.get("/look").text
    assert text.startswith("false") and text.count("stale") == 2 and "true" not in text


@pytest.mark.parametrize("code", ["io.open('/etc/passwd')", "ffi.C.abort()", "dofile('/etc/passwd')",
                                  "a_global = 1", "_G.x = 1", "package.loadlib('x', 'y')"])
def test_the_sandbox_refuses_before_anything_runs(moongate, origin, code):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;",
                    script(f"function hooks.request(req) local x = 1\n {code} end"), start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and "a.lua:4: " in done.stderr, done.stderr


def test_the_sandbox(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req)
          local found = {}
          if os.execute or os.exit or os.remove or os.getenv then found[#found + 1] = "os" end
          local d = debug
          if d and (d.getregistry or d.sethook or d.getupvalue) then found[#found + 1] = "debug" end
          if string.dump then found[#found + 1] = "string.dump" end
          for _, name in ipairs { "ffi", "io", "jit" } do
            if pcall(require, name) then found[#found + 1] = "require " .. name end
          end
          local text = getmetatable("")
          if type(text) == "table" and pcall(function() text.__index = nil end) then
            found[#found + 1] = "string's metatable"
          end
          return req:respond(200, {}, table.concat(found, " "))
        end""")
    assert gate.get().text == ""


# ---- several


def test_several_scripts_run_in_order_and_a_verdict_ends_the_chain(moongate, origin):
    files = {"one.lua": "return { request = function(req) req.headers['x-order'] = 'one' end }",
             "two.lua": """return { request = function(req)
                 if req.path == '/stop' then return req:respond(403, {}, 'two') end
                 req.headers['x-order'] = req.headers['x-order'] .. ',two' end }""",
             "three.lua": "return { request = function(req) req.headers['x-order'] = "
                          "req.headers['x-order'] .. ',three' end }"}
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script one.lua; script two.lua; "
                                                                    "script three.lua; route / app;", files)
    assert gate.get().status == 200
    assert origin.requests[0].all("x-order") == ["one,two,three"]
    assert gate.get("/stop").text == "two"
    assert len(origin.requests) == 1


def test_bodies_go_through_scripts(moongate, origin):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    origin.reply = lambda request: head % len(request.body) + request.body
    gate = gate_to(moongate, origin, """
        function hooks.request_body(req)
          for chunk in req:body() do req:write(chunk:upper()) end
          req:write("!")
        end
        function hooks.response_body(req, res)
          for chunk in res:body() do res:write((chunk:gsub("A", "-"))) end
        end""")
    client = gate.client()
    for size in (1, 1000, 200000):
        answer = client.ask("/", method="POST", body=b"ab" * size)
        assert answer.body == b"-B" * size + b"!"
    assert client.ask("/").body == b""


def test_memory_stays_flat_under_scripts(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req)
          req.headers["x-a"] = string.rep("v", 100) .. req.path
          if req.path == "/error" then error("x") end
        end
        function hooks.response(req, res) res.headers["x-b"] = tostring(gate.now()) end""", level="crit")
    pid = gate.workers()[0]

    client = gate.client()

    def run(count):
        for n in range(count):
            client.ask("/error" if n % 10 == 0 else f"/{n}")
    run(600)
    before = rss(pid)
    run(1200)
    assert SANITIZED or rss(pid) - before < 3 << 20  # a sanitizer keeps what was freed


# ---- errors of moongate's own, and looking back


def test_the_error_hook_changes_what_moongate_answers(moongate, origin):
    origin.reply = None
    gate = gate_to(moongate, origin, """
        function hooks.error(req, res)
          if req.path == "/own" then
            return req:respond(503, { ["retry-after"] = 5 }, "back soon: " .. req.termination .. "\\n")
          end
          res.headers["x-was"] = res.status
          res.status = 500
        end""")
    answer = gate.get("/own")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.body == b"back soon: upstream_closed\n"
    answer = gate.get("/")
    assert (answer.status, answer.headers["x-was"]) == (500, "502")
    assert answer.body.startswith(b"502 Bad Gateway")  # only the head was changed


def test_the_error_hook_sees_what_no_other_hook_does(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.error(req, res)
          res.headers["x-seen"] = res.status .. " " .. req.termination .. " " .. req.conn.remote_ip
        end""", frontend="max_uri 64; header_timeout 300ms;")
    assert b"x-seen: 400 bad_request 127.0.0.1" in gate.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert b"x-seen: 414 limit " in gate.raw(b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"x-seen: 408 header_timeout" in gate.raw(b"GET / HTTP/1.1\r\nHost")
    assert origin.requests == []


def test_an_error_hook_may_wait_and_its_client_go(moongate, origin):
    origin.reply = None
    gate = gate_to(moongate, origin, """
        function hooks.error(req, res)
          gate.sleep(req.path == "/long" and 30 or 0.05)
          res.headers["x-late"] = "yes"
        end""")
    with gate.connect() as s:
        s.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_log("forward -> reply")
    assert gate.get("/").headers["x-late"] == "yes"
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_an_error_hook_that_raises_leaves_a_plain_500(moongate, origin):
    origin.reply = None
    gate = gate_to(moongate, origin, 'function hooks.error(req, res) error("oops") end')
    answer = gate.get("/")
    assert answer.status == 500 and b"500 Internal Server Error" in answer.body
    gate.wait_log("oops")


def test_what_a_script_answers_is_no_error(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req) return req:respond(403, nil, "no") end
        function hooks.error(req, res) res.headers["x-error"] = "yes" end""")
    answer = gate.get("/")
    assert answer.status == 403 and "x-error" not in answer.headers


def test_each_script_of_a_chain_sees_the_error(moongate, origin):
    origin.reply = None
    texts = {f"{name}.lua": "local hooks = {}\n" + f"function hooks.error(req, res) res.headers['x-{name}'] = 'yes' end"
             "\nreturn hooks\n" for name in "ab"}
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; script b.lua; route / app;", texts)
    answer = gate.get("/")
    assert (answer.status, answer.headers["x-a"], answer.headers["x-b"]) == (502, "yes", "yes")


def test_the_log_hook_looks_back(moongate, origin):
    origin.reply = lambda request: None if request.target == "/none" else OK
    gate = gate_to(moongate, origin, """
        function hooks.request(req) req.ctx.user = "fred" end
        function hooks.log(req, res)
          gate.log.notice("seen", req.ctx.user, req.conn.remote_ip, req.target, res.status, res.headers.server,
            req.bytes_received, req.bytes_sent, req.termination, req.total_time < 5, req.first_byte_time < 5,
            req.upstream_time and req.upstream_time < 5)
        end""")
    with contextlib.closing(gate.client()) as client:
        client.ask("/a", method="POST", body=b"four")
        client.ask("/none")
    gate.wait_log(r"seen fred 127.0.0.1 /a 200 origin/1 4 2 none true true true, request [0-9a-f]+")
    gate.wait_log(r"seen fred 127.0.0.1 /none 502 nil 0 \d+ upstream_closed true true ")


def test_a_log_hook_that_waits_holds_nobody(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.log(req, res)
          gate.sleep(0.3)
          gate.log.notice("after", req.path, res.status, pcall(function() return req.conn.remote_ip end))
        end""")
    with contextlib.closing(gate.client()) as client:
        begin = time.monotonic()
        for i in range(5):
            assert client.ask(f"/{i}").status == 200
        assert time.monotonic() - begin < 0.3
    for i in range(5):
        gate.wait_log(rf"after /{i} 200 ")  # the client is gone by then
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_the_log_hook_of_a_client_that_went(moongate, origin):
    release = threading.Event()
    origin.reply = lambda request: release.wait(10) and OK
    gate = gate_to(moongate, origin, """
        function hooks.log(req, res) gate.log.notice("went", res.status, req.termination, req.first_byte_time) end""")
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: len(origin.requests) == 1)
    gate.wait_log("went nil client_(closed|reset) nil")
    release.set()


def test_a_log_hook_decides_nothing(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.log(req, res)
          gate.log.notice(pcall(req.respond, req, 200, nil, "x"))
          error("oops")
        end""")
    with contextlib.closing(gate.client()) as client:
        assert client.ask().body == b"ok" and client.ask().body == b"ok"
    gate.wait_log("too late to answer")
    gate.wait_log("log hook.*oops")


def test_a_hook_that_waits_too_long_has_failed(moongate, origin):
    gate = gate_to(moongate, origin, """
        function hooks.request(req) if req.path == "/long" then gate.sleep(30) end end
        function hooks.response_body(req, res)
          for chunk in res:body() do gate.sleep(0.15) res:write(chunk) end
        end""", frontend="script_time_limit 200ms;")
    origin.reply = lambda request: (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
                                    *(time.sleep(0.05) or b"x" for _ in range(4)))
    begin = time.monotonic()
    assert gate.get("/long").status == 500
    assert time.monotonic() - begin < 5
    gate.wait_log("a.lua:.*script_time_limit|script_time_limit")
    assert gate.get("/").body == b"xxxx"  # longer than the limit in all, but no single wait is


def test_the_route_hook_may_name_an_address(moongate, origins):
    app, other = origins(), origins()
    other.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
    gate = gate_to(moongate, app, "function hooks.route(req) return req.headers['x-to'] end")
    with contextlib.closing(gate.client()) as client:
        assert client.ask().body == b"ok"
        for _ in range(3):
            assert client.ask("/", {"X-To": other.address}).body == b"other"
        for bad in ("10.0.0.1", "*:80", "127.0.0.1:0", "example.org:80", "nobody"):
            assert client.ask("/", {"X-To": bad}).status == 502
    assert other.connections == 1  # pooled
    gate.wait_log('a script chose "nobody", which is neither an upstream of this configuration nor an address or NAME:PORT: ')
    assert len(app.requests) == 1

# SPDX-License-Identifier: BSD-2-Clause
"""What one script, hook or request does stays its own: handles that are kept, errors, and how errors are told."""
import contextlib
import re
import threading

from conftest import eventually

TOP = "local gate = require 'moongate'\nlocal hooks = {}\n"


def make(moongate, origin, text, frontend="", **how):
    return moongate(f"shared d 1m;\nupstream app {{ server {origin.address}; }}\n",
                    f"script a.lua;\nroute / app;\n{frontend}", {"a.lua": TOP + text + "\nreturn hooks\n"}, **how)


# Each a use of what the first request has left in `kept`.
USES = {
    "req.path": "kept.req.path", "req.method": "kept.req.method", "req.readings": "kept.req.readings",
    "req.path =": "kept.req.path = '/x'", "req.query =": "kept.req.query = nil", "req.conn": "kept.req.conn.id",
    "req.total_time": "kept.req.total_time", "req.termination": "kept.req.termination",
    "req:respond": "kept.req:respond(200)", "req:redirect": "kept.req:redirect('/x')", "req:write": "kept.req:write('x')",
    "req:body": "kept.req:body()(kept.req)", "req:read_body": "kept.req:read_body()", "req:set_body": "kept.req:set_body('')",
    "headers[]": "kept.headers['host']", "headers[] =": "kept.headers['x'] = 'y'", "headers[] = nil": "kept.headers['x'] = nil",
    "headers:add": "kept.headers:add('x', 'y')", "headers:all": "kept.headers:all('x')",
    "headers:each": "for name in kept.headers:each() do end", "each that was begun": "kept.each(kept.at)",
    "args": "kept.args.a", "args_each that was begun": "kept.args_each(kept.args_at)",
    "args_all": "kept.req:args_all('a')", "cookies": "kept.cookies.a",
    "res.status": "kept.res.status", "res.status =": "kept.res.status = 200", "res.reason": "kept.res.reason",
    "res.headers": "kept.res.headers['x']", "res.upstream": "kept.res.upstream", "res:write": "kept.res:write('x')",
    "res:body": "kept.res:body()(kept.res)",
    "conn.id": "kept.conn.id", "conn.bytes_in": "kept.conn.bytes_in", "conn:reject": "kept.conn:reject()",
    "conn.local_port": "kept.conn.local_port",
}
KEEP = """
local kept = {}
local function keep(req, res)
  kept.req, kept.res, kept.conn, kept.headers, kept.args, kept.cookies = req, res, req.conn, req.headers, req.args, req.cookies
  kept.each, kept.at = req.headers:each()
  kept.each(kept.at)
  kept.args_each, kept.args_at = req:args_each()
  kept.args_each(kept.args_at)
  local a = req.args.a, req.cookies.a, res.status, res.headers["x"], req.conn.remote_ip
end
local uses = { %s }
local function try_all()
  local said = {}
  for name, use in pairs(uses) do
    local ok, why = pcall(use)
    if ok or not tostring(why):find("a%%.lua:%%d+: stale: the %%a+ is gone") then said[#said + 1] = name .. ": " .. tostring(why) end
  end
  return table.concat(said, "\\n")
end
""" % ", ".join(f"[{name!r}] = function() {'return ' if not re.search(' = |^for', code) else ''}{code} end"
                for name, code in USES.items())
GET = "/keep?a=1&b=2"


def keep_one(gate):
    with contextlib.closing(gate.client()) as client:
        assert client.ask(GET, {"Cookie": "a=1"}).status == 200
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_every_use_of_a_handle_that_is_gone_raises(moongate, origin):
    """Kept in a variable of the script, used in another request of another connection."""
    gate = make(moongate, origin, KEEP + """
        function hooks.request(req)
          if req.path == "/try" then return req:respond(200, nil, try_all()) end
        end
        function hooks.response(req, res) if req.path == "/keep" then keep(req, res) end end""")
    keep_one(gate)
    assert gate.get("/try").text == ""
    # The place in memory is another one's now.
    with contextlib.closing(gate.client()) as client:
        for _ in range(20):
            client.ask("/other")
            assert client.ask("/try").text == ""


def test_a_timer_and_a_task_see_that_it_is_gone(moongate, origin):
    """Of the request whose hook started the timer, and of one whose connection's task looks."""
    gate = make(moongate, origin, KEEP + """
        function hooks.connect(conn)
          gate.spawn(function()
            gate.sleep(0.2)
            kept.conn, kept.conn_mine = nil, kept.conn
            gate.log.notice("in a task <" .. tostring(select(2, pcall(function() return kept.req.path end))) .. ">")
            gate.log.notice("in a task, its own connection <" .. tostring(conn.id == kept.conn_mine.id) .. ">")
            kept.conn = kept.conn_mine
          end)
        end
        function hooks.response(req, res)
          keep(req, res)
          gate.after(0.4, function() gate.log.notice("in a timer <" .. try_all() .. ">") end)
        end""")
    with contextlib.closing(gate.client()) as client:
        assert client.ask(GET).status == 200
        gate.wait_log(r"in a task <a\.lua:\d+: stale: the request is gone>")
        gate.wait_log("in a task, its own connection <true>")
    gate.wait_log("in a timer <>")
    assert gate.stats()["script_errors"] == 0


def test_errors_never_cross_requests(moongate, origin):
    """Requests that wait fail at one after the other, while others on the same coroutines, places and tables go on."""
    gate = make(moongate, origin, """
        function hooks.request(req)
          req.ctx.me = req.args.n
          req.headers["x-n"] = req.args.n
          for i = 1, 5 do
            gate.sleep(0.002)
            if i == 3 and tonumber(req.args.n) % 3 == 0 then error("of " .. req.args.n .. ".") end
            if req.ctx.me ~= req.args.n or req.headers["x-n"] ~= req.args.n then error("mixed up") end
          end
        end
        function hooks.response(req, res)
          gate.sleep(0.002)
          res.headers["x-me"] = req.ctx.me
          if tonumber(req.args.n) % 5 == 0 then error({ of = req.args.n }) end
        end""")
    wrong = []

    def ask(first):
        with contextlib.closing(gate.client()) as client:
            for n in range(first, 240, 8):
                answer = client.ask(f"/?n={n}")
                expected = 500 if n % 3 == 0 else 502 if n % 5 == 0 else 200
                if answer.status != expected or (expected == 200 and answer.headers["x-me"] != str(n)):
                    wrong.append((n, answer.status, answer.headers["x-me"]))
    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    failed = sum(n % 3 == 0 or n % 5 == 0 for n in range(240))
    assert gate.stats()["script_errors"] == failed and "mixed up" not in gate.log()
    # Each that was logged has the line and the id of its own request.
    logged = re.findall(r'script "a\.lua", request hook, request (\w+): a\.lua:9: of (\d+)\.\n *stack traceback:\n'
                        r"(?:\s+\[C\].*\n)?\s+a\.lua:9: in function", gate.log())
    assert logged and len({one for one, _ in logged}) == len(logged) == len({n for _, n in logged})
    eventually(lambda: gate.stats()["handles_active"] == 0 and gate.stats()["scripts_active"] == 0)


def test_tracebacks_are_logged_ten_a_second(moongate, origin):
    gate = make(moongate, origin, "function hooks.request(req) if req.path == '/bad' then error('no') end end")
    ids = []
    with contextlib.closing(gate.client()) as client:
        def more():
            """a line that tells of those which are not logged"""
            ids.extend(re.search(r"request (\w+)", client.ask("/bad").text)[1] for _ in range(50))
            return re.search(r"(\d+) more script errors in the second before were not logged", gate.log())
        assert int(eventually(more, 10, 0.05)[1]) > 30
    lines = re.findall(r'(\d\d:\d\d:\d\d).*script "a\.lua", request hook, request (\w+): a\.lua:3: no\n *stack traceback:',
                       gate.log())
    assert {one for _, one in lines} <= set(ids)
    seconds = [second for second, _ in lines]
    assert max(seconds.count(second) for second in seconds) <= 20  # the clock of the lines is another one
    assert gate.stats()["script_errors"] == len(ids) > len(lines)

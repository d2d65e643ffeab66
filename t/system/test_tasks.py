# SPDX-License-Identifier: BSD-2-Clause
"""What scripts do on nobody's behalf and beside each other: init, worker_init and exit hooks, timers, tasks,
semaphores; and that all of it ends with what it belongs to."""
import contextlib
import os
import signal
import time

import pytest

from conftest import eventually

TOP = "local gate = require 'moongate'\nlocal hooks = {}\n"


def script(text):
    return {"a.lua": TOP + text + "\nreturn hooks\n"}


def make(moongate, text, top="", frontend="", **how):
    """A frontend that answers by itself: what the request hook leaves alone is 404."""
    return moongate("shared d 1m;\n" + top, "script a.lua;\n" + frontend, script(text), **how)


ANSWER = "function hooks.request(req) return req:respond(200, nil, tostring(gate.shared('d'):get('n')) .. '\\n') end\n"


# ---- the life of a configuration


def test_init_worker_init_and_exit(moongate):
    gate = make(moongate, """
        local function note(what) gate.log.notice(what, gate.generation, gate.worker) end
        function hooks.init() gate.sleep(0.05) note("init") end
        function hooks.worker_init() gate.sleep(0.05) note("worker_init") end
        function hooks.exit() gate.sleep(0.05) note("exit") end\n""" + ANSWER, workers=2)
    for worker in range(2):
        gate.wait_log(f"worker_init 1 {worker}")
    gate.reload()
    for worker in range(2):
        gate.wait_log(f"worker_init 2 {worker}")
        gate.wait_log(f"exit 1 {worker}")
    gate.stop()
    log = gate.log()
    for worker in range(2):
        assert f"exit 2 {worker}" in log
        for generation in (1, 2):
            assert log.index(f"init {generation} {worker}") < log.index(f"worker_init {generation} {worker}")


def test_an_init_hook_that_fails_refuses_the_configuration(moongate):
    gate = make(moongate, "function hooks.exit() gate.log.notice('exit', gate.generation) end " + ANSWER)
    assert gate.get("/").status == 200
    gate.write("a.lua", TOP + "function hooks.init()\n gate.sleep(0.01)\n error('no licence')\nend\n"
               "function hooks.exit() gate.log.notice('exit', gate.generation) end return hooks\n")
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1
    assert 'script "a.lua", init hook' in done.stderr and "a.lua:5: no licence" in done.stderr
    assert gate.get("/").status == 200
    assert "exit 2" not in gate.log()  # it was never in use


def test_an_init_hook_that_waits_for_ever_is_given_up(moongate):
    gate = make(moongate, ANSWER, top="reload_timeout 400ms;")
    gate.write("a.lua", TOP + "function hooks.init() gate.sleep(1000) end return hooks\n")
    assert gate.ctl("reload", check=False).returncode == 1
    assert gate.get("/").status == 200
    gate.write("a.lua", TOP + "function hooks.request(req) return req:respond(204) end return hooks\n")
    gate.reload()
    assert gate.get("/").status == 204
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1)


def test_a_worker_that_is_replaced_runs_them_again(moongate):
    gate = make(moongate, "function hooks.worker_init() gate.shared('d'):incr('n') end\n" + ANSWER)
    eventually(lambda: gate.get("/").body == b"1\n")
    os.kill(gate.workers()[0], signal.SIGKILL)

    def answered():
        with contextlib.suppress(OSError):
            return gate.get("/").body == b"2\n"
    eventually(answered)


# ---- timers


def test_after_and_every(moongate):
    gate = make(moongate, """
        local d = gate.shared "d"
        local timer
        timer = gate.every(0.02, function(by)
          if d:incr("n", by) == 10 then timer:cancel() end
        end, 2)
        gate.after(0.05, function(a, b) gate.log.notice("after", a, b) end, "x", nil)
        \n""" + ANSWER)
    gate.wait_log("after x nil")
    eventually(lambda: gate.get("/").body == b"10\n")
    time.sleep(0.1)
    assert gate.get("/").body == b"10\n"


def test_every_does_not_overlap_and_survives_its_errors(moongate):
    gate = make(moongate, """
        local d, inside = gate.shared "d", 0
        gate.every(0.01, function()
          inside = inside + 1
          if inside > 1 then gate.log.error("overlap") end
          gate.sleep(0.03)
          inside = inside - 1
          if d:incr("n") % 2 == 0 then error("second") end
        end)
        \n""" + ANSWER)
    eventually(lambda: int(gate.get("/").body.replace(b"nil", b"0")) >= 4)
    assert "overlap" not in gate.log()
    gate.wait_log(r'script "a.lua", timer: .*a.lua:\d+: second')


def test_timers_stop_when_the_configuration_is_replaced(moongate):
    gate = make(moongate, """
        gate.every(0.01, function() gate.shared("d"):incr("n") end)
        gate.after(0.3, function() gate.log.error("too late") end)\n""" + ANSWER)
    eventually(lambda: gate.get("/").body != b"nil\n")
    with contextlib.closing(gate.client()) as client:
        client.ask("/")
        gate.write("a.lua", TOP + ANSWER + "return hooks\n")
        gate.reload()
        before = gate.get("/").body
        time.sleep(0.5)
        assert gate.get("/").body == before
    assert "too late" not in gate.log()
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1)


def test_a_timer_of_a_request_outlives_it(moongate):
    gate = make(moongate, """
        function hooks.request(req)
          if req.path == "/start" then gate.after(0.05, function(path) gate.shared("d"):set("n", path) end, req.path) end
          return req:respond(200, nil, tostring(gate.shared("d"):get("n")))
        end""")
    assert gate.get("/start").body == b"nil"
    eventually(lambda: gate.get("/").body == b"/start")


def test_the_number_of_timers_is_bounded(moongate):
    gate = make(moongate, """
        function hooks.request(req)
          local made, why = 0
          for i = 1, 20000 do
            local ok, err = pcall(gate.after, 1000, print)
            if not ok then why = err break end
            made = made + 1
          end
          return req:respond(200, nil, made .. " " .. why)
        end""")
    assert gate.get("/").body.startswith(b"10000 ")


# ---- tasks


def test_tasks_run_beside_each_other(moongate):
    gate = make(moongate, """
        function hooks.request(req)
          local function work(seconds, ...) gate.sleep(seconds) return ... end
          local a, b = gate.spawn(work, 0.1, 1, nil, 3), gate.spawn(work, 0.1, "two")
          local c = gate.spawn(function() error("three") end)
          local d = gate.spawn(work, 1000)
          local parts = { tostring(d:wait(0.01)) }
          local winner, place = gate.wait({ a, c, d }, "first")
          parts[#parts + 1] = tostring(winner == c) .. place
          parts[#parts + 1] = tostring(gate.wait({ a, b, c }))
          local ok, x, y, z = a:wait()
          parts[#parts + 1] = tostring(ok) .. tostring(x) .. tostring(y) .. tostring(z)
          parts[#parts + 1] = tostring(select(2, b:wait()))
          ok, x = c:wait()
          parts[#parts + 1] = tostring(ok) .. tostring(x)
          parts[#parts + 1] = tostring(d:cancel())
          ok, x = d:wait()
          parts[#parts + 1] = tostring(ok) .. x
          return req:respond(200, nil, table.concat(parts, ","))
        end""")
    begin = time.monotonic()
    body = gate.get("/").body.decode()
    assert time.monotonic() - begin < 0.5
    assert body.startswith("nil,true2,true,true1nil3,two,false") and body.endswith("three,true,falsecancelled")


def test_a_task_ends_with_its_request(moongate):
    gate = make(moongate, """
        local d = gate.shared "d"
        function hooks.request(req)
          if req.path == "/count" then return req:respond(200, nil, tostring(d:get("n"))) end
          gate.spawn(function() while true do gate.sleep(0.01) d:incr("n") end end)
          gate.sleep(req.path == "/long" and 1000 or 0.1)
          return req:respond(200)
        end""")

    def still():
        before = gate.get("/count").body
        time.sleep(0.1)
        return gate.get("/count").body == before and before != b"nil"
    gate.get("/short")
    eventually(still)
    with gate.connect() as s:
        s.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
        before = gate.get("/count").body
        eventually(lambda: gate.get("/count").body != before)
    eventually(still)


def test_a_task_goes_on_from_hook_to_hook(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;", script("""
        function hooks.request(req) req.ctx.task = gate.spawn(function() gate.sleep(0.05) return "late" end) end
        function hooks.response(req, res) res.headers["x-task"] = select(2, req.ctx.task:wait()) end"""))
    assert gate.get("/").headers["x-task"] == "late"


@pytest.mark.parametrize("where", ["connect", "request", "route", "request_body", "response", "response_body", "error",
                                   "log", "timer", "task"])
def test_everything_that_waits_works_everywhere(moongate, origin, where):
    bodies = {"request_body": "for chunk in req:body() do req:write(chunk) end",
              "response_body": "for chunk in res:body() do res:write(chunk) end"}
    work = f"""
        local done = false
        local inside = gate.semaphore(1)
        local function work()
          local task = gate.spawn(function() gate.sleep(0.01) inside:acquire() inside:release() return 7 end)
          assert(inside:acquire(1))
          gate.sleep(0.02)
          inside:release()
          local ok, seven = task:wait(5)
          gate.log.notice("worked", ok, seven)
          done = true
        end
        if "{where}" == "timer" then gate.after(0, work)
        elseif "{where}" == "task" then
          function hooks.request(req) gate.spawn(work):wait() end
        else
          hooks["{where}"] = function(req, res) if not done then work() end {bodies.get(where, "")} end
        end"""
    if where == "error":
        origin.reply = None
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;", script(work))
    answer = gate.get("/", method="POST", body=b"body")
    assert answer.status == (502 if where == "error" else 200)
    gate.wait_log("worked true 7")


# ---- semaphores


def test_a_semaphore_lets_in_so_many(moongate):
    gate = make(moongate, """
        local door, inside, most = gate.semaphore(3), 0, 0
        function hooks.request(req)
          if req.path == "/most" then return req:respond(200, nil, tostring(most)) end
          if not door:acquire(req.path == "/hurry" and 0.05 or nil) then return req:respond(503) end
          inside = inside + 1
          if inside > most then most = inside end
          gate.sleep(0.1)
          inside = inside - 1
          door:release()
          return req:respond(200)
        end""")
    socks = [gate.connect() for _ in range(12)]
    for s in socks:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    eventually(lambda: gate.stats()["requests_active"] >= 12)
    assert gate.get("/hurry").status == 503
    for s in socks:
        assert b" 200 " in s.recv(100)
        s.close()
    assert gate.get("/most").body == b"3"


def test_what_a_hook_holds_is_given_back(moongate):
    gate = make(moongate, """
        local door = gate.semaphore(1)
        function hooks.request(req)
          if not door:acquire(req.path == "/try" and 0 or nil) then return req:respond(503) end
          if req.path == "/error" then error("inside") end
          if req.path == "/long" then gate.sleep(1000) end
          return req:respond(200)          -- and never goes out
        end
        function hooks.response(req) door:release() end""")
    assert gate.get("/").status == 200
    assert gate.get("/error").status == 500
    assert gate.get("/try").status == 200
    with gate.connect() as s, gate.connect() as waiting:
        s.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: gate.get("/try").status == 503)
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.05)
        s.close()
        assert b" 200 " in waiting.recv(100)
    assert gate.get("/try").status == 200


def test_an_error_that_nobody_waits_for_is_logged(moongate):
    gate = make(moongate, """
        function hooks.request(req)
          local task = gate.spawn(function() error("inside") end)
          if req.path == "/waits" then task:wait() else gate.sleep(0.02) end
          return req:respond(200, nil, select(2, task:wait()))
        end""")
    assert gate.get("/waits").body == b"a.lua:5: inside"
    assert "inside" not in gate.log() and gate.stats()["script_errors"] == 0
    assert gate.get("/").body == b"a.lua:5: inside"
    gate.wait_log(r'script "a\.lua", task: a\.lua:5: inside')
    assert gate.stats()["script_errors"] == 1

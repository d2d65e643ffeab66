# SPDX-License-Identifier: BSD-2-Clause
"""Code that does not end and code that takes all memory, in every hook: what it costs, and that it costs nobody else."""
import contextlib
import os
import re
import threading
import time

import pytest

from conftest import SANITIZED, eventually

# How the code comes to run: for requests to /bad, or (connect and those of a configuration) when the shared
# dictionary says so.
WHOLE = {"request_body": "for c in req:body() do req:write(c) end", "response_body": "for c in res:body() do res:write(c) end"}
SWITCHED = ["init", "worker_init", "exit", "connect"]
HOOKS = {
    "connect": 0, "request": 500, "route": 500, "request_body": 500, "response": 502, "response_body": 502, "error": 500,
    "log": 200, "timer": 200, "task": 200, "resolve": 502,
}
ENDLESS = "while true do end"
GREEDY = "local s = 'x' while true do s = s .. s end"


def script(hook, code):
    bad = f"local function bad()\n{code}\nend\n"
    if hook in SWITCHED:
        body = f"function hooks.{hook}() if gate.shared('d'):get('bad') then bad() end end\n"
    elif hook == "timer":
        body = "function hooks.request(req) if req.path == '/bad' then gate.after(0, bad) end end\n"
    elif hook == "task":
        body = "function hooks.request(req) if req.path == '/bad' then gate.spawn(bad) gate.sleep(0.05) end end\n"
    elif hook == "resolve":
        body = ("function hooks.route(req) if req.attempt > 1 then return req:respond(502) end\n"
                " if req.path == '/bad' then return 'bad.test:9' end end\nfunction hooks.resolve(name) bad() end\n")
    else:
        body = f"function hooks.{hook}(req, res) if req.path == '/bad' then bad() end {WHOLE.get(hook, '')} end\n"
    if hook == "error":
        body += "function hooks.route(req) if req.path == '/bad' then return 'dead' end end\n"
    if hook != "response":
        body += "function hooks.response(req, res) res.headers['x-worker'] = gate.worker end\n"
    return ("local gate = require 'moongate'\nlocal hooks = {}\n" + bad + body + """
        local watched = hooks.request
        function hooks.request(req)
          if req.path == "/switch" then gate.shared("d"):set("bad", true) return req:respond(200) end
          if watched then return watched(req) end
        end
        return hooks\n""")


def make(moongate, origin, hook, code, top, workers=1):
    return moongate(f"shared d 1m;\nupstream app {{ server {origin.address}; }}\nupstream dead {{ server "
                    f"unix:/nonexistent/moongate; }}\n{top}", "script a.lua;\nroute / app;\nroute /unused dead;\n",
                    {"a.lua": script(hook, code)}, workers=workers)


def ask_bad(gate, hook):
    """What a client gets whose connection or request comes to the code: a status, 0 for none."""
    try:
        return gate.get("/bad", method="POST", body=b"body", timeout=30).status
    except OSError:
        return 0


def expected(hook, status):
    """Of a hook that fails; the head of the response may be on its way already."""
    return status == HOOKS[hook] or (hook == "response_body" and status == 0)


class Steady:
    """Asks on one connection, again and again; slowest: the longest that an answer took."""

    def __init__(self, client):
        self.client, self.slowest, self.failed, self.over = client, 0, False, threading.Event()
        client.ask("/")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            begin = time.monotonic()
            try:
                good = self.client.ask("/").status == 200
            except OSError:
                good = False
            if not good:
                self.failed = True
                return
            self.slowest = max(self.slowest, time.monotonic() - begin)
            time.sleep(0.01)

    def end(self):
        self.over.set()
        self.thread.join()
        self.client.close()


@contextlib.contextmanager
def steady_on_each(gate, tries=60):
    """A Steady on each of two workers: by the worker's number."""
    found, clients = {}, []
    for _ in range(tries):
        client = gate.client(5)
        answer = client.ask("/who")
        worker = int(answer.headers["x-worker"])
        if worker not in found:
            found[worker] = client
            if len(found) == 2:
                break
        else:
            clients.append(client)
    for client in clients:
        client.close()
    assert len(found) == 2
    steady = {worker: Steady(client) for worker, client in found.items()}
    try:
        yield steady
    finally:
        for one in steady.values():
            one.end()


def served_again(gate, before):
    """Every worker that is not what it was serves again."""
    now = gate.show("workers")["workers"]
    return [w["pid"] for w in now] != before and all(w["state"] == "serving" for w in now)


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "response"] + ["response", "init"])
def test_endless_code_costs_its_own_worker_alone(moongate, origin, hook):
    gate = make(moongate, origin, hook, ENDLESS, "watchdog 500ms;", workers=2)
    if hook == "response":
        gate.write("b.lua", "local gate = require 'moongate'\nreturn { request = function(req) if req.path == '/who' then "
                            "return req:respond(200, { ['x-worker'] = gate.worker }) end end }")
        gate.config.write_text(gate.config.read_text().replace("script a.lua;", "script b.lua;\nscript a.lua;"))
        gate.reload()
    before = gate.workers()
    with steady_on_each(gate) as steady:
        if hook == "connect":
            assert gate.get("/switch").status == 200
        begin = time.monotonic()
        if hook == "init":
            gate.write("a.lua", "return { init = function() while true do end end }")
            done = gate.ctl("reload", check=False)
            assert done.returncode == 1, done.stdout
        else:
            assert ask_bad(gate, hook) in ((0, 200) if HOOKS[hook] == 200 else (0,))
        eventually(lambda: served_again(gate, before), 8, 0.02)
        took = time.monotonic() - begin
        time.sleep(0.05)
        died = [worker for worker in (0, 1) if gate.workers()[worker] != before[worker]]
    assert len(died) == 1
    other = steady[1 - died[0]]
    assert not other.failed
    if not SANITIZED:
        assert took < 1.5 and other.slowest < 0.4, (took, other.slowest)
    gate.wait_log(rf'worker {died[0]} .*has not turned for .*: it is in the script ".*/a\.lua", hook {hook}; killed')
    assert gate.show("stats")["master"]["watchdog_kills"] == 1
    assert gate.get("/").status == 200 if hook != "connect" else True


@pytest.mark.parametrize("hook", ["worker_init", "exit"])
def test_endless_code_at_the_change_of_a_configuration(moongate, origin, hook):
    """These run in all workers; the way out is the next configuration."""
    gate = make(moongate, origin, hook, ENDLESS, "watchdog 500ms;", workers=2)
    before = gate.workers()
    assert gate.get("/switch").status == 200
    if hook == "worker_init":
        gate.ctl("reload", check=False)
    gate.write("a.lua", "local gate = require 'moongate'\nreturn { request = function(req) return req:respond(204) end }")
    gate.ctl("reload", check=False)
    gate.wait_log(rf'has not turned for .*: it is in the script ".*/a\.lua|of an earlier generation", hook {hook}; killed')

    def serves():
        with contextlib.suppress(OSError):
            return gate.get("/").status == 204
    eventually(serves, 10)
    eventually(lambda: served_again(gate, before), 10)


LIMITS = {
    ENDLESS: ("script_safe on; script_run_limit 100ms; watchdog 20s;",
              r"a\.lua:\d+: this ran for longer than script_run_limit without waiting"),
    GREEDY: ("script_memory_limit 8m; script_safe on; script_run_limit 20s; watchdog 60s;", 
             r"a\.lua:\d+: the scripts of this worker hold script_memory_limit already"),
}


@pytest.mark.parametrize("code", LIMITS, ids=["endless", "greedy"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_limit_ends_it_and_the_worker_lives(moongate, origin, hook, code):
    top, message = LIMITS[code]
    gate = make(moongate, origin, hook, code, top)
    workers = gate.workers()
    with contextlib.closing(gate.client(20)) as other:
        assert other.ask("/").status == 200
        if hook in SWITCHED:
            assert other.ask("/switch").status == 200
        begin = time.monotonic()
        for errors in (1, 2):
            assert expected(hook, ask_bad(gate, hook))
            assert time.monotonic() - begin < (15 if SANITIZED else 3)
            eventually(lambda: gate.stats()["script_errors"] == errors)
            assert other.ask("/").body == b"ok"
    assert gate.workers() == workers
    where = hook if hook in ("timer", "task") else hook + " hook"
    gate.wait_log(rf'script "a\.lua", {where}.*: .*({message})\n *stack traceback:\n')


@pytest.mark.parametrize("code", LIMITS, ids=["endless", "greedy"])
@pytest.mark.parametrize("hook", ["init", "worker_init", "exit"])
def test_a_limit_ends_it_at_the_change_of_a_configuration(moongate, origin, hook, code):
    top, message = LIMITS[code]
    gate = make(moongate, origin, hook, code, top, workers=2)
    workers = gate.workers()
    assert gate.get("/switch").status == 200
    done = gate.ctl("reload", check=False)
    assert done.returncode == (1 if hook == "init" else 0)
    assert hook != "init" or re.search(message, done.stderr), done.stderr
    if hook != "init":
        gate.wait_log(rf'script "a\.lua", {hook} hook: .*({message})')
    assert gate.get("/").body == b"ok" and gate.workers() == workers
    eventually(lambda: all(len(w["generations"]) == 1 for w in gate.show("generations")["workers"]))


@pytest.mark.skipif(SANITIZED, reason="what memory measures there says nothing")
def test_thousands_that_sleep_cost_a_few_kib_each(moongate):
    """Connections that wait in their request hook, and tasks; more again and again, until memory is steady."""
    gate = moongate("", "script a.lua;", {"a.lua": """
        local gate = require "moongate"
        local hooks = {}
        function hooks.request(req)
          if req.path == "/tasks" then
            for i = 1, 5000 do gate.spawn(gate.sleep, 1000) end
            gate.sleep(1000)
          end
          if req.path == "/sleep" then gate.sleep(1000) end
          return req:respond(200)
        end
        return hooks"""}, connections=8192)

    def settled():
        """Lua's own and resident memory once the worker has said them anew."""
        time.sleep(0.6)
        worker = gate.show("workers")["workers"][0]
        return worker["lua_memory"], worker["memory"]
    assert gate.get("/").status == 200
    for path, clients, each in (("/sleep", 3000, 1), ("/tasks", 1, 5001)):
        lua, memory = settled()
        socks = [gate.connect() for _ in range(clients)]
        for s in socks:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        eventually(lambda: gate.stats()["scripts_active"] == clients * each, 20)
        lua_after, memory_after = settled()
        count = clients * each
        lua_kib, kib = (lua_after - lua) / 1024 / count, (memory_after - memory) / 1024 / count
        print(f"{path}: {lua_kib:.2f} KiB of Lua's, {kib:.2f} KiB in all, each of {count}")
        assert lua_kib < 2 and kib < 8
        for s in socks:
            s.close()
        eventually(lambda: gate.stats()["scripts_active"] == 0, 20)
        assert gate.stats()["timers_active"] == 0

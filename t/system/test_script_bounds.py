# SPDX-License-Identifier: BSD-2-Clause
"""Scripts that use up memory or time: the hook fails, the worker lives and serves others. Each hook has its turn in
test_script_endless.py; here are the ways to do it."""
import contextlib
import time

import pytest

from conftest import SANITIZED, eventually

def make(moongate, origin, text, top):
    return moongate(f"upstream app {{ server {origin.address}; }}\n{top}", "script a.lua;\nroute / app;",
                    {"a.lua": "local gate = require 'moongate'\nlocal hooks = {}\n" + text + "\nreturn hooks\n"})


def at_bad(hook, code):
    """The hook does that for /bad, and lets everything else pass."""
    rest = {"request_body": "for c in req:body() do req:write(c) end",
            "response_body": "for c in res:body() do res:write(c) end"}.get(hook, "")
    return f"hooks['{hook}'] = function(req, res)\n if req.path == '/bad' then {code} end\n {rest}\nend"


def ask_bad(gate, hook):
    try:
        answer = gate.get("/bad", method="POST", body=b"body", timeout=30)
    except OSError:
        assert hook == "response_body"  # the head was on its way already
    else:
        assert answer.status == (502 if hook.startswith("response") else 500)


TAKES_MEMORY = ["local t = {} for i = 1, 1e9 do t[i] = tostring(i) end",
                "local s = 'x' while true do s = s .. s end",
                "for i = 1, 1e9 do if not pcall(string.rep, 'x', 1e8) then error('caught') end end"]


@pytest.mark.parametrize("hook, code", [("request", TAKES_MEMORY[0]), ("request", TAKES_MEMORY[2]),
                                        ("response_body", TAKES_MEMORY[1])])
def test_a_script_that_takes_all_memory_fails_alone(moongate, origin, hook, code):
    gate = make(moongate, origin, at_bad(hook, code), "script_memory_limit 8m; script_safe on; script_run_limit 20s;")
    worker = gate.workers()
    with contextlib.closing(gate.client()) as other:
        assert other.ask("/").status == 200
        for _ in range(2):
            ask_bad(gate, hook)
            assert other.ask("/").body == b"ok"
    assert gate.workers() == worker
    gate.wait_log("script_memory_limit|caught")


def test_compiled_code_that_takes_all_memory_fails_alone(moongate, origin):
    gate = make(moongate, origin, at_bad("request", "local t = {} for i = 1, 1e9 do t[i % 1e5] = tostring(i) .. ('x'):rep(999) end"),
                "script_memory_limit 16m;")
    worker = gate.workers()
    with contextlib.closing(gate.client()) as other:
        for _ in range(5):
            ask_bad(gate, "request")
            assert other.ask("/").body == b"ok"
    assert gate.workers() == worker
    gate.wait_log(r"the scripts of this worker hold script_memory_limit already\n *stack traceback:\n\s+a.lua")


def test_compiled_code_that_asks_for_far_too_much_costs_the_worker(moongate, origin):
    gate = make(moongate, origin, at_bad("request", "req.ctx.x = ('x'):rep(1e9)"), "script_memory_limit 32m;")
    with contextlib.suppress(OSError):
        gate.get("/bad")
    gate.wait_log(r'script "a.lua", request: asked for \d+ bytes, far beyond script_memory_limit: this worker ends')

    def serves():
        with contextlib.suppress(OSError):
            return gate.get("/").body == b"ok"
    eventually(serves)


def test_what_is_kept_is_bounded_too(moongate, origin):
    gate = make(moongate, origin, """
        local kept = {}
        function hooks.request(req)
          if req.path == "/free" then kept = {} return end
          for i = 1, 64 do kept[#kept + 1] = ("x"):rep(16384) .. #kept end
        end""", "script_memory_limit 16m;")
    with contextlib.closing(gate.client()) as client:
        answers = [client.ask("/").status for _ in range(40)]
        assert answers[0] == 200 and answers[-1] == 500
        for _ in range(3):
            client.ask("/free")
        assert client.ask("/").status == 200


def test_garbage_is_collected_before_it_counts(moongate, origin):
    gate = make(moongate, origin, "function hooks.request(req) req.ctx.x = ('x'):rep(200000) .. req.id end",
                "script_memory_limit 8m;")
    with contextlib.closing(gate.client()) as client:
        assert {client.ask("/").status for _ in range(400)} == {200}


ENDLESS = ["while true do end", "while true do pcall(function() while true do end end) end",
           "local n = 0 while true do n = n + #tostring(n) end"]


@pytest.mark.parametrize("hook, code", [("request", ENDLESS[1]), ("request", ENDLESS[2]), ("response_body", ENDLESS[0])])
def test_endless_code_is_stopped_with_script_safe(moongate, origin, hook, code):
    gate = make(moongate, origin, at_bad(hook, code), "script_safe on; script_run_limit 100ms; watchdog 20s;")
    worker = gate.workers()
    begin = time.monotonic()
    ask_bad(gate, hook)
    assert time.monotonic() - begin < (10 if SANITIZED else 3)
    assert gate.get("/").body == b"ok"
    assert gate.workers() == worker
    gate.wait_log(r"a\.lua:\d+: this ran for longer than script_run_limit without waiting")


def test_code_that_waits_may_take_long(moongate, origin):
    gate = make(moongate, origin, """
        function hooks.request(req)
          local till = gate.now() + 0.5
          while gate.now() < till do gate.sleep(0.01) end
        end""", "script_safe on; script_run_limit 100ms;")
    assert gate.get("/").status == 200


def test_a_script_that_does_not_come_to_its_end_while_it_loads(moongate, origin):
    gate = make(moongate, origin, "function hooks.request(req) end", "script_safe on; script_run_limit 100ms;")
    gate.write("a.lua", "while true do end")
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and "script_run_limit" in done.stderr
    assert gate.get("/").status == 200

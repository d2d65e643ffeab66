# SPDX-License-Identifier: BSD-2-Clause
"""The libraries of scripts in a running moongate: every example of the manual, require, and what outlives a reload or
the death of a worker."""
import os
import re
import signal

import pytest

from conftest import SRCDIR, eventually

LIBRARIES = sorted((SRCDIR / "lua/moongate").glob("*.lua"))

# An example may need what is made while a script loads; such lines go to the script's beginning.
WHOLE_MADE_WHILE_LOADING = "gate.health("
MADE_WHILE_LOADING = re.compile(r"^local \w+ *= gate\.(shared|counter|gauge|histogram)\b")
# local name = ...    -- value
SAYS_WHAT_COMES = re.compile(r"^local (\w+)\s*=.*\S\s+-- (.+)$")


def examples(files=tuple(LIBRARIES)):
    for file in files:
        block, lines = None, None
        for line in file.read_text().splitlines() + [""]:
            text = re.match(r"^---(?: (.*))?$", line)
            if not text:
                if lines:
                    yield pytest.param("\n".join(lines), id=f"{file.stem}:{block}")
                block = lines = None
                continue
            text = text[1] or ""
            if block is None:
                block = text
            if text.startswith("@"):
                if lines:
                    yield pytest.param("\n".join(lines), id=f"{file.stem}:{block}")
                lines = [] if text == "@example" else None
            elif lines is not None:
                lines.append(re.sub("^  ", "", text))


def test_the_manual_has_examples_of_the_libraries():
    assert len(list(examples())) > 30


def is_hook(example):
    return "function hooks." in example


def as_script(all_examples):
    """All examples in one script: the one whose number the path names runs."""
    top, functions = [], []
    for number, example in enumerate(all_examples):
        body = []
        if example.startswith(WHOLE_MADE_WHILE_LOADING):
            top.append(example)
            functions.append(f'["/{number}"] = function() end,')
            continue
        for line in example.splitlines():
            if MADE_WHILE_LOADING.match(line):
                if line not in top:
                    top.append(line)
                continue
            body.append(line)
            says = SAYS_WHAT_COMES.match(line)
            if says:
                body.append(f"assert({says[1]} == {says[2]}, {says[1]})")
        functions.append(f'["/{number}"] = function(req, res)\n' + "\n".join(body) + "\nend,")
    return ('local gate = require "moongate"\n' + "\n".join(top) + "\nlocal examples = {\n" + "\n".join(functions)
            + "\n}\nreturn { response = function(req, res) examples[req.path](req, res) end }\n")


def test_every_example_of_the_manual_runs(moongate, origin):
    every = [one.values[0] for one in examples() if not is_hook(one.values[0])]
    names = [one.id for one in examples() if not is_hook(one.values[0])]
    gate = moongate(f"shared limits 1m; shared jobs 1m; upstream app {{ server {origin.address}; }}",
                    "script a.lua; route / app;", {"a.lua": as_script(every)})
    client = gate.client()
    failed = [names[n] for n in range(len(every)) if client.ask(f"/{n}", {"Cookie": "session=x"}).status != 200]
    assert not failed, gate.log


@pytest.mark.parametrize("example", [one for one in examples() if is_hook(one.values[0])])
def test_every_hook_that_is_an_example_runs(moongate, origin, example):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;",
                    {"a.lua": 'local gate = require "moongate"\nlocal hooks = {}\n' + example + "\nreturn hooks\n"})
    form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    for content_type, body in (("text/plain", b"a text"), ("multipart/form-data; boundary=x", form),
                               ("application/x-www-form-urlencoded", b"a=1&b=2")):
        got = gate.get("/", method="POST", headers={"Content-Type": content_type}, body=body)
        assert got.status == 200, gate.log()
    assert " error " not in gate.log()


# ---- require

HOOK = "return { request = function(req) return req:respond(200, {}, %s) end }\n"


def test_modules_of_debian_are_found(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": """
        local lpeg, re, cjson = require "lpeg", require "re", require "cjson.safe"
        local words = lpeg.Ct((lpeg.C(lpeg.R "az" ^ 1) + 1) ^ 0)
    """ + HOOK % "cjson.encode(words:match 'a-moon, b') .. re.match('x', '{.}')"})
    assert gate.get("/").text == '["a","moon","b"]x'


def test_a_module_of_the_scripts_folder_comes_first(moongate):
    gate = moongate("", "script a.lua;",
                    {"lpeg.lua": "return 'ours'", "a.lua": "local lpeg = require 'lpeg' " + HOOK % "lpeg"})
    assert gate.get("/").text == "ours"


@pytest.mark.parametrize("name", ["ffi", "io", "socket", "jit.util", "cjson.util"])
def test_other_modules_are_refused_with_the_cure(moongate, name):
    gate = moongate(start=False, files={"a.lua": f"local x = require '{name}' return {{}}"})
    gate.configure("", "script a.lua;")
    done = gate.run("-t")
    assert done.returncode == 1
    assert f'no module "{name}" in the folders of scripts' in done.stderr and "script_unsafe on" in done.stderr
    assert "a.lua:1: " in done.stderr


def test_a_module_in_the_current_folder_is_not_loaded(moongate, tmp_path, monkeypatch):
    (tmp_path / "re.lua").write_text("error('loaded from the current folder')")
    (tmp_path / "cjson.so").write_bytes(b"no library")
    monkeypatch.chdir(tmp_path)
    gate = moongate("", "script a.lua;",
                    {"a.lua": "local re, json = require 're', require 'cjson' " + HOOK % "json.encode {re.match('a', '.')}"})
    assert gate.get("/").text == "[2]"


def test_a_hook_loads_no_module_of_the_system(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": HOOK % "tostring(require 'lpeg')"})
    assert gate.get("/").status == 500
    gate.wait_log("loaded while a script loads, not in a hook")


NOWHERE = {"LUA_PATH": "/nonexistent/?.lua", "LUA_CPATH": "/nonexistent/?.so"}


def test_without_the_packages_all_else_works_and_they_are_named(moongate):
    gate = moongate(start=False, files={"a.lua": """
        local gate = require "moongate"
        return { request = function(req)
          if req.path == "/json" then return req:respond(200, {}, gate.json.encode {}) end
          return req:respond(200, {}, gate.hex.encode "m")
        end }"""})
    gate.configure("", "script a.lua;")
    gate.start(**NOWHERE)
    assert gate.get("/").text == "6d" and gate.get("/json").status == 500
    gate.wait_log(r"a.lua:4: gate.json.encode needs Lua's module cjson: not installed .Debian: apt-get install lua-cjson")
    gate.write("a.lua", "local lpeg = require 'lpeg' return {}")
    done = gate.run("-t", **NOWHERE)
    assert done.returncode == 1 and "not installed (Debian: apt-get install lua-lpeg)" in done.stderr


def test_script_unsafe_loads_what_is_there(moongate):
    gate = moongate("script_unsafe on;", "script a.lua;",
                    {"a.lua": "local ffi = require 'ffi' " + HOOK % "ffi.os"})
    assert gate.get("/").text == "Linux"


# ---- metrics

COUNTING = """
    local gate = require "moongate"
    local seen = gate.counter("seen_total", 'requests\\nby "method"', { "method", "host" })
    local plain = gate.counter("plain_total")
    local level = gate.gauge("level", "", { "tank" })
    local spread = gate.histogram("spread_seconds", "spread", { "kind" }, { 0.1, 1, 2.5 })
    return { request = function(req)
      seen:inc(1, req.method, req.headers["x-host"] or "none")
      plain:inc(0.5)
      level:set(2, "left")
      spread:observe(tonumber(req.args.s or "0.05"), "k")
      return req:respond(200, {}, tostring(gate.worker))
    end }
"""


def lines(gate):
    """The samples of the text format: name with labels -> value."""
    text = gate.ctl("show", "metrics").stdout
    for line in text.splitlines():
        assert re.match(r'^(# (HELP|TYPE) [a-zA-Z_:][\w:]* .*|[a-zA-Z_:][\w:]*(\{(\w+="([^"\\]|\\[\\"n])*",?)*\})? \S+)$', line), line
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_metrics_are_summed_over_the_workers(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": COUNTING}, workers=2)
    who = set()
    for n in range(1, 200):
        who.add(gate.get("/").text)
        if len(who) == 2:
            break
    assert who == {"0", "1"}
    gate.get("/?s=0.5")
    gate.get("/?s=99", {"X-Host": 'a"b\\c\u00fc\u0001'.encode().replace(b"\x01", b"")})
    got = lines(gate)
    total = n + 2
    assert got['seen_total{method="GET",host="none"}'] == str(n + 1)
    assert got['seen_total{method="GET",host="a\\"b\\\\c\u00fc"}'] == "1"
    assert float(got["plain_total"]) == total / 2
    assert got['level{tank="left"}'] == "4"
    assert got['spread_seconds_bucket{kind="k",le="0.1"}'] == str(n)
    assert got['spread_seconds_bucket{kind="k",le="1"}'] == got['spread_seconds_bucket{kind="k",le="2.5"}'] == str(n + 1)
    assert got['spread_seconds_bucket{kind="k",le="+Inf"}'] == got['spread_seconds_count{kind="k"}'] == str(total)
    assert abs(float(got['spread_seconds_sum{kind="k"}']) - (0.05 * n + 99.5)) < 1e-6
    assert int(got["moongate_requests_total"]) == total
    assert "moongate_connections_active" in got and "moongate_reloads_total" in got
    text = gate.ctl("show", "metrics").stdout
    assert '# HELP seen_total requests\\nby "method"\n# TYPE seen_total counter\n' in text
    assert "# TYPE level gauge\n" in text and "# TYPE spread_seconds histogram\n" in text
    assert "# TYPE moongate_connections_active gauge\n" in text and "# TYPE moongate_requests_total counter\n" in text


def test_metrics_as_json_say_the_same(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": COUNTING})
    gate.get("/?s=0.5", {"X-Host": 'a"b'})
    got = {metric["name"]: metric for metric in gate.show("metrics")["metrics"]}
    assert got["seen_total"]["series"] == [{"labels": {"method": "GET", "host": 'a"b'}, "value": 1}]
    assert got["seen_total"]["type"] == "counter" and got["seen_total"]["help"] == 'requests\nby "method"'
    assert got["spread_seconds"]["series"] == [{"labels": {"kind": "k"}, "count": 1, "sum": 0.5, "buckets": [
        {"le": 0.1, "count": 0}, {"le": 1, "count": 1}, {"le": 2.5, "count": 1}]}]
    assert got["moongate_requests_total"]["series"][0]["value"] == 1


def kill_worker(gate):
    """Kills the only worker and waits for the next one."""
    (pid,) = gate.workers()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gate.show("workers")["workers"][0]["state"] == "serving" and gate.workers() != [pid])


def test_metrics_survive_reloads_and_the_death_of_a_worker(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": COUNTING})
    gate.get("/")
    gate.reload()
    gate.get("/")
    assert lines(gate)['seen_total{method="GET",host="none"}'] == "2"
    kill_worker(gate)
    got = lines(gate)
    assert got['seen_total{method="GET",host="none"}'] == "2" and got['level{tank="left"}'] == "0"
    gate.get("/")
    assert lines(gate)['seen_total{method="GET",host="none"}'] == "3"
    # One that a reload does not name any more stays as it is; one that would change refuses the reload.
    gate.write("a.lua", "local gate = require 'moongate'\ngate.gauge('seen_total') return {}")
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and "changes only with a restart" in done.stderr and "a.lua:2: " in done.stderr
    gate.write("a.lua", "return {}")
    gate.reload()
    assert lines(gate)['seen_total{method="GET",host="none"}'] == "3"


def test_values_of_labels_are_bounded(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": """
        local gate = require "moongate"
        local seen = gate.counter("seen_total", "", { "n" })
        return { request = function(req)
          for n = 1, 1500 do seen:inc(1, n) end
          return req:respond(200)
        end }"""})
    gate.get("/")
    gate.get("/")
    got = lines(gate)
    assert got['seen_total{n="1"}'] == got['seen_total{n="1000"}'] == "2"
    assert got['seen_total{n="other"}'] == "1000" and 'seen_total{n="1001"}' not in got
    assert gate.stats()["metric_series_lost"] == 1000


# ---- dictionaries

SHARED = """
    local gate = require "moongate"
    local all, mine = gate.shared "jobs", gate.shared("jobs", { generation = true })
    return { request = function(req)
      if req.path == "/hammer" then
        for n = 1, 1e9 do
          all:rpush("list", n) all:lpop("list") all:incr("n") all:cas("c", nil, 1) all:cas("c", 1, nil)
        end
      end
      local keys = mine:keys()
      return req:respond(200, {}, all:rpush("seen", gate.generation) .. " " .. mine:incr("seen") .. " " .. #keys)
    end }
"""


def test_a_namespace_begins_anew_with_each_generation(moongate):
    gate = moongate("shared jobs 1m;", "script a.lua;", {"a.lua": SHARED})
    assert [gate.get("/").text for _ in range(2)] == ["1 1 0", "2 2 1"]
    gate.reload()
    assert [gate.get("/").text for _ in range(2)] == ["3 1 0", "4 2 1"]


def test_lists_are_whole_after_workers_were_killed(moongate):
    gate = moongate("shared jobs 1m;", "script a.lua;", {"a.lua": SHARED})
    before = 0
    for _ in range(5):
        with gate.connect() as s:
            s.sendall(b"GET /hammer HTTP/1.1\r\nHost: h\r\n\r\n")
            eventually(lambda: gate.stats()["requests"] > before)
            kill_worker(gate)
        gate.get("/")
        before = gate.stats()["requests"]
    assert gate.get("/").text.startswith("6 ")

# SPDX-License-Identifier: BSD-2-Clause
"""LuaJIT compiles what scripts do with requests: told by its own module (jit.v), as MOONGATE_SCRIPT_TRACE asks for."""
import contextlib
import re
from pathlib import Path

import pytest

from conftest import SRCDIR, free_port

pytestmark = pytest.mark.skipif(not list(Path("/usr/share").glob("luajit-2.1*/jit/v.lua")),
                                reason="no jit.v (Debian: libluajit2-5.1-common)")

OURS = r"(?:moongate[\w.]*|firewall\.lua|demo\.lua|router\.lua|ratelimit\.lua|a\.lua)"


def compiled(log):
    """Where traces begin that were compiled, as file:line; those that follow from another trace do not count."""
    return set(re.findall(r"^\[TRACE +\d+ (\S+:\d+) ", log, re.M))


def given_up(log):
    return [line for line in re.findall(r"^\[TRACE ---.*", log, re.M) if re.search(OURS + r":\d+", line)]


def line_of(name, text):
    """file:line of a ready-made script."""
    lines = (SRCDIR / "lua" / name).read_text().splitlines()
    return f"{name}:{1 + next(n for n, line in enumerate(lines) if line.strip() == text)}"


def load(gate, paths, hooks):
    """Asks until traces begin at all these lines; what LuaJIT has said meanwhile. It takes its time for some."""
    before = len(gate.log())
    with contextlib.closing(gate.client()) as client:
        for _ in range(20):
            for _ in range(200):
                for path in paths:
                    client.ask(path, {"X-A": "b"})
            if hooks <= compiled(gate.log()):
                break
    assert hooks <= compiled(gate.log()), (hooks, gate.log())
    return gate.log()[before:]


def test_header_fields_are_read_and_written_by_compiled_code(moongate, origin, monkeypatch):
    monkeypatch.setenv("MOONGATE_SCRIPT_TRACE", "1")
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;", {"a.lua": """
        return {
          request = function(req)
            local value = req.headers["x-a"]
            if value == "b" then req.headers["x-c"] = value .. req.path end
            req.headers["x-gone"] = nil
            req.headers:add("x-more", req.method)
            req.headers["x-real-ip"] = req.conn.remote_ip
          end,
          response = function(req, res)
            res.headers["server"] = nil
            if res.status == 200 then res.headers["x-length"] = res.headers["content-length"] end
          end,
        }"""}, level="notice")
    log = load(gate, ["/"], {"a.lua:3", "a.lua:10"})
    assert not given_up(log)
    assert origin.requests[-1].header("x-c") == "b/" and origin.requests[-1].header("x-more") == "GET"


def test_the_demo_is_compiled(moongate, monkeypatch):
    """Its firewall, router, limits and origin, as conf/demo.conf has them."""
    monkeypatch.setenv("MOONGATE_SCRIPT_TRACE", "1")
    gate = moongate(start=False)
    text = (SRCDIR / "conf/demo.conf").read_text()
    for port in ("8080", "8081", "8082"):
        mine = free_port()
        gate.port = mine if port == "8080" else gate.port
        text = re.sub(rf"(127\.0\.0\.1:){port}\b", rf"\g<1>{mine}", text)
    for name, value in (("control", gate.socket), ("pid_file", gate.pidfile), ("scripts", SRCDIR / "lua"),
                        ("error_log", "stderr notice")):
        text = re.sub(rf"^{name} .*", f"{name} {value};", text, flags=re.M)
    text = re.sub("access_log stderr;", "", text).replace("rate=1000 burst=2000", "rate=100000 burst=200000")
    gate.config.write_text("workers 1;\n" + text)
    gate.start()
    hooks = {line_of("firewall.lua", "function hooks.request(req)"), line_of("demo.lua", "function hooks.request(req)"),
             line_of("ratelimit.lua", "function hooks.request(req)")}
    log = load(gate, ["/", "/headers", "/status/404", "/a/b"], hooks)
    # What LuaJIT does give up: a loop by itself that is gone round once a request (it is compiled with what is around
    # it), and to go on behind the end of a hook.
    wrong = [line for line in given_up(log) if not re.search("leaving loop|inner loop|JIT compilation disabled", line)]
    assert not wrong, wrong

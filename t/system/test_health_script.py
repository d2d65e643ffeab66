# SPDX-License-Identifier: BSD-2-Clause
"""Health by script (health script NAME, gate.health): what functions say of real servers, how they fail, that one worker
asks for all, and what a reload makes of them."""
import re
import socket
import threading
import time

import pytest

from conftest import eventually

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVERY = "every=200ms timeout=150ms jitter=0 rise=2 fall=2"

# Sends a line to the server by a socket of its own; what it is answered decides.
PING = """
local gate = require "moongate"
gate.health("ping", function(server)
  local sock, why = gate.tcp.connect(server.address)
  if not sock then return false, why end
  sock:send("GET /ping HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
  local head, failed = sock:receive_until("\\r\\n\\r\\n")
  if not head then return false, failed end
  local word = sock:receive(2)
  return word == "ok", "it says " .. tostring(word)
end)
return {}
"""


def script(body):
    return 'local gate = require "moongate"\ngate.health("one", function(server)\n' + body + "\nend)\nreturn {}\n"


def pings(origin):
    return sum(request.target == "/ping" for request in list(origin.requests))


def answering(word, other=GOOD):
    return lambda request: (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + word if request.target == "/ping" else other)


def asked(gate, *made, count=10):
    before = [sum(request.target == "/x" for request in list(origin.requests)) for origin in made]
    assert all(gate.get("/x").status == 200 for _ in range(count))
    return [sum(request.target == "/x" for request in list(origin.requests)) - old for origin, old in zip(made, before)]


def start(moongate, made, text, name="one", more=EVERY, **how):
    lines = " ".join(f"server {origin.address};" for origin in made)
    return moongate(f"upstream app {{ {lines} health script {name} {more}; }}", "script a.lua; route / app;",
                    files={"a.lua": text}, **how)


def test_a_function_says_who_is_well(moongate, origins):
    a, b = origins(), origins()
    a.reply, b.reply = answering(b"no"), answering(b"ok")
    gate = start(moongate, [a, b], PING, "ping", workers=2)
    gate.wait_log(rf'server "{a.address}" is down: it says no \(check\)')
    assert asked(gate, a, b) == [0, 10]
    shown = {server["server"]: server for server in gate.show("upstreams")["upstreams"][0]["servers"]}
    assert shown[a.address]["state"] == "unhealthy" and shown[a.address]["check_failure"] == "it says no"
    assert shown[b.address]["check"] == "up"
    a.reply = answering(b"ok")
    gate.wait_log(rf'"{a.address}" is up')
    assert min(asked(gate, a, b)) >= 3
    # Those that have gone are found gone.
    b.close()
    gate.wait_log(rf'"{b.address}" is down: .*')


def test_one_worker_asks_for_all(moongate, origin):
    origin.reply = answering(b"ok")
    gate = start(moongate, [origin], PING, "ping", "every=200ms timeout=150ms jitter=0", workers=4)
    eventually(lambda: pings(origin) > 0)
    first, began = pings(origin), time.monotonic()
    eventually(lambda: pings(origin) >= first + 10, 20)
    assert time.monotonic() - began > 10 * 0.2 * 0.9
    assert gate.stats()["health_checks"] <= pings(origin) + 1


def test_a_function_may_fetch(moongate, origins):
    a, b = origins(), origins()
    a.reply, b.reply = answering(b"no"), answering(b"ok")
    gate = start(moongate, [a, b], script(
        '  local res, why = gate.fetch("http://" .. server.address .. "/ping", { timeout = 1 })\n'
        '  return res and res.body == "ok", why or "its body is " .. res.body'),
        more=EVERY.replace("200ms", "500ms").replace("150ms", "400ms"))
    gate.wait_log(rf'server "{a.address}" is down: its body is no')
    assert f'"{b.address}" is down' not in gate.log()


FAILURES = {  # what it does, what is said of the server
    "an error": ('  error("oh no")', r".*a\.lua:4: oh no"),
    "nothing": ("  return", "its health function says so"),
    "a number": ("  return 5", r".*a\.lua:2: the health function returned a number: expected true, or false and why"),
    "no time": ("  gate.sleep(10)", "no answer within 150ms"),
    "two lines": ('  return false, "first\\nsecond"', "first"),
    "long": ('  return false, ("x"):rep(500)', "x+"),
    "no text": ("  return false, {}", "table: .*"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_a_check(name, moongate, origins):
    a, b = origins(), origins()
    body, why = FAILURES[name]
    gate = start(moongate, [a, b], script(f'  if server.address ~= "{a.address}" then return true end\n{body}'))
    gate.wait_log(rf'server "{a.address}" is down: {why} \(check\)')
    assert asked(gate, a, b) == [0, 10] and f'"{b.address}" is down' not in gate.log()


def test_what_a_check_has_opened_ends_with_it(moongate, origin):
    """The server never answers on it: the check's time ends, and the connection with it."""
    ended = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            while True:
                try:
                    s, _ = listener.accept()
                except OSError:
                    return
                with s:
                    s.settimeout(5)
                    if s.recv(100) == b"":
                        ended.release()
        threading.Thread(target=serve, daemon=True).start()
        gate = start(moongate, [origin], script(f'  local sock = gate.tcp.connect("127.0.0.1:{listener.getsockname()[1]}")\n'
                                                "  sock:receive(1)\n  return true"))
        gate.wait_log("is down: no answer within 150ms")
        assert ended.acquire(timeout=5) and ended.acquire(timeout=5)
        eventually(lambda: gate.stats()["script_sockets_active"] <= 1)
        listener.shutdown(socket.SHUT_RDWR)


def test_a_reload_replaces_the_function_and_changes_no_state(moongate, origins):
    a, b = origins(), origins()
    a.reply, b.reply = answering(b"no"), answering(b"ok")
    gate = start(moongate, [a, b], PING, "ping", workers=2)
    gate.wait_log(rf'"{a.address}" is down: it says no')
    for _ in range(5):
        gate.reload()
        assert asked(gate, a, b, count=5) == [0, 5]
    assert len(re.findall("is down|is up", gate.log())) == 1
    gate.write("a.lua", PING.replace('word == "ok"', 'word == "no"').replace("it says", "wrongly"))
    gate.reload()
    gate.wait_log(rf'"{b.address}" is down: wrongly ok')
    gate.wait_log(rf'"{a.address}" is up')


def test_a_reload_without_the_function_is_refused(moongate, origin):
    origin.reply = answering(b"ok")
    gate = start(moongate, [origin], PING, "ping")
    gate.write("a.lua", PING.replace('"ping"', '"pong"'))
    done = gate.ctl("reload", check=False)
    assert done.returncode != 0 and 'no script has a function to check servers "ping" (gate.health)' in done.stderr
    before = pings(origin)
    eventually(lambda: pings(origin) > before + 1)  # the old one goes on


def test_a_name_that_no_script_has_is_an_error_of_the_configuration(moongate, origin):
    gate = start(moongate, [origin], PING, "pong", start=False)
    done = gate.run("-t")
    assert done.returncode == 1
    line = next(n for n, line in enumerate(gate.config.read_text().splitlines(), 1) if "health script" in line)
    column = gate.config.read_text().splitlines()[line - 1].index("pong") + 1
    assert f'moongate.conf:{line}:{column}: no script has a function to check servers "pong" (gate.health)' in done.stderr
    gate.write("a.lua", PING.replace('"ping"', '"pong"'))
    assert gate.run("-t").returncode == 0


def test_a_script_of_two_frontends_has_one_function(moongate, origin):
    origin.reply = answering(b"ok")
    gate = start(moongate, [origin], PING, "ping", start=False)
    text = gate.config.read_text()
    gate.write("moongate.conf", text + text[text.index("frontend web"):].replace("web", "other").replace(
        gate.address, f"unix:{gate.folder}/other"))
    gate.start()
    eventually(lambda: pings(origin) > 1)


@pytest.mark.parametrize("text, error", [
    (PING.replace("return {}", 'gate.health("ping", function() end)\nreturn {}'), "there is another function"),
    ('local gate = require "moongate"\ngate.health(1, print)\nreturn {}', "a name"),
    ('local gate = require "moongate"\ngate.health("ping", 1)\nreturn {}', "a function"),
])
def test_what_a_script_gets_wrong(moongate, origin, text, error):
    gate = start(moongate, [origin], text, "ping", start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and error in done.stderr, done.stderr


def test_in_a_hook_no_function_can_be_made(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script a.lua; route / app;", files={
        "a.lua": 'local gate = require "moongate"\nreturn { request = function() gate.health("x", print) end }'})
    assert gate.get("/x").status == 500
    gate.wait_log("made while a script loads, not in a hook")


@pytest.mark.parametrize("line, error", [
    ("health script", "no function is named"),
    ("health script every=1s", "no function is named"),
    ("health script x /path", "unexpected"),
    ("health script x status=200", "unexpected"),
])
def test_what_is_refused(line, error, moongate):
    gate = moongate(f"upstream app {{ server 127.0.0.1:1; {line}; }}", "route / app;", start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and error in done.stderr, done.stderr


def test_what_is_printed_is_read_again(moongate):
    gate = moongate('upstream app { server 127.0.0.1:1; health script "a name" every=7s; }', "route / app;", start=False)
    first = gate.run("-T").stdout
    assert re.search(r"health script .a name.? every=7s timeout=2s jitter=700ms rise=2 fall=3 start=up;", first), first
    gate.write("moongate.conf", first)
    assert gate.run("-T").stdout == first

# SPDX-License-Identifier: BSD-2-Clause
"""Every call that waits in every hook: it comes to its end, to its own time-out, to script_time_limit; its client
goes away, a reload and a stop come while it waits.

Two tables make all of it. A new hook is a row of HOOKS, a new call that waits is a row of CALLS. Each pair of them (a
cell) has a frontend of its own, on a unix socket, in one moongate; all cells are under way at the same time."""
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from conftest import eventually, read_all


class Hook:
    """code: how cell.lua comes to call run(req, res) from there; fails: the status with which a hook that fails
    answers (0: the connection is closed; None: no client learns of it)."""

    def __init__(self, code=None, fails=None, client=True, errors="{hook} hook"):
        self.code, self.fails, self.client, self.errors = code, fails, client, errors


WHOLE = {"request_body": "for c in req:body() do req:write(c) end", "response_body": "for c in res:body() do res:write(c) end"}

HOOKS = {
    "init": Hook(client=False),
    "worker_init": Hook(client=False),
    "exit": Hook(client=False),
    # Of the name that a route hook gives, once.
    "resolve": Hook("function hooks.resolve() run() return '127.0.0.1' end\n"
                    "function hooks.route(req) if req.attempt > 1 then return req:respond(502) end\n"
                    " return 'cell.test' .. settings.server:match(':%d+$') end", fails=502),
    "connect": Hook(fails=0),
    "request": Hook(fails=500),
    "route": Hook(fails=500),
    "request_body": Hook(fails=500),
    "response": Hook(fails=502),
    "response_body": Hook(fails=502),
    "error": Hook(fails=500),  # of a 502: its frontend has no server
    "log": Hook(),
    # Its client is answered before. What runs below is no hook.
    "after": Hook("gate.after(0.01, run)", client=False, errors="timer"),
    "every": Hook("local timer timer = gate.every(0.01, function() timer:cancel() run() end)", client=False,
                  errors="timer"),
    # A body hook, because its waits count one by one: the task comes to script_time_limit first.
    "task": Hook("function hooks.request_body(req)\n local task = gate.spawn(run, req)\n"
                 " while task:wait(0.05) == nil do end\n " + WHOLE["request_body"] + "\nend", errors="task"),
}
ALL = list(HOOKS)


class Call:
    """Lua code, each a function of (req, res): quick gives `ok`, late runs into its own time-out and gives
    late_gives, forever waits until it is ended by others. hooks: where it may be called; elsewhere, and while a script
    loads, it raises `refused`. client: what the client and the server of its cells do, a word for Peers."""

    def __init__(self, quick, late=None, late_gives="nil timeout", forever=None, hooks=None, refused="", slow=None,
                 limited=True):
        self.quick, self.late, self.late_gives, self.forever = quick, late, late_gives, forever
        self.hooks, self.refused, self.slow, self.limited = hooks or ALL, refused, slow, limited


CALLS = {
    "gate.sleep": Call("gate.sleep(0.01) return 'ok'", forever="gate.sleep(1000)",
                       refused="a script must not wait while it loads"),
    "gate.fetch": Call("local a, why = gate.fetch(server .. '/') return a and a.body or why",
                       late="return gate.fetch(server .. '/silent', { timeout = 0.1 })",
                       forever="return gate.fetch(server .. '/silent', { timeout = 1000 })",
                       refused="a script must not wait while it loads"),
    "fetched:chunks": Call("local t = {} for c in assert(gate.fetch(server .. '/', { stream = true })):chunks() do "
                           "t[#t + 1] = c end return table.concat(t)",
                           late="local a = gate.fetch(server .. '/stalls', { stream = true, timeout = 0.2 })"
                                " local ok, why = pcall(function() for c in a:chunks() do end end)"
                                " return ok, why:match(': (.*)')",
                           late_gives="false the body broke off: timeout",
                           forever="for c in assert(gate.fetch(server .. '/stalls', { stream = true, timeout = 1000 }))"
                                   ":chunks() do end",
                           refused="a script must not wait while it loads"),
    "sock:receive": Call("local sock = asked('/') assert(sock:receive_until('\\r\\n\\r\\n'))"
                         " local text = sock:receive(2) sock:close() return text",
                         late="local sock = asked('/silent') sock.read_timeout = 0.1 return sock:receive_line()",
                         forever="local sock = asked('/silent') sock.read_timeout = 1000 sock:receive_line()",
                         refused="a script must not wait while it loads"),
    "sock:send": Call("local sock = asked('/') sock:receive_until('\\r\\n\\r\\n') assert(sock:send('GET /'))"
                      " local text = sock:receive(2) sock:close() return text",
                      late="local sock = asked('/silent') sock.send_timeout = 0.2 return sock:send(lots)",
                      forever="local sock = asked('/silent') sock.send_timeout = 1000 sock:send(lots)",
                      refused="a script must not wait while it loads"),
    # With TLS: the server waits for the end of what is no request, so that the handshake is what waits.
    "gate.tcp.connect": Call("local sock, why = gate.tcp.connect(settings.server, { tls = true, timeout = 0.01 })"
                             " return why == 'timeout' and 'ok' or why",
                             late="return gate.tcp.connect(settings.server, { tls = { verify = false }, timeout = 0.1 })",
                             forever="gate.tcp.connect(settings.server, { tls = { verify = false }, timeout = 1000 })",
                             refused="a script must not wait while it loads"),
    # Nobody is there: the answer is that, and it is there at once. Not on a port that the system gives to others.
    "datagrams:receive": Call("local udp = assert(gate.udp.connect('127.0.0.1:9')) udp:send('?') gate.sleep(0.001)"
                              " local text, why = udp:receive() udp:close() return why == 'refused' and 'ok' or why",
                              late="return gate.udp.connect('127.0.0.1:9', { timeout = 0.1 }):receive()",
                              forever="gate.udp.connect('127.0.0.1:9', { timeout = 1000 }):receive()",
                              refused="a script must not wait while it loads"),
    # Another name each time: what is known is no wait.
    "gate.resolve": Call("local found, why = gate.resolve(('quick%d.test'):format(gate.now() * 1e6))"
                         " return found and found[1] == '192.0.2.1' and 'ok' or why",
                         late="return gate.resolve('silent.test', { timeout = 0.1 })",
                         # Not for long: what was asked goes on without those who asked, and holds a socket.
                         forever="repeat local found = gate.resolve('silent.test') until found",
                         refused="a script must not wait while it loads"),
    "semaphore:acquire": Call("local task = gate.spawn(function() door:acquire() gate.sleep(0.01) door:release() end)"
                              " assert(door:acquire()) gate.sleep(0.01) door:release() task:wait() return 'ok'",
                              late="door:acquire() local a, b = door:acquire(0.1) door:release() return a, b",
                              forever="door:acquire() door:acquire()", refused="while it loads"),
    "task:wait": Call("local ok, text = gate.spawn(function() gate.sleep(0.01) return 'ok' end):wait() return text",
                      late="local task = gate.spawn(gate.sleep, 1000) local a, b = task:wait(0.1) task:cancel() return a, b",
                      forever="gate.spawn(sleeper):wait()",
                      refused="a script must not start tasks while it loads"),
    "gate.wait": Call("local function work(s) gate.sleep(s) return 'ok' end"
                      " local a, b = gate.spawn(work, 0.01), gate.spawn(work, 0.02)"
                      " local first = gate.wait({ a, b }, 'first') assert(gate.wait { a, b }) return select(2, first:wait())",
                      late="local a, b = gate.spawn(gate.sleep, 1000), gate.spawn(gate.sleep, 1000)"
                           " local x, y = gate.wait({ a, b }, 'all', 0.1) a:cancel() b:cancel() return x, y",
                      forever="gate.wait { gate.spawn(sleeper), gate.spawn(sleeper) }",
                      refused="a script must not start tasks while it loads"),
    "req:body": Call("for c in req:body() do req:write(c) end return 'ok'",
                     forever="for c in req:body() do req:write(c) end return 'ok'", hooks=["request_body"],
                     refused="body() is for the request_body hook", slow="request", limited=False),
    "res:body": Call("for c in res:body() do res:write(c) end return 'ok'",
                     forever="for c in res:body() do res:write(c) end return 'ok'", hooks=["response_body"],
                     refused="body() is for the response_body hook", slow="response", limited=False),
    "req:read_body": Call("local text, why = req:read_body() return text == 'body' and 'ok' or why",
                          forever="return req:read_body()", hooks=["request", "route"], slow="request", limited=False,
                          refused="the body of the request is on its way | is for the hook of the request itself"),
    "res:read_body": Call("local text, why = res:read_body() return text or why", forever="return res:read_body()",
                          hooks=["response"], slow="response", limited=False,
                          refused="this is for the response hook | is for the hook of the request itself"),
}
CELLS = [(call, hook) for call, row in CALLS.items() for hook in row.hooks]

TOP = """
local gate = require "moongate"
local settings = gate.settings(..., { call = "string", hook = "string", what = "string", server = "string" })
local server, cell = "http://" .. settings.server, settings.call .. " in " .. settings.hook
local shared = gate.shared "told"
local door = gate.semaphore(1)
local function sleeper() gate.sleep(1000) end
local lots = settings.call == "sock:send" and ("x"):rep(2^24)  -- more than the kernel's buffers
local function asked(path)
  local sock = assert(gate.tcp.connect(settings.server))
  assert(sock:send("GET " .. path .. " HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n"))
  return sock
end
local hooks = {}
"""


def function(body):
    return f"function(req, res) {body} end" if body else "nil"


def cell_lua():
    calls = "\n".join(f"['{name}'] = {{ quick = {function(row.quick)},\n late = {function(row.late)},\n"
                      f" forever = {function(row.forever)} }}," for name, row in CALLS.items())
    hooks = "\n".join(f"['{name}'] = function()\n {row.code or f'function hooks.{name}(req, res) run(req, res) {WHOLE.get(name, str())} end'}\nend,"
                      for name, row in HOOKS.items())
    return TOP + f"""
local calls = {{ {calls} }}
local call = calls[settings.call]
-- Again and again, until it is time.
function call.until_told(req, res)
  local text
  repeat
    text = call.quick(req, res)
    local at = shared:get("at")
  until text ~= "ok" or (at and gate.now() >= at)
  return text
end
function call.refused(req, res)
  local ok, why = pcall(call.quick, req, res)
  return ok, why
end

local function run(req, res)
  gate.log.notice(cell .. ": begins")
  local function gave(...)
    local all = {{ ... }}
    for i = 1, select("#", ...) do all[i] = tostring(all[i]) end
    gate.log.notice(cell .. ": gave <" .. table.concat(all, " ") .. ">")
  end
  gave(call[settings.what](req, res))
end
local hook = {{ {hooks} }}
if settings.what == "load" then
  gate.log.notice(cell .. ": gave <" .. tostring(select(2, pcall(call.quick))) .. ">")
else
  hook[settings.hook]()
end
return hooks
"""


# Sets when those that are told to go on do so; says how many frontends wait.
CONTROL = """
local gate = require "moongate"
return { request = function(req)
  gate.shared("told"):set("at", gate.now() + tonumber(req.args.after))
  return req:respond(200)
end }
"""


class Peers:
    """The server of all cells; what is slow goes on when go() was called."""

    def __init__(self, origin):
        self.origin, self.event = origin, threading.Event()
        origin.reply = self.reply
        self.dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.dns.bind(("127.0.0.1", 0))
        threading.Thread(target=self.resolve, daemon=True).start()

    def resolve(self):
        """One address for quickN.test, no answer for others."""
        while True:
            query, client = self.dns.recvfrom(512)
            if b"quick" in query:
                wants_ip4 = query[-4:-2] == b"\0\x01"
                answer = b"\xc0\x0c\0\x01\0\x01\0\0\x02\x58\0\x04\xc0\0\x02\x01" if wants_ip4 else b""
                self.dns.sendto(query[:2] + b"\x81\x80\0\x01\0" + bytes([wants_ip4]) + b"\0\0\0\0" + query[12:] + answer,
                                client)

    def reply(self, request):
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        if request.target == "/silent":
            self.event.wait(60)
        if request.target in ("/stalls", "/slow-response"):
            yield whole[:-1]
            self.event.wait(60)
            yield whole[-1:]
            return
        yield whole


class Matrix:
    """One moongate with a frontend for each cell; what: which of the call's functions its cells call."""

    def __init__(self, moongate, origin, what, cells, top="", settings=None):
        self.cells, self.peers = cells, Peers(origin)
        self.gate = moongate(start=False, files={"cell.lua": cell_lua(), "control.lua": CONTROL})
        self.place = {cell: self.gate.folder / f"{number}.sock" for number, cell in enumerate(cells)}
        frontends = "".join(
            f"frontend f{number} {{ listen unix:{self.place[cell]}; {(settings or {}).get(cell[1], '')}\n"
            f"  script cell.lua call={cell[0]} hook={cell[1]} what={what} server={origin.address};\n"
            f"  route / {'dead' if cell[1] == 'error' else 'app'}; }}\n" for number, cell in enumerate(cells))
        self.gate.configure(
            f"shared told 1m; route_allow 127.0.0.0/8; upstream app {{ server {origin.address}; keepalive 0; }}\n"
            f"upstream dead {{ server unix:{self.gate.folder}/nobody.sock; }}\n"
            f"resolver 127.0.0.1:{self.peers.dns.getsockname()[1]}; resolver_timeout 1s; resolver_negative_ttl 0;\n"
            f"{top}\n{frontends}",
            "script control.lua; route /unused dead; route /unused2 app;", level="info")
        self.gate.start()
        self.worker = self.gate.workers()[0]
        self.descriptors = self.open_descriptors()[1]
        self.clients = {}

    # ---- clients

    def waiting(self):
        """What the cells are for which no client is needed."""
        return [cell for cell in self.cells if not HOOKS[cell[1]].client]

    def asked(self):
        return [cell for cell in self.cells if HOOKS[cell[1]].client]

    def ask(self):
        """A client for each cell that needs one, all at once."""
        for cell in self.asked():
            client = self.clients[cell] = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(str(self.place[cell]))
            slow = CALLS[cell[0]].slow
            target = b"/slow-response" if slow == "response" else b"/"
            client.sendall(b"POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbod"
                           % target + (b"" if slow == "request" else b"y"))

    def finish(self):
        """What was slow goes on."""
        self.peers.event.set()
        for cell, client in self.clients.items():
            if CALLS[cell[0]].slow == "request":
                client.sendall(b"y")

    def answers(self):
        """What each client gets: its status, 0 when the connection was closed; `cut` when a part is missing."""
        found = {}
        for cell, client in self.clients.items():
            with client:
                answer = read_all(client)
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head[9:12]) if answer else 0
            length = re.search(rb"(?i)content-length: (\d+)", head)
            whole = body.endswith(b"0\r\n\r\n") if b"chunked" in head else length and len(body) == int(length[1])
            found[cell] = status if whole or not answer else "cut"
        self.clients = {}
        return found

    def leave(self):
        for client in self.clients.values():
            client.close()
        self.clients = {}

    def tell(self, after=0):
        assert self.gate.get(f"/go?after={after}").status == 200

    # ---- what came of it

    def said(self, what):
        """The cells of which the log says that: {cell: text in <>, or ""}."""
        text = self.gate.log()
        found = {}
        for call, hook, gave in re.findall(rf"cell\.lua: (\S+) in (\w+): {what}(?: <(.*)>)?", text):
            found[call, hook] = gave
        return found

    def all_said(self, what, cells, seconds=10):
        def said():
            """all cells say so"""
            found = self.said(what)
            missing = [cell for cell in cells if cell not in found]
            said.__doc__ = f"no word {what!r} of {missing}; log:\n{self.gate.log()[-3000:]}"
            return not missing
        eventually(said, seconds, 0.03)
        return self.said(what)

    def open_descriptors(self):
        """Of the worker: how many are TCP sockets (but for what listens: connections to servers), and all others."""
        links = []
        for link in Path(f"/proc/{self.worker}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(link))
        unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
        tcp = [link for link in links if link.startswith("socket:") and link[8:-1] not in unix]
        return len(tcp) - 1, len(links) - len(tcp)

    def settles(self):
        """Nothing is left of what has been under way: no request, coroutine, timer, handle, no descriptor."""
        names = ["requests_active", "connections_active", "scripts_active", "timers_active", "handles_active"]

        def settled():
            """nothing is left"""
            stats = self.gate.stats()
            left = {name: stats[name] for name in names if stats[name]}
            generations = len(self.gate.show("generations")["workers"][0]["generations"])
            upstream, others = self.open_descriptors()
            stray = (upstream - stats["upstream_idle"], others - self.descriptors)
            settled.__doc__ = f"left: {left}, {generations} generations, descriptors: {stray}\n{self.gate.log()[-3000:]}"
            return not left and stray == (0, 0) and generations == 1
        eventually(settled, 10, 0.05)
        assert self.gate.workers() == [self.worker]


def fails_as(cell, answer):
    fails = HOOKS[cell[1]].fails
    return answer == fails or (cell[1] == "response_body" and answer == "cut")


def ends_well(cell, answer):
    return answer == (502 if cell[1] == "error" else 200)


def cells_with(of=None, hooks=None, but=()):
    return [(call, hook) for call, hook in CELLS
            if (not of or getattr(CALLS[call], of)) and (not hooks or hook in hooks) and hook not in but]


# ---- in time


@pytest.mark.parametrize("what, of", [("quick", "quick"), ("late", "late")])
def test_each_call_comes_to_its_end_in_each_hook(moongate, origin, what, of):
    """quick: it completes; late: its own time-out comes."""
    matrix = Matrix(moongate, origin, what, cells_with(of))
    matrix.ask()
    if what == "quick":
        matrix.finish()
    wrong = {cell: answer for cell, answer in matrix.answers().items() if not ends_well(cell, answer)}
    assert not wrong
    matrix.gate.reload()  # for the exit hooks
    gave = matrix.all_said("gave", matrix.cells)
    expected = {cell: "ok" if what == "quick" else CALLS[cell[0]].late_gives for cell in matrix.cells}
    assert gave == expected
    assert matrix.gate.stats()["script_errors"] == 0
    matrix.settles()


@pytest.mark.long
def test_script_time_limit_ends_each_call_in_each_hook(moongate, origins):
    """A moongate for each call, for no more than ten errors a second are logged; several at a time."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(comes_to_script_time_limit, moongate, origins(), name)
                     for name, row in CALLS.items() if row.limited]:
            done.result()


def comes_to_script_time_limit(moongate, origin, call):
    # Ten errors a second are logged: those of no client, and one that need not, come a second after the others.
    limit = {name: f"script_time_limit {'150ms' if hook.client and name != 'resolve' else '1300ms'};"
             for name, hook in HOOKS.items()}
    limit["exit"] = f"script_time_limit {'2300ms' if 'sleeper' in CALLS[call].forever else '300ms'};"
    matrix = Matrix(moongate, origin, "forever", [(call, hook) for hook in CALLS[call].hooks if hook != "init"],
                    settings=limit)
    matrix.ask()
    wrong = {cell: answer for cell, answer in matrix.answers().items()
             if not (ends_well(cell, answer) if HOOKS[cell[1]].fails is None or cell[1] == "task"
                     else fails_as(cell, answer))}
    assert not wrong
    expected = {HOOKS[hook].errors.format(hook=hook).split()[0] for _, hook in matrix.cells} - {"exit"}

    def all_logged():
        """every hook's error in the log, or as many as are logged in a second (what a call has started fails, too)"""
        lines = re.findall(r'script "cell.lua", (\w+).*: the hook took longer than script_time_limit\n'
                           r" *stack traceback:\n(?:\s.*\n)*?\s+cell\.lua:\d+", matrix.gate.log())
        return expected <= set(lines) or len(lines) >= 10
    eventually(all_logged)
    # The exit hook, and an init hook: the configuration is refused. The one before goes on, or comes back, as it is.
    gate, text = matrix.gate, matrix.gate.config.read_text()
    for hook in ("init", "worker_init"):
        gate.config.write_text(re.sub(r"frontend f\d.*\n.*\n.*\n", "", text) +
                               f"frontend f {{ listen unix:{gate.folder}/f.sock; script_time_limit 100ms;\n"
                               f"script cell.lua call={call} hook={hook} what=forever server={origin.address}; }}\n")
        done = gate.ctl("reload", check=False)
        assert done.returncode == (1 if hook == "init" else 0), done.stderr
        if hook == "init":
            assert re.search("init hook: .*longer than script_time_limit", done.stderr)
    gate.wait_log(r'script "cell.lua", exit hook: .*longer than script_time_limit')
    assert not matrix.said("gave")
    matrix.descriptors -= len(matrix.cells) - 1  # the listeners of all but one are gone
    matrix.settles()


# ---- what comes in between


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_goes_ends_what_its_hooks_wait_for(moongate, origin, reset):
    mine = cells_with("forever", [name for name, row in HOOKS.items() if row.client and name != "log"])
    logs = cells_with("forever", ["log"])
    matrix = Matrix(moongate, origin, "forever", mine + logs, settings={"log": "script_time_limit 1s;"})
    matrix.ask()
    matrix.all_said("begins", mine + logs)
    if reset:
        for client in matrix.clients.values():
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    matrix.leave()
    # A log hook waits for nobody's sake: only its time ends it.
    eventually(lambda: matrix.gate.stats()["connections_active"] == 0, 5)
    eventually(lambda: matrix.gate.stats()["script_errors"] == len(logs), 10)
    assert not matrix.said("gave")
    matrix.settles()


def test_a_reload_lets_what_waits_come_to_its_end(moongate, origin):
    matrix = Matrix(moongate, origin, "until_told", cells_with(but=["init"]))
    matrix.ask()
    cells = [cell for cell in matrix.cells if cell[1] != "exit"]
    matrix.all_said("begins", [cell for cell in cells if cell[1] != "log" or not CALLS[cell[0]].slow])
    matrix.gate.reload()
    assert not [cell for cell in matrix.said("gave") if not CALLS[cell[0]].slow]
    matrix.tell()
    matrix.finish()
    wrong = {cell: answer for cell, answer in matrix.answers().items() if not ends_well(cell, answer)}
    assert not wrong
    gave = matrix.all_said("gave", matrix.cells)  # exit: of the first one
    assert set(gave.values()) == {"ok"}
    assert matrix.gate.stats()["script_errors"] == 0
    matrix.settles()


def test_an_exit_hook_goes_on_while_further_reloads_come(moongate, origin):
    matrix = Matrix(moongate, origin, "until_told", cells_with(hooks=["exit"]))
    for _ in range(3):
        matrix.gate.reload()
    matrix.all_said("begins", matrix.cells)
    assert not matrix.said("gave")
    matrix.tell()
    assert set(matrix.all_said("gave", matrix.cells).values()) == {"ok"}
    matrix.settles()
    assert matrix.gate.log().count(": gave <ok>") == 3 * len(matrix.cells)


def test_a_graceful_stop_lets_what_waits_come_to_its_end(moongate, origin):
    matrix = Matrix(moongate, origin, "until_told", cells_with(but=["init"]))
    matrix.ask()
    cells = [cell for cell in matrix.cells if cell[1] != "exit"]
    matrix.all_said("begins", cells)
    matrix.tell(after=0.7)
    matrix.gate.kill(signal.SIGQUIT)
    matrix.gate.wait_log("stops gracefully|stopping gracefully|graceful")
    assert not [cell for cell in matrix.said("gave") if not CALLS[cell[0]].slow]
    matrix.finish()
    wrong = {cell: answer for cell, answer in matrix.answers().items() if not ends_well(cell, answer)}
    assert not wrong
    assert matrix.gate.wait_end() == 0
    gave = matrix.said("gave")
    assert gave == {cell: "ok" for cell in matrix.cells}


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM])
def test_a_stop_waits_for_nobody_for_ever(moongate, origin, number):
    matrix = Matrix(moongate, origin, "forever", cells_with("forever", but=["init"]), top="drain_timeout 300ms;")
    matrix.ask()
    matrix.all_said("begins", [cell for cell in matrix.cells if cell[1] != "exit"])
    begin = time.monotonic()
    matrix.gate.kill(number)
    assert matrix.gate.wait_end() == 0
    assert time.monotonic() - begin < 8
    assert "scripts did not end in time" in matrix.gate.log()
    matrix.leave()
    assert not matrix.said("gave")


def test_a_stop_while_an_init_hook_waits(moongate, origin):
    matrix = Matrix(moongate, origin, "forever", cells_with(hooks=["log"]))
    gate = matrix.gate
    gate.config.write_text(gate.config.read_text() + "".join(
        f"frontend i{n} {{ listen unix:{gate.folder}/i{n}.sock;\n"
        f"script cell.lua call={cell[0]} hook=init what=forever server={origin.address}; }}\n"
        for n, cell in enumerate(cells_with("forever", hooks=["init"])[:1])))
    gate.kill(signal.SIGHUP)
    matrix.all_said("begins", cells_with("forever", hooks=["init"])[:1])
    gate.kill(signal.SIGQUIT)
    assert gate.wait_end() == 0


# ---- where it may not be called


def test_where_a_call_is_not_allowed_it_raises(moongate, origin):
    elsewhere = [(call, hook) for call, row in CALLS.items() for hook in ALL if hook not in row.hooks]
    about_requests = [cell for cell in elsewhere if HOOKS[cell[1]].client and cell[1] not in ("connect", "resolve")
                      and not (cell[0].startswith("res") and cell[1] in ("request", "route", "request_body", "task"))]
    matrix = Matrix(moongate, origin, "refused", about_requests)
    matrix.ask()
    matrix.finish()
    matrix.answers()
    gave = matrix.all_said("gave", matrix.cells)
    for cell in matrix.cells:
        assert any(text in gave[cell] for text in CALLS[cell[0]].refused.split(" | ")), (cell, gave[cell])
        assert re.match(r"false \S*cell\.lua:\d+: ", gave[cell]), gave[cell]
    matrix.settles()


def test_while_a_script_loads_nothing_may_wait(moongate, origin):
    matrix = Matrix(moongate, origin, "load", [(call, "request") for call, row in CALLS.items() if row.hooks == ALL])
    gave = matrix.all_said("gave", matrix.cells)
    for cell in matrix.cells:
        assert any(text in gave[cell] for text in CALLS[cell[0]].refused.split(" | ")), (cell, gave[cell])
    matrix.settles()

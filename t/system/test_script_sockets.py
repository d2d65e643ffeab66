# SPDX-License-Identifier: BSD-2-Clause
"""gate.tcp and gate.udp: sockets of scripts against real peers; what fails, what is bounded, and that nothing is left
of one when its hook is gone."""
import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import SANITIZED, SRCDIR, eventually, free_port, several
from nameserver import nameserver  # noqa: F401: a fixture

TOP = "local gate = require 'moongate'\nlocal hooks = {}\n"


def make(moongate, text, top="", frontend="", **how):
    """A frontend that answers by itself."""
    return moongate(top, "script a.lua;\n" + frontend, {"a.lua": TOP + text + "\nreturn hooks\n"}, **how)


def answers(body):
    """A request hook that answers with what the body returns: its values, joined by spaces. A string is shown in quotes,
    as Lua would write it."""
    return f"""
        local function work(req)
          {body}
        end
        function hooks.request(req)
          local values, shown = {{ work(req) }}, {{}}
          for i = 1, table.maxn(values) do
            local value = values[i]
            shown[i] = type(value) == "string" and ("%q"):format(value) or tostring(value)
          end
          return req:respond(200, nil, table.concat(shown, " "))
        end"""


class Peer:
    """A server for one protocol: serve(sock, number) is called in a thread of its own for each connection, with the
    connection's number from 1. Without it connections are taken and kept in `taken`."""

    def __init__(self, serve=None, path=None):
        self.serve = serve
        self.connections = 0
        self.taken = []
        self.errors = []
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            os.chmod(path, 0o666)
            self.listener.listen(64)
            self.address = f"unix:{path}"
        else:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections += 1
                if self.serve:
                    threading.Thread(target=self.run, args=(sock, self.connections), daemon=True).start()
                else:
                    self.taken.append(sock)

    def run(self, sock, number):
        with sock:
            sock.settimeout(20)
            try:
                self.serve(sock, number)
            except OSError as error:
                self.errors.append(error)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # else it lives on in accept()
        self.listener.close()
        for sock in self.taken:
            sock.close()


@pytest.fixture
def peers():
    yield from several(Peer)


def echo(sock, _):
    while data := sock.recv(65536):
        sock.sendall(data)


def reset(sock):
    """The next close is a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says(*pieces):
    """Sends the pieces, with pauses between them (numbers, seconds), and ends."""
    def serve(sock, _):
        for piece in pieces:
            if isinstance(piece, bytes):
                sock.sendall(piece)
            else:
                time.sleep(piece)
    return serve


def after(sock, text):
    """Reads until the text has come."""
    got = b""
    while text not in got:
        piece = sock.recv(65536)
        assert piece, got
        got += piece
    return got


# ---- TCP: what comes and goes


def test_an_echo_server(moongate, peers):
    peer = peers(echo)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local sent = sock:send("hello, peer\\nand more")
        local line = sock:receive_line()
        local list = sock:send {{ "a", 1, "b" }}
        return sent, line, sock:receive(8), list, sock:receive(3), sock:close(), sock:close()"""))
    assert gate.get("/").text == '20 "hello, peer" "and more" 3 "a1b" true false'
    stats = gate.stats()
    assert (stats["script_sockets"], stats["script_sockets_active"]) == (1, 0)


def test_bytes_of_every_value_and_empty_sends(moongate, peers):
    peer = peers(echo)
    every = bytes(range(256)) * 3
    gate = make(moongate, f"""
        function hooks.request(req)
          local every = {{}}
          for i = 0, 255 do every[i + 1] = string.char(i) end
          every = table.concat(every):rep(3)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          assert(sock:send("") == 0 and sock:send {{}} == 0 and sock:send {{ "", "" }} == 0)
          assert(sock:send(every) == 768 and sock:send("\\0end\\0\\n") == 6)
          local head = sock:receive_until("\\254\\255\\0\\1")
          assert(head == every:sub(1, 254), #head)
          assert(sock:receive(0) == "")
          local rest = sock:receive(510)
          local last = sock:receive_line()
          assert(last == "\\0end\\0", last)
          return req:respond(200, nil, head .. "\\254\\255\\0\\1" .. rest)
        end""")
    assert gate.get("/").body == every


def test_lines_that_come_in_pieces(moongate, peers):
    peer = peers(says(b"fir", 0.05, b"st\r", 0.05, b"\nsecond\n\nthe la", 0.05, b"st"))
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local first, second, third = sock:receive_line(), sock:receive_line(), sock:receive_line()
        local last, why = sock:receive_line()
        return first, second, third, last, why, sock:receive_some(), select(2, sock:receive_some())"""))
    assert gate.get("/").text == '"first" "second" "" nil "closed" "the last" "closed"'


@pytest.mark.parametrize("pattern, stream, before, rest", [
    ("--b", b"aaa--a--b--c", "aaa--a", "--c"),
    ("aab", b"aaaaab!", "aaa", "!"),
    ("abab!", b"ababab!x", "ab", "x"),
    ("\\0\\0", b"\0x\0\0y", "\\0x", "y"),
    ("x" * 128, b"y" * 1000 + b"x" * 128 + b"z", "y" * 1000, "z"),
])
def test_until_a_pattern_byte_by_byte(moongate, peers, pattern, stream, before, rest):
    def drip(sock, _):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in stream[:40]:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)
        sock.sendall(stream[40:])
    peer = peers(drip)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local before = sock:receive_until("{pattern}")
        return before == "{before}", sock:receive_all() == "{rest}\""""))
    assert gate.get("/").text == "true true"


def test_maxima(moongate, peers):
    peer = peers(lambda sock, _: (sock.sendall(b"12345678\nabc--rest"), sock.recv(1)))
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local list = {{}}
        local function note(value, why) list[#list + 1] = value or why end
        note(sock:receive_line(7))
        note(sock:receive_line(8))
        note(sock:receive_some(1))
        note(sock:receive_until("--", 1))
        note(sock:receive_until("--", 2))
        note(sock:receive_all(3))
        note(sock:receive_line(3))
        note(sock:receive(4))
        return unpack(list)"""))
    assert gate.get("/").text == '"too large" "12345678" "a" "too large" "bc" "too large" "too large" "rest"'


def test_until_the_end(moongate, peers):
    content = os.urandom(1 << 20)
    peer = peers(says(content[:100], 0.05, content[100:]))
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          local all = assert(sock:receive_all(1048576))
          assert(sock:receive_all() == "")
          return req:respond(200, nil, all)
        end""")
    assert gate.get("/").body == content


def test_half_close(moongate, peers):
    def count(sock, _):
        got = b""
        while data := sock.recv(65536):
            got += data
        sock.sendall(b"%d" % len(got))
    peer = peers(count)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        sock:send(("x"):rep(300000))
        local shut = sock:shutdown()
        return shut, sock:shutdown(), sock:receive_all(), sock:send("more")"""))
    assert gate.get("/").text == 'true true "300000" nil "closed"'


def test_the_peer_ends_its_side_and_still_listens(moongate, peers):
    got = []

    def serve(sock, _):
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        got.append(after(sock, b"end"))
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        return sock:receive_all(), sock:send("the end")"""))
    assert gate.get("/").text == '"bye" 7'
    eventually(lambda: got == [b"the end"])


def test_what_was_sent_leaves_when_the_hook_ends(moongate, peers):
    got = []

    def serve(sock, _):
        time.sleep(0.2)
        received = b""
        while data := sock.recv(65536):
            received += data
        got.append(received)
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        return sock:send(("y"):rep(60000))"""))
    assert gate.get("/").text == "60000"
    eventually(lambda: got == [b"y" * 60000])


def test_unix_sockets(moongate, peers):
    gate = make(moongate, answers("""
        local sock, why = gate.tcp.connect(req.headers["x-to"])
        if not sock then return nil, why end
        return sock:send("unix\\n"), sock:receive_line()"""))
    peer = peers(echo, path=gate.folder / "peer.sock")
    os.chmod(gate.folder, 0o755)
    assert gate.get("/", {"X-To": peer.address}).text == '5 "unix"'
    assert gate.get("/", {"X-To": peer.address + ".none"}).text == 'nil "not found"'
    peer.close()
    assert gate.get("/", {"X-To": peer.address}).text == 'nil "refused"'


def tcp_sockets(gate):
    """How many the worker has, of all kinds but unix."""
    unix = {line.split()[6] for line in open("/proc/net/unix", encoding="ascii").readlines()[1:]}
    links = []
    for name in os.listdir(f"/proc/{gate.workers()[0]}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{gate.workers()[0]}/fd/{name}"))
    return sum(1 for link in links if link.startswith("socket:") and link[8:-1] not in unix)


def test_a_message_that_breaks_off_ends_with_a_reset(moongate, peers):
    """Else the peer could take it for whole. It is the same when its client goes: below."""
    saw = []

    def serve(sock, _):
        time.sleep(0.5)
        try:
            while sock.recv(1 << 20):
                pass
            saw.append("end")
        except ConnectionResetError:
            saw.append("reset")
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}", {{ send_timeout = 0.1 }}))
        return sock:send(("x"):rep(2^24))"""))
    assert gate.get("/").text == 'nil "timeout"'
    eventually(lambda: tcp_sockets(gate) == 1, 2)
    eventually(lambda: saw == ["reset"])


# ---- TCP: large data and slow peers


def memory(gate):
    text = open(f"/proc/{gate.workers()[0]}/status", encoding="ascii").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def test_a_slow_reader_holds_the_script_back(moongate, peers):
    """64 MiB through send() to a peer that begins to read late: moongate holds little of it."""
    size, seen = 64 << 20, []
    begin = threading.Event()

    def serve(sock, _):
        begin.wait(20)
        total = 0
        while data := sock.recv(1 << 20):
            total += len(data)
        seen.append(total)
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock, piece = assert(gate.tcp.connect("{peer.address}")), ("z"):rep(1048576)
        for i = 1, 64 do assert(sock:send(piece)) end
        return "sent\""""))
    before = memory(gate)
    with gate.connect(30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == 1)
        time.sleep(0.3)
        assert SANITIZED or memory(gate) - before < 8 << 20
        begin.set()
        assert b'"sent"' in after(client, b'"sent"')
    eventually(lambda: seen == [size], 10)
    assert SANITIZED or memory(gate) - before < 8 << 20


@pytest.mark.alone
def test_a_script_that_does_not_receive_holds_the_peer_back(moongate, peers):
    size, sent = 64 << 20, []

    def serve(sock, _):
        piece = os.urandom(1 << 20)
        for _ in range(64):
            sock.sendall(piece)
            sent.append(len(piece))
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        gate.sleep(0.7)
        local size, most = 0, 0
        for piece in function() return sock:receive_some() end do
          size, most = size + #piece, math.max(most, #piece)
        end
        return size, most <= 65536"""))
    before = memory(gate)
    with gate.connect(30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: len(sent) > 0)
        time.sleep(0.4)
        assert len(sent) < 32  # what the kernel's buffers hold
        assert SANITIZED or memory(gate) - before < 8 << 20
        assert f"{size} true".encode() in after(client, b"true")
    assert SANITIZED or memory(gate) - before < 16 << 20


def test_one_call_receives_more_than_the_buffer(moongate, peers):
    content = os.urandom(3 << 20)
    peer = peers(says(content))
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          return req:respond(200, nil, sock:receive(3000000) .. sock:receive_all())
        end""")
    assert gate.get("/").body == content


def test_one_task_sends_while_another_receives(moongate, peers):
    peer = peers(echo)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local sender = gate.spawn(function()
          for i = 1, 64 do assert(sock:send(("%07d\\n"):format(i):rep(8192))) end
          return sock:shutdown()
        end)
        local lines = 0
        for line in function() return sock:receive_line() end do
          lines = lines + 1
          assert(tonumber(line) == math.ceil(lines / 8192))
        end
        return lines, sender:wait()"""))
    assert gate.get("/", timeout=30).text == "524288 true true"


def test_two_tasks_cannot_receive_from_one_socket(moongate, peers):
    peer = peers(lambda sock, _: sock.recv(10))
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        local first = gate.spawn(function() return sock:receive_line() end)
        gate.sleep(0.05)
        local ok, why = pcall(sock.receive, sock, 1)
        sock:close()
        local again, message = first:wait(5)
        return ok, why:match("another task waits"), again, message:match("stale")"""))
    assert gate.get("/").text == 'false "another task waits" false "stale"'


# ---- TCP: what fails


def test_refused(moongate):
    gate = make(moongate, answers(f'return gate.tcp.connect("127.0.0.1:{free_port()}")'))
    assert gate.get("/").text == 'nil "refused"'
    assert gate.stats()["script_sockets_active"] == 0


@pytest.fixture
def full():
    """The address of somebody who answers no connection: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_time_outs_of_each_kind(moongate, peers, full):
    silent = peers(lambda sock, _: time.sleep(5))
    gate = make(moongate, answers(f"""
        local function timed(call, ...)
          local began = gate.now()
          local value, why = call(...)
          local took = gate.now() - began
          return value or why, took > 0.15 and took < 1.5
        end
        local list = {{}}
        local function note(...) for _, value in ipairs {{ ... }} do list[#list + 1] = value end end
        note(timed(gate.tcp.connect, "{full}", {{ connect_timeout = 0.2 }}))
        local sock = assert(gate.tcp.connect("{silent.address}", {{ timeout = 0.2 }}))
        note(timed(sock.receive_line, sock))
        note(timed(sock.receive_all, sock))
        sock.read_timeout = 0
        note(sock:receive(1) or "nothing", true)
        note(timed(sock.send, sock, ("x"):rep(16777216)))
        sock = assert(gate.tcp.connect("{silent.address}", {{ send_timeout = 0 }}))
        note(select(2, sock:send(("x"):rep(16777216))))
        return unpack(list)"""))
    assert gate.get("/").text == '"timeout" true "timeout" true "timeout" true "nothing" true "timeout" true "timeout"'


def test_nothing_is_lost_by_a_time_out(moongate, peers):
    peer = peers(says(b"half ", 0.4, b"a line\n"))
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}", {{ read_timeout = 0.1 }}))
        local none, why = sock:receive_line()
        sock.read_timeout = 5
        return none, why, sock:receive_line()"""))
    assert gate.get("/").text == 'nil "timeout" "half a line"'


def test_the_peer_resets(moongate, peers):
    def serve(sock, _):
        after(sock, b"go")
        reset(sock)
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        sock:send("go")
        local line, why = sock:receive_line()
        local all, why_all = sock:receive_all()
        return line, why, all, why_all, sock:keepalive()"""))
    assert gate.get("/").text == 'nil "reset" nil "reset" nil "closed"'


def test_sending_to_who_is_gone(moongate, peers):
    def serve(sock, _):
        sock.recv(1)
        reset(sock)
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        for i = 1, 1000 do
          local ok, why = sock:send(("x"):rep(65536))
          if not ok then return why == "closed" or why == "reset" or why end
        end"""))
    assert gate.get("/").text == "true"


@pytest.mark.parametrize("call, message", [
    ("gate.tcp.connect(5)", "expected an address as a string, got a number"),
    ("gate.tcp.connect('127.0.0.1:1', 5)", "expected a table of options"),
    ("gate.tcp.connect('127.0.0.1:1', { timeout = 'x' })", "expected connect_timeout in seconds"),
    ("gate.tcp.connect('127.0.0.1:1', { pool = ('x'):rep(65) })", "the name of a pool has at most 64 bytes"),
    ("gate.udp.connect('127.0.0.1:1', { tls = true })", "tls is not offered"),
    ("gate.tcp.connect('127.0.0.1:1', { tls = 'yes' })", "expected tls as true or a table, got a string"),
    ("gate.tcp.connect('127.0.0.1:1', { tls = { name = 5 } })", "expected the name in tls as a string"),
    ("gate.tcp.connect('127.0.0.1:1', { tls = { name = ('x'):rep(254) } })", "the name in tls has at most 253 bytes"),
    ("gate.tcp.connect('127.0.0.1:1', { tls = { verify = 'no' } })", "expected verify in tls as true or false"),
    ("gate.tcp.connect('127.0.0.1:1', { tls = { ca = '/etc/x.pem' } })", "expected what gate.tcp.authorities() gave"),
    ("gate.tcp.connect('unix:/x', { tls = true })", "a unix socket has no name that a certificate could have"),
    ("gate.tcp.authorities('x')", "authorities are read while a script loads"),
    ("sock:send(nil)", "expected a string or a list of strings"),
    ("sock:send { {} }", "expected strings in the list"),
    ("sock:receive('*l')", "expected a number of bytes, got a string"),
    ("sock:receive(16777217)", "one call receives 0 to 16777216 bytes"),
    ("sock:receive(-1)", "one call receives 0 to 16777216 bytes"),
    ("sock:receive(0/0)", "one call receives 0 to 16777216 bytes"),
    ("sock:receive_some(0)", "expected a number of bytes from 1 on"),
    ("sock:receive_until('')", "a pattern has 1 to 128 bytes"),
    ("sock:receive_until(('x'):rep(129))", "a pattern has 1 to 128 bytes"),
    ("sock:keepalive(0)", "keepalive takes seconds"),
    ("sock.read_timeout = 'soon' sock:receive(1)", "expected a time-out in seconds"),
    ("sock:close() sock:receive(1)", "stale: the socket is gone"),
    ("sock:close() sock:send('x')", "stale: the socket is gone"),
    ("sock:close() sock:send('')", "stale: the socket is gone"),
    ("sock:close() sock:shutdown()", "stale: the socket is gone"),
    ("sock:close() sock:keepalive()", "stale: the socket is gone"),
    ("gate.udp.connect({})", "expected an address as a string, got a table"),
    ("udp:send(5)", "expected a string, got a number"),
    ("udp:close() udp:send('')", "stale: the socket is gone"),
    ("udp:close() udp:receive()", "stale: the socket is gone"),
])
def test_wrong_calls_raise(moongate, peers, call, message):
    peer = peers(echo)
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock, udp = gate.tcp.connect("{peer.address}"), gate.udp.connect("127.0.0.1:9")
          {call}
        end""")
    assert gate.get("/").status == 500
    assert message in gate.log() and "a.lua:6:" in gate.log()
    assert gate.stats()["script_sockets_active"] == 0


def test_names_and_half_addresses(moongate):
    gate = make(moongate, answers("""
        local list = {}
        for _, to in ipairs { "", "localhost:80", "127.0.0.1", "127.0.0.1:0", "*:80", "unix:", "\\0", "a b:80", "1.2.3:80" } do
          list[#list + 1] = gate.tcp.connect(to) == nil and gate.udp.connect(to) == nil
        end
        return unpack(list)"""))
    assert gate.get("/").text == " ".join(["true"] * 9)


def test_not_while_a_script_loads(moongate):
    gate = moongate(start=False, files={"a.lua": TOP + "gate.tcp.connect('127.0.0.1:1') return hooks\n"})
    gate.configure("", "script a.lua;")
    done = gate.run("-t")
    assert done.returncode == 1 and "sockets are for hooks, timers and tasks" in done.stderr


# ---- TCP: whom a socket belongs to


@pytest.mark.parametrize("where", ["request", "route", "request_body", "response", "response_body", "error", "log", "timer",
                                   "task", "init", "worker_init", "exit", "connect"])
def test_every_hook_may_use_sockets(moongate, origins, peers, where):
    peer, app = peers(echo), origins()
    app.reply = None if where == "error" else b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp"
    bodies = {"request_body": "for chunk in req:body() do req:write(chunk) end",
              "response_body": "for chunk in res:body() do res:write(chunk) end"}
    gate = moongate(f"upstream app {{ server {app.address}; }}", "script a.lua; route / app;", {"a.lua": TOP + f"""
        local function work(req, res)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          sock:send("{where}\\n")
          gate.log.notice("echoed", sock:receive_line())
          {bodies.get(where, "")}
        end
        if "{where}" == "timer" then gate.after(0, work)
        elseif "{where}" == "task" then function hooks.request() gate.spawn(work):wait(5) end
        else hooks["{where}"] = work end
        return hooks"""})
    assert gate.get("/", method="POST", body=b"body").status == (502 if where == "error" else 200)
    if where == "exit":
        gate.reload()
    gate.wait_log(f"echoed {where}(,|$)")
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)


def test_a_socket_ends_with_its_hook(moongate, peers):
    ended = []
    peer = peers(lambda sock, _: ended.append(sock.recv(10)))
    gate = make(moongate, f"""
        function hooks.request(req)
          req.ctx.sock = assert(gate.tcp.connect("{peer.address}"))
        end
        function hooks.log(req)
          local ok, why = pcall(req.ctx.sock.send, req.ctx.sock, "late")
          gate.log.notice("then", ok, why)
        end""")
    gate.get("/")
    gate.wait_log("then false .*stale")
    eventually(lambda: ended == [b""])
    assert gate.stats()["script_sockets_active"] == 0


def test_a_socket_ends_with_a_hook_that_fails(moongate, peers):
    ended = []
    peer = peers(lambda sock, _: ended.append(sock.recv(10)))
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          error("no")
        end""")
    assert gate.get("/").status == 500
    eventually(lambda: ended == [b""])
    assert gate.stats()["script_sockets_active"] == 0


@pytest.mark.parametrize("what", ["sock:receive_line()", "sock:send(('x'):rep(16777216))",
                                  "gate.spawn(function() sock:receive_line() end) gate.sleep(100)",
                                  "gate.spawn(function() local mine = gate.tcp.connect(peer) mine:receive(1) end) gate.sleep(100)"])
def test_a_client_that_goes_cancels_what_its_hook_waits_for(moongate, peers, what):
    peer = peers()
    gate = make(moongate, f"""
        function hooks.request(req)
          local peer = "{peer.address}"
          local sock = assert(gate.tcp.connect(peer))
          {what}
        end""")
    sockets = 2 if "mine" in what else 1
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == sockets and len(peer.taken) == sockets)
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)
    eventually(lambda: tcp_sockets(gate) == 1)  # what listens


def test_a_client_that_goes_while_its_hook_connects(moongate, full):
    gate = make(moongate, f'function hooks.request(req) gate.tcp.connect("{full}", {{ timeout = 30 }}) end')
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == 1)
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)


def test_the_hooks_time_limit_holds(moongate, peers):
    peer = peers(lambda sock, _: sock.recv(10))
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock = assert(gate.tcp.connect("{peer.address}"))
          sock:receive_line()
        end""", frontend="script_time_limit 200ms;")
    began = time.monotonic()
    assert gate.get("/").status == 500
    assert time.monotonic() - began < 3
    gate.wait_log("longer than script_time_limit")
    assert gate.stats()["script_sockets_active"] == 0


def test_a_reload_while_a_hook_waits(moongate, peers):
    go = threading.Event()

    def serve(sock, _):
        go.wait(10)
        sock.sendall(b"at last\n")
        sock.recv(1)
    peer = peers(serve)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        return gate.generation, sock:receive_line()"""))
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == 1)
        gate.reload()
        go.set()
        assert b'1 "at last"' in after(client, b"at last")
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1)


def test_a_stop_while_a_hook_waits(moongate, peers):
    peer = peers(lambda sock, _: sock.recv(10))
    gate = make(moongate, f"""
        function hooks.request(req)
          local sock, udp = gate.tcp.connect("{peer.address}"), gate.udp.connect("127.0.0.1:9")
          gate.spawn(function() udp:receive() end)
          sock:receive_line()
        end""", top="drain_timeout 300ms;")
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == 2)
        gate.stop()


# ---- names

LOOPBACK = "route_allow 127.0.0.0/8;\n"
NAMED = """
    local sock, why = gate.tcp.connect(req.headers["x-to"], { timeout = tonumber(req.headers["x-timeout"]) })
    if not sock then return nil, why end
    sock:send("ping\\n")
    local answer = sock:receive_line()
    sock:keepalive()
    return answer, sock.reused"""


def test_by_name(moongate, nameserver, peers, datagrams):
    names = nameserver(**{"peer.test": "127.0.0.8 127.0.0.9 127.0.0.1"})
    peer, udp = peers(ping), datagrams(lambda data: [data])
    port, udp_port = peer.address.split(":")[1], udp.address.split(":")[1]
    gate = make(moongate, answers(f"""
        if req.path == "/udp" then
          local udp, why = gate.udp.connect(req.headers["x-to"])
          if not udp then return nil, why end
          return udp:send("x")
        end""" + NAMED), top=names.directive + LOOPBACK)

    def to(name, path="/", **more):
        return gate.get(path, {"X-To": name, **more}).text
    assert to(f"peer.test:{port}") == '"1" 0'  # nobody is at the others
    assert to(f"peer.test:{port}") == '"1" 1'
    assert to(f"127.0.0.1:{port}") == '"2" 0'
    assert to(f"gone.test:{port}") == 'nil "no such name"'
    assert to("peer.test:1") == 'nil "refused"'
    assert to(f"peer.test:{udp_port}", "/udp") == "1"
    assert to(f"gone.test:{udp_port}", "/udp") == 'nil "no such name"'
    assert gate.stats()["script_sockets_active"] == 0


def test_a_name_leads_only_where_route_allow_lets_it(moongate, nameserver, peers):
    names = nameserver(**{"peer.test": "127.0.0.1"})
    peer = peers(ping)
    port = peer.address.split(":")[1]
    gate = moongate(names.directive, LOOPBACK + "script a.lua;\n}\nfrontend strict {\n listen 127.0.0.1:%d;\n script a.lua;"
                    % (other := free_port()), {"a.lua": TOP + answers(
                        'if req.path == "/udp" then return gate.udp.connect(req.headers["x-to"]) end' + NAMED)
                        + "\nreturn hooks\n"})
    assert gate.get("/", {"X-To": f"peer.test:{port}"}).text == '"1" 0'
    gate.port = other
    assert gate.get("/", {"X-To": f"peer.test:{port}"}).text == 'nil "denied"'  # not the pooled one either
    assert gate.get("/udp", {"X-To": f"peer.test:{port}"}).text == 'nil "denied"'
    assert gate.get("/", {"X-To": f"127.0.0.1:{port}"}).text == '"2" 0'


def test_a_name_that_is_slow_to_resolve(moongate, nameserver, peers):
    names = nameserver(relay=True, **{"peer.test": "127.0.0.1"})
    peer = peers(ping)
    to = "peer.test:" + peer.address.split(":")[1]
    gate = make(moongate, answers(NAMED), top=names.directive + LOOPBACK)
    names.delay = 1
    assert gate.get("/", {"X-To": to, "X-Timeout": "0.1"}).text == 'nil "timeout"'
    with gate.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-To: %s\r\n\r\n" % b"other.test:80")
        eventually(lambda: gate.stats()["script_sockets_active"] == 1)
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)
    assert gate.get("/", {"X-To": to}).text == '"1" 0'


# ---- TCP: the pool

PING = """
    local sock, why = gate.tcp.connect(peer, {{ pool = req.headers["x-pool"] }})
    if not sock then return nil, why end
    sock:send("ping\\n")
    local answer = sock:receive_line()
    local kept, why = sock:keepalive({keep})
    return answer, sock.reused, kept, why"""


def ping(sock, number):
    while line := sock.recv(100):
        sock.sendall(b"%d\n" % number)


def pinging(moongate, peer, keep="", **how):
    return make(moongate, f'local peer = "{peer.address}"\n' + answers(PING.format(keep=keep)), **how)


def test_a_connection_is_used_again(moongate, peers):
    peer = peers(ping)
    gate = pinging(moongate, peer)
    assert [gate.get("/").text for _ in range(3)] == [f'"1" {n} true' for n in range(3)]
    stats = gate.stats()
    assert [stats["script_sockets" + what] for what in ("", "_reused", "_active", "_idle")] == [3, 2, 0, 1]
    assert gate.get("/", {"X-Pool": "other"}).text == '"2" 0 true'
    assert gate.get("/", {"X-Pool": "other"}).text == '"2" 1 true'
    assert gate.get("/").text == '"1" 3 true'


def test_a_stale_handle_does_not_reach_a_pooled_connection(moongate, peers):
    peer = peers(ping)
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        sock:send("x")
        sock:receive_line()
        sock:keepalive()
        local ok, why = pcall(sock.send, sock, "y")
        return ok, why:match("stale"), sock:close()"""))
    assert gate.get("/").text == 'false "stale" false'
    assert gate.stats()["script_sockets_idle"] == 1


@pytest.mark.parametrize("how", ["end", "reset", "bytes"])
def test_a_pooled_connection_that_its_peer_ends_is_not_used(moongate, peers, how):
    go = threading.Event()

    def serve(sock, number):
        sock.recv(100)
        sock.sendall(b"%d\n" % number)
        go.wait(10)
        if how == "bytes":
            sock.sendall(b"?")
            sock.recv(1)
        elif how == "reset":
            reset(sock)
    peer = peers(serve)
    gate = pinging(moongate, peer)
    assert gate.get("/").text == '"1" 0 true'
    assert gate.stats()["script_sockets_idle"] == 1
    go.set()
    eventually(lambda: gate.stats()["script_sockets_idle"] == 0)
    go.clear()
    assert gate.get("/").text == '"2" 0 true'


def test_idle_connections_are_closed_in_time(moongate, peers):
    peer = peers(ping)
    gate = pinging(moongate, peer, keep="0.2")
    gate.get("/")
    assert gate.stats()["script_sockets_idle"] == 1
    eventually(lambda: gate.stats()["script_sockets_idle"] == 0)
    assert gate.get("/").text == '"2" 0 true'


MANY = """
    local list = {{}}
    for i = 1, 6 do
      list[i] = assert(gate.tcp.connect(i % 2 == 0 and "{0}" or "{1}"))
      list[i]:send("x")
      list[i]:receive_line()
    end
    for i = 1, 6 do list[i]:keepalive(60, {2}) end
    return "kept\""""


@pytest.mark.parametrize("size, top, idle", [(2, "", 4), (16, "script_sockets_idle 3;", 3), (16, "script_sockets_idle 0;", 0)])
def test_the_pool_is_bounded(moongate, peers, size, top, idle):
    one, two = peers(ping), peers(ping)
    gate = make(moongate, answers(MANY.format(one.address, two.address, size)), top=top)
    assert gate.get("/").text == '"kept"'
    assert gate.stats()["script_sockets_idle"] == idle


def test_what_is_not_clean_is_not_pooled(moongate, peers):
    peer = peers(says(b"more than one line\nis here\n", 5))
    gate = make(moongate, answers(f"""
        local sock = assert(gate.tcp.connect("{peer.address}"))
        sock:receive_line()
        local kept, why = sock:keepalive()
        local other = assert(gate.tcp.connect("{peer.address}"))
        other:receive(27)
        other:shutdown()
        return kept, why, other:keepalive()"""))
    assert gate.get("/").text == 'nil "something was not received" nil "closed"'
    assert gate.stats()["script_sockets_idle"] == 0


def test_a_reload_clears_the_pool(moongate, peers):
    peer = peers(ping)
    gate = pinging(moongate, peer)
    gate.get("/")
    assert gate.stats()["script_sockets_idle"] == 1
    gate.reload()
    eventually(lambda: gate.stats()["script_sockets_idle"] == 0)
    assert gate.get("/").text == '"2" 0 true'


# ---- limits


def test_the_sockets_of_one_request_are_bounded(moongate, peers):
    peer = peers()
    gate = make(moongate, answers(f"""
        local function open(list)
          for i = 1, 3 do
            local sock, why = (i == 2 and gate.udp or gate.tcp).connect("{peer.address}")
            list[#list + 1] = sock and "ok" or why
          end
        end
        local list = {{}}
        open(list)
        gate.spawn(function() gate.spawn(open, list):wait() end):wait()
        return unpack(list)"""), top="script_sockets_each 4;")
    assert gate.get("/").text == '"ok" "ok" "ok" "limit" "limit" "limit"'.replace('"limit"', '"ok"', 1)
    assert gate.get("/").text == '"ok" "ok" "ok" "ok" "limit" "limit"'  # the first request's are gone
    gate.wait_log("a socket was refused: script_sockets_each allows 4")
    assert gate.stats()["script_sockets_limited"] == 4


def test_sockets_that_were_closed_do_not_count(moongate, peers):
    peer = peers(ping)
    gate = make(moongate, answers(f"""
        for i = 1, 10 do
          local one, two = gate.tcp.connect("{peer.address}"), gate.udp.connect("{peer.address}")
          one:send("x")
          one:receive_line()
          if i % 2 == 0 then one:close() else one:keepalive() end
          two:close()
        end
        return "ok\""""), top="script_sockets_each 2;")
    assert gate.get("/").text == '"ok"'


def test_the_sockets_of_a_worker_are_bounded(moongate, peers):
    peer = peers()
    gate = make(moongate, answers(f"""
        if req.path == "/idle" then return (gate.tcp.connect("{peer.address}"):keepalive()) end
        local sock, why = gate.tcp.connect("{peer.address}")
        if sock and req.path == "/hold" then sock:receive(1) end
        return sock and "ok", why"""), top="script_sockets 2;")
    assert gate.get("/idle").text == "true"
    with gate.connect() as one, gate.connect() as two:
        for client in (one, two):
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: gate.stats()["script_sockets_active"] == 2)  # the idle one made room
        assert gate.get("/").text == 'nil "limit"'
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)
    assert gate.get("/").text == '"ok"'


def test_no_sockets_at_all(moongate):
    gate = make(moongate, answers('return gate.tcp.connect("127.0.0.1:9")'), top="script_sockets 0;")
    assert gate.get("/").text == 'nil "limit"'


def test_descriptors_are_given_back(moongate, peers):
    peer = peers(ping)
    gate = make(moongate, answers(f"""
        local sock, udp = gate.tcp.connect("{peer.address}"), gate.udp.connect("127.0.0.1:9")
        sock:send("x")
        return sock:receive_line() ~= nil"""))
    gate.get("/")

    def descriptors():
        return len(os.listdir(f"/proc/{gate.workers()[0]}/fd"))
    before = eventually(descriptors)
    for _ in range(50):
        assert gate.get("/").text == "true"
    eventually(lambda: descriptors() <= before)


# ---- UDP


class Datagrams:
    """A socket for datagrams: serve(data) gives the answers (a list) for each that comes; all of them are in got."""

    def __init__(self, serve=None, path=None):
        self.serve = serve or (lambda data: [])
        self.got = []
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(str(path) if path else ("127.0.0.1", 0))
        if path:
            os.chmod(path, 0o666)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                data, to = self.socket.recvfrom(70000)
                if not to:  # it was shut down
                    return
                self.got.append(data)
                for answer in self.serve(data):
                    self.socket.sendto(answer, to)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def datagrams():
    yield from several(Datagrams)


def test_datagrams_keep_their_bounds(moongate, datagrams):
    peer = datagrams(lambda data: [data, b"", data + b"\0"])
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("{peer.address}"))
        local sent, empty = udp:send("one\\0"), udp:send("")
        return sent, empty, udp:receive(), udp:receive(), udp:receive(5), udp:receive(), udp:receive(), udp:receive(),
          udp:close(), udp:close()"""))
    assert gate.get("/").body == b'4 0 "one\\0" "" "one\\0\\0" "" "" "\\0" true false'
    assert peer.got == [b"one\0", b""]


def test_large_datagrams(moongate, datagrams):
    peer = datagrams(lambda data: [data])
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("{peer.address}"))
        local most = ("x"):rep(65507)
        local sent = udp:send(most)
        local back = udp:receive() == most
        udp:send(most)
        local short, why = udp:receive(100)
        udp.read_timeout = 0.05
        local lost, why_lost = udp:receive()
        return sent, back, short, why, why_lost, udp:send(most .. "x")"""))
    assert gate.get("/").text == '65507 true nil "too large" "timeout" nil "too large"'


def test_a_datagram_that_is_lost(moongate, datagrams):
    peer = datagrams()
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("{peer.address}", {{ read_timeout = 0.2 }}))
        local began = gate.now()
        udp:send("?")
        local answer, why = udp:receive()
        return answer, why, gate.now() - began >= 0.19, gate.now() - began < 2"""))
    assert gate.get("/").text == 'nil "timeout" true true'


def test_nobody_takes_the_datagram(moongate):
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("127.0.0.1:{free_port()}"))
        udp:send("?")
        local answer, why = udp:receive()
        return answer, why"""))
    assert gate.get("/").text == 'nil "refused"'


def test_datagrams_that_nobody_receives_are_bounded(moongate, datagrams):
    peer = datagrams(lambda data: [b"%04d" % n + b"x" * 1400 for n in range(2000)])
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("{peer.address}", {{ read_timeout = 0.1 }}))
        udp:send("?")
        gate.sleep(0.5)
        local count = 0
        for data in function() return udp:receive() end do
          assert(tonumber(data:sub(1, 4)) == count)
          count = count + 1
        end
        return count > 10, count * 1400 < 200000"""))
    assert gate.get("/").text == "true true"


def test_a_peer_that_floods_does_not_hold_the_worker(moongate, datagrams):
    """However many datagrams are there, others get their turn after each 64 of them."""
    peer = datagrams(lambda data: [b"x"] * 150)
    gate = make(moongate, answers(f"""
        local udp = assert(gate.udp.connect("{peer.address}", {{ read_timeout = 1 }}))
        udp:send("?")
        gate.sleep(0.3)
        for i = 1, 140 do assert(udp:receive()) end
        return "all\""""))
    assert gate.get("/").text == '"all"'
    assert gate.stats()["script_yields"] == 1 + 2


def test_datagrams_over_unix_sockets(moongate, datagrams):
    gate = make(moongate, answers("""
        local udp, why = gate.udp.connect(req.headers["x-to"])
        if not udp then return nil, why end
        return udp:send("to unix"), udp:receive()"""))
    peer = datagrams(lambda data: [data.upper()], path=gate.folder / "log.sock")
    assert gate.get("/", {"X-To": peer.address}).text == '7 "TO UNIX"'
    assert gate.get("/", {"X-To": peer.address + "x"}).text == 'nil "not found"'


def test_a_stream_socket_takes_no_datagrams(moongate, peers):
    gate = make(moongate, answers('return gate.udp.connect(req.headers["x-to"])'))
    peer = peers(echo, path=gate.folder / "stream.sock")
    assert gate.get("/", {"X-To": peer.address}).text == 'nil "wrong kind"'


def test_a_unix_socket_that_is_full(moongate):
    """The peer's queue has no room: send() waits, and goes on when it has."""
    gate = make(moongate, answers("""
        local udp = assert(gate.udp.connect(req.headers["x-to"], { send_timeout = 0.2 }))
        local sent, why = 0
        repeat
          local ok
          ok, why = udp:send("x")
          sent = sent + (ok and 1 or 0)
        until not ok or sent > 100000
        gate.log.notice("it is full")
        udp.send_timeout = 10
        return why, sent > 0, udp:send("more")"""))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        path = gate.folder / "full.sock"
        peer.bind(str(path))
        os.chmod(path, 0o666)
        peer.settimeout(5)

        def drain():
            gate.wait_log("it is full")
            with contextlib.suppress(OSError):
                while peer.recv(10) != b"more":
                    pass
        thread = threading.Thread(target=drain)
        thread.start()
        assert gate.get("/", {"X-To": f"unix:{path}"}).text == '"timeout" true 4'
        thread.join()


def test_a_line_from_the_log_hook(moongate, datagrams):
    peer = datagrams()
    gate = make(moongate, f"""
        function hooks.request(req) return req:respond(200, nil, "ok") end
        function hooks.log(req)
          local statsd = gate.udp.connect("{peer.address}")
          statsd:send("requests:1|c")
        end""")
    for _ in range(20):
        gate.get("/")
    eventually(lambda: peer.got == [b"requests:1|c"] * 20)
    assert gate.stats()["script_sockets_active"] == 0


# ---- the example of the manual


@pytest.fixture
def redis(tmp_path):
    """The address of a redis, and a socket to it. redis-tools has the whole server, under the name of a tool."""
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not program:
        pytest.skip("needs redis (Debian: redis-tools)")
    port = free_port()
    with subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
                          executable=program, stdout=subprocess.DEVNULL) as process:
        def answers_ping():
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port))
        try:
            with eventually(answers_ping) as sock:
                sock.settimeout(5)
                yield f"127.0.0.1:{port}", sock
        finally:
            process.terminate()


def test_the_example_of_the_manual(moongate, origins, redis, datagrams):
    address, sock = redis
    sock.sendall(b"SET upstream:one.example one\r\nSET upstream:two.example two\r\n")
    assert after(sock, b"+OK\r\n+OK\r\n")
    one, two, statsd = origins(), origins(), datagrams()
    two.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
    page = (SRCDIR / "man/moongate-lua.7.in").read_text().partition(".Sh EXAMPLES")[2]
    script = re.search(r"(?ms)^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", page)[1].replace("\\e", "\\")
    gate = moongate(f"upstream one {{ server {one.address}; }} upstream two {{ server {two.address}; }}",
                    f"script a.lua redis={address} statsd={statsd.address}; route /unused one; route /unused2 two;",
                    {"a.lua": script})
    for _ in range(2):
        assert gate.get("/", {"Host": "one.example"}).body == b"ok"
        assert gate.get("/", {"Host": "two.example"}).body == b"two"
    assert gate.get("/", {"Host": "three.example"}).status == 404
    eventually(lambda: statsd.got == [b"web.status.200:1|c"] * 4 + [b"web.status.404:1|c"])
    stats = gate.stats()
    assert (stats["script_sockets_reused"], stats["script_sockets_idle"], stats["script_sockets_active"]) == (4, 1, 0)

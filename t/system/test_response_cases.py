# SPDX-License-Identifier: BSD-2-Clause
"""What servers may answer, case by case (t/cases/responses.py). Each goes through one moongate, whole and by
bytes. Behind each a good request must work, and no connection that carried a bad answer may be used again
(the origin counts). A new defect is a new row."""
import contextlib
import importlib.util
import os
import signal
import socket
import threading
import time

import pytest

from conftest import SRCDIR, eventually, hold, several

spec = importlib.util.spec_from_file_location("response_cases", SRCDIR / "t/cases/responses.py")
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
HEADS, BODIES, POISONED, FINE = cases.HEADS, cases.BODIES, cases.POISONED, cases.FINE
OK, UPGRADE, chunks, first, response = cases.OK, cases.UPGRADE, cases.chunks, cases.first, cases.response
KEPT = b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    """Answers /good well; whatever is asked as /case gets `self.answer`, after which the connection is
    remembered by the case's name: a request that comes on it later is a mistake (self.reused)."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.name, self.answer, self.bytewise, self.end = "", b"", False, "keep"
        self.pause = 0.00003  # between bytes
        self.reused, self.cases, self.answered = [], 0, None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, s):
        spoiled = None
        with contextlib.suppress(OSError), s:
            while head := self.head(s):
                if spoiled:
                    self.reused.append(spoiled)
                if b" /case" not in head:
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
                    continue
                self.answered = s
                spoiled, self.cases = self.name, self.cases + 1
                if self.bytewise:
                    for byte in self.answer:
                        s.sendall(bytes([byte]))
                        time.sleep(self.pause)
                else:
                    s.sendall(self.answer)
                if self.end == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if self.end == "half":
                    s.shutdown(socket.SHUT_WR)
                elif self.end != "keep":
                    return

    @staticmethod
    def head(s):
        head = b""
        while b"\r\n\r\n" not in head:
            more = s.recv(4096)
            if not more:
                return None
            head += more
        return head

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Answer:
    """How a strict client reads what comes: interim statuses, status, body, and whether it is whole."""

    def __init__(self, s, method="GET"):
        self.stream, self.interim, self.reset = s.makefile("rb"), [], False
        self.status, self.body, self.whole, self.fields = 0, b"", False, {}
        try:
            self.read(method)
        except (ValueError, EOFError):
            pass
        except ConnectionResetError:
            self.reset, self.whole = True, False

    def line(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2]

    def read(self, method):
        while True:
            status, self.fields = int(self.line().split(b" ")[1]), {}
            while line := self.line():
                name, _, value = line.partition(b": ")
                self.fields[name.lower()] = value
            if status >= 200 or status == 101:
                break
            self.interim.append(status)
        self.status = status
        if method == "HEAD" or status in (101, 204, 304):
            self.whole = True
        elif b"content-length" in self.fields:
            length = int(self.fields[b"content-length"])
            self.body = self.stream.read(length)
            self.whole = len(self.body) == length
        elif self.fields.get(b"transfer-encoding") == b"chunked":
            while size := int(self.line(), 16):
                piece = self.stream.read(size)
                self.body += piece
                if len(piece) < size or self.line() != b"":
                    raise EOFError
            while self.line():
                pass
            self.whole = True
        else:
            while piece := self.stream.read1(65536):
                self.body += piece
            self.whole = True


def ask(gate, path, method="GET", version="1.1", fields=""):
    with gate.connect(5) as s:
        s.sendall(f"{method} {path} HTTP/{version}\r\nHost: h\r\n{fields}\r\n".encode())
        return Answer(s, method)


@pytest.fixture
def server():
    make = several(Server)
    yield next(make)()
    with contextlib.suppress(StopIteration):
        next(make)


def make_gate(moongate, server, retry="", frontend=""):
    limits = "max_response_head 4k; max_response_headers 50; response_timeout 1s; read_timeout 500ms;"
    return moongate(f"upstream app {{ server {server.address}; {limits} {retry} }}", f"{frontend} route / app;",
                    level="notice")


@pytest.fixture
def gate(moongate, server):
    return make_gate(moongate, server, "retry off;")


def run(gate, server, name, answer, check, method="GET", bytewise=False, end="keep", version="1.1"):
    """One case, a good request behind it, and a look at what the server saw."""
    cases = server.cases
    server.name, server.answer, server.bytewise, server.end = name, answer, bytewise, end
    got = ask(gate, "/case", method, version)
    problem = check(got)
    good = ask(gate, "/good")
    if not problem and (good.status, good.body) != (200, b"good"):
        problem = f"the next request got {good.status} {good.body!r}"
    if not problem and server.cases != cases + 1:
        problem = f"asked {server.cases - cases} times"
    return problem and f"{name}{' by bytes' if bytewise else ''}, {end}: {problem}"


def refused(got):
    return None if got.status == 502 and got.whole else f"{got.status}, whole: {got.whole}, {got.body!r}"


def broken(got):
    fine = got.status == 502 or not got.whole
    return None if fine else f"{got.status} looks whole: {got.body!r}"


def is_whole(status, body):
    return lambda got: None if (got.status, got.body, got.whole) == (status, body, True) else \
        f"{got.status} {got.body!r}, whole: {got.whole}"


def none_of(problems):
    problems = [problem for problem in problems if problem]
    assert not problems, "%d problems\n" % len(problems) + "\n".join(problems)


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "by bytes"])
def test_what_is_no_response_is_502_or_cut(gate, server, bytewise):
    pieces = [(name, answer, refused) for name, answer in HEADS.items()]
    # What comes in one piece is seen before the head has left.
    pieces += [(name, answer, broken if bytewise or len(answer) > 10000 else refused) for name, answer in
               BODIES.items()]
    none_of(run(gate, server, name, answer, check, bytewise=bytewise, end="half")
            for name, answer, check in pieces if not bytewise or len(answer) < 1000)
    assert server.reused == []
    assert gate.stats()["upstream_idle"] <= 1


def test_what_follows_a_response_is_nobodys(gate, server):
    none_of(run(gate, server, name, answer, is_whole(status, body), method)
            for name, (answer, method, status, body) in POISONED.items())
    assert server.reused == []


@pytest.mark.parametrize("late", [b"x", b"\r\n", OK, response("", "", "103 Early Hints"),
                                  response("Content-Length: 0", "", "408 Request Timeout")])
def test_what_comes_while_a_connection_is_idle_poisons_it(gate, server, late):
    server.name, server.answer = "late", OK
    assert ask(gate, "/case").body == b"ok"
    eventually(lambda: gate.stats()["upstream_idle"] == 1)
    server.answered.sendall(late)
    eventually(lambda: gate.stats()["upstream_idle"] == 0)
    assert ask(gate, "/good").body == b"good"
    assert server.reused == []


def test_what_comes_in_the_turn_of_the_next_request_is_not_its_answer(moongate, server):
    """The worker finds both when it wakes up: nobody's response on the idle connection, and a request."""
    gate = make_gate(moongate, server)
    worker = gate.workers()[0]
    with gate.connect(5) as s:
        for _ in range(10):
            server.name, server.answer = "late", OK
            assert ask(gate, "/case").body == b"ok"
            eventually(lambda: gate.stats()["upstream_idle"] == 1)
            hold(worker)
            try:
                s.sendall(KEPT)
                server.answered.sendall(first("HTTP/1.1 200 Stolen"))
            finally:
                os.kill(worker, signal.SIGCONT)
            assert Answer(s).body == b"good"
    assert server.reused == []


def test_what_is_odd_but_clear_is_passed_on(gate, server):
    none_of(run(gate, server, name, answer, is_whole(status, body), method, bytewise)
            for name, (answer, method, status, body) in FINE.items() for bytewise in (False, True))
    assert len(set(server.reused)) == len(FINE)  # the connection is used again: nothing is wrong with it


# ---- interim responses and changes of protocol


ASKED = "Connection: upgrade\r\nUpgrade: websocket, x/2\r\n"
SWITCHES = {  # the fields of a 101 to a request with ASKED: the status that the client gets
    "as asked": ("Connection: upgrade\r\nUpgrade: websocket\r\n", 101),
    "the second that was asked for": ("Connection: Upgrade\r\nUpgrade: x/2\r\n", 101),
    "in capitals": ("Connection: UPGRADE\r\nUpgrade: WebSocket\r\n", 101),
    "both": ("Connection: upgrade\r\nUpgrade: x/2, websocket\r\n", 101),
    "another protocol": ("Connection: upgrade\r\nUpgrade: h2c\r\n", 502),
    "another version": ("Connection: upgrade\r\nUpgrade: x/3\r\n", 502),
    "another one beside it": ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", 502),
    "another one in a second field": ("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", 502),
    "no Upgrade": ("Connection: upgrade\r\n", 502),
    "empty Upgrade": ("Connection: upgrade\r\nUpgrade:\r\n", 502),
    "a comma for an Upgrade": ("Connection: upgrade\r\nUpgrade: ,\r\n", 502),
    "no Connection": ("Upgrade: websocket\r\n", 502),
    "Connection without upgrade": ("Connection: keep-alive\r\nUpgrade: websocket\r\n", 502),
    "with a length": ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", 502),
    "with chunks": ("Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", 502),
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "by bytes"])
def test_a_change_of_protocol_is_the_one_that_was_asked_for(gate, server, bytewise):
    problems = []
    server.bytewise, server.end = bytewise, "close"
    for name, (fields, status) in SWITCHES.items():
        server.name, server.answer = name, response(fields, "", "101 Switching Protocols")
        got = ask(gate, "/case", fields=ASKED)
        if got.status != status:
            problems.append(f"{name}: {got.status}")
        if ask(gate, "/good").body != b"good":
            problems.append(f"{name}: the next request failed")
    none_of(problems)
    server.answer = response(UPGRADE, "", "101 Switching Protocols", version="1.0")
    assert ask(gate, "/case", fields=ASKED).status == 502
    assert server.reused == []


def test_no_change_of_protocol_in_the_middle_of_a_request(gate, server):
    server.answer = response(UPGRADE, "", "101 Switching Protocols")
    with gate.connect(5) as s:
        s.sendall(f"POST /case HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n{ASKED}\r\nab".encode())
        assert Answer(s).status == 502


@pytest.mark.parametrize("version, fields, sent, passed", [
    ("1.1", "", [103], [103]),
    ("1.1", "", [102, 103, 103, 199], [102, 103, 103, 199]),
    ("1.1", "", [100], []),
    ("1.1", "", [100, 103], [103]),
    ("1.0", "", [103, 102], []),
    ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", [100, 103], [100, 103]),
    ("1.0", "Expect: 100-continue\r\nContent-Length: 0\r\n", [100, 103], []),
])
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "by bytes"])
def test_interim_responses_are_passed_on_or_absorbed(gate, server, version, fields, sent, passed, bytewise):
    server.answer = b"".join(response("X-Hint: y\r\nConnection: x-hop\r\nX-Hop: z", "", f"{status} Soon")
                             for status in sent) + OK
    server.bytewise = bytewise
    got = ask(gate, "/case", "POST" if fields else "GET", version, fields)
    assert (got.interim, got.status, got.body) == (passed, 200, b"ok")


# ---- ends


ENDS = {
    "length": response("Content-Length: 5", "hello"),
    "chunks": chunks("2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX: y\r\n\r\n"),
    "interim": response("Link: a", "", "103 Early Hints") + response("Content-Length: 2", "ok"),
}


@pytest.mark.parametrize("end", ["close", "reset", "half"])
@pytest.mark.parametrize("what", ENDS)
def test_an_end_in_any_position_never_looks_whole(gate, server, what, end):
    answer = ENDS[what]
    none_of(run(gate, server, f"{what} at {at}", answer[:at], broken, end=end) for at in range(len(answer)))
    assert server.reused == []


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_until_the_end_is_whole_only_with_an_orderly_end(gate, server, version):
    answer = response("X: y", "as long as it takes")
    whole = is_whole(200, b"as long as it takes")
    none_of([run(gate, server, "close", answer, whole, end="close", version=version),
             run(gate, server, "reset", answer, broken, end="reset", version=version),
             run(gate, server, "reset, 1.0", response("", "half", version="1.0"), broken, end="reset",
                 version=version)])
    assert server.reused == []


@pytest.mark.parametrize("orderly", [True, False], ids=["close", "reset"])
def test_an_end_while_the_client_is_slow_is_what_it_was(moongate, server, orderly):
    """What waits is written out first; then a reset must not look as if the server had ended in order."""
    gate = make_gate(moongate, server, "retry off;", "buffer_high 4k; buffer_low 0;")
    server.answer, server.end = response("X: y", "z" * 600000), "close" if orderly else "reset"
    with gate.connect(10) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s.sendall(b"GET /case HTTP/1.1\r\nHost: h\r\n\r\n")
        # It waits at one of the two, and is fetched when the client reads on.
        time.sleep(0.1)
        got = Answer(s)
    assert got.whole == orderly and set(got.body) <= {ord("z")}
    assert not orderly or len(got.body) == 600000


def test_a_head_that_drips_has_its_time_as_a_whole(gate, server):
    server.answer, server.bytewise, server.pause = response("X: " + "y" * 100), True, 0.05
    began = time.monotonic()
    assert ask(gate, "/case").status == 504
    assert 0.9 < time.monotonic() - began < 3
    server.pause = 0.00003
    assert ask(gate, "/good").body == b"good"


def test_interim_responses_begin_that_time_anew(gate, server):
    server.answer, server.bytewise, server.pause = response("", "", "102 Processing") * 4 + OK, True, 0.012
    began = time.monotonic()
    assert ask(gate, "/case").body == b"ok"
    assert time.monotonic() - began > 1


def test_the_tables_are_as_large_as_they_should_be():
    assert len(HEADS) + len(BODIES) >= 80
    assert not set(HEADS) & set(BODIES)

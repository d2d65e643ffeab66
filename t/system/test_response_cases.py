# SPDX-License-Identifier: BSD-2-Clause
"""What servers may answer, case by case: name, bytes, required outcome. Each goes through one moongate, whole and byte
by byte. Behind each a good request must work, and no connection that carried a bad answer may be used again (the
origin counts). A new defect is a new row."""
import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from conftest import eventually, hold, several

REFUSED = "502"            # nothing of it reaches the client
BROKEN = "502 or cut"      # cut visibly when the head has left already
UPGRADE = "Connection: upgrade\r\nUpgrade: websocket\r\n"


def response(fields="", body="", status="200 OK", version="1.1"):
    fields = fields and fields.rstrip("\r\n") + "\r\n"
    return f"HTTP/{version} {status}\r\n{fields}\r\n{body}".encode("latin-1")


def chunks(body, fields=""):
    return response("Transfer-Encoding: chunked\r\n" + fields, body)


def first(line):
    return line.encode("latin-1") + b"\r\nContent-Length: 2\r\n\r\nok"


def field(text):
    return response("Content-Length: 2\r\n" + text, "ok")


# name: (what the server sends, outcome)
HEADS = {
    # the status line
    "one digit": first("HTTP/1.1 2 OK"),
    "two digits": first("HTTP/1.1 20 OK"),
    "four digits": first("HTTP/1.1 2000 OK"),
    "leading zero makes four digits": first("HTTP/1.1 0200 OK"),
    "no status": first("HTTP/1.1 OK"),
    "no status, space": first("HTTP/1.1  OK"),
    "letters in the status": first("HTTP/1.1 2OO OK"),
    "signed status": first("HTTP/1.1 +20 OK"),
    "negative status": first("HTTP/1.1 -20 OK"),
    "status with a fraction": first("HTTP/1.1 200.1 OK"),
    "reason right behind the status": first("HTTP/1.1 200OK"),
    "status 000": first("HTTP/1.1 000 Zero"),
    "status 099": first("HTTP/1.1 099 Low"),
    "status 600": first("HTTP/1.1 600 High"),
    "status 999": first("HTTP/1.1 999 High"),
    "two spaces before the status": first("HTTP/1.1  200 OK"),
    "tab before the status": first("HTTP/1.1\t200 OK"),
    "tab behind the status": first("HTTP/1.1 200\tOK"),
    "space before the version": first(" HTTP/1.1 200 OK"),
    "control in the reason": first("HTTP/1.1 200 O\x01K"),
    "NUL in the reason": first("HTTP/1.1 200 O\0K"),
    "DEL in the reason": first("HTTP/1.1 200 O\x7fK"),
    "bare CR in the reason": first("HTTP/1.1 200 O\rK"),
    "CR CR LF behind the reason": b"HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9": b"<html>ok</html>",
    "HTTP/0.9 in name": first("HTTP/0.9 200 OK"),
    "HTTP/1.2": first("HTTP/1.2 200 OK"),
    "HTTP/1.10": first("HTTP/1.10 200 OK"),
    "HTTP/2.0": first("HTTP/2.0 200 OK"),
    "HTTP/2": first("HTTP/2 200 OK"),
    "HTTP/3": first("HTTP/3 200"),
    "HTTP/11": first("HTTP/11 200 OK"),
    "HTTP/1,1": first("HTTP/1,1 200 OK"),
    "lower case": first("http/1.1 200 OK"),
    "ICY": first("ICY 200 OK"),
    "ICE": first("ICE/1.1 200 OK"),
    "RTSP": first("RTSP/1.0 200 OK"),
    "SIP": first("SIP/2.0 200 OK"),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/2 preface": b"\0\0\x12\4\0\0\0\0\0" + b"\0\3\0\0\0\x64\0\4\0\xa0\0\0\0\2\0\0\0\0",
    "a request": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty line first": b"\r\n" + first("HTTP/1.1 200 OK"),
    "empty line of LF first": b"\n" + first("HTTP/1.1 200 OK"),
    "byte order mark first": b"\xef\xbb\xbf" + first("HTTP/1.1 200 OK"),
    # lines
    "LF for CR LF behind the status line": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "LF for CR LF behind a field": b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "LF for CR LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "CR for CR LF": b"HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok",
    "bare CR in a value": field("X: a\rb"),
    "bare CR hides a field": field("X: a\rTransfer-Encoding: chunked"),
    "CR at the end of a value": b"HTTP/1.1 200 OK\r\nX: a\r\r\nContent-Length: 2\r\n\r\nok",
    "obs-fold with space": field("X: a\r\n b"),
    "obs-fold with tab": field("X: a\r\n\tb"),
    "obs-fold of the length": response("Content-Length:\r\n 2", "ok"),
    "obs-fold behind the status line": b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": field("X: a\0b"),
    "control in a value": field("X: a\x08b"),
    "vertical tab in a value": field("X: a\x0bb"),
    "form feed in a value": field("X: a\x0cb"),
    "DEL in a value": field("X: a\x7fb"),
    # names
    "space before the colon": field("X : y"),
    "tab before the colon": field("X\t: y"),
    "space before the colon of the length": response("Content-Length : 2", "ok"),
    "empty name": field(": y"),
    "no colon": field("Xy"),
    "no colon, no name": field("  "),
    "space in a name": field("X Y: z"),
    "NUL in a name": field("X\0: y"),
    "control in a name": field("X\x01: y"),
    "slash in a name": field("X/Y: z"),
    "bracket in a name": field("X[]: z"),
    "quotes in a name": field('"X": z'),
    "non-ASCII name": field("X\xe4: y"),
    # Content-Length
    "two lengths": response("Content-Length: 2\r\nContent-Length: 3", "ok!"),
    "two lengths that agree": response("Content-Length: 2\r\nContent-Length: 2", "ok"),
    "listed lengths": response("Content-Length: 2, 3", "ok"),
    "listed lengths that agree": response("Content-Length: 2, 2", "ok"),
    "length with plus": response("Content-Length: +2", "ok"),
    "length with minus": response("Content-Length: -2", "ok"),
    "minus one": response("Content-Length: -1", "ok"),
    "empty length": response("Content-Length:", "ok"),
    "blank length": response("Content-Length:   ", "ok"),
    "length in hexadecimal": response("Content-Length: 0x2", "ok"),
    "length with letters": response("Content-Length: 2b", "ok"),
    "length with a space": response("Content-Length: 2 2", "ok"),
    "length with a fraction": response("Content-Length: 2.0", "ok"),
    "length in quotes": response('Content-Length: "2"', "ok"),
    "length with an exponent": response("Content-Length: 2e0", "ok"),
    "tab before the length": response("Content-Length:\t2", "ok"),
    "length of 2^63": response("Content-Length: 9223372036854775808", "ok"),
    "length of 2^64": response("Content-Length: 18446744073709551616", "ok"),
    "length of 2^64 + 2": response("Content-Length: 18446744073709551618", "ok"),
    "length of thirty digits": response("Content-Length: " + "9" * 30, "ok"),
    # Transfer-Encoding
    "length and coding": response("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "coding and length": response("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    "length and coding identity": response("Content-Length: 2\r\nTransfer-Encoding: identity", "ok"),
    "gzip": response("Transfer-Encoding: gzip", "ok"),
    "gzip, chunked": response("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
    "chunked, gzip": response("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
    "chunked twice": response("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
    "chunked in two fields": response("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "gzip and chunked in two fields": response("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "identity": response("Transfer-Encoding: identity", "ok"),
    "xchunked": response("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    "chunkedx": response("Transfer-Encoding: chunkedx", "0\r\n\r\n"),
    "chunked with a parameter": response("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"),
    "chunked in quotes": response('Transfer-Encoding: "chunked"', "0\r\n\r\n"),
    "comma before chunked": response("Transfer-Encoding: ,chunked", "0\r\n\r\n"),
    "comma behind chunked": response("Transfer-Encoding: chunked,", "0\r\n\r\n"),
    "vertical tab before chunked": response("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
    "empty coding": response("Transfer-Encoding:", "ok"),
    "chunked in HTTP/1.0": response("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n", version="1.0"),
    # limits
    "head too large": field("X: " + "y" * 5000),
    "many fields too large": field("X: yyyyyyyyyyyyyyyyy\r\n" * 250),
    "too many fields": field("X: y\r\n" * 51),
    "name too long": field("X" * 5000 + ": y"),
    "reason too long": first("HTTP/1.1 200 " + "O" * 5000),
    "space without end": field("X:" + " " * 20000 + "y"),
    # no content, but a length
    "204 with chunks": response("Transfer-Encoding: chunked", "0\r\n\r\n", "204 No Content"),
    "100 with chunks": response("Transfer-Encoding: chunked", "0\r\n\r\n", "100 Continue") + field("X: y"),
    "103 with a length": response("Content-Length: 5", "hello", "103 Early Hints") + field("X: y"),
    "103 whose length covers the next head": response("Content-Length: 38", "", "103 Early Hints") + field("X: y"),
    "205 with a length": response("Content-Length: 2", "ok", "205 Reset Content"),
    # interim responses and changes of protocol
    "101 that was not asked for": response(UPGRADE, "", "101 Switching Protocols"),
    "101 with a length": response(UPGRADE + "Content-Length: 2\r\n", "ok", "101 Switching Protocols"),
    "33 interim responses": response("", "", "103 Early Hints") * 33 + field("X: y"),
    "interim responses too large": response("X: " + "y" * 900, "", "103 Early Hints") * 6 + field("X: y"),
    "a bad response behind 103": response("", "", "103 Early Hints") + response("Content-Length: x"),
    "an empty line behind 103": response("", "", "103 Early Hints") + b"\r\n" + field("X: y"),
}
BODIES = {
    "205 with chunks": response("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n", "205 Reset Content"),
    "chunk size empty": chunks("\r\nok\r\n0\r\n\r\n"),
    "chunk size with plus": chunks("+2\r\nok\r\n0\r\n\r\n"),
    "chunk size with minus": chunks("-2\r\nok\r\n0\r\n\r\n"),
    "chunk size with 0x": chunks("0x2\r\nok\r\n0\r\n\r\n"),
    "chunk size with a letter": chunks("g\r\nok\r\n0\r\n\r\n"),
    "chunk size with h": chunks("2h\r\nok\r\n0\r\n\r\n"),
    "chunk size with space before": chunks(" 2\r\nok\r\n0\r\n\r\n"),
    "chunk size with space behind": chunks("2 \r\nok\r\n0\r\n\r\n"),
    "chunk size with tab behind": chunks("2\t\r\nok\r\n0\r\n\r\n"),
    "chunk size with space inside": chunks("0 2\r\nok\r\n0\r\n\r\n"),
    "chunk size with underscore": chunks("0_2\r\nok\r\n0\r\n\r\n"),
    "chunk size overflows": chunks("10000000000000002\r\nok\r\n0\r\n\r\n"),
    "chunk size all ones and one": chunks("fffffffffffffffff\r\nok\r\n0\r\n\r\n"),
    "chunk size ends in LF": chunks("2\nok\r\n0\r\n\r\n"),
    "chunk size ends in CR": chunks("2\rok\r\n0\r\n\r\n"),
    "chunk longer than its size": chunks("2\r\nokay\r\n0\r\n\r\n"),
    "chunk shorter than its size": chunks("4\r\nok\r\n0\r\n\r\n"),
    "chunk ends in LF": chunks("2\r\nok\n0\r\n\r\n"),
    "chunk ends in CR": chunks("2\r\nok\r0\r\n\r\n"),
    "chunk without an end": chunks("2\r\nok0\r\n\r\n"),
    "last chunk ends in LF": chunks("2\r\nok\r\n0\n\r\n"),
    "trailers end in LF": chunks("2\r\nok\r\n0\r\n\n"),
    "two last chunks": chunks("2\r\nok\r\n0\r\n0\r\n\r\n"),
    "extension ends in LF": chunks("2;a=b\nok\r\n0\r\n\r\n"),
    "NUL in an extension": chunks("2;a=\0b\r\nok\r\n0\r\n\r\n"),
    "extension too long": chunks("2;" + "a" * 300000 + "\r\nok\r\n0\r\n\r\n"),
    "trailer without a colon": chunks("2\r\nok\r\n0\r\nX\r\n\r\n"),
    "trailer with obs-fold": chunks("2\r\nok\r\n0\r\nX: y\r\n z\r\n\r\n"),
    "trailer with LF": chunks("2\r\nok\r\n0\r\nX: y\n\r\n"),
    "trailer with NUL": chunks("2\r\nok\r\n0\r\nX: \0\r\n\r\n"),
    "trailer with an empty name": chunks("2\r\nok\r\n0\r\n: y\r\n\r\n"),
    "trailer with space before the colon": chunks("2\r\nok\r\n0\r\nX : y\r\n\r\n"),
    "trailers too large": chunks("2\r\nok\r\n0\r\nX: " + "y" * 5000 + "\r\n\r\n"),
    "too many trailers": chunks("2\r\nok\r\n0\r\n" + "X: y\r\n" * 60 + "\r\n"),
    "a second response for a chunk": chunks("2\r\nok\r\n") + field("X: y"),
}
# Whole, but what follows poisons the connection: (bytes, method, status, body)
OK = first("HTTP/1.1 200 OK")
POISONED = {
    "a byte behind the length": (OK + b"x", "GET", 200, b"ok"),
    "CR LF behind the length": (OK + b"\r\n", "GET", 200, b"ok"),
    "a second response": (OK + first("HTTP/1.1 200 Stolen"), "GET", 200, b"ok"),
    "a byte behind the chunks": (chunks("2\r\nok\r\n0\r\n\r\n") + b"x", "GET", 200, b"ok"),
    "a response behind the chunks": (chunks("2\r\nok\r\n0\r\n\r\n") + OK, "GET", 200, b"ok"),
    "a byte behind an empty body": (response("Content-Length: 0") + b"x", "GET", 200, b""),
    "204 with a body": (response("", "body", "204 No Content"), "GET", 204, b""),
    "204 with a length and a body": (response("Content-Length: 4", "body", "204 No Content"), "GET", 204, b""),
    "204 with a length": (response("Content-Length: 4", "", "204 No Content"), "GET", 204, b""),
    "304 with a body": (response("Content-Length: 4", "body", "304 Not Modified"), "GET", 304, b""),
    "304 with chunks": (response("Transfer-Encoding: chunked", "0\r\n\r\n", "304 Not Modified"), "GET", 304, b""),
    "HEAD with a body": (OK, "HEAD", 200, b""),
    "HEAD with chunks": (chunks("2\r\nok\r\n0\r\n\r\n"), "HEAD", 200, b""),
    "HEAD with a response": (response("Content-Length: 2") + OK, "HEAD", 200, b""),
    "Connection: close": (response("Content-Length: 2\r\nConnection: close", "ok"), "GET", 200, b"ok"),
    "Connection: x, Close": (response("Content-Length: 2\r\nConnection: x, Close", "ok"), "GET", 200, b"ok"),
    "HTTP/1.0": (response("Content-Length: 2", "ok", version="1.0"), "GET", 200, b"ok"),
}
# Odd, but of one meaning: (bytes, method, status, body); the connection may be used again.
FINE = {
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok"),
    "no reason and no space": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok"),
    "non-ASCII reason": (first("HTTP/1.1 200 \xdcber"), "GET", 200, b"ok"),
    "status 599": (first("HTTP/1.1 599 Own"), "GET", 599, b"ok"),
    "length with zeros": (response("Content-Length: 0002", "ok"), "GET", 200, b"ok"),
    "blanks around the length": (response("Content-Length:   2  ", "ok"), "GET", 200, b"ok"),
    "empty value": (field("X:"), "GET", 200, b"ok"),
    "chunked in capitals": (response("Transfer-Encoding: CHUNKED", "2\r\nok\r\n0\r\n\r\n"), "GET", 200, b"ok"),
    "chunk size with zeros": (chunks("0002\r\nok\r\n0\r\n\r\n"), "GET", 200, b"ok"),
    "extension": (chunks("2;a=b\r\nok\r\n0;c\r\n\r\n"), "GET", 200, b"ok"),
    "trailers": (chunks("2\r\nok\r\n0\r\nX: y\r\n\r\n"), "GET", 200, b"ok"),
    "204 with length 0": (response("Content-Length: 0", "", "204 No Content"), "GET", 204, b""),
    "205 with length 0": (response("Content-Length: 0", "", "205 Reset Content"), "GET", 205, b""),
    "205 with no chunk": (response("Transfer-Encoding: chunked", "0\r\n\r\n", "205 Reset Content"), "GET", 205, b""),
    "304 with a length": (response("Content-Length: 4", "", "304 Not Modified"), "GET", 304, b""),
    "HEAD with a length": (response("Content-Length: 2"), "HEAD", 200, b""),
    "HTTP/1.0 that keeps": (response("Content-Length: 2\r\nConnection: keep-alive", "ok", version="1.0"), "GET",
                            200, b"ok"),
    "103 first": (response("Link: a", "", "103 Early Hints") + OK, "GET", 200, b"ok"),
    "100 that nobody expects": (response("", "", "100 Continue") + OK, "GET", 200, b"ok"),
    "32 interim responses": (response("", "", "103 Early Hints") * 32 + OK, "GET", 200, b"ok"),
}
KEPT = b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    """Answers /good well; whatever is asked as /case gets `self.answer`, after which the connection is remembered
    by the case's name: a request that comes on it later is a mistake (self.reused)."""

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
    return moongate(f"upstream app {{ server {server.address}; max_response_head 4k; max_response_headers 50; {retry} "
                    f"response_timeout 1s; read_timeout 500ms; }}", f"{frontend} route / app;", level="notice")


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
    return None if (got.status == 502 and got.whole) or not got.whole else f"{got.status} looks whole: {got.body!r}"


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
    """The worker finds both when it wakes up: the response of nobody on the idle connection, and a request."""
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
    none_of([run(gate, server, "close", answer, is_whole(200, b"as long as it takes"), end="close", version=version),
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
    server.answer, server.bytewise, server.pause = response("X: " + "y" * 100), True, 0.05  # 1 s is response_timeout
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

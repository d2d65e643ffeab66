# SPDX-License-Identifier: BSD-2-Clause
"""Responses and what must become of them: one line a case. t/system/test_response_cases.py lets a server
behind a moongate answer so; t/cases/seeds.py makes fuzz corpora of them.

HEADS        name -> bytes: 502, nothing of it reaches the client
BODIES       name -> bytes: 502 when it comes in one piece; cut visibly when its head has left already
POISONED     name -> (bytes, method, status, body): whole, but the connection is never used again
FINE         name -> (bytes, method, status, body): odd, but of one meaning; the connection is used again

To add one: a line. Names are unique in HEADS and BODIES."""

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
    "chunked in two fields":
        response("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "gzip and chunked in two fields":
        response("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
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
    "103 whose length covers the next head":
        response("Content-Length: 38", "", "103 Early Hints") + field("X: y"),
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
    "204 with a length and a body":
        (response("Content-Length: 4", "body", "204 No Content"), "GET", 204, b""),
    "204 with a length": (response("Content-Length: 4", "", "204 No Content"), "GET", 204, b""),
    "304 with a body": (response("Content-Length: 4", "body", "304 Not Modified"), "GET", 304, b""),
    "304 with chunks":
        (response("Transfer-Encoding: chunked", "0\r\n\r\n", "304 Not Modified"), "GET", 304, b""),
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
    "chunked in capitals":
        (response("Transfer-Encoding: CHUNKED", "2\r\nok\r\n0\r\n\r\n"), "GET", 200, b"ok"),
    "chunk size with zeros": (chunks("0002\r\nok\r\n0\r\n\r\n"), "GET", 200, b"ok"),
    "extension": (chunks("2;a=b\r\nok\r\n0;c\r\n\r\n"), "GET", 200, b"ok"),
    "trailers": (chunks("2\r\nok\r\n0\r\nX: y\r\n\r\n"), "GET", 200, b"ok"),
    "204 with length 0": (response("Content-Length: 0", "", "204 No Content"), "GET", 204, b""),
    "205 with length 0": (response("Content-Length: 0", "", "205 Reset Content"), "GET", 205, b""),
    "205 with no chunk":
        (response("Transfer-Encoding: chunked", "0\r\n\r\n", "205 Reset Content"), "GET", 205, b""),
    "304 with a length": (response("Content-Length: 4", "", "304 Not Modified"), "GET", 304, b""),
    "HEAD with a length": (response("Content-Length: 2"), "HEAD", 200, b""),
    "HTTP/1.0 that keeps":
        (response("Content-Length: 2\r\nConnection: keep-alive", "ok", version="1.0"), "GET",
                            200, b"ok"),
    "103 first": (response("Link: a", "", "103 Early Hints") + OK, "GET", 200, b"ok"),
    "100 that nobody expects": (response("", "", "100 Continue") + OK, "GET", 200, b"ok"),
    "32 interim responses": (response("", "", "103 Early Hints") * 32 + OK, "GET", 200, b"ok"),
}

# SPDX-License-Identifier: BSD-2-Clause
"""Requests and what must become of them: one line a case, by class. t/system/test_request_cases.py sends each
to a moongate with a recording origin behind it; t/cases/seeds.py makes fuzz corpora of them.

REFUSED      name -> (status, bytes): answered with the status, the connection closed, nothing forwarded
BROKEN       name -> (status, bytes): the same; the fault is in the body, so that the beginning of the request
             may have been forwarded when it came alone. Never all of it
PASSED       name -> (bytes, bytes as the origin gets them)

To add one: a line in its class. Names are unique; the bytes are those of one request."""

REFUSED, BROKEN, PASSED = {}, {}, {}
_CLASS = None


def _class(name):
    """Names that follow begin with this."""
    global _CLASS
    _CLASS = name


def _put(table, name, *what):
    name = f"{_CLASS}: {name}"
    assert all(name not in other for other in (REFUSED, BROKEN, PASSED)), name
    table[name] = what


def refused(name, data, status=400):
    _put(REFUSED, name, status, data)


def broken(name, data, status=400):
    _put(BROKEN, name, status, data)


def passed(name, data, forwarded=None):
    _put(PASSED, name, data, data if forwarded is None else forwarded)


def get(target=b"/", *fields, method=b"GET", version=b"HTTP/1.1", host=b"Host: h"):
    """A request without content, its fields behind Host."""
    lines = [method + b" " + target + b" " + version, *([host] if host is not None else []), *fields]
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def with_field(line):
    return get(b"/", line)


def post(*fields, body=b"", version=b"HTTP/1.1"):
    return get(b"/", *fields, method=b"POST", version=version) + body


def chunked(body, *fields):
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


LAST = b"0\r\n\r\n"

# ---- what frames a request ----------------------------------------------------------------------------
_class("length and coding")
refused("length first", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=LAST))
refused("coding first", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=LAST))
refused("a length of 0", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=LAST))
refused("a length that is right", post(b"Content-Length: 11", b"Transfer-Encoding: chunked",
                                       body=b"1\r\na\r\n" + LAST))
refused("an empty length", post(b"Content-Length:", b"Transfer-Encoding: chunked", body=LAST))
refused("an empty coding", post(b"Content-Length: 5", b"Transfer-Encoding:", body=b"abcde"))
refused("identity", post(b"Content-Length: 5", b"Transfer-Encoding: identity", body=b"abcde"))
refused("other case", post(b"CONTENT-LENGTH: 5", b"tRANSFER-eNCODING: CHUNKED", body=LAST))
refused("far apart", post(b"Content-Length: 5", *[b"X-%d: y" % n for n in range(50)],
                          b"Transfer-Encoding: chunked", body=LAST))
refused("a coding in another spelling", post(b"Content-Length: 5", b"Transfer_Encoding: chunked",
        body=b"abcde"))
refused("with GET", get(b"/", b"Content-Length: 5", b"Transfer-Encoding: chunked") + LAST)

_class("length")
for name, value in {
    "with plus": b"+5", "with minus": b"-5", "minus zero": b"-0", "listed": b"5,5",
    "listed with space": b"5, 5", "listed, empty end": b"5,", "listed, empty begin": b",5",
    "two numbers": b"5 5", "hexadecimal": b"0x5", "letters behind": b"5a", "letters": b"five",
    "a fraction": b"5.0", "an exponent": b"5e0", "quoted": b'"5"', "semicolon": b"5;",
    "a parameter": b"5;q=1", "underscore": b"1_0", "apostrophe": b"1'0", "a comma in it": b"1,000",
    "empty": b"", "a space": b"   ", "2^63": b"9223372036854775808", "2^64": b"18446744073709551616",
    "2^64 + 5": b"18446744073709551621", "2^32 spaces": b"4294967296 0", "thirty nines": b"9" * 30,
    "vertical tab before": b"\x0b5", "form feed before": b"\x0c5", "vertical tab behind": b"5\x0b",
    "NUL behind": b"5\x00", "tab before": b"\t5", "tab behind": b"5\t", "bare CR in it": b"5\r5",
    "non-breaking space": b"\xa05", "Arabic digits": b"\xd9\xa5", "full-width digit": b"\xef\xbc\x95",
}.items():
    refused(name, post(b"Content-Length: " + value, body=b"abcde"))
refused("no space, tab", post(b"Content-Length:\t5", body=b"abcde"))
refused("twice the same", post(b"Content-Length: 5", b"Content-Length: 5", body=b"abcde"))
refused("twice, different", post(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef"))
refused("twice, other case", post(b"Content-Length: 5", b"content-length: 5", body=b"abcde"))
refused("twice, one empty", post(b"Content-Length: 5", b"Content-Length:", body=b"abcde"))
refused("twice, other zeros", post(b"Content-Length: 5", b"Content-Length: 05", body=b"abcde"))
refused("three times", post(b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 5",
        body=b"abcde"))
refused("with an underscore", post(b"Content_Length: 5", body=b"abcde"))
refused("twice, one with an underscore", post(b"Content-Length: 5", b"Content_Length: 6",
        body=b"abcdef"))

_class("coding")
for name, value in {
    "xchunked": b"xchunked", "chunkedx": b"chunkedx", "chunked twice": b"chunked, chunked",
    "not last": b"chunked, gzip", "identity": b"identity", "identity before": b"identity, chunked",
    "identity behind": b"chunked, identity", "gzip alone": b"gzip", "empty": b"", "only blanks": b"  ",
    "a comma": b",", "empty end": b"chunked,", "empty begin": b",chunked",
    "empty between": b"gzip,,chunked", "quoted": b'"chunked"', "single quotes": b"'chunked'",
    "a parameter": b"chunked;q=1", "an empty parameter": b"chunked;", "tab before": b"\tchunked",
    "tab and space before": b" \t chunked", "tab behind": b"chunked\t", "tab in it": b"chun\tked",
    "vertical tab before": b"\x0bchunked", "vertical tab behind": b"chunked\x0b",
    "form feed before": b"\x0cchunked", "NUL behind": b"chunked\x00", "bare CR behind": b"chunked\rx",
    "space in it": b"chun ked", "a colon": b": chunked", "brackets": b"[chunked]", "unknown": b"foo",
    "unknown before": b"foo, chunked", "full stop": b"chunked.",
    "a byte order mark": b"\xef\xbb\xbfchunked", "non-breaking space": b"\xa0chunked",
    "a Kelvin sign": b"chun\xe2\x84\xaaed", "two blanked": b"chunked chunked",
}.items():
    refused(name, post(b"Transfer-Encoding: " + value, body=LAST))
refused("no space, tab", post(b"Transfer-Encoding:\tchunked", body=LAST))
refused("repeated", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=LAST))
refused("repeated, other case", post(b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED",
        body=LAST))
refused("repeated, identity", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity",
        body=LAST))
refused("repeated, obfuscated", post(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked", body=LAST))
refused("in two fields", post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=LAST))
refused("repeated, empty", post(b"Transfer-Encoding:", b"Transfer-Encoding: chunked", body=LAST))
refused("in HTTP/1.0", post(b"Transfer-Encoding: chunked", body=LAST, version=b"HTTP/1.0"))
refused("in HTTP/1.0, kept alive", post(b"Transfer-Encoding: chunked", b"Connection: keep-alive",
        body=LAST,
                                        version=b"HTTP/1.0"))
refused("gzip below chunked", post(b"Transfer-Encoding: gzip, chunked", body=LAST), 501)
refused("deflate and gzip below chunked", post(b"Transfer-Encoding: deflate,GZIP , Chunked",
        body=LAST), 501)
refused("with an underscore", post(b"Transfer_Encoding: chunked", body=LAST))
refused("space before the colon", post(b"Transfer-Encoding : chunked", body=LAST))
refused("tab before the colon", post(b"Transfer-Encoding\t: chunked", body=LAST))
refused("continued", post(b"Transfer-Encoding:\r\n chunked", body=LAST))
refused("continued by the one before", post(b"X: y\r\n Transfer-Encoding: chunked", body=LAST))
refused("a NUL in the name", post(b"Transfer-\x00Encoding: chunked", body=LAST))
refused("a line of its own by bare CR", post(b"X: y\rTransfer-Encoding: chunked", body=LAST))
refused("a line of its own by bare LF", post(b"X: y\nTransfer-Encoding: chunked", body=LAST))
refused("an HTTP/1.0 POST without length", post(version=b"HTTP/1.0"), 411)

# ---- lines --------------------------------------------------------------------------------------------
_class("lines")
refused("bare LF behind the request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n")
refused("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: h\n\r\n")
refused("bare LF ends the head", b"GET / HTTP/1.1\r\nHost: h\r\n\n")
refused("bare LF throughout", b"GET / HTTP/1.1\nHost: h\n\n")
refused("bare LF before the request", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("bare LF in a value", with_field(b"X: a\nb: c"))
refused("LF CR", b"GET / HTTP/1.1\n\rHost: h\n\r\n\r")
refused("bare CR behind the request line", b"GET / HTTP/1.1\rHost: h\r\n\r\n")
refused("bare CR behind a field", b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n")
refused("bare CR in a value", with_field(b"X: a\rb"))
refused("bare CR begins a value", with_field(b"X: \rb"))
refused("bare CR ends a value", with_field(b"X: a\r"))
refused("CR CR LF", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n")
refused("CR CR LF behind the request line", b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n")
refused("CR CR LF ends the head", b"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n")
refused("bare CR in a name", with_field(b"X\rY: a"))
refused("bare CR in the target", b"GET /\r/ HTTP/1.1\r\nHost: h\r\n\r\n")
refused("bare CR in the method", b"GE\rT / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("bare CR in the version", b"GET / HTTP\r/1.1\r\nHost: h\r\n\r\n")
refused("bare CR before the request", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("CR CR LF before the request", b"\r\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("seventeen empty lines", b"\r\n" * 17 + get())
refused("a blank line before the request", b" \r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("continued by space", with_field(b"X: a\r\n b"))
refused("continued by tab", with_field(b"X: a\r\n\tb"))
refused("continued by blanks alone", with_field(b"X: a\r\n  "))
refused("an empty value continued", with_field(b"X:\r\n b"))
refused("the first line continued", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n")
refused("the first field indented", b"GET / HTTP/1.1\r\n\tX: y\r\nHost: h\r\n\r\n")
refused("Host continued", b"GET / HTTP/1.1\r\nHost:\r\n h\r\n\r\n")
refused("a line without colon", with_field(b"X"))
refused("a line of blanks", b"GET / HTTP/1.1\r\nHost: h\r\n \r\n\r\n")
refused("a second request line", b"GET / HTTP/1.1\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
refused("Unicode line separator as an end", b"GET / HTTP/1.1\xe2\x80\xa8Host: h\r\n\r\n")
refused("NEL as an end", b"GET / HTTP/1.1\r\nHost: h\x85X: y\r\n\r\n")

_class("names")
for name, line in {
    "empty": b": a", "empty with space": b" : a", "space before the colon": b"X : a",
    "tab before the colon": b"X\t: a", "spaces before the colon": b"X   : a", "space in it": b"X Y: a",
    "NUL in it": b"X\x00Y: a", "NUL alone": b"\x00: a", "control in it": b"X\x01: a",
    "backspace": b"X\x08Y: a", "vertical tab": b"X\x0b: a", "form feed": b"X\x0c: a",
    "escape": b"\x1bX: a", "DEL": b"X\x7f: a", "UTF-8": b"X\xc3\xa4: a", "Latin-1": b"X\xe4: a",
    "quoted": b'"X": a', "parentheses": b"(X): a", "comma": b"X,Y: a", "slash": b"X/Y: a",
    "equals": b"X=Y: a", "at sign": b"X@Y: a", "brackets": b"[X]: a", "braces": b"{X}: a",
    "angles": b"<X>: a", "question mark": b"X?: a", "backslash": b"X\\Y: a", "semicolon": b"X;Y: a",
    "non-breaking space behind": b"X\xa0: a", "space before the colon of Host": b"Host : h",
    "space before the colon of Content-Length": b"Content-Length : 0",
}.items():
    refused(name, with_field(line))

_class("values")
for code in [*range(0x00, 0x09), 0x0b, 0x0c, *range(0x0e, 0x20), 0x7f]:
    refused(f"control {code:#04x}", with_field(b"X: a" + bytes([code]) + b"b"))
refused("NUL ends it", with_field(b"X: a\x00"))
refused("NUL alone", with_field(b"X: \x00"))
refused("a control in Host", get(host=b"Host: h\x01"))
refused("a control in Connection", with_field(b"Connection: close\x00"))
refused("a control in Cookie", with_field(b"Cookie: a=b\x0bc=d"))
refused("longer than max_line", with_field(b"X: " + b"a" * 8300), 431)
refused("blanks longer than max_line", with_field(b"X: " + b" " * 8300 + b"a"), 431)
refused("longer than max_head together", get(b"/", *[b"X: " + b"a" * 4000] * 5), 431)
refused("more than max_headers", get(b"/", *[b"X: y"] * 101), 431)

# ---- the request line ---------------------------------------------------------------------------------
_class("request line")
refused("HTTP/0.9", b"GET /\r\n\r\n")
refused("HTTP/0.9 with fields", b"GET /\r\nHost: h\r\n\r\n")
refused("HTTP/0.9 with a space", b"GET / \r\n\r\n")
refused("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("two spaces behind the target", b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a space behind the version", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n")
refused("a tab behind the version", b"GET / HTTP/1.1\t\r\nHost: h\r\n\r\n")
refused("a space before the method", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a tab before the method", b"\tGET / HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a tab before the target", b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a tab behind the target", b"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n")
refused("a vertical tab for space", b"GET\x0b/ HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a form feed for space", b"GET /\x0cHTTP/1.1\r\nHost: h\r\n\r\n")
refused("a non-breaking space", b"GET /\xa0HTTP/1.1\r\nHost: h\r\n\r\n")
refused("no target", b"GET HTTP/1.1\r\nHost: h\r\n\r\n")
refused("an empty target", b"GET  HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n")
refused("two versions", b"GET / HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a target that hides a version", b"GET / HTTP/1.1\x00 HTTP/1.1\r\nHost: h\r\n\r\n")
refused("only a method", b"GET\r\n\r\n")
refused("no method", b"/ HTTP/1.1\r\nHost: h\r\n\r\n")
refused("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
refused("a target longer than max_uri", get(b"/" + b"a" * 8192), 414)

_class("method")
for name, method in {
    "NUL": b"G\x00T", "control": b"GE\x01T", "DEL": b"GET\x7f", "parenthesis": b"GET(", "slash": b"G/T",
    "colon": b"GET:", "comma": b"GET,POST", "at sign": b"G@T", "quoted": b'"GET"', "UTF-8": b"G\xc3\x89T",
    "Latin-1": b"G\xc9T", "a byte order mark": b"\xef\xbb\xbfGET", "brackets": b"[GET]", "equals": b"A=B",
    "backslash": b"\\GET",
}.items():
    refused(name, get(method=method))
refused("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
refused("an SSH greeting", b"SSH-2.0-OpenSSH_9.2p1\r\n")
refused("a PROXY header", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get())
refused("longer than 64 bytes", get(method=b"M" * 65), 501)
refused("CONNECT", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501)
refused("CONNECT with content", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 3\r\n\r\nabc")
refused("CONNECT with chunks", get(b"h:443", b"Transfer-Encoding: chunked", method=b"CONNECT") + LAST)

_class("version")
for name, version, status in [
    ("lower case", b"http/1.1", 400), ("mixed case", b"Http/1.1", 400), ("1.10", b"HTTP/1.10", 400),
    ("1.01", b"HTTP/1.01", 400), ("01.1", b"HTTP/01.1", 400), ("one number", b"HTTP/1", 400),
    ("1.", b"HTTP/1.", 400), (".1", b"HTTP/.1", 400), ("a comma", b"HTTP/1,1", 400),
    ("a minus", b"HTTP/-1.1", 400), ("a plus", b"HTTP/+1.1", 400), ("letters", b"HTTP/a.b", 400),
    ("no slash", b"HTTP1.1", 400), ("a space in it", b"HTTP/ 1.1", 400),
    ("a letter behind", b"HTTP/1.1a", 400), ("NUL behind", b"HTTP/1.1\x00", 400),
    ("another protocol", b"ICE/1.0", 400), ("RTSP", b"RTSP/1.0", 400), ("HTTPS", b"HTTPS/1.1", 400),
    ("a backslash", b"HTTP\\1.1", 400), ("1.2", b"HTTP/1.2", 505), ("0.9", b"HTTP/0.9", 505),
    ("2.0", b"HTTP/2.0", 505), ("3.0", b"HTTP/3.0", 505), ("1.9", b"HTTP/1.9", 505),
    ("9.9", b"HTTP/9.9", 505), ("0.0", b"HTTP/0.0", 505),
]:
    refused(name, get(version=version), status)
refused("almost the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r-" + bytes(9), 505)
refused("the preface of HTTP/2 with a field", b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n", 505)

# ---- Host and authorities -----------------------------------------------------------------------------
_class("Host")
refused("missing", get(host=None))
refused("missing with an absolute target", get(b"http://h/", host=None))
refused("twice the same", get(b"/", b"Host: h"))
refused("twice, different", get(b"/", b"Host: evil"))
refused("twice, other case", get(b"/", b"hOST: evil"))
refused("twice, the second empty", get(b"/", b"Host:"))
refused("twice in HTTP/1.0", get(b"/", b"Host: evil", version=b"HTTP/1.0"))
refused("twice with an absolute target", get(b"http://h/", b"Host: evil"))
for name, value in {
    "empty": b"", "a list": b"a,b", "a list with space": b"a, b", "two names": b"a b", "userinfo": b"u@h",
    "userinfo with a password": b"u:p@h", "an empty userinfo": b"@h", "a path": b"h/",
    "a path behind": b"h/x", "a query": b"h?x", "a fragment": b"h#x", "a scheme": b"http://h",
    "a backslash": b"h\\x", "quoted": b'"h"', "angles": b"<h>", "port 65536": b"h:65536",
    "port 99999": b"h:99999", "port 0": b"h:0", "port 00": b"h:00", "a signed port": b"h:+80",
    "a negative port": b"h:-1", "letters in the port": b"h:8a", "a word as port": b"h:http",
    "a port of six digits": b"h:000080", "a port that overflows": b"h:18446744073709551696",
    "a space before the port": b"h: 80", "a space before the colon": b"h :80", "two ports": b"h:80:80",
    "only a port": b":80", "only a colon": b":", "percent-encoded": b"%68",
    "a bad percent-encoding": b"h%4", "UTF-8": b"h\xc3\xa4", "NUL": b"h\x00", "tab in it": b"a\tb",
    "a semicolon": b"a;b", "an ampersand": b"a&b", "an equals sign": b"a=b", "an asterisk": b"*",
    "a plus": b"a+b", "a dollar": b"$h", "braces": b"{h}", "a bar": b"a|b", "a caret": b"a^b",
    "an exclamation mark": b"h!", "IPv6 without brackets": b"::1", "IPv6 not closed": b"[::1",
    "IPv6 not opened": b"::1]", "nothing in brackets": b"[]", "IPv6 with text behind": b"[::1]x",
    "a name in brackets": b"[h]", "IPv4 in brackets": b"[127.0.0.1]",
    "IPv6 with a zone": b"[fe80::1%eth0]", "IPv6 with an encoded zone": b"[fe80::1%25eth0]",
    "IPv6 too short": b"[1:2]", "IPv6 too long": b"[1:2:3:4:5:6:7:8:9]",
    "IPv6 with five digits": b"[12345::]", "IPv6 with two gaps": b"[1::2::3]",
    "a future address": b"[v1.x]", "IPv6 with a bad port": b"[::1]:x", "brackets in brackets": b"[[::1]]",
}.items():
    refused(name, get(host=b"Host: " + value))
refused("invalid with an absolute target", get(b"http://h/", host=b"Host: u@h"))
refused("empty with an absolute target", get(b"http://h/", host=b"Host:"))
refused("empty in HTTP/1.0", get(host=b"Host:", version=b"HTTP/1.0"))

_class("target")
for name, target in {
    "relative": b"a", "a query alone": b"?q", "dots": b"../a", "asterisk with GET": b"*",
    "asterisk and more": b"*/", "authority with GET": b"h:80", "a host with GET": b"h",
    "ftp": b"ftp://h/", "file": b"file:///etc/passwd", "javascript": b"javascript:alert(1)",
    "a scheme alone": b"http:", "one slash": b"http:/h/", "three slashes": b"http:///h/",
    "no authority": b"http://", "no authority but a query": b"http://?q", "userinfo": b"http://u@h/",
    "userinfo with a password": b"http://u:p@h/", "an empty userinfo": b"http://@h/",
    "port 65536": b"http://h:65536/", "port 0": b"http://h:0/", "letters in the port": b"http://h:x/",
    "IPv6 not closed": b"http://[::1/", "no IPv6": b"http://[x]/", "a zone": b"http://[fe80::1%25lo]/",
    "backslashes": b"http:\\\\h\\", "a list": b"http://a,b/",
    "a backslash before userinfo": b"http://h\\@evil/", "an encoded host": b"http://%68/",
    "a space encoded as a host": b"http://%20/", "a fragment": b"/#f", "an empty fragment": b"/#",
    "a fragment behind a query": b"/?q#f", "a fragment in an absolute one": b"http://h/#f",
    "a fragment without path": b"http://h#f", "UTF-8": b"/\xc3\xa4", "Latin-1": b"/\xe4",
    "UTF-8 in the query": b"/?\xc3\xa4", "NUL": b"/\x00", "NUL in the query": b"/?\x00",
    "control": b"/\x01", "control in the query": b"/?\x1f", "DEL": b"/\x7f", "a quote": b'/"',
    "angles": b"/<a>", "a brace": b"/{a}", "a backquote": b"/`", "a backslash": b"/a\\b",
    "a quote in the query": b'/?"', "angles in the query": b"/?<a>", "a proxied URL": b"https//h/",
    "a byte order mark": b"\xef\xbb\xbf/", "upper case asterisk form": b"*?q",
}.items():
    refused(name, get(target))
refused("a path with CONNECT", get(b"/", method=b"CONNECT"))
refused("an absolute one with CONNECT", get(b"http://h/", method=b"CONNECT"))
refused("no port with CONNECT", get(b"h", method=b"CONNECT"))
refused("an empty port with CONNECT", get(b"h:", method=b"CONNECT"))
refused("userinfo with CONNECT", get(b"u@h:443", method=b"CONNECT"))
refused("an asterisk with POST", get(b"*", method=b"POST"))
refused("an asterisk with options in lower case", get(b"*", method=b"options"))

_class("path")
for name, path in {
    "encoded NUL": b"/%00", "encoded NUL behind a name": b"/a.php%00.txt", "encoded LF": b"/%0a",
    "encoded CR LF": b"/%0d%0aX:y", "encoded tab": b"/%09", "encoded DEL": b"/%7f",
    "a lone percent": b"/%", "half an encoding": b"/%4", "no hex": b"/%zz", "half hex": b"/%4g",
    "two percents": b"/%%41", "signed hex": b"/%+1", "UTF-16 encoding": b"/%u002e",
    "above the root": b"/..", "above the root with a slash": b"/../",
    "above the root later": b"/a/../../b", "far above": b"/../../../../etc/passwd",
    "above the root, joined": b"/a//../../b", "above the root where %2f is kept": b"/a%2fb/../../c",
    "encoded dots": b"/a/%2e%2e/b", "encoded dots, upper case": b"/a/%2E%2E/b",
    "one encoded dot": b"/a/.%2e/b", "the other encoded dot": b"/a/%2e./b",
    "an encoded single dot": b"/a/%2e/b", "encoded dots at the end": b"/a/%2e%2e",
    "dots behind an encoded slash": b"/a%2f../b", "dots before an encoded slash": b"/a/..%2fb",
    "dots between": b"/a%2f..%2fb", "a dot before an encoded slash": b"/a/.%2fb",
    "dots before an encoded backslash": b"/a/..%5cb", "dots behind an encoded backslash": b"/a%5c../b",
    "dots with a parameter": b"/a/..;/b", "dots with a value": b"/a/..;x=y/b",
    "a dot with a parameter": b"/a/.;/b", "dots with an encoded parameter": b"/a/..%3b/b",
    "encoded dots with a parameter": b"/a/%2e%2e;/b", "overlong dots": b"/%c0%ae%c0%ae/b",
    "overlong slash": b"/a%c0%afb", "overlong slash in three": b"/a%e0%80%afb",
}.items():
    refused(name, get(path))
    if name in ("above the root", "encoded dots", "encoded NUL"):
        refused(name + " in an absolute target", get(b"http://h" + path))

# ---- chunks and trailers ------------------------------------------------------------------------------
_class("chunk")
for name, body in {
    "0x": b"0x3\r\nabc\r\n", "plus": b"+3\r\nabc\r\n", "minus": b"-3\r\nabc\r\n",
    "minus zero": b"-0\r\n\r\n", "space before": b" 3\r\nabc\r\n", "tab before": b"\t3\r\nabc\r\n",
    "space behind": b"3 \r\nabc\r\n", "tab behind": b"3\t\r\nabc\r\n",
    "space before an extension": b"3 ;a\r\nabc\r\n", "empty size": b"\r\nabc\r\n",
    "only an extension": b";a=b\r\nabc\r\n", "no hex": b"g\r\nabc\r\n",
    "letters behind": b"3g\r\nabc\r\n", "h behind": b"3h\r\nabc\r\n", "a fraction": b"3.0\r\nabc\r\n",
    "underscore": b"0_3\r\nabc\r\n", "comma": b"3,3\r\nabc\r\n", "two sizes": b"3 3\r\nabc\r\n",
    "quoted": b'"3"\r\nabc\r\n', "2^64": b"10000000000000000\r\nabc\r\n",
    "2^64 + 3": b"10000000000000003\r\nabc\r\n", "seventeen digits": b"00000000000000003\r\nabc\r\n",
    "a thousand zeros": b"0" * 1000 + b"3\r\nabc\r\n", "NUL behind": b"3\x00\r\nabc\r\n",
    "vertical tab behind": b"3\x0b\r\nabc\r\n", "non-ASCII digit": b"\xef\xbc\x93\r\nabc\r\n",
    "bare LF": b"3\nabc\r\n", "bare CR": b"3\rabc\r\n", "CR CR LF": b"3\r\r\nabc\r\n",
    "LF CR": b"3\n\rabc\r\n", "data too long": b"3\r\nabcd\r\n", "data too short": b"3\r\nab\r\n",
    "data without CR": b"3\r\nabc\n", "data without LF": b"3\r\nabc\r0",
    "data without an end": b"3\r\nabc0\r\n", "CR CR LF behind data": b"3\r\nabc\r\r\n",
    "an empty line behind data": b"3\r\nabc\r\n\r\n", "a space behind data": b"3\r\nabc \r\n",
    "extension with bare CR": b"3;a\rb\r\nabc\r\n", "extension with bare LF": b"3;a\nb\r\nabc\r\n",
    "extension with NUL": b"3;a\x00\r\nabc\r\n", "extension with a control": b"3;a=\x01\r\nabc\r\n",
    "extension ended by LF": b"3;a\nabc\r\n", "quoted extension with LF": b'3;a="\n"\r\nabc\r\n',
    "quoted extension with CR": b'3;a="\r"\r\nabc\r\n', "extension with DEL": b"3;a=\x7f\r\nabc\r\n",
    "an endless extension": b"3;" + b"a" * 8300 + b"\r\nabc\r\n",
    "a terminator in an extension": b"3;\r\n\n0\r\n\r\n",
}.items():
    broken(name, chunked(body + LAST))
broken("last with bare LF", chunked(b"0\n\r\n"))
broken("last ended by bare LF", chunked(b"0\r\n\n"))
broken("last ended by bare CR", chunked(b"0\r\n\rX"))
broken("last with space", chunked(b"0 \r\n\r\n"))
broken("last with a sign", chunked(b"+0\r\n\r\n"))
broken("last as 0x0", chunked(b"0x0\r\n\r\n"))
broken("last followed by text", chunked(b"0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"))
broken("last and one more", chunked(b"0\r\n0\r\n\r\n"))
broken("more framing than content", chunked((b"1;" + b"e" * 4000 + b"\r\na\r\n") * 18 + LAST))

_class("trailer")
for name, lines, status in [
    ("Content-Length", b"Content-Length: 3\r\n", 400),
    ("Transfer-Encoding", b"Transfer-Encoding: chunked\r\n", 400), ("Host", b"Host: evil\r\n", 400),
    ("Connection", b"Connection: close\r\n", 400), ("Upgrade", b"Upgrade: x\r\n", 400),
    ("Trailer", b"Trailer: x\r\n", 400), ("TE", b"TE: trailers\r\n", 400),
    ("Content-Encoding", b"Content-Encoding: gzip\r\n", 400),
    ("Content-Range", b"Content-Range: bytes 0-1/2\r\n", 400),
    ("other case", b"cONTENT-lENGTH: 3\r\n", 400), ("behind a good one", b"X: y\r\nHost: evil\r\n", 400),
    ("underscore", b"Content_Length: 3\r\n", 400), ("space before the colon", b"X : a\r\n", 400),
    ("empty name", b": a\r\n", 400), ("no colon", b"X\r\n", 400), ("bare LF", b"X: a\nY: b\r\n", 400),
    ("bare LF ends", b"X: a\n", 400), ("bare CR", b"X: a\rb\r\n", 400),
    ("continued", b"X: a\r\n b\r\n", 400), ("indented", b" X: a\r\n", 400),
    ("control", b"X: a\x01\r\n", 400), ("NUL", b"X: \x00\r\n", 400),
    ("control in a name", b"X\x02: a\r\n", 400), ("UTF-8 in a name", b"\xc3\xa4: a\r\n", 400),
    ("too long", b"X: " + b"a" * 8300 + b"\r\n", 431), ("too many", b"X: y\r\n" * 100, 431),
]:
    broken(name, chunked(LAST[:3] + lines + b"\r\n"), status)

# ---- what passes --------------------------------------------------------------------------------------
_class("plain")
passed("GET", get())
passed("HEAD", get(method=b"HEAD"))
passed("DELETE", get(method=b"DELETE"))
passed("OPTIONS of a path", get(method=b"OPTIONS"))
passed("an empty line before", b"\r\n" + get(), get())
passed("sixteen empty lines before", b"\r\n" * 16 + get(), get())
passed("no space behind the colon", get(host=b"Host:h"), get())
passed("blanks around a value", get(b"/", b"X: \t a \t "), get(b"/", b"X: a"))
passed("an empty value", get(b"/", b"X:"), get(b"/", b"X: "))
passed("a tab in a value", get(b"/", b"X: a\tb"))
passed("UTF-8 in a value", get(b"/", b"X: \xc3\xa4"))
passed("Latin-1 in a value", get(b"/", b"X: \xe4\xff"))
passed("every character of a name", get(b"/", b"!#$%&'*+-.^_`|~09azAZ: v"))
passed("a colon in a value", get(b"/", b"X: a: b"))
passed("repeated fields stay apart", get(b"/", b"X: a", b"Y: b", b"x: c"))
passed("a hundred fields", get(b"/", *[b"X: y"] * 99))
passed("a long line", get(b"/", b"X: " + b"a" * 8000))
passed("a field with an underscore", get(b"/", b"X_Y: a"))
passed("case of names", get(host=b"hOsT: h"))
passed("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost: ORIGIN\r\n\r\n")
passed("HTTP/1.0 with Host", get(version=b"HTTP/1.0"), get())
passed("two types of content", get(b"/", b"Content-Type: a/b", b"Content-Type: c/d"))

_class("method")
passed("lower case", get(method=b"get"))
passed("unknown", get(method=b"BREW"))
passed("unknown with content", get(b"/", b"Content-Length: 3", method=b"BREW") + b"abc",
       get(b"/", b"content-length: 3", method=b"BREW") + b"abc")
passed("every character of a token", get(method=b"!#$%&'*+-.^_`|~09azAZ"))
passed("64 bytes", get(method=b"M" * 64))
passed("PROPFIND", get(method=b"PROPFIND"))
passed("PRI", get(method=b"PRI"))
passed("QUERY with content", get(b"/", b"Content-Length: 1", method=b"QUERY") + b"q",
       get(b"/", b"content-length: 1", method=b"QUERY") + b"q")
passed("one letter", get(method=b"X"))
passed("POST without length", get(method=b"POST"), get(b"/", b"content-length: 0", method=b"POST"))

_class("hop-by-hop")
passed("Connection and what it names", get(b"/", b"Connection: X-A , keep-alive", b"X-A: 1", b"X-B: 2"),
       get(b"/", b"X-B: 2"))
passed("Connection cannot drop Host", get(b"/", b"Connection: host, content-length, authorization",
       b"Authorization: x"),
       get(b"/", b"Authorization: x"))
passed("Keep-Alive, TE, Proxy-Connection",
       get(b"/", b"Keep-Alive: timeout=5", b"TE: trailers", b"Proxy-Connection: close"), get())
passed("Upgrade without Connection", get(b"/", b"Upgrade: x"), get())
passed("an upgrade to h2c",
       get(b"/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), get())

_class("body")
passed("a length", post(b"Content-Length: 3", body=b"abc"), post(b"content-length: 3", body=b"abc"))
passed("a length with zeros", post(b"Content-Length:  003 ", body=b"abc"), post(b"content-length: 3",
       body=b"abc"))
passed("a length of 0", post(b"Content-Length: 0"), post(b"content-length: 0"))
passed("content of GET", get(b"/", b"Content-Length: 3") + b"abc",
       get(b"/", b"content-length: 3") + b"abc")
passed("content that looks like a request", post(b"Content-Length: 28",
       body=b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"),
       post(b"content-length: 28", body=b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"))
passed("in HTTP/1.0", post(b"Content-Length: 3", body=b"abc", version=b"HTTP/1.0"),
       post(b"content-length: 3", body=b"abc"))


def passes_chunked(name, body, forwarded, *fields):
    passed(name, chunked(body, *fields), post(*fields, b"transfer-encoding: chunked", body=forwarded))


ABC = b"3\r\nabc\r\n"
passes_chunked("nothing in chunks", LAST, LAST)
passes_chunked("one chunk", ABC + LAST, ABC + LAST)
passes_chunked("two chunks", ABC + b"2\r\nde\r\n" + LAST, ABC + b"2\r\nde\r\n" + LAST)
passes_chunked("upper case digits", b"A\r\n0123456789\r\n" + LAST, b"a\r\n0123456789\r\n" + LAST)
passes_chunked("zeros before a size", b"0003\r\nabc\r\n" + LAST, ABC + LAST)
passes_chunked("zeros as the last", ABC + b"000\r\n\r\n", ABC + LAST)
passes_chunked("an extension", b"3;a=b\r\nabc\r\n" + LAST, ABC + LAST)
passes_chunked("a quoted extension", b'3;a="b;c"\r\nabc\r\n' + LAST, ABC + LAST)
passes_chunked("an extension of the last", ABC + b"0;a=b\r\n\r\n", ABC + LAST)
passes_chunked("line ends as content", b"4\r\n\r\n\r\n\r\n" + LAST, b"4\r\n\r\n\r\n\r\n" + LAST)
passes_chunked("content that looks like the end", b"5\r\n0\r\n\r\n\r\n" + LAST, b"5\r\n0\r\n\r\n\r\n" + LAST)
passes_chunked("a trailer", ABC + b"0\r\nX-Sum: 1\r\n\r\n",
               ABC + b"0\r\nX-Sum: 1\r\n\r\n", b"Trailer: X-Sum")
passes_chunked("trailers that are dropped",
               ABC + b"0\r\nAuthorization: x\r\nX: y\r\nCookie: a\r\nContent-Type: t\r\n\r\n",
               ABC + b"0\r\nX: y\r\n\r\n")
passes_chunked("blanks in a trailer", ABC + b"0\r\nX:  a \t\r\n\r\n", ABC + b"0\r\nX: a\r\n\r\n")
passed("case of chunked", post(b"Transfer-Encoding: ChUnKeD", body=LAST),
       post(b"transfer-encoding: chunked", body=LAST))
passed("blanks around chunked", post(b"Transfer-Encoding:  chunked  ", body=LAST),
       post(b"transfer-encoding: chunked", body=LAST))
passed("chunks with GET", get(b"/", b"Transfer-Encoding: chunked") + LAST,
       get(b"/", b"transfer-encoding: chunked") + LAST)

_class("Host")
for name, value in {
    "a name": b"www.example.org", "upper case": b"WWW.Example.ORG", "a port": b"h:8080",
    "port 65535": b"h:65535", "port 1": b"h:1", "an empty port": b"h:", "zeros in the port": b"h:00080",
    "IPv4": b"127.0.0.1:80", "IPv6": b"[::1]", "IPv6 with a port": b"[2001:db8::1]:8080",
    "IPv4 in IPv6": b"[::ffff:127.0.0.1]", "an underscore": b"my_app", "a dot at the end": b"h.",
    "punycode": b"xn--mnchen-3ya.de",
}.items():
    passed(name, get(host=b"Host: " + value))

_class("target")
for name, target in {
    "a query": b"/a?b=c&d", "an empty query": b"/a?", "question marks": b"/a?b?c",
    "a query with brackets": b"/?a[]=1&b={2}|3^4`\\", "a percent in the query": b"/?100%&%zz",
    "an encoded NUL in the query": b"/?%00", "slashes in the query": b"/?//../%2e%2e/",
    "sub-delims": b"/!$&'()*+,;=:@-._~", "brackets in a path": b"/[slug]", "a parameter": b"/a;b=c/d",
    "non-ASCII encoded": b"/caf%C3%A9", "Latin-1 encoded": b"/caf%E9", "lower case hex": b"/%c3%a9",
    "an encoded slash": b"/@scope%2fname", "an encoded backslash": b"/a%5cb",
    "an encoded percent": b"/%2541", "an encoded letter": b"/%41", "an encoded question mark": b"/a%3Fb",
    "an encoded hash": b"/a%23b", "an encoded space": b"/a%20b", "a plus": b"/a+b", "three dots": b"/...",
    "a hidden file": b"/.well-known/x", "dots in a name": b"/a..b/..c", "dot segments": b"/a/./b/../c",
    "two slashes": b"//a//b", "a colon": b"/a:b", "a URL as path": b"/http://h/",
}.items():
    passed(name, get(target))
passed("absolute", get(b"http://h/a?b"), get(b"/a?b"))
passed("absolute without path", get(b"http://h"), get(b"/"))
passed("absolute with a query alone", get(b"http://h?b"), get(b"/?b"))
passed("absolute with another Host", get(b"http://h:81/", host=b"Host: evil"), get(host=b"Host: h:81"))
passed("absolute of https", get(b"https://h/"), get(b"/"))
passed("absolute, upper case", get(b"HTTP://h/"), get(b"/"))
passed("absolute in HTTP/1.0", get(b"http://h/", host=None, version=b"HTTP/1.0"), get(host=b"host: h"))
passed("absolute, IPv6", get(b"http://[::1]:80/"), get(host=b"Host: [::1]:80"))
passed("asterisk", get(b"*", method=b"OPTIONS"))
passed("absolute without path, OPTIONS", get(b"http://h", method=b"OPTIONS"),
       get(b"*", method=b"OPTIONS"))

assert len(REFUSED) + len(BROKEN) >= 250 and len(PASSED) >= 60

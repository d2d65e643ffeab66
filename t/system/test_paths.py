# SPDX-License-Identifier: BSD-2-Clause
"""No spelling of a path comes past a route or a rule of firewall.lua and router.lua: whatever an origin makes of
the path that it gets, byte for byte, is something that moongate has looked at. And the methods directive."""
import itertools
import random
import socket

import pytest

from conftest import SRCDIR

SCRIPTS = {name: (SRCDIR / "lua" / name).read_text() for name in ("firewall.lua", "router.lua")}
PARTS = ["", "a", "admin", ".", "..", "%2e", "..;", "%2f", "%2fadmin", "admin%2f", "x%2f..", "..%2f", "%5c",
         "admin%5c", "%61dmin", "a%2fb", "%00", "x"]


def ask(gate, path, method="GET"):
    """The status and the body of one request with exactly this target."""
    got = gate.raw(f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    return int(got.split(b" ", 2)[1]), got.partition(b"\r\n\r\n")[2].decode(), got


def decode(path):
    out, rest = "", path
    while rest:
        if rest[0] == "%":
            out, rest = out + chr(int(rest[1:3], 16)), rest[3:]
        else:
            out, rest = out + rest[0], rest[1:]
    return out


def origin_readings(raw):
    """What servers of all kinds make of a path: encoded slashes, parameters, joined slashes, dot segments."""
    found = set()
    for slash, backslash, parameters, join, dots in itertools.product((False, True), repeat=5):
        path = raw if slash else raw.replace("%2f", "\x01")
        path = path if backslash else path.replace("%5c", "\x02")
        path = decode(path).replace("\\", "/")
        if parameters:
            path = "/".join(part.partition(";")[0] for part in path.split("/"))
        parts = path.split("/")[1:]
        if join:
            parts = [part for part in parts[:-1] if part] + parts[-1:]
        out = []
        for part in parts:
            if dots and part in (".", ".."):
                out = out[:-1] if part == ".." else out
            else:
                out.append(part)
        found.add("/" + "/".join(out))
    return found


def spellings():
    """All paths of up to two parts, and many of three to five."""
    chance = random.Random(2026)
    yield from ("/" + "/".join(parts) for n in (1, 2) for parts in itertools.product(PARTS, repeat=n))
    yield from ("/" + "/".join(chance.choices(PARTS, k=chance.randint(3, 5))) for _ in range(1200))


def statuses_of(gate, paths):
    """Path -> status, on keep-alive connections where the answers leave them open."""
    answers = {}
    client = None
    for path in paths:
        for _ in range(2):
            client = client or gate.client()
            try:
                client.putrequest("GET", path, skip_accept_encoding=True)
                client.endheaders()
                answer = client.getresponse()
                answers[path] = answer.status, answer.read().decode()
                if answer.headers.get("connection") == "close":
                    client.close()
                    client = None
                break
            except (ConnectionError, socket.timeout):
                client.close()
                client = None
    client and client.close()
    return answers


def test_no_spelling_comes_past_a_route(moongate, origins):
    """What reaches the upstream of "/" is "/admin" to nobody; what reaches the other is that to everybody."""
    free, admin = origins(), origins()
    gate = moongate(f"upstream free {{ server {free.address}; }}\nupstream admin {{ server {admin.address}; }}",
                    "route / free; route /admin admin;", level="warn")
    answers = statuses_of(gate, spellings())
    assert {status for status, _ in answers.values()} == {200, 400}
    assert len(free.requests) > 100 and len(admin.requests) > 20
    for request in free.requests:
        readings = origin_readings(request.target)
        assert not any(reading.startswith("/admin") for reading in readings), request.target
    for request in admin.requests:
        readings = origin_readings(request.target)
        assert all(reading.startswith("/admin") for reading in readings), request.target
    # Byte for byte, none of them changed.
    assert {request.target for request in free.requests + admin.requests} == \
        {path for path, (status, _) in answers.items() if status == 200}


def test_no_spelling_comes_past_the_firewall(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}",
                    'script firewall.lua deny_paths="/admin" allow_paths="/admin/a"; route / app;', SCRIPTS,
                    level="warn")
    answers = statuses_of(gate, spellings())
    assert {status for status, _ in answers.values()} == {200, 400, 403}
    assert len(origin.requests) > 100
    for request in origin.requests:
        readings = origin_readings(request.target)
        assert all(reading.startswith("/admin/a") for reading in readings) or \
            not any(reading.startswith("/admin") for reading in readings), (request.target, readings)


@pytest.mark.parametrize("path", ["//admin/x", "/admin//x", "/./admin/x", "/x/../admin/x", "/%61dmin/x",
                                  "/admin%2fx", "/x%2fadmin/../../admin/x", "/admin/%2e/x", "/admin/..;/x", "/%2fadmin/x"])
def test_deny_paths_is_met_in_every_spelling(moongate, origin, path):
    gate = moongate(f"upstream app {{ server {origin.address}; }}",
                    'script firewall.lua deny_paths="/admin/"; route / app;', SCRIPTS, level="warn")
    assert ask(gate, path)[0] in (400, 403)
    assert not origin.requests
    assert ask(gate, "/adminx")[0] == 200


def test_routes_that_all_readings_share_are_taken(moongate, origins):
    one, two = origins(), origins()
    gate = moongate(f"upstream one {{ server {one.address}; }} upstream two {{ server {two.address}; }}",
                    "route / one; route /npm/ two;", level="info")
    for path in ("/npm/@scope%2fname", "/npm//x", "/npm/./x", "/npm/a/../b", "/npm/%41"):
        assert ask(gate, path)[0] == 200
        assert two.requests[-1].target == path
    for path in ("/npm/../x", "//npm/x", "/npm%2fx", "/x/../npm/", "/./npm/x"):
        status, _, got = ask(gate, path)
        assert status == 400 and b"\r\nconnection: close" in got
    assert not one.requests and len(two.requests) == 5
    gate.wait_log("refused with 400: the path can be read in two ways that take different routes")


def test_a_script_sees_the_readings(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script see.lua; route / app;",
                    {"see.lua": """
        return { request = function(req)
          if req.query then req.path = req.path .. req.query end
          local readings = table.concat(req.readings, " ")
          return req:respond(200, {}, req.path .. "|" .. req.raw_path .. "|" .. readings)
        end }"""})
    assert ask(gate, "/a%41")[1] == "/aA|/a%41|/aA"
    path, raw, readings = ask(gate, "//a/../b")[1].split("|")
    assert (path, raw, set(readings.split())) == ("/b", "//a/../b", {"/b", "//b", "/a/../b", "//a/../b"})
    assert ask(gate, "/a%2fb")[1] == "/a/b|/a%2fb|/a/b /a%2Fb"
    # What a script sets has the readings of what is sent.
    assert ask(gate, "//a?/../c")[1] == "/c|/c|/c"
    assert ask(gate, "/a?\\b")[1] == "/a\\b|/a%5Cb|/a\\b /a/b"


def test_a_script_cannot_lead_above_the_root(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "script up.lua; route / app;",
                    {"up.lua": """
        return { request = function(req) req.path = "/../x" end }"""})
    assert ask(gate, "/")[0] == 500
    gate.wait_log("leads above its root")


def test_a_rewritten_target_takes_its_route_or_none(moongate, origins):
    one, two = origins(), origins()
    gate = moongate(f"upstream one {{ server {one.address}; }} upstream two {{ server {two.address}; }}",
                    "script to.lua; route / one; route /two/ two;", {"to.lua": """
        return { request = function(req) req.target = req.query end }"""}, level="info")
    assert ask(gate, "/?/two/x")[0] == 200 and two.requests[-1].target == "/two/x"
    assert ask(gate, "/two/?/x")[0] == 200 and one.requests[-1].target == "/x"
    assert ask(gate, "/?//two/x")[0] == 400
    assert len(one.requests) == len(two.requests) == 1


def test_router_refuses_what_fits_different_rules(moongate, origins):
    one, two = origins(), origins()
    gate = moongate(f"upstream one {{ server {one.address}; }} upstream two {{ server {two.address}; }}",
                    'script router.lua rules="path=/two/ -> two"; route / one;', SCRIPTS, level="warn")
    assert ask(gate, "/two/x")[0] == 200 and ask(gate, "/two//x")[0] == 200 and ask(gate, "//x")[0] == 200
    assert (len(one.requests), len(two.requests)) == (1, 2)
    for path in ("//two/x", "/two%2fx", "/x/../two/", "/two/../x"):
        assert ask(gate, path)[0] == 400
    assert (len(one.requests), len(two.requests)) == (1, 2)


# ---- methods


def allow_of(got):
    return next(line[7:].decode() for line in got.split(b"\r\n") if line.lower().startswith(b"allow: "))


def test_trace_is_off_and_any_other_method_passes(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;", level="info")
    for method in ("TRACE", "TRACK"):
        status, _, got = ask(gate, "/", method)
        assert status == 405 and "GET" in allow_of(got) and "TRACE" not in allow_of(got)
    assert not origin.requests
    for method in ("BREW", "get", "trace", "M" * 64):
        assert ask(gate, "/", method)[0] == 200 and origin.requests[-1].method == method


def test_methods_are_those_that_are_listed(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }} methods GET HEAD;",
                    "route / app; route /write/ app { methods GET PUT BREW TRACE; }\n"
                    "route /any/ app { methods any; }")
    for path, method, allowed in [("/", "GET", None), ("/", "PUT", "GET, HEAD"), ("/", "get", "GET, HEAD"),
                                  ("/write/", "PUT", None), ("/write/", "BREW", None), ("/write/", "TRACE", None),
                                  ("/write/", "HEAD", "GET, PUT, BREW, TRACE"), ("/any/", "DELETE", None)]:
        before = len(origin.requests)
        status, _, got = ask(gate, path, method)
        assert status == (405 if allowed else 200), (path, method, got)
        assert len(origin.requests) == before + (not allowed)
        if allowed:
            assert allow_of(got) == allowed
    assert b"methods GET PUT BREW TRACE;" in gate.run("-T").stdout.encode()


def test_a_method_is_refused_before_a_script_sees_it(moongate):
    gate = moongate("methods GET;", "script a.lua;", {"a.lua": """
        return { request = function(req) return req:respond(200, {}, req.method) end }"""})
    assert ask(gate, "/")[:2] == (200, "GET")
    assert ask(gate, "/", "POST")[0] == 405


def test_the_connection_lives_on_behind_a_405(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }} methods GET;", "route / app;")
    got = gate.raw(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: h\r\n"
                   b"Connection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 405") == 1 and got.count(b"HTTP/1.1 200") == 1
    assert [request.target for request in origin.requests] == ["/2"]

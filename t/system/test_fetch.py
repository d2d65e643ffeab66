# SPDX-License-Identifier: BSD-2-Clause
"""gate.fetch: requests that scripts make, through named upstreams and to addresses; what fails, and that nothing is
left of one when its hook is gone."""
import contextlib
import os
import time

import pytest

from conftest import eventually

TOP = "local gate = require 'moongate'\nlocal hooks = {}\n"


def make(moongate, origin, text, frontend="", top="", **how):
    return moongate(f"upstream app {{ server {origin.address}; }}\n{top}", "script a.lua;\nroute / app;\n" + frontend,
                    {"a.lua": TOP + text + "\nreturn hooks\n"}, **how)


# Fetches what the request's fields name and answers with what came.
ASK = """
function hooks.request(req)
  local answer, why = gate.fetch(req.headers["x-url"], { upstream = req.headers["x-upstream"],
    timeout = tonumber(req.headers["x-timeout"]), max_body = tonumber(req.headers["x-max"]) })
  if not answer then return req:respond(200, nil, "nil " .. why) end
  return req:respond(200, { ["x-type"] = answer.headers["content-type"] }, answer.status .. " " .. answer.body)
end
"""


def reply(body, head="Content-Type: text/x"):
    return b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (head.encode(), len(body), body)


def test_by_address_and_by_upstream(moongate, origins):
    app, other = origins(), origins()
    app.reply, other.reply = reply(b"app"), reply(b"other")
    gate = make(moongate, app, ASK)
    with contextlib.closing(gate.client()) as client:
        for _ in range(3):
            answer = client.ask("/", {"X-Url": f"http://{other.address}/a?b=c#d"})
            assert (answer.body, answer.headers["x-type"]) == (b"200 other", "text/x")
        assert client.ask("/", {"X-Url": "/p", "X-Upstream": "app"}).body == b"200 app"
        assert client.ask("/", {"X-Url": "http://name.example/p", "X-Upstream": "app"}).body == b"200 app"
    assert other.connections == 1 and app.connections == 1
    assert other.requests[0].head == f"GET /a?b=c HTTP/1.1\r\nhost: {other.address}\r\n\r\n".encode()
    assert [r.header("host") for r in app.requests] == ["app", "name.example"]
    assert gate.stats()["requests"] == 5 and gate.stats()["fetches"] == 5


def test_method_fields_and_body(moongate, origin):
    gate = make(moongate, origin, """
        function hooks.request(req)
          local put = gate.fetch("/put", { upstream = "app", method = "PUT", body = "", headers = { ["x-a"] = { 1, "b" } } })
          local post = gate.fetch("/post", { upstream = "app", body = ("x"):rep(300000) })
          local head = gate.fetch("/head", { upstream = "app", method = "HEAD" })
          return req:respond(200, nil, put.status .. #post.body .. #head.body)
        end""")
    origin.reply = lambda request: reply(b"ok") if request.method != "HEAD" else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    assert gate.get("/").body == b"20020"
    put, post, head = origin.requests
    assert put.all("x-a") == ["1", "b"] and put.header("content-length") == "0"
    assert post.method == "POST" and len(post.body) == 300000
    assert head.method == "HEAD"


def test_what_fails_says_why(moongate, origin, origins):
    dead = origins()
    dead.close()
    silent = origins()
    silent.reply = lambda request: time.sleep(3)
    closing = origins()
    closing.reply = None
    short = origins()
    short.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort"
    origin.reply = reply(b"x" * 2000)
    gate = make(moongate, origin, ASK)

    def why(url, **more):
        return gate.get("/", {"X-Url": url, **more}).body.decode()
    assert why(f"http://{dead.address}/") == "nil upstream_connect"
    begin = time.monotonic()
    assert why(f"http://{silent.address}/", **{"X-Timeout": "0.2"}) == "nil timeout"
    assert time.monotonic() - begin < 2
    assert why(f"http://{closing.address}/") == "nil upstream_closed"
    assert why(f"http://{short.address}/") == "nil upstream_closed"
    assert why(f"http://{origin.address}/", **{"X-Max": "1000"}) == "nil too large"
    assert why(f"ftp://{origin.address}/") == "nil ftp is not offered"
    for bad in ("127.1", "name!.example", "1.2.3.4.5:80"):
        assert why(f"http://{bad}/") == "nil this is no host name", bad
    assert why("/", **{"X-Upstream": "nobody"}) == "nil no_route"
    assert why(f"http://{origin.address}/").startswith("200 xxx")
    eventually(lambda: gate.stats()["requests_active"] == 0)


@pytest.mark.parametrize("call, message", [
    ("gate.fetch(5)", "expected a URL, got a number"),
    ("gate.fetch('/x')", "expected \"http://host/path\", or \"/path\" and an upstream"),
    ("gate.fetch('http://a@127.0.0.1/')", "expected host[:port] in the URL"),
    ("gate.fetch('http://127.0.0.1/a b')", "percent-encoded"),
    ("gate.fetch('http://127.0.0.1/', { method = 'G T' })", "is no method"),
    ("gate.fetch('http://127.0.0.1/', { headers = { connection = 'x' } })", "moongate writes it itself"),
    ("gate.fetch('http://127.0.0.1/', { headers = { ['x-a'] = 'b\\r\\nc: d' } })", "control character"),
    ("gate.fetch('http://127.0.0.1/', { body = {} })", "expected a body as a string"),
])
def test_wrong_calls_raise(moongate, origin, call, message):
    gate = make(moongate, origin, f"function hooks.request(req) {call} end")
    assert gate.get("/").status == 500
    assert message in gate.log() and "a.lua:3:" in gate.log()
    assert gate.stats()["requests_active"] == 0


def test_a_fetch_ends_with_its_client(moongate, origin, origins):
    slow = origins()
    slow.reply = lambda request: time.sleep(5)
    gate = make(moongate, origin, f'function hooks.request(req) gate.fetch("http://{slow.address}/") end')
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: len(slow.requests) == 1)
        assert gate.stats()["requests_active"] == 2
    eventually(lambda: gate.stats()["requests_active"] == 0)


def test_a_large_body_is_streamed_at_the_scripts_pace(moongate, origin):
    content = os.urandom(4 << 20)
    origin.reply = reply(content)
    gate = make(moongate, origin, """
        function hooks.request(req)
          local answer = assert(gate.fetch("/", { upstream = "app", stream = true }))
          if req.path == "/stop" then
            local first = answer:chunks()()
            answer:close()
            return req:respond(200, nil, tostring(#first > 0))
          end
          local size, pieces = 0, {}
          for chunk in answer:chunks() do
            if size == 0 then gate.sleep(0.3) end
            size = size + #chunk
            pieces[#pieces + 1] = chunk
          end
          return req:respond(200, nil, table.concat(pieces))
        end""")
    assert gate.get("/", timeout=20).body == content
    assert gate.get("/stop").body == b"true"
    eventually(lambda: gate.stats()["requests_active"] == 0)


@pytest.mark.parametrize("where", ["request", "route", "request_body", "response", "response_body", "error", "log", "timer",
                                   "init", "worker_init", "connect"])
def test_every_hook_may_fetch(moongate, origins, where):
    app, other = origins(), origins()
    other.reply = reply(b"other")
    app.reply = None if where == "error" else reply(b"app")
    bodies = {"request_body": "for chunk in req:body() do req:write(chunk) end",
              "response_body": "for chunk in res:body() do res:write(chunk) end"}
    work = f"""
        local function work(req, res)
          local answer, why = gate.fetch("http://{other.address}/")
          gate.log.notice("fetched", answer and answer.body or why)
          {bodies.get(where, "")}
        end
        if "{where}" == "timer" then gate.after(0, work) else hooks["{where}"] = work end"""
    gate = make(moongate, app, work)
    assert gate.get("/", method="POST", body=b"body").status == (502 if where == "error" else 200)
    gate.wait_log("fetched other")


def test_many_at_once(moongate, origin):
    origin.reply = lambda request: reply(request.target.encode())
    gate = make(moongate, origin, """
        function hooks.request(req)
          local tasks, got = {}, {}
          for i = 1, 50 do
            tasks[i] = gate.spawn(function() return gate.fetch("/" .. i, { upstream = "app" }).body end)
          end
          assert(gate.wait(tasks, "all", 10))
          for i = 1, 50 do got[i] = select(2, tasks[i]:wait()) end
          return req:respond(200, nil, table.concat(got))
        end""")
    for _ in range(3):
        assert gate.get("/").body == "".join(f"/{i}" for i in range(1, 51)).encode()


def test_a_scripts_own_request_is_not_a_forwarded_one(moongate, origin):
    """What a proxy does to requests of others: Via, and Max-Forwards counted down or answered here."""
    gate = make(moongate, origin, """
        function hooks.request(req)
          local answer = gate.fetch("/", { upstream = "app", method = "OPTIONS", headers = { ["max-forwards"] = 0 } })
          return req:respond(200, nil, tostring(answer.headers.via) .. answer.body)
        end""", frontend="via edge; x_forwarded append;")
    origin.reply = reply(b"app")
    assert gate.get("/").body == b"nilapp"
    request, = origin.requests
    assert (request.header("max-forwards"), request.header("via"), request.header("x-forwarded-for")) == ("0", None, None)

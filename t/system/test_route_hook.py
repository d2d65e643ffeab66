# SPDX-License-Identifier: BSD-2-Clause
"""The route hook: asked again for each attempt with what has failed, and lists of upstreams and addresses in order."""
import contextlib
import socket

import pytest

from conftest import free_port


def refused():
    return f"127.0.0.1:{free_port()}"


def routed(moongate, text, upstream="", **upstreams):
    tops = "".join(f"upstream {name} {{ server {address}; {upstream} }}\n" for name, address in upstreams.items())
    routes = "".join(f"route /{name} {name};\n" for name in upstreams)
    return moongate(tops, f"script a.lua; {routes}", {"a.lua": f'local gate = require "moongate"\n{text}\n'})


@contextlib.contextmanager
def mute():
    """A server whose connections nobody accepts or answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield "127.0.0.1:%d" % listener.getsockname()[1]


def test_a_list_is_tried_in_order(moongate, origin):
    first, second = refused(), refused()
    gate = routed(moongate, f"""return {{
        route = function(req)
          gate.log.warn("attempt", req.attempt, #req.tried, req.tried[1], req.tried[2])
          return {{ "app", "{second}", "{origin.address}" }}
        end,
        response = function(req, res) res.headers["x-tried"] = table.concat(req.tried, ", ") end,
    }}""", app=first)
    got = gate.get()
    assert got.status == 200 and got.headers["x-tried"] == f"{first}, {second}"
    gate.wait_log("attempt 1 0 nil nil")
    gate.wait_log(f"attempt 2 1 {first} nil")
    gate.wait_log(f"attempt 3 2 {first} {second}")


def test_a_list_is_tried_within_tries(moongate, origin):
    first, second = refused(), refused()
    gate = routed(moongate, f'return {{ route = function(req) return {{ "app", "other", "{origin.address}" }} end }}',
                  "tries 2;", app=first, other=second)
    assert gate.get().status == 502
    assert not origin.requests


def test_the_last_of_a_list_is_asked_again_when_all_have_failed(moongate):
    first, second = refused(), refused()
    gate = routed(moongate, f"""return {{
        route = function(req) return {{ "{first}", "{second}" }} end,
        error = function(req, res) return req:respond(502, nil, table.concat(req.tried, " ")) end
    }}""", app=first)
    assert gate.get().text == f"{first} {second} {second}"


def test_a_pooled_connection_that_had_ended_is_no_failure_of_its_choice(moongate, origin):
    def once(request):
        return None if len(origin.requests) == 2 else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    origin.reply = once
    other = refused()
    gate = routed(moongate, f'return {{ route = function(req) return {{ "app", "{other}" }} end }}', app=origin.address)
    with contextlib.closing(gate.client()) as client:
        assert [client.ask().status for _ in range(2)] == [200, 200]
    assert len(origin.requests) == 3


@pytest.mark.parametrize("how, kind, words", [
    ("refused", "upstream_connect", "no upstream server could be connected to"),
    ("closes", "upstream_closed", "the upstream server closed the connection too early"),
    ("mute", "upstream_timeout", "the upstream server did not answer in time"),
])
def test_the_last_error_is_told(moongate, origin, how, kind, words):
    with mute() as silent:
        origin.reply = lambda request: None
        address = {"refused": refused(), "closes": origin.address, "mute": silent}[how]
        gate = routed(moongate, """return { route = function(req)
              local err = req.last_error
              if err then return req:respond(200, nil, err.kind .. "|" .. err.text .. "|" .. err.server) end
            end }""", "response_timeout 200ms; retry connect idempotent timeout;", app=address)
        assert gate.get("/app").text == f"{kind}|{words}|{address}"


def test_before_the_first_attempt_there_is_no_error(moongate, origin):
    gate = routed(moongate, """return { route = function(req)
          return req:respond(200, nil, tostring(req.last_error) .. #req.tried .. req.attempt)
        end }""", app=origin.address)
    assert gate.get().text == "nil01"


@pytest.mark.parametrize("value", ["{}", "{ 1 }", "{ 'app', false }", "{ '' }", "{ 'app', '' }", "true",
                                   "(function() local t = {} for i = 1, 65 do t[i] = 'app' end return t end)()"])
def test_a_list_that_is_none_is_an_error(moongate, origin, value):
    gate = routed(moongate, f"return {{ route = function(req) return {value} end }}", app=origin.address)
    assert gate.get("/app").status == 500
    gate.wait_log("expected nothing, an upstream's name, an address, a list")


def test_a_list_of_64_is_one(moongate, origin):
    gate = routed(moongate, "local t = {} for i = 1, 64 do t[i] = 'app' end return { route = function() return t end }",
                  app=origin.address)
    assert gate.get().status == 200


def test_a_name_of_a_list_that_is_unknown_fails_when_its_turn_comes(moongate):
    gate = routed(moongate, "return { route = function(req) return { 'app', 'nobody' } end }", app=refused())
    assert gate.get().status == 502
    gate.wait_log('a script chose "nobody"')


def test_a_body_that_was_replaced_goes_to_the_next_of_the_list(moongate, origin):
    gate = routed(moongate, f"""return {{
        request = function(req) req:set_body(req:read_body():upper()) end,
        route = function(req) return {{ "app", "{origin.address}" }} end,
    }}""", app=refused())
    assert gate.get(method="POST", body=b"hello").status == 200
    assert origin.requests[0].body == b"HELLO"

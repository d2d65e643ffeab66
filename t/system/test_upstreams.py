# SPDX-License-Identifier: BSD-2-Clause
"""What operators see and say of servers: moongatectl show upstreams, set server, and the metrics of servers."""
import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from conftest import eventually, free_port


class Server:
    """Answers every request with its own name."""

    def __init__(self, name):
        self.name = name.encode()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        with contextlib.suppress(OSError), s, s.makefile("rb") as stream:
            while stream.readline():
                while stream.readline() not in (b"\r\n", b""):
                    pass
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.name), self.name))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def servers():
    made = [Server("a"), Server("b")]
    yield made
    for server in made:
        with contextlib.suppress(OSError):
            server.close()


def start(moongate, servers, more="", **how):
    lines = "".join("server %s;\n" % server.address for server in servers)
    return moongate(top="upstream app {\n%s%s\n}\n" % (lines, more), frontend="route / app;", **how)


def shares(gate, requests=100):
    got = [gate.get().text for _ in range(requests)]
    return {name: got.count(name) for name in set(got)}


def shown(gate, server):
    upstream, = [u for u in gate.show("upstreams")["upstreams"] if u["upstream"] == "app"]
    found, = [s for s in upstream["servers"] if s["server"] == server.address]
    return found


def test_show_upstreams_counts_what_each_server_was_asked(moongate, servers):
    gate = start(moongate, servers, workers=2)
    for _ in range(20):
        assert gate.get().status == 200
    both = [shown(gate, server) for server in servers]
    assert sum(s["requests"] for s in both) == 20
    for s in both:
        assert s["state"] == "up" and s["weight"] == 1 and s["active"] == 0
        assert s["connects"] >= 1 and s["connects"] + s["reused"] == s["requests"]
        assert 0 < s["connect_us"] < 10e6 and 0 < s["wait_us"] < 10e6
        assert s["idle"] >= 1 and s["connect_errors"] == 0
    text = gate.ctl("show", "upstreams").stdout
    assert "upstream app\n" in text and all(server.address in text for server in servers)


def test_a_tunnel_and_a_request_under_way_are_active(moongate, servers):
    gate = start(moongate, servers[:1])
    silent = socket.create_server(("127.0.0.1", 0))
    slow = "127.0.0.1:%d" % silent.getsockname()[1]
    gate.configure(top="upstream app { server %s; }" % slow, frontend="route / app;")
    gate.reload()
    client = gate.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    upstream = lambda: gate.show("upstreams")["upstreams"][0]["servers"]
    assert eventually(lambda: [s["active"] for s in upstream()] == [1])
    client.close()
    assert eventually(lambda: [s["active"] for s in upstream()] == [0])
    silent.close()


def test_a_weight_that_is_set_holds_beyond_a_reload_and_a_workers_death(moongate, servers):
    gate = start(moongate, servers)
    a, b = servers
    assert shares(gate) == {"a": 50, "b": 50}
    assert "1 server of upstream \"app\" set" in gate.ctl("set", "server", "app/" + a.address, "weight", "9").stdout
    assert shares(gate) == {"a": 90, "b": 10}
    gate.reload()
    assert shares(gate) == {"a": 90, "b": 10}
    pid, = gate.workers()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: gate.workers() not in ([], [pid]), 10)
    assert shares(gate) == {"a": 90, "b": 10}
    assert shown(gate, a)["weight"] == 9
    gate.ctl("set", "server", "app/" + a.address, "weight", "default")
    assert shares(gate) == {"a": 50, "b": 50}


@pytest.mark.parametrize("how", ["drain", "down"])
def test_a_server_that_is_taken_out_gets_nothing_new(moongate, servers, how):
    gate = start(moongate, servers, workers=2)
    a, b = servers
    gate.ctl("set", "server", "app/" + a.address, how)
    assert shown(gate, a)["state"] == how
    assert shares(gate) == {"b": 100}
    gate.reload()
    assert shares(gate) == {"b": 100}
    gate.ctl("set", "server", "app/" + a.address, "up")
    assert set(shares(gate)) == {"a", "b"}


def test_with_all_servers_down_the_answer_is_503_at_once_and_says_why(moongate, servers):
    gate = start(moongate, servers)
    assert "2 servers" in gate.ctl("set", "server", "app/*", "down").stdout
    response = gate.get()
    assert response.status == 503 and response.headers["retry-after"] == "1"
    gate.wait_log('upstream "app": no server may be asked')
    assert gate.stats()["upstream_none"] >= 1
    gate.ctl("set", "server", "app/*", "up")
    assert gate.get().status == 200


def test_what_fails_for_one_worker_is_shown(moongate, servers):
    gate = start(moongate, servers, workers=2)
    a, b = servers
    a.close()
    for _ in range(20):
        assert gate.get().text == "b"
    assert shown(gate, a)["state"] != "up"
    assert shown(gate, a)["connect_errors"] >= 1
    assert shown(gate, b)["state"] == "up"


@pytest.mark.parametrize("arguments, message", [
    (["app/127.0.0.1:1", "up"], 'upstream "app" has no server "127.0.0.1:1", expected one of: 127.0.0.1:'),
    (["none/127.0.0.1:1", "up"], 'no upstream "none" with servers'),
    (["app", "up"], "expected set server UPSTREAM/ADDRESS"),
    (["app/*"], "expected set server UPSTREAM/ADDRESS"),
    (["app/*", "sideways"], "expected set server UPSTREAM/ADDRESS"),
    (["app/*", "up", "now"], "expected set server UPSTREAM/ADDRESS"),
    (["app/*", "weight"], "expected set server UPSTREAM/ADDRESS"),
    (["app/*", "weight", "0"], '"0" is not a weight'),
    (["app/*", "weight", "257"], '"257" is not a weight'),
    (["app/*", "weight", "+1"], '"+1" is not a weight'),
    (["app/*", "weight", "1e3"], '"1e3" is not a weight'),
    (["app/*", "weight", "1", "2"], "expected set server UPSTREAM/ADDRESS"),
])
def test_a_bad_order_changes_nothing_and_says_what_is_wrong(moongate, servers, arguments, message):
    gate = start(moongate, servers)
    before = gate.show("upstreams")
    done = gate.ctl("set", "server", *arguments, check=False)
    assert done.returncode == 1 and message in done.stderr
    assert gate.show("upstreams") == before


def test_metrics_name_upstream_and_server(moongate, servers):
    gate = start(moongate, servers, workers=2)
    for _ in range(10):
        gate.get()
    text = gate.ctl("show", "metrics").stdout
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    count = sum(int(lines['moongate_server_requests_total{upstream="app",server="%s"}' % s.address]) for s in servers)
    assert count == 10
    assert 'moongate_server_connect_seconds_total{upstream="app",server="%s"}' % servers[0].address in lines
    assert 'moongate_server_active{upstream="app",server="%s"}' % servers[0].address in lines
    names = {m["name"] for m in gate.show("metrics")["metrics"]}
    assert "moongate_server_requests_total" in names


def test_more_servers_than_upstream_servers_work_alone(moongate, servers):
    gate = moongate(top="upstream_servers 1;\nupstream app { server %s; server %s; }" %
                    tuple(s.address for s in servers), frontend="route / app;")
    assert shares(gate) == {"a": 50, "b": 50}
    gate.wait_log("more servers than upstream_servers")
    assert len(gate.show("upstreams")["upstreams"][0]["servers"]) == 1


class Closing(Server):
    """Closes connections that were idle for `idle` seconds, and notes how those that it served ended."""

    def __init__(self, name, idle):
        self.idle = idle
        self.ends = []
        super().__init__(name)

    def serve(self, s):
        with contextlib.suppress(OSError), s:
            s.settimeout(self.idle)
            try:
                while piece := s.recv(65536):
                    assert piece.endswith(b"\r\n\r\n")
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.name), self.name))
                self.ends.append("moongate")
            except TimeoutError:
                self.ends.append("server")


def test_how_long_a_server_keeps_connections_is_noticed(moongate):
    server = Closing("a", 0.8)
    gate = start(moongate, [server])
    for i in range(2):
        assert gate.get().status == 200
        assert eventually(lambda: server.ends == ["server"] * (i + 1))
    for i in range(3):
        assert gate.get().status == 200
        assert eventually(lambda: len(server.ends) == 3 + i)
    assert server.ends == ["server"] * 2 + ["moongate"] * 3
    server.close()


def test_our_own_time_out_teaches_nothing(moongate):
    server = Closing("a", 5)
    gate = start(moongate, [server], "keepalive 8 idle=700ms;")
    for i in range(4):
        began = time.monotonic()
        assert gate.get().status == 200
        assert eventually(lambda: len(server.ends) == i + 1)
        assert time.monotonic() - began > 0.65
    server.close()


def test_connections_are_kept_ready_before_they_are_needed(moongate, servers):
    a, b = servers
    gate = start(moongate, servers, "keepalive 16 warm=3;", workers=2)
    idle = lambda: [shown(gate, s)["idle"] for s in servers]
    assert eventually(lambda: idle() == [6, 6])
    assert (a.connections, b.connections) == (6, 6)
    for _ in range(10):
        assert gate.get().status == 200
    assert (a.connections, b.connections) == (6, 6), "requests took those that were ready"
    gate.ctl("set", "server", "app/" + a.address, "down")
    gate.reload()
    assert eventually(lambda: idle() == [0, 6]), "the new generation makes its own, the old one's go"
    gate.ctl("set", "server", "app/" + a.address, "up")
    assert eventually(lambda: idle() == [6, 6])


def test_a_warm_connection_that_the_server_closes_is_replaced(moongate):
    server = Closing("a", 0.3)
    gate = start(moongate, [server], "keepalive 8 warm=2;")
    assert eventually(lambda: len(server.ends) >= 2)
    assert eventually(lambda: shown(gate, server)["idle"] == 2)
    for _ in range(5):
        assert gate.get(method="POST", body=b"").status == 200
        time.sleep(0.31)
    server.close()


def test_a_server_that_is_away_is_warmed_when_it_is_back(moongate):
    port = free_port()
    gate = moongate(top="upstream app { server 127.0.0.1:%d; keepalive 8 warm=2; }" % port,
                    frontend="route / app;")
    assert eventually(lambda: gate.show("upstreams")["upstreams"][0]["servers"][0]["connect_errors"] >= 2)
    with socket.create_server(("127.0.0.1", port)):
        assert eventually(lambda: gate.show("upstreams")["upstreams"][0]["servers"][0]["idle"] == 2, 20)


def test_more_warm_connections_than_are_kept_is_an_error(moongate):
    gate = moongate(top="upstream app { server 127.0.0.1:1; keepalive 4 warm=5; }", frontend="route / app;",
                    start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and "warm=5" in done.stderr


WISHES = """
local gate = require "moongate"
return { request = function(req)
  local address, admin, weight = req.args.address, req.args.admin, req.args.weight
  if req.path == "/set" then
    local done, why = gate.set_server("app", address, { admin = admin, weight = tonumber(weight) or weight })
    return req:respond(done and 200 or 404, {}, why or "set")
  elseif req.path == "/list" then
    local lines = {}
    for _, s in ipairs(gate.servers("app")) do
      lines[#lines + 1] = table.concat({ s.address, s.name, s.state, s.admin, s.weight, s.active }, " ")
    end
    return req:respond(200, {}, table.concat(lines, "\\n"))
  elseif req.path == "/wrong" then
    local bad = {
      function() gate.servers("none") end, function() gate.servers(1) end,
      function() gate.set_server("app", address, { weigth = 1 }) end,
      function() gate.set_server("app", address, { weight = 0 }) end,
      function() gate.set_server("app", address, { weight = 1.5 }) end,
      function() gate.set_server("app", address, { admin = "gone" }) end,
      function() gate.set_server("app", address) end,
      function() gate.set_server("none", address, { weight = 1 }) end,
    }
    local texts = {}
    for i, f in ipairs(bad) do
      local ok, text = pcall(f)
      texts[i] = ok and "ok" or text
    end
    return req:respond(200, {}, table.concat(texts, "\\n"))
  end
end }
"""


def test_a_script_sets_servers_for_all_workers(moongate, servers):
    lines = "".join("server %s;\n" % server.address for server in servers)
    gate = moongate(top="upstream app {\n%s}\n" % lines, frontend="script a.lua; route / app;", workers=2,
                    files={"a.lua": WISHES})
    a, b = servers
    assert gate.get("/list").text == "%s %s up up 1 0\n%s %s up up 1 0" % (a.address, a.address, b.address, b.address)
    assert gate.get("/set?address=%s&admin=drain" % a.address).text == "set"
    assert shares(gate) == {"b": 100}
    assert shown(gate, a)["state"] == "drain"
    assert gate.get("/set?address=%s&admin=up&weight=4" % a.address).text == "set"
    assert "%s %s up up 4 0" % (a.address, a.address) in gate.get("/list").text
    got = shares(gate, 200)
    assert 140 < got["a"] < 180, "four of five by each of two workers"
    assert gate.get("/set?address=%s&weight=default" % a.address).text == "set"
    assert shown(gate, a)["weight"] == 1
    gone = gate.get("/set?address=127.0.0.1:1&admin=down")
    assert gone.status == 404 and gone.text == 'upstream "app" has no server "127.0.0.1:1"'


def test_a_scripts_wrong_wishes_are_errors_that_say_what_is_wrong(moongate, servers):
    gate = moongate(top="upstream app { server %s; }" % servers[0].address, frontend="script a.lua; route / app;",
                    files={"a.lua": WISHES})
    texts = gate.get("/wrong?address=" + servers[0].address).text.split("\n")
    assert len(texts) == 8 and "ok" not in texts
    assert 'there is no upstream "none" here' in texts[0] and 'there is no upstream "none" here' in texts[7]
    assert "weight and admin" in texts[2] and "1 to 256" in texts[3] and "1 to 256" in texts[4]
    assert '"drain"' in texts[5]
    assert shown(gate, servers[0])["weight"] == 1

# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/1.1 on both sides with real peers: what passes unchanged, what is stripped and added, who is asked and
how often, and every status of moongate's own."""
import contextlib
import re
import resource
import socket
import subprocess
import threading
import time

import pytest

from conftest import eventually, free_port, read_all

APP = "upstream app {{ server {}; {} }}"


def gate_to(moongate, origin, upstream="", top="", frontend="", **how):
    """A gate that forwards everything to the origin."""
    return moongate(APP.format(origin.address, upstream) + top, f"route / app;\n{frontend}", **how)


def reply(status="200 OK", body=b"ok", fields=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


def split(answer):
    """Raw bytes of one response -> status, {lower name: value}, rest."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), fields, rest


def is_own_error(status, fields, body):
    """A short body with the status, its reason and the request id, which is returned."""
    text = body.decode()
    assert text.startswith(f"{status} "), text
    found = re.search(r"^request ([0-9a-f]{28}|[0-9a-f]{27})$", text, re.M)
    assert found, text
    assert int(fields["content-length"]) == len(body) < 200
    assert "date" in fields
    return found.group(1)


# ---- what passes


def test_curl_gets_a_file_of_nginx(moongate, nginx):
    nginx.write("page", "hello from nginx\n")
    gate = gate_to(moongate, nginx)
    done = subprocess.run(["curl", "-sS", "-i", gate.url("/page")], capture_output=True, text=True,
                          timeout=10, check=True)
    assert done.stdout.startswith("HTTP/1.1 200 OK\n")
    assert done.stdout.endswith("hello from nginx\n")
    assert "Server: nginx" in done.stdout


def test_head_has_the_length_and_no_body(moongate, nginx):
    nginx.write("page", b"x" * 1234)
    gate = gate_to(moongate, nginx)
    client = gate.client()
    for _ in range(2):  # the connection stays in step
        answer = client.ask("/page", method="HEAD")
        assert answer.status == 200 and answer.headers["content-length"] == "1234" and answer.body == b""
        assert len(client.ask("/page").body) == 1234


def test_304_has_no_body(moongate, nginx):
    nginx.write("page", b"x" * 1234)
    gate = gate_to(moongate, nginx)
    client = gate.client()
    tag = client.ask("/page").headers["etag"]
    for _ in range(2):
        answer = client.ask("/page", {"If-None-Match": tag})
        assert answer.status == 304 and answer.body == b"" and answer.headers["etag"] == tag
    assert client.ask("/page").status == 200


def test_204_has_neither_body_nor_length(moongate, origin):
    origin.reply = b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"
    gate = gate_to(moongate, origin)
    client = gate.client()
    for _ in range(2):
        answer = client.ask()
        assert answer.status == 204 and answer.headers["x-a"] == "b"
        assert answer.headers["content-length"] is None
        assert answer.headers["transfer-encoding"] is None


def test_the_request_reaches_the_origin_as_it_was_meant(moongate, origin):
    gate = gate_to(moongate, origin)
    gate.get("/a/../b%20c?d=%2f", {"X-One": "1", "Host": "name.example:81", "Cookie": "a=b"})
    request = origin.requests[0]
    assert request.line == "GET /a/../b%20c?d=%2f HTTP/1.1"
    assert request.header("host") == "name.example:81"
    assert request.all("x-one") == ["1"] and request.all("cookie") == ["a=b"]
    assert request.header("connection") is None


def test_repeated_fields_stay_apart_and_in_order(moongate, origin):
    origin.reply = reply(fields="Set-Cookie: a=1\r\nX-Between: x\r\nSet-Cookie: b=2\r\n")
    gate = gate_to(moongate, origin)
    assert gate.get().headers.get_all("set-cookie") == ["a=1", "b=2"]
    gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\n\r\n")
    assert origin.requests[-1].all("x-a") == ["1", "2"]


def test_hop_by_hop_fields_are_stripped_both_ways(moongate, origin):
    origin.reply = reply(fields="Keep-Alive: timeout=9\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\n"
                                "X-Stays: 2\r\n"
                                "Proxy-Authenticate: Basic\r\n")
    gate = gate_to(moongate, origin)
    answer = gate.get("/", {"Connection": "X-Secret, keep-alive", "X-Secret": "1", "Keep-Alive": "timeout=1",
                            "TE": "trailers",
                            "Proxy-Connection": "keep-alive", "Proxy-Authorization": "Basic eA==",
                             "X-Kept": "3",
                            "Upgrade": "h2c"})
    request = origin.requests[0]
    for name in ("x-secret", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade",
                 "connection"):
        assert request.header(name) is None, name
    assert request.header("x-kept") == "3"
    for name in ("keep-alive", "x-hop", "proxy-authenticate"):
        assert answer.headers[name] is None, name
    assert answer.headers["x-stays"] == "2"


@pytest.mark.parametrize("how,claimed,expected", [
    ("off", "6.6.6.6", {"x-forwarded-for": ["6.6.6.6"], "x-forwarded-proto": [], "x-forwarded-host": []}),
    ("append", "6.6.6.6", {"x-forwarded-for": ["6.6.6.6, 127.0.0.1"], "x-forwarded-proto": ["http"],
                           "x-forwarded-host": ["h:81"]}),
    ("replace", "6.6.6.6",
     {"x-forwarded-for": ["127.0.0.1"], "x-forwarded-proto": ["http"], "x-forwarded-host": ["h:81"]}),
])
def test_x_forwarded(moongate, origin, how, claimed, expected):
    gate = gate_to(moongate, origin, frontend=f"x_forwarded {how};")
    gate.get("/", {"X-Forwarded-For": claimed, "Host": "h:81"})
    request = origin.requests[0]
    assert {name: request.all(name) for name in expected} == expected


def test_forwarded(moongate, origin):
    gate = gate_to(moongate, origin, frontend="forwarded on;")
    gate.get("/", {"Host": "h:81", "Forwarded": "for=6.6.6.6"})
    assert origin.requests[0].all("forwarded") == ['for=6.6.6.6, '
                                                   'for=127.0.0.1;by=127.0.0.1;host="h:81";proto=http']


def test_via(moongate, origin):
    gate = gate_to(moongate, origin, frontend="via edge;")
    answer = gate.get("/", {"Via": "1.0 fred"})
    assert origin.requests[0].all("via") == ["1.0 fred", "1.1 edge"]
    assert answer.headers["via"] == "1.1 edge"
    assert "date" in answer.headers  # the origin sent none


def test_max_forwards(moongate, origin):
    gate = gate_to(moongate, origin)
    assert gate.get("/", {"Max-Forwards": "3"}, method="OPTIONS").status == 200
    assert origin.requests[0].header("max-forwards") == "2"
    answer = gate.get("/", {"Max-Forwards": "0"}, method="OPTIONS")
    assert (answer.status, answer.body, len(origin.requests)) == (200, b"", 1)


def test_103_passes_before_the_response(moongate, origin):
    origin.reply = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(body=b"late")
    gate = gate_to(moongate, origin)
    answer = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    status, fields, rest = split(answer)
    assert status == 103 and fields == {"link": "</a>"}
    status, _, body = split(rest)
    assert status == 200 and body == b"late"
    # Not to an HTTP/1.0 client, which could not know it from the response.
    assert split(gate.raw(b"GET / HTTP/1.0\r\n\r\n"))[0] == 200


def test_expect_100_continue(moongate, origin):
    gate = gate_to(moongate, origin)
    # The origin says 100 before it reads the body; that it passes shows when the client waits for it.
    seen = []

    def serve(listener):
        server, _ = listener.accept()
        with server, server.makefile("rb") as stream:
            while (line := stream.readline()) not in (b"\r\n", b""):
                seen.append(line)
            server.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = stream.read(5)
            server.sendall(reply(body=body))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        gate.configure(f"upstream app {{ server 127.0.0.1:{listener.getsockname()[1]}; }}", "route / app;")
        gate.reload()
        with gate.connect() as s:
            s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
                      b"Connection: close\r\n\r\n")
            assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            s.sendall(b"hello")
            assert split(read_all(s))[2] == b"hello"
    assert b"Expect: 100-continue\r\n" in seen


def test_expect_and_a_final_answer_instead(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": "return { request = function(req) return "
                                                   "req:respond(403, {}, 'no') end }"})
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        status, fields, body = split(read_all(s))
    assert status == 403 and body == b"no" and fields["connection"] == "close"


# ---- connections of clients


def test_pipelined_requests_are_answered_in_order(moongate, origin):
    def answer(request):
        if request.target == "/0":
            time.sleep(0.2)
        return reply(body=f"<{request.target}>".encode())
    origin.reply = answer
    gate = gate_to(moongate, origin)
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(20))
    with gate.connect() as s:
        s.sendall(requests + b"POST /20 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
                             b"abcGET /21 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        got = read_all(s)
    assert re.findall(rb"</\d+>", got) == [b"</%d>" % n for n in range(22)]
    assert origin.requests[20].body == b"abc"


def test_pipelined_requests_cut_anywhere(moongate, origin):
    origin.reply = lambda request: reply(body=f"<{request.target}>".encode())
    gate = gate_to(moongate, origin)
    data = b"".join(b"POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
                    b"\r\n" % n for n in range(3))
    with gate.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 7):
            s.sendall(data[at:at + 7])
            time.sleep(0.002)
        s.sendall(b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert re.findall(rb"<.+?>", read_all(s)) == [b"</0>", b"</1>", b"</2>", b"</last>"]
    assert [request.body for request in origin.requests] == [b"abc"] * 3 + [b""]


def test_http_1_0_is_closed_unless_it_asks(moongate, origin):
    gate = gate_to(moongate, origin)
    status, fields, body = split(gate.raw(b"GET / HTTP/1.0\r\n\r\n"))
    assert status == 200 and fields["connection"] == "close" and body == b"ok"
    assert origin.requests[0].version == "HTTP/1.1" and origin.requests[0].header("host")
    with gate.connect() as s:
        for _ in range(2):
            s.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, fields, body = split(s.recv(1000))
            assert status == 200 and fields["connection"] == "keep-alive" and body == b"ok"
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert split(read_all(s))[1]["connection"] == "close"


def test_http_1_0_gets_no_chunks(moongate, origin):
    origin.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    gate = gate_to(moongate, origin)
    status, fields, body = split(gate.raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    assert body == b"abcde" and "transfer-encoding" not in fields and fields["connection"] == "close"


def test_connection_close_is_kept_to(moongate, origin):
    gate = gate_to(moongate, origin)
    answer = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\nGET /2 HTTP/1.1\r\n"
                      b"Host: h\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1 and split(answer)[1]["connection"] == "close"
    assert len(origin.requests) == 1


def test_keepalive_requests(moongate, origin):
    gate = gate_to(moongate, origin, frontend="keepalive_requests 3;")
    with gate.connect() as s:
        for n in range(3):
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            fields = split(s.recv(1000))[1]
            assert fields.get("connection") == ("close" if n == 2 else None)
        assert s.recv(1) == b""


def test_an_idle_connection_is_closed(moongate, origin):
    gate = gate_to(moongate, origin, frontend="keepalive_timeout 300ms;")
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        s.recv(1000)
        began = time.monotonic()
        assert s.recv(1) == b""
        assert 0.2 < time.monotonic() - began < 1.5


def test_a_thousand_connections_at_once(moongate, origin):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    gate = gate_to(moongate, origin, upstream="keepalive 64;")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gate.connect()) for _ in range(1000)]
        for _ in range(2):
            for start in range(0, 1000, 50):  # the origin has a thread for each
                some = clients[start:start + 50]
                for s in some:
                    s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                for s in some:
                    assert split(s.recv(1000))[0] == 200
        assert gate.stats()["connections_active"] == 1000
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert gate.stats()["responses_2xx"] == 2000


# ---- connections to servers


def test_the_pool_is_used(moongate, origin):
    gate = gate_to(moongate, origin)
    for _ in range(20):
        assert gate.get().status == 200
    assert origin.connections == 1
    assert gate.stats()["upstream_reused"] == 19


def test_without_a_pool_each_request_has_a_connection(moongate, origin):
    gate = gate_to(moongate, origin, upstream="keepalive 0;")
    for _ in range(5):
        assert gate.get().status == 200
    assert origin.connections == 5
    assert origin.requests[0].header("connection") == "close"


def test_pooled_connections_are_closed_after_their_idle_time(moongate, origin):
    gate = gate_to(moongate, origin, upstream="keepalive 4 idle=200ms;")
    gate.get()
    assert gate.stats()["upstream_idle"] == 1
    eventually(lambda: gate.stats()["upstream_idle"] == 0, 2)
    gate.get()
    assert origin.connections == 2


def test_a_connection_that_the_server_closed_is_not_used(moongate, origin):
    origin.reply = reply(fields="Connection: close\r\n")
    gate = gate_to(moongate, origin)
    for _ in range(10):
        assert gate.get().status == 200
    assert origin.connections == 10


def test_a_server_that_closes_idle_connections_costs_no_request(moongate, origin):
    gate = gate_to(moongate, origin)

    def answer(request):  # keeps the connection by its answer, but closes it
        yield reply()
        raise EOFError
    origin.reply = answer
    client = gate.client()
    for _ in range(50):
        assert client.ask().status == 200


def test_bytes_after_a_response_are_nobodys(moongate, origin):
    origin.reply = reply(body=b"ok") + reply("200 OK", b"poison")
    gate = gate_to(moongate, origin)
    client = gate.client()
    for _ in range(5):
        assert client.ask().body == b"ok"
    assert origin.connections == 5  # none is used again


def counted(origins, gate, requests):
    before = [len(origin.requests) for origin in origins]
    for _ in range(requests):
        assert gate.get().status == 200
    return [len(origin.requests) - b for origin, b in zip(origins, before)]


def test_round_robin_over_ipv4_ipv6_and_unix_by_weight(moongate, origins, tmp_path):
    gate = moongate(start=False)
    path = gate.folder / "origin.sock"
    one, two = origins(), origins(path)
    three = origins()
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=64)
    three.listener.close()
    three.listener, three.address = listener, f"[::1]:{listener.getsockname()[1]}"
    threading.Thread(target=three.accept, daemon=True).start()
    gate.configure(f"upstream app {{ server {one.address}; server {two.address} weight=3; server "
                   f"{three.address} weight=2; }}",
                   "route / app;")
    gate.start()
    assert counted([one, two, three], gate, 60) == [10, 30, 20]
    # Smoothly: the heaviest never has more than two in a row.
    order = []
    for name, origin in (("1", one), ("2", two), ("3", three)):
        origin.reply = lambda request, name=name: (order.append(name), reply())[1]
    for _ in range(24):
        gate.get()
    assert "222" not in "".join(order)


def test_a_server_that_refuses_is_passed_over(moongate, origin):
    gate = moongate(f"upstream app {{ server 127.0.0.1:{free_port()}; server {origin.address}; }}",
                    "route / app;")
    for method in ["GET", "POST"] * 5:
        assert gate.get("/", method=method).status == 200
    stats = gate.stats()
    assert stats["upstream_connect_errors"] >= 1 and stats["upstream_retries"] >= 1
    assert "connecting to" in gate.log()


def test_no_server_left_is_502(moongate):
    gate = moongate(f"upstream app {{ server 127.0.0.1:{free_port()}; server 127.0.0.1:{free_port()}; }}",
                    "route / app;")
    answer = gate.get()
    assert answer.status == 502
    number = is_own_error(502, dict((k.lower(), v) for k, v in answer.headers.items()), answer.body)
    gate.wait_log(f"connecting to .* failed: .*{number}")
    assert gate.stats()["upstream_connect_errors"] == 3  # tries


def test_a_server_that_comes_back_is_used_again(moongate, origins):
    port = free_port()
    gate = moongate(f"upstream app {{ server 127.0.0.1:{port}; }}", "route / app;")
    assert gate.get().status == 502
    origin = origins()
    origin.listener.close()
    origin.listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=origin.accept, daemon=True).start()
    assert gate.get().status == 200


def fill_backlog(address):
    """Connects until further SYNs are dropped; the sockets that hold the places."""
    held = []
    while True:
        s = socket.socket()
        held.append(s)
        s.settimeout(0.3)
        try:
            s.connect(address)
        except TimeoutError:
            return held


def test_a_connect_that_is_not_answered_is_504(moongate):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = fill_backlog(address)
        gate = moongate(f"upstream app {{ server 127.0.0.1:{address[1]}; connect_timeout 300ms; tries 1; "
                        f"}}", "route / app;")
        began = time.monotonic()
        answer = gate.get()
        assert answer.status == 504 and 0.2 < time.monotonic() - began < 2
        for s in fillers:
            s.close()


# ---- statuses of our own


RAW_ERRORS = [
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
    (400, b"GET / HTTP/1.1\nHost: h\n\n"),
    (400, b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    (411, b"POST / HTTP/1.0\r\nHost: h\r\n\r\n"),
    (413, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n"),
    (413, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001),
    (414, b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 2000 + b"\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 20 + b"\r\n"),
    (501, b"BREW" * 20 + b" / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (501, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"),
    (505, b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
]


def test_refused_requests(moongate, origin):
    gate = gate_to(moongate, origin, frontend="max_body 1000; max_uri 128; max_head 1k; max_headers 16;",
                   level="info")
    ids = set()
    for expected, data in RAW_ERRORS:
        status, fields, body = split(gate.raw(data))
        assert status == expected, (data, status, body)
        assert fields["connection"] == "close"
        ids.add(is_own_error(status, fields, body))
    assert len(ids) == len(RAW_ERRORS)
    stats = gate.stats()
    assert stats["responses_4xx"] + stats["responses_5xx"] == len(RAW_ERRORS)
    assert stats["requests_active"] == 0


def test_a_refused_request_says_so_through_a_pipeline(moongate, origin):
    gate = gate_to(moongate, origin)
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n"
                   b"\r\n")
    status, _, rest = split(got)
    assert status == 200
    assert rest.startswith(b"okHTTP/1.1 400 ") and got.count(b"HTTP/1.1") == 2
    assert len(origin.requests) == 1


def test_404_without_a_route(moongate, origin):
    gate = moongate(APP.format(origin.address, ""), "route /app app;")
    client = gate.client()
    answer = client.ask("/other")
    assert answer.status == 404 and answer.text.startswith("404 Not Found\nrequest ")
    assert client.ask("/app/x").status == 200  # the connection goes on
    assert client.ask("/app/../other").status == 400  # a route, or none: it depends on who reads
    assert client.ask("/x/%2e%2e/app/").status == 400


def test_the_longest_route_wins(moongate, origins):
    one, two = origins(), origins()
    one.reply, two.reply = reply(body=b"one"), reply(body=b"two")
    gate = moongate(f"upstream a {{ server {one.address}; }} upstream b {{ server {two.address}; }}",
                    "route / a; route /deep/ b; route /deep/er/ a;")
    assert [gate.get(path).text for path in ("/", "/deep", "/deep/", "/deep/x", "/deep/er/x", "/deep//x",
                                             "/deep/./x", "/%64eep/x")] == \
        ["one", "one", "two", "two", "one", "two", "two", "two"]


def test_408_for_a_head_that_does_not_come(moongate, origin):
    gate = gate_to(moongate, origin, frontend="header_timeout 300ms;")
    with gate.connect() as s:
        s.sendall(b"GET / HT")
        status, fields, body = split(read_all(s))
    assert status == 408 and fields["connection"] == "close"
    is_own_error(408, fields, body)
    with gate.connect() as s:  # nothing at all: nothing to answer
        assert read_all(s) == b""


def test_408_counts_from_the_first_byte_and_is_not_prolonged(moongate, origin):
    gate = gate_to(moongate, origin, frontend="header_timeout 400ms;")
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        s.recv(1000)
        time.sleep(0.6)  # idle: keepalive_timeout holds
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
                s.sendall(bytes([byte]))
                time.sleep(0.03)
        assert split(read_all(s))[0] == 408
    assert time.monotonic() - began < 3


def test_408_for_a_body_that_stops(moongate, origin):
    gate = gate_to(moongate, origin, frontend="body_timeout 300ms;")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        status, fields, body = split(read_all(s))
    assert status == 408
    is_own_error(408, fields, body)


def test_502_for_a_response_that_is_none(moongate, origin):
    gate = gate_to(moongate, origin)
    for bad in (b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\nX: y\r\n\r\n", b"HTTP/1.1 200 OK\r\n"
                                                                    b"Content-Length: 1\r\n"
                                                                    b"Content-Length: 2\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n"
                                                                           b" b\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200000 + b"\r\n\r\n", None):
        origin.reply = bad
        answer = gate.get()
        assert answer.status == 502, bad
        is_own_error(502, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
    assert gate.stats()["requests_active"] == 0


def test_504_for_a_server_that_is_silent(moongate, origin):
    silent = threading.Event()
    origin.reply = lambda request: (silent.wait(5), reply())[1]
    gate = gate_to(moongate, origin, upstream="response_timeout 300ms;")
    client = gate.client()
    began = time.monotonic()
    answer = client.ask()
    assert answer.status == 504 and 0.25 < time.monotonic() - began < 2
    is_own_error(504, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
    silent.set()
    assert client.ask().status == 200  # the client's connection lives on


def test_response_timeout_begins_when_the_request_is_sent(moongate, origin):
    gate = gate_to(moongate, origin, upstream="response_timeout 500ms;")
    with gate.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")
        for byte in b"abcdefgh":
            time.sleep(0.12)
            s.sendall(bytes([byte]))
        assert split(read_all(s))[0] == 200


def test_500_for_a_script_that_raises(moongate, origin):
    gate = gate_to(moongate, origin, frontend="script a.lua;", files={"a.lua": "return { request = "
                                                                               "function(req) error('oh') "
                                                                               "end }"})
    answer = gate.get()
    assert answer.status == 500
    number = is_own_error(500, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
    gate.wait_log(number)


# ---- an upstream that breaks off


def cut_short(head, body):
    def answer(request):
        yield head + body
        raise EOFError
    return answer


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_response_that_breaks_off_never_looks_whole(moongate, origin, framing, version):
    body = b"half" if framing.startswith("C") else b"4\r\nhalf\r\n"
    origin.reply = cut_short(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode(), body)
    gate = gate_to(moongate, origin)
    with gate.connect() as s:
        s.sendall(f"GET / HTTP/{version}\r\nHost: h\r\n\r\n".encode())
        got, reset = b"", False
        try:
            while chunk := s.recv(1000):
                got += chunk
        except ConnectionResetError:
            reset = True
    fields = split(got)[1] if got else {}
    assert not got.endswith(b"0\r\n\r\n")
    if got and version == "1.0" and "content-length" not in fields:
        assert reset, "an orderly end would make it look whole"
    elif got:
        assert fields.get("content-length") == "100" or fields.get("transfer-encoding") == "chunked"
    eventually(lambda: gate.stats()["aborted"] == 1)
    assert gate.stats()["requests_active"] == 0


def test_a_response_that_stops_is_cut_after_read_timeout(moongate, origin):
    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        time.sleep(2)
    origin.reply = answer
    gate = gate_to(moongate, origin, upstream="read_timeout 300ms;")
    began = time.monotonic()
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.endswith(b"half") or got == b""
    assert 0.25 < time.monotonic() - began < 1.5


def test_a_pause_in_a_response_is_not_the_clients_fault(moongate, origin):
    """send_timeout is for bytes that wait for the client, not for a server that has nothing to send."""
    def answer(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"
        time.sleep(0.8)
        yield b"two"
    origin.reply = answer
    gate = gate_to(moongate, origin, frontend="send_timeout 200ms;")
    assert gate.get().body == b"onetwo"


def test_a_client_that_vanishes_frees_everything(moongate, origin):
    hold = threading.Event()
    origin.reply = lambda request: (hold.wait(10), reply())[1]
    gate = gate_to(moongate, origin)
    beginnings = [b"", b"GET", b"GET / HTTP/1.1\r\nHost: h\r\n", b"POST / HTTP/1.1\r\nHost: h\r\n"
                                                                 b"Content-Length: 10\r\n\r\nabc",
                  b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 3]
    for reset in (False, True):
        for beginning in beginnings:
            s = gate.connect()
            s.sendall(beginning)
            time.sleep(0.03)
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.close()
    eventually(lambda: (lambda t: t["requests_active"] == 0 and t["connections_active"] == 0
                        and t["upstream_idle"] == 0)(gate.stats()))
    hold.set()

# SPDX-License-Identifier: BSD-2-Clause
"""The PROXY protocol from proxies in front of us (listen ... proxy_protocol): whom they speak for, what of their header
is bad, who may send one."""
import contextlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import eventually, free_port, read_all
from pki import Authority

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n"

# Who is there, as each part of the product sees it.
WHO = """
return { request = function(req)
  local conn = req.conn
  req:respond(200, nil, ("%s %d %s %d"):format(conn.remote_ip, conn.remote_port, conn.local_ip, conn.local_port))
end }
"""


def v2(source="203.0.113.9", destination="192.0.2.1", ports=(5555, 443), command=0x21, tlvs=b"", checksum=False):
    six = ":" in source
    kind, family = (socket.AF_INET6, 0x21) if six else (socket.AF_INET, 0x11)
    block = socket.inet_pton(kind, source) + socket.inet_pton(kind, destination) + struct.pack("!HH", *ports) + tlvs
    if command == 0x20:
        family, block = 0, tlvs
    if checksum is not False:
        block += struct.pack("!BHI", 3, 4, 0)
    header = SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block
    if checksum is not False:
        header = header[:-4] + struct.pack("!I", crc32c(header) ^ checksum)
    return header


def crc32c(data):
    value = 0xffffffff
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value ^ 0xffffffff


def start(moongate, more="", script=WHO, options="proxy_protocol", **how):
    gate = moongate("", "", {"a.lua": script}, start=False)
    how.setdefault("listen", f"{gate.address} {options}")
    gate.configure("", f"script a.lua; {more}", **how)
    return gate.start()


def body(answer):
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return text.decode()


@pytest.mark.parametrize("header, who", [
    (V1, "203.0.113.9 5555 192.0.2.1 443"),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\n", "2001:db8::9 5555 2001:db8::1 443"),
    (v2(), "203.0.113.9 5555 192.0.2.1 443"),
    (v2("2001:db8::9", "2001:db8::1"), "2001:db8::9 5555 2001:db8::1 443"),
    (v2(checksum=0), "203.0.113.9 5555 192.0.2.1 443"),
    (v2(tlvs=struct.pack("!BH", 0xe0, 3000) + b"x" * 3000), "203.0.113.9 5555 192.0.2.1 443"),
], ids=["v1", "v1-ipv6", "v2", "v2-ipv6", "v2-checksum", "v2-long"])
@pytest.mark.parametrize("piece", [None, 1, 7], ids=["whole", "by-one", "by-seven"])
def test_the_client_is_who_the_header_says(moongate, header, who, piece):
    gate = start(moongate)
    with gate.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = header + REQUEST
        size = piece or len(data)
        for at in range(0, len(data), size):
            s.sendall(data[at:at + size])
        assert body(read_all(s)) == who
    assert gate.stats()["proxy_headers"] == 1 and gate.stats()["proxy_header_errors"] == 0


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", v2(command=0x20),
                                    v2(command=0x20, tlvs=struct.pack("!BH", 4, 5) + b"12345")],
                         ids=["v1", "v1-with-addresses", "v2-local", "v2-local-with-tlv"])
def test_one_that_speaks_for_itself_keeps_its_address(moongate, header):
    gate = start(moongate)
    with gate.connect() as s:
        port = s.getsockname()[1]
        s.sendall(header + REQUEST)
        assert body(read_all(s)) == f"127.0.0.1 {port} 127.0.0.1 {gate.port}"


BAD = {
    "none": REQUEST,
    "none-tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 600,
    "v1-no-port": b"PROXY TCP4 203.0.113.9 192.0.2.1 5555\r\n",
    "v1-bad-address": b"PROXY TCP4 203.0.113.900 192.0.2.1 5555 443\r\n",
    "v1-wrong-family": b"PROXY TCP4 2001:db8::9 2001:db8::1 5555 443\r\n",
    "v1-endless": b"PROXY TCP4 " + b"1" * 200,
    "v2-version": v2(command=0x31),
    "v2-command": v2(command=0x22),
    "v2-checksum": v2(checksum=1),
    "v2-too-long": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65000) + b"\0" * 5000,
    "v2-cut-tlv": v2(tlvs=struct.pack("!BH", 0xe0, 100) + b"short"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_ends_the_connection(moongate, name):
    gate = start(moongate)
    with gate.connect() as s:
        with contextlib.suppress(OSError):
            s.sendall(BAD[name])
        with contextlib.suppress(ConnectionResetError):
            assert read_all(s) == b""
    assert eventually(lambda: gate.stats()["proxy_header_errors"] == 1)
    gate.wait_log("closing \\(proxy_header\\)")
    gate.wait_log('info .*listener "127.0.0.1:.*": a connection of 127.0.0.1 is closed: ')
    with gate.connect() as s:  # others are served
        s.sendall(V1 + REQUEST)
        assert body(read_all(s)).startswith("203.0.113.9")
    assert gate.stats()["requests"] == 1 and eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.parametrize("begun", [b"", V1[:-1], v2()[:20]])
def test_one_that_does_not_come_in_time(moongate, begun):
    gate = start(moongate, "header_timeout 300ms;")
    begin = time.monotonic()
    with gate.connect() as s:
        s.sendall(begun)
        assert read_all(s) == b""
    assert 0.25 < time.monotonic() - begin < 2
    assert gate.stats()["proxy_header_errors"] == 1
    gate.wait_log("no PROXY header within header_timeout")


@pytest.mark.parametrize("begun", [b"", V1[:-1], v2()[:20]])
@pytest.mark.parametrize("reset", [False, True])
def test_one_that_leaves_before(moongate, begun, reset):
    gate = start(moongate)
    s = gate.connect()
    s.sendall(begun)
    if reset:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    assert eventually(lambda: gate.stats()["connections_active"] == 0 and gate.stats()["connections_accepted"] == 1)
    assert gate.stats()["proxy_header_errors"] == 0


def test_only_those_who_are_named_may_send_one(moongate):
    gate = start(moongate, "proxy_protocol_from 10.0.0.0/8 127.0.0.2;")
    with gate.connect() as s, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        s.sendall(V1 + REQUEST)
        assert read_all(s) == b""
    assert gate.stats()["proxy_headers_denied"] == 1
    gate.wait_log("a connection of 127.0.0.1 is closed: proxy_protocol_from does not name it")
    gate.wait_log("closing \\(proxy_denied\\)")
    with socket.create_connection(("127.0.0.1", gate.port), 10, ("127.0.0.2", 0)) as s:
        s.sendall(V1 + REQUEST)
        assert body(read_all(s)).startswith("203.0.113.9 ")


def test_a_unix_socket_is_let_in(moongate):
    gate = moongate("", "", {"a.lua": WHO}, start=False)
    path = gate.folder / "front.sock"
    gate.configure("", "script a.lua; proxy_protocol_from none;\nlisten unix:%s proxy_protocol;" % path)
    gate.start()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        s.sendall(v2() + REQUEST)
        assert body(read_all(s)) == "203.0.113.9 5555 192.0.2.1 443"


def test_limits_logs_and_servers_see_the_client(moongate, origin):
    gate = moongate("", "", start=False)
    gate.configure(f"upstream app {{ server {origin.address}; }}",
                   "route / app; connections_per_client 1; access_log %FOLDER%/log; x_forwarded append;",
                   listen=f"{gate.address} proxy_protocol")
    gate.start()
    first = gate.connect()
    first.sendall(V1 + b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
    assert first.recv(100).startswith(b"HTTP/1.1 200")
    # The same client by another connection of the same proxy; then another client.
    with gate.connect() as s, contextlib.suppress(ConnectionResetError):
        s.sendall(V1 + REQUEST)
        assert read_all(s) == b""
    assert gate.stats()["clients_limited"] == 1
    with gate.connect() as s:
        s.sendall(v2("203.0.113.10") + REQUEST)
        assert read_all(s).startswith(b"HTTP/1.1 200")
    first.close()
    assert [request.header("x-forwarded-for") for request in origin.requests] == ["203.0.113.9", "203.0.113.10"]
    gate.wait_log(r"^203.0.113.9 .*GET /first", path=gate.folder / "log")
    gate.wait_log(r"^203.0.113.10 ", path=gate.folder / "log")


def test_the_connect_hook_sees_the_client_and_may_wait(moongate):
    gate = start(moongate, script="""
        local gate = require "moongate"
        return { connect = function(conn)
          if conn.remote_ip == "203.0.113.9" then return conn:reject() end
          gate.sleep(0.05)
        end, request = function(req) req:respond(200, nil, req.conn.remote_ip) end }""")
    with gate.connect() as s, contextlib.suppress(ConnectionResetError):
        s.sendall(V1 + REQUEST)
        assert read_all(s) == b""
    assert gate.stats()["connections_rejected"] == 1
    with gate.connect() as s:
        s.sendall(v2("203.0.113.10") + REQUEST)
        assert body(read_all(s)) == "203.0.113.10"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    authority = Authority(folder)
    made = authority.issue("site", "site.test")
    made.ca = authority.path
    return made


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_tls_comes_behind_the_header(moongate, site, version):
    gate = start(moongate, options="proxy_protocol tls { %s }" % site.lines)
    done = subprocess.run(["curl", "-sS", "--haproxy-protocol", version, "--cacert", str(site.ca), "--resolve",
                           f"site.test:{gate.port}:127.0.0.1", f"https://site.test:{gate.port}/", "-w",
                           " %{http_version} %{local_port}"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    ip, port, local, local_port, http, mine = done.stdout.split()
    assert (ip, port, local, local_port) == ("127.0.0.1", mine, "127.0.0.1", str(gate.port))
    assert http == ("2" if version == "--http2" else "1.1")
    # In one segment with the begin of the handshake.
    out, into = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=str(site.ca)).wrap_bio(into, out, server_hostname="site.test")
    with gate.connect() as s:
        data = v2()
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
            s.sendall(data + out.read())
            data = b""
            into.write(s.recv(65536))
        tls.write(REQUEST)
        s.sendall(out.read())
        into.write(read_all(s))
        answer = b""
        with contextlib.suppress(ssl.SSLError):
            while piece := tls.read(65536):
                answer += piece
        assert body(answer) == "203.0.113.9 5555 192.0.2.1 443"


def test_http2_comes_behind_the_header(moongate):
    gate = start(moongate)
    done = subprocess.run(["curl", "-sS", "--haproxy-protocol", "--http2-prior-knowledge", gate.url()],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.startswith("127.0.0.1 "), done


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy_in_front(moongate, how):
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if not program:
        pytest.skip("no haproxy (Debian: haproxy)")
    gate = start(moongate)
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="moongate-haproxy-", dir="/tmp"))
    (folder / "cfg").write_text(
        f"defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
        f"listen front\n bind 127.0.0.1:{port}\n server gate {gate.address} {how} check\n")
    server = subprocess.Popen([program, "-db", "-f", str(folder / "cfg")], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def connected():
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), 5, ("127.0.0.9", 0))
        with eventually(connected) as s:
            mine = s.getsockname()[1]
            s.sendall(REQUEST)
            assert body(read_all(s)) == f"127.0.0.9 {mine} 127.0.0.1 {port}"
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)
    assert gate.stats()["proxy_header_errors"] == 0


def test_a_reload_while_headers_come(moongate):
    gate = start(moongate)
    waiting = [gate.connect() for _ in range(8)]
    for s in waiting:
        s.sendall(V1[:20])
    assert eventually(lambda: gate.stats()["connections_active"] == 8)
    gate.reload()
    for s in waiting[:4]:
        s.sendall(V1[20:] + REQUEST)
        assert body(read_all(s)).startswith("203.0.113.9 ")
    # The listener goes; those who are at it are served, and not the header is wanted of new ones elsewhere.
    port = free_port()
    gate.configure("", "script a.lua;", listen=f"127.0.0.1:{port}")
    gate.reload()
    for s in waiting[4:]:
        s.sendall(V1[20:] + REQUEST)
        assert body(read_all(s)).startswith("203.0.113.9 ")
    for s in waiting:
        s.close()
    assert eventually(lambda: gate.stats()["connections_active"] == 0)


def test_those_without_a_header_make_room(moongate):
    gate = start(moongate, connections=8)
    waiting = [gate.connect() for _ in range(8)]
    assert eventually(lambda: gate.stats()["connections_active"] == 8)
    time.sleep(1.1)  # so old they must be
    with gate.connect() as s:
        s.sendall(V1 + REQUEST)
        assert body(read_all(s)).startswith("203.0.113.9 ")
    assert gate.stats()["connections_shed"] >= 1
    for s in waiting:
        s.close()


def test_many_at_once(moongate):
    gate = start(moongate, workers=2)
    good = []

    def one(number):
        with gate.connect() as s:
            s.sendall(v2(f"203.0.113.{number % 250}")[:number % 28])
            time.sleep(0.02)
            s.sendall(v2(f"203.0.113.{number % 250}")[number % 28:] + REQUEST)
            good.append(body(read_all(s)).startswith(f"203.0.113.{number % 250} "))
    threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 200


@pytest.mark.parametrize("line, why", [
    ("listen 127.0.0.1:1 proxy_protocol proxy_protocol;", "proxy_protocol"),
    ("listen 127.0.0.1:1 proxy_protocol=v2;", "proxy_protocol"),
    ("proxy_protocol_from;", "proxy_protocol_from"),
    ("proxy_protocol_from 10.0.0.0/33;", 'bad value "10.0.0.0/33" for "proxy_protocol_from"'),
    ("proxy_protocol_from any 10.0.0.0/8;", '"any" beside others for "proxy_protocol_from"')])
def test_what_the_configuration_may_not_say(moongate, line, why):
    gate = moongate("", "", {"a.lua": WHO}, start=False)
    gate.configure("", "script a.lua; " + line)
    done = gate.run("-t")
    assert done.returncode == 1 and why in done.stderr and re.search(r"moongate.conf:\d+:\d+: ", done.stderr)


TOLD = """
return { request = function(req)
  local proxy = req.conn.proxy
  if not proxy then return req:respond(200, nil, "none") end
  local tls = proxy.tls
  req:respond(200, nil, table.concat({ tostring(proxy.version), proxy.remote_ip, tostring(proxy.remote_port),
    tostring(proxy.alpn), tostring(proxy.authority), tostring(proxy.unique_id), tostring(proxy:tlv(0xe3)),
    tls and table.concat({ tostring(tls.verified), tostring(tls.version), tostring(tls.cn), tostring(tls.cipher) }, ",")
      or "plain" }, " "))
end }
"""


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def test_scripts_and_logs_are_told_what_the_proxy_said(moongate):
    gate = moongate("", "", {"a.lua": TOLD}, start=False)
    gate.configure('log_format mine "$remote_addr by $proxy_addr";', "script a.lua; access_log %FOLDER%/log mine;",
                   listen=f"{gate.address} proxy_protocol")
    gate.start()

    def ask(header):
        with gate.connect() as s:
            port = s.getsockname()[1]
            s.sendall(header + REQUEST)
            return body(read_all(s)).replace(str(port), "PORT")

    assert ask(V1) == "1 127.0.0.1 PORT nil nil nil nil plain"
    good = struct.pack("!BI", 7, 0) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"somebody") + tlv(0x23, b"A_CIPHER")
    said = tlv(1, b"h2") + tlv(2, b"site.test") + tlv(5, b"unique") + tlv(0xe3, b"own")
    assert ask(v2(tlvs=said + tlv(0x20, good))) == \
        "2 127.0.0.1 PORT h2 site.test unique own true,TLSv1.3,somebody,A_CIPHER"
    bad = struct.pack("!BI", 1, 1) + tlv(0x21, b"TLSv1.2")
    assert ask(v2(tlvs=tlv(0x20, bad))) == "2 127.0.0.1 PORT nil nil nil nil false,TLSv1.2,nil,nil"
    gate.wait_log("^203.0.113.9 by 127.0.0.1$", path=gate.folder / "log")


def test_without_a_proxy_scripts_are_told_nothing(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": TOLD})
    assert gate.get().text == "none"


def test_what_a_script_says_of_its_own_is_heard_by_the_next_one(moongate):
    """Two of us, one in front of the other: the client, and a TLV of the script's."""
    behind = start(moongate, script="""
        return { request = function(req)
          req:respond(200, nil, req.conn.remote_ip .. " " .. tostring(req.conn.proxy:tlv(0xe1)))
        end }""")
    front = moongate("upstream app { server %s; proxy_protocol v2; keepalive 8; }" % behind.address,
                     "script a.lua; route / app;", {"a.lua": """
        return { request = function(req)
          local tenant = req.headers["x-tenant"]
          if tenant then req:proxy_tlv(0xe1, tenant) end
          if req.headers["x-bad"] then req:proxy_tlv(1, "x") end
        end }"""})
    client = front.client()
    for tenant in ("one", "two", "one", None):
        headers = {"X-Tenant": tenant} if tenant else {}
        assert client.ask(headers=headers).text == f"127.0.0.1 {'nil' if not tenant else tenant}"
    assert front.stats()["upstream_reused"] == 1  # the second "one" took the first one's connection
    assert client.ask(headers={"X-Tenant": "x" * 2045}).status == 200
    assert client.ask(headers={"X-Tenant": "x" * 2046}).status == 500
    assert client.ask(headers={"X-Bad": "1"}).status == 500
    front.wait_log("a type of one's own is one of 224 to 239")

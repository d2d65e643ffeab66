# SPDX-License-Identifier: BSD-2-Clause
"""The PROXY protocol towards servers: what HAProxy and nginx from Debian take from our headers, what stands in them byte
for byte, and whose connections are used again."""
import contextlib
import http.client
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import Nginx, Origin, eventually, free_port, read_all
from pki import Authority

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Header:
    """One that a server reads off its connection: by the specification, not by our code."""

    def __init__(self, stream):
        start = stream.read(12)
        self.tlvs = {}
        self.source = self.destination = None
        if start != SIGNATURE:
            self.line = (start + stream.readline()).decode()
            return
        command, family, length = struct.unpack("!BBH", stream.read(4))
        block = stream.read(length)
        self.command, self.family = command, family
        size = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}[family]
        if family in (0x11, 0x21):
            kind, bytes_each = (socket.AF_INET, 4) if family == 0x11 else (socket.AF_INET6, 16)
            ports = struct.unpack("!HH", block[2 * bytes_each:size])
            self.source = (socket.inet_ntop(kind, block[:bytes_each]), ports[0])
            self.destination = (socket.inet_ntop(kind, block[bytes_each:2 * bytes_each]), ports[1])
        elif family == 0x31:
            self.source, self.destination = (block[at:at + 108].rstrip(b"\0").decode() for at in (0, 108))
        self.tlvs = dict(parts(block[size:]))


def parts(rest):
    while rest:
        kind, length = struct.unpack("!BH", rest[:3])
        assert len(rest) >= 3 + length
        yield kind, rest[3:3 + length]
        rest = rest[3 + length:]


class Proxied(Origin):
    """An origin whose connections begin with a header. headers: in order."""

    def __init__(self, context=None):
        self.headers, self.context = [], context
        super().__init__()

    def serve(self, client, number):
        with contextlib.suppress(OSError):
            self.headers.append(Header(client.makefile("rb", buffering=0)))
            if self.context:
                client = self.context.wrap_socket(client, server_side=True)
            super().serve(client, number)


class Haproxy:
    """accept-proxy on `address`; answers with what it believes of the client."""

    def __init__(self, more=""):
        self.folder = Path(tempfile.mkdtemp(prefix="moongate-haproxy-", dir="/tmp"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        (self.folder / "haproxy.cfg").write_text(f"""
            global
                maxconn 100
            defaults
                mode http
                timeout client 10s
                timeout server 10s
                timeout connect 5s
            frontend f
                bind {self.address} accept-proxy {more}
                http-request return status 200 content-type text/plain lf-string \
"%[src] %[src_port] %[dst] %[dst_port] a=%[fc_pp_authority] u=%[fc_pp_unique_id]"
""")
        self.process = subprocess.Popen([self.program(), "-db", "-f", self.folder / "haproxy.cfg"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=(self.folder / "log").open("w"))
        eventually(self.answers)

    @staticmethod
    def program():
        return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

    def answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def haproxy():
    if not Haproxy.program():
        pytest.skip("no haproxy (Debian: haproxy)")
    made = []

    def make(more=""):
        made.append(Haproxy(more))
        return made[-1]
    yield make
    for server in made:
        server.close()


@pytest.fixture
def proxied():
    made = []

    def make(context=None):
        made.append(Proxied(context))
        return made[-1]
    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def site(pki):
    return pki.issue("site", "site.test", "127.0.0.1")


def to(moongate, address, proxy="v2", more="", **how):
    return moongate(f"upstream app {{ server {address}; proxy_protocol {proxy}; {more} }}", "route / app;", **how)


def ask(address, family=socket.AF_INET, path="/", context=None):
    """One request; returns (text, our own address)."""
    with socket.socket(family) as s:
        s.settimeout(10)
        s.connect(address)
        own = s.getsockname()
        stream = context.wrap_socket(s, server_hostname="site.test") if context else s
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = read_all(stream).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        if b"chunked" in head:
            body = body.split(b"\r\n", 2)[1]
        return body.decode().strip(), own


def trusting(pki):
    return ssl.create_default_context(cafile=str(pki.path))


# ---- HAProxy and nginx ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", ["v1", "v2", "v2 authority alpn tls unique_id checksum"])
def test_haproxy_sees_the_client(moongate, haproxy, proxy):
    gate = to(moongate, haproxy().address, proxy)
    text, own = ask(("127.0.0.1", gate.port))
    unique = text.partition(" u=")[2]
    assert text.split(" a=")[0] == f"{own[0]} {own[1]} 127.0.0.1 {gate.port}"
    assert bool(unique) == ("unique_id" in proxy)


@pytest.mark.parametrize("proxy", ["v1", "v2"])
def test_haproxy_sees_a_client_of_ipv6(moongate, haproxy, proxy):
    port = free_port()
    gate = to(moongate, haproxy().address, proxy, listen=f"%ADDRESS%; listen [::1]:{port}")
    text, own = ask(("::1", port), socket.AF_INET6)
    assert text.split(" a=")[0] == f"::1 {own[1]} ::1 {port}"


@pytest.mark.parametrize("proxy", ["v1", "v2 unique_id"])
def test_haproxy_takes_a_client_of_a_unix_socket(moongate, haproxy, proxy):
    gate = to(moongate, haproxy().address, proxy, listen="%ADDRESS%; listen unix:%FOLDER%/in")
    text, _ = ask(str(gate.folder / "in"), socket.AF_UNIX)
    assert text.startswith("127.0.0.1 ")  # moongate's own: what it was told is no IP address


def test_haproxy_gets_the_authority_of_a_client_with_tls(moongate, haproxy, pki, site):
    gate = to(moongate, haproxy().address, "v2 authority alpn tls unique_id checksum",
       listen=f"%ADDRESS%; listen 127.0.0.1:{(port := free_port())} tls {{ {site.lines} }}")
    text, own = ask(("127.0.0.1", port), context=trusting(pki))
    assert text.startswith(f"{own[0]} {own[1]} 127.0.0.1 {port} a=site.test u=")


def test_haproxy_reads_the_header_before_tls(moongate, haproxy, site, pki):
    both = pki.folder / "both.pem"
    both.write_text(site.pem.read_text() + site.key.read_text())
    server = haproxy(f"ssl crt {both}")
    gate = to(moongate, server.address, "v2 authority", f"tls {{ ca {pki.path}; name site.test; }}")
    text, own = ask(("127.0.0.1", gate.port))
    assert text.startswith(f"{own[0]} {own[1]} ")


class ProxiedNginx(Nginx):
    """Also at two further addresses: with PROXY headers, and with these and HTTP/2."""

    def __init__(self):
        super().__init__()
        self.plain, self.h2 = free_port(), free_port()
        path = self.folder / "nginx.conf"
        said = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"
        path.write_text(path.read_text().rstrip().rstrip("}") + f"""
            server {{ listen 127.0.0.1:{self.plain} proxy_protocol; return 200 "{said}"; }}
            server {{ listen 127.0.0.1:{self.h2} http2 proxy_protocol; return 200 "{said} $server_protocol"; }} }}""")
        self.process.terminate()
        self.process.wait(10)
        self.process = subprocess.Popen([self.program(), "-p", self.folder, "-c", path], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self.answers)


@pytest.fixture
def proxied_nginx():
    if not Nginx.program():
        pytest.skip("no nginx (Debian: nginx-light)")
    server = ProxiedNginx()
    yield server
    server.close()


@pytest.mark.parametrize("proxy", ["v1", "v2", "v2 authority alpn tls unique_id checksum"])
def test_nginx_sees_the_client(moongate, proxied_nginx, proxy):
    port = free_port()
    gate = to(moongate, f"127.0.0.1:{proxied_nginx.plain}", proxy, listen=f"%ADDRESS%; listen [::1]:{port}")
    text, own = ask(("127.0.0.1", gate.port))
    assert text == f"{own[0]} {own[1]} 127.0.0.1 {gate.port}"
    text, own = ask(("::1", port), socket.AF_INET6)
    assert text == f"::1 {own[1]} ::1 {port}"


def test_nginx_takes_a_client_of_a_unix_socket(moongate, proxied_nginx):
    gate = to(moongate, f"127.0.0.1:{proxied_nginx.plain}", listen="%ADDRESS%; listen unix:%FOLDER%/in")
    ask(str(gate.folder / "in"), socket.AF_UNIX)


def test_nginx_of_http2_sees_the_client(moongate, proxied_nginx):
    gate = to(moongate, f"127.0.0.1:{proxied_nginx.h2}", "v2 unique_id", "protocol h2;")
    for _ in range(3):
        text, own = ask(("127.0.0.1", gate.port))
        assert text == f"{own[0]} {own[1]} 127.0.0.1 {gate.port} HTTP/2.0"


# ---- byte for byte ----------------------------------------------------------------------------------------------------


def test_the_header_says_what_is_asked_for(moongate, proxied, pki, site):
    origin = proxied()
    gate = to(moongate, origin.address, "v2 authority alpn tls unique_id",
       listen=f"%ADDRESS%; listen 127.0.0.1:{(port := free_port())} tls {{ {site.lines} }}")
    context = trusting(pki)
    context.set_alpn_protocols(["http/1.1"])
    _, own = ask(("127.0.0.1", port), context=context)
    _, plain_own = ask(("127.0.0.1", gate.port))
    tls, plain = origin.headers
    assert tls.command == 0x21 and tls.source == own and tls.destination == ("127.0.0.1", port)
    assert tls.tlvs[0x01] == b"http/1.1" and tls.tlvs[0x02] == b"site.test"
    client, verify = struct.unpack("!BI", tls.tlvs[0x20][:5])
    said = dict(parts(tls.tlvs[0x20][5:]))
    assert client == 1 and verify != 0 and said[0x21] == b"TLSv1.3" and said[0x23].startswith(b"TLS_")
    assert plain.source == plain_own and set(plain.tlvs) == {0x05}
    assert tls.tlvs[0x05] != plain.tlvs[0x05]


def test_the_header_names_the_clients_certificate(moongate, proxied, pki, site):
    origin = proxied()
    me = pki.issue("me", "me.test", subject="/O=x/CN=It is me")
    gate = to(moongate, origin.address, "v2 tls", listen=f"%ADDRESS%; listen 127.0.0.1:{(port := free_port())} "
       f"tls {{ {site.lines} verify_client required; client_ca {pki.path}; }}")
    context = trusting(pki)
    context.load_cert_chain(me.pem, me.key)
    ask(("127.0.0.1", port), context=context)
    value = origin.headers[0].tlvs[0x20]
    assert struct.unpack("!BI", value[:5]) == (7, 0) and dict(parts(value[5:]))[0x22] == b"It is me"


def test_the_header_of_a_unix_client_says_local(moongate, proxied):
    origin = proxied()
    gate = to(moongate, origin.address, listen="%ADDRESS%; listen unix:%FOLDER%/in")
    ask(str(gate.folder / "in"), socket.AF_UNIX)
    assert (origin.headers[0].command, origin.headers[0].family) == (0x20, 0)  # HAProxy refuses AF_UNIX


def test_the_header_comes_before_tls(moongate, proxied, pki, site):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.pem, site.key)
    origin = proxied(context)
    gate = to(moongate, origin.address, "v2", f"tls {{ ca {pki.path}; }}")
    _, own = ask(("127.0.0.1", gate.port))
    assert origin.headers[0].source == own


@pytest.mark.parametrize("proxy", ["v1", "v2"])
def test_requests_of_scripts_have_no_client(moongate, proxied, proxy):
    origin = proxied()
    script = """
        local gate = require "moongate"
        return { request = function(req)
            local res = gate.fetch("http://x/", { upstream = "app" })
            return req:respond(200, {}, tostring(res.status))
        end }"""
    gate = moongate(f"upstream app {{ server {origin.address}; proxy_protocol {proxy}; }}",
                    "script fetch.lua; route / app;", files={"fetch.lua": script})
    assert gate.get("/").text == "200"
    assert gate.get("/").text == "200"
    assert len(origin.headers) == 1  # nobody's connection is for anybody's requests of that kind
    if proxy == "v1":
        assert origin.headers[0].line == "PROXY UNKNOWN\r\n"
    else:
        assert (origin.headers[0].command, origin.headers[0].family) == (0x20, 0)


# ---- whose connections are used again ---------------------------------------------------------------------------------


def test_a_connection_is_used_again_for_the_same_client_alone(moongate, proxied):
    origin = proxied()
    gate = to(moongate, origin.address)
    first, second = gate.client(), gate.client()
    with contextlib.closing(first), contextlib.closing(second):
        for _ in range(3):
            first.ask("/first")
            second.ask("/second")
        ports = {number: {first.sock: "/first", second.sock: "/second"}[client]
                 for client, number in ((c.sock, c.sock.getsockname()[1]) for c in (first, second))}
    assert origin.connections == 2 and len(origin.requests) == 6
    for request in origin.requests:
        assert request.target == ports[origin.headers[request.connection - 1].source[1]]


def test_a_pool_of_other_clients_connections_gives_way(moongate, proxied):
    origin = proxied()
    gate = to(moongate, origin.address, "v2", "keepalive 2;")
    for _ in range(6):
        gate.get("/")
    assert origin.connections == 6
    eventually(lambda: len(origin.open) == 2)
    assert gate.stats()["upstream_idle"] == 2


def test_a_retry_announces_the_client_again(moongate, proxied):
    good, bad = proxied(), proxied()
    bad.reply = None
    gate = moongate(f"upstream app {{ server {bad.address}; server {good.address}; proxy_protocol v2; "
                    "retry connect idempotent stale; }", "route / app;")
    for _ in range(2):
        _, own = ask(("127.0.0.1", gate.port))
        assert good.headers[-1].source == own
    assert bad.headers and all(header.source for header in bad.headers)


@pytest.mark.parametrize("line, error", [
    ("proxy_protocol v3;", "expected off, v1 or v2"),
    ("proxy_protocol v1 tls;", "behind v2 alone"),
    ("proxy_protocol v2 tls tls;", "once each"),
    ("from 127.0.0.1:80;", "neither an IP address"),
    ("from 127.0.0.1 127.0.0.2;", "one too many"),
    ("from 300.0.0.1;", "neither an IP address"),
    ("tcp_keepalive idle=1s idle=2s;", "once each"),
    ("tcp_keepalive 5s;", "once each"),
    ("tcp_keepalive count=128;", "127"),
    ("tcp_keepalive idle=10ms;", "1s"),
])
def test_what_a_configuration_may_not_say(moongate, line, error):
    gate = moongate(f"upstream app {{ server 127.0.0.1:9; {line} }}", "route / app;", start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and error in done.stderr, done.stderr


def test_the_directives_print_as_they_are(moongate):
    lines = ["from 127.0.0.1 ::1 lo;", "fast_open on;", "tcp_keepalive idle=60s interval=10s count=3;",
             "tcp_user_timeout 20s;", "proxy_protocol v2 authority alpn tls unique_id checksum;"]
    gate = moongate(f"upstream app {{ server 127.0.0.1:9; {' '.join(lines)} }}", "route / app;", start=False)
    printed = gate.run("-T").stdout
    for line in lines:
        assert line.replace("60s", "1m") in printed or line in printed, printed

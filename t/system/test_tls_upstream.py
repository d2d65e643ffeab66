# SPDX-License-Identifier: BSD-2-Clause
"""TLS to upstream servers: whom moongate trusts, what it shows, what it says of what fails. The servers are openssl
s_server, python's ssl and nginx, with certificates made here by openssl."""
import base64
import hashlib
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import MOONGATE, Origin, eventually, free_port
from dns_peer import dns_peer  # noqa: F401: a fixture
from h2origin import H2Origin, Link
from pki import Authority, openssl


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """The authority whom the tests trust, with its folder."""
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def site(pki):
    return pki.issue("site", "site.test", "*.wild.test", "127.0.0.1")


def context_of(certificate, alpn=None, **how):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.pem, certificate.key)
    if alpn:
        context.set_alpn_protocols(alpn)
    for name, value in how.items():
        setattr(context, name, value)
    return context


class TlsOrigin(Origin):
    """An HTTP/1.1 origin behind TLS. handshakes: how many were tried; shaken: the sockets of those that were good."""

    def __init__(self, context):
        self.context, self.handshakes, self.shaken, self.resumed = context, 0, [], []
        super().__init__()

    def serve(self, client, number):
        self.handshakes += 1
        client.settimeout(10)
        try:
            client = self.context.wrap_socket(client, server_side=True)
        except OSError:
            client.close()
            return
        self.shaken.append(client)
        self.resumed.append(client.session_reused)
        super().serve(client, number)


@pytest.fixture
def serve():
    made = []

    def make(certificate, alpn=None, h2=False, **how):
        context = context_of(certificate, alpn or (["h2"] if h2 else None), **how)
        if h2:
            origin = H2Origin(wrap=lambda s: context.wrap_socket(s, server_side=True))
        else:
            origin = TlsOrigin(context)
        origin.context = context
        made.append(origin)
        return origin

    yield make
    for origin in made:
        origin.close()


def gate_to(moongate, pki, origin, tls="", upstream="", **how):
    ca = f"ca {pki.path};" if "ca " not in tls else ""
    return moongate(f"upstream app {{ server {origin.address}; tls {{ {ca} {tls} }} {upstream} }}", "route / app;",
                    **how)


# ---- what is good


def test_a_server_by_name_must_have_a_certificate_for_that_name(moongate, pki, serve, dns_peer):  # noqa: F811
    origin = serve(pki.issue("named", "site.test"))  # not for the address
    peer = dns_peer({"site.test": ["A 60 127.0.0.1"], "other.test": ["A 60 127.0.0.1"]})
    port = origin.address.partition(":")[2]
    gate = moongate(f"{peer.directive}upstream app {{ server site.test:{port}; tls {{ ca {pki.path}; }} }}\n"
                    f"upstream other {{ server other.test:{port}; tls {{ ca {pki.path}; }} }}", "route / app; route /other other;")
    assert gate.get("/").status == 200 and gate.get("/other").status == 502
    gate.wait_log('upstream "other": TLS with "127.0.0.1:.*" failed')


def test_a_server_that_is_trusted(moongate, pki, site, serve):
    origin = serve(site)
    gate = gate_to(moongate, pki, origin)
    assert gate.get("/", method="POST", body=b"x" * 100000).body == b"ok"
    assert origin.requests[0].body == b"x" * 100000
    assert origin.requests[0].header("host") == gate.address


def test_bodies_of_any_size(moongate, pki, site, serve):
    origin = serve(site)
    body = bytes(range(256)) * 40000
    origin.reply = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body
    gate = gate_to(moongate, pki, origin)
    for size in (1, 16383, 16384, 16385, 100000, len(body)):
        assert gate.get("/", method="POST", body=body[:size]).body == body[:size]
    assert origin.handshakes == 1


def test_many_at_the_same_time(moongate, pki, site, serve):
    origin = serve(site)
    gate = gate_to(moongate, pki, origin, workers=2)
    with ThreadPoolExecutor(20) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(200)))
    assert origin.handshakes < 60  # connections are pooled


def test_sni_and_the_name(moongate, pki, site, serve):
    asked = []
    origin = serve(site)
    origin.context.sni_callback = lambda s, name, context: asked.append(name)
    gate = gate_to(moongate, pki, origin, "name www.wild.test;")
    assert gate.get("/").status == 200
    assert asked == ["www.wild.test"]


def test_no_sni_for_an_address(moongate, pki, site, serve):
    asked = []
    origin = serve(site)
    origin.context.sni_callback = lambda s, name, context: asked.append(name)
    assert gate_to(moongate, pki, origin).get("/").status == 200
    assert asked == [None]


def test_an_intermediate_that_the_server_sends(moongate, pki, serve, tmp_path):
    tmp_path.chmod(0o755)
    key, pem = tmp_path / "mid.key", tmp_path / "mid.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    (tmp_path / "ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
    request = openssl("req", "-new", "-key", key, "-subj", "/CN=test intermediate")
    pem.write_text(openssl("x509", "-req", "-CA", pki.path, "-CAkey", pki.key, "-set_serial", 77, "-days", 30,
                           "-extfile", tmp_path / "ext", input=request))
    middle = Authority.__new__(Authority)
    middle.folder, middle.path, middle.key, middle.serial = tmp_path, pem, key, 1
    origin = serve(middle.issue("leaf", "leaf.test", "127.0.0.1", chain=True))
    assert gate_to(moongate, pki, origin).get("/").status == 200
    # Who trusts the intermediate alone trusts it, too.
    assert gate_to(moongate, pki, origin, f"ca {pem};").get("/").status == 200


def test_the_system_is_trusted_by_default(moongate, pki, site, serve):
    origin = serve(site)
    gate = moongate(f"upstream app {{ server {origin.address}; tls; }}", "route / app;", start=False)
    gate.start()  # with the system's own file, which knows nothing of the test's authority
    assert gate.get("/").status == 502
    other = moongate(f"upstream app {{ server {origin.address}; tls; }}", "route / app;", start=False)
    with open(other.stderr, "a") as stderr:
        other.process = subprocess.Popen([str(MOONGATE), "-c", other.config],
                                         env=other.environment(SSL_CERT_FILE=str(pki.path)), stdin=subprocess.DEVNULL,
                                         stdout=stderr, stderr=stderr)
    other.master = other.process.pid
    other.wait_serving()
    assert other.get("/").status == 200


def test_a_client_certificate(moongate, pki, site, serve):
    mine = pki.issue("mine", "moongate.test")
    origin = serve(site, verify_mode=ssl.CERT_REQUIRED)
    origin.context.load_verify_locations(pki.path)
    gate = gate_to(moongate, pki, origin, mine.lines)
    assert gate.get("/").status == 200
    assert ("commonName", "moongate.test") in origin.shaken[0].getpeercert()["subject"][0]
    without = gate_to(moongate, pki, origin, "versions TLSv1.2;")
    assert without.get("/").status == 502
    without.wait_log("TLS with .* failed: the peer sent an alert: handshake failure")


def pin_of(certificate):
    der = openssl_bytes("x509", "-in", certificate.pem, "-noout", "-pubkey")
    raw = base64.b64decode("".join(line for line in der.decode().splitlines() if "-----" not in line))
    return "sha256/" + base64.b64encode(hashlib.sha256(raw).digest()).decode()


def openssl_bytes(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True, timeout=60).stdout


def test_pins(moongate, pki, site, serve):
    origin = serve(site)
    good, bad = pin_of(site), "sha256/" + base64.b64encode(b"x" * 32).decode()
    authority = type("Certificate", (), {"pem": pki.path})
    for pins in (f"pin {good};", f"pin {bad} {good};", f"pin {bad}; pin {good};", f"pin {pin_of(authority)};",
                 f"verify off; pin {good};"):
        assert gate_to(moongate, pki, origin, pins).get("/").status == 200, pins
    # An authority's pin says nothing when nobody was verified.
    for pins in (f"pin {bad};", f"verify off; pin {bad};", f"verify off; pin {pin_of(authority)};"):
        gate = gate_to(moongate, pki, origin, pins)
        assert gate.get("/").status == 502, pins
        gate.wait_log("TLS with .* failed: the server's key is none of those that are pinned")


def test_versions(moongate, pki, site, serve):
    origin = serve(site)
    for version, name in (("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3")):
        gate = gate_to(moongate, pki, origin, f"versions {version};")
        assert gate.get("/").status == 200
        assert origin.shaken[-1].version() == name
    origin.context.maximum_version = ssl.TLSVersion.TLSv1_2
    gate = gate_to(moongate, pki, origin, "versions TLSv1.3;")
    assert gate.get("/").status == 502
    gate.wait_log("TLS with .* failed: .*(protocol version|unsupported protocol)")


def test_ciphers(moongate, pki, site, serve):
    origin = serve(site)
    gate = gate_to(moongate, pki, origin, "versions TLSv1.2; ciphers ECDHE-ECDSA-CHACHA20-POLY1305;")
    assert gate.get("/").status == 200
    assert origin.shaken[0].cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sessions_are_resumed(moongate, pki, site, serve, version):
    origin = serve(site)
    gate = gate_to(moongate, pki, origin, f"versions {version};", "keepalive 0;")
    for _ in range(4):
        assert gate.get("/").status == 200
    assert origin.handshakes == 4
    assert origin.resumed == [False, True, True, True]
    stats = gate.stats()
    assert (stats["upstream_tls_handshakes"], stats["upstream_tls_resumed"]) == (4, 3)


def test_a_session_is_not_resumed_after_a_reload_that_trusts_others(moongate, pki, site, serve, tmp_path):
    tmp_path.chmod(0o755)
    origin = serve(site)
    gate = gate_to(moongate, pki, origin, "", "keepalive 0;")
    assert gate.get("/").status == 200 and gate.get("/").status == 200
    gate.config.write_text(gate.config.read_text().replace(str(pki.path), str(Authority(tmp_path, "other").path)))
    gate.reload()
    assert gate.get("/").status == 502


# ---- what is not


def failing(moongate, pki, origin, pattern, tls="", status=502):
    gate = gate_to(moongate, pki, origin, tls, "tries 1;")
    assert gate.get("/").status == status
    gate.wait_log(rf'error .*upstream "app": TLS with "{origin.address}" failed: {pattern} \(request \w+\)$')
    assert gate.log().count("TLS with") == 1
    assert gate.stats()["upstream_tls_errors"] == 1 and origin.requests == []
    return gate


def test_an_expired_certificate(moongate, pki, serve):
    origin = serve(pki.issue("old", "old.test", "127.0.0.1", days=-1))
    failing(moongate, pki, origin, "the peer's certificate is refused: certificate has expired")


def test_a_certificate_for_another_name(moongate, pki, serve):
    origin = serve(pki.issue("another", "another.test", "more.test"))
    failing(moongate, pki, origin, r'the server\'s certificate is not for "127.0.0.1", its names: another.test, '
                                   r'more.test')
    failing(moongate, pki, origin, r'the server\'s certificate is not for "site.test", its names: another.test, '
                                   r'more.test', "name site.test;")


def test_a_wildcard_stands_for_one_label(moongate, pki, site, serve):
    origin = serve(site)
    for name in ("a.b.wild.test", "wild.test"):
        failing(moongate, pki, origin, f'the server\'s certificate is not for "{name}".*', f"name {name};")


def test_a_self_signed_certificate(moongate, pki, serve, tmp_path):
    tmp_path.chmod(0o755)
    own = type("Certificate", (), {"pem": tmp_path / "own.pem", "key": tmp_path / "own.key"})
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", own.key, "-out",
            own.pem, "-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1", "-days", 10)
    origin = serve(own)
    failing(moongate, pki, origin, "the peer's certificate is refused: self-signed certificate")
    assert gate_to(moongate, pki, origin, f"ca {own.pem};").get("/").status == 200
    assert gate_to(moongate, pki, origin, "verify off;").get("/").status == 200


def test_an_unknown_authority(moongate, pki, serve, tmp_path):
    tmp_path.chmod(0o755)
    origin = serve(Authority(tmp_path, "other").issue("site", "site.test", "127.0.0.1"))
    failing(moongate, pki, origin, "the peer's certificate is refused: unable to get local issuer certificate")


def test_a_certificate_for_clients_only(moongate, pki, serve):
    origin = serve(pki.issue("client", "c.test", "127.0.0.1", extensions="extendedKeyUsage=clientAuth\n"))
    failing(moongate, pki, origin, "the peer's certificate is refused: unsuitable certificate purpose")


def test_a_revoked_certificate(moongate, pki, site, serve, tmp_path):
    tmp_path.chmod(0o755)
    revoked = pki.issue("revoked", "revoked.test", "127.0.0.1")
    serial = openssl("x509", "-in", revoked.pem, "-noout", "-serial").split("=")[1].strip()
    (tmp_path / "index").write_text(f"R\t350101000000Z\t250101000000Z\t{serial}\tunknown\t/CN=revoked.test\n")
    (tmp_path / "conf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={tmp_path}/index\ndefault_md=sha256\n"
                                   "default_crl_days=30\n")
    crl = tmp_path / "crl.pem"
    openssl("ca", "-gencrl", "-config", tmp_path / "conf", "-cert", pki.path, "-keyfile", pki.key, "-out", crl)
    crl.chmod(0o644)
    failing(moongate, pki, serve(revoked), "the peer's certificate is refused: certificate revoked", f"crl {crl};")
    assert gate_to(moongate, pki, serve(site), f"crl {crl};").get("/").status == 200
    assert gate_to(moongate, pki, serve(revoked)).get("/").status == 200  # who has no list does not know


def test_a_list_of_another_authority(moongate, pki, site, serve, tmp_path):
    tmp_path.chmod(0o755)
    other = Authority(tmp_path, "other")
    (tmp_path / "index").write_text("")
    (tmp_path / "conf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={tmp_path}/index\ndefault_md=sha256\n"
                                   "default_crl_days=30\n")
    crl = tmp_path / "crl.pem"
    openssl("ca", "-gencrl", "-config", tmp_path / "conf", "-cert", other.path, "-keyfile", other.key, "-out", crl)
    crl.chmod(0o644)
    failing(moongate, pki, serve(site), "the peer's certificate is refused: unable to get certificate CRL", f"crl {crl};")


def test_a_server_without_tls(moongate, pki):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        gate = moongate(f"upstream app {{ server {address}; tls {{ ca {pki.path}; }} tries 1; }}", "route / app;")

        def serve():
            client = listener.accept()[0]
            client.recv(100)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.recv(100)
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        assert gate.get("/").status == 502
        gate.wait_log("TLS with .* failed: wrong version number")


def test_a_server_that_ends_in_the_handshake(moongate, pki):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]

        def serve():
            for _ in range(2):
                client = listener.accept()[0]
                client.recv(100)
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        gate = moongate(f"upstream app {{ server {address}; tls {{ ca {pki.path}; }} tries 2; }}", "route / app;")
        assert gate.get("/").status == 502
        gate.wait_log("TLS with .* failed: ")
        assert gate.stats()["retries_connect"] == 1


def test_a_server_that_says_nothing(moongate, pki):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        gate = moongate(f"upstream app {{ server {address}; tls {{ ca {pki.path}; }} tries 1; connect_timeout 300ms; }}",
                        "route / app;")
        assert gate.get("/").status == 504
        gate.wait_log("TLS with .* failed: connect_timeout has passed")


def test_another_server_is_tried(moongate, pki, site, serve):
    bad = serve(pki.issue("bad", "bad.test"))
    good = serve(site)
    gate = moongate(f"upstream app {{ server {bad.address}; server {good.address}; tls {{ ca {pki.path}; }} }}",
                    "route / app;")
    assert [gate.get("/", method="POST", body=b"x").status for _ in range(4)] == [200] * 4
    assert len(good.requests) == 4 and bad.requests == []


def test_a_client_that_leaves_in_the_handshake(moongate, pki, site):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        gate = moongate(f"upstream app {{ server {address}; tls {{ ca {pki.path}; }} }}", "route / app;")
        for _ in range(3):
            with gate.connect() as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                client = listener.accept()[0]
                assert client.recv(100)[:1] == b"\x16"
            client.settimeout(5)
            while client.recv(1000):
                pass
            client.close()
        eventually(lambda: gate.stats()["requests_active"] == 0)


def test_an_end_without_close_notify_cuts_the_client_off(moongate, pki, site, serve):
    """A body that only the connection's end delimits, and an attacker who ends it."""
    origin = serve(site)

    def reply(request):
        yield b"HTTP/1.1 200 OK\r\n\r\nhalf"
        time.sleep(0.2)
        socket.socket.shutdown(origin.shaken[-1], socket.SHUT_RDWR)

    origin.reply = reply
    gate = gate_to(moongate, pki, origin)
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"half" in got and not got.endswith(b"0\r\n\r\n")


# ---- ALPN and HTTP/2


def test_auto_takes_http2(moongate, pki, site, serve):
    origin = serve(site, h2=True)
    gate = gate_to(moongate, pki, origin)
    with ThreadPoolExecutor(10) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(30)))
    assert len(origin.links) == 1
    assert origin.requests[0].header(":scheme") == "https"


def test_auto_takes_http1(moongate, pki, site, serve):
    origin = serve(site, alpn=["http/1.1"])
    gate = gate_to(moongate, pki, origin)
    with ThreadPoolExecutor(10) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(30)))
    assert origin.shaken[0].selected_alpn_protocol() == "http/1.1"


def test_auto_without_alpn_is_http1(moongate, pki, site, serve):
    origin = serve(site)
    gate = gate_to(moongate, pki, origin)
    with ThreadPoolExecutor(20) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(60)))


def test_http1_alone_is_offered(moongate, pki, site, serve):
    origin = serve(site, alpn=["h2", "http/1.1"])
    assert gate_to(moongate, pki, origin, upstream="protocol http/1.1;").get("/").status == 200
    assert origin.shaken[0].selected_alpn_protocol() == "http/1.1"


def test_h2_alone_is_wanted(moongate, pki, site, serve):
    origin = serve(site, alpn=["http/1.1"])
    gate = gate_to(moongate, pki, origin, upstream="protocol h2; tries 1;")
    assert gate.get("/").status == 502
    gate.wait_log("TLS with .* failed: ")
    gate = gate_to(moongate, pki, serve(site), upstream="protocol h2; tries 1;")
    assert gate.get("/").status == 502
    gate.wait_log(r"TLS with .* failed: the server does not offer HTTP/2 \(ALPN\)")


def test_a_server_that_changes_its_mind(moongate, pki, site, serve):
    origin = serve(site, h2=True)
    gate = gate_to(moongate, pki, origin, upstream="keepalive 0;")
    assert gate.get("/").status == 200
    origin.context.set_alpn_protocols(["http/1.1"])
    # It has no HTTP/1.1 behind that: what matters is that it is tried, and HTTP/2 again later.
    assert gate.get("/").status == 502
    origin.context.set_alpn_protocols(["h2"])
    assert gate.get("/").status == 200 and gate.get("/").status == 200


class TwoTongues(H2Origin):
    """HTTP/2 as H2Origin, HTTP/1.1 as `old`, an Origin, by what ALPN chose."""

    def __init__(self, certificate):
        self.context = context_of(certificate, ["h2", "http/1.1"])
        self.old = Origin()
        super().__init__(wrap=lambda s: self.context.wrap_socket(s, server_side=True))

    def begin(self, sock):
        try:
            sock = self.wrap(sock)
        except OSError:
            return
        if sock.selected_alpn_protocol() != "h2":
            self.old.serve(sock, 1)
            return
        link = Link(self, sock, len(self.links) + 1)
        self.links.append(link)
        link.serve()

    def close(self):
        super().close()
        self.old.close()


@pytest.fixture
def tongues(site):
    with TwoTongues(site) as origin:
        yield origin


HTTP_1_1_REQUIRED = 0xd


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http1_where_a_stream_is_told_that_it_is_required(moongate, pki, tongues, method):
    """Nothing was done with such a request: it is sent again whatever its method, with its body."""
    tongues.reply = lambda link, stream: link.reset(stream.id, HTTP_1_1_REQUIRED)
    gate = gate_to(moongate, pki, tongues)
    assert gate.get("/x", method=method, body=b"body" * (method == "POST")).status == 200
    assert [request.line for request in tongues.old.requests] == [f"{method} /x HTTP/1.1"]
    assert tongues.old.requests[0].body == b"body" * (method == "POST")
    gate.wait_log('server "127.0.0.1:.*" requires HTTP/1.1: HTTP/2 is not offered to it for 10 minutes')
    for _ in range(5):
        assert gate.get("/").status == 200
    with ThreadPoolExecutor(10) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(30)))
    assert len(tongues.requests) == 1, "it is remembered"
    assert gate.stats()["upstream_http1_required"] == 1
    eventually(lambda: tongues.links[0].goaway == 0)  # the connection had no other use


def test_http1_after_a_goaway_that_requires_it(moongate, pki, tongues):
    tongues.reply = lambda link, stream: link.go_away(0, HTTP_1_1_REQUIRED)
    gate = gate_to(moongate, pki, tongues)
    assert gate.get("/", method="POST", body=b"body").status == 200
    assert gate.get("/").status == 200
    assert len(tongues.requests) == 1 and len(tongues.old.requests) == 2


def test_http1_for_many_at_once(moongate, pki, tongues):
    """Those that wait for the connection, and those that are on others, too."""
    tongues.reply = lambda link, stream: link.reset(stream.id, HTTP_1_1_REQUIRED)
    gate = gate_to(moongate, pki, tongues)
    with ThreadPoolExecutor(20) as pool:
        assert all(one.status == 200 for one in pool.map(lambda _: gate.get("/"), range(40)))
    assert len(tongues.old.requests) == 40


def test_what_goes_on_beside_a_stream_that_is_refused_for_http1(moongate, pki, tongues):
    begun = threading.Event()

    def reply(link, stream):
        if stream.path == "/slow":
            link.headers(stream.id, [(":status", "200")])
            begun.set()
            eventually(lambda: tongues.old.requests)
            link.data(stream.id, b"whole", end=True)
        else:
            link.reset(stream.id, HTTP_1_1_REQUIRED)
    tongues.reply = reply
    gate = gate_to(moongate, pki, tongues)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gate.get, "/slow")
        assert begun.wait(5)
        assert gate.get("/").status == 200
        assert slow.result().body == b"whole"


def test_an_answer_that_has_begun_is_not_asked_for_again(moongate, pki, tongues):
    def reply(link, stream):
        link.headers(stream.id, [(":status", "200"), ("content-length", "10")])
        link.data(stream.id, b"part")
        link.reset(stream.id, HTTP_1_1_REQUIRED)
    tongues.reply = reply
    gate = gate_to(moongate, pki, tongues)
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.count(b"HTTP/1.1 200") <= 1 and not tongues.old.requests


def test_no_fall_back_where_http2_is_the_operators_word(moongate, pki, tongues):
    tongues.reply = lambda link, stream: link.reset(stream.id, HTTP_1_1_REQUIRED)
    gate = gate_to(moongate, pki, tongues, upstream="protocol h2;")
    assert gate.get("/").status == 502
    gate.wait_log(r"RST_STREAM \(HTTP_1_1_REQUIRED\)")
    assert not tongues.old.requests


def test_http1_that_a_check_is_told_to_use(moongate, pki, tongues):
    """Health checks learn of it as requests do, and for them."""
    tongues.reply = lambda link, stream: link.reset(stream.id, HTTP_1_1_REQUIRED)
    gate = gate_to(moongate, pki, tongues, upstream="health http /healthz every=500ms timeout=500ms rise=1 fall=9;")
    gate.wait_log("requires HTTP/1.1")
    eventually(lambda: any(request.target == "/healthz" for request in tongues.old.requests))
    assert gate.get("/x").status == 200
    assert not any(stream.path == "/x" for stream in tongues.requests)
    assert "is down" not in gate.log()


def test_large_bodies_over_http2_and_tls(moongate, pki, site, serve):
    origin = serve(site, h2=True)
    origin.reply = lambda link, stream: (link.headers(stream.id, [(":status", "200")]), link.pour(stream, 5 << 20)) \
        if stream.method == "GET" else link.respond(stream.id, [(":status", "200")], b"%d" % len(stream.body))
    gate = gate_to(moongate, pki, origin)
    assert gate.get("/").body == b"x" * (5 << 20)
    assert gate.get("/", method="POST", body=b"y" * 3000000).body == b"3000000"


# ---- other servers


def test_openssl_s_server(moongate, pki, site):
    port = free_port()
    with subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", site.pem, "-key", site.key,
                           "-www", "-quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            gate = moongate(f"upstream app {{ server 127.0.0.1:{port}; tls {{ ca {pki.path}; }} }}", "route / app;")
            assert b"s_server" in eventually(lambda: (got := gate.get("/")).status == 200 and got.body)
        finally:
            process.kill()


# ---- scripts


FETCH = """local gate = require "moongate"
return { request = function(req)
  local got, why = gate.fetch(req.headers["x-url"])
  return req:respond(200, {}, got and (got.status .. got.body) or "failed: " .. why)
end }"""


def test_gate_fetch_over_https(moongate, pki, site, serve):
    origin = serve(site)
    two = serve(site, h2=True)
    other = serve(pki.issue("foreign", "foreign.test"))
    gate = moongate(f"fetch_ca {pki.path};", "script s.lua;", files={"s.lua": FETCH})

    def fetch(url):
        return gate.get("/", {"x-url": url}).text

    assert fetch(f"https://{origin.address}/") == "200ok"
    assert fetch(f"https://{two.address}/") == "200ok" and two.requests[0].header(":scheme") == "https"
    assert fetch(f"https://{other.address}/") == "failed: upstream_tls"
    gate.wait_log('TLS with .* failed: the server\'s certificate is not for "127.0.0.1", its names: foreign.test')
    # The same address without TLS is another server.
    assert fetch(f"http://{origin.address}/").startswith("failed")
    assert fetch(f"https://{origin.address}/") == "200ok" and len(origin.shaken) == 1


def test_the_route_hook_may_name_it(moongate, pki, site, serve):
    origin = serve(site)
    gate = moongate(f"fetch_ca {pki.path};", "script s.lua;", files={"s.lua": f"""
        return {{ route = function(req) return "https://{origin.address}" end }}"""})
    assert gate.get("/").status == 200


# ---- the configuration


ERRORS = {
    "an unknown file": ("ca /does/not/exist;", "No such file"),
    "no certificates in it": ("ca EMPTY;", "no certificate in"),
    "a bad pin": ("pin sha256/abc;", "expected sha256/ and 32 bytes in base64"),
    "a pin of another kind": ("pin sha1/YLh1dUR9y6Kja30RrAn7JKnbQG/uEtLMkBgFF2Fuihg=;", "expected sha256/"),
    "an unknown cipher": ("ciphers NONSENSE;", "unknown cipher \"NONSENSE\""),
    "an unknown group": ("groups NONSENSE;", "bad groups"),
    "a name with a space": ('name "a b";', "expected a host name"),
    "a directive of listeners": ("strict_names on;", "strict_names"),
    "no revoked ones": ("crl EMPTY;", "no list of revoked certificates"),
    "two certificates": ("certificate SITE.pem; key SITE.key; certificate SITE.pem; key SITE.key;", "expected one"),
    "a key without its certificate": ("key SITE.key;", "without a certificate before it"),
}


def test_what_is_wrong_is_told(moongate, pki, site):
    gate = moongate("", "", start=False)
    for name, (tls, pattern) in ERRORS.items():
        tls = tls.replace("SITE", str(site.pem)[:-4]).replace("EMPTY", str(gate.write("empty.pem", "nothing")))
        ca = "" if "ca " in tls else f"ca {pki.path};"
        gate.configure(f"upstream app {{ server 127.0.0.1:1;\n tls {{ {ca}\n {tls} }} }}", "route / app;")
        done = gate.run("-t")
        assert done.returncode == 1 and pattern in done.stderr, f"{name}: {done.stderr}"
        assert "moongate.conf:" in done.stderr, name


def test_the_effective_configuration_can_be_read_again(moongate, pki, site):
    pin = pin_of(site)
    gate = moongate("", "", start=False)
    gate.configure(f"upstream app {{ server 127.0.0.1:1; protocol h2; http2_ping 0; tls {{ ca {pki.path}; name a.b; "
                   f"pin {pin}; {site.lines} verify on; }} }}", "route / app;")
    text = gate.run("-T").stdout
    assert f"pin {pin};" in text and f"ca {pki.path};" in text and "name a.b;" in text
    gate.config.write_text(text)
    assert gate.run("-T").stdout == text


def test_a_unix_socket_needs_a_name(moongate, pki):
    gate = moongate("", "", start=False)
    gate.configure(f"upstream app {{ server unix:/tmp/x; tls {{ ca {pki.path}; }} }}", "route / app;")
    assert 'expected "name"' in gate.run("-t").stderr

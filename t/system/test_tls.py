# SPDX-License-Identifier: BSD-2-Clause
"""TLS towards clients: handshakes, certificates by name, ALPN, what is refused, ends of connections, bulk both
ways. Clients are curl, openssl s_client and Python's ssl."""
import contextlib
import hashlib
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from conftest import eventually, read_all
from pki import Authority


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def site(ca):
    return ca.issue("site", "site.test", "*.wild.test", "127.0.0.1")


def tls_gate(moongate, origin, tls, frontend="", top="", **how):
    return moongate(f"upstream app {{ server {origin.address}; }} {top}", f"{frontend} route / app;",
                    listen="%ADDRESS% tls { " + tls + " }", **how)


@pytest.fixture
def secure(moongate, origin, site):
    """secure(tls="", ...) -> a Gate with TLS that asks the origin"""
    def make(tls="", lines=None, **how):
        return tls_gate(moongate, origin, (lines or site.lines) + tls, **how)
    return make


def context(ca, alpn=None, most=None, least=None):
    made = ssl.create_default_context(cafile=str(ca.path))
    if alpn:
        made.set_alpn_protocols(alpn)
    if most:
        made.maximum_version = most
    if least:
        made.minimum_version = least
    return made


def dial(gate, ca, name="site.test", session=None, **how):
    """A TLS connection as Python makes it."""
    made = how.pop("context", None) or context(ca, **how)
    return made.wrap_socket(gate.connect(5), server_hostname=name, session=session)


def ask(s, path="/", head="", method="GET", body=b""):
    """One request; the head and the whole body of the response, which must have a Content-Length."""
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: site.test\r\n{head}\r\n".encode() + body)
    return answer(s)


def answer(s):
    got = b""
    while b"\r\n\r\n" not in got:
        chunk = s.recv(65536)
        assert chunk, got
        got += chunk
    head, _, rest = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    pieces, have = [rest], len(rest)
    while have < length:
        chunk = s.recv(1 << 20)
        assert chunk, "cut short"
        pieces.append(chunk)
        have += len(chunk)
    return head, b"".join(pieces)


def s_client(gate, *arguments, data="", patience=20):
    done = subprocess.run(["openssl", "s_client", "-connect", gate.address, *map(str, arguments)],
                          input=data, capture_output=True, text=True, timeout=patience)
    return done.stdout + done.stderr


def curl(gate, ca, *arguments, name="site.test"):
    return subprocess.run(["curl", "-sS", "--cacert", ca.path, "--resolve", f"{name}:{gate.port}:127.0.0.1", *arguments,
                           f"https://{name}:{gate.port}/path"], capture_output=True, timeout=20)


# ---- handshakes ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["--tlsv1.3", "--tls-max=1.2"])
def test_curl(secure, ca, origin, version):
    gate = secure(frontend="forwarded on; x_forwarded replace;")
    done = curl(gate, ca, "--http1.1", *version.split("="), "-w", "%{http_version}")
    assert done.stdout == b"ok1.1", done.stderr
    assert origin.requests[0].target == "/path"
    assert origin.requests[0].header("x-forwarded-proto") == "https"
    assert "proto=https" in origin.requests[0].header("forwarded")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_keep_alive_and_pipelining(secure, ca, origin, version):
    gate = secure()
    with dial(gate, ca, most=version, least=version) as s:
        assert s.version() == version.name.replace("_", ".")
        for _ in range(5):
            assert ask(s)[1] == b"ok"
        s.sendall(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert read_all(s).count(b"\r\n\r\nok") == 2
    stats = gate.stats()
    assert stats["tls_handshakes"] == 1 and stats["tls_handshakes_active"] == 0


def test_old_versions_are_refused(secure):
    gate = secure()
    for version in ("-tls1", "-tls1_1"):
        assert "alert protocol version" in s_client(gate, version, "-cipher", "ALL:@SECLEVEL=0")
    assert gate.stats()["tls_handshake_errors"] == 2
    gate.wait_log("TLS handshake with 127.0.0.1: (unsupported protocol|version too low)")


def test_only_the_versions_that_are_given(secure):
    gate = secure("versions TLSv1.3;")
    assert "alert protocol version" in s_client(gate, "-tls1_2")
    assert "New, TLSv1.3" in s_client(gate, "-tls1_3")


def test_only_the_ciphers_and_groups_that_are_given(secure):
    gate = secure("ciphers ECDHE-ECDSA-AES256-GCM-SHA384; ciphersuites TLS_AES_256_GCM_SHA384; groups P-384;")
    assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in s_client(gate, "-tls1_2")
    assert "Cipher is TLS_AES_256_GCM_SHA384" in s_client(gate, "-tls1_3")
    assert "ECDH, P-384" in s_client(gate) or "secp384r1" in s_client(gate)
    assert "handshake failure" in s_client(gate, "-tls1_3", "-groups", "X25519")


def test_plain_http_on_a_tls_port(secure):
    gate = secure()
    got = gate.raw(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got == b"" or got[0] == 21, "nothing, or an alert"
    gate.wait_log("TLS handshake with 127.0.0.1: http request")
    eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.parametrize("bytes_sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40])
def test_a_client_that_leaves_in_the_handshake(secure, ca, bytes_sent):
    gate = secure()
    with gate.connect() as s:
        s.sendall(bytes_sent)
        if bytes_sent:
            eventually(lambda: gate.stats()["tls_handshakes_active"] == 1)
    eventually(lambda: gate.stats()["tls_handshake_errors"] == 1)
    eventually(lambda: gate.stats()["connections_active"] == 0)
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"


def test_a_handshake_byte_by_byte(secure, ca):
    """What a client sends may come in any pieces."""
    gate = secure()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(ca).wrap_bio(incoming, outgoing, server_hostname="site.test")
    with gate.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def pump(what):
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        s.sendall(bytes([byte]))
                    incoming.write(s.recv(65536))
        pump(tls.do_handshake)
        tls.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"200 OK" in pump(lambda: tls.read(65536))


def test_a_handshake_has_its_time(secure):
    gate = secure(top="tls_handshake_timeout 200ms;")
    with gate.connect() as s:
        s.sendall(b"\x16\x03\x01")
        assert s.recv(1) == b""
    assert gate.stats()["tls_handshake_timeouts"] == 1
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_handshakes_under_way_are_bounded(secure, ca):
    gate = secure(top="tls_handshakes 3;")
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(gate.connect()) for _ in range(3)]
        eventually(lambda: gate.stats()["tls_handshakes_active"] == 3)
        with dial(gate, ca) as s:
            assert ask(s)[1] == b"ok"
        assert waiting[0].recv(1) == b"", "the oldest went"
        assert gate.stats()["tls_handshakes_shed"] == 1
        assert gate.stats()["tls_handshakes_active"] == 2


# ---- certificates ----------------------------------------------------------------------------------------------

def served(gate, ca, name, **how):
    made = context(ca, **how)
    made.check_hostname = False
    with dial(gate, ca, name, context=made) as s:
        return [value for _, value in s.getpeercert()["subjectAltName"]]


def test_certificates_by_name(secure, ca, site):
    other = ca.issue("other", "other.test", "deep.wild.test")
    gate = secure(other.lines)
    assert "site.test" in served(gate, ca, "site.test")
    assert "other.test" in served(gate, ca, "other.test")
    assert "other.test" in served(gate, ca, "OTHER.test")
    assert "*.wild.test" in served(gate, ca, "any.wild.test")
    assert "other.test" in served(gate, ca, "deep.wild.test"), "a name of its own beats a wildcard"
    assert "site.test" in served(gate, ca, "two.labels.wild.test"), "a wildcard is one label; the first serves"
    assert "site.test" in served(gate, ca, "unknown.test")
    assert "CN = site.test" in s_client(gate, "-noservername")


def test_strict_names(secure, ca):
    gate = secure("strict_names on;")
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        served(gate, ca, "unknown.test")
    assert "site.test" in served(gate, ca, "site.test")


def test_ecdsa_beside_rsa(secure, ca, site):
    rsa = ca.issue("rsa", "site.test", kind="rsa")
    gate = secure(rsa.lines)
    assert "ECDHE-ECDSA" in s_client(gate, "-tls1_2")
    assert "ECDHE-RSA" in s_client(gate, "-tls1_2", "-cipher", "aRSA")
    assert "Peer signature type: ECDSA" in s_client(gate, "-tls1_3", "-servername", "site.test")
    assert "Peer signature type: RSA-PSS" in s_client(gate, "-tls1_3", "-sigalgs", "RSA-PSS+SHA256")


def test_ed25519(secure, ca):
    gate = secure(lines=ca.issue("ed", "site.test", kind="ed25519").lines)
    assert curl(gate, ca).stdout == b"ok"


def test_a_chain_and_a_key_in_one_file(secure, ca, tmp_path):
    both = ca.issue("both", "site.test", chain=True)
    both.pem.write_text(both.key.read_text() + both.pem.read_text())
    gate = secure(lines=f"certificate {both.pem};")
    assert " 1 s:CN = test ca" in s_client(gate, "-showcerts")
    assert curl(gate, ca).stdout == b"ok"


def test_keys_are_read_by_root_alone(secure, ca, site):
    """The key file is nobody else's, the workers are nobody; a worker that is forked later has it too."""
    gate = secure()
    assert os.stat(site.key).st_mode & 0o777 == 0o600
    pid = gate.workers()[0]
    os.kill(pid, 9)
    eventually(lambda: gate.workers()[0] not in (pid, 0) and gate.show("workers")["workers"][0]["state"] == "serving")
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"


def test_a_reload_swaps_certificates_and_touches_no_connection(secure, ca, site):
    swapped = ca.issue("swapped", "site.test", "before.test")
    gate = secure(lines=swapped.lines)
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"
        ca.issue("swapped", "site.test", "after.test")
        assert "before.test" in served(gate, ca, "site.test")
        gate.reload()
        assert "after.test" in served(gate, ca, "site.test")
        assert ask(s)[1] == b"ok"
        assert ("DNS", "before.test") in s.getpeercert()["subjectAltName"]
    assert gate.stats()["connections_accepted"] == 3


def test_a_reload_within_a_handshake(secure, ca):
    """What has begun in one generation ends in it."""
    gate = secure()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(ca).wrap_bio(incoming, outgoing, server_hostname="site.test")
    with gate.connect() as s:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        s.sendall(hello[:100])
        eventually(lambda: gate.stats()["tls_handshakes_active"] == 1)
        gate.reload()
        gate.reload()
        s.sendall(hello[100:])
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(s.recv(65536))
        tls.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        s.sendall(outgoing.read())
        got = b""
        while b"ok" not in got:
            chunk = s.recv(65536)
            assert chunk, got
            incoming.write(chunk)
            with contextlib.suppress(ssl.SSLWantReadError):
                got += tls.read(65536)
    eventually(lambda: len(gate.show("workers")["workers"][0].get("generations", [1])) == 1)


# ---- ALPN ------------------------------------------------------------------------------------------------------

def test_alpn(secure, ca):
    gate = secure("alpn http/1.1;")
    with dial(gate, ca, alpn=["spdy/3", "http/1.1"]) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
        assert ask(s)[1] == b"ok"
    with dial(gate, ca) as s:
        assert s.selected_alpn_protocol() is None
        assert ask(s)[1] == b"ok"
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        dial(gate, ca, alpn=["spdy/3"])


# ---- bytes -----------------------------------------------------------------------------------------------------

BIG = os.urandom(1 << 20) * 24


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bulk_both_ways(secure, ca, origin, version):
    origin.reply = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body
    gate = secure(frontend="max_body 0;")
    with dial(gate, ca, most=version) as s:
        for size in (0, 1, 16383, 16384, 16385, 100000, len(BIG)):
            body = BIG[:size]
            head = f"Content-Length: {size}\r\n"
            got = ask_while_reading(s, head, body)
            assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest(), size


def ask_while_reading(s, head, body):
    """The origin echoes while it is still being sent to: blocking sends would never end."""
    s.sendall(f"POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode())
    sender = threading.Thread(target=s.sendall, args=(body,))
    sender.start()
    sender.join(20)
    return answer(s)[1]


def test_a_slow_reader_gets_all_and_costs_little(secure, ca, origin):
    origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG
    gate = secure()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", gate.port))
    with context(ca).wrap_socket(raw, server_hostname="site.test") as s:
        s.settimeout(20)
        head, body = ask(s)
        assert hashlib.sha256(body).digest() == hashlib.sha256(BIG).digest()


def records(data):
    """Types and lengths of the records of a stream of bytes."""
    found = []
    while len(data) >= 5:
        length = int.from_bytes(data[3:5], "big")
        found.append((data[0], length))
        data = data[5 + length:]
    return found


def test_record_sizes(secure, ca, origin):
    """A small response is one record; bulk comes in full ones."""
    gate = secure()
    for size, at_most in ((2, 1), (1 << 20, 66)):
        origin.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + BIG[:size]
        incoming, outgoing, got = ssl.MemoryBIO(), ssl.MemoryBIO(), b""
        # TLS 1.2: the records of application data are told apart from all others by their type.
        tls = context(ca, most=ssl.TLSVersion.TLSv1_2).wrap_bio(incoming, outgoing, server_hostname="site.test")
        with gate.connect() as s:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    s.sendall(outgoing.read())
                    incoming.write(s.recv(65536))
            tls.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            s.sendall(outgoing.read())
            got = read_all(s)
        data = [length for kind, length in records(got) if kind == 23]
        assert len(data) <= at_most, data
        if size > 100000:
            assert sum(length > 16384 for length in data) >= 50, data


# ---- ends ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_ends_with_close_notify(secure, ca, version):
    """OpenSSL tells an end without it from one with it; Python hides the difference unless it is asked not to."""
    gate = secure()
    strict = context(ca, most=version)
    strict.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    with strict.wrap_socket(gate.connect(5), server_hostname="site.test", suppress_ragged_eofs=False) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        got = b""
        while chunk := s.recv(65536):
            got += chunk
        assert got.endswith(b"ok")


def test_a_client_that_says_close_notify(secure, ca, origin):
    gate = secure("", frontend="half_close on;")
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"
        plain = s.unwrap()
        plain.close()
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert gate.stats()["tls_handshake_errors"] == 0


def test_an_upload_that_is_cut_without_close_notify_is_not_whole(secure, ca, origin):
    """The end of the connection is no end of a message, whoever makes it."""
    gate = secure("", frontend="half_close on;")
    s = dial(gate, ca)
    s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
    s.shutdown(socket.SHUT_RDWR)
    s.close()
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert gate.stats()["responses_2xx"] == 0


def test_garbage_after_the_handshake(secure, ca):
    gate = secure()
    s = dial(gate, ca)
    assert ask(s)[1] == b"ok"
    with socket.socket(fileno=s.detach()) as raw:
        raw.setblocking(True)
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        read_all(raw)
    gate.wait_log("TLS: decryption failed or bad record mac")
    eventually(lambda: gate.stats()["connections_active"] == 0)


def test_renegotiation_is_refused(secure):
    gate = secure()
    out = s_client(gate, "-tls1_2", data="R\n")
    assert "no renegotiation" in out.lower() or "unexpected message" in out.lower() or "RENEGOTIATING" in out
    with contextlib.suppress(AssertionError):
        assert "Secure Renegotiation IS supported" in out


# ---- what is known of it -----------------------------------------------------------------------------------------

def test_log_variables(secure, ca):
    gate = secure(top="""log_format tls '$scheme|$tls_version|$tls_cipher|$tls_group|$tls_server_name|$tls_alpn|$tls_resumed';""",
                  frontend="access_log %FOLDER%/access.log tls;")
    with dial(gate, ca, alpn=["http/1.1"]) as s:
        ask(s)
    line = gate.wait_log("^https.*$", path=gate.folder / "access.log").group(0)
    assert re.fullmatch(r"https\|TLSv1.3\|TLS_[A-Z0-9_]+\|x25519\|site.test\|http/1.1\|no", line), line


# ---- errors of the configuration --------------------------------------------------------------------------------

def complaint(moongate, tls, exact=False):
    gate = moongate("upstream app { server 127.0.0.1:1; }", "route / app;",
                    listen="%ADDRESS% " + (tls if exact else "tls { " + tls + " }"), start=False)
    done = gate.run("-t")
    assert done.returncode == 1 and "moongate.conf:" in done.stderr, done
    return done.stderr


def test_bad_configurations(moongate, ca, site, tmp_path):
    other = ca.issue("stranger", "x.test")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "ec", "-in", site.key, "-aes128", "-passout", "pass:x", "-out", locked], check=True,
                   capture_output=True)
    wrong = [
        ("", "has no certificate"),
        ("certificate /nowhere/x.pem;", "cannot read .*/nowhere/x.pem"),
        (f"certificate {empty};", "no certificate in"),
        (f"certificate {broken};", "bad certificate in"),
        (f"certificate {site.pem};", "no private key in"),
        (f"certificate {site.pem}; key {other.key};", "is not that of the certificate"),
        (f"certificate {site.pem}; key {locked};", "is encrypted"),
        (f"key {site.key};", "without a certificate before it"),
        (f"{site.lines} key {site.key};", "without a certificate before it"),
        (f"{site.lines} ciphers NO-SUCH-CIPHER;", 'unknown cipher "NO-SUCH-CIPHER"'),
        (f"{site.lines} ciphersuites NO_SUCH;", "bad ciphersuites"),
        (f"{site.lines} groups X25519 nonsense;", "bad groups"),
        (f"{site.lines} versions TLSv1.1;", 'bad value "TLSv1.1"'),
        (f"{site.lines} versions TLSv1.2 TLSv1.2;", "repeated value"),
        (f"{site.lines} workers 2;", "may not stand in the tls block"),
    ]
    for tls, text in wrong:
        said = complaint(moongate, tls)
        assert re.search(text, said), (tls, said)
    assert "without its block" in complaint(moongate, "tls", exact=True)
    assert "expected \"tls\" before it" in complaint(moongate, "{ }", exact=True)


def test_a_key_that_does_not_fit_fails_the_reload(secure, ca, site):
    gate = secure()
    other = ca.issue("unfit", "x.test")
    text = gate.config.read_text()
    gate.write("moongate.conf", text.replace(str(site.key), str(other.key)))
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and "is not that of the certificate" in done.stderr
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"


def test_an_expired_certificate_is_served_with_a_warning(secure, ca):
    old = ca.issue("expired", "site.test", days=-1)
    gate = secure(lines=old.lines)
    gate.wait_log(r"moongate.conf:\d+:\d+: the certificate in \".*expired.pem\" has expired \(valid until 2020-02-01")
    assert "certificate has expired" in s_client(gate)


def test_the_effective_configuration_is_valid(secure):
    gate = secure("alpn http/1.1; ciphers ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256; groups P-256;")
    printed = gate.run("-T").stdout
    assert "tls {" in printed and "key " in printed
    gate.write("moongate.conf", printed)
    assert gate.run("-t").returncode == 0
    assert gate.run("-T").stdout == printed

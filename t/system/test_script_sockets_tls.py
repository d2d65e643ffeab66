# SPDX-License-Identifier: BSD-2-Clause
"""TLS on sockets of scripts (gate.tcp.connect with tls): whom they trust, what they say of who they do not, and that the
bytes go through it as they do without. Peers are openssl s_server and Python's ssl."""
import contextlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

from conftest import eventually, free_port
from pki import Authority, openssl
from test_script_sockets import Peer, TOP, answers, echo, make, peers  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def site(pki):
    return pki.issue("site", "site.test", "localhost", "127.0.0.1")


@pytest.fixture
def tls_peers(peers):
    """tls_peers(certificate, serve=echo) -> a Peer behind TLS; shaken: its connections, in order."""
    def make_peer(certificate, serve=echo, path=None, **how):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.pem, certificate.key)
        for name, value in how.items():
            setattr(context, name, value)

        def shake(sock, number):
            with context.wrap_socket(sock, server_side=True) as shaken:
                made.shaken.append(shaken)
                made.resumed.append(shaken.session_reused)
                serve(shaken, number)
                with contextlib.suppress(OSError, ValueError):
                    shaken.unwrap()
        made = peers(shake, path) if path else peers(shake)
        made.shaken, made.resumed = [], []
        return made
    return make_peer


def gate_of(moongate, pki, text, top="", before="", **how):
    return make(moongate, before + answers(text), top=f"{top} fetch_ca {pki.path};", **how)


REFUSED = "tls: the peer's certificate is refused:"
TALK = """
    if not sock then return why end
    assert(sock:send("hello\\n"))
    return sock:receive_line()"""


def connect(peer, tls="true", more=""):
    return f'local sock, why = gate.tcp.connect("{peer.address}", {{ tls = {tls}, {more} }})'


def test_openssl_s_server(moongate, pki, site):
    port = free_port()
    with subprocess.Popen(["openssl", "s_server", "-accept", str(port), "-cert", site.pem, "-key", site.key, "-rev"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            while b"ACCEPT" not in server.stdout.readline():
                pass
            gate = gate_of(moongate, pki, f"""
                local sock, why = gate.tcp.connect("127.0.0.1:{port}", {{ tls = true }}) {TALK}""")
            assert gate.get("/").text == '"olleh"'
        finally:
            server.kill()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_is_trusted(moongate, pki, site, tls_peers, version):
    peer = tls_peers(site, minimum_version=version, maximum_version=version)
    gate = gate_of(moongate, pki, connect(peer) + TALK)
    for _ in range(3):
        assert gate.get("/").text == '"hello"'
    assert gate.stats()["script_sockets_active"] == 0


def test_the_name_of_the_address(moongate, pki, site, tls_peers):
    peer = tls_peers(site)
    text = f'local sock, why = gate.tcp.connect("localhost:{peer.address.split(":")[1]}", {{ tls = true }}) ' + TALK
    gate = gate_of(moongate, pki, text, frontend="route_allow any;")
    assert gate.get("/").text == '"hello"'
    assert peer.shaken


def test_a_name_of_its_own(moongate, pki, tls_peers):
    asked = []
    peer = tls_peers(pki.issue("named", "named.test"), sni_callback=lambda sock, name, context: asked.append(name))
    gate = gate_of(moongate, pki, connect(peer, '{ name = "named.test" }') + TALK)
    assert gate.get("/").text == '"hello"'
    assert asked == ["named.test"]


def test_a_unix_socket_with_a_name(moongate, pki, site, tls_peers, tmp_path):
    os.chmod(tmp_path, 0o755)
    gate = moongate(start=False)
    peer = tls_peers(site, path=gate.folder / "peer")
    gate.write("a.lua", TOP + answers(connect(peer, '{ name = "site.test" }') + TALK) + "\nreturn hooks\n")
    gate.configure(f"fetch_ca {pki.path};", "script a.lua;")
    gate.start()
    assert gate.get("/").text == '"hello"'


# ---- whom they do not trust --------------------------------------------------------------------------------------

def test_a_wrong_name(moongate, pki, tls_peers):
    peer = tls_peers(pki.issue("other", "other.test"))
    gate = gate_of(moongate, pki, connect(peer, '{ name = "site.test" }') + TALK)
    assert gate.get("/").text == \
        r'"tls: the server\'s certificate is not for \"site.test\", its names: other.test"'.replace("\\'", "'")
    gate = gate_of(moongate, pki, connect(peer) + TALK)
    assert "is not for \\\"127.0.0.1\\\"" in gate.get("/").text


def test_self_signed(moongate, pki, tls_peers, tmp_path):
    (tmp_path / "own").mkdir()
    other = Authority(tmp_path / "own", "site.test")

    class Own:
        pem, key = other.path, other.key
    gate = gate_of(moongate, pki, connect(tls_peers(Own)) + TALK)
    assert gate.get("/").text == f'"{REFUSED} self-signed certificate"'


def test_of_an_authority_that_is_not_trusted(moongate, site, tls_peers):
    """Without fetch_ca it is the system's authorities who are."""
    gate = make(moongate, answers(connect(tls_peers(site)) + TALK))
    assert gate.get("/").text == f'"{REFUSED} unable to get local issuer certificate"'


def test_expired(moongate, pki, tls_peers):
    gate = gate_of(moongate, pki, connect(tls_peers(pki.issue("old", "old.test", days=-1)), '{ name = "old.test" }') + TALK)
    assert gate.get("/").text == f'"{REFUSED} certificate has expired"'


def test_whoever_answers(moongate, pki, tls_peers, tmp_path):
    (tmp_path / "own").mkdir()
    other = Authority(tmp_path / "own", "site.test")

    class Own:
        pem, key = other.path, other.key
    gate = gate_of(moongate, pki, connect(tls_peers(Own), "{ verify = false }") + TALK)
    assert gate.get("/").text == '"hello"'


def test_who_speaks_no_tls(moongate, pki, peers):
    def serve(sock, _):
        sock.sendall(b"+PONG\r\n")
        sock.recv(1000)
    gate = gate_of(moongate, pki, connect(peers(serve)) + TALK)
    assert "tls: wrong version number" in gate.get("/").text or "tls: packet length too long" in gate.get("/").text


def test_who_goes_away_in_the_handshake(moongate, pki, peers):
    gate = gate_of(moongate, pki, connect(peers(lambda sock, _: sock.recv(10))) + TALK)
    assert gate.get("/").text.startswith('"tls: ')


def test_who_says_nothing(moongate, pki, peers):
    peer = peers()
    gate = gate_of(moongate, pki, connect(peer, more="connect_timeout = 0.2") + TALK)
    assert gate.get("/").text == '"timeout"'
    assert eventually(lambda: peer.taken)[0].recv(10)[:1] == b"\x16"
    with contextlib.suppress(ConnectionResetError):  # nothing stays behind
        while peer.taken[0].recv(1000):
            pass
    assert gate.stats()["script_sockets_active"] == 0


def test_a_client_that_goes_in_the_handshake(moongate, pki, peers):
    peer = peers()
    gate = gate_of(moongate, pki, connect(peer) + TALK)
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: peer.taken)
        peer.taken[0].recv(10)
    eventually(lambda: gate.stats()["script_sockets_active"] == 0)
    peer.taken[0].settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        while peer.taken[0].recv(1000):
            pass


# ---- authorities of its own --------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["file", "text"])
def test_authorities_of_its_own(moongate, pki, site, tls_peers, tmp_path, how):
    (tmp_path / "else").mkdir()
    other = Authority(tmp_path / "else", "else")
    made = 'gate.tcp.authorities_file("own.pem")' if how == "file" else \
        f"gate.tcp.authorities([[{pki.path.read_text()}]])"
    peer, own = tls_peers(site), {"own.pem": pki.path.read_text()}
    for tls, text in (("{ ca = own }", '"hello"'), ("true", f'"{REFUSED} unable to get local issuer certificate"')):
        lua = TOP + f"local own = {made}\n" + answers(connect(peer, tls) + TALK) + "\nreturn hooks\n"
        gate = moongate(f"fetch_ca {other.path};", "script a.lua;", {"a.lua": lua, **own})
        assert gate.get("/").text == text


def test_a_public_key_of_a_file(moongate):
    """Read when the script loads, in the worker too."""
    key = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    public = openssl("pkey", "-pubout", input=key)
    gate = make(moongate, 'local key = gate.public_key_file("key.pem")\n' + answers('return key:verify("sha256", "a", "b")'),
                start=False)
    gate.write("key.pem", public)
    gate.start()
    assert gate.get("/").text == "false"


@pytest.mark.parametrize("call, message", [
    ("gate.tcp.authorities('nothing')", "no certificate in \"what was given\", expected some in PEM form"),
    ("gate.tcp.authorities_file('/nowhere')", "No such file"),
    ("gate.tcp.authorities(5)", "expected PEM as a string"),
])
def test_bad_authorities(moongate, call, message):
    gate = moongate(start=False, files={"a.lua": TOP + f"local a = {call}\nreturn hooks\n"})
    gate.configure("", "script a.lua;")
    done = gate.run("-t")
    assert done.returncode == 1 and message in done.stderr, done.stderr


# ---- what goes through -------------------------------------------------------------------------------------------

def test_much_both_ways(moongate, pki, site, tls_peers):
    gate = gate_of(moongate, pki, connect(tls_peers(site)) + """
        local data = ("0123456789abcdef"):rep(2^18)
        local task = gate.spawn(function() return sock:send(data) end)
        local got = assert(sock:receive(#data))
        return got == data, task:wait()""")
    assert gate.get("/").text == f"true true {16 << 18}"


def test_half_close(moongate, pki, site, tls_peers):
    def serve(sock, _):
        got = b""
        while chunk := sock.recv(1000):
            got += chunk
        sock.sendall(got[::-1])
    gate = gate_of(moongate, pki, connect(tls_peers(site, serve)) + """
        assert(sock:send("abc") and sock:shutdown())
        return sock:receive_all()""")
    assert gate.get("/").text == '"cba"'


def test_an_end_without_tls_is_a_reset(moongate, pki, site, tls_peers):
    """Else whoever cuts the wire could make a part look like the whole."""
    def cut(sock, _):
        sock.sendall(b"part")
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    gate = gate_of(moongate, pki, connect(tls_peers(site, cut)) + "return sock:receive_all()")
    assert gate.get("/").text == 'nil "reset"'
    gate = gate_of(moongate, pki, connect(tls_peers(site, lambda sock, _: sock.sendall(b"whole"))) + "return sock:receive_all()")
    assert gate.get("/").text == '"whole"'


def test_the_pool(moongate, pki, site, tls_peers, peers):
    """Given back and taken again by who asks for the same TLS alone."""
    peer = tls_peers(site)
    gate = gate_of(moongate, pki, f"""
        local function go(tls)
          local sock = assert(gate.tcp.connect("{peer.address}", {{ tls = tls, timeout = 5 }}))
          assert(sock:send("x") and sock:receive(1))
          local reused = sock.reused
          assert(sock:keepalive())
          return reused
        end
        local a, b = go(true), go(true)
        local c, d = go({{ name = "site.test" }}), go({{ name = "site.test" }})
        local e = go({{ verify = false }})
        return a, b, c, d, e, go(true)""")
    assert gate.get("/").text == "0 1 0 1 0 2"
    assert peer.connections == 3


def test_a_session_is_resumed_for_the_same_name_alone(moongate, pki, site, tls_peers):
    peer = tls_peers(site)
    gate = gate_of(moongate, pki, f"""
        local function go(name)
          local sock, why = gate.tcp.connect("{peer.address}", {{ tls = {{ name = name }}, timeout = 5 }})
          if not sock then return why:match("is not for") end
          assert(sock:send("x") and sock:receive(1))
          sock:close()
        end
        return go("site.test"), go("site.test"), go("evil.test")""")
    assert gate.get("/").text == 'nil nil "is not for"'
    assert peer.resumed == [False, True]


def test_made_up_peers_of_tests_need_no_certificate(moongate):
    gate = moongate(start=False, files={
        "a.lua": TOP + answers('local sock = assert(gate.tcp.connect("192.0.2.1:1", { tls = { name = "x.test" } })) '
                               'assert(sock:send("ping\\n")) return sock:receive_line()') + "\nreturn hooks\n",
        "a_test.lua": """
            local test = require "moongate.test"
            test("over TLS", function()
              test.peer("192.0.2.1:1", { expect = "ping\\n", send = "pong\\n" })
              test.equal(test.script("a.lua"):get("/").body, '"pong"')
            end)"""})
    gate.configure("", "script a.lua;")
    done = gate.run("--test", gate.folder / "a_test.lua")
    assert done.returncode == 0, done.stdout + done.stderr

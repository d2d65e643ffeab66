# SPDX-License-Identifier: BSD-2-Clause
"""The hooks of a TLS handshake, tls_hello and tls_done: what they are told, their verdicts, with and without a wait."""
import contextlib
import re
import socket
import ssl
import time
import threading

import pytest

from conftest import eventually, read_all
from namespace import namespace  # noqa: F401: a fixture
from nameserver import nameserver  # noqa: F401 (a fixture)
from test_tls import ask, ca, context, dial, s_client, secure, site  # noqa: F401 (fixtures)

WAITS = pytest.mark.parametrize("wait", ["", "gate.sleep(0.02)"], ids=["at-once", "waits"])


def script(body, hook="tls_hello"):
    return f"local gate = require 'moongate'\nlocal hooks = {{}}\nfunction hooks.{hook}(conn)\n{body}\nend\nreturn hooks\n"


@pytest.fixture
def hooked(secure):
    """hooked(body, hook=...) -> a Gate with that hook"""
    def make(body, hook="tls_hello", tls="", frontend="", **how):
        return secure(tls, files={"hook.lua": script(body, hook)}, frontend="script hook.lua; " + frontend, **how)
    return make


@WAITS
def test_what_a_hello_says(hooked, ca, wait):
    gate = hooked(f"""{wait}
        local tls = conn.tls
        gate.log.warn("hello", tls.server_name, table.concat(tls.offered_alpn, "+"),
                      table.concat(tls.offered_versions, "+"), tls.fingerprint, tls.version, tls.client)""")
    with dial(gate, ca, alpn=["foo", "http/1.1"]) as s:
        assert ask(s)[1] == b"ok"
    found = gate.wait_log(r"hello site.test foo\+http/1.1 TLSv1.3\+TLSv1.2\S* (\S+) nil nil")
    assert re.fullmatch(r"t13d[0-9]{4}fo_[0-9a-f]{12}_[0-9a-f]{12}", found.group(1))
    assert gate.stats()["script_errors"] == 0


def test_a_fingerprint_is_that_of_a_make_of_client(hooked, ca):
    gate = hooked("gate.log.warn('print', conn.tls.fingerprint)", frontend="access_log %FOLDER%/access.log f;",
                  top="log_format f '$tls_fingerprint';")
    for name in ("site.test", "any.wild.test"):
        with dial(gate, ca, name) as s:
            ask(s)
    s_client(gate, "-servername", "site.test", "-tls1_2")

    def prints():
        found = re.findall(r"print (\S+)", gate.log())
        return len(found) == 3 and found
    first, second, other = eventually(prints)
    assert first == second and other != first and other.startswith("t12d")
    gate.wait_log(f"^{first}$", path=gate.folder / "access.log")


@WAITS
def test_reject(hooked, ca, wait):
    gate = hooked(f"{wait} if conn.tls.server_name == 'any.wild.test' then return conn:reject() end")
    with pytest.raises((ssl.SSLError, ConnectionError), match="(?i)access denied|reset"):
        dial(gate, ca, "any.wild.test")
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"
    stats = gate.stats()
    assert stats["connections_rejected"] == 1 and stats["tls_handshake_errors"] == 0
    eventually(lambda: gate.stats()["connections_active"] == 0)


@WAITS
def test_a_certificate_by_name(hooked, ca, wait):
    other = ca.issue("chosen", "chosen.test")
    gate = hooked(f"{wait} return conn:certificate('chosen.test')", tls=other.lines)
    assert "CN = chosen.test" in s_client(gate, "-servername", "site.test")
    assert "CN = chosen.test" in s_client(gate, "-noservername")


def test_no_such_certificate(hooked, ca):
    gate = hooked("local verdict = conn:certificate('nobody.test') return verdict")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(gate, ca)
    gate.wait_log('hook.lua:4: the listener has no certificate of "nobody.test"')


@pytest.fixture
def elsewhere(ca, tmp_path_factory):
    """A TLS server that moongate knows nothing of; says what it got in capitals."""
    certificate = ca.issue("elsewhere", "site.test", "elsewhere.test")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.pem, certificate.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with contextlib.suppress(OSError), server.wrap_socket(raw, server_side=True) as s:
                    while data := s.recv(65536):
                        s.sendall(data.upper())
    threading.Thread(target=serve, daemon=True).start()
    yield "127.0.0.1:%d" % listener.getsockname()[1]
    listener.close()


@WAITS
def test_tunnel(hooked, ca, elsewhere, wait):
    gate = hooked(f"{wait} if conn.tls.server_name == 'elsewhere.test' then return conn:tunnel('{elsewhere}') end")
    with dial(gate, ca, "elsewhere.test") as s:
        assert ("DNS", "elsewhere.test") in s.getpeercert()["subjectAltName"]
        for text in (b"hello", b"x" * 100000):
            s.sendall(text)
            got = b""
            while len(got) < len(text):
                got += s.recv(65536)
            assert got == text.upper()
        assert gate.stats()["tunnels_active"] == 1
        gate.reload()
        s.sendall(b"again")
        assert s.recv(100) == b"AGAIN"
    eventually(lambda: gate.stats()["tunnels_active"] == 0)
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"


def tunnelled(gate, ca):
    with dial(gate, ca, "elsewhere.test") as s:
        assert ("DNS", "elsewhere.test") in s.getpeercert()["subjectAltName"]
        s.sendall(b"hello")
        assert s.recv(100) == b"HELLO"


@WAITS
def test_a_tunnel_to_a_name(hooked, ca, elsewhere, nameserver, wait):  # noqa: F811
    port = elsewhere.partition(":")[2]
    names = nameserver(relay=True, **{"elsewhere.test": "127.0.0.8 127.0.0.9 127.0.0.1", "other.test": "127.0.0.1"})
    gate = hooked(f"{wait} return conn:tunnel(conn.tls.server_name .. ':{port}')", top=names.directive,
                  frontend="route_allow 127.0.0.0/8;")
    tunnelled(gate, ca)
    tunnelled(gate, ca)  # now the answer is known at once
    assert names.asked("elsewhere.test") == 1
    eventually(lambda: gate.stats()["connections_active"] == 0)
    # A client that goes while the name is being asked for.
    names.delay = 0.3
    with gate.connect() as s:
        out = ssl.MemoryBIO()
        hello = context(ca).wrap_bio(ssl.MemoryBIO(), out, server_hostname="other.test")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        s.sendall(out.read())
        eventually(lambda: names.asked("other.test"))
    eventually(lambda: gate.stats()["connections_active"] == 0)
    tunnelled(gate, ca)


@WAITS
def test_a_tunnel_to_a_name_that_a_script_resolves(hooked, ca, elsewhere, nameserver, wait):  # noqa: F811
    port = elsewhere.partition(":")[2]
    code = f"{wait} return conn:tunnel(conn.tls.server_name .. ':{port}')\nend\nfunction hooks.resolve(name)\n" \
           f"{wait} if name == 'elsewhere.test' then return {{ '127.0.0.8', '127.0.0.1' }} end return false, 'no'"
    gate = hooked(code, top=nameserver().directive, frontend="route_allow 127.0.0.0/8;")
    tunnelled(gate, ca)
    with pytest.raises((ssl.SSLError, OSError)):
        dial(gate, ca, "www.test")
    gate.wait_log(r'a script\'s tunnel to "www.test:\d+" failed: a script refuses it')
    eventually(lambda: gate.stats()["connections_active"] == 0)


@WAITS
def test_a_tunnel_to_a_name_of_which_an_address_never_answers(namespace, hooked, ca, elsewhere,  # noqa: F811
                                                              nameserver, wait):  # noqa: F811
    names = nameserver(**{"elsewhere.test": f"{namespace.silent[0]} {namespace.silent[1]} 127.0.0.1"})
    gate = hooked(f"{wait} return conn:tunnel('elsewhere.test:{elsewhere.partition(':')[2]}')", top=names.directive,
                  frontend="route_allow any;")
    begin = time.monotonic()
    tunnelled(gate, ca)
    assert 0.2 < time.monotonic() - begin < 2
    eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.parametrize("allow, name, why", [
    ("public", "elsewhere.test", "route_allow lets none of its addresses in"),
    ("127.0.0.0/8", "nobody.test", "no such name")])
def test_a_tunnel_to_a_name_that_leads_nowhere(hooked, ca, elsewhere, nameserver, allow, name, why):  # noqa: F811
    port = elsewhere.partition(":")[2]
    gate = hooked(f"return conn:tunnel('{name}:{port}')", top=nameserver(**{"elsewhere.test": "127.0.0.1"}).directive,
                  frontend=f"route_allow {allow};")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(gate, ca)
    gate.wait_log(f'tunnel to "{name}:{port}" failed: {why}')
    eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.long
def test_a_tunnel_to_a_name_that_nobody_answers_for(hooked, ca, nameserver):  # noqa: F811
    names = nameserver(relay=True)
    names.delay = 30
    gate = hooked("return conn:tunnel('slow.test:1')", top=names.directive + "resolver_timeout 20s;")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context(ca).wrap_socket(gate.connect(15), server_hostname="site.test")
    gate.wait_log('tunnel to "slow.test:1" failed: no answer in connect_timeout', 10)


def test_a_tunnel_to_nobody(hooked, ca):
    gate = hooked("return conn:tunnel('127.0.0.1:1')")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(gate, ca)
    gate.wait_log('tunnel to "127.0.0.1:1" failed: Connection refused')
    eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.parametrize("bad", ["nowhere", "a.test:0", "127.0.0.1", "*:80", "a b.test:80", ""])
def test_a_tunnel_that_is_no_address(hooked, ca, bad):
    gate = hooked("local verdict = conn:tunnel('BAD') return verdict".replace("BAD", bad))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(gate, ca)
    gate.wait_log("hook.lua:4: ")
    assert gate.stats()["script_errors"] == 1


@pytest.mark.parametrize("hook", ["tls_hello", "tls_done"])
def test_an_error_closes(hooked, ca, hook):
    gate = hooked("error('broken')", hook)
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        with dial(gate, ca) as s:
            ask(s)
    gate.wait_log(f'script "hook.lua", {hook} hook, connection 1 from 127.0.0.1: hook.lua:4: broken')
    eventually(lambda: gate.stats()["connections_active"] == 0)


@pytest.mark.parametrize("hook", ["tls_hello", "tls_done"])
def test_an_error_passes_when_it_may(hooked, ca, hook):
    gate = hooked("error('broken')", hook, frontend="on_script_error pass;")
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"


@WAITS
def test_done(hooked, ca, wait):
    gate = hooked(f"{wait} gate.log.warn('done', conn.tls.version, conn.tls.alpn, conn.tls.resumed) "
                  "conn.ctx.seen = true", "tls_done")
    with dial(gate, ca, alpn=["http/1.1"]) as s:
        assert ask(s)[1] == b"ok"
        assert ask(s)[1] == b"ok"
    gate.wait_log("done TLSv1.3 http/1.1 false")


@WAITS
def test_done_may_reject(hooked, ca, wait):
    gate = hooked(f"{wait} return conn:reject()", "tls_done")
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        with dial(gate, ca) as s:
            ask(s)
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert gate.stats()["connections_rejected"] == 1


def test_a_request_that_comes_while_done_waits(hooked, ca, origin):
    """It is not lost, and not read before the hook has agreed."""
    gate = hooked("gate.sleep(0.3)", "tls_done")
    with dial(gate, ca) as s:
        assert ask(s, method="POST", head="Content-Length: 300000\r\n", body=b"x" * 300000)[1] == b"ok"
    assert len(origin.requests[0].body) == 300000


def test_a_request_in_the_segment_that_ends_the_handshake(hooked, ca):
    gate = hooked("gate.sleep(0.1) conn.ctx.done = true", "tls_done")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(ca).wrap_bio(incoming, outgoing, server_hostname="site.test")
    with gate.connect() as s:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                s.sendall(outgoing.read())
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


@pytest.mark.parametrize("hook", ["tls_hello", "tls_done"])
def test_a_client_that_leaves_while_a_hook_waits(hooked, ca, hook):
    gate = hooked("gate.sleep(30)", hook, top="tls_handshake_timeout 700ms;")
    s = gate.connect()
    tls = context(ca).wrap_socket(s, server_hostname="site.test", do_handshake_on_connect=False)
    tls.settimeout(0.2)
    with contextlib.suppress(OSError):
        tls.do_handshake()
    tls.close()
    eventually(lambda: gate.stats()["connections_active"] == 0)
    with gate.connect():
        pass
    eventually(lambda: gate.stats()["tls_handshakes_active"] == 0)


@pytest.mark.parametrize("hook", ["tls_hello", "tls_done"])
def test_a_reload_while_a_hook_waits(hooked, ca, hook):
    gate = hooked("gate.log.warn('begun') gate.sleep(0.4)", hook)
    done = []
    thread = threading.Thread(target=lambda: done.append(ask(dial(gate, ca))[1]))
    thread.start()
    gate.wait_log("begun")
    gate.reload()
    thread.join(5)
    assert done == [b"ok"]


def test_other_hooks_may_not(secure, ca):
    gate = secure(files={"hook.lua": "local hooks = {}\nfunction hooks.connect(conn)\nassert(conn.tls == nil)\nend\n"
                         "function hooks.request(req)\nreturn req.conn:certificate('site.test')\nend\nreturn hooks\n"},
                  frontend="script hook.lua;")
    with dial(gate, ca) as s:
        assert ask(s)[0].startswith(b"HTTP/1.1 500")
    gate.wait_log(r"certificate\(\) is for the tls_hello hook alone")


def test_conn_tls_is_nil_without_tls(moongate, origin):
    gate = moongate("upstream app { server %s; }" % origin.address, "script hook.lua; route / app;",
                    files={"hook.lua": "local hooks = {}\nfunction hooks.request(req)\n"
                           "return req:respond(200, {}, tostring(req.conn.tls))\nend\nreturn hooks\n"})
    assert gate.get("/").body == b"nil"

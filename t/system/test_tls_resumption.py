# SPDX-License-Identifier: BSD-2-Clause
"""Resumed TLS sessions: with any worker, after reloads and deaths, by the keys of the master or of a file; and
when they must not be."""
import os
import re
import socket
import ssl
import struct

import pytest

from conftest import alive, eventually, free_port
from test_tls import ask, ca, context, dial, s_client, secure, site  # noqa: F401 (fixtures)

BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
LOGGED = {"top": "log_format r '$worker $tls_resumed';", "frontend": "access_log %FOLDER%/access.log r;"}


class Resumer:
    """A client that keeps the session of its last connection."""

    def __init__(self, ca, version=ssl.TLSVersion.TLSv1_3):
        self.context = context(ca, most=version)
        self.session = None

    def go(self, gate, name="site.test"):
        """One connection with one request; whether the session was resumed."""
        with dial(gate, None, name, self.session, context=self.context) as s:
            assert ask(s)[1] == b"ok"
            self.session = s.session
            return s.session_reused


def lines(gate):
    path = gate.folder / "access.log"
    return path.read_text().split("\n")[:-1] if path.exists() else []


@BOTH
def test_any_worker_resumes(secure, ca, version):
    gate = secure(workers=3, **LOGGED)
    client = Resumer(ca, version)
    assert client.go(gate) is False
    for _ in range(30):
        assert client.go(gate) is True
    seen = eventually(lambda: len(lines(gate)) >= 31 and lines(gate))
    assert {line.split()[0] for line in seen if line.endswith("yes")} == {"0", "1", "2"}
    stats = gate.stats()
    assert stats["tls_handshakes"] == 31 and stats["tls_resumed"] == 30


def test_each_resumed_connection_gets_a_ticket_of_its_own(secure, ca):
    """TLS 1.3: a ticket that is used once does not tell observers that two connections have the same client."""
    gate = secure()
    client, seen = Resumer(ca), set()
    for _ in range(4):
        client.go(gate)
        seen.add(client.session.id)
    assert len(seen) == 4


@BOTH
def test_after_a_reload(secure, ca, version):
    gate = secure(workers=2)
    client = Resumer(ca, version)
    client.go(gate)
    for _ in range(3):
        gate.reload()
        assert client.go(gate) is True


def test_after_a_new_certificate(secure, ca):
    swapped = ca.issue("resumed", "site.test")
    gate = secure(lines=swapped.lines)
    client = Resumer(ca)
    client.go(gate)
    ca.issue("resumed", "site.test")
    gate.reload()
    assert client.go(gate) is True


def test_after_a_workers_death(secure, ca):
    gate = secure()
    client = Resumer(ca)
    client.go(gate)
    pid = gate.workers()[0]
    os.kill(pid, 9)
    eventually(lambda: not alive(pid))
    gate.wait_serving()
    assert client.go(gate) is True


def test_keys_rotate(secure, ca):
    """A ticket of a key that has gone is of no use, and does no harm."""
    gate = secure(top="ticket_rotation 1s;")
    client = Resumer(ca)
    client.go(gate)
    assert client.go(gate) is True
    old = client.session

    def over():
        client.session = old
        return client.go(gate) is False
    eventually(over, seconds=15, every=0.3)


def test_a_reload_changes_how_often_keys_rotate(secure, ca):
    gate = secure(top="ticket_rotation 1h;")
    client = Resumer(ca)
    client.go(gate)
    old = client.session
    gate.write("moongate.conf", gate.config.read_text().replace("rotation 1h", "rotation 1s"))
    gate.reload()

    def over():
        client.session = old
        return client.go(gate) is False
    eventually(over, seconds=15, every=0.3)


@BOTH
def test_keys_of_a_file_are_those_of_several_machines(moongate, secure, ca, tmp_path, version):
    (tmp_path / "one").write_bytes(os.urandom(80))
    (tmp_path / "two").write_bytes(os.urandom(80))
    first = secure(f"ticket_key {tmp_path}/one;")
    second = secure(f"ticket_key {tmp_path}/two; ticket_key {tmp_path}/one;")
    third = secure(f"ticket_key {tmp_path}/two;")
    client = Resumer(ca, version)
    client.go(first)
    assert client.go(second) is True, "an old key decrypts"
    assert client.go(third) is True, "and the ticket was renewed with the new one"
    assert client.go(first) is False


def test_other_machines_do_not_resume(secure, ca):
    client = Resumer(ca)
    client.go(secure())
    assert client.go(secure()) is False


def test_bad_ticket_keys(moongate, secure, site, tmp_path):
    (tmp_path / "short").write_bytes(os.urandom(48))
    gate = moongate("upstream app { server 127.0.0.1:1; }", "route / app;", start=False,
                    listen=f"%ADDRESS% tls {{ {site.lines} ticket_key {tmp_path}/short; }}")
    done = gate.run("-t")
    assert done.returncode == 1 and re.search(r":\d+:\d+: .*has 48 bytes, expected 80", done.stderr)


@BOTH
def test_without_tickets(secure, ca, version):
    gate = secure("session_tickets off;", top="session_cache 0;")
    client = Resumer(ca, version)
    client.go(gate)
    assert client.go(gate) is False


# ---- by session ids: TLS 1.2 without tickets ------------------------------------------------------------------

class IdResumer(Resumer):
    def __init__(self, ca):
        super().__init__(ca, ssl.TLSVersion.TLSv1_2)
        self.context.options |= ssl.OP_NO_TICKET


def test_openssl_reconnects_by_id(secure):
    gate = secure(workers=3, **LOGGED)
    out = s_client(gate, "-tls1_2", "-no_ticket", "-reconnect")
    assert out.count("\nNew, TLSv1.2") == 1 and out.count("\nReused, TLSv1.2") == 5
    assert gate.stats()["tls_sessions_kept"] == 1


@pytest.mark.parametrize("tickets", ["on", "off"])
def test_any_worker_resumes_by_id(secure, ca, tickets):
    gate = secure(f"session_tickets {tickets};", workers=3, **LOGGED)
    client = IdResumer(ca)
    assert client.go(gate) is False
    for _ in range(30):
        assert client.go(gate) is True
    seen = eventually(lambda: len(lines(gate)) >= 31 and lines(gate))
    assert {line.split()[0] for line in seen if line.endswith("yes")} == {"0", "1", "2"}
    assert gate.stats()["tls_sessions_kept"] == 1


def test_by_id_after_reloads_and_deaths(secure, ca):
    gate = secure(workers=2)
    client = IdResumer(ca)
    client.go(gate)
    gate.reload()
    assert client.go(gate) is True
    for pid in gate.workers():
        os.kill(pid, 9)
        eventually(lambda pid=pid: not alive(pid))
    gate.wait_serving()
    assert client.go(gate) is True


def test_by_id_when_the_connection_ended_hard(secure, ca):
    """Without close_notify: many clients end so, and come back with their session."""
    gate = secure()
    client = IdResumer(ca)
    with dial(gate, None, context=client.context) as s:
        assert ask(s)[1] == b"ok"
        client.session = s.session
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: gate.stats()["connections_active"] == 0)
    assert client.go(gate) is True


def test_a_session_id_belongs_to_its_frontend_and_its_time(secure, ca, site):
    port = free_port()
    gate = secure("session_timeout 2s;",
                  top=f"frontend other {{ listen 127.0.0.1:{port} tls {{ {site.lines} }} route / app; }}")
    client = IdResumer(ca)
    client.go(gate)
    old, first = client.session, gate.port
    gate.port = port
    assert client.go(gate) is False
    gate.port = first

    def over():
        client.session = old
        return client.go(gate) is False
    eventually(over, seconds=10, every=0.3)


def test_a_full_cache_drops_old_sessions_and_goes_on(secure, ca):
    gate = secure(top="session_cache 64k;")
    first = IdResumer(ca)
    first.go(gate)
    for _ in range(400):
        with dial(gate, None, context=first.context):
            pass
    last = IdResumer(ca)
    last.go(gate)
    assert last.go(gate) is True
    assert first.go(gate) is False
    assert gate.stats()["tls_sessions_kept"] >= 400


def test_clients_with_tickets_take_no_room_in_the_cache(secure, ca):
    gate = secure()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = Resumer(ca, version)
        client.go(gate)
        assert client.go(gate) is True
    assert gate.stats()["tls_sessions_kept"] == 0


def test_without_a_cache_nothing_is_resumed_by_id(secure, ca):
    gate = secure(top="session_cache 0;")
    client = IdResumer(ca)
    client.go(gate)
    assert client.go(gate) is False


def test_a_verified_client_resumes_by_id(secure, ca):
    """And its certificate is known from the session."""
    peer = ca.issue("peer", "peer.test")
    gate = secure(f"verify_client required; client_ca {ca.path};", top="log_format c '$tls_resumed $tls_client_subject';",
                  frontend="access_log %FOLDER%/access.log c;")
    client = IdResumer(ca)
    client.context.load_cert_chain(peer.pem, peer.key)
    client.go(gate)
    assert client.go(gate) is True
    assert eventually(lambda: len(lines(gate)) == 2 and lines(gate)) == ["no CN=peer.test", "yes CN=peer.test"]


def test_a_session_id_of_before_a_change_of_who_is_let_in_is_of_no_use(secure, ca):
    gate = secure()
    client = IdResumer(ca)
    client.go(gate)
    gate.write("moongate.conf", gate.config.read_text().replace("tls {", f"tls {{ verify_client optional; "
                                                                f"client_ca {ca.path};"))
    gate.reload()
    assert client.go(gate) is False


def test_the_size_of_the_cache_changes_with_a_restart_only(secure):
    gate = secure(top="session_cache 1m;")
    gate.write("moongate.conf", gate.config.read_text().replace("session_cache 1m", "session_cache 2m"))
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and "session_cache" in done.stderr


def test_an_old_session_is_not_resumed(secure, ca):
    gate = secure("session_timeout 1s;")
    client = Resumer(ca)
    client.go(gate)
    old = client.session

    def over():
        client.session = old
        return client.go(gate) is False
    eventually(over, seconds=10, every=0.3)


def test_a_session_belongs_to_its_frontend(secure, ca, origin, site, moongate):
    port = free_port()
    gate = secure(top=f"frontend other {{ listen 127.0.0.1:{port} tls {{ {site.lines} }} route / app; }}")
    client = Resumer(ca)
    client.go(gate)
    gate.port = port
    assert client.go(gate) is False
    assert client.go(gate) is True

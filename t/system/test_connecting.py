# SPDX-License-Identifier: BSD-2-Clause
"""How connections to servers are made: our own address and interface, what is asked of the kernel."""
import contextlib
import shutil
import subprocess

import pytest

from conftest import Origin, eventually


class Seen(Origin):
    """peers: where each connection comes from."""

    def __init__(self):
        self.peers = []
        super().__init__()

    def serve(self, client, number):
        with contextlib.suppress(OSError):
            self.peers.append(client.getpeername()[0])
            super().serve(client, number)


@pytest.fixture
def seen():
    origin = Seen()
    yield origin
    origin.close()


def to(moongate, origin, more):
    return moongate(f"upstream app {{ server {origin.address}; {more} }}", "route / app;")


@pytest.mark.parametrize("words", ["127.0.0.5", "127.0.0.5 ::1", "127.0.0.5 lo"])
def test_connections_come_from_the_address(moongate, seen, words):
    assert to(moongate, seen, f"from {words};").get("/").text == "ok"
    assert seen.peers == ["127.0.0.5"]


def test_one_port_serves_connections_to_several_servers(moongate, origins):
    """Else each address of ours would have no more connections than ports, all servers together."""
    servers = [origins() for _ in range(3)]
    lines = " ".join(f"server {server.address};" for server in servers)
    gate = moongate(f"upstream app {{ {lines} from 127.0.0.5; }}", "route / app;")
    for _ in range(6):
        assert gate.get("/").text == "ok"
    assert [server.connections for server in servers] == [1, 1, 1]


def test_the_other_family_is_connected_to_as_usual(moongate, seen):
    assert to(moongate, seen, "from ::1;").get("/").text == "ok"
    assert seen.peers == ["127.0.0.1"]


def test_an_interface_holds_for_all_of_them(moongate, seen):
    assert to(moongate, seen, "from lo;").get("/").text == "ok"
    gate = to(moongate, seen, "from none-such; retry off;")
    assert gate.get("/").status == 502
    gate.wait_log("connecting to .* failed: No such device")
    assert len(seen.peers) == 1


def test_an_address_that_is_not_ours_is_told(moongate, seen):
    gate = to(moongate, seen, "from 192.0.2.7; retry off;")
    assert gate.get("/").status == 502
    gate.wait_log("connecting to .* failed: Cannot assign requested address")


def test_unix_sockets_are_not_concerned(moongate, origins, tmp_path):
    gate = moongate("upstream app { server unix:%FOLDER%/o; from 127.0.0.5; fast_open on; tcp_keepalive on; "
                    "tcp_user_timeout 5s; }", "route / app;", start=False)
    origins(gate.folder / "o")
    assert gate.start().get("/").text == "ok"


def test_fast_open_answers(moongate, seen):
    gate = to(moongate, seen, "fast_open on; keepalive 0;")
    for _ in range(3):
        assert gate.get("/", method="POST", body=b"x" * 9000).text == "ok"


@pytest.mark.skipif(not shutil.which("ss"), reason="no ss (Debian: iproute2)")
def test_idle_connections_are_asked(moongate, seen):
    gate = to(moongate, seen, "tcp_keepalive idle=77s interval=10s count=3;")
    gate.get("/")

    def timer():
        shown = subprocess.run(["ss", "-tno", "dst", seen.address], capture_output=True, text=True, timeout=10).stdout
        return "timer:(keepalive,1min" in shown
    eventually(timer)

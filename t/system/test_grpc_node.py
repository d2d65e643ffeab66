# SPDX-License-Identifier: BSD-2-Clause
"""gRPC as it is in use: client and server are @grpc/grpc-js (grpc_peer.js), HTTP/2 with and without TLS on either side
of moongate. Debian has no package of it: npm install @grpc/grpc-js somewhere, NODE_PATH=SOMEWHERE/node_modules."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pki import Authority

PEER = Path(__file__).with_name("grpc_peer.js")
NODE = shutil.which("node")
KINDS = re.findall(r"^    async (\w+)\(", PEER.read_text(), re.M)


def is_there():
    return NODE and subprocess.run([NODE, "-e", "require('@grpc/grpc-js')"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not is_there(), reason="no @grpc/grpc-js: npm install it, NODE_PATH=.../node_modules")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    folder.chmod(0o755)
    return Authority(folder)


@pytest.fixture(scope="module")
def site(ca):
    return ca.issue("site", "localhost", "127.0.0.1")


@pytest.fixture
def serve():
    """serve(certificate=None) -> the port of a server"""
    started = []

    def start(certificate=None):
        files = [certificate.pem, certificate.key] if certificate else []
        server = subprocess.Popen([NODE, PEER, "serve", *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(server)
        return int(server.stdout.readline())

    yield start
    for server in started:
        server.stdin.close()
        assert server.wait(10) == 0
        server.stdout.close()


def call(gate, ca=None):
    """What the client says of each kind of call."""
    done = subprocess.run([NODE, PEER, "call", f"127.0.0.1:{gate.port}", *([ca.path] if ca else [])],
                          capture_output=True, text=True, timeout=180)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("back", ["h2c", "h2 over TLS"])
@pytest.mark.parametrize("front", ["h2c", "h2 over TLS"])
def test_all_kinds_of_calls(moongate, ca, site, serve, front, back):
    port = serve(site if "TLS" in back else None)
    tls = f"tls {{ ca {ca.path}; }}" if "TLS" in back else ""
    gate = moongate(f"upstream app {{ server 127.0.0.1:{port}; protocol h2; {tls} }}", "route / app;", level="info",
                    listen="%ADDRESS%" + (f" tls {{ {site.lines} }}" if "TLS" in front else ""))
    said, errors = call(gate, ca if "TLS" in front else None)
    assert said == [f"ok {kind}" for kind in KINDS] and len(KINDS) >= 14, (said, errors)
    stats = gate.stats()
    assert stats["requests_active"] == 0 and stats["responses_5xx"] == 0


def test_a_server_that_is_not_there_is_unavailable(moongate):
    gate = moongate("upstream app { server 127.0.0.1:1; protocol h2; }", "route / app;")
    said, _ = call(gate)
    assert said[0].startswith("not ok unary: ")
    done = subprocess.run([NODE, "-e", """
        const grpc = require('@grpc/grpc-js'), same = (x) => x;
        new grpc.Client(process.argv[1], grpc.credentials.createInsecure()).makeUnaryRequest('/t.Echo/Unary', same, same,
            Buffer.from('x'), (error) => { console.log(error.code === grpc.status.UNAVAILABLE); process.exit(0); });
        """, gate.address], capture_output=True, text=True, timeout=30)
    assert done.stdout == "true\n", done.stdout + done.stderr

# SPDX-License-Identifier: BSD-2-Clause
"""HTTP/2 over TLS, chosen by ALPN."""
import contextlib
import os
import re
import shutil
import ssl
import subprocess

import pytest

import h2_peer
from h2_peer import H2
from test_tls import ca, context, curl, dial, secure, site  # noqa: F401


def peer_of(gate, ca, **how):  # noqa: F811
    s = dial(gate, ca, alpn=["h2", "http/1.1"], **how)
    assert s.selected_alpn_protocol() == "h2"
    return H2(gate, sock=s, scheme="https")


def test_curl_speaks_it_by_itself(secure, ca, origin):  # noqa: F811
    gate = secure(frontend="x_forwarded replace; access_log stderr;")
    assert curl(gate, ca, "-w", "%{http_version}").stdout == b"ok2"
    assert curl(gate, ca, "--http1.1", "-w", "%{http_version}").stdout == b"ok1.1"
    assert [request.header("x-forwarded-proto") for request in origin.requests] == ["https"] * 2
    gate.wait_log(r'"GET /path HTTP/2\.0" 200 2')


def test_alpn_decides(secure, ca, origin):  # noqa: F811
    gate = secure("alpn http/1.1;")
    with dial(gate, ca, alpn=["h2", "http/1.1"]) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    gate = secure("alpn h2;")
    with dial(gate, ca, alpn=["h2"]) as s:
        assert s.selected_alpn_protocol() == "h2"


def test_what_is_not_the_preface_ends_the_connection(secure, ca, origin):  # noqa: F811
    gate = secure()
    with dial(gate, ca, alpn=["h2"]) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        peer = H2(gate, greet=False, sock=s)
        assert peer.goaway() == h2_peer.PROTOCOL_ERROR


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bodies_both_ways(secure, ca, origin, version):  # noqa: F811
    gate = secure()
    body = os.urandom(2000000)
    origin.reply = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with peer_of(gate, ca, most=version) as peer:
        stream = peer.request(method="POST", body=body[:60000])
        assert peer.answer(stream).body == body
    assert origin.requests[0].body == body[:60000]


def test_connections_live_through_reloads(secure, ca, origin):  # noqa: F811
    gate = secure()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(peer_of(gate, ca)) for _ in range(20)]
        for turn in range(5):
            streams = [[peer.request(f"/{turn}") for _ in range(3)] for peer in peers]
            gate.reload()
            for peer, asked in zip(peers, streams):
                assert [peer.answer(stream).status for stream in asked] == [200] * 3
        assert not any(peer.goaways for peer in peers)
    assert len(origin.requests) == 5 * 20 * 3


@pytest.mark.skipif(not shutil.which("h2load"), reason="no nghttp2-client")
def test_h2load(secure, origin):  # noqa: F811
    gate = secure(frontend="keepalive_requests 0;", level="info")
    done = subprocess.run(["h2load", "-n", "2000", "-c", "4", "-m", "20", f"https://{gate.address}/x"],
                          capture_output=True, text=True, timeout=60, check=True)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    assert re.search(r"Application protocol: h2$", done.stdout, re.M)


PAGE = """
return { request = function(req)
  if req.path ~= "/" then
    return req:respond(200, { ["content-type"] = "image/svg+xml", ["cache-control"] = "no-store" },
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>')
  end
  local parts = { "<html><body><script>let ok = 0</script>" }
  for i = 1, 200 do parts[#parts + 1] = ('<img src="/o/%d.svg" onload="ok++">'):format(i) end
  parts[#parts + 1] = '<script>window.onload = () => { document.body.innerHTML = "loaded " + ok + ", by h2 " + ' ..
    'performance.getEntriesByType("resource").filter(e => e.nextHopProtocol == "h2").length }</script></body></html>'
  return req:respond(200, { ["content-type"] = "text/html" }, table.concat(parts))
end }
"""
BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")


@pytest.mark.skipif(not BROWSER, reason="no chromium-headless-shell")
def test_a_browser_loads_a_page_of_200_objects(secure, tmp_path):  # noqa: F811
    gate = secure(frontend="script page.lua;", files={"page.lua": PAGE})
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--ignore-certificate-errors",
                           "--virtual-time-budget=20000", f"--user-data-dir={tmp_path}", "--dump-dom",
                           f"https://{gate.address}/"], capture_output=True, text=True, timeout=60, check=False)
    assert "loaded 200, by h2 200" in done.stdout, done.stdout[:500] + done.stderr[-500:]
    assert gate.stats()["http2_connections"] >= 1 and gate.stats()["requests"] >= 201

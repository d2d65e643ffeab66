# SPDX-License-Identifier: BSD-2-Clause
"""What testssl.sh says of the default configuration. It takes more than a minute: run with TESTSSL=1."""
import json
import os
import shutil
import subprocess

import pytest

from test_tls import ca, tls_gate  # noqa: F401 (fixture)


@pytest.mark.alone
@pytest.mark.skipif("TESTSSL" not in os.environ or not shutil.which("testssl"),
                    reason="slow: TESTSSL=1, and Debian's testssl.sh")
def test_nothing_above_low(moongate, origin, ca, tmp_path):
    """What it says of the certificate is the authority's affair, of the headers the origin's: both are good here."""
    origin.reply = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nStrict-Transport-Security: max-age=31536000\r\n"
                    b"X-Frame-Options: DENY\r\nContent-Security-Policy: default-src 'self'\r\n"
                    b"X-Content-Type-Options: nosniff\r\n\r\nok")
    more = "crlDistributionPoints=URI:http://127.0.0.1:1/crl\n"
    lines = "".join(ca.issue(kind, "localhost", kind=kind, days=300, extensions=more).lines for kind in ("ec", "rsa"))
    gate = tls_gate(moongate, origin, lines, level="notice")
    subprocess.run(["testssl", "--warnings", "off", "--quiet", "--color", "0", "--fast", "--ip", "127.0.0.1",
                    "--jsonfile", tmp_path / "out.json", "--add-ca", ca.path, f"localhost:{gate.port}"],
                   capture_output=True, text=True, timeout=550, check=False)
    findings = json.loads((tmp_path / "out.json").read_text())
    assert len(findings) > 80
    bad = [one for one in findings if one["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert not bad, bad

# SPDX-License-Identifier: BSD-2-Clause
"""OCSP responses that are sent with certificates, and the key log."""
import re

import pytest

from pki import openssl
from test_tls import ask, ca, complaint, context, dial, s_client, secure, site  # noqa: F401 (fixtures)


def response(ca, certificate, folder, status="V", days=3):
    """What the authority says of a certificate: a DER file."""
    folder.mkdir()
    serial = openssl("x509", "-in", certificate.pem, "-noout", "-serial").split("=")[1].strip()
    when = "250101000000Z" if status == "R" else ""
    (folder / "index").write_text(f"{status}\t350101000000Z\t{when}\t{serial}\tunknown\t/CN=x\n")
    openssl("ocsp", "-issuer", ca.path, "-cert", certificate.pem, "-reqout", folder / "request")
    openssl("ocsp", "-index", folder / "index", "-rsigner", ca.path, "-rkey", ca.key, "-CA", ca.path, "-reqin",
            folder / "request", "-respout", folder / "response", "-ndays", days)
    return folder / "response"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_staple_is_sent_to_who_asks(secure, ca, site, tmp_path, version):
    gate = secure(f"staple {response(ca, site, tmp_path / 'good')};")
    out = s_client(gate, version, "-status")
    assert "OCSP Response Status: successful" in out and "Cert Status: good" in out
    assert "OCSP Response Status" not in s_client(gate, version)


def test_each_certificate_has_its_own(secure, ca, site, tmp_path):
    rsa = ca.issue("stapled", "site.test", kind="rsa")
    gate = secure(f"staple {response(ca, site, tmp_path / 'ec')}; {rsa.lines} "
                  f"staple {response(ca, rsa, tmp_path / 'rsa')};")
    first = s_client(gate, "-tls1_2", "-status")
    second = s_client(gate, "-tls1_2", "-status", "-cipher", "aRSA")

    def serial(out):
        return re.search(r"Serial Number: (\S+)", out).group(1)
    assert serial(first) != serial(second)


def test_a_reload_brings_a_new_one(secure, ca, site, tmp_path):
    path = response(ca, site, tmp_path / "old", days=3)
    gate = secure(f"staple {path};")
    before = re.search("Next Update: (.*)", s_client(gate, "-status")).group(1)
    path.write_bytes(response(ca, site, tmp_path / "new", days=30).read_bytes())
    gate.reload()
    assert re.search("Next Update: (.*)", s_client(gate, "-status")).group(1) != before


def test_an_old_one_is_not_sent(secure, ca, site, tmp_path):
    path = response(ca, site, tmp_path / "old")
    latest = max(re.findall(rb"\d{14}Z", path.read_bytes()))  # nextUpdate; nobody looks at the signature here
    path.write_bytes(path.read_bytes().replace(latest, b"20200101000000Z"))
    gate = secure(f"staple {path};")
    assert "OCSP response: no response sent" in s_client(gate, "-status")


def test_a_certificate_that_demands_a_staple(secure, ca, tmp_path):
    demanding = ca.issue("demanding", "site.test", extensions="tlsfeature=status_request\n")
    gate = secure(lines=demanding.lines)
    gate.wait_log(r"moongate.conf:\d+:\d+: the certificate in \".*demanding.pem\" demands a staple and has none")
    gate.stop()
    gate = secure(lines=f"{demanding.lines} staple {response(ca, demanding, tmp_path / 'r')};")
    assert "demands a staple" not in gate.log()


def test_bad_staples(moongate, ca, site, tmp_path):
    other = ca.issue("unstapled", "other.test")
    wrong = [(site.pem, "is no OCSP response"),
             (response(ca, other, tmp_path / "other"), "is for another certificate"),
             (response(ca, site, tmp_path / "revoked", status="R"), "does not say that the certificate is good")]
    for path, text in wrong:
        assert text in complaint(moongate, f"{site.lines} staple {path};")
    assert "without a certificate before it" in complaint(moongate, f"staple {wrong[1][0]};")


def test_the_key_log(secure, ca):
    gate = secure("key_log %FOLDER%/keys/log;", start=False)
    (gate.folder / "keys").mkdir()
    (gate.folder / "keys").chmod(0o777)
    gate.start()
    gate.wait_log("key_log is on: who reads .* can read all that is sent")
    with dial(gate, ca) as s:
        ask(s)
    text = (gate.folder / "keys" / "log").read_text()
    assert re.search(r"(?m)^SERVER_TRAFFIC_SECRET_0 [0-9a-f]{64} [0-9a-f]{64,96}$", text)
    assert (gate.folder / "keys" / "log").stat().st_mode & 0o777 == 0o600


def test_a_key_log_that_cannot_be_written(secure, ca):
    gate = secure("key_log /nowhere/keys;")
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"
    gate.wait_log('cannot write to the key log "/nowhere/keys": No such file')

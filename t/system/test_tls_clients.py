# SPDX-License-Identifier: BSD-2-Clause
"""Certificates of clients: who is let in, and what scripts and logs are told of them."""
import re
import ssl

import pytest

from pki import Authority, openssl
from test_tls import ask, ca, complaint, context, dial, secure, site  # noqa: F401 (fixtures)

SCRIPT = """
local hooks = {}
function hooks.request(req)
  local tls, said = req.conn.tls, {}
  local client = tls.client
  if client then
    said = { client.subject, client.issuer, client.serial, client.fingerprint, table.concat(client.names, ","),
             tostring(client.not_before < gate.now() and gate.now() < client.not_after) }
  end
  return req:respond(200, {}, table.concat(said, "|"))
end
return hooks
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Another authority than that of servers."""
    return Authority(tmp_path_factory.mktemp("people"), "people")


@pytest.fixture(scope="module")
def alice(people):
    return people.issue("alice", "alice.test", subject="/O=Example/CN=Alice",
                        extensions="")


def client(ca, certificate=None, version=None):
    made = context(ca, most=version)
    if certificate:
        made.load_cert_chain(certificate.pem, certificate.key)
    return made


def let_in(gate, made):
    """Whether a request is answered. With TLS 1.3 a client hears of its refusal only when it reads."""
    try:
        with dial(gate, None, context=made) as s:
            return ask(s)[1] == b"ok"
    except (ssl.SSLError, ConnectionError, AssertionError):
        return False


BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@BOTH
def test_required(secure, ca, people, alice, site, version):
    gate = secure(f"verify_client required; client_ca {people.path};")
    assert let_in(gate, client(ca, alice, version))
    assert not let_in(gate, client(ca, None, version))
    gate.wait_log("TLS handshake with 127.0.0.1: peer did not return a certificate")
    assert not let_in(gate, client(ca, site, version)), "of another authority"
    gate.wait_log("the peer's certificate is refused: (unable to get (local )?issuer|self-signed) certificate")
    expired = people.issue("expired", "old.test", days=-1)
    assert not let_in(gate, client(ca, expired, version))
    gate.wait_log("the peer's certificate is refused: certificate has expired")


def test_optional(secure, ca, people, alice, site):
    gate = secure(f"verify_client optional; client_ca {people.path};")
    assert let_in(gate, client(ca, alice))
    assert let_in(gate, client(ca))
    assert not let_in(gate, client(ca, site)), "a bad one is worse than none"


def test_off(secure, ca, alice):
    gate = secure(top="log_format c '$tls_client_subject';", frontend="access_log %FOLDER%/access.log c;")
    assert let_in(gate, client(ca, alice))
    gate.wait_log("^-$", path=gate.folder / "access.log")


def revoke(people, folder, *certificates):
    """A list of revoked certificates that names these."""
    folder.mkdir()
    (folder / "index").write_text("")
    (folder / "number").write_text("01\n")
    (folder / "conf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\ncrlnumber={folder}/number\n"
                                 "default_md=sha256\ndefault_crl_days=30\n")
    how = ["ca", "-config", folder / "conf", "-cert", people.path, "-keyfile", people.key]
    for certificate in certificates:
        openssl(*how, "-revoke", certificate.pem)
    openssl(*how, "-gencrl", "-out", folder / "crl.pem")
    return folder / "crl.pem"


def test_a_revoked_one(secure, ca, people, alice, tmp_path):
    bob = people.issue("bob", "bob.test")
    crl = revoke(people, tmp_path / "crl", bob)
    gate = secure(f"verify_client required; client_ca {people.path}; client_crl {crl};")
    assert let_in(gate, client(ca, alice))
    assert not let_in(gate, client(ca, bob))
    gate.wait_log("the peer's certificate is refused: certificate revoked")


def test_a_session_from_before_it_was_revoked(secure, ca, people, tmp_path):
    """What is resumed is not verified again: with another list no old session is."""
    carol = people.issue("carol", "carol.test")
    crl = revoke(people, tmp_path / "before")
    gate = secure(f"verify_client required; client_ca {people.path}; client_crl {crl};")
    made = client(ca, carol)
    with dial(gate, None, context=made) as s:
        assert ask(s)[1] == b"ok"
        session = s.session
    with dial(gate, None, context=made, session=session) as s:
        assert ask(s)[1] == b"ok" and s.session_reused
    crl.write_text(revoke(people, tmp_path / "after", carol).read_text())
    gate.reload()
    try:
        with dial(gate, None, context=made, session=session) as s:
            ask(s)
            assert False, "resumed"
    except (ssl.SSLError, ConnectionError):
        pass
    gate.wait_log("certificate revoked")


def test_what_scripts_and_logs_are_told(secure, ca, people, alice):
    gate = secure(f"verify_client optional; client_ca {people.path};", frontend="script who.lua; "
                  "access_log %FOLDER%/access.log c;",
                  top="log_format c '$tls_client_subject|$tls_client_issuer|$tls_client_fingerprint|$tls_client_names';",
                  files={"who.lua": "local gate = require 'moongate'\n" + SCRIPT})
    made = client(ca, alice)
    fingerprint = alice.fingerprint().replace(":", "").lower()
    for _ in range(2):  # the second resumes
        with dial(gate, None, context=made) as s:
            told = ask(s)[1].decode().split("|")
        assert told[0] == "CN=Alice,O=Example" and told[1] == "CN=test people"
        assert told[3] == fingerprint and told[4:] == ["alice.test", "true"]
        assert re.fullmatch("[0-9a-f]+", told[2])
    gate.wait_log(re.escape(rf"CN=Alice,O=Example|CN=test\x20people|{fingerprint}|alice.test"),
                  path=gate.folder / "access.log")
    with dial(gate, None, context=client(ca)) as s:
        assert ask(s)[1] == b""


def test_a_name_that_could_be_taken_for_two_is_left_out(secure, ca, people):
    mallory = people.issue("mallory", "mallory.test", extensions="")
    config = people.folder / "mallory.ext"
    config.write_text("subjectAltName=@n\n[n]\nDNS.1=good.test\nURI.1=spiffe://a/b\nemail.1=m@mallory.test\n")
    request = openssl("req", "-new", "-key", mallory.key, "-subj", "/CN=m")
    mallory.pem.write_text(openssl("x509", "-req", "-CA", people.path, "-CAkey", people.key, "-set_serial", 77,
                                   "-extfile", config, "-days", 3, input=request))
    gate = secure(f"verify_client required; client_ca {people.path};", frontend="script who.lua;",
                  files={"who.lua": "local gate = require 'moongate'\n" + SCRIPT})
    with dial(gate, None, context=client(ca, mallory)) as s:
        assert ask(s)[1].decode().split("|")[4] == "good.test,spiffe://a/b,m@mallory.test"


def test_bad_configurations(moongate, ca, site, people, tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("")
    for tls, text in [("verify_client required;", '"verify_client" without client_ca'),
                      (f"client_ca {people.path};", '"client_ca" without verify_client'),
                      (f"verify_client maybe; client_ca {people.path};", "expected off, optional or required"),
                      (f"verify_client required; client_ca {empty};", "no certificate in"),
                      (f"verify_client required; client_ca {people.path}; client_crl {people.path};",
                       "no list of revoked certificates in")]:
        assert text in complaint(moongate, site.lines + tls), tls

# SPDX-License-Identifier: BSD-2-Clause
"""Staples that moongate asks for by itself: of openssl's responder and of ones that are out of order, by one worker
for all, over reloads and deaths; what is not taken, and what a client sees meanwhile."""
import datetime
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from conftest import alive, eventually, free_port
from pki import Authority, openssl
from test_tls import ask, ca, complaint, dial, s_client, secure, site  # noqa: F401 (fixtures)


class Responder:
    """openssl ocsp on a port."""

    def __init__(self, ca, folder, signer=None):
        self.ca, self.folder = ca, folder
        self.signer = signer or (ca.path, ca.key)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/ask/me"
        self.lines, self.process, self.out = "", None, folder / "out"

    def knows(self, certificate, status="V"):
        serial = openssl("x509", "-in", certificate.pem, "-noout", "-serial").split("=")[1].strip()
        when = "250101000000Z" if status == "R" else ""
        self.lines += f"{status}\t350101000000Z\t{when}\t{serial}\tunknown\t/CN={serial}\n"
        return self

    def start(self):
        self.folder.mkdir()
        (self.folder / "index").write_text(self.lines)
        with open(self.out, "w", encoding="ascii") as out:
            self.process = subprocess.Popen(
                ["openssl", "ocsp", "-port", str(self.port), "-index", self.folder / "index", "-rsigner",
                 self.signer[0], "-rkey", self.signer[1], "-CA", self.ca.path, "-ndays", "3"], stdout=out, stderr=out)
        eventually(lambda: "waiting for OCSP client" in self.out.read_text(), seconds=10)
        return self

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def responder(ca, tmp_path):
    made = []

    def make(**how):
        made.append(Responder(how.pop("ca", ca), tmp_path / f"responder{len(made)}", **how))
        return made[-1]
    yield make
    for one in made:
        one.stop()


@pytest.fixture
def silent(origins):
    """Takes what it is asked and says nothing."""
    source, end = origins(), threading.Event()
    source.url = f"http://{source.address}/"
    source.reply = lambda _: end.wait(60) and None
    yield source
    end.set()


@pytest.fixture(scope="module")
def chained(ca):
    """A certificate with its issuer behind it."""
    return ca.issue("chained", "site.test", chain=True)


def stapled(gate, *arguments):
    """Whether a client is sent a staple that says good, with what openssl printed."""
    out = s_client(gate, "-status", *arguments)
    assert ("Cert Status: good" in out) == ("OCSP Response Status: successful" in out)
    return out if "Cert Status: good" in out else None


def got(gate, count=1):
    eventually(lambda: gate.stats()["staples_fetched"] >= count, seconds=10)


def failing(gate, why, count=1):
    gate.wait_log(f"no staple from the OCSP responder .*{why}", seconds=15)
    eventually(lambda: gate.stats()["staple_errors"] >= count, seconds=10)


def signed(ca, certificate, begin, end, revoked=False):
    """A response of the authority that holds from so many seconds from now on until so many."""
    x509, ocsp = pytest.importorskip("cryptography.x509"), pytest.importorskip("cryptography.x509.ocsp")
    from cryptography.hazmat.primitives import hashes, serialization
    issuer = x509.load_pem_x509_certificate(ca.path.read_bytes())
    now = datetime.datetime.utcnow()
    made = ocsp.OCSPResponseBuilder().add_response(
        cert=x509.load_pem_x509_certificate(certificate.pem.read_bytes()), issuer=issuer, algorithm=hashes.SHA1(),
        cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
        this_update=now + datetime.timedelta(seconds=begin),
        next_update=now + datetime.timedelta(seconds=end), revocation_time=now if revoked else None,
        revocation_reason=None)
    key = serialization.load_pem_private_key(ca.key.read_bytes(), None)
    return made.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer).sign(key, hashes.SHA256()).public_bytes(
        serialization.Encoding.DER)


def http(body, status="200 OK"):
    return (f"HTTP/1.1 {status}\r\nContent-Type: application/ocsp-response\r\nContent-Length: {len(body)}\r\n\r\n"
            .encode() + body)


# ---- a responder as it should be ---------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_staple_is_asked_for_and_sent(secure, ca, responder, version):
    source = responder()
    named = ca.issue("named", "site.test", chain=True, extensions=f"authorityInfoAccess=OCSP;URI:{source.url}\n")
    source.knows(named).start()
    gate = secure("stapling on;", lines=named.lines)
    got(gate)
    assert stapled(gate, version)
    assert "OCSP Response Status" not in s_client(gate, version)
    gate.wait_log('certificate ".*named.pem": a staple came from the OCSP responder "127.0.0.1:.*", good for 2')


def test_the_responder_of_the_configuration(secure, responder, chained):
    source = responder().knows(chained).start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    got(gate)
    assert stapled(gate)


def test_a_name_of_this_machine_may_be_asked(secure, responder, chained):
    """route_allow is for what scripts name: the operator may have the responder where he likes."""
    source = responder().knows(chained).start()
    gate = secure(f"stapling on; stapling_responder http://localhost:{source.port};", lines=chained.lines)
    got(gate)
    assert stapled(gate)


def test_a_delegated_responder(secure, ca, responder, chained):
    signer = ca.issue("delegated", "ocsp.test", extensions="extendedKeyUsage=OCSPSigning\n")
    source = responder(signer=(signer.pem, signer.key)).knows(chained).start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    got(gate)
    assert stapled(gate)


def test_several_certificates(secure, ca, responder, chained):
    rsa = ca.issue("chained-rsa", "site.test", kind="rsa", chain=True)
    source = responder().knows(chained).knows(rsa).start()
    gate = secure(f"{rsa.lines} stapling on; stapling_responder {source.url};", lines=chained.lines)
    got(gate, 2)

    def serial(*how):
        return re.search(r"Serial Number: (\S+)", stapled(gate, "-tls1_2", *how)).group(1)
    assert serial() != serial("-cipher", "aRSA")


def test_one_worker_asks_for_all(secure, ca, origins, chained):
    source, answer = origins(), threading.Event()
    source.reply = lambda _: answer.wait(10) and http(signed(ca, chained, 0, 3600))
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines, workers=4)
    eventually(lambda: source.requests)
    answer.wait(1.5)  # the others look whether it is their turn now, and once more
    answer.set()
    got(gate)
    for _ in range(20):
        assert stapled(gate), "whichever worker it is"
    gate.reload()
    assert stapled(gate), "after a reload"
    for pid in gate.workers():
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not alive(pid))
    gate.wait_serving()
    assert stapled(gate), "after the death of whoever had asked"
    assert len(source.requests) == 1
    assert gate.stats()["staples_fetched"] == 1 and gate.stats()["staple_errors"] == 0


@pytest.mark.long
def test_the_death_of_the_one_who_asks(secure, silent, chained):
    """Its turn is over after a while, and another one's comes."""
    gate = secure(f"stapling on; stapling_responder {silent.url};", lines=chained.lines)
    eventually(lambda: silent.requests)
    pid = gate.workers()[0]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    gate.wait_serving()
    eventually(lambda: len(silent.requests) > 1, seconds=30)


def test_a_reload_while_one_is_asked_for(secure, silent, responder, chained):
    """The new configuration does not wait for the old one's answer, and what was asked is given up."""
    gate = secure(f"stapling on; stapling_responder {silent.url};", lines=chained.lines)
    eventually(lambda: silent.requests)
    gate.reload()
    eventually(lambda: len(silent.requests) > 1, seconds=3)
    source = responder().knows(chained).start()
    gate.write("moongate.conf", gate.config.read_text().replace(silent.url, source.url))
    gate.reload()
    got(gate)
    assert stapled(gate)
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1)


def test_a_stop_while_one_is_asked_for(secure, silent, chained):
    gate = secure(f"stapling on; stapling_responder {silent.url};", lines=chained.lines)
    eventually(lambda: silent.requests)
    began = time.monotonic()
    gate.stop(signal.SIGQUIT)
    assert time.monotonic() - began < 5


def test_it_is_asked_for_again_before_its_end(secure, ca, origins, chained):
    source, first = origins(), []

    def reply(_):
        first.append(time.monotonic())
        return http(signed(ca, chained, -60, 8))
    source.reply = reply
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines, workers=2)
    got(gate, 2)
    assert 3 <= first[1] - first[0] <= 5.5, "half way to its end, more or less"
    assert stapled(gate)


@pytest.mark.long
def test_the_last_one_is_sent_until_it_is_out_of_date(secure, ca, origins, chained):
    source, replies = origins(), [http(signed(ca, chained, -60, 6))]
    source.reply = lambda _: replies.pop() if replies else http(b"", "503 Away")
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    got(gate)
    failing(gate, "status 503; the last one is still sent")
    assert stapled(gate)
    eventually(lambda: not stapled(gate), seconds=10)
    gate.wait_log("status 503; none is sent", seconds=10)


# ---- responders that are out of order ----------------------------------------------------------------------------

def test_revoked(secure, responder, chained):
    source = responder().knows(chained, "R").start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    failing(gate, "the certificate is revoked")
    assert not stapled(gate)


def test_revoked_after_it_was_good(secure, ca, origins, chained):
    """What was said before is not sent any more, although it has not ended."""
    source, replies = origins(), [http(signed(ca, chained, -60, 6))]
    source.reply = lambda _: replies.pop() if replies else http(signed(ca, chained, -60, 600, revoked=True))
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    got(gate)
    failing(gate, "the certificate is revoked; none is sent")
    assert "still sent" not in gate.log()
    assert not stapled(gate)


def test_unknown(secure, responder, chained, ca):
    source = responder().knows(ca.issue("stranger", "x.test")).start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    failing(gate, "does not know the certificate")
    assert not stapled(gate)


@pytest.mark.parametrize("begin, end", [(-7200, -3600), (3600, 7200)])
def test_out_of_date_or_not_yet_good(secure, ca, origins, chained, begin, end):
    source = origins()
    source.reply = http(signed(ca, chained, begin, end))
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    failing(gate, "out of date, or not valid yet")
    assert not stapled(gate)


def test_signed_by_a_stranger(secure, responder, chained, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    source = responder(signer=(other.path, other.key)).knows(chained).start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    failing(gate, "not signed by")
    assert not stapled(gate)


def test_signed_by_another_certificate_of_the_issuer(secure, ca, responder, chained):
    """Who has any certificate of an authority must not speak for it."""
    signer = ca.issue("ordinary", "ocsp.test")
    source = responder(signer=(signer.pem, signer.key)).knows(chained).start()
    gate = secure(f"stapling on; stapling_responder {source.url};", lines=chained.lines)
    failing(gate, "not signed by")
    assert not stapled(gate)


REFUSALS = {
    "garbage": (http(b"<html>no</html>"), "is no OCSP response"),
    "nothing": (http(b""), "is no OCSP response"),
    "try later": (http(bytes.fromhex("30030a0103")), r"it refuses \(trylater\)"),
    "not found": (http(b"x", "404 Not Found"), "answers with status 404"),
    "huge": (http(b"x" * 5000000), "too large"),
    "endless": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 32768 + b"\r\n"
                + b"8000\r\n" + b"x" * 32768, "too large"),
    "no http": (b"hello\r\n\r\n", "upstream server broke the protocol"),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nx", "closed the connection too early"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_taken(secure, origins, ca, chained, name):
    source = origins()
    source.reply, why = REFUSALS[name]
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    failing(gate, why)
    assert not stapled(gate)
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok", "served all the same"


def test_trailing_bytes_are_not_taken(secure, ca, chained, origins):
    source = origins()
    source.reply = http(signed(ca, chained, 0, 60) + b"x")
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    failing(gate, "is no OCSP response")


@pytest.mark.long
def test_one_that_says_nothing_costs_nobody_anything(secure, ca, chained, silent):
    gate = secure(f"stapling on; stapling_responder {silent.url};", lines=chained.lines)
    eventually(lambda: silent.requests)
    with dial(gate, ca) as s:
        assert ask(s)[1] == b"ok"
    assert not stapled(gate)
    failing(gate, "no response within ten seconds")


def test_it_is_asked_less_and_less(secure, chained, ca, origins):
    """Until it comes back."""
    source = origins()
    source.reply = http(b"", "503 Away")
    gate = secure(f"stapling on; stapling_responder http://{source.address}/;", lines=chained.lines)
    failing(gate, r"status 503; none is sent, asked again in (0\.9|1\.[01]) s")
    failing(gate, r"status 503; none is sent, asked again in (1\.[89]|2\.[012]) s", 2)
    source.reply = http(signed(ca, chained, 0, 3600))
    got(gate)
    assert stapled(gate)
    assert gate.stats()["staple_errors"] <= 3


def test_asked_as_the_rfc_says(secure, origins, chained):
    source = origins()
    source.reply = http(b"")
    gate = secure(f"stapling on; stapling_responder http://{source.address}/a/b?c;", lines=chained.lines)
    failing(gate, "no OCSP response")
    request = source.requests[0]
    assert request.line == "POST /a/b?c HTTP/1.1"
    assert request.header("content-type") == "application/ocsp-request"
    assert request.header("host") == source.address
    assert request.body[:1] == b"0" and int(request.header("content-length")) == len(request.body)


# ---- which certificates ------------------------------------------------------------------------------------------

def test_auto_is_for_those_that_demand_one(secure, ca, origins, chained):
    demanding = ca.issue("must", "must.test", chain=True, extensions="tlsfeature=status_request\n")
    source = origins()
    source.reply = http(signed(ca, demanding, 0, 3600))
    gate = secure(f"{demanding.lines} stapling_responder http://{source.address}/;", lines=chained.lines)
    got(gate)
    assert stapled(gate, "-servername", "must.test")
    assert not stapled(gate, "-servername", "site.test")
    assert len(source.requests) == 1


def test_one_that_demands_a_staple_is_complained_of_while_there_is_none(secure, ca):
    demanding = ca.issue("must-none", "site.test", chain=True, extensions="tlsfeature=status_request\n")
    gate = secure(f"stapling_responder http://127.0.0.1:{free_port()}/;", lines=demanding.lines)
    failing(gate, "no upstream server could be connected to")
    assert not stapled(gate)
    gate.wait_log('certificate ".*must-none.pem" demands a staple and there is none at hand: clients may refuse it')
    before = gate.log().count("none at hand")
    assert not stapled(gate)
    assert gate.log().count("none at hand") == before, "once a minute"


def test_off(secure, origins, ca):
    demanding = ca.issue("must-off", "site.test", chain=True, extensions="tlsfeature=status_request\n")
    source = origins()
    gate = secure(f"stapling off; stapling_responder http://{source.address}/;", lines=demanding.lines)
    gate.wait_log("demands a staple and has none")
    assert not stapled(gate)
    assert not source.requests


def test_those_that_cannot_be_asked_for(secure, ca, site):
    gate = secure("stapling on;", lines=ca.issue("silent", "site.test", chain=True).lines)
    gate.wait_log(r'moongate.conf:\d+:\d+: the certificate in ".*silent.pem" has no staple, and none can be asked for: '
                  'it names no OCSP responder$')
    assert not stapled(gate)
    gate.stop()
    gate = secure("stapling on; stapling_responder http://127.0.0.1:1/;")
    gate.wait_log("the certificate of its issuer is not behind it in the file$")
    gate.stop()
    secured = ca.issue("secured", "site.test", chain=True, extensions="tlsfeature=status_request\nauthorityInfoAccess="
                       "OCSP;URI:https://127.0.0.1:1/\n")
    gate = secure(lines=secured.lines)
    gate.wait_log("demands a staple and has none, .*: the URL of its OCSP responder is not one of http: clients may "
                  "refuse it$")


def test_a_file_comes_first(secure, origins, chained, ca, tmp_path):
    (tmp_path / "staple").write_bytes(signed(ca, chained, 0, 3600))
    other = origins()
    gate = secure(f"staple {tmp_path}/staple; stapling on; stapling_responder http://{other.address}/;",
                  lines=chained.lines)
    assert stapled(gate)
    assert not other.requests


def test_bad_values(moongate, site):
    assert re.search(r":\d+:\d+: bad value \"https://x/\" for \"stapling_responder\", expected a URL of http://",
                     complaint(moongate, f"{site.lines} stapling_responder https://x/;"))
    assert "stapling" in complaint(moongate, f"{site.lines} stapling maybe;")

# SPDX-License-Identifier: BSD-2-Clause
"""Reloads under busy TLS connections of HTTP/1 and HTTP/2, each with another certificate: no connection and no stream is
lost, and the next handshake gets the new one. RELOADS=500 makes it longer; -s prints what went through meanwhile."""
import contextlib
import os
import threading

import pytest

from conftest import eventually, rss
from h2_peer import DATA, END_STREAM, H2, raw
from test_tls import ask, ca, context, dial, secure, served, site  # noqa: F401 (fixtures)

RELOADS = int(os.environ.get("RELOADS", "120"))
CONNECTIONS, THREADS = 20, 4  # of each protocol


class Upload:
    """A request of an HTTP/2 connection whose body goes on through several reloads."""

    def __init__(self, peer, turn):
        self.peer, self.turn, self.size = peer, turn, 0
        self.stream = peer.request("/upload", "POST", end=False)

    def send(self, end=False):
        self.peer.send(raw(DATA, END_STREAM if end else 0, self.stream, b"z" * 100))
        self.size += 100

    def finish(self):
        self.send(end=True)
        answer = self.peer.answer(self.stream)
        assert (answer.status, answer.body) == (200, b"%d" % self.size), (answer.status, answer.reset, answer.body)


class Busy:
    """Connections that ask all the time, in threads: requests, uploads, the longest of them in reloads; failed."""

    def __init__(self, gate, ca):
        self.gate, self.ca, self.over, self.failed, self.turn = gate, ca, threading.Event(), [], 0
        self.counts, self.uploads, self.longest = [0] * THREADS * 2, 0, 0
        kinds = [self.http1] * THREADS + [self.http2] * THREADS
        self.threads = [threading.Thread(target=self.run, args=(kind, n)) for n, kind in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def run(self, kind, number):
        try:
            with contextlib.ExitStack() as stack:
                kind(stack, number)
        except Exception as error:  # whatever it is, it is a connection or a stream lost
            self.failed.append(error)

    def dial(self, stack, alpn):
        made = context(self.ca, alpn=alpn)
        return [stack.enter_context(dial(self.gate, self.ca, context=made)) for _ in range(CONNECTIONS // THREADS)]

    @staticmethod
    def is_the_first(s):
        assert ("DNS", "round-0.test") in s.getpeercert()["subjectAltName"]

    def http1(self, stack, number):
        sockets = self.dial(stack, ["http/1.1"])
        while not self.over.is_set():
            for s in sockets:
                assert ask(s)[1] == b"ok"
                self.counts[number] += 1
        for s in sockets:
            self.is_the_first(s)

    def http2(self, stack, number):
        peers = [H2(self.gate, sock=s, scheme="https") for s in self.dial(stack, ["h2"])]
        uploads = {}
        while not self.over.is_set():
            asked = [(peer, [peer.request() for _ in range(4)]) for peer in peers]
            for peer, streams in asked:
                upload = uploads[peer] = uploads.get(peer) or Upload(peer, self.turn)
                upload.send()
                for stream in streams:
                    answer = peer.answer(stream)
                    assert (answer.status, answer.body) == (200, b"ok"), (answer.status, answer.reset, peer.goaways)
                    del peer.answers[stream]
                    self.counts[number] += 1
                if self.turn >= upload.turn + 10:
                    self.finish(uploads, peer)
        for peer in peers:
            if uploads.get(peer):
                self.finish(uploads, peer)
            assert not peer.goaways and not peer.closed
            self.is_the_first(peer.sock)

    def finish(self, uploads, peer):
        upload, uploads[peer] = uploads[peer], None
        upload.finish()
        self.uploads += 1
        self.longest = max(self.longest, self.turn - upload.turn)

    def wait_more(self):
        """Until each thread has got something since now."""
        before = list(self.counts)
        eventually(lambda: all(now > then for now, then in zip(self.counts, before)) or self.failed, 30)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)


def reply(request):
    body = b"%d" % len(request.body) if request.method == "POST" else b"ok"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.alone
def test_reloads_with_new_certificates_lose_no_connection(secure, origin, ca):
    """Two workers; each connection goes on asking through all reloads, over the very handshake that it began with."""
    origin.reply = reply
    live = ca.issue("live", "site.test", "round-0.test")
    texts = {}
    for number in (1, 2):  # making one takes longer than a reload
        other = ca.issue(f"live-{number}", "site.test", f"round-{number}.test")
        texts[number] = other.pem.read_text(), other.key.read_text()
    gate = secure(lines=live.lines, workers=2, level="notice", top="keepalive_requests 0;")
    busy = Busy(gate, ca)
    try:
        busy.wait_more()
        accepted, memory = gate.stats()["connections_accepted"], None
        for turn in range(1, RELOADS + 1):
            pem, key = texts[turn % 2 + 1]
            live.pem.write_text(pem)
            live.key.write_text(key)
            gate.reload()
            busy.turn = turn
            assert f"round-{turn % 2 + 1}.test" in served(gate, ca, "site.test")
            if turn % 10 == 0:
                busy.wait_more()
            if turn == RELOADS // 3:
                memory = [rss(pid) for pid in gate.workers()]
        busy.wait_more()
    finally:
        busy.end()
    assert not busy.failed, busy.failed
    stats = gate.stats()
    grown = [rss(pid) - was for pid, was in zip(gate.workers(), memory)]
    print(f"{RELOADS} reloads, {CONNECTIONS} connections each: {sum(busy.counts[:THREADS])} requests of HTTP/1, "
          f"{sum(busy.counts[THREADS:])} of HTTP/2, {busy.uploads} uploads (the longest through {busy.longest} reloads), "
          f"{stats['connections_accepted']} connections accepted, {stats['tls_handshakes']} handshakes, workers grew by {grown}")
    assert accepted == 2 * CONNECTIONS and stats["connections_accepted"] == accepted + RELOADS, "none was made anew"
    assert stats["tls_handshake_errors"] == 0 and stats["responses_5xx"] == 0 and stats["responses_4xx"] == 0
    assert busy.longest >= 10 and max(grown) < 8 << 20, (busy.longest, grown)

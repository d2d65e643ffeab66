# SPDX-License-Identifier: BSD-2-Clause
"""Reloads under busy TLS connections, each with another certificate: none of them is lost, and the next handshake gets
the new one."""
import contextlib
import threading

import pytest

from conftest import eventually, rss
from test_tls import ask, ca, context, dial, secure, served, site  # noqa: F401 (fixtures)

RELOADS, CONNECTIONS, THREADS = 120, 20, 4


@pytest.mark.alone
def test_reloads_with_new_certificates_lose_no_connection(secure, ca):
    """Two workers; each connection goes on asking through all reloads, over the very handshake that it began with."""
    ca.issue("live", "site.test", "round-0.test")
    live = ca.issue("live", "site.test", "round-0.test")
    texts = {}
    for number in (1, 2):  # making one takes longer than a reload
        other = ca.issue(f"live-{number}", "site.test", f"round-{number}.test")
        texts[number] = other.pem.read_text(), other.key.read_text()
    gate = secure(lines=live.lines, workers=2, level="notice", top="keepalive_requests 0;")
    made, over, failed, counts = context(ca), threading.Event(), [], [0] * THREADS

    def keep_asking(number):
        try:
            with contextlib.ExitStack() as stack:
                mine = [stack.enter_context(dial(gate, ca, context=made)) for _ in range(CONNECTIONS // THREADS)]
                while not over.is_set():
                    for s in mine:
                        assert ask(s)[1] == b"ok"
                        counts[number] += 1
                for s in mine:
                    assert ("DNS", "round-0.test") in s.getpeercert()["subjectAltName"]
        except Exception as error:  # whatever it is, it is a connection lost
            failed.append(error)

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(counts) or failed)
        accepted = gate.stats()["connections_accepted"]
        memory = None
        for turn in range(1, RELOADS + 1):
            pem, key = texts[turn % 2 + 1]
            live.pem.write_text(pem)
            live.key.write_text(key)
            gate.reload()
            assert f"round-{turn % 2 + 1}.test" in served(gate, ca, "site.test")
            if turn == RELOADS // 3:
                memory = [rss(pid) for pid in gate.workers()]
        before = list(counts)
        eventually(lambda: all(now > then for now, then in zip(counts, before)) or failed)
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    assert not failed, failed
    stats = gate.stats()
    assert stats["connections_accepted"] == accepted + RELOADS, "no connection was made anew"
    assert stats["tls_handshake_errors"] == 0 and stats["responses_5xx"] == 0 and stats["responses_4xx"] == 0
    grown = [rss(pid) - was for pid, was in zip(gate.workers(), memory)]
    assert max(grown) < 8 << 20, grown

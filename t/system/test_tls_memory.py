# SPDX-License-Identifier: BSD-2-Clause
"""What TLS connections cost while they are idle."""
import contextlib
import resource

import pytest

from conftest import SANITIZED, eventually, rss
from test_tls import ask, ca, context, dial, secure, site  # noqa: F401 (fixtures)

CONNECTIONS = 2000


@pytest.mark.skipif(SANITIZED, reason="what a sanitizer's memory measures says nothing")
def test_an_idle_connection_costs_less_than_24_kib(secure, ca):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS * 3:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gate = secure(level="notice", top="keepalive_timeout 10m;")
    made = context(ca)
    worker = gate.workers()[0]
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(50):  # what the first ones bring into memory is everybody's
            ask(stack.enter_context(dial(gate, ca, context=made)))
        before = rss(worker)
        for _ in range(CONNECTIONS):
            ask(stack.enter_context(dial(gate, ca, context=made)))
        eventually(lambda: gate.stats()["connections_active"] == CONNECTIONS + 50)
        each = (rss(worker) - before) / CONNECTIONS
    print(f"{each:.0f} bytes for each connection")
    assert each < 24 * 1024

# SPDX-License-Identifier: BSD-2-Clause
"""A DNS server for tests: dnsmasq on a port of the loopback, which knows the names below .test that it is told.

    names = nameserver(**{"app.test": "192.0.2.1"})    fixture; several() of them in one test
    names.tell(ttl=1, **{"app.test": "192.0.2.2"})     other records from now on; the TTL only with a start
    nameserver(services=["_http._tcp.app.test,app.test,9000,PRIORITY,WEIGHT"], ...)    SRV records, for good
    names.asked("app.test")                            how many A queries for it came
    names.stop(), names.start()                        dead, and alive again on the same port
    names.delay = 0.3                                  answers come so much later (by way of a relay in front of it:
                                                       relay=True)
    names.drop = "AAAA"                                queries of that kind are lost on the way (relay)

Names that it is not told do not exist; names outside of .test are refused."""
import bisect
import contextlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import eventually, free_port, several


def program():
    return shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")


class Nameserver:
    def __init__(self, ttl=600, relay=False, services=(), **records):
        self.services = services
        self.folder = Path(tempfile.mkdtemp(prefix="moongate-dns-", dir="/tmp"))
        self.port = self.real_port = free_port()
        self.ttl, self.delay, self.drop, self.relay, self.process = ttl, 0, None, None, None
        self.closing = False
        self.tell(**records)
        if relay:
            self.relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.relay.bind(("127.0.0.1", 0))
            self.port = self.relay.getsockname()[1]
            self.thread = threading.Thread(target=self.pass_on, daemon=True)
            self.thread.start()
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def directive(self):
        return f"resolver {self.address};\n"

    def tell(self, **records):
        """name="address address ..." """
        lines = [f"{address} {name}\n" for name, addresses in records.items() for address in addresses.split()]
        (self.folder / "hosts").write_text("".join(lines))
        if self.process:
            before = self.log().count("read " + str(self.folder / "hosts"))
            self.process.send_signal(signal.SIGHUP)
            eventually(lambda: self.log().count("read " + str(self.folder / "hosts")) > before)

    def start(self):
        self.process = subprocess.Popen(
            [program(), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll",
             "--listen-address=127.0.0.1", "--bind-interfaces", f"--port={self.real_port}", "--pid-file=", "--user=",
             f"--addn-hosts={self.folder}/hosts", f"--local-ttl={self.ttl}", "--local=/test/", "--log-queries",
             f"--log-facility={self.folder}/log", "--cache-size=0",
             *(f"--srv-host={service}" for service in self.services)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self.answers)

    def answers(self):
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.real_port), 1):
            return True

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # a test may have held it
            self.process.wait(10)
        self.process = None

    def log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def asked(self, name, kind="A"):
        return len(re.findall(rf"query\[{kind}\] {re.escape(name)} ", self.log()))

    def pass_on(self):
        """The relay: each query goes to dnsmasq after the delay, by a socket of its own. One thread does it all: one for
        each query would sometimes wake up seconds late."""
        due, asked = [], {}  # (when, query, client) by time; whose answer comes on a socket
        while not self.closing:
            wait = max(0, due[0][0] - time.monotonic()) if due else None
            for s in select.select([self.relay, *asked], [], [], wait)[0]:
                with contextlib.suppress(OSError):  # dnsmasq may be dead
                    data, peer = s.recvfrom(65536)
                    if s is not self.relay:
                        self.relay.sendto(data, asked[s])
                    elif not self.drop or data[-4:-2] != {"A": b"\0\x01", "AAAA": b"\0\x1c"}[self.drop]:
                        bisect.insort(due, (time.monotonic() + self.delay, data, peer))
                if s is not self.relay:
                    del asked[s]
                    s.close()
            while due and due[0][0] <= time.monotonic():
                _, query, client = due.pop(0)
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                s.sendto(query, ("127.0.0.1", self.real_port))
                asked[s] = client
        for s in asked:
            s.close()

    def close(self):
        self.stop()
        print(f"---- the log of dnsmasq at {self.address}\n{self.log()}")
        if self.relay:
            self.closing = True
            self.relay.sendto(b"", self.relay.getsockname())  # wakes it
            self.thread.join(10)
            self.relay.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def nameserver():
    if not program():
        pytest.skip("no dnsmasq (Debian: dnsmasq-base)")
    yield from several(Nameserver)

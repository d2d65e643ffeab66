# SPDX-License-Identifier: BSD-2-Clause
"""A DNS server for tests that does what a real one will not: the records are changed from one answer to the next, it is
lame, slow, dead, or lies. By UDP and TCP on one port of the loopback. What a real server can do is nameserver.py's.

    peer = dns_peer({"app.test": ["A 1 127.0.0.1", "AAAA 1 ::1"],       fixture; several() of them in one test
                     "_http._tcp.app.test": ["SRV 1 0 10 9000 app.test"], "www.test": ["CNAME 5 app.test"]})
    peer.records["app.test"] = ["A 1 127.0.0.2"]     TTL first; a name that is not there does not exist
    peer.rcode = 2                                   answers nothing but that (SERVFAIL; 5: REFUSED)
    peer.silent = True                               hears, and says nothing; peer.delay = 0.3: says it later
    peer.truncate = True                             by UDP nothing but that it is too long
    peer.twist = lambda message, query: [bytes]      what is sent instead, any number of messages
    peer.asked("app.test", "A"), peer.by_tcp         how many queries of that kind came, or of any by TCP
    peer.stop(), peer.start()                        the port is closed, and open again"""
import contextlib
import ipaddress
import socket
import struct
import threading
import time

import pytest

from conftest import several

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28, "SRV": 33}


def packed(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".") if label) + b"\0"


def record(name, text):
    """"KIND TTL DATA" of a name as it is on the wire."""
    kind, ttl, *data = text.split()
    if kind in ("A", "AAAA"):
        data = ipaddress.ip_address(data[0]).packed
    elif kind == "SRV":
        data = struct.pack(">HHH", *map(int, data[:3])) + packed(data[3])
    else:
        data = packed(data[0])
    return packed(name) + struct.pack(">HHIH", TYPES[kind], 1, int(ttl), len(data)) + data


def question(query):
    """The name in lower case, the type's number, and the question as it came."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    return ".".join(labels).lower(), struct.unpack(">H", query[at + 1:at + 3])[0], query[12:at + 5]


def message(query, records=(), rcode=0, flags=0x8180):
    asked = question(query)[2]
    return query[:2] + struct.pack(">HHHHH", flags | rcode, 1, len(records), 0, 0) + asked + b"".join(records)


class DnsPeer:
    def __init__(self, records=None):
        self.records = dict(records or {})
        self.rcode, self.silent, self.delay, self.truncate, self.twist = 0, False, 0, False, None
        self.queries, self.by_tcp, self.sockets, self.port = [], 0, [], 0
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def directive(self):
        return f"resolver {self.address};\n"

    def asked(self, name, kind="A"):
        return self.queries.count((name, TYPES[kind]))

    def start(self):
        for _ in range(50):
            tcp = socket.socket()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", self.port))
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind(tcp.getsockname())
                break
            except OSError:  # another's
                assert self.port == 0
                tcp.close()
                udp.close()
        tcp.listen(64)
        self.port, self.sockets = tcp.getsockname()[1], [tcp, udp]
        threading.Thread(target=self.serve_udp, args=(udp,), daemon=True).start()
        threading.Thread(target=self.serve_tcp, args=(tcp,), daemon=True).start()

    def stop(self):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)  # wakes who waits on it
            s.close()
        self.sockets = []

    close = stop

    def answers(self, query, tcp):
        name, kind, _ = question(query)
        self.queries.append((name, kind))
        if self.silent:
            return []
        if self.rcode:
            return [message(query, rcode=self.rcode)]
        if self.truncate and not tcp:
            return [message(query, flags=0x8380)]
        found, at = [], name
        for _ in range(20):  # aliases are followed as a resolver does it
            texts = self.records.get(at)
            found += [record(at, text) for text in texts or [] if text.split()[0] == "CNAME"
                      or TYPES[text.split()[0]] == kind]
            aliases = [text.split()[2] for text in texts or [] if text.startswith("CNAME")]
            if not aliases:
                break
            at = aliases[0]
        answer = message(query, found, rcode=3 if texts is None else 0)
        if len(answer) > 512 and not tcp:
            answer = message(query, flags=0x8380)
        return self.twist(answer, query) if self.twist else [answer]

    def later(self, query, tcp, send):
        def work():
            with contextlib.suppress(OSError):
                for one in self.answers(query, tcp):
                    time.sleep(self.delay)
                    send(one)
        threading.Thread(target=work, daemon=True).start()

    def serve_udp(self, udp):
        with contextlib.suppress(OSError):
            while True:
                query, client = udp.recvfrom(65536)
                if not query:
                    return
                self.later(query, False, lambda one, client=client: udp.sendto(one, client))

    def serve_tcp(self, tcp):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve_stream, args=(tcp.accept()[0],), daemon=True).start()

    def serve_stream(self, stream):
        with contextlib.suppress(OSError, struct.error), stream, stream.makefile("rb") as lines:
            while True:
                query = lines.read(struct.unpack(">H", lines.read(2))[0])
                self.by_tcp += 1
                self.later(query, True, lambda one: stream.sendall(struct.pack(">H", len(one)) + one))


@pytest.fixture
def dns_peer():
    yield from several(DnsPeer)

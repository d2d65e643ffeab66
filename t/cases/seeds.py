#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the requests and responses of t/cases as inputs for fuzz targets:

    t/cases/seeds.py FOLDER        FOLDER/TARGET/NAME for request, response, chunks, target and h2

A file is named for its content, so that a second run adds nothing. The first byte of an input is the target's
own: how it is cut (request, response with another byte for HEAD, chunks) or the method (target); see
t/fuzz/fuzz_*.c."""
import collections
import contextlib
import hashlib
import sys
import types
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import http2  # noqa: E402
import requests as cases  # noqa: E402  (the tables beside this file)
import responses  # noqa: E402

LONGEST = 4096  # bytes; longer ones make a fuzzer slow and show nothing that these do not


def inputs():
    """(target, bytes) of each."""
    yield from frames()
    for _, data in [*cases.REFUSED.values(), *cases.BROKEN.values()]:
        yield from inputs_of(data)
    for data, forwarded in cases.PASSED.values():
        yield from inputs_of(data)
        yield from inputs_of(forwarded)
    for data in [*responses.HEADS.values(), *responses.BODIES.values()]:
        yield "response", b"\x07\x00" + data
    for data, method, _, _ in [*responses.POISONED.values(), *responses.FINE.values()]:
        yield "response", b"\x07" + (b"\x01" if method == "HEAD" else b"\x00") + data


class Recorder:
    """Stands in for the peer of http2.py's cases: keeps what they send, and lets them wait for nothing."""

    def __init__(self):
        self.sent, self.next, self.window, self.acked, self.settings = b"", 1, 1 << 20, 2, {4: 1024}
        self.answers = collections.defaultdict(lambda: types.SimpleNamespace(reset=0, headers=[], body=b"o", over=True))

    def id(self):
        self.next += 2
        return self.next - 2

    def write(self, data):
        self.sent += data

    def request(self, path="/", method="GET", headers=(), body=None):
        stream = self.id()
        self.write(http2.raw(http2.HEADERS, 4 if body else 5, stream,
                             http2.literals(http2.fields(*headers, method=method, path=path))
                             if all(len(value) < 127 for _, value in headers) else b"\x82\x84\x86\x41\x01h"))
        if body:
            self.write(http2.raw(http2.DATA, 1, stream, body))
        return stream

    def ping(self):
        return True

    def until(self, what):
        return True

    def answer(self, stream):
        return self.answers[stream]


def frames():
    for case in http2.CASES:
        peer = Recorder()
        with contextlib.suppress(AssertionError):
            case.send(peer)
        for way in b"\x00\x03\xc1":
            yield "h2", bytes([way]) + peer.sent.removeprefix(http2.PREFACE)[:LONGEST]


def inputs_of(data):
    yield "request", b"\x07" + data
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head and body:
        yield "chunks", b"\x07" + body
    parts = head.split(b"\r\n")[0].split(b" ")
    if len(parts) == 3:
        method = {b"OPTIONS": b"\x01", b"CONNECT": b"\x02"}.get(parts[0], b"\x00")
        yield "target", method + parts[1]


def write(folder):
    written = 0
    for target, data in inputs():
        if len(data) > LONGEST:
            continue
        path = Path(folder) / target / hashlib.sha1(data).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
            written += 1
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(write(sys.argv[1]), "inputs written below", sys.argv[1])

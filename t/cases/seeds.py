#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes the requests and responses of t/cases as inputs for fuzz targets:

    t/cases/seeds.py FOLDER        FOLDER/TARGET/NAME for request, response, chunks and target

A file is named for its content, so that a second run adds nothing. The first byte of an input is the target's
own: how it is cut (request, response with another byte for HEAD, chunks) or the method (target); see
t/fuzz/fuzz_*.c."""
import hashlib
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import requests as cases  # noqa: E402  (the tables beside this file)
import responses  # noqa: E402

LONGEST = 4096  # bytes; longer ones make a fuzzer slow and show nothing that these do not


def inputs():
    """(target, bytes) of each."""
    for _, data in [*cases.REFUSED.values(), *cases.BROKEN.values()]:
        yield from inputs_of(data)
    for data, forwarded in cases.PASSED.values():
        yield from inputs_of(data)
        yield from inputs_of(forwarded)
    for data in [*responses.HEADS.values(), *responses.BODIES.values()]:
        yield "response", b"\x07\x00" + data
    for data, method, _, _ in [*responses.POISONED.values(), *responses.FINE.values()]:
        yield "response", b"\x07" + (b"\x01" if method == "HEAD" else b"\x00") + data


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

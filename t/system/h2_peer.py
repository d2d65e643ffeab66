# SPDX-License-Identifier: BSD-2-Clause
"""A client of HTTP/2 that sends what the test says, frame by frame, and looks at nothing by itself but what keeps a
connection going: it acknowledges SETTINGS and answers PING, and gives windows back unless told otherwise.

    with H2(gate) as peer:
        stream = peer.request(path="/x")
        answer = peer.answer(stream)         # an Answer: status, headers, body, trailers, reset
        peer.send(hyperframe's frame)        # or raw(type, flags, stream, payload)
        assert peer.goaway() == 1            # the error that ended the connection
"""
import collections
import contextlib
import socket
import struct
import time

import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, \
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(12)
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32


def raw(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Answer:
    def __init__(self):
        self.headers = self.trailers = None
        self.interims = []
        self.body = b""
        self.ended = False
        self.reset = None      # the error of RST_STREAM
        self.data_frames = 0

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def status(self):
        return int(dict(self.headers)[":status"]) if self.headers else None

    def header(self, name):
        return next((value for key, value in self.headers or () if key == name), None)


class H2:
    def __init__(self, gate, settings=None, greet=True, windows=True, timeout=10, sock=None, scheme="http"):
        self.sock = sock or socket.create_connection(("127.0.0.1", gate.port), timeout)
        self.sock.settimeout(timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.scheme, self.timeout = scheme, timeout
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.buffer = b""
        self.answers = collections.defaultdict(Answer)
        self.settings = None       # the server's
        self.acked = 0
        self.goaways = []          # (error, last stream)
        self.pings, self.pongs = 0, []
        self.window = 0            # of the connection, beyond 65535
        self.stream_windows = collections.Counter()
        self.windows = windows
        self.closed = False
        self.next = 1
        self.block = b""
        if greet:
            frame = frames.SettingsFrame(0, settings=settings or {})
            self.write(PREFACE + frame.serialize())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    # ---- out

    def write(self, data):
        self.sock.sendall(data)

    def send(self, *all_frames):
        self.write(b"".join(f if isinstance(f, bytes) else f.serialize() for f in all_frames))

    def fields(self, path="/", method="GET", headers=(), authority="h", scheme=None):
        return [(":method", method), (":scheme", scheme or self.scheme), (":path", path), (":authority", authority),
                *headers]

    def encode(self, fields):
        return self.encoder.encode(fields)

    def head(self, stream, fields, end=True, flags=END_HEADERS):
        return raw(HEADERS, flags | (END_STREAM if end else 0), stream, self.encode(fields))

    def id(self):
        self.next += 2
        return self.next - 2

    def request(self, path="/", method="GET", headers=(), body=None, end=True, authority="h"):
        """Sends a request, with its body if there is one and the windows allow it; returns its stream."""
        stream = self.id()
        data = self.head(stream, self.fields(path, method, headers, authority), end and body is None)
        if body is not None:
            pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)] or [b""]
            for i, piece in enumerate(pieces):
                data += raw(DATA, END_STREAM if end and i == len(pieces) - 1 else 0, stream, piece)
        self.write(data)
        return stream

    # ---- in

    def step(self):
        """Reads and notes one frame; False at the connection's end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                more = self.sock.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                self.closed = True
                return False
            self.buffer += more
        length = int.from_bytes(self.buffer[:3], "big")
        kind, flags = self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], "big") & 0x7fffffff
        payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
        self.note(kind, flags, stream, payload)
        return True

    def note(self, kind, flags, stream, payload):
        answer = self.answers[stream] if stream else None
        if kind in (HEADERS, CONTINUATION):
            self.block = (self.block if kind == CONTINUATION else b"") + payload
            self.ending = flags & END_STREAM if kind == HEADERS else self.ending
            if flags & END_HEADERS:
                fields = self.decoder.decode(self.block)
                if answer.headers is not None:
                    answer.trailers = fields
                elif dict(fields)[":status"].startswith("1"):
                    answer.interims.append(fields)
                else:
                    answer.headers = fields
                answer.ended |= bool(self.ending)
        elif kind == DATA:
            answer.body += payload
            answer.data_frames += 1
            answer.ended |= bool(flags & END_STREAM)
            if self.windows and payload:
                with contextlib.suppress(OSError):
                    update = struct.pack(">I", len(payload))
                    self.write(raw(WINDOW_UPDATE, 0, 0, update) + (raw(WINDOW_UPDATE, 0, stream, update)
                                                                   if not answer.ended else b""))
        elif kind == RST_STREAM:
            answer.reset = int.from_bytes(payload, "big")
        elif kind == SETTINGS and flags & ACK:
            self.acked += 1
        elif kind == SETTINGS:
            self.settings = {int.from_bytes(payload[i:i + 2], "big"): int.from_bytes(payload[i + 2:i + 6], "big")
                             for i in range(0, len(payload), 6)}
            with contextlib.suppress(OSError):
                self.write(raw(SETTINGS, ACK))
        elif kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == PING:
            with contextlib.suppress(OSError):
                self.write(raw(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaways.append((int.from_bytes(payload[4:8], "big"), int.from_bytes(payload[:4], "big")))
        elif kind == WINDOW_UPDATE and stream:
            self.stream_windows[stream] += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE:
            self.window += int.from_bytes(payload, "big")

    def until(self, what):
        """Reads frames until what() is true, or the connection ends; returns what()."""
        end = time.monotonic() + self.timeout
        while not what() and not self.closed:
            assert time.monotonic() < end, f"not within {self.timeout} s"
            self.step()
        return what()

    def answer(self, stream):
        self.until(lambda: self.answers[stream].over)
        return self.answers[stream]

    def get(self, path="/", **how):
        return self.answer(self.request(path, **how))

    def ping(self):
        """When it returns true the server has seen all that was sent before."""
        self.pings += 1
        payload = b"%08d" % self.pings
        self.write(raw(PING, 0, 0, payload))
        return self.until(lambda: payload in self.pongs)

    def goaway(self):
        """The error of a connection that ends: reads to its end; None when it ended without a GOAWAY."""
        while self.step():
            pass
        return self.goaways[-1][0] if self.goaways else None

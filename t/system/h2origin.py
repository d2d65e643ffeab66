# SPDX-License-Identifier: BSD-2-Clause
"""An HTTP/2 origin frame by frame, on hyperframe and hpack: it checks nothing of what it sends, so that it can send
anything, and records what it is asked.

    with h2origin.H2Origin() as origin:
        origin.reply = lambda link, stream: link.respond(stream.id, [(":status", "200")], b"ok")
        gate = moongate(f"upstream app {{ server {origin.address}; protocol h2; }}", "route / app;")

reply(link, stream) is called in a thread of its own when a request has ended, or with `early` as soon as its head is
there (what comes of the body then is in stream.body, stream.wait_end() waits for it)."""
import contextlib
import socket
import threading

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hyperframe import frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT = {frames.SettingsFrame.MAX_CONCURRENT_STREAMS: 100}


class Stream:
    """A request: headers (a list of pairs), body, trailers; reset: the code of a RST_STREAM."""

    def __init__(self, number, connection, window):
        self.id, self.connection = number, connection
        self.headers, self.body, self.trailers = [], b"", []
        self.window = window
        self.reset = None
        self.forgotten = False  # it does not count for the connection any more
        self.ended = threading.Event()
        self.changed = threading.Condition()

    def header(self, name, default=None):
        return next((value for field, value in self.headers if field == name), default)

    def all(self, name):
        return [value for field, value in self.headers if field == name]

    @property
    def path(self):
        return self.header(":path")

    @property
    def method(self):
        return self.header(":method")

    def wait_end(self, seconds=10):
        assert self.ended.wait(seconds), f"the request {self.path} did not end"
        return self


class Link:
    """One connection. All that sends takes frames or their parts; nothing is checked."""

    def __init__(self, origin, sock, number):
        self.origin, self.sock, self.number = origin, sock, number
        self.decoder, self.encoder = Decoder(), Encoder()
        self.decoder.max_header_list_size = 1 << 24
        self.lock = threading.RLock()
        self.can_send = threading.Condition(self.lock)
        self.window, self.first_window = 65535, 65535
        self.streams, self.open, self.most_open = {}, 0, 0
        self.goaway = None       # the code of the client's GOAWAY
        self.pings = 0           # of the client
        self.settings = {}       # the client's
        self.block = b""

    # ---- sending

    def raw(self, data):
        with self.lock:
            self.sock.sendall(data)

    def send(self, *many):
        for frame in many:
            # Before it is sent: the client may use the place at once.
            if frame.stream_id in self.streams and \
                    ("END_STREAM" in frame.flags or isinstance(frame, frames.RstStreamFrame)):
                self.forget(self.streams[frame.stream_id])
        self.raw(b"".join(frame.serialize() for frame in many))

    def headers(self, stream, fields, end=False, split=None):
        """HEADERS, with CONTINUATION when it is to be split in so many pieces."""
        with self.lock:
            # Without the table, which raw frames of a test may have changed.
            block = self.encoder.encode([NeverIndexedHeaderTuple(*pair) for pair in fields], huffman=False)
            size = max(1, -(-len(block) // (split or 1)))
            parts = [block[i:i + size] for i in range(0, len(block), size)] or [b""]
            flags = ["END_STREAM"] if end else []
            out = []
            for i, part in enumerate(parts):
                kind = frames.HeadersFrame if i == 0 else frames.ContinuationFrame
                last = ["END_HEADERS"] if i == len(parts) - 1 else []
                out.append(kind(stream, data=part, flags=last + (flags if i == 0 else [])))
            self.send(*out)

    def data(self, stream, body=b"", end=False):
        self.send(frames.DataFrame(stream, data=body, flags=["END_STREAM"] if end else []))

    def respond(self, stream, fields, body=b"", trailers=None):
        self.headers(stream, fields, end=not body and not trailers)
        for at in range(0, len(body), 16384):
            self.data(stream, body[at:at + 16384], end=at + 16384 >= len(body) and not trailers)
        if trailers:
            self.headers(stream, trailers, end=True)

    def reset(self, stream, code):
        self.send(frames.RstStreamFrame(stream, error_code=code))

    def go_away(self, last, code=0):
        self.send(frames.GoAwayFrame(0, last_stream_id=last, error_code=code))

    def pour(self, stream, total, size=16384):
        """A long body, at the pace that the client's windows allow; ends when the stream is reset."""
        left = total
        while left > 0:
            with self.can_send:
                n = min(size, left)
                while min(self.window, stream.window) < n and stream.reset is None and not self.closed:
                    self.can_send.wait(0.5)
                if stream.reset is not None or self.closed:
                    return total - left
                self.window -= n
                stream.window -= n
                self.data(stream.id, b"x" * n, end=n == left)
            left -= n
        return total

    @property
    def closed(self):
        return self.sock.fileno() < 0

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    # ---- receiving

    def read(self, size):
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def serve(self):
        with contextlib.suppress(OSError, EOFError), self.sock:
            if self.read(len(PREFACE)) != PREFACE:
                return
            if self.origin.greet:
                self.origin.greet(self)
            elif self.origin.settings is not None:
                self.send(frames.SettingsFrame(0, settings=self.origin.settings))
            while True:
                frame, length = frames.Frame.parse_frame_header(self.read(9))
                frame.parse_body(memoryview(self.read(length)))
                if self.origin.hears is None or self.origin.hears(self, frame):
                    self.take(frame)
        with self.can_send:
            self.can_send.notify_all()

    def take(self, frame):
        stream = self.streams.get(frame.stream_id)
        if isinstance(frame, (frames.HeadersFrame, frames.ContinuationFrame)):
            self.take_head(frame)
        elif isinstance(frame, frames.DataFrame) and stream:
            stream.body += frame.data
            if self.origin.credit:
                length = frame.flow_controlled_length
                if length:
                    self.send(frames.WindowUpdateFrame(0, window_increment=length),
                              frames.WindowUpdateFrame(stream.id, window_increment=length))
            if "END_STREAM" in frame.flags:
                self.end(stream)
        elif isinstance(frame, frames.RstStreamFrame) and stream:
            with self.can_send:
                stream.reset = frame.error_code
                self.can_send.notify_all()
            self.forget(stream)
        elif isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
            with self.can_send:
                self.settings.update(frame.settings)
                first = frame.settings.get(frames.SettingsFrame.INITIAL_WINDOW_SIZE)
                if first is not None:
                    for one in self.streams.values():
                        one.window += first - self.first_window
                    self.first_window = first
                self.can_send.notify_all()
            self.send(frames.SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, frames.WindowUpdateFrame):
            with self.can_send:
                if stream:
                    stream.window += frame.window_increment
                elif frame.stream_id == 0:
                    self.window += frame.window_increment
                self.can_send.notify_all()
        elif isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
            self.pings += 1
            if self.origin.pong:
                self.send(frames.PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, frames.GoAwayFrame):
            self.goaway = frame.error_code

    def take_head(self, frame):
        self.block += bytes(frame.data)
        if isinstance(frame, frames.HeadersFrame):
            self.block_end = "END_STREAM" in frame.flags
        if "END_HEADERS" not in frame.flags:
            return
        fields = [(str(name), str(value)) for name, value in self.decoder.decode(self.block)]
        self.block = b""
        stream = self.streams.get(frame.stream_id)
        if stream:
            stream.trailers = fields
        else:
            stream = Stream(frame.stream_id, self.number, self.first_window)
            stream.headers = fields
            self.streams[stream.id] = stream
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            with self.origin.lock:
                self.origin.requests.append(stream)
            if self.origin.early:
                threading.Thread(target=self.answer, args=(stream,), daemon=True).start()
        if self.block_end:
            self.end(stream)

    def end(self, stream):
        stream.ended.set()
        if not self.origin.early:
            threading.Thread(target=self.answer, args=(stream,), daemon=True).start()

    def forget(self, stream):
        with self.lock:
            self.open -= not stream.forgotten
            stream.forgotten = True

    def answer(self, stream):
        with contextlib.suppress(OSError):
            self.origin.reply(self, stream)
        self.forget(stream)


def ok(link, stream):
    link.respond(stream.id, [(":status", "200"), ("content-type", "text/plain")], b"ok")


class H2Origin:
    """settings: what it sends first, None for nothing; credit: it gives windows back; pong: it answers PING;
    early: reply() with the head; greet(link): instead of its first SETTINGS; hears(link, frame): false keeps a frame
    from being handled; wrap(socket): what it talks through, for TLS."""

    def __init__(self, settings=None, wrap=None):
        self.settings = dict(DEFAULT if settings is None else settings)
        self.reply, self.greet, self.hears, self.wrap = ok, None, None, wrap
        self.credit = self.pong = True
        self.early = False
        self.requests, self.links = [], []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self.begin, args=(sock,), daemon=True).start()

    def begin(self, sock):
        if self.wrap:
            try:
                sock = self.wrap(sock)
            except OSError:
                sock.close()
                return
        with self.lock:
            link = Link(self, sock, len(self.links) + 1)
            self.links.append(link)
        link.serve()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for link in self.links:
                link.close()

    __enter__ = lambda self: self

    def __exit__(self, *_):
        self.close()

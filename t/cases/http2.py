# SPDX-License-Identifier: BSD-2-Clause
"""What clients of HTTP/2 may and may not send, and what becomes of it: RFC 9113, 3 to 8, RFC 7541 and RFC 9218.

Each case is a function that takes a peer (t/system/h2_peer.py, greeted), sends, and returns the stream in question, if
there is one. What must come of it:

    conn(ERROR, ...)     the connection ends with GOAWAY and one of these errors
    stream(ERROR)        the stream is reset with this error, the connection goes on
    either(ERROR)        one of both
    answered(STATUS)     the stream gets this response, the connection goes on
    fine                 nothing happens, the connection goes on; a stream that is returned is answered 200
"""
import collections
import struct

ERRORS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
          "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"]
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM, ACK, END_HEADERS, PADDED, PRIO = 1, 1, 4, 8, 32
NAMES = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
         "CONTINUATION"]

Case = collections.namedtuple("Case", "section name expect send greeted")
CASES = []
fine = ("fine",)


def conn(*errors):
    return ("conn", *errors)


def stream(error):
    return ("stream", error)


def either(error):
    return ("either", error)


def answered(status):
    return ("answered", status)


def add(section, name, expect, send, greeted=True):
    assert name not in {case.name for case in CASES if case.section == section}, name
    CASES.append(Case(section, name, expect, send, greeted))


def case(section, name, expect, greeted=True):
    def decorate(function):
        add(section, name, expect, function, greeted)
        return function
    return decorate


def raw(kind, flags=0, stream_id=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def u32(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def setting(name, value):
    return struct.pack(">HI", name, value)


def literal(name, value):
    """A field as a literal that is not kept (RFC 7541, 6.2.2), however wrong it is."""
    def text(data):
        data = data if isinstance(data, bytes) else data.encode("latin-1")
        assert len(data) < 127
        return bytes([len(data)]) + data
    return b"\0" + text(name) + text(value)


def fields(*more, method="GET", scheme="http", path="/", authority="h", drop=()):
    """A request's fields in order, for literals()."""
    head = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    return [field for field in head if field[0] not in drop] + list(more)


def literals(all_fields):
    return b"".join(literal(name, value) for name, value in all_fields)


def head(p, all_fields, end=True):
    stream_id = p.id()
    p.write(raw(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, literals(all_fields)))
    return stream_id


def begun(p):
    """A request whose body is still to come."""
    return head(p, fields(method="POST"), end=False)


def finished(p):
    """A stream that is over on both sides."""
    stream_id = p.request()
    p.answer(stream_id)
    return stream_id


def send(*frames):
    return lambda p: p.write(b"".join(frames))


# ---- 3.4: the preface

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
add("3.4", "the first frame is no SETTINGS", conn("PROTOCOL_ERROR"), send(PREFACE, raw(PING, 0, 0, bytes(8))), False)
add("3.4", "the first frame is an acknowledgement of SETTINGS", conn("PROTOCOL_ERROR"),
    send(PREFACE, raw(SETTINGS, ACK)), False)
add("3.4", "the first frame is HEADERS", conn("PROTOCOL_ERROR"), send(PREFACE, raw(HEADERS, 5, 1, literals(fields()))),
    False)


@case("3.4", "a request right behind the preface", fine, False)
def _(p):
    p.write(PREFACE + raw(SETTINGS) + raw(HEADERS, 5, p.id(), literals(fields())))
    return 1


# ---- 4.1: frame format

@case("4.1", "frames of unknown types are passed over", fine)
def _(p):
    p.write(raw(0x77, 0xff, 0, b"whatever") + raw(0xfe, 0, 5, b""))
    return p.request()


@case("4.1", "a frame of an unknown type on a stream", fine)
def _(p):
    stream_id = begun(p)
    p.write(raw(0x42, 1, stream_id, b"x") + raw(DATA, 1, stream_id, b"y"))
    return stream_id


@case("4.1", "flags without a meaning are passed over", fine)
def _(p):
    stream_id = begun(p)
    p.write(raw(DATA, 0xf6 & ~PADDED, stream_id, b"y") + raw(DATA, 0x01 | 0x40, stream_id) +
            raw(PING, 0xf0, 0, bytes(8)))
    return stream_id


@case("4.1", "the reserved bit is passed over", fine)
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 5, stream_id | 1 << 31, literals(fields())))
    return stream_id


# ---- 4.2: frame size

@case("4.2", "DATA of the largest size", fine)
def _(p):
    stream_id = begun(p)
    p.write(raw(DATA, 1, stream_id, b"x" * 16384))
    return stream_id


@case("4.2", "DATA beyond the largest size", conn("FRAME_SIZE_ERROR"))
def _(p):
    p.write(raw(DATA, 1, begun(p), b"x" * 16385))


@case("4.2", "HEADERS beyond the largest size", conn("FRAME_SIZE_ERROR"))
def _(p):
    p.write(raw(HEADERS, 5, p.id(), b"\0" * 16385))


@case("4.2", "a frame of an unknown type beyond the largest size", conn("FRAME_SIZE_ERROR"))
def _(p):
    p.write(raw(0x55, 0, 0, b"x" * 16385))


for kind, sizes in ((PRIORITY, (0, 4, 6)), (RST_STREAM, (0, 3, 5)), (WINDOW_UPDATE, (0, 3, 5)), (PING, (0, 7, 9)),
                    (SETTINGS, (1, 5, 7)), (GOAWAY, (0, 7))):
    for size in sizes:
        on_stream = kind in (PRIORITY, RST_STREAM, WINDOW_UPDATE)
        # RFC 9113, 6.3: of a PRIORITY frame it is the stream's error; nghttp2 and we end the connection, as 4.2 allows.
        add("4.2", f"{NAMES[kind]} of {size} bytes", conn("FRAME_SIZE_ERROR"),
            lambda p, kind=kind, size=size, on_stream=on_stream:
            p.write(raw(kind, 0, begun(p) if on_stream else 0, bytes(size))))
add("4.2", "an acknowledgement of SETTINGS with content", conn("FRAME_SIZE_ERROR"),
    send(raw(SETTINGS, ACK, 0, setting(4, 1))))
add("4.2", "WINDOW_UPDATE of the connection of 3 bytes", conn("FRAME_SIZE_ERROR"),
    send(raw(WINDOW_UPDATE, 0, 0, bytes(3))))

# ---- 4.3: field blocks, RFC 7541


@case("4.3", "a frame between HEADERS and CONTINUATION", conn("PROTOCOL_ERROR"))
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 1, stream_id, literals(fields())) + raw(PING, 0, 0, bytes(8)))


@case("4.3", "a frame of another stream between HEADERS and CONTINUATION", conn("PROTOCOL_ERROR"))
def _(p):
    other, stream_id = begun(p), p.id()
    p.write(raw(HEADERS, 1, stream_id, literals(fields())) + raw(DATA, 0, other, b"x"))


@case("4.3", "a frame of an unknown type between HEADERS and CONTINUATION", conn("PROTOCOL_ERROR"))
def _(p):
    p.write(raw(HEADERS, 1, p.id(), literals(fields())) + raw(0x99, 0, 0, b"x"))


@case("4.3", "CONTINUATION of another stream", conn("PROTOCOL_ERROR"))
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 1, stream_id, literals(fields())) + raw(CONTINUATION, 4, stream_id + 2, literal("a", "b")))


@case("4.3", "a head over three frames", fine)
def _(p):
    stream_id, block = p.id(), literals(fields(("x-a", "1")))
    p.write(raw(HEADERS, 1, stream_id, block[:5]) + raw(CONTINUATION, 0, stream_id, block[5:9]) +
            raw(CONTINUATION, 4, stream_id, block[9:]))
    return stream_id


@case("4.3", "trailers over two frames", fine)
def _(p):
    stream_id, block = begun(p), literal("x-a", "1") + literal("x-b", "2")
    p.write(raw(HEADERS, 1, stream_id, block[:5]) + raw(CONTINUATION, 4, stream_id, block[5:]))
    return stream_id


for name, block in {
        "an index of 0": b"\x80",
        "an index beyond the tables": b"\xff\x80\x01",
        "the first index of an empty table": b"\xbe",
        "a literal with a name beyond the tables": b"\x7f\x80\x01\x01a",
        "an integer that overflows": b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "a string that is cut off": b"\x00\x05ab",
        "a field that is cut off": b"\x00",
        "an integer that is cut off": b"\xff\xff",
        "Huffman code with eight bits of padding": b"\x00\x82\x1f\xff\x01a",
        "Huffman code whose padding is not all ones": b"\x00\x81\x18\x01a",
        "Huffman code with the end of string": b"\x00\x84\xff\xff\xff\xff\x01a",
        "a table larger than allowed": b"\x3f\xe2\x1f" + literals(fields()),
        "a change of the table's size behind a field": literals(fields()) + b"\x20",
        "a change of the table's size that overflows": b"\x3f\xff\xff\xff\xff\xff\x0f",
}.items():
    add("RFC 7541", name, conn("COMPRESSION_ERROR"), lambda p, block=block: p.write(raw(HEADERS, 5, p.id(), block)))


@case("RFC 7541", "a head that is coded wrongly in a frame to come", conn("COMPRESSION_ERROR"))
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 1, stream_id, literals(fields())) + raw(CONTINUATION, 4, stream_id, b"\x80"))


@case("RFC 7541", "trailers that are coded wrongly", conn("COMPRESSION_ERROR"))
def _(p):
    p.write(raw(HEADERS, 5, begun(p), b"\x80"))


@case("RFC 7541", "changes of the table's size before the fields", fine)
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 5, stream_id, b"\x20\x3f\xe1\x1f" + literals(fields())))
    return stream_id


@case("RFC 7541", "a field is kept and named by its index", fine)
def _(p):
    first, second = p.id(), p.id()
    p.write(raw(HEADERS, 5, first, literals(fields()) + b"\x40\x03x-a\x01b") +
            raw(HEADERS, 5, second, literals(fields()) + b"\xbe"))
    return second


@case("RFC 7541", "what a malformed request had kept is known afterwards", fine)
def _(p):
    first, second = p.id(), p.id()
    p.write(raw(HEADERS, 5, first, literals(fields(("Upper", "x"))) + b"\x40\x03x-a\x01b") +
            raw(HEADERS, 5, second, literals(fields()) + b"\xbe"))
    return second


@case("RFC 7541", "fields in Huffman code", fine)
def _(p):
    return p.request(headers=[("x-long", "abcdefghijklmnopqrstuvwxyz" * 10), ("never", "kept")])


@case("RFC 7541", "fields that are never to be kept", fine)
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 5, stream_id, literals(fields()) + b"\x10\x01a\x01b"))
    return stream_id


# ---- 5.1: states of streams

for kind, payload in ((DATA, b"x"), (RST_STREAM, u32(8)), (WINDOW_UPDATE, u32(1)), (CONTINUATION, b"")):
    add("5.1", f"{NAMES[kind]} on an idle stream", conn("PROTOCOL_ERROR"),
        lambda p, kind=kind, payload=payload: p.write(raw(kind, 4 if kind == CONTINUATION else 0, p.id(), payload)))
    if kind == RST_STREAM:
        continue
    add("5.1", f"{NAMES[kind]} on an idle stream above one that is open", conn("PROTOCOL_ERROR"),
        lambda p, kind=kind, payload=payload:
        p.write(raw(kind, 4 if kind == CONTINUATION else 0, begun(p) + 2, payload)))
for kind, payload in ((DATA, b"x"), (HEADERS, literals(fields()))):
    add("5.1", f"{NAMES[kind]} behind END_STREAM, unanswered", conn("STREAM_CLOSED"),
        lambda p, kind=kind, payload=payload: p.write(raw(HEADERS, 5, 1, literals(fields(path="/slow"))) +
                                                      raw(kind, 5, 1, payload)))
    add("5.1", f"{NAMES[kind]} on a stream that is over", conn("STREAM_CLOSED"),
        lambda p, kind=kind, payload=payload: p.write(raw(kind, 5, finished(p), payload)))
    add("5.1", f"{NAMES[kind]} on a stream that the client has reset", conn("STREAM_CLOSED"),
        lambda p, kind=kind, payload=payload: (lambda s: p.write(raw(RST_STREAM, 0, s, u32(8)) +
                                                                 raw(kind, 5, s, payload)))(begun(p)))
add("5.1", "CONTINUATION on a stream that is over", conn("PROTOCOL_ERROR", "STREAM_CLOSED"),
    lambda p: p.write(raw(CONTINUATION, 4, finished(p), b"")))
for kind, payload in ((WINDOW_UPDATE, u32(5)), (RST_STREAM, u32(8)), (PRIORITY, u32(0) + b"\x10")):
    add("5.1", f"{NAMES[kind]} on a stream that is over", fine,
        lambda p, kind=kind, payload=payload: p.write(raw(kind, 0, finished(p), payload)))
add("5.1", "PRIORITY on an idle stream", fine, lambda p: p.write(raw(PRIORITY, 0, 9, u32(0) + b"\x10")))


@case("5.1", "what was under way when a stream was reset is passed over", fine)
def _(p):
    stream_id = head(p, fields(("Upper", "x"), method="POST"), end=False)
    p.write(raw(DATA, 0, stream_id, b"x") + raw(HEADERS, 5, stream_id, literal("x-a", "b")))
    p.until(lambda: p.answers[stream_id].reset is not None)
    p.write(raw(DATA, 0, stream_id, b"x") + raw(HEADERS, 5, stream_id, literal("x-a", "b")) +
            raw(WINDOW_UPDATE, 0, stream_id, u32(1)))


# ---- 5.1.1: stream identifiers

add("5.1.1", "a request on an even stream", conn("PROTOCOL_ERROR"),
    lambda p: p.write(raw(HEADERS, 5, 2, literals(fields()))))
add("5.1.1", "a request on stream 0", conn("PROTOCOL_ERROR"), lambda p: p.write(raw(HEADERS, 5, 0, literals(fields()))))


@case("5.1.1", "a request on a lower stream than the last", conn("PROTOCOL_ERROR"))
def _(p):
    p.write(raw(HEADERS, 5, 7, literals(fields())) + raw(HEADERS, 5, 5, literals(fields())))


@case("5.1.1", "streams may be left out", fine)
def _(p):
    p.next = 1001
    return p.request()


@case("5.1.1", "DATA on a stream that was left out", conn("STREAM_CLOSED", "PROTOCOL_ERROR"))
def _(p):
    p.next = 7
    finished(p)
    p.write(raw(DATA, 1, 3, b"x"))


# ---- 5.3: priority as of RFC 7540 is taken no notice of

@case("5.3", "a request that depends on itself", fine)
def _(p):
    stream_id = p.id()
    # RFC 9113, 5.3.2 has done away with it: nghttp2 still calls this an error, of the connection or none.
    p.write(raw(HEADERS, 5 | PRIO, stream_id, u32(0) + b"\x0f" + literals(fields())))
    return stream_id


add("5.3", "PRIORITY on stream 0", conn("PROTOCOL_ERROR"), send(raw(PRIORITY, 0, 0, u32(1) + b"\1")))


# ---- 6.1: DATA

add("6.1", "DATA on stream 0", conn("PROTOCOL_ERROR"), send(raw(DATA, 1, 0, b"x")))


@case("6.1", "padding as long as the frame", conn("PROTOCOL_ERROR"))
def _(p):
    p.write(raw(DATA, 1 | PADDED, begun(p), b"\x06abcde"))


@case("6.1", "padding longer than the frame", conn("PROTOCOL_ERROR"))
def _(p):
    p.write(raw(DATA, 1 | PADDED, begun(p), b"\xffab"))


@case("6.1", "padded DATA without a byte", conn("PROTOCOL_ERROR", "FRAME_SIZE_ERROR"))
def _(p):
    p.write(raw(DATA, 1 | PADDED, begun(p), b""))


@case("6.1", "padding", fine)
def _(p):
    stream_id = begun(p)
    p.write(raw(DATA, PADDED, stream_id, b"\x03ab\0\0\0") + raw(DATA, 1 | PADDED, stream_id, b"\x01\0"))
    return stream_id


@case("6.1", "padding counts towards the windows, which are given back", fine)
def _(p):
    stream_id = begun(p)
    for _ in range(40):
        p.write(raw(DATA, PADDED, stream_id, b"\xff" + b"x" * 7000 + bytes(255)))
        p.ping()
        p.until(lambda: p.window + 65535 > 20000)
    p.write(raw(DATA, 1, stream_id))
    return stream_id


# ---- 6.2: HEADERS

@case("6.2", "padding longer than the frame", conn("PROTOCOL_ERROR"))
def _(p):
    p.write(raw(HEADERS, 5 | PADDED, p.id(), b"\xff" + literals(fields())))


@case("6.2", "padding and priority", fine)
def _(p):
    stream_id = p.id()
    p.write(raw(HEADERS, 5 | PADDED | PRIO, stream_id, b"\x04" + u32(0) + b"\x0f" + literals(fields()) + bytes(4)))
    return stream_id


@case("6.2", "too short for its priority", conn("FRAME_SIZE_ERROR", "PROTOCOL_ERROR"))
def _(p):
    p.write(raw(HEADERS, 5 | PRIO, p.id(), b"\0\0\0"))


# ---- 6.4 to 6.10

add("6.4", "RST_STREAM on stream 0", conn("PROTOCOL_ERROR"), send(raw(RST_STREAM, 0, 0, u32(8))))


@case("6.4", "RST_STREAM with an error that nobody knows", fine)
def _(p):
    p.write(raw(RST_STREAM, 0, begun(p), u32(0xdeadbeef)))


add("6.5", "SETTINGS on a stream", conn("PROTOCOL_ERROR"), lambda p: p.write(raw(SETTINGS, 0, begun(p))))
add("6.5", "SETTINGS are acknowledged", fine,
    lambda p: (p.write(raw(SETTINGS, 0, 0, setting(3, 50))), p.until(lambda: p.acked >= 2))[0])
add("6.5", "an acknowledgement that nobody waits for", conn("PROTOCOL_ERROR"),
    lambda p: (p.until(lambda: p.settings), p.ping(), p.write(raw(SETTINGS, ACK)))[2])
for name, number, value, error in (
        ("ENABLE_PUSH of 2", 2, 2, "PROTOCOL_ERROR"),
        ("INITIAL_WINDOW_SIZE beyond 31 bits", 4, 1 << 31, "FLOW_CONTROL_ERROR"),
        ("MAX_FRAME_SIZE below 16384", 5, 16383, "PROTOCOL_ERROR"),
        ("MAX_FRAME_SIZE beyond 24 bits", 5, 1 << 24, "PROTOCOL_ERROR"),
        ("NO_RFC7540_PRIORITIES of 2", 9, 2, "PROTOCOL_ERROR")):
    add("6.5.2", name, conn(error), send(raw(SETTINGS, 0, 0, setting(number, value))))
for name, number, value in (("ENABLE_PUSH of 0", 2, 0), ("MAX_FRAME_SIZE of 24 bits", 5, (1 << 24) - 1),
                            ("INITIAL_WINDOW_SIZE of 31 bits", 4, (1 << 31) - 1), ("HEADER_TABLE_SIZE of 0", 1, 0),
                            ("HEADER_TABLE_SIZE of 32 bits", 1, (1 << 32) - 1), ("MAX_CONCURRENT_STREAMS of 0", 3, 0),
                            ("MAX_HEADER_LIST_SIZE of 1", 6, 1), ("a setting that nobody knows", 0x99, 5)):
    add("6.5.2", name, fine, lambda p, n=number, v=value: (p.write(raw(SETTINGS, 0, 0, setting(n, v))), p.request())[1])
add("6.5.2", "the last of several values counts", fine,
    lambda p: (p.write(raw(SETTINGS, 0, 0, setting(4, 0) + setting(4, 70000))), p.request())[1])


@case("6.5.3", "a window that becomes negative and open again", fine)
def _(p):
    p.windows = False
    p.write(raw(SETTINGS, 0, 0, setting(4, 1)))
    stream_id = p.request()
    p.until(lambda: p.answers[stream_id].body == b"o")
    p.write(raw(SETTINGS, 0, 0, setting(4, 0)) + raw(WINDOW_UPDATE, 0, stream_id, u32(1)))
    p.ping()
    assert p.answers[stream_id].body == b"o"
    p.write(raw(SETTINGS, 0, 0, setting(4, 65535)))
    return stream_id


add("6.6", "PUSH_PROMISE by a client", conn("PROTOCOL_ERROR"),
    lambda p: p.write(raw(PUSH_PROMISE, 4, begun(p), u32(2) + literals(fields()))))
add("6.6", "PUSH_PROMISE on stream 0", conn("PROTOCOL_ERROR"),
    send(raw(PUSH_PROMISE, 4, 0, u32(2) + literals(fields()))))
add("6.7", "PING on a stream", conn("PROTOCOL_ERROR"), lambda p: p.write(raw(PING, 0, begun(p), bytes(8))))
add("6.7", "PING is answered", fine, lambda p: (p.ping(), None)[1])
add("6.7", "an answer to no PING is passed over", fine,
    lambda p: (p.write(raw(PING, ACK, 0, b"nothing.")), p.ping(), None)[2])
add("6.8", "GOAWAY on a stream", conn("PROTOCOL_ERROR"), lambda p: p.write(raw(GOAWAY, 0, begun(p), u32(0, 0))))


@case("6.8", "GOAWAY, and a request that is still to be answered", fine)
def _(p):
    stream_id = p.request("/slow")
    p.write(raw(GOAWAY, 0, 0, u32(0, 0) + b"bye"))
    p.stays = False
    return stream_id


add("6.9", "WINDOW_UPDATE of 0", conn("PROTOCOL_ERROR"), send(raw(WINDOW_UPDATE, 0, 0, u32(0))))


# A stream's error, which nghttp2 takes for the connection's, as 5.4.1 allows.
add("6.9", "WINDOW_UPDATE of 0 on a stream", conn("PROTOCOL_ERROR"),
    lambda p: p.write(raw(WINDOW_UPDATE, 0, begun(p), u32(0))))


add("6.9.1", "the connection's window beyond 31 bits", conn("FLOW_CONTROL_ERROR"),
    send(raw(WINDOW_UPDATE, 0, 0, u32((1 << 31) - 1))))


@case("6.9.1", "a stream's window beyond 31 bits", stream("FLOW_CONTROL_ERROR"))
def _(p):
    stream_id = begun(p)
    p.write(raw(WINDOW_UPDATE, 0, stream_id, u32((1 << 31) - 1)))
    return stream_id


@case("6.9.1", "DATA beyond the stream's window", either("FLOW_CONTROL_ERROR"))
def _(p):
    p.until(lambda: p.settings and p.window)
    stream_id = head(p, fields(method="POST", path="/held"), end=False)
    for _ in range(0, p.settings[4] + 16384, 16384):
        p.write(raw(DATA, 0, stream_id, b"x" * 16384))
    return stream_id


# The connection's error, which nghttp2 takes for the stream's.
@case("6.9.2", "a change of the first window that passes 31 bits", either("FLOW_CONTROL_ERROR"))
def _(p):
    stream_id = begun(p)
    p.write(raw(WINDOW_UPDATE, 0, stream_id, u32((1 << 31) - 1 - 65535)) +
            raw(SETTINGS, 0, 0, setting(4, 65536)))
    return stream_id


@case("6.9.2", "a window of 0 holds the content back, not the head", fine)
def _(p):
    p.windows = False
    p.write(raw(SETTINGS, 0, 0, setting(4, 0)))
    stream_id = p.request()
    p.until(lambda: p.answers[stream_id].headers)
    p.ping()
    assert not p.answers[stream_id].body
    p.write(raw(WINDOW_UPDATE, 0, stream_id, u32(1)))
    p.until(lambda: p.answers[stream_id].body)
    assert p.answers[stream_id].body == b"o"
    p.write(raw(WINDOW_UPDATE, 0, stream_id, u32(10)) + raw(SETTINGS, 0, 0, setting(4, 65535)))
    return stream_id


add("6.10", "CONTINUATION behind END_HEADERS", conn("PROTOCOL_ERROR"),
    lambda p: p.write(raw(CONTINUATION, 4, begun(p), literal("a", "b"))))
add("6.10", "CONTINUATION on stream 0", conn("PROTOCOL_ERROR"), send(raw(CONTINUATION, 4, 0, literal("a", "b"))))
add("6.10", "CONTINUATION behind DATA", conn("PROTOCOL_ERROR"),
    lambda p: (lambda s: p.write(raw(DATA, 0, s, b"x") + raw(CONTINUATION, 4, s, b"")))(begun(p)))

# ---- 8.1: messages

@case("8.1", "trailers", fine)
def _(p):
    stream_id = begun(p)
    p.write(raw(DATA, 0, stream_id, b"x") + raw(HEADERS, 5, stream_id, literal("x-sum", "1")))
    return stream_id


@case("8.1", "trailers without END_STREAM", stream("PROTOCOL_ERROR"))
def _(p):
    stream_id = begun(p)
    p.write(raw(HEADERS, 4, stream_id, literal("x-sum", "1")))
    return stream_id


for name, value in ((":method", "GET"), (":status", "200"), ("Upper", "1"), ("content-length", "5"), ("host", "h"),
                    ("transfer-encoding", "chunked"), ("connection", "close"), ("te", "gzip")):
    @case("8.1", f"a trailer field {name}", stream("PROTOCOL_ERROR"))
    def _(p, name=name, value=value):
        stream_id = begun(p)
        p.write(raw(HEADERS, 5, stream_id, literal(name, value)))
        return stream_id

for name, length, pieces in (("shorter than Content-Length", 5, [b"abc"]), ("longer than Content-Length", 2, [b"abc"]),
                             ("longer, over frames", 4, [b"abc", b"de"]),
                             ("none where Content-Length has some", 3, [b""]),
                             ("some where Content-Length has none", 0, [b"x"])):
    @case("8.1.1", f"content {name}", stream("PROTOCOL_ERROR"))
    def _(p, length=length, pieces=pieces):
        stream_id = p.id()  # all in one piece: an origin that expects nothing may answer before it comes
        block = literals(fields(("content-length", str(length)), method="POST"))
        p.write(raw(HEADERS, 4, stream_id, block) +
                b"".join(raw(DATA, 1 if i == len(pieces) - 1 else 0, stream_id, piece)
                         for i, piece in enumerate(pieces)))
        return stream_id

add("8.1.1", "Content-Length and no content at all", stream("PROTOCOL_ERROR"),
    lambda p: head(p, fields(("content-length", "3"), method="POST")))
add("8.1.1", "content as long as Content-Length", fine,
    lambda p: p.request(method="POST", headers=[("content-length", "3")], body=b"abc"))
add("8.1.1", "Content-Length of 0 and no content", fine,
    lambda p: head(p, fields(("content-length", "0"), method="POST")))
for value in ("+3", "-1", "3,3", "0x3", "", "3 3", "99999999999999999999999"):
    add("8.1.1", f"Content-Length of {value!r}", stream("PROTOCOL_ERROR"),
        lambda p, value=value: head(p, fields(("content-length", value), method="POST"), end=False))
add("8.1.1", "Content-Length twice", stream("PROTOCOL_ERROR"),
    lambda p: head(p, fields(("content-length", "3"), ("content-length", "3"), method="POST"), end=False))
for name, what in ((":status", "a response's pseudo-field"), (":unknown", "an unknown pseudo-field"),
                   (":", "a colon alone"), (":Method", "a pseudo-field in upper case")):
    add("8.3", what, stream("PROTOCOL_ERROR"),
        lambda p, name=name: head(p, fields()[:3] + [(name, "200")] + fields()[3:]))

# ---- 8.2: fields

for name in ("Upper", "x-mixEd", "", "a b", "a\tb", "a:b", "a\0b", "a\rb", "a\nb", "a\x7fb", "a\x80b", "a(b", "a\"b"):
    add("8.2.1", f"a field named {name!r}", stream("PROTOCOL_ERROR"), lambda p, name=name: head(p, fields((name, "v"))))
for value in ("a\0b", "a\rb", "a\nb", "a\r\nb: c", " a", "a ", "\ta", "a\t", "a\x01b", "a\x7fb"):
    add("8.2.1", f"a field of value {value!r}", stream("PROTOCOL_ERROR"),
        lambda p, value=value: head(p, fields(("x-a", value))))
for value in ("", "a b", "a\tb", "\x80\xff", "\"quoted\""):
    add("8.2.1", f"a field of value {value!r}", fine, lambda p, value=value: head(p, fields(("x-a", value))))
for name, value in (("connection", "close"), ("connection", "x-a"), ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "identity"), ("upgrade", "websocket"), ("te", "gzip"),
                    ("te", "trailers, deflate")):
    add("8.2.2", f"{name}: {value}", stream("PROTOCOL_ERROR"), lambda p, f=(name, value): head(p, fields(f)))
add("8.2.2", "te: trailers", fine, lambda p: head(p, fields(("te", "trailers"))))
add("8.2.3", "several Cookie fields", fine, lambda p: head(p, fields(("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"))))

# ---- 8.3: pseudo-fields

add("8.3", "a pseudo-field behind a field", stream("PROTOCOL_ERROR"),
    lambda p: head(p, [("x-a", "b"), *fields()]))
add("8.3", "a pseudo-field behind a field that is malformed", stream("PROTOCOL_ERROR"),
    lambda p: head(p, [*fields()[:3], ("x(a", "b"), *fields()[3:]]))
for name in (":method", ":scheme", ":path"):
    add("8.3.1", f"no {name}", stream("PROTOCOL_ERROR"), lambda p, name=name: head(p, fields(drop=name)))
for name, value in fields():
    add("8.3.1", f"{name} twice", stream("PROTOCOL_ERROR"), lambda p, f=(name, value): head(p, [f, *fields()]))
    add("8.3.1", f"{name} is empty", stream("PROTOCOL_ERROR"),
        lambda p, name=name: head(p, [(key, "" if key == name else value) for key, value in fields()]))
add("8.3.1", "neither :authority nor Host", stream("PROTOCOL_ERROR"), lambda p: head(p, fields(drop=":authority")))
add("8.3.1", "Host without :authority", fine, lambda p: head(p, fields(("host", "h"), drop=":authority")))
add("8.3.1", "Host as :authority", fine, lambda p: head(p, fields(("host", "h"))))
add("8.3.1", "Host in upper case as :authority", fine, lambda p: head(p, fields(("host", "H"))))
add("8.3.1", "Host other than :authority", stream("PROTOCOL_ERROR"), lambda p: head(p, fields(("host", "other"))))
add("8.3.1", "Host twice", stream("PROTOCOL_ERROR"), lambda p: head(p, fields(("host", "h"), ("host", "h"))))
for authority in ("user@h", "user:secret@h", "h/path", "h h", "h?", "h#", "h\0"):
    add("8.3.1", f":authority of {authority!r}", stream("PROTOCOL_ERROR"),
        lambda p, authority=authority: head(p, fields(authority=authority)))
for authority in ("h:", "h:99999", "h:x", "[::1", "h,g", "h%20"):
    add("8.3.1", f":authority of {authority!r}", answered(200 if authority == "h:" else 400),
        lambda p, authority=authority: head(p, fields(authority=authority)))
for path in ("a", "http://h/", "/a b", "/a\0", "/a\rb", "/a\nb", "/\x7f", "*", "?a"):
    add("8.3.1", f":path of {path!r}", stream("PROTOCOL_ERROR"), lambda p, path=path: head(p, fields(path=path)))
for path in ("/%00", "/%zz", "/a/../../b", "/\x80", "/a\"b", "/a#b"):
    add("8.3.1", f":path of {path!r}", answered(400), lambda p, path=path: head(p, fields(path=path)))
add("8.3.1", "OPTIONS *", fine, lambda p: head(p, fields(method="OPTIONS", path="*")))
add("8.3.1", "a scheme that is not HTTP's", answered(400), lambda p: head(p, fields(scheme="ftp")))
for method in ("GET ", "G ET", "G\0", "GET\r\n"):
    add("8.3.1", f":method of {method!r}", stream("PROTOCOL_ERROR"),
        lambda p, method=method: head(p, fields(method=method)))
add("8.3.1", "a method that nobody knows", fine, lambda p: head(p, fields(method="BREW")))
add("8.3.1", "a method of 100 letters", answered(501), lambda p: head(p, fields(method="M" * 100)))

# ---- 8.5: CONNECT

add("8.5", "CONNECT", answered(501),
    lambda p: head(p, fields(method="CONNECT", authority="h:1", drop=(":scheme", ":path"))))
add("8.5", "CONNECT with a path", stream("PROTOCOL_ERROR"),
    lambda p: head(p, fields(method="CONNECT", authority="h:1")))
add("8.5", "CONNECT without :authority", stream("PROTOCOL_ERROR"), lambda p: head(p, [(":method", "CONNECT")]))

# ---- RFC 8441: extended CONNECT

for name, expect, more in (
        (":protocol that is not known", answered(501), [(":protocol", "connect-udp")]),
        (":protocol twice", stream("PROTOCOL_ERROR"), [(":protocol", "websocket"), (":protocol", "websocket")]),
        (":protocol is empty", stream("PROTOCOL_ERROR"), [(":protocol", "")])):
    add("RFC 8441", name, expect, lambda p, more=more: head(p, fields(method="CONNECT")[:4] + more, end=False))
add("RFC 8441", ":protocol without CONNECT", stream("PROTOCOL_ERROR"),
    lambda p: head(p, [*fields(), (":protocol", "websocket")]))
add("RFC 8441", ":protocol without a path", stream("PROTOCOL_ERROR"),
    lambda p: head(p, [*fields(method="CONNECT", drop=":path"), (":protocol", "websocket")], end=False))
add("RFC 8441", "a tunnel that has ended", answered(400),
    lambda p: head(p, [*fields(method="CONNECT"), (":protocol", "websocket")]))
add("RFC 8441", "a tunnel with Content-Length", answered(400),
    lambda p: head(p, [*fields(method="CONNECT"), (":protocol", "websocket"), ("content-length", "5")], end=False))
add("RFC 8441", "a server that does not agree", answered(502),
    lambda p: head(p, [*fields(method="CONNECT"), (":protocol", "websocket")], end=False))

# ---- what HTTP/1 behind us could read in another way

for name in ("content_length", "transfer_encoding", "transfer-encodinG"):
    add("10.3", f"a field named {name}", stream("PROTOCOL_ERROR") if name[-1] == "G" else answered(400),
        lambda p, name=name: head(p, fields((name, "5"))))
add("10.3", "a field value with the end of a line and a request behind", stream("PROTOCOL_ERROR"),
    lambda p: head(p, fields(("x-a", "b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"))))

# SPDX-License-Identifier: BSD-2-Clause
"""The table of requests in t/cases/requests.py, against a moongate with an origin that records what it gets:
what is refused reaches nobody, nor does what follows it; what passes arrives in one canonical form. A second
parser (h11) reads what arrived and must see the one message that was meant. Each case is sent whole, in
pieces and byte by byte."""
import contextlib
import importlib.util
import random
import re
import socket
import threading

import h11
import pytest

from conftest import SRCDIR, eventually

spec = importlib.util.spec_from_file_location("request_cases", SRCDIR / "t/cases/requests.py")
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


class Message:
    """A request as h11 reads it, with the bytes that it was."""

    def __init__(self, raw, head, body, trailers):
        self.raw = raw
        self.method, self.target, self.fields = head.method, head.target, sorted(head.headers)
        self.host = dict(head.headers).get(b"host")
        self.body = body
        self.trailers = sorted(trailers)

    def meant(self):
        """What must not depend on how the request came in pieces."""
        return self.method, self.target, self.host, self.body, self.fields, self.trailers


class Reader:
    """Reads messages off bytes; each is given to `take`."""

    def __init__(self, take):
        self.take = take
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self.raw = b""
        self.head, self.body = None, b""

    def feed(self, data):
        self.raw += data
        self.parser.receive_data(data)
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                self.head, self.body = event, b""
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                rest = self.parser.trailing_data[0]
                raw, self.raw = self.raw[:len(self.raw) - len(rest)], rest
                close = self.take(Message(raw, self.head, self.body, event.headers))
                self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
                self.head = None
                if close or not rest:
                    return
                self.parser.receive_data(rest)
            else:
                return


def read_messages(data):
    """The messages that h11 finds; None where it refuses."""
    found = []
    try:
        Reader(found.append).feed(data)
    except h11.RemoteProtocolError:
        return None
    return found


class Recorder:
    """An origin: answers 200 to each whole message. messages: those; pending(): bytes of others."""

    def __init__(self):
        self.messages, self.errors, self.readers = [], [], []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        def answer(message):
            self.messages.append(message)
            body = b"" if message.method == b"HEAD" else b"ok"
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)

        reader = Reader(answer)
        self.readers.append(reader)
        with contextlib.suppress(OSError), client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := client.recv(65536):
                try:
                    reader.feed(data)
                except h11.RemoteProtocolError as error:
                    self.errors.append((error, reader.raw))
                    break

    def pending(self):
        return [reader.raw for reader in self.readers if reader.raw]

    def forget(self):
        self.messages.clear()
        self.readers = [reader for reader in self.readers if not reader.raw]

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def recorder():
    one = Recorder()
    yield one
    one.close()


@pytest.fixture
def gate(moongate, recorder):
    return moongate(f"upstream app {{ server {recorder.address}; }}", "route / app;", level="warn",
                    connections=2048)


def read_to_end(s):
    got = b""
    try:
        while data := s.recv(65536):
            got += data
    except ConnectionResetError:
        got += b"<reset>"
    except TimeoutError:
        got += b"<open>"
    return got


def statuses(got):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


def check_refused(name, status, got):
    assert statuses(got) == [status], f"{name}: {got[:300]}"
    head = got.partition(b"\r\n\r\n")[0].lower()
    closed = not got.endswith((b"<open>", b"<reset>"))
    assert b"\r\nconnection: close" in head and closed, f"{name}: {got[:300]}"


def check_reached(gate, recorder):
    """Another request is the one message that the origin got, which means that nothing else did before it."""
    assert gate.get("/last").status == 200
    assert [message.target for message in recorder.messages] == [b"/last"], \
        [message.raw for message in recorder.messages]
    assert not recorder.errors, recorder.errors
    recorder.forget()


def test_there_are_cases_enough():
    assert len(cases.REFUSED) + len(cases.BROKEN) >= 250 and len(cases.PASSED) >= 60


@pytest.mark.parametrize("table", ["REFUSED", "BROKEN"])
def test_what_is_refused_reaches_nobody(gate, recorder, table):
    for name, (status, data) in getattr(cases, table).items():
        with gate.connect() as s:
            s.sendall(data + SMUGGLED)
            check_refused(name, status, read_to_end(s))
        assert not recorder.messages and not recorder.pending(), (name, recorder.messages, recorder.pending())
    check_reached(gate, recorder)


def read_answers(s, count):
    got = b""
    while len(statuses(got)) < count or not got.endswith((b"ok", b"\r\n\r\n")):
        data = s.recv(65536)
        if not data:
            break
        got += data
    return got


def test_what_passes_arrives_in_one_form(gate, recorder):
    for name, (data, forwarded) in cases.PASSED.items():
        forwarded = forwarded.replace(b"ORIGIN", recorder.address.encode())
        closes = b"HTTP/1.0" in data
        with gate.connect() as s:
            s.sendall(data if closes else data + NEXT)
            got = read_answers(s, 1 if closes else 2)
        assert statuses(got) == [200] * (1 if closes else 2), f"{name}: {got[:300]}"
        assert [message.raw for message in recorder.messages] == [forwarded] + ([] if closes else [NEXT]), \
            f"{name}: {[message.raw for message in recorder.messages]}"
        recorder.messages.clear()
    assert not recorder.errors, recorder.errors


def test_a_second_parser_sees_the_same_message():
    """h11 on what the client sent, where it takes that, and on what is forwarded."""
    seen = 0
    for name, (data, forwarded) in cases.PASSED.items():
        after = read_messages(forwarded)
        assert after and len(after) == 1 and after[0].raw == forwarded, name
        before = read_messages(data)
        if not before:  # stricter than needed about versions, methods or fields
            continue
        seen += 1
        assert len(before) == 1 and before[0].body == after[0].body, name
        assert before[0].method == after[0].method, name
        if not before[0].target.lower().startswith(b"http"):
            assert before[0].target == after[0].target, name
    assert seen > 80


def in_pieces(gate, tables, pieces_of):
    """Sends all cases at the same time, a piece of each in turn: {name: what was answered}."""
    todo = [(name, what[-1] if table != "PASSED" else what[0]) for table in tables
            for name, what in getattr(cases, table).items()]
    todo = [(name, data) for name, data in todo if len(data) < 400]
    answers = {}
    for start in range(0, len(todo), 150):
        batch = []
        for name, data in todo[start:start + 150]:
            s = gate.connect()
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            batch.append((name, s, pieces_of(data)))
        while any(pieces for _, _, pieces in batch):
            for _, s, pieces in batch:
                if pieces:
                    try:
                        s.sendall(pieces.pop(0))
                    except OSError:  # refused in the middle
                        pieces.clear()
        for name, s, _ in batch:
            with s:
                answers[name] = read_answers(s, 1) if "PASSED" in tables else read_to_end(s)
    return answers


def bytes_of(data):
    return [data[i:i + 1] for i in range(len(data))]


def between_cr_and_lf(data):
    return [piece for piece in re.split(rb"(?<=\r)|(?<=[ :;,%0-9])", data) if piece]


@pytest.mark.parametrize("pieces_of", [bytes_of, between_cr_and_lf])
def test_pieces_change_nothing(gate, recorder, pieces_of):
    for table in ("REFUSED", "BROKEN"):
        answers = in_pieces(gate, [table], pieces_of)
        for name, got in answers.items():
            check_refused(name, getattr(cases, table)[name][0], got)
        if table == "REFUSED":
            assert not recorder.messages and not recorder.pending()
        check_reached(gate, recorder)
    answers = in_pieces(gate, ["PASSED"], pieces_of)
    expected = []
    for name, got in answers.items():
        assert statuses(got) == [200], f"{name}: {got[:300]}"
        forwarded = cases.PASSED[name][1].replace(b"ORIGIN", recorder.address.encode())
        expected.append(read_messages(forwarded)[0].meant())
    assert not recorder.errors, recorder.errors
    assert sorted(message.meant() for message in recorder.messages) == sorted(expected)


# ---- neighbours of the cases


def mutants(count):
    """The requests of the table and of the fuzz corpus, each with a few bytes changed where it may hurt."""
    chance = random.Random(2026)
    spice = [bytes([c]) for c in b"\r\n\t \0:;,/%.\\#@?[]()0aAxX+-_\x0b\x7f\x80\xff"] + \
        [b"\r\n", b"\r\n\r\n", b"\r\n ", b"chunked", b"Content-Length: 1\r\n", 
         b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n"]
    known = [what[-1] for table in (cases.REFUSED, cases.BROKEN) for what in table.values()] + \
        [data for data, _ in cases.PASSED.values()] * 12 + \
        [path.read_bytes()[1:] for path in sorted((SRCDIR / "t/fuzz/corpus/request").iterdir())]
    for _ in range(count):
        data = chance.choice(known)
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(data) + 1)
            other = chance.randrange(len(data) + 1)
            piece = chance.choice((chance.choice(spice), b"", data[other:other + chance.randint(1, 8)]))
            data = data[:at] + piece + data[at + chance.choice((0, 0, 1, 1, 2)):]
        yield data


def check_canonical(raw):
    """One request in the one form that is written, byte by byte."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ (/[!-~]*|\*) HTTP/1\.1", lines[0]), raw
    field = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)")
    fields = [field.fullmatch(line) for line in lines[1:]]
    assert all(fields), raw
    names = [field[1].lower() for field in fields]
    assert names.count(b"host") == 1, raw
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, raw
    for name, value in ((field[1].lower(), field[2]) for field in fields):
        assert name != b"host" or re.fullmatch(rb"(\[[0-9a-fA-F:.]+\]|[\w.~-]+)(:\d{0,5})?", value), raw
        assert name != b"transfer-encoding" or value == b"chunked", raw
        if name == b"content-length":
            assert re.fullmatch(rb"0|[1-9]\d*", value) and len(rest) == int(value), raw
    if b"transfer-encoding" in names:
        while size := re.match(rb"([1-9a-f][0-9a-f]*)\r\n", rest):
            end = size.end() + int(size[1], 16)
            assert rest[end:end + 2] == b"\r\n", raw
            rest = rest[end + 2:]
        assert re.fullmatch(rb"0\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n\0]*\r\n)*\r\n", rest), raw
    elif b"content-length" not in names:
        assert not rest, raw


def test_whatever_is_forwarded_is_canonical(gate, recorder):
    """Nothing that a mutant of a case brings about is forwarded in a form that the origin refuses or reads
    otherwise."""
    todo = list(mutants(4000))
    seen = answered = 0
    while todo:
        batch, todo = todo[:200], todo[200:]
        sockets = []
        for data in batch:
            s = gate.connect()
            s.sendall(data + NEXT)
            sockets.append(s)
        for _ in range(2):  # one turn behind all that was sent, and one behind its answers
            assert gate.get("/last").status == 200
        for s in sockets:
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                answered += statuses(s.recv(1 << 20)).count(200)
            s.close()
        assert not recorder.errors, recorder.errors
        for message in recorder.messages:
            check_canonical(message.raw)
        seen += sum(message.target != b"/last" for message in recorder.messages)
        recorder.forget()
    assert seen > 700 and seen >= answered, (seen, answered)

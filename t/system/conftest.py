# SPDX-License-Identifier: BSD-2-Clause
"""What every system test uses.

    moongate   makes a Gate: a moongate of its own in a folder of its own, on free loopback ports, started and
               serving. At the test's end it is stopped and must end well: status 0, no report of a sanitizer.
    origin     a small server that records what it is asked and answers what the test says, byte by byte
    nginx      nginx as an origin, serving the files of nginx.root

    def test_it_forwards(moongate, origin):
        gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;")
        assert gate.get("/x").status == 200
        assert origin.requests[0].target == "/x"

The programs are those that MOONGATE and MOONGATECTL name, else the ones in build/."""
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

SRCDIR = Path(os.environ.get("SRCDIR", Path(__file__).parents[2]))
MOONGATE = Path(os.environ.get("MOONGATE", SRCDIR / "build" / "moongate"))
MOONGATECTL = Path(os.environ.get("MOONGATECTL", MOONGATE.parent / "moongatectl"))
SANITIZED = "asan" in str(MOONGATE)  # slower, and what its memory measures says nothing
USER = "nobody"  # whom workers become when the tests are run by root


def ports():
    """Ports that nobody else takes before they are listened on, or while their server is away for a moment: below those
    that the kernel gives to clients, and each process of pytest-xdist has its own. Where it begins is left to chance,
    for there may be another run on the machine."""
    first, end = 10000, 32000
    count, number = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)), os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]
    own = range(first + int(number), end, count)
    start = random.randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


PORTS = ports()


def free_port():
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("", port))
            return port


def eventually(what, seconds=5.0, every=0.01):
    """Calls what() until it returns something true, and returns that; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        result = what()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds} s: {what.__doc__ or what}"
        time.sleep(every)


def rss(pid):
    """Resident memory of a process, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Rss:\s+(\d+)", text, re.M).group(1)) * 1024


def several(kind):
    """The body of a fixture that is a function: each call makes one of this kind, the test's end closes all."""
    made = []

    def make(*arguments, **named):
        made.append(kind(*arguments, **named))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Response:
    """A whole response: status, reason, headers (a http.client.HTTPMessage: case-insensitive), body, text."""

    def __init__(self, raw):
        self.status, self.reason, self.version = raw.status, raw.reason, raw.version
        self.headers = raw.headers
        self.body = raw.read()

    @property
    def text(self):
        return self.body.decode()


class Gate:
    """A moongate with a folder of its own. Files that a test writes there are found as scripts."""

    def __init__(self):
        # Not pytest's: workers that became somebody else must be able to pass through it.
        self.folder = Path(tempfile.mkdtemp(prefix="moongate-test-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.reports = self.folder / "reports"  # of sanitizers, one file a process
        self.reports.mkdir()
        self.reports.chmod(0o777)
        self.config = self.folder / "moongate.conf"
        self.socket = self.folder / "control.sock"
        self.pidfile = self.folder / "moongate.pid"
        self.stderr = self.folder / "stderr"
        self.port = free_port()
        self.process = None
        self.master = None  # its pid
        self.expect_reports = False

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def url(self, path="/"):
        return f"http://{self.address}{path}"

    # ---- configuration

    def write(self, name, text):
        """A file in the gate's folder."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def configure(self, top="", frontend="", workers=1, level="debug", error_log="stderr", listen=None,
                  connections=4096):
        """Writes moongate.conf: `top` at the top, `frontend` inside the one frontend. In all of them %FOLDER% is
        the gate's folder and %ADDRESS% its address."""
        user = f"user {USER};\n" if os.getuid() == 0 else ""
        listen = listen or self.address
        text = (f"{user}workers {workers};\ncontrol {self.socket};\npid_file {self.pidfile};\n"
                f"scripts {self.folder};\n"
                f"connections {connections};\nerror_log {error_log} {level};\n{top}\n"
                f"frontend web {{\n    listen {listen}{'' if listen.endswith('}') else ';'}\n{frontend}\n}}\n")
        self.write("moongate.conf", text.replace("%FOLDER%", str(self.folder)).replace("%ADDRESS%", self.address))

    # ---- the process

    def environment(self, **more):
        # A worker that gives up a script does not free its Lua state; what that alone points at looks lost.
        (self.folder / "lsan").write_text("leak:strbuf_init\n")
        reports = f"log_path={self.reports}/report"
        asan, ubsan = os.environ.get("ASAN_OPTIONS", ""), os.environ.get("UBSAN_OPTIONS", "")
        return dict(os.environ, ASAN_OPTIONS=f"{asan}:{reports}".lstrip(":"),
                    LSAN_OPTIONS=f"suppressions={self.folder}/lsan:print_suppressions=0",
                    UBSAN_OPTIONS=f"print_stacktrace=1:{ubsan}:{reports}", **more)

    def run(self, *arguments, timeout=30, **more):
        """Runs the program with -c to its end, for -t, -T and starts that fail."""
        return subprocess.run([MOONGATE, "-c", self.config, *arguments], capture_output=True, text=True,
                              timeout=timeout, env=self.environment(**more))

    def start(self, *arguments, before=None, **more):
        """In the foreground; returns when all workers serve. before() runs in the new process first."""
        with open(self.stderr, "a") as stderr:
            self.process = subprocess.Popen([MOONGATE, "-c", self.config, *arguments],
                                            env=self.environment(**more), stdin=subprocess.DEVNULL,
                                            stdout=stderr, stderr=stderr, preexec_fn=before)
        self.master = self.process.pid
        self.wait_serving()
        return self

    def daemon(self, *arguments):
        """As a daemon: returns when the command did, that is when all workers serve."""
        with open(self.stderr, "a") as stderr:
            done = subprocess.run([MOONGATE, "-D", "-c", self.config, *arguments], env=self.environment(),
                                  timeout=30, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        assert done.returncode == 0, self.log()
        self.master = int(self.pidfile.read_text())
        return self

    def wait_serving(self, seconds=10):
        def serving():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            done = self.ctl("-j", "show", "workers", check=False)
            return done.returncode == 0 and \
                all(worker["state"] == "serving" for worker in json.loads(done.stdout)["workers"])
        eventually(serving, seconds, 0.02)

    def kill(self, number):
        os.kill(self.master, number)

    def wait_end(self, seconds=20):
        """Waits until it has ended; returns the exit status (None for a daemon)."""
        if self.process:
            status = self.process.wait(seconds)
        else:
            eventually(lambda: not alive(self.master), seconds)
            status = None
        self.process = self.master = None
        return status

    def stop(self, number=signal.SIGTERM):
        """Stops it and checks that it ended well."""
        if self.master:
            said = len(self.log())
            self.kill(number)
            assert self.wait_end() in (0, None), self.log()
            crash = re.search(r"was ended by signal (?!9 ).*", self.log()[said:])
            assert not crash, self.log()
        self.check_reports()

    def check_reports(self):
        found = "".join(path.read_text() for path in sorted(self.reports.iterdir()))
        assert self.expect_reports or not found, found

    def release(self):
        try:
            self.stop()
        finally:
            if self.process:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- moongatectl

    def ctl(self, *arguments, check=True, timeout=60):
        done = subprocess.run([MOONGATECTL, "-s", self.socket, *arguments], capture_output=True, text=True,
                              timeout=timeout)
        assert not check or done.returncode == 0, done.stderr + self.log()
        return done

    def show(self, what):
        """moongatectl -j show WHAT, parsed."""
        return json.loads(self.ctl("-j", "show", what).stdout)

    def stats(self):
        return self.show("stats")["total"]

    def reload(self):
        return self.ctl("reload").stdout

    def workers(self):
        """Pids by worker number."""
        return [worker["pid"] for worker in self.show("workers")["workers"]]

    # ---- what it says

    def log(self):
        """Everything on its standard error, where error_log goes unless the test says otherwise."""
        return self.stderr.read_text() if self.stderr.exists() else ""

    def wait_log(self, pattern, seconds=5, path=None):
        """Waits for a line of the log (or a file) that matches; returns the match."""
        def found():
            text = path.read_text() if path and path.exists() else "" if path else self.log()
            return re.search(pattern, text, re.M)
        found.__doc__ = f"{pattern!r} in the log:\n{self.log()[-4000:]}"
        return eventually(found, seconds)

    # ---- clients

    def get(self, path="/", headers=None, method="GET", body=None, timeout=10):
        """One request on a connection of its own."""
        client = self.client(timeout)
        with contextlib.closing(client):
            return client.ask(path, headers, method, body)

    def client(self, timeout=10):
        """A keep-alive connection: client.ask(path, headers, method, body) each time, client.close()."""
        return Client(self.port, timeout)

    def connect(self, timeout=10):
        """A raw socket."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data, timeout=10):
        """Sends bytes on a new connection and returns everything that comes until it is closed."""
        with self.connect(timeout) as s:
            s.sendall(data)
            return read_all(s)


class Client(http.client.HTTPConnection):
    def __init__(self, port, timeout):
        super().__init__("127.0.0.1", port, timeout=timeout)
        self.auto_open = 1

    def ask(self, path="/", headers=None, method="GET", body=None):
        self.request(method, path, body, headers or {})
        return Response(self.getresponse())


def read_all(s):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := s.recv(65536):
            got += chunk
    return got


def alive(pid):
    """Whether a process lives; one that nobody has waited for yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # it may die while it is looked at
        return False


def hold(pid):
    """Stops a process; what comes to it until SIGCONT it finds all at once."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures the machine or fills it, so that nothing else may run beside it")
    config.addinivalue_line("markers", "long: takes five seconds or more, most of them waiting")


def pytest_collection_modifyitems(items):
    """The long ones are begun one by one from the start, not by one process in a row nor at the end."""
    items.sort(key=lambda item: bool(item.get_closest_marker("long")))
    waiting = sum(bool(item.get_closest_marker("long")) for item in items)
    others = len(items) - waiting
    for n in range(waiting):
        items.insert(n * (others * 3 // 4 // waiting + 1), items.pop(others + n))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed


@pytest.fixture
def moongate(request):
    """moongate(top, frontend, files={name: text}, start=True, **configure's) -> Gate"""
    gates = []

    def make(top="", frontend="", files=None, start=True, **how):
        gate = Gate()
        gates.append(gate)
        for name, text in (files or {}).items():
            gate.write(name, text)
        gate.configure(top, frontend, **how)
        return gate.start() if start else gate

    yield make
    errors = []
    for gate in gates:
        if getattr(request.node, "failed", False):
            print(f"---- the log of {gate.folder}\n{gate.log()[-20000:]}")
        try:
            gate.release()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


class Request:
    """What an origin got. headers: a list of (name, value) in order; connection: its number from 1."""

    def __init__(self, connection, head):
        lines = head.decode("latin-1").split("\r\n")
        self.connection = connection
        self.head = head
        self.line = lines[0]
        self.method, self.target, self.version = (lines[0].split(" ", 2) + ["", ""])[:3]
        self.headers = [tuple(part.strip() for part in line.partition(":")[::2])
                        for line in lines[1:] if line]
        self.body = b""
        self.trailers = b""

    def header(self, name, default=None):
        """Of the first field of the name."""
        return next((value for field, value in self.headers if field.lower() == name.lower()), default)

    def all(self, name):
        return [value for field, value in self.headers if field.lower() == name.lower()]


class Origin:
    """Answers each request with origin.reply: bytes, or a function of the Request that returns bytes or yields
    pieces of them. None closes the connection without an answer. It keeps connections open unless the reply
    says "Connection: close"."""

    def __init__(self, path=None, at=("127.0.0.1", 0)):
        self.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.requests = []
        self.connections = 0
        self.open = set()
        self.lock = threading.Lock()
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            os.chmod(path, 0o666)
            self.listener.listen(256)
            self.address = f"unix:{path}"
        else:
            self.listener = socket.create_server((at[0], at[1] or free_port()), backlog=256)
            self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited
            self.port = self.listener.getsockname()[1]
            self.address = f"{at[0]}:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with self.lock:
                    self.connections += 1
                    number = self.connections
                    self.open.add(client)
                threading.Thread(target=self.serve, args=(client, number), daemon=True).start()

    def serve(self, client, number):
        with contextlib.suppress(OSError, EOFError, ValueError), client, client.makefile("rb") as stream:
            while request := self.read(stream, number):
                with self.lock:
                    self.requests.append(request)
                reply = self.reply(request) if callable(self.reply) else self.reply
                if reply is None:
                    break
                pieces = [reply] if isinstance(reply, bytes) else reply
                last = b""
                for piece in pieces:
                    client.sendall(piece)
                    last = last or piece
                if b"connection: close" in last.partition(b"\r\n\r\n")[0].lower():
                    break
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.open.discard(client)

    def read(self, stream, number):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return None
            head += line
        request = Request(number, head)
        if "chunked" in (request.header("transfer-encoding") or "").lower():
            while size := int(stream.readline().split(b";")[0], 16):
                request.body += stream.read(size)
                stream.readline()
            while (line := stream.readline()) not in (b"\r\n", b""):
                request.trailers += line
        else:
            request.body = stream.read(int(request.header("content-length") or 0))
        return request

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for client in self.open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def origins():
    """origins() -> another Origin; origins(path) -> one on a unix socket."""
    yield from several(Origin)


@pytest.fixture
def origin(origins):
    return origins()


class Nginx:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="moongate-nginx-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        self.root.mkdir()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        user = f"user {USER} nogroup;" if os.getuid() == 0 else ""
        # sndbuf: over the loopback the kernel would let it have 1.3 MiB for each response from the start (ten segments
        # of 64 KiB), and a thousand of them use up what all TCP of the machine may have: then anybody's are dropped.
        (self.folder / "nginx.conf").write_text(f"""
            {user} worker_processes 1; daemon off; pid {self.folder}/pid; error_log {self.folder}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; keepalive_requests 100000; client_max_body_size 0;
                client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
                fastcgi_temp_path {self.folder}/f;
                uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
                server {{
                    listen {self.address} backlog=4096 sndbuf=128k; root {self.root};
                    location = /discard {{ proxy_pass http://{self.address}/sink; }}
                    location = /sink {{ return 204; }}
                }}
            }}""")
        self.process = subprocess.Popen([self.program(), "-p", self.folder, "-c", self.folder / "nginx.conf"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        eventually(self.answers)

    @staticmethod
    def program():
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def answers(self):
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def write(self, name, content):
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o644)
        return path

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def nginx():
    if not Nginx.program():
        pytest.skip("no nginx (Debian: nginx-light)")
    server = Nginx()
    yield server
    server.close()

# SPDX-License-Identifier: BSD-2-Clause
"""What is put on a proxy: single requests whose answers are checked, wrk, and idle connections.

Every function takes the proxy's port and says what came back; what it cost is for procs.py to tell.
run calls these.
"""

import json
import os
import re
import socket
import ssl
import subprocess

import procs
import servers

# wrk rounds in its own report; its `done` hook has the numbers themselves.
WRK_SCRIPT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nBENCH {"requests": %d, "bytes": %d, "microseconds": %d, ' ..
    '"p50": %d, "p99": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""
ERRORS = ("connect", "read", "write", "status", "timeout")


class Wrong(Exception):
    """A proxy answered, but not as it should; nothing that it does is worth measuring."""


class Client:
    """One HTTP/1.1 connection that accepts answers with a Content-Length, which is all the origin sends."""

    def __init__(self, port, timeout=10, tls=False):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)

    def close(self):
        self.socket.close()

    def get(self, path, *headers):
        """(status, {header: value}, body, bytes on the wire)"""
        lines = [f"GET {path} HTTP/1.1", "Host: bench", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        data = bytearray()
        while b"\r\n\r\n" not in data:
            data += self.some()
        head, _, _ = bytes(data).partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in fields)
        fields = {name.lower(): value.strip() for name, _, value in fields}
        if "content-length" not in fields:
            raise Wrong(f"the answer to {path} has no Content-Length: {status}")
        total = len(head) + 4 + int(fields["content-length"])
        while len(data) < total:
            data += self.some()
        return int(status.split()[1]), fields, bytes(data[len(head) + 4:]), len(data)

    def some(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise Wrong("the connection was closed in the middle of an answer")
        return data

    def at_end(self):
        return self.socket.recv(1) == b""


def check(port, path, body, hooks=False, close=False, tls=False):
    """Raises Wrong unless the proxy serves path as the origin has it. Returns the size of an answer."""
    client = Client(port, tls=tls)
    try:
        for _ in range(1 if close else 2):
            status, fields, got, size = client.get(path, *(["Connection: close"] if close else []))
            if status != 200:
                raise Wrong(f"{path}: status {status}, not 200")
            if got != body:
                raise Wrong(f"{path}: {len(got)} bytes that are not the {len(body)} of the origin")
        if close and not client.at_end():
            raise Wrong("the connection goes on after `Connection: close`")
        if hooks:
            if "server" in fields:
                raise Wrong(f"the response hook left `Server: {fields['server']}`")
            if (told := client.get("/client")[2]) != b"127.0.0.1":
                raise Wrong(f"the request hook told the origin {told!r}, not the client's address")
            if (status := client.get(path, "X-Blocked: yes")[0]) != 403:
                raise Wrong(f"the request hook let a blocked request through: status {status}")
        return size
    finally:
        client.close()


def check_h2(port, path, body):
    """Raises Wrong unless the proxy serves path over HTTP/2. Returns the size of an answer's body."""
    argv = [servers.find_program("curl", "curl"), "-sS", "-m", "10", "--http2-prior-knowledge", "-w", "%{http_version}",
            f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode == 7:
        raise ConnectionRefusedError
    if done.returncode != 0 or done.stdout != body + b"2":
        raise Wrong(f"{path} over HTTP/2: {len(done.stdout)} bytes that are not the {len(body)} of the origin, curl "
                    f"says {done.returncode} {done.stderr.decode(errors='replace').strip()}")
    return len(body)


def h2load(core, port, path, connections, streams, seconds):
    """As wrk(), with so many streams on each connection. h2load has no percentiles: mean and maximum stand in."""
    argv = [servers.find_program("h2load", "nghttp2-client"), "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}",
            f"http://127.0.0.1:{port}{path}"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               preexec_fn=procs.pinned(core))
    try:
        text = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        process.stdout.close()
        if process.returncode is None:
            process.kill()
            process.wait()
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", text)
    times = re.search(r"time for request: +\S+ +(\S+) +(\S+)", text)
    if not counts or not times:
        raise Wrong(f"h2load ended with status {process.returncode}: {text.strip()[-400:]}")
    maximum, mean = (float(re.sub("[a-z]", "", time)) * {"us": 1, "ms": 1e3, "s": 1e6}[re.sub("[^a-z]", "", time)]
                     for time in times.groups())
    done, succeeded, failed = map(int, counts.groups())
    errors = dict.fromkeys(ERRORS, 0)
    errors["status"], errors["read"] = done - succeeded, failed
    return {"requests": done, "bytes": 0, "microseconds": seconds * 1e6, "p50": mean, "p99": maximum, "errors": errors,
            "load_seconds": usage.ru_utime + usage.ru_stime}


def wrk(folder, core, port, path, connections, seconds, close=False, tls=False):
    """Runs wrk on its core and returns its sums, with the seconds of processor time that it took itself."""
    program = servers.find_program("wrk", "wrk")
    script = servers.write(os.path.join(folder, "wrk.lua"), WRK_SCRIPT)
    argv = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    if close:
        argv += ["-H", "Connection: close"]
    argv.append(f"http{'s' if tls else ''}://127.0.0.1:{port}{path}")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, preexec_fn=procs.pinned(core))
    try:
        text = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        process.stdout.close()
        if process.returncode is None:
            process.kill()
            process.wait()
    line = next((line for line in text.splitlines() if line.startswith("BENCH ")), None)
    if line is None:
        raise Wrong(f"wrk ended with status {process.returncode}: {text.strip()[-400:]}")
    sums = json.loads(line[len("BENCH "):])
    sums["errors"] = {kind: sums.pop(kind) for kind in ERRORS}
    sums["load_seconds"] = usage.ru_utime + usage.ru_stime
    return sums


def idle(port, count):
    """Opens count connections, asks each for one answer, and returns them open."""
    clients = []
    try:
        for _ in range(count):
            clients.append(Client(port))
            status = clients[-1].get("/small")[0]
            if status != 200:
                raise Wrong(f"/small: status {status}, not 200, on connection {len(clients)}")
    except BaseException:
        for client in clients:
            client.close()
        raise
    return clients

# SPDX-License-Identifier: BSD-2-Clause
"""The access log of a running moongate: styles, what the fields say, forged lines, reopening, stopping, a full disk."""
import json
import os
import re
import signal
import socket
import struct
import time

from conftest import eventually


def log_file(gate, name="access.log"):
    """A path that the gate's workers and the master may write to."""
    return gate.folder / name


def lines_of(path, count=1, seconds=4):
    """Waits until a file has so many lines; returns them all."""
    def enough():
        found = path.read_bytes().decode("utf-8").splitlines() if path.exists() else []
        return found if len(found) >= count else None
    return eventually(enough, seconds)


def serve(moongate, style="", origin=None, top="", files=None, frontend="", **how):
    """A gate that forwards all to the origin and writes access.log, in a style."""
    gate = moongate(start=False, files=files)
    gate.configure(f"{top}\nupstream app {{ server {origin.address}; }}" if origin else top,
                   f"access_log {gate.folder}/access.log {style};\n{'route / app;' if origin else ''}\n{frontend}", **how)
    return gate.start()


def test_combined_is_the_default_and_reads_as_everybodys(moongate, origin):
    gate = serve(moongate, origin=origin)
    gate.get("/a?b=1", {"User-Agent": "agent/1", "Referer": "http://from/", "Authorization": "Basic am9lOnB3"})
    [line] = lines_of(log_file(gate))
    assert re.fullmatch(r'127\.0\.0\.1 - joe \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] '
                        r'"GET /a\?b=1 HTTP/1\.1" 200 2 "http://from/" "agent/1"', line)


def test_json_lines_have_types(moongate, origin):
    gate = serve(moongate, "json", origin)
    origin.reply = b"HTTP/1.1 201 Made\r\nContent-Length: 3\r\n\r\nabc"
    gate.get("/x", method="POST", body=b"12345")
    line = json.loads(lines_of(log_file(gate))[0])
    wanted = {"remote_addr": "127.0.0.1", "method": "POST", "target": "/x", "protocol": "HTTP/1.1", "status": 201,
              "bytes_received": 5, "bytes_sent": 3, "upstream_addr": origin.address, "upstream_name": "app",
              "upstream_attempts": 1, "upstream_reused": False, "termination": "none",
              "host": gate.address, "scheme": "http", "request_header_referer": None}
    assert {key: line[key] for key in wanted} == wanted
    assert 0 < line["first_byte_time"] <= line["total_time"] < 10
    assert 0 <= line["upstream_header_time"] <= line["upstream_time"] <= line["total_time"]
    assert abs(line["msec"] - time.time()) < 10
    assert isinstance(line["remote_port"], int) and line["request_id"]


def test_an_own_format(moongate, origin):
    gate = serve(moongate, "own", origin,
                 top="""log_format own "$method $path [$query] " '"${request_header_x_a}" $response_header_x_b $$';""")
    origin.reply = b"HTTP/1.1 200 OK\r\nX-B: b\r\nContent-Length: 0\r\n\r\n"
    gate.get("/p%41th?q", {"X-A": "with space"})
    assert lines_of(log_file(gate)) == ['GET /pAth [q] "with space" b $']


def test_a_wrong_variable_is_refused_with_its_place(moongate, origin):
    gate = moongate(start=False)
    gate.configure(f'log_format own "$status $remote_adr"; upstream app {{ server {origin.address}; }}',
                   f"access_log {gate.folder}/access.log own; route / app;")
    done = gate.run("-t")
    assert done.returncode == 1
    assert re.search(r'moongate\.conf:\d+:\d+: .*column 9: unknown variable "\$remote_adr", did you mean "\$remote_addr"\?',
                     done.stderr), done.stderr


def test_no_client_can_forge_a_line(moongate, origin):
    gate = serve(moongate, origin=origin)
    gate.raw(b'GET /"a\\ HTTP/1.1\r\nHost: h\r\nUser-Agent: x" 200 1\t\xff\x80\r\nConnection: close\r\n\r\n')
    gate.get("/%0d%0a1.2.3.4")
    found = lines_of(log_file(gate), 2)
    for line in found:
        assert line.isascii() and line.count('"') == 6, line
        assert line.startswith("127.0.0.1 - - [")


def test_a_client_that_resets_is_logged_with_its_address(moongate, origin):
    gate = serve(moongate, "json", origin)

    def reply(request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
        time.sleep(0.5)
        yield b"x" * 97
    origin.reply = reply
    with gate.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        s.recv(1000)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line = json.loads(lines_of(log_file(gate))[0])
    assert line["termination"] in ("client_reset", "client_closed")
    assert line["remote_addr"] == "127.0.0.1"


def test_reopening_moves_to_a_new_file(moongate, origin):
    gate = serve(moongate, origin=origin)
    path = log_file(gate)
    for how in ("signal", "ctl"):
        old = path.with_suffix(f".{how}")
        gate.get(f"/before/{how}")
        path.rename(old)
        if how == "ctl":
            gate.ctl("reopen")
        else:
            os.kill(gate.master, signal.SIGUSR1)
        eventually(path.exists)  # the master has made it; the worker is told
        # What was buffered is written to the old file.
        eventually(lambda: f"/before/{how}" in lines_of(old)[-1])
        time.sleep(0.2)
        gate.get(f"/after/{how}")
        assert f"/after/{how}" in lines_of(path)[0]


def test_nothing_is_lost_when_it_stops(moongate, origin):
    gate = serve(moongate, origin=origin)
    for i in range(20):
        gate.get(f"/{i}")
    gate.stop(signal.SIGQUIT)
    assert len(log_file(gate).read_text().splitlines()) == 20


def test_a_full_disk_stops_no_request(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "access_log /dev/full; route / app;")
    for i in range(5):
        assert gate.get(f"/{i}").status == 200
    gate.wait_log(r'access log "/dev/full": \d+ lines? lost: No space left on device')
    assert eventually(lambda: gate.stats()["log_lines_dropped"]) == 5


def test_reloading_changes_the_format(moongate, origin):
    gate = serve(moongate, origin=origin)
    client = gate.client()
    client.ask("/one")
    gate.config.write_text(gate.config.read_text().replace("access.log ;", "access.log json;"))
    gate.reload()
    client.ask("/two")
    client.close()
    one, two = lines_of(log_file(gate), 2)
    assert '"GET /one HTTP/1.1"' in one and json.loads(two)["target"] == "/two"


def test_stderr_takes_lines(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "access_log stderr; route / app;")
    gate.get("/to-stderr")
    gate.wait_log(r'^127\.0\.0\.1 - - .*"GET /to-stderr HTTP/1\.1" 200 ')


def test_a_busy_log_has_every_line_whole(moongate, origin):
    """More than a buffer, from two workers into one file."""
    gate = serve(moongate, "own", origin, top="log_format own 'BEGIN $worker $pid $frontend $target END';", workers=2)
    count = 0
    for _ in range(8):
        client = gate.client()
        for i in range(50):
            client.ask(f"/{i}/" + "x" * 1000)
            count += 1
        client.close()
    found = lines_of(log_file(gate), count)
    assert len(found) == count
    for line in found:
        assert re.fullmatch(r"BEGIN (\d|-) \d+ (web|-) /\d+/x{1000} END", line), line
    assert gate.stats()["log_lines_dropped"] == 0

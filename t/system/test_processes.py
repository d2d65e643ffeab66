# SPDX-License-Identifier: BSD-2-Clause
"""The processes: starting, stopping, signals, the daemon and its pid file, reloads that succeed and that are
refused, workers that die or hang, logs that are reopened, connections that drain."""
import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import MOONGATECTL, SANITIZED, alive, eventually, free_port, read_all

ROOT = os.getuid() == 0
SLOW = bool(os.environ.get("MOONGATE_SLOW")) or SANITIZED  # forks take longer


def answer(text):
    """A script that answers every request itself."""
    return ("local hooks = {}\n"
            f"function hooks.request(req) return req:respond(200, {{}}, '{text}') end\n"
            "return hooks\n")


COUNT = """
local gate = require "moongate"
local numbers = gate.shared "numbers"
local hooks = {}
function hooks.request(req)
  if req.path == "/loop" then while true do end end
  if req.path == "/sleep" then gate.sleep(tonumber(req.query) or 1) end
  return req:respond(200, {}, tostring(numbers:incr("n", 1, 0)))
end
return hooks
"""


# ---- starting and ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_each_signal_that_ends_it_ends_it_with_status_0(moongate, number):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    assert gate.get().text == "one"
    gate.kill(number)
    assert gate.wait_end(10) == 0
    assert not gate.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        gate.connect()


@pytest.mark.parametrize("command", ["stop", "quit"])
def test_the_command_returns_when_all_has_ended(moongate, command):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    workers = gate.workers()
    gate.ctl(command)
    assert not any(alive(pid) for pid in workers)
    assert gate.wait_end(2) == 0


def test_a_port_that_is_taken_is_named(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, start=False)
    with socket.create_server(("127.0.0.1", gate.port)):
        done = gate.run()
    assert done.returncode == 1
    assert f'cannot listen on "{gate.address}"' in done.stderr and "another program" in done.stderr
    assert re.search(r"moongate\.conf:\d+:\d+: ", done.stderr)


def test_a_second_moongate_gets_no_share_of_the_port(moongate):
    first = moongate("", "script a.lua;", {"a.lua": answer("first")})
    second = moongate("", "script a.lua;", {"a.lua": answer("second")}, start=False, listen=first.address)
    assert second.run().returncode == 1
    assert {first.get().text for _ in range(10)} == {"first"}


def test_a_script_that_fails_while_it_loads_ends_the_start(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": "local x = 1\nerror('not today')\n"}, start=False)
    done = gate.run()
    assert done.returncode == 1
    assert "a.lua:2" in done.stderr and "not today" in done.stderr


def test_the_configuration_test_runs_scripts_and_binds_nothing(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, start=False)
    with socket.create_server(("127.0.0.1", gate.port)):
        done = gate.run("-t")
    assert (done.returncode, done.stdout) == (0, f"configuration {gate.config} is fine\n"), done.stderr
    gate.write("a.lua", "return 7\n")
    done = gate.run("-t")
    assert done.returncode == 1 and "a.lua" in done.stderr
    gate.configure("watchdog 300ms;", "script a.lua;")
    gate.write("a.lua", "while true do end\n")
    done = gate.run("-t")
    assert done.returncode == 1 and "does not end" in done.stderr


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_an_unknown_user_is_refused_with_a_hint(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, start=False)
    gate.config.write_text(gate.config.read_text().replace("user nobody", "user nobody-like-this"))
    done = gate.run()
    assert done.returncode == 1
    assert '"nobody-like-this"' in done.stderr and "adduser" in done.stderr


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_workers_are_unprivileged_and_pinned(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=len(os.sched_getaffinity(0)))
    cores = set()
    for pid in gate.workers():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == ["65534"] * 4
        assert "0" not in status["Gid"].split()
        assert status["Groups"].split() == [status["Gid"].split()[0]]
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
        cores.add(frozenset(os.sched_getaffinity(pid)))
    assert all(len(core) == 1 for core in cores) and len(cores) == len(gate.workers())


# ---- the daemon


def test_the_daemon_serves_when_its_command_returns(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2, start=False).daemon()
    assert gate.get().text == "one"
    assert gate.pidfile.read_text() == f"{gate.master}\n"
    assert os.getsid(gate.master) != os.getsid(0)
    assert "error_log is stderr, which a daemon does not have" in gate.log()
    gate.stop()
    assert not gate.pidfile.exists()


def test_a_daemon_that_cannot_start_says_why(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": "return {\n"}, start=False)
    done = gate.run("-D")
    assert done.returncode == 1
    assert "a.lua" in done.stderr
    assert not gate.pidfile.exists() and not gate.socket.exists()


def test_a_stale_pid_file_is_replaced_a_live_one_refused(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, start=False)
    gate.pidfile.write_text("1\n")
    gate.daemon()
    assert gate.pidfile.read_text() == f"{gate.master}\n"
    done = gate.run("-D")
    assert done.returncode == 1
    assert f"runs already, as process {gate.master}" in done.stderr
    assert gate.get().text == "one"
    assert gate.pidfile.exists()


def test_workers_end_when_the_master_is_killed(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    workers = gate.workers()
    gate.process.kill()
    gate.process.wait()
    gate.master = gate.process = None
    eventually(lambda: not any(alive(pid) for pid in workers), 3)
    # What it left behind is in nobody's way.
    gate.start()
    assert gate.get().text == "one"


# ---- reload


def test_a_reload_is_in_use_on_a_connection_that_is_kept(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    clients = [gate.client() for _ in range(8)]
    assert {client.ask().text for client in clients} == {"one"}
    for turn in range(5):
        gate.write("a.lua", answer(f"turn {turn}"))
        assert f"generation {turn + 2} is in use" in gate.reload()
        assert {client.ask().text for client in clients} == {f"turn {turn}"}
    eventually(lambda: all(len(w["generations"]) == 1 for w in gate.show("generations")["workers"]), 3)
    stats = gate.show("stats")
    assert stats["master"]["reloads"] == 5 and stats["total"]["connections_accepted"] == 8


@pytest.mark.parametrize("text, complaint", [
    ("return {\n", "a.lua:2"),
    ("\nerror('not today')\n", "a.lua:2: not today"),
    ("while true do end\n", "does not end"),
    ("return 7\n", "a.lua"),
])
def test_a_reload_that_fails_changes_nothing(moongate, text, complaint):
    gate = moongate("watchdog 500ms;", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    client, workers = gate.client(), gate.workers()
    assert client.ask().text == "one"
    gate.write("a.lua", text)
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert complaint in done.stderr
    assert complaint in gate.log()
    assert client.ask().text == "one"
    assert gate.workers() == workers
    gate.write("a.lua", answer("two"))
    gate.reload()
    assert client.ask().text == "two"


def test_a_broken_configuration_is_refused_with_its_place(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    gate.configure("wrokers 2;", "script a.lua;")
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1
    assert re.search(r"moongate\.conf:\d+:1: .*wrokers", done.stderr)
    assert json.loads(gate.ctl("-j", "reload", check=False).stderr)["error"].startswith(str(gate.folder))
    assert gate.get().text == "one"


def test_what_needs_a_restart_is_refused(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=1)
    gate.configure("", "script a.lua;", workers=2)
    done = gate.ctl("reload", check=False)
    assert done.returncode == 1 and "workers" in done.stderr and "restart" in done.stderr


def test_sighup_reloads_and_logs_the_result(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    gate.write("a.lua", answer("two"))
    gate.kill(signal.SIGHUP)
    gate.wait_log("reload: generation 2 is in use")
    assert gate.get().text == "two"
    gate.write("a.lua", "return {\n")
    gate.kill(signal.SIGHUP)
    gate.wait_log("reload failed, generation 2 goes on: .*a.lua")
    assert gate.get().text == "two"


def test_reloads_that_are_asked_for_at_the_same_time_are_all_answered(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    callers = [subprocess.Popen([MOONGATECTL, "-s", gate.socket, "reload"], stdout=subprocess.PIPE, text=True)
               for _ in range(12)]
    said = [caller.communicate(timeout=30)[0] for caller in callers]
    assert all(caller.returncode == 0 for caller in callers)
    assert all("is in use" in text for text in said)


def test_a_worker_that_does_not_answer_ends_the_reload_not_the_service(moongate):
    gate = moongate("reload_timeout 400ms; watchdog 0;", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    stuck = gate.workers()[1]
    os.kill(stuck, signal.SIGSTOP)
    try:
        gate.write("a.lua", answer("two"))
        done = gate.ctl("reload", check=False)
        assert done.returncode == 1 and "no answer" in done.stderr and "worker 1" in done.stderr
    finally:
        os.kill(stuck, signal.SIGCONT)
    assert {gate.get().text for _ in range(20)} == {"one"}
    gate.reload()
    assert {gate.get().text for _ in range(20)} == {"two"}
    assert gate.workers()[1] == stuck


def test_an_exchange_ends_in_the_generation_that_it_began_in(moongate):
    slow = ("local gate = require 'moongate'\nlocal hooks = {}\nfunction hooks.request(req)\n"
            "gate.sleep(0.6) return req:respond(200, {}, 'old') end\nreturn hooks\n")
    gate = moongate("", "script a.lua;", {"a.lua": slow})
    got = []
    asker = threading.Thread(target=lambda: got.append(gate.get().text))
    asker.start()
    eventually(lambda: gate.stats()["requests_active"] == 1)
    gate.write("a.lua", answer("new"))
    gate.reload()
    assert gate.get().text == "new"
    alive_ones = gate.show("generations")["workers"][0]["generations"]
    assert [one["generation"] for one in alive_ones] == [2, 1]
    assert alive_ones[1]["exchanges"] == 1
    asker.join()
    assert got == ["old"]
    eventually(lambda: len(gate.show("generations")["workers"][0]["generations"]) == 1, 3)


def test_listeners_come_and_go_with_reloads(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    other, path = free_port(), gate.folder / "listen.sock"
    gate.configure("", f"listen 127.0.0.1:{other}; listen unix:{path}; script a.lua;", workers=2)
    gate.reload()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", other), 5) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert read_all(s).endswith(b"one")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(s).endswith(b"one")
    kept = socket.create_connection(("127.0.0.1", other), 5)
    gate.configure("", "script a.lua;", workers=2)
    gate.reload()
    assert read_all(kept) == b""  # it drains: idle, so it is closed
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", other), 5)
    assert not path.exists()
    assert gate.get().text == "one"


# ---- workers that die and hang


def answered(gate):
    """The text of a response, or None when a worker that was dying had accepted the connection still."""
    try:
        return gate.get().text
    except OSError:
        return None


@pytest.mark.alone
def test_a_killed_worker_is_replaced_at_once_and_the_dictionary_is_intact(moongate):
    gate = moongate("shared numbers 1m;", "script count.lua;", {"count.lua": COUNT})
    assert [gate.get().text for _ in range(3)] == ["1", "2", "3"]
    victim = gate.workers()[0]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: answered(gate), 5, 0.001) == "4"
    took = time.monotonic() - began
    assert took < (1.0 if SLOW else 0.1), took
    now = gate.show("workers")["workers"][0]
    assert now["pid"] != victim and now["restarts"] == 1
    assert "signal 9" in gate.log()
    assert gate.show("stats")["master"]["respawns"] == 1


def test_only_the_connections_of_the_dead_worker_are_lost(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    clients = [gate.client() for _ in range(16)]
    for client in clients:
        client.ask()
    spread = [worker["connections"] for worker in gate.show("workers")["workers"]]
    assert sum(spread) == 16
    os.kill(gate.workers()[0], signal.SIGKILL)
    lost = 0
    for client in clients:
        try:
            client.ask()
        except (ConnectionError, OSError):
            lost += 1
    # http.client connects again by itself when the server closed: count what the counters say as well.
    assert lost <= spread[0]
    eventually(lambda: all(w["state"] == "serving" for w in gate.show("workers")["workers"]))
    assert gate.get().text == "one"


def test_a_worker_that_keeps_dying_is_replaced_more_slowly(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=1)
    for deaths in range(1, 4):
        os.kill(gate.workers()[0], signal.SIGKILL)
        eventually(lambda: [(worker["state"], worker["restarts"])
                            for worker in gate.show("workers")["workers"]] == [("serving", deaths)], 5)
    delays = [int(ms) for ms in re.findall(r"started again in (\d+) ms", gate.log())]
    assert delays == [100, 200]
    assert gate.get().text == "one"


def test_a_respawned_worker_loads_what_is_committed_not_what_is_on_the_disk(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=1)
    gate.write("a.lua", answer("two"))
    gate.reload()
    gate.write("a.lua", "this is no Lua")
    os.kill(gate.workers()[0], signal.SIGKILL)
    assert eventually(lambda: answered(gate)) == "two"


def test_the_watchdog_replaces_a_worker_in_an_endless_script(moongate):
    gate = moongate("watchdog 300ms; shared numbers 1m;", "script count.lua;", {"count.lua": COUNT})
    assert gate.get().text == "1"
    victim = gate.workers()[0]
    with pytest.raises(OSError):
        gate.get("/loop")
    gate.wait_log(r'worker 0 .*has not turned .*count\.lua.*hook request.*killed')
    assert eventually(lambda: answered(gate)) == "2"
    assert gate.workers() != [victim]
    assert gate.show("stats")["master"]["watchdog_kills"] == 1


def test_an_idle_worker_is_left_alone_by_the_watchdog(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    workers = gate.workers()
    gate.configure("watchdog 200ms;", "script a.lua;")
    gate.reload()
    time.sleep(1.5)
    assert gate.workers() == workers


# ---- limits


def test_at_the_limit_of_connections_clients_wait_in_the_queue(moongate):
    gate = moongate("connections_full wait;", "script a.lua;", {"a.lua": answer("one")}, connections=2)
    first, second = gate.client(), gate.client()
    assert first.ask().text == second.ask().text == "one"
    with gate.connect() as third:
        third.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1)
        assert gate.stats()["connections_limited"] >= 1
        first.close()
        third.settimeout(5)
        assert read_all(third).endswith(b"one")


# ---- draining


def test_a_graceful_stop_lets_requests_end(moongate):
    gate = moongate("shared numbers 1m;", "script count.lua;", {"count.lua": COUNT})
    got = []
    idle = gate.connect()
    asker = threading.Thread(target=lambda: got.append(gate.get("/sleep?0.6")))
    asker.start()
    eventually(lambda: gate.stats()["requests_active"] == 1)
    gate.kill(signal.SIGQUIT)
    assert read_all(idle) == b""
    idle.close()
    eventually(lambda: refused(gate))
    asker.join()
    assert got[0].status == 200 and got[0].headers["connection"] == "close"
    assert gate.wait_end(3) == 0


def refused(gate):
    try:
        gate.connect().close()
    except ConnectionRefusedError:
        return True


def test_a_graceful_stop_ends_at_drain_timeout(moongate):
    gate = moongate("drain_timeout 300ms; shared numbers 1m;", "script count.lua;", {"count.lua": COUNT})
    with gate.connect() as s:
        s.sendall(b"GET /sleep?20 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] == 1)
        began = time.monotonic()
        gate.kill(signal.SIGQUIT)
        assert gate.wait_end(5) == 0
        assert time.monotonic() - began < 3


def test_a_second_signal_turns_a_graceful_stop_into_a_fast_one(moongate):
    gate = moongate("drain_timeout 60s; shared numbers 1m;", "script count.lua;", {"count.lua": COUNT})
    with gate.connect() as s:
        s.sendall(b"GET /sleep?20 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: gate.stats()["requests_active"] == 1)
        gate.kill(signal.SIGQUIT)
        gate.wait_log("graceful stop")
        gate.kill(signal.SIGTERM)
        assert gate.wait_end(5) == 0


# ---- logs


@pytest.mark.parametrize("how", ["reopen", "USR1"])
def test_logs_are_opened_again(moongate, how):
    gate = moongate("", "", {"a.lua": answer("one")}, start=False)
    access, error = gate.folder / "access.log", gate.folder / "error.log"
    gate.configure("", f"script a.lua; access_log {access};", workers=2, error_log=error)
    gate.start()
    gate.get("/before")
    gate.wait_log("/before", path=access)
    assert stat.S_IMODE(access.stat().st_mode) == 0o640
    access.rename(gate.folder / "access.log.1")
    error.rename(gate.folder / "error.log.1")
    if how == "reopen":
        gate.ctl("reopen")
    else:
        gate.kill(signal.SIGUSR1)
        gate.wait_log("log files are open again", path=error)
    for _ in range(8):
        gate.get("/after")
    eventually(lambda: access.exists() and access.read_text().count("/after") == 8)
    assert "/after" not in (gate.folder / "access.log.1").read_text()
    os.kill(gate.workers()[0], signal.SIGKILL)
    gate.wait_log("signal 9", path=error)


def test_what_is_buffered_is_written_before_the_end(moongate):
    gate = moongate("", "", {"a.lua": answer("one")}, start=False)
    access = gate.folder / "access.log"
    gate.configure("", f"script a.lua; access_log {access};")
    gate.start()
    gate.get("/last")
    gate.stop(signal.SIGQUIT)
    assert "/last" in access.read_text()


# ---- the control socket


def test_the_control_socket_is_the_owners_alone(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    assert stat.S_IMODE(gate.socket.stat().st_mode) == 0o600
    done = gate.ctl("upgrade", check=False)
    assert done.returncode == 1 and "not available" in done.stderr
    done = gate.ctl("dance", check=False)
    assert done.returncode == 1 and "show workers" in done.stderr


def test_the_control_socket_bears_silent_and_verbose_clients(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")})
    silent = []
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(gate.socket))
        silent.append(s)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(gate.socket))
        s.sendall(b"x" * 500)
        assert b"too long" in read_all(s)
    assert len(gate.show("workers")["workers"]) == 1
    for s in silent:
        s.close()


def test_moongatectl_without_a_moongate_says_so(tmp_path):
    done = subprocess.run([MOONGATECTL, "-s", tmp_path / "none.sock", "reload"], timeout=10,
                          capture_output=True, text=True)
    assert done.returncode == 1 and "no moongate runs" in done.stderr


def test_show_prints_columns_and_json(moongate):
    gate = moongate("", "script a.lua;", {"a.lua": answer("one")}, workers=2)
    for _ in range(5):
        gate.get()
    lines = gate.ctl("show", "workers").stdout.splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert re.search(r"^requests +5 ", gate.ctl("show", "stats").stdout, re.M)
    assert "generation 1 is in use" in gate.ctl("show", "generations").stdout
    assert gate.stats()["requests"] == 5

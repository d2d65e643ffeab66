# SPDX-License-Identifier: BSD-2-Clause
"""The choice among servers, with real ones: sticky cookies across workers and reloads, backup servers, hashes, keys
that scripts give, and what fewest connections are good for when a server is slow."""
import collections
import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import eventually


@pytest.fixture
def servers(origins):
    """Three origins, each of which answers with its name."""
    made = [origins() for _ in range(3)]
    for name, one in zip("abc", made):
        one.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name.encode()
    return made


def start(moongate, servers, more="", **how):
    lines = "".join(f"server {server.address};\n" for server in servers)
    return moongate(top=f"upstream app {{\n{lines}{more}\n}}\n", frontend="route / app;", **how)


def test_a_client_with_a_cookie_jar_stays_with_its_server(moongate, servers):
    gate = start(moongate, servers, "sticky cookie srv httponly;")
    jar = str(gate.folder / "jar")

    def curl():
        return subprocess.run(["curl", "-s", "-b", jar, "-c", jar, gate.url()], capture_output=True, text=True,
                              check=True).stdout

    first = curl()
    assert {curl() for _ in range(10)} == {first}
    gate.reload()
    assert {curl() for _ in range(10)} == {first}
    server = servers["abc".index(first)]
    gate.ctl("set", "server", f"app/{server.address}", "drain")
    assert {curl() for _ in range(10)} == {first}
    assert first not in {gate.get().text for _ in range(10)}
    gate.ctl("set", "server", f"app/{server.address}", "down")
    assert first not in {curl() for _ in range(10)}
    assert all("srv=" not in str(vars(request)) for one in servers for request in one.requests)


def test_backups_serve_while_none_of_the_others_may(moongate, servers):
    gate = start(moongate, servers[:2], f"server {servers[2].address} backup;")
    assert {gate.get().text for _ in range(10)} == {"a", "b"}
    for server in servers[:2]:
        gate.ctl("set", "server", f"app/{server.address}", "down")
    assert {gate.get().text for _ in range(10)} == {"c"}
    gate.ctl("set", "server", f"app/{servers[0].address}", "up")
    gate.get()
    assert {gate.get().text for _ in range(10)} == {"a"}


def test_a_hash_of_a_header_leads_to_one_server(moongate, servers):
    gate = start(moongate, servers, "balance hash header X-User;")
    of = {user: {gate.get(headers={"X-User": user}).text for _ in range(3)} for user in "abcdefghijklmnop"}
    assert all(len(names) == 1 for names in of.values())
    assert len(set.union(*of.values())) == 3


def test_those_who_stick_to_a_busy_server_hold_up_nobody_else(moongate, servers):
    gate = start(moongate, servers[:2], "sticky cookie srv; max_active 2; queue_timeout 20s;")
    cookies = {}
    while len(cookies) < 2:
        answer = gate.get()
        cookies[answer.text] = answer.headers["set-cookie"].partition(";")[0]
    hold = threading.Event()
    answer = servers[0].reply

    def wait(request):
        hold.wait(20)
        return answer
    servers[0].reply = wait
    order = []

    def ask(number):
        order.append((number, gate.get(headers={"Cookie": cookies["a"]}, timeout=20).text))

    stuck = []
    for number in range(100):  # two are on the server, the others wait for it
        stuck.append(threading.Thread(target=ask, args=(number,)))
        stuck[-1].start()
    waiting = lambda: gate.stats()["upstream_waiting"]
    assert eventually(lambda: waiting() == 98)
    # New clients, and those of the other server, are served at once, also while the first takes its time.
    begin = time.monotonic()
    assert {gate.get().text for _ in range(20)} == {"b"}
    assert {gate.get(headers={"Cookie": cookies["b"]}).text for _ in range(20)} == {"b"}
    assert time.monotonic() - begin < 2 and waiting() == 98
    hold.set()
    for thread in stuck:
        thread.join()
    assert len(order) == 100 and {name for _, name in order} == {"a"} and waiting() == 0


def test_those_who_stick_to_a_server_that_goes_are_given_another(moongate, servers):
    gate = start(moongate, servers[:2], "sticky cookie srv; max_active 1; queue_timeout 20s;")
    while (answer := gate.get()).text != "a":
        pass
    cookie = answer.headers["set-cookie"].partition(";")[0]
    hold, reply = threading.Event(), servers[0].reply

    def wait(request):
        hold.wait(20)
        return reply
    servers[0].reply = wait
    got = []
    clients = [threading.Thread(target=lambda: got.append(gate.get(headers={"Cookie": cookie}, timeout=20).text))
               for _ in range(4)]
    for client in clients:
        client.start()
    assert eventually(lambda: gate.stats()["upstream_waiting"] == 3)
    gate.ctl("set", "server", f"app/{servers[0].address}", "down")
    gate.get()
    assert eventually(lambda: sorted(got) == ["b", "b", "b"])
    hold.set()
    for client in clients:
        client.join()
    assert sorted(got) == ["a", "b", "b", "b"]


# ---- the same for all workers -----------------------------------------------------------------------------

KEYS = """
local gate = require "moongate"
return { request = function(req) req.balance_key = req.args.key end }
"""


def by_all_workers(gate, ask, workers, least=3):
    """Calls ask(), which makes requests on new connections, until several workers have had some."""
    def served():
        before = [worker["requests"] for worker in gate.show("stats")["workers"]]
        ask()
        after = [worker["requests"] for worker in gate.show("stats")["workers"]]
        return sum(new - old >= least for old, new in zip(before, after)) >= workers
    served.__doc__ = f"{workers} workers serve"
    eventually(served, 20)


def test_a_key_of_a_script_leads_to_one_server_in_all_workers(moongate, servers):
    gate = moongate("upstream app {" + "".join(f"server {server.address}; " for server in servers) +
                    "balance hash key; }", "script keys.lua; route / app;", files={"keys.lua": KEYS}, workers=4)
    of = collections.defaultdict(set)

    def ask():
        for key in range(20):
            of[key].add(gate.get(f"/?key=user-{key}").text)
    by_all_workers(gate, ask, 3)
    assert all(len(names) == 1 for names in of.values()), of
    assert len(set.union(*of.values())) == 3
    before = dict(of)
    gate.reload()
    by_all_workers(gate, ask, 3)
    assert of == before
    # Without a key each server has its turn.
    assert {gate.get("/").text for _ in range(30)} == {"a", "b", "c"}


def test_sessions_keep_their_server_over_workers_reloads_and_what_workers_die_of(moongate, servers):
    gate = start(moongate, servers, "sticky cookie srv;", workers=4)
    sessions = {}
    for _ in range(12):
        response = gate.get()
        sessions[response.headers["set-cookie"].partition(";")[0]] = response.text
    assert set(sessions.values()) == {"a", "b", "c"} and len(sessions) == 3

    def ask():
        for cookie, name in sessions.items():
            for _ in range(5):
                response = gate.get(headers={"Cookie": cookie})
                assert response.text == name and "set-cookie" not in response.headers
    by_all_workers(gate, ask, 3)
    for _ in range(2):
        gate.reload()
        by_all_workers(gate, ask, 3)
    victim = gate.workers()[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in gate.workers(), 10)
    gate.wait_serving()
    by_all_workers(gate, ask, 3)
    # While it is away its clients are given another, and stay there.
    away = next(iter(sessions))
    name = sessions.pop(away)
    gate.ctl("set", "server", f"app/{servers['abc'.index(name)].address}", "down")
    moved = gate.get(headers={"Cookie": away})
    assert moved.text != name
    sessions[moved.headers["set-cookie"].partition(";")[0]] = moved.text
    by_all_workers(gate, ask, 3)


# ---- what it is good for ----------------------------------------------------------------------------------

class Busy:
    """What makes an origin one that does one thing after the other, each for so long."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.turn = threading.Lock()

    def __call__(self, request):
        with self.turn:
            time.sleep(self.seconds)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def latencies(gate, clients=12, requests=35):
    """Of that many clients, each of which asks again as soon as it was answered."""
    took = []

    def ask():
        with contextlib.closing(gate.client(30)) as client:
            for _ in range(requests):
                began = time.monotonic()
                assert client.ask().status == 200
                took.append(time.monotonic() - began)
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(took) == clients * requests
    return sorted(took)


@pytest.mark.alone
@pytest.mark.parametrize("algorithm", ["least_conn", "random2"])
def test_with_one_slow_server_load_counts(moongate, origins, algorithm):
    """That the slow one gets less says that load is looked at; the 99th percentile is what clients have of it."""
    made = [origins() for _ in range(3)]
    for origin, seconds in zip(made, (0.02, 0.001, 0.001)):
        origin.reply = Busy(seconds)
    of = {}
    for name in ("round_robin", algorithm):
        gate = start(moongate, made, f"balance {name};", workers=2)
        before = len(made[0].requests)
        took = latencies(gate)
        of[name] = {"p99": took[len(took) * 99 // 100], "mean": sum(took) / len(took),
                    "slow": (len(made[0].requests) - before) / len(took)}
        gate.stop()
    turn, load = of["round_robin"], of[algorithm]
    assert 0.32 < turn["slow"] < 0.35 and load["slow"] < 0.2, of
    assert load["p99"] < turn["p99"] * 0.75 and load["mean"] < turn["mean"] * 0.5, of


def test_places_are_not_lost_between_those_who_stick_and_those_who_do_not(moongate, servers):
    gate = start(moongate, servers[:2], "sticky cookie srv; max_active 1; queue_timeout 3s;", workers=1)
    cookies = {}
    while len(cookies) < 2:
        answer = gate.get()
        cookies[answer.text] = answer.headers["set-cookie"].partition(";")[0]
    got = []

    def ask(headers):
        client = gate.client(20)
        for _ in range(200):
            answer = client.ask(headers=headers)
            got.append((answer.status, headers and answer.text == headers["X-Name"]))
        client.close()

    # Few without a cookie: seldom is one of them waiting when another comes.
    clients = [threading.Thread(target=ask, args=(headers,)) for headers in
               [None] + [{"Cookie": cookies[name], "X-Name": name} for name in "aaaabbbb"]]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert {status for status, _ in got} == {200} and len(got) == 1800
    assert all(mine is None or mine for _, mine in got)
    assert gate.stats()["upstream_queue_timeouts"] == 0

# SPDX-License-Identifier: BSD-2-Clause
"""The choice among servers, with real ones: sticky cookies across workers and reloads, backup servers, hashes."""
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

# SPDX-License-Identifier: BSD-2-Clause
"""The examples of the manual and of README.md that need a connection, as real scripts and configurations in a real
server. Those of lua/moongate/ are run by test_lua_libraries.py, those of lua/test/ by test_script_tests.py."""
import contextlib
import re
import socket
import ssl

import pytest

from conftest import SRCDIR, eventually, read_all
from pki import Authority
from test_lua_libraries import examples

MOONGATE_LUA = [(one.id.partition(":")[2], one.values[0]) for one in examples([SRCDIR / "lua/moongate.lua"])]

# What the examples take for granted.
TOP = """
local gate = require "moongate"
local settings = ...
local denied, networks = gate.cidr { "198.51.100.0/24" }, gate.cidr { "10.0.0.0/8" }
local hooks = {}
"""
# Each hook tells that it came to its end, for an example that is never called would prove nothing.
BOTTOM = """
for name, hook in pairs(hooks) do
  hooks[name] = function(...)
    local verdict = hook(...)
    gate.log.notice("example", settings.number, name, "came to its end")
    return verdict
  end
end
return hooks
"""


def as_script(example):
    """The text of a script around an example, and the hooks that must come to their end."""
    body = re.sub(r"^(local (\w+)\s*=.*\S\s+-- (\".*\"))$", r"\1\nassert(\2 == \3)", example)
    body = body.replace("gate.network(conn.remote_ip", "gate.network('192.0.2.7'")
    if "function hooks." in body:
        return TOP + body + BOTTOM, re.findall(r"function hooks\.(\w+)", body)
    if re.match(r"local \w+ = gate\.(cidr|cidr_file|settings)\b", body):
        return TOP + re.sub(r"^local (denied|settings)\b", r"local their_\1", body) + "function hooks.log() end\n" + BOTTOM, ["log"]
    if re.search(r"conn:(certificate|tunnel)", body):
        return TOP + f"function hooks.tls_hello(conn)\n{body}\nend\n" + BOTTOM, ["tls_hello"]
    if re.search(r"(?<!req\.)conn[.:]", body):
        return TOP + f"function hooks.connect(conn)\n{body}\nend\n" + BOTTOM, ["connect"]
    lines = body.splitlines()
    res = [line for line in lines if "res." in line]
    req = [line for line in lines if line not in res]
    text = "function hooks.request(req)\n" + "\n".join(req) + "\nend\n" if req else ""
    text += "function hooks.response(req, res)\n" + "\n".join(res) + "\nend\n" if res else ""
    return TOP + text + BOTTOM, ["request"] * bool(req) + ["response"] * bool(res)


def greet(s):
    """As a TLS client that asks for no name and trusts everybody."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return trusting.wrap_socket(s)


def test_every_example_of_a_hook_runs(moongate, origin, tmp_path):
    certificate = Authority(tmp_path).issue("site", "site.example", "old-clients.example")
    assert len(MOONGATE_LUA) > 20
    gate = moongate(start=False, files={"denied.txt": "198.51.100.0/24\n"})
    frontends, wanted, encrypted = "", [], []
    for number, (_, example) in enumerate(MOONGATE_LUA):
        text, hooks = as_script(example)
        gate.write(f"{number}.lua", text)
        more = "" if "gate.settings" in example else f" number={number}"
        if "gate.settings" in example:
            gate.write(f"{number}.lua", text.replace("settings.number", str(number)))
        route = "dead" if "error" in hooks else "app"
        tls = f"tls {{ {certificate.lines} }}" if "tls_hello" in hooks else ";"
        frontends += (f"frontend f{number} {{ listen unix:{gate.folder}/{number}.sock {tls} script {number}.lua denied="
                      f"{gate.folder}/denied.txt{more}; route / {route}; }}\n")
        encrypted += [number] if "tls_hello" in hooks else []
        wanted += [f"example {number} {hook} came to its end" for hook in hooks]
    gate.configure(f"upstream app {{ server {origin.address}; }} upstream dead {{ server unix:{gate.folder}/none; }}\n"
                   f"upstream reserve {{ server {origin.address}; }}\n" + frontends, "route / app; route /reserve reserve;")
    gate.start()
    for number in range(len(MOONGATE_LUA)):
        with contextlib.ExitStack() as stack:
            s = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            s.settimeout(10)
            s.connect(str(gate.folder / f"{number}.sock"))
            s = greet(s) if number in encrypted else s
            s.sendall(b"POST /api/x//y?page=2&b HTTP/1.1\r\nHost: h\r\nUser-Agent: a/1\r\nConnection: close\r\n"
                      b"Content-Length: 4\r\n\r\nbody")
            assert read_all(s).startswith(b"HTTP/1.1 "), MOONGATE_LUA[number]

    def missing():
        log = gate.log()
        return [line for line in wanted if line not in log]
    with contextlib.suppress(AssertionError):
        eventually(lambda: not missing())
    assert not missing(), gate.log()
    assert gate.stats()["script_errors"] == 0


# ---- whole scripts and configurations


def literal(page, number):
    """The number-th block of an mdoc page that is printed as it stands."""
    blocks = re.findall(r"(?ms)^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", (SRCDIR / "man" / page).read_text())
    return blocks[number].replace("\\e", "\\")


def readme(first):
    """The indented block of README.md that begins with that line."""
    text = (SRCDIR / "README.md").read_text()
    block = re.search(rf"(?m)^    {re.escape(first)}.*\n(?:(?:    .*)?\n)*", text)[0]
    return re.sub("(?m)^    ", "", block)


def start(gate, frontend, top=""):
    """The example's frontend on the gate's address, before an upstream app."""
    text = gate.config.read_text()
    text = text[:text.index("frontend web")]
    gate.config.write_text(text + top + re.sub(r"listen [^;]*;", f"listen {gate.address};", frontend))
    return gate.start()


def test_the_first_script_of_the_manual(moongate, origin):
    gate = moongate(start=False)
    gate.write("firewall.lua", literal("moongate-lua.7.in", 0))
    denied = gate.write("denied.txt", "198.51.100.0/24\n")
    conf = literal("moongate-lua.7.in", 1).replace("/etc/moongate/denied.txt", str(denied)).replace("rate=100", "rate=3")
    start(gate, conf, f"upstream app {{ server {origin.address}; }}\n")
    with contextlib.closing(gate.client()) as client:
        answers = [client.ask("/") for _ in range(5)]
    assert [answer.status for answer in answers][:3] == [200] * 3 and answers[-1].status == 429
    assert answers[-1].headers["retry-after"] == "1" and answers[-1].body == b"slow down\n"
    assert origin.requests[0].header("x-real-ip") == "127.0.0.1"


def test_the_configuration_of_the_manual(moongate, origin):
    gate = moongate(start=False, files={"denied.txt": "198.51.100.0/24\n"})
    conf = literal("moongate.conf.5.in", 0).replace("/etc/moongate", str(gate.folder))
    conf = conf.replace("workers auto;", "").replace("127.0.0.1:9000 weight=2", origin.address + " weight=2")
    conf = conf.replace("[::1]:9000", origin.address)
    gate.write("firewall.lua", (SRCDIR / "lua/firewall.lua").read_text())
    start(gate, conf)
    assert gate.get("/").body == b"ok"


def test_the_readmes_first_script(moongate, origin):
    gate = moongate(start=False)
    script = readme("local gate") if "    local gate" in (SRCDIR / "README.md").read_text() else readme("local hooks")
    gate.write("hello.lua", script)
    conf = readme("user    nobody")
    conf = re.sub(r"(?m)^(control|scripts|user) .*\n", "", conf).replace("127.0.0.1:9000", origin.address)
    start(gate, conf)
    assert gate.get("/hello").body == b"hello 127.0.0.1\n"
    assert gate.get("/").body == b"ok" and origin.requests[0].header("x-real-ip") == "127.0.0.1"


def test_the_configuration_that_readme_shows_is_accepted(moongate, tmp_path_factory):
    """Blocks that begin with upstream or listen, each in a configuration of its own."""
    folder = tmp_path_factory.mktemp("pki")
    site = Authority(folder).issue("site", "site.test")
    text = (SRCDIR / "README.md").read_text()
    blocks = re.findall(r"(?m)^    (?:upstream|listen) .*\n(?:    .*\n)*", text)
    assert len(blocks) >= 4
    for block in blocks:
        gate = moongate(start=False)
        block = block.replace("site.pem", str(site.pem)).replace("site.key", str(site.key))
        inside, outside = (block, "") if block.lstrip().startswith("listen") else ("", block)
        names = re.findall(r"(?m)^    upstream (\w+)", outside) or ["app"]
        outside = outside or "upstream app { server 127.0.0.1:1; }"
        gate.configure(outside, inside + "".join(f"route /{name} {name};\n" for name in names))
        done = gate.run("-t")
        assert done.returncode == 0, done.stderr


# ---- what calls of others are here


def names_of_the_manual():
    """Everything that a script can name: blocks of ---, settable fields beside them, hooks."""
    found = set(re.findall(r"^\s*X\((\w+), \d+, \"", (SRCDIR / "src/script/hooks.h").read_text(), re.M))
    names = {f"hooks.{name}" for name in found}
    for file in [SRCDIR / "lua/moongate.lua", *(SRCDIR / "lua/moongate").glob("*.lua")]:
        previous = ""
        for line in file.read_text().splitlines():
            if line.startswith("--- ") and not previous.startswith("---"):
                names |= set(re.findall(r"^--- ([\w.:]+)", line))
            if line.startswith("--- "):
                names |= set(re.findall(r"\b((?:req|conn)\.\w+):", line))
            previous = line
    return names


@pytest.mark.parametrize("heading", ["COMING FROM OPENRESTY", "COMING FROM HAPROXY"])
def test_the_tables_of_migration_name_what_exists(heading):
    page = (SRCDIR / "man/moongate-lua.7.in").read_text()
    table = page[page.index(f".Sh {heading}"):].partition("\n.El")[0]
    names = names_of_the_manual()
    rows = re.findall(r"(?m)^\.It Li (.*?) Ta (.*)$", table)
    assert len(rows) > 25
    wrong = []
    for theirs, ours in rows:
        for name in re.findall(r"(?<![\w.])((?:gate|req|res|conn|headers|hooks|dict|task|semaphore|sock|set)[.:][\w.:]+)", ours):
            name = re.sub(r"^req\.conn\.", "conn.", name)
            name = re.sub(r"^(req\.(?:args|cookies|headers))\..*", r"\1", name)
            if name not in names and name not in ("gate.shared", "gate.json", "res.headers", "req.headers"):
                wrong.append((theirs, name))
    assert not wrong, wrong

# SPDX-License-Identifier: BSD-2-Clause
"""moongate -t on broken configurations: exit status 1, and a message with file:line:column, what is wrong, what was
expected, the line itself and a caret below the place. And -T and --defaults, whose output is a configuration again."""
import os
import re
import signal
import subprocess

import pytest

from conftest import MOONGATE, eventually


UP = "upstream app { server 127.0.0.1:9000; }\n"
WEB = "frontend web { listen 127.0.0.1:8080; route / app; }\n"

# name: (text, line:column, words of the message in their order)
BROKEN = {
    "empty": ("", "1:1", "no frontend, expected at least one"),
    "semicolon_missing": ("workers 2\nuser nobody;\n", "1:10", 'expected ";"'),
    "block_not_closed": (UP + "frontend web {\n  route / app;\n", "2:14", 'not closed, expected "}"'),
    "brace_missing_before": ("frontend web { listen 127.0.0.1:80;\n" + UP, "2:1", 'is a "}" missing before it?'),
    "brace_too_many": ("workers 2;\n}\n", "2:1", 'unexpected "}", expected a directive'),
    "quote_not_closed": ('user "nobody;\n', "1:6", 'quote not closed, expected "'),
    "control_character": ("user a\x01b;\n", "1:7", "control character 0x01, expected text"),
    "nul_byte": ("user\0;\n", "1:5", "NUL byte, expected text"),
    "unknown_directive": ("wrokers 2;\n", "1:1", 'unknown directive "wrokers", did you mean "workers"?'),
    "wrong_block": ("frontend web {\n\tserver 127.0.0.1:80;\n}\n", "2:2", "may not stand in frontend, expected in upstream"),
    "repeated": ("workers 2;\nworkers 3;\n", "2:1", 'repeated directive "workers", expected once'),
    "no_value": ("max_body;\n", "1:1", "without a value, expected a size from 1 to"),
    "too_many_values": ("max_body 1m 2m;\n", "1:13", 'unexpected "2m", expected ";"'),
    "bad_number": ("workers many;\n", "1:9", 'bad value "many" for "workers", expected auto or a number'),
    "bad_time": ("watchdog 10x;\n", "1:10", "expected a time from 100ms to 1h"),
    "time_out_of_bounds": ("watchdog 1d;\n", "1:10", "out of bounds"),
    "bad_method": ("methods GET (PUT);\n", "1:13", "is no request method, expected one like GET"),
    "connect_method": ("methods CONNECT;\n", "1:9", "CONNECT is not offered"),
    "bad_size": ("max_head 16kb;\n", "1:10", "expected a size from 512 to 1m"),
    "bad_switch": ("forwarded yes;\n", "1:11", "expected on or off"),
    "bad_word": ("x_forwarded on;\n", "1:13", "expected off, append or replace"),
    "bad_address": ("upstream app {\n  server 10.0.0.300:9000;\n}\n", "2:10", "is not an IP address: expected IP:PORT"),
    "watermarks": ("buffer_high 32k;\n" + UP + WEB, "1:1", "expected buffer_low to be below buffer_high"),
    "variable_not_set": ("user ${MOON_NONE};\n", "1:6", '"MOON_NONE" is not set, expected it in the environment'),
    "unknown_upstream": (UP + "frontend web {\n  listen 127.0.0.1:80;\n  route / ap;\n}\n", "4:11",
                         'unknown upstream "ap", expected'),
    "unused_upstream": (UP + "upstream old { server 127.0.0.1:1; }\n" + WEB, "2:10", 'upstream "old" is not used'),
    "no_server": ("upstream app { }\n" + WEB, "1:10", "has no server, expected at least one"),
    "no_listen": (UP + "frontend web { route / app; }\n", "2:10", "has no listen, expected at least one"),
    "no_route": ("frontend web { listen 127.0.0.1:80; }\n", "1:10", "no route and no script, expected"),
    "same_address": (UP + WEB + "frontend two { listen 127.0.0.1:8080; route / app; }\n", "3:23", "listened on already"),
    "same_route": (UP + "frontend web { listen 127.0.0.1:80; route / app;\n route / app; }\n", "3:8", "exists already"),
    "unknown_format": ("access_log stderr brief;\n" + UP + WEB, "1:19", 'unknown log format "brief", expected combined, json'),
    "no_script": ("scripts lua;\nfrontend web { listen 127.0.0.1:80; script no.lua; }\n", "2:44",
                  'no script "no.lua", expected a file in one of the folders'),
    "no_include": ("include none.conf;\n", "1:9", "expected one to include"),
}


def run(*arguments, status=0):
    environment = {name: value for name, value in os.environ.items() if name != "MOON_NONE"}
    done = subprocess.run([MOONGATE, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=30, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_is_refused_with_its_place(tmp_path, name):
    text, place, message = BROKEN[name]
    file = tmp_path / "broken.conf"
    file.write_text(text)
    done = run("-t", "-c", file, status=1)
    lines = (done.stdout + done.stderr).split("\n")
    found = [i for i, line in enumerate(lines) if f"{file}:{place}: " in line and message in line]
    assert found, "\n".join(lines)
    if not text:
        return
    line, column = map(int, place.split(":"))
    shown, caret = lines[found[0] + 1:found[0] + 3]
    assert shown == re.sub(r"[\x00-\x08\x0b-\x1f]", "?", text.split("\n")[line - 1])
    assert caret.strip() == "^" and len(caret) == column


def test_an_error_in_an_included_file_names_that_file(tmp_path):
    (tmp_path / "main.conf").write_text("include d/*.conf;\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text("workers 1;\n\n  wrokers 2;\n")
    done = run("-t", "-c", tmp_path / "main.conf", status=1)
    assert f"{tmp_path}/d/a.conf:3:3: unknown directive" in done.stdout + done.stderr


def test_a_file_that_does_not_exist_is_named(tmp_path):
    done = run("-t", "-c", tmp_path / "none.conf", status=1)
    assert f'"{tmp_path}/none.conf": No such file or directory' in done.stdout + done.stderr


def test_a_good_configuration_passes(tmp_path):
    file = tmp_path / "good.conf"
    file.write_text("user nobody;\n" + UP + WEB)
    run("-t", "-c", file)


def test_the_effective_configuration_reads_as_the_same(tmp_path):
    (tmp_path / "first.conf").write_text(
        "user nobody; error_log 'a b.log' debug; shared d 1m; log_format f '\"${x}\\' \"\\n\"; access_log stderr f;\n"
        + "max_body 0;\nupstream app { server unix:/run/a.sock weight=9; server [::1]:1; keepalive 0; }\n"
        + "frontend web { listen 127.0.0.1:1; send_timeout 1500ms; route / app { max_body 3m; } route /b app; }\n")
    first = run("-T", "-c", tmp_path / "first.conf").stdout
    (tmp_path / "second.conf").write_text(first)
    second = run("-T", "-c", tmp_path / "second.conf").stdout
    assert second == first
    assert "max_body 3m;" in first and "send_timeout 1500ms;" in first and f"error_log \"{tmp_path}/a b.log\" debug;" in first


def test_the_defaults_are_the_effective_configuration(tmp_path):
    """Every default that --defaults states is the one that holds when the directive is left away."""
    defaults = re.sub(r"(?m)^user .*;", "user nobody;", run("--defaults").stdout)
    (tmp_path / "defaults.conf").write_text(defaults)
    (tmp_path / "plain.conf").write_text("user nobody;\n" + UP.replace("9000", "9000 weight=2")
                                         + WEB.replace("/ app;", "/ app; route /example/ app;"))
    assert run("-T", "-c", tmp_path / "defaults.conf").stdout == run("-T", "-c", tmp_path / "plain.conf").stdout


def test_a_file_that_a_setting_names_is_part_of_the_generation(moongate):
    """A worker that is forked later loads what was committed, not what lies on the disk by then."""
    gate = moongate("", "script wall.lua denied=denied.txt;", start=False, files={
        "denied.txt": "10.0.0.0/8\n",
        "wall.lua": """
            local gate = require "moongate"
            local denied = gate.cidr_file((...).denied)
            return { request = function(req)
                return req:respond(denied:contains("10.1.2.3") and 200 or 500)
            end }"""})
    gate.start()
    assert gate.get("/").status == 200
    (gate.folder / "denied.txt").unlink()
    before = gate.workers()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: gate.workers() != before and gate.get("/").status == 200)

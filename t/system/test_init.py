# SPDX-License-Identifier: BSD-2-Clause
"""The init script, run against the build tree: what it starts answers, a broken configuration changes nothing and its
error is shown, exit statuses are those of the LSB."""
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from conftest import MOONGATE, MOONGATECTL, SRCDIR, free_port

pytestmark = pytest.mark.skipif(not (shutil.which("start-stop-daemon") or Path("/sbin/start-stop-daemon").exists()) or
                                not Path("/lib/lsb/init-functions").exists(),
                                reason="not a system with LSB init scripts")


class Service:
    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "moongate.conf"
        self.pidfile = folder / "run" / "moongate.pid"
        self.port = free_port()
        self.greet("one")
        self.configure()

    def greet(self, text):
        (self.folder / "hello.lua").write_text(
            'local hooks = {}\n'
            f'function hooks.request(req) return req:respond(200, {{}}, "{text}") end\n'
            'return hooks\n')

    def configure(self, extra=""):
        user = "user nobody;\n" if os.getuid() == 0 else ""
        self.config.write_text(
            f"{user}workers 1;\ncontrol {self.folder}/control.sock;\nscripts {self.folder};\n"
            f"error_log {self.folder}/error.log info;\n{extra}"
            f"frontend web {{ listen 127.0.0.1:{self.port}; script hello.lua; }}\n")

    def __call__(self, command, **variables):
        environment = dict(os.environ, DEFAULTS=str(self.folder / "defaults"), DAEMON=str(MOONGATE),
                           CTL=str(MOONGATECTL), CONFIG=str(self.config), PIDFILE=str(self.pidfile), **variables)
        # A daemon that kept these open would hold up whoever reads them to the end, so a file takes the output.
        with open(self.folder / "said", "w+") as said:
            done = subprocess.run(["sh", SRCDIR / "conf/moongate.init", command], env=environment,
                                  stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, timeout=60)
            said.seek(0)
            self.said = said.read()
        return done.returncode

    def get(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as response:
            return response.read().decode()

    def pid(self):
        return int(self.pidfile.read_text())


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service("stop")


@pytest.fixture
def started(service):
    assert service("start") == 0, service.said
    return service


def test_what_is_started_serves_and_is_reported(started):
    assert started.get() == "one"
    assert started("status") == 0
    assert str(started.pid()) in started.said


def test_starting_twice_keeps_the_first(started):
    pid = started.pid()
    assert started("start") == 0, started.said
    assert started.pid() == pid


def test_a_broken_configuration_is_not_started_and_shown(service):
    service.configure("no_such_directive;\n")
    assert service("start") != 0
    assert "moongate.conf:" in service.said and "no_such_directive" in service.said
    assert service("status") == 3


def test_reload_takes_a_change_into_use_in_the_same_process(started):
    pid = started.pid()
    started.greet("two")
    assert started("reload") == 0, started.said
    assert started.get() == "two"
    assert started.pid() == pid


def test_reload_of_a_broken_configuration_says_why_and_changes_nothing(started):
    started.greet("two")
    started.configure("no_such_directive;\n")
    assert started("reload") != 0
    assert "no_such_directive" in started.said
    assert started.get() == "one"


def test_the_reason_of_a_refused_reload_is_printed(started):
    """What the test of the file alone cannot see: a directive that only a restart changes."""
    started.configure("connections 100;\n")
    assert started("force-reload") == 1
    assert "connections" in started.said
    assert started.get() == "one"


def test_reload_without_a_process_is_not_running(service):
    assert service("reload") == 7


def test_restart_with_a_broken_configuration_leaves_the_process_alone(started):
    pid = started.pid()
    started.configure("no_such_directive;\n")
    assert started("restart") != 0
    assert started.pid() == pid
    assert started.get() == "one"


def test_restart_is_another_process(started):
    pid = started.pid()
    started.greet("two")
    assert started("restart") == 0, started.said
    assert started.pid() != pid
    assert started.get() == "two"


def test_stop_ends_the_process_and_its_workers(started):
    pid = started.pid()
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert workers
    assert started("stop") == 0, started.said
    deadline = time.monotonic() + 5
    for process in [str(pid), *workers]:
        while Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline, f"process {process} is still there"
            time.sleep(0.02)
    assert started("status") == 3
    assert not started.pidfile.exists()


def test_stopping_what_does_not_run_is_no_error(service):
    assert service("stop") == 0, service.said


def test_a_pid_file_left_behind_is_told_from_a_running_service(service):
    service.pidfile.parent.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    service.pidfile.write_text(f"{ended.pid}\n")
    assert service("status") == 1


def test_the_defaults_file_is_read_and_the_environment_stands_above_it(service):
    (service.folder / "defaults").write_text("CONFIG=/nonexistent/from-defaults\nSOCKET=/nonexistent/socket\n")
    assert service("start") == 0, service.said
    service.greet("two")
    assert service("reload") == 1
    assert "/nonexistent/socket" in service.said


def test_an_unknown_command_is_a_usage_error(service):
    assert service("dance") == 2
    assert "usage" in service.said

# SPDX-License-Identifier: BSD-2-Clause
"""The ring where it is refused, and where the kernel lacks its newer features."""
import ctypes
import hashlib
import os
import platform
import resource
import socket
import struct
import subprocess
import threading

import pytest

from conftest import MOONGATE

SYS_IO_URING_SETUP = 425
EPERM = 1


def forbid_io_uring():
    """Runs in the child: a seccomp filter as a container's profile has it: io_uring_setup fails with EPERM."""
    def instruction(code, jt, jf, k):
        return struct.pack("HBBI", code, jt, jf, k)
    program = b"".join([
        instruction(0x20, 0, 0, 0),                     # load the system call's number
        instruction(0x15, 0, 1, SYS_IO_URING_SETUP),    # is it io_uring_setup?
        instruction(0x06, 0, 0, 0x00050000 | EPERM),    # then fail with EPERM
        instruction(0x06, 0, 0, 0x7fff0000),            # else allow
    ])
    buffer = ctypes.create_string_buffer(program)
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0                                  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) == 0              # PR_SET_SECCOMP, filter


def test_a_refused_ring_says_why_and_how_to_allow_it(moongate):
    gate = moongate("upstream app { server 127.0.0.1:9; }", "route / app;", start=False)
    done = subprocess.run([MOONGATE, "-c", gate.config], capture_output=True, text=True, timeout=20,
                          preexec_fn=forbid_io_uring, env=gate.environment())
    assert done.returncode == 1
    assert "io_uring: forbidden" in done.stderr
    assert "seccomp" in done.stderr


def test_the_version_says_that_the_ring_is_refused():
    done = subprocess.run([MOONGATE, "-V"], capture_output=True, text=True, timeout=20, preexec_fn=forbid_io_uring)
    assert "seccomp" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is not bound by it")
def test_rings_of_many_workers_do_not_fail_for_the_limit_of_locked_memory(moongate, origin):
    gate = moongate(f"upstream app {{ server {origin.address}; }}", "route / app;", workers=6, start=False)
    gate.start(before=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20)))
    assert len(gate.workers()) == 6


def test_the_version_lists_what_the_kernel_has():
    done = subprocess.run([MOONGATE, "-V"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    has = "yes" if release >= (6, 12) else "no"
    assert f"incremental receive buffers: {has}" in done.stdout


@pytest.mark.parametrize("without", ["", "incremental"])
def test_bodies_pass_whole_whatever_kind_of_receive_buffer(moongate, nginx, monkeypatch, without):
    monkeypatch.setenv("MOONGATE_RING_WITHOUT", without)
    content = os.urandom(3 << 20)
    nginx.write("big", content)
    gate = moongate(f"upstream app {{ server {nginx.address}; }}\nreceive_buffers 1m;", "route / app;")
    wanted = hashlib.sha256(content).hexdigest()
    got = []

    def fetch():
        got.append(hashlib.sha256(gate.get("/big").body).hexdigest())
    threads = [threading.Thread(target=fetch) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [wanted] * 24


@pytest.mark.parametrize("without", ["", "incremental"])
def test_slow_receivers_do_not_starve_others_of_receive_buffers(moongate, nginx, monkeypatch, without):
    monkeypatch.setenv("MOONGATE_RING_WITHOUT", without)
    big = os.urandom(8 << 20)
    nginx.write("big", big)
    nginx.write("small", b"small")
    gate = moongate(f"upstream app {{ server {nginx.address}; }}\nreceive_buffers 1m;", "route / app;")
    slow = []
    for _ in range(100):  # many times the receive buffers' memory, asked for and not read
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", gate.port))
        s.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.append(s)
    for _ in range(20):
        assert gate.get("/small").body == b"small"
    for _ in range(3):
        assert gate.get("/big", timeout=20).body == big
    for s in slow:
        s.close()

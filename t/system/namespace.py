# SPDX-License-Identifier: BSD-2-Clause
"""A network of a test's own: a network namespace in which it, and all that it starts, is while the fixture lasts.

    namespace.ip("route", "add", ...)                  the command ip, inside
    namespace.silent                                   addresses that take packets and never answer, of both families

The loopback is up. Only root can make one, with /dev/net/tun."""
import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess

import pytest

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 0x0001, 0x1000


def call(function, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


class Namespace:
    silent = ["2001:db8:66::66", "2001:db8:66::67", "2001:db8:66::68", "10.66.0.66"]

    def __init__(self):
        self.ip("link", "set", "lo", "up")
        # A device whose other end is this process, which takes no notice of the packets.
        self.hole = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.hole, TUNSETIFF, struct.pack("16sH22x", b"hole", IFF_TUN | IFF_NO_PI))
        self.ip("link", "set", "hole", "up")
        self.ip("addr", "add", "10.66.0.1/24", "dev", "hole")
        self.ip("addr", "add", "2001:db8:66::1/64", "dev", "hole", "nodad")

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True)

    def close(self):
        os.close(self.hole)


@pytest.fixture
def namespace():
    if os.getuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("a network of its own takes root and /dev/net/tun")
    with open("/proc/thread-self/ns/net") as outside:
        call("unshare", CLONE_NEWNET)
        try:
            with contextlib.closing(Namespace()) as made:
                yield made
        finally:
            call("setns", outside.fileno(), CLONE_NEWNET)

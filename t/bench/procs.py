# SPDX-License-Identifier: BSD-2-Clause
"""Processes under measurement: starting them pinned, their clock, their memory, their end.

A Tree is one program with all its descendants (a proxy's master and workers).  It knows nothing of proxies
(servers.py) or of load (load.py); run ends every Tree that it started.
"""

import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
CPUCLOCK_SCHED = 2
LIBC = ctypes.CDLL(None)


def process_clock(pid):
    """Nanoseconds that all threads of pid have run, those that have ended included.

    The clock of clock_getcpuclockid(3), which Python lacks.  Unlike the sum over /proc/PID/task it loses
    nothing when a thread ends, and unlike /proc/PID/stat it does not count in ticks of 10 ms.
    """
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)


def start_time(pid):
    """When pid started, in ticks since boot: both together name a process for good. None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return None


def is_running(pid):
    """False for a zombie too: what has ended but waits for its parent needs no signal."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as names:
                found += [int(name) for name in names.read().split()]
    except OSError:
        pass
    return found


def busy_seconds(core):
    """Seconds that one core has been busy since boot; the kernel counts in ticks of 10 ms."""
    with open("/proc/stat") as stat:
        for line in stat:
            if line.startswith(f"cpu{core} "):
                user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
                return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError(f"core {core} is not in /proc/stat")


def pinned(core):
    """A preexec_fn: only this core, a session of its own (Ctrl-C is ours), ends when run is killed."""
    def prepare():
        os.setsid()
        os.sched_setaffinity(0, {core})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return prepare


class Tree:
    """A program and its descendants, every thread kept on one core."""

    def __init__(self, argv, core, log):
        self.core = core
        self.known = {}                                   # pid: start time, of all that were ever seen
        with open(log, "wb") as output:
            self.program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            preexec_fn=pinned(core))
        self.pids()

    def pids(self):
        found, queue = [], [self.program.pid]
        while queue:
            pid = queue.pop()
            if is_running(pid):
                found.append(pid)
                self.known.setdefault(pid, start_time(pid))
                queue += children(pid)
        return sorted(found)

    def workers(self):
        """The processes that serve: all but the master, or the only one there is."""
        pids = self.pids()
        return [pid for pid in pids if pid != self.program.pid] or pids

    def ended(self):
        return self.program.poll() is not None

    def strays(self):
        """Puts back what left its core (a program may pin itself) and returns how many threads had."""
        count = 0
        for pid in self.pids():
            try:
                for task in map(int, os.listdir(f"/proc/{pid}/task")):
                    if os.sched_getaffinity(task) != {self.core}:
                        os.sched_setaffinity(task, {self.core})
                        count += 1
            except OSError:
                pass                                      # ended in between, or a kernel-bound thread
        return count

    def clocks(self):
        """{pid: nanoseconds}: two of these bracket a measurement, see used()."""
        return {pid: process_clock(pid) for pid in self.pids()}

    def resident(self):
        """Resident bytes summed over the workers.  smaps_rollup is exact, VmRSS lags by pages per core."""
        total = 0
        for pid in self.workers():
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += 1024 * next(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
        return total

    def stop(self):
        """Asks the program to end, then ends whatever is left of it; only processes seen as ours, by pid."""
        self.pids()
        if not self.ended():
            self.program.send_signal(signal.SIGTERM)
            try:
                self.program.wait(3)
            except subprocess.TimeoutExpired:
                pass
        for pid, started in self.known.items():
            if is_running(pid) and start_time(pid) == started:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.program.wait()


def used(before, after):
    """Nanoseconds between two clocks(), or None when a process came or went: the sum would mean nothing."""
    if before.keys() != after.keys():
        return None
    return sum(after.values()) - sum(before.values())

"""The states of a process's threads, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from blackstart.host import procs

THREE = """
import threading, time
for _ in "ab":
    threading.Thread(target=time.sleep, args=(60,)).start()
print(1, flush=True)
time.sleep(60)
"""


def test_all_threads_of_a_stopped_process_are_stopped() -> None:
    """Three sleeping threads become three stopped ones; a process that is gone has none."""
    with subprocess.Popen([sys.executable, "-c", THREE], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            wait(process.pid, {"S": 3})
            os.kill(process.pid, signal.SIGSTOP)
            wait(process.pid, {"T": 3})
        finally:
            process.kill()
    assert procs.thread_states(process.pid) == {}


def wait(pid: int, states: dict[str, int]) -> None:
    """Poll until they are so, for at most ten seconds."""
    end = time.monotonic() + 10
    while procs.thread_states(pid) != states:
        assert time.monotonic() < end, procs.thread_states(pid)
        time.sleep(0.01)

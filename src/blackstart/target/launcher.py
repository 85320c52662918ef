"""The first program of every process that Blackstart starts; it becomes the real one when Blackstart says so.

    python -I -S launcher.py PARENT_PID GATE_FD USER COMMAND…

Before that it asks the kernel to end it with its parent and, if told, leaves root. Because it waits at the
gate, its pid is known and under the guardian's protection before the target exists, and a restart costs one
byte instead of an interpreter's start. Runs without `site` and imports only the standard library: its
start-up is part of every start.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys

CLONE_NEWUSER = 0x1000_0000
PR_SET_PDEATHSIG = 1
PR_CAP_AMBIENT, CLEAR_ALL = 47, 4
HEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
NOT_STARTED = 97  # exit status: the command could not be executed; the reason is in the log


def main(arguments: list[str]) -> None:
    """Prepare, wait at the gate, and become the command. Returns only by exiting."""
    parent, gate, user, *command = arguments
    for number in HEARD:  # under nohup or in the background of a script they are ignored, and exec keeps that
        signal.signal(number, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    if user == "unprivileged":
        leave_root(libc)
    # What a trial in namespaces of its own holds there is not the target's.
    libc.prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0)
    # After the change of credentials, which would clear it.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(NOT_STARTED)
    wait_at_gate(int(gate))
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error.strerror}\n")
        sys.exit(NOT_STARTED)


def wait_at_gate(descriptor: int) -> None:
    """Return when told to go on; exit when the gate is closed instead."""
    go = os.read(descriptor, 1)
    os.close(descriptor)
    if not go:
        sys.exit(0)


def leave_root(libc: ctypes.CDLL) -> None:
    """Take another uid.

    Root prefers a user namespace: its own files belong to an ordinary uid there, so no path need be opened
    up.
    """
    if os.geteuid() != 0:
        return
    uid, gid = ordinary_account()
    outer_uid, outer_gid = os.geteuid(), os.getegid()  # after unshare they would read as nobody's
    if libc.unshare(CLONE_NEWUSER) == 0:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/gid_map", f"{gid} {outer_gid} 1")
        write("/proc/self/uid_map", f"{uid} {outer_uid} 1")
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def ordinary_account() -> tuple[int, int]:
    """Return uid and gid of an account that is not root and has a name (`initdb` looks it up)."""
    accounts = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    entry = accounts.get("nobody") or next(iter(accounts.values()), None)
    return (entry.pw_uid, entry.pw_gid) if entry else (65534, 65534)


def write(path: str, text: str) -> None:
    """Write one of the kernel's files in a single call, as it demands."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])

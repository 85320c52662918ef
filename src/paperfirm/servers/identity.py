"""Under which uid a server runs: PostgreSQL refuses root, so root needs another identity for it."""

from __future__ import annotations

import ctypes
import enum
import os
import pwd
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWUSER = 0x1000_0000
PR_SET_PDEATHSIG = 1


class Kind(enum.Enum):
    """How a process leaves root, if it must."""

    SAME = "same"
    USER_NAMESPACE = "user_namespace"
    SET_UID = "set_uid"


class Identity(msgspec.Struct, frozen=True):
    """The mechanism, and the uid and gid that the process sees as its own."""

    kind: Kind
    uid: int
    gid: int


def ordinary_account() -> tuple[int, int]:
    """Return uid and gid of an ordinary account with a passwd entry (`initdb` looks its name up)."""
    accounts = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    entry = accounts.get("nobody") or next(iter(accounts.values()), None)
    return (entry.pw_uid, entry.pw_gid) if entry else (65534, 65534)


def choose_identity() -> Identity:
    """Choose the best identity here.

    An ordinary user stays itself. Root prefers a user namespace in which its own files belong to an ordinary
    uid: no path need be opened to anybody else. Where the kernel or a container forbids that, root drops to
    an ordinary uid.
    """
    if os.geteuid() != 0:
        return Identity(Kind.SAME, os.geteuid(), os.getegid())
    uid, gid = ordinary_account()
    kind = Kind.USER_NAMESPACE if _user_namespaces_work(uid, gid) else Kind.SET_UID
    return Identity(kind, uid, gid)


def enter(identity: Identity, death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return what the new process must run before `exec`: take the identity, then die with its parent.

    The order matters: a change of credentials clears the parent-death signal.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(
        None, use_errno=True
    )  # loaded before the fork: the child should only make system calls

    def prepare_child() -> None:
        if identity.kind is Kind.USER_NAMESPACE:
            _map_into_user_namespace(libc, identity.uid, identity.gid)
        elif identity.kind is Kind.SET_UID:
            os.setgroups([])
            os.setgid(identity.gid)
            os.setuid(identity.uid)
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the request was in place

    return prepare_child


def _map_into_user_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER) is not permitted")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{gid} {outer_gid} 1")
    _write("/proc/self/uid_map", f"{uid} {outer_uid} 1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _user_namespaces_work(uid: int, gid: int) -> bool:
    """Try it in a child process.

    Whether it is allowed depends on kernel settings, seccomp and security modules.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        try:
            _map_into_user_namespace(libc, uid, gid)
            os._exit(0 if os.geteuid() == uid else 1)
        except BaseException:  # noqa: BLE001 - whatever went wrong in the child, the answer is no
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0

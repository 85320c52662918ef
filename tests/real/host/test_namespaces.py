"""Namespaces of its own, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from blackstart.host import namespaces

ORDINARY = 65534

PROGRAM = textwrap.dedent(
    """
    import ctypes, json, os, socket, subprocess, sys
    from blackstart.host import namespaces
    uid = int(sys.argv[1])
    if uid:
        os.setgid(uid)
        os.setuid(uid)
    before = {kind: namespaces.identity(kind) for kind in ("network", "files")}
    entered = namespaces.enter(["network", "files"])
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = libc.mount(b"none", b"/mnt", b"tmpfs", 0, b"size=64k") == 0
    server = socket.create_server(("127.0.0.1", 0))
    socket.socket().connect(server.getsockname())
    kept = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout
    print(json.dumps({
        "uid": os.getuid(), "entered": sorted(entered), "mounted": mounted, "port": server.getsockname()[1],
        "new": [namespaces.identity(kind) != before[kind] for kind in before],
        "cards": [name for _, name in socket.if_nameindex()], "capabilities": int(kept.split()[1], 16),
    }), flush=True)
    sys.stdin.readline()
    """
)


@pytest.fixture(params=["root", "ordinary"])
def uid(request: Any) -> int:
    """Each kind of user; a host that does not let one do it skips, and says so."""
    if os.geteuid() != 0 and request.param == "root":
        pytest.skip("needs root")
    wanted = 0 if request.param == "root" else ORDINARY
    if os.geteuid() != 0:
        reason = namespaces.unavailable("network")
        if reason is not None:
            pytest.skip(f"no user namespaces for ordinary users here: {reason}")
        return 0  # already an ordinary user: no change of uid
    return wanted


def test_a_process_gets_a_network_and_mounts_that_nobody_else_sees(uid: int) -> None:
    """Loopback works inside, the mount is unseen outside, the uid stays, undoing powers are handed down."""
    command = [sys.executable, "-c", PROGRAM, str(uid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        mounts = Path("/proc/self/mounts").read_text()
        inside = namespaces.member("network", namespaces.identity("network", process.pid))
        assert inside == process.pid
        number = namespaces.identity("network", process.pid)
        process.communicate("")
    assert found["uid"] == (uid or os.getuid())
    assert found["entered"] == ["files", "network"]
    assert found["new"] == [True, True]
    assert found["mounted"]
    assert "/mnt tmpfs" not in mounts
    assert found["cards"] == ["lo"]
    assert found["capabilities"] & 1 << 12
    assert found["capabilities"] & 1 << 21
    assert namespaces.member("network", number) is None


def test_trying_harms_nobody() -> None:
    """Whether it can be had is tried in a child: this process stays where it is."""
    before = namespaces.identity("network")
    namespaces.unavailable.cache_clear()
    assert namespaces.unavailable("network") == namespaces.unavailable("network")
    assert namespaces.identity("network") == before

"""Signals to processes that belong together, some of which may not be signalled by us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import ordinary_user
import pytest

from blackstart.host import procs

PAIR = f"""
import subprocess, sys, time
who = {ordinary_user.NOBODY}
child = subprocess.Popen(["sleep", "600"], user=who, group=who, extra_groups=[])
print(child.pid, flush=True)
child.wait()
time.sleep(600)
"""
AS_USER = """
import json
from blackstart.engine.verbs import process, begin
process.GONE_LIMIT_S = 0.2
print(json.dumps(begin("kill", ARGUMENTS, "/")()))
"""


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start a process that an ordinary user may not end"
)
def test_who_may_not_be_killed_shields_nobody_and_is_told() -> None:
    """The member behind it is killed, and it is among those that are left."""
    parent = subprocess.Popen([sys.executable, "-c", PAIR], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    found = procs.stat(parent.pid)
    assert found is not None
    try:
        arguments = {"pid": found.pid, "start_ticks": found.start_ticks, "marker": "nobody:carries this"}
        said = ordinary_user.run(f"ARGUMENTS = {arguments!r}{AS_USER}")
        assert json.loads(said) == [False, {"killed": [child], "left": [parent.pid]}]
        assert procs.stat(child) is None
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_who_was_born_before_a_process_never_belonged_to_it() -> None:
    """Its number was another's before: of that one's session, whose leader has ended, nobody is hit."""
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    member = int(leader.stdout.readline())
    leader.wait()
    leader.stdout.close()
    found = procs.stat(member)
    assert found is not None
    try:
        assert [one.pid for one in procs.family(leader.pid, found.start_ticks)] == [member]
        assert procs.family(leader.pid, found.start_ticks + 1) == []
    finally:
        procs.send(found, signal.SIGKILL)

"""The packet filter itself: counters, multicast, tables that go with their owner, an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from blackstart.host import namespaces, netprobe

ORDINARY = 65534

BEGINNING = textwrap.dedent(
    """
    import json, os, socket, struct, sys, time
    from blackstart.host import connections, namespaces, netfilter, netlink
    from blackstart.host.netholder import Holder
    from blackstart.host.nfqueue import Queue
    from blackstart.host.shaping import Shape
    uid = int(sys.argv[1])
    if uid:
        os.setgid(uid)
        os.setuid(uid)
    namespaces.enter(["network"])
    """
)

PROGRAM = BEGINNING + textwrap.dedent(
    """
    found = {"uid": os.getuid()}
    GROUP = "239.7.7.7"

    def udp():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(0.2)
        return made

    def heard(listener):
        try:
            return len(listener.recv(100))
        except TimeoutError:
            return 0

    listener, speaker = udp(), udp()
    listener.bind((GROUP, 5007))
    here = socket.inet_aton("127.0.0.1")
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + here)
    speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
    other = udp()
    other.bind(("127.0.0.1", 5007))

    def told():
        speaker.sendto(b"quote", (GROUP, 5007))
        speaker.sendto(b"else", ("127.0.0.1", 5007))
        return [heard(listener), heard(other)]

    link = netlink.netfilter()
    found["before"] = told()
    rule = netfilter.Rule("udp", 5007, "to_client", "drop", group=GROUP)
    netfilter.install(link, "quotes", [rule])
    found["during"] = told()
    found["counts"] = netfilter.counts(link, "quotes")
    found["removed"] = [netfilter.remove(link, "quotes"), netfilter.remove(link, "quotes")]
    found["after"] = told()

    owner = netlink.netfilter()
    netfilter.install(owner, "owned", [netfilter.Rule("udp", 5007, "to_server", "drop")], owned=True)
    found["owned"] = told()
    found["whose"] = [netfilter.owned(link, name) for name in ("owned", "quotes")]
    netfilter.install(link, "free", [])
    found["whose"] += [netfilter.owned(link, "free")]
    try:
        netfilter.remove(link, "owned")
    except PermissionError:
        found["others"] = "refused"
    owner.close()
    end = time.monotonic() + 10
    while netfilter.owned(link, "owned") is not None and time.monotonic() < end:
        time.sleep(0.001)
    found["gone"] = told()

    queue = Queue(7, Shape(delay_ms=1), 1)
    netfilter.install(link, "queued", [netfilter.Rule("udp", 5007, "to_server", "queue", queue=7)])
    found["held"] = told()
    queue.take()
    time.sleep(0.002)
    queue.release()
    found["released"] = [heard(listener), heard(other), queue.met]
    queue.link.close()
    found["bypassed"] = told()
    netfilter.remove(link, "queued")

    try:
        netfilter.install(link, "x" * 300, [])
    except OSError as error:
        found["error"] = error.strerror
    many = [netfilter.Rule("tcp", 5000, "to_client", "drop", peer=peer) for peer in range(500)]
    netfilter.install(link, "many", many)
    found["many"] = len(netfilter.counts(link, "many"))
    found["usable"] = netfilter.owned(link, "nothing") is not None
    print(json.dumps(found))
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


def said(program: str, uid: int) -> dict[str, Any]:
    """Run a program as that user; returns what it says in the end."""
    done = subprocess.run(
        (sys.executable, "-c", program, str(uid)), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_rules_do_what_they_say_and_go_when_they_should(uid: int) -> None:
    """Multicast is told from unicast, counters count, owned tables go with their owner, queues bypass."""
    for verdict in ("drop", "queue"):
        reason = netprobe.unavailable(verdict)
        if reason is not None:
            pytest.skip(reason)
    found = said(PROGRAM, uid)
    assert found["uid"] == (uid or os.getuid())
    assert found["before"] == found["after"] == found["gone"] == found["bypassed"] == [5, 4]
    assert found["during"] == [0, 4], "only what is sent to the group"
    assert found["counts"] == [[1, 1]]
    assert found["removed"] == [True, False]
    assert found["owned"] == [0, 0]
    assert found["whose"] == [True, None, False]
    assert found["others"] == "refused"
    assert found["held"] == [0, 0]
    assert found["released"] == [5, 4, 2]
    assert found["error"]
    assert found["many"] == 500
    assert found["usable"] is False, "an error leaves nothing behind that would spoil the next answer"


ENDING = BEGINNING + textwrap.dedent(
    """
    listener, speaker = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    listener.bind(("127.0.0.1", 5007))
    listener.setblocking(False)

    def tell(what):
        speaker.sendto(what, ("127.0.0.1", 5007))

    holder = Holder()
    shape = {"delay_ms": 60_000.0}
    rule = netfilter.Rule("udp", 5007, "to_server", "queue", queue=7)._asdict()
    assert not holder.answer({"do": "queue", "number": 7, "shape": shape, "seed": 1})
    assert "error" not in holder.answer({"do": "install", "table": "queued", "rules": [rule]})
    tell(b"held")
    holder.queue.take()
    tell(b"has come")
    empty = netfilter.empty

    def empty_late(link, table):
        tell(b"comes before the rules go")
        empty(link, table)

    def remove_late(link, table):
        tell(b"comes before the table goes")
        return remove(link, table)

    remove = netfilter.remove
    netfilter.empty, netfilter.remove = empty_late, remove_late
    counted = holder.answer({"do": "release"})
    heard = []
    while True:
        try:
            heard.append(listener.recv(100).decode())
        except BlockingIOError:
            break
    print(json.dumps({"heard": heard, "counted": counted, "left": netfilter.owned(holder.link, "queued")}))
    """
)


def test_the_end_of_a_queue_loses_no_packet(uid: int) -> None:
    """The kernel drops what waits in a queue when a table goes: a fault must not end with a second one."""
    reason = netprobe.unavailable("queue")
    if reason is not None:
        pytest.skip(reason)
    found = said(ENDING, uid)
    assert "error" not in found["counted"]
    assert found["counted"]["queue"]["held"] == 1
    assert found["heard"] == [
        "held",
        "has come",
        "comes before the rules go",
        "comes before the table goes",
    ]
    assert found["left"] is None

"""Network faults on real connections, in a network of its own, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import verbs
from blackstart.faults import registry
from blackstart.model.manifest import Link, Manifest
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Callable

BENCH = Path(__file__).parent / "network_program.py"
LINKS = {
    "line": Link(ports=("1",)),
    "quotes": Link(ports=("2",), protocol="udp"),
}
MANIFEST = Manifest(schema=1, name="x", isolation=("network",), links=LINKS)


@pytest.fixture(params=["root", "user namespace", "proxy", "the host's network"])
def how(request: Any) -> str:
    """Each way into a network of its own, or a proxy; a host that does not allow one skips, and says so."""
    if request.param in ("root", "the host's network") and os.geteuid() != 0:
        pytest.skip("needs root")
    if request.param == "user namespace":
        tried = subprocess.run(("unshare", "-Urn", "true"), capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            pytest.skip(f"no user namespaces here: {tried.stderr.strip()}")
    return str(request.param)


def carry_out(how: str, kind: str, link: str = "line", **parameters: Any) -> dict[str, Any]:
    """Break a link in a process of its own, measure before, during and after."""
    prefix = ("unshare", "-Urn") if how == "user namespace" else ()
    if how == "proxy":
        parameters["mechanism"] = "proxy"
    own = how in ("root", "user namespace")
    told = json.dumps({"kind": kind, "link": link, "parameters": parameters, "own": own})
    done = subprocess.run(
        (*prefix, sys.executable, str(BENCH), told), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["unavailable"] is None
    assert found["witness"]["bit"] is True, found
    assert set(found["undone"]) == {True}, found
    places = {"proxy": "user-space proxy", "the host's network": "in the host's network, loopback only"}
    assert places.get(how, "in the trial's own network") in found["receipt"]["mechanism"]
    assert found["before"]["lost"] == 0
    assert found["after"]["lost"] == 0, "the line works again"
    assert found["receipt"]["uncertainty_ns"] < 100_000_000
    assert found["began_ns"] < found["receipt"]["t0_mono_ns"]
    return found


@pytest.mark.parametrize("link", ["line", "quotes"])
def test_a_partition_lets_nothing_through_and_heals(how: str, link: str) -> None:
    """While it lasts nothing arrives; afterwards the same connection goes on."""
    found = carry_out(how, "partition", link)
    assert found["during"]["lost"] == found["during"]["sent"]
    if link == "line" and how != "proxy":
        assert any(one["next_try_ms"] > 0 for one in found["floor"]["waiting"]), (
            "the kernel's back-off is told"
        )


def test_a_partition_of_one_way_lets_the_other_through(how: str) -> None:
    """Only datagrams to the client vanish: the server hears everything, and its echo is silent."""
    found = carry_out(how, "partition", "quotes", direction="to_client")
    assert found["during"]["lost"] == found["during"]["sent"]
    assert found["during"]["heard_by_server"] == found["during"]["sent"]


def test_loss_takes_its_share(how: str) -> None:
    """Of many datagrams about the share is lost, by the kernel's own count too."""
    found = carry_out(how, "packet_loss", "quotes", share=0.2, direction="to_server")
    assert 0.04 < found["during"]["lost"] / found["during"]["sent"] < 0.45
    assert found["last"]["rules"][0]["hit"] == found["during"]["lost"]


def test_latency_delays_every_answer_by_both_ways(how: str) -> None:
    """An answer takes twice the delay, and no less; nothing is lost."""
    found = carry_out(how, "latency", delay_ms=20)
    assert found["during"]["lost"] == 0
    assert found["during"]["least_ms"] >= 40


def test_a_reset_ends_the_connection_and_refuses_new_ones(how: str) -> None:
    """The client is told so at its next word, and cannot connect while it lasts."""
    found = carry_out(how, "reset")
    assert found["during"]["error"] == "ConnectionResetError"
    refusal = "ConnectionResetError" if how == "proxy" else "ConnectionRefusedError"
    assert found["during"]["again"] == refusal


def test_a_half_open_connection_is_silent_while_new_ones_work(how: str) -> None:
    """The old connection neither answers nor ends; a new one answers."""
    found = carry_out(how, "half_open")
    assert found["during"]["lost"] == found["during"]["sent"]
    assert found["during"]["error"] == ""
    assert found["during"]["again"] == "answers"


def test_duplicates_arrive_twice(how: str) -> None:
    """Every datagram is heard twice by the server."""
    found = carry_out(how, "duplicate_packets", "quotes", share=1, direction="to_server")
    assert found["during"]["heard_by_server"] == 2 * found["during"]["sent"]


def test_reordered_packets_are_overtaken(how: str) -> None:
    """Datagrams come in another order than they were sent, and all of them come."""
    found = carry_out(how, "reorder", "quotes", share=0.3, late_ms=5, direction="to_server")
    assert found["during"]["heard_by_server"] == found["during"]["sent"]
    assert found["during"]["order_kept"] is False


@pytest.mark.parametrize("checksum", ["wrong", "right"])
def test_a_turned_bit_is_dropped_by_the_kernel_or_reaches_the_program(how: str, checksum: str) -> None:
    """With a wrong checksum nothing arrives; with a right one everything, and none as it was sent."""
    if how == "proxy" and checksum == "wrong":
        pytest.skip("a proxy cannot send a wrong checksum")
    found = carry_out(how, "corrupt_packets", "quotes", share=1, checksum=checksum, direction="to_server")
    assert found["during"]["heard_by_server"] == (0 if checksum == "wrong" else found["during"]["sent"])
    assert found["during"]["unchanged"] == 0


@pytest.mark.parametrize(("kind", "way"), [("bandwidth", "both"), ("slow_reader", "to_server")])
def test_a_narrow_line_carries_so_many_bytes_a_second(how: str, kind: str, way: str) -> None:
    """A megabyte each second pass through, not more, though the sender would send without end."""
    found = carry_out(how, kind, bytes_per_s=1_000_000, direction=way)
    assert 100_000 < found["during"]["bytes_per_s"] < 1_500_000
    assert found["before"]["bytes_per_s"] > 5_000_000


@pytest.fixture
def alone() -> str:
    """One way into a network of its own: what differs from link to link is the same in all of them."""
    if os.geteuid() == 0:
        return "root"
    tried = subprocess.run(("unshare", "-Urn", "true"), capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no user namespaces here: {tried.stderr.strip()}")
    return "user namespace"


@pytest.mark.parametrize("mechanism", ["kernel", "proxy"])
def test_jitter_spreads_the_delays_and_keeps_the_order(alone: str, mechanism: str) -> None:
    """Datagrams take 30 ms ± 20 ms, each its own time, and none overtakes another."""
    how = "proxy" if mechanism == "proxy" else alone
    found = carry_out(how, "latency", "quotes", delay_ms=30, jitter_ms=20, direction="to_server")
    assert found["during"]["lost"] == 0
    assert found["during"]["order_kept"] is True
    assert found["during"]["least_ms"] >= 10
    assert found["during"]["most_ms"] - found["during"]["least_ms"] > 10


def test_a_narrow_line_makes_datagrams_wait(alone: str) -> None:
    """A hundred datagrams of 36 bytes at 10,000 bytes a second: a third of a second, and none is lost."""
    found = carry_out(alone, "bandwidth", "quotes", bytes_per_s=10_000, direction="to_server")
    assert found["during"]["lost"] == 0
    assert found["during"]["lasted_ms"] > 300 > found["before"]["lasted_ms"]


def test_a_narrow_line_with_little_room_loses_datagrams(alone: str) -> None:
    """What does not fit into the buffer before the narrow line is gone, as at a router."""
    found = carry_out(
        alone, "bandwidth", "quotes", bytes_per_s=10_000, buffer_bytes=500, direction="to_server"
    )
    assert 0 < found["during"]["lost"] == found["last"]["queue"]["lost"]


@pytest.mark.parametrize(
    ("kind", "parameters", "done"),
    [
        ("reorder", {"share": 0.3, "late_ms": 5}, "late"),
        ("duplicate_packets", {"share": 0.5}, "doubled"),
        ("corrupt_packets", {"share": 0.1}, "changed"),
    ],
)
def test_tcp_puts_right_what_becomes_of_its_packets(
    alone: str, kind: str, parameters: dict[str, Any], done: str
) -> None:
    """Packets are late, doubled or damaged, and the stream comes whole all the same."""
    found = carry_out(alone, kind, **parameters)
    assert found["during"]["intact"] is True
    assert found["last"]["queue"][done] > 0


def test_a_turned_bit_with_a_right_checksum_passes_tcp(alone: str) -> None:
    """Nobody below the program can notice: the stream comes, and is not what was sent."""
    found = carry_out(alone, "corrupt_packets", share=0.5, checksum="right")
    assert found["before"]["intact"] is True
    assert found["during"]["intact"] is False


MULTICAST: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "partition": ({}, lambda one: one["lost"] == one["sent"]),
    "packet_loss": ({"share": 0.3}, lambda one: 0.1 < one["lost"] / one["sent"] < 0.6),
    "latency": ({"delay_ms": 20}, lambda one: one["lost"] == 0 and one["least_ms"] >= 20),
    "bandwidth": ({"bytes_per_s": 10_000}, lambda one: one["lost"] == 0 and one["lasted_ms"] > 300),
    "reorder": ({"share": 0.3, "late_ms": 5}, lambda one: one["lost"] == 0 and not one["order_kept"]),
    "duplicate_packets": ({"share": 1}, lambda one: one["heard_by_server"] == 2 * one["sent"]),
    "corrupt_packets": (
        {"share": 1, "checksum": "right"},
        lambda one: one["heard_by_server"] == one["sent"] and one["unchanged"] == 0,
    ),
}
"""How each kind is asked for, and what its listener must find."""


@pytest.mark.parametrize("kind", MULTICAST)
def test_each_fault_of_datagrams_is_one_of_multicast(alone: str, kind: str) -> None:
    """What a server sends to a group is hit on the way to its listeners; unicast has its own tests."""
    parameters, fits = MULTICAST[kind]
    during = carry_out(alone, kind, "tape", **parameters)["during"]
    assert fits(during), during


def test_when_the_injector_is_killed_the_rules_go_with_it(how: str) -> None:
    """SIGKILL to the process that broke the link: the kernel takes the rules away; nobody else did."""
    if how == "proxy":
        pytest.skip("without rules there are none to be taken away: the proxy ends with its parent")
    prefix = ("unshare", "-Urn") if how == "user namespace" else ()
    command = (
        *prefix,
        sys.executable,
        str(BENCH),
        json.dumps({"kill": True, "own": how != "the host's network"}),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = json.loads(process.stdout.readline())
        finally:
            process.wait(timeout=60)
    assert found["broken"] is True
    assert found["healed_after_ms"] is not None


@pytest.mark.parametrize(
    ("kind", "links", "parameters", "reason"),
    [
        ("partition", (), {}, "which link"),
        ("partition", ("lime",), {}, "no link `lime`"),
        ("reset", ("quotes",), {}, "only for tcp"),
        ("latency", ("line",), {"delay": 5}, "no parameter `delay`"),
        ("latency", ("line",), {"direction": "up"}, "no direction"),
        ("packet_loss", ("line",), {"share": 5}, "0.05 is 5 %"),
        ("bandwidth", ("line",), {}, "has to be given"),
        ("corrupt_packets", ("line",), {"checksum": "none"}, "wrong, right"),
    ],
)
def test_what_cannot_be_meant_is_refused_beforehand(
    kind: str, links: tuple[str, ...], parameters: dict[str, Any], reason: str
) -> None:
    """A misspelt link or parameter is an answer of `unavailable`, before anything runs."""
    fault = registry.make(kind)
    step = FaultStep(kind=kind, links=links, parameters=parameters)
    assert reason in str(fault.unavailable(MANIFEST, step))


def test_an_ordinary_user_without_a_network_of_its_own_is_told_why() -> None:
    """Without isolation and without root the reason names what to write into the manifest."""
    if os.geteuid() == 0:
        pytest.skip("root may change the host's own rules")
    plain = Manifest(schema=1, name="x", links=LINKS)
    reason = registry.make("partition").unavailable(plain, FaultStep(kind="partition", links=("line",)))
    assert "isolation" in str(reason)


def test_undoing_after_everything_has_gone_is_verified_and_harmless() -> None:
    """A later start finds neither the network nor the proxy of a trial that was killed: nothing is owed."""
    table = {"table": "blackstart_1", "namespace": 1}
    assert verbs.begin("filter", table, "/")() == (True, {"table": "blackstart_1", "namespace_gone": True})
    assert verbs.begin("proxy", {"pid": 2**22 + 1}, "/")() == (True, {"gone": True})
    assert "nft delete table inet blackstart_1" in verbs.by_hand("filter", table, "/")

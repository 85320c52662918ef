"""What a manifest may say of other hosts."""

from __future__ import annotations

from typing import Any

import pytest

from blackstart.check import presence, stamps
from blackstart.model.fault import Receipt, RemoteRef
from blackstart.model.manifest import Component, EventSource, Host, Manifest, Process, Ready, Service
from blackstart.model.record import ProcessSeen, ResourceSample
from blackstart.scenario.load import packaged
from blackstart.scenario.plan import carry
from blackstart.target.host_problems import problems
from blackstart.target.problems import problems as all_problems


def manifest(component: Component | None = None, **more: Any) -> Manifest:
    """Return a manifest with a component on another host."""
    lines = component or Component(host="vm1", pid_file="/run/x.pid")
    return Manifest(
        **{
            "schema": 1,
            "name": "t",
            "environment": "test",
            "hosts": {"vm1": Host(address="vm1")},
            "components": {"lines": lines},
            **more,
        }
    )


@pytest.mark.parametrize("way", [{"pid_file": "/run/x"}, {"match": "^java .*Engine"}])
def test_a_component_of_another_host_is_found_in_these_ways(way: dict[str, str]) -> None:
    """A pid file there, or a command line there; with a command it can be started, too."""
    start = {"start": ("x",), "ready": Ready(tcp="vm1:1"), "restart_after_s": 1.0}
    for more in ({}, start):
        assert list(problems(manifest(Component(host="vm1", **way, **more)))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (manifest(Component(host="vm2", pid_file="/x")), "components.lines.host: no host `vm2`"),
        (manifest(hosts={"vm1": Host(address="-oX")}), "hosts.vm1.address"),
        (manifest(hosts={"vm1": Host(address="")}), "hosts.vm1.address"),
        (manifest(isolation=("network",)), "isolation: a trial with a network"),
        (manifest(Component(host="vm1", match="(")), "components.lines.match: not a regular expression"),
        (
            manifest(Component(pid_file="/x", start=("x",))),
            "components.lines.start: for components with `host`",
        ),
        (manifest(Component(pid_file="/x", restart="self")), "components.lines.restart: for components with"),
        (
            manifest(Component(host="vm1", url="http://vm1/", select="pid", start=("x",))),
            "components.lines.start: an URL that does not answer does not tell",
        ),
        (manifest(Component(host="vm1", glue="find")), "components.lines.glue: a component with `host`"),
        (
            manifest(Component(host="vm1", pid_file="/x", start=("x",), ready=Ready(log="up"))),
            "components.lines.ready: asked from this host",
        ),
        (
            manifest(processes={"lines": Process(command=("x",))}),
            "components.lines: a process has the same name",
        ),
        (
            manifest(Component(host="vm1", pid_file="/x", supervisor="lines")),
            "components.lines.supervisor: nobody can be made to stand still",
        ),
        (manifest(events={"log": EventSource(files="/x", host="vm3")}), "events.log.host: no host `vm3`"),
    ],
)
def test_what_cannot_be_is_told(described: Manifest, said: str) -> None:
    """Each mistake is named with its key."""
    found = list(problems(described))
    assert any(one.startswith(said) for one in found), found
    assert set(found) <= set(all_problems(described)), "`validate` tells it, too"


def test_a_host_is_connected_before_anything_runs() -> None:
    """Its entry can have no value of a process that is started later."""
    hosts = {"vm1": Host(address="{main.address}")}
    processes = {"main": Process(command=("x",), endpoints="x.json")}
    found = all_problems(manifest(hosts=hosts, processes=processes))
    assert any("`main` is started later" in one for one in found)


def test_a_clean_stop_needs_somebody_who_starts_it_again() -> None:
    """R24 fits a component there when the manifest says how it is started, and not else."""
    (clean,) = (one for one in packaged() if one.id == "R24")
    fitting = Component(host="vm1", pid_file="/x", start=("x",))
    more: dict[str, Any] = {
        "groups": {"clean": ("lines",)},
        "services": {"orders": Service(source="workload")},
    }
    assert carry(manifest(fitting, **more), clean) is None
    assert carry(manifest(**more), clean) is not None


def test_only_one_whom_blackstart_starts_again_has_blackstart_as_its_operator() -> None:
    """What Blackstart did there counts as the operator's deed, what it saw there is inferred."""
    mine = Component(host="vm1", pid_file="/x", start=("x",))
    other = Component(host="vm1", pid_file="/x", start=("x",), restart="self")
    assert stamps.operated(manifest(mine), "lines")
    assert not stamps.operated(manifest(other), "lines")


def test_the_same_pid_on_another_host_is_another_process() -> None:
    """A death here does not make the one there dead, and two of the same pid are two."""

    def sample(**components: tuple[str | None, int]) -> ResourceSample:
        measured = {
            name: {"pid": pid, "state": "running", **({"host": host} if host else {})}
            for name, (host, pid) in components.items()
        }
        return ResourceSample(mono_ns=1, cpu_percent=1, memory_percent=1, disk_percent=1, components=measured)

    before = sample(here=(None, 7), there=("vm1", 7))
    died = presence.identity(ProcessSeen(component="here", what="exited", pid=7, mono_ns=1))
    assert presence.absent(["there"], before, before, {died}) == ([], 1)
    after = sample(here=(None, 8), there=("vm1", 8))
    assert presence.absent(["here", "there"], before, after, {died}) == ([], 0)


def test_a_receipt_names_everything_that_was_hit() -> None:
    """Those of other hosts are apart by type, and count all the same."""
    remote = {"lines": RemoteRef("vm1", 7, 1)}
    receipt = Receipt(fault="kill", mechanism="x", t0_mono_ns=1, t0_source="x", remote=remote)
    assert receipt.hit == ("lines",)
    assert receipt.processes == {}

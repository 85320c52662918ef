"""What `doctor` says about a fault: one contract (`HasMechanisms`), whatever the fault breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.cli import doctor
from blackstart.contracts import HasMechanisms
from blackstart.errors import TargetError
from blackstart.faults import registry
from blackstart.host import cgroups, systemd
from blackstart.scenario import load
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


class Offering:
    """A fault of no packaged scenario that offers what the test says."""

    name = "offering"
    offered: dict[str, str | None]

    def mechanisms(self, target: Manifest) -> dict[str, str | None]:
        """See `contracts.HasMechanisms`."""
        assert target.name
        return self.offered

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """Never asked: no packaged scenario uses it."""
        raise AssertionError(target, step)


@pytest.fixture
def firm() -> Manifest:
    """Return the reference firm's manifest."""
    return manifests.load("paperfirm")


def said(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, offered: dict[str, str | None]
) -> doctor.Finding:
    """Let doctor judge a fault that offers these mechanisms."""
    fault = Offering()
    fault.offered = offered
    monkeypatch.setattr(registry, "make", lambda _: fault)
    return doctor._fault("offering", manifest)


def test_one_mechanism_is_enough(monkeypatch: pytest.MonkeyPatch, firm: Manifest) -> None:
    """The fault works by the mechanism that can be had, and it is said why another cannot."""
    found = said(monkeypatch, firm, {"kernel": "no root", "proxy": None})
    assert found.state == "works"
    assert found.how.endswith("Here by: proxy; not kernel: no root")


def test_without_any_mechanism_the_fault_cannot_be_done(
    monkeypatch: pytest.MonkeyPatch, firm: Manifest
) -> None:
    """Where no mechanism can be had, the fault does not work, and each reason is told once."""
    found = said(monkeypatch, firm, {"kernel": "no root", "proxy": "no proxy", "pray": "no root"})
    assert found.state == "optional"
    assert found.hint == f"{firm.name}: no root; no proxy"


def test_the_scenarios_that_will_be_unknown_are_named(
    monkeypatch: pytest.MonkeyPatch, firm: Manifest
) -> None:
    """R27: an ordinary user learns beforehand which scenario cannot be carried here, or may not bite."""
    monkeypatch.setattr(cgroups, "unavailable", lambda *_: "no control groups")
    found = doctor._fault("oom", firm)
    assert found.scenarios == ("R27",)
    assert "the trial is UNKNOWN" in found.how
    monkeypatch.setattr(registry, "unavailable", lambda *_: "not here")
    found = doctor._fault("oom", firm)
    assert (found.scenarios, found.state, found.hint) == (("R27",), "optional", "paperfirm: not here")


def test_one_of_several_scenarios_that_cannot_be_carried_is_named(
    monkeypatch: pytest.MonkeyPatch, firm: Manifest
) -> None:
    """A fault that works may yet not carry one scenario of several: that one is told with its reason."""
    users = [one for one in load.packaged() if one.fault.kind == "kill"]
    assert len(users) > 1
    monkeypatch.setattr(doctor, "carry", lambda _, one: "too small" if one.id == users[0].id else None)
    found = doctor._fault("kill", firm)
    assert found.state == "works"
    assert found.how.endswith(f"; not {users[0].id}: too small")


def test_network_faults_keep_the_same_contract(firm: Manifest) -> None:
    """A network fault offers what `parameters.mechanism` accepts, and says so when no link fits it."""
    for kind in ("partition", "latency", "bandwidth", "reset"):
        fault = registry.make(kind)
        assert isinstance(fault, HasMechanisms)
        assert list(fault.mechanisms(firm)) == ["kernel", "proxy"]
    bare = msgspec.structs.replace(firm, links={})
    found = doctor._fault("latency", bare)
    assert found.state == "optional"
    assert "the manifest has no link `exchange`" in found.hint


def test_the_closing_line_sums_up() -> None:
    """The last line says how many faults can be had, and what every trial misses."""
    works = doctor.Finding(what="fault kill", state="works", how="")
    absent = doctor.Finding(what="fault oom", state="optional", how="")
    disk = doctor.Finding(what="disk space here", state="missing", how="")
    assert (
        doctor.closing([works, absent])
        == "1 of 2 faults can be had here; nothing that every trial needs is missing"
    )
    assert doctor.closing([disk]) == "every trial needs, and misses: disk space here"


@pytest.mark.parametrize("there", [True, False])
def test_no_folder_is_advised_that_is_not_there(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    """Where our user has no manager, nobody is told to name its folder."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("os.path.isdir", lambda _: there)
    with pytest.raises(TargetError) as caught:
        systemd.manager("user")
    assert caught.value.hint.startswith("export XDG_RUNTIME_DIR=") is there


def test_a_scenario_is_named_at_each_of_its_faults(firm: Manifest) -> None:
    """R63 corrupts first and partitions then: where either cannot be had, R63 is one of those to name."""
    assert "R63" in doctor._fault("flip_file_bits", firm).scenarios
    assert {"R5", "R63"} <= set(doctor._fault("partition", firm).scenarios)

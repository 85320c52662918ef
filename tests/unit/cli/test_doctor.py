"""What `doctor` says about a fault: one contract (`HasMechanisms`), whatever the fault breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.cli import doctor
from blackstart.contracts import HasMechanisms
from blackstart.faults import registry
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


def test_network_faults_keep_the_same_contract(firm: Manifest) -> None:
    """A network fault offers what `parameters.mechanism` accepts, and says so when no link fits it."""
    for kind in ("partition", "latency", "bandwidth", "reset"):
        fault = registry.make(kind)
        assert isinstance(fault, HasMechanisms)
        assert list(fault.mechanisms(firm)) == ["kernel", "proxy"]
    bare = msgspec.structs.replace(firm, links={})
    found = doctor._fault("reset", bare)
    assert found.state == "optional"
    assert "the manifest has no link `exchange`" in found.hint

"""Every kind of fault has an example that can be tried, on a target that has what the example names."""

from __future__ import annotations

import pytest

from blackstart.faults import registry
from blackstart.scenario import load as scenarios
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests
from blackstart.testing.examples import EXAMPLES, trial

KINDS = sorted(registry.known())


def test_no_kind_is_without_an_example_and_no_example_without_a_kind() -> None:
    """Whoever adds a fault adds the example on which the frame, the guardian's matrix and doctor try it."""
    assert sorted(EXAMPLES) == KINDS


def test_every_kind_has_a_packaged_scenario() -> None:
    """Each can be tried on the reference firm, and doctor asks for it as it is used there."""
    used = {step.kind for one in scenarios.packaged() for step in (one.fault, *one.then)}
    assert sorted(used) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_names_what_its_target_has(kind: str) -> None:
    """The target can carry the example's trial: its components, links and data are there."""
    manifest = manifests.load(EXAMPLES[kind].target)
    (found,) = plan(trial(kind), manifest, seed=7)
    step = found.scenario.fault
    assert set(step.components) <= manifest.components.keys()
    assert set(step.links) <= manifest.links.keys()
    assert step.parameters.get("data", "limits") in {*manifest.data, "limits"}

"""Which mechanism is chosen, and what is said when none can be had."""

from __future__ import annotations

from blackstart.faults import mechanisms
from blackstart.model.scenario import FaultStep

OFFERED = {"kernel": "no root", "library": None, "pray": None}


def step(**parameters: str) -> FaultStep:
    """Make a step."""
    return FaultStep(kind="x", parameters=parameters)


def test_the_first_that_can_be_had_is_taken_and_the_reason_kept() -> None:
    """The best comes first; why it was passed over is told."""
    assert mechanisms.best(step(), OFFERED) == ("library", "no root")
    assert mechanisms.best(step(mechanism="pray"), OFFERED) == ("pray", "")


def test_a_forced_one_is_never_replaced() -> None:
    """Asked for what cannot be had, the answer is the reason; for what is unknown, the list."""
    assert mechanisms.problem(step(mechanism="kernel"), OFFERED) == "no root"
    assert "kernel, library, pray" in str(mechanisms.problem(step(mechanism="magic"), OFFERED))
    assert mechanisms.problem(step(mechanism="pray"), OFFERED) is None


def test_none_at_all_names_every_reason() -> None:
    """Without any mechanism the fault is not available, and each reason is told."""
    assert mechanisms.problem(step(), OFFERED) is None
    assert mechanisms.problem(step(), {"a": "no root", "b": "no compiler"}) == "no root; no compiler"

"""What must be in place before the target of a session starts: for every fault that may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.contracts import Prepared, Prepares
from blackstart.engine.trial import Stop
from blackstart.errors import BlackstartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackstart.chaos.model import LeftOut
    from blackstart.chaos.plan import Planned
    from blackstart.contracts import Fault
    from blackstart.engine.trial import RunningTrial
    from blackstart.model.scenario import FaultStep


async def prepare(trial: RunningTrial, planned: Planned, make: Callable[[str], Fault]) -> list[LeftOut]:
    """Prepare all faults; returns those that cannot be prepared, or not beside what was prepared before.

    They are no longer planned. Raises Stop where a recording says that they must come.
    """
    seen: list[FaultStep] = []
    gone = []
    for step in planned.steps():
        fault = make(step.kind)
        if step in seen or not isinstance(fault, Prepares):
            continue
        seen.append(step)
        try:
            change = await fault.prepare(trial, step)
        except BlackstartError as error:
            left = planned.leave_out(step, error.render())
            if left is None:
                raise Stop("fault-unavailable", error.render()) from error
            gone.append(left)
            continue
        if isinstance(trial.target, Prepared):
            trial.target.change_launch(change)
    return gone

"""What the fault ended must be there again, whatever the service does meanwhile."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from blackstart.check import analyse
from blackstart.model.fault import ProcessRef
from blackstart.model.record import StageReached
from blackstart.model.verdict import Verdict

BEFORE = {"engine": 41, "spare": 43}


def samples(world: Any, before: dict[str, int], after: dict[str, int], **fields: Any) -> None:
    """Make the fault end pid 41, and let these processes be measured before and after it."""
    killed = {"engine": ProcessRef(pid=41, start_ticks=1)}
    world.receipt = msgspec.structs.replace(world.receipt, processes=killed)
    world.samples = []
    for number in range(-2, 12):
        living, more = (before, {}) if number <= 0 else (after, fields)
        one = {"cpu_s": number / 10, "rss": 1, "threads": 1, "state": "sleeping", **more}
        world.samples.append(
            world.sample(number, components={n: {**one, "pid": pid} for n, pid in living.items()})
        )


def fault(world: Any) -> tuple[Verdict, tuple[str, ...]]:
    """Say what the check of the fault says."""
    result = next(check for check in analyse(world.history()).checks if check.check == "fault")
    return result.verdict, tuple(finding.code for finding in result.findings)


@pytest.mark.parametrize("after", [{"engine": 42, "spare": 43}, {"engine": 43, "spare": 44}])
def test_another_process_or_a_takeover_with_a_new_spare_is_back(world: Any, after: dict[str, int]) -> None:
    """A restart in place passes, and so does a failover after which the spare is there again."""
    samples(world, BEFORE, after)
    assert fault(world) == (Verdict.PASS, ())


@pytest.mark.parametrize(
    "after", [{}, {"spare": 43}, {"engine": 41, "spare": 43}, {"engine": 43}, {"engine": 43, "spare": 43}]
)
def test_what_never_comes_back_is_a_failure(world: Any, after: dict[str, int]) -> None:
    """Nothing, only the killed process, or fewer processes behind as many names: FAIL."""
    samples(world, BEFORE, after)
    assert fault(world) == (Verdict.FAIL, ("component-not-back",))


def test_a_zombie_is_not_back(world: Any) -> None:
    """A process that died again and that nobody collected does not stand behind anything."""
    samples(world, BEFORE, {"engine": 42, "spare": 43}, state="zombie")
    assert fault(world) == (Verdict.FAIL, ("component-not-back",))


def test_what_nobody_measured_is_unknown(world: Any) -> None:
    """Without a measurement of the component, or of the end, nobody knows."""
    samples(world, {"spare": 43}, {"spare": 43})
    assert fault(world) == (Verdict.UNKNOWN, ("component-unseen",))
    samples(world, BEFORE, BEFORE)
    history = world.history(lambda r: isinstance(r, StageReached) and r.stage == "read")
    assert "component-unseen" in " ".join(analyse(history).reasons)

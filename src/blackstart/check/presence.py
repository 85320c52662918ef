"""Is what the fault ended there again? Service that goes on without its spare parts is no recovery.

Every component whose process was hit must have a living process behind it in the last measurement before
the target is taken down (where it goes on: before the end of watching), other than one whose end was seen.
Where a role moves from process to process (a standby becomes primary) the name alone proves nothing: as many
processes must live as before the fault. That holds where no process was hit, too: what dies of a partition
or of wrong data, and stays dead, is gone as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.model.record import ProcessSeen, ResourceSample
from blackstart.model.verdict import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts

DEAD = frozenset({"zombie", "dead"})
NS_PER_S = 1_000_000_000

Identity = tuple[str | None, int]
"""A process: its host (None is this one) and its pid there."""


def check(facts: Facts, before: str = "read") -> Iterable[Finding]:
    """Compare the last measurement up to the stage `before` with the one before the fault."""
    hit = {name for receipt in facts.receipts for name in receipt.hit}
    read, first, last = facts.stage(before), facts.t0_ns, facts.last_t0_ns
    if first is None or last is None:
        return
    samples = [s for s in facts.all(ResourceSample) if read is not None and s.mono_ns <= read.mono_ns]
    earlier = [s for s in samples if s.mono_ns <= first and s.components]
    later = [s for s in samples if s.mono_ns > last]
    seen = {name for sample in samples for name in sample.components}
    if not hit and not earlier:
        return  # nothing of this target can be measured, and nothing of it was ended by us
    blind = sorted(hit - seen)
    if blind or not earlier or not later:
        names = blind or sorted(hit or earlier[-1].components)
        text = f"nobody measured whether it came back: {', '.join(names)}"
        yield Finding(verdict=Verdict.UNKNOWN, code="component-unseen", text=text)
        return
    ended = _ended(facts, first)
    missing, fewer = absent(hit, earlier[-1], later[-1], ended)
    if missing or fewer > 0:
        waited_s = (later[-1].mono_ns - last) / NS_PER_S
        names = missing or _gone(_living(earlier[-1], set()), _living(later[-1], ended))
        yield _not_back(names, fewer, waited_s)


def absent(
    hit: Iterable[str], earlier: ResourceSample, later: ResourceSample, ended: set[Identity]
) -> tuple[list[str], int]:
    """Return which components that were hit have no living process, and how many fewer live than before."""
    before, after = _living(earlier, set()), _living(later, ended)
    return sorted(set(hit) - after.keys()), len(set(before.values())) - len(set(after.values()))


def away(earlier: ResourceSample, later: ResourceSample, ended: set[Identity]) -> list[str]:
    """Name the components that had a living process of their own in `earlier`, and have none in `later`."""
    missing, fewer = absent(_living(earlier, set()), earlier, later, ended)
    if missing or fewer <= 0:
        return missing
    return _gone(_living(earlier, set()), _living(later, ended))


def stayed(facts: Facts) -> Iterable[Finding]:
    """Compare the last measurement before `read` with that of the opening: nobody may be missing in the end.

    Where nobody measured the components, the infrastructure validator says so.
    """
    read, samples = facts.stage("read"), facts.all(ResourceSample)
    opening = next((one for one in samples if one.opening), None)
    own = [s for s in samples if not s.opening and (read is None or s.mono_ns <= read.mono_ns)]
    if opening is None or not own:
        return
    if names := away(opening, own[-1], _ended(facts, opening.mono_ns)):
        text = f"there before anything was broken, and not at the end: {', '.join(names)}"
        yield Finding(verdict=Verdict.FAIL, code="component-gone", text=text, data={"components": names})


def identity(seen: ProcessSeen) -> Identity:
    """Return the host and the pid of a process that was seen: the same pid means nothing on another host."""
    return seen.detail.get("host"), seen.pid


def _ended(facts: Facts, t0_ns: int) -> set[Identity]:
    return {identity(s) for s in facts.all(ProcessSeen) if s.what == "exited" and s.mono_ns >= t0_ns}


def _living(sample: ResourceSample, ended: set[Identity]) -> dict[str, Identity]:
    """Return which living process stands behind each component."""
    found = {
        name: (one.get("host"), one["pid"])
        for name, one in sample.components.items()
        if one.get("state") not in DEAD
    }
    return {name: who for name, who in found.items() if who not in ended}


def _gone(before: dict[str, Identity], after: dict[str, Identity]) -> list[str]:
    """Name what has no process, or only one that also stands behind another name."""
    pids = list(after.values())
    return sorted(name for name in before if name not in after or pids.count(after[name]) > 1)


def _not_back(names: list[str], fewer: int, waited_s: float) -> Finding:
    text = f"not back {waited_s:.1f} s after the fault: {' or '.join(names)}"
    if fewer > 0:
        text += f" ({fewer} living process{'es' if fewer > 1 else ''} fewer than before)"
    data = {"components": names, "fewer": fewer}
    return Finding(verdict=Verdict.FAIL, code="component-not-back", text=text, data=data)

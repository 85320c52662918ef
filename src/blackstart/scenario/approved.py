"""What an approval allows, and whether a wish goes beyond it (R22, R23). Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.scenario import FaultStep  # noqa: TC001 - msgspec reads the annotations
from blackstart.scenario import radius

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blackstart.model.approval import Approval
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

NS = 1_000_000_000
LONGEST_S = 24 * 3600.0
"""An approval holds for this long at most."""
AHEAD_S = 7 * 86400.0
"""It is signed so long at most before it begins."""
_CLOSING_S = 60.0
"""What closing a target may take besides stopping its processes."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to do: profiles or scenarios with their hashes, and every fault that may come.

    `at_once` are the places that may be broken together, `interval_s` the least time between two beginnings
    (None: one trial after the other), `longest_s` how long it may take with all its limits.
    """

    what: dict[str, str]
    steps: tuple[FaultStep, ...]
    at_once: int
    longest_s: float
    interval_s: float | None = None


def fingerprint(value: msgspec.Struct) -> str:
    """Return the SHA-256 of a value, the same wherever and whenever it is asked."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def size(step: FaultStep) -> int:
    """Return how many places a fault breaks."""
    return max(1, len(step.components) + len(step.links))


def of_trials(plans: Sequence[Plan], manifest: Manifest) -> Wish:
    """Return the wish to run trials, one after the other; all faults of a trial count as at once."""
    return Wish(
        what={f"scenario {_name(plan)}": fingerprint(plan.scenario) for plan in plans},
        steps=tuple(step for plan in plans for step in plan.faults),
        at_once=max((sum(size(step) for step in plan.faults) for plan in plans), default=0),
        longest_s=max((longest_s(plan, manifest) for plan in plans), default=0.0),
    )


def _name(plan: Plan) -> str:
    """Return the trial's name without its repetition: what one scenario does to each part may differ."""
    return plan.trial_id.partition("#")[0]


def longest_s(plan: Plan, manifest: Manifest) -> float:
    """Return how long a trial may take, every limit of it used up, in seconds."""
    scenario, observe = plan.scenario, plan.scenario.observe
    preparing = sum(step.pause_s for step in scenario.prepare)
    waiting = sum(step.trigger.delay_s + step.trigger.limit_s for step in plan.faults)
    broken = sum(step.duration_s or 0.0 for step in plan.faults)
    looking = observe.limit_s + observe.after_s + observe.quiesce_s
    return up_and_down_s(manifest) + preparing + scenario.steady.limit_s + waiting + broken + looking


def up_and_down_s(manifest: Manifest) -> float:
    """Return how long opening and closing a target may take, in seconds."""
    processes = manifest.processes.values()
    started = sum(one.ready.limit_s for one in processes)
    started += sum(one.ready.limit_s for one in manifest.components.values() if one.operated)
    return started + sum(one.stop_limit_s for one in processes) + _CLOSING_S


def problem(approval: Approval) -> str | None:
    """Say what makes an approval none, whoever signs it; None when it is well."""
    lasts_s = (approval.until_wall_ns - approval.from_wall_ns) / NS
    wrong = (
        (not approval.reason.strip(), "it gives no reason"),
        (not approval.what, "it names no profile and no scenario"),
        (not approval.kinds, "it names no kind of fault"),
        (not approval.components and not approval.links, "it names no component and no link"),
        (approval.symbols == (), "it names no symbol"),
        (not approval.markets, "it names no market in whose hours nothing runs"),
        (approval.concurrent < 1, "it allows less than one fault at once"),
        (not approval.interval_s >= 0, "the time between faults is below zero"),
        (not approval.margin_s >= 0, "the margin around market hours is below zero"),
        (lasts_s <= 0, "it ends before it begins"),
        (lasts_s > LONGEST_S, f"it is valid for {lasts_s / 3600:.1f} h, {LONGEST_S / 3600:g} h allowed"),
    )
    return next((what for found, what in wrong if found), None)


def untimely(approval: Approval, now_ns: int) -> str | None:
    """Say why it is not valid at this moment, or None."""
    if now_ns < approval.from_wall_ns:
        return "it is not valid yet"
    return "it has expired" if now_ns >= approval.until_wall_ns else None


def beyond(approval: Approval, manifest: Manifest, wish: Wish) -> str | None:
    """Say what of a wish goes beyond an approval; None when all of it is within."""
    return next(_beyond(approval, manifest, wish), None)


def _beyond(approval: Approval, manifest: Manifest, wish: Wish) -> Iterator[str]:
    for name, sha256 in wish.what.items():
        if name not in approval.what:
            yield f"{name} is not approved, only {', '.join(approval.what)}"
        elif approval.what[name] != sha256:
            yield f"{name} was changed since it was approved"
    for step in wish.steps:
        yield from _step_beyond(approval, manifest, step)
    if wish.at_once > approval.concurrent:
        yield f"{wish.at_once} faults at once, {approval.concurrent} approved"
    if wish.interval_s is not None and wish.interval_s < approval.interval_s:
        yield f"faults {wish.interval_s:g} s apart, not less than {approval.interval_s:g} s approved"


def _step_beyond(approval: Approval, manifest: Manifest, step: FaultStep) -> Iterator[str]:
    if step.kind not in approval.kinds:
        yield f"fault `{step.kind}` is not approved, only {', '.join(approval.kinds)}"
    if not step.components and not step.links:
        yield f"fault `{step.kind}` has no component and no link: it hits the whole host, never approved"
    yield from _strangers("component", step.components, approval.components)
    yield from _strangers("link", step.links, approval.links)
    if approval.symbols is not None and (what := radius.beyond(manifest, step, approval.symbols)):
        yield f"{what}; approved: {', '.join(approval.symbols)}"


def _strangers(what: str, names: Iterable[str], approved: Sequence[str]) -> Iterator[str]:
    for one in names:
        if one not in approved:
            yield f"{what} `{one}` is not approved, only {', '.join(approved) or 'none'}"

"""A scenario as data: what to break, when, under which load, and what must hold afterwards.

Files: `data/scenarios/*.toml`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from blackstart.model.approval import Grant  # noqa: TC001 - msgspec reads the annotations

TriggerKind = Literal["now", "delay", "random", "oracle", "signal"]


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load that must be on the service stream, else the trial is UNKNOWN (`no-load`).

    It is counted in the last second `before` the fault, or before the preparation where that ends the load
    itself (R37: the market closes, and the system dies in the settlement).
    """

    minimum_per_s: float = 300.0
    before: Literal["fault", "preparation"] = "fault"


class Steady(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steady state: ready and loaded for `hold_s` without a break, reached within `limit_s`."""

    hold_s: float = 1.0
    limit_s: float = 30.0


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to inject.

    At once, after `delay_s`, at a seeded moment before `delay_s`, or on an event that matches `where`.
    `where` compares fields of the event: a plain value means equality, a string beginning with `~` is a
    regular expression. It is the `at_least`-th such event that fires. Events of the same name that match
    `keep` go into the history too, besides the one that fires (R33: the slices that follow).
    """

    at: TriggerKind = "now"
    delay_s: float = 0.0
    event: str = ""
    where: dict[str, Any] = {}
    keep: dict[str, Any] = {}
    at_least: int = 1
    limit_s: float = 30.0


class Prepare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step before the trigger.

    `submit` an order through the workload, `fills` to script them at the oracle, `phases` to plan the coming
    phases of the market there, `misbehave` to have the exchange misbehave as a circumstance of the trial
    (`parameters` as of that fault), `operation` to ask the target for something that its manifest names; with
    `optional` a target without that operation goes without. It is done when `until` comes (UNKNOWN where that
    never does) and `pause_s` is over.
    """

    action: Literal["submit", "fills", "phases", "misbehave", "operation"]
    pause_s: float = 0.0
    parameters: dict[str, Any]
    until: Trigger | None = None
    optional: bool = False


class FaultStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault: what is broken, where, how and for how long.

    `components` are component names or `@group` names of the manifest; `@each` makes one trial for each.
    `links` are names of the manifest's `[links]`, or `@party`: all that lead to that party. A fault that
    stays in place is taken back after `duration_s`, and at the end of the trial where that is not given.
    `trigger` says when a follow-up fault is due, counted from the fault before it; the first fault has the
    scenario's. `symbols`: no other may be disturbed; for faults that can be kept to some.
    """

    kind: str
    components: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    duration_s: float | None = None
    trigger: Trigger = Trigger()


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be seen, or must `never` be seen, from `after` on.

    `signal` is one of the manifest's `[signs]`: how the target tells it. `oracle` is an event of the
    exchange. `after` is `start`, `fault` (t0 of the first fault), `then` (of the last), or `revert` (the
    last was taken back); `within_s` counts from there. It counts until `before`: `then` (t0 of the last
    fault), or `revert` (the first was taken back). `premise` says that this makes the trial what it is
    meant to be (the second fault came in the middle of something), and is no deed of the target: where it
    does not hold, the trial is UNKNOWN. `why` says it in words, for the report. Where the scenario does
    not ask every target and every trial for it: `given` names an operation that the manifest must have,
    `components` those of which the first fault must hit one.
    """

    why: str
    signal: str | None = None
    oracle: str | None = None
    where: dict[str, Any] = {}
    after: Literal["start", "fault", "then", "revert"] = "fault"
    before: Literal["then", "revert"] | None = None
    premise: bool = False
    within_s: float | None = None
    at_least: int = 1
    at_most: int | None = None
    never: bool = False
    given: str | None = None
    components: tuple[str, ...] = ()


class Objectives(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as success. A manifest may tighten or loosen them for its system."""

    rto_ms: float
    rpo_events: int = 0
    pnl_tolerance: float = 100.0


class Observe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to look.

    Up to `limit_s` for the recovery, `after_s` of service afterwards, `quiesce_s` for the books to settle.
    """

    limit_s: float = 30.0
    after_s: float = 1.0
    quiesce_s: float = 10.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scenario file. `service` names the manifest's service whose return ends the outage.

    With `degrades` the fault ends no part of the target, it only makes the going hard: the target need not
    tell of a recovery, so the total is judged without its phases, and a silent log is no failure.
    `then` are the faults that follow the first, each with a trigger of its own (R10, R34, R63). `goes_on`
    says that the service is expected to go on meanwhile (R31): as long as it never stopped, nothing was
    resumed, and no order came before a validation. `settles` says that the exchange settles the day, and the
    fault is to come in the target's settlement: what it settled is compared (R37). `alone`: no other trial
    beside it (it troubles the host).
    """

    id: str
    title: str
    requirement: str
    fault: FaultStep
    objectives: Objectives
    then: tuple[FaultStep, ...] = ()
    expect: tuple[Expectation, ...] = ()
    also: tuple[str, ...] = ()
    recovery: Literal["hot", "warm", "cold", "clean", "partial", "disconnect"] = "partial"
    service: str = "orders"
    services: dict[str, str] = {}
    standard: bool = True
    load: Load = Load()
    steady: Steady = Steady()
    prepare: tuple[Prepare, ...] = ()
    trigger: Trigger = Trigger()
    observe: Observe = Observe()
    new_epoch: bool = False
    goes_on: bool = False
    settles: bool = False
    alone: bool = False
    degrades: bool = False
    note: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One trial to run.

    The scenario with its groups resolved, and the seed that everything random in it comes from. `components`
    are those of the first fault; `steps` are all faults in order; `approval` is what allowed it in
    production. `stated` are the scenario's own objectives, before the manifest changed them.
    """

    trial_id: str
    scenario: Scenario
    components: tuple[str, ...]
    service: str
    seed: int
    replay: str
    steps: tuple[FaultStep, ...] = ()
    approval: Grant | None = None
    stated: Objectives | None = None

    @property
    def faults(self) -> tuple[FaultStep, ...]:
        """All faults in order, their components resolved; the first with the scenario's trigger."""
        if self.steps:
            return self.steps
        first = msgspec.structs.replace(
            self.scenario.fault, components=self.components, trigger=self.scenario.trigger
        )
        return (first, *self.scenario.then)

"""A scenario as data: what to break, when, under which load, and what must hold afterwards.

Files: `data/scenarios/*.toml`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TriggerKind = Literal["now", "delay", "random", "oracle", "signal"]


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load that must be on the service stream at t0, else the trial is UNKNOWN (`no-load`)."""

    minimum_per_s: float = 300.0


class Steady(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steady state: ready and loaded for `hold_s` without a break, reached within `limit_s`."""

    hold_s: float = 1.0
    limit_s: float = 30.0


class Prepare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step before the trigger.

    `submit` an order through the workload, or `fills` to script them at the oracle.
    """

    action: Literal["submit", "fills"]
    parameters: dict[str, Any]


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to inject.

    At once, after `delay_s`, at a seeded moment before `delay_s`, or on an event that matches `where`.
    `where` compares fields of the event: a plain value means equality, a string beginning with `~` is a
    regular expression. Events of the same name that match `keep` go into the history too, besides the one
    that fires (R33: the slices that follow).
    """

    at: TriggerKind = "now"
    delay_s: float = 0.0
    event: str = ""
    where: dict[str, Any] = {}
    keep: dict[str, Any] = {}
    limit_s: float = 30.0


class FaultStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault.

    `components` are component names or `@group` names of the manifest; `@each` makes one trial for each.
    """

    kind: str
    components: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}


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
    """A scenario file. `service` names the manifest's service whose return ends the outage."""

    id: str
    title: str
    requirement: str
    fault: FaultStep
    objectives: Objectives
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
    note: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One trial to run.

    The scenario with its groups resolved, and the seed that everything random in it comes from.
    """

    trial_id: str
    scenario: Scenario
    components: tuple[str, ...]
    service: str
    seed: int
    replay: str

"""What the chaos engine works with, as data: profile, episode, injection, alert, figures, result."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from blackstart.model.approval import Grant  # noqa: TC001 - msgspec reads the annotations
from blackstart.model.manifest import Environment  # noqa: TC001 - msgspec reads the annotations
from blackstart.model.outcome import FaultRecord, Rpo, Rto
from blackstart.model.scenario import FaultStep, Trigger
from blackstart.model.stops import Stops
from blackstart.model.verdict import CheckResult, Verdict  # noqa: TC001 - msgspec reads the annotations

CHAOS_SCHEMA = 1

Ending = Literal["complete", "stopped", "interrupted", "halted", "error"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of fault that a profile allows, and where.

    `components` are names or `@group` (all of them together); `@each` stands for one member of the group
    `each`. `links` are names; `*` stands for one of all links. A parameter may be drawn: `{ min = 100,
    max = 500 }` or `{ one_of = [..] }`; so is a lasting fault's `duration_s` (from, to). With a `trigger` the
    fault waits for its event. `weight` is how often it is chosen, against the others.
    """

    kind: str
    components: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    duration_s: tuple[float, float] | None = None
    trigger: Trigger = Trigger()
    weight: float = 1.0


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A window of the week: `days` (`mon` to `sun`; none named: all), times of day in the windows' time zone.

    An `end` that is not later than `begin` lies on the next day.
    """

    begin: str
    end: str
    days: tuple[str, ...] = ()


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A blackout: dates (from their first moment) or moments, in the windows' time zone; `end` excluded."""

    begin: str
    end: str
    why: str = ""


class Windows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When sessions are started by themselves (R21): at most `sessions` in each window, never in a blackout.

    A session by hand may be outside a window, and never in a blackout either.
    """

    open: tuple[Opening, ...]
    closed: tuple[Closed, ...] = ()
    timezone: str = "UTC"
    sessions: int = 1


class Radius(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which symbols may be disturbed (R22): these, or a share of the manifest's, drawn from the seed.

    A symbol outside counts as disturbed when it is silent for longer than `silent_s` while a fault is in
    place, or its position is wrong afterwards.
    """

    symbols: tuple[str, ...] = ()
    share: float | None = None
    silent_s: float = 2.0


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard, how often, how long, and with what (R21). Files: `data/chaos/*.toml`.

    `interval_s` (from, to) lies between the beginnings of two faults; in a share `overlap` of the cases up
    to `concurrent_faults` faults come together. `load_share` is the part of the manifest's load that is kept
    up. `components` narrows the blast radius further than the manifest's limits do. `for_s` None goes on
    until it is stopped. `keep_histories` is how many histories of passing injections are kept. `windows` say
    when `blackstart chaos start` starts a session; without them at once.
    """

    name: str
    title: str
    environments: tuple[Environment, ...]
    schedule: str
    fault: tuple[Candidate, ...]
    for_s: float | None = None
    interval_s: tuple[float, float] = (20.0, 60.0)
    overlap: float = 0.0
    concurrent_faults: int = 1
    load_share: float = 1.0
    components: tuple[str, ...] | None = None
    recovery_limit_s: float = 30.0
    settle_s: float = 10.0
    approval: bool = False
    keep_histories: int = 1000
    stop: Stops = Stops()
    windows: Windows | None = None
    radius: Radius | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that the profile wishes and that cannot be had here, or a stop condition, and why."""

    kind: str
    where: str
    reason: str


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One disturbance: a fault, or several that overlap. `at_s` counts from the start of chaos."""

    number: int
    at_s: float
    steps: tuple[FaultStep, ...]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen at one moment (R19): uptime so far, whether it trades, how fast, how late, how right.

    `uptime` is the share of the time in which it was ready (None, as `ready`, where the manifest names no
    readiness probe: nobody measures it); `lag_ms` how long answers to orders took in the
    last second (median), or how old the newest event is where answers are not seen; `positions_right` the
    share of symbols whose positions agreed with the oracle's at the last reconciliation; `behind` how many
    acknowledged events the target had not yet booked then.
    """

    uptime: float | None = None
    ready: bool | None = None
    trading: bool = False
    rate_per_s: float = 0.0
    lag_ms: float | None = None
    positions_right: float | None = None
    behind: int | None = None


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """A disturbance as it was really done, with its witness, its undoing and what came of it (R22).

    Not `judged`: there was nothing to break just then (no checkpoint yet), or it was broken off with the
    session before it had failed: it says nothing about the target. `outside_silent_ms`: for how long, at
    most, each symbol outside the blast radius was silent while it was in place.
    """

    number: int
    planned_s: float
    at_s: float | None
    name: str
    steps: tuple[FaultStep, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    faults: tuple[FaultRecord, ...]
    recovered: bool
    judged: bool = True
    rto: Rto
    after: Figures
    outside_silent_ms: dict[str, float] = {}
    wall_ns: int = 0
    folder: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that operators must hear.

    `injection` None: no fault was in place, so it is no consequence of one.
    """

    code: str
    text: str
    at_s: float
    injection: int | None = None
    stops: bool = False


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Blackstart's own memory, in bytes: after five minutes, at the end of chaos, and at most."""

    begin: int = 0
    end: int = 0
    most: int = 0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is to do: everything that its recording must say so that it can be done again.

    `on_alert` is a command that gets each alert as JSON on its standard input. `scheduled`: only in a window
    of the profile. Nothing is broken after `not_after_wall_ns`, when the window closes or a blackout begins.
    `approval` is what allows it in production.
    """

    target: str
    profile: Profile
    seed: int
    for_s: float | None = None
    max_faults: int | None = None
    replayed: tuple[Episode, ...] | None = None
    on_alert: str = ""
    scheduled: bool = False
    not_after_wall_ns: int | None = None
    approval: Grant | None = None

    @property
    def open_ended(self) -> bool:
        """Whether it goes on until somebody stops it."""
        return self.for_s is None and self.max_faults is None and self.replayed is None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the session found besides its injections: the audit of everything, and how it ended."""

    ending: Ending
    why: str = ""
    duration_s: float = 0.0
    figures: Figures = Figures()
    rpo: Rpo = Rpo()
    validation: dict[str, CheckResult] = {}
    problems: tuple[str, ...] = ()
    memory: Memory = Memory()
    open_ended: bool = False


class ChaosResult(msgspec.Struct, frozen=True, kw_only=True):
    """`chaos.json`: the whole result."""

    schema: int
    id: str
    version: str
    target: str
    target_title: str
    profile: str
    seed: int
    replay: str
    folder: str
    started_wall_ns: int
    verdict: Verdict
    reasons: tuple[str, ...]
    counts: dict[str, int]
    injections: tuple[Injection, ...]
    alerts: tuple[Alert, ...]
    false_alarms: int
    left_out: tuple[LeftOut, ...]
    summary: Summary
    approval: Grant | None = None

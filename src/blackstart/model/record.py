"""The records of a trial's history: everything that was seen, typed, in the order in which it was seen.

A history is the only input of the checkers. A record says what happened and when (`mono_ns`), never what it
means.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from blackstart.model.fault import Receipt, Witness  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.manifest import Manifest  # noqa: TC001  # msgspec reads the annotations
from blackstart.model.scenario import Plan  # noqa: TC001  # msgspec reads the annotations

Stage = Literal[
    "open",
    "steady",
    "preparing",
    "armed",
    "triggered",
    "injected",
    "witnessed",
    "observed",
    "reverted",
    "quiesced",
    "read",
    "closed",
]


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """First record: what was to be done, to what, by which version."""

    plan: Plan
    manifest: Manifest
    version: str
    host: dict[str, Any]


class StageReached(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """The life cycle went one step on (DESIGN section 4)."""

    stage: Stage
    mono_ns: int
    detail: dict[str, Any] = {}


class SignalSeen(msgspec.Struct, frozen=True, kw_only=True, tag="signal"):
    """An event that the target itself reported.

    `mono_ns` is the target's stamp, wrong by at most `uncertainty_ns`; `seen_mono_ns` when it reached us.
    """

    source: str
    event: str
    mono_ns: int
    seen_mono_ns: int
    uncertainty_ns: int = 0
    fields: dict[str, Any] = {}


class OracleSeen(msgspec.Struct, frozen=True, kw_only=True, tag="oracle"):
    """An oracle event other than the bulk of the service stream.

    Sessions, misbehaviours, the trigger's event.
    """

    event: str
    mono_ns: int
    fields: dict[str, Any] = {}


class ProbeChange(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """A probe's answer changed.

    The change lies within `uncertainty_ns` before `mono_ns`; `samples` counts since the last change.
    """

    probe: str
    ok: bool
    mono_ns: int
    uncertainty_ns: int
    samples: int
    detail: str = ""


class ProcessSeen(msgspec.Struct, frozen=True, kw_only=True, tag="process"):
    """A process of the target ended (pidfd), or was started by Blackstart acting as its operator."""

    component: str
    what: Literal["exited", "starting", "started", "ready"]
    pid: int
    mono_ns: int
    uncertainty_ns: int = 0
    detail: dict[str, Any] = {}


class ServiceBatch(msgspec.Struct, frozen=True, kw_only=True, tag="service"):
    """Events of a service stream, as (mono_ns, key, uncertainty_ns), in order of arrival."""

    service: str
    events: list[tuple[int, str, int]]


class ServiceWatched(msgspec.Struct, frozen=True, kw_only=True, tag="watched"):
    """The service stream was watched without a break from `since_mono_ns` to `until_mono_ns`.

    Silence in it is real silence.
    """

    service: str
    since_mono_ns: int
    until_mono_ns: int
    error: str | None = None


class Injected(msgspec.Struct, frozen=True, kw_only=True, tag="injected"):
    """A fault was injected: `step` 0 is the trial's own, the others follow it."""

    receipt: Receipt
    step: int = 0


class Witnessed(msgspec.Struct, frozen=True, kw_only=True, tag="witnessed"):
    """The independent proof that the fault of that `step` bit."""

    witness: Witness
    step: int = 0


class Reverted(msgspec.Struct, frozen=True, kw_only=True, tag="reverted"):
    """An undo was carried out.

    `verified` is the comparison with the state before; None means that it could not be compared. It began at
    `mono_ns`: what the target does on it comes after that.
    """

    undo_id: str
    verified: bool | None
    evidence: dict[str, Any]
    mono_ns: int | None = None


class StateRead(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """A document read at `moment`: the target's own (`target`), the oracle's (`oracle`) or ours (`host`).

    `mono_ns` is when the answer had come, `asked_mono_ns` when it was asked for: it was true in between.
    """

    side: Literal["target", "oracle", "host"]
    moment: Literal["before", "after"]
    name: str
    mono_ns: int
    document: Any = None
    error: str | None = None
    asked_mono_ns: int | None = None

    @property
    def youngest_ns(self) -> int:
        """The earliest that it can have been written: nothing in it is surely older than it was then."""
        return self.mono_ns if self.asked_mono_ns is None else self.asked_mono_ns


class LedgerFile(msgspec.Struct, frozen=True, kw_only=True, tag="ledger"):
    """One side of a stream, kept as a file beside the history. Columns: docs/reference/ledger-format.md."""

    stream: str
    side: Literal["acknowledged", "recovered"]
    path: str
    sha256: str
    rows: int
    error: str | None = None


class ResourceSample(msgspec.Struct, frozen=True, kw_only=True, tag="resources"):
    """Host and per-component use at one instant, measured by us: percent, bytes, thread states.

    `opening`: in the history of a session's end, the last one from before anything was broken.
    """

    mono_ns: int
    cpu_percent: float
    memory_percent: float
    disk_percent: float
    components: dict[str, dict[str, Any]] = {}
    opening: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="problem"):
    """Something kept the trial from being what it should be.

    `code` becomes a reason of the verdict (`no-load`, `not-steady` …).
    """

    code: str
    text: str
    mono_ns: int
    verdict: Literal["UNKNOWN", "FAIL"] = "UNKNOWN"


WORKLOAD_FAILED = "workload-failed"
"""The code of a Problem of the load: while it is watched, `mono_ns` says when it ended."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """Last record of a whole history. A history without it was cut short."""

    mono_ns: int
    how: Literal["complete", "interrupted", "error"]


Record = (
    Header
    | StageReached
    | SignalSeen
    | OracleSeen
    | ProbeChange
    | ProcessSeen
    | ServiceBatch
    | ServiceWatched
    | Injected
    | Witnessed
    | Reverted
    | StateRead
    | LedgerFile
    | ResourceSample
    | Problem
    | Ended
)

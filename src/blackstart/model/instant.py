"""Time: instants on the monotonic clock, and stamps that say how well they are known."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Instant(msgspec.Struct, frozen=True):
    """A reading of both clocks: `mono_ns` for arithmetic, `wall_ns` for people."""

    mono_ns: int
    wall_ns: int


class StampName(StrEnum):
    """The six stamps of a recovery (DESIGN section 4, R48)."""

    FAILURE = "t0_failure"
    DETECTED = "t1_detected"
    RESPONDED = "t2_responded"
    RECOVERED = "t3_recovered"
    VALIDATED = "t4_validated"
    RESUMED = "t5_resumed"


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """When something happened, who says so, and how wrong that may be.

    The true instant lies in `mono_ns - uncertainty_ns … mono_ns`: every source here notices late, never
    early. `inferred` marks a stamp that Blackstart deduced because the target gave none.
    """

    name: StampName
    mono_ns: int
    source: str
    uncertainty_ns: int = 0
    inferred: bool = False

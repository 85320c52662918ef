"""Reordering: a share of the packets comes `late_ms` after those that were sent behind it."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment
from blackstart.host.shaping import Shape

KIND = Kind(
    "reorder",
    "a share of the packets is overtaken",
    lambda given: Treatment("queue", shape=Shape(reorder=given["share"], reorder_ms=given["late_ms"])),
    numbers={"share": 0.05, "late_ms": 5.0},
)

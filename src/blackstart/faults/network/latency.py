"""Latency: every packet comes later, by `delay_ms` ± `jitter_ms`, in order (R18)."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment
from blackstart.host.shaping import Shape

KIND = Kind(
    "latency",
    "packets come later, with jitter",
    lambda given: Treatment("queue", shape=Shape(given["delay_ms"], given["jitter_ms"])),
    numbers={"delay_ms": 100.0, "jitter_ms": 0.0},
)

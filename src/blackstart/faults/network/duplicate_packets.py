"""Duplication: a share of the packets comes twice."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment
from blackstart.host.shaping import Shape

KIND = Kind(
    "duplicate_packets",
    "a share of the packets comes twice",
    lambda given: Treatment("queue", shape=Shape(duplicate=given["share"])),
    numbers={"share": 0.05},
)

"""Partition: no packet passes, and nobody is told (R5, R29). One way with `direction`."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment

KIND = Kind("partition", "links cut: packets vanish, both ways or one way", lambda _: Treatment("drop"))

"""Reset: whoever sends on a connection is told that it does not exist; new ones are refused (R7)."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment

KIND = Kind(
    "reset",
    "TCP connections reset, new ones refused",
    lambda _: Treatment("reset"),
    protocols=("tcp",),
)

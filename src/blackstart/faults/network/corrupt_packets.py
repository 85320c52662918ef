"""Corruption on the line: one bit of the payload turns in a share of the packets.

With `checksum = "wrong"` the receiving kernel finds out and drops the packet, as on a bad cable; with "right"
the program gets the damaged bytes, as from a broken card or router.
"""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment
from blackstart.host.shaping import Shape

KIND = Kind(
    "corrupt_packets",
    "a bit turns in a share of the packets",
    lambda given: Treatment("queue", shape=Shape(corrupt=given["share"])),
    numbers={"share": 0.05},
    words={"checksum": ("wrong", "right")},
)

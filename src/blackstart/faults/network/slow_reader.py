"""Slow reader: one side takes in `bytes_per_s`, and the other one's buffers fill until it blocks (R77).

The side that reads slowly is the client by default; `direction = "to_server"` makes it the server. Nothing is
lost: what is not taken in waits.
"""

from __future__ import annotations

from blackstart.faults.network.kind import TO_CLIENT, Kind, Treatment
from blackstart.host.shaping import Shape

KIND = Kind(
    "slow_reader",
    "one side of a TCP connection reads slowly",
    lambda given: Treatment("queue", shape=Shape(bytes_per_s=given["bytes_per_s"])),
    numbers={"bytes_per_s": None},
    direction=TO_CLIENT,
    protocols=("tcp",),
)

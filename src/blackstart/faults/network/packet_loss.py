"""Packet loss: a share of the packets, drawn at random by the kernel, vanishes (R18)."""

from __future__ import annotations

from blackstart.faults.network.kind import Kind, Treatment

KIND = Kind(
    "packet_loss",
    "a share of the packets vanishes",
    lambda given: Treatment("drop", share=given["share"]),
    numbers={"share": 0.05},
)

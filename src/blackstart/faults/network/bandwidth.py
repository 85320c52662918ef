"""Bandwidth limit: `bytes_per_s` pass each way of a connection; beyond `buffer_bytes` packets are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.faults.network.kind import Kind, Treatment
from blackstart.host.shaping import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping


def _treat(given: Mapping[str, float]) -> Treatment:
    shape = Shape(bytes_per_s=given["bytes_per_s"], buffer_bytes=given["buffer_bytes"])
    return Treatment("queue", shape=shape)


KIND = Kind(
    "bandwidth",
    "a narrow line",
    _treat,
    numbers={"bytes_per_s": None, "buffer_bytes": 262_144.0},
)

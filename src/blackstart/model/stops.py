"""When a session of chaos ends at once: in its profile, or as a manifest changes it."""

from __future__ import annotations

import msgspec


class Stops(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to end it all at once: any of these. None (or a missing figure) is never a reason.

    `not_recovered_s` counts from the moment at which the fault was over; `minimum_rate_per_s` is the least
    that the service must show in every fault-free window of `rate_window_s`.
    """

    lost_events: int | None = 0
    wrong_positions: int | None = 0
    not_recovered_s: float | None = 60.0
    minimum_rate_per_s: float | None = None
    rate_window_s: float = 10.0

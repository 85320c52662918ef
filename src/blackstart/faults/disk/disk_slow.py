"""A slow disk: each write and each sync takes so much longer, and is done."""

from blackstart.faults.disk.calls import CallFault, Kind

KIND = Kind(
    name="disk_slow",
    says="Each write and sync on the component's files takes `delay_ms` (20) longer.",
    done="delayed",
    calls=("writes", "syncs"),
    action="continue",
    delay_ms=20.0,
)


def disk_slow() -> CallFault:
    """Make it for one step."""
    return CallFault(KIND)

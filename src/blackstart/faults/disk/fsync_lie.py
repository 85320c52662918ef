"""A disk that lies: fsync says that all is safe, and nothing was done."""

from blackstart.faults.disk.calls import CallFault, Kind

KIND = Kind(
    name="fsync_lie",
    says="fsync and its like on the component's files return 0 and do nothing.",
    done="swallowed",
    calls=("syncs",),
    action="pretend",
)


def fsync_lie() -> CallFault:
    """Make it for one step."""
    return CallFault(KIND)

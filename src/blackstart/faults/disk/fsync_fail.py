"""A sync that fails (R77): what was written before it may be lost, and a second try proves nothing."""

from blackstart.faults.disk.calls import CallFault, Kind

KIND = Kind(
    name="fsync_fail",
    says="fsync and its like on the component's files fail with EIO, and nothing is synced.",
    done="failed",
    calls=("syncs",),
    action="errno",
    error="EIO",
)


def fsync_fail() -> CallFault:
    """Make it for one step."""
    return CallFault(KIND)

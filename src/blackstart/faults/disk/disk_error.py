"""A disk that fails: writes, or whatever calls are named, end in an error, in an exact range of calls."""

from blackstart.faults.disk.calls import CallFault, Kind

KIND = Kind(
    name="disk_error",
    says="Calls on the component's files fail: writes with EIO, or what `call` and `error` say.",
    done="failed",
    calls=("writes",),
    action="errno",
    error="EIO",
)


def disk_error() -> CallFault:
    """Make it for one step."""
    return CallFault(KIND)

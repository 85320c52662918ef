"""Resource limits of running processes: how each gets back what it had."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from blackstart.model.fault import ProcessRef


def undo(name: str, process: ProcessRef, what: int) -> Undo:
    """Return the undo that restores the limit `what` (`resource.RLIMIT_…`) that the component has now.

    Raises OSError when it may not be asked, or has ended.
    """
    soft, hard = resource.prlimit(process.pid, what)
    arguments = {**msgspec.to_builtins(process), "resource": int(what), "soft": soft, "hard": hard}
    return Undo(id=f"limit:{name}:{process.pid}:{what}", action="limit", arguments=arguments)

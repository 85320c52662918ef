"""What a fault sets of a running process, and how it gets back what it had, it and whom it gives birth to."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.host import procs
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from blackstart.model.fault import ProcessRef


def undo(name: str, process: ProcessRef, what: int, *, to: int | None = None) -> Undo:
    """Return the undo that restores the limit `what` (`resource.RLIMIT_…`) that the component has now.

    `to` is the soft limit that the fault sets: whoever is born from now on and inherits it gets it back, too.
    Raises OSError when it may not be asked, or has ended.
    """
    soft, hard = resource.prlimit(process.pid, what)
    whom = _whom(process, None if to is None else [to, hard])
    arguments = {**whom, "resource": int(what), "soft": soft, "hard": hard}
    return Undo(id=f"limit:{name}:{process.pid}:{what}", action="limit", arguments=arguments)


def oom_score(name: str, process: ProcessRef, *, to: int) -> Undo:
    """Return the undo that restores the `oom_score_adj` that the component has now; `to` as above."""
    with open(f"/proc/{process.pid}/oom_score_adj", encoding="utf-8") as file:  # noqa: PTH123 - one line
        value = int(file.read())
    arguments = {**_whom(process, to), "value": value}
    return Undo(id=f"oom_score:{name}:{process.pid}", action="oom_score", arguments=arguments)


def _whom(process: ProcessRef, to: Any) -> dict[str, Any]:
    heirs = {} if to is None else {"to": to, "since_ticks": procs.ticks()}
    return {**msgspec.to_builtins(process), **heirs}

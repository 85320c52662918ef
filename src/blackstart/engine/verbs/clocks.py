"""Undo of a moved wall clock: the code by which processes read the time is the original one again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify


def _clock(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Put the original bytes back: `pid`, `start_ticks`, `places` (address, before, after).

    In all who inherited the changed ones, too, whether or not that process still lives.
    """
    from blackstart.host import vdso  # noqa: PLC0415 - the guardian starts quicker without

    pid, ticks = int(arguments["pid"]), int(arguments["start_ticks"])
    places = tuple(vdso.Place(*one) for one in arguments["places"])
    if procs.is_alive(pid, ticks):
        vdso.restore(pid, places)
    first = vdso.restore_heirs(ticks, places)

    def verify() -> Outcome:
        heirs = [one for one in first + vdso.restore_heirs(ticks, places) if one != pid]
        inherited = {"inherited_by": heirs} if heirs else {}
        if not procs.is_alive(pid, ticks):
            return True, {"gone": True, **inherited}
        if vdso.executed(pid, places):
            return True, {"executed": "another program since, with a true clock", **inherited}
        return vdso.restore(pid, places), {"functions_restored": len(places), **inherited}

    return verify


NEEDS = ("blackstart.host.vdso",)
VERBS: dict[str, Verb] = {"clock": _clock}

"""Undos of units and containers: what ran before runs again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify
    from blackstart.host.managed import Place

_RUNS_LIMIT_S = 20.0
_MARGIN_S = 3.0
_PATIENCE_S = 15.0
"""For the end of a container: who asked the guardian takes one that is silent for over 30 s for lost."""

_LOOK_S = 0.01


def _start(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Let its manager start what does not run: `kind`, `name`, `at` (see `managed.Place`).

    Asked even where the manager would do it by itself in a while: it may have given up after too many deaths.
    `asked_to_stop` is a main process that was to be stopped: while it lives its manager still shows it as
    running, and only a later one proves that it runs again.
    """
    from blackstart.host import managed  # noqa: PLC0415 - the guardian starts quicker without

    place = _place(arguments)
    before = managed.look(place)
    if not before.running or not managed.lives(before):
        managed.start(place, wait=False)

    def verify() -> Outcome:
        end = time.monotonic() + _RUNS_LIMIT_S
        going = _ended(arguments.get("asked_to_stop"), before.stop_limit_s)
        if going is False:
            return False, {
                "name": place.name,
                "is": "still being stopped: it has to be started when it has ended",
            }
        if going:
            managed.start(place, wait=False)
        now = managed.until_running(place, max(1.0, end - time.monotonic()))
        return now.running and managed.lives(now), {
            "name": place.name,
            "was": before.said,
            "is": now.said,
            "pid": now.pid,
        }

    return verify


def _ended(asked: Mapping[str, int] | None, stop_limit_s: float) -> bool | None:
    """Wait for the end of a process that was to be stopped: True when it ended, False while it yet may.

    None when nobody waited. One that outlives its manager's patience was never stopped after all.
    """
    if asked is None or not procs.is_alive(asked["pid"], asked["start_ticks"]):
        return None
    begin = time.monotonic()
    while procs.is_alive(asked["pid"], asked["start_ticks"]):
        waited = time.monotonic() - begin
        if waited > stop_limit_s + _MARGIN_S:
            return None
        if waited > _PATIENCE_S:
            return False
        time.sleep(_LOOK_S)
    return True


def _place(arguments: Mapping[str, Any]) -> Place:
    from blackstart.host import managed  # noqa: PLC0415 - see above

    return managed.Place(arguments["kind"], str(arguments["name"]), str(arguments["at"]))


def _by_hand(arguments: Mapping[str, Any]) -> str:
    from blackstart.host import managed  # noqa: PLC0415 - see above

    return managed.by_hand(_place(arguments), "start")


BY_HAND: dict[str, ByHand] = {"start_managed": _by_hand}
VERBS: dict[str, Verb] = {"start_managed": _start}

"""Undos of units and containers: what ran before runs again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify
    from blackstart.host.managed import Place

_RUNS_LIMIT_S = 20.0


def _start(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Let its manager start what does not run: `kind`, `name`, `at` (see `managed.Place`).

    Asked even where the manager would do it by itself in a while: it may have given up after too many deaths.
    """
    from blackstart.host import managed  # noqa: PLC0415 - the guardian starts quicker without

    place = _place(arguments)
    before = managed.look(place)
    if not before.running or not managed.lives(before):
        managed.start(place, wait=False)

    def verify() -> Outcome:
        now = managed.until_running(place, _RUNS_LIMIT_S)
        return now.running and managed.lives(now), {
            "name": place.name,
            "was": before.said,
            "is": now.said,
            "pid": now.pid,
        }

    return verify


def _place(arguments: Mapping[str, Any]) -> Place:
    from blackstart.host import managed  # noqa: PLC0415 - see above

    return managed.Place(arguments["kind"], str(arguments["name"]), str(arguments["at"]))


def _by_hand(arguments: Mapping[str, Any]) -> str:
    from blackstart.host import managed  # noqa: PLC0415 - see above

    return managed.by_hand(_place(arguments), "start")


BY_HAND: dict[str, ByHand] = {"start_managed": _by_hand}
VERBS: dict[str, Verb] = {"start_managed": _start}

"""What an undo can do: few verbs, each harmless when applied twice, each verified. Standard library only.

A verb begins its work and hands back a function that waits for the effect and tells it: so a hundred undos
are under way at once, and one that hangs does not hold up the others. One file a family: its `VERBS`, and in
`BY_HAND` the commands with which an operator does the same.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from blackstart.engine.verbs import (
    cgroup,
    clocks,
    damage,
    files,
    http,
    managed,
    mounts,
    network,
    process,
    remote,
    seccomp,
    sql,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_FAMILIES = (process, http, files, damage, sql, network, seccomp, cgroup, mounts, clocks, remote, managed)
VERBS: dict[str, Verb] = {name: verb for family in _FAMILIES for name, verb in family.VERBS.items()}
_BY_HAND: dict[str, ByHand] = {
    name: command for family in _FAMILIES for name, command in getattr(family, "BY_HAND", {}).items()
}


def make_ready(undos: Iterable[Mapping[str, Any]]) -> None:
    """Import what these undos need: the guardian starts quicker without, and has no time when it must act.

    That are the family's `NEEDS`, and what its own `make_ready` fetches by the undo's arguments.
    """
    for undo in undos:
        for family in _FAMILIES:
            if undo["action"] in family.VERBS:
                for name in getattr(family, "NEEDS", ()):
                    __import__(name)
                getattr(family, "make_ready", _nothing)(undo["arguments"])


def _nothing(_: Mapping[str, Any]) -> None:
    """Most families need no more."""


def begin(action: str, arguments: Mapping[str, Any], run: str) -> Verify:
    """Carry out one undo; never raises: what went wrong is the outcome."""
    verb = VERBS.get(action)
    if verb is None:
        return lambda: (False, {"error": f"unknown action {action!r}"})
    try:
        return _guarded(verb(arguments, run))
    except Exception as error:  # noqa: BLE001 - one undo must never keep the others from happening
        problem = f"{type(error).__name__}: {error}"
        return lambda: (False, {"error": problem})


def by_hand(action: str, arguments: Mapping[str, Any], run: str) -> str:
    """Return the command with which an operator takes back what we could not."""
    command = _BY_HAND.get(action)
    try:
        return command(arguments) if command is not None else f"blackstart halt --out {shlex.quote(run)}"
    except (KeyError, ValueError):  # a journal of another version
        return f"see the undo `{action}` in {run}/undo.jsonl"


def _guarded(verify: Verify) -> Verify:
    def outcome() -> Outcome:
        try:
            return verify()
        except Exception as error:  # noqa: BLE001 - see `begin`
            return False, {"error": f"{type(error).__name__}: {error}"}

    return outcome

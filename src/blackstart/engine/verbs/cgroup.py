"""Undo of control groups: lift the limits, thaw, send everybody home, remove the group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import Outcome, Verb, Verify


def _dissolve(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Dissolve the group `path`; who is in it goes back to the group `home`."""
    # Here, because their import would count in every guardian's start.
    from pathlib import Path  # noqa: PLC0415

    from blackstart.host import cgroups  # noqa: PLC0415

    folder, home = Path(arguments["path"]), Path(arguments["home"])
    went = {} if home.is_dir() else {"home": f"{home} had gone: made again, without limits of its own"}
    if folder.is_dir():
        cgroups.lift(folder)
        cgroups.freeze(folder, frozen=False)  # at once, for all; the rest may wait for its turn

    def verify() -> Outcome:
        gone = cgroups.dissolve(folder, home)
        return gone, {"left": cgroups.members(folder)} if not gone else {"removed": str(folder), **went}

    return verify


NEEDS = ("pathlib", "blackstart.host.cgroups")
VERBS: dict[str, Verb] = {"cgroup": _dissolve}

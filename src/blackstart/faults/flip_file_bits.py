"""Bit flips in files: a checkpoint, a journal, a configuration (R6, R18, R38)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.faults import damage
from blackstart.faults.spoil import Spoil

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from blackstart.faults.damage import Patch
    from blackstart.model.data import Region
    from blackstart.model.scenario import FaultStep


class FlipFileBits(Spoil):
    """Random bits turn in files: pwrite and fdatasync, read back past the page cache.

    `parameters.bits` (1) of them, by the trial's seed, in every file that `parameters.data` names.
    Where the data are places in files, `places` says how many are drawn of each file.
    """

    name = "flip_file_bits"
    mechanism = "pwrite and fdatasync, read back past the page cache"

    def selective(self, step: FaultStep) -> str | None:
        """See `contracts.Selective`."""
        return damage.selective(step)

    def patches(self, found: Sequence[Region], step: FaultStep, rng: random.Random) -> list[Patch]:
        """See `damage.flips`."""
        if "places" in step.parameters:
            found = damage.drawn(found, int(step.parameters["places"]), rng)
        return damage.flips(found, step, rng)

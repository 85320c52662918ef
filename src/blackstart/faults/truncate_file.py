"""Cut logs off: in the middle of a record, or by a number of bytes (R41)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.errors import FaultError
from blackstart.faults.damage import Patch
from blackstart.faults.spoil import Spoil
from blackstart.host import bits
from blackstart.model.data import Region

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from blackstart.model.scenario import FaultStep


class TruncateFile(Spoil):
    """Logs end in the middle of a record, or `parameters.bytes` before their end: ftruncate and fsync.

    Without `bytes` the record is drawn from the last `parameters.records` (1) ones, and the place within it.
    """

    name = "truncate_file"
    mechanism = "ftruncate and fsync"

    def patches(self, found: Sequence[Region], step: FaultStep, rng: random.Random) -> list[Patch]:
        """One cut a file."""
        files: dict[str, list[Region]] = {}
        for region in found:
            files.setdefault(region.path, []).append(region)
        return [self._cut(path, regions, step, rng) for path, regions in sorted(files.items())]

    def _cut(self, path: str, records: Sequence[Region], step: FaultStep, rng: random.Random) -> Patch:
        size = Path(path).stat().st_size
        if "bytes" in step.parameters:
            place = Region(path=path, offset=max(0, size - int(step.parameters["bytes"])))
        else:
            place = _within(path, records, int(step.parameters.get("records", 1)), rng)
        if place.offset >= size:
            raise FaultError("nothing to cut off", where=path)
        return Patch(region=place, before=bits.read(path, place.offset, size - place.offset))


def _within(path: str, records: Sequence[Region], last: int, rng: random.Random) -> Region:
    """Choose a place inside one of the last records: at least a byte of it stays, at least one goes."""
    whole = [one for one in records if one.length > 1][-max(1, last) :]
    if not whole:
        raise FaultError(
            "no record to cut in", where=path, hint='say where records are: `records = "lines"`, or a glue'
        )
    record = rng.choice(whole)
    offset = record.offset + rng.randrange(1, record.length)
    return Region(path=path, offset=offset, length=0, name=f"in {record.name or record.offset}")

"""Damaging a target's data: where it lies, what is written over it, and how the old bytes come back.

Damage is an event, not a state, so nothing is lifted when a fault ends: the target has to find it and heal
by itself, and a repair by us would hide that it did not. The old bytes are kept in the trial's folder and in
the guardian's hands. They are put back when the trial is over and the target closed (or when Blackstart
dies), and only where the damaged bytes still lie as we left them: what the target wrote since is never
written over.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.contracts import HasData
from blackstart.errors import FaultError
from blackstart.host import bits
from blackstart.model.fault import Undo
from blackstart.scenario import seeds

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.data import Region
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep

_CONTEXT = 65536


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """What one place of a file was and becomes; `within` is what was there to be damaged.

    A cut has no `after`: the file ends at `offset`, and `before` is what was behind.
    """

    region: Region
    before: bytes
    after: bytes | None = None
    within: Region | None = None

    @property
    def cut(self) -> bool:
        """Whether the file gets shorter."""
        return self.after is None


def unnamed(manifest: Manifest, step: FaultStep) -> str | None:
    """Say why the data that a step names cannot be found, or None."""
    names = _names(step)
    if not names:
        return "parameters.data names nothing: which of the manifest's [data] is to be damaged?"
    missing = [name for name in names if name not in manifest.data]
    return f"the manifest has no [data.{missing[0]}]" if missing else None


def randomness(ctx: FaultContext, step: FaultStep) -> random.Random:
    """Return the random stream of this step: which bits, which place, where a cut is made."""
    name = f"{step.kind}:{','.join(_names(step))}:{step.parameters.get('stream', '')}"
    return seeds.stream(ctx.plan.seed, ctx.plan.trial_id, name)


def selective(step: FaultStep) -> str | None:
    """Say why damage cannot be kept to symbols, or None: the places' names begin with theirs."""
    if "data" not in step.parameters:
        return "places are chosen by `data`"
    if step.parameters.get("between"):
        return "who is killed in between serves all symbols"
    return None


def _of(symbols: Iterable[str]) -> str:
    """Return the pattern of the places of these symbols."""
    return rf"^(?:{'|'.join(map(re.escape, symbols))})\b"


async def regions(ctx: FaultContext, step: FaultStep) -> list[Region]:
    """Find where the step's data lie now; `parameters.place` is a regular expression on their names.

    Raises FaultError when there is nothing.
    """
    if not isinstance(ctx.target, HasData):
        raise FaultError("the target cannot say where its data lie", where=ctx.target.name)
    found = [
        region
        for name in _names(step)
        for region in await ctx.target.regions(name, place=str(step.parameters.get("place", "")))
        if not step.symbols or re.search(_of(step.symbols), region.name)
    ]
    if not found:
        raise FaultError("nothing there to damage", where=", ".join(f"data.{name}" for name in _names(step)))
    return found


def drawn(found: Sequence[Region], count: int, rng: random.Random) -> list[Region]:
    """Draw so many places of each file."""
    files: dict[str, list[Region]] = {}
    for region in found:
        files.setdefault(region.path, []).append(region)
    return [one for path in sorted(files) for one in rng.sample(files[path], min(count, len(files[path])))]


def flips(found: Sequence[Region], step: FaultStep, rng: random.Random) -> list[Patch]:
    """Turn `parameters.bits` (1) bits in every place; `parameters.bit` says which instead of chance."""
    count, bit = int(step.parameters.get("bits", 1)), step.parameters.get("bit")
    patches = []
    for region in found:
        length = min(region.length, Path(region.path).stat().st_size - region.offset)
        if length <= 0:
            raise FaultError("is empty: no bits to flip", where=region.path)
        chosen = bits.draw(length, count, rng, bit=None if bit is None else int(bit))
        patches += [_flip(region, near) for near in _near(sorted(chosen))]
    return patches


def _near(chosen: Sequence[int]) -> list[list[int]]:
    """Part the bits (sorted) where the next one lies beyond what is looked at around a damage.

    A large file is not held in memory for a few bits; one that is no further across stays one patch.
    """
    parts: list[list[int]] = []
    for one in chosen:
        if parts and one // 8 - parts[-1][-1] // 8 <= _CONTEXT:
            parts[-1].append(one)
        else:
            parts.append([one])
    return parts


def _flip(region: Region, chosen: Sequence[int]) -> Patch:
    """Touch nothing but the bytes from the first to the last of the bits: the target writes to the others."""
    first, last = chosen[0] // 8, chosen[-1] // 8
    place = msgspec.structs.replace(region, offset=region.offset + first, length=last - first + 1)
    before = bits.read(place.path, place.offset, place.length)
    after = bits.flipped(before, [one - 8 * first for one in chosen])
    return Patch(region=place, before=before, after=after, within=region)


def restore(ctx: FaultContext, patch: Patch, number: int, step: FaultStep) -> Undo:
    """Save the old bytes in the trial's folder, synced as the damage will be, and say how they come back."""
    folder = ctx.folder / "fault"
    folder.mkdir(exist_ok=True)
    name = f"{step.kind}-{Path(patch.region.path).name}-{patch.region.offset}-{number}"
    saved = next(one for one in _names_for(folder, name) if not one.exists())
    bits.save(str(saved), patch.before)
    kept = {"saved": str(saved), "saved_sha256": hashlib.sha256(patch.before).hexdigest()}
    name, arguments = f"restore:{saved.stem}", {**kept, **_look(patch)}
    return Undo(id=name, action="restore", arguments=arguments, at_the_end=True)


def _names_for(folder: Path, name: str) -> Iterator[Path]:
    """Yield names; the same place may be damaged again, and what was saved before is kept."""
    yield folder / f"{name}.bytes"
    for again in itertools.count(2):
        yield folder / f"{name}-{again}.bytes"


def _look(patch: Patch) -> dict[str, Any]:
    """By what the guardian sees that the damage still lies there untouched."""
    region = patch.region
    begin, left = _surroundings(patch)
    return {
        "path": region.path,
        "offset": region.offset,
        "begin": begin,
        "length": len(left),
        "sha256": hashlib.sha256(left).hexdigest(),
        "size": region.offset if patch.cut else None,
    }


def _surroundings(patch: Patch) -> tuple[int, bytes]:
    """Read what will lie around the damage, and the damage: where it begins, and the bytes."""
    path, offset, end = patch.region.path, patch.region.offset, patch.region.offset + len(patch.before)
    whole = patch.within
    begin = max(0 if whole is None else whole.offset, offset - _CONTEXT)
    left = bits.read(path, begin, offset - begin)
    if patch.after is None:
        return begin, left
    until = end + _CONTEXT if whole is None else min(whole.offset + whole.length, end + _CONTEXT)
    return begin, left + patch.after + bits.read(path, end, until - end)


def apply(patches: Sequence[Patch], *, sync: bool = True) -> None:
    """Write the damage; with `sync` each file is on the disk once all of it is written."""
    last = {patch.region.path: patch for patch in patches}
    for patch in patches:
        path, offset = patch.region.path, patch.region.offset
        if patch.after is None:
            bits.cut(path, offset)
        else:
            bits.write(path, offset, patch.after, sync=sync and patch is last[path])


def seen(patches: Sequence[Patch], *, disk: bool = True) -> list[dict[str, Any]]:
    """Look on another path than the writing one: how many bits, or bytes at the end, differ from before."""
    return [_seen_cut(patch) if patch.cut else _seen_flip(patch, disk=disk) for patch in patches]


def _seen_flip(patch: Patch, *, disk: bool) -> dict[str, Any]:
    region, after = patch.region, patch.after or b""
    how = "read"
    if disk:
        now, how = bits.read_disk(region.path, region.offset, region.length)
    else:
        now = bits.read(region.path, region.offset, region.length)
    written = [at for at, (old, new) in enumerate(zip(patch.before, after, strict=True)) if old != new]
    # The target may have written beside them, since the place was drawn: that takes nothing back.
    there = len(now) == len(after) and all(now[at] == after[at] for at in written)
    return {
        "file": region.path,
        "place": region.name or region.offset,
        "bits": bits.differing(patch.before, now),
        "wanted": bits.differing(patch.before, after),
        "read": how,
        "bit": bool(written) and there,
    }


def _seen_cut(patch: Patch) -> dict[str, Any]:
    size = Path(patch.region.path).stat().st_size
    lost, where = len(patch.before), patch.region
    place = {"file": where.path, "place": where.name or where.offset}
    return {**place, "size": size, "bytes_cut": lost, "bit": size == where.offset and lost > 0}


async def protect(ctx: FaultContext, step: FaultStep, patches: Sequence[Patch]) -> None:
    """Put the way back into the guardian's hands; the undos are not the receipt's, see the module."""
    undos = [restore(ctx, patch, number, step) for number, patch in enumerate(patches)]
    await asyncio.shield(ctx.protect(undos))


def _names(step: FaultStep) -> list[str]:
    given = step.parameters.get("data", ())
    return [given] if isinstance(given, str) else list(given)

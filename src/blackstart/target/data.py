"""Where a target's data lie now: files by glob, or places that the glue finds by the documented layout."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.errors import TargetError
from blackstart.model.data import Data, Region
from blackstart.target import glue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.target.local import LocalTarget


async def regions(target: LocalTarget, name: str, place: str) -> list[Region]:
    """Find the places of `[data.NAME]` whose name matches `place`. Raises TargetError."""
    spec = target.manifest.data.get(name)
    if spec is None:
        raise TargetError(f"the manifest names no data `{name}`", where=target.name)
    found = await _glued(target, name, spec.glue) if spec.glue is not None else _files(target, name, spec)
    return [one for one in found if re.search(place, one.name)]


async def _glued(target: LocalTarget, name: str, function: str) -> list[Region]:
    where = f"data.{name}"
    module = glue.load(glue.path(target.manifest))
    try:
        told: Any = await glue.function(module, function)(target.settings())
        return msgspec.convert(told, list[Region])
    except (OSError, LookupError, ValueError, TypeError, msgspec.ValidationError) as error:
        raise TargetError(f"`{function}` failed: {type(error).__name__}: {error}", where=where) from error


def _files(target: LocalTarget, name: str, spec: Data) -> list[Region]:
    pattern = target.expand(spec.files or "", where=f"data.{name}.files")
    paths = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]  # noqa: PTH207 - an absolute pattern
    return [region for path in _picked(paths, spec.pick) for region in _within(path, spec)]


def _picked(paths: Sequence[Path], pick: str) -> list[Path]:
    """Choose; of files changed at the same moment the one whose name sorts last is the newer."""
    ordered = sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))
    if pick == "newest":
        return ordered[-1:]
    if pick == "newest-in-each-folder":
        return sorted({path.parent: path for path in ordered}.values())
    return sorted(paths)


def _within(path: Path, spec: Data) -> list[Region]:
    if spec.records is None:
        return [Region(path=str(path), length=path.stat().st_size, name=path.name)]
    offset, found = 0, []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        found.append(Region(path=str(path), offset=offset, length=len(line), name=f"line {number}"))
        offset += len(line)
    return found

"""Following files as they grow, rotate and appear: woken by the kernel (inotify).

Or every 2 ms where it will not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.host import growing
from blackstart.host.growing import Growing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_POLL_S = 0.0015
_LOOK_AGAIN_S = 0.25  # a lost notice (a full queue, a network file system) costs this much, never more
_GATHER_S = (
    0.002  # after a batch, lines of a busy file are gathered for so long: waking for each costs too much
)


async def follow(pattern: str, *, from_start: bool = False) -> AsyncIterator[list[tuple[Path, bytes]]]:
    """Yield the new lines of all files that match a glob (in its last part), a batch for each waking.

    Until cancelled.

    Files that are there already are followed from their end (or `from_start`); files that appear later from
    their start.
    """
    folder, name = Path(pattern).parent, Path(pattern).name
    files: dict[Path, Growing] = {}
    notices = Notices(folder)
    fresh = from_start
    try:
        while True:
            if notices.take_names_changed():
                for path in sorted(folder.glob(name)):
                    if path not in files:
                        files[path] = Growing(path, from_start=fresh)
                fresh = True
            batch = [(path, line) for path, file in files.items() for line in file.read()]
            if batch:
                yield batch
                await asyncio.sleep(_GATHER_S)
            else:
                await notices.wait()
    finally:
        notices.close()
        for file in files.values():
            file.close()


class Notices:
    """The kernel's word that something changed in a folder.

    Where it cannot be had (no inotify, no folder yet), a short wait.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._changed = asyncio.Event()
        self._names_changed = True
        self._watch()

    async def wait(self) -> None:
        """Wait for a change, or a while."""
        if self._descriptor is None:
            await asyncio.sleep(_POLL_S)
            self._names_changed = True
            self._watch()
            return
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._changed.wait()
        except TimeoutError:
            self._names_changed = True
        self._changed.clear()

    def take_names_changed(self) -> bool:
        """Say whether files may have appeared since the last time this was asked."""
        changed, self._names_changed = self._names_changed, False
        return changed

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _watch(self) -> None:
        self._descriptor = growing.notices(str(self._folder))
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self._drain)
            self._changed.set()  # look once more: something may have come before the watch

    def _drain(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(BlockingIOError):
            self._names_changed |= growing.any_new(os.read(self._descriptor, 1 << 16))
        self._changed.set()

"""Helpers and control groups of one fault: in the guardian's hands before they exist, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any

from blackstart.errors import FaultError
from blackstart.host import cgroups, procs
from blackstart.host.helpers import Helper
from blackstart.model.fault import Undo

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from blackstart.contracts import FaultContext
    from blackstart.model.fault import ProcessRef


class Company:
    """First say what there will be (`group`, `helper`), then `assemble`, at last `dismiss`."""

    def __init__(self) -> None:
        self.groups: dict[str, Path] = {}
        self.helpers: list[Helper] = []
        self.others: list[Undo] = []
        """What has to be taken back beside the helpers: groups, and what a fault adds of its own."""
        self.joining_mono_ns = 0
        """When the first component began to be moved into its group: from then on something was changed."""
        self._homes: dict[str, Path] = {}
        self._members: dict[str, ProcessRef] = {}
        self._token = f"blackstart-{os.getpid()}-{secrets.token_hex(3)}"

    def group(self, where: cgroups.Hierarchy, name: str, member: ProcessRef) -> Path:
        """Announce a control group for a component's process.

        Raises FaultError where the way home would be lost.
        """
        folder = cgroups.path(where, member.pid, f"{self._token}-{name}")
        home = cgroups.home(where, member.pid)
        _refuse(folder, home, name, member)
        self.groups[name], self._homes[name], self._members[name] = folder, home, member
        arguments = {"path": str(folder), "home": str(home)}
        self.others.append(Undo(id=f"cgroup:{folder.name}", action="cgroup", arguments=arguments))
        return folder

    def helper(self, program: ModuleType, *arguments: Any) -> Helper:
        """Start a helper that does nothing yet."""
        found = Helper.of(program, *arguments)
        self.helpers.append(found)
        return found

    @property
    def undos(self) -> list[Undo]:
        """All that has to be taken back. The guardian begins at the end: with those who would go on."""
        return [*self.others, *(one.undo for one in self.helpers)]

    async def assemble(self, ctx: FaultContext, limits: dict[str, str] | None = None) -> None:
        """Protect everything, make the groups with their limits, move the components into them.

        Raises FaultError; then nothing is left.
        """
        try:
            await ctx.protect(self.undos)
            self.joining_mono_ns = ctx.clock.now().mono_ns
            for name, folder in self.groups.items():
                cgroups.make(folder)
                for file, text in (limits or {}).items():
                    if (
                        folder / file
                    ).exists():  # swap may not be accounted for: then there is none to forbid
                        cgroups.write(folder, file, text)
                _join(folder, self._members[name])
        except BaseException as error:
            await self.dismiss()
            if self.joining_mono_ns and isinstance(error, OSError):
                what = f"control group: {error.strerror}"
                raise FaultError(what, where=str(error.filename or "")) from error
            raise

    async def dismiss(self) -> None:
        """End the helpers, send everybody home, remove the groups; idempotent."""
        await asyncio.to_thread(self._dismiss)

    def _dismiss(self) -> None:
        for helper in self.helpers:
            helper.end()
        for name, folder in self.groups.items():
            cgroups.dissolve(folder, self._homes[name])


def _refuse(folder: Path, home: Path, name: str, member: ProcessRef) -> None:
    if cgroups.ours(home):
        what = "is in the control group of another fault: its end would leave nowhere to go back to"
        raise FaultError(what, where=name, hint="let it end before (`duration_s`, or a later trigger)")
    scope = cgroups.left_empty(home, member.pid) if folder.parent != home else None
    if scope is not None:
        what = f"is alone in {scope}: systemd would end that scope, with its limits, when it is moved out"
        raise FaultError(
            what, where=name, hint='choose a `mechanism` without a control group: "duty", "plain"'
        )


def _join(folder: Path, process: ProcessRef) -> None:
    if not procs.is_alive(process.pid, process.start_ticks):
        raise FaultError("has ended before the fault", where=f"pid {process.pid}")
    cgroups.join(folder, process.pid)

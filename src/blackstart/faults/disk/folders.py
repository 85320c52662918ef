"""Which folders are the disk of a component: the state that the manifest names, or a path of the step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.contracts import Restartable
from blackstart.errors import FaultError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.contracts import FaultContext
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


def unnamed(manifest: Manifest, step: FaultStep) -> str | None:
    """Say why no folder is known, or None."""
    if step.parameters.get("path") or any(process.state for process in manifest.processes.values()):
        return None
    return f"no folder: neither `path` nor `state` of a process of {manifest.name} names one"


def state(ctx: FaultContext, step: FaultStep) -> list[Path]:
    """Return the folders that may be meant; they need not exist yet."""
    wanted = step.parameters.get("path")
    if wanted:
        expand = getattr(ctx.target, "expand", None)
        paths = [wanted] if isinstance(wanted, str) else list(wanted)
        return [Path(expand(one, where=f"path of {step.kind}") if expand else one) for one in paths]
    if not isinstance(ctx.target, Restartable):
        raise FaultError("its state folders are not known", where=ctx.target.name, hint="give `path`")
    found = [path for name in ctx.target.manifest.processes for path in ctx.target.state_paths(name)]
    return sorted(set(found))


def used(pids: Iterable[int], folders: Sequence[Path]) -> list[Path]:
    """Return those in which one of the processes has a file open or mapped.

    Raises FaultError when that is none.
    """
    files = {file for pid in pids for file in _open(pid)}
    found = [one for one in folders if any(file.startswith(f"{one.resolve()}/") for file in files)]
    if not found:
        where = ", ".join(map(str, folders))
        raise FaultError("the component has no file open there", where=where, hint="`path` says where else")
    return found


def _open(pid: int) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                found.add(str(Path(entry.path).readlink()))
            except OSError:
                continue  # closed meanwhile
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            found.add(line.split(maxsplit=5)[-1])
    except OSError as error:
        raise FaultError(f"its open files cannot be seen: {error.strerror}", where=f"pid {pid}") from error
    return found

"""Whether what the manifest's commands name is there: their programs, and their files beside the manifest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.target import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.manifest import Manifest, Process

HERE = "{here}/"


def problems(manifest: Manifest) -> Iterator[str]:
    """Yield each program that is not there as `key.path: what is wrong`.

    Those under `[needs]` are told with the line that installs them, when the target is to be started.
    """
    for key, command, process in _commands(manifest):
        written = command[0]
        program = _known(written, manifest)
        if program is None or {written, program} & manifest.needs.keys():
            continue
        beside = Path(manifest.folder, program)
        if "/" not in program and not _on_path(program, process):
            yield f"{key}: no program `{program}` on PATH"
        elif program.startswith("/") and shutil.which(program) is None:
            yield f"{key}: `{program}` is no file that can be executed"
        elif "/" in program and not program.startswith("/") and beside.is_file():
            yield f"{key}: `{program}` is sought in the run folder; write {HERE}{Path(program)}"


def absent(manifest: Manifest) -> Iterator[str]:
    """Yield each argument that names a file beside the manifest which is not there."""
    for key, command, _ in _commands(manifest):
        for part in command[1:]:
            path = _known(part, manifest) if part.startswith(HERE) else None
            if path is not None and not Path(path).exists():
                yield f"{key}: `{part}` is not there"


def _commands(manifest: Manifest) -> Iterator[tuple[str, tuple[str, ...], Process]]:
    for name, process in manifest.processes.items():
        for key, command in (("prepare", process.prepare), ("command", process.command)):
            if command:
                yield f"processes.{name}.{key}", command, process


def _known(text: str, manifest: Manifest) -> str | None:
    """Return a path with `{here}` filled in; None where other variables say what it is."""
    if any(name != "here" for name in variables.names(text)):
        return None
    return variables.expand(text, {"here": manifest.folder}, where="")


def _on_path(program: str, process: Process) -> bool:
    """Look where the process's own PATH says, unless variables hide that."""
    path = process.environment.get("PATH", os.environ.get("PATH", os.defpath))
    return any(variables.names(path)) or shutil.which(program, path=path) is not None

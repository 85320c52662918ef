"""One supervisor a directory."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class InUseError(Exception):
    """Another supervisor holds the directory; says which process."""


def take_lock(directory: Path) -> int:
    """Lock `directory` until the process ends, however it ends; return the descriptor."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "supervisor.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise InUseError(
            f"{directory} is in use by process {holder}: `paperfirm down`, or give another --dir"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor

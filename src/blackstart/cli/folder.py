"""Folders that the user names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blackstart.errors import BlackstartError

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path, option: str = "--out") -> Path:
    """Make a folder that can be written to. Raises BlackstartError naming the option that chose it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        why = "" if writable else "permission denied"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise BlackstartError(
            f"cannot be written: {why}", where=str(folder), hint=f"give another folder: {option}"
        )
    return folder

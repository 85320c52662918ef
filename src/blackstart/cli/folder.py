"""Folders and files that the user names, to be written."""

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


def write(file: Path, content: bytes) -> None:
    """Write a file. Raises BlackstartError when that cannot be."""
    try:
        file.write_bytes(content)
    except OSError as error:
        why = error.strerror or str(error)
        hint = "give another file, in a folder that is there"
        raise BlackstartError(f"cannot be written: {why}", where=str(file), hint=hint) from error

"""Wrong options and bugs of our own: a short message, and for a bug a file with what is needed to find it."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import blackstart
from blackstart.cli.status import BUG, USAGE


def is_usage(error: BaseException) -> bool:
    """Say whether the command-line parser raised this. It has moved between packages, its shape has not."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


def usage(error: Any) -> int:
    """Show what is wrong with the options, and how the command is used."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None or "\n" in message:  # without a command the message is the help itself
        print(message, file=sys.stderr)
        return USAGE
    print(f"blackstart: {message}", file=sys.stderr)
    print(
        f"  \u2192 {context.get_usage().removeprefix('Usage: ')}; more: {context.command_path} --help",
        file=sys.stderr,
    )
    return USAGE


def report(error: BaseException, folder: Path | None = None) -> int:
    """Write the traceback to a file in `folder` (else a temporary one), say where; return the status."""
    head = f"blackstart {blackstart.__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    text = head + f"arguments: {sys.argv[1:]}\n\n" + "".join(traceback.format_exception(error))
    place = _write(text, folder)
    print(f"blackstart: a bug: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"  \u2192 please report it with {place}" if place else text, file=sys.stderr)
    return BUG


def _write(text: str, folder: Path | None) -> Path | None:
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, prefix="blackstart-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return None
    return Path(file.name)

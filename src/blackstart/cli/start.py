"""The entry point of `blackstart`. The kill switch waits for nobody's imports; every other command does."""

from __future__ import annotations

import sys
from pathlib import Path

_OUT = ("--out", "-o")


def main() -> None:
    """Run a command and end with its status."""
    folder = _switch(sys.argv[1:])
    if folder is None:
        from blackstart.cli.main import main as everything  # noqa: PLC0415

        everything()
    else:
        from blackstart.cli.halt import halt  # noqa: PLC0415

        sys.exit(halt(folder))


def _switch(arguments: list[str]) -> Path | None:
    """Return where to halt, for a plain `halt` or `halt --out DIR`; None leaves it to the command line."""
    match arguments:
        case ["halt"]:
            return Path("runs")
        case ["halt", option, folder] if option in _OUT and not folder.startswith("-"):
            return Path(folder)
    return None

"""The entry point of `blackstart`. The kill switch waits for nobody's imports; every other command does."""

from __future__ import annotations

import sys

_OUT = ("--out", "-o")


def main() -> None:
    """Run a command and end with its status."""
    folder = _switch(sys.argv[1:])
    if folder is None:
        from blackstart.cli.main import main as everything  # noqa: PLC0415

        everything()
        return
    from blackstart.engine import alarm  # noqa: PLC0415

    called = alarm.sound()
    from pathlib import Path  # noqa: PLC0415 - the alarm does not wait for these

    from blackstart.cli.halt import halt  # noqa: PLC0415

    sys.exit(halt(Path(folder), called=called))


def _switch(arguments: list[str]) -> str | None:
    """Return where to halt, for a plain `halt` or `halt --out DIR`; None leaves it to the command line."""
    match arguments:
        case ["halt"]:
            return "runs"
        case ["halt", option, folder] if option in _OUT and not folder.startswith("-"):
            return folder
    return None

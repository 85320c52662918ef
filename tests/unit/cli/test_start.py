"""The kill switch's short way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import blackstart
from blackstart.cli import start
from blackstart.cli.main import DEFAULT_OUT

SRC = str(Path(blackstart.__file__).parents[1])


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["halt"], str(DEFAULT_OUT)),
        (["halt", "--out", "x"], "x"),
        (["halt", "-o", "x"], "x"),
        (["halt", "--out"], None),
        (["halt", "--help"], None),
        (["halt", "--out", "--help"], None),
        (["suite"], None),
        ([], None),
    ],
)
def test_only_a_plain_halt_goes_the_short_way(arguments: list[str], folder: Any) -> None:
    """Everything else, its help and mistakes included, is the command line's."""
    assert start._switch(arguments) == folder


def test_the_switch_loads_no_command_line() -> None:
    """What would only delay it is not imported."""
    program = (
        "import sys; sys.argv = ['blackstart', 'halt', '--out', '/nowhere']\n"
        "from blackstart.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    print(end.code, 'typer' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False False"


def test_the_alarm_waits_for_next_to_no_imports() -> None:
    """Each module it waited for would be time during which a fault stays in place."""
    program = (
        f"import sys; sys.path.insert(0, {SRC!r})\n"
        "import blackstart.cli.start\n"
        "from blackstart.engine import alarm\n"
        "print(*sorted({'json', 'typing', 'pathlib', 'contextlib', 're', 'threading'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []

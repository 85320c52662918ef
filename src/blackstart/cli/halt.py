"""`blackstart halt`: the kill switch (R22)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from blackstart.engine import leftovers

if TYPE_CHECKING:
    from pathlib import Path


def halt(out: Path) -> int:
    """Take everything back below `out`; status 2 when something could not be proven to be taken back."""
    folders = leftovers.halt(out)
    for folder, owed in folders:
        if owed:
            names = ", ".join(str(entry.get("action", entry.get("id"))) for entry in owed)
            print(f"{folder}: STILL OWED: {names}", file=sys.stderr)
        else:
            print(f"{folder}: taken back")
    if not folders:
        print(f"nothing is broken: no open fault below {out}")
    return 2 if any(owed for _, owed in folders) else 0

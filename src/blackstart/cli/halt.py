"""`blackstart halt`: the kill switch (R22)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from blackstart.engine import leftovers, openruns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def halt(out: Path, *, called: Iterable[str] = ()) -> int:
    """Take everything back below `out` and of this user's other runs; `called`: see `leftovers.halt`.

    Status 2 when something could not be proven to be taken back.
    """
    ended = leftovers.suites(out)
    folders = leftovers.halt(out, called=called)
    for folder, owed in folders:
        if owed:
            from blackstart.engine import verbs  # noqa: PLC0415 - waits for nobody's imports before it acts

            for entry in owed:
                by_hand = verbs.by_hand(entry["action"], entry["arguments"], str(folder))
                command = leftovers.foreign(folder) or by_hand
                print(f"{folder}: STILL IN PLACE: {entry['id']}; by hand: {command}", file=sys.stderr)
        else:
            print(f"{folder}: taken back")
    for folder in ended:
        print(f"{folder}: told to end, begins no further trial")
    if not folders:
        places = " and ".join(openruns.places())
        print(f"nothing is broken: no open fault below {out}, nor in any other run of this user ({places})")
    return 2 if any(owed for _, owed in folders) else 0

"""`blackstart diff`: what changed between two snapshots."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.check.diff import diff as compare
from blackstart.cli.status import of_verdicts
from blackstart.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path

SIDES = ("target", "oracle")


class SnapshotError(LedgerError):
    """A file that is no snapshot."""


def read(path: Path) -> dict[str, Any]:
    """Read a snapshot as `side.document` to content; what could not be read is None. Raises SnapshotError."""
    hint = "`blackstart snapshot FILE` writes one"
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise SnapshotError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    except msgspec.DecodeError as error:
        raise SnapshotError(f"is no snapshot: {error}", where=str(path), hint=hint) from error
    if not all(isinstance(document.get(side), dict) for side in SIDES):
        raise SnapshotError("is no snapshot: `target` and `oracle` are missing", where=str(path), hint=hint)
    found = {f"{side}.{name}": content for side in SIDES for name, content in document[side].items()}
    return found | dict.fromkeys(document.get("errors", {}))


def diff(before: Path, after: Path, *, as_json: bool) -> int:
    """Print every difference; status 1 when there is one, 2 when something could not be compared."""
    result = compare(read(before), read(after))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    else:
        for finding in result.findings:
            print(f"{finding.verdict:8} {finding.text}")
        if not result.findings:
            print("no difference" if result.verdict == "PASS" else "nothing to compare")
    return of_verdicts([result.verdict])

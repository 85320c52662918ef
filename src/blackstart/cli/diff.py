"""`blackstart diff`: what changed between two snapshots."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.check.diff import diff as compare
from blackstart.cli.status import of_verdicts
from blackstart.errors import LedgerError
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.verdict import CheckResult, Finding

SIDES = ("target", "oracle")
MOVING = ("infrastructure", "market_data", "connectivity")
"""Documents that change while a system lives on: told behind what changes only by trading or by a fault."""
WORDS = {Verdict.FAIL: "changed", Verdict.UNKNOWN: "unknown"}
"""A difference between two moments is no failure: whether it should be there, only the reader knows."""


class Difference(msgspec.Struct, frozen=True):
    """One difference in `--json`: `changed`, or `unknown` where it could not be compared.

    `moves` marks documents that change while a system lives on.
    """

    kind: str
    code: str
    text: str
    moves: bool
    data: dict[str, Any]


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
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document(result))) + b"\n")
    else:
        print("\n".join(_lines(result)))
    return of_verdicts([result.verdict])


def document(result: CheckResult) -> dict[str, Any]:
    """Return what `--json` prints: `result` is `same`, `changed` or `unknown` (docs/reference/diff.md)."""
    found = [
        Difference(WORDS.get(one.verdict, "remark"), one.code, one.text, _moves(one), one.data)
        for one in result.findings
    ]
    return {"result": WORDS.get(result.verdict, "same"), "differences": found}


def _lines(result: CheckResult) -> list[str]:
    """Summary first, then what matters, then what moves by itself."""
    if not result.findings:
        return ["no difference" if result.verdict == "PASS" else "nothing to compare"]
    changed = sum(one.verdict is Verdict.FAIL for one in result.findings)
    unknown = sum(one.verdict is Verdict.UNKNOWN for one in result.findings)
    head = f"{changed} changed, {unknown} could not be compared"
    still = [_line(one) for one in result.findings if not _moves(one)]
    moving = [_line(one) for one in result.findings if _moves(one)]
    apart = [f"of these, {len(moving)} in what moves while a system lives:"] if moving else []
    return [head, *still, *apart, *moving]


def _line(finding: Finding) -> str:
    return f"{WORDS.get(finding.verdict, 'remark'):8} {finding.text}"


def _moves(finding: Finding) -> bool:
    """Tell by the document's name, which its text begins with: `target.market_data.quotes/…`."""
    document = re.match(r"\w+\.(\w+)", finding.text)
    return finding.verdict is Verdict.FAIL and document is not None and document.group(1) in MOVING

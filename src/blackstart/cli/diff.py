"""`blackstart diff`: what changed between two snapshots."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.check.diff import diff as compare
from blackstart.cli.status import of_verdicts
from blackstart.errors import LedgerError
from blackstart.model.verdict import Verdict
from blackstart.report.wording import plural

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from blackstart.model.verdict import CheckResult, Finding

SIDES = ("target", "oracle")
MOVING = ("infrastructure", "market_data", "connectivity")
"""Documents that change while a system lives on: told behind what changes only by trading or by a fault."""
EXAMPLES = 3
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


def diff(before: Path, after: Path, *, as_json: bool, everything: bool = False) -> int:
    """Print what differs, document by document, with a few examples unless `everything` is wished.

    Status 1 when there is a difference, 2 when something could not be compared.
    """
    result = compare(read(before), read(after))
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document(result))) + b"\n")
    else:
        print("\n".join(_lines(result, None if everything else EXAMPLES)))
    return of_verdicts([result.verdict])


def document(result: CheckResult) -> dict[str, Any]:
    """Return what `--json` prints: `result` is `same`, `changed` or `unknown` (docs/reference/diff.md)."""
    found = [
        Difference(WORDS.get(one.verdict, "remark"), one.code, one.text, _moves(one), one.data)
        for one in result.findings
    ]
    return {"result": WORDS.get(result.verdict, "same"), "differences": found}


def _lines(result: CheckResult, shown: int | None) -> list[str]:
    """Summary first, then what matters, then what moves by itself; each document with its own figures."""
    if not result.findings:
        return ["no difference" if result.verdict == "PASS" else "nothing to compare"]
    differing = [one for one in result.findings if one.verdict is Verdict.FAIL]
    unknown = [one for one in result.findings if one.verdict is Verdict.UNKNOWN]
    head = f"{plural(len(differing), 'difference')}, {len(unknown)} could not be compared"
    still = _by_document((one for one in differing if not _moves(one)), shown)
    moving = _by_document((one for one in differing if _moves(one)), shown)
    number = sum(map(_moves, differing))
    apart = [f"of these, {number} in what moves while a system lives:"] if moving else []
    return [head, *(f"unknown: {one.text}" for one in unknown), *still, *apart, *moving]


def _by_document(findings: Iterable[Finding], shown: int | None) -> list[str]:
    """Count what is gone, new and changed in each document, and show so many of each."""
    lines: list[str] = []
    for name, found in groupby(findings, _document):
        sorts: dict[str, list[Finding]] = {"gone": [], "new": [], "changed": []}
        for one in found:
            sorts[_sort(one)].append(one)
        lines.append(f"{name}: {', '.join(f'{len(some)} {sort}' for sort, some in sorts.items())}")
        for sort, some in sorts.items():
            lines += [f"  {one.text.removeprefix(name).lstrip('.')}" for one in some[:shown]]
            if shown is not None and len(some) > shown:
                lines.append(f"  and {len(some) - shown} more {sort}: --all")
    return lines


def _sort(finding: Finding) -> str:
    if finding.data["after"] is None:
        return "gone"
    return "new" if finding.data["before"] is None else "changed"


def _document(finding: Finding) -> str:
    """Return the document's name, which its text begins with: `target.market_data.quotes/…`."""
    found = re.match(r"\w+\.\w+", finding.text)
    return found.group() if found else ""


def _moves(finding: Finding) -> bool:
    return finding.verdict is Verdict.FAIL and _document(finding).partition(".")[2] in MOVING

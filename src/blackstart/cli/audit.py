"""`blackstart audit`: compare two event files (R49, R70)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from blackstart.check.audit import audit as compare
from blackstart.check.audit import incredible
from blackstart.cli.folder import made
from blackstart.model.outcome import LOSS_KINDS, counted

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.check.audit import AuditResult

BAD = ("lost", "duplicated", "phantom", "corrupted", "reordered")


def audit(
    ledger: Path, recovered: Path, *, lists: Path | None, listed: int, memory: str, as_json: bool
) -> int:
    """Print what became of every acknowledged event.

    Status 1 when anything is wrong with any; else 2 when there was nothing to compare, one file states what
    the other does not, a key is acknowledged with different contents, or most events are in a wrong order and
    called late.
    """
    if lists is not None:
        made(lists, "--lists")
    result = compare(ledger, recovered, out=lists, listed=listed, memory_limit=memory)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    else:
        print("\n".join(_lines(result)))
    if any(result.counts.get(kind) for kind in BAD):
        return 1
    doubted = result.one_sided or result.not_unique or incredible(result.excused, result.acknowledged)
    return 0 if result.acknowledged and not doubted else 2


def _lines(result: AuditResult) -> list[str]:
    lines = [f"acknowledged  {result.acknowledged:,}", f"recovered     {result.recovered:,}"]
    for kind in LOSS_KINDS:
        number = counted(kind, result.counts, result.not_checked)
        lines.append(
            f"{kind:13} {'not checked' if number is None else format(number, ',')}{_names(result, kind)}"
        )
    if result.gap_events is not None:
        lines.append(f"sequence gap  {result.gap_events:,}")
    lines += [f"not checked: {reason}" for reason in result.not_checked]
    lines += [f"unknown: {reason}" for reason in result.one_sided]
    if result.not_unique:
        lines.append(f"unknown: {result.not_unique:,} keys are acknowledged with different content each time")
    if again := result.acknowledged_again - result.not_unique:
        lines.append(f"remark: {again:,} keys are acknowledged more than once, and count once")
    if result.excused:
        word = "unknown" if incredible(result.excused, result.acknowledged) else "remark"
        lines.append(f"{word}: {result.excused:,} are held in a wrong order, excused because called late")
    if not result.acknowledged:
        lines.append("unknown: nothing was acknowledged: nothing was compared")
    return lines + [f"whole list: {path}" for path in result.files.values()]


def _names(result: AuditResult, kind: str) -> str:
    names = result.lists.get(kind, ())
    more = (result.counts.get(kind) or 0) - len(names)
    return f"   {', '.join(names)}{f' and {more:,} more' if more > 0 else ''}" if names else ""

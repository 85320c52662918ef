"""Verdicts and findings. Merge order is FAIL > UNKNOWN > PASS (DESIGN section 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Verdict(StrEnum):
    """What is known after looking. UNKNOWN means that it could not be seen, never that it was fine."""

    PASS = "PASS"  # noqa: S105  # the verdict, no password
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"


_RANK = {Verdict.PASS: 0, Verdict.UNKNOWN: 1, Verdict.FAIL: 2}


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of `verdicts`; of none at all UNKNOWN, because then nobody looked."""
    return max(verdicts, key=_RANK.__getitem__, default=Verdict.UNKNOWN)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a check has to say.

    `code` is stable and machine-readable (`position-mismatch`), `text` is for people, `data` holds the
    figures. A finding with verdict PASS is a remark.
    """

    verdict: Verdict
    code: str
    text: str
    data: dict[str, Any] = {}


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check: its merged verdict and everything it found."""

    check: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()


def conclude(check: str, findings: Iterable[Finding], *, looked: bool = True) -> CheckResult:
    """Merge `findings` into a result. With `looked=False` and no finding the verdict is UNKNOWN."""
    found = tuple(findings)
    base = Verdict.PASS if looked else Verdict.UNKNOWN
    return CheckResult(check=check, verdict=merge([base, *(f.verdict for f in found)]), findings=found)

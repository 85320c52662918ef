"""Alerts: what an operator must know, told once when it begins and once when it has ended by itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

Severity = Literal["warning", "critical"]


class Alert(msgspec.Struct, frozen=True):
    """One trouble. `key` tells troubles of the same code apart (a symbol, a component); it may be empty."""

    code: str
    severity: Severity
    text: str
    key: str
    since_mono_ns: int
    detail: dict[str, Any]


class Alerts:
    """The alerts of one process. `emit` writes the events `alert` and `alert_cleared`."""

    def __init__(self, emit: Callable[..., int]) -> None:
        self._emit = emit
        self._active: dict[tuple[str, str], Alert] = {}
        self.raised = Counter[str]()

    @property
    def active(self) -> list[Alert]:
        """Those that have not ended, oldest first."""
        return list(self._active.values())

    def lasts(self, code: str, key: str = "") -> bool:
        """Whether this trouble has begun and not ended."""
        return (code, key) in self._active

    def sound(
        self, code: str, text: str, *, key: str = "", severity: Severity = "critical", **detail: Any
    ) -> None:
        """Tell of a trouble, unless this one has been told of and lasts."""
        if self.lasts(code, key):
            return
        stamp = self._emit("alert", code=code, severity=severity, text=text, **detail)
        self._active[code, key] = Alert(code, severity, text, key, stamp, detail)
        self.raised[code] += 1

    def clear(self, code: str, key: str = "", **detail: Any) -> bool:
        """Tell that a trouble has ended; nothing if it was not there. Returns whether it was."""
        found = self._active.pop((code, key), None)
        if found is not None:
            self._emit("alert_cleared", code=code, **(found.detail | detail))
        return found is not None

    def clear_all(self, *codes: str) -> None:
        """End all troubles of these codes, whatever their keys."""
        for code, key in [one for one in self._active if one[0] in codes]:
            self.clear(code, key)

    def metrics(self) -> dict[str, float]:
        """Values for Prometheus."""
        lasting = Counter(code for code, _ in self._active)
        total = {f'alerts_total{{code="{code}"}}': float(count) for code, count in self.raised.items()}
        return total | {f'alerts_active{{code="{code}"}}': float(lasting[code]) for code in self.raised}

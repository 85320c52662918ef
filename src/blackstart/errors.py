"""The one family of errors: each says what is wrong, where, and what to do about it."""

from __future__ import annotations


class BlackstartError(Exception):
    """Something the user can act on.

    `what` is the fact, `where` the file, line, key or address, `hint` the next step. Exit status 64 unless
    a subclass says otherwise (DESIGN section 4).
    """

    exit_status = 64

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(self.render())

    def render(self) -> str:
        """One to three lines for a terminal: `where: what`, then the hint."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  → {self.hint}" if self.hint else head


def said(error: BaseException) -> str:
    """Put any error into words, a foreign one with the name of its kind."""
    return error.render() if isinstance(error, BlackstartError) else f"{type(error).__name__}: {error}"


class ManifestError(BlackstartError):
    """A target manifest that cannot be used."""


class ScenarioError(BlackstartError):
    """A scenario that cannot be loaded or planned."""


class LedgerError(BlackstartError):
    """A ledger that is damaged, truncated or not of the documented form."""


class HistoryError(BlackstartError):
    """A trial history that is damaged before its last record."""


class PermitError(BlackstartError):
    """Nobody allowed this (R20, R23)."""

    exit_status = 3


class TargetError(BlackstartError):
    """The target could not be started, reached or read."""

    exit_status = 2


class AbsentError(TargetError):
    """A component certainly does not run; any other TargetError leaves open whether it does."""


class FaultError(BlackstartError):
    """A fault could not be injected or reverted."""

    exit_status = 2

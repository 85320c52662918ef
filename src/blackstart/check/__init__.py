"""Pure checkers: a trial's history in, verdicts out. Same history, same answer."""

from blackstart.check.analyse import analyse
from blackstart.check.service import ResumeWatch

__all__ = ["ResumeWatch", "analyse"]

"""Signals held back while something is written that must be whole."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def holding() -> Iterator[Callable[[], None]]:
    """Yield a function that holds the wish to end back from then on; afterwards all is as it was.

    It is called as soon as a run has ended: an impatient second Ctrl-C must not cost the reports.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield _hold
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hold() -> None:
    for number in SIGNALS:
        signal.signal(number, _say)


def _say(_number: int, _frame: FrameType | None) -> None:
    print("blackstart: a moment: the reports are being written", file=sys.stderr)

"""Sessions by the calendar: waits for the windows of a profile, and starts sessions in each, until stopped.

The process behind `blackstart chaos start` where the profile has windows. Each session is a process of its
own, `blackstart chaos run --scheduled`, which ends when its window closes.
"""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos import background, calendar, log, profiles
from blackstart.errors import PermitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from blackstart.chaos.calendar import Window
    from blackstart.chaos.model import Orders, Windows

HALTED, REFUSED = "halted", "refused"
_LOOK_S = 1.0  # the wall clock may be set while we wait
_RESULT = "chaos.json"
_UNTOLD = 2
_RANKS = (0, _UNTOLD, 1)

Session = Callable[[int, "Window"], str]
"""Runs the n-th session to its end, and says how that was."""


def keep(
    windows: Windows,
    session: Session,
    *,
    now: Callable[[], int],
    wait: Callable[[float], bool],
    least_s: float,
    tell: Callable[[str], None],
) -> str:
    """Start sessions as the windows say, until `wait` says that it is over; returns why it ended.

    A window that has less than `least_s` left is not begun. After the kill switch nothing more is started.
    """
    number, held = 0, (0, 0)
    while True:
        window = calendar.current(windows, now())
        wanted = window is not None and held != (window.end_ns, windows.sessions)
        if window is not None and wanted and window.end_ns - now() >= least_s * calendar.NS:
            number += 1
            held = (window.end_ns, held[1] + 1 if held[0] == window.end_ns else 1)
            if session(number, window) == HALTED:
                return HALTED
        tell(profiles.next_window(windows, now()))
        if wait(_LOOK_S):
            return "stopped"


def run(orders: Orders, words: Sequence[str], folder: Path) -> int:
    """Keep the schedule of the orders; returns the exit status: that of its worst session, 2 when halted."""
    assert orders.profile.windows is not None
    keeper = _Keeper(orders, words, folder)
    with _told_to_end(keeper.end):
        why = keep(
            orders.profile.windows,
            keeper.session,
            now=time.time_ns,
            wait=keeper.over.wait,
            least_s=orders.profile.interval_s[0],
            tell=keeper.waiting,
        )
    keeper.say(state="ended", next_window="")
    print(f"the schedule ended: {why}", flush=True)
    return keeper.status


class _Keeper:
    def __init__(self, orders: Orders, words: Sequence[str], folder: Path) -> None:
        self._orders, self._words, self._folder = orders, words, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.over = threading.Event()
        self._status = log.begun(orders, folder, time.time_ns())
        self.status = 0

    def say(self, **changes: object) -> None:
        status = msgspec.structs.replace(self._status, **changes)
        if status != self._status:
            self._status = status
            log.write(self._folder / log.STATUS, status)

    def waiting(self, following: str) -> None:
        self.say(state="waiting", next_window=following)

    def end(self) -> None:
        """End it all in order: the session that is under way, too."""
        self.over.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def session(self, number: int, window: Window) -> str:
        """Run one; each has a seed of its own, so that not every day is the same."""
        begun = dt.datetime.now(tz=dt.UTC)
        folder = self._folder / f"{number:04}-{begun:%Y%m%d-%H%M%S}"
        folder.mkdir()
        seed = self._orders.seed + number - 1
        command = [*background.RUN, *self._words, "--scheduled", "--seed", str(seed), "--into", str(folder)]
        with (folder / "chaos.log").open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        assert self._orders.profile.windows is not None
        self.say(
            state="session",
            session=str(folder),
            next_window=profiles.next_window(self._orders.profile.windows, window.begin_ns),
        )
        if self.over.is_set():
            self._process.send_signal(signal.SIGTERM)
        status = self._process.wait()
        self._process = None
        self._keep_worst(folder, status)
        ending = _ending(folder, status)
        print(f"session {number} in {folder}: {ending}", flush=True)
        return ending

    def _keep_worst(self, folder: Path, status: int) -> None:
        """Remember the first session with the worst status: FAIL is worse than what nobody can tell."""
        worst = max(self.status, _UNTOLD if status not in _RANKS else status, key=_RANKS.index)
        if worst != self.status:
            self.status = worst
            self.say(worst=str(folder))


def _ending(folder: Path, status: int) -> str:
    try:
        found = msgspec.json.decode((folder / _RESULT).read_bytes())
    except (OSError, msgspec.DecodeError):
        return REFUSED if status == PermitError.exit_status else f"died with status {status}"
    ending: str = found["summary"]["ending"]
    return HALTED if ending == HALTED else f"{found['verdict']}, {ending}"


@contextmanager
def _told_to_end(end: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda _number, _frame: end()) for number in background.ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What earlier runs left behind.

Undo journals whose owner and guardian are both dead are replayed at every start.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.engine import alarm, journal, locks, openruns
from blackstart.errors import FaultError
from blackstart.host import procs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HALT_LIMIT_S = 30.0
_WOKEN_LIMIT_S = 3.0


def clear(runs: Path) -> list[tuple[Path, list[journal.Entry]]]:
    """Carry out everything owed by dead runs below `runs`, and by any other run of this user.

    Returns each folder with the outcomes. Live runs are left alone. Raises FaultError when something could
    not be taken back: nothing more may be broken beside it.
    """
    cleared = []
    for folder in journals(runs):
        outcomes = replay(folder, by="next start")
        if outcomes:
            cleared.append((folder, outcomes))
    _strike_settled()
    stuck = [(folder, one) for folder, outcomes in cleared for one in outcomes if one["verified"] is False]
    if stuck:
        raise _left_in_place(stuck)
    return cleared


def _left_in_place(stuck: list[tuple[Path, journal.Entry]]) -> FaultError:
    why = ((one["id"], one["evidence"].get("error")) for _, one in stuck)
    names = ", ".join(f"{name} ({error})" if error else name for name, error in why)
    commands = "; ".join(dict.fromkeys(str(one["evidence"]["by_hand"]) for _, one in stuck))
    forget = " ".join(dict.fromkeys(shlex.quote(str(folder / journal.OWED)) for folder, _ in stuck))
    return FaultError(
        f"LEFT IN PLACE by an earlier run, cannot be taken back: {names}; nothing more is broken beside it",
        where=", ".join(dict.fromkeys(str(folder) for folder, _ in stuck)),
        hint=f"take it back by hand:  {commands}\n  → then start again; what is gone for good is forgotten by"
        f" `rm {forget}`",
    )


def journals(runs: Path) -> Iterator[Path]:
    """Find the folders with an undo journal that we may read: runs, trials, and what this user noted."""
    seen = set()
    for path in sorted([*runs.glob(f"*/{journal.OWED}"), *runs.glob(f"*/*/{journal.OWED}")]):
        linked = path.parent.is_symlink() or path.parent.parent.is_symlink()
        if not linked and os.access(path, os.R_OK):
            seen.add(path.parent.resolve())
            yield path.parent
    for folder in map(Path, openruns.noted()):
        if folder not in seen and (folder / journal.OWED).is_file():
            yield folder


def _strike_settled() -> None:
    """Strike out noted runs that owe nothing and that nobody lives in: they died before they could."""
    for run in openruns.noted():
        if not Path(run).is_dir():
            if Path(run).parent.is_dir():  # else it is out of our sight, and may live or owe
                openruns.strike(run)
            continue
        with contextlib.suppress(OSError):  # not ours to write any more: it stays noted
            if not journal.owed(run) and not _lived_in(run):
                openruns.strike(run)


def _lived_in(run: str) -> bool:
    """Whether somebody holds one of its locks. Raises OSError."""
    held = [locks.hold(run, name) for name in (locks.OWNER_LOCK, locks.GUARDIAN_LOCK)]
    for lock in held:
        if lock is not None:
            locks.release(lock)
    return None in held


def suites(runs: Path) -> list[Path]:
    """Find the suites that run below `runs` or were noted by this user; a trial's own folder is none."""
    below = (path.parent.resolve() for path in runs.glob(f"*/{locks.OWNER_LOCK}"))
    found = []
    for folder in dict.fromkeys([*below, *map(Path, openruns.noted())]):
        with contextlib.suppress(OSError):
            if not (folder / journal.OWED).exists() and _lived_in(str(folder)):
                found.append(folder)
    return found


def replay(folder: Path, *, by: str) -> list[journal.Entry]:
    """Carry out what one folder owes, unless somebody alive watches over it.

    Of another user's run, which we cannot take back, each outcome says so.
    """
    if not journal.owed(str(folder)):
        return []
    held: list[int | None] = []
    try:
        held += [_hold(folder, name) for name in (locks.OWNER_LOCK, locks.GUARDIAN_LOCK)]
        if held[1] is None:
            wake(folder)
        if None in held:
            return []
        if (command := foreign(folder)) is not None:
            return _untouched(folder, "it is another user's run", command)
        return journal.pay(str(folder), journal.owed(str(folder)), by=by)
    except OSError as error:
        return _untouched(folder, f"{error.filename or folder}: {error.strerror}", foreign(folder))
    finally:
        for lock in held:
            if lock is not None:
                os.close(lock)


def foreign(folder: Path) -> str | None:
    """Return how the user of a run takes it back, where it is not ours to write; None where it is."""
    if os.access(folder, os.W_OK):
        return None
    return f"sudo -u '#{folder.stat().st_uid}' blackstart halt --out {shlex.quote(str(folder.parent))}"


def _untouched(folder: Path, why: str, command: str | None) -> list[journal.Entry]:
    """Return outcomes that say why nothing was tried."""
    from blackstart.engine import verbs  # noqa: PLC0415 - the kill switch is pulled before

    run = str(folder)
    return [
        {
            "id": one["id"],
            "verified": False,
            "evidence": {
                "error": why,
                "by_hand": command or verbs.by_hand(one["action"], one["arguments"], run),
            },
        }
        for one in journal.owed(run)
    ]


def _hold(folder: Path, name: str) -> int | None:
    """Take a lock; wait for a holder that is dying: its threads may keep what it had for a moment longer."""
    lock = locks.hold(str(folder), name)
    if lock is not None or (pid := locks.holder(str(folder), name)) is None:
        return lock
    found = procs.stat(pid)
    dying = found is None or found.dead
    return locks.wait_for(str(folder), name, _WOKEN_LIMIT_S) if dying else None


def wake(folder: Path) -> bool:
    """Let a guardian that somebody stopped run on: it pays by itself then. Says whether there was one.

    Asked only when its lock is held, so that the pid in the lock is that of the living holder.
    """
    with contextlib.suppress(OSError):  # another user's
        pid = locks.holder(str(folder), locks.GUARDIAN_LOCK)
        found = None if pid is None else procs.stat(pid)
        return found is not None and found.stopped and procs.send(found, signal.SIGCONT)
    return False


def _pay_beside(folder: Path) -> None:
    """Carry out what a guardian that was woken still owes: undos are harmless when applied twice."""
    journal.pay(str(folder), journal.owed(str(folder)), by="halt")


def halt(
    runs: Path, *, called: Iterable[str] = (), limit_s: float = _HALT_LIMIT_S
) -> list[tuple[Path, list[journal.Entry]]]:
    """Pull the kill switch on everything below `runs`, and on every other run of this user.

    `called` are the runs whose guardians the alarm has called already. Live runs take everything back
    themselves, dead ones are replayed. A guardian that somebody stopped is woken; 3 s later it is not waited
    for any more. What cannot be reached, because it is another user's, does not keep the others from it.
    Returns what each folder still owes: nothing, when all was proven to be taken back.
    """
    folders = [folder for folder in journals(runs) if journal.owed(str(folder))]
    known = {folder.resolve() for folder in folders}
    for folder in suites(runs):
        alarm.call(str(folder))  # whatever else happens, it begins nothing more
    folders += [folder for folder in map(Path, called) if folder not in known]  # may have paid already
    stopped, reached = [], []
    for folder in folders:
        if wake(folder):
            stopped.append(folder)
        if alarm.call(str(folder)) or foreign(folder) is None:
            reached.append(folder)
    start = time.monotonic()
    while any(journal.owed(str(folder)) for folder in reached) and time.monotonic() < start + limit_s:
        for folder in reached:
            replay(folder, by="halt")
        if stopped and time.monotonic() > start + _WOKEN_LIMIT_S:
            _pay_beside(stopped.pop())
        time.sleep(0.005)
    _strike_settled()
    return [(folder, journal.owed(str(folder))) for folder in folders]

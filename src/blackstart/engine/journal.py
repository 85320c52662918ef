"""The undo journal of a run folder: what has to be taken back, synced before it exists.

Standard library only.

`undo.jsonl` holds one undo a line, `undone.jsonl` one outcome a line. What is in the first and not in the
second is owed. The same undo may be owed again after it was paid (a process is stopped a second time), so
each line has a `serial` of its own, which its outcome repeats.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.engine.verbs.verb import Verify

OWED = "undo.jsonl"
PAID = "undone.jsonl"

_HEAD_START_S = 0.002
"""What is quick to prove is proven before the search for processes begins, which takes longer."""

Entry = dict[str, Any]


def append(run: str, name: str, entries: Iterable[Entry]) -> None:
    """Append lines and wait until the disk has them, the file's name included.

    Raises OSError when not all of them can be written; then the file ends where it did before.
    """
    path = os.path.join(run, name)  # noqa: PTH118 - pathlib would double the guardian's start time
    new = not os.path.exists(path)  # noqa: PTH110 - see above
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        _write(handle, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
    finally:
        os.close(handle)
    if new:
        _sync_folder(run)


def _write(handle: int, lines: bytes) -> None:
    """Write and sync all or nothing: on a full disk the room that is left is filled without an error.

    What was torn when its writer died gets an end, so that it takes no later line with it.
    """
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    try:
        while lines:
            lines = lines[os.write(handle, lines) :]
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _sync_folder(run: str) -> None:
    handle = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(run: str, name: str) -> list[Entry]:
    """Read all whole lines; a torn last one was never acknowledged, so its fault never came to be."""
    try:
        with open(os.path.join(run, name), "rb") as file:  # noqa: PTH118,PTH123 - see above
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [entry for line in lines if (entry := _parse(line)) is not None]


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "id" in entry else None


def owed(run: str) -> list[Entry]:
    """Undos that nobody has carried out yet, oldest first. Of several outcomes the last one counts."""
    last = {key(entry): entry.get("verified") for entry in read(run, PAID)}
    return [entry for entry in read(run, OWED) if last.get(key(entry), False) is False]


def key(entry: Entry) -> int | str:
    """Return what tells an entry from all others of its journal."""
    serial: int | None = entry.get("serial")
    return str(entry["id"]) if serial is None else serial


def pay(run: str, entries: Iterable[Entry], *, by: str) -> list[Entry]:
    """Carry out undos, the newest first, verify them, and note each outcome.

    Nobody is touched for a process of an earlier start of the machine: its number is another's now.
    Each is verified on its own while the others are begun: none waits for one that is slow.
    """
    from blackstart.engine import verbs  # noqa: PLC0415 - the kill switch is pulled before

    waiting, now = [], boot()
    for entry in reversed(list(entries)):
        gone = entry.get("boot", now) != now and "start_ticks" in entry["arguments"]
        verify = _of_another_boot if gone else verbs.begin(entry["action"], entry["arguments"], run)
        outcome: Entry = {}
        thread = threading.Thread(target=_conclude, args=(outcome, entry, verify, by, run))
        thread.start()
        if entry["action"] != "kill":
            thread.join(_HEAD_START_S)
        waiting.append((thread, outcome))
    for thread, _ in waiting:
        thread.join()
    outcomes = [outcome for _, outcome in waiting]
    _note(run, outcomes)
    return outcomes


def boot() -> str:
    """Name this start of the machine; empty where the kernel does not tell: then all are taken for one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - start time
            return file.read().strip()
    except OSError:
        return ""


def _of_another_boot() -> tuple[bool, Entry]:
    return True, {"gone": True, "why": "the machine was started anew since"}


def _conclude(outcome: Entry, entry: Entry, verify: Verify, by: str, run: str) -> None:
    outcome.update(_outcome(entry, verify, by, run))


def _note(run: str, outcomes: list[Entry]) -> None:
    """Write the outcomes down if the disk lets us: what is not noted is done once more, which is harmless."""
    with contextlib.suppress(OSError):
        if outcomes:
            append(run, PAID, outcomes)


def _outcome(entry: Entry, verify: Verify, by: str, run: str) -> Entry:
    verified, evidence = verify()
    if verified is False:
        from blackstart.engine import verbs  # noqa: PLC0415 - see `pay`

        evidence = {**evidence, "by_hand": verbs.by_hand(entry["action"], entry["arguments"], run)}
    return _told(entry, verified, evidence, by)


def settle(run: str, entries: Iterable[Entry], *, by: str) -> None:
    """Note undos for which it was seen that there is nothing to be done any more."""
    _note(run, [_told(entry, True, {"gone": True}, by) for entry in entries])


def _told(entry: Entry, verified: bool | None, evidence: Entry, by: str) -> Entry:  # noqa: FBT001 - an outcome
    named: Entry = {name: entry[name] for name in ("id", "serial", "action") if name in entry}
    done = {"mono_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC), "by": by}
    return {**named, "verified": verified, "evidence": evidence, **done}

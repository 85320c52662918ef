"""Which runs of this user may owe something, wherever their folders lie: one small file a run.

A guardian notes its trial before it takes the first undo, and strikes it out when nothing is owed any more; a
suite notes its own folder for as long as it runs. So `halt` and every start find what a run with another
`--out` left behind. Standard library only, and little of
it: the guardian imports this, and the kill switch waits for it.
"""

from __future__ import annotations

import hashlib
import os
import stat


def places() -> list[str]:
    """Return the index folders: $XDG_STATE_HOME/blackstart/open or ~/.local/state, and the one below /tmp."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117 - start time; the XDG specification: to be ignored
        home = os.path.expanduser("~/.local/state")  # noqa: PTH111 - see above
    return [os.path.join(home, "blackstart", "open"), f"/tmp/blackstart-{os.geteuid()}"]  # noqa: PTH118,S108 - checked to be ours


def note(run: str) -> None:
    """Note a run in the first place that can be written; without any, only `--out` finds it."""
    run = os.path.realpath(run)
    for place in places():
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)  # noqa: PTH103 - start time
            if _ours(place):
                with open(_entry(place, run), "w", encoding="utf-8") as file:  # noqa: PTH123 - see above
                    file.write(run)
                return
        except OSError:
            continue


def strike(run: str) -> None:
    """Strike a run out, because it owes nothing."""
    for place in places():
        try:
            os.unlink(_entry(place, os.path.realpath(run)))  # noqa: PTH108 - see above
        except OSError:
            continue


def noted() -> list[str]:
    """Return the folders of all runs that are noted."""
    return [run for place in places() if _ours(place) for run in _read(place)]


def _read(place: str) -> list[str]:
    found = []
    try:
        names = sorted(os.listdir(place))  # noqa: PTH208 - see above
    except OSError:
        return []
    for name in names:
        path = os.path.join(place, name)  # noqa: PTH118 - see above
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - see above
                run = file.read()
        except (OSError, ValueError):
            continue
        if os.path.isabs(run) and _entry(place, run) == path:  # noqa: PTH117 - see above
            found.append(run)
    return found


def _ours(place: str) -> bool:
    """Whether nobody else can write there: what is noted is carried out with our rights."""
    try:
        found = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _entry(place: str, run: str) -> str:
    return os.path.join(place, hashlib.sha256(run.encode()).hexdigest()[:32])  # noqa: PTH118 - see above

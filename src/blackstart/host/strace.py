"""strace as the killer at the n-th call, where seccomp user notification cannot be had.

Slow (120 µs for each traced call) and counted for each thread by itself. Never with `--seccomp-bpf`: strace
6.1 then does not send the signal, and says nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.host.helpers import Helper

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 65535
"""strace counts no further."""

_LINE = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*)$")  # it pads the number to five places


class Killer(Helper):
    """Attaches to a running process when told to go, and kills it on entering its n-th such call."""

    def __init__(self, pid: int, calls: Iterable[str], path: str, n: int, log: Path) -> None:
        names = ",".join(sorted(calls))
        log.parent.mkdir(parents=True, exist_ok=True)
        self._victim, self._log = pid, log
        only = ["-P", path] if path else []
        what = ["-e", f"trace={names}", "-e", f"inject={names}:signal=KILL:when={n}", *only]
        traced = ["strace", "-f", "-q", "-ttt", "-o", str(log), "-p", str(pid), *what]
        super().__init__(["/bin/sh", "-c", 'read -r go && exec "$@"', "sh", *traced])

    @property
    def attached(self) -> bool:
        """Whether every thread is traced by it."""
        tasks = list(Path(f"/proc/{self._victim}/task").glob("*/status"))
        mine = f"TracerPid:\t{self.ref.pid}\n"
        return bool(tasks) and all(mine in file.read_text(encoding="utf-8") for file in tasks)

    def last(self) -> dict[str, Any]:
        """Return the call at which it killed: name, arguments, thread, and the wall clock on entering it."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        found = [match for line in lines if (match := _LINE.match(line)) is not None]
        if not found:
            return {}
        tid, seconds, call, rest = found[-1].groups()
        return {"n": len(found), "thread": int(tid), "call": call, "line": rest, "wall_s": float(seconds)}


@cache
def unavailable() -> str | None:
    """Say why strace cannot do it here, tried on a child of ours, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    command = ["strace", "-q", "-o", "/dev/null", "-e", "inject=getpid:error=EPERM", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return None if done.returncode == 0 else f"strace: {done.stderr.strip() or done.returncode}"

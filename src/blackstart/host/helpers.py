"""Small programs that do harm for us (`hog`, `duty`): in the guardian's hands before they begin."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.host import procs
from blackstart.model.fault import ProcessRef, Undo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class Helper:
    """A started program that waits for its `go`. It ends when we do: the kernel sees to that."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {key: value for key, value in os.environ.items() if key != procs.MARKER}
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        found = procs.stat(self._popen.pid)
        assert found is not None, "a child that was not waited for keeps its entry"
        self.ref = ProcessRef(found.pid, found.start_ticks)

    @classmethod
    def of(cls, program: ModuleType, *arguments: Any) -> Helper:
        """Start a program of ours, which is told our pid first."""
        file = str(program.__file__)
        return Helper([sys.executable, "-I", "-S", file, str(os.getpid()), *map(str, arguments)])

    @property
    def undo(self) -> Undo:
        """How the guardian ends it."""
        return Undo(id=f"helper:{self.ref.pid}", action="kill", arguments=msgspec.to_builtins(self.ref))

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def go(self) -> None:
        """Let it begin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(b"go\n")
        self._popen.stdin.flush()

    def finish(self, limit_s: float) -> None:
        """Give it time to end by itself, then end it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(limit_s)
        self.end()

    def end(self) -> None:
        """End it, and see it gone; idempotent."""
        self._popen.kill()
        self._popen.wait()
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

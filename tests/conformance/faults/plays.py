"""Has the stage played once for each kind, as many at a time as there are processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ordinary_user

STAGE = Path(__file__).with_name("stage.py")
Play = dict[str, Any]


class Plays:
    """Begins with all that will be asked for; `of` waits for one."""

    def __init__(self, mine: list[str], ordinary: list[str]) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._root = tempfile.TemporaryDirectory(prefix="plays-")
        self._mine = {kind: self._pool.submit(self._played, kind) for kind in mine}
        self._ordinary = {kind: self._pool.submit(_played_by_nobody, kind) for kind in ordinary}

    def of(self, kind: str, *, ordinary: bool = False) -> Play:
        """Return what came of a kind."""
        future: Future[Play] = (self._ordinary if ordinary else self._mine)[kind]
        return future.result()

    def _played(self, kind: str) -> Play:
        folder = Path(self._root.name, kind)
        environment = {**os.environ, "XDG_STATE_HOME": f"{folder}-state"}
        done = subprocess.run(
            [sys.executable, str(STAGE), kind, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def close(self) -> None:
        """Clean up."""
        self._pool.shutdown(cancel_futures=True)
        self._root.cleanup()


def _played_by_nobody(kind: str) -> Play:
    """As an ordinary user, in a folder of his own."""
    code = (
        "import os, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(STAGE.parent)!r})\n"
        "os.environ['XDG_STATE_HOME'] = os.getcwd()\n"
        f"import stage; stage.main({kind!r}, Path('run').resolve())"
    )
    return dict(json.loads(ordinary_user.run(code, needs="pyroute2")))

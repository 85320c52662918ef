"""Undos of files: remove what a fault or a target put below the run folder."""

from __future__ import annotations

import os
import shlex
import shutil
import stat as modes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Verb, Verify


def _unlink(arguments: Mapping[str, Any], run: str) -> Verify:
    """Remove one file below the run folder: `path`."""
    path = _inside(str(arguments["path"]), run)
    if os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108 - pathlib would double the guardian's start time
    return lambda: (not os.path.lexists(path), {"path": path})


def _rmtree(arguments: Mapping[str, Any], run: str) -> Verify:
    """Remove a folder below the run folder: `path`."""
    path = _inside(str(arguments["path"]), run)
    if os.path.lexists(path) and modes.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    return lambda: (not os.path.lexists(path), {"path": path})


def _inside(path: str, run: str) -> str:
    """Resolve the folder that holds `path`, and refuse anything that is not truly below the run folder."""
    parent = os.path.realpath(os.path.dirname(path))  # noqa: PTH120 - see above
    root = os.path.realpath(run)
    if parent != root and not parent.startswith(root + os.sep):
        raise PermissionError(f"{path} is not below the run folder {run}")
    return os.path.join(parent, os.path.basename(path))  # noqa: PTH118,PTH119 - see above


BY_HAND: dict[str, ByHand] = {
    "unlink": lambda arguments: f"rm {shlex.quote(arguments['path'])}",
    "rmtree": lambda arguments: f"rm -r {shlex.quote(arguments['path'])}",
}
VERBS: dict[str, Verb] = {"unlink": _unlink, "rmtree": _rmtree}

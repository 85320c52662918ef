"""Run Python as an ordinary user, whoever runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
SRC = Path(__file__).parents[3] / "src"


def interpreter() -> str:
    """Name a Python that an ordinary user may execute; skips the test where there is none."""
    for one in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([one, "-c", ""], user=NOBODY, group=NOBODY, extra_groups=[], check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return one
    return pytest.skip(f"no Python 3.{sys.version_info.minor} that an ordinary user may execute")


def run(code: str, *, needs: str = "") -> str:
    """Run code in a folder of its own as an ordinary user; returns what it prints.

    `needs` names a module that it must be able to import.
    """
    python = interpreter() if os.geteuid() == 0 else sys.executable
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    path = os.pathsep.join([str(SRC), str(Path(__file__).parent), sysconfig.get_path("purelib")])
    folder = Path(tempfile.mkdtemp(prefix="blackstart-user-"))
    folder.chmod(0o777)
    environment = {
        "PYTHONPATH": path,
        "PATH": os.defpath,
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        if needs:
            tried = subprocess.run([python, "-c", f"import {needs}"], env=environment, check=False, **who)  # type: ignore[call-overload]
            if tried.returncode:
                pytest.skip(f"{python} cannot import {needs} as an ordinary user")
        done = subprocess.run(  # type: ignore[call-overload]
            [python, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **who,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)

"""Make the environment: `python3 tools/setup_venv.py .venv`. Standard library only.

pip's own configuration is respected. The stamp `.ready` is written last: a set-up that was broken off is done
again. The Makefile holds a lock around it.
"""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST = (3, 11)
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")


def fail(what: str, hint: str) -> None:
    """Say what is wrong and what to do, and end."""
    sys.exit(f"set-up: {what}\n  → {hint}")


def check_host() -> None:
    """Refuse early what could only fail late."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < OLDEST:
        fail(
            f"Python {version} is too old", "install Python 3.11 or newer, then: make PYTHON=python3.11 suite"
        )
    if not sys.platform.startswith("linux"):
        fail(f"{sys.platform} is not supported", "Blackstart needs Linux (pidfd, PR_SET_PDEATHSIG)")
    try:
        import ensurepip  # noqa: F401, PLC0415  # only its absence matters
        import venv  # noqa: F401, PLC0415
    except ImportError:
        hint = f"Debian, Ubuntu: apt-get install python{version}-venv; or name another: make PYTHON=… suite"
        fail("this Python comes without venv and ensurepip", hint)


def run(arguments: list[str], what: str) -> None:
    """Run a step; when it fails show the end of what it said."""
    print(f"set-up: {what} …", flush=True)
    done = subprocess.run(arguments, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        fail(
            f"{what} failed\n{tail}",
            "is a package index reachable (`pip config list`), and the disk not full?",
        )


def is_current(venv: Path) -> bool:
    """Whether somebody else finished the same set-up while this one waited for the lock."""
    stamp = ROOT / venv / ".ready"
    sources = (ROOT / name for name in ("pyproject.toml", "requirements.lock"))
    return stamp.exists() and all(stamp.stat().st_mtime > source.stat().st_mtime for source in sources)


def main(venv: Path) -> None:
    """Create the environment, install the locked packages, then the project itself."""
    if is_current(venv):
        return
    check_host()
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)], f"creating {venv}")
    python = str((ROOT / venv / "bin" / "python").absolute())
    lock = str(ROOT / "requirements.lock")
    run([python, *PIP, "install", "--no-deps", "-r", lock], "installing the locked packages")
    install = [python, *PIP, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    run(install, "installing blackstart")
    (ROOT / venv / ".ready").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv"))

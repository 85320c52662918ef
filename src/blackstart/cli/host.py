"""What a report says about the machine: figures without it cannot be compared."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("msgspec", "duckdb", "uvloop", "aiohttp", "simplefix")


def facts(folder: Path) -> dict[str, Any]:
    """Describe machine, kernel, Python and the packages that measure; `folder` is where the run lies."""
    free = shutil.disk_usage(folder).free
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else "ordinary",
        "cpu": {"model": _cpu(), "count": len(os.sched_getaffinity(0))},
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "disk_free_gib": round(free / 2**30, 1),
        "clock": _text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

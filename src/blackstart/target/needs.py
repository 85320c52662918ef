"""What a target needs to have installed, beside what its variables name: programs and Python packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blackstart.errors import TargetError
from blackstart.target import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.manifest import Manifest

PYTHON = "python:"
TARGETS = "pip install 'blackstart[targets]'"


class Need(msgspec.Struct, frozen=True):
    """One thing that must be there, and the line that installs it."""

    name: str
    there: bool
    install: str


def listed(manifest: Manifest) -> Iterator[Need]:
    """Yield everything that the manifest needs: `[needs]`, and the packages that its variables name."""
    for name, install in manifest.needs.items():
        yield Need(name, _there(name), install)
    used = variables.names(msgspec.to_builtins(manifest.processes))
    packages = dict.fromkeys(name.partition(".")[2] for name in used if name.startswith("package."))
    for package in packages:
        yield Need(f"{PYTHON}{package}", _there(f"{PYTHON}{package}"), TARGETS)


def refuse_missing(manifest: Manifest) -> None:
    """Raise TargetError naming all that is not installed, with the lines that install it."""
    absent = [need for need in listed(manifest) if not need.there]
    if absent:
        what = f"not installed: {', '.join(need.name for need in absent)}"
        hint = "; ".join(dict.fromkeys(need.install for need in absent))
        raise TargetError(what, where=manifest.name, hint=hint)


def _there(name: str) -> bool:
    if name.startswith(PYTHON):
        return variables.package_folder(name.removeprefix(PYTHON)) is not None
    return variables.program(name) is not None

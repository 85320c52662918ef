"""`{variables}` in manifests: `{run}`, `{port.redis}`, `{firm.http}`, `{exchange.fix.port}`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackstart.errors import ManifestError
from blackstart.target.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# `{{name}}` stands for `{name}`; other braces (JMESPath objects, JSON, programs) are left alone.
_NAME = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*"
_PATTERN = re.compile(rf"\{{(\{{{_NAME}\}})\}}|\{{({_NAME})\}}")

BUILT_IN = ("run", "seed", "python", "here")


def expand(text: str, values: Mapping[str, Any], *, where: str) -> str:
    """Replace each `{name}` in `text`.

    `values` is nested; `where` is the manifest's key, for the error. Raises ManifestError.
    """

    def replace(found: re.Match[str]) -> str:
        literal, name = found.groups()
        return literal or str(lookup(name, values, where=where))

    return _PATTERN.sub(replace, text)


def expand_all(value: Any, values: Mapping[str, Any], *, where: str) -> Any:
    """Expand every string in a nested value.

    A string that is one variable only becomes the variable's value, type and all.
    """
    if isinstance(value, str):
        whole = _PATTERN.fullmatch(value)
        if whole and whole.group(2):
            return lookup(whole.group(2), values, where=where)
        return expand(value, values, where=where)
    if isinstance(value, dict):
        return {key: expand_all(item, values, where=f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [expand_all(item, values, where=where) for item in value]
    return value


def lookup(name: str, values: Mapping[str, Any], *, where: str) -> Any:
    """Return the value of one dotted name.

    Raises ManifestError with the names that exist at the place where it went wrong.
    """
    parts = name.split(".")
    if parts[0] == "package":
        return _package(".".join(parts[1:]), where=where)
    if parts[0] == "program":
        return _program(".".join(parts[1:]), where=where)
    value: Any = values
    for depth, part in enumerate(parts):
        known = _keys(value)
        if part not in known:
            seen = ".".join(parts[:depth])
            what = f"variable {{{name}}}: no `{part}`" + (f" in `{seen}`" if seen else "")
            raise ManifestError(what + did_you_mean(part, known), where=where)
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def names(value: Any) -> Iterator[str]:
    """Yield the names of all variables in a nested value."""
    if isinstance(value, str):
        yield from (found.group(2) for found in _PATTERN.finditer(value) if found.group(2))
    elif isinstance(value, dict):
        for item in value.values():
            yield from names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from names(item)


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed Python package without importing it.

    None when it is not installed.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _package(name: str, *, where: str) -> str:
    folder = package_folder(name)
    if folder is None:
        hint = (
            "install it into this environment (`pip install 'blackstart[targets]'` for the packaged targets)"
        )
        raise ManifestError(f"the Python package `{name}` is not installed", where=where, hint=hint)
    return str(folder)


def program(name: str) -> str | None:
    """Return the path of a program: beside this interpreter (wheels bring programs too) or on PATH."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return shutil.which(name, path=beside)


def _program(name: str, *, where: str) -> str:
    found = program(name)
    if found is None:
        raise ManifestError(f"the program `{name}` is not installed", where=where)
    return found


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return list(value)
    return [str(index) for index in range(len(value))] if isinstance(value, list) else []

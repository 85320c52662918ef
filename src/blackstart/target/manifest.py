"""Find and load target manifests.

TOML in, a checked `Manifest` out, or one error that lists everything wrong.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

import blackstart
from blackstart.errors import ManifestError
from blackstart.model import manifest as model
from blackstart.model.data import Data
from blackstart.model.manifest import Manifest
from blackstart.scenario.fields import allowed
from blackstart.target import managed
from blackstart.target.problems import DOCUMENTS, problems
from blackstart.target.suggest import did_you_mean

DEFAULT_TARGET = "paperfirm"

# Sections that hold named entries, and what an entry must be.
_TABLES: dict[str, Any] = {
    "processes": model.Process,
    "hosts": model.Host,
    "components": model.Component,
    "groups": tuple[str, ...],
    "events": model.EventSource,
    "probes": model.ProbeSpec,
    "data": Data,
    "operations": model.Operation,
    "services": model.Service,
    "streams": model.Stream,
    "state": model.StateDocument,
    "not_applicable": str,
    "objectives": dict[str, float],
}
_KEYS = "docs/reference/manifest.md has every key"
_FORM_FIRST = f"{_KEYS}; what else is wrong is looked for once this is mended"
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]+)`")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def folders() -> list[Path]:
    """Return where packaged targets lie: in the installed wheel, or `targets/` of an editable checkout."""
    package = Path(blackstart.__file__).parent
    places = [package / "data" / "targets", package.parents[1] / "targets"]
    return [place for place in places if place.is_dir()]


def packaged() -> dict[str, Path]:
    """Return the packaged targets by name."""
    found = {path.stem: path for folder in reversed(folders()) for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def find(target: str | Path) -> Path:
    """Return the manifest file that `target` names: a path, or the name of a packaged target."""
    path = Path(target).expanduser()
    if path.is_file():
        return path.resolve()
    if path.is_dir() and (len(path.parts) > 1 or str(target) not in packaged()):
        inside = ", ".join(str(one) for one in sorted(path.glob("*.toml"))) or "none there"
        raise ManifestError("is a folder", where=str(path), hint=f"name a manifest, a *.toml file: {inside}")
    named = packaged()
    if str(target) in named:
        return named[str(target)].resolve()
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise ManifestError("no such file", where=str(path), hint=f"packaged targets: {', '.join(named)}")
    hint = "give a packaged target by name, a manifest by path, or write one with `blackstart init`"
    raise ManifestError(f"no target `{target}`{did_you_mean(str(target), named)}", hint=hint)


def load(target: str | Path = DEFAULT_TARGET) -> Manifest:
    """Load the manifest that `target` names and check it.

    Who restarts units and containers is asked of their managers. Raises ManifestError listing every problem
    (R20: no environment, no run).
    """
    path = find(target)
    manifest = read(path)
    _refuse(path, problems(manifest))
    return managed.resolve(manifest)


def read(path: Path) -> Manifest:
    """Load a manifest file; only its form is checked.

    Raises ManifestError with file, key, what is allowed and what was meant.
    """
    document = _parse(path)
    document.pop("folder", None)
    _refuse(path, [*_unknown_sections(document), *_broken_entries(document)], _FORM_FIRST)
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise ManifestError(explain(error, Manifest, ""), where=str(path), hint=_FORM_FIRST) from None
    not_applicable = _for_all_others(manifest)
    return msgspec.structs.replace(manifest, folder=str(path.parent), not_applicable=not_applicable)


def explain(error: msgspec.ValidationError, kind: Any, key: str) -> str:
    """Turn msgspec's message into `key.path: what is wrong`, with a suggestion for a misspelt field."""
    text = str(error)
    place = _PLACE.search(text)
    inner = place.group(1) if place else ""
    where = ".".join(part for part in (key, inner) if part)
    text = _PLACE.sub("", text)
    unknown = _UNKNOWN_FIELD.search(text)
    if unknown and not inner:
        text = f"unknown key `{unknown.group(1)}`{did_you_mean(unknown.group(1), _fields(kind))}"
    choices = allowed(kind, inner, text)
    text = f"{text} ({choices})" if choices else text
    return f"{where}: {text}" if where else text


def _for_all_others(manifest: Manifest) -> dict[str, str]:
    """Replace `"*"` by every document that the manifest does not give.

    Infrastructure is measured by Blackstart: it always applies.
    """
    reasons = dict(manifest.not_applicable)
    reason = reasons.pop("*", None)
    if reason is not None:
        absent = (name for name in DOCUMENTS if name not in manifest.state and name != "infrastructure")
        reasons = {**dict.fromkeys(absent, reason), **reasons}
    return reasons


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"not TOML: {error}", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot be read: {error}", where=str(path)) from None


def _unknown_sections(document: dict[str, Any]) -> list[str]:
    known = set(get_type_hints(Manifest)) - {"folder"}
    return [f"unknown key `{name}`{did_you_mean(name, known)}" for name in document if name not in known]


def _broken_entries(document: dict[str, Any]) -> list[str]:
    """Convert entry by entry, so that each error names its entry and all errors are found."""
    found = []
    for section, kind in _TABLES.items():
        table = document.get(section, {})
        if not isinstance(table, dict):
            found.append(f"{section}: expected a table [{section}.NAME]")
            continue
        for name, entry in table.items():
            found += _try(entry, kind, f"{section}.{name}")
    return found


def _try(entry: Any, kind: Any, key: str) -> list[str]:
    try:
        msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        return [explain(error, kind, key)]
    return []


def _fields(kind: Any) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)] if isinstance(kind, type) else []


def _refuse(path: Path, found: list[str], hint: str = _KEYS) -> None:
    if not found:
        return
    what = found[0] if len(found) == 1 else f"{len(found)} problems:\n  - " + "\n  - ".join(found)
    raise ManifestError(what, where=str(path), hint=hint)

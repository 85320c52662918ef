"""Loading scenario files: packaged ones, and the user's own by path.

Errors name file, key, and what would be allowed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from importlib import resources
from pathlib import Path

import msgspec

from blackstart.errors import ScenarioError
from blackstart.model.scenario import Scenario
from blackstart.scenario.fields import allowed, no_amounts, type_at

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_NOT_BEFORE = {"then": ("then", "revert"), "revert": ("revert",)}
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def packaged() -> list[Scenario]:
    """Load the scenarios that come with Blackstart, in the order of the suite."""
    folder = resources.files("blackstart") / "data" / "scenarios"
    files = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name
    )
    return [parse(item.read_text("utf-8"), item.name) for item in files]


def load(path: Path) -> list[Scenario]:
    """Load one file, or every `*.toml` of a folder. Raises ScenarioError."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise ScenarioError("holds no *.toml file", where=str(path), hint="a scenario is one TOML file")
    return unique(_load_file(file) for file in files)


def is_file(name: str) -> bool:
    """Tell whether a choice names a file or folder, not one of the packaged scenarios."""
    return name.endswith(".toml") or "/" in name or ".toml:" in name


def files(wanted: Iterable[str]) -> list[str]:
    """Put the files of a folder in its place, so that each scenario comes from one file."""
    found: list[str] = []
    for name in wanted:
        inside = sorted(Path(name).glob("*.toml")) if is_file(name) and Path(name).is_dir() else []
        if inside:
            load(Path(name))  # no id twice
        found += [str(path) for path in inside] or [name]
    return found


def unique(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Check that no id stands for two scenarios."""
    found: dict[str, Scenario] = {}
    for scenario in scenarios:
        if scenario.id in found:
            raise ScenarioError(
                "the id is taken", where=scenario.id, hint="give each scenario an id of its own"
            )
        found[scenario.id] = scenario
    return list(found.values())


def select(scenarios: Sequence[Scenario], wanted: Sequence[str]) -> list[tuple[Scenario, str | None]]:
    """Choose scenarios by id (`R25`), by trial (`R25:router`), or by the path of a file (`my.toml:router`).

    Raises ScenarioError.
    """
    return [choice for name in wanted for choice in _choose(scenarios, name)]


def _choose(scenarios: Sequence[Scenario], name: str) -> list[tuple[Scenario, str | None]]:
    if is_file(name):
        file, _, only = name.rpartition(":") if ".toml:" in name else (name, "", "")
        return [(one, only or None) for one in load(Path(file))]
    wanted, _, component = name.partition(":")
    for one in scenarios:
        if one.id.lower() == wanted.lower():
            return [(one, component or None)]
    raise ScenarioError(
        "no such scenario",
        where=name,
        hint=_nearest(wanted.upper(), [one.id for one in scenarios]) + "; or give the path of a file",
    )


def _load_file(path: Path) -> Scenario:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(
            f"cannot be read: {why}", where=str(path), hint="give the path of a scenario file"
        ) from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Scenario:
    """Read the text of a scenario file. Raises ScenarioError naming `where` and the key."""
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"is not TOML: {error}", where=where) from error
    except msgspec.ValidationError as error:
        raise _explain(str(error), where) from error
    _check(scenario, where)
    return scenario


def _check(scenario: Scenario, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", scenario.id):
        raise ScenarioError(
            f"`{scenario.id}` cannot be an id", where=f"{where}: id", hint="letters, digits, `.`, `_` and `-`"
        )
    for key, what in no_amounts(scenario):
        raise ScenarioError(what, where=f"{where}: {key}")
    _check_waits(scenario, where)
    _check_steps(scenario, where)
    _check_expected(scenario, where)
    numbers = {"steady.limit_s": scenario.steady.limit_s, "observe.limit_s": scenario.observe.limit_s}
    for key, value in numbers.items():
        if value <= 0:
            raise ScenarioError("must be more than 0", where=f"{where}: {key}")


def _check_waits(scenario: Scenario, where: str) -> None:
    """Refuse a trigger, or the `until` of a preparation, that names no event."""
    triggers = {f"then[{k}].trigger": step.trigger for k, step in enumerate(scenario.then)}
    until = {
        f"prepare[{k}].until": one.until for k, one in enumerate(scenario.prepare) if one.until is not None
    }
    for key, trigger in {**until, "trigger": scenario.trigger, **triggers}.items():
        if trigger.at in ("oracle", "signal") and not trigger.event:
            raise ScenarioError(
                "which event?", where=f"{where}: {key}.event", hint="name the event that is waited for"
            )


def _check_steps(scenario: Scenario, where: str) -> None:
    if any("@each" in step.components for step in scenario.then):
        raise ScenarioError(
            "`@each` stands for trials of their own: only the first fault may name it", where=where
        )
    for k, step in enumerate(scenario.prepare):
        if step.optional and step.action != "operation":
            hint = "only an `operation` may be one that a target does not have"
            raise ScenarioError(
                f"`{step.action}` cannot be optional", where=f"{where}: prepare[{k}]", hint=hint
            )


def _check_expected(scenario: Scenario, where: str) -> None:
    for k, one in enumerate(scenario.expect):
        if (one.signal is None) == (one.oracle is None):
            hint = "`signal` (one of the manifest's [signs]) or `oracle` (an event of the exchange)"
            raise ScenarioError("what is expected?", where=f"{where}: expect[{k}]", hint=hint)
        if one.before is not None and one.after in _NOT_BEFORE[one.before]:
            raise ScenarioError(
                f"`{one.before}` does not come after `{one.after}`",
                where=f"{where}: expect[{k}].before",
                hint="in time: start, fault, then, revert",
            )


def _explain(message: str, where: str) -> ScenarioError:
    place = _PLACE.search(message)
    path = place.group(1) if place else ""
    what = _PLACE.sub("", message)
    key = f"{where}: {path}" if path else where
    kind = type_at(Scenario, path)
    unknown = _UNKNOWN.search(what)
    if unknown and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = [field.encode_name for field in msgspec.structs.fields(kind)]
        return ScenarioError(
            f"unknown key `{unknown.group(1)}`", where=key, hint=_nearest(unknown.group(1), fields)
        )
    return ScenarioError(what, where=key, hint=allowed(Scenario, path, what))


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    meant = f"did you mean `{close[0]}`? " if close else ""
    return f"{meant}known: {', '.join(known)}"

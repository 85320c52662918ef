"""Faults with several mechanisms: which can be had here, and whether the one asked for can."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.model.scenario import FaultStep


def problem(step: FaultStep, offered: Mapping[str, str | None]) -> str | None:
    """Say why the step's `mechanism` cannot be had, or, where it names none, why none can; else None."""
    wanted = step.parameters.get("mechanism")
    if wanted is None:
        return None if None in offered.values() else "; ".join(filter(None, offered.values()))
    if wanted not in offered:
        return f"unknown mechanism {wanted!r}: one of {', '.join(offered)}"
    return offered[wanted]


def best(step: FaultStep, offered: Mapping[str, str | None]) -> tuple[str, str]:
    """Choose the one asked for, or else the first that can be had; and say why no earlier one was taken."""
    if "mechanism" in step.parameters:
        return str(step.parameters["mechanism"]), ""
    passed: list[str] = []
    for name, reason in offered.items():
        if reason is None:
            return name, "; ".join(passed)
        passed.append(reason)
    return next(iter(offered)), ""

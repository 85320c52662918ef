"""Connectivity: every link to exchanges, database and queue is up (R54, source document 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators.documents import document, fail, gone, optional, unknown, validator
from blackstart.check.validators.shapes import Connectivity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding


@validator("connectivity")
def check(facts: Facts) -> Iterable[Finding]:
    """Look for links that are down, or not named any more."""
    links = document(facts, "connectivity", Connectivity).links
    if not links:
        yield unknown("nothing-to-compare", "the target names no links")
    before = optional(facts, "connectivity", Connectivity, moment="before")
    old = [f"{link.kind} {link.name}" for link in before.links] if before else []
    yield from gone(old, [f"{link.kind} {link.name}" for link in links], "link")
    for link in links:
        if not link.connected:
            yield fail(
                "not-connected", f"{link.kind} {link.name} is not connected", link=link.name, kind=link.kind
            )

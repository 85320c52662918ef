"""The shape of a verb: it begins an undo and hands back what waits for the effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Outcome = tuple[bool | None, dict[str, Any]]
"""Was it verified (None: could not be compared), and the evidence."""

Verify = Callable[[], Outcome]
Verb = Callable[[Mapping[str, Any], str], Verify]
"""Called with the undo's arguments and the run folder."""

ByHand = Callable[[Mapping[str, Any]], str]
"""The shell command that does what a verb does, from the undo's arguments."""

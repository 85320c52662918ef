"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean `x`? known: a, b)`, shorter when nothing is near or nothing is known."""
    names = sorted(known)
    if not names:
        return " (there are none)"
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    question = f"did you mean `{near[0]}`? " if near else ""
    return f" ({question}known: {', '.join(names)})"

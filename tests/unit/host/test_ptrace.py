"""Where the guardian may not change another process's memory back, nobody changes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blackstart.host import ptrace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("scope", "root", "possible"),
    [
        (0, False, True),
        (1, False, False),
        (1, True, True),
        (2, False, False),
        (2, True, True),
        (3, True, False),
    ],
)
def test_what_could_not_be_taken_back_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, scope: int, root: bool, possible: bool
) -> None:
    """The guardian is no ancestor of the target: with Yama's scope 1, Ubuntu's, it may not as a user."""
    file = tmp_path / "ptrace_scope"
    file.write_text(f"{scope}\n")
    monkeypatch.setattr(ptrace, "_YAMA", str(file))
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    why = ptrace.irreversible()
    assert (why is None) == possible
    assert why is None or f"ptrace_scope = {scope}" in why


def test_without_yama_everybody_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most kernels in containers and small machines have none."""
    monkeypatch.setattr(ptrace, "_YAMA", str(tmp_path / "none"))
    assert ptrace.irreversible() is None

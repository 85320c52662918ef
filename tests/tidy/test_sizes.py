"""Sizes (DESIGN section 9): functions median under 8 lines, at most 70; files likewise 200, 600."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "src").rglob("*.py"))

LONGEST_FUNCTION, MEDIAN_FUNCTION = 70, 8
LONGEST_FILE, MEDIAN_FILE = 600, 200


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name each function of a file with the number of its lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body without its docstring."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not statements or statements[-1].end_lineno is None:
        return 0
    return statements[-1].end_lineno - statements[0].lineno + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    """What does not fit does two things: it has to be taken apart."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert [name for name, lines in functions(path) if lines > LONGEST_FUNCTION] == []


def test_functions_are_short_in_the_median() -> None:
    """Half of all functions have fewer than eight lines of code."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in FILES)
    nodes = (node for tree in trees for node in ast.walk(tree))
    lengths = [body(node) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert median(lengths) < MEDIAN_FUNCTION


def test_files_are_short_in_the_median() -> None:
    """Half of all files have fewer than two hundred lines."""
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) < MEDIAN_FILE

"""Formatter, linter, type checker and the small rules of the house."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKED = [name for name in ("src", "tests", "bench", "targets", "tools") if (ROOT / name).is_dir()]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MODULES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment in the repository."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_ruff_finds_nothing() -> None:
    """Every rule of ruff is on, and each exception carries its reason in pyproject.toml."""
    done = run("ruff", "check", "--output-format", "concise", *CHECKED)
    assert done.returncode == 0, done.stdout


def test_the_formatter_has_nothing_to_do() -> None:
    """One layout, nobody's taste."""
    done = run("ruff", "format", "--check", *CHECKED)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mypy_is_content() -> None:
    """All four packages pass mypy --strict."""
    done = run("mypy")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_in_a_sentence_what_it_shows(path: Path) -> None:
    """Whoever sees a test fail learns from its first line what is broken."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            text = (ast.get_docstring(node) or "").strip()
            assert text, f"{path.name}:{node.lineno} {node.name} has no docstring"
            assert text[-1] in ".?!", f"{path.name}:{node.lineno} {node.name}: not a sentence"


def test_every_exception_from_a_rule_has_its_reason() -> None:
    """In pyproject.toml every ignored rule stands beside a comment that says why."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("ignore = ["))
    for line in lines[start + 1 :]:
        if line.startswith("]"):
            break
        assert re.search(r"#\s*\S+", line), f"no reason: {line.strip()}"


def test_every_noqa_names_its_rule() -> None:
    """A bare `noqa` would hide everything that is to come."""
    for path in [*MODULES, *TESTS]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "# noqa" in line and path != Path(__file__):
                assert re.search(r"# noqa: [A-Z]+\d+", line), f"{path.name}:{number}"


def test_every_module_stands_in_whats_here() -> None:
    """A newcomer finds a line about every module in docs/whats-here.md."""
    text = (ROOT / "docs" / "whats-here.md").read_text(encoding="utf-8")
    names = {str(path.relative_to(ROOT / "src")) for path in MODULES}
    missing = sorted(name for name in names if f"`{name}`" not in text)
    assert missing == [], "write them: .venv/bin/python tools/whats_here.py"
    listed = set(re.findall(r"`((?:fixsession|blackstart|paperexchange|paperfirm)/[\w/]+\.py)`", text))
    assert sorted(listed - names) == [], "gone: write again with tools/whats_here.py"


def test_the_repository_knows_no_machine() -> None:
    """No path of anybody's machine and no home folder in anything that is handed on."""
    done = subprocess.run(("git", "ls-files"), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: the list of files is not known")
    pattern = re.compile(r"/(?:home|Users)/\w+/|/work/(?:main|shared)|/tmp/w/")
    for name in done.stdout.splitlines():
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert not pattern.search(text), f"{name}: {pattern.search(text)}"


def test_every_dependency_is_locked() -> None:
    """What pyproject.toml asks for, requirements.lock pins: a first run installs exactly what was tested."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = document["project"]["optional-dependencies"].values()
    wanted = [*document["project"]["dependencies"], *(line for lines in extras for line in lines)]
    names = {re.split(r"[\[><=;\s]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in locked}
    assert names - {"blackstart"} <= pinned

"""Write docs/whats-here.md: a line for every module, taken from the first line of its docstring."""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "whats-here.md"
PACKAGES = {
    "blackstart": "the tester",
    "fixsession": "the FIX 4.4 session layer, without I/O",
    "paperexchange": "the simulated exchange and its truth ledger",
    "paperfirm": "the reference trading firm",
}
ELSEWHERE = """\
## Beside the packages

| where | what |
|---|---|
| `targets/` | manifests of systems that Blackstart can test, each with its glue |
| `tests/` | the test rooms; `tests/README.md` says where a test goes |
| `bench/` | programs behind the figures of `docs/performance.md` |
| `docs/reference/` | documented interfaces: manifest, state documents, ledgers, results, exchange, firm |
| `docs/adr/` | decisions and their reasons |
| `tools/` | set-up, lock file, generated documents |
| `changelog.d/` | fragments of the next change log entry |
"""


def sentence(path: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").strip().replace("|", "\\|")


def section(package: str) -> list[str]:
    """List the modules of a package, a table for each folder."""
    root = ROOT / "src" / package
    lines = [f"## {package}: {PACKAGES[package]}", ""]
    folders = sorted({path.parent for path in root.rglob("*.py")})
    for folder in folders:
        modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        head = folder / "__init__.py"
        about = sentence(head) if head.exists() else ""
        if folder != root:
            lines += [f"### {folder.relative_to(ROOT / 'src')}", ""]
        lines += [about, ""] if about else []
        if modules:
            lines += ["| module | what |", "|---|---|"]
            lines += [f"| `{path.relative_to(ROOT / 'src')}` | {sentence(path)} |" for path in modules]
            lines.append("")
    return lines


def main() -> None:
    """Write the file."""
    head = [
        "# What's here",
        "",
        "Every module in a line. Written by `tools/whats_here.py` from the modules' own words.",
        "",
    ]
    body = [line for package in PACKAGES for line in section(package)]
    FILE.write_text("\n".join([*head, *body, ELSEWHERE]), encoding="utf-8")
    print(FILE.relative_to(ROOT))


if __name__ == "__main__":
    main()

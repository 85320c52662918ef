"""The import contract (DESIGN sections 2 and 3), read from the source text: lazy imports count, too."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parents[2] / "src"
PACKAGES = ("fixsession", "blackstart", "paperexchange", "paperfirm")

# Who may import whom. Everybody meets over processes, sockets and files otherwise.
ALLOWED = {
    "fixsession": set[str](),
    "blackstart": {"fixsession"},
    "paperexchange": {"fixsession"},
    "paperfirm": {"fixsession"},
}

# The layers of the tester, lowest first; those on one line do not know each other. What is not listed here
# fails: a new package has to say where it belongs.
LAYERS = (
    {"errors", "model"},
    {"contracts"},
    {"history"},
    {"host"},
    {"scenario", "check", "stats"},
    {"target", "faults"},
    {"engine"},
    {"explore", "store", "report"},
    {"calibration", "testing", "chaos"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The lowest layer has an order, too: errors know nothing at all.
TOGETHER = {("errors", "model")}


def modules() -> Iterator[tuple[str, Path]]:
    """Name every module of the four packages, with its file."""
    for package in PACKAGES:
        for path in sorted((SRC / package).rglob("*.py")):
            parts = path.relative_to(SRC).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path, module: str) -> Iterator[str]:
    """Name everything that a file imports, wherever in it; `from a import b` counts as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide what is imported"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    """Say to which layer a name inside `blackstart` belongs; the package itself to none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_packages_meet_only_over_public_interfaces(module: str) -> None:
    """Tester, exchange and firm share no code but the FIX session layer."""
    package = module.split(".", maxsplit=1)[0]
    others = {name.split(".")[0] for name in imported(MODULES[module], module)} & set(PACKAGES)
    assert others - {package} <= ALLOWED[package]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("blackstart.")])
def test_imports_go_downward_only(module: str) -> None:
    """A module of the tester imports from its own package and from lower layers, never up or sideways."""
    own = module.split(".")[1]
    assert own in LEVEL, f"{own} has no layer: give it one in LAYERS"
    for name in imported(MODULES[module], module):
        other = layer(name)
        if other in ("", own) or not name.startswith("blackstart."):
            continue
        assert LEVEL[other] < LEVEL[own] or (other, own) in TOGETHER, f"{module} imports {name}"


def test_the_contract_sees_a_violation(tmp_path: Path) -> None:
    """The reader of imports finds a lazy import inside a function: looking away does not pass."""
    file = tmp_path / "sly.py"
    file.write_text("def f():\n    from blackstart.cli import main\n", encoding="utf-8")
    assert list(imported(file, "sly")) == ["blackstart.cli.main"]
    assert layer("blackstart.cli.main") == "cli"


# Names that read the clock or draw randomness on their own; both come in as arguments (DESIGN section 3).
IMPURE = {
    "time",
    "random",
    "datetime",
    "secrets",
    "uuid",
    "os",
    "socket",
    "subprocess",
    "asyncio",
    "threading",
}
PURE = ("blackstart.model", "blackstart.scenario", "blackstart.stats")


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(PURE)])
def test_pure_layers_reach_for_nothing(module: str) -> None:
    """Model, scenarios and statistics import no clock, no randomness, no process and no socket."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = (node for node in tree.body if isinstance(node, ast.Import))
    found = {alias.name.split(".")[0] for node in nodes for alias in node.names}
    assert found & IMPURE <= {"random"}, "a seeded random.Random may be handed in; nothing else"

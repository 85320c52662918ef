"""What the tests of third-party targets share: one trial through the command line, and our own counts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from pathlib import Path

SCENARIOS = manifests.folders()[-1] / "scenarios"
PASS, FAIL, UNKNOWN = 0, 1, 2


def needing(name: str, *packages: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a target's servers or clients are not installed."""
    absent = [one for one in packages if not importlib.util.find_spec(one)]
    return pytest.mark.skipif(bool(absent), reason=f"target {name} needs {', '.join(absent)}")


def run(folder: Path, scenario: str | Path, target: str | Path) -> tuple[int, dict[str, Any], Path]:
    """Run one trial; return the exit status, its result, and its folder."""
    command = (
        sys.executable,
        "-m",
        "blackstart.cli.main",
        "run",
        scenario,
        "--target",
        target,
        "--seed",
        "5",
    )
    done = subprocess.run(
        [*command, "--seed", "5", "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode in {PASS, FAIL, UNKNOWN}, done.stderr
    (results,) = folder.glob("2*/results.json")
    (trial,) = json.loads(results.read_text())["trials"]
    return done.returncode, trial, results.parent / trial["folder"]


def counted(folder: Path, stream: str) -> tuple[set[str], set[str]]:
    """Return the ids that were acknowledged, and those that the target held at the end."""
    lines = [json.loads(line) for line in (folder / "workload.jsonl").read_text().splitlines()]
    record = {line["n"]: line["record"]["id"] for line in lines if line.get("record")}
    acknowledged = {record[line["n"]] for line in lines if line.get("outcome") == "ok"}
    held = (folder / "ledger" / f"{stream}.recovered.jsonl").read_text().splitlines()
    return acknowledged, {json.loads(line)["key"] for line in held}


def check_losses(folder: Path, trial: dict[str, Any], stream: str) -> set[str]:
    """Compare what the result names as lost with our own count; return it."""
    acknowledged, held = counted(folder, stream)
    assert len(acknowledged) > 300
    lost = acknowledged - held
    assert trial["rpo"]["streams"][stream]["counts"]["lost"] == len(lost)
    assert named(folder, stream, "lost") == lost
    return lost


def named(folder: Path, stream: str, what: str) -> set[str]:
    """Return the ids that the trial's audit names as lost, or whatever else."""
    path = folder / "audit" / stream / f"{what}.jsonl"
    return {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()

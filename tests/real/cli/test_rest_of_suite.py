"""The packaged scenarios that the suite leaves out, by the command line: somebody has to run them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blackstart.cli.doctor import doctor
from blackstart.scenario.load import packaged

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "blackstart.cli.main", "run")
LIMIT_S = 100
LEFT_OUT = [one.id for one in packaged() if not one.standard]


@pytest.fixture(scope="module")
def named_by_doctor() -> set[str]:
    """Ask `doctor` for the scenarios whose fault cannot be had on this machine."""
    with contextlib.redirect_stdout(out := io.TextIOWrapper(io.BytesIO())):
        doctor("paperfirm", as_json=True)
        out.flush()
    found = json.loads(out.buffer.getvalue())
    return {one for finding in found if finding["state"] != "works" for one in finding["scenarios"]}


def judged(folder: Path, scenario: str) -> tuple[str, list[str]]:
    """Run a scenario by the command line; return its verdict and reasons."""
    done = subprocess.run(
        (
            sys.executable,
            "-m",
            "blackstart.cli.main",
            "run",
            scenario,
            "--json",
            "--out",
            str(folder / "runs"),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
    )
    assert done.stdout, done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["id"] == scenario
    return trial["verdict"], trial["reasons"]


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S + 20)
@pytest.mark.skipif(os.geteuid() != 0, reason="most of them need root")
@pytest.mark.parametrize("scenario", LEFT_OUT)
def test_what_the_suite_leaves_out_passes(tmp_path: Path, scenario: str, named_by_doctor: set[str]) -> None:
    """Each is PASS on the reference firm, or UNKNOWN where `doctor` names it: never a surprise.

    What could not be measured on a busy machine is measured once more, as in the pipeline; a FAIL never is.
    """
    verdict, reasons = judged(tmp_path, scenario)
    if verdict == "UNKNOWN" and scenario not in named_by_doctor:
        verdict, reasons = judged(tmp_path, scenario)
    assert verdict in (("PASS", "UNKNOWN") if scenario in named_by_doctor else ("PASS",)), reasons

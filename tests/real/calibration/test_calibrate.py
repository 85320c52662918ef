from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_a_short_calibration_measures_every_outage(tmp_path: Path) -> None:
    """Every outage is measured, its phases sum, and the truth lies within the stated uncertainty."""
    arguments = ("calibrate", "--outages", "8", "--kills", "5", "--json")
    command = (sys.executable, "-m", "blackstart.cli.main", *arguments)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    found = json.loads(done.stdout)
    assert (found["outages"], found["unmeasured"], found["outside"]) == (8, 0, 0), done.stdout
    assert found["phases_not_summing"] == 0
    assert found["error"]["count"] == 8
    assert found["death_notice"]["count"] == 5
    assert done.returncode == (1 if found["misses"] else 0)

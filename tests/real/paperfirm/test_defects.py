"""The reference firm with a deliberate defect, through the whole product: what it loses is found, by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from paperfirm import defects
from paperfirm.config import ConfigError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_firm_that_loses_rows_fails_and_the_lost_ones_are_named(
    tmp_path: Path, firm_but: Callable[[str, str], Path]
) -> None:
    """Exactly the executions that the defect swallowed are lost in the database, in a trial that is FAIL."""
    settings = tmp_path / "defect.toml"
    settings.write_text(f'defects = ["{defects.RECORDER_SKIPS}"]\n')
    start = '"up", "--dir", "{run}/firm",'
    target = firm_but(start, f'{start} "--config", "{settings}",')
    command = (sys.executable, "-m", "blackstart.cli.main", "run", "R1", "--target", str(target), "--json")
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 1, done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["verdict"] == "FAIL"
    events = Path(trial["folder"], "firm", "events", "recorder.jsonl").read_text().splitlines()
    swallowed = {
        event["detail"]["exec_id"] for event in map(json.loads, events) if event["event"] == "defect"
    }
    assert swallowed
    streams = trial["rpo"]["streams"]
    assert set(streams["database"]["lost"]) == swallowed
    assert trial["rpo"]["events"] == len(swallowed)
    assert streams["executions"]["counts"]["lost"] == 0


def test_an_unknown_defect_is_an_error(tmp_path: Path) -> None:
    """A misspelt name is told with the known ones: a firm that is silently healthy would test nothing."""
    path = tmp_path / "x.toml"
    path.write_text('defects = ["recorder-skips"]\n')
    with pytest.raises(ConfigError, match=r"recorder-skips\. Known: recorder-skips-executions"):
        load_settings(path)

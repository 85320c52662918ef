"""An impatient Ctrl-C while reports are being written."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from blackstart.cli import run as command
from blackstart.cli.hold import SIGNALS, holding
from blackstart.testing.samples import sample_run

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.outcome import Run


@pytest.mark.parametrize("number", SIGNALS)
def test_a_held_signal_ends_nothing(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """While held, the wish to end is answered and not obeyed; afterwards it counts again."""
    before = signal.getsignal(number)
    with holding() as hold:
        assert signal.getsignal(number) is before
        hold()
        signal.raise_signal(number)
        assert "reports are being written" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_reports_of_a_broken_off_run_survive_a_second_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGINT during every report: all are written, the status is kept, what was not run is said."""
    run = msgspec.structs.replace(sample_run(tmp_path), interrupted=True)
    run = msgspec.structs.replace(run, trials=run.trials[:1])
    written: list[str] = []

    class Impatient:
        name = "impatient"

        def render(self, run: Run, folder: Path) -> list[Path]:
            signal.raise_signal(signal.SIGINT)
            written.append(run.id)
            return [folder]

    async def ended(*_: object) -> Run:
        return run

    monkeypatch.setattr(command, "run_suite", ended)
    monkeypatch.setattr(command, "REPORTERS", (Impatient(), Impatient()))
    status = command.suite("redis", out=tmp_path, seed=1, only=["R25", "R2"], repeat=2, as_json=False)
    assert written == [run.id, run.id]
    assert status in (1, 2)
    assert "interrupted: 3 of 4 trials not run" in capsys.readouterr().out

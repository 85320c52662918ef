from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from blackstart.model.outcome import Rpo, Rto, Trial
from blackstart.model.verdict import Finding, Verdict, conclude
from blackstart.report.html import phase_lines
from blackstart.report.legend import (
    BOUNDED_PHASE,
    NOT_BACK,
    NOT_TOLD_APART,
    NOTHING_KNOWN,
    NOTHING_TO_VALIDATE,
    OPEN_PHASE,
    SHORT_PHASE,
    UNCHECKED_EVENTS,
    UNKNOWN_PHASE,
    legend,
)
from blackstart.report.live import LiveView
from blackstart.report.rows import phase_texts, repeated, row, rto_text
from blackstart.report.terminal import console, copyable, print_run
from blackstart.report.wording import bare_ms, duration, limit, uncertainty
from blackstart.testing.samples import sample_loss, sample_rto, sample_run, sample_trial


def printed(width: int) -> str:
    """Print the sample run on a terminal of some width."""
    stream = io.StringIO()
    print_run(sample_run(), Console(file=stream, width=width), report=Path("runs/x/report.html"))
    return stream.getvalue()


def line_of(text: str, trial: str) -> str:
    """Find the line of a trial."""
    return next(line for line in text.splitlines() if line.split(" ")[0] == trial)


def test_a_pass_shows_total_phases_loss_and_state() -> None:
    """The line of a passed trial reads like the one in the documentation."""
    words = line_of(printed(160), "R1").split()
    assert words[3:] == [
        "PASS",
        "41.3",
        "ms",
        "12.1",
        "3.0",
        "9.8",
        "4.2",
        "12.2",
        "0",
        "of",
        "18,204",
        "8/8",
    ]


@pytest.mark.parametrize(
    ("trial", "texts"),
    [
        ("R25:risk", ("no interruption", "longest gap 12.0 ms, usual 9.0 ms")),
        ("R3", ("FAIL", "> 30 s")),
        ("R2", ("UNKNOWN", "no-load: 211/s at the fault, 300/s required")),
        ("R33", ("FAIL", "2 of 18,130", "7/8", "executions: 2 lost")),
    ],
)
def test_what_is_not_a_plain_recovery_says_so(trial: str, texts: tuple[str, ...]) -> None:
    """No interruption, not back in time, no load and losses are told in words in the same line."""
    line = line_of(printed(200), trial)
    assert all(text in line for text in texts)


def test_an_unknown_phase_is_a_question_mark() -> None:
    """A phase that could not be measured never reads as zero."""
    assert line_of(printed(200), "R33").split().count("?") == 2


def test_a_narrow_terminal_drops_the_phases_and_keeps_the_rest() -> None:
    """On eighty columns verdict, total, loss and state of every trial are still there."""
    text = printed(80)
    assert "detect" not in text
    assert all(part in text for part in ("41.3 ms", "0 of 18,204", "UNKNOWN", "> 30 s"))


def test_the_closing_line_replays_the_worst_trial() -> None:
    """The one line that replays is that of a failed trial, and the report is named."""
    last = printed(200).strip().splitlines()[-1]
    assert last.startswith("6 trials: 3 pass, 2 fail, 1 unknown")
    assert "runs/x/report.html" in last
    assert "blackstart run R33 --seed 7" in last


def test_a_command_to_copy_names_a_program_that_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off PATH the closing line has the program's path from here; on it, and in results, its plain name."""
    program = tmp_path / ".venv" / "bin" / "blackstart"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [".venv/bin/blackstart", "suite"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert "replay one: .venv/bin/blackstart run R33 --seed 7" in printed(200)
    assert sample_run().trials[0].replay.startswith("blackstart run")
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr("sys.argv", ["blackstart"])
    assert copyable("blackstart run R1") == "./blackstart run R1"
    monkeypatch.setenv("PATH", str(program.parent))
    assert "replay one: blackstart run R33 --seed 7" in printed(200)
    monkeypatch.setattr("sys.argv", ["/usr/lib/blackstart/cli/__main__.py"])
    assert copyable("blackstart run R1") == "blackstart run R1"


def test_without_any_measurement_the_time_is_a_dash() -> None:
    """Nothing measured, nothing claimed."""
    assert rto_text(Rto()) == "\u2013"
    assert phase_texts(Rto()) == ()


def test_a_trial_without_validators_claims_no_state() -> None:
    """Zero of zero is not a success."""
    assert row(msgspec.structs.replace(sample_trial("R1", ""), validation={})).state == "\u2013"


def test_durations_change_their_unit_with_their_size() -> None:
    """Milliseconds, seconds, minutes; never a bare number."""
    assert [duration(ns) for ns in (41_300_000, 12_400_000_000, 192_000_000_000, None)] == [
        "41.3 ms",
        "12.4 s",
        "3 min 12 s",
        "\u2013",
    ]
    assert (limit(30_000_000_000), limit(1_500_000_000), bare_ms(None)) == ("> 30 s", "> 1,500.0 ms", "?")


def test_the_live_view_tells_a_log_what_ended() -> None:
    """Without a terminal every trial leaves one plain line, and stages leave none."""
    stream = io.StringIO()
    trial = sample_trial("R2", "warm restart", verdict=Verdict.UNKNOWN, reasons=("no-load",))
    with LiveView(Console(file=stream, width=160)) as view:
        view("run-started", {"trials": 1, "folder": "runs/x"})
        view("trial-started", {"index": 0, "of": 1, "trial_id": "R2", "title": "warm restart"})
        view("stage", {"trial_id": "R2", "stage": "steady"})
        view("something-new", {})
        view("trial-ended", {"index": 0, "of": 1, "trial": trial})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "1 trial into runs/x"
    assert len(lines) == 2
    assert all(part in lines[1] for part in ("1/1", "R2", "UNKNOWN", "no-load"))


def test_the_live_view_lives_in_a_terminal() -> None:
    """What runs stands below the lines, and is gone with its end."""
    stream = io.StringIO()
    trial = sample_trial("R2", "warm restart", reasons=())
    with LiveView(Console(file=stream, width=160, force_terminal=True)) as view:
        view("run-started", {"trials": 1, "folder": "runs/x"})
        view("trial-started", {"index": 0, "of": 1, "trial_id": "R2", "title": "warm restart"})
        view("stage", {"trial_id": "R2", "stage": "steady"})
        assert view._live is not None
        view._live.refresh()
        assert "warm restart" in stream.getvalue()
        view("trial-ended", {"index": 0, "of": 1, "trial": trial})
    assert "PASS" in stream.getvalue()


def bare_restart() -> Trial:
    """Return the passed trial of a target that has no state to validate."""
    remark = Finding(verdict=Verdict.PASS, code="validation-not-applicable", text="one stretch")
    checks = (conclude("rto", [remark]),)
    return msgspec.structs.replace(
        sample_trial("R24", "abrupt kill", rto=sample_rto(1, 2, 3, None, 4)), checks=checks
    )


def test_where_nothing_is_to_validate_resume_is_the_rest() -> None:
    """Beside a PASS stands no question mark, the phases add up to the total, and a legend says why."""
    trial = bare_restart()
    assert row(trial).phases == ("1.0", "2.0", "3.0", "\u2013", "6.0")
    assert trial.rto.total_ns == 12_000_000
    assert row(msgspec.structs.replace(trial, checks=())).phases[3:] == ("?", "?")
    assert [line.length for line in phase_lines(trial.rto, merge=True)][3:] == ["\u2013", "6.000 ms"]
    stream = io.StringIO()
    print_run(msgspec.structs.replace(sample_run(), trials=(trial,)), Console(file=stream, width=160))
    assert "validate \u2013: there was no state to validate" in stream.getvalue()
    assert "validate \u2013" not in printed(160)


def test_every_mark_in_the_table_is_explained() -> None:
    """Whatever is no plain figure is explained below the table, and nothing else is."""
    lines = [row(trial) for trial in sample_run().trials]
    plain = msgspec.structs.replace(lines[0], rto="1.0 ms", phases=("1.0",) * 5, rpo="0 of 1", state="8/8")
    assert not list(legend([plain], phases=True))
    marks: dict[str, dict[str, object]] = {
        OPEN_PHASE: {"phases": ("1.0", "?", "1.0", "1.0", "1.0")},
        UNKNOWN_PHASE: {"phases": ("1.0", "?", "1.0", "1.0", "1.0"), "verdict": Verdict.UNKNOWN},
        BOUNDED_PHASE: {"phases": ("1.0", "1.0", "1.0", "1.0", "<12.9")},
        SHORT_PHASE: {"phases": ("\u22480", "1.0", "1.0", "1.0", "1.0")},
        NOTHING_TO_VALIDATE: {"phases": ("1.0", "1.0", "1.0", "\u2013", "1.0")},
        NOT_BACK: {"rto": "> 30 s"},
        NOT_TOLD_APART: {"rto": rto_text(Rto(at_most_ns=7_000_000))},
        UNCHECKED_EVENTS.format("order"): {"rpo": "0 of 1*", "unchecked": ("order",)},
        NOTHING_KNOWN: {"rpo": "\u2013", "unchecked": ("order",)},
    }
    for meaning, change in marks.items():
        assert list(legend([plain, msgspec.structs.replace(plain, **change)], phases=True)) == [meaning]
    narrow = msgspec.structs.replace(plain, phases=("?", "<1", "1.0", "\u2013", "1.0"))
    assert not list(legend([narrow], phases=False))


@pytest.mark.parametrize(
    ("not_checked", "left"),
    [
        (("content of 9 of 9 events", "order of 3 of 9 events"), ("content", "order")),
        (("order of 9 of 9 events (a table has none)",), ()),
        ((), ()),
    ],
)
def test_a_loss_of_zero_tells_what_nobody_compared(
    not_checked: tuple[str, ...], left: tuple[str, ...]
) -> None:
    """Beside the loss stands a mark where content or order was not compared and no manifest says why."""
    loss = msgspec.structs.replace(sample_loss(9), not_checked=not_checked)
    rpo = Rpo(events=0, acknowledged=9, streams={"orders": sample_loss(9), "rows": loss})
    line = row(msgspec.structs.replace(sample_trial("R1", ""), rpo=rpo))
    assert (line.rpo, line.unchecked) == ("0 of 9*" if left else "0 of 9", left)


def test_a_phase_below_its_uncertainty_is_a_bound() -> None:
    """A figure that its stamps cannot carry does not read as measured."""
    rto = sample_rto(1, 1, 1, 1, 1)
    stamps = {
        name: msgspec.structs.replace(stamp, uncertainty_ns=doubt_ns)
        for (name, stamp), doubt_ns in zip(rto.stamps.items(), (0, 57_000_000, 0, 0, 0, 0), strict=True)
    }
    assert phase_texts(msgspec.structs.replace(rto, stamps=stamps)) == ("<58.0", "<58.0", "1.0", "1.0", "1.0")
    tiny = sample_rto(1, 0, 1, 1, 1)
    small = {n: msgspec.structs.replace(s, uncertainty_ns=9_000) for n, s in tiny.stamps.items()}
    assert phase_texts(msgspec.structs.replace(tiny, stamps=small))[1] == "\u22480"


def test_repeated_trials_are_summed_up_with_what_they_prove() -> None:
    """Twenty failovers give median, slowest and the percentile that the slowest bounds, no more."""
    trials = tuple(
        sample_trial("R1" if not k else f"R1#{k + 1}", "hot failover", rto=sample_rto(1, 1, 1, 1, k + 1))
        for k in range(20)
    )
    (line,) = repeated(msgspec.structs.replace(sample_run(), trials=trials))
    assert line.startswith("R1 · median 14.5 ms · slowest 24.0 ms · 20 trials: the slowest bounds the 86th")
    assert "without a recovery time" not in line


def test_a_trial_that_was_not_back_is_the_slowest() -> None:
    """A censored repetition counts, bounds the slowest from below, and leaves nothing to claim."""
    rtos = (
        sample_rto(1, 1, 1, 1, 1),
        sample_rto(1, 1, 1, 1, 2),
        Rto(censored_ns=8 * 10**9, interrupted=True),
    )
    trials = tuple(sample_trial(f"R1#{n}", "", rto=rto) for n, rto in enumerate(rtos, start=1))
    (line,) = repeated(msgspec.structs.replace(sample_run(), trials=trials))
    assert "median 6.0 ms" in line
    assert "slowest > 8 s" in line
    assert "1 of 3 not back" in line
    assert "percentile" not in line
    (line,) = repeated(msgspec.structs.replace(sample_run(), trials=(*trials[1:], trials[2])))
    assert "median > 8 s" in line


def test_trials_without_a_time_are_counted_out() -> None:
    """A repetition that was not measured is told and never averaged away."""
    trials = (sample_trial("R1", "", rto=sample_rto(1, 1, 1, 1, 1)), sample_trial("R1#2", ""))
    (line,) = repeated(msgspec.structs.replace(sample_run(), trials=trials))
    assert "1 of 2 without a recovery time" in line
    assert "percentile" not in line


def test_a_small_uncertainty_does_not_read_as_none() -> None:
    """Microseconds are shown as such; what is not known is left out."""
    texts = [uncertainty(ns) for ns in (1_200, 212_000, None)]
    assert texts == ["\u00b1 1.2 \u00b5s", "\u00b1 0.2 ms", ""]


def test_a_reader_that_has_gone_ends_no_run() -> None:
    """`blackstart suite | head -1`: the next line is not read, and the run goes on to its own status."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        found = console(out)
        found.print("one line")
        found.print("and another")

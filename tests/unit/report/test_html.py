from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec

from blackstart.model.outcome import LeftOut, Rpo, Rto, StreamLoss
from blackstart.report.html import Html, encode, flat, folder_of, stream_lines
from blackstart.report.legend import NOT_TOLD_APART, UNKNOWN_PHASE
from blackstart.testing.samples import sample_loss, sample_run, sample_trial, write_histories

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "link", "br", "rect", "line", "path", "hr", "input"}


class Reader(HTMLParser):
    """Collects text, identifiers and what would load something; checks that elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element is and asks for."""
        values = dict(attrs)
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(values["href"])] if tag == "a" else []
        self.loads += [str(values[name]) for name in ("src", "srcset", "data") if name in values]
        self.loads += [str(values["href"])] if tag == "link" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, which must be this one."""
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text.append(data)


def read(folder: Path) -> Reader:
    """Write the sample report into `folder` and read it."""
    run = sample_run(folder)
    write_histories(run.trials, folder)
    (path,) = Html().render(run, folder)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_the_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    """Elements are closed, ids are unique, inner links lead somewhere, and nothing comes from elsewhere."""
    reader = read(tmp_path)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert [load for load in reader.loads if load != "data:,"] == []


def test_everything_of_a_trial_is_there(tmp_path: Path) -> None:
    """Phases, losses by name, findings, check-list, witness and the replay line can all be read."""
    text = " ".join(" ".join(read(tmp_path).text).split())
    for part in (
        "reference firm",
        "E-10231 · E-10232",
        "ALFA: the firm holds 300, the exchange says 500",
        "position-mismatch",
        "No stuck threads",
        "pidfd_send_signal(SIGKILL)",
        "blackstart run R33 --seed 7",
        "41,300,000 ns exactly, the sum of the five",
        "The service was never interrupted.",
        "500 of 1000 filled",
        "no-load: 211/s at the fault, 300/s required",
    ):
        assert part in text, part


def test_what_was_not_run_is_told_with_its_reason(tmp_path: Path) -> None:
    """Under the table stands what this target cannot carry; nothing where everything was run."""
    out = LeftOut(id="R5", title="network partition", reason="the manifest has no link `exchange`")
    assert "Not run" not in encode(sample_run(tmp_path), tmp_path)
    text = " ".join(encode(msgspec.structs.replace(sample_run(tmp_path), left_out=(out,)), tmp_path).split())
    assert "Not run: 1 scenario " in text
    assert f"<b>R5</b> {out.title}: {out.reason}" in text


def test_what_is_no_plain_figure_is_explained(tmp_path: Path) -> None:
    """A bound, and a phase that nobody measured, have their meaning below the table."""
    run = sample_run(tmp_path)
    doubt = Rto(at_most_ns=1_744_200_000, longest_gap_ns=85_200_000, usual_gap_ns=21_300_000)
    trials = (msgspec.structs.replace(run.trials[0], rto=doubt), *run.trials[1:])
    reader = Reader()
    (path,) = Html().render(msgspec.structs.replace(run, trials=trials), tmp_path)
    reader.feed(path.read_text(encoding="utf-8"))
    text = " ".join(" ".join(reader.text).split())
    assert "If one was an outage, it had ended 1,744.2 ms after the fault." in text
    assert NOT_TOLD_APART in text
    assert UNKNOWN_PHASE in text
    assert NOT_TOLD_APART not in " ".join(" ".join(read(tmp_path).text).split())


def test_a_stream_that_nobody_could_read_has_no_counts(tmp_path: Path) -> None:
    """A dash is no zero: nothing acknowledged and nobody looked are two things."""
    loss = StreamLoss(acknowledged=0, recovered=0, counts={}, error="damaged")
    trial = sample_trial("R1", "", rpo=Rpo(streams={"fills": loss}))
    run = msgspec.structs.replace(sample_run(), trials=(trial,))
    text = encode(run, tmp_path)
    table = text[text.index("found again") :]
    cells = re.findall(r'<td class="num[^"]*">([^<]*)</td>', table[: table.index("</tbody>")])
    assert cells
    assert set(cells) == {"\u2013"}


def test_what_was_not_compared_has_no_count(tmp_path: Path) -> None:
    """Zero corrupted means that content was compared: where it was for no event, a dash stands there."""
    loss = sample_loss(9)
    kinds = {"corrupted": "content of 9 of 9 events", "reordered": "order of 9 of 9 events (none)"}
    for kind, what in kinds.items():
        some = msgspec.structs.replace(loss, not_checked=(what, "content of 1 of 9 events"))
        trial = sample_trial("R1", "", rpo=Rpo(events=0, acknowledged=9, streams={"rows": some}))
        (line,) = stream_lines(trial)
        assert [name for name, number in line.counts.items() if number is None] == [kind]
        page = encode(msgspec.structs.replace(sample_run(), trials=(trial,)), tmp_path)
        assert page.count('<td class="num faint">\u2013</td>') == 1


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Identifiers and reasons come from the system under test: markup in them is shown, not obeyed."""
    evil = "<script>alert(1)</script>"
    trial = sample_trial("R1", evil, reasons=(evil,), note=evil)
    page = encode(msgspec.structs.replace(sample_run(tmp_path), trials=(trial,)), tmp_path)
    assert evil not in page
    assert "&lt;script&gt;" in page


def test_without_a_history_the_page_says_why_there_is_no_flow(tmp_path: Path) -> None:
    """A history that is gone or damaged costs the drawing and nothing else."""
    page = encode(sample_run(tmp_path), tmp_path)
    assert "The history cannot be read" in page
    assert "E-10231" in page


def test_a_run_without_trials_still_gives_a_page(tmp_path: Path) -> None:
    """Interrupted before its first trial: the page says so."""
    run = msgspec.structs.replace(sample_run(tmp_path), trials=(), interrupted=True)
    page = encode(run, tmp_path)
    assert "0 trials" in page
    assert "interrupted before its end" in page


def test_a_moved_run_finds_its_histories(tmp_path: Path) -> None:
    """A report that is made after the folder was moved looks beside itself."""
    (tmp_path / "R1").mkdir()
    trial = msgspec.structs.replace(sample_trial("R1", ""), folder="/gone/runs/20260101/R1")
    assert folder_of(trial, tmp_path) == tmp_path / "R1"


def test_facts_of_the_machine_are_flattened() -> None:
    """Nested facts become one line each."""
    assert flat({"cpu": {"count": 2}, "kernel": "6"}) == [("cpu.count", "2"), ("kernel", "6")]


def test_numbers_of_drawings_are_numbers(tmp_path: Path) -> None:
    """No coordinate of a drawing is missing or not a number."""
    run = sample_run(tmp_path)
    write_histories(run.trials, tmp_path)
    page = encode(run, tmp_path)
    values = re.findall(r' (?:x|y|x1|x2|y1|y2|width|height)="([^"]*)"', page)
    assert len(values) > 100
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)

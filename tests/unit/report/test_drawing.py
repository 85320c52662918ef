from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackstart.model.outcome import PHASES, Rto
from blackstart.report.drawing import WIDTH, draw_flow, known_stamps, phase_bar
from blackstart.report.flow import Flow
from blackstart.testing.samples import sample_rto, sample_trials

PHASE = st.one_of(st.none(), st.floats(0.001, 60_000))


@given(st.tuples(*[PHASE] * 4, st.floats(0.001, 60_000)))
@settings(max_examples=100, deadline=None)
def test_the_bar_is_filled_exactly(phases: tuple[float | None, ...]) -> None:
    """Whatever the phases, known or not, their segments lie side by side and fill the whole width."""
    bar = phase_bar(sample_rto(*phases))
    assert bar[0].x == 0
    for left, right in pairwise(bar):
        assert right.x == pytest.approx(left.x + left.width)
    assert bar[-1].x + bar[-1].width == pytest.approx(WIDTH)
    assert all(segment.width > 1 for segment in bar)


def test_known_phases_have_their_names() -> None:
    """With all stamps the segments are the five phases, in order."""
    assert tuple(segment.kind for segment in phase_bar(sample_rto(1, 2, 3, 4, 5))) == PHASES


def test_a_missing_stamp_makes_one_unknown_segment() -> None:
    """Without t3 nobody knows where recovery ends and validation begins: one unknown segment for both."""
    kinds = [(segment.kind, segment.label) for segment in phase_bar(sample_rto(1, 2, None, 4, 5))]
    assert ("unknown", "recovery + validation") in kinds
    assert [kind for kind, _ in kinds] == ["detection", "response", "unknown", "resume"]


def test_a_censored_outage_ends_open() -> None:
    """Not back within the limit: the last segment is open and reaches to the end."""
    trial = next(one for one in sample_trials() if one.id == "R3")
    assert phase_bar(trial.rto)[-1].kind == "open"


def test_without_stamps_nothing_is_drawn() -> None:
    """No fault, no bar."""
    assert phase_bar(Rto()) == ()
    assert known_stamps(Rto()) == []


def test_close_stamps_share_a_label() -> None:
    """Stamps that would print over each other are labelled together, and each still has its line."""
    series = Flow(service="orders", start_ns=-(10**9), bin_ns=10**7, counts=(4,) * 300, usual_per_s=400.0)
    drawing = draw_flow(series, sample_rto(1, 1, 1, 1, 1))
    assert [mark.label for mark in drawing.marks] == ["t0\u2013t5"]
    assert len(drawing.lines) == 6


def test_no_outage_is_shaded_when_there_was_none() -> None:
    """An uninterrupted service has no shaded part."""
    trial = next(one for one in sample_trials() if one.rto.interrupted is False)
    series = Flow(service="orders", start_ns=-(10**9), bin_ns=10**7, counts=(4,) * 300, usual_per_s=400.0)
    assert draw_flow(series, trial.rto).outage is None

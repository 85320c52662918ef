"""The end of a day: closed once, with what was earned since the last close (R37)."""

from __future__ import annotations

from paperfirm.engine import events as ev
from paperfirm.engine.settlement import day_settled
from paperfirm.engine.state import State, load


def applied(state: State, event: ev.Event) -> None:
    """Apply the next record."""
    state.apply(ev.Record(state.seq + 1, 1, 2, event))


def fill(state: State, side: ev.Side, quantity: int, price: int) -> None:
    """Book a fill of ALFA."""
    name = f"E{state.seq}"
    applied(state, ev.Executed(0, name, "1-C1", "O", "ALFA", side, quantity, price, late=False))


def test_each_day_is_closed_with_what_it_earned() -> None:
    """The second day's profit is what was realised since the first close; positions are carried over."""
    state = State()
    fill(state, "buy", 10, 100)
    fill(state, "sell", 4, 130)
    applied(state, day_settled(state, 0))
    assert state.settlements[0].realised == {"ALFA": 120}
    assert state.settlements[0].positions == {"ALFA": 6}
    fill(state, "sell", 6, 90)
    applied(state, day_settled(state, 1))
    assert state.settlements[1].realised == {"ALFA": -60}
    assert state.settlements[1].positions == {"ALFA": 0}
    assert sum(sum(close.realised.values()) for close in state.settlements.values()) == 60


def test_a_day_is_closed_once_however_often_it_is_begun() -> None:
    """A second closing of the same day changes nothing, in memory and after a checkpoint."""
    state = State()
    fill(state, "buy", 10, 100)
    fill(state, "sell", 10, 110)
    applied(state, day_settled(state, 0))
    first = state.settlements[0]
    applied(state, ev.DaySettled(0, {"ALFA": 9_999}, {"ALFA": 7}))
    assert state.settlements == {0: first}
    again = load(state.dump())
    assert again.settlements == {0: first}
    applied(again, day_settled(again, 0))
    assert again.settlements == {0: first}

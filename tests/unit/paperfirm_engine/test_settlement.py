"""The end of a day: closed once, with what was earned since the last close (R37)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from paperfirm.engine import events as ev
from paperfirm.engine.errors import EngineError
from paperfirm.engine.member import Phase
from paperfirm.engine.settlement import Settlement, day_settled, write_statement
from paperfirm.engine.state import State, load

if TYPE_CHECKING:
    from paperfirm.engine.desk import Desk
    from paperfirm.engine.links import RouterPeer
    from paperfirm.engine.member import Member


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


class Exchange:
    """Stands for the exchange: always in the settlement of day 3."""

    async def phase(self) -> Phase:
        """Answer with the phase."""
        return Phase("settlement", 3)


def told_on_taking_over(state: State) -> list[str]:
    """Let an engine that does not trade yet look at the phase twice; return what it told."""
    told: list[str] = []

    def emit(event: str, **_: object) -> int:
        told.append(event)
        return 0

    desk = cast("Desk", SimpleNamespace(state=state, trading=False))
    watch = Settlement(
        desk,
        cast("Member", Exchange()),
        cast("RouterPeer", None),
        emit=emit,
        statements=Path("unused"),
        take_up=lambda: None,
        on_phase=lambda _: None,
    )

    async def look_twice() -> None:
        await watch._look()
        await watch._look()

    asyncio.run(look_twice())
    return told


def test_a_settlement_that_its_author_could_not_tell_of_is_told_by_the_next() -> None:
    """The crash came between journal and telling: whoever takes over says that the day is settled, once."""
    state = State()
    applied(state, day_settled(state, 3))
    assert told_on_taking_over(state) == ["market_phase", "settlement_found"]


def test_a_day_that_is_not_settled_is_not_told_as_found() -> None:
    """Another day's settlement is no news of this one."""
    state = State()
    applied(state, day_settled(state, 2))
    assert told_on_taking_over(state) == ["market_phase"]


def test_the_statement_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before it has its name leaves no statement; the next attempt writes it and clears up."""
    event = ev.DaySettled(3, {"ALFA": 120, "BRAVO": -20}, {"ALFA": 6, "BRAVO": 0})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            write_statement(tmp_path / "statements", event)
    (left,) = (tmp_path / "statements").iterdir()
    assert left.suffix == ".tmp"
    path = write_statement(tmp_path / "statements", event)
    assert list((tmp_path / "statements").iterdir()) == [path]
    assert json.loads(path.read_bytes()) == {
        "day": 3,
        "realised": 100,
        "by_symbol": {"ALFA": 120, "BRAVO": -20},
        "positions": {"ALFA": 6, "BRAVO": 0},
    }


def test_a_day_whose_statement_cannot_be_written_is_not_settled(tmp_path: Path) -> None:
    """The disk's error is told as a reason to try again, and ends nobody."""
    (tmp_path / "statements").write_text("a file where a folder belongs")
    with pytest.raises(EngineError, match="the day is settled once it can be written"):
        write_statement(tmp_path / "statements", ev.DaySettled(3, {}, {}))

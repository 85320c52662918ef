"""A service seen through a database: which rows are events, and how sure their moment is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine.clocks import SimClock, simulate
from blackstart.model.manifest import Service
from blackstart.model.record import ServiceBatch, ServiceWatched
from blackstart.target import services

if TYPE_CHECKING:
    from blackstart.model.record import Record

MS = 1_000_000
SERVICE = Service(source="sql", query="-", period_ms=10.0)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function: answers in (None is a failure), events out, in ms since the first question."""

    def run(answers: list[list[str] | None]) -> tuple[list[tuple[int, str, int]], list[Record]]:
        given = iter(answers)

        class Poll:
            def __init__(self, _query: str, _dsn: str) -> None:
                pass

            async def ask(self, *, newest: bool = False) -> list[tuple[int, str]] | None:
                found = next(given, [])
                await asyncio.sleep(0.001)  # an answer takes a millisecond
                return None if found is None else [(0, key) for key in found][-1 if newest else 0 :]

            async def close(self) -> None:
                pass

        monkeypatch.setattr(services, "SqlPoll", Poll)
        told: list[Record] = []

        async def main() -> int:
            clock = SimClock(asyncio.get_running_loop())
            began = clock.now().mono_ns
            task = asyncio.ensure_future(
                services.from_sql("rows", SERVICE, "", clock=clock, sink=told.append)
            )
            await asyncio.sleep(len(answers) * 0.01)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return began

        began = simulate(main())
        events = [event for one in told if isinstance(one, ServiceBatch) for event in one.events]
        return [((at - began) // MS, key, late // MS) for at, key, late in events], told

    return run


def test_rows_of_the_first_answer_are_no_events(watch: Any) -> None:
    """They may be days old; from then on a row is an event between two questions."""
    events, _ = watch([["old"], ["a"], [], ["b", "c"]])
    assert events == [(11, "a", 11), (31, "b", 11), (31, "c", 11)]


def test_rows_from_before_an_outage_do_not_end_it(watch: Any) -> None:
    """A row that nobody had asked for when the database went is no proof that the service is back."""
    events, _ = watch([[], ["a"], None, None, None, ["written before"], ["after"], ["later"]])
    assert [key for _, key, _ in events] == ["a", "after", "later"]


def test_what_came_first_after_an_outage_may_have_begun_with_the_last_failure(watch: Any) -> None:
    """The rows that were skipped may be new: the uncertainty of the next one reaches back over them."""
    events, _ = watch([[], ["a"], None, None, ["perhaps new"], [], ["b"], ["c"]])
    assert events[1:] == [(61, "b", 31), (71, "c", 11)]


def test_an_empty_answer_after_an_outage_bounds_what_follows(watch: Any) -> None:
    """Nothing was there to be skipped: the next row is new since that question."""
    events, _ = watch([[], ["a"], None, [], ["b"]])
    assert events[1:] == [(41, "b", 11)]


def test_an_outage_does_not_end_the_watching(watch: Any) -> None:
    """Rows wait in the table: the stretch counts as watched."""
    _, told = watch([[], ["a"], None, None, [], ["b"]])
    (watched,) = [one for one in told if isinstance(one, ServiceWatched)]
    assert (watched.until_mono_ns - watched.since_mono_ns) // MS == 50

"""Windows of the week, blackouts and time zones: when chaos may be let loose."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from blackstart.chaos import calendar, profiles
from blackstart.chaos.calendar import Window
from blackstart.chaos.model import Closed, Opening, Orders, Windows
from blackstart.chaos.schedule import HALTED, keep
from blackstart.errors import PermitError

NS = 1_000_000_000
WORKDAYS = ("mon", "tue", "wed", "thu", "fri")


def at(text: str) -> int:
    """Return a moment in UTC as wall-clock nanoseconds."""
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * NS


def windows(*openings: Opening, **more: Any) -> Windows:
    """Make windows; without any openings on workdays from six to seven."""
    return Windows(open=openings or (Opening(begin="06:00", end="07:00", days=WORKDAYS),), **more)


def between(begin: str, end: str) -> Window:
    """Return a window by its moments in UTC."""
    return Window(at(begin), at(end))


def test_a_window_is_open_from_its_begin_to_before_its_end() -> None:
    """On Thursday at six it opens, at seven it is closed, and the next is on Friday."""
    plan = windows()
    assert calendar.current(plan, at("2026-11-26T05:59:59")) is None
    assert calendar.current(plan, at("2026-11-26T06:00:00")) == between(
        "2026-11-26T06:00", "2026-11-26T07:00"
    )
    assert calendar.current(plan, at("2026-11-26T07:00:00")) is None
    assert calendar.following(plan, at("2026-11-26T06:30:00")) == between(
        "2026-11-27T06:00", "2026-11-27T07:00"
    )


def test_days_off_are_days_off() -> None:
    """After Friday's window comes Monday's."""
    assert calendar.following(windows(), at("2026-11-27T12:00")) == between(
        "2026-11-30T06:00", "2026-11-30T07:00"
    )


def test_a_window_may_reach_over_midnight() -> None:
    """Begun on Friday evening it is still open on Saturday morning, which has none of its own."""
    plan = windows(Opening(begin="22:00", end="02:00", days=("fri",)))
    assert calendar.current(plan, at("2026-11-28T01:00")) == between("2026-11-27T22:00", "2026-11-28T02:00")
    assert calendar.current(plan, at("2026-11-28T23:00")) is None


def test_windows_that_overlap_are_one() -> None:
    """Two that touch or overlap are one window, with one count of sessions."""
    plan = windows(Opening(begin="06:00", end="07:00"), Opening(begin="06:30", end="08:00"))
    assert calendar.current(plan, at("2026-11-26T06:10")) == between("2026-11-26T06:00", "2026-11-26T08:00")


def test_the_time_of_day_is_that_of_the_zone_in_summer_and_in_winter() -> None:
    """Six in Zurich is five in UTC in winter and four in summer."""
    plan = windows(Opening(begin="06:00", end="07:00"), timezone="Europe/Zurich")
    assert calendar.following(plan, at("2026-01-15T00:00")) == between("2026-01-15T05:00", "2026-01-15T06:00")
    assert calendar.following(plan, at("2026-07-15T00:00")) == between("2026-07-15T04:00", "2026-07-15T05:00")


def test_the_night_of_the_clock_change_has_its_window_too() -> None:
    """From one to four is two hours long when summer time begins, and four when it ends."""
    plan = windows(Opening(begin="01:00", end="04:00"), timezone="Europe/Zurich")
    spring = calendar.following(plan, at("2026-03-28T12:00"))
    autumn = calendar.following(plan, at("2026-10-24T12:00"))
    assert spring is not None
    assert autumn is not None
    assert [(one.end_ns - one.begin_ns) // NS for one in (spring, autumn)] == [2 * 3600, 4 * 3600]


def test_a_blackout_is_cut_out_of_what_is_open() -> None:
    """What is left before and after it stays; a whole day is closed by its date."""
    plan = windows(
        Opening(begin="06:00", end="09:00"),
        closed=(
            Closed(begin="2026-11-26T07:00", end="2026-11-26T08:00", why="release"),
            Closed(begin="2026-11-27", end="2026-11-28", why="holiday"),
        ),
    )
    assert calendar.current(plan, at("2026-11-26T06:30")) == between("2026-11-26T06:00", "2026-11-26T07:00")
    assert calendar.current(plan, at("2026-11-26T07:30")) is None
    assert calendar.following(plan, at("2026-11-26T07:30")) == between("2026-11-26T08:00", "2026-11-26T09:00")
    assert calendar.following(plan, at("2026-11-26T09:00")) == between("2026-11-28T06:00", "2026-11-28T09:00")
    assert calendar.blackout(plan, at("2026-11-27T12:00")) == (
        between("2026-11-27T00:00", "2026-11-28T00:00"),
        "holiday",
    )


def test_nothing_ever_opens_in_an_endless_blackout() -> None:
    """Then there is no next window, and that is said."""
    plan = windows(closed=(Closed(begin="2026-01-01", end="2036-01-01"),))
    assert calendar.following(plan, at("2026-11-26T00:00")) is None
    assert profiles.next_window(plan, at("2026-11-26T00:00")) == "none within 400 days"


def test_a_window_is_said_in_its_own_zone() -> None:
    """People read the day, both times and the zone."""
    plan = windows(Opening(begin="06:00", end="07:00"), timezone="Europe/Zurich")
    assert profiles.next_window(plan, at("2026-11-26T05:30")) == "Fri 2026-11-27 06:00 to 07:00 Europe/Zurich"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (windows(timezone="Europe/Nowhere"), "no time zone"),
        (windows(Opening(begin="6 o'clock", end="07:00")), "no time of day"),
        (windows(Opening(begin="06:00", end="07:00", days=("monday",))), "no day `monday`"),
        (windows(closed=(Closed(begin="soon", end="later"),)), "no date"),
        (windows(closed=(Closed(begin="2026-02-01", end="2026-01-01"),)), "ends before it begins"),
        (windows(sessions=0), "at least 1"),
        (Windows(open=()), "names no window"),
    ],
)
def test_nonsense_is_told(wrong: Windows, told: str) -> None:
    """Each mistake is named; what is right is None."""
    assert told in (calendar.problem(wrong) or "")
    assert calendar.problem(windows()) is None


def orders(plan: Windows, **more: Any) -> Orders:
    """Return orders under a profile with these windows."""
    staging = profiles.load("staging")
    return Orders(target="firm", profile=msgspec.structs.replace(staging, windows=plan), seed=7, **more)


def test_what_is_scheduled_ends_with_its_window() -> None:
    """In the window its end is the last moment; outside it is refused, with the next window named."""
    wanted = orders(windows(), scheduled=True)
    assert profiles.within(wanted, at("2026-11-26T06:30")).not_after_wall_ns == at("2026-11-26T07:00")
    with pytest.raises(PermitError, match="the next window: Fri 2026-11-27 06:00"):
        profiles.within(wanted, at("2026-11-26T12:00"))


def test_by_hand_only_blackouts_bind() -> None:
    """Outside a window it runs, until the next blackout begins; in one it is refused with the reason."""
    plan = windows(closed=(Closed(begin="2026-11-27", end="2026-11-28", why="holiday"),))
    found = profiles.within(orders(plan), at("2026-11-26T12:00"))
    assert found.not_after_wall_ns == at("2026-11-27T00:00")
    with pytest.raises(PermitError, match="holiday"):
        profiles.within(orders(plan), at("2026-11-27T12:00"))


class World:
    """A wall clock that jumps when somebody waits, and sessions that take their time."""

    def __init__(self, begin: str, *, session_s: float = 600.0, until: str = "2026-11-28T12:00") -> None:
        self.ns = at(begin)
        self.begun: list[tuple[int, int]] = []
        self.told: list[str] = []
        self.endings: dict[int, str] = {}
        self._session_ns, self._until = round(session_s * NS), at(until)

    def session(self, number: int, window: Window) -> str:
        """Run one."""
        self.begun.append((number, self.ns))
        self.ns = min(self.ns + self._session_ns, window.end_ns)
        return self.endings.get(number, "PASS, complete")

    def wait(self, _seconds: float) -> bool:
        """Pass a minute."""
        self.ns += 60 * NS
        return self.ns >= self._until

    def keep(self, plan: Windows) -> str:
        """Keep the schedule until the end of this world."""
        return keep(
            plan,
            self.session,
            now=lambda: self.ns,
            wait=self.wait,
            least_s=30.0,
            tell=self.told.append,
        )


def test_one_session_in_each_window_and_none_outside() -> None:
    """From Thursday noon to Saturday noon there is one window, and one session at its beginning."""
    world = World("2026-11-26T12:00")
    assert world.keep(windows()) == "stopped"
    assert world.begun == [(1, at("2026-11-27T06:00"))]
    assert world.told[0].startswith("Fri 2026-11-27 06:00")


def test_as_many_sessions_in_a_window_as_wished() -> None:
    """Two of ten minutes follow one another; the third waits for the next day."""
    world = World("2026-11-26T06:00")
    world.keep(windows(sessions=2))
    assert world.begun == [
        (1, at("2026-11-26T06:00")),
        (2, at("2026-11-26T06:11")),
        (3, at("2026-11-27T06:00")),
        (4, at("2026-11-27T06:11")),
    ]


def test_the_last_seconds_of_a_window_are_not_begun() -> None:
    """With less time left than there is between two faults, nothing would be broken."""
    world = World("2026-11-26T06:59:40", until="2026-11-26T12:00")
    world.keep(windows())
    assert world.begun == []


def test_after_the_kill_switch_nothing_more_is_started() -> None:
    """A session that was halted ends the schedule; one that failed does not."""
    world = World("2026-11-26T06:00")
    world.endings = {1: "FAIL, stopped", 2: HALTED}
    assert world.keep(windows(sessions=5)) == HALTED
    assert [number for number, _ in world.begun] == [1, 2]

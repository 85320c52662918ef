import pytest

from fixsession import (
    BadLogons,
    FixError,
    Garbled,
    Message,
    Schedule,
    encode,
    first_frame,
    identify,
    parse_utc,
)
from fixsession.clock import SECOND_NS
from fixsession.config import SessionConfig

LOGON = encode([(35, "A"), (49, "FIRM"), (56, "PAPEREX"), (34, "1")])


def test_first_frame_waits_for_the_whole_message() -> None:
    """A Logon in portions is recognised with its last byte, and names both sides."""
    for size in range(len(LOGON)):
        assert first_frame(LOGON[:size]) is None
    message = first_frame(LOGON + b"8=FI")
    assert isinstance(message, Message)
    assert identify(message) == ("FIRM", "PAPEREX")


@pytest.mark.parametrize(
    "pairs", [[(35, "D"), (49, "A"), (56, "B")], [(35, "A"), (49, "A")], [(35, "A"), (56, "B")]]
)
def test_others_are_not_identified(pairs: list[tuple[int, str]]) -> None:
    """FIX.md 1: another first message, or one that does not name both sides, finds no session."""
    message = first_frame(encode(pairs))
    assert isinstance(message, Message)
    assert identify(message) is None


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", encode([(35, "A")]).replace(b"35", b"x5")])
def test_garbage_is_told_from_a_beginning(data: bytes) -> None:
    """A caller that speaks something else is recognised at once."""
    assert isinstance(first_frame(data), Garbled)


def test_five_bad_logons_in_sixty_seconds_close_the_port() -> None:
    """FIX.md 12: the fifth within the window closes the port, until the window has moved on."""
    bad = BadLogons()
    assert [bad.add(second * SECOND_NS) for second in (0, 50, 51, 52, 61)] == [False] * 4 + [False]
    assert bad.add(62 * SECOND_NS)
    assert bad.closed(109 * SECOND_NS)
    assert not bad.closed(110 * SECOND_NS)


def test_schedule_over_midnight() -> None:
    """FIX.md 12: a window that ends the next day is open on both sides of midnight, and begins once."""
    schedule = Schedule(22 * 3600, 21 * 3600)
    day = 86_400 * SECOND_NS
    hour = 3600 * SECOND_NS
    assert schedule.is_open(10 * day + 23 * hour)
    assert schedule.is_open(11 * day + 20 * hour)
    assert not schedule.is_open(11 * day + 21 * hour)
    assert schedule.begin_ns(11 * day + 20 * hour) == 10 * day + 22 * hour
    assert schedule.end_ns(11 * day + 20 * hour) == 11 * day + 21 * hour
    assert not schedule.is_stale(10 * day + 22 * hour, 11 * day + 20 * hour)
    assert schedule.is_stale(10 * day + 22 * hour, 11 * day + 22 * hour)


def test_schedule_round_the_clock() -> None:
    """Equal times mean a window of a whole day."""
    schedule = Schedule(0, 0)
    assert all(schedule.is_open(hour * 3600 * SECOND_NS) for hour in range(48))
    with pytest.raises(FixError, match="0 to 86399"):
        Schedule(0, 86_400)


@pytest.mark.parametrize(
    ("text", "wall_ns"),
    [
        ("19700101-00:00:01", SECOND_NS),
        ("19700101-00:00:01.5", 1_500_000_000),
        ("19700101-00:00:00.000000001", 1),
        ("20161231-23:59:60", 1_483_228_799 * SECOND_NS),
        ("19700101-00:00:61", None),
        ("19700230-00:00:01", None),
        ("1970-01-01T00:00", None),
        ("19700101-00:00:01.", None),
        ("19700101-00:00:01,5", None),
        ("", None),
    ],
)
def test_timestamps_are_strict(text: str, wall_ns: int | None) -> None:
    """Only UTCTimestamps are read as such; a leap second counts as the one before."""
    assert parse_utc(text) == wall_ns


def test_defaults_are_those_of_the_specification() -> None:
    """FIX.md 6 names 2500 messages and 48 hours."""
    config = SessionConfig(sender="A", target="B")
    assert (config.max_resend, config.resend_window_s) == (2500, 48 * 3600)

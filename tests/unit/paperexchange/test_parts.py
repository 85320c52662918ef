from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fixsession.clock import Now
from fixsession.codec import Framer, Garbled, decode, encode
from paperexchange import facts as f
from paperexchange.calendar import Calendar
from paperexchange.config import load
from paperexchange.errors import ExchangeError
from paperexchange.events import Filter
from paperexchange.gateway.rewrite import corrupted, skewed, with_field
from paperexchange.gateway.store import LedgerStore, field
from paperexchange.misbehave import Engine
from paperexchange.participants import Participants, ParticipantSettings
from paperexchange.server import again

AT = Now(1_000, 2_000)


def test_compressed_day_passes_all_phases_in_order() -> None:
    """A day of 60 s has every phase once, in order, and begins again."""
    calendar = Calendar.parse("compressed:60")
    phases = [calendar.due(second, 0).phase for second in range(120)]
    order = list(dict.fromkeys(phases[:60]))
    assert order[0] == "pre_open"
    assert order[-2:] == ["close", "settlement"]
    assert "continuous" in order
    assert phases[60:] == phases[:60]


def test_compressed_day_names_the_next_change() -> None:
    """Waiting as long as told lands in the next phase, never before it."""
    calendar = Calendar("compressed", day_s=60)
    elapsed, seen = 0.0, []
    for _ in range(12):
        due = calendar.due(elapsed, 0)
        seen.append(due.phase)
        assert due.next_in_s is not None
        elapsed += due.next_in_s + 1e-6
    assert seen == ["pre_open", "open", "continuous", "close", "settlement"] * 2 + ["pre_open", "open"]


def test_clock_calendar_opens_at_half_past_nine() -> None:
    """By the clock, the auction is at 09:30 and continuous trading until 16:00; the night is settlement."""
    calendar = Calendar("clock")
    at = lambda hours: calendar.due(0, hours * 3600).phase  # noqa: E731
    assert [at(h) for h in (3, 8, 9.5, 10, 15.99, 16, 16.5, 23)] == [
        "settlement",
        "pre_open",
        "open",
        "continuous",
        "continuous",
        "close",
        "settlement",
        "settlement",
    ]


@pytest.mark.parametrize("text", ["sometimes", "compressed:soon", "compressed:0"])
def test_bad_calendar_says_what_to_use(text: str) -> None:
    """A calendar that is none is refused with the place."""
    with pytest.raises(ExchangeError, match="calendar"):
        Calendar.parse(text)


def armed(on: dict[str, Any] | None, **more: Any) -> tuple[Engine, Any]:
    """Make an engine with one armed misbehaviour."""
    engine = Engine()
    return engine, engine.arm("drop", session="FIRM", now_ns=0, on=on, **more)


def phase_entry(phase: Any, mono_ns: int = 1) -> f.PhaseChanged:
    """Make a phase entry."""
    return f.PhaseChanged(mono_ns=mono_ns, wall_ns=1, phase=phase, day=1)


def test_misbehaviour_waits_for_its_event_and_fields() -> None:
    """Only an entry of the kind with the given values makes it ready, for its session and place only."""
    engine, _ = armed({"kind": "phase", "phase": "close"})
    engine.observe(phase_entry("open"))
    assert engine.take("FIRM", "outbound", 1) is None
    engine.observe(phase_entry("close"))
    assert engine.take("OTHER", "outbound", 1) is None
    assert engine.take("FIRM", "before_booking", 1) is None
    assert engine.take("FIRM", "outbound", 7).fired_mono_ns == [7]
    assert engine.armed == []


def test_misbehaviour_happens_count_times() -> None:
    """`count` bounds how often, whether armed on an event or at once."""
    engine, _ = armed({"kind": "phase"}, count=2)
    for _ in range(5):
        engine.observe(phase_entry("open"))
    assert [bool(engine.take("FIRM", "outbound", 1)) for _ in range(4)] == [True, True, False, False]
    engine, _ = armed(None, count=3)
    assert [bool(engine.take("FIRM", "outbound", 1)) for _ in range(4)] == [True, True, True, False]


def test_expired_misbehaviour_does_not_fire() -> None:
    """After `expires_s` its event passes without effect."""
    engine, waiting = armed({"kind": "phase"}, expires_s=1.0)
    engine.observe(phase_entry("open", mono_ns=2_000_000_000))
    engine.expire(2_000_000_000)
    assert waiting.fired == 0
    assert engine.armed == []


def test_disarming_is_idempotent() -> None:
    """Disarming twice is the same as once; nothing fires afterwards."""
    engine, waiting = armed({"kind": "phase"})
    engine.disarm(waiting.id)
    engine.disarm(waiting.id)
    engine.disarm()
    engine.observe(phase_entry("open"))
    assert engine.take("FIRM", "outbound", 1) is None


@pytest.mark.parametrize(
    ("action", "on", "parameters"),
    [
        ("explode", None, {}),
        ("drop", {"kind": "nothing"}, {}),
        ("drop", None, {"ms": "long"}),
        ("drop", None, {"ms": -1}),
    ],
)
def test_bad_misbehaviour_is_refused(action: str, on: Any, parameters: Any) -> None:
    """Unknown actions, unknown events and impossible parameters are refused when armed, not when fired."""
    with pytest.raises(ExchangeError):
        Engine().arm(action, session="FIRM", now_ns=0, on=on, parameters=parameters)


def test_participants_quote_both_sides_deeply_and_repeatably(make_floor: Any) -> None:
    """The same seed gives the same flow; every book has five levels a side, uncrossed, and trades."""
    floors = []
    for _ in range(2):
        floor = make_floor()
        participants = Participants(floor.venue, ParticipantSettings(), Random(7))
        participants.seed_books(AT)
        for _ in range(500):
            participants.step(AT)
        floors.append(floor)
    assert floors[0].entries == floors[1].entries
    for book in floors[0].venue.books.values():
        assert not book.crossed()
        assert len(book.bids.depth(9)) >= 5
        assert sum(quantity for _, quantity in book.offers.depth(9)) >= 12_000
    assert "book_trade" in floors[0].kinds()


def test_participants_fill_a_resting_member_in_time(floor: Any) -> None:
    """A member that improves the market is hit by the takers."""
    participants = Participants(floor.venue, ParticipantSettings(), Random(3))
    participants.seed_books(AT)
    order = floor.order("buy", 100, 10_000)
    for _ in range(2000):
        participants.step(AT)
    assert order.status == "filled"


def wire(*pairs: tuple[int, str]) -> bytes:
    """Encode a message."""
    return encode([(35, "8"), (49, "A"), (56, "B"), (34, "1"), (52, "20260102-03:04:05.678"), *pairs])


def test_corrupted_bytes_have_a_wrong_checksum_and_nothing_else() -> None:
    """The flipped bit keeps the length, so that only the checksum can tell."""
    data = wire((58, "hello world"), (60, "20260102-03:04:05.678"))
    bad = corrupted(data)
    assert len(bad) == len(data)
    assert isinstance(next(iter(Framer().feed(bad))), Garbled)


def test_changed_field_and_skewed_time_are_sound_messages() -> None:
    """A lie with a right checksum: one field differs, the rest is as it was."""
    data = wire((31, "10.00"), (60, "20260102-03:04:05.678"))
    assert decode(with_field(data, 31, "99.00")).get(31) == "99.00"
    late = next(iter(Framer().feed(skewed(data, 60, -5000))))
    assert not isinstance(late, Garbled)
    assert decode(late).get(60) == "20260102-03:04:00.678"
    assert skewed(data, 126, 1000) == data


def test_session_store_is_rebuilt_from_its_entries() -> None:
    """A store that took in the ledger's entries has the numbers and messages of the one that wrote them."""
    entries: list[f.Fact] = []

    def record(fact: f.Fact) -> None:
        fact.seq = len(entries) + 1
        entries.append(fact)

    def archive(seq: int) -> Iterator[f.Fact]:
        return iter(entries[seq - 1 :])

    store = LedgerStore("FIRM", "primary", "FIRM", record=record, clock=lambda: AT, archive=archive)
    store.reset(5)
    for number in (1, 2, 3):
        store.save_out(number, wire((11, f"C{number}")), 10 + number)
    store.next_out = 5
    store.save_in(4, 20)
    store.roll_back(3)
    store.jump_ahead(40)
    store.save_out(42, wire((11, "C42")), 30)
    again = LedgerStore("FIRM", "primary", "FIRM", record=record, clock=lambda: AT, archive=archive)
    for entry in entries:
        again.apply(f.decoder.decode(f.encoder.encode(entry)))
    assert (again.next_in, again.next_out) == (store.next_in, store.next_out) == (4, 43)
    assert list(again.load_out(1, 99)) == list(store.load_out(1, 99))
    assert [kept.seq_num for kept in store.load_out(1, 99)] == [1, 42]
    for number in range(43, 10_100):
        store.save_out(number, wire((11, f"C{number}")), number)
    assert [kept.seq_num for kept in store.load_out(1, 99)] == [1, *range(42, 100)]
    assert [field(kept.raw, b"11") for kept in store.load_out(98, 100)] == ["C98", "C99", "C100"]


@pytest.mark.parametrize(
    "text",
    [
        "seed = 'x'",
        "nonsense = 1",
        "[accounts.FIRM]\ndrop_copy = 'some'",
        "= broken",
        "[participants]\nevents = 3",
    ],
)
def test_broken_configuration_names_the_file(tmp_path: Path, text: str) -> None:
    """A configuration that cannot be read is refused with file and field."""
    path = tmp_path / "exchange.toml"
    path.write_text(text)
    with pytest.raises(ExchangeError, match=r"exchange\.toml"):
        load(path)


def test_session_settings_of_an_account_are_checked(tmp_path: Path) -> None:
    """Any FIX session setting may be given by account; a wrong one is refused by name."""
    path = tmp_path / "exchange.toml"
    path.write_text("[accounts.FIRM.session]\nlast_processed = true\nmax_resend = 3")
    settings = load(path).session_of("FIRM", "FIRM")
    assert (settings.last_processed, settings.max_resend, settings.sender) == (True, 3, "PAPEREX")
    path.write_text("[accounts.FIRM.session]\nlast = true")
    with pytest.raises(ExchangeError, match=r"accounts\.FIRM\.session: no setting last"):
        load(path).session_of("FIRM", "FIRM")


def test_bad_symbol_price_is_refused() -> None:
    """A mid price that is no price names the symbols section."""
    config = load(None)
    config.symbols = {"ALFA": "many"}
    with pytest.raises(ExchangeError, match="symbols"):
        config.instruments()


def test_event_filter_knows_kinds_and_accounts() -> None:
    """Unknown kinds are refused with the known ones; other accounts are left out, what has none is not."""
    with pytest.raises(ExchangeError, match="order_accepted"):
        Filter(frozenset({"order_acepted"}))
    chosen = Filter(frozenset({"fill", "phase"}), "FIRM")
    assert [
        chosen.wants(*pair)
        for pair in (("fill", "FIRM"), ("fill", "HOUSE"), ("phase", ""), ("logon", "FIRM"))
    ] == [
        True,
        False,
        True,
        False,
    ]
    assert not Filter().wants("bytes_received", "FIRM")


@pytest.mark.parametrize(
    ("arguments", "state", "expected"),
    [
        (["serve", "--dir", "d", "--fresh"], True, ["serve", "--dir", "d", "--recover"]),
        (
            ["serve", "--recover", "--start-after-s", "2.0", "--dir", "d"],
            False,
            ["serve", "--dir", "d", "--fresh"],
        ),
        (["serve", "--preload-executions", "9", "--dir", "d"], True, ["serve", "--dir", "d", "--recover"]),
    ],
)
def test_command_line_of_an_exchange_that_starts_again(
    arguments: list[str], state: bool, expected: list[str]
) -> None:
    """It continues its ledger or sets it aside, whatever it was started with, and preloads nothing twice."""
    assert again(arguments, state, 0.5) == [*expected, "--start-after-s", "0.5"]

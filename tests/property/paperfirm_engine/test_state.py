from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paperfirm.engine import decide, journal
from paperfirm.engine import events as ev
from paperfirm.engine.books import Position, book
from paperfirm.engine.recovery import self_check
from paperfirm.engine.state import State, load
from paperfirm.wire import Report

SYMBOLS = ("ALFA", "BRAVO")
fills = st.lists(
    st.tuples(st.sampled_from(["buy", "sell"]), st.integers(1, 500), st.integers(1, 2_000_000)), max_size=60
)


@given(fills)
def test_profit_against_a_naive_model(trades: list[tuple[str, int, int]]) -> None:
    """Realised profit agrees with exact average cost in fractions.

    Up to a tick of rounding for each closing fill.
    """
    position, held, average, realised, closings = Position("S"), 0, Fraction(0), Fraction(0), 0
    for side, quantity, price in trades:
        book(position, side, quantity, price)
        signed = quantity if side == "buy" else -quantity
        if held == 0 or (held > 0) == (signed > 0):
            average = (average * abs(held) + price * quantity) / (abs(held) + quantity)
        else:
            closings += 1
            closed = min(quantity, abs(held))
            realised += closed * (price - average) * (1 if held > 0 else -1)
            average = Fraction(price) if quantity > abs(held) else average
        held += signed
        average = average if held else Fraction(0)
    assert position.quantity == held
    assert abs(position.realised - realised) <= closings
    assert position.cash == sum((1 if side == "sell" else -1) * q * p for side, q, p in trades)


@given(fills, st.integers(1, 2_000_000))
def test_profit_adds_up(trades: list[tuple[str, int, int]], mark: int) -> None:
    """Realised plus unrealised is cash plus what is held at the mark, to the tick."""
    position = Position("S")
    for side, quantity, price in trades:
        book(position, side, quantity, price)
    assert position.realised + position.unrealised(mark) == position.cash + position.quantity * mark
    assert position.quantity or position.cost == 0


def fill(
    exec_id: str, cl_ord_id: str, quantity: int, *, symbol: str = "ALFA", exec_type: str = "F"
) -> Report:
    """Build a fill as the exchange reports it."""
    return Report(
        "execution",
        exec_type,
        "1",
        cl_ord_id,
        "",
        f"O{cl_ord_id}",
        exec_id,
        "",
        symbol,
        "buy",
        1000,
        1_000_000,
        quantity,
        1_000_000,
        0,
        0,
        "",
    )


def status(cl_ord_id: str, ord_status: str, *, exec_type: str = "0") -> Report:
    """Build a report without a fill."""
    return Report(
        "execution",
        exec_type,
        ord_status,
        cl_ord_id,
        "",
        f"O{cl_ord_id}",
        "",
        "",
        "ALFA",
        "buy",
        1000,
        1,
        0,
        0,
        0,
        0,
        "",
    )


def taken(state: State, events: list[ev.Event], mono_ns: int = 0) -> None:
    """Apply decided events one after the other."""
    for event in events:
        state.apply(ev.Record(state.seq + 1, mono_ns, mono_ns, event))


@settings(max_examples=200)
@given(st.data())
def test_an_execution_is_booked_once(data: st.DataObject) -> None:
    """Live reports, resends and reconciliation in any interleaving and number book each fill once."""
    known = [(f"E{n}", f"1-C{n % 4:07d}", n % 9 + 1) for n in range(12)]
    state = State()
    arrivals = data.draw(
        st.lists(st.tuples(st.sampled_from(known), st.sampled_from(["live", "resend", "http"])))
    )
    everything = [(one, way) for one in known for way in ("resend", "http")]
    for number, ((exec_id, cl_ord_id, quantity), way) in enumerate([*arrivals, *everything], start=1):
        if way == "http":
            one = decide.ExchangeExecution(
                exec_id, number, "O", cl_ord_id, "ALFA", "buy", quantity, 1_000_000
            )
            taken(state, decide.missing_executions(state, [one, one]))
        else:
            report = fill(exec_id, cl_ord_id, quantity)
            taken(state, decide.on_report(state, number, report, late=way == "resend"))
    assert sorted(one.exec_id for one in state.executions) == sorted(one for one, _, _ in known)
    assert len(state.executions) == len(known)
    assert state.positions["ALFA"].quantity == sum(quantity for _, _, quantity in known)
    assert self_check(state) == []


def test_old_news_moves_nothing_back() -> None:
    """A replayed acknowledgement leaves a canceled order canceled, and a late fill is still booked."""
    state = State()
    accepted = ev.OrderEntered("1-C1", "a", "client", "ALFA", "buy", "day", 1, 1000)
    taken(state, [accepted])
    for number, report in enumerate((status("1-C1", "0"), status("1-C1", "4", exec_type="4")), start=1):
        taken(state, decide.on_report(state, number, report, late=False))
    taken(state, decide.on_report(state, 1, status("1-C1", "0"), late=True))
    assert state.orders["1-C1"].status == "canceled"
    taken(state, decide.on_report(state, 3, fill("E1", "1-C1", 10), late=True))
    assert state.positions["ALFA"].quantity == 10
    assert state.orders["1-C1"].status == "canceled"


def test_a_status_answer_settles_a_doubtful_cancel() -> None:
    """An order whose cancel was never sent is open again after the exchange says so, not before."""
    state = State()
    taken(state, [ev.OrderEntered("1-C1", "a", "client", "ALFA", "buy", "day", 1, 1000)])
    taken(state, decide.on_report(state, 1, status("1-C1", "0"), late=False))
    taken(state, [ev.CancelRequested("1-C1")])
    seen = []
    for report in (status("1-C1", "0"), status("1-C1", "0", exec_type="I")):
        taken(state, decide.on_report(state, 2, report, late=True))
        seen.append(state.orders["1-C1"].status)
    assert seen == ["pending_cancel", "new"]


def test_bust_and_correction() -> None:
    """A busted fill is taken out of position and order once; a correction books its own fill instead."""
    state = State()
    taken(state, [ev.OrderEntered("1-C1", "a", "client", "ALFA", "buy", "day", 1, 1000)])
    taken(state, decide.on_report(state, 1, fill("E1", "1-C1", 10), late=False))
    bust = Report("execution", "H", "1", "1-C1", "", "O", "E2", "E1", "ALFA", "buy", 1000, 1, 0, 0, 0, 0, "")
    for _ in range(2):
        taken(state, decide.on_report(state, 2, bust, late=False))
    assert (state.positions["ALFA"].quantity, state.orders["1-C1"].cum_quantity) == (0, 0)
    taken(state, decide.on_report(state, 3, fill("E3", "1-C1", 7), late=False))
    correction = Report(
        "execution", "G", "1", "1-C1", "", "O", "E4", "E3", "ALFA", "buy", 1000, 1, 8, 2_000_000, 0, 0, ""
    )
    for _ in range(2):
        taken(state, decide.on_report(state, 4, correction, late=False))
    assert (state.positions["ALFA"].quantity, state.positions["ALFA"].cash) == (8, -16_000_000)
    assert self_check(state) == []
    assert load(state.dump()).dump() == state.dump()


class Replay(RuleBasedStateMachine):
    """Whatever happens live: replaying the journal's bytes, or image plus tail, gives the same state."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.frames: list[bytes] = []
        self.image = (0, State().dump())
        self.orders = 0
        self.executions = 0

    def decided(self, *events: ev.Event) -> None:
        """Apply and journal."""
        for event in events:
            seq = self.state.seq + 1
            record = ev.Record(seq, seq, seq, event)
            self.state.apply(record)
            self.frames.append(journal.frame(record))

    @rule(
        origin=st.sampled_from(["client", "strategy"]),
        symbol=st.sampled_from(SYMBOLS),
        quantity=st.integers(1, 50),
    )
    def accept(self, origin: ev.Origin, symbol: str, quantity: int) -> None:
        """Accept an order."""
        self.orders += 1
        name = f"1-{'C' if origin == 'client' else 'S'}{self.orders:07d}"
        client = f"c{self.orders}" if origin == "client" else ""
        self.decided(ev.OrderEntered(name, client, origin, symbol, "buy", "day", 5, quantity))

    @rule(data=st.data(), code=st.sampled_from(["0", "4", "8", "6", "A", "C"]))
    def reported(self, data: st.DataObject, code: str) -> None:
        """Report a status of some order."""
        if self.state.orders:
            name = data.draw(st.sampled_from(sorted(self.state.orders)))
            self.decided(
                *decide.on_report(self.state, self.state.router_seq + 1, status(name, code), late=False)
            )

    @rule(data=st.data(), quantity=st.integers(1, 20))
    def filled(self, data: st.DataObject, quantity: int) -> None:
        """Fill some order."""
        if self.state.orders:
            order = self.state.orders[data.draw(st.sampled_from(sorted(self.state.orders)))]
            self.executions += 1
            report = fill(f"E{self.executions}", order.cl_ord_id, quantity, symbol=order.symbol)
            self.decided(*decide.on_report(self.state, self.state.router_seq + 1, report, late=False))

    @rule(client=st.integers(0, 9))
    def refuse(self, client: int) -> None:
        """Refuse a client's order."""
        self.decided(ev.ClientRefused(f"r{client}", "limit"))

    @rule()
    def published(self) -> None:
        """Let the stream have half of the outbox."""
        if self.state.outbox:
            self.decided(ev.Published(self.state.outbox[len(self.state.outbox) // 2].number))

    @rule()
    def checkpointed(self) -> None:
        """Take an image as a checkpoint does."""
        self.image = (self.state.seq, self.state.dump())

    @invariant()
    def equal(self) -> None:
        """Compare journal replay, and image plus tail, with the live state."""
        data = b"".join(self.frames)
        records = [journal.decode(raw.payload) for raw in journal.scan(data, name="memory", last=True)]
        fresh, restored = State(), load(self.image[1])
        for record in records:
            fresh.apply(record)
            if record.seq > self.image[0]:
                restored.apply(record)
        assert fresh.dump() == self.state.dump() == restored.dump()
        assert set(restored.open_orders) == set(self.state.open_orders)
        assert self_check(self.state) == []


Replay.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestReplay = Replay.TestCase

from typing import Any

import pytest

from fixsession.clock import Now
from paperexchange import facts as f
from paperexchange.model import CancelOrder, Execution, NewOrder, ReplaceOrder
from paperexchange.scripts import FillScript

AT = Now(1_000, 2_000)


def cancel(floor: Any, orig: str, cl_ord_id: str = "K1") -> bool:
    """Cancel by ClOrdID."""
    return floor.venue.cancel(CancelOrder(account="FIRM", cl_ord_id=cl_ord_id, orig_cl_ord_id=orig), AT)


def replace(floor: Any, orig: str, quantity: int, price: int, cl_ord_id: str = "R1") -> bool:
    """Replace by ClOrdID; the price in ticks of 0.01."""
    request = ReplaceOrder(
        account="FIRM", cl_ord_id=cl_ord_id, orig_cl_ord_id=orig, quantity=quantity, price=price * 100
    )
    return floor.venue.replace(request, AT)


def test_better_price_trades_first_then_the_older_order(floor: Any) -> None:
    """Price before time: a seller meets the highest bid, and of equal bids the one that came first."""
    floor.order("buy", 10, 9_999, account="A")
    older = floor.order("buy", 10, 10_000, account="B")
    younger = floor.order("buy", 10, 10_000, account="C")
    floor.order("sell", 15, 9_990)
    assert older.leaves_quantity == 0
    assert younger.leaves_quantity == 5
    assert [e.account for e in floor.entries if isinstance(e, f.Fill)] == ["B", "FIRM", "C", "FIRM"]


def test_trade_happens_at_the_resting_price(floor: Any) -> None:
    """An aggressive buyer pays what the resting seller asked."""
    floor.order("sell", 10, 10_010, account="A")
    order = floor.order("buy", 10, 10_050)
    assert order.average_price == 1_001_000
    assert floor.state.account("FIRM").positions["ALFA"].cash == -10 * 1_001_000


def test_cumulative_figures_are_right_on_every_fill(floor: Any) -> None:
    """CumQty, LeavesQty and the notional behind AvgPx grow with each fill (FIX 17)."""
    floor.order("sell", 30, 10_000, account="A")
    floor.order("sell", 70, 10_010, account="A")
    floor.order("buy", 100, 10_010)
    fills = [e for e in floor.entries if isinstance(e, f.Fill) and e.account == "FIRM"]
    assert [(e.cum_quantity, e.leaves_quantity) for e in fills] == [(30, 70), (100, 0)]
    assert fills[1].notional == 30 * 1_000_000 + 70 * 1_001_000
    assert [e.exec_seq for e in fills] == [1, 2]


def test_ioc_and_market_leave_nothing_behind(floor: Any) -> None:
    """What an IOC or market order cannot trade at once is cancelled, not booked."""
    floor.order("sell", 10, 10_000, account="A")
    ioc = floor.order("buy", 50, 10_000, tif="ioc")
    market = floor.order("buy", 50, 0, type="market")
    assert (ioc.status, ioc.cum_quantity) == ("canceled", 10)
    assert (market.status, market.cum_quantity) == ("canceled", 0)
    assert floor.venue.books["ALFA"].bids.depth(5) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symbol": "NOPE"}, 1),
        ({"quantity": 0}, 13),
        ({"quantity": 10_000_001}, 13),
        ({"price": 0}, 99),
        ({"cl_ord_id": "x" * 65}, 99),
    ],
)
def test_bad_orders_are_rejected_with_their_reason(floor: Any, change: dict[str, Any], reason: int) -> None:
    """Each kind of bad order names its OrdRejReason and books nothing."""
    fields = {"side": "buy", "quantity": 10, "price": 10_000, **change}
    assert floor.order(**fields) is None
    assert floor.last(f.OrderRejected).reason == reason
    assert floor.state.account("FIRM").history == []


def test_price_off_the_tick_grid_is_rejected(floor: Any) -> None:
    """A price between two ticks is no price of this market."""
    request = NewOrder(account="FIRM", cl_ord_id="X", symbol="ALFA", side="buy", quantity=1, price=1_000_050)
    assert floor.venue.submit(request, AT) is None


def test_cl_ord_id_is_unique_within_the_day_and_free_on_the_next(floor: Any) -> None:
    """A duplicate ClOrdID is rejected (FIX 15) until the day is over, even when its order is closed."""
    floor.order("buy", 10, 10_000, cl_ord_id="SAME")
    assert cancel(floor, "SAME")
    assert floor.order("buy", 10, 10_000, cl_ord_id="SAME") is None
    assert floor.last(f.OrderRejected).reason == 6
    for phase in ("close", "settlement", "pre_open", "open", "continuous"):
        floor.venue.enter(phase, AT)
    assert floor.order("buy", 10, 10_000, cl_ord_id="SAME") is not None


def test_the_oracle_remembers_the_orders_of_earlier_days(floor: Any) -> None:
    """What was acknowledged stays acknowledged over night, oldest first, page by page."""
    first = floor.order("buy", 10, 10_000)
    second = floor.order("buy", 10, 9_990)
    for phase in ("close", "settlement", "pre_open", "open", "continuous"):
        floor.venue.enter(phase, AT)
    third = floor.order("buy", 10, 10_000)
    account = floor.venue.state.account(first.account)
    assert account.history == [third]
    assert account.accepted_after(0, 2) == [first, second]
    assert account.accepted_after(second.accepted_seq, 2) == [third]
    assert first.status == "expired"


def test_cancel_goes_through_pending_and_empties_the_level(floor: Any) -> None:
    """A cancel is pending first (FIX 19), then the order is gone from the book."""
    floor.order("buy", 10, 10_000, cl_ord_id="C")
    assert cancel(floor, "C")
    assert floor.kinds()[-3:] == ["cancel_received", "book_change", "order_canceled"]
    assert floor.venue.books["ALFA"].bids.best() is None


def test_cancel_of_unknown_filled_or_repeated_is_refused(floor: Any) -> None:
    """CxlRejReason tells unknown order, too late and duplicate ClOrdID apart."""
    assert not cancel(floor, "NOPE")
    assert floor.last(f.CancelRejected).reason == 1
    floor.order("buy", 10, 10_000, cl_ord_id="F")
    floor.order("sell", 10, 10_000, account="A")
    assert not cancel(floor, "F")
    assert floor.last(f.CancelRejected).reason == 0
    floor.order("buy", 10, 10_000, cl_ord_id="G")
    assert not cancel(floor, "G", cl_ord_id="F")
    assert floor.last(f.CancelRejected).reason == 6


def test_replace_keeps_priority_only_for_less_at_the_same_price(floor: Any) -> None:
    """Reducing keeps the place in the queue; more quantity or another price goes to its end."""
    first = floor.order("buy", 20, 10_000, cl_ord_id="A1")
    second = floor.order("buy", 20, 10_000, cl_ord_id="B1")
    assert replace(floor, "A1", 10, 10_000, "A2")
    assert next(floor.venue.books["ALFA"].bids.queue()) is first
    assert replace(floor, "A2", 30, 10_000, "A3")
    assert next(floor.venue.books["ALFA"].bids.queue()) is second
    assert floor.venue.books["ALFA"].bids.depth(1) == [(1_000_000, 50)]


def test_replace_to_a_crossing_price_trades(floor: Any) -> None:
    """A replaced order is matched like a new one."""
    floor.order("sell", 10, 10_010, account="A")
    order = floor.order("buy", 10, 10_000, cl_ord_id="A1")
    assert replace(floor, "A1", 10, 10_010)
    assert order.status == "filled"


@pytest.mark.parametrize(("quantity", "price"), [(10, 10_000), (100, 0), (10_000_001, 10_000)])
def test_replace_below_what_is_filled_or_without_price_is_refused(
    floor: Any, quantity: int, price: int
) -> None:
    """An impossible replace leaves the order as it was."""
    order = floor.order("buy", 50, 10_000, cl_ord_id="A1")
    floor.order("sell", 10, 10_000, account="A")
    assert not replace(floor, "A1", quantity, price)
    assert (order.quantity, order.price, order.status) == (50, 1_000_000, "partially_filled")


def test_script_fills_in_just_its_slices(floor: Any) -> None:
    """A scripted order trades with the house in the given quantities and with nobody else (FIX 18)."""
    floor.venue.arm(FillScript("S1", "FIRM", 500, [100, 400]), AT)
    small = floor.order("buy", 100, 10_000)
    order = floor.order("buy", 1000, 10_000)
    assert not small.scripted
    floor.order("sell", 5000, 9_990, account="A")
    assert order.cum_quantity == 0
    assert floor.venue.fill_slice(order.order_id, AT)
    assert not floor.venue.fill_slice(order.order_id, AT)
    assert (order.cum_quantity, order.leaves_quantity, order.status) == (500, 500, "partially_filled")
    assert cancel(floor, order.cl_ord_id)


def test_scripted_fill_between_cancel_and_its_reject(floor: Any) -> None:
    """A script bound to the cancel fills first, so that the cancel comes too late (FIX 18, 19)."""
    floor.venue.arm(FillScript("S1", "FIRM", 1, [60, 40], when="on_cancel"), AT)
    order = floor.order("buy", 100, 10_000, cl_ord_id="A1")
    assert not cancel(floor, "A1")
    assert order.status == "filled"
    kinds = floor.kinds()
    assert kinds.index("cancel_received") < kinds.index("fill") < kinds.index("cancel_rejected")


def test_scripted_ioc_does_not_stay_open(floor: Any) -> None:
    """The rest of a scripted IOC is cancelled after its last slice."""
    floor.venue.arm(FillScript("S1", "FIRM", 1, [60]), AT)
    order = floor.order("buy", 100, 10_000, tif="ioc")
    floor.venue.fill_slice(order.order_id, AT)
    assert (order.status, order.cum_quantity, order.leaves_quantity) == ("canceled", 60, 0)


def test_auction_uncrosses_at_one_price(floor: Any) -> None:
    """Orders of the pre-open trade at the single price with the largest volume."""
    for phase in ("close", "settlement", "pre_open"):
        floor.venue.enter(phase, AT)
    buyer = floor.order("buy", 100, 10_020)
    floor.order("buy", 50, 10_000, account="B")
    seller = floor.order("sell", 80, 9_990, account="A")
    assert buyer.cum_quantity == 0
    floor.venue.enter("open", AT)
    assert (buyer.cum_quantity, seller.cum_quantity) == (80, 80)
    assert len({e.price for e in floor.entries if isinstance(e, f.Fill)}) == 1
    assert not floor.venue.books["ALFA"].crossed()


def test_closed_market_takes_cancels_but_no_orders(floor: Any) -> None:
    """After the close only cancels pass; at settlement day orders expire."""
    floor.order("buy", 10, 10_000, cl_ord_id="A1")
    other = floor.order("buy", 10, 10_000, cl_ord_id="A2")
    floor.venue.enter("close", AT)
    assert floor.order("buy", 10, 10_000) is None
    assert cancel(floor, "A1")
    floor.venue.enter("settlement", AT)
    assert other.status == "expired"
    assert floor.venue.books["ALFA"].bids.best() is None


def test_bust_takes_position_and_cash_back(floor: Any) -> None:
    """A busted trade leaves the account as if it had not been."""
    floor.order("sell", 10, 10_000, account="A")
    floor.order("buy", 10, 10_000)
    fill = floor.state.account("FIRM").execution(floor.last(f.Fill).exec_id)
    assert isinstance(fill, Execution)
    floor.venue.bust(fill, AT)
    position = floor.state.account("FIRM").positions["ALFA"]
    assert (position.quantity, position.cash) == (0, 0)


def test_correction_changes_cash_by_the_difference(floor: Any) -> None:
    """A corrected price moves the cash of that fill and the order's average."""
    floor.order("sell", 10, 10_000, account="A")
    order = floor.order("buy", 10, 10_000)
    fill = floor.state.account("FIRM").execution(floor.last(f.Fill).exec_id)
    floor.venue.correct(fill, 1_000_500, AT)
    assert floor.state.account("FIRM").positions["ALFA"].cash == -10 * 1_000_500
    assert order.average_price == 1_000_500


def test_restatement_reduces_an_open_order(floor: Any) -> None:
    """The exchange may shrink an open order, never below what is filled."""
    order = floor.order("buy", 100, 10_000)
    floor.order("sell", 40, 10_000, account="A")
    assert not floor.venue.restate(order.order_id, 40, "x", AT)
    assert floor.venue.restate(order.order_id, 70, "x", AT)
    assert (order.quantity, order.leaves_quantity) == (70, 30)
    assert floor.venue.books["ALFA"].bids.depth(1) == [(1_000_000, 30)]


def test_preloaded_history_is_made_of_real_fills(floor: Any) -> None:
    """Preloading books numbered fills against the house; positions of both add up to nothing."""
    floor.venue.preload("FIRM", 10, AT)
    floor.venue.preload("FIRM", 3, AT)
    account = floor.state.account("FIRM")
    assert account.fills == len(account.executions) == 13
    house = floor.state.account("HOUSE").positions
    assert {s: p.quantity + house[s].quantity for s, p in account.positions.items()} == {
        "ALFA": 0,
        "BRAVO": 0,
    }

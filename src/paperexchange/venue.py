"""The exchange itself: commands in, ledger entries out. No I/O, no clock, no randomness.

Every change goes through `record`, which numbers an entry, writes it to the ledger and applies it to the
state; nothing else changes the state. Books are the one thing the venue touches directly.
"""

from collections.abc import Callable

from paperexchange import facts as f
from paperexchange.book import Book, auction_price
from paperexchange.model import (
    HOUSE,
    At,
    CancelOrder,
    Execution,
    Instrument,
    NewOrder,
    Order,
    Phase,
    ReplaceOrder,
    Side,
)
from paperexchange.rules import (
    OTHER,
    TOO_LATE,
    UNKNOWN_ORDER,
    Refusal,
    amend_refusal,
    order_refusal,
    replace_refusal,
)
from paperexchange.scripts import FillScript, FillScripts
from paperexchange.state import State

Record = Callable[[f.Fact], None]


class Venue:
    """Matches orders; `state` is what it knows, `books` where open orders rest."""

    def __init__(self, instruments: list[Instrument], state: State, record: Record) -> None:
        """`record` must number the entry and apply it to `state` before it returns."""
        self.instruments = {instrument.symbol: instrument for instrument in instruments}
        self.state = state
        self.books = {symbol: Book(symbol) for symbol in self.instruments}
        self.scripts = FillScripts()
        self._record = record

    # Orders ---------------------------------------------------------------------------------------------

    def submit(self, request: NewOrder, at: At) -> Order | None:
        """Accept or reject, then match, then rest or cancel the remainder. None when rejected."""
        refusal = order_refusal(request, self.state, self.instruments)
        if refusal is not None:
            self._reject(request, *refusal, at)
            return None
        script = None
        if request.account != HOUSE:
            script = self.scripts.bind(request.account, request.symbol, request.quantity)
        order = self._accept(request, at, scripted=script is not None)
        if script is not None:
            self._bound(script, order, at)
        elif self._matching():
            self._execute(order, at)
        else:
            self._rest(order, at)
        return order

    def _matching(self) -> bool:
        return self.state.phase == "continuous"

    def _reject(self, request: NewOrder, reason: int, text: str, at: At) -> None:
        self._record(
            f.OrderRejected(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=request.account,
                exec_id=self._exec_id(),
                cl_ord_id=request.cl_ord_id,
                symbol=request.symbol,
                side=request.side,
                quantity=request.quantity,
                price=request.price,
                conn=request.conn,
                reason=reason,
                text=text,
                received_mono_ns=request.received_mono_ns,
                received_stamp=request.received_stamp,
            )
        )

    def _accept(self, request: NewOrder, at: At, *, scripted: bool) -> Order:
        order_id = f"O{self.state.order_no + 1}"
        self._record(
            f.OrderAccepted(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=request.account,
                order_id=order_id,
                exec_id=self._exec_id(),
                cl_ord_id=request.cl_ord_id,
                symbol=request.symbol,
                side=request.side,
                type=request.type,
                tif=request.tif,
                quantity=request.quantity,
                price=request.price,
                conn=request.conn,
                received_mono_ns=request.received_mono_ns,
                received_stamp=request.received_stamp,
                scripted=scripted,
            )
        )
        return self.state.orders[order_id]

    def _exec_id(self) -> str:
        return f"X{self.state.exec_no + 1}"

    def _execute(self, order: Order, at: At) -> None:
        """Trade against the book, then rest what is left of a day limit order and cancel any other rest."""
        limit = order.price if order.type == "limit" else None
        book = self.books[order.symbol]
        while order.leaves_quantity:
            resting = book.next_match(order.side, limit)
            if resting is None:
                break
            self._match(order, resting, resting.price, at)
        if order.leaves_quantity:
            if order.type == "limit" and order.tif == "day":
                self._rest(order, at)
            else:
                self._remove(order, "no more to trade against", at)

    def _rest(self, order: Order, at: At) -> None:
        total = self.books[order.symbol].half(order.side).add(order)
        self._level(order.symbol, order.side, order.price, total, at)

    def _match(self, incoming: Order, resting: Order, price: int, at: At) -> None:
        quantity = min(incoming.leaves_quantity, resting.leaves_quantity)
        total = self.books[resting.symbol].half(resting.side).reduce(resting, quantity)
        match_id = self.state.match_no + 1
        self._fill(resting, quantity, price, at, match_id=match_id, contra=incoming.account)
        self._fill(incoming, quantity, price, at, match_id=match_id, contra=resting.account)
        self._level(resting.symbol, resting.side, resting.price, total, at)
        self._print(resting.symbol, price, quantity, at)

    def _fill(self, order: Order, quantity: int, price: int, at: At, *, match_id: int, contra: str) -> None:
        self._record(
            f.Fill(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=order.account,
                exec_id=self._exec_id(),
                exec_seq=self.state.account(order.account).fills + 1,
                order_id=order.order_id,
                cl_ord_id=order.cl_ord_id,
                symbol=order.symbol,
                side=order.side,
                quantity=quantity,
                price=price,
                cum_quantity=order.cum_quantity + quantity,
                leaves_quantity=order.leaves_quantity - quantity,
                notional=order.notional + quantity * price,
                match_id=match_id,
                contra=contra,
            )
        )

    def _level(self, symbol: str, side: Side, price: int, total: int, at: At) -> None:
        self._record(
            f.BookChange(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                md_seq=self.state.md_seq + 1,
                symbol=symbol,
                side=side,
                price=price,
                quantity=total,
            )
        )

    def _print(self, symbol: str, price: int, quantity: int, at: At) -> None:
        self._record(
            f.BookTrade(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                md_seq=self.state.md_seq + 1,
                symbol=symbol,
                price=price,
                quantity=quantity,
            )
        )

    # Cancel and replace ---------------------------------------------------------------------------------

    def cancel(self, request: CancelOrder, at: At) -> bool:
        """Pending cancel, then cancel, or a cancel reject; whether the order was cancelled."""
        order = self.find(request.account, request.orig_cl_ord_id, request.order_id)
        refusal = amend_refusal(request, order, self.state)
        if refusal is not None or order is None:
            self._refuse_amend(request, order, refusal or (UNKNOWN_ORDER, "unknown order"), 1, at)
            return False
        self._record(
            f.CancelReceived(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=order.account,
                exec_id=self._exec_id(),
                order_id=order.order_id,
                cl_ord_id=request.cl_ord_id,
                orig_cl_ord_id=order.cl_ord_id,
            )
        )
        self._script_on_cancel(order, at)
        if not order.leaves_quantity:
            self._refuse_amend(request, order, (TOO_LATE, "too late to cancel: filled"), 1, at)
            return False
        self._remove(order, "requested", at, cl_ord_id=request.cl_ord_id)
        return True

    def replace(self, request: ReplaceOrder, at: At) -> bool:
        """Pending replace, then the new price and quantity, then matching; or a cancel reject."""
        order = self.find(request.account, request.orig_cl_ord_id, request.order_id)
        refusal = amend_refusal(request, order, self.state) or replace_refusal(
            request, order, self.state, self.instruments
        )
        if refusal is not None or order is None:
            self._refuse_amend(request, order, refusal or (UNKNOWN_ORDER, "unknown order"), 2, at)
            return False
        keeps = request.price == order.price and request.quantity <= order.quantity
        stamp = {"mono_ns": at.mono_ns, "wall_ns": at.wall_ns}
        ids = {
            "account": order.account,
            "order_id": order.order_id,
            "cl_ord_id": request.cl_ord_id,
            "orig_cl_ord_id": order.cl_ord_id,
        }
        self._record(f.ReplaceReceived(**stamp, **ids, exec_id=self._exec_id()))  # type: ignore[arg-type]
        self._move(order, request, keeps=keeps, stamp=stamp, ids=ids, at=at)
        return True

    def _move(
        self,
        order: Order,
        request: ReplaceOrder,
        *,
        keeps: bool,
        stamp: dict[str, int],
        ids: dict[str, str],
        at: At,
    ) -> None:
        resting = not order.scripted
        half = self.books[order.symbol].half(order.side)
        old_price = order.price
        shrink = order.leaves_quantity - (request.quantity - order.cum_quantity)
        if resting:
            total = half.reduce(order, shrink if keeps else order.leaves_quantity)
            if shrink or not keeps:
                self._level(order.symbol, order.side, old_price, total, at)
        self._record(
            f.OrderReplaced(
                **stamp,  # type: ignore[arg-type]
                **ids,  # type: ignore[arg-type]
                exec_id=self._exec_id(),
                symbol=order.symbol,
                side=order.side,
                quantity=request.quantity,
                price=request.price,
                keeps_priority=keeps,
            )
        )
        if resting and not keeps and self._matching():
            self._execute(order, at)
        elif resting and not keeps:
            self._rest(order, at)

    def _refuse_amend(
        self,
        request: CancelOrder | ReplaceOrder,
        order: Order | None,
        refusal: Refusal,
        response_to: int,
        at: At,
    ) -> None:
        self._record(
            f.CancelRejected(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=request.account,
                cl_ord_id=request.cl_ord_id,
                orig_cl_ord_id=request.orig_cl_ord_id,
                order_id=order.order_id if order else "",
                reason=refusal[0],
                text=refusal[1],
                response_to=1 if response_to == 1 else 2,
            )
        )

    def _remove(
        self, order: Order, reason: str, at: At, *, cl_ord_id: str = "", expired: bool = False
    ) -> None:
        """Take an order's remainder off the market; it need not rest in a book."""
        half = self.books[order.symbol].half(order.side)
        level = half.levels.get(order.price)
        if level is not None and order.order_id in level.orders:
            total = half.reduce(order, order.leaves_quantity)
            self._level(order.symbol, order.side, order.price, total, at)
        self._record(
            f.OrderCanceled(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=order.account,
                exec_id=self._exec_id(),
                order_id=order.order_id,
                cl_ord_id=cl_ord_id,
                orig_cl_ord_id=order.cl_ord_id,
                quantity=order.leaves_quantity,
                reason=reason,
                status="expired" if expired else "canceled",
            )
        )

    def find(self, account: str, cl_ord_id: str, order_id: str = "") -> Order | None:
        """Give an account's order of this session day by ClOrdID, else by OrderID."""
        order = self.state.account(account).by_cl_ord_id.get(cl_ord_id) if cl_ord_id else None
        if order is None and order_id:
            order = self.state.orders.get(order_id)
        return order if order is not None and order.account == account else None

    def open_orders(self, account: str, symbol: str = "", conn: int = 0) -> list[Order]:
        """Give the open orders of an account, of one symbol or connection if given, oldest first."""
        return [
            order
            for order in self.state.account(account).history
            if order.leaves_quantity
            and (not symbol or order.symbol == symbol)
            and (not conn or order.conn == conn)
        ]

    def cancel_all(self, account: str, at: At, *, reason: str, symbol: str = "", conn: int = 0) -> int:
        """Cancel an account's open orders; how many."""
        orders = self.open_orders(account, symbol, conn)
        for order in orders:
            self._remove(order, reason, at)
        return len(orders)

    def cancel_house(self, order: Order, at: At) -> None:
        """Withdraw a participant's quote."""
        if order.leaves_quantity:
            self._remove(order, "requote", at)

    # Scripted fills -------------------------------------------------------------------------------------

    def arm(self, script: FillScript, at: At) -> None:
        """Fill the account's next fitting order by `script` and by nothing else."""
        self.scripts.arm(script)
        self._record(self._scripted(script, "", at))

    def _bound(self, script: FillScript, order: Order, at: At) -> None:
        self.scripts.start(script, order.order_id)
        self._record(self._scripted(script, order.order_id, at))

    def _scripted(self, script: FillScript, order_id: str, at: At) -> f.Scripted:
        return f.Scripted(
            mono_ns=at.mono_ns,
            wall_ns=at.wall_ns,
            account=script.account,
            id=script.id,
            symbol=script.symbol,
            min_quantity=script.min_quantity,
            slices=list(script.slices),
            interval_ms=script.interval_ms,
            when=script.when,
            order_id=order_id,
        )

    def fill_slice(self, order_id: str, at: At) -> bool:
        """Fill the next slice of a scripted order against the house; whether another slice remains."""
        order = self.state.orders.get(order_id)
        quantity = self.scripts.next_slice(order_id)
        if order is None or not order.leaves_quantity or quantity is None:
            self.scripts.forget(order_id)
            return False
        self._fill_by_house(order, min(quantity, order.leaves_quantity), at)
        more = self.scripts.pending(order_id) and order.leaves_quantity > 0
        if not more and order.leaves_quantity and (order.tif == "ioc" or order.type == "market"):
            self._remove(order, "no more to trade against", at)
        return more

    def _script_on_cancel(self, order: Order, at: At) -> None:
        """Fill between the cancel request and its answer (FIX 18)."""
        if order.scripted and self.scripts.when(order.order_id) == "on_cancel":
            while self.fill_slice(order.order_id, at):
                pass

    def _fill_by_house(self, order: Order, quantity: int, at: At) -> None:
        price = order.price if order.type == "limit" else self.reference_price(order.symbol)
        self._trade(order, self._house_order(order, quantity, price, at), quantity, price, at)
        self._print(order.symbol, price, quantity, at)

    def _house_order(self, order: Order, quantity: int, price: int, at: At) -> Order:
        """Give the other side of a scripted fill; it never rests in a book."""
        opposite: Side = "sell" if order.side == "buy" else "buy"
        request = NewOrder(
            account=HOUSE,
            cl_ord_id=f"S{self.state.order_no + 1}",
            symbol=order.symbol,
            side=opposite,
            quantity=quantity,
            price=price,
        )
        return self._accept(request, at, scripted=True)

    def _trade(self, order: Order, house: Order, quantity: int, price: int, at: At) -> None:
        match_id = self.state.match_no + 1
        self._fill(house, quantity, price, at, match_id=match_id, contra=order.account)
        self._fill(order, quantity, price, at, match_id=match_id, contra=HOUSE)

    def preload(self, account: str, fills: int, at: At) -> None:
        """One order of a past session with `fills` fills against the house; no market data."""
        index = self.state.account(account).fills
        instrument = list(self.instruments.values())[index // 10 % len(self.instruments)]
        side: Side = "buy" if index // 10 // len(self.instruments) % 2 == 0 else "sell"
        price = instrument.mid + (index // 10 % 7 - 3) * instrument.tick
        request = NewOrder(
            account=account,
            cl_ord_id=f"PRE-{index}",
            symbol=instrument.symbol,
            side=side,
            quantity=10 * fills,
            price=price,
            received_mono_ns=at.mono_ns,
        )
        order = self._accept(request, at, scripted=True)
        house = self._house_order(order, order.quantity, price, at)
        for _ in range(fills):
            self._trade(order, house, 10, price, at)

    def best_against(self, symbol: str, side: Side) -> int | None:
        """Give the best price that an order of `side` would trade at; None when there is none."""
        level = self.books[symbol].opposite(side).best()
        return level.price if level is not None else None

    def reference_price(self, symbol: str) -> int:
        """Mid of the book, else the last price, else the instrument's first mid, on the tick grid."""
        instrument = self.instruments[symbol]
        price = self.books[symbol].mid() or self.state.last_price.get(symbol) or instrument.mid
        return price - price % instrument.tick

    # The exchange's own acts ----------------------------------------------------------------------------

    def restate(self, order_id: str, quantity: int, text: str, at: At) -> bool:
        """Change an open order's quantity unasked (150=D); False when it cannot be."""
        order = self.state.orders.get(order_id)
        if order is None or not order.leaves_quantity or not order.cum_quantity < quantity <= order.quantity:
            return False
        level = self.books[order.symbol].half(order.side).levels.get(order.price)
        if level is not None and order.order_id in level.orders:
            shrink = order.quantity - quantity
            total = self.books[order.symbol].half(order.side).reduce(order, shrink)
            self._level(order.symbol, order.side, order.price, total, at)
        self._record(
            f.OrderRestated(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=order.account,
                exec_id=self._exec_id(),
                order_id=order_id,
                cl_ord_id=order.cl_ord_id,
                quantity=quantity,
                reason=OTHER,
                text=text,
            )
        )
        return True

    def bust(self, fill: Execution, at: At) -> None:
        """Take a fill back (150=H); what is open of the order wants the quantity again."""
        order = self.state.orders.get(fill.order_id)
        if order is not None and order.leaves_quantity:
            level = self.books[order.symbol].half(order.side).levels.get(order.price)
            if level is not None and order.order_id in level.orders:
                level.total += fill.quantity
                self._level(order.symbol, order.side, order.price, level.total, at)
        self._record(
            f.TradeBusted(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=fill.account,
                exec_id=self._exec_id(),
                ref_exec_id=fill.exec_id,
                order_id=fill.order_id,
                cl_ord_id=fill.cl_ord_id,
                symbol=fill.symbol,
                side=fill.side,
                quantity=fill.quantity,
                price=fill.price,
            )
        )

    def correct(self, fill: Execution, price: int, at: At) -> None:
        """Change a fill's price (150=G)."""
        self._record(
            f.TradeCorrected(
                mono_ns=at.mono_ns,
                wall_ns=at.wall_ns,
                account=fill.account,
                exec_id=self._exec_id(),
                ref_exec_id=fill.exec_id,
                order_id=fill.order_id,
                cl_ord_id=fill.cl_ord_id,
                symbol=fill.symbol,
                side=fill.side,
                quantity=fill.quantity,
                price=price,
                was_price=fill.price,
            )
        )

    # Calendar and recovery ------------------------------------------------------------------------------

    def enter(self, phase: Phase, at: At) -> None:
        """Move to a phase: `open` and `continuous` uncross the books, `settlement` ends day orders."""
        was = self.state.phase
        # A market that goes back to before its opening from continuous trading is still in the same day.
        day = self.state.day + (1 if phase == "pre_open" and was in ("close", "settlement") else 0)
        if phase == "settlement":
            for order in self.state.open_orders():
                self._remove(order, "end of day", at, expired=True)
        self._record(f.PhaseChanged(mono_ns=at.mono_ns, wall_ns=at.wall_ns, phase=phase, day=day))
        if phase in ("open", "continuous"):
            for symbol in self.books:
                self._auction(symbol, at)

    def _auction(self, symbol: str, at: At) -> None:
        """Trade everything that can at one price, in price-time order."""
        book = self.books[symbol]
        price = auction_price(book)
        while price is not None and book.crossed():
            bid, offer = next(book.bids.queue()), next(book.offers.queue())
            if bid.price < price or offer.price > price:
                break
            quantity = min(bid.leaves_quantity, offer.leaves_quantity)
            bid_total = book.bids.reduce(bid, quantity)
            self._level(symbol, "buy", bid.price, bid_total, at)
            self._match(bid, offer, price, at)

    def resume(self, at: At) -> None:
        """After the state was rebuilt: make the books from the open orders, in their priority.

        A crash can fall between an order's acceptance and its matching; running the usual matching here
        finishes what was begun and changes nothing otherwise.
        """
        for fact in self.state.scripts.values():
            self._resume_script(fact)
        for order in self.state.open_orders():
            if order.scripted:
                continue
            if order.status in ("pending_cancel", "pending_replace"):
                # The crash fell between request and outcome; no answer left the exchange.
                order.status = "partially_filled" if order.cum_quantity else "new"
            if self._matching():
                self._execute_quietly(order, at)
            else:
                self.books[order.symbol].half(order.side).add(order)

    def _resume_script(self, fact: f.Scripted) -> None:
        """Go on where the script was: waiting for its order, or behind the slices that are filled."""
        script = FillScript(
            id=fact.id,
            account=fact.account,
            min_quantity=fact.min_quantity,
            slices=fact.slices,
            symbol=fact.symbol,
            interval_ms=fact.interval_ms,
            when=fact.when,
        )
        order = self.state.orders.get(fact.order_id)
        if not fact.order_id:
            self.scripts.arm(script)
        elif order is not None and order.leaves_quantity:
            self.scripts.start(script, order.order_id, filled=order.cum_quantity)

    def _execute_quietly(self, order: Order, at: At) -> None:
        book = self.books[order.symbol]
        limit = order.price if order.type == "limit" else None
        rests = order.type == "limit" and order.tif == "day"
        if rests and book.next_match(order.side, limit) is None:
            book.half(order.side).add(order)
        else:
            self._execute(order, at)

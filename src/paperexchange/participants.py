"""Other participants: a market maker and takers who trade at random. Seeded, pure, without a clock.

Each `step` is one event: mostly the maker renews one symbol's quotes, sometimes a taker hits them. The
maker quotes several levels, deep enough for a member to trade hundreds of times a second, and leans
against its own inventory by coming back to the instrument's first mid.
"""

from random import Random

import msgspec

from paperexchange.model import HOUSE, NOISE, At, Instrument, NewOrder, Order, Side
from paperexchange.venue import Venue


class ParticipantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`events_per_s` over all symbols; sizes in shares; `spread_ticks` between the best bid and offer."""

    events_per_s: float = 50.0
    levels: int = 5
    level_quantity: int = 5_000
    spread_ticks: int = 4
    taker_share: float = 0.4
    taker_quantity: int = 300
    drift_ticks: int = 40


class _Maker:
    """Quotes of one symbol."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.mid = instrument.mid
        self.quotes: dict[tuple[Side, int], Order] = {}


class Participants:
    """Drives a venue with house orders; nothing here reads what members could not see."""

    def __init__(self, venue: Venue, settings: ParticipantSettings, random: Random) -> None:
        """`random` is this object's own seeded stream."""
        self._venue = venue
        self._settings = settings
        self._random = random
        self._makers = {name: _Maker(instrument) for name, instrument in venue.instruments.items()}
        self._names = list(self._makers)
        self._turn = 0
        self._count = 0

    def adopt(self) -> None:
        """After a recovery: take over the house's quotes that are still in the books."""
        for order in self._venue.state.open_orders():
            if order.account == HOUSE and not order.scripted:
                self._makers[order.symbol].quotes[order.side, order.price] = order

    def seed_books(self, at: At) -> None:
        """Quote every symbol once, so that nobody meets an empty book."""
        for maker in self._makers.values():
            self._quote(maker, at)

    def step(self, at: At) -> None:
        """One event: a requote of the next symbol, or a taker's order in a random one."""
        if self._venue.state.phase == "continuous" and self._random.random() < self._settings.taker_share:
            self._take(self._random.choice(self._names), at)
            return
        maker = self._makers[self._names[self._turn % len(self._names)]]
        self._turn += 1
        self._walk(maker)
        self._quote(maker, at)

    def _walk(self, maker: _Maker) -> None:
        """Mean-reverting random walk on the tick grid, at most `drift_ticks` away from the first mid."""
        instrument = maker.instrument
        away = (maker.mid - instrument.mid) / instrument.tick / max(self._settings.drift_ticks, 1)
        step = self._random.choice((-1, 0, 0, 1)) if self._random.random() > abs(away) else -_signum(away)
        maker.mid += step * instrument.tick

    def _quote(self, maker: _Maker, at: At) -> None:
        """Withdraw quotes that are away from the market, renew levels that have worn thin."""
        if self._venue.state.phase not in ("pre_open", "open", "continuous"):
            return
        wanted = self._wanted(maker)
        for key in [key for key in maker.quotes if key not in wanted]:
            self._venue.cancel_house(maker.quotes.pop(key), at)
        for side, price in wanted:
            self._renew(maker, side, price, at)

    def _wanted(self, maker: _Maker) -> list[tuple[Side, int]]:
        tick = maker.instrument.tick
        half = max(self._settings.spread_ticks // 2, 1) * tick
        sides: tuple[tuple[Side, int], ...] = (("buy", -1), ("sell", 1))
        return [
            (side, maker.mid + direction * (half + level * tick))
            for level in range(self._settings.levels)
            for side, direction in sides
            if maker.mid + direction * (half + level * tick) > 0
        ]

    def _renew(self, maker: _Maker, side: Side, price: int, at: At) -> None:
        full = self._settings.level_quantity
        quote = maker.quotes.get((side, price))
        if quote is not None and 2 * quote.leaves_quantity >= full:
            return
        if quote is not None:
            self._venue.cancel_house(quote, at)
        order = self._submit(HOUSE, maker.instrument.symbol, side, full, price=price, at=at)
        if order is not None:
            maker.quotes[side, price] = order

    def _take(self, symbol: str, at: At) -> None:
        side: Side = self._random.choice(("buy", "sell"))
        quantity = self._random.randint(1, max(self._settings.taker_quantity // 10, 1)) * 10
        book = self._venue.books[symbol]
        best = book.opposite(side).best()
        if best is not None:
            self._submit(NOISE, symbol, side, quantity, price=best.price, at=at)

    def _submit(
        self, account: str, symbol: str, side: Side, quantity: int, *, price: int, at: At
    ) -> Order | None:
        self._count += 1
        request = NewOrder(
            account=account,
            cl_ord_id=f"{account[0]}{self._count}",
            symbol=symbol,
            side=side,
            quantity=quantity,
            price=price,
            tif="ioc" if account == NOISE else "day",
        )
        return self._venue.submit(request, at)


def _signum(value: float) -> int:
    return (value > 0) - (value < 0)

"""The risk manager's connection to the engines. It fails closed: no snapshot, no approval."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from paperfirm.risk.core import RiskBook
from paperfirm.wire import (
    Adopted,
    Approve,
    AskUsage,
    Beat,
    Booked,
    Check,
    Closed,
    Mark,
    Refuse,
    Snapshot,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.config import Limits
    from paperfirm.frames import Link
    from paperfirm.wire import Message

    Emit = Callable[..., int]


class Counters(msgspec.Struct):
    """What the service has answered since it started."""

    approved: int = 0
    refused: int = 0
    snapshots: int = 0


class RiskService:
    """Serves the engine with the highest epoch; `emit` writes to the event log."""

    def __init__(self, limits: Limits, emit: Emit, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._limits = limits
        self._emit = emit
        self._mono = clock
        self.book = RiskBook(limits)
        self.epoch = 0
        self.counters = Counters()
        self._served: Link | None = None
        self._breaches: list[str] = []

    @property
    def served(self) -> bool:
        """Whether an engine's snapshot is in force."""
        return self._served is not None

    def on_message(self, link: Link, message: Message) -> None:
        """Handle one message of an engine."""
        if isinstance(message, Beat):
            link.send(message)
        elif isinstance(message, Snapshot):
            self._take_over(link, message)
        elif link is self._served:
            self._take(link, message)
        elif isinstance(message, Check):
            self._refuse(link, message.id, "this risk manager holds no snapshot of yours")

    def _take(self, link: Link, message: Message) -> None:
        if isinstance(message, Check):
            self._check(link, message)
        elif isinstance(message, Booked):
            self.book.booked(message.id, message.symbol, message.side, message.quantity, message.price)
        elif isinstance(message, Closed):
            self.book.close(message.id)
        elif isinstance(message, Adopted):
            self.book.adopt(message.id, message.symbol, message.side, message.quantity, message.price)
        elif isinstance(message, AskUsage):
            link.send(self._usage(message.request))
        elif isinstance(message, Mark):
            self.book.mark(message.symbol, message.price)

    def on_close(self, link: Link, _error: Exception | None) -> None:
        """Forget a lost engine: its next connection brings a new snapshot."""
        if link is self._served:
            self._served = None

    def watch(self) -> None:
        """Report new breaches; called five times a second."""
        if self._served is None:
            return
        breaches = self.book.breaches()
        for breach in breaches:
            if breach.split(":")[0] not in {known.split(":")[0] for known in self._breaches}:
                self._emit("limit_breached", breach=breach)
        self._breaches = breaches

    def _take_over(self, link: Link, snapshot: Snapshot) -> None:
        if snapshot.epoch < self.epoch:
            link.close()
            return
        if self._served is not None and self._served is not link:
            self._served.close()
        self.epoch = snapshot.epoch
        self._served = link
        self.counters.snapshots += 1
        self.book.load(snapshot.holdings, snapshot.orders)
        link.send(self._usage(0))

    def _check(self, link: Link, check: Check) -> None:
        reason = self.book.check(check.id, check.symbol, check.side, check.quantity, check.price)
        if reason is None:
            self.counters.approved += 1
            link.send(Approve(check.id))
        else:
            self._refuse(link, check.id, reason)

    def _refuse(self, link: Link, order_id: str, reason: str) -> None:
        self.counters.refused += 1
        link.send(Refuse(order_id, reason))

    def _usage(self, request: int) -> Usage:
        book = self.book
        share = round(book.concentration_pct(), 6)
        return Usage(
            book.position_usage(), book.gross_notional, share, book.breaches(), self._mono(), request
        )

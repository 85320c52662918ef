"""Group commit: apply at once, write and replicate once per loop turn.

Release effects only when durable everywhere.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from paperfirm.engine.errors import DiskFullError
from paperfirm.engine.events import CancelRequested, ClientRefused, EpochStarted, OrderEntered, Record
from paperfirm.engine.journal import HEAD, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from paperfirm.engine.events import Event
    from paperfirm.engine.journal import Journal
    from paperfirm.engine.state import State
    from paperfirm.eventlog import Clock

    Effect = Callable[[], None]
    Replicate = Callable[[int, int, bytes], None]


URGENT = (OrderEntered, ClientRefused, CancelRequested, EpochStarted)
"""Somebody waits for these, and no other log has them."""


class Committer:
    """Takes events and their effects.

    An effect runs when its event is synced here and appended by the standby.

    `soon` runs a callable later in this or the next loop turn, `later` after some milliseconds: news from the
    exchange is in the router's durable log already, so that its sync may wait and share that of the next
    order. While the disk is full (`full`) records wait in memory, in order, and nothing is released; whoever
    owns the committer calls `flush` again now and then. `on_full` tells of the beginning and (None) the end.
    `replicate(first, last, bytes)` hands records to the standby while there is one; while
    `needs_standby`, effects wait for its answer. While `held`, nothing is released: the loss of the standby
    is being registered.
    """

    def __init__(
        self,
        state: State,
        journal: Journal,
        *,
        clock: Clock,
        soon: Callable[[Effect], object],
        later: Callable[[Effect], object] | None = None,
        on_applied: Callable[[Event], None] | None = None,
        on_full: Callable[[DiskFullError | None], None] = lambda _: None,
    ) -> None:
        self.state = state
        self.journal = journal
        self.replicate: Replicate | None = None
        self.held = False
        self.full: DiskFullError | None = None
        self.needs_standby = False
        self.standby_seq = 0
        self.batches = 0
        self.syncs = 0
        self.sync_ns = 0
        """Time spent in syncing, for the metrics."""
        self.standby_ns = 0
        """Time from handing a batch to the standby until its answer, for the metrics."""
        self._asked_ns = 0
        self._mono, self._wall = clock
        self._soon = soon
        self._later = later or soon
        self._on_applied = on_applied
        self._on_full = on_full
        self._pending: list[bytes] = []
        self._effects: deque[tuple[int, Effect]] = deque()
        self._flush_soon = False
        self._flush_later = False

    def submit(self, event: Event, effect: Effect | None = None) -> None:
        """Decide an event: it is applied now, and `effect` runs once it is durable."""
        record = Record(self.state.seq + 1, self._mono(), self._wall(), event)
        self.state.apply(record)
        self._pending.append(frame(record))
        if self._on_applied is not None:
            self._on_applied(event)
        if effect is not None:
            self._effects.append((self.state.seq, effect))
        if isinstance(event, URGENT):
            self._schedule()
        elif not (self.full or self._flush_soon or self._flush_later):
            self._flush_later = True
            self._later(self._flush_if_due)

    def then(self, effect: Effect) -> None:
        """Run `effect` once everything submitted so far is durable."""
        self._effects.append((self.state.seq, effect))
        self._schedule()

    def _schedule(self) -> None:
        if not (self._flush_soon or self.full):
            self._flush_soon = True
            self._soon(self.flush)

    def _flush_if_due(self) -> None:
        if self._flush_later:
            self.flush()

    def flush(self) -> None:
        """Write, replicate, sync, release: one system call each, however many events there are."""
        self._flush_soon = self._flush_later = False
        if self._pending:
            data = b"".join(self._pending)
            first, last = self.journal.written + 1, self.state.seq
            if not self._write(data, last):
                return
            self._pending.clear()
            if self.replicate is not None:
                self._asked_ns = self._mono()
                self.replicate(first, last, data)
            self.batches += 1
        self._sync()
        self.release()

    def _write(self, data: bytes, last: int) -> bool:
        """Write to the journal; False while there is no room."""
        was = self.full
        try:
            self.journal.write(data, last=last, last_crc=HEAD.unpack_from(self._pending[-1])[1])
        except DiskFullError as error:
            self.full = error
            if was is None:
                self._on_full(error)
            return False
        self.full = None
        if was is not None:
            self._on_full(None)
        return True

    def _sync(self) -> None:
        """Sync here: a thread would have to win the interpreter back, and that costs more."""
        if self.journal.synced != self.journal.written:
            began_ns = self._mono()
            self.journal.sync()
            self.syncs += 1
            self.sync_ns += self._mono() - began_ns

    def appended(self, seq: int) -> None:
        """Take the standby's word that it has everything up to `seq`."""
        self.standby_seq = max(self.standby_seq, seq)
        if seq == self.journal.written and self._asked_ns:
            self.standby_ns += self._mono() - self._asked_ns
            self._asked_ns = 0
        self.release()

    @property
    def released(self) -> int:
        """Records up to here are durable everywhere they must be."""
        synced = self.journal.synced
        return min(synced, self.standby_seq) if self.needs_standby else synced

    @property
    def waiting(self) -> int:
        """Effects not yet released."""
        return len(self._effects)

    def release(self) -> None:
        """Run the effects whose events are durable."""
        if self.held:
            return
        bound = self.released
        while self._effects and self._effects[0][0] <= bound:
            self._effects.popleft()[1]()

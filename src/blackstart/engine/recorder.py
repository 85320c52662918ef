"""The recorder: the sink of a running trial.

Everything goes to the history writer, and past whoever listens live.

Service events arrive one or few at a time and are most of a history: they are merged into batches of at most
50 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from blackstart.model.record import Injected, Record, ServiceBatch

if TYPE_CHECKING:
    from blackstart.contracts import Clock
    from blackstart.history.writer import HistoryWriter

BATCH_NS = 50_000_000
Listener = Callable[[Record], None]


class Recorder:
    """Takes records (it is a `Sink`), keeps them in memory and in the file.

    Service events are most of the memory. Without `keep_events` they are in the file only, and `records`
    leaves them out: for whoever is judged from the file alone.
    """

    def __init__(self, writer: HistoryWriter, clock: Clock, *, keep_events: bool = True) -> None:
        self.writer = writer
        self._clock = clock
        self._keep_events = keep_events
        self._records: list[Record] = []
        self._listeners: list[Listener] = []
        self._batches: dict[str, list[tuple[int, str, int]]] = {}
        self._batch_since_ns = 0

    def __call__(self, record: Record) -> None:
        """Take one record. Never raises for a full disk: `writer.error` tells."""
        if isinstance(record, ServiceBatch):
            self._gather(record)
        else:
            if isinstance(record, Injected):
                self._close_batches()  # what was seen before the fault stands before it in the history
            self._keep(record)
        for listener in self._listeners:
            listener(record)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Show every record to `listener` as it arrives; the answer stops it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def flush(self) -> None:
        """Close open batches and hand everything to the kernel; the conductor does this every 50 ms."""
        self._close_batches()
        self.writer.flush()

    def sync(self) -> None:
        """Flush, and wait for the disk."""
        self._close_batches()
        self.writer.sync()

    def records(self) -> Sequence[Record]:
        """Return what was recorded so far, also when the disk is full."""
        self._close_batches()
        return tuple(self._records)

    def _gather(self, batch: ServiceBatch) -> None:
        now_ns = self._clock.now().mono_ns
        if not self._batches:
            self._batch_since_ns = now_ns
        self._batches.setdefault(batch.service, []).extend(batch.events)
        if now_ns - self._batch_since_ns >= BATCH_NS:
            self.flush()

    def _close_batches(self) -> None:
        batches, self._batches = self._batches, {}
        for service, events in batches.items():
            self._keep(ServiceBatch(service=service, events=events))

    def _keep(self, record: Record) -> None:
        if self._keep_events or not isinstance(record, ServiceBatch):
            self._records.append(record)
        self.writer.append(record)

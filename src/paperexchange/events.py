"""The event stream: ledger entries, as they became durable, to whoever listens."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final

from paperexchange.errors import ExchangeError
from paperexchange.facts import KINDS
from paperexchange.ledger.lines import Reader, header_decoder
from paperexchange.ledger.writer import Ledger, Written

QUIET: Final = frozenset({"bytes_received", "next_in", "next_out"})
"""Kinds that are streamed only when asked for by name."""
_MAX_WAITING: Final = 200_000
_READ_AT_ONCE: Final = 5_000


class Filter:
    """Which entries a listener wants."""

    def __init__(self, kinds: frozenset[str] = frozenset(), account: str = "") -> None:
        """No kinds: all but the quiet ones. With an account, entries of other accounts are left out."""
        unknown = kinds - frozenset(KINDS.values())
        if unknown:
            raise ExchangeError(
                f"unknown event kind {' '.join(sorted(unknown))}",
                where="kinds",
                hint="one of " + " ".join(KINDS.values()),
            )
        self._kinds = kinds
        self._account = account

    def wants(self, kind: str, account: str) -> bool:
        """Whether an entry of that kind and account is wanted."""
        if self._account and account and account != self._account:
            return False
        return kind in self._kinds if self._kinds else kind not in QUIET


class Subscriber:
    """One listener; `wake` is set when there is something for it."""

    def __init__(self, chosen: Filter, after_seq: int) -> None:
        """Entries up to `after_seq` come from the ledger file, later ones as they happen."""
        self.filter = chosen
        self.after_seq = after_seq
        self.wake = asyncio.Event()
        self.waiting: deque[bytes] = deque()
        self.too_slow = False

    def offer(self, kind: str, account: str, body: bytes) -> None:
        """Queue an entry if it is wanted."""
        if not self.filter.wants(kind, account):
            return
        if len(self.waiting) >= _MAX_WAITING:
            self.too_slow = True
        else:
            self.waiting.append(body)
        self.wake.set()

    def drain(self) -> bytes:
        """Everything that waits, as lines."""
        bodies = list(self.waiting)
        self.waiting.clear()
        self.wake.clear()
        return b"\n".join(bodies) + b"\n" if bodies else b""


class Hub:
    """Hands durable entries to subscribers."""

    def __init__(self, ledger: Ledger) -> None:
        """`ledger` serves the past."""
        self.subscribers: set[Subscriber] = set()
        self._ledger = ledger

    def publish(self, entries: list[Written]) -> None:
        """Entries that just became durable."""
        if not self.subscribers:
            return
        for fact, body in entries:
            kind = KINDS[type(fact)]
            for subscriber in self.subscribers:
                subscriber.offer(kind, fact.account, body)

    def subscribe(self, chosen: Filter) -> Subscriber:
        """Listen from the next durable entry on."""
        subscriber = Subscriber(chosen, self._ledger.durable_seq)
        self.subscribers.add(subscriber)
        return subscriber

    def past(self, since: int, until: int, chosen: Filter) -> Iterator[bytes]:
        """Wanted entries after `since` up to `until`, from the file. Blocks on the disk."""
        _, offset = self._ledger.offset_before(since + 1)
        for line in Reader(self._ledger.path, offset=offset, after_seq=None):
            if line.seq > until:
                return
            if line.seq > since:
                header = header_decoder.decode(line.body)
                if chosen.wants(header.kind, header.account):
                    yield line.body

    async def stream(
        self, since: int | None, chosen: Filter, heartbeat_s: float = 0.1
    ) -> AsyncGenerator[bytes]:
        """Lines without end: the past after `since` (None: none), then the present; b"" is a heartbeat."""
        subscriber = self.subscribe(chosen)
        try:
            if since is not None:
                past = self.past(since, subscriber.after_seq, chosen)
                while chunk := await asyncio.to_thread(list, islice(past, _READ_AT_ONCE)):
                    yield b"\n".join(chunk) + b"\n"
            while not subscriber.too_slow:
                try:
                    await asyncio.wait_for(subscriber.wake.wait(), heartbeat_s)
                except TimeoutError:
                    yield b""
                if data := subscriber.drain():
                    yield data
        finally:
            self.subscribers.discard(subscriber)

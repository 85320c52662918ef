"""Appends entries in groups: one write and one fdatasync for everything that came up meanwhile.

Effects (bytes to members, events, market data) are handed over with `after` and run once the group with
every entry recorded before them is on stable storage. A thread waits for the disk, the loop never does.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple
from zlib import crc32

from paperexchange.facts import Fact, decoder, encoder
from paperexchange.ledger.lines import Reader

_INDEX_EVERY = 256
_COMPANY_S = 0.02


class Written(NamedTuple):
    """An entry and the JSON under which it stands in the ledger."""

    fact: Fact
    body: bytes


class Group(NamedTuple):
    """What is written and synced together, and what may happen afterwards."""

    entries: list[Written]
    lines: list[bytes]
    effects: list[Callable[[], None]]
    last_seq: int


class Ledger:
    """The append-only file; `seq` is the last recorded entry, `durable_seq` the last one on the disk."""

    def __init__(
        self,
        path: Path,
        *,
        seq: int = 0,
        on_durable: Callable[[list[Written]], None] = lambda _: None,
        on_failure: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """Append to `path` after entry `seq`; `on_failure` is told when the disk refuses."""
        self.path = path
        self.seq = seq
        self.durable_seq = seq
        self.on_durable = on_durable
        self._on_failure = on_failure
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.size = os.fstat(self._fd).st_size
        self.index: list[tuple[int, int]] = []
        self.group_no = 0
        self._later: asyncio.TimerHandle | None = None
        self._entries: list[Written] = []
        self._lines: list[bytes] = []
        self._effects: list[Callable[[], None]] = []
        self._busy = False
        self._scheduled = False
        self._closing = False
        self._groups: SimpleQueue[Group | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_groups, name="ledger", daemon=True)
        self._thread.start()

    def append(self, fact: Fact) -> None:
        """Put the entry, under the next number, into the next group."""
        self._add(fact)
        if not self._scheduled:
            self._schedule()

    def append_later(self, fact: Fact) -> None:
        """Put the entry under the next number; it may wait for company, because no effect depends on it."""
        self._add(fact)
        if not self._scheduled and self._later is None:
            self._later = self._loop.call_later(_COMPANY_S, self._schedule)

    def _add(self, fact: Fact) -> None:
        self.seq = fact.seq = self.seq + 1
        body = encoder.encode(fact)
        line = b"%08x %b\n" % (crc32(body), body)
        if fact.seq % _INDEX_EVERY == 1:
            self.index.append((fact.seq, self.size))
        self.size += len(line)
        self._entries.append(Written(fact, body))
        self._lines.append(line)

    def after(self, effect: Callable[[], None]) -> None:
        """Run `effect` when everything recorded so far is durable, in the order of the calls."""
        self._effects.append(effect)
        if not self._scheduled:
            self._schedule()

    async def barrier(self) -> None:
        """Wait until everything recorded so far is durable."""
        if self.durable_seq >= self.seq:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self.after(lambda: None if done.done() else done.set_result(None))
        await done

    def offset_before(self, seq: int) -> tuple[int, int]:
        """Give an entry number not above `seq` and the offset at which its line begins."""
        position = min((seq - 1) // _INDEX_EVERY, len(self.index) - 1)
        while position > 0 and self.index[position][0] > seq:
            position -= 1
        return self.index[position] if position >= 0 else (1, 0)

    def entries_from(self, seq: int) -> Iterator[Fact]:
        """Read entries from number `seq` on, as far as they are in the file."""
        _, offset = self.offset_before(seq)
        for line in Reader(self.path, offset=offset, after_seq=None):
            if line.seq >= seq:
                yield decoder.decode(line.body)

    def _schedule(self) -> None:
        self._scheduled = True
        if not self._busy:
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._busy or not (self._lines or self._effects):
            return
        self._busy = True
        self.group_no += 1
        group = Group(self._entries, self._lines, self._effects, self.seq)
        self._entries, self._lines, self._effects = [], [], []
        if group.lines:
            self._groups.put(group)
        else:
            self._finished(group, None)

    def _write_groups(self) -> None:
        while (group := self._groups.get()) is not None:
            failure: OSError | None = None
            try:
                _write_all(self._fd, b"".join(group.lines))
                os.fdatasync(self._fd)
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is gone: the process is ending
                self._loop.call_soon_threadsafe(self._finished, group, failure)

    def _finished(self, group: Group, failure: OSError | None) -> None:
        if failure is not None:
            self._on_failure(failure)
            return
        self.durable_seq = group.last_seq
        self._busy = False
        for effect in group.effects:
            effect()
        if group.entries:
            self.on_durable(group.entries)
        if self._scheduled:  # entries that may wait for company do not begin a group of their own
            self._start()

    async def close(self) -> None:
        """Write what is left and close the file."""
        await self.barrier()
        self._groups.put(None)
        self._thread.join()
        os.close(self._fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

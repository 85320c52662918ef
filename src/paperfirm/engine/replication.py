"""Journal replication. The primary streams records to the standby; the standby writes, applies, answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from paperfirm.engine import checkpoint, journal
from paperfirm.engine.errors import DiskFullError, EngineError, FsyncFailedError
from paperfirm.frames import Link, listen
from paperfirm.wire import Append, Appended, Beat, Hello, Image, Message, Synced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from paperfirm.engine.commit import Committer
    from paperfirm.engine.store import Store

    Emit = Callable[..., int]
    Register = Callable[[bool], Awaitable[None]]

CHUNK_BYTES = 1 << 18
HIGH_WATER_BYTES = 8 << 20


class Chunk(msgspec.Struct, frozen=True):
    """Framed records `first`..`last`, byte for byte."""

    first: int
    last: int
    data: bytes


class Tail:
    """Reads the records behind number `after` from the segments, and goes on where it stopped.

    What it has read it does not look at again: a standby that has to be brought up to date under load would
    otherwise fall behind by as many records as arrive while a long segment is gone through, for ever.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        self.position = after
        self._folder = folder
        self._segment: Path | None = None
        self._offset = 0

    def chunks(self, upto: int) -> Iterator[Chunk]:
        """Yield the framed records from behind `position` to `upto`, in pieces.

        Raises EngineError on a hole, OSError when a segment was removed meanwhile.
        """
        while self.position < upto:
            before = self.position
            yield from self._pieces(self._rest(), upto)
            if self.position == before:
                raise self._hole(upto)

    def _rest(self) -> bytes:
        """Read what is behind `position` in its segment, which is sought when the last one is at its end."""
        wanted = self.position + 1
        found = [one for one in journal.segments(self._folder) if journal.first_seq(one) <= wanted]
        segment = found[-1] if found else None
        if segment is None:
            raise self._hole(wanted)
        if segment != self._segment:
            data = segment.read_bytes()
            self._segment, self._offset = segment, _skipped(data, wanted - journal.first_seq(segment))
            return data[self._offset :]
        with segment.open("rb") as file:
            file.seek(self._offset)
            return file.read()

    def _pieces(self, data: bytes, upto: int) -> Iterator[Chunk]:
        start = offset = 0
        begin = seq = self.position + 1
        while offset < len(data) and seq <= upto and (width := _width(data, offset)):
            offset += width
            if offset - start >= CHUNK_BYTES or seq == upto:
                yield self._chunk(begin, seq, data[start:offset])
                start, begin = offset, seq + 1
            seq += 1
        if offset > start:
            yield self._chunk(begin, seq - 1, data[start:offset])

    def _chunk(self, first: int, last: int, data: bytes) -> Chunk:
        self.position, self._offset = last, self._offset + len(data)
        return Chunk(first, last, data)

    def _hole(self, upto: int) -> EngineError:
        what = f"records {self.position + 1} to {upto} are not there; the standby gets an image"
        return EngineError(f"{self._folder}: {what}")


def next_crc(tail: Tail) -> int | None:
    """Read one record and return its CRC, None if it is not there (any more)."""
    try:
        (chunk,) = tail.chunks(tail.position + 1)
    except EngineError:
        return None
    crc: int = journal.HEAD.unpack_from(chunk.data)[1]
    return crc


def _skipped(data: bytes, records: int) -> int:
    """Return where so many records end."""
    offset = 0
    for _ in range(records):
        if offset >= len(data) or not (width := _width(data, offset)):
            break
        offset += width
    return offset


def _width(data: bytes, offset: int) -> int:
    """Return the length of a framed record; 0 for room that was never used."""
    if offset + journal.HEAD.size > len(data):
        return 0
    length: int = journal.HEAD.unpack_from(data, offset)[0]
    return journal.HEAD.size + length if length else 0


class Primary:
    """Serves one standby.

    While it is in step, the committer releases nothing without it.

    `register(in_sync)` persists at the supervisor whether the standby may be promoted; it returns only when
    done.
    """

    def __init__(
        self, store: Store, committer: Committer, *, register: Register, emit: Emit, timeout_s: float
    ) -> None:
        self._store = store
        self._committer = committer
        self._register = register
        self._emit = emit
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._asked_since_s: float | None = None
        self._warned = False
        self.standby = ""
        self.since_mono_ns = 0

    @property
    def in_step(self) -> bool:
        """Whether effects wait for the standby now."""
        return self._committer.needs_standby and not self._committer.held

    async def open(self, port: int) -> None:
        """Listen for the standby."""
        self._server = await listen(port, lambda: Link(self._on_message, on_close=self._on_close))

    async def close(self) -> None:
        """Stop listening and let the standby go."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._link is not None:
            self._link.close()

    def _on_message(self, link: Link, message: Message) -> None:
        if isinstance(message, Hello):
            self._start(self._stream(link, message))
        elif isinstance(message, Appended) and link is self._link:
            self._asked_since_s = None
            self._committer.appended(message.seq)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, link: Link, hello: Hello) -> None:
        """Bring a standby up to date, then count on it."""
        if self._link is not None:
            self._link.abort()
            await self._link.closed.wait()
        try:
            tail = self._begin(link, hello)
            while tail.position < self._store.journal.written:
                await self._catch_up(link, tail)
        except (EngineError, OSError) as error:  # OSError: a segment was pruned under our hands
            self._emit("replication_failed", reason=str(error))
            link.abort()
            return
        if link.connected:
            self._attach(link, hello.engine, tail.position)
            await self._count_on(link, tail.position)

    def _begin(self, link: Link, hello: Hello) -> Tail:
        """Send what the tail follows, and return that.

        Nothing, if the standby's journal is a prefix of ours, else a checkpoint.
        """
        epoch = self._committer.state.epoch
        folder = self._store.journal_folder
        possible = 0 < hello.last_seq <= self._store.journal.written and hello.last_crc
        tail = Tail(folder, after=hello.last_seq - 1)
        if possible and next_crc(tail) == hello.last_crc:
            link.send(Image(hello.last_seq, epoch, b""))
            return tail
        found, _ = checkpoint.newest_valid(self._store.checkpoint_folder)
        seq, payload = (found.seq, found.payload) if found is not None else (0, b"")
        link.send(Image(seq, epoch, payload))
        return Tail(folder, after=seq)

    async def _catch_up(self, link: Link, tail: Tail) -> None:
        for chunk in tail.chunks(self._store.journal.written):
            link.send(Append(chunk.first, chunk.last, chunk.data))
            await asyncio.sleep(0)
            while link.connected and link.buffered > HIGH_WATER_BYTES:  # noqa: ASYNC110 - polled only when full
                await asyncio.sleep(0.001)
        if not link.connected:
            raise EngineError("the standby left while it was brought up to date; it will come again")

    def _attach(self, link: Link, engine: str, position: int) -> None:
        """From now on every batch goes to this link (no await since the last chunk)."""
        self._link = link
        self.standby = engine
        self._committer.standby_seq = 0
        self._committer.replicate = self._replicate
        if position == 0:
            self._committer.appended(0)

    def _replicate(self, first: int, last: int, data: bytes) -> None:
        if self._link is not None:
            self._link.send(Append(first, last, data))
            self._link.flush()
            if self._asked_since_s is None:
                self._asked_since_s = asyncio.get_running_loop().time()

    async def _count_on(self, link: Link, position: int) -> None:
        while link is self._link and (self._committer.held or self._committer.standby_seq < position):  # noqa: ASYNC110 - once a sync
            await asyncio.sleep(0.001)
        if link is not self._link:
            return
        self._committer.needs_standby = True
        await self._register(True)
        if link is self._link:
            link.send(Synced(position))
            self.since_mono_ns = self._emit("standby_synced", standby=self.standby, seq=position)

    def check(self, now_s: float) -> None:
        """Cut a standby that owes an answer for too long; called by a timer.

        It gets a sign of life each time. Only the second look in a row counts: after a pause of our own its
        answer may be waiting to be read.
        """
        if self._link is not None:
            self._link.send(Beat(time.monotonic_ns()))
        asked = self._asked_since_s
        late = asked is not None and now_s - asked > self._timeout_s
        warned, self._warned = self._warned, late
        if self._link is not None and asked is not None and late and warned:
            self._emit("replication_stalled", standby=self.standby, waited_s=round(now_s - asked, 3))
            self._asked_since_s = None
            self._link.abort()

    def _on_close(self, link: Link, error: Exception | None) -> None:
        if link is not self._link:
            return
        self._link = None
        self._asked_since_s = None
        committer = self._committer
        committer.replicate = None
        if committer.needs_standby:
            committer.held = True
            self.since_mono_ns = self._emit(
                "peer_lost", peer=self.standby, reason=str(error or "connection closed")
            )
            self._start(self._go_on_alone())

    async def _go_on_alone(self) -> None:
        """Register first that the standby may no longer be promoted; only then release what waits."""
        await self._register(False)
        committer = self._committer
        committer.needs_standby = False
        committer.held = False
        self._emit("replication_degraded", standby=self.standby, seq=committer.state.seq)
        committer.release()


class Follower:
    """The standby's side: keeps the store equal to the primary's."""

    def __init__(self, store: Store, *, engine: str, emit: Emit, on_reset: Callable[[], None]) -> None:
        self._store = store
        self._engine = engine
        self._emit = emit
        self._on_reset = on_reset
        self._ready = False
        self.in_step = False
        self.error: EngineError | None = None
        self.heard_s = asyncio.get_running_loop().time()
        """When the primary last said anything."""

    def on_open(self, link: Link) -> None:
        """Introduce ourselves."""
        self._ready = False
        self.in_step = False
        written = self._store.journal
        link.send(Hello(self._engine, written.written, self._store.state.epoch, written.last_crc))

    def on_message(self, link: Link, message: Message) -> None:
        """Write, apply, answer; a stream that does not fit is cut and begun anew."""
        self.heard_s = asyncio.get_running_loop().time()
        try:
            if isinstance(message, Image):
                self._image(message)
                link.send(Appended(message.seq))
            elif isinstance(message, Append) and self._ready:
                self._append(message)
                link.send(Appended(message.last))
            elif isinstance(message, Synced):
                self.in_step = True
                self._emit("standby_synced", epoch=self._store.state.epoch, seq=self._store.state.seq)
        except (DiskFullError, FsyncFailedError):
            raise  # no resync helps: this process ends, and comes back when the disk is well
        except EngineError as error:
            self.error = error
            self._emit("replication_failed", reason=str(error))
            link.abort()

    def _image(self, image: Image) -> None:
        if image.payload or image.seq != self._store.state.seq:
            self._store.reset(image.payload, image.seq)
            self._on_reset()
        self._ready = True

    def _append(self, batch: Append) -> None:
        state = self._store.state
        if batch.first != state.seq + 1:
            raise EngineError(
                f"records {batch.first} to {batch.last} arrived after {state.seq}; syncing anew"
            )
        crc = 0
        for raw in journal.scan(batch.records, name="replication stream", last=False):
            state.apply(journal.decode(raw.payload))
            crc = raw.crc
        self._store.journal.write(batch.records, last=batch.last, last_crc=crc)

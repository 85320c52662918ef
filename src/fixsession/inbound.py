"""Incoming side: the number expected, what waits behind a gap, and which part of it was asked for."""

from __future__ import annotations

import msgspec

from fixsession.message import Message  # noqa: TC001  # msgspec reads the annotations


class MissingRange(msgspec.Struct):
    """Messages up to `end` are missing; asked for up to `asked_to` (0: infinity); `reached` at `since_ns`."""

    end: int
    asked_to: int
    since_ns: int
    reached: int


class Inbound:
    """Counts and queues; knows nothing of the session's state."""

    def __init__(self, next_in: int, *, chunk: int, max_queue: int) -> None:
        self.next_in = next_in
        self.queue: dict[int, Message] = {}
        self.missing: MissingRange | None = None
        self._chunk = chunk
        self._max_queue = max_queue

    def restart(self, next_in: int) -> None:
        """Expect `next_in` and forget what waited."""
        self.next_in = next_in
        self.queue.clear()
        self.missing = None

    def keep(self, seq_num: int, message: Message) -> None:
        """Let a message wait for its turn; beyond the limit it has to be asked for again."""
        if len(self.queue) < self._max_queue:
            self.queue.setdefault(seq_num, message)

    def jump(self, next_in: int) -> None:
        """Everything below `next_in` was filled."""
        self.next_in = next_in
        for seq_num in [seq_num for seq_num in self.queue if seq_num < next_in]:
            del self.queue[seq_num]

    def take(self) -> Message | None:
        """Take the queued message whose turn it is."""
        return self.queue.pop(self.next_in, None)

    def request(self, end: int, now_ns: int) -> tuple[int, int]:
        """Note that everything up to `end` is missing; BeginSeqNo (7) and EndSeqNo (16) to ask for."""
        begin = self.next_in
        in_pieces = self._chunk and end - begin + 1 > self._chunk
        asked_to = begin + self._chunk - 1 if in_pieces else 0
        self.missing = MissingRange(end, asked_to, now_ns, begin)
        return begin, asked_to

    def expect(self, end: int, now_ns: int) -> None:
        """Note that everything up to `end` is missing and comes without being asked for."""
        self.missing = MissingRange(end, 0, now_ns, self.next_in)

    def due_request(self, now_ns: int) -> tuple[int, int] | None:
        """After progress: the next piece of this gap, or the next gap among the queued messages."""
        missing = self.missing
        if missing is not None and self.next_in <= missing.end:
            if self.next_in > missing.reached:
                missing.reached, missing.since_ns = self.next_in, now_ns
            if missing.asked_to and self.next_in > missing.asked_to:
                return self.request(missing.end, now_ns)
            return None
        self.missing = None
        return self.request(min(self.queue) - 1, now_ns) if self.queue else None

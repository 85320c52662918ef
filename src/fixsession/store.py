"""What a session must not forget, as a protocol; the store in memory; the controls of item 13."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from fixsession.errors import FixError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stored(NamedTuple):
    """An outgoing message as it was first sent."""

    seq_num: int
    raw: bytes
    wall_ns: int


class SessionStore(Protocol):
    """Sequence numbers and outgoing messages of one session, durable as far as the implementation promises.

    The session is the only writer while it lives. Every setter is effective when it returns.
    """

    @property
    def next_in(self) -> int:
        """Number of the first incoming message that the owner has not committed."""

    @property
    def next_out(self) -> int:
        """Number of the next outgoing message."""

    @next_out.setter
    def next_out(self, value: int) -> None: ...

    @property
    def unsent_from(self) -> int:
        """First message numbered while nobody was logged on and not offered to the other yet; 0: none."""

    @unsent_from.setter
    def unsent_from(self, value: int) -> None: ...

    @property
    def created_wall_ns(self) -> int:
        """When numbering began at 1, in Unix time; 0: never used."""

    def save_in(self, next_in: int, wall_ns: int) -> None:
        """Commit everything below `next_in` as processed."""

    def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
        """Keep an outgoing message and set `next_out` to `seq_num` + 1, both or neither."""

    def load_out(self, begin: int, end: int) -> Iterator[Stored]:
        """Read the kept messages from `begin` to `end`, both included, in order; skips missing ones."""

    def reset(self, wall_ns: int) -> None:
        """Forget everything; both numbers are 1, created at `wall_ns`."""

    def sync(self) -> None:
        """Make everything saved so far survive power loss."""


@runtime_checkable
class StoreControls(Protocol):
    """What a tester does to a store; effective at the next logon."""

    def wipe(self) -> None:
        """Lose everything."""

    def roll_back(self, n: int, *, outgoing: bool = True, incoming: bool = False) -> None:
        """Forget the last `n` numbers, as after restoring an old copy; never below 1."""

    def jump_ahead(self, n: int) -> None:
        """Skip `n` outgoing numbers; nothing is kept under them."""


class MemoryStore:
    """Lives as long as the process; for tests and for sessions that reset at logon."""

    def __init__(self) -> None:
        self.next_in = 1
        self.next_out = 1
        self.unsent_from = 0
        self.created_wall_ns = 0
        self._kept: dict[int, Stored] = {}

    def save_in(self, next_in: int, wall_ns: int) -> None:  # noqa: ARG002
        """Commit everything below `next_in`."""
        self.next_in = next_in

    def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
        """Keep an outgoing message."""
        self._kept[seq_num] = Stored(seq_num, raw, wall_ns)
        self.next_out = seq_num + 1

    def load_out(self, begin: int, end: int) -> Iterator[Stored]:
        """Read the kept messages from `begin` to `end`."""
        kept = self._kept
        return (kept[seq_num] for seq_num in range(begin, min(end, self.next_out - 1) + 1) if seq_num in kept)

    def reset(self, wall_ns: int) -> None:
        """Forget everything."""
        self.next_in = self.next_out = 1
        self.unsent_from = 0
        self.created_wall_ns = wall_ns
        self._kept.clear()

    def sync(self) -> None:
        """Nothing to do."""

    def wipe(self) -> None:
        """Lose everything."""
        self.reset(0)

    def roll_back(self, n: int, *, outgoing: bool = True, incoming: bool = False) -> None:
        """Forget the last `n` numbers."""
        check_count(n)
        if outgoing:
            self.next_out = max(1, self.next_out - n)
            self._kept = {seq_num: kept for seq_num, kept in self._kept.items() if seq_num < self.next_out}
            self.unsent_from = self.unsent_from if self.unsent_from < self.next_out else 0
        if incoming:
            self.next_in = max(1, self.next_in - n)

    def jump_ahead(self, n: int) -> None:
        """Skip `n` outgoing numbers."""
        check_count(n)
        self.next_out += n


def check_count(n: int) -> None:
    """Refuse a count that is not positive."""
    if n < 1:
        raise FixError(f"cannot move sequence numbers by {n}; give a count of 1 or more")

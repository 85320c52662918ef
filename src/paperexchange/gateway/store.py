"""A FIX session store that is the truth ledger: numbers and messages live there, and nowhere else.

A number is thus durable before the message that carries it leaves the exchange, and a recovery cannot find a
report of an order that is not booked.
"""

from array import array
from collections.abc import Callable, Iterator

from fixsession.clock import Now
from fixsession.codec import decode
from fixsession.message import Message  # noqa: TC001  # at run time it stays cheap
from fixsession.store import Stored, check_count
from paperexchange import facts as f

Record = Callable[[f.Fact], None]
Archive = Callable[[int], Iterator[f.Fact]]
_AT_HAND = 10_000


class LedgerStore:
    """Implements `fixsession.store.SessionStore` and its controls for one session."""

    def __init__(
        self,
        session: str,
        gateway: str,
        account: str,
        *,
        record: Record,
        clock: Callable[[], Now],
        archive: Archive,
    ) -> None:
        """`record` writes an entry, `archive` reads entries from the given number on."""
        self.session = session
        self.gateway = gateway
        self.account = account
        self.next_in = 1
        self.unsent_from = 0
        self.created_wall_ns = 0
        self._next_out = 1
        self._record = record
        self._clock = clock
        # The latest messages are at hand; of older ones only the number of their ledger entry is kept.
        self._kept: dict[int, Stored] = {}
        self._entries = array("Q")
        self._archive = archive
        # The message that is being sent: its entry names what it is about without decoding it again.
        self.about: Message | None = None

    @property
    def next_out(self) -> int:
        """Number of the next outgoing message."""
        return self._next_out

    @next_out.setter
    def next_out(self, value: int) -> None:
        self._next_out = value
        now = self._clock()
        self._record(
            f.NextOutgoing(
                mono_ns=now.mono_ns,
                wall_ns=now.wall_ns,
                account=self.account,
                session=self.session,
                gateway=self.gateway,
                next_out=value,
            )
        )

    def save_in(self, next_in: int, wall_ns: int) -> None:
        """Commit every incoming message below `next_in`."""
        self.next_in = next_in
        self._record(
            f.NextIncoming(
                mono_ns=self._clock().mono_ns,
                wall_ns=wall_ns,
                account=self.account,
                session=self.session,
                gateway=self.gateway,
                next_in=next_in,
            )
        )

    def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
        """Keep an outgoing message; its entry is `report_sent`."""
        about = self.about or decode(raw)
        fact = f.ReportSent(
            mono_ns=self._clock().mono_ns,
            wall_ns=wall_ns,
            account=self.account,
            session=self.session,
            gateway=self.gateway,
            seq_num=seq_num,
            msg_type=about.msg_type,
            data=raw,
            exec_id=about.get(17) or "",
            cl_ord_id=about.get(11) or "",
            exec_type=about.get(150) or "",
        )
        self._record(fact)
        self._keep(fact)

    def _keep(self, fact: f.ReportSent) -> None:
        seq_num = fact.seq_num
        self._next_out = seq_num + 1
        self._kept[seq_num] = Stored(seq_num, fact.data, fact.wall_ns)
        self._kept.pop(seq_num - _AT_HAND, None)
        while len(self._entries) < seq_num:
            self._entries.append(0)
        self._entries[seq_num - 1] = fact.seq

    def load_out(self, begin: int, end: int) -> Iterator[Stored]:
        """Give the kept messages from `begin` to `end`, both included."""
        wanted = range(max(begin, 1), min(end, self._next_out - 1, len(self._entries)) + 1)
        old = [self._entries[n - 1] for n in wanted if self._entries[n - 1] and n not in self._kept]
        if old:
            yield from self._from_archive(old)
        for number in wanted:
            if number in self._kept:
                yield self._kept[number]

    def _from_archive(self, entries: list[int]) -> Iterator[Stored]:
        """Give messages that are no longer at hand; `entries` are their ledger numbers, in order."""
        wanted = set(entries)
        for fact in self._archive(entries[0]):
            if fact.seq in wanted and isinstance(fact, f.ReportSent):
                yield Stored(fact.seq_num, fact.data, fact.wall_ns)
            if fact.seq >= entries[-1]:
                return

    def reset(self, wall_ns: int) -> None:
        """Forget everything; both numbers are 1."""
        self._forget(wall_ns)
        self._record(
            f.SessionReset(
                mono_ns=self._clock().mono_ns,
                wall_ns=wall_ns,
                account=self.account,
                session=self.session,
                gateway=self.gateway,
            )
        )

    def _forget(self, wall_ns: int) -> None:
        self.next_in = self._next_out = 1
        self.unsent_from = 0
        self.created_wall_ns = wall_ns
        self._kept.clear()
        del self._entries[:]

    def sync(self) -> None:
        """Nothing to do: the ledger is synced before a message leaves."""

    def wipe(self) -> None:
        """Lose everything (FIX 13)."""
        self.reset(0)

    def roll_back(self, n: int, *, outgoing: bool = True, incoming: bool = False) -> None:
        """Forget the last `n` numbers, as after restoring an old copy (FIX 13)."""
        check_count(n)
        if outgoing:
            self.next_out = max(1, self._next_out - n)
            self._drop_from(self._next_out)
        if incoming:
            self.save_in(max(1, self.next_in - n), self._clock().wall_ns)

    def _drop_from(self, first: int) -> None:
        self._kept = {number: kept for number, kept in self._kept.items() if number < first}
        del self._entries[first - 1 :]

    def jump_ahead(self, n: int) -> None:
        """Skip `n` outgoing numbers (FIX 13: a drop-copy failover jumps by 4000)."""
        check_count(n)
        self.next_out = self._next_out + n

    def apply(self, fact: f.Fact) -> None:
        """Take in an entry of this session on recovery."""
        if isinstance(fact, f.ReportSent):
            self._keep(fact)
        elif isinstance(fact, f.NextOutgoing):
            if fact.next_out < self._next_out:
                self._drop_from(fact.next_out)
            self._next_out = fact.next_out
        elif isinstance(fact, f.NextIncoming):
            self.next_in = fact.next_in
        elif isinstance(fact, f.SessionReset):
            self._forget(fact.wall_ns)


def field(raw: bytes, tag: bytes) -> str:
    """Give the value of the first field `tag` of an encoded message, or ''."""
    start = raw.find(b"\x01%b=" % tag)
    if start < 0:
        return ""
    start += len(tag) + 2
    return raw[start : raw.index(b"\x01", start)].decode("latin-1")

"""Outgoing side: header, numbering, storing before sending, and serving resends."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from fixsession.clock import SECOND_NS, format_utc
from fixsession.codec import decode, finish, split_header, write_fields
from fixsession.config import Refusal, SessionConfig
from fixsession.effects import Transmit
from fixsession.tags import (
    GAP_FILL,
    NEW_SEQ_NO,
    ORIG_SENDING_TIME,
    POSS_DUP,
    REJECT,
    SENDING_TIME,
    SEQUENCE_RESET,
    SESSION_TYPES,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fixsession.clock import Now
    from fixsession.message import Message, Pair
    from fixsession.store import SessionStore, Stored


class Replay(msgspec.Struct):
    """Where a resend stands: `next` to `end` are still to be answered, at `due_ns` (monotonic)."""

    next: int
    end: int
    due_ns: int


def everything(_: Message) -> bool:
    """Every application message may be resent."""
    return True


class Outbound:
    """Numbers, stores and encodes; knows nothing of the session's state."""

    def __init__(
        self,
        config: SessionConfig,
        store: SessionStore,
        *,
        may_resend: Callable[[Message], bool] = everything,
    ) -> None:
        self._config = config
        self._store = store
        self._may_resend = may_resend
        self._ids = f"\x0149={config.sender}\x0156={config.target}\x0134="
        self.replay: Replay | None = None
        self.held: list[Transmit] = []
        self.sending_skew_ns = 0

    def issue(self, msg_type: str, pairs: list[Pair], now: Now, next_in: int) -> Transmit:
        """Give a message the next number; it is stored before anybody sees it."""
        store = self._store
        seq_num = store.next_out
        data = self._encode(msg_type, seq_num, pairs, wall_ns=now.wall_ns, next_in=next_in)
        if msg_type in SESSION_TYPES and msg_type != REJECT:
            store.next_out = seq_num + 1
        else:
            store.save_out(seq_num, data, now.wall_ns)
        return Transmit(data, seq_num, msg_type)

    def _encode(
        self,
        msg_type: str,
        seq_num: int,
        pairs: list[Pair],
        *,
        wall_ns: int,
        next_in: int,
        first_sent: str = "",
    ) -> bytes:
        header, body = split_header(pairs)
        sent = format_utc(wall_ns + self.sending_skew_ns)
        head = f"35={msg_type}{self._ids}{seq_num}\x0152={sent}\x01"
        fields = 5 + len(header) + len(body)
        if first_sent:
            head += f"{POSS_DUP}=Y\x01{ORIG_SENDING_TIME}={first_sent}\x01"
            fields += 2
        if self._config.last_processed:
            head += f"369={next_in - 1}\x01"
            fields += 1
        if header:
            head += write_fields(header)
        return finish(self._config.begin_string, head + write_fields(body), fields)

    def begin_replay(self, begin: int, end: int, now: Now) -> None:
        """Answer `begin` to `end` from the next `advance` on; joins a replay that is still running."""
        running = self.replay
        if running is not None:
            begin, end = min(begin, running.next), max(end, running.end)
        self.replay = Replay(begin, end, now.mono_ns)
        if begin <= self._store.unsent_from <= end:
            self._store.unsent_from = 0

    def advance(self, now: Now, next_in: int) -> list[Transmit]:
        """Give the next part of the replay: all of it, or `resend_batch` messages."""
        replay = self.replay
        if replay is None or now.mono_ns < replay.due_ns:
            return []
        out: list[Transmit] = []
        for stored in self._resendable(replay, now):
            self._fill(replay, stored.seq_num, now, next_in, out)
            out.append(self._again(stored, now, next_in))
            replay.next = stored.seq_num + 1
        if self._config.resend_batch and len(out) >= self._config.resend_batch:
            replay.due_ns = now.mono_ns + int(self._config.resend_interval_s * SECOND_NS)
            if replay.next <= replay.end:
                return out
        self._fill(replay, replay.end + 1, now, next_in, out)
        self.replay = None
        out.extend(self.held)
        self.held = []
        return out

    def _resendable(self, replay: Replay, now: Now) -> Iterable[Stored]:
        if self._config.refuse_resend is Refusal.GAP_FILL:
            return ()
        window_ns = int(self._config.resend_window_s * SECOND_NS)
        oldest = now.wall_ns - window_ns if window_ns else 0
        kept = (
            stored
            for stored in self._store.load_out(replay.next, replay.end)
            if stored.wall_ns >= oldest and self._allowed(stored)
        )
        return islice(kept, self._config.resend_batch or None)

    def _allowed(self, stored: Stored) -> bool:
        if self._may_resend is everything:
            return True
        message = decode(stored.raw)
        return message.msg_type == REJECT or self._may_resend(message)

    def _again(self, stored: Stored, now: Now, next_in: int) -> Transmit:
        """Write the stored message with its number, 43=Y and 122 = the SendingTime it first had."""
        message = decode(stored.raw)
        first_sent = message.require(SENDING_TIME)
        msg_type = message.msg_type
        data = self._encode(
            msg_type,
            stored.seq_num,
            message.pairs,
            wall_ns=now.wall_ns,
            next_in=next_in,
            first_sent=first_sent,
        )
        return Transmit(data, stored.seq_num, msg_type, resend=True)

    def _fill(self, replay: Replay, to: int, now: Now, next_in: int, out: list[Transmit]) -> None:
        """Write one GapFill over what is not resent before `to`."""
        if replay.next >= to:
            return
        pairs = [(GAP_FILL, "Y"), (NEW_SEQ_NO, str(to))]
        sent = format_utc(now.wall_ns + self.sending_skew_ns)
        data = self._encode(
            SEQUENCE_RESET, replay.next, pairs, wall_ns=now.wall_ns, next_in=next_in, first_sent=sent
        )
        out.append(Transmit(data, replay.next, SEQUENCE_RESET, resend=True))
        replay.next = to

    def forget(self) -> None:
        """Replay nothing: no connection, or numbering begins anew. What was held was never offered."""
        if self.held and not self._store.unsent_from:
            self._store.unsent_from = self.held[0].seq_num
        self.replay = None
        self.held = []
